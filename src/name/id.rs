//! The identity of an entry.

use std::sync::Arc;

use super::{NAME_MAX, NameError, escape};

/// The identity of an entry: the name of its directory in the cache.
///
/// Not empty, at most [`NAME_MAX`] bytes, no `/`, no NUL, does not start with `.` or `_`. A copy shares the bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(Arc<str>);

impl Id {
    /// A checked id.
    pub fn new(name: &str) -> Result<Self, NameError> {
        Self::check(name).map(|name| Self(name.into()))
    }

    /// Whether a name is one of an entry; the name.
    pub fn check(name: &str) -> Result<&str, NameError> {
        if name.is_empty() || name.starts_with(['.', '_']) || name.contains(['/', '\0']) {
            return Err(NameError::Malformed);
        }
        if name.len() > NAME_MAX {
            return Err(NameError::TooLong);
        }
        Ok(name)
    }

    /// The id of a record that has this `_id` or `@`: its last component (trailing slashes make it empty: refused).
    pub fn from_path(path: &str) -> Result<Self, NameError> {
        Self::new(Self::in_path(path))
    }

    /// The last component of an `_id` or `@`, unchecked.
    pub fn in_path(path: &str) -> &str {
        path.rsplit_once('/').map_or(path, |(_, last)| last)
    }

    /// The id.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name under which views and `entries/` show it: the id itself, or with its first byte percent-encoded if
    /// it is a reserved name of set directories ([`is_reserved_in_sets`]) or starts with `%`.
    pub fn to_file_name(&self) -> String {
        let mut rest = self.0.chars();
        match rest.next().map(u8::try_from) {
            Some(Ok(first)) if first == b'%' || is_reserved_in_sets(&self.0) => {
                let mut name = String::with_capacity(self.0.len() + 2);
                escape::push_escape(first, &mut name);
                name.push_str(rest.as_str());
                name
            }
            _ => self.0.to_string(),
        }
    }

    /// The id that a file name in `entries/` or a view stands for; `None` if it is not the one spelling.
    pub fn from_file_name(name: &str) -> Option<Self> {
        match name.split_at_checked(3) {
            Some((first, rest)) if first.starts_with('%') => {
                let id = Self::new(&(escape::unescape(first)? + rest)).ok()?;
                (id.to_file_name() == name).then_some(id)
            }
            _ if name.starts_with('%') || is_reserved_in_sets(name) => None,
            _ => Self::new(name).ok(),
        }
    }
}

/// Names found but not listed in every set directory: `by-attr`, `where`, `sort`, `table.csv`, `table.jsonl`,
/// `schema.json`, `count`.
pub fn is_reserved_in_sets(name: &str) -> bool {
    matches!(name, "by-attr" | "where" | "sort" | "table.csv" | "table.jsonl" | "schema.json" | "count")
}
