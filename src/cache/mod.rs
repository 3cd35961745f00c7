//! Store and index of one cache, published together: reading, group commit, following, compaction when it is due.
//!
//! # Order of locks
//!
//! The store's lock (flock), the account of the log (whoever has it moves the index on), the index, the generation or what was
//! appended lately. Queues have locks of their own, under which nothing else is taken. The hook and all callbacks run without any
//! of them.

mod correct;
mod decide;
mod intake;
mod kept;
mod load;
mod memory;
mod publish;
mod recent;
mod records;
mod round;
#[cfg(test)]
pub(crate) mod tests;
mod threads;

use std::ffi::CString;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rand::RngExt;

use crate::index::{Index, Row};
use crate::name::{Id, Key};
use crate::record::{Edit, EditError, Locator, Record, parse_record};
use crate::store::{self, Generation, Store, StoreError};
use crate::sync::atomic::AtomicBool;
use crate::sync::thread::{JoinHandle, ThreadId};
use crate::sync::{
    Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard, TryLockError, mpsc,
    thread,
};
use crate::value::{Leaf, Object};

use kept::Keeping;
use publish::Account;
use recent::Recent;
pub use records::Records;
use threads::{Keeps, Queue, Syncs};

/// How a cache is opened.
#[derive(Debug, Clone)]
pub struct Options {
    /// Take no lock and write nothing.
    pub read_only: bool,
    /// Every change is durable before it is acknowledged.
    pub sync: bool,
    /// How often the log is looked at where the kernel does not tell of changes.
    pub refresh: Duration,
    /// Threads that follow, commit, sync and compact in the background: a mount wants them; the command line, which
    /// looks once, does not.
    pub background: bool,
    /// The directory in which the index of a large log is kept, if it is: nowhere near the cache.
    pub keep: Option<PathBuf>,
}

/// One cache. Cheap to share; the background threads end when it is [`Cache::close`]d.
#[derive(Debug)]
pub struct Cache {
    inner: Arc<Inner>,
    /// The background threads; whoever closes takes them.
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// What the background threads share.
struct Inner {
    store: Store,
    /// The cache's path as records spell it.
    path: String,
    options: Options,
    /// Second lock, after the store's: whoever has it moves the index on.
    account: Mutex<Account>,
    /// Third lock. Held briefly.
    index: RwLock<Index>,
    /// Locked after the index, for a step in a map.
    recent: Mutex<Recent>,
    /// Innermost lock: where the index's locators point; changed only under the index's write lock.
    generation: Mutex<Option<Arc<Generation>>>,
    queue: Mutex<Queue>,
    queue_bell: Condvar,
    syncs: Mutex<Syncs>,
    sync_bell: Condvar,
    keeping: Mutex<Keeping>,
    keeps: Mutex<Keeps>,
    keep_bell: Condvar,
    hook: OnceLock<Hook>,
    /// What a commit is doing, since when.
    stage: Mutex<Option<(&'static str, Instant)>>,
    memory: memory::Memory,
    /// Why the log cannot be read.
    trouble: Mutex<Option<String>>,
    /// Why the last round of changes failed.
    failure: Mutex<Option<String>>,
    /// The follower ends.
    closing: AtomicBool,
    closed: Mutex<bool>,
    /// The background threads.
    background: OnceLock<Vec<ThreadId>>,
}

/// An entry as its record says.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Its row.
    pub row: Row,
    /// Its id.
    pub id: Id,
    /// Its time, seconds since the epoch.
    pub time: f64,
    /// The whole object of its record, reserved members too.
    pub object: Object<'static>,
}

/// A change, decided under the lock against the newest state.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// Records a new entry (its directory was made already). EEXIST if it has a record.
    Create {
        /// Its id.
        id: Id,
        /// Its attributes, without reserved members.
        attrs: Object<'static>,
    },
    /// Changes attributes of a live entry.
    Edit {
        /// The entry.
        id: Id,
        /// What to change, all or nothing.
        edits: Vec<Edit>,
    },
    /// Deletes a live entry.
    Delete {
        /// The entry.
        id: Id,
    },
    /// Claims a memo: records `fresh` (whose directory was made already) unless a live entry includes `pairs`.
    Memo {
        /// The pairs.
        pairs: Vec<(Key, Leaf)>,
        /// The id to use if there is none.
        fresh: Id,
        /// The attributes to record then.
        attrs: Object<'static>,
    },
    /// Brings an entry back with this object and its time (from the trash).
    Restore {
        /// The entry.
        id: Id,
        /// The object, reserved members too.
        object: Object<'static>,
        /// Its time.
        time: f64,
    },
}

