//! The parser of Python's JSON.

use std::borrow::Cow;
use std::fmt;

use super::object::Builder;
use super::{MAX_DEPTH, Number, Object, Text, Value, number};

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

impl fmt::Display for ParseErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnexpectedEnd => f.write_str("the JSON text ends in the middle of a value"),
            Self::UnexpectedByte(byte) => write!(f, "unexpected byte `{}`", byte.escape_ascii()),
            Self::NotUtf8 => f.write_str("not UTF-8"),
            Self::TooDeep => write!(f, "nested deeper than {MAX_DEPTH}"),
            Self::NotAnObject => f.write_str("not a JSON object"),
            Self::TrailingBytes => f.write_str("something follows the JSON value"),
        }
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (at byte {})", self.kind, self.offset)
    }
}

impl std::error::Error for ParseError {}

/// One whole JSON value.
pub(super) fn value(bytes: &[u8]) -> Result<Value<'_>, ParseError> {
    Parser::new(bytes)?.whole(Parser::value)
}

/// One whole JSON object.
pub(super) fn object(bytes: &[u8]) -> Result<Object<'_>, ParseError> {
    Parser::new(bytes)?.whole(|parser| {
        parser.expect_one_of(b"{", ParseErrorKind::NotAnObject)?;
        parser.object()
    })
}

