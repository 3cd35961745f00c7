//! What the kernel may have kept of the names that it was shown, so that it is told to ask again only if there is something to
//! forget: a name costs a request each time it is asked for again.
//!
//! Every request that may show such a name notes it *before* it looks into the index. Of a publication and a request, then, one
//! of these holds:
//!
//! - The publication looked for the note before it was made: the index was published before the request looked into it, and
//!   what is shown is new.
//! - It looked afterwards, found the note (or waited for somebody else who did) and the kernel has been told. The kernel counts a
//!   name among those from before if it *sent* the request before it was told.
//!
//! Only the names of `READDIRPLUS` count as of when the kernel takes them from the answer, which may be after it was told.
//! For a while after such answers every publication tells it.

use std::time::{Duration, Instant};

use crate::cache::Published;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Mutex, PoisonError};

/// The kernel has long taken the names from an answer by then.
const TAKEN: Duration = Duration::from_secs(60);

/// Shared with whoever publishes.
#[derive(Debug)]
pub struct Shown {
    /// Names that may change with any attribute.
    views: AtomicBool,
    /// Names that are there until their entry goes.
    entries: AtomicBool,
    started: Instant,
    /// Milliseconds from the start on, until which names may be taken from lists.
    lists: AtomicU64,
    /// Held from the look for notes until the kernel is told. Changes are published on several threads, and who finds a note taken
    /// away must not go on before that.
    telling: Mutex<()>,
}

impl Default for Shown {
    fn default() -> Self {
        Self {
            views: AtomicBool::default(),
            entries: AtomicBool::default(),
            started: Instant::now(),
            lists: AtomicU64::default(),
            telling: Mutex::default(),
        }
    }
}

fn note(mark: &AtomicBool) {
    // An exchange, so that whoever finds the mark taken away sees what was published before that.
    if !mark.load(Ordering::SeqCst) {
        mark.swap(true, Ordering::SeqCst);
    }
}

impl Shown {
    /// A name that may change with any attribute may be shown now.
    pub(super) fn view(&self) {
        note(&self.views);
    }

    /// A name that is there until its entry goes may be shown now.
    pub(super) fn entry(&self) {
        note(&self.entries);
    }

    /// Names are shown in a list now.
    pub(super) fn list(&self) {
        self.lists.fetch_max(self.at(TAKEN), Ordering::SeqCst);
        self.view();
        self.entry();
    }

    fn at(&self, later: Duration) -> u64 {
        u64::try_from((self.started.elapsed() + later).as_millis()).unwrap_or(u64::MAX)
    }

    /// Tells the kernel to ask again, if it must now that this is in the index.
    pub fn forget(&self, published: &Published, tell: impl FnOnce()) {
        let _telling = self.telling.lock().unwrap_or_else(PoisonError::into_inner);
        if self.must_be_forgotten(published) {
            tell();
        }
    }

    fn must_be_forgotten(&self, published: &Published) -> bool {
        let gone = published.gone || published.all;
        let views = self.views.swap(false, Ordering::SeqCst);
        let entries = gone && self.entries.swap(false, Ordering::SeqCst);
        views || entries || self.at(Duration::ZERO) < self.lists.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_told_once_of_what_it_was_shown() {
        let shown = Shown::default();
        let publish = |gone| shown.must_be_forgotten(&Published { gone, ..Published::default() });
        assert!(!publish(true), "nothing was shown");
        shown.view();
        assert!(publish(false));
        assert!(!publish(false), "told already");
        shown.entry();
        assert!(!publish(false), "entries stay");
        assert!(publish(true));
        assert!(!publish(true));
        shown.entry();
        assert!(shown.must_be_forgotten(&Published { all: true, ..Published::default() }));
        shown.list();
        for _ in 0..3 {
            assert!(publish(false), "the kernel may still be taking them");
        }
    }
}
