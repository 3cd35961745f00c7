//! Keys of attributes: members of nested objects, flattened.

use super::{NameError, escape};
use crate::value::{MAX_DEPTH, Object, Text, Value};

/// The key of an attribute, flattened: members joined by dots, each escaped.
///
/// In a member `.`, `/`, `%`, bytes below 0x20, 0x7f and lone surrogates are percent-encoded (a dot is
/// `%2E`); an empty member is `""` (two quotes), a member that starts with `"` has that quote encoded;
/// a final `[]` of the last member is `%5B%5D`. Every key has this one spelling everywhere; [`Key::parse`] takes
/// others and gives this one. A key that ends in `[]` stands for the elements of an array ([`Key::is_elements`]).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Box<str>);

/// What marks a key of elements.
const ELEMENTS: &str = "[]";

/// How an empty member is spelled.
const EMPTY: &str = "\"\"";

impl Key {
    /// Reads a key in any spelling (lower-case or needless percent-encoding too).
    ///
    /// A member of no bytes at all (`a..b`, a leading or final dot) is malformed: the empty one is `""`. More
    /// than [`MAX_DEPTH`] members are too long, since no log could hold them.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let (members, is_elements) = match text.strip_suffix(ELEMENTS) {
            Some(members) => (members, true),
            None => (text, false),
        };
        let mut key = String::with_capacity(text.len());
        for (number, spelled) in members.split('.').enumerate() {
            if number == MAX_DEPTH {
                return Err(NameError::TooLong);
            }
            let member = match spelled {
                "" => return Err(NameError::Malformed),
                EMPTY => Text::from_str(""),
                _ => Text::from_wtf8(escape::unescape_bytes(spelled)).ok_or(NameError::NotUtf8)?,
            };
            push_member(member.as_bytes(), &mut key);
        }
        end_members(&mut key);
        if is_elements {
            key.push_str(ELEMENTS);
        }
        Ok(Self(key.into()))
    }

    /// The key of a path of members (WTF-8).
    pub fn from_members<'t>(members: impl IntoIterator<Item = &'t [u8]>) -> Self {
        let mut key = String::new();
        for member in members {
            push_member(member, &mut key);
        }
        end_members(&mut key);
        Self(key.into())
    }

    /// The one spelling.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The members, unescaped (WTF-8). For a key of elements, without the `[]`.
    pub fn members(&self) -> Vec<Text<'static>> {
        let member = |spelled| match spelled {
            EMPTY => Some(Text::from_str("")),
            _ => Text::from_wtf8(escape::unescape_bytes(spelled).into_owned()),
        };
        // What a key spells is WTF-8, so nothing is filtered.
        self.array().split('.').filter_map(member).collect()
    }

    /// Whether this is `KEY[]`, the elements of an array.
    pub fn is_elements(&self) -> bool {
        self.0.ends_with(ELEMENTS)
    }

    /// `KEY[]` of `KEY`.
    #[must_use]
    pub fn elements(&self) -> Self {
        Self(format!("{}{ELEMENTS}", self.array()).into())
    }

    /// `KEY` of `KEY[]`; itself otherwise.
    #[must_use]
    pub fn without_elements(&self) -> Self {
        Self(self.array().into())
    }

    /// The spelling without `[]`.
    fn array(&self) -> &str {
        self.0.strip_suffix(ELEMENTS).unwrap_or(&self.0)
    }

    /// Whether it is `_id`, `_timestamp`, `@` or `$`, or would be inside one of them.
    pub fn is_reserved(&self) -> bool {
        let array = self.array();
        is_reserved_member(array.split_once('.').map_or(array, |(first, _)| first).as_bytes())
    }

    /// The file name: the key, cut as [`super::to_file_name`] if it is too long.
    pub fn to_file_name(&self) -> String {
        escape::cut(self.0.to_string())
    }
}

/// Whether a member of a record's object is not an attribute.
fn is_reserved_member(name: &[u8]) -> bool {
    matches!(name, b"_id" | b"_timestamp" | b"@" | b"$")
}

/// Appends a member, after a dot if it is not the first. No member is spelled with no bytes, so only the first
/// finds the key empty.
fn push_member(member: &[u8], key: &mut String) {
    if !key.is_empty() {
        key.push('.');
    }
    if member.is_empty() {
        key.push_str(EMPTY);
        return;
    }
    let unquoted = match member {
        [b'"', rest @ ..] => {
            escape::push_escape(b'"', key);
            rest
        }
        _ => member,
    };
    let is_special = |byte| byte == b'.' || escape::needs_escape(byte);
    for chunk in unquoted.utf8_chunks() {
        escape::escape_onto(chunk.valid(), is_special, key);
        // Lone surrogates, which are not UTF-8.
        for byte in chunk.invalid() {
            escape::push_escape(*byte, key);
        }
    }
}

/// Encodes a final `[]` of the last member.
fn end_members(key: &mut String) {
    if key.ends_with(ELEMENTS) {
        key.truncate(key.len() - ELEMENTS.len());
        key.push_str("%5B%5D");
    }
}

/// The flattened leaves of an object, in order: every value but non-empty objects, with its key. Reserved
/// members and elements (`KEY[]`) are not among them.
pub fn flatten<'o>(object: &'o Object<'o>) -> Vec<(Key, &'o Value<'o>)> {
    let mut leaves = Vec::with_capacity(object.len());
    let mut path = String::new();
    for (name, value) in object.iter() {
        if !is_reserved_member(name.as_bytes()) {
            flatten_member(name, value, &mut path, &mut leaves);
        }
    }
    leaves
}

fn flatten_member<'o>(
    name: &Text<'_>,
    value: &'o Value<'o>,
    path: &mut String,
    leaves: &mut Vec<(Key, &'o Value<'o>)>,
) {
    let parent = path.len();
    push_member(name.as_bytes(), path);
    match value {
        Value::Object(object) if !object.is_empty() => {
            for (name, value) in object.iter() {
                flatten_member(name, value, path, leaves);
            }
        }
        _ => {
            end_members(path);
            leaves.push((Key(path.as_str().into()), value));
        }
    }
    path.truncate(parent);
}
