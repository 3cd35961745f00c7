//! Open files and directory streams.

use crate::sync::atomic::Ordering;
use crate::sync::{Arc, MutexGuard, PoisonError};
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, SystemTime};

use super::handles::{Fresh, OpenDirectory, OpenFile};
use super::nodes::{Closing, FileId, Place, file_ino};
use super::stream::{RawEntry, Stream};
use super::{Contents, Root, attr_of, stale};
use crate::backing::{self, Stat, component, credentials};
use crate::vfs::{Attr, Caller, DirEntry, Entry, Error, Ino, Opened, ROOT, Result, Signature, Stale};

/// What of the flags of an `open` means something for the descriptor underneath. `O_DIRECT` is the kernel's business: the
/// daemon's buffers are not aligned.
pub(super) const OPEN_FLAGS: i32 =
    libc::O_ACCMODE | libc::O_APPEND | libc::O_TRUNC | libc::O_SYNC | libc::O_NOATIME;
/// Set by the kernel in an open for execution.
const FMODE_EXEC: i32 = 0x20;
/// A file that was changed longer ago than this has another time after the next change, on any file system that counts
/// time in ticks of the kernel.
const SETTLED: Duration = Duration::from_millis(50);

/// What an opened file is, compared with what the kernel knows.
#[derive(Debug, Default)]
struct Found {
    /// The kernel may keep what it has read: nothing was changed since.
    keep_cache: bool,
    /// What it looks like, if the kernel is told to forget what it has read.
    fresh: Option<Signature>,
    /// The attributes that the kernel was told are old.
    stale_attr: bool,
}

impl Contents {
    /// Opens a file.
    pub fn open(&self, caller: &Caller, ino: Ino, flags: i32) -> Result<Opened> {
        if flags & (libc::O_ACCMODE | libc::O_TRUNC) != libc::O_RDONLY {
            self.writable()?;
        }
        if self.table().get(ino).is_some_and(|node| node.kind != libc::S_IFREG) {
            // The kernel opens devices and pipes itself; whatever asks for this would hang.
            return Err(Error::NotSupported);
        }
        if flags & (libc::O_ACCMODE | libc::O_TRUNC) == libc::O_RDONLY | libc::O_TRUNC
            && self.is_executed(ino)
        {
            // For the other ways of writing the kernel sees to it before it asks; here it would look when all is lost.
            return Err(Error::Io(io::Error::from_raw_os_error(libc::ETXTBSY)));
        }
        let wanted = flags & OPEN_FLAGS | libc::O_NONBLOCK | libc::O_NOCTTY;
        let (fd, stat) = match self.open_by_name(caller, ino, wanted)? {
            Some(found) => found,
            None => self.open_held(caller, ino, wanted, flags & FMODE_EXEC != 0)?,
        };
        Ok(self.add_file(ino, fd, flags, &stat))
    }

    /// Opens a node by its last name: a name that others have given to another file, or removed, is stale, whatever is still held
    /// of the old one. None if that is not the way.
    fn open_by_name(&self, caller: &Caller, ino: Ino, flags: i32) -> Result<Option<(OwnedFd, Stat)>> {
        let (parent, name, file) = {
            let table = self.table();
            match table.get(ino).map(|node| (&node.place, node.file())) {
                Some((Place::Below(parent, name), Some(file))) if !table.is_nameless(ino) => {
                    (*parent, component(name)?, file)
                }
                Some(_) => return Ok(None),
                None => return Err(Error::Stale),
            }
        };
        let directory = self.directory(parent)?.ok_or(Error::Stale)?;
        if flags & libc::O_TRUNC != 0 {
            // What is truncated must be known to be the right file before.
            let found = backing::stat_at(directory.as_fd(), &name).map_err(stale)?;
            return if FileId::of(&found) == file { Ok(None) } else { Err(Error::Stale) };
        }
        let opened = {
            let _caller = self.take_on(caller)?;
            backing::open_at(directory.as_fd(), &name, flags)
        };
        let fd = match opened {
            // Who holds a file needs no way to it.
            Err(error) if error.raw_os_error() == Some(libc::EACCES) => return Ok(None),
            opened => opened.map_err(stale)?,
        };
        let stat = backing::stat(fd.as_fd())?;
        if FileId::of(&stat) == file { Ok(Some((fd, stat))) } else { Err(Error::Stale) }
    }