/// A place in a text; the text is known to be UTF-8.
struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn new(bytes: &'a [u8]) -> Result<Self, ParseError> {
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Self { text, at: 0, depth: 0 }),
            Err(error) => Err(ParseError { offset: error.valid_up_to(), kind: ParseErrorKind::NotUtf8 }),
        }
    }

    fn whole<T>(mut self, parse: impl FnOnce(&mut Self) -> Result<T, ParseError>) -> Result<T, ParseError> {
        let value = parse(&mut self)?;
        match self.token_start() {
            Some(_) => Err(self.error(ParseErrorKind::TrailingBytes)),
            None => Ok(value),
        }
    }

    fn error(&self, kind: ParseErrorKind) -> ParseError {
        ParseError { offset: self.at, kind }
    }

    /// The error that the byte at the present place makes.
    fn unexpected(&self) -> ParseError {
        self.error(self.byte().map_or(ParseErrorKind::UnexpectedEnd, ParseErrorKind::UnexpectedByte))
    }

    fn bytes(&self) -> &'a [u8] {
        self.text.as_bytes()
    }

    fn byte(&self) -> Option<u8> {
        self.bytes().get(self.at).copied()
    }

    fn rest(&self) -> &'a [u8] {
        self.bytes().get(self.at..).unwrap_or_default()
    }

    /// Skips white space; the byte after it.
    #[inline]
    fn token_start(&mut self) -> Option<u8> {
        loop {
            match self.byte() {
                Some(b' ' | b'\t' | b'\n' | b'\r') => self.at += 1,
                other => return other,
            }
        }
    }

    /// Skips white space; the byte after it, which must be one of these and stays where it is.
    fn expect_one_of(&mut self, allowed: &[u8], otherwise: ParseErrorKind) -> Result<u8, ParseError> {
        match self.token_start() {
            Some(byte) if allowed.contains(&byte) => Ok(byte),
            Some(_) => Err(self.error(otherwise)),
            None => Err(self.unexpected()),
        }
    }

    fn value(&mut self) -> Result<Value<'a>, ParseError> {
        let mut value = Value::Null;
        self.value_into(&mut value)?;
        Ok(value)
    }

    /// Reads a value to where it is to stay: moving it as part of a `Result` costs a tenth of all parsing.
    fn value_into(&mut self, place: &mut Value<'a>) -> Result<(), ParseError> {
        *place = match self.token_start() {
            Some(b'"') => Value::String(self.string()?),
            Some(b'{') => Value::Object(self.object()?),
            Some(b'[') => Value::Array(self.array()?),
            Some(b't') => self.word(b"true", Value::Bool(true))?,
            Some(b'f') => self.word(b"false", Value::Bool(false))?,
            Some(b'n') => self.word(b"null", Value::Null)?,
            Some(b'-' | b'0'..=b'9' | b'N' | b'I') => Value::Number(self.number()?),
            _ => return Err(self.unexpected()),
        };
        Ok(())
    }

    fn word(&mut self, word: &[u8], value: Value<'a>) -> Result<Value<'a>, ParseError> {
        for expected in word {
            if self.byte() != Some(*expected) {
                return Err(self.unexpected());
            }
            self.at += 1;
        }
        Ok(value)
    }

    fn number(&mut self) -> Result<Number<'a>, ParseError> {
        match number::scan(self.rest()) {
            Ok(length) => {
                let token = self.text.get(self.at..self.at + length).unwrap_or_default();
                self.at += length;
                Ok(Number::from_checked(token))
            }
            Err(length) => {
                self.at += length;
                Err(self.unexpected())
            }
        }
    }

    /// Goes into an array or object, past its first byte.
    fn enter(&mut self) -> Result<(), ParseError> {
        if self.depth == MAX_DEPTH {
            return Err(self.error(ParseErrorKind::TooDeep));
        }
        self.depth += 1;
        self.at += 1;
        Ok(())
    }

    /// Goes out of an array or object, past its last byte.
    fn leave(&mut self) {
        self.depth -= 1;
        self.at += 1;
    }

    fn array(&mut self) -> Result<Vec<Value<'a>>, ParseError> {
        self.enter()?;
        let mut elements = Vec::new();
        if self.token_start() == Some(b']') {
            self.leave();
            return Ok(elements);
        }
        loop {
            elements.push(self.value()?);
            match self.token_start() {
                Some(b',') => self.at += 1,
                Some(b']') => break,
                _ => return Err(self.unexpected()),
            }
        }
        self.leave();
        Ok(elements)
    }

    fn object(&mut self) -> Result<Object<'a>, ParseError> {
        self.enter()?;
        let mut members = Builder::default();
        if self.token_start() == Some(b'}') {
            self.leave();
            return Ok(members.finish());
        }
        loop {
            if self.token_start() != Some(b'"') {
                return Err(self.unexpected());
            }
            let name = self.string()?;
            if self.token_start() != Some(b':') {
                return Err(self.unexpected());
            }
            self.at += 1;
            let mut value = Value::Null;
            self.value_into(&mut value)?;
            members.put(name, value);
            match self.token_start() {
                Some(b',') => self.at += 1,
                Some(b'}') => break,
                _ => return Err(self.unexpected()),
            }
        }
        self.leave();
        Ok(members.finish())
    }

    /// The string whose opening quote is here.
    fn string(&mut self) -> Result<Text<'a>, ParseError> {
        self.at += 1;
        let plain = self.plain();
        if self.byte() == Some(b'"') {
            self.at += 1;
            return Ok(Text::from_checked(Cow::Borrowed(plain)));
        }
        let mut text = plain.to_vec();
        loop {
            match self.byte() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(Text::from_checked(Cow::Owned(text)));
                }
                Some(b'\\') => {
                    self.at += 1;
                    self.escape(&mut text)?;
                }
                // Raw control characters are errors, as in Python.
                _ => return Err(self.unexpected()),
            }
            text.extend_from_slice(self.plain());
        }
    }

    /// Goes past the bytes of a string that stand for themselves.
    fn plain(&mut self) -> &'a [u8] {
        let rest = self.rest();
        let plain = rest.get(..plain_length(rest)).unwrap_or_default();
        self.at += plain.len();
        plain
    }

    /// The escape whose backslash has been passed.
    fn escape(&mut self, text: &mut Vec<u8>) -> Result<(), ParseError> {
        let byte = match self.byte() {
            Some(byte @ (b'"' | b'\\' | b'/')) => byte,
            Some(b'b') => 0x08,
            Some(b'f') => 0x0C,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'u') => {
                self.at += 1;
                return self.unicode_escape(text);
            }
            _ => return Err(self.unexpected()),
        };
        self.at += 1;
        text.push(byte);
        Ok(())
    }

    /// The escape whose `\u` has been passed, and the one of the low surrogate after it.
    fn unicode_escape(&mut self, text: &mut Vec<u8>) -> Result<(), ParseError> {
        let unit = self.hex4()?;
        let mut code_point = unit;
        if (0xD800..0xDC00).contains(&unit) && self.rest().starts_with(br"\u") {
            let after_high = self.at;
            self.at += 2;
            let low = self.hex4()?;
            if (0xDC00..0xE000).contains(&low) {
                code_point = 0x1_0000 + ((unit - 0xD800) << 10) + (low - 0xDC00);
            } else {
                self.at = after_high;
            }
        }
        if let Some(character) = char::from_u32(code_point) {
            text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        } else {
            // A lone surrogate: by the rules of UTF-8, its three bytes.
            let [.., high, low] = code_point.to_be_bytes();
            let six_bits = (high & 0x0F) << 2 | low >> 6;
            text.extend_from_slice(&[0xE0 | high >> 4, 0x80 | six_bits, 0x80 | (low & 0x3F)]);
        }
        Ok(())
    }

    fn hex4(&mut self) -> Result<u32, ParseError> {
        let mut unit = 0;
        for _ in 0..4 {
            let digit = self.byte().and_then(|byte| char::from(byte).to_digit(16));
            unit = unit * 16 + digit.ok_or_else(|| self.unexpected())?;
            self.at += 1;
        }
        Ok(unit)
    }
}

/// How many bytes come before the first quote, backslash or control character.
///
/// Eight at a time: most strings are too short for a call of `memchr` to pay, and it knows no ranges.
#[inline]
pub(crate) fn plain_length(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    const HIGH_BITS: u64 = ONES << 7;
    let (words, tail) = bytes.as_chunks::<8>();
    for (number, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        // The lowest byte marked is right; those above it may be marked by a borrow.
        let quote = word ^ (ONES * u64::from(b'"'));
        let backslash = word ^ (ONES * u64::from(b'\\'));
        let marks = (word.wrapping_sub(ONES * 0x20) & !word)
            | (quote.wrapping_sub(ONES) & !quote)
            | (backslash.wrapping_sub(ONES) & !backslash);
        let marks = marks & HIGH_BITS;
        if marks != 0 {
            return number * 8 + (marks.trailing_zeros() / 8) as usize;
        }
    }
    let is_plain = |byte: &&u8| !matches!(**byte, b'"' | b'\\' | 0..0x20);
    words.len() * 8 + tail.iter().take_while(is_plain).count()
}
