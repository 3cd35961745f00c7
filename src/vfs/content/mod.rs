//! Contents of entries: nodes that are real files and directories, over [`crate::backing`].
//!
//! Directories have one node for each path they are found by ([`Root`]); other files have one node, shared by all paths.
//!
//! Locks, in this order, none held across I/O but a stream's own: a stream, the table of nodes, the slab of handles.

mod attrs;
mod files;
mod handles;
mod names;
mod nodes;
mod stream;

use std::collections::HashMap;
use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use self::handles::Handles;
use self::nodes::{Closing, FileId, Place, Start, Step, Table, Way, entry_of};
use super::{Attr, Caller, Entry, Error, Ino, Result, Signature, StatFs, Time};
pub use crate::backing::credentials::without_privileges;
use crate::backing::credentials::{self, Impersonation, Umask};
use crate::backing::{self, Backing, Stat, component};
use crate::name::Id;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// How long the kernel may keep names and attributes that others may change behind the mount.
const USUAL: Duration = Duration::from_secs(1);
/// In a large directory they are kept longer by so much for each byte of it, so that who lists it once more, or looks at what was
/// listed, need not ask for each name again: a name takes about 20 bytes, and up to 40 µs to look up: twice as long as that takes.
const FOR_EACH_BYTE: Duration = Duration::from_micros(4);
/// But not longer than this.
const LONGEST: Duration = Duration::from_secs(30);
/// How long the kernel may keep it at most that there is no file of a name: who waits for one does not wait long.
const ABSENCE: Duration = Duration::from_secs(1);

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
    /// How long the kernel may keep names and attributes, where it is said.
    pub attr_timeout: Option<Duration>,
}

/// The nodes and handles of contents. Ids and handles have [`super::CONTENT_BIT`] set.
#[derive(Debug)]
pub struct Contents {
    backing: Backing,
    options: Options,
    passthrough: AtomicBool,
    direct_writes: AtomicBool,
    table: Mutex<Table>,
    handles: Handles,
    /// What files looked like when they were locked last.
    locked: Mutex<HashMap<Ino, Signature>>,
    /// So many directory streams keep a descriptor.
    streams: usize,
    forget_names: OnceLock<ForgetNames>,
}

/// Makes the kernel ask again for every name that it keeps. Takes no lock that a request holds.
pub struct ForgetNames(pub Box<dyn Fn() + Send + Sync>);

impl std::fmt::Debug for ForgetNames {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ForgetNames")
    }
}

/// A thread acts as a caller until this is dropped: credentials, where the mount takes them on, and umask.
#[derive(Debug)]
pub struct ActAs {
    _umask: Option<Umask>,
    _who: Option<Impersonation>,
}

impl Contents {
    /// No nodes yet.
    pub fn new(backing: Backing, options: Options) -> Self {
        let passthrough = AtomicBool::new(options.passthrough);
        let table = Mutex::new(Table::new(descriptors()));
        Self {
            backing,
            options,
            passthrough,
            direct_writes: AtomicBool::new(false),
            table,
            handles: Handles::default(),
            locked: Mutex::default(),
            streams: backing::descriptor_limit() / 4,
            forget_names: OnceLock::new(),
        }
    }

    /// Whether the kernel can serve data from backing files, as it turned out.
    pub fn set_passthrough(&self, passthrough: bool) {
        self.passthrough.store(passthrough, Ordering::Relaxed);
    }

    /// Whether files that are only written had better not be kept by the kernel, as it turned out.
    pub fn set_direct_writes(&self, direct_writes: bool) {
        self.direct_writes.store(direct_writes, Ordering::Relaxed);
    }

    /// Number of nodes that the kernel knows.
    pub fn nodes(&self) -> usize {
        self.table().len()
    }

    /// Whether the kernel serves data from backing files.
    pub fn passthrough(&self) -> bool {
        self.passthrough.load(Ordering::Relaxed)
    }

    /// How the kernel is told to ask again for names; at most once.
    pub fn set_forget_names(&self, forget: ForgetNames) {
        // A second one is none.
        let _ = self.forget_names.set(forget);
    }

    /// Acts as the caller on this thread, for what is made outside contents (an entry's directory).
    pub fn act_as(&self, caller: &Caller, umask: u32) -> Result<ActAs> {
        Ok(ActAs { _umask: Some(credentials::umask(umask)), _who: self.take_on(caller)? })
    }

