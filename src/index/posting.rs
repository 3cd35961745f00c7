//! The rows of one value. Most values of a measured quantity have one row, most values of a setting very many.

use roaring::RoaringBitmap;

/// Rows kept in the posting itself.
pub(super) const INLINE: usize = 3;
/// More rows than this are a bitmap: below it a list is smaller.
const FEW: usize = 256;

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

impl Default for Posting {
    fn default() -> Self {
        Self::Inline { len: 0, rows: [0; INLINE] }
    }
}

/// The bitmap of ascending rows.
pub(super) fn bitmap_of(rows: impl IntoIterator<Item = u32>) -> RoaringBitmap {
    let mut bitmap = RoaringBitmap::new();
    bitmap.extend(rows);
    bitmap
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

    /// The posting of a bitmap.
    pub(super) fn from_bitmap(bitmap: RoaringBitmap) -> Self {
        if bitmap.len() > FEW as u64 {
            Self::Large(Box::new(Large::Many(compact(bitmap))))
        } else {
            Self::from_sorted(bitmap.iter().collect())
        }
    }

    /// The rows, unless they are a bitmap.
    fn list(&self) -> Result<&[u32], &RoaringBitmap> {
        match self {
            Self::Inline { len, rows } => Ok(rows.get(..usize::from(*len)).unwrap_or_default()),
            Self::Large(large) => match &**large {
                Large::Few(rows) => Ok(rows),
                Large::Many(rows) => Err(rows),
            },
        }
    }

    /// Adds a row.
    pub(super) fn insert(&mut self, row: u32) {
        let list = match self {
            Self::Large(large) => {
                if let Large::Many(rows) = &mut **large {
                    rows.insert(row);
                    return;
                }
                self.list().unwrap_or_default()
            }
            Self::Inline { .. } => self.list().unwrap_or_default(),
        };
        if let Err(at) = list.binary_search(&row) {
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
        let list = self.list().unwrap_or_default();
        if let Ok(at) = list.binary_search(&row) {
            let mut list = list.to_vec();
            list.remove(at);
            *self = Self::from_sorted(list);
        }
    }

    /// Number of rows.
    pub(super) fn len(&self) -> u64 {
        match self.list() {
            Ok(rows) => rows.len() as u64,
            Err(rows) => rows.len(),
        }
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a row is among them.
    pub(super) fn contains(&self, row: u32) -> bool {
        match self.list() {
            Ok(rows) => rows.binary_search(&row).is_ok(),
            Err(rows) => rows.contains(row),
        }
    }

    /// Number of rows that are in `within` too.
    pub(super) fn count_in(&self, within: &RoaringBitmap) -> u64 {
        match self.list() {
            Ok(rows) => rows.iter().filter(|&&row| within.contains(row)).count() as u64,
            Err(rows) => rows.intersection_len(within),
        }
    }

    /// The rows as a bitmap.
    pub(super) fn to_bitmap(&self) -> RoaringBitmap {
        match self.list() {
            Ok(rows) => bitmap_of(rows.iter().copied()),
            Err(rows) => rows.clone(),
        }
    }

    /// Appends the rows (of `within`), ascending.
    pub(super) fn append_to(&self, out: &mut Vec<u32>, within: Option<&RoaringBitmap>) {
        match (self.list(), within) {
            (Ok(rows), None) => out.extend_from_slice(rows),
            (Ok(rows), Some(within)) => out.extend(rows.iter().filter(|&&row| within.contains(row))),
            (Err(rows), None) => out.extend(rows),
            (Err(rows), Some(within)) => out.extend(rows & within),
        }
    }
}

/// A union of many postings.
#[derive(Debug, Default)]
pub(super) struct Union {
    rows: Vec<u32>,
    bitmap: RoaringBitmap,
}

impl Union {
    /// Adds the rows of a posting.
    pub(super) fn add(&mut self, posting: &Posting) {
        match posting.list() {
            Ok(rows) => self.rows.extend_from_slice(rows),
            Err(rows) => self.bitmap |= rows,
        }
    }

    /// The rows that were added.
    pub(super) fn finish(mut self) -> RoaringBitmap {
        self.rows.sort_unstable();
        self.rows.dedup();
        let mut all = bitmap_of(self.rows);
        all |= self.bitmap;
        all
    }
}

impl<'p> Extend<&'p Posting> for Union {
    fn extend<I: IntoIterator<Item = &'p Posting>>(&mut self, postings: I) {
        for posting in postings {
            self.add(posting);
        }
    }
}
