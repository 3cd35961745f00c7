//! Lines of the log on their way into the index.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use super::decide::Made;
use super::load::Loading;
use super::memory::{self, RESERVE};
use super::publish::Account;
use super::{CacheError, Inner, Published, hold};
use crate::index::{Index, Row};
use crate::name::Id;
use crate::record::{Locator, Piece, Record, parse_line, parse_record};
use crate::store::{Generation, Lines, Sink};
use crate::value::Object;

/// Lines are taken into the index when so many bytes or lines have come together.
const BATCH_BYTES: usize = 4 << 20;
const BATCH_LINES: usize = 4096;
/// For work that takes more bytes it is looked whether there are so many.
const LARGE: u64 = 1 << 20;
/// So many records are applied at a time, for readers wait as long.
const SLICE: usize = 256;

/// Takes lines, and moves index and account on. Whoever has one holds the account.
pub(super) struct Intake<'c> {
    inner: &'c Inner,
    account: &'c mut Account,
    published: Published,
    bytes: Vec<u8>,
    lines: Vec<(Range<usize>, Locator)>,
    loading: Option<Loading>,
    /// An old record could not be read: the index must be made anew.
    failed: Option<CacheError>,
}

/// A record to apply, and where the entry's object from before it is.
struct Step<'b> {
    record: Record<'b>,
    at: Locator,
    old: Old,
}

enum Old {
    /// Not live.
    None,
    /// A record earlier in the batch.
    Step(usize),
    /// A record of the log, read.
    Read(usize),
}

impl Sink for Intake<'_> {
    fn replaced(&mut self, generation: &Arc<Generation>) {
        // Lines of the former log that are not applied yet are told again by the new one, or are gone.
        self.bytes.clear();
        self.lines.clear();
        self.failed = None;
        self.loading = Some(Loading::new(&self.inner.index(), generation));
    }

    fn lines(&mut self, lines: Lines) -> Vec<u8> {
        if let Some(loading) = &mut self.loading {
            let taken = loading.lines(lines);
            return self.loaded(taken);
        }
        lines.each(|at, line| self.line(at, line));
        lines.into_buffer()
    }

    fn line(&mut self, at: Locator, line: &[u8]) {
        if self.failed.is_some() {
            return;
        }
        if let Some(loading) = &mut self.loading {
            let taken = loading.lines(Lines::one(at, line));
            self.loaded(taken);
            return;
        }
        let start = self.bytes.len();
        self.bytes.extend_from_slice(line);
        self.lines.push((start..self.bytes.len(), at));
        if self.bytes.len() >= BATCH_BYTES || self.lines.len() >= BATCH_LINES {
            self.flush();
        }
    }

    fn oversized(&mut self, at: Locator) {
        match &mut self.loading {
            Some(loading) => loading.damage(at),
            None if self.failed.is_some() => {}
            None => self.account.damage(at),
        }
    }
}

impl<'c> Intake<'c> {
    pub fn new(inner: &'c Inner, account: &'c mut Account) -> Self {
        Self {
            inner,
            account,
            published: Published::default(),
            bytes: Vec::new(),
            lines: Vec::new(),
            loading: None,
            failed: None,
        }
    }

    /// Ends a pass that succeeded: what came is in the index. An error means that the log has to be read anew.
    pub fn publish(&mut self) -> Result<(), CacheError> {
        self.flush();
        if let Some(error) = self.failed.take() {
            self.bytes.clear();
            self.lines.clear();
            return Err(error);
        }
        let Some(loading) = self.loading.take() else { return Ok(()) };
        let (fresh, generation, mut account) = loading.finish()?;
        account.live_bytes =
            fresh.live().iter().filter_map(|row| fresh.locator(crate::index::Row(row))).map(size).sum();
        account.replaced = self.account.replaced + 1;
        *self.account = account;
        let _former = {
            let mut index = self.inner.index_mut();
            *hold(&self.inner.generation) = Some(generation);
            std::mem::replace(&mut *index, fresh)
        };
        self.published.all = true;
        // The former index goes here, without the lock: a million entries take their time.
        Ok(())
    }

    /// Ends a pass that failed: what came before the failure counts, but for a log that was not read to its end.
    pub fn abort(&mut self) {
        self.loading = None;
        self.flush();
    }

    /// Takes records that were just appended from an offset on: what they say is known, and what was so before.
    pub fn own(&mut self, base: u64, records: &[Made]) {
        self.flush();
        let bytes = records.last().map_or(0, |made| made.span.end);
        self.inner.took(bytes);
        if self.failed.is_some() {
            return;
        }
        if let Err(error) = self.inner.spare_memory() {
            self.failed = Some(error);
            return;
        }
        let inner = self.inner;
        let generation = hold(&inner.generation).clone();
        for slice in records.chunks(SLICE) {
            let mut index = inner.index_mut();
            let mut recent = hold(&inner.recent);
            for made in slice {
                let at = place(base, &made.span);
                let old = made.before.as_ref().map(|before| &before.object);
                let row = self.take(&mut index, &made.record, old, at);
                if let Some(generation) = generation.as_ref().filter(|_| !made.record.deleted) {
                    recent.put(generation, row, at, &made.record);
                }
            }
            drop(recent);
            drop(index);
            self.tidy();
        }
    }

