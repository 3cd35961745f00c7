//! Loading a replaced log: readers on threads of their own take stretches of it apart, and this one puts together what they
//! found, in the order of the log.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use super::CacheError;
use super::memory::{self, RESERVE};
use super::publish::Account;
use crate::index::{Finished, Index, Loader, Part, Reader, Unfinished};
use crate::record::Locator;
use crate::store::Generation;

/// So many bytes of lines are taken apart together.
const STRETCH: usize = 4 << 20;
/// More readers than this find more than one thread can put together.
const READERS: usize = 4;
/// So many stretches for each reader may be under way.
const AHEAD: usize = 3;
/// While it is finished an index takes more than before and after: so many times what it has taken by then.
const PEAK: u64 = 2;
/// What this many bytes of the log took tells what the whole will take.
const TELLING: u64 = 64 << 20;
/// After so many stretches it is looked at how much memory is left.
const OFTEN: u64 = 4;

/// A replaced log on its way to become the index.
#[derive(Debug)]
pub(super) struct Loading {
    loader: Loader,
    generation: Arc<Generation>,
    account: Account,
    /// Lines that wait, and where in the log the first one begins.
    bytes: Vec<u8>,
    offset: u64,
    readers: Readers,
    /// Resident memory at the beginning.
    before: u64,
    /// Bytes of lines that were loaded.
    loaded: u64,
}

impl Loading {
    /// Of a log that replaces the one that an index shows.
    pub fn new(index: &Index, generation: &Arc<Generation>) -> Self {
        Self {
            loader: Loader::replacing(index),
            generation: Arc::clone(generation),
            account: Account::default(),
            bytes: Vec::new(),
            offset: 0,
            readers: Readers::default(),
            before: memory::resident(),
            loaded: 0,
        }
    }

    /// Takes whole lines, each with its `\n`. An error means that there is not memory enough for this log.
    pub fn lines(&mut self, offset: u64, bytes: &[u8]) -> Result<(), CacheError> {
        if self.offset + self.bytes.len() as u64 != offset {
            self.read()?;
            self.offset = offset;
        }
        if self.bytes.is_empty() {
            self.bytes.reserve(STRETCH + (STRETCH >> 2));
        }
        self.bytes.extend_from_slice(bytes);
        if self.bytes.len() >= STRETCH { self.read() } else { Ok(()) }
    }

    /// Whether there is memory for the whole of the log, as far as that can be told from what the lines before an offset took.
    fn afford(&self, offset: u64) -> Result<(), CacheError> {
        let size = self.generation.size().unwrap_or(offset).max(offset);
        let buffers = self.readers.under_way() * STRETCH as u64;
        let taken = memory::resident().saturating_sub(self.before).saturating_sub(buffers);
        if self.loaded < TELLING && offset > 0 {
            // Too little to tell from.
            let available = memory::available();
            return if available < RESERVE {
                Err(CacheError::Memory { needed: RESERVE, available })
            } else {
                Ok(())
            };
        }
        let whole = u128::from(taken) * u128::from(size) / u128::from(self.loaded.max(1));
        let whole = u64::try_from(whole).unwrap_or(u64::MAX);
        let needed = whole.saturating_mul(PEAK).saturating_sub(taken).saturating_add(RESERVE);
        let available = memory::available();
        if available < needed { Err(CacheError::Memory { needed, available }) } else { Ok(()) }
    }

    /// Takes a malformed stretch.
    pub fn damage(&mut self, at: Locator) {
        self.account.damage(at);
    }

    /// The index of all lines, its log, and the log's account.
    pub fn finish(mut self) -> Result<(Index, Arc<Generation>, Account), CacheError> {
        let last = std::mem::take(&mut self.bytes);
        if !last.is_empty() {
            self.readers.read(self.offset, last);
        }
        while let Some(read) = self.readers.wait() {
            self.take(read);
        }
        self.afford(0)?;
        let Self { loader, generation, account, readers, .. } = self;
        // Not needed any more, while finishing needs memory.
        drop(readers);
        Ok((loader.finish_by(finish), generation, account))
    }

    /// Has the lines that wait read, and takes what was found meanwhile.
    fn read(&mut self) -> Result<(), CacheError> {
        let bytes = std::mem::take(&mut self.bytes);
        let offset = self.offset;
        self.offset += bytes.len() as u64;
        if bytes.is_empty() {
            return Ok(());
        }
        self.readers.start();
        self.readers.read(offset, bytes);
        while let Some(read) = self.readers.next() {
            self.take(read);
        }
        if self.readers.given.is_multiple_of(OFTEN) { self.afford(self.offset) } else { Ok(()) }
    }

    fn take(&mut self, read: Read) {
        let Read { reader, part, bytes } = read;
        self.loaded += bytes.len() as u64;
        self.account.records += part.records;
        part.malformed.iter().for_each(|&at| self.account.damage(at));
        self.loader.take(reader, part);
        if self.bytes.capacity() == 0 {
            self.bytes = bytes;
            self.bytes.clear();
        }
    }
}

