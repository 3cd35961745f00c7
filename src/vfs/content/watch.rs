//! Directories of the cache that are watched: the kernel keeps names and attributes of the files in them for long, because it is
//! told when others change them.
//!
//! Of a request that answers what may be kept for long, and a change of it by others, one of these holds, because the request
//! notes that it has answered *before* it looks whether there was a change ([`Seen::keep`]), and who reads of a change
//! counts it *before* looking for such notes ([`Watched::count`]):
//!
//! - The request finds the change counted: it was read of after the request began ([`Seen`]), and the answer is not kept for long.
//! - Who counts finds the note, and tells the kernel ([`super::tell`]), which takes no answer to what it has asked before that.
//!
//! The latter needs help in two cases: of a node that the kernel does not know yet, which it is told of again until it does; and of
//! names in the answer to `READDIRPLUS`, which count as of when the kernel takes them from it ([`Listed`]).

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use super::nodes::FileId;
use crate::backing::{self, Stat, WatchDescriptor, Watcher};
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Arc, Mutex, MutexGuard, PoisonError};
use crate::vfs::Ino;

/// How long the kernel may keep what is watched. A change that is not reported (through a mapping, or through another name in a
/// directory that is not watched) is seen after that.
pub(super) const LONG: Duration = Duration::from_secs(30);
/// By then the kernel has taken an answer: who waits for it does nothing else.
const TAKEN: Duration = Duration::from_secs(1);
/// So many names that were found in a directory one by one make it worth while.
const FOUND: u32 = 64;
/// For so long after a name has changed, names of the directory are not kept for long. It doubles if they change again soon.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(64);
/// After the kernel has refused a watch.
const REFUSED: Duration = Duration::from_secs(10);
/// A watch of which nothing is kept any more ends at the next look, one in such a time.
pub(super) const SWEEP: Duration = Duration::from_secs(10);

/// The directories that are watched.
#[derive(Debug)]
pub(super) struct Watches {
    watcher: Watcher,
    /// At most so many.
    capacity: usize,
    started: Instant,
    state: Mutex<State>,
}

/// Nothing else is locked by who holds it.
#[derive(Debug, Default)]
struct State {
    by_node: HashMap<Ino, Arc<Watched>>,
    by_watch: HashMap<WatchDescriptor, Arc<Watched>>,
    /// How many names were found, in directories that are not watched.
    found: HashMap<Ino, u32>,
    /// In milliseconds from the start on, as all that follow: until when the kernel is not asked for another watch.
    refused: u64,
}

/// A directory that is watched.
#[derive(Debug)]
pub(super) struct Watched {
    /// Its node.
    pub ino: Ino,
    file: FileId,
    directory: OwnedFd,
    watch: WatchDescriptor,
    /// Counts changes.
    changes: AtomicU64,
    /// Counts those of names.
    names: AtomicU64,
    /// Names were answered that are kept for long, since the kernel was last told.
    shown: AtomicBool,
    /// When anything was, last.
    used: AtomicU64,
    /// Requests that list it now, and until when the kernel may be taking names from the answers to earlier ones.
    listing: AtomicU64,
    lists: AtomicU64,
    /// Until when names are not kept for long, and how long that is next time.
    quiet: AtomicU64,
    pause: AtomicU64,
}

/// A watched directory as a request that is about to look into it finds it.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    watched: Arc<Watched>,
    changes: u64,
    now: u64,
}

/// Names of a watched directory that the kernel may not have taken from an answer yet.
#[derive(Debug)]
pub(super) struct Listed {
    watched: Arc<Watched>,
    names: u64,
}

