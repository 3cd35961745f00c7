//! The log of a cache: `_entries`, its lock, recovery, compaction and following. Knows no index.
//!
//! # Order of locks
//!
//! The gate of the process with the flock on `_lock`, then the position. The descriptor of the current generation has a
//! lock of its own, held for an instant, so that [`Store::sync`] waits for nobody.

mod append;
mod compact;
mod digest;
#[cfg(test)]
#[path = "tests/faults.rs"]
pub(crate) mod faults;
mod fence;
mod holder;
mod kept;
mod lock;
mod log;
mod recover;
mod repair;
mod seal;
#[cfg(all(test, feature = "models"))]
#[path = "tests/steps.rs"]
pub(crate) mod steps;
mod sys;
#[cfg(test)]
#[cfg(not(feature = "models"))]
mod tests;
mod watch;

use std::ffi::{CStr, c_int};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::record::{Dialect, Locator, RECORD_MAX};
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Arc, Mutex, MutexGuard, PoisonError};
pub use append::Landed;
pub use holder::Holder;
pub use kept::{Directory, KeptReader, KeptWriter};
pub use lock::Locked;
pub use repair::Repaired;
pub use seal::{Seal, Still};

use log::Position;
use watch::Watch;

/// Name of the log in the cache directory.
const LOG: &CStr = c"_entries";
/// Name of the lock.
const LOCK: &CStr = c"_lock";
/// How the names of temporary files begin, which become the log by a rename.
const TEMPORARY: &str = "_entries.tmp-";
/// How the names of set-aside damage begin.
const TORN: &str = "_torn-";
/// How the names of backup copies begin.
const BACKUP: &str = "_backup-";
/// Longest line that is read into memory.
const LINE_MAX: u64 = 4 * RECORD_MAX as u64;
/// How much is read or written at a time.
pub const CHUNK: usize = 1 << 20;
/// How often something that moves under our feet (ESTALE, a replaced lock) is tried again.
const TRIES: u32 = 8;

/// How a store is opened.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Take no lock and write nothing, anywhere in the cache.
    pub read_only: bool,
    /// Make every append durable before it is acknowledged.
    pub sync: bool,
}

/// A cache directory's log.
#[derive(Debug)]
pub struct Store {
    sys: Arc<dyn sys::Sys>,
    dir: File,
    path: PathBuf,
    options: Options,
    /// On a file system of this machine alone.
    local: bool,
    suspicion: fence::Suspicion,
    /// First lock: the gate of this process, with the descriptor that is flocked.
    gate: Mutex<Option<lock::LockFile>>,
    /// Second lock: what was read of the log.
    position: Mutex<Position>,
    /// Innermost lock: the generation to sync.
    current: Mutex<Option<Arc<Generation>>>,
    /// End of what was read and appended, for those who do not want to wait for the position.
    bytes: AtomicU64,
    dialect: Mutex<Option<Dialect>>,
    poisoned: AtomicBool,
    abandoned: AtomicBool,
    watch: Watch,
}

/// One generation of the log: an open `_entries`. Records stay readable through it after the log was replaced.
#[derive(Debug)]
pub struct Generation {
    sys: Arc<dyn sys::Sys>,
    id: sys::FileId,
    /// `None`: there was no log.
    file: Option<Arc<File>>,
}

/// Takes lines of the log.
pub trait Sink {
    /// The log is another one than before: forget every line. Its lines follow.
    fn replaced(&mut self, generation: &Arc<Generation>);
    /// The next whole line, without its `\n`, and where it stands.
    fn line(&mut self, at: Locator, line: &[u8]);
    /// The next whole lines. Gives a buffer for those that follow: the same one, or another if it is kept.
    fn lines(&mut self, lines: Lines) -> Vec<u8> {
        lines.each(|at, line| self.line(at, line));
        lines.into_buffer()
    }
    /// A line, or the next part of one, that is too long to be a record or to be held in memory. Parts of one line adjoin.
    fn oversized(&mut self, at: Locator);
}

/// Whole lines of the log, each with its `\n`, in the buffer into which they were read.
#[derive(Debug)]
pub struct Lines {
    buffer: Vec<u8>,
    within: Range<usize>,
    offset: u64,
}

impl Lines {
    /// One line, without its `\n`, and where it stands.
    pub fn one(at: Locator, line: &[u8]) -> Self {
        let buffer = [line, b"\n"].concat();
        Self { within: 0..buffer.len(), buffer, offset: at.offset }
    }

    /// Where the first one begins.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The lines.
    pub fn bytes(&self) -> &[u8] {
        self.buffer.get(self.within.clone()).unwrap_or_default()
    }

    /// The buffer, for others.
    pub fn into_buffer(self) -> Vec<u8> {
        self.buffer
    }

