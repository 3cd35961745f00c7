//! Replacing the log: compaction, and whatever else writes a new one.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::sync::Arc;

use super::digest::Digest;
use super::{CHUNK, Generation, LOG, Locked, Store, StoreError, TEMPORARY, hold, sys};
use crate::record::Locator;

const COMPACTING: &str = "compacting the log";

/// Records that lie no further apart are read together.
const GAP: u64 = 4096;

impl Locked<'_> {
    /// Replaces the log by one that has the given lines of it in the given order. Gives the new generation and the new place of each;
    /// sinks are told nothing, the store goes on following the new log from its end. Needs a [`Locked::catch_up`] before.
    ///
    /// Locators that adjoin in the log are parts of one line, and stay so.
    pub fn compact(&mut self, keep: &[Locator]) -> Result<(Arc<Generation>, Vec<Locator>), StoreError> {
        let store = self.store;
        if store.is_poisoned() {
            return Err(StoreError::Poisoned);
        }
        let Some((old, end)) = self.log.take() else {
            return Err(StoreError::io("compacting without having read the log")(
                io::ErrorKind::InvalidInput.into(),
            ));
        };
        let mut places = Vec::with_capacity(keep.len());
        let Replaced { file, size, digest } = store.replace(&old, Some(end), |writer| {
            for (run, bytes) in runs(store, &old, keep) {
                let bytes = bytes?;
                let start = run.first().map_or(0, |first| first.offset);
                for (i, at) in run.iter().enumerate() {
                    let from = usize::try_from(at.offset - start).unwrap_or(usize::MAX);
                    let line = bytes
                        .get(from..from.saturating_add(at.len as usize))
                        .ok_or(io::ErrorKind::UnexpectedEof)?;
                    places.push(Locator { offset: writer.offset(), len: at.len });
                    writer.write(line)?;
                    // The next part of the same line, if it is one, stands at once after this.
                    let next = run.get(i + 1);
                    if next.is_none_or(|next| next.offset != at.offset + u64::from(at.len)) {
                        writer.write(b"\n")?;
                    }
                }
            }
            Ok(())
        })?;
        let file = Arc::new(file);
        let mut position = hold(&store.position);
        let generation = store
            .new_generation(&file)
            .and_then(|generation| store.adopt(&mut position, &generation, size, digest).map(|()| generation))
            .inspect_err(|_| position.reload = true)?;
        self.log = Some((file, size));
        Ok((generation, places))
    }
}

/// Splits locators into runs that lie close together, in order, each read at once.
fn runs<'k>(
    store: &'k Store,
    file: &'k File,
    keep: &'k [Locator],
) -> impl Iterator<Item = (&'k [Locator], io::Result<Vec<u8>>)> {
    let mut rest = keep;
    std::iter::from_fn(move || {
        let first = rest.first()?;
        let mut end = first.offset + u64::from(first.len);
        let mut count = 1;
        for next in rest.iter().skip(1) {
            let next_end = next.offset + u64::from(next.len);
            // Adjoining parts of one line stay in one run, whatever its length.
            let adjoins = next.offset == end;
            let close = next.offset >= end && next.offset - end <= GAP;
            if !(adjoins || (close && next_end - first.offset <= CHUNK as u64)) {
                break;
            }
            end = next_end;
            count += 1;
        }
        let (run, others) = rest.split_at_checked(count)?;
        rest = others;
        let read = || {
            let len = usize::try_from(end - first.offset).map_err(|_| io::ErrorKind::OutOfMemory)?;
            let mut bytes = vec![0; len];
            let n = sys::read_full(&*store.sys, file, &mut bytes, first.offset)?;
            if n < len { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(bytes) }
        };
        Some((run, read()))
    })
}

/// Writes a new log through a buffer.
#[derive(Debug)]
pub(super) struct LogWriter<'s> {
    sys: &'s dyn sys::Sys,
    file: &'s File,
    buf: Vec<u8>,
    flushed: u64,
    digest: Digest,
}

/// A log that was replaced.
#[derive(Debug)]
pub(super) struct Replaced {
    /// The new one.
    pub file: File,
    /// Its size.
    pub size: u64,
    /// Of all of it.
    pub digest: Digest,
}

impl LogWriter<'_> {
    /// Where the next byte goes.
    pub fn offset(&self) -> u64 {
        self.flushed + self.buf.len() as u64
    }

    /// Writes bytes.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.buf.extend_from_slice(bytes);
        if self.buf.len() >= CHUNK { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        sys::write_full(self.sys, self.file, &self.buf, self.flushed)?;
        self.digest.take(self.flushed, &self.buf);
        self.flushed += self.buf.len() as u64;
        self.buf.clear();
        Ok(())
    }
}