/// What the kernel is told of names that have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Names {
    /// Nothing: it keeps none.
    Untold,
    /// To forget them.
    Forget,
    /// To forget them, and again until it has taken all from the answers under way.
    ForgetRepeatedly,
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Watches {
    pub fn new(watcher: Watcher, capacity: usize) -> Self {
        Self { watcher, capacity, started: Instant::now(), state: Mutex::default() }
    }

    /// Number of directories that are watched.
    pub fn len(&self) -> usize {
        self.state().by_watch.len()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u64 {
        millis(self.started.elapsed())
    }

    /// A directory, if it is watched, for a request that is about to look into it.
    pub fn seen(&self, ino: Ino) -> Option<Seen> {
        let watched = Arc::clone(self.state().by_node.get(&ino)?);
        self.seen_now(watched)
    }

    fn seen_now(&self, watched: Arc<Watched>) -> Option<Seen> {
        let now = self.now();
        let changes = watched.changes.load(Ordering::SeqCst);
        (watched.quiet.load(Ordering::SeqCst) <= now).then_some(Seen { watched, changes, now })
    }

    /// A name was found in a directory that is not watched: whether it should be.
    pub fn found(&self, ino: Ino) -> bool {
        let mut state = self.state();
        if state.found.len() > self.capacity {
            state.found.clear();
        }
        let found = state.found.entry(ino).or_default();
        *found += 1;
        let enough = *found >= FOUND;
        if enough {
            state.found.remove(&ino);
        }
        enough
    }

    /// As [`Self::seen`]; begins to watch it if it is not watched, and if that can be.
    pub fn watch(&self, ino: Ino, directory: BorrowedFd<'_>) -> Option<Seen> {
        let file = FileId::of(&backing::stat(directory).ok()?);
        let mut state = self.state();
        // Behind the node of an entry there may be another directory by now. The one before stays watched as long as it is used.
        if let Some(watched) = state.by_node.get(&ino).filter(|watched| watched.file == file) {
            let watched = Arc::clone(watched);
            drop(state);
            return self.seen_now(watched);
        }
        let now = self.now();
        if state.by_watch.len() >= self.capacity || now < state.refused {
            return None;
        }
        let directory = directory.try_clone_to_owned().ok()?;
        let watch = match self.watcher.add(directory.as_fd()) {
            Ok(watch) => watch,
            Err(error) => {
                if matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::ENOMEM | libc::EMFILE)) {
                    log::info!("the kernel watches no more directories: {error}");
                    state.refused = now + millis(REFUSED);
                }
                return None;
            }
        };
        let watched = Arc::new(Watched {
            ino,
            file,
            directory,
            watch: watch.clone(),
            changes: AtomicU64::new(0),
            names: AtomicU64::new(0),
            shown: AtomicBool::new(false),
            used: AtomicU64::new(now),
            listing: AtomicU64::new(0),
            lists: AtomicU64::new(0),
            quiet: AtomicU64::new(0),
            pause: AtomicU64::new(millis(PAUSE)),
        });
        state.found.remove(&ino);
        state.by_node.insert(ino, Arc::clone(&watched));
        // A directory is one to the kernel, however many nodes it has: the last one hears of it. Names below those before were
        // forgotten when it got a second path, and files have one node for all paths.
        if let Some(before) = state.by_watch.insert(watch, Arc::clone(&watched)) {
            before.changes.fetch_add(1, Ordering::SeqCst);
            if before.ino != ino {
                state.by_node.remove(&before.ino);
            }
        }
        drop(state);
        self.seen_now(watched)
    }

    /// The directory that a report is about.
    pub fn of(&self, watch: &WatchDescriptor) -> Option<Arc<Watched>> {
        self.state().by_watch.get(watch).cloned()
    }

    /// A directory is not watched any more. Before the kernel is told of what it keeps, so that nobody answers the like meanwhile.
    pub fn ended(&self, watched: &Watched) {
        let mut state = self.state();
        state.by_watch.remove(&watched.watch);
        state.by_node.retain(|_, other| other.watch != watched.watch);
        watched.changes.fetch_add(1, Ordering::SeqCst);
    }

    /// Nothing is watched from now on.
    pub fn close(&self) {
        let mut state = self.state();
        state.refused = u64::MAX;
        state.by_node.clear();
        let watched = std::mem::take(&mut state.by_watch);
        drop(state);
        for watched in watched.values() {
            watched.count();
        }
    }

    /// Everything that is watched.
    pub fn all(&self) -> Vec<Arc<Watched>> {
        self.state().by_watch.values().map(Arc::clone).collect()
    }

    /// Ends the watches of which nothing is kept any more.
    pub fn sweep(&self) {
        let Some(old) = self.now().checked_sub(millis(LONG + SWEEP)) else { return };
        let is_old = |watched: &Watched| watched.used.load(Ordering::SeqCst) < old;
        // Closed after the lock is given up.
        let mut ended = Vec::new();
        let mut state = self.state();
        let State { by_node, by_watch, found, .. } = &mut *state;
        by_watch.retain(|watch, watched| {
            if !is_old(watched) || watched.listing.load(Ordering::SeqCst) > 0 {
                return true;
            }
            // Who answers meanwhile has noted it first, or finds this.
            watched.count();
            let ends = is_old(watched);
            if ends {
                if by_node.get(&watched.ino).is_some_and(|other| Arc::ptr_eq(other, watched)) {
                    by_node.remove(&watched.ino);
                }
                // Under the lock, or who begins to watch it again would get the watch that ends.
                self.watcher.remove(watch.clone());
                ended.push(Arc::clone(watched));
            }
            !ends
        });
        by_watch.shrink_to(by_watch.len() * 2);
        by_node.shrink_to(by_node.len() * 2);
        found.clear();
    }

    /// Names of a directory have changed.
    pub fn names_changed(&self, watched: &Watched) -> Names {
        watched.names_changed(self.now())
    }

    /// Whether the kernel may be taking names of it from answers.
    pub fn is_listed(&self, watched: &Watched) -> bool {
        watched.is_listed_at(self.now())
    }
}

