//! The index of a large log, kept in a file of the user's own, so that the next mount need not read the log anew.
//!
//! It is derived, and never needed: whatever is wrong with it, the log is read instead, and nobody is told but the log file. It
//! is used only if its checksum is right, this very version wrote it, and the log still begins with the bytes that it is
//! about (see [`crate::store::Seal`]); what was appended since is followed.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use super::memory::{self, RESERVE};
use super::publish::Account;
use super::{Inner, hold};
use crate::index::{self, Index};
use crate::record::{Dialect, Locator};
use crate::store::{Directory, KeptReader, KeptWriter, Seal, Still};

const MAGIC: &[u8; 16] = b"cachedirfs-index";
/// The index of a smaller log is made anew sooner than it is found.
const WORTH: usize = if cfg!(test) { 3 } else { 20_000 };
/// What is not kept yet is kept when there were no writes for so long.
const QUIET: Duration = Duration::from_secs(if cfg!(test) { 0 } else { 5 });
/// What is kept already is kept anew at most so often, and at the end.
const SELDOM: Duration = Duration::from_secs(300);
/// It is kept anew when this part of the records have come since.
const PART: u64 = 50;

/// What is kept of this cache.
#[derive(Debug, Default)]
pub(super) struct Keeping {
    /// Number of records appended since, in which generation of the log, and when; `None`: nothing is.
    kept: Option<Kept>,
    /// Somebody is keeping it now.
    busy: bool,
}

impl Keeping {
    /// Whether something is kept.
    #[cfg(test)]
    pub fn is_kept(&self) -> bool {
        self.kept.is_some()
    }
}

#[derive(Debug, Clone, Copy)]
struct Kept {
    records: u64,
    replaced: u64,
    at: Instant,
}

/// The numbers of a file.
struct Header {
    seal: Seal,
    account: Account,
}

impl Header {
    fn write(&self, about: &Path, put: &mut KeptWriter) -> io::Result<()> {
        use std::os::unix::ffi::OsStrExt as _;
        let Self { seal, account } = self;
        let numbers = |put: &mut KeptWriter, numbers: &[u64]| {
            numbers.iter().try_for_each(|number| put.put(&number.to_le_bytes()))
        };
        let bytes = |put: &mut KeptWriter, bytes: &[u8]| {
            numbers(put, &[bytes.len() as u64]).and_then(|()| put.put(bytes))
        };
        put.put(MAGIC)?;
        bytes(put, version().as_bytes())?;
        bytes(put, about.as_os_str().as_bytes())?;
        let dialect = match seal.dialect {
            None => 0,
            Some(Dialect::Path) => 1,
            Some(Dialect::Name) => 2,
        };
        numbers(put, &[seal.offset, dialect, seal.blocks.len() as u64])?;
        numbers(put, &seal.blocks)?;
        bytes(put, seal.still.as_ref().map_or("", |still| &still.boot).as_bytes())?;
        numbers(put, &seal.still.as_ref().map_or([0; 6], |still| still.numbers))?;
        numbers(put, &[account.records, account.live_bytes, account.malformed.len() as u64])?;
        account.malformed.iter().try_for_each(|at| numbers(put, &[at.offset, at.len.into()]))
    }

    fn read(about: &Path, get: &mut KeptReader) -> io::Result<Option<Self>> {
        use std::os::unix::ffi::OsStrExt as _;
        let mut magic = [0; MAGIC.len()];
        get.get(&mut magic)?;
        if magic != *MAGIC
            || bytes(get)? != version().as_bytes()
            || bytes(get)? != about.as_os_str().as_bytes()
        {
            return Ok(None);
        }
        let offset = number(get)?;
        let dialect = match number(get)? {
            0 => None,
            1 => Some(Dialect::Path),
            2 => Some(Dialect::Name),
            _ => return Ok(None),
        };
        let blocks = (0..count(get)?).map(|_| number(get)).collect::<io::Result<Vec<_>>>()?;
        let boot = String::from_utf8(bytes(get)?).map_err(|_| io::ErrorKind::InvalidData)?;
        let mut numbers = [0; 6];
        for place in &mut numbers {
            *place = number(get)?;
        }
        let still = (!boot.is_empty()).then_some(Still { numbers, boot });
        let (records, live_bytes) = (number(get)?, number(get)?);
        let mut account = Account::of(records, live_bytes);
        for _ in 0..count(get)? {
            let offset = number(get)?;
            let len = u32::try_from(number(get)?).map_err(|_| io::ErrorKind::InvalidData)?;
            account.damage(Locator { offset, len });
        }
        Ok(Some(Self { seal: Seal { offset, dialect, blocks, still }, account }))
    }
}

/// What must be the same for a file to mean the same.
fn version() -> String {
    format!("{} {}", index::FORMAT, env!("CARGO_PKG_VERSION"))
}

