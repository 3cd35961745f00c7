//! Loading a whole log at once.
//!
//! Every record gets a slot, in order, and postings are collected by slot: appending is cheap, and what a record
//! said that a later one replaced is told by its slot. Slots become rows at the end.

use std::hash::BuildHasher;

use super::attribute::Attribute;
use super::filling::{Filling, Runs};
use super::ids::Ids;
use super::keys::Keys;
use super::posting::{bitmap_of, compact};
use super::rows::Rows;
use super::{Index, KeyNumber};
use crate::record::{Locator, Record};
use crate::value::{Leaf, Value};
use hashbrown::{DefaultHashBuilder, HashTable};

/// Collects the records of a whole log, the last of an id winning; then becomes an [`Index`].
#[derive(Debug, Default)]
pub struct Loader {
    ids: Ids,
    rows: Rows,
    keys: Keys,
    columns: Vec<Column>,
    /// The row of each slot.
    slots: Vec<u32>,
    /// The slot of each row's last record, if that does not delete it.
    current: Vec<Option<Slot>>,
    hasher: DefaultHashBuilder,
    generation: u64,
}

/// One more than a slot: an optional one takes four bytes.
type Slot = std::num::NonZeroU32;

/// So many values are looked at before it is decided whether to look for equal ones at all.
const SAMPLE: usize = 1 << 15;

/// A double that is not NaN, as a number in the same order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct OrderedDouble(u64);

const SIGN: u64 = 1 << 63;

impl From<f64> for OrderedDouble {
    fn from(double: f64) -> Self {
        let bits = double.to_bits();
        Self(if bits & SIGN == 0 { bits | SIGN } else { !bits })
    }
}

impl From<OrderedDouble> for f64 {
    fn from(ordered: OrderedDouble) -> Self {
        Self::from_bits(if ordered.0 & SIGN == 0 { !ordered.0 } else { ordered.0 & !SIGN })
    }
}

/// The values of one key so far.
#[derive(Debug, Default)]
struct Column {
    values: Vec<(Leaf, Filling)>,
    /// Whether most values are different, as those of a measured quantity: from then on each is kept alone with its
    /// slot, and equal ones meet when all are sorted.
    loose: bool,
    /// Of a loose column the doubles, by number and slot: small, and quickly sorted.
    doubles: Vec<(OrderedDouble, u32)>,
    taken: usize,
    /// Places in `values`, by hash of the leaf.
    places: HashTable<u32>,
    slots: Runs,
}

/// What a value's leaf is looked for by: strings, the most of what would be allocated, are borrowed.
enum Probe<'v> {
    Text(&'v [u8]),
    Leaf(Leaf),
}

impl Probe<'_> {
    fn hash(&self, hasher: &DefaultHashBuilder) -> u64 {
        match self {
            Self::Text(text) => hasher.hash_one(text),
            Self::Leaf(leaf) => hash_leaf(hasher, leaf),
        }
    }

    fn is(&self, leaf: &Leaf) -> bool {
        match (self, leaf) {
            (Self::Text(text), Leaf::String(other)) => **text == **other,
            (Self::Text(_), _) => false,
            (Self::Leaf(probe), leaf) => probe == leaf,
        }
    }

    fn into_leaf(self) -> Leaf {
        match self {
            Self::Text(text) => Leaf::String(text.into()),
            Self::Leaf(leaf) => leaf,
        }
    }
}

fn hash_leaf(hasher: &DefaultHashBuilder, leaf: &Leaf) -> u64 {
    match leaf {
        Leaf::String(text) => hasher.hash_one(&**text),
        leaf => hasher.hash_one(leaf),
    }
}

impl Column {
    fn add(&mut self, value: &Value<'_>, slot: u32, hasher: &DefaultHashBuilder) {
        let probe = match value {
            Value::String(text) => Probe::Text(text.as_bytes()),
            value => Probe::Leaf(Leaf::of(value)),
        };
        let Self { values, loose, doubles, taken, places, slots } = self;
        slots.push(slot);
        if *loose {
            match probe.into_leaf() {
                Leaf::Double(double) => doubles.push((OrderedDouble::from(double), slot)),
                leaf => values.push((leaf, Filling::new(slot))),
            }
            return;
        }
        *taken += 1;
        if values.len() == SAMPLE && *taken < SAMPLE * 2 {
            *loose = true;
            *places = HashTable::new();
            values.push((probe.into_leaf(), Filling::new(slot)));
            return;
        }
        let at = |place: u32| usize::try_from(place).ok();
        let hash = probe.hash(hasher);
        let found = places.find(hash, |&place| {
            at(place).and_then(|at| values.get(at)).is_some_and(|(leaf, _)| probe.is(leaf))
        });
        if let Some((_, posting)) = found.and_then(|&place| values.get_mut(at(place)?)) {
            posting.push(slot);
            return;
        }
        let place = u32::try_from(values.len()).unwrap_or(u32::MAX);
        values.push((probe.into_leaf(), Filling::new(slot)));
        places.insert_unique(hash, place, |&place| {
            at(place).and_then(|at| values.get(at)).map_or(0, |(leaf, _)| hash_leaf(hasher, leaf))
        });
    }

