//! Knowing a log again that was read before, by this process or another one, so that it need not be read anew.
//!
//! What was learnt from a log may be used again only if the log still begins with the very bytes that were read. That is
//! so if their digests are the same. Reading everything for them takes a tenth of the time that understanding it takes; even
//! that is spared if the kernel's own records say that nothing was written: the same file, of the same size, with the
//! same times of its last change, since the same start of this machine, on a file system that no other machine writes. A few
//! blocks are compared even then.
//!
//! What could deceive these records, and why it does not: who writes in place and sets the time of modification back cannot
//! set the time of change back; a change in the same tick of the clock as the one before has no later time, so that a log is
//! not trusted by its times unless it had been still for a while; after a power cut a file may have the size and times of bytes
//! that never reached the disk, so that nothing is trusted across a restart; on a network file system times come from
//! caches and other clocks, and are not trusted at all.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::RngExt as _;
use xxhash_rust::xxh3::xxh3_64;

use super::digest::{BLOCK, Digest};
use super::log::Position;
use super::{Generation, LOG, NO_LOG, Store, StoreError, hold, sys};
use crate::record::Dialect;

/// A log is trusted by its times only if it had been still for so long.
const STILL: Duration = Duration::from_secs(2);
/// So many blocks of a log that is trusted are compared nevertheless.
const SAMPLES: usize = 8;
/// So many threads compare blocks.
const THREADS: usize = 4;

/// What a log was when everything before some offset had been read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seal {
    /// Everything before it had been read.
    pub offset: u64,
    /// The dialect of the first record.
    pub dialect: Option<Dialect>,
    /// The digests of its blocks of 1 MiB, the last one cut at the offset.
    pub blocks: Vec<u64>,
    /// What the kernel said of the file, if that can be trusted: as long as it says the same, nothing was written.
    pub still: Option<Still>,
}

/// What the kernel says of a file that is not written to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Still {
    /// Device, inode, seconds and nanoseconds of the last modification and of the last change.
    pub numbers: [u64; 6],
    /// The start of the machine.
    pub boot: String,
}

impl Still {
    /// That of a file.
    fn of(stat: &sys::Stat, boot: String) -> Self {
        let (dev, ino) = stat.id.numbers();
        Self { numbers: [dev, ino, stat.modified.0, stat.modified.1, stat.changed.0, stat.changed.1], boot }
    }
}

/// The name that the kernel gave to this start of the machine.
fn boot() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}

impl Store {
    /// What is known of the log that was followed so far. `None` if that is not enough to know it again.
    pub fn seal(&self) -> Option<Seal> {
        let position = hold(&self.position);
        position.generation.as_ref().filter(|generation| !position.reload && generation.file.is_some())?;
        let blocks = position.digest.blocks(position.offset)?;
        Some(Seal { offset: position.offset, dialect: position.dialect, blocks, still: None })
    }

    /// Adds to a seal what the kernel says of the log, if the log is still and has all the bytes of the seal: what was written
    /// in place since they were read would otherwise be vouched for.
    pub fn vouch(&self, seal: &mut Seal) -> Result<(), StoreError> {
        let (file, stat) = self.open_regular(LOG, libc::O_RDONLY, "opening the log", NO_LOG)?;
        let Some(before) = self.still(seal, &stat) else { return Ok(()) };
        let all: Vec<usize> = (0..seal.blocks.len()).collect();
        if self.same_blocks(&file, seal, &all).map_err(StoreError::io("reading the log"))? {
            let stat =
                sys::retry(|| self.sys.stat_file(&file)).map_err(StoreError::io("looking at the log"))?;
            seal.still = self.still(seal, &stat).filter(|after| *after == before);
        }
        Ok(())
    }

