//! Every operation on paths and handles. No `fuser` types: this is tested without FUSE in the loop.

pub mod content;
mod killed;
mod locks;
mod tree;

mod error;
mod types;

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use error::{Error, Result};
pub use locks::LockRequest;
pub use types::*;

pub use self::tree::Shown;
use self::tree::Tree;
use crate::backing;
pub use crate::backing::{HeldLock, LockKind, Range};
use crate::cache::Cache;

/// How a mount behaves.
#[derive(Debug, Clone, Default)]
#[expect(clippy::struct_excessive_bools, reason = "independent switches")]
pub struct Options {
    /// Nothing can be changed.
    pub read_only: bool,
    /// Other users than the daemon's use the mount.
    pub allow_other: bool,
    /// The kernel drops all names on request (`FUSE_NOTIFY_INC_EPOCH`, Linux 6.16): names of views may be cached.
    pub epochs: bool,
    /// The kernel can serve data from backing files.
    pub passthrough: bool,
    /// How long the kernel may keep names and attributes below entries before it asks again; none for a second.
    pub attr_timeout: Option<Duration>,
    /// Absolute path of the mount point, for `README` and `.status`.
    pub mountpoint: PathBuf,
}

/// The flags of the mount that a directory lies on (`ST_NODEV` and so on).
pub fn mount_flags(directory: BorrowedFd<'_>) -> std::io::Result<u64> {
    Ok(backing::statvfs(directory)?.f_flag)
}

/// A mounted cache.
#[derive(Debug)]
pub struct Vfs {
    tree: Arc<Tree>,
}

