//! Checked names: entry ids and attribute keys, and how they and values become file names.

use crate::value::{Leaf, Object, Text, Value};

/// Longest file name, in bytes.
pub const NAME_MAX: usize = 255;

/// The identity of an entry: the name of its directory in the cache.
///
/// Not empty, at most [`NAME_MAX`] bytes, no `/`, no NUL, does not start with `.` or `_`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(Box<str>);

/// The key of an attribute, flattened: members joined by dots, each escaped.
///
/// In a member `.`, `/`, `%`, bytes below 0x20, 0x7f and lone surrogates are percent-encoded (a dot is
/// `%2E`); an empty member is `""` (two quotes), a member that starts with `"` has that quote encoded;
/// a final `[]` of the last member is `%5B%5D`. Every key has this one spelling everywhere; [`Key::parse`] takes
/// others and gives this one. A key that ends in `[]` stands for the elements of an array ([`Key::is_elements`]).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Box<str>);

/// Why a name was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameError {
    /// Malformed: empty, a bad first character, a missing `=`, …
    Malformed,
    /// Not UTF-8.
    NotUtf8,
    /// Longer than [`NAME_MAX`].
    TooLong,
}

impl Id {
    /// A checked id.
    pub fn new(name: &str) -> Result<Self, NameError> {
        todo!()
    }

    /// The id of a record that has this `_id` or `@`: its last component (trailing slashes make it empty: refused).
    pub fn from_path(path: &str) -> Result<Self, NameError> {
        todo!()
    }

    /// The id.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name under which views and `entries/` show it: the id itself, or with its first byte percent-encoded if
    /// it is a reserved name of set directories ([`is_reserved_in_sets`]) or starts with `%`.
    pub fn to_file_name(&self) -> String {
        todo!()
    }

    /// The id that a file name in `entries/` or a view stands for; `None` if it is not the one spelling.
    pub fn from_file_name(name: &str) -> Option<Self> {
        todo!()
    }
}

/// Names found but not listed in every set directory: `by-attr`, `where`, `sort`, `table.csv`, `table.jsonl`,
/// `schema.json`, `count`.
pub fn is_reserved_in_sets(name: &str) -> bool {
    todo!()
}

impl Key {
    /// Reads a key in any spelling (lower-case or needless percent-encoding too).
    pub fn parse(text: &str) -> Result<Self, NameError> {
        todo!()
    }

    /// The key of a path of members.
    pub fn from_members<'t>(members: impl IntoIterator<Item = &'t [u8]>) -> Self {
        todo!()
    }

    /// The one spelling.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The members, unescaped (WTF-8). For a key of elements, without the `[]`.
    pub fn members(&self) -> Vec<Text<'static>> {
        todo!()
    }

    /// Whether this is `KEY[]`, the elements of an array.
    pub fn is_elements(&self) -> bool {
        self.0.ends_with("[]")
    }

    /// `KEY[]` of `KEY`.
    pub fn elements(&self) -> Self {
        todo!()
    }

    /// `KEY` of `KEY[]`; itself otherwise.
    pub fn without_elements(&self) -> Self {
        todo!()
    }

    /// Whether it is `_id`, `_timestamp`, `@` or `$`.
    pub fn is_reserved(&self) -> bool {
        matches!(&*self.0, "_id" | "_timestamp" | "@" | "$")
    }

    /// The file name: the key, cut as [`to_file_name`] if it is too long.
    pub fn to_file_name(&self) -> String {
        todo!()
    }
}

/// The flattened leaves of an object, in order: every value but non-empty objects, with its key. Reserved
/// members and elements (`KEY[]`) are not among them.
pub fn flatten<'o>(object: &'o Object<'o>) -> Vec<(Key, &'o Value<'o>)> {
    todo!()
}

/// Percent-encodes a text as a file name: `/`, `%`, bytes below 0x20 and 0x7f, `.` and `..` as `%2E`, `%2E%2E`;
/// over 255 bytes cut at a character and ended with `~` and 16 hex digits (FNV-1a 64 of the whole encoded name).
pub fn to_file_name(text: &str) -> String {
    todo!()
}

/// Decodes percent-encoding; a `%` without two hex digits stands for itself. `None` if the result is not UTF-8.
pub fn unescape(name: &str) -> Option<String> {
    todo!()
}

/// If `name` has the form that [`to_file_name`] gives to names that are too long: the part before the `~`.
pub fn cut_prefix(name: &str) -> Option<&str> {
    todo!()
}

/// The file name of a value directory.
pub fn leaf_file_name(leaf: &Leaf) -> String {
    to_file_name(&leaf.to_text())
}

/// Reads a `K=V,K=V` list: pairs split at `,`, key from value at the first `=`, both percent-decoded, values by
/// their text form. A pair without `=`, an empty pair or an empty key is malformed; a reserved key or `KEY[]` too;
/// of a key that stands twice the last value wins.
pub fn parse_pairs(list: &str) -> Result<Vec<(Key, Value<'static>)>, NameError> {
    todo!()
}

/// One pair of the command line: as in a list, but nothing is split at `,` and the value is not percent-decoded.
pub fn parse_pair(pair: &str) -> Result<(Key, Value<'static>), NameError> {
    todo!()
}

/// The one spelling of a `K=V` list: sorted by key, values canonical.
pub fn pairs_to_list(pairs: &[(Key, Leaf)]) -> String {
    todo!()
}
