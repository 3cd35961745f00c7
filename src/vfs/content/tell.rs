//! Tells the kernel of what others have changed in directories that are watched: on a thread that no request ever waits for.
//!
//! What is changed through this mount is reported as well. It costs what is kept for long of a directory once; after that its names are
//! not kept for long until it has been quiet for a while.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use super::nodes::{FileId, Key};
use super::watch::{self, Names, SWEEP, Seen, Watched, Watches};
use super::{Contents, descriptors};
use crate::backing::{self, Change, Changes, component};
use crate::sync::{Arc, MODELLED, Weak, thread};
use crate::vfs::Ino;

/// What happens within such a time is told together: not each of thousands of changes by itself.
const TOGETHER: Duration = Duration::from_millis(5);
/// When the kernel is told again, first, of what it did not know or may have taken from an answer only now.
const AGAIN: Duration = Duration::from_millis(10);
/// The longest pause until it is told once more, and how often it is at most told of a node.
const LAST: Duration = Duration::from_millis(640);
const TIMES: u32 = 12;

/// Makes the kernel ask again for the attributes of a node; false if it does not know the node. Waits for no request.
pub struct ForgetAttributes(pub Box<dyn Fn(Ino) -> bool + Send + Sync>);

impl std::fmt::Debug for ForgetAttributes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ForgetAttributes")
    }
}

/// What is watched, and how the kernel is told.
#[derive(Debug)]
pub(super) struct Watching {
    pub watches: Watches,
    forget: ForgetAttributes,
    /// Wakes the thread, which ends when this is closed.
    bell: PipeWriter,
}

/// What has happened in one directory.
#[derive(Debug, Default)]
struct Batch {
    /// Names have come or gone.
    names: bool,
    gone: bool,
    ended: bool,
    /// Names of files that are others now.
    files: HashSet<OsString>,
}

/// What has happened since it was last looked.
#[derive(Debug, Default)]
struct News {
    lost: bool,
    directories: HashMap<backing::WatchDescriptor, Batch>,
}

/// What the kernel is told again.
#[derive(Debug)]
enum What {
    /// Attributes of a node that it did not know, so many times.
    Attributes(Ino, u32),
    /// Names of a directory that was being listed.
    Names(Arc<Watched>),
}

#[derive(Debug)]
struct Later {
    at: Instant,
    pause: Duration,
    what: What,
}

impl Contents {
    /// Names and attributes in directories that can be watched are kept for long from now on. At most once, and after
    /// [`Self::set_forget_names`], without which there is no such thing.
    pub fn begin_to_watch(self: &Arc<Self>, forget: ForgetAttributes) {
        let possible = backing::reports_changes(self.backing.cache()).unwrap_or(false);
        if MODELLED || !self.options.watch || !possible || self.forget_names.get().is_none() {
            return;
        }
        if let Err(error) = self.try_to_watch(forget) {
            log::info!("directories of the cache are not watched: {error}");
        }
    }

    fn try_to_watch(self: &Arc<Self>, forget: ForgetAttributes) -> io::Result<()> {
        let (changes, watches) = watch::begin(descriptors() / 2)?;
        let (rung, bell) = io::pipe()?;
        let contents = Arc::downgrade(self);
        thread::Builder::new().name("watch".into()).spawn(move || follow(&contents, changes, &rung))?;
        // A second one is none.
        let _ = self.watching.set(Watching { watches, forget, bell });
        Ok(())
    }

    /// Number of directories that are watched.
    pub fn watched(&self) -> usize {
        self.watching.get().map_or(0, |watching| watching.watches.len())
    }

    fn tell(&self, news: News, later: &mut Vec<Later>) {
        let Some(watching) = self.watching.get() else { return };
        let known = &watching.watches;
        let mut stale = HashSet::new();
        let mut forget = false;
        let mut names_changed = |watched: &Arc<Watched>| {
            let told = known.names_changed(watched);
            if told == Names::ForgetRepeatedly {
                later.push(Later::new(What::Names(Arc::clone(watched))));
            }
            forget |= told != Names::Untold;
            told != Names::Untold
        };
        if news.lost {
            log::info!(
                "more has changed in the cache than the kernel reports: everything is looked at again"
            );
            for watched in known.all() {
                watched.count();
                names_changed(&watched);
            }
            stale.extend(self.table().kept(None));
        }
        for (descriptor, batch) in news.directories {
            let Some(watched) = known.of(&descriptor) else { continue };
            watched.count();
            if batch.ended {
                known.ended(&watched);
                stale.extend(self.table().kept(Some(watched.ino)));
            }
            if (batch.names || batch.ended) && names_changed(&watched) {
                // Of its own attributes, nothing is kept for long.
                stale.insert(watched.ino);
            }
            if batch.gone {
                stale.extend(self.open_below(watched.ino));
            }
            stale.extend(batch.files.iter().filter_map(|name| self.kept_file(watched.directory(), name)));
        }
        if forget {
            self.forget_names();
        }
        for ino in stale {
            if !(watching.forget.0)(ino) {
                later.push(Later::new(What::Attributes(ino, TIMES)));
            }
        }
    }

