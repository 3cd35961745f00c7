//! Mending a torn tail, under the lock.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::time::{SystemTime, UNIX_EPOCH};

use super::{CHUNK, LINE_MAX, Store, StoreError, TORN, sys};
use crate::record::{Malformed, Piece, parse_tail};

const MENDING: &str = "mending the log";

impl Store {
    /// Mends the bytes between the last `\n` and the end of the log. Gives the line, without its `\n`, that it has become;
    /// `None` if nothing of it was whole. What is damaged is set aside first, never destroyed.
    pub(super) fn mend(&self, file: &File, from: u64, size: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let mut tail = Vec::new();
        let mut whole = 0;
        if size - from <= LINE_MAX {
            tail = self.read_range(file, from..size)?;
            whole = whole_prefix(&tail);
        }
        let rest = tail.get(whole..).unwrap_or_default();
        if whole > 0 && rest.iter().all(u8::is_ascii_whitespace) {
            // The writer died between the record and its newline; white space is no damage.
            self.end_line(file, size)?;
            return Ok(Some(tail));
        }
        let start = from + whole as u64;
        let name = self.set_aside(file, std::slice::from_ref(&(start..size)))?;
        ::log::warn!(
            "{}/_entries had a torn tail: {} bytes set aside as {name}",
            self.path.display(),
            size - start
        );
        sys::retry(|| self.sys.truncate(file, start)).map_err(StoreError::io(MENDING))?;
        if whole == 0 {
            self.show(file)?;
            return Ok(None);
        }
        self.end_line(file, start)?;
        tail.truncate(whole);
        Ok(Some(tail))
    }

    fn end_line(&self, file: &File, at: u64) -> Result<(), StoreError> {
        sys::write_full(&*self.sys, file, b"\n", at).map_err(StoreError::io(MENDING))?;
        self.show(file)
    }

    /// Other nodes must see what was mended once the lock is given up.
    fn show(&self, file: &File) -> Result<(), StoreError> {
        if self.local {
            return Ok(());
        }
        sys::retry(|| self.sys.sync_data(file)).map_err(StoreError::io(MENDING))
    }

    fn read_range(&self, file: &File, range: Range<u64>) -> Result<Vec<u8>, StoreError> {
        let len = usize::try_from(range.end - range.start)
            .map_err(|_| StoreError::io(MENDING)(io::ErrorKind::OutOfMemory.into()))?;
        let mut bytes = vec![0; len];
        let n = sys::read_full(&*self.sys, file, &mut bytes, range.start).map_err(StoreError::io(MENDING))?;
        bytes.truncate(n);
        Ok(bytes)
    }

    /// Copies stretches of a file to a new `_torn-…`, each ended by `\n`, and makes it durable. Gives its name.
    pub(super) fn set_aside(&self, file: &File, stretches: &[Range<u64>]) -> Result<String, StoreError> {
        let (copy, name) = self.create_aside(TORN)?;
        let mut at = 0;
        for stretch in stretches {
            at = self.copy(file, stretch.clone(), &copy, at)?;
            if stretches.len() > 1 {
                sys::write_full(&*self.sys, &copy, b"\n", at).map_err(StoreError::io(MENDING))?;
                at += 1;
            }
        }
        self.make_durable(&copy)?;
        Ok(name)
    }

    /// Makes the file and its name durable.
    pub(super) fn make_durable(&self, copy: &File) -> Result<(), StoreError> {
        sys::retry(|| self.sys.sync_data(copy)).map_err(StoreError::io(MENDING))?;
        sys::retry(|| self.sys.sync_dir(self.dir())).map_err(StoreError::io(MENDING))
    }

    /// Makes a new file `PREFIX<time>-<pid>`, with a further number if there is one already.
    pub(super) fn create_aside(&self, prefix: &str) -> Result<(File, String), StoreError> {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let base = format!("{prefix}{time}-{}", std::process::id());
        let mut name = base.clone();
        for number in 1_u32.. {
            let c_name = CString::new(name.as_str()).map_err(|e| StoreError::io(MENDING)(e.into()))?;
            match self.create(&c_name, MENDING) {
                Ok(file) => return Ok((file, name)),
                Err(e) if e.raw_os_error() == Some(libc::EEXIST) && number < 10_000 => {
                    name = format!("{base}-{number}");
                }
                Err(e) => return Err(e),
            }
        }
        Err(StoreError::io(MENDING)(io::Error::from_raw_os_error(libc::EEXIST)))
    }

    /// Copies a stretch of a file; gives the offset after the copy.
    pub(super) fn copy(
        &self,
        from: &File,
        stretch: Range<u64>,
        to: &File,
        mut at: u64,
    ) -> Result<u64, StoreError> {
        let mut offset = stretch.start;
        while offset < stretch.end {
            let len = (stretch.end - offset).min(CHUNK as u64);
            let bytes = self.read_range(from, offset..offset + len)?;
            if bytes.is_empty() {
                return Err(StoreError::io(MENDING)(io::ErrorKind::UnexpectedEof.into()));
            }
            sys::write_full(&*self.sys, to, &bytes, at).map_err(StoreError::io(MENDING))?;
            offset += bytes.len() as u64;
            at += bytes.len() as u64;
        }
        Ok(at)
    }
}

/// Length of the beginning of a tail that ends with its last whole object.
fn whole_prefix(tail: &[u8]) -> usize {
    let whole = |piece: &Piece<'_>| matches!(piece, Piece::Record(_) | Piece::Malformed(Malformed::NoId));
    parse_tail(tail).iter().rev().find(|(_, piece)| whole(piece)).map_or(0, |(range, _)| range.end)
}
