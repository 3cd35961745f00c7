//! One key: what the log said when it was loaded, and what has changed since, laid over it.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::{Bound, Range};
use std::sync::Arc;

use roaring::RoaringBitmap;

use super::base::{Base, Builder, FEW_VALUES};
use super::posting::{Filter, List, Posting, Union, bitmap_of};
use crate::value::Leaf;

/// What has changed is folded into a new base when it is this part of the old one, and some more.
const FOLD_PART: u64 = 8;
#[cfg(not(test))]
const FOLD_FROM: u64 = 4096;
#[cfg(test)]
const FOLD_FROM: u64 = 4;

/// A range of values.
pub(super) type Between = (Bound<Leaf>, Bound<Leaf>);

/// What is known of one key.
#[derive(Debug, Clone, Default)]
pub(super) struct Attribute {
    base: Arc<Base>,
    /// [`Base::pairs`] of it, which takes long to count.
    base_pairs: u64,
    /// Rows whose values in the base do not count any more.
    stale: RoaringBitmap,
    /// The values of the rows that changed since, and of new ones. No posting is empty.
    fresh: BTreeMap<Leaf, Posting>,
    /// The values in `fresh` by row, if they are more than a few.
    fresh_back: Option<BTreeSet<(u32, Leaf)>>,
    /// All rows with a value.
    pub(super) rows: RoaringBitmap,
    /// The last change.
    pub(super) generation: u64,
    /// Number of changes since the base was made.
    changes: u64,
}

/// Rows that were seen, of very many: a bitmap with runs takes long to change.
struct Seen(Vec<u64>);

impl Seen {
    /// None yet; room up to `last`.
    fn new(last: Option<u32>) -> Self {
        Self(vec![0; last.map_or(0, |row| index(row / 64) + 1)])
    }

    /// Notes a row; says whether it is new.
    fn insert(&mut self, row: u32) -> bool {
        let Some(word) = self.0.get_mut(index(row / 64)) else { return false };
        let before = *word;
        *word |= 1 << (row % 64);
        *word != before
    }
}

/// One value: its place in the base, its rows in what has changed, or both.
#[derive(Debug, Clone, Copy)]
struct Item<'a> {
    base: Option<usize>,
    fresh: Option<(&'a Leaf, &'a Posting)>,
}

impl Attribute {
    /// Of a base that nothing has changed since.
    pub(super) fn new(base: Base, generation: u64) -> Self {
        Self {
            rows: base.all.clone(),
            base_pairs: base.pairs(),
            base: Arc::new(base),
            generation,
            ..Self::default()
        }
    }

    /// The base, if nothing has changed since.
    pub(super) fn settled(&self) -> Option<&Base> {
        (self.stale.is_empty() && self.fresh.is_empty()).then_some(&*self.base)
    }

    /// Gives a row other values: `new` instead of `old`, both ascending.
    pub(super) fn replace(&mut self, row: u32, old: &[(u32, Leaf)], new: &[(u32, Leaf)]) {
        if self.base.all.contains(row) && self.stale.insert(row) {
            self.changes += 1;
            for (_, leaf) in new {
                self.insert(leaf, row);
            }
        } else {
            for (_, leaf) in old.iter().filter(|leaf| new.binary_search(leaf).is_err()) {
                self.remove(leaf, row);
            }
            for (_, leaf) in new.iter().filter(|leaf| old.binary_search(leaf).is_err()) {
                self.insert(leaf, row);
            }
        }
        if new.is_empty() {
            self.rows.remove(row);
        } else {
            self.rows.insert(row);
        }
    }

    fn insert(&mut self, leaf: &Leaf, row: u32) {
        self.changes += 1;
        if let Some(back) = &mut self.fresh_back {
            back.insert((row, leaf.clone()));
        }
        if let Some(posting) = self.fresh.get_mut(leaf) {
            posting.insert(row);
            return;
        }
        self.fresh.entry(leaf.clone()).or_default().insert(row);
        if self.fresh_back.is_none() && self.fresh.len() > FEW_VALUES {
            let mut back = BTreeSet::new();
            let mut rows = Vec::new();
            for (leaf, posting) in &self.fresh {
                rows.clear();
                posting.list().append_to(&mut rows, Filter::default());
                back.extend(rows.iter().map(|&row| (row, leaf.clone())));
            }
            self.fresh_back = Some(back);
        }
    }

