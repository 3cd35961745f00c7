//! Deciding changes, under the lock, against the newest state and what the same round has decided before.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::ops::Range;

use super::{CacheError, Change, Inner, Outcome, hold, read_record};
use crate::index::Row;
use crate::name::{Id, Key, flatten};
use crate::record::{self, Dialect, Edit, RECORD_MAX, Record};
use crate::sync::Arc;
use crate::value::{Leaf, Object};

/// A round that has so many bytes to append ends.
const ROUND_BYTES: usize = 64 << 20;

/// A live entry's record.
type State = Arc<Record<'static>>;

/// An entry that was changed in this round.
#[derive(Debug)]
struct Changed {
    state: Option<State>,
    /// Its place in the order of first appearance: its row, or after all rows.
    order: u64,
}

/// What was decided about a change.
#[derive(Debug)]
pub(super) struct Decision {
    pub outcome: Result<Outcome, CacheError>,
    /// It holds only if the round's lines are appended.
    pub depends: bool,
}

/// What was decided about the changes of a round.
#[derive(Debug)]
pub(super) struct Decided {
    /// In the order of the changes, at least about one.
    pub decisions: Vec<Decision>,
    /// What is to be appended.
    pub lines: Vec<u8>,
    /// The records in it, in order.
    pub records: Vec<Made>,
    /// The time at which it was decided.
    pub now: f64,
}

/// A record that is to be appended.
#[derive(Debug)]
pub(super) struct Made {
    /// Where it stands in the lines.
    pub span: Range<usize>,
    pub record: State,
    /// The record that its entry had before, if it was live.
    pub before: Option<State>,
}

/// Decides the changes of one round.
#[derive(Debug)]
pub(super) struct Decider<'c> {
    inner: &'c Inner,
    dialect: Dialect,
    now: f64,
    changed: HashMap<Id, Changed>,
    lines: Vec<u8>,
    records: Vec<Made>,
}

impl<'c> Decider<'c> {
    pub fn new(inner: &'c Inner, now: f64) -> Self {
        Self {
            inner,
            dialect: inner.store.dialect(),
            now,
            changed: HashMap::new(),
            lines: Vec::new(),
            records: Vec::new(),
        }
    }

    /// Whether the round has enough.
    pub fn is_full(&self) -> bool {
        self.lines.len() >= ROUND_BYTES
    }

    /// What was decided.
    pub fn finish(self, decisions: Vec<Decision>) -> Decided {
        Decided { decisions, lines: self.lines, records: self.records, now: self.now }
    }

    /// Says once more what is so of entries about which nothing was decided: for the log to have it as its last word.
    pub fn restate(&mut self, ids: &BTreeSet<Id>) -> Result<(), CacheError> {
        for id in ids {
            if self.changed.contains_key(id) {
                continue;
            }
            match self.state(id, &mut false)? {
                Some(record) => drop(self.append(id, record.time, &record.object, Some(&record))?),
                None => self.append_deletion(id, None)?,
            }
        }
        Ok(())
    }

    /// Decides a change; the line that it needs is added.
    pub fn decide(&mut self, change: &Change) -> Decision {
        let lines = self.records.len();
        let mut depends = false;
        let outcome = match change {
            Change::Create { id, attrs } => self.create(id, attrs, self.now, &mut depends),
            Change::Edit { id, edits } => self.edit(id, edits, &mut depends),
            Change::Delete { id } => self.delete(id, &mut depends),
            Change::Memo { pairs, fresh, attrs } => self.memo(pairs, fresh, attrs, &mut depends),
            Change::Restore { id, object, time } => self.create(id, object, *time, &mut depends),
        };
        Decision { outcome, depends: depends || self.records.len() > lines }
    }

    fn create(
        &mut self,
        id: &Id,
        attrs: &Object<'static>,
        time: f64,
        depends: &mut bool,
    ) -> Result<Outcome, CacheError> {
        if self.state(id, depends)?.is_some() {
            return Err(CacheError::Exists);
        }
        let record = self.append(id, time, attrs, None)?;
        self.set(id, Some(record));
        Ok(Outcome::Done(true))
    }

    fn edit(&mut self, id: &Id, edits: &[Edit], depends: &mut bool) -> Result<Outcome, CacheError> {
        let before = self.state(id, depends)?.ok_or(CacheError::NoEntry)?;
        let mut object = before.object.clone();
        let mut changed = false;
        for edit in edits {
            changed |= record::apply(&mut object, edit).map_err(CacheError::Edit)?;
        }
        if changed {
            let record = self.append(id, before.time, &object, Some(&before))?;
            self.set(id, Some(record));
        }
        Ok(Outcome::Done(changed))
    }

