//! Store and index of one cache, published together: reading, group commit, following, compaction when it is due.

use std::path::Path;
use std::sync::{Arc, RwLockReadGuard};
use std::time::Duration;

use crate::index::{Index, Row};
use crate::name::{Id, Key};
use crate::record::{Edit, EditError};
use crate::store::{Store, StoreError};
use crate::value::{Leaf, Object};

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
}

/// One cache. Cheap to share; the background threads end when it is [`Cache::close`]d.
#[derive(Debug)]
pub struct Cache {
    _todo: (),
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is in the log and in the index; `false`: nothing had to be changed.
    Done(bool),
    /// A memo had this entry already.
    Found(Id),
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
    /// The log was replaced and read anew: anything may have changed.
    pub all: bool,
}

/// Called after every publication, before the changes are acknowledged, on the thread that published. Must not block on requests.
pub type Hook = Box<dyn Fn(&Published) + Send + Sync>;

/// Called once with the outcome of a change, on the committing thread.
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
    /// The error that made the store refuse writes.
    pub poisoned: bool,
}

impl Cache {
    /// Opens a cache and reads its log.
    pub fn open(path: &Path, options: &Options) -> Result<Arc<Self>, CacheError> {
        todo!()
    }

    /// Sets the hook; at most once, before the mount is live.
    pub fn set_hook(&self, hook: Hook) {
        todo!()
    }

    /// The index, to read. Held briefly: never across I/O, a reply or another lock.
    pub fn index(&self) -> RwLockReadGuard<'_, Index> {
        todo!()
    }

    /// The store.
    pub fn store(&self) -> &Store {
        todo!()
    }

    /// Reads an entry's record.
    pub fn entry(&self, row: Row) -> Result<Entry, CacheError> {
        todo!()
    }

    /// Hands a change to the committing thread; `done` is called when it is decided. All changes that wait share one round.
    pub fn submit(&self, change: Change, done: Done) {
        todo!()
    }

    /// As [`Cache::submit`], and waits.
    pub fn change(&self, change: Change) -> Result<Outcome, CacheError> {
        todo!()
    }

    /// Several changes in one round; outcomes in order.
    pub fn change_all(&self, changes: Vec<Change>) -> Result<Vec<Result<Outcome, CacheError>>, CacheError> {
        todo!()
    }

    /// Makes every acknowledged change durable; `done` is called on another thread.
    pub fn sync(&self, done: Box<dyn FnOnce(Result<(), CacheError>) + Send>) {
        todo!()
    }

    /// Draws a fresh id and makes its directory (mode 0777 less `umask`, as the calling thread's credentials have it).
    pub fn make_directory(&self, mode: u32) -> Result<Id, CacheError> {
        todo!()
    }

    /// Reads what others appended, now.
    pub fn refresh(&self) -> Result<(), CacheError> {
        todo!()
    }

    /// Compacts the log now. Says how many records it dropped.
    pub fn compact(&self) -> Result<u64, CacheError> {
        todo!()
    }

    /// Numbers.
    pub fn status(&self) -> Status {
        todo!()
    }

    /// Commits what waits, syncs, ends the threads.
    pub fn close(&self) -> Result<(), CacheError> {
        todo!()
    }
}