    /// Gives each line, without its `\n`, and where it stands.
    pub fn each(&self, mut each: impl FnMut(Locator, &[u8])) {
        let bytes = self.bytes();
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', bytes) {
            let line = bytes.get(start..end).unwrap_or_default();
            let len = u32::try_from(line.len()).unwrap_or(u32::MAX);
            each(Locator { offset: self.offset + start as u64, len }, line);
            start = end + 1;
        }
    }
}

/// What went wrong with a store; each variant says what was being done, and keeps the OS error.
#[derive(Debug)]
pub enum StoreError {
    /// A system call failed.
    Io {
        /// What was being done to what.
        doing: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The file system supports no flock.
    NoLock(io::Error),
    /// The store is read-only.
    ReadOnly,
    /// A sync of a local file system failed earlier: the store refuses writes until it has been reopened.
    Poisoned,
    /// The cache is not a directory, or its log or lock is no regular file.
    NotACache(&'static str),
}

impl std::fmt::Display for StoreError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io { doing, source } => write!(f, "{doing}: {source}"),
            Self::NoLock(source) => write!(
                f,
                "the file system of the cache does not support flock, without which writers would overwrite each other \
                 (on Lustre: mount it with the option `flock`): {source}"
            ),
            Self::ReadOnly => f.write_str("the cache was opened read-only"),
            Self::Poisoned => f.write_str(
                "a sync of the log failed earlier: nothing more is written until the cache is mounted anew",
            ),
            Self::NotACache(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } | Self::NoLock(source) => Some(source),
            Self::ReadOnly | Self::Poisoned | Self::NotACache(_) => None,
        }
    }
}

impl StoreError {
    /// The system call's error number, if one failed.
    pub fn raw_os_error(&self) -> Option<i32> {
        match self {
            Self::Io { source, .. } | Self::NoLock(source) => source.raw_os_error(),
            Self::ReadOnly | Self::Poisoned | Self::NotACache(_) => None,
        }
    }

    /// For `map_err`.
    fn io(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { doing, source }
    }

    /// Whether the file moved under our feet, and looking again may help.
    fn is_stale(&self) -> bool {
        self.raw_os_error() == Some(libc::ESTALE)
    }
}

/// What a step of following found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Followed {
    /// Number of lines given to the sink.
    pub lines: u64,
    /// Whether the log was another one.
    pub replaced: bool,
}