    fn open_held(&self, caller: &Caller, ino: Ino, flags: i32, execute: bool) -> Result<(OwnedFd, Stat)> {
        let held = self.descriptor(ino)?;
        let opened = {
            let _caller = self.take_on(caller)?;
            match backing::reopen(held.as_fd(), flags) {
                // A program may be run by who may not read it.
                Err(error) if error.raw_os_error() == Some(libc::EACCES) && execute => {
                    backing::access(held.as_fd(), libc::X_OK)?;
                    None
                }
                opened => Some(opened?),
            }
        };
        let fd = opened.map_or_else(|| backing::reopen(held.as_fd(), flags), Ok)?;
        let stat = backing::stat(fd.as_fd())?;
        Ok((fd, stat))
    }

    /// Whether a program runs from this file.
    fn is_executed(&self, ino: Ino) -> bool {
        let open = self.table().open_handles(ino);
        open.into_iter().any(|fh| self.handles.file(fh).is_ok_and(|file| file.executed))
    }

    pub(super) fn add_file(&self, ino: Ino, fd: OwnedFd, flags: i32, stat: &Stat) -> Opened {
        let fd = Arc::new(fd);
        let passthrough = self.passthrough();
        let writable = flags & libc::O_ACCMODE != libc::O_RDONLY;
        let executed = flags & FMODE_EXEC != 0;
        let found = self.note_open(ino, stat);
        let file = OpenFile { ino, fd: Arc::clone(&fd), writable, executed, fresh: Fresh::new(found.fresh) };
        let fh = self.handles.insert_file(file);
        let mut table = self.table();
        table.opened(ino, fh, Arc::clone(&fd));
        drop(table);
        Opened {
            fh,
            keep_cache: found.keep_cache,
            no_flush: self.backing.is_local() && is_seldom_locked(flags),
            backing: passthrough.then_some(fd),
            // Who only writes has no use for pages of the kernel's between it and the daemon.
            direct_io: !passthrough
                && flags & libc::O_ACCMODE == libc::O_WRONLY
                && self.direct_writes.load(Ordering::Relaxed),
            stale_attr: found.stale_attr,
            ..Opened::default()
        }
    }

    /// Compares a file that is opened with what the kernel knows of it.
    fn note_open(&self, ino: Ino, stat: &Stat) -> Found {
        let now = Signature::of(stat);
        let settled = is_settled(stat);
        let mut table = self.table();
        let Some(node) = table.get_mut(ino) else { return Found::default() };
        let keep_cache = node.opened == Some(now);
        if !settled {
            node.opened = None;
        }
        Found {
            keep_cache,
            fresh: (settled && !keep_cache).then_some(now),
            stale_attr: node.told.is_some_and(|told| told != now),
        }
    }

    /// The kernel has had the answer to an open, and has forgotten what was older: from here on, others may keep what it reads.
    fn answered(&self, ino: Ino, fresh: &Fresh) {
        if let Some(seen) = fresh.take()
            && let Some(node) = self.table().get_mut(ino)
        {
            node.opened = Some(seen);
        }
    }

    /// A program got a lock on a file: what others have written until then, with locks of their own, it must see.
    pub fn locked(&self, ino: Ino, file: BorrowedFd<'_>) -> Stale {
        let Ok(stat) = backing::stat(file) else { return Stale { attr: true, data: true, seen: None } };
        let now = Signature::of(&stat);
        let attr = self.table().get(ino).is_some_and(|node| node.told.is_some_and(|told| told != now));
        if self.passthrough() {
            return Stale { attr, ..Stale::default() };
        }
        let mut known = self.known_locked();
        let settled = is_settled(&stat);
        let data = known.get(&ino) != Some(&now);
        if !settled {
            known.remove(&ino);
        }
        Stale { attr, data, seen: (data && settled).then_some(now) }
    }

    /// The kernel has forgotten the data of a file, after it looked like this. Not before: who gets a lock meanwhile must not take
    /// it for forgotten.
    pub fn forgotten(&self, ino: Ino, seen: Signature) {
        /// Files of which is kept what they looked like.
        const REMEMBERED: usize = 1 << 16;
        let mut known = self.known_locked();
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(ino, seen);
    }

    fn known_locked(&self) -> MutexGuard<'_, HashMap<Ino, Signature>> {
        self.locked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads.
    pub fn read(&self, fh: u64, offset: u64, size: u32) -> Result<Vec<u8>> {
        let file = self.handles.file(fh)?;
        self.answered(file.ino, &file.fresh);
        Ok(backing::read_at(file.as_fd(), offset, usize::try_from(size).map_err(|_| Error::Invalid)?)?)
    }

