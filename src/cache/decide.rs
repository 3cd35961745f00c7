//! Deciding changes, under the lock, against the newest state and what the same round has decided before.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::ops::Range;

use super::{CacheError, Change, Inner, Outcome, hold, read_object};
use crate::index::Row;
use crate::name::{Id, Key, flatten};
use crate::record::{self, Dialect, Edit, RECORD_MAX};
use crate::value::{Leaf, Object};

/// A round that has so many bytes to append ends.
const ROUND_BYTES: usize = 64 << 20;

/// A live entry's object and time.
type State = (Object<'static>, f64);

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
    /// Where the records stand in it.
    pub spans: Vec<Range<usize>>,
    /// The time at which it was decided.
    pub now: f64,
}

/// Decides the changes of one round.
#[derive(Debug)]
pub(super) struct Decider<'c> {
    inner: &'c Inner,
    dialect: Dialect,
    now: f64,
    changed: HashMap<Id, Changed>,
    lines: Vec<u8>,
    spans: Vec<Range<usize>>,
}

impl<'c> Decider<'c> {
    pub fn new(inner: &'c Inner, now: f64) -> Self {
        Self {
            inner,
            dialect: inner.store.dialect(),
            now,
            changed: HashMap::new(),
            lines: Vec::new(),
            spans: Vec::new(),
        }
    }

    /// Whether the round has enough.
    pub fn is_full(&self) -> bool {
        self.lines.len() >= ROUND_BYTES
    }

    /// What was decided.
    pub fn finish(self, decisions: Vec<Decision>) -> Decided {
        Decided { decisions, lines: self.lines, spans: self.spans, now: self.now }
    }

    /// Says once more what is so of entries about which nothing was decided: for the log to have it as its last word.
    pub fn restate(&mut self, ids: &BTreeSet<Id>) -> Result<(), CacheError> {
        for id in ids {
            if self.changed.contains_key(id) {
                continue;
            }
            match self.state(id, &mut false)? {
                Some((object, time)) => drop(self.append(id, time, &object)?),
                None => self.push(&record::encode_deletion(id, self.now, self.dialect, &self.inner.path)),
            }
        }
        Ok(())
    }

    /// Decides a change; the line that it needs is added.
    pub fn decide(&mut self, change: &Change) -> Decision {
        let lines = self.spans.len();
        let mut depends = false;
        let outcome = match change {
            Change::Create { id, attrs } => self.create(id, attrs, self.now, &mut depends),
            Change::Edit { id, edits } => self.edit(id, edits, &mut depends),
            Change::Delete { id } => self.delete(id, &mut depends),
            Change::Memo { pairs, fresh, attrs } => self.memo(pairs, fresh, attrs, &mut depends),
            Change::Restore { id, object, time } => self.create(id, object, *time, &mut depends),
        };
        Decision { outcome, depends: depends || self.spans.len() > lines }
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
        let object = self.append(id, time, attrs)?;
        self.set(id, Some((object, time)));
        Ok(Outcome::Done(true))
    }

    fn edit(&mut self, id: &Id, edits: &[Edit], depends: &mut bool) -> Result<Outcome, CacheError> {
        let (mut object, time) = self.state(id, depends)?.ok_or(CacheError::NoEntry)?;
        let mut changed = false;
        for edit in edits {
            changed |= record::apply(&mut object, edit).map_err(CacheError::Edit)?;
        }
        if changed {
            let object = self.append(id, time, &object)?;
            self.set(id, Some((object, time)));
        }
        Ok(Outcome::Done(changed))
    }

    fn delete(&mut self, id: &Id, depends: &mut bool) -> Result<Outcome, CacheError> {
        let (object, _) = self.state(id, depends)?.ok_or(CacheError::NoEntry)?;
        let line = record::encode_deletion(id, self.now, self.dialect, &self.inner.path);
        self.push(&line);
        self.set(id, None);
        Ok(Outcome::Deleted(object))
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
            .filter(|(_, changed)| changed.state.as_ref().is_some_and(|(object, _)| includes(object)))
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
        let (at, time) = {
            let index = self.inner.index();
            let Some(row) = index.row(id.as_str()) else { return Ok(None) };
            (index.locator(row), index.time(row))
        };
        let Some(at) = at else { return Ok(None) };
        let generation = hold(&self.inner.generation).clone();
        Ok(Some((read_object(generation.as_deref(), at)?, time)))
    }

    fn set(&mut self, id: &Id, state: Option<State>) {
        let next = (1 << 32) + self.changed.len() as u64;
        let order = self.inner.index().row_ever(id.as_str()).map_or(next, |Row(row)| u64::from(row));
        self.changed
            .entry(id.clone())
            .and_modify(|changed| changed.state.clone_from(&state))
            .or_insert(Changed { state, order });
    }

    /// Adds an entry's record; gives the object that it has.
    fn append(&mut self, id: &Id, time: f64, attrs: &Object<'static>) -> Result<Object<'static>, CacheError> {
        let line = record::encode(id, time, attrs, self.dialect, &self.inner.path);
        if line.len() > RECORD_MAX {
            return Err(CacheError::TooLarge);
        }
        // What could not be read again (too deep) must not be acknowledged.
        let object = match record::parse_record(&line) {
            Ok(record) if record.id == *id && !record.deleted => record.object.into_owned(),
            Ok(_) => return Err(CacheError::io("encoding a record", io::ErrorKind::InvalidData.into())),
            Err(_) => return Err(CacheError::TooLarge),
        };
        self.push(&line);
        Ok(object)
    }

    fn push(&mut self, line: &[u8]) {
        let start = self.lines.len();
        self.lines.extend_from_slice(line);
        self.spans.push(start..self.lines.len());
        self.lines.push(b'\n');
    }
}
