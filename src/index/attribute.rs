//! One key: its values in order, and the rows of each.

use std::collections::BTreeMap;

use roaring::RoaringBitmap;

use super::posting::Posting;
use crate::value::Leaf;

/// What is known of one key.
#[derive(Debug, Default)]
pub(super) struct Attribute {
    /// No posting is empty.
    pub(super) values: BTreeMap<Leaf, Posting>,
    /// All rows with a value.
    pub(super) rows: RoaringBitmap,
    /// The last change.
    pub(super) generation: u64,
}

impl Attribute {
    /// Adds a row to a value.
    pub(super) fn insert(&mut self, leaf: Leaf, row: u32) {
        self.values.entry(leaf).or_default().insert(row);
    }

    /// Removes a row from a value.
    pub(super) fn remove(&mut self, leaf: &Leaf, row: u32) {
        if let Some(posting) = self.values.get_mut(leaf) {
            posting.remove(row);
            if posting.is_empty() {
                self.values.remove(leaf);
            }
        }
    }

    /// Whether some row (of `within`) has a value.
    pub(super) fn is_in(&self, within: Option<&RoaringBitmap>) -> bool {
        match within {
            Some(within) => !self.rows.is_disjoint(within),
            None => !self.rows.is_empty(),
        }
    }
}
