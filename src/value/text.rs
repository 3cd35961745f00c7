//! JSON strings: Unicode text in which lone surrogates may stand.

use std::borrow::Cow;

/// A JSON string: Unicode text in which lone surrogates may stand, kept as WTF-8.
///
/// WTF-8 is UTF-8 but for lone surrogates, which are three bytes each; a high surrogate followed by a
/// low one is always the one four-byte character. Byte order is code point order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Text<'a>(Cow<'a, [u8]>);

impl<'a> Text<'a> {
    /// The text of a Rust string.
    #[expect(clippy::should_implement_trait, reason = "it cannot fail, and borrows")]
    pub fn from_str(text: impl Into<Cow<'a, str>>) -> Self {
        match text.into() {
            Cow::Borrowed(s) => Self(Cow::Borrowed(s.as_bytes())),
            Cow::Owned(s) => Self(Cow::Owned(s.into_bytes())),
        }
    }

    /// WTF-8 bytes, checked: `None` if they are not WTF-8.
    pub fn from_wtf8(bytes: impl Into<Cow<'a, [u8]>>) -> Option<Self> {
        let bytes = bytes.into();
        is_wtf8(&bytes).then_some(Self(bytes))
    }

    /// Bytes that a parser has checked already.
    pub(super) fn from_checked(bytes: Cow<'a, [u8]>) -> Self {
        Self(bytes)
    }

    /// The WTF-8 bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes as they are held.
    pub(super) fn as_cow(&self) -> &Cow<'a, [u8]> {
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

/// A stretch of a WTF-8 text.
pub(super) enum Piece<'t> {
    /// Text without lone surrogates, not empty.
    Utf8(&'t str),
    /// One lone surrogate.
    Surrogate(u16),
    /// A byte that is neither; in no [`Text`].
    Invalid,
}

/// The stretches of a WTF-8 text, in order.
pub(super) struct Pieces<'t>(pub(super) &'t [u8]);

impl<'t> Iterator for Pieces<'t> {
    type Item = Piece<'t>;

    fn next(&mut self) -> Option<Piece<'t>> {
        let valid = self.0.utf8_chunks().next()?.valid();
        if !valid.is_empty() {
            self.0 = self.0.get(valid.len()..).unwrap_or_default();
            return Some(Piece::Utf8(valid));
        }
        if let [0xED, second @ 0xA0..=0xBF, third @ 0x80..=0xBF, rest @ ..] = self.0 {
            self.0 = rest;
            let low_bits = (u16::from(*second) & 0x3F) << 6 | (u16::from(*third) & 0x3F);
            return Some(Piece::Surrogate(0xD000 | low_bits));
        }
        self.0 = self.0.get(1..).unwrap_or_default();
        Some(Piece::Invalid)
    }
}

/// Whether bytes are UTF-8 but for lone surrogates that form no pair.
fn is_wtf8(bytes: &[u8]) -> bool {
    let mut after_high = false;
    for piece in Pieces(bytes) {
        match piece {
            Piece::Utf8(_) => after_high = false,
            Piece::Surrogate(unit) => {
                let is_high = unit < 0xDC00;
                if after_high && !is_high {
                    return false;
                }
                after_high = is_high;
            }
            Piece::Invalid => return false,
        }
    }
    true
}
