//! One round of the group commit: lock, catch up, decide, append, unlock, publish, tell.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::decide::Decider;
use super::intake::Intake;
use super::publish::Account;
use super::{CacheError, Change, Done, Inner, LOCK, Outcome, Published, hold};
use crate::store::{Locked, StoreError};
use crate::sync::MutexGuard;

/// Runs a callback of somebody else: a panic in it must not end our thread.
pub(super) fn guarded(what: &str, call: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(call)).is_err() {
        log::error!("{what} panicked");
    }
}

/// The outcomes of the first changes of a round, at least of one, and what to tell the hook.
pub(super) type Ended = (Vec<Result<Outcome, CacheError>>, Published);

impl Inner {
    /// Commits changes, in as many rounds as it takes, and tells each its outcome.
    pub(super) fn run(&self, mut jobs: Vec<(Change, Done)>) {
        while !jobs.is_empty() {
            let ended = self.commit(&jobs);
            let rest = jobs.split_off(ended.0.len().min(jobs.len()));
            self.end(std::mem::replace(&mut jobs, rest), ended);
        }
    }

    /// One round, if nobody has to be waited for.
    pub(super) fn commit_at_once(&self, jobs: &[(Change, Done)]) -> Option<Ended> {
        let locked = self.store.try_lock()?;
        let account = self.account.try_lock().ok()?;
        let ended = self.commit_locked(jobs, locked, account);
        self.leave();
        Some(ended)
    }

    /// The end of a round: tells everybody.
    pub(super) fn end(&self, jobs: Vec<(Change, Done)>, (outcomes, published): Ended) {
        self.tell(&published);
        for ((_, done), outcome) in jobs.into_iter().zip(outcomes) {
            guarded("a callback", || done(outcome));
        }
    }

    /// One round.
    fn commit(&self, jobs: &[(Change, Done)]) -> Ended {
        self.enter(LOCK);
        let ended = match self.store.lock() {
            Ok(locked) => self.commit_locked(jobs, locked, hold(&self.account)),
            Err(error) => (self.all_failed(jobs, &Arc::new(error)), Published::default()),
        };
        self.leave();
        ended
    }

    fn all_failed(
        &self,
        jobs: &[(Change, Done)],
        error: &Arc<StoreError>,
    ) -> Vec<Result<Outcome, CacheError>> {
        self.fails(Some(error));
        jobs.iter().map(|_| Err(CacheError::Store(Arc::clone(error)))).collect()
    }

    fn commit_locked(
        &self,
        jobs: &[(Change, Done)],
        mut locked: Locked<'_>,
        mut account: MutexGuard<'_, Account>,
    ) -> Ended {
        self.enter("the log");
        let mut intake = Intake::new(self, &mut account);
        if let Err(error) = self.pass(&mut intake, |intake| locked.catch_up(intake)) {
            drop(locked);
            return (self.all_failed(jobs, &error.into_store()), intake.into_published());
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let mut decider = Decider::new(self, now);
        let mut decisions = Vec::new();
        for (change, _) in jobs {
            decisions.push(decider.decide(change));
            if decider.is_full() {
                break;
            }
        }
        let mut round = decider.finish(decisions);
        let appends = !round.lines.is_empty();
        let mut failed = None;
        if appends {
            self.enter("a write");
            failed = self.record(&mut locked, &mut intake, jobs, &mut round).err();
        }
        drop(locked);
        self.fails(failed.as_ref());
        let appended = failed.is_none() && appends;
        if appended && let Err(error) = intake.publish() {
            // The changes are in the log: they are done. The index finds them there.
            log::warn!("the index is made anew: {error}");
            self.store.forget();
            if let Err(error) = self.pass(&mut intake, |intake| self.store.follow(intake)) {
                log::error!("reading the log: {error}");
            }
        }
        let published = intake.into_published();
        if !published.is_empty() {
            self.reckon(&account);
        }
        drop(account);
        if appended {
            self.dirtied();
        }
        let outcomes = round.decisions.into_iter().map(|decision| match &failed {
            Some(error) if decision.depends => Err(CacheError::Store(Arc::clone(error))),
            _ => decision.outcome,
        });
        (outcomes.collect(), published)
    }

    /// Keeps why changes fail, and says it once.
    fn fails(&self, error: Option<&Arc<StoreError>>) {
        let failure = error.map(ToString::to_string);
        let mut known = hold(&self.failure);
        if *known != failure {
            if let Some(error) = &failure {
                log::error!("{}: changes fail: {error}", self.path);
            } else {
                log::info!("{}: changes succeed again", self.path);
            }
            *known = failure;
        }
    }

    /// Takes the lock once, so that a torn tail that nobody else mends is mended.
    pub(super) fn mend(&self) {
        self.enter(LOCK);
        let result = self.store.lock().map_err(CacheError::from).and_then(|mut locked| {
            self.enter("the log");
            let mut account = hold(&self.account);
            let mut intake = Intake::new(self, &mut account);
            let result = self.pass(&mut intake, |intake| locked.catch_up(intake));
            drop(locked);
            let published = intake.into_published();
            self.reckon(&account);
            drop(account);
            self.tell(&published);
            result
        });
        self.leave();
        if let Err(error) = result {
            log::warn!("{}: mending the end of the log: {error}", self.path);
        }
    }
}
