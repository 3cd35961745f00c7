//! Standard output: aligned columns that fit a terminal, nothing that a terminal would take for a command, and a
//! quiet end when nobody reads any more.

use std::borrow::Cow;
use std::io::{self, BufWriter, ErrorKind, IsTerminal, StdoutLock, Write};

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::failure::{self, Failure, Result};
use crate::value::{Number, Object, Text, Value};

/// A column keeps at least so many characters when a terminal is too narrow.
const NARROWEST: usize = 6;
/// Between columns.
const GAP: &str = "  ";

/// Standard output of a command.
#[derive(Debug)]
pub struct Out {
    to: BufWriter<StdoutLock<'static>>,
    /// Columns of the terminal; `None` if it is none.
    width: Option<usize>,
}

impl Out {
    /// The process's own.
    pub fn stdout() -> Self {
        let to = io::stdout().lock();
        let width = to
            .is_terminal()
            .then(|| terminal_size::terminal_size().map_or(80, |(width, _)| usize::from(width.0)));
        Self { to: BufWriter::new(to), width }
    }

    /// Bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.to.write_all(bytes).map_err(|e| failed(&e))
    }

    /// A line; made harmless if it goes to a terminal.
    pub fn line(&mut self, text: &str) -> Result<()> {
        let shown = if self.width.is_some() { printable_line(text) } else { Cow::Borrowed(text) };
        writeln!(self.to, "{shown}").map_err(|e| failed(&e))
    }

    /// An object on a line of its own, as Python prints it.
    pub fn object(&mut self, object: &Object<'_>) -> Result<()> {
        let mut line = Vec::new();
        object.write_python(&mut line);
        line.push(b'\n');
        self.bytes(&line)
    }

    /// Rows of cells, aligned; cut to the width of a terminal.
    pub fn columns(&mut self, rows: &[Vec<String>]) -> Result<()> {
        for line in aligned(rows, self.width) {
            writeln!(self.to, "{line}").map_err(|e| failed(&e))?;
        }
        Ok(())
    }

    /// Something for people that is no part of the output.
    pub fn note(&mut self, text: &str) {
        let _ = self.to.flush();
        let _ = writeln!(io::stderr(), "{}", printable(text));
    }

    /// Writes out what is buffered.
    pub fn finish(mut self) -> Result<()> {
        self.to.flush().map_err(|e| failed(&e))
    }
}

fn failed(error: &io::Error) -> Failure {
    if error.kind() == ErrorKind::BrokenPipe {
        Failure::BrokenPipe
    } else {
        failure::io("write", "to standard output", error)
    }
}

/// A string value.
pub fn string(text: impl Into<String>) -> Value<'static> {
    Value::String(Text::from_str(text.into()))
}

/// A number value.
pub fn count(number: u64) -> Value<'static> {
    // Digits are a number token: the other arm is never taken.
    Number::new(number.to_string()).map_or(Value::Null, Value::Number)
}

/// A time in the zone of the process, to the second.
pub fn local_time(seconds: f64) -> String {
    let whole = seconds.floor();
    // Beyond what a calendar has, the number says more.
    if !(-6e10..=2.5e11).contains(&whole) {
        return seconds.to_string();
    }
    #[expect(clippy::cast_possible_truncation, reason = "in range, see above")]
    let whole = whole as libc::time_t;
    // SAFETY: a broken-down time is plain data; both pointers are valid for the length of the call.
    let fields = unsafe {
        let mut fields: libc::tm = std::mem::zeroed();
        if libc::localtime_r(&raw const whole, &raw mut fields).is_null() {
            return seconds.to_string();
        }
        fields
    };
    format!(
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02}",
        fields.tm_year + 1900,
        fields.tm_mon + 1,
        fields.tm_mday,
        fields.tm_hour,
        fields.tm_min,
        fields.tm_sec
    )
}

/// As [`printable`], but tabs stay.
fn printable_line(text: &str) -> Cow<'_, str> {
    if !text.contains('\t') {
        return printable(text);
    }
    Cow::Owned(text.split('\t').map(printable).collect::<Vec<_>>().join("\t"))
}