fn number(get: &mut KeptReader) -> io::Result<u64> {
    let mut bytes = [0; 8];
    get.get(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

/// A number of things that are there.
fn count(get: &mut KeptReader) -> io::Result<u64> {
    let count = number(get)?;
    if count <= get.left() { Ok(count) } else { Err(io::ErrorKind::InvalidData.into()) }
}

fn bytes(get: &mut KeptReader) -> io::Result<Vec<u8>> {
    let len = usize::try_from(count(get)?).map_err(|_| io::ErrorKind::InvalidData)?;
    let mut bytes = vec![0; len];
    get.get(&mut bytes)?;
    Ok(bytes)
}

/// Reads what is kept; `None` if that is of another version, or about something else.
fn read(dir: &Directory, about: &Path) -> io::Result<Option<(Header, Index)>> {
    let mut file = dir.read(about)?;
    if memory::available() < file.left().saturating_add(RESERVE) {
        // The log takes more: whoever reads it says so.
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    let Some(header) = Header::read(about, &mut file)? else { return Ok(None) };
    let mut failed = None;
    let index =
        Index::from_kept(file.left(), &mut |bytes| file.get(bytes).map_err(|e| failed = Some(e)).is_ok());
    if let Some(error) = failed {
        return Err(error);
    }
    match index {
        Some(index) if file.is_whole()? => Ok(Some((header, index))),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

impl Inner {
    /// Begins with what is kept, if that is of use.
    pub(super) fn begin_with_kept(&self) {
        let Some(path) = self.options.keep.as_deref().filter(|_| index::is_possible()) else { return };
        let about = self.store.path();
        let found = Directory::open(path, false).and_then(|dir| read(&dir, about));
        let (header, index) = match found {
            Ok(Some(found)) => found,
            Ok(None) => return log::debug!("{}: what is kept is of another version", self.path),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return,
            Err(e) => return log::info!("{}: the kept index is not used: {e}", self.path),
        };
        match self.store.resume(&header.seal) {
            Ok(Some(generation)) => {
                let mut account = hold(&self.account);
                *account = header.account;
                let mut keeping = hold(&self.keeping);
                let (records, replaced) = (account.records, account.replaced);
                keeping.kept = Some(Kept { records, replaced, at: Instant::now() });
                drop(keeping);
                let mut current = self.index_mut();
                *hold(&self.generation) = Some(generation);
                *current = index;
                drop(current);
                self.reckon(&account);
                log::info!("{}: begins with the kept index", self.path);
            }
            Ok(None) => log::info!("{}: the log is not the one of the kept index", self.path),
            // Whoever reads the log next tells of it.
            Err(e) => log::debug!("{}: the kept index is not used: {e}", self.path),
        }
    }

    /// Whether the index should be kept: at the `end`, or when writes have settled.
    pub(super) fn is_to_be_kept(&self, end: bool) -> bool {
        if self.options.keep.is_none() || !index::is_possible() || self.index().len() < WORTH {
            return false;
        }
        let account = hold(&self.account);
        let (records, replaced) = (account.records, account.replaced);
        drop(account);
        let quiet = self.store.quiet().is_some_and(|quiet| quiet >= QUIET);
        let kept = hold(&self.keeping).kept;
        let Some(kept) = kept else { return end || quiet };
        let changed = kept.replaced != replaced || records.saturating_sub(kept.records) > records / PART;
        changed && (end || quiet && kept.at.elapsed() >= SELDOM)
    }

    /// Keeps the index.
    pub(super) fn keep(&self) {
        let Some(path) = self.options.keep.as_deref() else { return };
        if std::mem::replace(&mut hold(&self.keeping).busy, true) {
            return;
        }
        let started = Instant::now();
        let result = self.keep_in(path);
        let account = hold(&self.account);
        let (now, replaced_now) = (account.records, account.replaced);
        drop(account);
        let mut keeping = hold(&self.keeping);
        keeping.busy = false;
        match result {
            Ok(Some((records, replaced))) => {
                keeping.kept = Some(Kept { records, replaced, at: Instant::now() });
                log::debug!("{}: the index is kept, in {:?}", self.path, started.elapsed());
            }
            Ok(None) => log::debug!("{}: the index cannot be kept now", self.path),
            Err(e) => {
                // Not again soon: nobody misses it.
                keeping.kept = Some(Kept { records: now, replaced: replaced_now, at: Instant::now() });
                log::info!("{}: the index is not kept in {}: {e}", self.path, path.display());
            }
        }
    }

    fn keep_in(&self, path: &Path) -> io::Result<Option<(u64, u64)>> {
        let needed = self.index().keeping_bytes();
        if memory::available() < needed.saturating_add(RESERVE) {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        let dir = Directory::open(path, true)?;
        // All of the same moment: whoever moves the log or the index on has the account.
        let account = hold(&self.account);
        let Some(seal) = self.store.seal() else { return Ok(None) };
        let index = self.index().clone();
        let mut header = Header { seal, account: account.clone() };
        drop(account);
        // Without it the next mount compares all bytes.
        if let Err(e) = self.store.vouch(&mut header.seal) {
            log::debug!("{}: {e}", self.path);
        }
        let about = self.store.path();
        dir.write(about, |file| {
            header.write(about, file)?;
            let mut failed = None;
            index.keep(&mut |bytes| {
                if failed.is_none() {
                    failed = file.put(bytes).err();
                }
            });
            failed.map_or(Ok(()), Err)
        })?;
        Ok(Some((header.account.records, header.account.replaced)))
    }
}