/// What became of a change.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// It is in the log and in the index; `false`: nothing had to be changed.
    Done(bool),
    /// A memo had this entry already.
    Found(Id),
    /// The entry that was deleted was this, reserved members too.
    Deleted(Object<'static>),
}

/// Why a change was refused or failed.
#[derive(Debug)]
pub enum CacheError {
    /// No such live entry.
    NoEntry,
    /// The entry exists already.
    Exists,
    /// The edit cannot be.
    Edit(EditError),
    /// The record would be over 16 MiB.
    TooLarge,
    /// There is not enough memory, in bytes: for the index of the log, or for a table.
    Memory {
        /// How much more is needed, as far as can be told.
        needed: u64,
        /// How much can be had.
        available: u64,
    },
    /// The store failed.
    Store(Arc<StoreError>),
    /// The cache is closing.
    Closed,
}

/// What has changed; given to the hook after it was published.
#[derive(Debug, Clone, Default)]
pub struct Published {
    /// Rows that came, changed or went.
    pub rows: Vec<Row>,
    /// Some of them went.
    pub gone: bool,
    /// The log was replaced and read anew: anything may have changed.
    pub all: bool,
}

/// Called after every publication, before the changes are acknowledged, on the thread that published. Must not block on requests.
pub type Hook = Box<dyn Fn(&Published) + Send + Sync>;

/// Called once with the outcome of a change, on the thread that committed it.
pub type Done = Box<dyn FnOnce(Result<Outcome, CacheError>) + Send>;

/// Numbers for `.status`.
#[derive(Debug, Clone, Default)]
pub struct Status {
    /// Live entries.
    pub entries: u64,
    /// Malformed stretches of the log.
    pub malformed: u64,
    /// Bytes of the log.
    pub log_bytes: u64,
    /// Records that a compaction would drop.
    pub dead_records: u64,
    /// What a commit is waiting for, if it has waited longer than a second (the lock, a write, a sync), and since how many seconds.
    pub waiting: Option<(&'static str, f64)>,
    /// Who is waited for, if it is the lock and a process of this machine holds it.
    pub holder: Option<String>,
    /// A sync failed: the store refuses writes.
    pub poisoned: bool,
    /// Why the log cannot be read, if so: what is shown is the state from before.
    pub trouble: Option<String>,
}

/// Called once with the outcome of a sync.
pub type Synced = Box<dyn FnOnce(Result<(), CacheError>) + Send>;

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache").field("store", &self.store).finish_non_exhaustive()
    }
}

impl std::fmt::Display for CacheError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoEntry => f.write_str("no such entry"),
            Self::Exists => f.write_str("the entry exists already"),
            Self::Edit(EditError::NoKey) => f.write_str("no such attribute"),
            Self::Edit(EditError::Exists) => f.write_str("the attribute, or one that contradicts it, exists"),
            Self::Edit(EditError::Reserved) => f.write_str("a reserved member cannot be changed"),
            Self::Edit(EditError::NotAnArray) => f.write_str("the attribute is not an array"),
            Self::Edit(EditError::TooDeep) => f.write_str("the attribute would be nested too deeply"),
            Self::TooLarge => f.write_str("the attributes are too large or nested too deeply"),
            Self::Memory { needed, available } => write!(
                f,
                "not enough memory: about {} MiB more are needed, {} MiB can be had",
                needed.div_ceil(1 << 20),
                available >> 20
            ),
            Self::Store(error) => error.fmt(f),
            Self::Closed => f.write_str("the cache is closed"),
        }
    }
}

impl std::error::Error for CacheError {}

impl From<StoreError> for CacheError {
    fn from(error: StoreError) -> Self {
        Self::Store(Arc::new(error))
    }
}

impl CacheError {
    /// A failed system call.
    fn io(doing: &'static str, source: io::Error) -> Self {
        StoreError::Io { doing, source }.into()
    }

    /// Whether a file was taken away by another node.
    fn is_stale(&self) -> bool {
        matches!(self, Self::Store(error) if error.raw_os_error() == Some(libc::ESTALE))
    }

    /// As an error of the store that all changes of a round share.
    fn into_store(self) -> Arc<StoreError> {
        match self {
            Self::Store(error) => error,
            Self::Memory { .. } => Arc::new(StoreError::Io {
                doing: "reading the log",
                source: io::Error::from_raw_os_error(libc::ENOMEM),
            }),
            other => Arc::new(StoreError::Io {
                doing: "reading the log",
                source: io::Error::other(other.to_string()),
            }),
        }
    }
}

/// Locks a mutex whose data are whole even if a thread that held it panicked.
fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a commit waits for when it waits for the lock.
const LOCK: &str = "the lock";
/// How often a fresh id is drawn before something else must be wrong.
const DRAWS: u32 = 1000;