    /// Writes.
    pub fn write(&self, fh: u64, offset: u64, data: &[u8], kill_suid: bool) -> Result<u32> {
        let file = self.handles.file(fh)?;
        let _ordinary = if kill_suid { credentials::without_privileges() } else { None };
        let written = backing::write_at(file.as_fd(), offset, data)?;
        u32::try_from(written).map_err(|_| Error::Invalid)
    }

    /// The descriptor of a handle.
    pub fn descriptor_of(&self, fh: u64) -> Result<Arc<OwnedFd>> {
        Ok(Arc::clone(&self.handles.file(fh)?.fd))
    }

    /// A descriptor was closed.
    pub fn flush(&self, fh: u64) -> Result<()> {
        let file = self.handles.file(fh)?;
        if !self.backing.is_local() {
            backing::close_duplicate(file.as_fd())?;
        }
        Ok(())
    }

    /// The last one was.
    pub fn release(&self, fh: u64) {
        if let Some(file) = self.handles.remove_file(fh) {
            self.answered(file.ino, &file.fresh);
            let mut closing = Closing::new();
            self.table().closed(file.ino, fh, &mut closing);
        }
    }

    /// Makes a file durable.
    pub fn fsync(&self, fh: u64, datasync: bool) -> Result<()> {
        Ok(backing::sync(self.handles.file(fh)?.as_fd(), datasync)?)
    }

    /// Allocates, punches.
    pub fn fallocate(&self, fh: u64, offset: u64, length: u64, mode: i32) -> Result<()> {
        Ok(backing::fallocate(self.handles.file(fh)?.as_fd(), mode, offset, length)?)
    }

    /// `SEEK_DATA`, `SEEK_HOLE`.
    pub fn lseek(&self, fh: u64, offset: i64, whence: i32) -> Result<i64> {
        Ok(backing::seek(self.handles.file(fh)?.as_fd(), offset, whence)?)
    }

    /// Copies between open files.
    pub fn copy_file_range(&self, from: (u64, u64), to: (u64, u64), length: u64) -> Result<u32> {
        /// More would not fit in the answer.
        const MOST: u64 = 1 << 30;
        let (source, target) = (self.handles.file(from.0)?, self.handles.file(to.0)?);
        let length = usize::try_from(length.min(MOST)).map_err(|_| Error::Invalid)?;
        let copied = backing::copy_file_range((source.as_fd(), from.1), (target.as_fd(), to.1), length)?;
        u32::try_from(copied).map_err(|_| Error::Invalid)
    }

    /// Opens a stream: a snapshot, or the file system's own.
    pub fn opendir(&self, _caller: &Caller, ino: Ino) -> Result<Opened> {
        let directory = self.directory(ino)?;
        let transient = self.handles.directories() >= self.streams;
        let stat = directory.as_ref().map(|fd| backing::stat(fd.as_fd())).transpose()?;
        let found = stat.map_or_else(Found::default, |stat| self.note_open(ino, &stat));
        let ttl = self.listing_ttl(stat.map_or(0, |stat| stat.size));
        let cache_dir = directory.is_some() && !self.table().is_shared(ino);
        let fd = match directory.filter(|_| !transient) {
            Some(directory) => Some(backing::open_directory_stream(directory.as_fd())?),
            None => None,
        };
        let stream = OpenDirectory::new(ino, Stream::new(fd), transient, ttl, Fresh::new(found.fresh));
        let fh = self.handles.insert_directory(stream);
        Ok(Opened { fh, cache_dir, keep_cache: found.keep_cache && cache_dir, ..Opened::default() })
    }

    /// Does something with a stream.
    fn with_stream<T>(
        &self,
        directory: &OpenDirectory,
        action: impl FnOnce(&mut Stream) -> io::Result<T>,
    ) -> Result<T> {
        let mut stream = directory.stream();
        if !directory.transient {
            return Ok(action(&mut stream)?);
        }
        let found = self.directory(directory.ino)?;
        stream.set(found.map(|found| backing::open_directory_stream(found.as_fd())).transpose()?);
        let result = action(&mut stream);
        stream.set(None);
        Ok(result?)
    }

    /// Names after a position.
    pub fn readdir(&self, fh: u64, cookie: u64, add: &mut dyn FnMut(&DirEntry) -> bool) -> Result<()> {
        let directory = self.handles.directory(fh)?;
        self.read_stream(&directory, cookie, &mut |_, entry| add(&entry))
    }

