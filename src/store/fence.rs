//! Lost locks, on file systems of several machines.
//!
//! Such a file system gives the lock of a node that was cut off to another one after a while. What the node had under way (a
//! write at the end that it knew, a cut, a rename over the log) may still land once it is plugged in again, and would go over
//! what others have appended since. So
//!
//! - whoever got the lock only after a suspicious wait moves the log to a new file first, byte for byte: what lands late
//!   lands in the old one, and a late rename finds no name to rename;
//! - whoever has held the lock for a suspiciously long time believes in its own append only after it has taken the lock again
//!   and found the lines where they belong, in the file that is the log by then.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStringExt as _;
use std::time::Duration;

use super::log::Position;
use super::{LOG, Locked, NO_LOG, Store, StoreError, TEMPORARY, hold, sys};

/// Who waited so long for the lock suspects that it was lost by its holder. File systems free the locks of a node that does
/// not answer only later than this (30 s and more were seen).
const SUSPICIOUS: Duration = Duration::from_secs(5);
/// In so long a silence a lock may have been lost and freed without anybody waiting for it.
const SILENCE: Duration = Duration::from_secs(20);
/// After a silence only a log up to this size is moved: otherwise everybody would pay for what hardly ever happens.
const CHEAP: u64 = 1 << 20;

/// When locks are suspected to be lost.
#[derive(Debug, Clone, Copy)]
pub(super) struct Suspicion {
    /// After a wait of so long.
    pub wait: Duration,
    /// After so long without a change.
    pub silence: Duration,
}

impl Default for Suspicion {
    fn default() -> Self {
        Self { wait: SUSPICIOUS, silence: SILENCE }
    }
}

/// How the lock was taken.
#[derive(Debug)]
pub(super) struct Taken {
    /// When it was got, in uptime of the machine.
    at: Duration,
    /// After how long.
    waited: Duration,
    /// Which file was the log when the wait began.
    log: Option<sys::FileId>,
}

impl Store {
    /// The beginning of a wait for the lock.
    pub(super) fn before_lock(&self) -> (Duration, Option<sys::FileId>) {
        (self.sys.uptime(), hold(&self.current).as_ref().map(|generation| generation.id))
    }

    /// The time since a moment of the machine's uptime, asleep or not.
    fn since(&self, moment: Duration) -> Duration {
        self.sys.uptime().saturating_sub(moment)
    }

    /// Whether somebody else may have lost the lock, and may still write to this log.
    fn is_haunted(&self, taken: &Taken, position: &Position, stat: &sys::Stat) -> bool {
        if self.local || stat.size == 0 {
            return false;
        }
        if taken.waited >= self.suspicion.wait {
            // A log that was moved meanwhile was moved by somebody as suspicious as we are.
            return taken.log.is_none_or(|log| log == stat.id);
        }
        let silent = position.moved.is_some_and(|moved| self.since(moved) >= self.suspicion.silence);
        let same = position.generation.as_ref().is_some_and(|generation| generation.id == stat.id);
        silent && same && stat.size == position.offset && stat.size <= CHEAP
    }

    /// Moves the log to a new file.
    fn move_log(&self, old: &File, size: u64) -> Result<(), StoreError> {
        const DOING: &str = "moving the log";
        ::log::info!(
            "{}/_entries is moved to a new file: a node that was cut off may still write to it",
            self.path.display()
        );
        // We have the lock: whoever made these has lost it, or has died.
        let names = std::fs::read_dir(format!("/proc/self/fd/{}", self.dir.as_raw_fd()))
            .map_err(StoreError::io(DOING))?;
        for name in names.flatten().map(|entry| entry.file_name()) {
            if name.as_encoded_bytes().starts_with(TEMPORARY.as_bytes())
                && let Ok(name) = CString::new(name.into_vec())
            {
                match sys::retry(|| self.sys.unlink(self.dir(), &name)) {
                    Err(e) if e.raw_os_error() != Some(libc::ENOENT) => return Err(StoreError::io(DOING)(e)),
                    _ => {}
                }
            }
        }
        self.replace_by_copy(old, size, Some(size)).map(drop)
    }

    /// Opens the log under the lock, as a file to which nobody writes who has lost the lock.
    pub(super) fn open_own_log(
        &self,
        taken: &Taken,
        position: &Position,
    ) -> Result<(File, sys::Stat), StoreError> {
        let (file, stat) = self.open_log(position)?;
        if !self.is_haunted(taken, position, &stat) {
            return Ok((file, stat));
        }
        self.move_log(&file, stat.size)?;
        self.open_log(position)
    }
}

impl Taken {
    /// Got at this time, after a wait that began so.
    pub fn at(at: Duration, (begun, log): (Duration, Option<sys::FileId>)) -> Self {
        Self { at, waited: at.saturating_sub(begun), log }
    }
}

impl Locked<'_> {
    /// Whether the lock has been held for so long that it may have been lost.
    pub(super) fn is_doubtful(&self) -> bool {
        // Others suspect us only later than this.
        !self.store.local && self.store.since(self.taken.at) >= self.store.suspicion.wait / 2
    }

    /// Takes the lock again and finds out whether lines stand at an offset of the log. Otherwise gives the error of the write,
    /// or `ESTALE`.
    pub(super) fn ascertain(
        &mut self,
        written: Result<(), StoreError>,
        lines: &[u8],
        at: u64,
    ) -> Result<(), StoreError> {
        const DOING: &str = "finding out what became of an append";
        let store = self.store;
        ::log::warn!("{}: the lock may have been lost: looking for what was written", store.path.display());
        self.retake()?;
        let (file, stat) = store.open_regular(LOG, libc::O_RDWR, DOING, NO_LOG)?;
        let mut found = vec![0; lines.len()];
        if stat.size >= at + lines.len() as u64
            && sys::read_full(&*store.sys, &file, &mut found, at).map_err(StoreError::io(DOING))?
                == lines.len()
            && found == lines
        {
            // It is there for everybody, whatever the write said.
            return sys::retry(|| store.sys.sync_data(&file)).map_err(StoreError::io(DOING));
        }
        written.and(Err(StoreError::io(DOING)(std::io::Error::from_raw_os_error(libc::ESTALE))))
    }
}
