//! The rows of one value. Most values of a measured quantity have one row, most values of a setting very many.

use roaring::RoaringBitmap;

/// Rows kept in the posting itself.
pub(super) const INLINE: usize = 3;
/// More rows than this are a bitmap: below it a list is smaller.
pub(super) const FEW: usize = 256;

/// Ascending rows, 16 bytes and what they need.
#[derive(Debug, Clone)]
pub(super) enum Posting {
    /// The first `len` of `rows`.
    Inline { len: u8, rows: [u32; INLINE] },
    /// More.
    Large(Box<Large>),
}

/// Rows that do not fit in a posting.
#[derive(Debug, Clone)]
pub(super) enum Large {
    /// A sorted list.
    Few(Vec<u32>),
    /// A bitmap.
    Many(RoaringBitmap),
}

/// Ascending rows, wherever they are held.
#[derive(Debug, Clone, Copy)]
pub(super) enum List<'p> {
    /// Not more than [`FEW`].
    Few(&'p [u32]),
    /// More.
    Many(&'p RoaringBitmap),
}

/// Which rows count: those of a set, but for some others.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Filter<'f> {
    pub within: Option<&'f RoaringBitmap>,
    pub without: Option<&'f RoaringBitmap>,
}

impl Filter<'_> {
    fn takes(&self, row: u32) -> bool {
        self.within.is_none_or(|rows| rows.contains(row))
            && !self.without.is_some_and(|rows| rows.contains(row))
    }
}

impl List<'_> {
    /// Number of rows that count.
    pub(super) fn count(&self, filter: Filter<'_>) -> u64 {
        match (self, filter.within, filter.without) {
            (Self::Few(rows), None, None) => rows.len() as u64,
            (Self::Few(rows), ..) => rows.iter().filter(|&&row| filter.takes(row)).count() as u64,
            (Self::Many(rows), None, None) => rows.len(),
            (Self::Many(rows), None, Some(without)) => rows.len() - rows.intersection_len(without),
            (Self::Many(rows), Some(within), None) => rows.intersection_len(within),
            (Self::Many(rows), Some(within), Some(without)) => (*rows & within).difference_len(without),
        }
    }

    /// Whether some row counts.
    pub(super) fn any(&self, filter: Filter<'_>) -> bool {
        match (self, filter.within, filter.without) {
            (Self::Few(rows), ..) => rows.iter().any(|&row| filter.takes(row)),
            (Self::Many(rows), Some(within), None) => !rows.is_disjoint(within),
            (Self::Many(_), ..) => self.count(filter) > 0,
        }
    }

    /// Appends the rows that count, ascending.
    pub(super) fn append_to(&self, out: &mut Vec<u32>, filter: Filter<'_>) {
        match (self, filter.within) {
            (Self::Few(rows), None) if filter.without.is_none() => out.extend_from_slice(rows),
            (Self::Few(rows), _) => out.extend(rows.iter().filter(|&&row| filter.takes(row))),
            (Self::Many(rows), within) => {
                let without = Filter { within: None, ..filter };
                let taken = |row: &u32| without.takes(*row);
                match within {
                    None => out.extend(rows.iter().filter(taken)),
                    Some(within) => out.extend((*rows & within).iter().filter(taken)),
                }
            }
        }
    }
}

impl Default for Posting {
    fn default() -> Self {
        Self::Inline { len: 0, rows: [0; INLINE] }
    }
}

/// The bitmap of ascending rows.
pub(super) fn bitmap_of(rows: impl IntoIterator<Item = u32>) -> RoaringBitmap {
    let mut bitmap = RoaringBitmap::new();
    append(&mut bitmap, rows);
    bitmap
}

/// Appends ascending rows; such as are not above all that are there are taken too.
pub(super) fn append(bitmap: &mut RoaringBitmap, rows: impl IntoIterator<Item = u32>) {
    let mut rows = rows.into_iter();
    let mut last = bitmap.max();
    let mut odd = None;
    let ascending = std::iter::from_fn(|| {
        let row = rows.next()?;
        if last.is_some_and(|last| row <= last) {
            odd = Some(row);
            return None;
        }
        last = Some(row);
        Some(row)
    });
    // Nothing that is not ascending gets there.
    let _ = bitmap.append(ascending);
    if let Some(odd) = odd {
        bitmap.insert(odd);
        bitmap.extend(rows);
    }
}

