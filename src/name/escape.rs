//! Percent-encoding, and file names that are too long.

use std::borrow::Cow;
use std::hash::Hasher;

use fnv::FnvHasher;

use super::NAME_MAX;

/// Length of the `~` and 16 hex digits that end a cut name.
const CUT_TAIL: usize = 17;

/// A cut name is this long at least: up to 3 bytes less for a character, or 2 for an escape, not to split it.
const CUT_MIN: usize = NAME_MAX - 3;

/// Percent-encodes a text as a file name: `/`, `%`, bytes below 0x20 and 0x7f, `.` and `..` as `%2E`, `%2E%2E`;
/// over 255 bytes cut at a character and ended with `~` and 16 hex digits (FNV-1a 64 of the whole encoded name).
///
/// A name that only looks as if it had been cut ([`cut_prefix`]) is cut too, so that no text can be given the
/// name of another. An empty text has an empty name; no key and no text form is empty.
pub fn to_file_name(text: &str) -> String {
    match text {
        "." => "%2E".to_owned(),
        ".." => "%2E%2E".to_owned(),
        _ => cut(escape(text, needs_escape)),
    }
}

/// Decodes percent-encoding; a `%` without two hex digits stands for itself. `None` if the result is not UTF-8.
pub fn unescape(name: &str) -> Option<String> {
    match unescape_bytes(name) {
        Cow::Borrowed(_) => Some(name.to_owned()),
        Cow::Owned(bytes) => String::from_utf8(bytes).ok(),
    }
}

/// If `name` has the form that [`to_file_name`] gives to names that are too long: the part before the `~`.
pub fn cut_prefix(name: &str) -> Option<&str> {
    let (prefix, tail) = name.split_at_checked(name.len().checked_sub(CUT_TAIL)?)?;
    let is_hash = |digits: &str| digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let is_cut = (CUT_MIN..=NAME_MAX).contains(&name.len()) && tail.strip_prefix('~').is_some_and(is_hash);
    is_cut.then_some(prefix)
}

/// Bytes that no file name may hold as they are, and the `%` of escapes.
pub(super) fn needs_escape(byte: u8) -> bool {
    matches!(byte, b'/' | b'%' | 0..0x20 | 0x7F)
}

/// Percent-encodes the (ASCII) bytes for which `is_special` holds.
pub(super) fn escape(text: &str, is_special: impl Fn(u8) -> bool) -> String {
    let mut escaped = String::with_capacity(text.len());
    escape_onto(text, is_special, &mut escaped);
    escaped
}

/// As [`escape`], appending.
pub(super) fn escape_onto(text: &str, is_special: impl Fn(u8) -> bool, out: &mut String) {
    if !text.bytes().any(&is_special) {
        out.push_str(text);
        return;
    }
    for character in text.chars() {
        match u8::try_from(character) {
            Ok(byte) if byte.is_ascii() && is_special(byte) => push_escape(byte, out),
            _ => out.push(character),
        }
    }
}

/// Appends a byte, percent-encoded.
pub(super) fn push_escape(byte: u8, out: &mut String) {
    const DIGITS: [char; 16] =
        ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];
    out.push('%');
    out.extend([byte >> 4, byte & 0xF].iter().filter_map(|digit| DIGITS.get(usize::from(*digit))));
}

/// Decodes percent-encoding; a `%` without two hex digits stands for itself. Borrows if nothing is encoded.
pub(super) fn unescape_bytes(name: &str) -> Cow<'_, [u8]> {
    let mut rest = name.as_bytes();
    if !rest.contains(&b'%') {
        return Cow::Borrowed(rest);
    }
    let mut bytes = Vec::with_capacity(rest.len());
    loop {
        match rest {
            [] => return Cow::Owned(bytes),
            [b'%', high, low, after @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                bytes.push(hex_digit(*high) << 4 | hex_digit(*low));
                rest = after;
            }
            [byte, after @ ..] => {
                bytes.push(*byte);
                rest = after;
            }
        }
    }
}

/// What a hex digit is worth.
fn hex_digit(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

/// Cuts an encoded name that is too long, or looks as if it had been.
pub(super) fn cut(name: String) -> String {
    if name.len() <= NAME_MAX && cut_prefix(&name).is_none() {
        return name;
    }
    let mut hasher = FnvHasher::default();
    hasher.write(name.as_bytes());
    let longest = NAME_MAX - CUT_TAIL;
    let mut end = (0..=longest).rev().find(|end| name.is_char_boundary(*end)).unwrap_or_default();
    // No escape is split: what is left can be decoded.
    let prefix = name.get(..end).unwrap_or_default();
    if let Some(percent) = prefix.rfind('%')
        && percent + 3 > end
    {
        end = percent;
    }
    format!("{}~{:016x}", name.get(..end).unwrap_or_default(), hasher.finish())
}