    /// The directory of an entry; raises its lookup count. If the entry has no directory yet, it is a node all the same, empty,
    /// owned by the cache directory's owner; the directory is made when something is first written there.
    pub fn root(&self, root: Root) -> Result<Entry> {
        let stat = self.stat_root(&root)?;
        let found = stat.map_or_else(|| self.stat_missing(), Ok)?;
        let mut closing = Closing::new();
        let (entry, newly_shared) = {
            let mut table = self.table();
            let before = table.roots_of(&root);
            let ino = table.enter_root(root, stat.as_ref().map(FileId::of), &mut closing);
            (self.entry(&mut table, ino, &found), before == 1 && table.is_shared(ino))
        };
        if newly_shared && let Some(forget) = self.forget_names.get() {
            // From now on names below are not kept, because they may change through the other path: nor those of before.
            (forget.0)();
        }
        Ok(entry)
    }

    /// What the directory of an entry looks like, as [`Self::root`] tells it, but for the id: nothing is counted.
    pub fn root_attr(&self, root: &Root) -> Result<Attr> {
        let stat = self.stat_root(root)?.map_or_else(|| self.stat_missing(), Ok)?;
        Ok(attr_of(0, &stat))
    }

    /// If the node is an entry's own directory: which.
    pub fn as_root(&self, ino: Ino) -> Option<Root> {
        match self.table().get(ino)? {
            node if node.gone => None,
            node => match &node.place {
                Place::Root(root) => Some(root.clone()),
                Place::Below(..) => None,
            },
        }
    }

    /// Drops what is kept of a root, and of other paths to it, after its entry was deleted or moved; further use of the nodes is
    /// ESTALE.
    pub fn gone(&self, root: &Root) {
        let mut closing = Closing::new();
        let mut table = self.table();
        for ino in table.roots_like(root) {
            table.mark_gone(ino, &mut closing);
        }
        drop(table);
    }

    /// As [`super::Vfs::lookup`]; so are the others below.
    pub fn lookup(&self, _caller: &Caller, parent: Ino, name: &OsStr) -> Result<Entry> {
        let directory = self.directory(parent)?.ok_or(Error::NotFound)?;
        self.enter(parent, directory.as_fd(), name)
    }

    /// How long the kernel may keep it that a name is not in this directory.
    pub fn absence_ttl(&self, parent: Ino) -> Duration {
        if self.table().is_shared(parent) { Duration::ZERO } else { self.ttl().min(ABSENCE) }
    }

    /// Lowers a lookup count.
    pub fn forget(&self, ino: Ino, count: u64) {
        let mut closing = Closing::new();
        let mut table = self.table();
        table.forget(ino, count, &mut closing);
        let shrunk = table.has_shrunk();
        drop(table);
        if shrunk {
            backing::give_back_memory();
        }
    }

    /// Attributes.
    pub fn getattr(&self, ino: Ino, fh: Option<u64>) -> Result<(Attr, Duration)> {
        let stat = match fh.and_then(|fh| self.handles.file(fh).ok()) {
            Some(file) => backing::stat(file.as_fd())?,
            None => self.stat_node(ino)?,
        };
        Ok(self.attributes(&mut self.table(), ino, &stat))
    }

    /// Target of a symbolic link.
    pub fn readlink(&self, ino: Ino) -> Result<Vec<u8>> {
        Ok(backing::read_link(self.descriptor(ino)?.as_fd())?)
    }

    /// Numbers of the backing file system.
    pub fn statfs(&self) -> Result<StatFs> {
        let raw = backing::statvfs(self.backing.cache())?;
        let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        Ok(StatFs {
            blocks: raw.f_blocks,
            bfree: raw.f_bfree,
            bavail: raw.f_bavail,
            files: raw.f_files,
            ffree: raw.f_ffree,
            bsize: small(raw.f_bsize),
            namelen: small(raw.f_namemax),
            frsize: small(raw.f_frsize),
        })
    }

    /// Number of nodes, and of descriptors that are kept for them.
    #[cfg(all(test, feature = "models"))]
    pub fn sizes(&self) -> (usize, usize) {
        self.table().sizes()
    }

    fn ttl(&self) -> Duration {
        self.options.attr_timeout.unwrap_or(USUAL)
    }

