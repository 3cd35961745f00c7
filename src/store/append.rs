//! Appending, under the lock.

use std::fs::File;
use std::io;
use std::sync::Arc;

use super::{Locked, Store, StoreError, hold, sys};

impl Locked<'_> {
    /// Appends whole lines (each ends in `\n`) with one write; gives the offset of the first byte. Needs a [`Locked::catch_up`]
    /// before. They are not given to any sink of this store. Syncs where the store must (option, or not a local file system).
    ///
    /// After an error nothing of them is in the log; if even cutting them off failed, the next pass gives everything anew,
    /// so that nobody believes in a state that is not the log's.
    pub fn append(&mut self, lines: &[u8]) -> Result<u64, StoreError> {
        let store = self.store;
        if store.is_poisoned() {
            return Err(StoreError::Poisoned);
        }
        let Some((file, end)) = self.log.take() else {
            return Err(StoreError::io("appending without having read the log")(
                io::ErrorKind::InvalidInput.into(),
            ));
        };
        let result = store.write(&file, lines, end);
        if self.is_doubtful() {
            let result = self.ascertain(result, lines, end);
            let mut position = hold(&store.position);
            if result.is_ok() {
                store.advance(&mut position, lines);
            }
            // Others may have appended; and nothing of it may be cut off.
            position.reload = true;
            return result.map(|()| end);
        }
        let mut position = hold(&store.position);
        match result {
            Ok(()) => {
                store.advance(&mut position, lines);
                self.log = Some((file, position.offset));
                Ok(end)
            }
            Err(error) => {
                let known = store.cut_off(&file, end)
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
    fn write(&self, file: &Arc<File>, lines: &[u8], end: u64) -> Result<(), StoreError> {
        const DOING: &str = "appending to the log";
        sys::write_full(&*self.sys, file, lines, end).map_err(StoreError::io(DOING))?;
        if self.syncs_appends() {
            sys::retry(|| self.sys.sync_data(file))
                .map_err(|source| self.poison("syncing the log", source))?;
        }
        // Where the lines landed is known, for the end was verified under the lock; what if somebody wrote without it?
        let size = sys::retry(|| self.sys.stat_file(file)).map_err(StoreError::io(DOING))?.size;
        let expected = end + lines.len() as u64;
        if size < expected {
            ::log::error!("the log was cut while it was locked: {size} bytes, {expected} expected");
            return Err(StoreError::io(DOING)(io::Error::from_raw_os_error(libc::EIO)));
        }
        if size > expected {
            ::log::warn!("somebody appends to {}/_entries without the lock", self.path.display());
        }
        Ok(())
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