    fn remove(&mut self, leaf: &Leaf, row: u32) {
        self.changes += 1;
        if let Some(back) = &mut self.fresh_back {
            back.remove(&(row, leaf.clone()));
        }
        if let Some(posting) = self.fresh.get_mut(leaf) {
            posting.remove(row);
            if posting.is_empty() {
                self.fresh.remove(leaf);
            }
        }
    }

    /// Whether so much has changed that it should be folded.
    pub(super) fn is_due(&self) -> bool {
        self.changes > self.base_pairs / FOLD_PART + FOLD_FROM
    }

    /// About how many bytes the values in what has changed take.
    pub(super) fn fresh_bytes(&self) -> u64 {
        let of = |leaf: &Leaf| match leaf {
            Leaf::String(text) => text.len(),
            Leaf::Json(text) | Leaf::Integer(text) => text.len(),
            Leaf::Null | Leaf::Bool(_) | Leaf::Double(_) | Leaf::NaN => 0,
        };
        self.fresh.keys().map(|leaf| of(leaf) as u64 + 64).sum()
    }

    /// About how many bytes are needed for folding, at most: arrays grow to twice what they need.
    pub(super) fn folding_bytes(&self) -> u64 {
        2 * (self.base.bytes() + self.fresh_bytes()) + 16 * (self.base_pairs + self.changes)
    }

    /// Takes what [`Attribute::folded`] has made, if nothing has changed since.
    pub(super) fn settle(&mut self, base: Arc<Base>) {
        self.base_pairs = base.pairs();
        self.base = base;
        self.stale = RoaringBitmap::new();
        self.fresh = BTreeMap::new();
        self.fresh_back = None;
        self.rows = self.base.all.clone();
        self.changes = 0;
    }

    /// The base of everything.
    pub(super) fn folded(&self) -> Base {
        let mut builder = Builder::default();
        let filter = self.filter(None);
        let mut rows = Vec::new();
        for item in self.items() {
            let Some(leaf) = self.leaf(item) else { continue };
            if let (Some(at), None) = (item.base, item.fresh)
                && let List::Many(many) = self.base.list(at)
            {
                builder.push_many(&leaf, many - &self.stale);
                continue;
            }
            rows.clear();
            self.append(item, &mut rows, filter, None);
            builder.push(&leaf, &rows);
        }
        builder.finish(self.rows.clone())
    }

    /// What counts of the rows in the base.
    fn filter<'f>(&'f self, within: Option<&'f RoaringBitmap>) -> Filter<'f> {
        Filter { within, without: (!self.stale.is_empty()).then_some(&self.stale) }
    }