    fn delete(&mut self, id: &Id, depends: &mut bool) -> Result<Outcome, CacheError> {
        let before = self.state(id, depends)?.ok_or(CacheError::NoEntry)?;
        self.append_deletion(id, Some(&before))?;
        self.set(id, None);
        Ok(Outcome::Deleted(before.object.clone()))
    }

    fn memo(
        &mut self,
        pairs: &[(Key, Leaf)],
        fresh: &Id,
        attrs: &Object<'static>,
        depends: &mut bool,
    ) -> Result<Outcome, CacheError> {
        // Any change of this round may have made, or unmade, what is found.
        *depends |= !self.changed.is_empty();
        if let Some(found) = self.find(pairs) {
            return Ok(Outcome::Found(found));
        }
        self.create(fresh, attrs, self.now, depends)
    }

    /// The first live entry that includes the pairs.
    fn find(&self, pairs: &[(Key, Leaf)]) -> Option<Id> {
        let includes = |object: &Object<'static>| {
            let leaves = flatten(object);
            pairs.iter().all(|(key, leaf)| leaves.iter().any(|(k, v)| k == key && Leaf::of(v) == *leaf))
        };
        let here = self
            .changed
            .iter()
            .filter(|(_, changed)| changed.state.as_ref().is_some_and(|record| includes(&record.object)))
            .map(|(id, changed)| (changed.order, id.clone()))
            .min();
        let index = self.inner.index();
        let postings = pairs.iter().map(|(key, leaf)| index.posting(key, leaf));
        let rows = postings.reduce(|rows, posting| rows & posting).unwrap_or_else(|| index.live().clone());
        let there = rows
            .iter()
            .filter_map(|row| Some((u64::from(row), index.id(Row(row))?)))
            .find(|(_, id)| !self.changed.contains_key(id));
        here.into_iter().chain(there).min().map(|(_, id)| id)
    }

    /// The entry as it is now.
    fn state(&self, id: &Id, depends: &mut bool) -> Result<Option<State>, CacheError> {
        if let Some(changed) = self.changed.get(id) {
            *depends = true;
            return Ok(changed.state.clone());
        }
        let (row, at) = {
            let index = self.inner.index();
            let Some(row) = index.row(id.as_str()) else { return Ok(None) };
            (row, index.locator(row))
        };
        let Some(at) = at else { return Ok(None) };
        let generation = hold(&self.inner.generation).clone();
        if let Some(record) = self.inner.recent(generation.as_ref(), row, at) {
            return Ok(Some(record));
        }
        Ok(Some(Arc::new(read_record(generation.as_deref(), at)?)))
    }

    fn set(&mut self, id: &Id, state: Option<State>) {
        let next = (1 << 32) + self.changed.len() as u64;
        let order = self.inner.index().row_ever(id.as_str()).map_or(next, |Row(row)| u64::from(row));
        self.changed
            .entry(id.clone())
            .and_modify(|changed| changed.state.clone_from(&state))
            .or_insert(Changed { state, order });
    }

    /// Adds an entry's record, and gives it.
    fn append(
        &mut self,
        id: &Id,
        time: f64,
        attrs: &Object<'static>,
        before: Option<&State>,
    ) -> Result<State, CacheError> {
        let line = record::encode(id, time, attrs, self.dialect, &self.inner.path);
        if line.len() > RECORD_MAX {
            return Err(CacheError::TooLarge);
        }
        // What could not be read again (too deep) must not be acknowledged.
        let record = record::parse_record(&line).map_err(|_| CacheError::TooLarge)?;
        if record.id != *id || record.deleted {
            return Err(CacheError::io("encoding a record", io::ErrorKind::InvalidData.into()));
        }
        let record = Arc::new(record.into_owned());
        self.push(&line, Arc::clone(&record), before);
        Ok(record)
    }

    /// Adds the record that deletes an entry.
    fn append_deletion(&mut self, id: &Id, before: Option<&State>) -> Result<(), CacheError> {
        let line = record::encode_deletion(id, self.now, self.dialect, &self.inner.path);
        let record = record::parse_record(&line)
            .map_err(|_| CacheError::io("encoding a record", io::ErrorKind::InvalidData.into()))?;
        let record = Arc::new(record.into_owned());
        self.push(&line, record, before);
        Ok(())
    }

    fn push(&mut self, line: &[u8], record: State, before: Option<&State>) {
        let start = self.lines.len();
        self.lines.extend_from_slice(line);
        self.records.push(Made { span: start..self.lines.len(), record, before: before.map(Arc::clone) });
        self.lines.push(b'\n');
    }
}
