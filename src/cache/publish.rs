//! Moving the index on: following, compaction, and the account of the log.

use std::time::{Duration, Instant};

use super::intake::{Intake, size};
use super::round::guarded;
use super::{CacheError, Inner, LOCK, Published, hold};
use crate::index::{Index, Row};
use crate::record::{Locator, Piece, RECORD_MAX, parse_line};
use crate::store::{Followed, Locked, StoreError};
use crate::sync::{PoisonError, RwLockWriteGuard};

/// A log up to this size is compacted as soon as writes settle.
const SMALL: u64 = 1 << 20;
/// A log over this size does not wait for that.
const LARGE: u64 = 16 << 20;
/// Writes have settled when there was none for so long.
const SETTLED: Duration = Duration::from_secs(2);

/// The account of the log that the index shows.
#[derive(Debug, Clone, Default)]
pub(super) struct Account {
    /// Well-formed records.
    pub records: u64,
    /// Bytes of the records that count.
    pub live_bytes: u64,
    /// Malformed stretches.
    pub malformed: Vec<Locator>,
    malformed_bytes: u64,
    /// How often the log was replaced, or another one than before, since it was opened.
    pub replaced: u64,
}

/// What others see of the account.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub records: u64,
    pub malformed: u64,
}

impl Account {
    /// That of a log without malformed stretches.
    pub fn of(records: u64, live_bytes: u64) -> Self {
        Self { records, live_bytes, ..Self::default() }
    }

    /// Takes a malformed stretch.
    pub fn damage(&mut self, at: Locator) {
        self.malformed_bytes += size(at);
        self.malformed.push(at);
    }

    /// When a log of this size should be compacted, if it stays as it is; `live` records of it count.
    fn due(&self, bytes: u64, live: u64, now: Instant) -> Option<Instant> {
        if self.records <= live {
            return None;
        }
        let dead = bytes.saturating_sub(self.live_bytes).saturating_sub(self.malformed_bytes);
        if bytes < SMALL {
            Some(now + SETTLED)
        } else if dead * 2 <= bytes {
            None
        } else if bytes <= LARGE {
            Some(now + SETTLED)
        } else {
            Some(now)
        }
    }
}

