//! Number tokens and what they are worth.

use std::borrow::Cow;

/// A number token of Python's JSON, its text kept: `1e-05`, `0.10`, 2**70, `NaN`, `-Infinity`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Number<'a>(Cow<'a, str>);

impl<'a> Number<'a> {
    /// A token, checked: `None` if it is no number of Python's JSON.
    pub fn new(token: impl Into<Cow<'a, str>>) -> Option<Self> {
        todo!()
    }

    /// A token that a parser has checked already.
    pub(super) fn from_checked(token: &'a str) -> Self {
        Self(Cow::Borrowed(token))
    }

    /// The token.
    pub fn token(&self) -> &str {
        &self.0
    }

    /// The same number, owning its text.
    pub fn into_owned(self) -> Number<'static> {
        Number(Cow::Owned(self.0.into_owned()))
    }
}

impl From<f64> for Number<'static> {
    /// The token that Python's `repr` prints.
    fn from(_value: f64) -> Self {
        todo!()
    }
}