    /// What the kernel says of a log that ends with a seal and was not written to lately.
    fn still(&self, seal: &Seal, stat: &sys::Stat) -> Option<Still> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
        let is_old = |(seconds, nanos): (u64, u64)| {
            let then = Duration::from_secs(seconds).checked_add(Duration::from_nanos(nanos));
            then.and_then(|then| now.checked_sub(then)).is_some_and(|ago| ago >= STILL)
        };
        let still = self.local && stat.size == seal.offset && is_old(stat.changed) && is_old(stat.modified);
        still.then(boot).flatten().map(|boot| Still::of(stat, boot))
    }

    /// Follows the log from where a seal ends, as if everything before had been given to a sink, if it begins with what had been
    /// read then. Gives its generation; `None`: it is another log, or has grown so much that it is better read anew.
    pub fn resume(&self, seal: &Seal) -> Result<Option<Arc<Generation>>, StoreError> {
        let mut position = hold(&self.position);
        if seal.offset == 0 || seal.blocks.len() as u64 != seal.offset.div_ceil(BLOCK) {
            return Ok(None);
        }
        let (file, stat) = self.open_regular(LOG, libc::O_RDONLY, "opening the log", NO_LOG)?;
        if stat.size < seal.offset || stat.size - seal.offset > seal.offset / 4 {
            return Ok(None);
        }
        let still = seal.still.as_ref().is_some_and(|still| {
            self.local
                && stat.size == seal.offset
                && boot().is_some_and(|boot| *still == Still::of(&stat, boot))
        });
        let last = seal.blocks.len() - 1;
        let mut which: Vec<usize> = (0..=last).collect();
        if still && last > SAMPLES {
            let mut rng = rand::rng();
            which = (0..SAMPLES).map(|_| rng.random_range(0..last)).chain([0, last]).collect();
        }
        if !self.same_blocks(&file, seal, &which).map_err(StoreError::io("reading the log"))? {
            return Ok(None);
        }
        let whole = if seal.offset.is_multiple_of(BLOCK) { seal.blocks.len() } else { last };
        let mut rest = vec![0; usize::try_from(seal.offset % BLOCK).unwrap_or_default()];
        sys::read_full(&*self.sys, &file, &mut rest, whole as u64 * BLOCK)
            .map_err(StoreError::io("reading the log"))?;
        let digest = Digest::resumed(seal.blocks.get(..whole).unwrap_or_default(), &rest);
        // Once more: what was read a moment ago may be another block by now.
        if digest.blocks(seal.offset).as_ref() != Some(&seal.blocks) {
            return Ok(None);
        }
        let mark = self.mark(&file, seal.offset)?;
        let generation =
            Arc::new(Generation { sys: Arc::clone(&self.sys), id: stat.id, file: Some(Arc::new(file)) });
        *position = Position {
            generation: Some(Arc::clone(&generation)),
            offset: seal.offset,
            mark,
            dialect: seal.dialect,
            digest,
            reload: false,
            moved: Some(self.sys.uptime()),
            writer: None,
        };
        self.publish(&position);
        Ok(Some(generation))
    }

    /// Whether some blocks of a file have the digests of a seal.
    fn same_blocks(&self, file: &File, seal: &Seal, which: &[usize]) -> io::Result<bool> {
        let next = AtomicUsize::new(0);
        let same = AtomicBool::new(true);
        let work = || -> io::Result<()> {
            let mut buf = vec![0; usize::try_from(BLOCK).unwrap_or_default()];
            while same.load(Ordering::Relaxed) {
                let Some(&number) = which.get(next.fetch_add(1, Ordering::Relaxed)) else { break };
                let start = number as u64 * BLOCK;
                let len = usize::try_from((seal.offset - start).min(BLOCK)).unwrap_or_default();
                let block = buf.get_mut(..len).unwrap_or_default();
                let n = sys::read_full(&*self.sys, file, block, start)?;
                if n < len || seal.blocks.get(number) != Some(&xxh3_64(block)) {
                    same.store(false, Ordering::Relaxed);
                }
            }
            Ok(())
        };
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = threads.min(THREADS).min(which.len().div_ceil(16));
        std::thread::scope(|scope| {
            let spawn = |_| std::thread::Builder::new().spawn_scoped(scope, work).ok();
            let others: Vec<_> = (1..threads).filter_map(spawn).collect();
            let mut result = work();
            for other in others {
                let other = other.join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into()));
                result = result.and(other);
            }
            result.map(|()| same.load(Ordering::Relaxed))
        })
    }
}
