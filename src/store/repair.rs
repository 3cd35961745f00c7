//! Taking damage out of the middle of the log, under the lock, without destroying any of it.

use std::ops::Range;
use std::sync::Arc;

use super::{BACKUP, Generation, Locked, Sink, StoreError, hold, log};
use crate::record::{Locator, Malformed, Piece, parse_line};

/// What a repair did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Repaired {
    /// Name of the copy of the log as it was; `None`: there was nothing to do.
    pub backup: Option<String>,
    /// Name of the file to which the damage was moved, each stretch ended by `\n`.
    pub set_aside: Option<String>,
    /// Number of stretches moved there.
    pub stretches: u64,
    /// Number of good records found behind a torn one in the same line.
    pub salvaged: u64,
}

/// Sorts the log into what is good and what is not.
#[derive(Debug, Default)]
struct Sorter {
    keep: Vec<Locator>,
    aside: Vec<Range<u64>>,
    salvaged: u64,
}

impl Sorter {
    fn keep(&mut self, range: Range<u64>) {
        let len = u32::try_from(range.end - range.start).unwrap_or(u32::MAX);
        self.keep.push(Locator { offset: range.start, len });
    }
}

impl Sink for Sorter {
    fn replaced(&mut self, _: &Arc<Generation>) {
        *self = Self::default();
    }

    fn line(&mut self, at: Locator, line: &[u8]) {
        let pieces = parse_line(line);
        if pieces.iter().all(|(_, piece)| matches!(piece, Piece::Record(_))) {
            if !pieces.is_empty() {
                self.keep(at.offset..at.offset + u64::from(at.len));
            }
            return;
        }
        let place = |range: &Range<usize>| at.offset + range.start as u64..at.offset + range.end as u64;
        let mut torn = None;
        for (range, piece) in &pieces {
            let whole = place(range);
            match piece {
                Piece::Record(_) => {
                    self.salvaged += u64::from(torn == Some(range.start));
                    self.keep(whole);
                }
                Piece::Malformed(why) => {
                    torn = (*why == Malformed::NotAnObject).then_some(range.end);
                    self.aside.push(whole);
                }
            }
        }
    }

    fn oversized(&mut self, at: Locator) {
        self.aside.push(at.offset..at.offset + u64::from(at.len));
    }
}

impl Locked<'_> {
    /// Copies stretches of the log to a `_torn-…` file, each ended by `\n`. Needs a [`Locked::catch_up`] before.
    pub fn set_aside(&self, stretches: &[Locator]) -> Result<(), StoreError> {
        let Some((file, _)) = &self.log else {
            return Err(StoreError::io("setting damage aside without having read the log")(
                std::io::ErrorKind::InvalidInput.into(),
            ));
        };
        let ranges: Vec<_> = stretches.iter().map(|at| at.offset..at.offset + u64::from(at.len)).collect();
        let name = self.store.set_aside(file, &ranges)?;
        ::log::warn!(
            "{}/_entries had {} torn records before good ones: set aside as {name}",
            self.store.path.display(),
            ranges.len()
        );
        Ok(())
    }

    /// Moves every malformed stretch to a `_torn-…` file, after a backup copy of the whole log, and keeps everything else in its
    /// order; good records behind torn ones become lines of their own. Needs a [`Locked::catch_up`] before, which mends the
    /// tail. The next pass of this store gives every line anew.
    pub fn repair(&mut self) -> Result<Repaired, StoreError> {
        let store = self.store;
        let Some((file, end)) = self.log.clone() else {
            return Err(StoreError::io("repairing without having read the log")(
                std::io::ErrorKind::InvalidInput.into(),
            ));
        };
        let mut sorter = Sorter::default();
        let (_, result) = log::read_lines(&*store.sys, &file, 0, end, &mut sorter);
        result.map_err(StoreError::io("reading the log"))?;
        if sorter.aside.is_empty() {
            return Ok(Repaired::default());
        }
        let (copy, backup) = store.create_aside(BACKUP)?;
        store.copy(&file, 0..end, &copy, 0)?;
        store.make_durable(&copy)?;
        let set_aside = store.set_aside(&file, &sorter.aside)?;
        let result = self.compact(&sorter.keep);
        hold(&store.position).reload = true;
        result?;
        Ok(Repaired {
            backup: Some(backup),
            set_aside: Some(set_aside),
            stretches: sorter.aside.len() as u64,
            salvaged: sorter.salvaged,
        })
    }
}
