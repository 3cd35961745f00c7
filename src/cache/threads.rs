//! The background threads: one commits and compacts, one follows, one syncs.

use std::time::{Duration, Instant};

use super::publish::Counts;
use super::round::guarded;
use super::{CacheError, Change, Done, Inner, Synced, hold};
use crate::sync::atomic::Ordering;
use crate::sync::thread::{JoinHandle, ThreadId};
use crate::sync::{Arc, PoisonError, thread};

/// A change is made durable in the background so long after it; together with the sync itself this is under a second.
const SYNC_AFTER: Duration = Duration::from_millis(500);
/// Events of the kernel within this time are taken together: our own appends make them too.
const TOGETHER: Duration = Duration::from_millis(2);
/// A tail that has stood for so long is no writer at work.
const TORN_AFTER: Duration = Duration::from_secs(2);
/// A compaction that failed is not tried again before this.
const COMPACT_AGAIN: Duration = Duration::from_secs(60);
/// How often the committing thread looks for what is due while another one is busy.
const BUSY: Duration = Duration::from_millis(50);
/// How long the end of the cache waits for the lock, or for a file system that does not answer.
const GRACE: Duration = Duration::from_secs(10);

/// What the committing thread has to do.
#[derive(Default)]
pub(super) struct Queue {
    jobs: Vec<(Change, Done)>,
    /// A thread commits, or compacts: others leave their changes here.
    busy: bool,
    /// Threads that have committed, other than the one that is there for it, and tell the outcomes. What they hand in meanwhile
    /// is for that one, or there would be no end to it.
    telling: Vec<ThreadId>,
    /// Mend the end of the log.
    mend: bool,
    /// When a compaction is due.
    pub due: Option<Instant>,
    /// For the status.
    pub counts: Counts,
    closing: bool,
}

/// What the syncing thread has to do.
#[derive(Default)]
pub(super) struct Syncs {
    waiting: Vec<Synced>,
    /// Since when something is not durable.
    dirty: Option<Instant>,
    /// Nobody syncs any more.
    closing: bool,
}

/// What the keeping thread has to do.
#[derive(Debug, Default)]
pub(super) struct Keeps {
    /// The index is to be kept.
    pub due: bool,
    closing: bool,
}

/// A thread is at work on the queue until this is dropped, whatever happens.
struct Work<'c> {
    inner: &'c Inner,
    /// What it leaves to do, before what has come since.
    left: Vec<(Change, Done)>,
}

impl Drop for Work<'_> {
    fn drop(&mut self) {
        let mut queue = hold(&self.inner.queue);
        queue.busy = false;
        let since = std::mem::replace(&mut queue.jobs, std::mem::take(&mut self.left));
        queue.jobs.extend(since);
        let due = queue.due.is_some_and(|due| due <= Instant::now());
        let more = !queue.jobs.is_empty() || queue.mend || queue.closing || due;
        drop(queue);
        if more {
            self.inner.queue_bell.notify_one();
        }
    }
}

/// Starts the threads.
pub(super) fn start(inner: &Arc<Inner>) -> Result<Vec<JoinHandle<()>>, CacheError> {
    let mut threads = Vec::new();
    let mut spawn = |name: &str, body: fn(&Inner)| {
        let inner = Arc::clone(inner);
        let thread = thread::Builder::new()
            .name(format!("cachedirfs-{name}"))
            .spawn(move || body(&inner))
            .map_err(|e| CacheError::io("starting a thread", e))?;
        threads.push(thread);
        Ok::<_, CacheError>(())
    };
    spawn("follow", Inner::follow_always)?;
    if inner.options.keep.is_some() {
        spawn("keep", Inner::keep_always)?;
    }
    if !inner.options.read_only {
        spawn("commit", Inner::commit_always)?;
        spawn("sync", Inner::sync_always)?;
    }
    Ok(threads)
}

impl Inner {
    /// Whether there is a thread that commits.
    fn commits_in_background(&self) -> bool {
        self.options.background && !self.options.read_only
    }

