//! What a log said of one key, in few allocations: its values in order, the rows of each, and the way back from a
//! row to its values. It is never changed: what changes afterwards is laid over it (see [`super::attribute`]).

use roaring::RoaringBitmap;

use super::posting::{FEW, List, bitmap_of, compact};
use super::values::Values;
use crate::value::Leaf;

/// Up to so many values are looked through one by one; of more, the way back from a row to its values is held.
pub(super) const FEW_VALUES: usize = 64;

/// The values of one key and their rows.
#[derive(Debug, Clone, Default)]
pub(super) struct Base {
    pub values: Values,
    /// Where in `rows` those of each value begin, and the end of the last; empty if each value has one row there.
    pub starts: Vec<u32>,
    /// The rows of each value, one behind the other.
    pub rows: Vec<u32>,
    /// The rows of values that have more than [`FEW`], by the value's place; those have none in `rows`.
    pub many: Vec<(u32, RoaringBitmap)>,
    /// All rows.
    pub all: RoaringBitmap,
    /// The places of the values of each row, in order of rows; empty if there are few values.
    pub back: Vec<u32>,
    /// Where in `back` those of each row begin, and the end of the last; empty if each row has one.
    pub back_starts: Vec<u32>,
}

fn index(at: u32) -> usize {
    usize::try_from(at).unwrap_or(usize::MAX)
}

/// Memory ends long before there are so many values, rows or pairs of them.
fn number(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

/// What stands between the starts of two neighbours.
fn between<'a>(starts: &[u32], all: &'a [u32], at: usize) -> &'a [u32] {
    let range = match (starts.is_empty(), starts.get(at), starts.get(at.saturating_add(1))) {
        (true, ..) => at..at.saturating_add(1),
        (false, Some(&start), Some(&end)) => index(start)..index(end),
        _ => 0..0,
    };
    all.get(range).unwrap_or_default()
}

impl Base {
    /// The rows of the value at a place; none if there is no such place.
    pub fn list(&self, at: usize) -> List<'_> {
        let rows = between(&self.starts, &self.rows, at);
        if rows.is_empty()
            && let Ok(found) = self.many.binary_search_by_key(&number(at), |(value, _)| *value)
            && let Some((_, rows)) = self.many.get(found)
        {
            return List::Many(rows);
        }
        List::Few(rows)
    }

    /// The rows of the values at some places, in no order.
    pub fn lists(&self, places: std::ops::Range<usize>) -> impl Iterator<Item = List<'_>> {
        let at = |place: usize| {
            if self.starts.is_empty() {
                place
            } else {
                self.starts.get(place).map_or(0, |&start| index(start))
            }
        };
        let few = self.rows.get(at(places.start)..at(places.end)).unwrap_or_default();
        let many = |place: usize| self.many.partition_point(|(value, _)| index(*value) < place);
        let many = self.many.get(many(places.start)..many(places.end)).unwrap_or_default();
        std::iter::once(List::Few(few)).chain(many.iter().map(|(_, rows)| List::Many(rows)))
    }

    /// The place of a value.
    pub fn find(&self, leaf: &Leaf) -> Option<usize> {
        let at = self.values.below(leaf);
        (at < self.values.len() && self.values.compare(at, leaf).is_eq()).then_some(at)
    }

    /// Whether [`Base::places_of`] knows.
    pub fn knows_back(&self) -> bool {
        !self.back.is_empty()
    }

    /// The places of the values of a row, ascending, if there are more than a few values.
    pub fn places_of(&self, row: u32) -> &[u32] {
        if !self.all.contains(row) {
            return &[];
        }
        let rank = self.all.rank(row).saturating_sub(1);
        between(&self.back_starts, &self.back, usize::try_from(rank).unwrap_or(usize::MAX))
    }

    /// About how many bytes it takes.
    pub fn bytes(&self) -> u64 {
        let numbers = [&self.starts, &self.rows, &self.back, &self.back_starts];
        let numbers: u64 = numbers.map(|numbers| numbers.len() as u64 * 4).iter().sum();
        let many: u64 = self.many.iter().map(|(_, rows)| rows.serialized_size() as u64).sum();
        self.values.bytes() + numbers + many
    }

    /// Number of pairs of a value and a row of it.
    pub fn pairs(&self) -> u64 {
        self.rows.len() as u64 + self.many.iter().map(|(_, rows)| rows.len()).sum::<u64>()
    }
}

/// Takes values in ascending order.
#[derive(Debug, Default)]
pub(super) struct Builder {
    base: Base,
    /// Whether some value has more rows than one, or has them as a bitmap.
    starts: bool,
}

impl Builder {
    /// Takes the next value and its rows, ascending, if there are any.
    pub fn push(&mut self, leaf: &Leaf, rows: &[u32]) {
        if rows.is_empty() {
            return;
        }
        if rows.len() > FEW {
            self.push_many(leaf, bitmap_of(rows.iter().copied()));
            return;
        }
        self.starts |= rows.len() > 1;
        self.start();
        self.base.rows.extend_from_slice(rows);
        self.base.values.push(leaf);
    }

