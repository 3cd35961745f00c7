//! JSON values as Python's `json` reads and writes them, and their one text form.
//!
//! Wider than JSON: `NaN`, `Infinity`, `-Infinity`, integers of any size, lone surrogates and
//! duplicate keys (the last one wins, in the place of the first). Number tokens keep their text.

mod leaf;
mod number;
mod parse;
mod write;

use std::borrow::Cow;

pub use leaf::Leaf;
pub use number::Number;
pub use parse::{ParseError, ParseErrorKind};

/// Arrays and objects nested deeper than this are refused, never a stack overflow.
pub const MAX_DEPTH: usize = 128;

/// A JSON string: Unicode text in which lone surrogates may stand, kept as WTF-8.
///
/// WTF-8 is UTF-8 but for lone surrogates, which are three bytes each; a high surrogate followed by a
/// low one is always the one four-byte character. Byte order is code point order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Text<'a>(Cow<'a, [u8]>);

/// A JSON value; borrows from the bytes it was parsed from where it can.
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'a> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number, by its token.
    Number(Number<'a>),
    /// A string.
    String(Text<'a>),
    /// An array.
    Array(Vec<Value<'a>>),
    /// An object.
    Object(Object<'a>),
}

/// A JSON object: members in the order of the text, no name twice.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Object<'a> {
    members: Vec<(Text<'a>, Value<'a>)>,
}

impl<'a> Text<'a> {
    /// The text of a Rust string.
    pub fn from_str(text: impl Into<Cow<'a, str>>) -> Self {
        match text.into() {
            Cow::Borrowed(s) => Self(Cow::Borrowed(s.as_bytes())),
            Cow::Owned(s) => Self(Cow::Owned(s.into_bytes())),
        }
    }

    /// WTF-8 bytes, checked: `None` if they are not WTF-8.
    pub fn from_wtf8(bytes: impl Into<Cow<'a, [u8]>>) -> Option<Self> {
        todo!()
    }

    /// The WTF-8 bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The text as UTF-8, or `None` if a lone surrogate stands in it.
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// The same text, owning its bytes.
    pub fn into_owned(self) -> Text<'static> {
        Text(Cow::Owned(self.0.into_owned()))
    }
}

impl<'a> Value<'a> {
    /// Parses one whole JSON text (Python's dialect), white space around it allowed.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        todo!()
    }

    /// The value that a text form stands for: what parses as JSON is that JSON, everything else is a
    /// string. Takes every text; total. This reads attribute files (less the final newline), extended
    /// attributes, `K=V`, directory names (after [`crate::name::unescape`]) and operands of expressions.
    pub fn from_text(text: &str) -> Value<'static> {
        todo!()
    }

    /// The one text form; see the section "Names" of the README. Always UTF-8.
    pub fn to_text(&self) -> String {
        Leaf::of(self).to_text()
    }

    /// Appends the value as Python's `json.dumps` prints it: `, ` and `: ` between, ASCII only.
    pub fn write_python(&self, out: &mut Vec<u8>) {
        todo!()
    }

    /// The same value, owning everything.
    pub fn into_owned(self) -> Value<'static> {
        todo!()
    }

    /// Whether both are the same value: numbers by value (1, 1.0 and 1e0; NaN is NaN), `true` is not 1,
    /// objects by members in any order.
    pub fn same(&self, other: &Value<'_>) -> bool {
        todo!()
    }
}

impl<'a> Object<'a> {
    /// An object without members.
    pub fn new() -> Self {
        Self::default()
    }

    /// Parses one whole JSON object (Python's dialect), white space around it allowed.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        todo!()
    }

    /// The member of that name.
    pub fn get(&self, name: &str) -> Option<&Value<'a>> {
        todo!()
    }

    /// The member of that name (WTF-8 bytes).
    pub fn get_bytes(&self, name: &[u8]) -> Option<&Value<'a>> {
        todo!()
    }

    /// The member of that name (WTF-8 bytes), to change.
    pub fn get_mut(&mut self, name: &[u8]) -> Option<&mut Value<'a>> {
        todo!()
    }

    /// Sets a member, in its place if it exists, else at the end; gives the former value.
    pub fn insert(&mut self, name: Text<'a>, value: Value<'a>) -> Option<Value<'a>> {
        todo!()
    }

    /// Takes a member out.
    pub fn remove(&mut self, name: &[u8]) -> Option<Value<'a>> {
        todo!()
    }

    /// Renames a member in its place; false if there is no `from`. A former `to` is taken out.
    pub fn rename(&mut self, from: &[u8], to: Text<'a>) -> bool {
        todo!()
    }

    /// The members in order.
    pub fn iter(&self) -> impl Iterator<Item = (&Text<'a>, &Value<'a>)> {
        self.members.iter().map(|(name, value)| (name, value))
    }

    /// Number of members.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// As [`Value::write_python`].
    pub fn write_python(&self, out: &mut Vec<u8>) {
        todo!()
    }

    /// The same object, owning everything.
    pub fn into_owned(self) -> Object<'static> {
        todo!()
    }
}
