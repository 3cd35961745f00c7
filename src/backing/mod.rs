//! An entry's real directory: every call relative to a directory descriptor, never through a symbolic link.
//!
//! Nothing here takes a path from outside. A name is one component ([`component`]) below a descriptor that is held; a
//! file that is held is reached again through the descriptor itself (`/proc/self/fd`), so that whoever changes the
//! cache directory underneath leads nobody out of it.

pub mod credentials;
mod lock;
mod stat;
mod sys;
mod xattr;

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

pub use lock::{
    END, HeldLock, LockKind, Range, access_mode, find_lock, flock, lock_range, nameless_file, thread_number,
    wake_thread,
};
pub use stat::{Stat, StatTime, stat, stat_at};
pub use sys::{
    SetTime, VfsStat, access, chmod, chown, close_duplicate, copy_file_range, descriptor_limit, entries_raw,
    fallocate, give_back_memory, hard_link, is_local, make_directory, make_node, make_symlink, open_at,
    open_create, open_directory_stream, read_at, read_link, rename, reopen, seek, seek_directory, set_times,
    statvfs, sync, truncate, truncate_open, unlink, write_at,
};
pub use xattr::{get_xattr, get_xattr_at, list_xattr, remove_xattr, set_xattr};

/// The cache directory, and below it the directories of entries.
#[derive(Debug)]
pub struct Backing {
    cache: OwnedFd,
    local: bool,
}

/// Where entries lie that were moved to the trash.
const TRASH: &CStr = c"_trash";

impl Backing {
    /// Over a cache directory.
    pub fn new(cache: BorrowedFd<'_>) -> io::Result<Self> {
        let cache = sys::open_at(cache, c".", libc::O_PATH | libc::O_DIRECTORY)?;
        let local = is_local(cache.as_fd()).unwrap_or(false);
        Ok(Self { cache, local })
    }

    /// The cache directory, as `O_PATH` descriptor.
    pub fn cache(&self) -> BorrowedFd<'_> {
        self.cache.as_fd()
    }

    /// Whether the cache is on a file system of this machine, where closing a file reports nothing.
    pub fn is_local(&self) -> bool {
        self.local
    }

    /// The trash directory. ENOENT if there is none.
    pub fn trash(&self) -> io::Result<OwnedFd> {
        sys::open_at(self.cache(), TRASH, libc::O_PATH | libc::O_DIRECTORY)
    }
}

/// A name as a single component: not empty, no `/`, no NUL, neither `.` nor `..`; else EINVAL.
pub fn component(name: &OsStr) -> io::Result<CString> {
    let bytes = name.as_bytes();
    if bytes.is_empty() || bytes == b"." || bytes == b".." || bytes.contains(&b'/') {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    CString::new(bytes).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

#[cfg(test)]
mod tests;
