//! Contents of entries: nodes that are real files and directories, over [`crate::backing`].
//!
//! Directories have one node for each path they are found by ([`Root`]); other files have one node, shared by all paths.

use std::ffi::OsStr;
use std::time::Duration;

use super::{Attr, Caller, DirEntry, Entry, Ino, Opened, Result, SetAttr, StatFs};
use crate::backing::Backing;
use crate::name::Id;

/// By which path an entry's directory is seen: no two paths share the node of a directory.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Root {
    /// `entries/ID`
    Entries(Id),
    /// `new/NAME` or `memo/LIST`: the id of the entry and the virtual parent's own number for the name.
    Alias(Id, u64),
    /// `trash/ID`
    Trash(Id),
}

/// How contents behave.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Take on the callers' credentials: the daemon is root and other users use the mount.
    pub impersonate: bool,
    /// The kernel can serve data from backing files.
    pub passthrough: bool,
    /// Nothing can be changed.
    pub read_only: bool,
    /// How long the kernel may keep names and attributes.
    pub ttl: Duration,
}

/// The nodes and handles of contents. Ids and handles have [`super::CONTENT_BIT`] set.
#[derive(Debug)]
pub struct Contents {
    _todo: (),
}

impl Contents {
    /// No nodes yet.
    pub fn new(backing: Backing, options: Options) -> Self {
        todo!()
    }
    /// The directory of an entry; raises its lookup count. If the entry has no directory yet, it is a node all the same, empty,
    /// owned by the cache directory's owner; the directory is made when something is first written there.
    pub fn root(&self, root: Root) -> Result<Entry> {
        todo!()
    }
    /// If the node is an entry's own directory: which.
    pub fn as_root(&self, ino: Ino) -> Option<Root> {
        todo!()
    }
    /// Drops what is kept of a root after its entry was deleted or moved; further use of the node is ESTALE.
    pub fn gone(&self, root: &Root) {
        todo!()
    }
    /// Whether `caller` may write in the directory by its permission bits (root may; with `impersonate` the caller's credentials count).
    pub fn may_write(&self, caller: &Caller, ino: Ino) -> Result<bool> {
        todo!()
    }
    /// As [`super::Vfs::lookup`]; so are the others below.
    pub fn lookup(&self, caller: &Caller, parent: Ino, name: &OsStr) -> Result<Entry> {
        todo!()
    }
    /// Lowers a lookup count.
    pub fn forget(&self, ino: Ino, count: u64) {
        todo!()
    }
    /// Attributes.
    pub fn getattr(&self, ino: Ino, fh: Option<u64>) -> Result<(Attr, Duration)> {
        todo!()
    }
    /// Changes attributes.
    pub fn setattr(
        &self,
        caller: &Caller,
        ino: Ino,
        set: &SetAttr,
        fh: Option<u64>,
    ) -> Result<(Attr, Duration)> {
        todo!()
    }
    /// Target of a symbolic link.
    pub fn readlink(&self, ino: Ino) -> Result<Vec<u8>> {
        todo!()
    }
    /// Makes a node.
    pub fn mknod(
        &self,
        caller: &Caller,
        parent: Ino,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
    ) -> Result<Entry> {
        todo!()
    }
    /// Makes a directory.
    pub fn mkdir(&self, caller: &Caller, parent: Ino, name: &OsStr, mode: u32, umask: u32) -> Result<Entry> {
        todo!()
    }
    /// Removes a name.
    pub fn unlink(&self, caller: &Caller, parent: Ino, name: &OsStr) -> Result<()> {
        todo!()
    }
    /// Removes a directory.
    pub fn rmdir(&self, caller: &Caller, parent: Ino, name: &OsStr) -> Result<()> {
        todo!()
    }
    /// Removes an entry's own directory (empty), as `rmdir entries/ID` does after the record was deleted; a missing one is no error.
    pub fn rmdir_root(&self, caller: &Caller, root: &Root) -> Result<()> {
        todo!()
    }
    /// Whether an entry's own directory is empty or missing.
    pub fn is_empty_root(&self, root: &Root) -> Result<bool> {
        todo!()
    }
    /// Makes a symbolic link.
    pub fn symlink(&self, caller: &Caller, parent: Ino, name: &OsStr, target: &OsStr) -> Result<Entry> {
        todo!()
    }
    /// Renames.
    pub fn rename(&self, caller: &Caller, from: (Ino, &OsStr), to: (Ino, &OsStr), flags: u32) -> Result<()> {
        todo!()
    }
    /// Makes a hard link.
    pub fn link(&self, caller: &Caller, ino: Ino, parent: Ino, name: &OsStr) -> Result<Entry> {
        todo!()
    }
    /// Opens a file.
    pub fn open(&self, caller: &Caller, ino: Ino, flags: i32) -> Result<Opened> {
        todo!()
    }
    /// Makes and opens a file.
    pub fn create(
        &self,
        caller: &Caller,
        parent: Ino,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
    ) -> Result<(Entry, Opened)> {
        todo!()
    }
    /// Reads.
    pub fn read(&self, fh: u64, offset: u64, size: u32) -> Result<Vec<u8>> {
        todo!()
    }
    /// Writes.
    pub fn write(&self, fh: u64, offset: u64, data: &[u8], kill_suid: bool) -> Result<u32> {
        todo!()
    }
    /// A descriptor was closed.
    pub fn flush(&self, fh: u64) -> Result<()> {
        todo!()
    }
    /// The last one was.
    pub fn release(&self, fh: u64) {
        todo!()
    }
    /// Makes a file durable.
    pub fn fsync(&self, fh: u64, datasync: bool) -> Result<()> {
        todo!()
    }
    /// Opens a stream: a snapshot, or the file system's own.
    pub fn opendir(&self, caller: &Caller, ino: Ino) -> Result<Opened> {
        todo!()
    }
    /// Names after a position.
    pub fn readdir(&self, fh: u64, cookie: u64, add: &mut dyn FnMut(&DirEntry) -> bool) -> Result<()> {
        todo!()
    }
    /// Names after a position, looked up.
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
    /// Makes a directory durable. Gives the root, if it is an entry's own directory.
    pub fn fsyncdir(&self, fh: u64, datasync: bool) -> Result<Option<Root>> {
        todo!()
    }
    /// Numbers of the backing file system.
    pub fn statfs(&self) -> Result<StatFs> {
        todo!()
    }
    /// Sets an extended attribute of the real file.
    pub fn setxattr(&self, caller: &Caller, ino: Ino, name: &OsStr, value: &[u8], flags: i32) -> Result<()> {
        todo!()
    }
    /// An extended attribute of the real file.
    pub fn getxattr(&self, caller: &Caller, ino: Ino, name: &OsStr) -> Result<Vec<u8>> {
        todo!()
    }
    /// Their names.
    pub fn listxattr(&self, caller: &Caller, ino: Ino) -> Result<Vec<u8>> {
        todo!()
    }
    /// Removes one.
    pub fn removexattr(&self, caller: &Caller, ino: Ino, name: &OsStr) -> Result<()> {
        todo!()
    }
    /// Allocates, punches.
    pub fn fallocate(&self, fh: u64, offset: u64, length: u64, mode: i32) -> Result<()> {
        todo!()
    }
    /// `SEEK_DATA`, `SEEK_HOLE`.
    pub fn lseek(&self, fh: u64, offset: i64, whence: i32) -> Result<i64> {
        todo!()
    }
    /// Copies between open files.
    pub fn copy_file_range(&self, from: (u64, u64), to: (u64, u64), length: u64) -> Result<u32> {
        todo!()
    }
}
