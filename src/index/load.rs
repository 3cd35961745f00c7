//! Loading a whole log at once.
//!
//! Readers take stretches of the log apart, on as many threads as there are; here what they found comes together, in the
//! order of the log. Every record gets a slot, in order, and postings are collected by slot: appending is cheap, and what a
//! record said that a later one replaced is told by its slot. Slots become rows at the end.

use std::sync::Arc;

use hashbrown::DefaultHashBuilder;

use super::Index;
use super::attribute::Attribute;
use super::column::Column;
use super::ids::Ids;
use super::keys::{KeyNumber, Keys};
use super::posting::{bitmap_of, compact};
use super::reader::{Part, Reader};
use super::rows::Rows;
use super::times::Times;
use crate::record::{Locator, Record};

/// Collects the records of a whole log, the last of an id winning; then becomes an [`Index`].
#[derive(Debug, Default)]
pub struct Loader {
    ids: Ids,
    rows: Rows,
    keys: Keys,
    columns: Vec<Column>,
    slots: Slots,
    readers: Vec<Known>,
    hasher: DefaultHashBuilder,
    generation: u64,
    /// For records that come one by one.
    own: Option<(Reader, Known)>,
}

/// What is known of a reader's numbers.
#[derive(Debug, Default)]
struct Known {
    /// The key numbers here, by its.
    keys: Vec<KeyNumber>,
    /// The value numbers here, by its, by its key numbers.
    values: Vec<Vec<u32>>,
}

/// Which slots count.
#[derive(Debug, Default)]
struct Slots {
    /// The row of each slot.
    rows: Vec<u32>,
    /// The slot of each row's last record, if that does not delete it.
    current: Vec<Option<Slot>>,
    /// Whether slots are rows, and all count.
    same: bool,
}

/// One more than a slot: an optional one takes four bytes.
type Slot = std::num::NonZeroU32;

/// One key of a loaded log, whose values are yet to be put in order: on any thread.
#[derive(Debug)]
pub struct Unfinished {
    column: Column,
    slots: Arc<Slots>,
    generation: u64,
}

/// One key of a loaded log.
#[derive(Debug)]
pub struct Finished(Attribute);

impl Slots {
    fn row(&self, slot: u32) -> Option<u32> {
        let row = *self.rows.get(usize::try_from(slot).ok()?)?;
        let current = self.current.get(usize::try_from(row).ok()?).copied().flatten()?;
        (current.get() == slot + 1).then_some(row)
    }
}

impl Unfinished {
    /// Puts the values in order.
    pub fn finish(self) -> Finished {
        let Self { column, slots, generation } = self;
        let to_row = |slot| slots.row(slot);
        Finished(column.finish(if slots.same { None } else { Some(&to_row) }, generation))
    }
}

impl Loader {
    /// A loader for a replaced log: rows of ids that `index` knows are kept.
    pub fn replacing(index: &Index) -> Self {
        Self {
            ids: index.ids.clone(),
            rows: index.rows.clone(),
            slots: Slots { current: vec![None; index.ids.len()], ..Slots::default() },
            generation: index.generation + 1,
            ..Self::default()
        }
    }

    /// Number of ids so far.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes room for so many ids in all. Gives about the bytes that were taken for it.
    pub fn reserve(&mut self, ids: usize) -> u64 {
        self.ids.reserve(ids)
    }

    /// Takes the next record of the log.
    pub fn add(&mut self, record: &Record<'_>, at: Locator) {
        let (mut reader, mut known) = self.own.take().unwrap_or_default();
        reader.record(record, at);
        if reader.is_full() {
            self.merge(&mut known, reader.part());
        }
        self.own = Some((reader, known));
    }

    /// Takes the next stretch of the log, taken apart by the reader of that number: the same for all that one made, in their
    /// order.
    pub fn take(&mut self, reader: usize, part: Part) {
        if self.readers.len() <= reader {
            self.readers.resize_with(reader + 1, Known::default);
        }
        let Some(mut known) = self.readers.get_mut(reader).map(std::mem::take) else { return };
        self.merge(&mut known, part);
        if let Some(place) = self.readers.get_mut(reader) {
            *place = known;
        }
    }

    fn merge(&mut self, known: &mut Known, part: Part) {
        let Part { ids, ends, times, places, deleted, keys, columns, malformed: _, records: _ } = part;
        let base = u32::try_from(self.slots.rows.len()).unwrap_or(u32::MAX);
        let mut start = 0;
        let text = |&end: &usize| {
            let id = ids.get(start..end).unwrap_or_default();
            start = end;
            id
        };
        let mut of_records = Vec::with_capacity(ends.len());
        self.ids.intern_all(ends.iter().map(text), |row| of_records.push(row));
        self.rows.grow(self.ids.len());
        self.slots.current.resize(self.ids.len(), None);
        let mut deleted = deleted.into_iter().peekable();
        for (((number, row), time), at) in (0..).zip(of_records).zip(times).zip(places) {
            let Slots { rows, current, .. } = &mut self.slots;
            let current = usize::try_from(row).ok().and_then(|row| current.get_mut(row));
            let Some(current) = current else { continue };
            if deleted.next_if_eq(&number).is_some() {
                *current = None;
                continue;
            }
            let slot = u32::try_from(rows.len()).unwrap_or(u32::MAX);
            rows.push(row);
            *current = Slot::new(slot.saturating_add(1));
            self.rows.set(row, time, at);
        }
        known.keys.extend(keys.into_iter().map(|key| self.keys.intern(key)));
        self.columns.resize_with(self.keys.len(), Column::default);
        known.values.resize_with(known.keys.len(), Vec::new);
        for (key, stretch) in columns {
            let number = known.keys.get(key).and_then(|number| usize::try_from(*number).ok());
            let column = number.and_then(|number| self.columns.get_mut(number));
            if let (Some(column), Some(values)) = (column, known.values.get_mut(key)) {
                column.take(stretch, base, values, &self.hasher);
            }
        }
    }

    /// The index of what was added.
    pub fn finish(self) -> Index {
        self.finish_by(|columns| columns.into_iter().map(Unfinished::finish).collect())
    }

    /// As [`Loader::finish`]; `each` finishes all, in their order, and may use several threads for it.
    pub fn finish_by(mut self, each: impl FnOnce(Vec<Unfinished>) -> Vec<Finished>) -> Index {
        if let Some((mut reader, mut known)) = self.own.take() {
            self.merge(&mut known, reader.part());
        }
        let Self { mut ids, mut rows, keys, columns, mut slots, generation, .. } = self;
        drop(self.readers);
        slots.same =
            slots.rows.iter().zip(0..).all(|(&row, slot)| row == slot && slots.row(slot) == Some(row));
        let slots = Arc::new(slots);
        let unfinished = |column| Unfinished { column, slots: Arc::clone(&slots), generation };
        let attributes = each(columns.into_iter().map(unfinished).collect());
        ids.shrink_to_fit();
        rows.shrink_to_fit();
        let live = (0..).zip(&slots.current).filter_map(|(row, slot)| slot.map(|_| row));
        let live = compact(bitmap_of(live));
        let times = Times::of(&rows, rows.ever_live());
        Index {
            ids,
            rows,
            times,
            live,
            keys,
            attributes: attributes.into_iter().map(|Finished(attribute)| attribute).collect(),
            due: Vec::new(),
            generation,
            live_generation: generation,
            time_generation: generation,
            base_generation: generation,
        }
    }
}
