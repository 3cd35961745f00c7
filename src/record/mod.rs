//! One line of the log, in both dialects, and changes of attributes.

mod edit;
mod shape;
#[cfg(test)]
mod tests;

use std::ops::Range;

pub use edit::{Edit, EditError, SetMode, apply};
pub use shape::{Kind, Place, Shape, Token};

use crate::name::Id;
use crate::value::{Leaf, Number, Object, Text, Value};

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

impl Record<'_> {
    /// The same record, owning everything.
    pub fn into_owned(self) -> Record<'static> {
        let Self { id, time, deleted, dialect, object } = self;
        Record { id, time, deleted, dialect, object: object.into_owned() }
    }
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

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NotAnObject => "no JSON object",
            Self::NoId => "no usable `_id` or `@`",
            Self::Nuls => "NUL bytes, as a power cut leaves them",
            Self::TooLong => "too long for a record",
        })
    }
}

/// The members that name the entry, the one that counts if both are usable first.
const ID_MEMBERS: [&str; 2] = ["_id", "@"];
/// The members that hold the time, likewise.
const TIME_MEMBERS: [&str; 2] = ["_timestamp", "$"];
/// The member that, if it is `true`, makes a record a deletion.
const DELETED: &str = "_deleted";

/// Splits a line (without its `\n`) at stretches of NULs, which are damage and never part of a record, and parses
/// what lies between. Gives each piece with its range in the line; an empty line (or only white space) has none.
///
/// A good record behind a torn one counts: its writer appended to what another had left without looking, as the Python
/// package does, and has told its user that it is saved.
pub fn parse_line(line: &[u8]) -> Vec<(Range<usize>, Piece<'_>)> {
    let mut pieces = parse_tail(line);
    let torn = |piece: &(Range<usize>, Piece<'_>)| piece.1 == Piece::Malformed(Malformed::NotAnObject);
    let mut next = 0;
    while let Some(at) = pieces.iter().skip(next).position(torn).map(|at| next + at) {
        next = at + 1;
        let Some((range, _)) = pieces.get(at).cloned() else { break };
        let bytes = line.get(range.clone()).unwrap_or_default();
        if let Some(good) = salvage(bytes)
            && let Some(Ok(record)) = bytes.get(good..).map(parse_record)
        {
            let middle = range.start + good;
            let halves = [
                (range.start..middle, Piece::Malformed(Malformed::NotAnObject)),
                (middle..range.end, Piece::Record(record)),
            ];
            pieces.splice(at..next, halves);
        }
    }
    pieces
}

/// Where a good record begins behind a torn one, in a stretch that is no JSON object.
fn salvage(stretch: &[u8]) -> Option<usize> {
    memchr::memchr_iter(b'{', stretch)
        .skip_while(|&at| at == 0)
        .find(|&at| stretch.get(at..).is_some_and(|rest| parse_record(rest).is_ok()))
}

/// As [`parse_line`], for the end of a log that has no `\n` yet: there a whole object within a torn record is part of that.
pub fn parse_tail(line: &[u8]) -> Vec<(Range<usize>, Piece<'_>)> {
    let mut pieces = Vec::with_capacity(1);
    let mut start = 0;
    while let Some(rest) = line.get(start..).filter(|rest| !rest.is_empty()) {
        let is_nul = rest.starts_with(&[0]);
        let len = if is_nul { rest.iter().position(|&byte| byte != 0) } else { memchr::memchr(0, rest) };
        let range = start..start + len.unwrap_or(rest.len());
        start = range.end;
        if is_nul {
            pieces.push((range, Piece::Malformed(Malformed::Nuls)));
        } else if let Some(bytes) = line.get(range.clone()).filter(|bytes| !is_blank(bytes)) {
            pieces.push((range, parse_record(bytes).map_or_else(Piece::Malformed, Piece::Record)));
        }
    }
    pieces
}

fn is_blank(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n'))
}

/// Parses one record that stands alone, such as [`Locator`] points at.
pub fn parse_record(bytes: &[u8]) -> Result<Record<'_>, Malformed> {
    if bytes.len() > 4 * RECORD_MAX {
        return Err(Malformed::TooLong);
    }
    let object = Object::parse(bytes).map_err(|_| Malformed::NotAnObject)?;
    let (id, dialect) = identity(&object).ok_or(Malformed::NoId)?;
    let time = TIME_MEMBERS.iter().find_map(|name| seconds(object.get(name)?)).unwrap_or(0.0);
    Ok(Record { id, time, deleted: is_deletion(&object), dialect, object })
}