    /// `to_row` gives the row of a slot that still counts; without it slots are rows, and all count.
    fn finish(self, to_row: Option<&dyn Fn(u32) -> Option<u32>>, generation: u64) -> Attribute {
        let Self { mut values, loose, mut doubles, taken: _, places, slots } = self;
        drop(places);
        if loose {
            values.sort_unstable_by(|(a, x), (b, y)| a.cmp(b).then_with(|| x.first().cmp(&y.first())));
            doubles.sort_unstable();
            values.extend(
                doubles.into_iter().map(|(double, slot)| (Leaf::Double(double.into()), Filling::new(slot))),
            );
            // A merge of two sorted runs. Of equal values the one with the first slots stays first.
            values.sort_by(|(a, _), (b, _)| a.cmp(b));
            values.dedup_by(|(leaf, one), (kept, all)| {
                let same = leaf == kept;
                if same {
                    all.push(one.first());
                }
                same
            });
        } else {
            values.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        }
        let values = values.into_iter().map(|(leaf, slots)| (leaf, slots.finish(to_row)));
        let values = values.filter(|(_, posting)| !posting.is_empty()).collect();
        Attribute { values, rows: compact(slots.finish(to_row)), generation }
    }
}

impl Loader {
    /// A loader for a replaced log: rows of ids that `index` knows are kept.
    pub fn replacing(index: &Index) -> Self {
        Self {
            ids: index.ids.clone(),
            rows: index.rows.clone(),
            current: vec![None; index.ids.len()],
            generation: index.generation + 1,
            ..Self::default()
        }
    }

    /// Takes the next record of the log.
    pub fn add(&mut self, record: &Record<'_>, at: Locator) {
        let row = self.ids.intern(record.id.as_str());
        self.rows.grow(self.ids.len());
        self.current.resize(self.ids.len(), None);
        let current = usize::try_from(row).ok().and_then(|row| self.current.get_mut(row));
        let Some(current) = current else { return };
        if record.deleted {
            *current = None;
            return;
        }
        let slot = u32::try_from(self.slots.len()).unwrap_or(u32::MAX);
        self.slots.push(row);
        *current = Slot::new(slot.saturating_add(1));
        self.rows.set(row, record.time, at);
        let Self { keys, columns, hasher, .. } = self;
        keys.walk(&record.object, &mut |number: KeyNumber, value: &Value<'_>| {
            let Ok(number) = usize::try_from(number) else { return };
            if columns.len() <= number {
                columns.resize_with(number + 1, Column::default);
            }
            if let Some(column) = columns.get_mut(number) {
                column.add(value, slot, hasher);
            }
        });
    }

    /// The index of what was added.
    pub fn finish(self) -> Index {
        let Self { mut ids, mut rows, keys, columns, slots, current, hasher: _, generation } = self;
        ids.shrink_to_fit();
        rows.shrink_to_fit();
        let slot_of =
            |row: u32| usize::try_from(row).ok().and_then(|row| current.get(row).copied().flatten());
        let to_row = |slot: u32| {
            let row = *slots.get(usize::try_from(slot).ok()?)?;
            (slot_of(row)?.get() == slot + 1).then_some(row)
        };
        let same = slots.iter().zip(0..).all(|(&row, slot)| row == slot && to_row(slot) == Some(row));
        let to_row: Option<&dyn Fn(u32) -> Option<u32>> = if same { None } else { Some(&to_row) };
        let attributes = columns.into_iter().map(|column| column.finish(to_row, generation)).collect();
        let live = (0..).zip(&current).filter_map(|(row, slot)| slot.map(|_| row));
        let live = compact(bitmap_of(live));
        Index {
            ids,
            rows,
            live,
            keys,
            attributes,
            generation,
            live_generation: generation,
            time_generation: generation,
            base_generation: generation,
        }
    }
}
