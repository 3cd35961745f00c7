//! What the records of one program have in common: the text between their values. Where it is known, a record is taken
//! apart by comparing that text, which is much quicker than parsing it.

use super::{DELETED, ID_MEMBERS, TIME_MEMBERS};
use crate::value::{Object, Value, plain_length};

/// Longer lines, and values nested more deeply, are left to the parser.
const LINE_MAX: usize = 1 << 20;
const DEPTH_MAX: usize = 32;

/// The text between the values of a record, and what the values are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// What stands before each value.
    gaps: Vec<Box<[u8]>>,
    /// What stands after the last one.
    end: Box<[u8]>,
    places: Vec<Place>,
}

/// What a value of a record is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The entry's id.
    Id,
    /// The entry's time.
    Time,
    /// An attribute: the path of its members.
    Attribute(Vec<Box<[u8]>>),
}

/// Where a value's text begins and ends in a line, and its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    /// Offset of its first byte.
    pub start: usize,
    /// Offset after its last byte.
    pub end: usize,
    /// What it begins like.
    pub kind: Kind,
}

/// What a value's text begins like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A string that is what stands between its quotes, if that is UTF-8.
    Plain,
    /// A string with escapes: may be malformed.
    Escaped,
    /// An array or an empty object: may be malformed.
    Nested,
    /// A number, true, false or null: may be malformed.
    Word,
}

impl Shape {
    /// The shape of a line, which the parser took for this object. `None` if there is something odd about it: then it has to
    /// be parsed, and so have others like it.
    pub fn of(line: &[u8], object: &Object<'_>) -> Option<Self> {
        if line.len() > LINE_MAX || object.get(DELETED).is_some() {
            return None;
        }
        let usual = |names: [&str; 2], needed: bool| {
            let found = names.into_iter().filter(|name| object.get(name).is_some()).count();
            found == 1 || found == 0 && !needed
        };
        if !usual(ID_MEMBERS, true) || !usual(TIME_MEMBERS, false) {
            return None;
        }
        let mut walk = Walk { line, at: 0, since: 0, path: Vec::new(), gaps: Vec::new(), places: Vec::new() };
        walk.skip_white();
        walk.object()?;
        let Walk { since, gaps, places, .. } = walk;
        // A name that stands twice shows as a value too many.
        (places.len() == leaves(object)).then(|| Self {
            gaps,
            end: line.get(since..).unwrap_or_default().into(),
            places,
        })
    }

    /// What the values are.
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// The values of a line of this shape, or false. If every value that may be malformed is not, and the line is UTF-8, then
    /// it is a record.
    pub fn split(&self, line: &[u8], tokens: &mut Vec<Token>) -> bool {
        tokens.clear();
        if line.len() > LINE_MAX {
            return false;
        }
        let mut at = 0;
        for gap in &self.gaps {
            if !line.get(at..).is_some_and(|rest| begins(rest, gap)) {
                return false;
            }
            let Some(token) = token(line, at + gap.len()) else { return false };
            at = token.end;
            tokens.push(token);
        }
        line.get(at..) == Some(&*self.end)
    }
}

/// Number of values of an object: those with members are not counted, but their members are.
fn leaves(object: &Object<'_>) -> usize {
    let of = |value: &Value<'_>| match value {
        Value::Object(members) if !members.is_empty() => leaves(members),
        _ => 1,
    };
    object.iter().map(|(_, value)| of(value)).sum()
}

/// The value that begins at an offset.
#[inline]
fn token(line: &[u8], start: usize) -> Option<Token> {
    let (end, kind) = match *line.get(start)? {
        b'"' => string(line, start)?,
        b'[' => (nested(line, start)?, Kind::Nested),
        b'{' => {
            let inner = line.get(start + 1..)?;
            let end = start + 2 + inner.iter().position(|&byte| byte != b' ')?;
            (line.get(end - 1) == Some(&b'}')).then_some((end, Kind::Nested))?
        }
        _ => (start + word_length(line.get(start..)?)?, Kind::Word),
    };
    Some(Token { start, end, kind })
}

/// Whether bytes begin with others: for so few a call takes longer than comparing them.
#[inline]
fn begins(bytes: &[u8], with: &[u8]) -> bool {
    let Some(bytes) = bytes.get(..with.len()) else { return false };
    let word = |of: &[u8], at: usize| {
        of.get(at..).and_then(<[u8]>::first_chunk).map(|word| u64::from_le_bytes(*word))
    };
    match with.len() {
        8..=16 => {
            let last = with.len() - 8;
            word(bytes, 0) == word(with, 0) && word(bytes, last) == word(with, last)
        }
        _ => bytes == with,
    }
}

