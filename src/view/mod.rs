//! Views: what a path below the mount stands for, and what a change there means. Pure: path and index in, nodes and
//! edits out.
//!
//! A *set* is the entries that a set directory lists, as a list of terms ([`Set`]); a *directory* of a view is a set
//! or a place where one is asked about ([`Dir`]). [`lookup()`] finds a name in a directory, [`list()`] lists one,
//! [`change`] says what moving, making and removing links means, and [`attribute`] is the attributes of one entry as
//! files.

pub mod attribute;
pub mod change;
pub mod schema;
pub mod table;

mod list;
mod lookup;
mod set;
#[cfg(test)]
mod tests;

pub use list::{Listing, list, made_name, ordinal_name};
pub use lookup::{Found, child, exists, lookup, within};
pub use set::{Base, Set, Term};

use crate::name::Key;

/// A directory of a view.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Dir {
    /// A set directory: lists its entries.
    Set(Set),
    /// `by-attr/` of a set: lists keys.
    Keys(Set),
    /// `by-attr/KEY/` of a set: lists values.
    Values(Set, Key),
    /// `where/` of a set: lists nothing.
    Where(Set),
    /// `sort/` of a set: lists keys.
    Sort(Set),
}

/// A file about a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum File {
    /// `table.csv`
    Csv,
    /// `table.jsonl`
    Jsonl,
    /// `schema.json`
    Schema,
    /// `count`
    Count,
}

impl Dir {
    /// The set that it lists or asks about.
    pub fn set(&self) -> &Set {
        match self {
            Self::Set(set) | Self::Keys(set) | Self::Values(set, _) | Self::Where(set) | Self::Sort(set) => {
                set
            }
        }
    }
}

/// Why a name stands for nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoName {
    /// Nothing has that name.
    NotFound,
    /// It is malformed.
    Malformed,
    /// It is not UTF-8.
    NotUtf8,
    /// It is too long.
    TooLong,
}

impl From<crate::name::NameError> for NoName {
    fn from(error: crate::name::NameError) -> Self {
        match error {
            crate::name::NameError::Malformed => Self::Malformed,
            crate::name::NameError::NotUtf8 => Self::NotUtf8,
            crate::name::NameError::TooLong => Self::TooLong,
        }
    }
}
