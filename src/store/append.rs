//! Appending, under the lock.

use std::fs::File;
use std::io;
use std::sync::Arc;

use super::{Locked, Store, StoreError, hold, sys};

/// Where an append landed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Landed {
    /// At the end that was read: there stands its first byte. What was decided on what was read holds.
    Here(u64),
    /// Together with bytes of others, who had not the lock, or whose bytes came late: they were not read when it was decided what
    /// to append. The next [`Locked::catch_up`] gives them, and our lines among them.
    AmongOthers,
}

impl Locked<'_> {
    /// Appends whole lines (each ends in `\n`) with one write; says where they landed. Needs a [`Locked::catch_up`]
    /// before. Unless they are among others' they are not given to any sink of this store. Syncs where the store must (option, or
    /// not a local file system).
    ///
    /// After an error nothing of them is in the log; if even cutting them off failed, the next pass gives everything anew,
    /// so that nobody believes in a state that is not the log's.
    pub fn append(&mut self, lines: &[u8]) -> Result<Landed, StoreError> {
        let store = self.store;
        if store.is_poisoned() {
            return Err(StoreError::Poisoned);
        }
        let Some((file, end)) = self.log.take() else {
            return Err(StoreError::io("appending without having read the log")(
                io::ErrorKind::InvalidInput.into(),
            ));
        };
        // The lock is looked at after the write: who locks a file that has taken its place later than that finds these lines.
        if store.local && self.is_lost() {
            return Err(StoreError::io("appending under a lock that was removed")(
                io::Error::from_raw_os_error(libc::ESTALE),
            ));
        }
        let result = store.write(&file, lines, end);
        let lost = self.is_lost();
        if self.is_doubtful() || (result.is_ok() && lost) {
            let result = self.ascertain(result.map(drop), lines, end);
            let mut position = hold(&store.position);
            if result.is_ok() {
                store.advance(&mut position, lines);
            }
            // Others may have appended; and nothing of it may be cut off.
            position.reload = true;
            return result.map(|()| Landed::Here(end));
        }
        let mut position = hold(&store.position);
        match result {
            Ok(landed @ Landed::Here(_)) => {
                store.advance(&mut position, lines);
                self.log = Some((file, position.offset));
                Ok(landed)
            }
            Ok(landed @ Landed::AmongOthers) => Ok(landed),
            Err(error) => {
                // Without the lock it might be others' lines that are cut off.
                let known = !lost
                    && store.cut_off(&file, end)
                    && matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG));
                if known {
                    self.log = Some((file, end));
                } else {
                    position.reload = true;
                }
                Err(error)
            }
        }
    }
}

impl Store {
    fn write(&self, file: &Arc<File>, lines: &[u8], end: u64) -> Result<Landed, StoreError> {
        const DOING: &str = "appending to the log";
        sys::write_full(&*self.sys, file, lines, end).map_err(StoreError::io(DOING))?;
        if self.syncs_appends() {
            sys::retry(|| self.sys.sync_data(file))
                .map_err(|source| self.poison("syncing the log", source))?;
        }
        // They were written at the end that was verified under the lock; but who writes without it does not care, and not
        // every file system shows all that was written before the lock was given up.
        let size = sys::retry(|| self.sys.stat_file(file)).map_err(StoreError::io(DOING))?.size;
        let expected = end + lines.len() as u64;
        if size < expected {
            ::log::error!("the log was cut while it was locked: {size} bytes, {expected} expected");
            return Err(StoreError::io(DOING)(io::Error::from_raw_os_error(libc::EIO)));
        }
        if size > expected {
            ::log::warn!(
                "{}/_entries has {} bytes more than expected: somebody appends without the lock, or the file system shows old sizes",
                self.path.display(),
                size - expected
            );
            return Ok(Landed::AmongOthers);
        }
        Ok(Landed::Here(end))
    }

    /// Takes back what was written of an append; says whether the log is now as it was.
    fn cut_off(&self, file: &File, end: u64) -> bool {
        let cut = sys::retry(|| self.sys.truncate(file, end));
        if let Err(e) = &cut {
            ::log::error!("cutting a failed append off: {e}; it is mended by the next writer");
        }
        cut.is_ok() && sys::retry(|| self.sys.stat_file(file)).is_ok_and(|stat| stat.size == end)
    }
}
