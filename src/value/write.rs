//! Writers: as Python's `json.dumps` prints, and compact.

use std::fmt::Write as _;

use super::text::{Piece, Pieces};
use super::{Object, Text, Value};

/// Appends a value as Python's `json.dumps` prints it.
pub(super) fn python(value: &Value<'_>, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Number(number) => out.extend_from_slice(number.token().as_bytes()),
        Value::String(text) => python_string(text, out),
        Value::Array(elements) => {
            out.push(b'[');
            for (number, element) in elements.iter().enumerate() {
                if number > 0 {
                    out.extend_from_slice(b", ");
                }
                python(element, out);
            }
            out.push(b']');
        }
        Value::Object(object) => python_object(object, out),
    }
}

/// Appends an object as Python's `json.dumps` prints it.
pub(super) fn python_object(object: &Object<'_>, out: &mut Vec<u8>) {
    out.push(b'{');
    for (number, (name, value)) in object.iter().enumerate() {
        if number > 0 {
            out.extend_from_slice(b", ");
        }
        python_string(name, out);
        out.extend_from_slice(b": ");
        python(value, out);
    }
    out.push(b'}');
}

fn python_string(text: &Text<'_>, out: &mut Vec<u8>) {
    let bytes = text.as_bytes();
    if bytes.iter().all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\')) {
        out.push(b'"');
        out.extend_from_slice(bytes);
        out.push(b'"');
        return;
    }
    let mut quoted = String::with_capacity(bytes.len() * 2);
    quote(text, &mut quoted, true);
    out.extend_from_slice(quoted.as_bytes());
}

/// Appends the canonical compact JSON of a value: nothing between, characters as they are but for control
/// characters and lone surrogates, canonical numbers, members sorted by name.
pub(super) fn compact(value: &Value<'_>, out: &mut String) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(true) => out.push_str("true"),
        Value::Bool(false) => out.push_str("false"),
        Value::Number(number) => out.push_str(&number.leaf().to_text()),
        Value::String(text) => quote(text, out, false),
        Value::Array(elements) => {
            out.push('[');
            for (number, element) in elements.iter().enumerate() {
                if number > 0 {
                    out.push(',');
                }
                compact(element, out);
            }
            out.push(']');
        }
        Value::Object(object) => {
            let mut members: Vec<_> = object.iter().collect();
            members.sort_unstable_by_key(|(name, _)| *name);
            out.push('{');
            for (number, (name, value)) in members.into_iter().enumerate() {
                if number > 0 {
                    out.push(',');
                }
                quote(name, out, false);
                out.push(':');
                compact(value, out);
            }
            out.push('}');
        }
    }
}

/// Appends a string in JSON quotes. Control characters and lone surrogates are always escaped, everything
/// that is not ASCII if `ascii`.
pub(super) fn quote(text: &Text<'_>, out: &mut String, ascii: bool) {
    out.push('"');
    for piece in Pieces(text.as_bytes()) {
        match piece {
            Piece::Utf8(valid) => {
                for character in valid.chars() {
                    quote_character(character, out, ascii);
                }
            }
            Piece::Surrogate(unit) => escape_unit(unit, out),
            Piece::Invalid => {}
        }
    }
    out.push('"');
}

fn quote_character(character: char, out: &mut String, ascii: bool) {
    match character {
        '"' => out.push_str("\\\""),
        '\\' => out.push_str("\\\\"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\x08' => out.push_str("\\b"),
        '\x0C' => out.push_str("\\f"),
        ' '..='~' => out.push(character),
        '\0'..='\x7F' => character.encode_utf16(&mut [0; 2]).iter().for_each(|unit| escape_unit(*unit, out)),
        _ if ascii => character.encode_utf16(&mut [0; 2]).iter().for_each(|unit| escape_unit(*unit, out)),
        _ => out.push(character),
    }
}

fn escape_unit(unit: u16, out: &mut String) {
    // Writing to a string cannot fail.
    let _ = write!(out, "\\u{unit:04x}");
}
