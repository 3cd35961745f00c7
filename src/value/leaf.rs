//! Leaves: values reduced to what makes two of them one. The index, names and comparisons use them.

use super::Value;

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
    /// A number that a double holds exactly (integer tokens too), never NaN, never -0.0.
    Double(f64),
    /// An integer that no double holds exactly: its digits, `-` before them if negative, no leading zeros.
    Integer(Box<str>),
    /// NaN; one value.
    NaN,
    /// A string, as WTF-8.
    String(Box<[u8]>),
    /// An array, or an object, as compact JSON of canonical members (WTF-8 without lone surrogates: they
    /// are escaped). Members of objects are in the order of the text.
    Json(Box<str>),
}

impl Eq for Leaf {}

impl Leaf {
    /// The leaf of a value.
    pub fn of(value: &Value<'_>) -> Self {
        todo!()
    }

    /// The text form: bare where unambiguous, JSON where not. Inverse of [`Value::from_text`] up to
    /// [`Value::same`].
    pub fn to_text(&self) -> String {
        todo!()
    }

    /// The value, as it would be written to a log.
    pub fn to_value(&self) -> Value<'static> {
        todo!()
    }

    /// The number as a double, the nearest one for [`Leaf::Integer`]; `None` for other types.
    pub fn as_f64(&self) -> Option<f64> {
        todo!()
    }
}

impl Ord for Leaf {
    fn cmp(&self, _other: &Self) -> std::cmp::Ordering {
        todo!()
    }
}

impl PartialOrd for Leaf {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl std::hash::Hash for Leaf {
    fn hash<H: std::hash::Hasher>(&self, _state: &mut H) {
        todo!()
    }
}