    /// Hands changes to the committing thread, or commits them on this one: if there is no other, or if it may be done `here` and
    /// nothing has to be waited for; waking a thread takes longer than the work.
    pub(super) fn submit(&self, jobs: Vec<(Change, Done)>, here: bool) {
        let mut queue = hold(&self.queue);
        if queue.closing {
            drop(queue);
            for (_, done) in jobs {
                guarded("a callback", || done(Err(CacheError::Closed)));
            }
        } else if self.commits_in_background() {
            // A sync is nothing that a thread which has requests to answer should wait for.
            let here = here
                && !queue.busy
                && queue.jobs.is_empty()
                && !self.store.syncs_appends()
                && !queue.telling.contains(&thread::current().id());
            if here {
                queue.busy = true;
                drop(queue);
                self.commit_here(jobs);
            } else {
                queue.jobs.extend(jobs);
                let busy = queue.busy;
                drop(queue);
                if !busy {
                    self.queue_bell.notify_one();
                }
            }
        } else {
            drop(queue);
            self.run(jobs);
        }
    }

    /// Commits changes on this thread, as far as nothing has to be waited for.
    fn commit_here(&self, mut jobs: Vec<(Change, Done)>) {
        let mut work = Work { inner: self, left: Vec::new() };
        match self.commit_at_once(&jobs) {
            Some(ended) => {
                work.left = jobs.split_off(ended.0.len().min(jobs.len()));
                let me = thread::current().id();
                hold(&self.queue).telling.push(me);
                // Callbacks may hand in more, or end the cache.
                drop(work);
                self.end(jobs, ended);
                hold(&self.queue).telling.retain(|thread| *thread != me);
            }
            None => work.left = jobs,
        }
    }

    fn commit_always(&self) {
        loop {
            let mut queue = hold(&self.queue);
            let now = loop {
                let now = Instant::now();
                let due = queue.due.is_some_and(|due| due <= now);
                if !queue.busy && (!queue.jobs.is_empty() || queue.mend || queue.closing || due) {
                    break now;
                }
                let mut timeout =
                    queue.due.map_or(Duration::from_secs(3600), |due| due.saturating_duration_since(now));
                if queue.busy {
                    // Whoever is busy rings when he is done.
                    timeout = timeout.max(BUSY);
                }
                queue =
                    self.queue_bell.wait_timeout(queue, timeout).unwrap_or_else(PoisonError::into_inner).0;
            };
            let jobs = std::mem::take(&mut queue.jobs);
            let mend = std::mem::take(&mut queue.mend);
            let closing = queue.closing;
            queue.busy = true;
            drop(queue);
            let _work = Work { inner: self, left: Vec::new() };
            if jobs.is_empty() && mend && !closing {
                self.mend();
            }
            let idle = jobs.is_empty();
            self.run(jobs);
            if closing {
                if idle {
                    return;
                }
                continue;
            }
            let due = hold(&self.queue).due.take_if(|due| *due <= now);
            if due.is_some()
                && !self.store.is_poisoned()
                && let Err(error) = self.compact(due)
            {
                log::warn!("{}: compaction failed: {error}", self.path);
                hold(&self.queue).due = Some(Instant::now() + COMPACT_AGAIN);
            }
        }
    }

    fn follow_always(&self) {
        let mut torn: Option<(u64, Instant)> = None;
        while !self.closing.load(Ordering::Acquire) {
            self.store.wait(self.options.refresh);
            thread::sleep(TOGETHER);
            // Why it failed is in the status; the next time may succeed.
            let _ = self.follow();
            self.consider_keeping();
            let tail = self.store.tail();
            if tail.is_none() || torn.map(|(size, _)| size) != tail {
                torn = tail.map(|size| (size, Instant::now()));
            }
            if torn.is_some_and(|(_, since)| since.elapsed() > TORN_AFTER) && self.commits_in_background() {
                torn = None;
                hold(&self.queue).mend = true;
                self.queue_bell.notify_one();
            }
        }
    }

