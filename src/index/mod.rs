//! The inverted index: which entries have which value. No I/O.
//!
//! An entry is a [`Row`], given once to an id and kept for it for the life of the index, through deletion,
//! replacement of the log and return. Attributes themselves are not kept here, only posting lists: for every
//! flattened key (and `KEY[]` for the elements of arrays) its distinct values in order, with the rows of each.
//! Whoever changes an entry passes the old object; it is read from the log by the row's [`Locator`].

mod attribute;
mod base;
mod column;
mod filling;
mod ids;
mod kept;
mod keys;
mod load;
mod ordered;
mod posting;
mod reader;
mod recent;
mod rows;
mod select;
#[cfg(test)]
mod tests;
mod times;
mod values;

use std::sync::Arc;

use roaring::RoaringBitmap;

use self::attribute::Attribute;
use self::base::Base;
use self::ids::Ids;
pub use self::kept::{FORMAT, Get, Put, is_possible};
use self::keys::{KeyNumber, Keys};
pub use self::load::{Finished, Loader, Unfinished};
pub use self::reader::{Part, Reader};
use self::rows::Rows;
use self::times::Times;
use crate::name::{Id, Key};
use crate::record::{Locator, Record};
use crate::value::{Leaf, Member, Object, Value};

/// Number of an entry, in order of first appearance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Row(pub u32);

/// What [`Index::tidied`] has made.
#[derive(Debug)]
pub struct Tidied(Piece);

#[derive(Debug)]
enum Piece {
    Times(Times),
    Key(KeyNumber, Arc<Base>),
}

/// The index of one cache.
///
/// What the log said is held in few large pieces that are never changed, and what changes afterwards is laid over them: a
/// copy shares those pieces.
#[derive(Debug, Clone, Default)]
pub struct Index {
    ids: Ids,
    rows: Rows,
    /// Of every row that was ever live.
    times: Times,
    live: RoaringBitmap,
    keys: Keys,
    /// By number of the key. Every row in it is live.
    attributes: Vec<Attribute>,
    /// Keys of which much has changed.
    due: Vec<KeyNumber>,
    generation: u64,
    live_generation: u64,
    time_generation: u64,
    /// That of the load: of a key that is not here, no more is known than that it has not come since.
    base_generation: u64,
}

impl Index {
    /// Takes a record that follows what the index has; `old` is the entry's present object, `None` if the entry is not live.
    pub fn apply(&mut self, record: &Record<'_>, old: Option<&Object<'_>>, at: Locator) -> Row {
        let row = self.ids.intern(record.id.as_str());
        self.rows.grow(self.ids.len());
        let was_live = self.live.contains(row);
        if record.deleted && !was_live {
            return Row(row);
        }
        self.generation += 1;
        let (old, new) = match old {
            // What stays as it is need not be looked for.
            Some(old) if was_live && !record.deleted => {
                let (old, new) = old.differing(&record.object);
                (self.leaves(old), self.leaves(new))
            }
            _ => {
                let old = match old {
                    _ if !was_live => Vec::new(),
                    Some(old) => self.leaves(old.iter()),
                    None => self.leaves_of(row),
                };
                (old, if record.deleted { Vec::new() } else { self.leaves(record.object.iter()) })
            }
        };
        if record.deleted {
            self.live.remove(row);
        } else {
            let before = self.rows.time(row);
            if was_live && before.to_bits() != record.time.to_bits() {
                self.time_generation = self.generation;
            }
            self.times.set(&self.rows, row, self.was_ever_live(row).then_some(before), record.time);
            self.rows.set(row, record.time, at);
            self.live.insert(row);
        }
        self.change(row, &old, &new);
        if was_live == record.deleted {
            self.live_generation = self.generation;
        }
        Row(row)
    }

    /// Whether a row ever had a record: one that only a deletion has named has no length.
    fn was_ever_live(&self, row: u32) -> bool {
        self.rows.locator(row).is_some_and(|at| at.len > 0)
    }

