//! The inverted index: which entries have which value. No I/O.
//!
//! An entry is a [`Row`], given once to an id and kept for it for the life of the index, through deletion,
//! replacement of the log and return. Attributes themselves are not kept here, only posting lists: for every
//! flattened key (and `KEY[]` for the elements of arrays) its distinct values in order, with the rows of each.
//! Whoever changes an entry passes the old object; it is read from the log by the row's [`Locator`].

use roaring::RoaringBitmap;

use crate::name::{Id, Key};
use crate::query::Expr;
use crate::record::{Locator, Record};
use crate::value::{Leaf, Object};

/// Number of an entry, in order of first appearance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Row(pub u32);

/// The index of one cache.
#[derive(Debug, Default)]
pub struct Index {
    _todo: (),
}

/// Collects the records of a whole log, the last of an id winning; then becomes an [`Index`].
#[derive(Debug, Default)]
pub struct Loader {
    _todo: (),
}

impl Loader {
    /// A loader for a replaced log: rows of ids that `index` knows are kept.
    pub fn replacing(index: &Index) -> Self {
        todo!()
    }

    /// Takes the next record of the log.
    pub fn add(&mut self, record: &Record<'_>, at: Locator) {
        todo!()
    }

    /// The index of what was added.
    pub fn finish(self) -> Index {
        todo!()
    }
}

impl Index {
    /// Takes a record that follows what the index has; `old` is the entry's present object, `None` if the entry is not live.
    pub fn apply(&mut self, record: &Record<'_>, old: Option<&Object<'_>>, at: Locator) -> Row {
        todo!()
    }

    /// Moves records after compaction: pairs of a live row and its new place.
    pub fn relocate(&mut self, places: impl IntoIterator<Item = (Row, Locator)>) {
        todo!()
    }

    /// The row of a live entry.
    pub fn row(&self, id: &str) -> Option<Row> {
        todo!()
    }

    /// The row of an id that was ever seen, live or not.
    pub fn row_ever(&self, id: &str) -> Option<Row> {
        todo!()
    }

    /// The id of a row, live or not.
    pub fn id(&self, row: Row) -> Option<Id> {
        todo!()
    }

    /// Whether the row is live.
    pub fn is_live(&self, row: Row) -> bool {
        todo!()
    }

    /// The time of an entry, seconds since the epoch.
    pub fn time(&self, row: Row) -> f64 {
        todo!()
    }

    /// Where the entry's record stands, if it is live.
    pub fn locator(&self, row: Row) -> Option<Locator> {
        todo!()
    }

    /// The live rows.
    pub fn live(&self) -> &RoaringBitmap {
        todo!()
    }

    /// Number of live entries.
    pub fn len(&self) -> usize {
        todo!()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The keys that live entries have, in order, `KEY[]` among them; with `within`, those that its rows have.
    pub fn keys(&self, within: Option<&RoaringBitmap>) -> Vec<Key> {
        todo!()
    }

    /// Whether some live row (of `within`) has the key (as a value, not only as members).
    pub fn has_key(&self, key: &Key, within: Option<&RoaringBitmap>) -> bool {
        todo!()
    }

    /// The distinct values of a key in order, each with its number of rows (of `within`); values without rows are left out.
    pub fn values(&self, key: &Key, within: Option<&RoaringBitmap>) -> Vec<(Leaf, u64)> {
        todo!()
    }

    /// The rows whose `key` is `leaf`.
    pub fn posting(&self, key: &Key, leaf: &Leaf) -> RoaringBitmap {
        todo!()
    }

    /// The value whose directory name, too long and cut, is `name`; see [`crate::name::to_file_name`].
    pub fn leaf_by_cut_name(&self, key: &Key, name: &str) -> Option<Leaf> {
        todo!()
    }

    /// The rows for which an expression holds; `now` is seconds since the epoch. `_timestamp` and `$` ask about the entry's
    /// time, `_id` and `@` about its id. An integer or double compares with dates spelled `2026-11-22` on the time only.
    pub fn select(&self, expr: &Expr, now: f64) -> RoaringBitmap {
        todo!()
    }

    /// The rows of `set` that have `key`, in ascending order of its value (equal ones in order of rows);
    /// descending is this, reversed. `_timestamp`, `$`, `_id`, `@` order by the time and the id.
    pub fn sorted(&self, key: &Key, set: &RoaringBitmap) -> Vec<Row> {
        todo!()
    }

    /// Counts up with every change of the index.
    pub fn generation(&self) -> u64 {
        todo!()
    }

    /// The generation of the last change that touched this key (an entry with or without it came or went, or its value changed).
    pub fn key_generation(&self, key: &Key) -> u64 {
        todo!()
    }

    /// The generation of the last change of which entries are live.
    pub fn live_generation(&self) -> u64 {
        todo!()
    }
}