/// The same bitmap in the least memory.
pub(super) fn compact(mut bitmap: RoaringBitmap) -> RoaringBitmap {
    bitmap.optimize();
    // A clone has no spare capacity; a bitmap cannot be asked to give its own back.
    bitmap.clone()
}

impl Posting {
    /// The posting of ascending rows.
    pub(super) fn from_sorted(mut sorted: Vec<u32>) -> Self {
        if sorted.len() > FEW {
            return Self::Large(Box::new(Large::Many(compact(bitmap_of(sorted)))));
        }
        if sorted.len() > INLINE {
            sorted.shrink_to_fit();
            return Self::Large(Box::new(Large::Few(sorted)));
        }
        let mut rows = [0; INLINE];
        for (to, from) in rows.iter_mut().zip(&sorted) {
            *to = *from;
        }
        Self::Inline { len: u8::try_from(sorted.len()).unwrap_or(0), rows }
    }

    /// The rows.
    pub(super) fn list(&self) -> List<'_> {
        match self {
            Self::Inline { len, rows } => List::Few(rows.get(..usize::from(*len)).unwrap_or_default()),
            Self::Large(large) => match &**large {
                Large::Few(rows) => List::Few(rows),
                Large::Many(rows) => List::Many(rows),
            },
        }
    }

    /// Adds a row.
    pub(super) fn insert(&mut self, row: u32) {
        if let Self::Large(large) = self
            && let Large::Many(rows) = &mut **large
        {
            rows.insert(row);
            return;
        }
        if let List::Few(list) = self.list()
            && let Err(at) = list.binary_search(&row)
        {
            let mut list = list.to_vec();
            list.insert(at, row);
            *self = Self::from_sorted(list);
        }
    }

    /// Removes a row.
    pub(super) fn remove(&mut self, row: u32) {
        if let Self::Large(large) = self
            && let Large::Many(rows) = &mut **large
        {
            rows.remove(row);
            // Not at the bound itself: a row that comes and goes must not cost a conversion each time.
            if rows.len() <= FEW as u64 / 2 {
                *self = Self::from_sorted(rows.iter().collect());
            }
            return;
        }
        if let List::Few(list) = self.list()
            && let Ok(at) = list.binary_search(&row)
        {
            let mut list = list.to_vec();
            list.remove(at);
            *self = Self::from_sorted(list);
        }
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.list().count(Filter::default()) == 0
    }
}

/// A union of many lists of rows.
#[derive(Debug, Default)]
pub(super) struct Union {
    rows: Vec<u32>,
    bitmap: RoaringBitmap,
}

impl Union {
    /// Adds rows.
    pub(super) fn add(&mut self, list: List<'_>) {
        match list {
            List::Few(rows) => self.rows.extend_from_slice(rows),
            List::Many(rows) => self.bitmap |= rows,
        }
    }

    /// The rows that were added.
    pub(super) fn finish(self) -> RoaringBitmap {
        let Self { mut rows, bitmap } = self;
        if rows.is_empty() {
            return bitmap;
        }
        let mut all = dense(&rows).unwrap_or_else(|| {
            rows.sort_unstable();
            bitmap_of(rows)
        });
        all |= bitmap;
        all
    }
}

/// The bitmap of rows in any order, if they lie so close that setting bits is quicker than sorting.
fn dense(rows: &[u32]) -> Option<RoaringBitmap> {
    let end = usize::try_from(rows.iter().max()?.checked_add(1)?).ok()?;
    if rows.len() < end / 64 {
        return None;
    }
    let mut bits = vec![0_u8; end.div_ceil(8)];
    for &row in rows {
        if let Some(byte) = usize::try_from(row / 8).ok().and_then(|at| bits.get_mut(at)) {
            *byte |= 1 << (row % 8);
        }
    }
    Some(RoaringBitmap::from_lsb0_bytes(0, &bits))
}