impl Cache {
    /// Opens a cache and reads its log.
    pub fn open(path: &Path, options: &Options) -> Result<Arc<Self>, CacheError> {
        let store = store::Options { read_only: options.read_only, sync: options.sync };
        Self::with_store(Store::open(path, &store)?, options)
    }

    fn with_store(store: Store, options: &Options) -> Result<Arc<Self>, CacheError> {
        let inner = Arc::new(Inner {
            path: store.path().to_string_lossy().into_owned(),
            store,
            options: options.clone(),
            account: Mutex::default(),
            index: RwLock::default(),
            recent: Mutex::default(),
            generation: Mutex::default(),
            queue: Mutex::default(),
            queue_bell: Condvar::new(),
            syncs: Mutex::default(),
            sync_bell: Condvar::new(),
            keeping: Mutex::default(),
            keeps: Mutex::default(),
            keep_bell: Condvar::new(),
            hook: OnceLock::new(),
            stage: Mutex::default(),
            memory: memory::Memory::default(),
            trouble: Mutex::default(),
            failure: Mutex::default(),
            closing: AtomicBool::new(false),
            closed: Mutex::default(),
            background: OnceLock::new(),
        });
        inner.begin_with_kept();
        inner.follow()?;
        let threads = if options.background { threads::start(&inner)? } else { Vec::new() };
        let _ = inner.background.set(threads.iter().map(|thread| thread.thread().id()).collect());
        Ok(Arc::new(Self { inner, threads: Mutex::new(threads) }))
    }

    /// Sets the hook; at most once, before the mount is live.
    pub fn set_hook(&self, hook: Hook) {
        if self.inner.hook.set(hook).is_err() {
            log::error!("a second hook on a cache is ignored");
        }
    }

    /// The index, to read. Held briefly: never across I/O, a reply or another lock.
    pub fn index(&self) -> RwLockReadGuard<'_, Index> {
        self.inner.index()
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// Reads an entry's record.
    pub fn entry(&self, row: Row) -> Result<Entry, CacheError> {
        match self.entry_now(row) {
            Err(error) if error.is_stale() => {
                // Another node has replaced the log, and the file system has nothing left of the old one.
                self.inner.store.forget();
                self.inner.follow()?;
                self.entry_now(row)
            }
            other => other,
        }
    }

    fn entry_now(&self, row: Row) -> Result<Entry, CacheError> {
        let (id, time, at, generation) = {
            let index = self.index();
            let (Some(id), Some(at)) = (index.id(row), index.locator(row)) else {
                return Err(CacheError::NoEntry);
            };
            let generation = hold(&self.inner.generation).clone();
            (id, index.time(row), at, generation)
        };
        let object = match self.inner.recent(generation.as_ref(), row, at) {
            Some(record) => record.object.clone(),
            None => read_record(generation.as_deref(), at)?.object,
        };
        Ok(Entry { row, id, time, object })
    }

    /// Commits a change, or hands it to the committing thread if something has to be waited for; `done` is called when it is
    /// decided, perhaps before this returns. All changes that wait share one round. To be called without locks, and not while acting
    /// as somebody else.
    pub fn submit(&self, change: Change, done: Done) {
        self.inner.submit(vec![(change, done)], true);
    }

    /// As [`Cache::submit`], and waits.
    pub fn change(&self, change: Change) -> Result<Outcome, CacheError> {
        self.change_all(vec![change])?.pop().unwrap_or(Err(CacheError::Closed))
    }

    /// Several changes in one round; outcomes in order.
    pub fn change_all(&self, changes: Vec<Change>) -> Result<Vec<Result<Outcome, CacheError>>, CacheError> {
        let count = changes.len();
        let (sender, receiver) = mpsc::channel();
        let jobs = changes.into_iter().enumerate().map(|(i, change)| {
            let sender = sender.clone();
            let done: Done = Box::new(move |outcome| {
                // Nobody waits only if the waiting thread is gone.
                let _ = sender.send((i, outcome));
            });
            (change, done)
        });
        // Whoever waits may be acting as somebody else, who need not be able to write the log.
        self.inner.submit(jobs.collect(), false);
        drop(sender);
        let mut outcomes: Vec<_> = receiver.iter().collect();
        if outcomes.len() < count {
            return Err(CacheError::Closed);
        }
        outcomes.sort_by_key(|(i, _)| *i);
        Ok(outcomes.into_iter().map(|(_, outcome)| outcome).collect())
    }

    /// Makes every acknowledged change durable; `done` is called on another thread, or on this one if there are none.
    pub fn sync(&self, done: Synced) {
        self.inner.sync(done);
    }

