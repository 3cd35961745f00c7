//! The values of one key while a log is loaded: equal ones find each other by hash, or, if most are different, by sorting.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};
use roaring::RoaringBitmap;

use super::attribute::Attribute;
use super::base::Builder;
use super::filling::{Filling, Runs};
use super::ordered::OrderedDouble;
use crate::value::{Leaf, Value};

/// Distinct values by number.
#[derive(Debug, Default)]
pub(super) struct Dictionary {
    pub leaves: Vec<Leaf>,
    /// Numbers, by hash of the leaf.
    places: HashTable<u32>,
}

/// What a value's leaf is looked for by: strings, the most of what would be allocated, are borrowed.
pub(super) enum Probe<'v> {
    Text(&'v [u8]),
    Leaf(Leaf),
}

impl<'v> Probe<'v> {
    pub(super) fn of(value: &'v Value<'_>) -> Self {
        match value {
            Value::String(text) => Self::Text(text.as_bytes()),
            value => Self::Leaf(Leaf::of(value)),
        }
    }

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

    pub(super) fn into_leaf(self) -> Leaf {
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

impl Dictionary {
    /// The number of a value, a new one if it has none.
    pub(super) fn intern(&mut self, probe: Probe<'_>, hasher: &DefaultHashBuilder) -> u32 {
        let Self { leaves, places } = self;
        let at = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
        let hash = probe.hash(hasher);
        let found = places.find(hash, |&number| leaves.get(at(number)).is_some_and(|leaf| probe.is(leaf)));
        if let Some(&number) = found {
            return number;
        }
        let number = u32::try_from(leaves.len()).unwrap_or(u32::MAX);
        leaves.push(probe.into_leaf());
        places.insert_unique(hash, number, |&number| {
            leaves.get(at(number)).map_or(0, |leaf| hash_leaf(hasher, leaf))
        });
        number
    }
}

/// What a stretch of the log said of one key; slots count from the beginning of the stretch.
#[derive(Debug, Default)]
pub(super) struct Stretch {
    /// Values that came first in this stretch; their numbers follow those of the stretches before, of the same reader.
    pub leaves: Vec<Leaf>,
    /// Slots, each with the number of its value.
    pub codes: Vec<(u32, u32)>,
    /// Of a key of which most values are different: doubles, by number and slot, and others.
    pub doubles: Vec<(OrderedDouble, u32)>,
    pub others: Vec<(Leaf, u32)>,
    /// All slots.
    pub slots: Runs,
}

/// The values of one key so far.
#[derive(Debug, Default)]
pub(super) struct Column {
    dictionary: Dictionary,
    /// By number of the value.
    fillings: Vec<Filling>,
    doubles: Vec<(OrderedDouble, u32)>,
    others: Vec<(Leaf, u32)>,
    slots: Runs,
}

/// Gives the row of a slot that still counts.
pub(super) type ToRow<'r> = Option<&'r dyn Fn(u32) -> Option<u32>>;

impl Column {
    /// Takes a stretch, whose slots begin at `base`; `numbers` are those that the values of its reader have here.
    pub(super) fn take(
        &mut self,
        stretch: Stretch,
        base: u32,
        numbers: &mut Vec<u32>,
        hasher: &DefaultHashBuilder,
    ) {
        let Stretch { leaves, codes, doubles, others, slots } = stretch;
        for leaf in leaves {
            numbers.push(self.dictionary.intern(Probe::Leaf(leaf), hasher));
        }
        for (slot, code) in codes {
            let number = usize::try_from(code).ok().and_then(|code| numbers.get(code)).copied();
            let Some(number) = number.and_then(|number| usize::try_from(number).ok()) else { continue };
            if self.fillings.len() <= number {
                self.fillings.resize_with(number + 1, Filling::default);
            }
            if let Some(filling) = self.fillings.get_mut(number) {
                filling.push(base + slot);
            }
        }
        self.doubles.extend(doubles.into_iter().map(|(double, slot)| (double, base + slot)));
        self.others.extend(others.into_iter().map(|(leaf, slot)| (leaf, base + slot)));
        self.slots.extend(&slots, base);
    }

    /// The attribute. Without `to_row` slots are rows, and all count.
    pub(super) fn finish(self, to_row: ToRow<'_>, generation: u64) -> Attribute {
        let Self { dictionary, fillings, mut doubles, mut others, slots } = self;
        let mut known: Vec<(Leaf, Filling)> = dictionary.leaves.into_iter().zip(fillings).collect();
        known.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        doubles.sort_unstable();
        others.sort_unstable();
        let mut known = known.into_iter().peekable();
        let mut doubles = doubles.into_iter().peekable();
        let mut others = others.into_iter().peekable();
        let mut builder = Builder::default();
        let mut rows = Vec::new();
        loop {
            // The least of what comes next.
            let mut least = known
                .peek()
                .map(|(leaf, _)| leaf)
                .into_iter()
                .chain(others.peek().map(|(leaf, _)| leaf))
                .min();
            let double = doubles.peek().map(|&(double, _)| Leaf::Double(double.into()));
            if let Some(double) = &double
                && least.is_none_or(|least| double < least)
            {
                least = Some(double);
            }
            let Some(leaf) = least.cloned() else { break };
            rows.clear();
            let mut bitmap = None;
            if known.peek().is_some_and(|(other, _)| *other == leaf)
                && let Some((_, filling)) = known.next()
            {
                bitmap = filling.finish(&mut rows);
            }
            if double.as_ref() == Some(&leaf)
                && let Some(&(first, _)) = doubles.peek()
            {
                while let Some((_, slot)) = doubles.next_if(|(double, _)| *double == first) {
                    rows.push(slot);
                }
            }
            while let Some((_, slot)) = others.next_if(|(other, _)| *other == leaf) {
                rows.push(slot);
            }
            push(&mut builder, &leaf, bitmap, &mut rows, to_row);
        }
        Attribute::new(builder.finish(slots.finish(to_row)), generation)
    }
}

/// Gives a value, and its slots as rows, to a builder.
fn push(
    builder: &mut Builder,
    leaf: &Leaf,
    bitmap: Option<RoaringBitmap>,
    slots: &mut Vec<u32>,
    to_row: ToRow<'_>,
) {
    if let Some(bitmap) = bitmap {
        if slots.is_empty() && to_row.is_none() {
            builder.push_many(leaf, bitmap);
            return;
        }
        slots.extend(bitmap);
    }
    if let Some(to_row) = to_row {
        slots.retain_mut(|slot| match to_row(*slot) {
            Some(row) => {
                *slot = row;
                true
            }
            None => false,
        });
    }
    if !slots.is_sorted_by(|a, b| a < b) {
        slots.sort_unstable();
        slots.dedup();
    }
    builder.push(leaf, slots);
}
