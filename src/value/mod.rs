//! JSON values as Python's `json` reads and writes them, and their one text form.
//!
//! Wider than JSON: `NaN`, `Infinity`, `-Infinity`, integers of any size, lone surrogates and
//! duplicate keys (the last one wins, in the place of the first). Number tokens keep their text.

mod leaf;
mod number;
mod object;
mod parse;
#[cfg(test)]
pub(crate) mod strategy;
#[cfg(test)]
mod tests;
mod text;
mod write;

pub use leaf::Leaf;
pub use number::Number;
pub use object::{Member, Object};
pub(crate) use parse::plain_length;
pub use parse::{ParseError, ParseErrorKind};
pub use text::Text;

/// Arrays and objects nested deeper than this are refused, never a stack overflow.
pub const MAX_DEPTH: usize = 128;

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

impl<'a> Value<'a> {
    /// Parses one whole JSON text (Python's dialect), white space around it allowed.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        parse::value(bytes)
    }

    /// The value that a text form stands for: what parses as JSON is that JSON, everything else is a
    /// string. Takes every text; total. This reads attribute files (less the final newline), extended
    /// attributes, `K=V`, directory names (after [`crate::name::unescape`]) and operands of expressions.
    pub fn from_text(text: &str) -> Value<'static> {
        match parse::value(text.as_bytes()) {
            Ok(value) => value.into_owned(),
            Err(_) => Value::String(Text::from_str(text.to_owned())),
        }
    }

    /// The one text form; see the section "Names" of the README. Always UTF-8.
    pub fn to_text(&self) -> String {
        Leaf::of(self).to_text()
    }

    /// Appends the value as Python's `json.dumps` prints it: `, ` and `: ` between, ASCII only.
    pub fn write_python(&self, out: &mut Vec<u8>) {
        write::python(self, out);
    }

    /// The same value, owning everything.
    pub fn into_owned(self) -> Value<'static> {
        match self {
            Value::Null => Value::Null,
            Value::Bool(value) => Value::Bool(value),
            Value::Number(number) => Value::Number(number.into_owned()),
            Value::String(text) => Value::String(text.into_owned()),
            Value::Array(elements) => Value::Array(elements.into_iter().map(Value::into_owned).collect()),
            Value::Object(object) => Value::Object(object.into_owned()),
        }
    }

    /// Whether both are the same value: numbers by value (1, 1.0 and 1e0; NaN is NaN), `true` is not 1,
    /// objects by members in any order.
    pub fn same(&self, other: &Value<'_>) -> bool {
        match (self, other) {
            (Value::Null, Value::Null) => true,
            (Value::Bool(left), Value::Bool(right)) => left == right,
            (Value::Number(left), Value::Number(right)) => {
                left.token() == right.token() || left.leaf() == right.leaf()
            }
            (Value::String(left), Value::String(right)) => left.as_bytes() == right.as_bytes(),
            (Value::Array(left), Value::Array(right)) => {
                left.len() == right.len() && left.iter().zip(right).all(|(left, right)| left.same(right))
            }
            (Value::Object(left), Value::Object(right)) => left.same(right),
            _ => false,
        }
    }
}