/// The id of a record and the dialect that gives it. The path is only ever read, never followed.
fn identity(object: &Object<'_>) -> Option<(Id, Dialect)> {
    let usable = |name| match object.get(name)? {
        Value::String(path) => Id::from_path(path.as_str()?).ok(),
        _ => None,
    };
    let [path, name] = ID_MEMBERS;
    let by_path = usable(path).map(|id| (id, Dialect::Path));
    by_path.or_else(|| usable(name).map(|id| (id, Dialect::Name)))
}

/// A time that can be used: a number that is finite as a double.
fn seconds(value: &Value<'_>) -> Option<f64> {
    match value {
        Value::Number(_) => Leaf::of(value).as_f64().filter(|time| time.is_finite()),
        _ => None,
    }
}

/// Whether an object, written as a record, deletes its entry. No attribute may ever be set to make it so.
fn is_deletion(object: &Object<'_>) -> bool {
    matches!(object.get(DELETED), Some(Value::Bool(true)))
}

/// Whether a member is reserved: `_id`, `_timestamp`, `@`, `$`.
fn is_reserved(name: &Text<'_>) -> bool {
    is_one_of(name, ID_MEMBERS) || is_one_of(name, TIME_MEMBERS)
}

fn is_one_of(name: &Text<'_>, names: [&str; 2]) -> bool {
    names.iter().any(|one| one.as_bytes() == name.as_bytes())
}

/// Builds the record (without `\n`) of an entry: `attrs` with its reserved members replaced, in their place (else
/// in front: id, and at the end: time, as Python's writer has them), by those of `dialect`. `cache` is the cache's canonical absolute path.
///
/// A time that is what it was keeps its token.
pub fn encode(id: &Id, time: f64, attrs: &Object<'_>, dialect: Dialect, cache: &str) -> Vec<u8> {
    let (mut id_left, mut time_left) = (true, true);
    let mut writer = Writer::default();
    if !attrs.iter().any(|(name, _)| is_one_of(name, ID_MEMBERS)) {
        id_left = false;
        writer.id(id, dialect, cache);
    }
    // The token that stands for this time, whichever of the two members holds it.
    let token = TIME_MEMBERS.iter().filter_map(|name| attrs.get(name));
    let token = token.into_iter().find(|value| seconds(value) == Some(time));
    for (name, value) in attrs.iter() {
        if is_one_of(name, ID_MEMBERS) {
            if std::mem::take(&mut id_left) {
                writer.id(id, dialect, cache);
            }
        } else if is_one_of(name, TIME_MEMBERS) {
            if std::mem::take(&mut time_left) {
                writer.time(time, token, dialect);
            }
        } else {
            writer.member(name.clone(), value);
        }
    }
    if time_left {
        writer.time(time, token, dialect);
    }
    writer.finish()
}

/// The record (without `\n`) that deletes an entry.
pub fn encode_deletion(id: &Id, time: f64, dialect: Dialect, cache: &str) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.id(id, dialect, cache);
    writer.time(time, None, dialect);
    writer.member(Text::from_str(DELETED), &Value::Bool(true));
    writer.finish()
}

/// Writes an object member by member, as Python's `json.dumps` would.
#[derive(Default)]
struct Writer {
    out: Vec<u8>,
}

impl Writer {
    fn member(&mut self, name: Text<'_>, value: &Value<'_>) {
        self.out.extend_from_slice(if self.out.is_empty() { b"{" } else { b", " });
        Value::String(name).write_python(&mut self.out);
        self.out.extend_from_slice(b": ");
        value.write_python(&mut self.out);
    }

    fn id(&mut self, id: &Id, dialect: Dialect, cache: &str) {
        let [path, name] = ID_MEMBERS.map(Text::from_str);
        match dialect {
            Dialect::Path => {
                let value = format!("{}/{}", cache.trim_end_matches('/'), id.as_str());
                self.member(path, &Value::String(Text::from_str(value)));
            }
            Dialect::Name => self.member(name, &Value::String(Text::from_str(id.as_str()))),
        }
    }

    fn time(&mut self, time: f64, token: Option<&Value<'_>>, dialect: Dialect) {
        let [path, name] = TIME_MEMBERS.map(Text::from_str);
        let member = match dialect {
            Dialect::Path => path,
            Dialect::Name => name,
        };
        match token {
            Some(token) => self.member(member, token),
            None => self.member(member, &Value::Number(Number::from(time))),
        }
    }

    fn finish(mut self) -> Vec<u8> {
        self.out.extend_from_slice(if self.out.is_empty() { b"{}" } else { b"}" });
        self.out
    }
}

/// Removes the reserved members.
pub fn without_reserved(mut object: Object<'_>) -> Object<'_> {
    for name in ID_MEMBERS.into_iter().chain(TIME_MEMBERS) {
        object.remove(name.as_bytes());
    }
    object
}
