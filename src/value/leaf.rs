//! Leaves: values reduced to what makes two of them one. The index, names and comparisons use them.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};

use super::{Number, Text, Value, number, parse, write};

/// A value in canonical form: two values are one value exactly if their leaves are equal.
///
/// The order is the documented order of mixed types: null, false, true, numbers by value with NaN
/// last, strings by code point, arrays and objects by their compact text.
#[derive(Debug, Clone, PartialEq)]
pub enum Leaf {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number that a double holds exactly (integer tokens too), never NaN, never -0.0. Make it with
    /// `Leaf::from(f64)`, which sees to that.
    Double(f64),
    /// An integer that no double holds exactly: its digits, `-` before them if negative, no leading zeros.
    Integer(Box<str>),
    /// NaN; one value.
    NaN,
    /// A string, as WTF-8.
    String(Box<[u8]>),
    /// An array, or an object, as compact JSON of canonical members (UTF-8: lone surrogates are escaped).
    /// Members of objects are sorted by name, since their order makes no other value.
    Json(Box<str>),
}

impl Eq for Leaf {}

impl From<f64> for Leaf {
    fn from(value: f64) -> Self {
        // Adding zero makes -0.0 the one zero.
        if value.is_nan() { Self::NaN } else { Self::Double(value + 0.0) }
    }
}

impl Leaf {
    /// The leaf of a value.
    pub fn of(value: &Value<'_>) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(*value),
            Value::Number(number) => number.leaf(),
            Value::String(text) => Self::String(text.as_bytes().into()),
            Value::Array(_) | Value::Object(_) => {
                let mut json = String::new();
                write::compact(value, &mut json);
                Self::Json(json.into())
            }
        }
    }

    /// The text form: bare where unambiguous, JSON where not. Inverse of [`Value::from_text`] up to
    /// [`Value::same`].
    pub fn to_text(&self) -> String {
        match self {
            Self::Null => "null".to_owned(),
            Self::Bool(true) => "true".to_owned(),
            Self::Bool(false) => "false".to_owned(),
            Self::Double(value) => number::canonical(*value),
            Self::Integer(digits) => digits.to_string(),
            Self::NaN => "NaN".to_owned(),
            Self::String(bytes) => string_to_text(bytes),
            Self::Json(json) => json.to_string(),
        }
    }

    /// The value, as it would be written to a log.
    pub fn to_value(&self) -> Value<'static> {
        match self {
            Self::Null => Value::Null,
            Self::Bool(value) => Value::Bool(*value),
            Self::Double(_) | Self::Integer(_) | Self::NaN => {
                Value::Number(Number::new(self.to_text()).unwrap_or_else(|| Number::from(f64::NAN)))
            }
            Self::String(bytes) => Value::String(Text::from_checked(bytes.to_vec().into())),
            // Canonical JSON parses; `from_text` needs no error for what cannot be.
            Self::Json(json) => Value::from_text(json),
        }
    }

    /// The number as a double, the nearest one for [`Leaf::Integer`]; `None` for other types.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Double(value) => Some(*value),
            Self::Integer(digits) => digits.parse().ok(),
            Self::NaN => Some(f64::NAN),
            _ => None,
        }
    }

    /// The place of the type in the order.
    fn rank(&self) -> u8 {
        match self {
            Self::Null => 0,
            Self::Bool(_) => 1,
            Self::Double(_) | Self::Integer(_) => 2,
            Self::NaN => 3,
            Self::String(_) => 4,
            Self::Json(_) => 5,
        }
    }
}

/// Bare, or in JSON quotes where bare would be read as something else or cannot be seen.
fn string_to_text(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if is_bare(text) => text.to_owned(),
        _ => {
            let mut quoted = String::with_capacity(bytes.len() + 2);
            write::quote(&Text::from_checked(bytes.into()), &mut quoted, false);
            quoted
        }
    }
}

fn is_bare(text: &str) -> bool {
    let hidden = |byte: u8| byte.is_ascii_control() && !matches!(byte, b'\t' | b'\n');
    let white = |character: char| matches!(character, ' ' | '\t' | '\n' | '\r');
    if text.is_empty() || text.starts_with('"') || text.ends_with('\n') || text.bytes().any(hidden) {
        return false;
    }
    // Nothing else begins a JSON value, so most strings need no parsing.
    let may_be_json = |first: char| "{[\"-0123456789tfnNI".contains(first);
    !text.trim_start_matches(white).starts_with(may_be_json) || parse::value(text.as_bytes()).is_err()
}

/// Compares an integer that no double holds with a double.
fn compare_integer(digits: &str, double: f64) -> Ordering {
    let nearest: f64 = digits.parse().unwrap_or(f64::NAN);
    // Rounding keeps the order; only if both round to the same must the digits decide.
    match nearest.partial_cmp(&double) {
        Some(Ordering::Equal) if double.is_infinite() => {
            if double > 0.0 {
                Ordering::Less
            } else {
                Ordering::Greater
            }
        }
        Some(Ordering::Equal) => compare_integers(digits, &format!("{double:.0}")),
        Some(ordering) => ordering,
        None => Ordering::Less,
    }
}

/// Compares two integers by their digits.
fn compare_integers(left: &str, right: &str) -> Ordering {
    let by_size = |left: &str, right: &str| left.len().cmp(&right.len()).then_with(|| left.cmp(right));
    match (left.strip_prefix('-'), right.strip_prefix('-')) {
        (None, None) => by_size(left, right),
        (None, Some(_)) => Ordering::Greater,
        (Some(_), None) => Ordering::Less,
        (Some(left), Some(right)) => by_size(right, left),
    }
}

impl Ord for Leaf {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Bool(left), Self::Bool(right)) => left.cmp(right),
            (Self::Double(left), Self::Double(right)) => left.partial_cmp(right).unwrap_or(Ordering::Equal),
            (Self::Integer(left), Self::Double(right)) => compare_integer(left, *right),
            (Self::Double(left), Self::Integer(right)) => compare_integer(right, *left).reverse(),
            (Self::Integer(left), Self::Integer(right)) => compare_integers(left, right),
            (Self::String(left), Self::String(right)) => left.cmp(right),
            (Self::Json(left), Self::Json(right)) => left.cmp(right),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl PartialOrd for Leaf {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Hash for Leaf {
    fn hash<H: Hasher>(&self, state: &mut H) {
        std::mem::discriminant(self).hash(state);
        match self {
            Self::Null | Self::NaN => {}
            Self::Bool(value) => value.hash(state),
            // As in `from`: equal doubles must hash alike.
            Self::Double(value) => (value + 0.0).to_bits().hash(state),
            Self::Integer(text) | Self::Json(text) => text.hash(state),
            Self::String(bytes) => bytes.hash(state),
        }
    }
}
