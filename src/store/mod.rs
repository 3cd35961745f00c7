//! The log of a cache: `_entries`, its lock, recovery, compaction and following. Knows no index.

use std::fs::File;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::record::{Dialect, Locator};

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
    _todo: (),
}

/// One generation of the log: an open `_entries`. Records stay readable through it after the log was replaced.
#[derive(Debug)]
pub struct Generation {
    _file: Option<File>,
}

/// Takes lines of the log.
pub trait Sink {
    /// The log is another one than before: forget every line. Its lines follow.
    fn replaced(&mut self, generation: &Arc<Generation>);
    /// The next whole line, without its `\n`, and where it stands.
    fn line(&mut self, at: Locator, line: &[u8]);
}

/// What went wrong with a store; each variant says what was being done, and keeps the OS error.
#[derive(Debug)]
pub enum StoreError {
    /// A system call failed.
    Io {
        /// What was being done to what.
        doing: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The file system supports no flock.
    NoLock(std::io::Error),
    /// The store is read-only.
    ReadOnly,
    /// A sync failed earlier: the store refuses writes until it has been reopened.
    Poisoned,
    /// The cache is not a directory, or its log or lock is no regular file.
    NotACache(&'static str),
}

/// What a step of following found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Followed {
    /// Number of lines given to the sink.
    pub lines: u64,
    /// Whether the log was another one.
    pub replaced: bool,
}

/// The store with its lock held; dropping it unlocks.
#[derive(Debug)]
pub struct Locked<'s> {
    _store: &'s Store,
}

impl Store {
    /// Opens a cache directory. Reads nothing yet: the first [`Store::follow`] or [`Locked::catch_up`] gives every line, after a
    /// [`Sink::replaced`]. A missing `_entries` is an empty log.
    pub fn open(cache: &Path, options: &Options) -> Result<Self, StoreError> {
        todo!()
    }

    /// The cache directory.
    pub fn dir(&self) -> BorrowedFd<'_> {
        todo!()
    }

    /// The cache's canonical absolute path, as it was at the opening.
    pub fn path(&self) -> &Path {
        todo!()
    }

    /// The dialect to append in.
    pub fn dialect(&self) -> Dialect {
        todo!()
    }

    /// Gives the sink what came since the last call, up to the last `\n`, without the lock.
    pub fn follow(&self, sink: &mut dyn Sink) -> Result<Followed, StoreError> {
        todo!()
    }

    /// Waits until the log may have changed: inotify says so, [`Store::wake`] was called, or `timeout` has passed.
    pub fn wait(&self, timeout: Duration) {
        todo!()
    }

    /// Ends a [`Store::wait`] of another thread.
    pub fn wake(&self) {
        todo!()
    }

    /// Takes the lock; blocks. Creates `_lock` if it is missing.
    pub fn lock(&self) -> Result<Locked<'_>, StoreError> {
        todo!()
    }

    /// Makes everything appended durable, without the lock. A failure poisons the store.
    pub fn sync(&self) -> Result<(), StoreError> {
        todo!()
    }
}

impl Generation {
    /// Reads a record. An error of kind `UnexpectedEof` means that somebody cut the log.
    pub fn read(&self, at: Locator) -> std::io::Result<Vec<u8>> {
        todo!()
    }
}

impl Locked<'_> {
    /// Mends a torn tail, then gives the sink what came since the last call.
    pub fn catch_up(&mut self, sink: &mut dyn Sink) -> Result<Followed, StoreError> {
        todo!()
    }

    /// Appends whole lines (each ends in `\n`) with one write; gives the offset of the first byte. Needs a [`Locked::catch_up`]
    /// before. They are not given to any sink of this store. Syncs where the store must (option, or not a local file system).
    pub fn append(&mut self, lines: &[u8]) -> Result<u64, StoreError> {
        todo!()
    }

    /// Replaces the log by one that has the given lines of it in the given order. Gives the new generation and the new place of each;
    /// sinks are told nothing, the store goes on following the new log from its end.
    pub fn compact(&mut self, keep: &[Locator]) -> Result<(Arc<Generation>, Vec<Locator>), StoreError> {
        todo!()
    }
}