    /// All values in order; some may have no rows that count.
    fn items(&self) -> impl Iterator<Item = Item<'_>> {
        let mut places = (0..self.base.values.len()).peekable();
        let mut fresh = self.fresh.iter().peekable();
        std::iter::from_fn(move || {
            let order = match (places.peek(), fresh.peek()) {
                (None, None) => return None,
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some(&at), Some((leaf, _))) => self.base.values.compare(at, leaf),
            };
            Some(Item {
                base: if order.is_le() { places.next() } else { None },
                fresh: if order.is_ge() { fresh.next() } else { None },
            })
        })
    }

    fn leaf(&self, item: Item<'_>) -> Option<Leaf> {
        match item.fresh {
            Some((leaf, _)) => Some(leaf.clone()),
            None => self.base.values.get(item.base?),
        }
    }

    /// Number of rows of a value; `filter` is [`Attribute::filter`] of `within`.
    fn count(&self, item: Item<'_>, filter: Filter<'_>) -> u64 {
        let fresh = Filter { without: None, ..filter };
        item.base.map_or(0, |at| self.base.list(at).count(filter))
            + item.fresh.map_or(0, |(_, posting)| posting.list().count(fresh))
    }

    /// Appends the rows of a value, ascending; those of the base that count, and those of what has changed.
    fn append(&self, item: Item<'_>, out: &mut Vec<u32>, filter: Filter<'_>, within: Option<&RoaringBitmap>) {
        let from = out.len();
        if let Some(at) = item.base {
            self.base.list(at).append_to(out, filter);
        }
        let middle = out.len();
        if let Some((_, posting)) = item.fresh {
            posting.list().append_to(out, Filter { within, without: None });
        }
        if middle > from && out.len() > middle {
            out.get_mut(from..).unwrap_or_default().sort_unstable();
        }
    }

    /// Whether some row (of `within`) has a value.
    pub(super) fn is_in(&self, within: Option<&RoaringBitmap>) -> bool {
        match within {
            Some(within) => !self.rows.is_disjoint(within),
            None => !self.rows.is_empty(),
        }
    }

    /// The rows of a value.
    pub(super) fn posting(&self, leaf: &Leaf) -> RoaringBitmap {
        let mut union = Union::default();
        if let Some(at) = self.base.find(leaf) {
            union.add(self.base.list(at));
        }
        self.with_fresh(union, self.fresh.get(leaf))
    }

    /// Whether some row (of `within`) has a value.
    pub(super) fn has(&self, leaf: &Leaf, within: Option<&RoaringBitmap>) -> bool {
        let base = self.base.find(leaf).is_some_and(|at| self.base.list(at).any(self.filter(within)));
        let fresh = Filter { within, without: None };
        base || self.fresh.get(leaf).is_some_and(|posting| posting.list().any(fresh))
    }

    /// Rows of the base, those that count, and others.
    fn with_fresh<'p>(&self, base: Union, fresh: impl IntoIterator<Item = &'p Posting>) -> RoaringBitmap {
        let mut rows = base.finish();
        if !self.stale.is_empty() {
            rows -= &self.stale;
        }
        let mut fresh = fresh.into_iter().peekable();
        if fresh.peek().is_some() {
            let mut union = Union::default();
            fresh.for_each(|posting| union.add(posting.list()));
            rows |= union.finish();
        }
        rows
    }

    /// The values of a row.
    pub(super) fn leaves_of(&self, row: u32) -> Vec<Leaf> {
        if !self.rows.contains(row) {
            return Vec::new();
        }
        let set = bitmap_of([row]);
        let base = self.base_hits(&set).into_iter().filter_map(|(at, _)| self.base.values.get(index(at)));
        base.chain(self.fresh_hits(&set).into_iter().map(|(leaf, _)| leaf.clone())).collect()
    }

    /// Pairs of a place in the base and a row of a set, in order.
    fn base_hits(&self, set: &RoaringBitmap) -> Vec<(u32, u32)> {
        let mut set = &self.base.all & set;
        if !self.stale.is_empty() {
            set -= &self.stale;
        }
        let mut hits = Vec::new();
        if set.is_empty() {
            return hits;
        }
        if self.base.knows_back() {
            for row in &set {
                hits.extend(self.base.places_of(row).iter().map(|&at| (at, row)));
            }
            hits.sort_unstable();
            return hits;
        }
        let mut rows = Vec::new();
        for (at, place) in (0..self.base.values.len()).zip(0..) {
            rows.clear();
            self.base.list(at).append_to(&mut rows, Filter { within: Some(&set), without: None });
            hits.extend(rows.iter().map(|&row| (place, row)));
        }
        hits
    }

    /// Pairs of a value in what has changed and a row of a set, in order.
    fn fresh_hits(&self, set: &RoaringBitmap) -> Vec<(&Leaf, u32)> {
        let mut hits = Vec::new();
        if let Some(back) = &self.fresh_back {
            for row in set {
                let leaves = back.range((row, Leaf::Null)..).take_while(|(other, _)| *other == row);
                hits.extend(leaves.map(|(row, leaf)| (leaf, *row)));
            }
            hits.sort_unstable();
            return hits;
        }
        let mut rows = Vec::new();
        for (leaf, posting) in &self.fresh {
            rows.clear();
            posting.list().append_to(&mut rows, Filter { within: Some(set), without: None });
            hits.extend(rows.iter().map(|&row| (leaf, row)));
        }
        hits
    }

    /// Whether it pays to go from the rows of a set to their values, rather than through all values.
    fn is_small(&self, set: &RoaringBitmap) -> bool {
        let values = self.base.values.len() + self.fresh.len();
        values > FEW_VALUES && set.len() < values as u64 / 4
    }

    /// Calls `each` with every value that rows of a small set have, in order, and those rows, ascending.
    fn each_of(&self, set: &RoaringBitmap, mut each: impl FnMut(Leaf, &[u32])) {
        let base = self.base_hits(set);
        let fresh = self.fresh_hits(set);
        let (mut base, mut fresh) = (base.as_slice(), fresh.as_slice());
        let mut rows = Vec::new();
        loop {
            let order = match (base.first(), fresh.first()) {
                (None, None) => return,
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some(&(at, _)), Some((leaf, _))) => self.base.values.compare(index(at), leaf),
            };
            rows.clear();
            let mut found = None;
            if order.is_le()
                && let Some(&(first, _)) = base.first()
            {
                let (same, rest) = base.split_at(base.partition_point(|(at, _)| *at == first));
                rows.extend(same.iter().map(|(_, row)| *row));
                found = self.base.values.get(index(first));
                base = rest;
            }
            if order.is_ge()
                && let Some(&(first, _)) = fresh.first()
            {
                let (same, rest) = fresh.split_at(fresh.partition_point(|(leaf, _)| *leaf == first));
                rows.extend(same.iter().map(|(_, row)| *row));
                found = Some(first.clone());
                fresh = rest;
            }
            rows.sort_unstable();
            if let Some(leaf) = found {
                each(leaf, &rows);
            }
        }
    }

    /// The distinct values in order, each with its number of rows (of `within`), if it has any.
    pub(super) fn values(&self, within: Option<&RoaringBitmap>) -> Vec<(Leaf, u64)> {
        let mut values = Vec::new();
        let left = within.filter(|within| !self.rows.is_subset(within)).map(|within| &self.rows & within);
        if let Some(left) = &left {
            if left.is_empty() {
                return values;
            }
            if self.is_small(left) {
                self.each_of(left, |leaf, rows| values.push((leaf, rows.len() as u64)));
                return values;
            }
        }
        let filter = self.filter(left.as_ref());
        for item in self.items() {
            let count = self.count(item, filter);
            if count > 0
                && let Some(leaf) = self.leaf(item)
            {
                values.push((leaf, count));
            }
        }
        values
    }

    /// The rows of a set in order of their values, equal ones in order of rows. With `several`, for a key of which a row may
    /// have several values, the least counts.
    pub(super) fn sorted(&self, set: &RoaringBitmap, several: bool) -> Vec<u32> {
        let left = &self.rows & set;
        let total = usize::try_from(left.len()).unwrap_or(usize::MAX);
        let mut sorted = Vec::with_capacity(total);
        if self.is_small(&left) {
            let mut seen = HashSet::new();
            self.each_of(&left, |_, rows| {
                sorted.extend(rows.iter().filter(|&&row| !several || seen.insert(row)));
            });
            return sorted;
        }
        let within = (left.len() < self.rows.len()).then_some(&left);
        let filter = self.filter(within);
        let mut seen = Seen::new(if several { left.max() } else { None });
        for item in self.items() {
            if sorted.len() >= total {
                break;
            }
            let from = sorted.len();
            self.append(item, &mut sorted, filter, within);
            if several {
                let mut to = from;
                for at in from..sorted.len() {
                    let row = sorted.get(at).copied().unwrap_or_default();
                    if seen.insert(row)
                        && let Some(place) = sorted.get_mut(to)
                    {
                        *place = row;
                        to += 1;
                    }
                }
                sorted.truncate(to);
            }
        }
        sorted
    }

    /// The places in the base of a range of values.
    fn places(&self, range: &Between) -> Range<usize> {
        let values = &self.base.values;
        let from = match &range.0 {
            Bound::Unbounded => 0,
            Bound::Included(leaf) => values.below(leaf),
            Bound::Excluded(leaf) => values.up_to(leaf),
        };
        let to = match &range.1 {
            Bound::Unbounded => values.len(),
            Bound::Included(leaf) => values.up_to(leaf),
            Bound::Excluded(leaf) => values.below(leaf),
        };
        from..to.max(from)
    }

    /// What has changed in a range of values.
    fn fresh_in(&self, range: &Between) -> impl Iterator<Item = (&Leaf, &Posting)> {
        // `BTreeMap::range` panics on a range that is reversed or excludes its one value twice.
        let sound = match range {
            (Bound::Included(from), Bound::Included(to)) => from <= to,
            (Bound::Included(from) | Bound::Excluded(from), Bound::Included(to) | Bound::Excluded(to)) => {
                from < to
            }
            _ => true,
        };
        sound.then(|| self.fresh.range(range.clone())).into_iter().flatten()
    }

    /// About how many rows have a value in a range.
    pub(super) fn estimate(&self, range: &Between) -> u64 {
        let base: u64 = self.base.lists(self.places(range)).map(|list| list.count(Filter::default())).sum();
        base + self
            .fresh_in(range)
            .take(1000)
            .map(|(_, posting)| posting.list().count(Filter::default()))
            .sum::<u64>()
    }

    /// The rows with a value in a range; with `within`, at least those of them that are there.
    pub(super) fn in_range(&self, range: &Between, within: Option<&RoaringBitmap>) -> RoaringBitmap {
        let places = self.places(range);
        if let Some(within) = within
            && self.base.knows_back()
            && within.len() < places.len() as u64 / 4
        {
            let hits = self.base_hits(within).into_iter();
            let mut rows: Vec<u32> =
                hits.filter(|(at, _)| places.contains(&index(*at))).map(|(_, row)| row).collect();
            let inside = |leaf: &Leaf| std::ops::RangeBounds::contains(range, leaf);
            rows.extend(
                self.fresh_hits(within).into_iter().filter(|(leaf, _)| inside(leaf)).map(|(_, row)| row),
            );
            rows.sort_unstable();
            rows.dedup();
            return bitmap_of(rows);
        }
        let mut union = Union::default();
        self.base.lists(places).for_each(|list| union.add(list));
        self.with_fresh(union, self.fresh_in(range).map(|(_, posting)| posting))
    }

    /// The rows with one of some values.
    pub(super) fn among<'l>(&self, leaves: impl Iterator<Item = &'l Leaf> + Clone) -> RoaringBitmap {
        let mut union = Union::default();
        leaves.clone().filter_map(|leaf| self.base.find(leaf)).for_each(|at| union.add(self.base.list(at)));
        self.with_fresh(union, leaves.filter_map(|leaf| self.fresh.get(leaf)))
    }

    /// The rows with a value from one on, as long as `goes_on` says so, for which a condition holds.
    pub(super) fn select(
        &self,
        from: &Leaf,
        goes_on: impl Fn(&Leaf) -> bool,
        holds: impl Fn(&Leaf) -> bool,
    ) -> RoaringBitmap {
        let mut union = Union::default();
        for at in self.base.values.below(from)..self.base.values.len() {
            match self.base.values.get(at) {
                Some(leaf) if goes_on(&leaf) => {
                    if holds(&leaf) {
                        union.add(self.base.list(at));
                    }
                }
                _ => break,
            }
        }
        let fresh = self.fresh.range(from..).take_while(|(leaf, _)| goes_on(leaf));
        self.with_fresh(union, fresh.filter(|(leaf, _)| holds(leaf)).map(|(_, posting)| posting))
    }

    /// The first value of a range, as long as `goes_on` says so, for which a condition holds.
    pub(super) fn find(
        &self,
        range: &Between,
        goes_on: impl Fn(&Leaf) -> bool,
        holds: impl Fn(&Leaf) -> bool,
    ) -> Option<Leaf> {
        let filter = self.filter(None);
        for at in self.places(range) {
            let Some(leaf) = self.base.values.get(at).filter(&goes_on) else { break };
            if holds(&leaf) && self.base.list(at).count(filter) > 0 {
                return Some(leaf);
            }
        }
        let mut fresh = self.fresh_in(range).map(|(leaf, _)| leaf).take_while(|leaf| goes_on(leaf));
        fresh.find(|leaf| holds(leaf)).cloned()
    }
}

fn index(at: u32) -> usize {
    usize::try_from(at).unwrap_or(usize::MAX)
}
