//! What operations take and give: plain types, none of `fuser`'s.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

/// A node id, given once and never reused; also `st_ino`.
///
/// Bit 63: contents, from device, inode and birth time. Bit 62: links in set directories, which encode view and row.
/// The rest: virtual nodes, counted up; 1 is the root.
pub type Ino = u64;

/// The id of the root directory.
pub const ROOT: Ino = 1;
/// Set in the ids of nodes that are contents of an entry, and in their handles.
pub const CONTENT_BIT: u64 = 1 << 63;
/// Set in the ids of links in set directories.
pub const LINK_BIT: u64 = 1 << 62;

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// Effective user (fsuid).
    pub uid: u32,
    /// Effective group (fsgid).
    pub gid: u32,
    /// Thread id of the process; 0 if the kernel does not tell.
    pub pid: u32,
}

/// A point in time: seconds since the epoch, which may be negative, and nanoseconds from 0 to 999,999,999.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Time {
    /// Seconds.
    pub sec: i64,
    /// Nanoseconds after them.
    pub nsec: u32,
}

/// A time to set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetTime {
    /// `UTIME_NOW`
    Now,
    /// This one.
    At(Time),
}

/// Attributes of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attr {
    /// Node id.
    pub ino: Ino,
    /// Size in bytes.
    pub size: u64,
    /// Blocks of 512 bytes.
    pub blocks: u64,
    /// Last access.
    pub atime: Time,
    /// Last change of the data.
    pub mtime: Time,
    /// Last change of the node.
    pub ctime: Time,
    /// Type and permission bits, as `st_mode`.
    pub mode: u32,
    /// Number of links.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of a device node.
    pub rdev: u32,
    /// Preferred block size.
    pub blksize: u32,
}

/// A node that was looked up: its lookup count has been raised by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Its attributes, the id among them.
    pub attr: Attr,
    /// How long the kernel may keep the name.
    pub entry_ttl: Duration,
    /// How long the kernel may keep the attributes.
    pub attr_ttl: Duration,
}

/// An open file or directory stream.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "flags of the kernel's reply")]
pub struct Opened {
    /// Its handle.
    pub fh: u64,
    /// `FOPEN_DIRECT_IO`
    pub direct_io: bool,
    /// `FOPEN_KEEP_CACHE`
    pub keep_cache: bool,
    /// `FOPEN_CACHE_DIR`
    pub cache_dir: bool,
    /// `FOPEN_NOFLUSH`
    pub no_flush: bool,
    /// The backing file, where the kernel may serve the data from it (passthrough); one for all opens of a node.
    pub backing: Option<Arc<OwnedFd>>,
    /// The file was changed behind the mount: the attributes that the kernel keeps are out of date.
    pub stale_attr: bool,
}

/// What the kernel keeps of a file that others have changed meanwhile.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stale {
    /// Attributes, the size among them.
    pub attr: bool,
    /// Data.
    pub data: bool,
    /// What the file looked like then: to be handed back once the data is forgotten.
    pub seen: Option<Signature>,
}

/// What a file looked like, to see whether it was changed behind the mount: a hash of size and times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signature(pub(super) u64);

/// One name of a directory stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// Node id, or any number but 0 if it is not known before a lookup.
    pub ino: Ino,
    /// Position after it.
    pub cookie: u64,
    /// `DT_*` shifted as in `st_mode` (`S_IFDIR`, …).
    pub kind: u32,
    /// Its name.
    pub name: OsString,
}

/// What to change of attributes.
#[derive(Debug, Clone, Copy, Default)]
pub struct SetAttr {
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Size.
    pub size: Option<u64>,
    /// Last access.
    pub atime: Option<SetTime>,
    /// Last change of the data.
    pub mtime: Option<SetTime>,
}

/// Numbers of `statfs`.
#[derive(Debug, Clone, Copy)]
pub struct StatFs {
    /// Blocks in all, of `frsize` bytes.
    pub blocks: u64,
    /// Free ones.
    pub bfree: u64,
    /// Free ones for ordinary users.
    pub bavail: u64,
    /// Inodes in all.
    pub files: u64,
    /// Free ones.
    pub ffree: u64,
    /// Preferred block size.
    pub bsize: u32,
    /// Longest name.
    pub namelen: u32,
    /// Block size of the counts.
    pub frsize: u32,
}

/// Answers an operation that may be decided later, on another thread (a commit round, a waiting lock).
pub type Done<T> = Box<dyn FnOnce(Result<T, super::Error>) + Send>;
