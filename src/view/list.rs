//! What directories of views list.

use roaring::RoaringBitmap;

use super::lookup::{sort_name, within};
use super::{Dir, Term};
use crate::index::Index;
use crate::name::{Id, leaf_file_name};

/// Fewest digits of an ordinal in `sort/`: names stay the same while a set of up to 999,999 entries grows.
pub(super) const ORDINAL_WIDTH: usize = 6;

/// A snapshot of what a directory lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listing {
    /// Directories.
    Names(Vec<String>),
    /// Links to these entries.
    Links(Vec<u32>),
    /// Links to these entries, numbered from 1 with this many digits.
    Numbered(Vec<u32>, usize),
}

/// The name of a numbered link; `position` counts from 0.
pub fn ordinal_name(position: usize, width: usize, id: &Id) -> String {
    format!("{:0width$}-{}", position + 1, id.to_file_name())
}

/// Lists a directory whose set has these `rows`.
pub fn list(index: &Index, dir: &Dir, rows: &RoaringBitmap) -> Listing {
    match dir {
        Dir::Set(set) => match set.terms().last() {
            Some(Term::Sort(..)) => {
                let sorted: Vec<u32> = set.in_order(index, rows).into_iter().map(|row| row.0).collect();
                let width = sorted.len().to_string().len().max(ORDINAL_WIDTH);
                Listing::Numbered(sorted, width)
            }
            _ => Listing::Links(rows.iter().collect()),
        },
        Dir::Keys(set) => {
            let keys = index.keys(within(set, rows));
            Listing::Names(keys.iter().map(crate::name::Key::to_file_name).collect())
        }
        Dir::Values(set, key) => {
            let values = index.values(key, within(set, rows));
            Listing::Names(values.iter().map(|(leaf, _)| leaf_file_name(leaf)).collect())
        }
        Dir::Where(_) => Listing::Names(Vec::new()),
        Dir::Sort(set) => {
            let keys = index.keys(within(set, rows));
            Listing::Names(keys.iter().filter(|key| !key.is_elements()).map(sort_name).collect())
        }
    }
}

/// The name of a directory made in memory, if `dir` is where it was made.
pub fn made_name(dir: &Dir, made: &Dir) -> Option<String> {
    match (dir, made) {
        (Dir::Keys(set), Dir::Values(other, key)) => (set == other).then(|| key.to_file_name()),
        (Dir::Values(set, key), Dir::Set(made)) => {
            let (parent, last) = made.split_last()?;
            match last {
                Term::Value(other, leaf) if parent == *set && other == key => Some(leaf_file_name(leaf)),
                _ => None,
            }
        }
        _ => None,
    }
}