    /// Names after a position, looked up.
    pub fn readdirplus(
        &self,
        _caller: &Caller,
        fh: u64,
        cookie: u64,
        add: &mut dyn FnMut(&DirEntry, &Entry) -> bool,
    ) -> Result<()> {
        let directory = self.handles.directory(fh)?;
        self.read_stream(&directory, cookie, &mut |fd, mut name| {
            if name.name == "." || name.name == ".." {
                // The kernel takes nothing of these but the names.
                let attr = Attr {
                    ino: name.ino,
                    ..attr_of(name.ino, &Stat { mode: libc::S_IFDIR, ..Stat::default() })
                };
                return add(&name, &Entry { attr, entry_ttl: Duration::ZERO, attr_ttl: Duration::ZERO });
            }
            let found = fd.ok_or(Error::NotFound).and_then(|fd| self.enter(directory.ino, fd, &name.name));
            // A name that was removed in between is left out.
            let Ok(mut entry) = found else { return true };
            for kept in [&mut entry.entry_ttl, &mut entry.attr_ttl] {
                // But for what is not kept at all.
                if !kept.is_zero() {
                    *kept = directory.ttl;
                }
            }
            name.ino = entry.attr.ino;
            name.kind = entry.attr.mode & libc::S_IFMT;
            let taken = add(&name, &entry);
            if !taken {
                self.forget(entry.attr.ino, 1);
            }
            taken
        })
    }

    fn read_stream(
        &self,
        directory: &OpenDirectory,
        cookie: u64,
        add: &mut dyn FnMut(Option<BorrowedFd<'_>>, DirEntry) -> bool,
    ) -> Result<()> {
        self.answered(directory.ino, &directory.fresh);
        let (view, parent, dev) = {
            let table = self.table();
            let node = table.get(directory.ino).ok_or(Error::Stale)?;
            let parent = match node.place {
                Place::Root(_) => ROOT,
                Place::Below(parent, _) => parent,
            };
            (node.view, parent, node.file().map_or(0, |file| file.dev))
        };
        let each = &mut |fd: Option<BorrowedFd<'_>>, mut raw: RawEntry<'_>| {
            if let Some(fd) = fd.filter(|_| raw.kind == 0)
                && let Ok(stat) = component(raw.name).and_then(|name| backing::stat_at(fd, &name))
            {
                // A file system that keeps no types in its directories.
                raw.kind = stat.mode & libc::S_IFMT;
            }
            let ino = match raw.name {
                name if name == "." => directory.ino,
                name if name == ".." => parent,
                _ => file_ino(if raw.kind == libc::S_IFDIR { view } else { 0 }, dev, raw.ino),
            };
            add(fd, DirEntry { ino, cookie: raw.cookie, kind: raw.kind, name: raw.name.to_owned() })
        };
        self.with_stream(directory, |stream| stream.read(cookie, each))
    }

    /// Closes a stream.
    pub fn releasedir(&self, fh: u64) {
        if let Some(directory) = self.handles.remove_directory(fh) {
            self.answered(directory.ino, &directory.fresh);
        }
    }

    /// Makes a directory durable. Gives the root, if it is an entry's own directory.
    pub fn fsyncdir(&self, fh: u64, datasync: bool) -> Result<Option<Root>> {
        let directory = self.handles.directory(fh)?;
        self.with_stream(&directory, |stream| stream.fd().map_or(Ok(()), |fd| backing::sync(fd, datasync)))?;
        Ok(self.as_root(directory.ino))
    }
}

/// Whether a file that is opened so is seldom one that programs lock: the kernel need not tell of each descriptor that is
/// closed then. If it is locked all the same, locks of `fcntl` go with the last descriptor.
fn is_seldom_locked(flags: i32) -> bool {
    let reading = flags & libc::O_ACCMODE == libc::O_RDONLY;
    let made_to_be_filled = flags & libc::O_CREAT != 0 && flags & (libc::O_EXCL | libc::O_TRUNC) != 0;
    reading || made_to_be_filled
}

/// Whether a change after now would give the file another time than it has.
pub(super) fn is_settled(stat: &Stat) -> bool {
    let Ok(now) = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) else { return false };
    let changed =
        u64::try_from(stat.ctime.sec).map(|sec| Duration::new(sec, stat.ctime.nsec)).unwrap_or_default();
    now.saturating_sub(changed) > SETTLED
}