/// The text with what a terminal might obey, or what would break a line, replaced: control characters are shown as in
/// JSON, marks that turn the direction of writing by their code.
pub fn printable(text: &str) -> Cow<'_, str> {
    let obeyed = |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if !text.contains(obeyed) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if obeyed(c) => out.extend(format!("\\u{:04x}", u32::from(c)).chars()),
            c => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// Lines of cells padded to the widest of their column, the widest columns cut until a line fits `width`.
fn aligned(rows: &[Vec<String>], width: Option<usize>) -> Vec<String> {
    let cells: Vec<Vec<Cow<'_, str>>> =
        rows.iter().map(|row| row.iter().map(|cell| printable(cell)).collect()).collect();
    let mut widths: Vec<usize> = Vec::new();
    for row in &cells {
        for (column, cell) in row.iter().enumerate() {
            let wide = cell.width();
            match widths.get_mut(column) {
                Some(widest) => *widest = wide.max(*widest),
                None => widths.push(wide),
            }
        }
    }
    if let Some(width) = width {
        fit(&mut widths, width);
    }
    let mut lines = Vec::with_capacity(cells.len());
    for row in &cells {
        let mut line = String::new();
        for (cell, &wide) in row.iter().zip(&widths) {
            if !line.is_empty() {
                line.push_str(GAP);
            }
            let cell = cut(cell, wide);
            line.push_str(&cell);
            line.extend(std::iter::repeat_n(' ', wide.saturating_sub(cell.width())));
        }
        line.truncate(line.trim_end_matches(' ').len());
        lines.push(line);
    }
    lines
}

/// Narrows the widest columns first; those that do not fit at their narrowest are left to the terminal's own wrapping.
fn fit(widths: &mut [usize], total: usize) {
    let gaps = GAP.len() * widths.len().saturating_sub(1);
    let available = total.saturating_sub(gaps);
    // The largest width that may be kept: everything wider is cut to it.
    let sum = |most: usize, widths: &[usize]| widths.iter().map(|&wide| wide.min(most)).sum::<usize>();
    let widest = widths.iter().copied().max().unwrap_or(0);
    if sum(widest, widths) <= available {
        return;
    }
    let (mut low, mut high) = (NARROWEST, widest);
    while low < high {
        let middle = (low + high).div_ceil(2);
        if sum(middle, widths) <= available { low = middle } else { high = middle - 1 }
    }
    for wide in widths {
        *wide = (*wide).min(low);
    }
}

/// The beginning of a text that is at most `width` columns wide, with an ellipsis if something was cut.
fn cut(text: &str, width: usize) -> Cow<'_, str> {
    if text.width() <= width {
        return Cow::Borrowed(text);
    }
    let mut out = String::new();
    let mut used = 1;
    for c in text.chars() {
        used += c.width().unwrap_or(0);
        if used > width {
            break;
        }
        out.push(c);
    }
    out.push('…');
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(cells: &[&[&str]]) -> Vec<Vec<String>> {
        cells.iter().map(|row| row.iter().map(|&cell| cell.to_owned()).collect()).collect()
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let lines = aligned(&rows(&[&["id", "model"], &["e1", "模型"], &["longer", "x"]]), None);
        assert_eq!(lines, ["id      model", "e1      模型", "longer  x"]);
    }

    #[test]
    fn a_narrow_terminal_cuts_the_widest_columns_first() {
        let lines = aligned(&rows(&[&["short", &"a".repeat(50), &"b".repeat(20)]]), Some(40));
        assert!(lines[0].width() <= 40, "{lines:?}");
        assert!(lines[0].starts_with("short  aaaa"));
        assert!(lines[0].contains("…  bbbb"));
    }

    #[test]
    fn nothing_reaches_a_terminal_that_it_would_obey() {
        assert_eq!(printable("a\x1b[31mb\n\u{202e}\u{9b}"), "a\\u001b[31mb\\n\\u202e\\u009b");
        assert!(matches!(printable("plain ü"), Cow::Borrowed(_)));
    }
}