    /// The node of a name, if its attributes are kept for long.
    fn kept_file(&self, directory: BorrowedFd<'_>, name: &std::ffi::OsStr) -> Option<Ino> {
        let stat = backing::stat_at(directory, &component(name).ok()?).ok()?;
        let table = self.table();
        let ino = table.find(&Key::File(0, FileId::of(&stat)))?;
        table.get(ino).is_some_and(|node| node.kept).then_some(ino)
    }

    /// Open files that were last found in a directory: if their name has gone, they are not found by it.
    fn open_below(&self, directory: Ino) -> Vec<Ino> {
        let mut open = self.handles.files();
        let table = self.table();
        open.retain(|&ino| table.get(ino).is_some_and(|node| node.kept && node.is_below(directory)));
        open
    }

    /// Tells the kernel what is due.
    fn tell_again(&self, later: &mut Vec<Later>) {
        let Some(watching) = self.watching.get() else { return };
        let now = Instant::now();
        for mut due in later.extract_if(.., |later| later.at <= now).collect::<Vec<_>>() {
            let again = match &mut due.what {
                What::Names(watched) => {
                    // Looked at first: who takes them after that finds them forgotten below.
                    let listed = watching.watches.is_listed(watched);
                    self.forget_names();
                    listed
                }
                What::Attributes(ino, times) => {
                    *times -= 1;
                    *times > 0 && self.table().get(*ino).is_some() && !(watching.forget.0)(*ino)
                }
            };
            if again {
                due.pause = (2 * due.pause).min(LAST);
                due.at = now + due.pause;
                later.push(due);
            }
        }
    }
}

impl Watching {
    /// A directory, if it is watched or can be, for a request that is about to look into it.
    pub fn watch(&self, ino: Ino, directory: BorrowedFd<'_>) -> Option<Seen> {
        let seen = self.watches.watch(ino, directory);
        if self.watches.len() == 1 {
            // It waits for nothing else than changes while nothing is watched. If the pipe is full, it has enough to wake up for.
            let _ = (&self.bell).write(&[0]);
        }
        seen
    }
}

impl Later {
    fn new(what: What) -> Self {
        Self { at: Instant::now() + AGAIN, pause: AGAIN, what }
    }
}

impl News {
    fn read(changes: &mut Changes) -> io::Result<Self> {
        let mut news = Self::default();
        changes.read(&mut |watch, change| {
            if change == Change::Lost {
                news.lost = true;
                return;
            }
            let batch = news.directories.entry(watch.clone()).or_default();
            batch.names |= matches!(change, Change::Came(_) | Change::Went);
            match change {
                Change::Lost => {}
                Change::Ended => batch.ended = true,
                Change::Went => batch.gone = true,
                Change::Came(name) | Change::File(name) => {
                    if !batch.files.contains(name) {
                        batch.files.insert(name.to_owned());
                    }
                }
            }
        })?;
        Ok(news)
    }
}

/// Follows changes until the contents are no more.
fn follow(contents: &Weak<Contents>, mut changes: Changes, rung: &PipeReader) {
    let mut later: Vec<Later> = Vec::new();
    let mut swept = Instant::now();
    loop {
        let Some(strong) = contents.upgrade() else { return };
        let sweep = (strong.watched() > 0).then(|| swept + SWEEP);
        drop(strong);
        let wake = later.iter().map(|later| later.at).chain(sweep).min();
        let timeout = wake.map(|at| at.saturating_duration_since(Instant::now()));
        if is_over([Some(changes.as_fd()), Some(rung.as_fd())], timeout, rung) {
            return;
        }
        let Some(strong) = contents.upgrade() else { return };
        let Some(watching) = strong.watching.get() else { continue };
        match News::read(&mut changes) {
            Ok(news) => strong.tell(news, &mut later),
            Err(error) => {
                log::warn!("directories of the cache are not watched any more: {error}");
                watching.watches.close();
                return strong.tell(News { lost: true, ..News::default() }, &mut later);
            }
        }
        strong.tell_again(&mut later);
        if swept.elapsed() >= SWEEP {
            swept = Instant::now();
            watching.watches.sweep();
        }
        drop(strong);
        if is_over([None, Some(rung.as_fd())], Some(TOGETHER), rung) {
            return;
        }
    }
}

/// Waits until there is something to read, or the time is over; tells whether the bell is no more.
fn is_over(ready: [Option<BorrowedFd<'_>>; 2], timeout: Option<Duration>, mut bell: &PipeReader) -> bool {
    // A negative descriptor is left out by poll.
    let mut fds = ready.map(|fd| libc::pollfd {
        fd: fd.map_or(-1, |fd| fd.as_raw_fd()),
        events: libc::POLLIN,
        revents: 0,
    });
    let millis = timeout
        .map_or(-1, |timeout| i32::try_from(timeout.as_millis().saturating_add(1)).unwrap_or(i32::MAX));
    // SAFETY: the array has two entries, whose descriptors are open for the call.
    unsafe { libc::poll(fds.as_mut_ptr(), 2, millis) };
    let [_, rung] = fds;
    // Without a writer there is nothing to read.
    rung.revents != 0 && bell.read(&mut [0; 64]).is_ok_and(|read| read == 0)
}

#[cfg(test)]
#[cfg(not(feature = "models"))]
mod tests;