/// Lines to read: the number of the stretch, where it begins, and its bytes.
type Lines = (u64, u64, Vec<u8>);

/// What was found in a stretch, by which reader; and its bytes, to be used again.
#[derive(Debug)]
struct Read {
    reader: usize,
    part: Part,
    bytes: Vec<u8>,
}

type Outcome = (u64, std::thread::Result<Read>);

/// Threads that read, or, of a small log, none.
#[derive(Debug, Default)]
struct Readers {
    threads: Vec<JoinHandle<()>>,
    lines: Option<Sender<Lines>>,
    found: Option<Receiver<Outcome>>,
    /// Found before one that comes earlier in the log.
    early: BTreeMap<u64, std::thread::Result<Read>>,
    /// Number of stretches given to readers, and taken from them.
    given: u64,
    taken: u64,
    /// Reads if there are no threads.
    own: Reader,
}

impl Readers {
    /// Stretches whose bytes are held: those that are read, and one that is gathered.
    fn under_way(&self) -> u64 {
        self.given - self.taken + 1
    }

    /// Starts the threads, if there are processors for them.
    fn start(&mut self) {
        if self.lines.is_some() {
            return;
        }
        let count = memory::threads(READERS);
        if count < 2 {
            return;
        }
        let (lines, queue) = mpsc::channel::<Lines>();
        let (sender, found) = mpsc::channel();
        let queue = Arc::new(Mutex::new(queue));
        for number in 0..count {
            let (queue, sender) = (Arc::clone(&queue), sender.clone());
            let body = move || {
                let mut reader = Reader::default();
                loop {
                    let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok((number_of_stretch, offset, bytes)) = next else { return };
                    let read = catch_unwind(AssertUnwindSafe(|| {
                        reader.lines(offset, &bytes);
                        Read { reader: number, part: reader.part(), bytes }
                    }));
                    if sender.send((number_of_stretch, read)).is_err() {
                        return;
                    }
                }
            };
            let thread = std::thread::Builder::new().name("cachedirfs-read".to_owned()).spawn(body);
            self.threads.extend(thread);
        }
        if !self.threads.is_empty() {
            self.lines = Some(lines);
            self.found = Some(found);
        }
    }

    /// Gives a stretch to whoever is free; they must come in the order of the log.
    fn read(&mut self, offset: u64, bytes: Vec<u8>) {
        let number = self.given;
        self.given += 1;
        if let Some(lines) = &self.lines {
            // The threads wait until the sender is gone.
            let _ = lines.send((number, offset, bytes));
            return;
        }
        // Numbers of threads are below that.
        self.own.lines(offset, &bytes);
        let part = self.own.part();
        self.early.insert(number, Ok(Read { reader: READERS, part, bytes }));
    }

    /// The next stretch, if it is there or too many are under way.
    fn next(&mut self) -> Option<Read> {
        let busy = self.given - self.taken > (AHEAD * self.threads.len()) as u64;
        while !self.early.contains_key(&self.taken) {
            let found = self.found.as_ref()?;
            let outcome = if busy { found.recv().ok()? } else { found.try_recv().ok()? };
            self.early.insert(outcome.0, outcome.1);
        }
        self.pop()
    }

    /// The next stretch; `None` if that was all.
    fn wait(&mut self) -> Option<Read> {
        while self.taken < self.given && !self.early.contains_key(&self.taken) {
            let outcome = self.found.as_ref()?.recv().ok()?;
            self.early.insert(outcome.0, outcome.1);
        }
        self.pop()
    }

    fn pop(&mut self) -> Option<Read> {
        let read = self.early.remove(&self.taken)?;
        self.taken += 1;
        match read {
            Ok(read) => Some(read),
            Err(panic) => resume_unwind(panic),
        }
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.lines = None;
        for thread in self.threads.drain(..) {
            // What happened to it was told with its stretch.
            let _ = thread.join();
        }
    }
}

/// Finishes all keys, on several threads if there are processors for them.
fn finish(columns: Vec<Unfinished>) -> Vec<Finished> {
    let count = memory::threads(columns.len());
    let queue = Mutex::new(columns.into_iter().enumerate());
    let work = || {
        let mut finished = Vec::new();
        while let Some((number, column)) = { queue.lock().unwrap_or_else(PoisonError::into_inner).next() } {
            finished.push((number, column.finish()));
        }
        finished
    };
    let mut finished = std::thread::scope(|scope| {
        let spawn = |_| std::thread::Builder::new().spawn_scoped(scope, work).ok();
        let others: Vec<_> = (1..count).filter_map(spawn).collect();
        let mut finished = work();
        for other in others {
            finished.extend(other.join().unwrap_or_else(|panic| resume_unwind(panic)));
        }
        finished
    });
    finished.sort_unstable_by_key(|(number, _)| *number);
    finished.into_iter().map(|(_, column)| column).collect()
}