/// How many bytes come before one that ends a number or a word: a comma, a bracket, or anything below them but `+`.
#[inline]
fn word_length(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    const HIGH_BITS: u64 = ONES << 7;
    let (words, tail) = bytes.as_chunks::<8>();
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word;
    for (number, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        // The lowest byte marked is right; those above it may be marked by a borrow.
        let low = word.wrapping_sub(ONES * u64::from(b'+')) & !word;
        let comma = zeros(word ^ (ONES * u64::from(b',')));
        let square = zeros(word ^ (ONES * u64::from(b']')));
        let curly = zeros(word ^ (ONES * u64::from(b'}')));
        let marks = (low | comma | square | curly) & HIGH_BITS;
        if marks != 0 {
            return Some(number * 8 + (marks.trailing_zeros() / 8) as usize);
        }
    }
    let ends = |byte: &u8| *byte < b'+' || matches!(byte, b',' | b']' | b'}');
    Some(words.len() * 8 + tail.iter().position(ends)?)
}

/// The end of a string.
#[inline]
fn string(line: &[u8], start: usize) -> Option<(usize, Kind)> {
    let mut at = start + 1;
    let mut kind = Kind::Plain;
    loop {
        at += plain_length(line.get(at..)?);
        match line.get(at)? {
            b'"' => return Some((at + 1, kind)),
            b'\\' => {
                at += 2;
                kind = Kind::Escaped;
            }
            _ => return None,
        }
    }
}

/// The end of an array.
fn nested(line: &[u8], start: usize) -> Option<usize> {
    let mut depth = 0;
    let mut at = start;
    loop {
        match *line.get(at)? {
            b'"' => at = string(line, at)?.0 - 1,
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth -= 1,
            _ => {}
        }
        at += 1;
        if depth == 0 {
            return Some(at);
        }
        if depth > DEPTH_MAX {
            return None;
        }
    }
}

/// A walk through a line that is known to be an object.
struct Walk<'l> {
    line: &'l [u8],
    at: usize,
    /// The end of the last value.
    since: usize,
    path: Vec<Box<[u8]>>,
    gaps: Vec<Box<[u8]>>,
    places: Vec<Place>,
}

impl Walk<'_> {
    fn skip_white(&mut self) -> Option<u8> {
        let rest = self.line.get(self.at..)?;
        self.at += rest.iter().position(|byte| !matches!(byte, b' ' | b'\t' | b'\r' | b'\n'))?;
        self.line.get(self.at).copied()
    }

    /// An object that is not empty.
    fn object(&mut self) -> Option<()> {
        if self.path.len() >= DEPTH_MAX {
            return None;
        }
        self.at += 1;
        loop {
            let name = self.skip_white()?;
            let (end, kind) = (name == b'"').then(|| string(self.line, self.at))??;
            if kind != Kind::Plain {
                return None;
            }
            self.path.push(self.line.get(self.at + 1..end - 1)?.into());
            self.at = end;
            self.skip_white()?;
            self.at += 1;
            self.skip_white()?;
            self.value()?;
            self.path.pop();
            let next = self.skip_white()?;
            if next != b',' {
                self.at += 1;
                return Some(());
            }
            self.at += 1;
        }
    }

    fn value(&mut self) -> Option<()> {
        let start = self.at;
        let Some(token) = token(self.line, start) else {
            return (self.line.get(start) == Some(&b'{')).then(|| self.object())?;
        };
        let first = self.path.first()?;
        let is = |names: [&str; 2]| names.iter().any(|name| name.as_bytes() == &**first);
        if self.path.len() > 1 && (is(ID_MEMBERS) || is(TIME_MEMBERS)) {
            // What is inside of a reserved member is no attribute.
            return None;
        }
        self.places.push(if is(ID_MEMBERS) {
            Place::Id
        } else if is(TIME_MEMBERS) {
            Place::Time
        } else {
            Place::Attribute(self.path.clone())
        });
        self.gaps.push(self.line.get(self.since..start)?.into());
        self.since = token.end;
        self.at = token.end;
        Some(())
    }
}
