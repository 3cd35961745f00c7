//! Recording what was decided, so that it holds: also if others have written to the log what was not read before.
//!
//! A program that appends without the lock, or a file system that shows old sizes, makes that a change was decided on a state
//! that was not the newest. The store sees it by where the lines landed. Then what others have written is read, and if it
//! touches a change, all changes are decided once more and the log is given the last word, still under the lock: no update is
//! lost, and a memo has one winner.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use super::decide::{Decided, Decider};
use super::intake::Intake;
use super::{CacheError, Change, Done, Inner};
use crate::name::Id;
use crate::record::{Locator, Piece, parse_line, parse_record};
use crate::store::{Generation, Landed, Locked, Sink, StoreError};

/// How often others may come between before it is given up.
const TRIES: u32 = 8;

impl Inner {
    /// Appends what was decided, and takes it into the index. What holds in the end is in `decided`.
    pub(super) fn record(
        &self,
        locked: &mut Locked<'_>,
        intake: &mut Intake<'_>,
        jobs: &[(Change, Done)],
        decided: &mut Decided,
    ) -> Result<(), Arc<StoreError>> {
        if let Landed::Here(base) = locked.append(&decided.lines)? {
            intake.own(base, &decided.records);
            return Ok(());
        }
        let result = self.correct(locked, intake, jobs, decided);
        if result.is_err() {
            // What was read on the way is not in the index.
            self.store.forget();
        }
        result
    }

    /// What was appended stands among lines of others.
    fn correct(
        &self,
        locked: &mut Locked<'_>,
        intake: &mut Intake<'_>,
        jobs: &[(Change, Done)],
        decided: &mut Decided,
    ) -> Result<(), Arc<StoreError>> {
        let mut ours = BTreeSet::new();
        for _ in 0..TRIES {
            let mut found = Found::new(decided);
            locked.catch_up(&mut found)?;
            if !found.is_whole() {
                log::error!("{}/_entries was written over while it was locked", self.path);
                return Err(moved("appending to the log", libc::EIO));
            }
            let jobs = jobs.get(..decided.decisions.len()).unwrap_or(jobs);
            if ours.is_empty() && !found.touches(jobs) {
                found.give(intake, true);
                return Ok(());
            }
            log::warn!(
                "{}: changes are decided again, for others have changed the same meanwhile",
                self.path
            );
            ours.extend(found.ours());
            found.give(intake, false);
            intake.publish().map_err(CacheError::into_store)?;
            let mut anew = Decider::new(self, decided.now);
            let decisions = jobs.iter().map(|(change, _)| anew.decide(change)).collect();
            anew.restate(&ours).map_err(CacheError::into_store)?;
            *decided = anew.finish(decisions);
            if let Landed::Here(_) = locked.append(&decided.lines)? {
                // In the order of the log: which of two came first counts.
                self.store.forget();
                if let Err(error) = self.pass(intake, |intake| locked.catch_up(intake)) {
                    log::error!("{}: reading the log: {error}", self.path);
                }
                return Ok(());
            }
        }
        Err(moved("appending to a log to which others append without the lock", libc::ESTALE))
    }
}

fn moved(doing: &'static str, errno: i32) -> Arc<StoreError> {
    Arc::new(StoreError::Io { doing, source: std::io::Error::from_raw_os_error(errno) })
}

/// What stands in the log from where an append was to begin.
struct Found<'d> {
    /// Our lines that were not found yet.
    missing: VecDeque<&'d [u8]>,
    /// All lines in order, and whether they are ours.
    lines: Vec<(Locator, Vec<u8>, bool)>,
    oversized: Vec<Locator>,
    replaced: bool,
}

impl Sink for Found<'_> {
    fn replaced(&mut self, _: &Arc<Generation>) {
        self.replaced = true;
    }

    fn line(&mut self, at: Locator, line: &[u8]) {
        let ours = self.missing.front().and_then(|ours| Some((*ours, line.strip_suffix(*ours)?)));
        let Some((ours, before)) = ours else {
            self.lines.push((at, line.to_vec(), false));
            return;
        };
        self.missing.pop_front();
        // Somebody has not ended a line before ours.
        let len = u32::try_from(before.len()).unwrap_or(u32::MAX);
        if !before.is_empty() {
            self.lines.push((Locator { offset: at.offset, len }, before.to_vec(), false));
        }
        let at = Locator { offset: at.offset + u64::from(len), len: at.len.saturating_sub(len) };
        self.lines.push((at, ours.to_vec(), true));
    }

    fn oversized(&mut self, at: Locator) {
        self.oversized.push(at);
    }
}

impl<'d> Found<'d> {
    fn new(decided: &'d Decided) -> Self {
        let missing =
            decided.records.iter().filter_map(|made| decided.lines.get(made.span.clone())).collect();
        Self { missing, lines: Vec::new(), oversized: Vec::new(), replaced: false }
    }

    /// Whether all of our lines are there, in the log that was locked.
    fn is_whole(&self) -> bool {
        self.missing.is_empty() && !self.replaced
    }

    /// The entries that our lines are about.
    fn ours(&self) -> impl Iterator<Item = Id> {
        let ours = self.lines.iter().filter(|(_, _, ours)| *ours);
        ours.filter_map(|(_, line, _)| Some(parse_record(line).ok()?.id))
    }

    /// Whether what others have written may change what was decided.
    fn touches(&self, jobs: &[(Change, Done)]) -> bool {
        let others = self.lines.iter().filter(|(_, _, ours)| !ours);
        let ids: BTreeSet<Id> = others
            .flat_map(|(_, line, _)| parse_line(line))
            .filter_map(|(_, piece)| match piece {
                Piece::Record(record) => Some(record.id),
                Piece::Malformed(_) => None,
            })
            .collect();
        jobs.iter().any(|(change, _)| match change {
            Change::Create { id, .. }
            | Change::Edit { id, .. }
            | Change::Delete { id }
            | Change::Restore { id, .. } => ids.contains(id),
            // Any entry may have the pairs now, or have them no more.
            Change::Memo { .. } => !ids.is_empty(),
        })
    }

    /// Gives the lines to the index: all, or those of others.
    fn give(&self, intake: &mut Intake<'_>, all: bool) {
        for (at, line, _) in self.lines.iter().filter(|(_, _, ours)| all || !ours) {
            intake.line(*at, line);
        }
        for at in &self.oversized {
            intake.oversized(*at);
        }
    }
}