    /// Takes a record into the index.
    fn take(&mut self, index: &mut Index, record: &Record<'_>, old: Option<&Object<'_>>, at: Locator) -> Row {
        let before = index.row(record.id.as_str()).and_then(|row| index.locator(row));
        self.account.live_bytes -= before.map_or(0, size);
        if !record.deleted {
            self.account.live_bytes += size(at);
        }
        self.account.records += 1;
        self.published.gone |= record.deleted;
        let row = index.apply(record, old, at);
        self.published.rows.push(row);
        row
    }

    /// Does the work that changes have left behind in the index. Readers do not wait for it: whoever changes the index has the
    /// account.
    fn tidy(&self) {
        loop {
            let needed = self.inner.index().tidying_bytes();
            let Some(needed) = needed else { return };
            if needed > LARGE && memory::available() < needed.saturating_add(RESERVE) {
                // The index answers without it, too.
                return;
            }
            let tidied = self.inner.index().tidied();
            let Some(tidied) = tidied else { return };
            self.inner.index_mut().tidy(tidied);
        }
    }

    /// Gives up a load that failed.
    fn loaded(&mut self, taken: Result<Vec<u8>, CacheError>) -> Vec<u8> {
        taken.unwrap_or_else(|error| {
            // What was gathered is given back at once.
            self.loading = None;
            self.failed = Some(error);
            Vec::new()
        })
    }

    /// What has changed.
    pub fn into_published(self) -> Published {
        self.published
    }

    /// Takes what has come together into the index.
    fn flush(&mut self) {
        if self.loading.is_some() || self.lines.is_empty() || self.failed.is_some() {
            return;
        }
        let bytes = std::mem::take(&mut self.bytes);
        let lines = std::mem::take(&mut self.lines);
        self.inner.took(bytes.len());
        let fits = self.inner.spare_memory();
        if let Err(error) = fits.and_then(|()| self.apply(&bytes, &lines)) {
            self.failed = Some(error);
        }
    }

    fn apply(&mut self, bytes: &[u8], lines: &[(Range<usize>, Locator)]) -> Result<(), CacheError> {
        let mut steps: Vec<Step<'_>> = Vec::with_capacity(lines.len());
        for (range, at) in lines {
            for (range, piece) in parse_line(bytes.get(range.clone()).unwrap_or_default()) {
                let at = within(*at, &range);
                match piece {
                    Piece::Record(record) => steps.push(Step { record, at, old: Old::None }),
                    Piece::Malformed(_) => self.account.damage(at),
                }
            }
        }
        // Old records are read before the index is locked: I/O must not keep readers waiting. Nobody else changes it now.
        let inner = self.inner;
        let generation = hold(&inner.generation).clone();
        let mut read: Vec<Vec<u8>> = Vec::new();
        {
            let mut seen: HashMap<Id, usize> = HashMap::new();
            for (i, step) in steps.iter_mut().enumerate() {
                if let Some(&before) = seen.get(&step.record.id) {
                    step.old = Old::Step(before);
                } else if let Some(at) = self.inner.locator(step.record.id.as_str()) {
                    let generation = generation.as_ref().ok_or(CacheError::NoEntry)?;
                    read.push(generation.read(at).map_err(|e| CacheError::io("reading a record", e))?);
                    step.old = Old::Read(read.len() - 1);
                }
                seen.insert(step.record.id.clone(), i);
            }
        }
        let read: Vec<Record<'_>> = read
            .iter()
            .map(|bytes| parse_record(bytes))
            .collect::<Result<_, _>>()
            .map_err(|_| CacheError::io("reading a record", std::io::ErrorKind::InvalidData.into()))?;
        for slice in steps.chunks(SLICE) {
            let mut index = inner.index_mut();
            for step in slice {
                let old = match step.old {
                    Old::None => None,
                    Old::Step(i) => steps.get(i).filter(|s| !s.record.deleted).map(|s| &s.record.object),
                    Old::Read(i) => read.get(i).map(|record| &record.object),
                };
                self.take(&mut index, &step.record, old, step.at);
            }
            drop(index);
            self.tidy();
        }
        Ok(())
    }
}

/// Bytes of a line.
pub(super) fn size(at: Locator) -> u64 {
    u64::from(at.len) + 1
}

/// The place of a part of a line.
pub(super) fn within(line: Locator, part: &Range<usize>) -> Locator {
    place(line.offset, part)
}

/// The place of a part of what stands at an offset.
fn place(base: u64, part: &Range<usize>) -> Locator {
    Locator { offset: base + part.start as u64, len: u32::try_from(part.len()).unwrap_or(u32::MAX) }
}