    /// How long the kernel may keep what a listing of a directory shows; a file system tells by the size of a directory, in bytes,
    /// about how much there is to list.
    fn listing_ttl(&self, size: u64) -> Duration {
        let more = || FOR_EACH_BYTE.saturating_mul(u32::try_from(size).unwrap_or(u32::MAX));
        self.options.attr_timeout.unwrap_or_else(|| LONGEST.min(USUAL + more()))
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn writable(&self) -> Result<()> {
        if self.options.read_only { Err(Error::ReadOnly) } else { Ok(()) }
    }

    /// Takes on the caller's credentials, where the mount does so.
    fn take_on(&self, caller: &Caller) -> Result<Option<Impersonation>> {
        if !self.options.impersonate {
            return Ok(None);
        }
        Ok(Some(credentials::impersonate(caller.uid, caller.gid, caller.pid)?))
    }

    /// The directory that holds an entry's directory.
    fn base(&self, root: &Root) -> io::Result<Base<'_>> {
        match root {
            Root::Entries(_) | Root::Alias(..) => Ok(Base::Cache(self.backing.cache())),
            Root::Trash(_) => self.backing.trash().map(Base::Trash),
        }
    }

    /// An entry's directory; none if there is no directory of that name.
    fn stat_root(&self, root: &Root) -> Result<Option<Stat>> {
        let base = match self.base(root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            base => base?,
        };
        match backing::stat_at(base.as_fd(), &root_name(root)?) {
            Ok(stat) if stat.is_directory() => Ok(Some(stat)),
            Ok(_) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// What an entry without a directory looks like: as the cache directory, empty.
    fn stat_missing(&self) -> Result<Stat> {
        let cache = backing::stat(self.backing.cache())?;
        Ok(Stat { nlink: 2, size: 0, blocks: 0, mode: libc::S_IFDIR | cache.mode & 0o777, ..cache })
    }

    fn stat_node(&self, ino: Ino) -> Result<Stat> {
        let (descriptor, place) = {
            let mut table = self.table();
            let descriptor = table.descriptor(ino);
            let node = table.get(ino).filter(|node| !node.gone).ok_or(Error::Stale)?;
            (descriptor, (node.place.clone(), node.file(), node.kind))
        };
        if let Some(descriptor) = descriptor {
            return Ok(backing::stat(descriptor.as_fd())?);
        }
        match place {
            // Files are asked for by name: a descriptor for each would drive out those of directories.
            (Place::Below(parent, name), Some(file), kind) if kind != libc::S_IFDIR => {
                let directory = self.directory(parent)?.ok_or(Error::Stale)?;
                let stat = backing::stat_at(directory.as_fd(), &component(&name)?).map_err(stale)?;
                if FileId::of(&stat) == file { Ok(stat) } else { Err(Error::Stale) }
            }
            (Place::Below(..), ..) => Ok(backing::stat(self.descriptor(ino)?.as_fd())?),
            (Place::Root(root), ..) => match self.stat_root(&root)? {
                Some(stat) => {
                    let mut closing = Closing::new();
                    self.table().set_root_file(ino, Some(FileId::of(&stat)), &mut closing);
                    Ok(stat)
                }
                None => self.stat_missing(),
            },
        }
    }

    /// A descriptor of a node, good for everything but data.
    fn descriptor(&self, ino: Ino) -> Result<Arc<OwnedFd>> {
        self.directory(ino)?.ok_or(Error::NotFound)
    }

    /// As [`Self::descriptor`]; none for an entry without a directory.
    fn directory(&self, ino: Ino) -> Result<Option<Arc<OwnedFd>>> {
        let way = self.table().way(ino);
        let (start, steps) = match way {
            Way::Held(descriptor) => return Ok(Some(descriptor)),
            Way::Gone => return Err(Error::Stale),
            Way::Through(start, steps) => (start, steps),
        };
        let mut at = match start {
            Start::Held(descriptor) => descriptor,
            Start::Root(ino, root) => match self.open_root(ino, &root)? {
                Some(descriptor) => descriptor,
                None if steps.is_empty() => return Ok(None),
                None => return Err(Error::Stale),
            },
        };
        for step in steps {
            at = self.open_step(at.as_fd(), &step)?;
        }
        Ok(Some(at))
    }

    /// An entry's directory; none if there is no directory of that name.
    fn open_directory(&self, root: &Root) -> Result<Option<OwnedFd>> {
        let missing = |error: &io::Error| {
            matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP))
        };
        let opened = self.base(root).and_then(|base| {
            let name = root_name(root)?;
            backing::open_at(base.as_fd(), &name, libc::O_PATH | libc::O_DIRECTORY)
        });
        match opened {
            Ok(fd) => Ok(Some(fd)),
            Err(error) if missing(&error) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn open_root(&self, ino: Ino, root: &Root) -> Result<Option<Arc<OwnedFd>>> {
        let Some(fd) = self.open_directory(root)?.map(Arc::new) else { return Ok(None) };
        let file = FileId::of(&backing::stat(fd.as_fd())?);
        let mut closing = Closing::new();
        let mut table = self.table();
        table.set_root_file(ino, Some(file), &mut closing);
        table.keep(ino, &fd, &mut closing);
        drop(table);
        Ok(Some(fd))
    }

    fn open_step(&self, parent: BorrowedFd<'_>, step: &Step) -> Result<Arc<OwnedFd>> {
        let fd = Arc::new(backing::open_at(parent, &step.name, libc::O_PATH).map_err(stale)?);
        if FileId::of(&backing::stat(fd.as_fd())?) != step.file {
            return Err(Error::Stale);
        }
        let mut closing = Closing::new();
        self.table().keep(step.ino, &fd, &mut closing);
        Ok(fd)
    }

    /// Looks a name up in a directory.
    fn enter(&self, parent: Ino, directory: BorrowedFd<'_>, name: &OsStr) -> Result<Entry> {
        let stat = backing::stat_at(directory, &component(name)?)?;
        self.enter_stat(parent, name, &stat)
    }

    fn enter_stat(&self, parent: Ino, name: &OsStr, stat: &Stat) -> Result<Entry> {
        let mut closing = Closing::new();
        let mut table = self.table();
        let ino = table.enter(parent, name, stat, &mut closing).ok_or(Error::Stale)?;
        let mut entry = self.entry(&mut table, ino, stat);
        if table.is_shared(parent) {
            entry.entry_ttl = Duration::ZERO;
        }
        Ok(entry)
    }

    fn entry(&self, table: &mut Table, ino: Ino, stat: &Stat) -> Entry {
        let (attr, attr_ttl) = self.attributes(table, ino, stat);
        Entry { attr, entry_ttl: self.ttl(), attr_ttl }
    }

    /// Attributes for the kernel, and how long it may keep them: not at all for a directory that is seen through two paths,
    /// because a change through one of them would not show in the other.
    fn attributes(&self, table: &mut Table, ino: Ino, stat: &Stat) -> (Attr, Duration) {
        if let Some(node) = table.get_mut(ino) {
            node.told = Some(Signature::of(stat));
        }
        let shared = stat.is_directory() && table.is_shared(ino);
        let ttl = if shared { Duration::ZERO } else { self.ttl() };
        (attr_of(ino, stat), ttl)
    }
}

/// The directory that holds an entry's directory.
enum Base<'b> {
    Cache(BorrowedFd<'b>),
    Trash(OwnedFd),
}

impl AsFd for Base<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Cache(fd) => *fd,
            Self::Trash(fd) => fd.as_fd(),
        }
    }
}