impl Store {
    /// Puts a log back whose name was removed while its file was open.
    pub(super) fn put_back(&self, old: &File) -> Result<(), StoreError> {
        let size = sys::retry(|| self.sys.stat_file(old)).map_err(StoreError::io(COMPACTING))?.size;
        self.replace_by_copy(old, size, None).map(drop)
    }

    /// Replaces the log by a copy of the first `size` bytes of a file; as [`Store::replace`].
    pub(super) fn replace_by_copy(
        &self,
        old: &File,
        size: u64,
        end: Option<u64>,
    ) -> Result<Replaced, StoreError> {
        self.replace(old, end, |writer| {
            let mut offset = 0;
            while offset < size {
                let len = usize::try_from((size - offset).min(CHUNK as u64)).unwrap_or(CHUNK);
                let mut bytes = vec![0; len];
                let n = sys::read_full(&*self.sys, old, &mut bytes, offset)?;
                if n < len {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                writer.write(&bytes)?;
                offset += n as u64;
            }
            Ok(())
        })
    }

    /// Writes a new log to a temporary file, makes it durable, and renames it over the log. `old` gives owner and permissions;
    /// with `end`, the log must still be that file and have that size. Gives the new file.
    pub(super) fn replace(
        &self,
        old: &File,
        end: Option<u64>,
        content: impl FnOnce(&mut LogWriter<'_>) -> io::Result<()>,
    ) -> Result<Replaced, StoreError> {
        let name = CString::new(format!("{TEMPORARY}{}", std::process::id()))
            .map_err(|e| StoreError::io(COMPACTING)(e.into()))?;
        let file = match self.create(&name, COMPACTING) {
            Err(e) if e.raw_os_error() == Some(libc::EEXIST) => {
                // We have the lock: it was left by a process that died, here or on another node.
                sys::retry(|| self.sys.unlink(self.dir(), &name)).map_err(StoreError::io(COMPACTING))?;
                self.create(&name, COMPACTING)?
            }
            other => other?,
        };
        let written = self.write_anew(&file, old, end, content).and_then(|written| {
            sys::retry(|| self.sys.rename(self.dir(), &name, LOG))?;
            Ok(written)
        });
        let (size, digest) = match written {
            Ok(written) => written,
            Err(source) => {
                if let Err(e) = self.sys.unlink(self.dir(), &name) {
                    ::log::warn!("removing {}: {e}", name.to_string_lossy());
                }
                return Err(StoreError::Io { doing: COMPACTING, source });
            }
        };
        if let Err(source) = sys::retry(|| self.sys.sync_dir(self.dir())) {
            // After a power cut the old log may be there again, without what is appended to the new one from now on.
            return Err(self.poison(COMPACTING, source));
        }
        Ok(Replaced { file, size, digest })
    }

    fn write_anew(
        &self,
        file: &File,
        old: &File,
        end: Option<u64>,
        content: impl FnOnce(&mut LogWriter<'_>) -> io::Result<()>,
    ) -> io::Result<(u64, Digest)> {
        let before = sys::retry(|| self.sys.stat_file(old))?;
        let stat = sys::retry(|| self.sys.stat_file(file))?;
        if (stat.uid, stat.gid) != (before.uid, before.gid) {
            // An ordinary user cannot give a file away: then it stays ours, readable to whom the old one was.
            if let Err(e) = self.sys.set_owner(file, before.uid, before.gid) {
                ::log::debug!("keeping the owner of the log: {e}");
            }
        }
        sys::retry(|| self.sys.set_mode(file, before.mode & 0o777))?;
        let mut writer =
            LogWriter { sys: &*self.sys, file, buf: Vec::new(), flushed: 0, digest: Digest::default() };
        content(&mut writer)?;
        writer.flush()?;
        let (size, digest) = (writer.flushed, writer.digest);
        sys::retry(|| self.sys.sync_data(file))?;
        if let Some(end) = end {
            // What lost the lock (a node that was cut off) must not replace what others have written since.
            let now = sys::retry(|| self.sys.stat(self.dir(), LOG))?;
            if now.id != before.id || now.size != end {
                return Err(io::Error::from_raw_os_error(libc::ESTALE));
            }
        }
        Ok((size, digest))
    }

    /// The generation of a file that has become the log.
    fn new_generation(&self, file: &Arc<File>) -> Result<Arc<Generation>, StoreError> {
        let stat = sys::retry(|| self.sys.stat_file(file)).map_err(StoreError::io(COMPACTING))?;
        Ok(Arc::new(Generation { sys: Arc::clone(&self.sys), id: stat.id, file: Some(Arc::clone(file)) }))
    }
}