    /// As [`Builder::push`].
    pub fn push_many(&mut self, leaf: &Leaf, rows: RoaringBitmap) {
        if rows.len() <= FEW as u64 {
            self.push(leaf, &rows.iter().collect::<Vec<_>>());
            return;
        }
        self.starts = true;
        self.start();
        self.base.many.push((number(self.base.values.len()), compact(rows)));
        self.base.values.push(leaf);
    }

    /// Notes where the rows of the next value begin.
    fn start(&mut self) {
        let Base { values, starts, rows, .. } = &mut self.base;
        if !self.starts {
            return;
        }
        if starts.len() < values.len() {
            // Until now each had one.
            starts.extend(0..number(values.len()));
        }
        starts.push(number(rows.len()));
    }

    /// The base; `all` are the rows of all values.
    pub fn finish(self, all: RoaringBitmap) -> Base {
        let Self { mut base, starts } = self;
        if starts {
            base.starts.push(number(base.rows.len()));
        }
        base.all = compact(all);
        base.values.shrink_to_fit();
        base.starts.shrink_to_fit();
        base.rows.shrink_to_fit();
        base.many.shrink_to_fit();
        if base.values.len() > FEW_VALUES {
            base.look_back();
        }
        base
    }
}

impl Base {
    /// Makes the way back.
    fn look_back(&mut self) {
        let len = usize::try_from(self.all.len()).unwrap_or(usize::MAX);
        let end = self.all.max().map_or(0, |row| index(row) + 1);
        if self.pairs() == self.all.len() && end / 4 <= len {
            self.look_back_densely(len, end);
            return;
        }
        let mut pairs: Vec<(u32, u32)> = Vec::new();
        self.each_pair(|row, value| pairs.push((row, value)));
        pairs.sort_unstable();
        self.back = pairs.iter().map(|(_, value)| *value).collect();
        if pairs.len() == len {
            return;
        }
        let mut before = None;
        for (at, (row, _)) in pairs.iter().enumerate() {
            if before != Some(*row) {
                before = Some(*row);
                self.back_starts.push(number(at));
            }
        }
        self.back_starts.push(number(pairs.len()));
        self.back_starts.shrink_to_fit();
    }

    /// Each row has one value, and there is hardly a gap between them.
    fn look_back_densely(&mut self, len: usize, end: usize) {
        let mut back = vec![u32::MAX; end];
        self.each_pair(|row, value| {
            if let Some(place) = back.get_mut(index(row)) {
                *place = value;
            }
        });
        if end > len {
            back.retain(|&value| value != u32::MAX);
            back.shrink_to_fit();
        }
        self.back = back;
    }

    fn each_pair(&self, mut each: impl FnMut(u32, u32)) {
        for at in 0..self.values.len() {
            match self.list(at) {
                List::Few(rows) => rows.iter().for_each(|&row| each(row, number(at))),
                List::Many(rows) => rows.iter().for_each(|row| each(row, number(at))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(number: u32) -> Leaf {
        Leaf::from(f64::from(number))
    }

    fn check(base: &Base, expected: &[Vec<u32>]) {
        assert_eq!(base.values.len(), expected.len());
        for (at, rows) in expected.iter().enumerate() {
            let mut found = Vec::new();
            base.list(at).append_to(&mut found, crate::index::posting::Filter::default());
            assert_eq!(found, *rows);
            assert_eq!(base.find(&leaf(number(at))), Some(at));
        }
        let rows: std::collections::BTreeSet<u32> = expected.iter().flatten().copied().collect();
        for &row in &rows {
            let places: Vec<u32> =
                (0..).zip(expected).filter(|(_, rows)| rows.contains(&row)).map(|(at, _)| at).collect();
            assert_eq!(base.places_of(row), places, "{row}");
        }
        assert_eq!(base.places_of(u32::MAX), [0_u32; 0]);
        assert_eq!(base.pairs(), expected.iter().map(Vec::len).sum::<usize>() as u64);
    }

    fn build(expected: &[Vec<u32>]) -> Base {
        let mut builder = Builder::default();
        for (at, rows) in (0..).zip(expected) {
            builder.push(&leaf(at), rows);
        }
        builder.finish(expected.iter().flatten().copied().collect())
    }

    #[test]
    fn rows_know_their_values() {
        // Each row one value; gaps; far apart; several values; some values with very many rows.
        let single: Vec<Vec<u32>> = (0..100).map(|at| vec![99 - at]).collect();
        let gaps: Vec<Vec<u32>> = (0..100).map(|at| vec![at * 3, at * 3 + 1]).collect();
        let sparse: Vec<Vec<u32>> = (0..100).map(|at| vec![at * 1000]).collect();
        let several: Vec<Vec<u32>> = (0..100).map(|at| vec![at, at + 1, at + 50]).collect();
        let mut large = single.clone();
        large[7] = (1000..2000).collect();
        large.push((5000..5300).collect());
        for expected in [single, gaps, sparse, several, large] {
            check(&build(&expected), &expected);
        }
        assert!(build(&[vec![1], vec![2]]).back.is_empty());
    }
}
