//! The virtual nodes: views, attribute files, `new/`, `memo/`, `trash/`.
//!
//! A node is a [`Place`]; the kernel knows it by an id that [`Table`] gives and counts. Links in set directories
//! are in no table: their id says which set and row.
//!
//! Locks, in this order: the index (held for as long as it is read, never across I/O), then one of the small ones here
//! ([`Table`], sets, handles, names), each for a step in a map. A change is handed to the cache, and answered by the
//! thread that commits it.

mod about;
mod attr;
mod attribute;
mod change;
mod create;
mod file;
mod handle;
mod lookup;
mod place;
mod sets;
mod shown;
mod status;
mod stream;
#[cfg(test)]
mod tests;
mod trash;
mod xattr;

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::time::{Duration, SystemTime};

use self::handle::Handles;
use self::place::{Place, Table};
use self::sets::{Files, Looked, Rows, Sets};
pub use self::shown::Shown;
use super::content::{self, Contents, Root};
use super::locks::Locks;
use super::{Caller, Done, Error, Ino, Options, Result, Time};
use crate::backing::{self, Backing};
use crate::cache::{Cache, CacheError, Change, Entry as Record};
use crate::index::Row;
use crate::name::Id;
use crate::record::{Edit, EditError};
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Arc, Mutex, MutexGuard, PoisonError};
use crate::view::{Dir, NoName, Set};

/// How long the kernel may keep what does not change.
const LONG: Duration = Duration::from_secs(24 * 60 * 60);
/// How long it may keep names that it can be told to forget: not for ever, since it is not told while something is mounted below.
const KEPT: Duration = Duration::from_secs(30);
/// How long it may keep what another process may change behind the mount.
const SHORT: Duration = Duration::from_secs(1);

/// The virtual nodes of a mount.
#[derive(Debug)]
pub(super) struct Tree {
    cache: Arc<Cache>,
    pub contents: Contents,
    pub locks: Locks,
    options: Options,
    epochs: AtomicBool,
    pub shown: Arc<Shown>,
    /// Whether a link in a set directory was looked up, or read, since one was listed.
    links_looked_at: AtomicBool,
    started: Time,
    table: Table,
    sets: Sets,
    files: Files,
    looked: Looked,
    handles: Handles,
    /// Directories without entries, made with `mkdir`: keys and values.
    made: Mutex<HashSet<Dir>>,
    /// Counts up when one is made or removed.
    made_generation: AtomicU64,
    names: Mutex<Names>,
}

/// What entries are called in `new/` and `memo/`.
#[derive(Debug, Default)]
struct Names {
    new: HashMap<OsString, (Id, u64)>,
    next: u64,
    /// The numbers by which the contents know the aliases of an entry.
    aliases: HashMap<Id, HashSet<u64>>,
}

impl From<NoName> for Error {
    fn from(error: NoName) -> Self {
        match error {
            NoName::NotFound => Self::NotFound,
            NoName::Malformed => Self::Invalid,
            NoName::NotUtf8 => Self::NotUtf8,
            NoName::TooLong => Self::NameTooLong,
        }
    }
}

impl From<crate::name::NameError> for Error {
    fn from(error: crate::name::NameError) -> Self {
        NoName::from(error).into()
    }
}

impl From<EditError> for Error {
    fn from(error: EditError) -> Self {
        Self::Cache(CacheError::Edit(error))
    }
}

impl Tree {
    pub fn new(cache: Arc<Cache>, options: Options) -> Result<Self> {
        let backing = Backing::new(cache.store().dir())?;
        let contents = Contents::new(
            backing,
            content::Options {
                impersonate: impersonates(&options),
                passthrough: options.passthrough,
                read_only: options.read_only,
                attr_timeout: options.attr_timeout,
            },
        );
        Ok(Self {
            cache,
            contents,
            locks: Locks::default(),
            epochs: AtomicBool::new(options.epochs),
            shown: Arc::default(),
            links_looked_at: AtomicBool::default(),
            options,
            started: time_of(now()),
            table: Table::new(),
            sets: Sets::new(),
            files: Files::new(),
            looked: Looked::new(),
            handles: Handles::new(),
            made: Mutex::default(),
            made_generation: AtomicU64::new(0),
            names: Mutex::default(),
        })
    }

