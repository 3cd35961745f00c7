//! Checked names: entry ids and attribute keys, and how they and values become file names.

mod escape;
mod id;
mod key;
mod pairs;
#[cfg(test)]
mod tests;

use std::fmt;

pub use escape::{cut_prefix, to_file_name, unescape};
pub use id::{Id, is_reserved_in_sets};
pub use key::{Key, flatten};
pub use pairs::{pairs_to_list, parse_pair, parse_pairs};

use crate::value::Leaf;

/// Longest file name, in bytes.
pub const NAME_MAX: usize = 255;

/// Why a name was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameError {
    /// Malformed: empty, a bad first character, a missing `=`, …
    Malformed,
    /// Not UTF-8.
    NotUtf8,
    /// Longer than [`NAME_MAX`], or a key of more members than values nest.
    TooLong,
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "malformed name",
            Self::NotUtf8 => "not UTF-8",
            Self::TooLong => "name too long",
        })
    }
}

impl std::error::Error for NameError {}

/// The file name of a value directory.
pub fn leaf_file_name(leaf: &Leaf) -> String {
    to_file_name(&leaf.to_text())
}
