//! The attributes of one entry as files, and files as attributes.

use super::NoName;
use crate::name::{Id, Key, cut_prefix, flatten};
use crate::value::{Object, ParseErrorKind, Text, Value};

/// The value at a key; `None` if there is none, or if it has members.
pub fn value<'o>(object: &'o Object<'o>, key: &Key) -> Option<&'o Value<'o>> {
    if key.is_elements() {
        return None;
    }
    match object.at_path(&key.members())? {
        Value::Object(inner) if !inner.is_empty() => None,
        value => Some(value),
    }
}

/// The text form of the attribute `key` of an entry, reserved ones too: `_id` and `@` are the id, `_timestamp` and `$`
/// the time, in whichever dialect the record is.
pub fn text(object: &Object<'_>, id: &Id, time: f64, key: &Key) -> Option<String> {
    match key.as_str() {
        "_id" | "@" => Some(Value::String(Text::from_str(id.as_str())).to_text()),
        "_timestamp" | "$" => {
            let recorded = object.get("_timestamp").or_else(|| object.get("$"));
            let number = recorded.filter(|value| matches!(value, Value::Number(_)));
            Some(number.map_or_else(|| Value::Number(time.into()).to_text(), Value::to_text))
        }
        _ => value(object, key).map(Value::to_text),
    }
}

/// The content of an attribute file.
pub fn file(mut text: String) -> Vec<u8> {
    text.push('\n');
    text.into_bytes()
}

/// The names of the attribute files of an entry, in the order of its object.
pub fn names(object: &Object<'_>) -> Vec<String> {
    flatten(object).into_iter().map(|(key, _)| key.to_file_name()).collect()
}

/// The key that the name of an attribute file stands for. Names that start with `.` are malformed.
pub fn key_of(object: &Object<'_>, name: &str) -> Result<Key, NoName> {
    if name.starts_with('.') {
        return Err(NoName::Malformed);
    }
    if cut_prefix(name).is_some()
        && let Some((key, _)) = flatten(object).into_iter().find(|(key, _)| key.to_file_name() == name)
    {
        return Ok(key);
    }
    Ok(Key::parse(name)?)
}

/// The value that is set by writing `content` to an attribute file: one final newline is not part of it.
pub fn parse_file(content: &[u8]) -> Result<Value<'static>, NoName> {
    let content = content.strip_suffix(b"\n").unwrap_or(content);
    parse_text(content)
}

/// The value that a text form stands for.
pub fn parse_text(text: &[u8]) -> Result<Value<'static>, NoName> {
    Ok(Value::from_text(std::str::from_utf8(text).map_err(|_| NoName::NotUtf8)?))
}

/// The object that is written to `.attrs.json`.
pub fn parse_object(content: &[u8]) -> Result<Object<'static>, NoName> {
    match Object::parse(content) {
        Ok(object) => Ok(object.into_owned()),
        Err(error) if error.kind == ParseErrorKind::NotUtf8 => Err(NoName::NotUtf8),
        Err(_) => Err(NoName::Malformed),
    }
}

/// The content of `.attrs.json`: the whole object on one line.
pub fn object_line(object: &Object<'_>) -> Vec<u8> {
    let mut line = Vec::new();
    object.write_python(&mut line);
    line.push(b'\n');
    line
}