    /// Draws a fresh id and makes its directory (mode 0777 less `umask`, as the calling thread's credentials have it).
    pub fn make_directory(&self, mode: u32) -> Result<Id, CacheError> {
        const DOING: &str = "making an entry's directory";
        const ALPHABET: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789_";
        if self.inner.options.read_only {
            return Err(StoreError::ReadOnly.into());
        }
        let mut rng = rand::rng();
        for _ in 0..DRAWS {
            let mut name = String::from("e");
            for _ in 0..8 {
                name.push(ALPHABET.get(rng.random_range(0..ALPHABET.len())).copied().map_or('_', char::from));
            }
            // A record without a directory is an entry too.
            if self.index().row_ever(&name).is_some() {
                continue;
            }
            let id = Id::new(&name).map_err(|_| CacheError::io(DOING, io::ErrorKind::InvalidInput.into()))?;
            let name = CString::new(name).map_err(|e| CacheError::io(DOING, e.into()))?;
            // SAFETY: the cache directory is open as long as the store, and the name ends in NUL.
            if unsafe { libc::mkdirat(self.store().dir().as_raw_fd(), name.as_ptr(), mode) } == 0 {
                return Ok(id);
            }
            let error = io::Error::last_os_error();
            if error.raw_os_error() != Some(libc::EEXIST) {
                return Err(CacheError::io(DOING, error));
            }
        }
        Err(CacheError::io(DOING, io::Error::from_raw_os_error(libc::EEXIST)))
    }

    /// Whether so many bytes more can be held for a reader.
    #[allow(clippy::unused_self, reason = "reads as what it is: the cache is asked before it gives so much")]
    pub fn has_memory_for(&self, bytes: u64) -> Result<(), CacheError> {
        let (needed, mut available) = (bytes.saturating_add(memory::RESERVE), memory::available());
        if available < needed {
            memory::give_back();
            available = memory::available();
        }
        if available < needed { Err(CacheError::Memory { needed, available }) } else { Ok(()) }
    }

    /// Reads what others appended, now.
    pub fn refresh(&self) -> Result<(), CacheError> {
        self.inner.follow()
    }

    /// Compacts the log now. Says how many records it dropped.
    pub fn compact(&self) -> Result<u64, CacheError> {
        self.inner.compact(None)
    }

    /// Numbers.
    pub fn status(&self) -> Status {
        let inner = &self.inner;
        let waiting = (*hold(&inner.stage))
            .map(|(what, since)| (what, since.elapsed().as_secs_f64()))
            .filter(|&(_, seconds)| seconds > 1.0);
        let holder = waiting.filter(|&(what, _)| what == LOCK).and_then(|_| inner.store.holder());
        let live = self.index().len() as u64;
        let counts = hold(&inner.queue).counts;
        Status {
            entries: live,
            malformed: counts.malformed,
            log_bytes: inner.store.bytes(),
            dead_records: counts.records.saturating_sub(live),
            waiting,
            holder: holder.map(|holder| holder.to_string()),
            poisoned: inner.store.is_poisoned(),
            trouble: hold(&inner.trouble).clone(),
        }
    }

    /// Commits what waits, syncs, ends the threads. Whoever comes second waits for the first, and finds all done.
    pub fn close(&self) -> Result<(), CacheError> {
        let current = thread::current().id();
        let mut closed = match self.inner.closed.try_lock() {
            Ok(closed) => closed,
            // A callback, on a thread that the one who closes waits for.
            Err(TryLockError::WouldBlock) if self.inner.is_background(current) => return Ok(()),
            Err(_) => hold(&self.inner.closed),
        };
        if *closed {
            return Ok(());
        }
        *closed = true;
        let threads = std::mem::take(&mut *hold(&self.threads));
        self.inner.close(threads)
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        if let Err(e) = self.close() {
            log::error!("closing the cache: {e}");
        }
    }
}

impl Inner {
    fn is_background(&self, thread: ThreadId) -> bool {
        self.background.get().is_some_and(|threads| threads.contains(&thread))
    }

    /// The record of a row at a place of the log, if it is remembered.
    fn recent(
        &self,
        generation: Option<&Arc<Generation>>,
        row: Row,
        at: Locator,
    ) -> Option<Arc<Record<'static>>> {
        hold(&self.recent).get(generation?, row, at)
    }

    fn index(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads a record.
fn read_record(generation: Option<&Generation>, at: Locator) -> Result<Record<'static>, CacheError> {
    const DOING: &str = "reading a record";
    let generation = generation.ok_or(CacheError::NoEntry)?;
    let bytes = generation.read(at).map_err(|e| CacheError::io(DOING, e))?;
    match parse_record(&bytes) {
        Ok(record) => Ok(record.into_owned()),
        // It was a record when it was indexed: somebody has written over the log.
        Err(_) => Err(CacheError::io(DOING, io::ErrorKind::InvalidData.into())),
    }
}