/// Operations, as the kernel asks for them. Those that take a `done` may answer later, on another thread; all others
/// answer at once or after I/O on the contents.
///
/// A node id says who answers: with [`CONTENT_BIT`] the contents, without it the tree of virtual nodes. Where they meet, an
/// entry's own directory has `.attrs`, `.attrs.json` and the extended attributes `user.*` of the tree.
impl Vfs {
    /// A filesystem over a cache.
    pub fn new(cache: Arc<Cache>, options: Options) -> Result<Self> {
        Ok(Self { tree: Arc::new(Tree::new(cache, options)?) })
    }
    /// What the kernel turned out to offer, told once before the first request: `epochs` as [`Options::epochs`],
    /// which it overrides, and `passthrough` likewise; with `direct_writes`, what is written to a file without being kept shows at
    /// once wherever the file is read or mapped.
    pub fn negotiated(&self, epochs: bool, passthrough: bool, direct_writes: bool) {
        self.tree.set_epochs(epochs);
        self.tree.contents.set_passthrough(passthrough);
        self.tree.contents.set_direct_writes(direct_writes);
    }
    /// Whether the kernel may be told to forget names, so that it may keep those that can change: as [`Options::epochs`].
    pub fn keep_names(&self, keep: bool) {
        self.tree.set_epochs(keep);
    }
    /// What the kernel was shown, for whoever publishes changes.
    pub fn shown(&self) -> Arc<Shown> {
        Arc::clone(&self.tree.shown)
    }
    /// How the kernel is told to ask again for every name that it keeps; at most once, before the first request.
    pub fn set_forget_names(&self, forget: Box<dyn Fn() + Send + Sync>) {
        self.tree.contents.set_forget_names(content::ForgetNames(forget));
    }
    /// The kernel does not serve data from backing files after all.
    pub fn passthrough_refused(&self) {
        self.tree.contents.set_passthrough(false);
    }
    /// Finds a name.
    pub fn lookup(&self, caller: &Caller, parent: Ino, name: &OsStr) -> Result<Entry> {
        if !is_content(parent) {
            return self.tree.lookup(caller, parent, name);
        }
        match self.tree.lookup_in_root(parent, name) {
            Some(found) => found,
            None => self.tree.contents.lookup(caller, parent, name),
        }
    }
    /// How long the kernel may keep it that a name was not found in a directory; zero: not at all.
    pub fn absence_ttl(&self, parent: Ino) -> std::time::Duration {
        if is_content(parent) { self.tree.contents.absence_ttl(parent) } else { std::time::Duration::ZERO }
    }
    /// Lowers a lookup count.
    pub fn forget(&self, ino: Ino, count: u64) {
        self.tree.forget_any(ino, count);
    }
    /// Attributes, and how long the kernel may keep them.
    pub fn getattr(&self, ino: Ino, fh: Option<u64>) -> Result<(Attr, Duration)> {
        if is_content(ino) { self.tree.contents.getattr(ino, fh) } else { self.tree.getattr(ino, fh) }
    }
    /// Changes attributes.
    pub fn setattr(
        &self,
        caller: &Caller,
        ino: Ino,
        set: &SetAttr,
        fh: Option<u64>,
        done: Done<(Attr, Duration)>,
    ) {
        if is_content(ino) {
            done(self.tree.contents.setattr(caller, ino, set, fh));
        } else {
            self.tree.setattr(caller, ino, set, fh, done);
        }
    }
    /// Target of a symbolic link.
    pub fn readlink(&self, ino: Ino) -> Result<Vec<u8>> {
        if is_content(ino) { self.tree.contents.readlink(ino) } else { self.tree.readlink(ino) }
    }
    /// Makes a file that is no directory or link; `mode` has type and permissions, the umask is applied here.
    #[expect(clippy::too_many_arguments, reason = "as the kernel asks")]
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
        if !is_content(parent) {
            self.tree.mknod(caller, parent, name, mode, done);
        } else if let Err(error) = self.tree.free_name(parent, name) {
            done(Err(error));
        } else {
            done(self.tree.contents.mknod(caller, parent, name, mode, umask, rdev));
        }
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
        if !is_content(parent) {
            self.tree.mkdir(caller, parent, name, mode, umask, done);
        } else if let Err(error) = self.tree.free_name(parent, name) {
            done(Err(error));
        } else {
            done(self.tree.contents.mkdir(caller, parent, name, mode, umask));
        }
    }
    /// Removes a name that is no directory.
    pub fn unlink(&self, caller: &Caller, parent: Ino, name: &OsStr, done: Done<()>) {
        if !is_content(parent) {
            self.tree.unlink(caller, parent, name, done);
        } else if self.tree.is_virtual(parent, name) {
            done(Err(Error::NotPermitted));
        } else {
            done(self.tree.contents.unlink(caller, parent, name));
        }
    }
    /// Removes a directory.
    pub fn rmdir(&self, caller: &Caller, parent: Ino, name: &OsStr, done: Done<()>) {
        if !is_content(parent) {
            self.tree.rmdir(caller, parent, name, done);
        } else if self.tree.is_virtual(parent, name) {
            done(Err(Error::NotPermitted));
        } else {
            done(self.tree.contents.rmdir(caller, parent, name));
        }
    }
    /// Makes a symbolic link.
    pub fn symlink(&self, caller: &Caller, parent: Ino, name: &OsStr, target: &OsStr, done: Done<Entry>) {
        if !is_content(parent) {
            self.tree.symlink(caller, parent, name, target, done);
        } else if let Err(error) = self.tree.free_name(parent, name) {
            done(Err(error));
        } else {
            done(self.tree.contents.symlink(caller, parent, name, target));
        }
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
        if self.tree.is_virtual(from.0, from.1) || self.tree.is_virtual(to.0, to.1) {
            return done(Err(Error::NotPermitted));
        }
        match (is_content(from.0), is_content(to.0)) {
            (true, true) => done(self.tree.contents.rename(caller, from, to, flags)),
            (false, false) => self.tree.rename(caller, from, to, flags, done),
            // A file that is moved into `.attrs` is copied: it becomes an attribute, and the reverse.
            (true, false) => done(Err(self.tree.not_renamed(to.0))),
            (false, true) => done(Err(self.tree.not_renamed(from.0))),
        }
    }
    /// Makes a hard link.
    pub fn link(&self, caller: &Caller, ino: Ino, parent: Ino, name: &OsStr) -> Result<Entry> {
        if !is_content(ino) || !is_content(parent) {
            return Err(Error::NotPermitted);
        }
        self.tree.free_name(parent, name)?;
        self.tree.contents.link(caller, ino, parent, name)
    }
    /// Opens a file; `flags` as of `open`.
    pub fn open(&self, caller: &Caller, ino: Ino, flags: i32) -> Result<Opened> {
        if !is_content(ino) {
            return self.tree.open(caller, ino, flags);
        }
        let mut opened = self.tree.contents.open(caller, ino, flags)?;
        opened.no_flush &= !self.tree.locks.was_locked(ino);
        Ok(opened)
    }
    /// Makes a file and opens it.
    #[expect(clippy::too_many_arguments, reason = "as the kernel asks")]
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
        if !is_content(parent) {
            done(self.tree.create(caller, parent, name, flags));
        } else if let Err(error) = self.tree.free_name(parent, name) {
            done(Err(error));
        } else {
            done(self.tree.contents.create(caller, parent, name, mode, umask, flags));
        }
    }
    /// Reads; fewer bytes than asked only at the end of the file.
    pub fn read(&self, fh: u64, offset: u64, size: u32) -> Result<Vec<u8>> {
        if is_content(fh) {
            self.tree.contents.read(fh, offset, size)
        } else {
            self.tree.read(fh, offset, size)
        }
    }
    /// Writes; gives the number of bytes. `kill_suid`: drop set-uid and set-gid bits as for an ordinary user's write. `owner`: whose
    /// table of descriptors it is, if that is known.
    pub fn write(
        &self,
        fh: u64,
        offset: u64,
        data: &[u8],
        owner: Option<u64>,
        kill_suid: bool,
    ) -> Result<u32> {
        if is_content(fh) {
            self.tree.contents.write(fh, offset, data, kill_suid)
        } else {
            self.tree.write(fh, offset, data, owner)
        }
    }
    /// A descriptor of the file was closed: attribute files are set here, and the owner's locks on the file go.
    pub fn flush(&self, ino: Ino, fh: u64, lock_owner: u64, thread: u32, done: Done<()>) {
        if is_content(fh) {
            self.tree.locks.closed(ino, lock_owner);
            done(self.tree.contents.flush(fh));
        } else if self.tree.locks.is_empty() {
            self.tree.flush(fh, lock_owner, thread, done);
        } else {
            let tree = Arc::clone(&self.tree);
            let unlocking = move |result| {
                tree.locks.closed(ino, lock_owner);
                done(result);
            };
            self.tree.flush(fh, lock_owner, thread, Box::new(unlocking));
        }
    }
    /// The last descriptor was closed.
    pub fn release(&self, ino: Ino, fh: u64) {
        self.tree.locks.released(ino, fh);
        if is_content(fh) {
            self.tree.contents.release(fh);
        } else {
            self.tree.release(fh);
        }
    }
    /// Locks or unlocks. If it may `wait`, until it has the lock or a signal has come for who asks. Tells
    /// what the kernel must forget before the program goes on: under a lock, it sees what others have written.
    pub fn set_lock(&self, request: LockRequest, wait: bool, done: Done<Stale>) {
        let file = match self.lockable(request.fh) {
            Ok(file) => file,
            Err(error) => return done(Err(error)),
        };
        let seen = file.clone().filter(|_| request.kind.is_some());
        let tree = Arc::clone(&self.tree);
        let done = move |result: Result<()>| {
            let stale = || seen.map(|file| tree.contents.locked(request.ino, file.as_fd()));
            done(result.map(|()| stale().unwrap_or_default()));
        };
        self.tree.locks.set(request, file.as_ref(), wait, Box::new(done));
    }
    /// The kernel has forgotten the data of a file, as [`Self::set_lock`] has told it to ([`Stale::seen`]).
    pub fn forgotten(&self, ino: Ino, seen: Signature) {
        self.tree.contents.forgotten(ino, seen);
    }
    /// The lock (of `fcntl`) that would be in the way of this one.
    pub fn find_lock(&self, request: LockRequest) -> Result<Option<HeldLock>> {
        self.tree.locks.find(request, self.lockable(request.fh)?.as_ref())
    }
    /// What is locked for a handle; none for virtual files.
    fn lockable(&self, fh: u64) -> Result<Option<Arc<OwnedFd>>> {
        is_content(fh).then(|| self.tree.contents.descriptor_of(fh)).transpose()
    }
    /// Makes a file durable.
    pub fn fsync(&self, fh: u64, datasync: bool, done: Done<()>) {
        if is_content(fh) {
            done(self.tree.contents.fsync(fh, datasync));
        } else {
            self.tree.fsync(fh, done);
        }
    }
    /// Opens a directory stream: a snapshot of its names.
    pub fn opendir(&self, caller: &Caller, ino: Ino) -> Result<Opened> {
        if is_content(ino) { self.tree.contents.opendir(caller, ino) } else { self.tree.opendir(ino) }
    }
    /// Gives the names of a stream after position `cookie` to `add` until it says stop (false).
    pub fn readdir(&self, fh: u64, cookie: u64, add: &mut dyn FnMut(&DirEntry) -> bool) -> Result<()> {
        if is_content(fh) {
            self.tree.contents.readdir(fh, cookie, add)
        } else {
            self.tree.readdir(fh, cookie, add)
        }
    }
    /// As `readdir`, with each name looked up (count raised by one, but for `.` and `..`, and only if `add` takes it).
    pub fn readdirplus(
        &self,
        caller: &Caller,
        fh: u64,
        cookie: u64,
        add: &mut dyn FnMut(&DirEntry, &Entry) -> bool,
    ) -> Result<()> {
        if is_content(fh) {
            self.tree.contents.readdirplus(caller, fh, cookie, add)
        } else {
            self.tree.readdirplus(caller, fh, cookie, add)
        }
    }
    /// Closes a stream.
    pub fn releasedir(&self, fh: u64) {
        if is_content(fh) {
            self.tree.contents.releasedir(fh);
        } else {
            self.tree.releasedir(fh);
        }
    }
    /// Makes a directory durable; of an entry, its attributes too.
    pub fn fsyncdir(&self, fh: u64, datasync: bool, done: Done<()>) {
        if is_content(fh) {
            match self.tree.contents.fsyncdir(fh, datasync) {
                Ok(None) => done(Ok(())),
                Ok(Some(_)) => self.tree.sync(done),
                Err(error) => done(Err(error)),
            }
        } else {
            self.tree.sync(done);
        }
    }
    /// Numbers of the backing file system.
    pub fn statfs(&self, _ino: Ino) -> Result<StatFs> {
        self.tree.contents.statfs()
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
        if is_content(ino) {
            self.tree.setxattr(caller, ino, name, value, flags, done);
        } else {
            done(Err(Error::NotSupported));
        }
    }
    /// An extended attribute's value.
    pub fn getxattr(&self, caller: &Caller, ino: Ino, name: &OsStr) -> Result<Vec<u8>> {
        if is_content(ino) { self.tree.getxattr(caller, ino, name) } else { Err(Error::NoAttribute) }
    }
    /// The names of extended attributes, each ended by NUL.
    pub fn listxattr(&self, caller: &Caller, ino: Ino) -> Result<Vec<u8>> {
        if is_content(ino) { self.tree.listxattr(caller, ino) } else { Ok(Vec::new()) }
    }
    /// Removes an extended attribute.
    pub fn removexattr(&self, caller: &Caller, ino: Ino, name: &OsStr, done: Done<()>) {
        if is_content(ino) {
            self.tree.removexattr(caller, ino, name, done);
        } else {
            done(Err(Error::NoAttribute));
        }
    }
    /// Allocates, punches; `mode` as of `fallocate`.
    pub fn fallocate(&self, fh: u64, offset: u64, length: u64, mode: i32) -> Result<()> {
        if is_content(fh) {
            self.tree.contents.fallocate(fh, offset, length, mode)
        } else {
            Err(Error::NotSupported)
        }
    }
    /// `SEEK_DATA` and `SEEK_HOLE`.
    pub fn lseek(&self, fh: u64, offset: i64, whence: i32) -> Result<i64> {
        if is_content(fh) {
            self.tree.contents.lseek(fh, offset, whence)
        } else {
            self.tree.lseek(fh, offset, whence)
        }
    }
    /// Copies between open files; gives the number of bytes.
    pub fn copy_file_range(&self, from: (u64, u64), to: (u64, u64), length: u64) -> Result<u32> {
        if is_content(from.0) && is_content(to.0) {
            self.tree.contents.copy_file_range(from, to, length)
        } else {
            // The kernel copies by reading and writing.
            Err(Error::CrossDevice)
        }
    }
}

/// Whether a node id or a handle is one of the contents.
fn is_content(number: u64) -> bool {
    number & CONTENT_BIT != 0
}
