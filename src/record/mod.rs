//! One line of the log, in both dialects, and changes of attributes.

mod edit;

pub use edit::{Edit, EditError, SetMode, apply};

use crate::name::Id;
use crate::value::Object;

/// Largest attribute object that is written, in bytes of its record: 16 MiB (EFBIG).
pub const RECORD_MAX: usize = 16 << 20;

/// How a record names its entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dialect {
    /// `_id`, an absolute path, and `_timestamp`: the first generation, and what a new log uses.
    #[default]
    Path,
    /// `@`, a name relative to the cache, and `$`.
    Name,
}

/// Where a record stands in one generation of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Locator {
    /// Offset of its first byte.
    pub offset: u64,
    /// Its length without the final `\n`.
    pub len: u32,
}

/// A well-formed record.
#[derive(Debug, Clone, PartialEq)]
pub struct Record<'a> {
    /// The entry.
    pub id: Id,
    /// Seconds since the epoch; 0 if the record has no usable time.
    pub time: f64,
    /// Whether this record deletes the entry.
    pub deleted: bool,
    /// The dialect it is written in.
    pub dialect: Dialect,
    /// The whole object, reserved members among the others, in order.
    pub object: Object<'a>,
}

/// What is irregular about a stretch of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// No JSON object.
    NotAnObject,
    /// An object without a usable `_id` or `@`.
    NoId,
    /// NUL bytes where bytes were promised: a power cut.
    Nuls,
    /// Longer than four times [`RECORD_MAX`].
    TooLong,
}

/// One stretch of a line.
#[derive(Debug, Clone, PartialEq)]
pub enum Piece<'a> {
    /// A record.
    Record(Record<'a>),
    /// Something else, kept but not shown.
    Malformed(Malformed),
}

/// Splits a line (without its `\n`) at stretches of NULs, which are damage and never part of a record, and parses
/// what lies between. Gives each piece with its range in the line; an empty line (or only white space) has none.
pub fn parse_line(line: &[u8]) -> Vec<(std::ops::Range<usize>, Piece<'_>)> {
    todo!()
}

/// Parses one record that stands alone, such as [`Locator`] points at.
pub fn parse_record(bytes: &[u8]) -> Result<Record<'_>, Malformed> {
    todo!()
}

/// Builds the record (without `\n`) of an entry: `attrs` with its reserved members replaced, in their place (else
/// in front: id, and at the end: time, as Python's writer has them), by those of `dialect`. `cache` is the cache's canonical absolute path.
pub fn encode(id: &Id, time: f64, attrs: &Object<'_>, dialect: Dialect, cache: &str) -> Vec<u8> {
    todo!()
}

/// The record (without `\n`) that deletes an entry.
pub fn encode_deletion(id: &Id, time: f64, dialect: Dialect, cache: &str) -> Vec<u8> {
    todo!()
}

/// Removes the reserved members.
pub fn without_reserved<'a>(object: Object<'a>) -> Object<'a> {
    todo!()
}