    /// The leaves of members of an object, in order, none twice.
    fn leaves<'o>(&mut self, members: impl IntoIterator<Item = Member<'o, 'o>>) -> Vec<(KeyNumber, Leaf)> {
        let mut leaves = Vec::new();
        self.keys.walk(members, &mut |number: KeyNumber, value: &Value<'_>| {
            leaves.push((number, Leaf::of(value)));
        });
        self.attributes.resize_with(self.keys.len(), Attribute::default);
        leaves.sort_unstable();
        leaves.dedup();
        leaves
    }

    /// The leaves of a row by a search through everything: for a caller who could not tell the old object.
    fn leaves_of(&self, row: u32) -> Vec<(KeyNumber, Leaf)> {
        let of = |(number, attribute): (KeyNumber, &Attribute)| {
            attribute.leaves_of(row).into_iter().map(move |leaf| (number, leaf))
        };
        let mut leaves: Vec<_> = (0..).zip(&self.attributes).flat_map(of).collect();
        leaves.sort_unstable();
        leaves
    }

    /// Takes a row from the values that it no longer has to those that it has now; touches no others.
    fn change(&mut self, row: u32, old: &[(KeyNumber, Leaf)], new: &[(KeyNumber, Leaf)]) {
        let (mut old, mut new) = (old, new);
        let generation = self.generation;
        while let Some(number) = old.first().into_iter().chain(new.first()).map(|(number, _)| *number).min() {
            let of_key = |leaves: &[(KeyNumber, Leaf)]| leaves.partition_point(|(other, _)| *other == number);
            let (before, rest) = old.split_at(of_key(old));
            old = rest;
            let (after, rest) = new.split_at(of_key(new));
            new = rest;
            if before == after {
                continue;
            }
            if let Some(attribute) = self.attribute_mut(number) {
                let was_due = attribute.is_due();
                attribute.replace(row, before, after);
                attribute.generation = generation;
                if !was_due && attribute.is_due() {
                    self.due.push(number);
                }
            }
        }
    }

    /// About how many bytes the next [`Index::tidied`] needs; `None` if there is nothing to do.
    pub fn tidying_bytes(&self) -> Option<u64> {
        if self.times.is_due() {
            return Some(self.ids.len() as u64 * 16);
        }
        let attribute = self.attribute(*self.due.last()?);
        Some(attribute.map_or(0, Attribute::folding_bytes))
    }

    /// Does a piece of the work that changes leave behind, if there is any, which takes a moment: to be called now and then between
    /// changes, and to be given to [`Index::tidy`] before the next one. Meanwhile others may ask the index.
    pub fn tidied(&self) -> Option<Tidied> {
        if self.times.is_due() {
            return Some(Tidied(Piece::Times(self.times.folded(&self.rows))));
        }
        let number = *self.due.last()?;
        Some(Tidied(Piece::Key(number, Arc::new(self.attribute(number)?.folded()))))
    }

    /// Takes a piece of work. What the index answers stays the same.
    pub fn tidy(&mut self, Tidied(piece): Tidied) {
        match piece {
            Piece::Times(times) => self.times = times,
            Piece::Key(number, base) => {
                self.due.retain(|due| *due != number);
                if let Some(attribute) = self.attribute_mut(number) {
                    attribute.settle(base);
                }
            }
        }
    }

    fn attribute(&self, number: KeyNumber) -> Option<&Attribute> {
        self.attributes.get(usize::try_from(number).ok()?)
    }

    fn attribute_mut(&mut self, number: KeyNumber) -> Option<&mut Attribute> {
        self.attributes.get_mut(usize::try_from(number).ok()?)
    }

    /// The attribute of a key that is not a reserved one.
    fn attribute_of(&self, key: &Key) -> Option<&Attribute> {
        self.attribute(self.keys.number(key)?)
    }

    /// Moves records after compaction: pairs of a live row and its new place.
    pub fn relocate(&mut self, places: impl IntoIterator<Item = (Row, Locator)>) {
        for (Row(row), at) in places {
            self.rows.place(row, at);
        }
    }

    /// The row of a live entry.
    pub fn row(&self, id: &str) -> Option<Row> {
        self.row_ever(id).filter(|&row| self.is_live(row))
    }

    /// The row of an id that was ever seen, live or not.
    pub fn row_ever(&self, id: &str) -> Option<Row> {
        self.ids.find(id).map(Row)
    }

    /// The id of a row, live or not.
    pub fn id(&self, row: Row) -> Option<Id> {
        Id::new(self.ids.get(row.0)?).ok()
    }

    /// Whether the row is live.
    pub fn is_live(&self, row: Row) -> bool {
        self.live.contains(row.0)
    }

    /// The time of an entry, seconds since the epoch; of one that is gone, the last that it had.
    pub fn time(&self, row: Row) -> f64 {
        self.rows.time(row.0)
    }

    /// The latest time of some rows that ever had one, and a row that has it; 0 and none if it is not later than that.
    pub fn newest(&self, rows: &RoaringBitmap) -> (f64, Option<Row>) {
        let time = |row| self.time(Row(row));
        match self.times.newest(&self.rows, rows) {
            Some(row) if time(row) > 0.0 => (time(row), Some(Row(row))),
            _ => rows.iter().fold((0.0, None), |(latest, found), row| {
                if time(row) > latest { (time(row), Some(Row(row))) } else { (latest, found) }
            }),
        }
    }

    /// Where the entry's record stands, if it is live.
    pub fn locator(&self, row: Row) -> Option<Locator> {
        if self.is_live(row) { self.rows.locator(row.0) } else { None }
    }

    /// The live rows.
    pub fn live(&self) -> &RoaringBitmap {
        &self.live
    }

    /// Number of live entries.
    pub fn len(&self) -> usize {
        usize::try_from(self.live.len()).unwrap_or(usize::MAX)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.live.is_empty()
    }

    /// The keys that live entries have, in order, `KEY[]` among them; with `within`, those that its rows have.
    pub fn keys(&self, within: Option<&RoaringBitmap>) -> Vec<Key> {
        let has =
            |&number: &KeyNumber| self.attribute(number).is_some_and(|attribute| attribute.is_in(within));
        self.keys.in_order().filter(has).filter_map(|number| self.keys.key(number).cloned()).collect()
    }

    /// Whether some live row (of `within`) has the key (as a value, not only as members).
    pub fn has_key(&self, key: &Key, within: Option<&RoaringBitmap>) -> bool {
        self.attribute_of(key).is_some_and(|attribute| attribute.is_in(within))
    }

    /// The live rows that have the key (as a value); reserved keys are had by all.
    pub fn rows_with(&self, key: &Key) -> RoaringBitmap {
        if key.is_reserved() {
            return self.live.clone();
        }
        self.attribute_of(key).map(|attribute| attribute.rows.clone()).unwrap_or_default()
    }

    /// The distinct values of a key in order, each with its number of rows (of `within`); values without rows are left out.
    pub fn values(&self, key: &Key, within: Option<&RoaringBitmap>) -> Vec<(Leaf, u64)> {
        self.attribute_of(key).map(|attribute| attribute.values(within)).unwrap_or_default()
    }

    /// The rows whose `key` is `leaf`.
    pub fn posting(&self, key: &Key, leaf: &Leaf) -> RoaringBitmap {
        self.attribute_of(key).map(|attribute| attribute.posting(leaf)).unwrap_or_default()
    }

    /// Whether some live row (of `within`) has this value.
    pub fn has_value(&self, key: &Key, leaf: &Leaf, within: Option<&RoaringBitmap>) -> bool {
        self.attribute_of(key).is_some_and(|attribute| attribute.has(leaf, within))
    }

    /// Counts up with every change of the index.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The generation of the last change that touched this key or one of its members: its value changed, or an entry
    /// that has it came or went. A set that entries without the key are in depends on [`Index::live_generation`] too.
    pub fn key_generation(&self, key: &Key) -> u64 {
        match key.as_str() {
            "_id" | "@" => self.live_generation,
            "_timestamp" | "$" => self.time_generation.max(self.live_generation),
            _ => {
                let family = self.keys.family(key).filter_map(|number| self.attribute(number));
                family.map(|attribute| attribute.generation).fold(self.base_generation, u64::max)
            }
        }
    }

    /// The generation of the last change of the time of an entry that stayed live.
    pub fn time_generation(&self) -> u64 {
        self.time_generation
    }

    /// The generation of the last change of which entries are live.
    pub fn live_generation(&self) -> u64 {
        self.live_generation
    }
}
