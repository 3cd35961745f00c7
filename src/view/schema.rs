//! `schema.json`: which keys a set has, of which types, with which values.

use roaring::RoaringBitmap;
use serde_json::{Map, Value as Json, json};

use crate::index::Index;
use crate::value::Leaf;

/// How many of the most frequent values are listed.
const FREQUENT: usize = 10;

/// The schema of a set of rows, as one JSON document and a newline.
///
/// For each key: the number of entries that have it, the types with their counts, the number of distinct values,
/// minimum and maximum of its numbers, and the most frequent values with their counts. Numbers that JSON cannot
/// hold exactly (NaN, infinities, long integers) are strings.
pub fn schema(index: &Index, rows: &RoaringBitmap) -> String {
    let mut keys = Map::new();
    for key in index.keys(Some(rows)) {
        let values = index.values(&key, Some(rows));
        keys.insert(key.as_str().to_owned(), of_key(&values));
    }
    let document = json!({ "entries": rows.len(), "keys": keys });
    // A document made of maps, strings and finite numbers always has a text.
    let mut text = serde_json::to_string_pretty(&document).unwrap_or_default();
    text.push('\n');
    text
}

fn of_key(values: &[(Leaf, u64)]) -> Json {
    let mut types = Map::new();
    for (leaf, count) in values {
        let sum = types.get(type_name(leaf)).and_then(Json::as_u64).unwrap_or(0) + count;
        types.insert(type_name(leaf).to_owned(), sum.into());
    }
    let mut frequent: Vec<&(Leaf, u64)> = values.iter().collect();
    frequent.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    frequent.truncate(FREQUENT);
    let frequent: Vec<Json> =
        frequent.iter().map(|(leaf, count)| json!({ "value": to_json(leaf), "count": count })).collect();
    let mut key = Map::new();
    key.insert("count".to_owned(), values.iter().map(|(_, count)| count).sum::<u64>().into());
    key.insert("types".to_owned(), types.into());
    key.insert("distinct".to_owned(), values.len().into());
    // Values come in order, NaN after all other numbers.
    let mut numbers =
        values.iter().map(|(leaf, _)| leaf).filter(|leaf| matches!(leaf, Leaf::Double(_) | Leaf::Integer(_)));
    if let Some(minimum) = numbers.next() {
        key.insert("min".to_owned(), to_json(minimum));
        key.insert("max".to_owned(), to_json(numbers.next_back().unwrap_or(minimum)));
    }
    key.insert("frequent".to_owned(), frequent.into());
    key.into()
}

/// The name of a leaf's type, as in JSON Schema.
pub fn type_name(leaf: &Leaf) -> &'static str {
    match leaf {
        Leaf::Null => "null",
        Leaf::Bool(_) => "boolean",
        Leaf::Double(_) | Leaf::Integer(_) | Leaf::NaN => "number",
        Leaf::String(_) => "string",
        Leaf::Json(text) if text.starts_with('[') => "array",
        Leaf::Json(_) => "object",
    }
}

fn to_json(leaf: &Leaf) -> Json {
    let parsed = match leaf {
        Leaf::String(bytes) => std::str::from_utf8(bytes).ok().map(Json::from),
        // Beyond 2**53 a reader of JSON may round: those keep their digits, as a string.
        Leaf::Integer(_) => None,
        other => serde_json::from_str(&other.to_text()).ok(),
    };
    parsed.unwrap_or_else(|| Json::from(leaf.to_text()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_tells_types_range_and_frequent_values() {
        let values = [
            (Leaf::Null, 1),
            (Leaf::from(0.5), 2),
            (Leaf::from(3.0), 7),
            (Leaf::Integer("9007199254740993".into()), 1),
            (Leaf::NaN, 1),
            (Leaf::String((*b"x").into()), 4),
        ];
        assert_eq!(
            of_key(&values),
            json!({
                "count": 16,
                "types": {"null": 1, "number": 11, "string": 4},
                "distinct": 6,
                "min": 0.5,
                "max": "9007199254740993",
                "frequent": [
                    {"value": 3, "count": 7}, {"value": "x", "count": 4}, {"value": 0.5, "count": 2},
                    {"value": null, "count": 1}, {"value": "9007199254740993", "count": 1}, {"value": "NaN", "count": 1},
                ],
            })
        );
    }
}