    fn keep_always(&self) {
        loop {
            let mut keeps = hold(&self.keeps);
            while !keeps.due && !keeps.closing {
                keeps = self.keep_bell.wait(keeps).unwrap_or_else(PoisonError::into_inner);
            }
            if keeps.closing {
                return;
            }
            drop(keeps);
            self.keep();
            hold(&self.keeps).due = false;
        }
    }

    /// Something was appended that is not durable yet.
    pub(super) fn dirtied(&self) {
        if self.store.syncs_appends() {
            return;
        }
        let mut syncs = hold(&self.syncs);
        if syncs.dirty.is_none() {
            syncs.dirty = Some(Instant::now());
            self.sync_bell.notify_one();
        }
    }

    /// Makes every acknowledged change durable.
    pub(super) fn sync(&self, done: Synced) {
        let mut syncs = hold(&self.syncs);
        if self.commits_in_background() && !syncs.closing {
            syncs.waiting.push(done);
            self.sync_bell.notify_one();
        } else {
            syncs.dirty = None;
            drop(syncs);
            let result = self.store.sync().map_err(CacheError::from);
            guarded("a callback", || done(result));
        }
    }

    fn sync_always(&self) {
        loop {
            let mut syncs = hold(&self.syncs);
            loop {
                let now = Instant::now();
                let due = syncs.dirty.map(|dirty| dirty + SYNC_AFTER);
                if !syncs.waiting.is_empty() || syncs.closing || due.is_some_and(|due| due <= now) {
                    break;
                }
                let timeout = due.map_or(Duration::from_secs(3600), |due| due - now);
                syncs = self.sync_bell.wait_timeout(syncs, timeout).unwrap_or_else(PoisonError::into_inner).0;
            }
            let waiting = std::mem::take(&mut syncs.waiting);
            let closing = syncs.closing;
            let dirty = syncs.dirty.take().is_some();
            drop(syncs);
            if dirty || !waiting.is_empty() {
                let result = self.store.sync().map_err(Arc::new);
                for done in waiting {
                    let result = result.as_ref().map(|&()| ()).map_err(|e| CacheError::Store(Arc::clone(e)));
                    guarded("a callback", || done(result));
                }
            }
            if closing {
                return;
            }
        }
    }

    /// Ends everything.
    pub(super) fn close(&self, threads: Vec<JoinHandle<()>>) -> Result<(), CacheError> {
        hold(&self.queue).closing = true;
        self.queue_bell.notify_all();
        self.closing.store(true, Ordering::Release);
        self.store.wake();
        hold(&self.keeps).closing = true;
        self.keep_bell.notify_all();
        let end = Instant::now() + GRACE;
        let mut left: Vec<_> = threads;
        // A callback may close the cache, on one of these very threads.
        left.retain(|thread| thread.thread().id() != thread::current().id());
        let mut told = false;
        while !left.is_empty() {
            let syncer_alone = left.iter().all(|thread| thread.thread().name() == Some("cachedirfs-sync"));
            if syncer_alone && !std::mem::replace(&mut told, true) {
                // Last, so that it syncs what was committed last.
                hold(&self.syncs).closing = true;
                self.sync_bell.notify_all();
            }
            left.retain(|thread| !thread.is_finished());
            let now = Instant::now();
            if now > end {
                // Whoever holds the lock does not give it up.
                self.store.abandon();
                if now > end + GRACE {
                    log::error!(
                        "{}: the file system does not answer; what waits for it is given up",
                        self.path
                    );
                    break;
                }
            }
            thread::sleep(Duration::from_millis(1));
        }
        let mut syncs = hold(&self.syncs);
        syncs.closing = true;
        let dirty = syncs.dirty.take().is_some();
        drop(syncs);
        if dirty {
            self.store.sync()?;
        } else if self.store.is_poisoned() {
            return Err(crate::store::StoreError::Poisoned.into());
        }
        if left.is_empty() && self.options.background && self.is_to_be_kept(true) {
            self.keep();
        }
        Ok(())
    }
}
