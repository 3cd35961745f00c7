//! One round of the group commit: lock, catch up, decide, append, unlock, publish, tell.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::decide::Decider;
use super::intake::Intake;
use super::{CacheError, Change, Done, Inner, Outcome, Published, hold};
use crate::record::Locator;
use crate::store::{Sink, StoreError};

/// Runs a callback of somebody else: a panic in it must not end our thread.
pub(super) fn guarded(what: &str, call: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(call)).is_err() {
        log::error!("{what} panicked");
    }
}

impl Inner {
    /// Commits changes, in as many rounds as it takes, and tells each its outcome.
    pub(super) fn run(&self, mut jobs: Vec<(Change, Done)>) {
        while !jobs.is_empty() {
            let (outcomes, published) = self.commit(&jobs);
            self.leave();
            self.tell(&published);
            let rest = jobs.split_off(outcomes.len().min(jobs.len()));
            for ((_, done), outcome) in jobs.into_iter().zip(outcomes) {
                guarded("a callback", || done(outcome));
            }
            jobs = rest;
        }
    }

    /// One round. Gives the outcomes of the first changes, at least of one, and what to tell the hook.
    fn commit(&self, jobs: &[(Change, Done)]) -> (Vec<Result<Outcome, CacheError>>, Published) {
        let fail = |error: &Arc<StoreError>| {
            jobs.iter().map(|_| Err(CacheError::Store(Arc::clone(error)))).collect()
        };
        self.enter("the lock");
        let mut locked = match self.store.lock() {
            Ok(locked) => locked,
            Err(error) => return (fail(&Arc::new(error)), Published::default()),
        };
        self.enter("the log");
        let mut account = hold(&self.account);
        let mut intake = Intake::new(self, &mut account);
        if let Err(error) = self.pass(&mut intake, |intake| locked.catch_up(intake)) {
            drop(locked);
            let error = match error {
                CacheError::Store(error) => error,
                other => Arc::new(StoreError::Io {
                    doing: "reading the log",
                    source: std::io::Error::other(other.to_string()),
                }),
            };
            return (fail(&error), intake.into_published());
        }
        let mut decider = Decider::new(self);
        let mut decisions = Vec::new();
        for (change, _) in jobs {
            decisions.push(decider.decide(change));
            if decider.is_full() {
                break;
            }
        }
        let Decider { lines, spans, .. } = decider;
        let mut failed = None;
        if !lines.is_empty() {
            self.enter("a write");
            match locked.append(&lines) {
                Ok(base) => {
                    for span in spans {
                        let offset = base + span.start as u64;
                        let len = u32::try_from(span.len()).unwrap_or(u32::MAX);
                        intake.line(Locator { offset, len }, lines.get(span).unwrap_or_default());
                    }
                }
                Err(error) => failed = Some(Arc::new(error)),
            }
        }
        drop(locked);
        let appended = failed.is_none() && !lines.is_empty();
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
        let outcomes = decisions.into_iter().map(|decision| match &failed {
            Some(error) if decision.depends => Err(CacheError::Store(Arc::clone(error))),
            _ => decision.outcome,
        });
        (outcomes.collect(), published)
    }

    /// Takes the lock once, so that a torn tail that nobody else mends is mended.
    pub(super) fn mend(&self) {
        self.enter("the lock");
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
