//! Number tokens and what they are worth.

use std::borrow::Cow;

use super::Leaf;

/// Every integer of at most 15 digits is a double.
const ALWAYS_EXACT: usize = 15;

/// A number token of Python's JSON, its text kept: `1e-05`, `0.10`, 2**70, `NaN`, `-Infinity`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Number<'a>(Cow<'a, str>);

impl<'a> Number<'a> {
    /// A token, checked: `None` if it is no number of Python's JSON.
    pub fn new(token: impl Into<Cow<'a, str>>) -> Option<Self> {
        let token = token.into();
        (scan(token.as_bytes()) == Ok(token.len())).then_some(Self(token))
    }

    /// A token that a parser has checked already.
    pub(super) fn from_checked(token: &'a str) -> Self {
        Self(Cow::Borrowed(token))
    }

    /// What a text is worth if that is plain to see: it is a number, and a double.
    pub fn double(text: &str) -> Option<f64> {
        let digits = text.strip_prefix('-').unwrap_or(text).as_bytes();
        // Rust takes numbers that begin or end with a point too, words, a plus, and zeros before others.
        let begins = match digits {
            [b'0', next, ..] => !next.is_ascii_digit(),
            [first, ..] => first.is_ascii_digit(),
            [] => false,
        };
        let point = digits.iter().position(|&byte| byte == b'.');
        let is_plain = match point {
            Some(point) => digits.get(point + 1).is_some_and(u8::is_ascii_digit),
            None => text.len() <= ALWAYS_EXACT,
        };
        // Adding zero makes -0.0 the one zero.
        (begins && is_plain).then(|| text.parse().ok()).flatten().map(|double: f64| double + 0.0)
    }

    /// The token.
    pub fn token(&self) -> &str {
        &self.0
    }

    /// The same number, owning its text.
    pub fn into_owned(self) -> Number<'static> {
        Number(Cow::Owned(self.0.into_owned()))
    }

    /// What the token is worth. Tokens with `.` or `e` are doubles, integer tokens are exact.
    pub(super) fn leaf(&self) -> Leaf {
        let token = self.token();
        // Every token has a nearest double; Rust's parser takes Python's spellings of the others too.
        let nearest = match token {
            "Infinity" => f64::INFINITY,
            "-Infinity" => f64::NEG_INFINITY,
            _ => token.parse().unwrap_or(f64::NAN),
        };
        let digits = token.strip_prefix('-').unwrap_or(token);
        let is_integer = digits.bytes().all(|byte| byte.is_ascii_digit());
        if !is_integer || token.len() <= ALWAYS_EXACT || is_exactly(nearest, token) {
            Leaf::from(nearest)
        } else {
            Leaf::Integer(token.into())
        }
    }
}

/// Whether the double is the integer with these digits.
fn is_exactly(value: f64, digits: &str) -> bool {
    value.is_finite() && format!("{value:.0}") == digits
}

impl From<f64> for Number<'static> {
    /// The token that Python's `repr` prints.
    fn from(value: f64) -> Self {
        Self(Cow::Owned(repr(value)))
    }
}

/// A double as Python's `repr` prints it, and `json.dumps` what is not finite.
pub(super) fn repr(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    // Rust prints the same shortest digits, but chooses between the two forms by other rules.
    let scientific = format!("{value:e}");
    let Some((mantissa, exponent)) = scientific.split_once('e') else {
        return scientific;
    };
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if (-4..16).contains(&exponent) {
        let mut plain = format!("{value}");
        if !plain.contains('.') {
            plain.push_str(".0");
        }
        return plain;
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.unsigned_abs())
}

/// The canonical text of a double: integral ones below 10**17 as digits, others as [`repr`].
pub(super) fn canonical(value: f64) -> String {
    if value.abs() < 1e17 && value.fract() == 0.0 { format!("{:.0}", value + 0.0) } else { repr(value) }
}

/// Length of the number that `bytes` begin with, or the offset at which they stop to be one.
pub(super) fn scan(bytes: &[u8]) -> Result<usize, usize> {
    let byte = |at: usize| bytes.get(at).copied();
    // The offset after the digits from `at`; at least one.
    let digits = |mut at: usize| {
        let start = at;
        while byte(at).is_some_and(|byte| byte.is_ascii_digit()) {
            at += 1;
        }
        if at == start { Err(at) } else { Ok(at) }
    };
    let word = |at: usize, word: &[u8]| {
        let rest = bytes.get(at..).unwrap_or_default();
        let common = rest.iter().zip(word).take_while(|(left, right)| left == right).count();
        if common == word.len() { Ok(at + common) } else { Err(at + common) }
    };

    let mut at = usize::from(byte(0) == Some(b'-'));
    match byte(at) {
        Some(b'0') => at += 1,
        Some(b'1'..=b'9') => at = digits(at)?,
        Some(b'I') => return word(at, b"Infinity"),
        Some(b'N') if at == 0 => return word(at, b"NaN"),
        _ => return Err(at),
    }
    if byte(at) == Some(b'.') {
        at = digits(at + 1)?;
    }
    if let Some(b'e' | b'E') = byte(at) {
        at += 1;
        if let Some(b'+' | b'-') = byte(at) {
            at += 1;
        }
        at = digits(at)?;
    }
    Ok(at)
}
