//! Errors of operations, and the one place where they become an errno.

use std::io;

use crate::cache::CacheError;
use crate::record::EditError;
use crate::store::StoreError;

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

impl Error {
    /// The errno that callers see. The only place where errors become numbers.
    pub fn errno(&self) -> i32 {
        match self {
            Self::NotFound => libc::ENOENT,
            Self::NoAttribute => libc::ENODATA,
            Self::Invalid => libc::EINVAL,
            Self::NotUtf8 => libc::EILSEQ,
            Self::NotPermitted => libc::EPERM,
            Self::Access => libc::EACCES,
            Self::Exists => libc::EEXIST,
            Self::NotEmpty => libc::ENOTEMPTY,
            Self::IsDirectory => libc::EISDIR,
            Self::NotDirectory => libc::ENOTDIR,
            Self::TooLarge => libc::EFBIG,
            Self::NameTooLong => libc::ENAMETOOLONG,
            Self::CrossDevice => libc::EXDEV,
            Self::ReadOnly => libc::EROFS,
            Self::Stale => libc::ESTALE,
            Self::Range => libc::ERANGE,
            Self::NotSupported => libc::EOPNOTSUPP,
            Self::BadHandle => libc::EBADF,
            Self::NoSuchOperation => libc::ENOSYS,
            Self::Limit => libc::EMFILE,
            Self::Cache(error) => cache_errno(error),
            Self::Io(error) => io_errno(error),
        }
    }
}

fn cache_errno(error: &CacheError) -> i32 {
    match error {
        CacheError::NoEntry => libc::ENOENT,
        CacheError::Exists => libc::EEXIST,
        CacheError::Edit(error) => match error {
            EditError::NoKey => libc::ENOENT,
            EditError::Exists => libc::EEXIST,
            EditError::Reserved => libc::EPERM,
            EditError::NotAnArray | EditError::TooDeep => libc::EINVAL,
        },
        CacheError::TooLarge => libc::EFBIG,
        CacheError::Memory { .. } => libc::ENOMEM,
        CacheError::Store(error) => match &**error {
            StoreError::Io { source, .. } => io_errno(source),
            StoreError::NoLock(_) => libc::ENOLCK,
            StoreError::ReadOnly => libc::EROFS,
            // Writes are refused because an earlier sync failed: what that sync would have said. Or something else stands where
            // the log or the lock must be: no fault of the path that was asked for.
            StoreError::Poisoned | StoreError::NotACache(_) => libc::EIO,
        },
        CacheError::Closed => libc::ESHUTDOWN,
    }
}

/// The number of an OS error; EIO for errors that the standard library made. Never ENOSYS, which the kernel takes as
/// "never ask again": a call that the backing file system lacks is EOPNOTSUPP.
fn io_errno(error: &io::Error) -> i32 {
    match error.raw_os_error() {
        Some(libc::ENOSYS) => libc::EOPNOTSUPP,
        Some(errno) if errno > 0 => errno,
        Some(_) | None => libc::EIO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_keep_the_number_of_the_system() {
        assert_eq!(Error::Io(io::Error::from_raw_os_error(libc::ENOSPC)).errno(), libc::ENOSPC);
        let store = StoreError::Io { doing: "append", source: io::Error::from_raw_os_error(libc::EDQUOT) };
        assert_eq!(Error::Cache(CacheError::Store(store.into())).errno(), libc::EDQUOT);
    }

    #[test]
    fn a_missing_system_call_is_not_for_ever() {
        assert_eq!(Error::Io(io::Error::from_raw_os_error(libc::ENOSYS)).errno(), libc::EOPNOTSUPP);
        assert_eq!(Error::Io(io::Error::other("made up")).errno(), libc::EIO);
    }
}
