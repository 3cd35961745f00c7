//! Records of many entries at once, as they stand at one moment.

use std::ops::Range;
use std::sync::Arc;

use super::{Cache, CacheError, hold};
use crate::index::{Index, Row};
use crate::record::Locator;
use crate::store::Generation;

/// Where the records of some entries stood at one moment. They stay readable, whatever is changed or compacted since.
#[derive(Debug)]
pub struct Records {
    generation: Option<Arc<Generation>>,
    places: Vec<Locator>,
}

/// Records that stand close to each other are read by one call of at most this size.
const READ_MAX: u64 = 1 << 20;
/// Bytes between two records that are read along rather than stepped over.
const GAP_MAX: u64 = 4 << 10;

impl Cache {
    /// The records of these entries as this index, that of the cache, knows them; those that are not live are left out.
    pub fn records(&self, index: &Index, rows: impl IntoIterator<Item = Row>) -> Records {
        let places = rows.into_iter().filter_map(|row| index.locator(row)).collect();
        Records { generation: hold(&self.inner.generation).clone(), places }
    }
}

impl Records {
    /// Number of records.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Bytes of their lines.
    pub fn bytes(&self) -> u64 {
        self.places.iter().map(|place| u64::from(place.len) + 1).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Reads some of them, in their order, as the bytes that stand in the log.
    pub fn read(&self, range: Range<usize>, each: &mut dyn FnMut(&[u8])) -> Result<(), CacheError> {
        let Some(generation) = &self.generation else { return Ok(()) };
        let mut places = self.places.get(range).unwrap_or_default();
        while let Some((first, _)) = places.split_first() {
            let count = run(places);
            let (together, rest) = places.split_at(count);
            let end = together.last().map_or(0, end);
            let len = u32::try_from(end.saturating_sub(first.offset)).unwrap_or(u32::MAX);
            let bytes = generation
                .read(Locator { offset: first.offset, len })
                .map_err(|source| CacheError::io("reading records", source))?;
            for place in together {
                let start = usize::try_from(place.offset.saturating_sub(first.offset)).unwrap_or(usize::MAX);
                let len = usize::try_from(place.len).unwrap_or(usize::MAX);
                each(bytes.get(start..start.saturating_add(len)).unwrap_or_default());
            }
            places = rest;
        }
        Ok(())
    }
}

fn end(place: &Locator) -> u64 {
    place.offset + u64::from(place.len)
}

/// How many records from the first on follow each other closely enough to be read by one call; at least one.
fn run(places: &[Locator]) -> usize {
    let Some(first) = places.first() else { return 0 };
    let follows = |pair: &[Locator]| match pair {
        [before, next] => {
            next.offset >= end(before)
                && next.offset - end(before) <= GAP_MAX
                && end(next) - first.offset <= READ_MAX
        }
        _ => false,
    };
    1 + places.windows(2).take_while(|pair| follows(pair)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(at: &[(u64, u32)]) -> Vec<Locator> {
        at.iter().map(|&(offset, len)| Locator { offset, len }).collect()
    }

    #[test]
    fn what_stands_together_is_read_together() {
        assert_eq!(run(&places(&[(0, 10), (11, 10), (22, 10)])), 3);
        assert_eq!(run(&places(&[(11, 10), (0, 10)])), 1, "not backwards");
        assert_eq!(run(&places(&[(0, 10), (10_000, 10)])), 1, "not across a wide gap");
        assert_eq!(run(&places(&[(0, 1 << 20), ((1 << 20) + 1, 10)])), 1, "not more than fits");
        assert_eq!(run(&places(&[(0, 4 << 20)])), 1, "a large one alone");
        assert_eq!(run(&[]), 0);
    }
}