    pub fn set_epochs(&self, epochs: bool) {
        self.epochs.store(epochs, Ordering::Relaxed);
    }

    /// How long the kernel may keep the names of views, which change whenever an attribute does. That such a name may be shown is
    /// noted before it is looked for; see [`Shown`].
    fn view_ttl(&self) -> Duration {
        if self.epochs.load(Ordering::Relaxed) { KEPT } else { Duration::ZERO }
    }

    fn place(&self, ino: Ino) -> Result<Arc<Place>> {
        self.table.get(ino).ok_or(Error::Stale)
    }

    fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn made(&self) -> MutexGuard<'_, HashSet<Dir>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The entries of a set now.
    fn rows(&self, set: &Set) -> Arc<Rows> {
        self.sets.rows(set, &self.cache.index(), now())
    }

    /// The row of a live entry.
    fn row(&self, id: &Id) -> Result<Row> {
        self.cache.index().row(id.as_str()).ok_or(Error::NotFound)
    }

    /// The record of a live entry.
    fn record(&self, id: &Id) -> Result<Arc<Record>> {
        let (row, generation) = {
            let index = self.cache.index();
            (index.row(id.as_str()).ok_or(Error::NotFound)?, index.generation())
        };
        if let Some(record) = self.looked.get(id, generation) {
            return Ok(record);
        }
        let record = Arc::new(self.cache.entry(row)?);
        // If it has changed in between, it is a newer one, and read once more.
        if self.cache.index().generation() == generation {
            self.looked.put(generation, &record);
        }
        Ok(record)
    }

    fn writable(&self) -> Result<()> {
        if self.options.read_only { Err(Error::ReadOnly) } else { Ok(()) }
    }

    /// Whether the caller may change the attributes of an entry: the permission bits of its directory say so.
    fn may_change(&self, caller: &Caller, id: &Id) -> Result<()> {
        self.writable()?;
        if self.contents.may_change(caller, id)? { Ok(()) } else { Err(Error::Access) }
    }

    /// Changes attributes of an entry.
    fn edit(&self, id: Id, edits: Vec<Edit>, done: Done<()>) {
        let change = Change::Edit { id, edits };
        self.cache.submit(change, Box::new(|outcome| done(outcome.map(drop).map_err(Error::from))));
    }

    /// Drops what the contents keep of an entry that is no more.
    fn gone(&self, id: &Id) {
        // A name in `new/` stays: the entry may come back from the trash.
        let aliases = self.names().aliases.remove(id).unwrap_or_default();
        self.contents.gone(&Root::Entries(id.clone()));
        for number in aliases {
            self.contents.gone(&Root::Alias(id.clone(), number));
        }
    }

    /// What the cache directory's own attributes are: those of the views follow from them.
    fn cache_stat(&self) -> Result<backing::Stat> {
        Ok(backing::stat(self.cache.store().dir())?)
    }

    /// Acts as the caller, where the daemon is root and others use the mount.
    fn act_as(&self, caller: &Caller) -> Result<Option<backing::credentials::Impersonation>> {
        if !impersonates(&self.options) {
            return Ok(None);
        }
        Ok(Some(backing::credentials::impersonate(caller.uid, caller.gid, caller.pid)?))
    }
}

fn impersonates(options: &Options) -> bool {
    options.allow_other && backing::credentials::is_root()
}

/// Seconds since the epoch.
fn now() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// A time of a record as a time of a file, in microseconds: finer is noise of the floating point.
fn time_of(seconds: f64) -> Time {
    // Casts of floats saturate, and NaN is 0.
    #[expect(clippy::cast_possible_truncation, reason = "saturates")]
    let micros = (seconds * 1e6).round() as i128;
    let nsec = u32::try_from(micros.rem_euclid(1_000_000) * 1000).unwrap_or(0);
    Time { sec: i64::try_from(micros.div_euclid(1_000_000)).unwrap_or(0), nsec }
}

/// A name as text; what is not UTF-8 is no name of anything virtual.
fn text(name: &OsStr) -> Result<&str> {
    name.to_str().ok_or(Error::NotUtf8)
}