/// Locks a mutex whose data are whole even if a thread that held it panicked.
fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Store {
    /// Opens a cache directory. Reads nothing yet: the first [`Store::follow`] or [`Locked::catch_up`] gives every line, after a
    /// [`Sink::replaced`]. A missing `_entries` is an empty log. Unless it is read-only, it is made sure that the file
    /// system supports flock.
    pub fn open(cache: &Path, options: &Options) -> Result<Self, StoreError> {
        Self::open_with(Arc::new(sys::Real), cache, options)
    }

    /// As [`Store::open`], with these file operations.
    pub(crate) fn open_with(
        sys: Arc<dyn sys::Sys>,
        cache: &Path,
        options: &Options,
    ) -> Result<Self, StoreError> {
        use std::os::unix::fs::OpenOptionsExt as _;
        let path = std::fs::canonicalize(cache).map_err(StoreError::io("opening the cache directory"))?;
        let dir =
            std::fs::OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(&path).map_err(
                |source| match source.raw_os_error() {
                    Some(libc::ENOTDIR) => StoreError::NotACache("the cache is not a directory"),
                    _ => StoreError::Io { doing: "opening the cache directory", source },
                },
            )?;
        let store = Self {
            local: sys::is_local(dir.as_fd()),
            suspicion: fence::Suspicion::default(),
            watch: Watch::new(),
            sys,
            dir,
            path,
            options: options.clone(),
            gate: Mutex::default(),
            position: Mutex::default(),
            current: Mutex::default(),
            bytes: AtomicU64::new(0),
            dialect: Mutex::default(),
            poisoned: AtomicBool::new(false),
            abandoned: AtomicBool::new(false),
        };
        match store.sys.stat(store.dir(), LOG) {
            Ok(stat) if !stat.is_file() => return Err(StoreError::NotACache(NO_LOG)),
            Err(e) if e.raw_os_error() != Some(libc::ENOENT) => {
                return Err(StoreError::Io { doing: "looking at the log", source: e });
            }
            _ => {}
        }
        if !options.read_only {
            store.probe_lock()?;
        }
        Ok(store)
    }

    /// The cache directory.
    pub fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// The cache's canonical absolute path, as it was at the opening.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The dialect to append in.
    pub fn dialect(&self) -> Dialect {
        hold(&self.dialect).unwrap_or_default()
    }

    /// Bytes of the log that were given to sinks or appended.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether a sync failed: writes are refused.
    pub fn is_poisoned(&self) -> bool {
        self.poisoned.load(Ordering::Acquire)
    }

    /// Whether an append is durable when it returns.
    pub fn syncs_appends(&self) -> bool {
        self.options.sync || !self.local
    }

    /// Waits until the log may have changed: inotify says so, [`Store::wake`] was called, or `timeout` has passed.
    pub fn wait(&self, timeout: Duration) {
        self.watch.wait(self.dir(), timeout);
    }

    /// Ends a [`Store::wait`] of another thread.
    pub fn wake(&self) {
        self.watch.wake();
    }

    /// Makes everything appended durable, without the lock. A failure poisons the store.
    pub fn sync(&self) -> Result<(), StoreError> {
        if self.options.read_only {
            return Ok(());
        }
        if self.is_poisoned() {
            return Err(StoreError::Poisoned);
        }
        let generation = hold(&self.current).clone();
        let Some(file) = generation.as_ref().and_then(|generation| generation.file.as_ref()) else {
            return Ok(());
        };
        sys::retry(|| self.sys.sync_data(file)).map_err(|source| self.poison("syncing the log", source))
    }

    /// Refuses writes from now on: the kernel may have dropped dirty pages, and a second sync would hide it. Not so elsewhere than
    /// on a local file system: there everything acknowledged was synced, and what is opened anew is what the servers have.
    fn poison(&self, doing: &'static str, source: io::Error) -> StoreError {
        if !self.local {
            return StoreError::Io { doing, source };
        }
        ::log::error!("{doing}: {source}; nothing more is written until the cache is mounted anew");
        self.poisoned.store(true, Ordering::Release);
        StoreError::Io { doing, source }
    }

    /// Opens a regular file of the cache; `what` says that it is none.
    fn open_regular(
        &self,
        name: &CStr,
        flags: c_int,
        doing: &'static str,
        what: &'static str,
    ) -> Result<(File, sys::Stat), StoreError> {
        let file = sys::retry(|| self.sys.open(self.dir(), name, flags, 0o666)).map_err(|source| {
            match source.raw_os_error() {
                // A symbolic link, a directory, a socket or a fifo without a reader.
                Some(libc::ELOOP | libc::EISDIR | libc::ENXIO) => StoreError::NotACache(what),
                _ => StoreError::Io { doing, source },
            }
        })?;
        let stat = sys::retry(|| self.sys.stat_file(&file)).map_err(StoreError::io(doing))?;
        if stat.is_file() { Ok((file, stat)) } else { Err(StoreError::NotACache(what)) }
    }

    /// Makes a file of the cache that does not exist, `EEXIST` if it does. Who may write the cache directory may write it.
    fn create(&self, name: &CStr, doing: &'static str) -> Result<File, StoreError> {
        let flags = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL;
        let file =
            sys::retry(|| self.sys.open(self.dir(), name, flags, 0o666)).map_err(StoreError::io(doing))?;
        if let Err(source) = self.share(&file) {
            let _ = self.sys.unlink(self.dir(), name);
            return Err(StoreError::Io { doing, source });
        }
        Ok(file)
    }

    /// Gives a new file to those whose cache it is.
    fn share(&self, file: &File) -> io::Result<()> {
        let dir = sys::retry(|| self.sys.stat_file(&self.dir))?;
        // SAFETY: geteuid has no preconditions.
        let root = unsafe { libc::geteuid() } == 0;
        if root && dir.uid != 0 {
            sys::retry(|| self.sys.set_owner(file, dir.uid, dir.gid))?;
        }
        if dir.mode & 0o022 != 0 {
            // The umask took away what others need who may write here too.
            sys::retry(|| self.sys.set_mode(file, dir.mode & 0o666))?;
        }
        Ok(())
    }
}

/// What is said if `_entries` is something else.
const NO_LOG: &str = "_entries in the cache is not a regular file";
/// What is said if `_lock` is something else.
const NO_LOCK_FILE: &str = "_lock in the cache is not a regular file";

impl Generation {
    /// Bytes of the log, by now.
    pub fn size(&self) -> io::Result<u64> {
        self.file.as_ref().map_or(Ok(0), |file| Ok(sys::retry(|| self.sys.stat_file(file))?.size))
    }

    /// Reads a record. An error of kind `UnexpectedEof` means that somebody cut the log.
    pub fn read(&self, at: Locator) -> io::Result<Vec<u8>> {
        let Some(file) = &self.file else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        let len = usize::try_from(at.len).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let mut buf = vec![0; len];
        let mut done = sys::read_full(&*self.sys, file, &mut buf, at.offset)?;
        if done < len {
            // A network file system may believe in an old size: ask it, and read once more.
            sys::retry(|| self.sys.stat_file(file))?;
            done = sys::read_full(&*self.sys, file, &mut buf, at.offset)?;
        }
        if done < len { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(buf) }
    }
}