fn root_name(root: &Root) -> io::Result<CString> {
    component(OsStr::new(entry_of(root).as_str()))
}

/// A node that is not where it was found is stale: the kernel looks its name up again.
fn stale(error: io::Error) -> Error {
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP) => Error::Stale,
        _ => Error::Io(error),
    }
}

/// A C string from bytes that may hold no NUL.
fn c_string(text: &OsStr) -> Result<CString> {
    use std::os::unix::ffi::OsStrExt;
    CString::new(text.as_bytes()).map_err(|_| Error::Invalid)
}

fn time(time: backing::StatTime) -> Time {
    Time { sec: time.sec, nsec: time.nsec }
}

fn attr_of(ino: Ino, stat: &Stat) -> Attr {
    let (major, minor) = stat.rdev;
    Attr {
        ino,
        size: stat.size,
        blocks: stat.blocks,
        atime: time(stat.atime),
        mtime: time(stat.mtime),
        ctime: time(stat.ctime),
        mode: stat.mode,
        nlink: stat.nlink,
        uid: stat.uid,
        gid: stat.gid,
        rdev: minor & 0xff | major << 8 | (minor & !0xff) << 12,
        blksize: stat.blksize,
    }
}

/// How many descriptors the ring may keep: a part of what the process may open.
fn descriptors() -> usize {
    (backing::descriptor_limit() / 4).clamp(32, 4096)
}

#[cfg(test)]
#[cfg(not(feature = "models"))]
mod tests;
