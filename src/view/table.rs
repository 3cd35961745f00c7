//! The table files: `table.csv` (RFC 4180) and `table.jsonl`.
//!
//! The columns of a table are `_id`, `_timestamp`, and the flattened keys of the set in order. A cell is data, as it
//! is: a string without quotes of JSON, a number by its token, `null`, `true`, `false`; arrays and empty objects as
//! compact JSON. A missing key is an empty cell.

use std::io::Write as _;

use crate::name::{Id, Key};
use crate::value::{Object, Text, Value};

/// Writes the rows of one `table.csv`.
#[derive(Debug)]
pub struct Csv {
    /// The members that lead to the value of each column.
    columns: Vec<Vec<Text<'static>>>,
}

impl Csv {
    /// A table with these columns after the first two, and its header line. Keys of elements (`KEY[]`) make no column.
    pub fn new(keys: &[Key], out: &mut Vec<u8>) -> Self {
        out.extend_from_slice(b"_id,_timestamp");
        let mut columns = Vec::with_capacity(keys.len());
        for key in keys.iter().filter(|key| !key.is_elements()) {
            out.push(b',');
            cell(key.as_str().as_bytes(), out);
            columns.push(key.members());
        }
        out.extend_from_slice(b"\r\n");
        Self { columns }
    }

    /// Appends the row of an entry.
    pub fn row(&self, id: &Id, time: f64, object: &Object<'_>, out: &mut Vec<u8>) {
        cell(id.as_str().as_bytes(), out);
        out.push(b',');
        match object.get("_timestamp").or_else(|| object.get("$")) {
            Some(Value::Number(number)) => out.extend_from_slice(number.token().as_bytes()),
            _ => {
                // Writing to a vector cannot fail.
                let _ = write!(out, "{time}");
            }
        }
        for members in &self.columns {
            out.push(b',');
            if let Some(value) = leaf_at(object, members) {
                write_cell(value, out);
            }
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// Appends the line of an entry in `table.jsonl`: its exact object.
pub fn jsonl_row(record: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(record);
    out.push(b'\n');
}

/// The value at the end of a path of members, unless it has members itself: those are columns of their own.
fn leaf_at<'o>(object: &'o Object<'o>, members: &[Text<'static>]) -> Option<&'o Value<'o>> {
    match object.at_path(members) {
        Some(Value::Object(inner)) if !inner.is_empty() => None,
        found => found,
    }
}

fn write_cell(value: &Value<'_>, out: &mut Vec<u8>) {
    match value {
        Value::Number(number) => out.extend_from_slice(number.token().as_bytes()),
        Value::String(text) if text.as_str().is_some() => cell(text.as_bytes(), out),
        other => cell(other.to_text().as_bytes(), out),
    }
}

/// Appends a cell, in quotes if a reader needs them. An empty string is `""`: an empty cell is a missing key.
fn cell(bytes: &[u8], out: &mut Vec<u8>) {
    let plain =
        !bytes.is_empty() && memchr::memchr3(b',', b'"', b'\n', bytes).is_none() && !bytes.contains(&b'\r');
    if plain {
        out.extend_from_slice(bytes);
        return;
    }
    out.push(b'"');
    for (number, part) in bytes.split(|&byte| byte == b'"').enumerate() {
        if number > 0 {
            out.extend_from_slice(b"\"\"");
        }
        out.extend_from_slice(part);
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn csv(keys: &[&str], records: &[(&str, &str)]) -> String {
        let keys: Vec<Key> = keys.iter().map(|key| Key::parse(key).unwrap()).collect();
        let mut out = Vec::new();
        let table = Csv::new(&keys, &mut out);
        for (id, json) in records {
            table.row(&Id::new(id).unwrap(), 0.0, &Object::parse(json.as_bytes()).unwrap(), &mut out);
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn cells_are_data_as_they_are() {
        let text = csv(
            &["a", "opt.name", "tags", "tags[]"],
            &[
                (
                    "e1",
                    r#"{"_id":"/c/e1","a":0.10,"opt":{"name":"adam"},"tags":["x","y"],"_timestamp":12.50}"#,
                ),
                ("e2", r#"{"@":"e2","a":"=SUM(A1)","$":3}"#),
                ("e3", r#"{"@":"e3","a":"say \"hi\", you\nthere","opt":1,"tags":null,"$":3}"#),
                ("e4", r#"{"@":"e4","a":"","opt":{},"$":3}"#),
            ],
        );
        assert_eq!(
            text,
            "_id,_timestamp,a,opt.name,tags\r\n\
             e1,12.50,0.10,adam,\"[\"\"x\"\",\"\"y\"\"]\"\r\n\
             e2,3,=SUM(A1),,\r\n\
             e3,3,\"say \"\"hi\"\", you\nthere\",,null\r\n\
             e4,3,\"\",,\r\n"
        );
    }

    #[test]
    fn a_record_without_a_time_has_the_time_it_is_shown_with() {
        assert!(csv(&[], &[("e1", r#"{"@":"e1"}"#)]).ends_with("e1,0\r\n"));
    }

    #[test]
    fn lines_of_jsonl_are_the_exact_records() {
        let mut out = Vec::new();
        jsonl_row(br#"{"@": "e1", "lr": 1e-05}"#, &mut out);
        assert_eq!(out, b"{\"@\": \"e1\", \"lr\": 1e-05}\n");
    }
}
