//! The parser of Python's JSON.

/// Why some bytes are no JSON value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseError {
    /// Offset of the byte at which parsing stopped.
    pub offset: usize,
    /// What was wrong there.
    pub kind: ParseErrorKind,
}

/// What was wrong with a JSON text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParseErrorKind {
    /// The text ends in the middle of a value.
    UnexpectedEnd,
    /// A byte that cannot stand there.
    UnexpectedByte(u8),
    /// Not UTF-8.
    NotUtf8,
    /// Deeper than [`super::MAX_DEPTH`].
    TooDeep,
    /// The value is no object.
    NotAnObject,
    /// Something follows the value.
    TrailingBytes,
}
