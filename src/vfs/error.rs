//! Errors of operations, and the one place where they become an errno.

use std::io;

use crate::cache::CacheError;

/// Why an operation failed.
#[derive(Debug)]
pub enum Error {
    /// No such entry, key, value or name.
    NotFound,
    /// An attribute that does not exist, asked for as extended attribute.
    NoAttribute,
    /// A malformed expression, `K=V` list, `.attrs.json` or argument.
    Invalid,
    /// A name or value that is not UTF-8 where JSON needs it.
    NotUtf8,
    /// Reserved members, changes that a view does not have.
    NotPermitted,
    /// The permission bits say no.
    Access,
    /// It exists already.
    Exists,
    /// The directory is not empty.
    NotEmpty,
    /// Is a directory.
    IsDirectory,
    /// Is no directory.
    NotDirectory,
    /// An attribute object over 16 MiB.
    TooLarge,
    /// A name that is too long.
    NameTooLong,
    /// A rename between what cannot be renamed between.
    CrossDevice,
    /// The mount is read-only.
    ReadOnly,
    /// The entry or node vanished while in use.
    Stale,
    /// A buffer that is too small for an extended attribute.
    Range,
    /// Not supported for this node.
    NotSupported,
    /// A handle that does not exist.
    BadHandle,
    /// The operation does not exist in this filesystem at all: the kernel does not ask again.
    NoSuchOperation,
    /// Another limit: open snapshots, too many links.
    Limit,
    /// The store failed.
    Cache(CacheError),
    /// A system call on the contents failed.
    Io(io::Error),
}

/// Result of an operation.
pub type Result<T> = std::result::Result<T, Error>;

impl From<io::Error> for Error {
    fn from(source: io::Error) -> Self {
        Self::Io(source)
    }
}

impl From<CacheError> for Error {
    fn from(source: CacheError) -> Self {
        Self::Cache(source)
    }
}
