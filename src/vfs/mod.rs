//! Every operation on paths and handles. No `fuser` types: this is tested without FUSE in the loop.

pub mod content;
pub mod tree;

mod error;
mod types;

use std::ffi::OsStr;
use std::path::PathBuf;
use std::sync::Arc;

pub use error::{Error, Result};
pub use types::*;

use crate::cache::Cache;

/// How a mount behaves.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Nothing can be changed.
    pub read_only: bool,
    /// Other users than the daemon's use the mount.
    pub allow_other: bool,
    /// The kernel drops all names on request (`FUSE_NOTIFY_INC_EPOCH`, Linux 6.16): names of views may be cached.
    pub epochs: bool,
    /// The kernel can serve data from backing files.
    pub passthrough: bool,
    /// Absolute path of the mount point, for `README` and `.status`.
    pub mountpoint: PathBuf,
}

/// A mounted cache.
#[derive(Debug)]
pub struct Vfs {
    _todo: (),
}

/// Operations, as the kernel asks for them. Those that take a `done` may answer later, on another thread; all others
/// answer at once or after I/O on the contents.
impl Vfs {
    /// A filesystem over a cache.
    pub fn new(cache: Arc<Cache>, options: Options) -> Result<Self> {
        todo!()
    }
    /// What the kernel turned out to offer, told once before the first request: `epochs` as [`Options::epochs`],
    /// which it overrides, and `passthrough` likewise.
    pub fn negotiated(&self, epochs: bool, passthrough: bool) {
        todo!()
    }
    /// Finds a name.
    pub fn lookup(&self, caller: &Caller, parent: Ino, name: &OsStr) -> Result<Entry> {
        todo!()
    }
    /// Lowers a lookup count.
    pub fn forget(&self, ino: Ino, count: u64) {
        todo!()
    }
    /// Attributes, and how long the kernel may keep them.
    pub fn getattr(&self, ino: Ino, fh: Option<u64>) -> Result<(Attr, std::time::Duration)> {
        todo!()
    }
    /// Changes attributes.
    pub fn setattr(
        &self,
        caller: &Caller,
        ino: Ino,
        set: &SetAttr,
        fh: Option<u64>,
        done: Done<(Attr, std::time::Duration)>,
    ) {
        todo!()
    }
    /// Target of a symbolic link.
    pub fn readlink(&self, ino: Ino) -> Result<Vec<u8>> {
        todo!()
    }
    /// Makes a file that is no directory or link; `mode` has type and permissions, the umask is applied here.
    pub fn mknod(
        &self,
        caller: &Caller,
        parent: Ino,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        done: Done<Entry>,
    ) {
        todo!()
    }
    /// Makes a directory, an entry, or a value directory.
    pub fn mkdir(
        &self,
        caller: &Caller,
        parent: Ino,
        name: &OsStr,
        mode: u32,
        umask: u32,
        done: Done<Entry>,
    ) {
        todo!()
    }
    /// Removes a name that is no directory.
    pub fn unlink(&self, caller: &Caller, parent: Ino, name: &OsStr, done: Done<()>) {
        todo!()
    }
    /// Removes a directory.
    pub fn rmdir(&self, caller: &Caller, parent: Ino, name: &OsStr, done: Done<()>) {
        todo!()
    }
    /// Makes a symbolic link.
    pub fn symlink(&self, caller: &Caller, parent: Ino, name: &OsStr, target: &OsStr, done: Done<Entry>) {
        todo!()
    }
    /// Renames; `flags` are those of `renameat2`.
    pub fn rename(
        &self,
        caller: &Caller,
        from: (Ino, &OsStr),
        to: (Ino, &OsStr),
        flags: u32,
        done: Done<()>,
    ) {
        todo!()
    }
    /// Makes a hard link.
    pub fn link(&self, caller: &Caller, ino: Ino, parent: Ino, name: &OsStr) -> Result<Entry> {
        todo!()
    }
    /// Opens a file; `flags` as of `open`.
    pub fn open(&self, caller: &Caller, ino: Ino, flags: i32) -> Result<Opened> {
        todo!()
    }
    /// Makes a file and opens it.
    pub fn create(
        &self,
        caller: &Caller,
        parent: Ino,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        done: Done<(Entry, Opened)>,
    ) {
        todo!()
    }
    /// Reads; fewer bytes than asked only at the end of the file.
    pub fn read(&self, fh: u64, offset: u64, size: u32) -> Result<Vec<u8>> {
        todo!()
    }
    /// Writes; gives the number of bytes. `kill_suid`: drop set-uid and set-gid bits as for an ordinary user's write.
    pub fn write(&self, fh: u64, offset: u64, data: &[u8], kill_suid: bool) -> Result<u32> {
        todo!()
    }
    /// A descriptor of the file was closed: attribute files are set here.
    pub fn flush(&self, fh: u64, lock_owner: u64, done: Done<()>) {
        todo!()
    }
    /// The last descriptor was closed.
    pub fn release(&self, fh: u64) {
        todo!()
    }
    /// Makes a file durable.
    pub fn fsync(&self, fh: u64, datasync: bool, done: Done<()>) {
        todo!()
    }
    /// Opens a directory stream: a snapshot of its names.
    pub fn opendir(&self, caller: &Caller, ino: Ino) -> Result<Opened> {
        todo!()
    }
    /// Gives the names of a stream after position `cookie` to `add` until it says stop (false).
    pub fn readdir(&self, fh: u64, cookie: u64, add: &mut dyn FnMut(&DirEntry) -> bool) -> Result<()> {
        todo!()
    }
    /// As `readdir`, with each name looked up (count raised by one, but for `.` and `..`, and only if `add` takes it).
    pub fn readdirplus(
        &self,
        caller: &Caller,
        fh: u64,
        cookie: u64,
        add: &mut dyn FnMut(&DirEntry, &Entry) -> bool,
    ) -> Result<()> {
        todo!()
    }
    /// Closes a stream.
    pub fn releasedir(&self, fh: u64) {
        todo!()
    }
    /// Makes a directory durable; of an entry, its attributes too.
    pub fn fsyncdir(&self, fh: u64, datasync: bool, done: Done<()>) {
        todo!()
    }
    /// Numbers of the backing file system.
    pub fn statfs(&self, ino: Ino) -> Result<StatFs> {
        todo!()
    }
    /// Sets an extended attribute; `flags` are `XATTR_CREATE`, `XATTR_REPLACE`.
    pub fn setxattr(
        &self,
        caller: &Caller,
        ino: Ino,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        done: Done<()>,
    ) {
        todo!()
    }
    /// An extended attribute's value.
    pub fn getxattr(&self, caller: &Caller, ino: Ino, name: &OsStr) -> Result<Vec<u8>> {
        todo!()
    }
    /// The names of extended attributes, each ended by NUL.
    pub fn listxattr(&self, caller: &Caller, ino: Ino) -> Result<Vec<u8>> {
        todo!()
    }
    /// Removes an extended attribute.
    pub fn removexattr(&self, caller: &Caller, ino: Ino, name: &OsStr, done: Done<()>) {
        todo!()
    }
    /// Allocates, punches; `mode` as of `fallocate`.
    pub fn fallocate(&self, fh: u64, offset: u64, length: u64, mode: i32) -> Result<()> {
        todo!()
    }
    /// `SEEK_DATA` and `SEEK_HOLE`.
    pub fn lseek(&self, fh: u64, offset: i64, whence: i32) -> Result<i64> {
        todo!()
    }
    /// Copies between open files; gives the number of bytes.
    pub fn copy_file_range(&self, from: (u64, u64), to: (u64, u64), length: u64) -> Result<u32> {
        todo!()
    }
}