impl Inner {
    pub(super) fn index_mut(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The place of a live entry's record.
    pub(super) fn locator(&self, id: &str) -> Option<Locator> {
        let index = self.index();
        index.row(id).and_then(|row| index.locator(row))
    }

    /// Reads what others appended, publishes it, and tells the hook.
    pub(super) fn follow(&self) -> Result<(), CacheError> {
        let mut account = hold(&self.account);
        let mut intake = Intake::new(self, &mut account);
        let result = self.pass(&mut intake, |intake| self.store.follow(intake));
        let published = intake.into_published();
        if !published.is_empty() {
            self.reckon(&account);
        }
        drop(account);
        self.tell(&published);
        self.note(&result);
        result.map(drop)
    }

    /// One pass over what is new in the log. An index that cannot be moved on is made anew, once.
    pub(super) fn pass(
        &self,
        intake: &mut Intake<'_>,
        mut read: impl FnMut(&mut Intake<'_>) -> Result<Followed, StoreError>,
    ) -> Result<Followed, CacheError> {
        self.spare_memory()?;
        let mut again = true;
        loop {
            let followed = read(intake).map_err(|e| {
                intake.abort();
                CacheError::from(e)
            })?;
            match intake.publish() {
                Ok(()) => return Ok(followed),
                Err(e @ CacheError::Memory { .. }) => {
                    self.is_short(&e);
                    self.store.forget();
                    return Err(e);
                }
                Err(e) => {
                    log::warn!("the index is made anew: {e}");
                    self.store.forget();
                    if !std::mem::take(&mut again) {
                        return Err(e);
                    }
                }
            }
        }
    }

    /// Tells the hook.
    pub(super) fn tell(&self, published: &Published) {
        if let Some(hook) = self.hook.get().filter(|_| !published.is_empty()) {
            guarded("the hook", || hook(published));
        }
    }

    /// Keeps why the log cannot be read, and says it once.
    fn note(&self, result: &Result<Followed, CacheError>) {
        let trouble = result.as_ref().err().map(ToString::to_string);
        let mut known = hold(&self.trouble);
        if *known != trouble {
            match &trouble {
                Some(error) => {
                    log::error!("{}: {error}; what is shown is the state from before", self.path);
                }
                None => log::info!("{}: the log can be read again", self.path),
            }
            *known = trouble;
        }
    }

    /// Keeps the counts for others, and when a compaction will be due.
    pub(super) fn reckon(&self, account: &Account) {
        let live = self.index().len() as u64;
        let due = account.due(self.store.bytes(), live, Instant::now()).filter(|_| !self.options.read_only);
        let mut queue = hold(&self.queue);
        queue.counts = Counts { records: account.records, malformed: account.malformed.len() as u64 };
        // Later than it was: whoever waits for that time finds out then.
        let earlier = due.is_some_and(|due| queue.due.is_none_or(|known| due < known));
        queue.due = due;
        if earlier {
            self.queue_bell.notify_one();
        }
    }

    /// Wakes the thread that keeps the index, if that is due.
    pub(super) fn consider_keeping(&self) {
        if self.is_to_be_kept(false) {
            hold(&self.keeps).due = true;
            self.keep_bell.notify_one();
        }
    }

    /// Compacts the log; with a time, only if it is still due then. Says how many records it dropped.
    pub(super) fn compact(&self, due: Option<Instant>) -> Result<u64, CacheError> {
        self.enter(LOCK);
        let result = self.store.lock().map_err(CacheError::from).and_then(|mut locked| {
            self.enter("compaction");
            let mut account = hold(&self.account);
            let mut intake = Intake::new(self, &mut account);
            let mut result = self.pass(&mut intake, |intake| locked.catch_up(intake)).map(|_| 0);
            let published = intake.into_published();
            if result.is_ok() {
                let live = self.index().len() as u64;
                let still = |now| account.due(self.store.bytes(), live, now).is_some();
                if due.is_none_or(still) {
                    result = self.compact_locked(&mut locked, &mut account);
                }
            }
            drop(locked);
            self.reckon(&account);
            drop(account);
            self.tell(&published);
            result
        });
        self.leave();
        result
    }

    fn compact_locked(&self, locked: &mut Locked<'_>, account: &mut Account) -> Result<u64, CacheError> {
        let (rows, mut keep): (Vec<Row>, Vec<Locator>) = {
            let index = self.index();
            let place = |row| index.locator(row).map(|at| (row, at));
            index.live().iter().map(Row).filter_map(place).unzip()
        };
        account.malformed.sort_unstable();
        let (mut whole, mut malformed) = (Vec::new(), Vec::new());
        for &at in &account.malformed {
            if self.is_record_alone(at)? { whole.push(at) } else { malformed.push(at) }
        }
        if !whole.is_empty() {
            // Behind the records that count they would count after all, as the last of their entries.
            locked.set_aside(&whole)?;
        }
        keep.extend_from_slice(&malformed);
        let (generation, mut places) = locked.compact(&keep)?;
        let malformed = places.split_off(rows.len().min(places.len()));
        let dropped = account.records.saturating_sub(rows.len() as u64);
        account.records = rows.len() as u64;
        account.malformed = malformed;
        account.replaced += 1;
        let mut index = self.index_mut();
        index.relocate(rows.into_iter().zip(places));
        *hold(&self.generation) = Some(generation);
        drop(index);
        log::debug!("{}: {dropped} records dropped by compaction", self.path);
        Ok(dropped)
    }

    /// Whether a malformed stretch would be a record if it were a line of its own: what stands before a good record in its line
    /// is torn, whatever it is, for its writer never came to its end.
    fn is_record_alone(&self, at: Locator) -> Result<bool, CacheError> {
        let generation = hold(&self.generation).clone();
        // What is longer is none, and is not read into memory.
        let Some(generation) = generation.filter(|_| at.len as usize <= 4 * RECORD_MAX) else {
            return Ok(false);
        };
        let bytes = generation.read(at).map_err(|e| CacheError::io("compacting the log", e))?;
        Ok(parse_line(&bytes).iter().any(|(_, piece)| matches!(piece, Piece::Record(_))))
    }

    /// Says what a commit is doing from now on.
    pub(super) fn enter(&self, what: &'static str) {
        *hold(&self.stage) = Some((what, Instant::now()));
    }

    /// Says that no commit is doing anything.
    pub(super) fn leave(&self) {
        *hold(&self.stage) = None;
    }
}

impl Published {
    /// Whether nothing has changed.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty() && !self.all
    }
}