impl Watched {
    /// Something has changed: what is being answered is not kept for long.
    pub fn count(&self) {
        self.changes.fetch_add(1, Ordering::SeqCst);
    }

    pub fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    fn is_listed_at(&self, now: u64) -> bool {
        self.listing.load(Ordering::SeqCst) > 0 || now < self.lists.load(Ordering::SeqCst)
    }

    /// After [`Self::count`].
    fn names_changed(&self, now: u64) -> Names {
        self.names.fetch_add(1, Ordering::SeqCst);
        let (quiet, pause) = (self.quiet.load(Ordering::SeqCst), self.pause.load(Ordering::SeqCst));
        // Only who reads of changes writes these.
        let pause = match now {
            now if now < quiet => pause,
            now if quiet > 0 && now < quiet.saturating_add(4 * pause) => {
                (2 * pause).min(millis(LONGEST_PAUSE))
            }
            _ => millis(PAUSE),
        };
        self.pause.store(pause, Ordering::SeqCst);
        self.quiet.store(now + pause, Ordering::SeqCst);
        let shown = self.shown.swap(false, Ordering::SeqCst);
        if self.is_listed_at(now) {
            Names::ForgetRepeatedly
        } else if shown {
            Names::Forget
        } else {
            Names::Untold
        }
    }
}

impl Seen {
    /// The node of the directory that is watched, and which one that is.
    pub fn directory(&self) -> Ino {
        self.watched.ino
    }

    pub fn file(&self) -> FileId {
        self.watched.file
    }

    /// Whether the kernel may keep the name and the attributes of a file that was found in the directory since, for long.
    pub fn keep(&self, stat: &Stat) -> bool {
        if !can_be_kept(stat) {
            return false;
        }
        let watched = &self.watched;
        if !watched.shown.load(Ordering::SeqCst) {
            watched.shown.swap(true, Ordering::SeqCst);
        }
        watched.used.fetch_max(self.now, Ordering::SeqCst);
        watched.changes.load(Ordering::SeqCst) == self.changes
    }

    /// Before names are listed with attributes.
    pub fn list(&self) -> Listed {
        let watched = Arc::clone(&self.watched);
        watched.listing.fetch_add(1, Ordering::SeqCst);
        let names = watched.names.load(Ordering::SeqCst);
        Listed { watched, names }
    }
}

impl Listed {
    /// The answer is complete: the kernel is about to take the names from it.
    pub fn answered(&self, watches: &Watches) {
        let now = watches.now();
        self.watched.used.fetch_max(now, Ordering::SeqCst);
        self.watched.lists.fetch_max(now + millis(TAKEN), Ordering::SeqCst);
        self.watched.listing.fetch_sub(1, Ordering::SeqCst);
    }

    /// Whether names have changed since, which the kernel may have been told before it took them.
    pub fn has_changed(&self) -> bool {
        self.watched.names.load(Ordering::SeqCst) != self.names
    }
}

/// Whether all changes of a file are changes in the directory that it was found in. Directories have changes of their own.
fn can_be_kept(stat: &Stat) -> bool {
    !stat.is_directory() && stat.nlink == 1 && !stat.is_mount
}

/// Begins.
pub(super) fn begin(capacity: usize) -> io::Result<(backing::Changes, Watches)> {
    let (changes, watcher) = backing::changes()?;
    Ok((changes, Watches::new(watcher, capacity)))
}
