//! Loading a replaced log: readers on threads of their own take stretches of it apart, and this one puts together what they
//! found, in the order of the log, and reads itself what it would wait for.

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
use crate::store::{CHUNK, Generation, Lines};

/// More readers than this find more than one thread can put together.
const READERS: usize = 4;
/// So many stretches, of the size in which the log is read, may be under way for each reader.
const AHEAD: usize = 6;
/// While it is finished an index takes more than before and after: so many times what it has taken by then.
const PEAK: u64 = 2;
/// What this many bytes of the log took tells what the whole will take.
const TELLING: u64 = 64 << 20;
/// Room for an id takes less than so many bytes.
const AN_ID: u64 = 16;
/// After so many stretches it is looked at how much memory is left.
const OFTEN: u64 = 16;

/// A replaced log on its way to become the index.
#[derive(Debug)]
pub(super) struct Loading {
    loader: Loader,
    generation: Arc<Generation>,
    account: Account,
    /// Lines that wait: of a small log, for its end.
    waiting: Option<Lines>,
    /// Buffers to be used again, but for those of very long lines.
    spare: Vec<Vec<u8>>,
    readers: Readers,
    /// Resident memory at the beginning, and what was then taken for the whole of the log.
    before: u64,
    /// Number of ids at the beginning; `None`: there is room for all.
    known: Option<usize>,
    /// Bytes of lines that were loaded, and where in the log they end.
    loaded: u64,
    end: u64,
}

impl Loading {
    /// Of a log that replaces the one that an index shows.
    pub fn new(index: &Index, generation: &Arc<Generation>) -> Self {
        let loader = Loader::replacing(index);
        Self {
            known: Some(loader.len()),
            loader,
            generation: Arc::clone(generation),
            account: Account::default(),
            waiting: None,
            spare: Vec::new(),
            readers: Readers::default(),
            before: memory::resident(),
            loaded: 0,
            end: 0,
        }
    }

    /// Takes lines, and gives a buffer. An error means that there is not memory enough for this log.
    pub fn lines(&mut self, lines: Lines) -> Result<Vec<u8>, CacheError> {
        if let Some(before) = self.waiting.replace(lines) {
            self.readers.start();
            self.readers.read(before);
            while let Some(read) = self.readers.next() {
                self.take(read);
            }
            if self.readers.given.is_multiple_of(OFTEN) {
                let to_come = self.generation.size().unwrap_or(0).saturating_sub(self.end);
                self.afford(to_come)?;
                self.reserve(to_come);
            }
        }
        Ok(self.spare.pop().unwrap_or_default())
    }

    /// Whether there is memory for the whole of the log, as far as that can be told from what the lines before so many bytes took.
    fn afford(&self, to_come: u64) -> Result<(), CacheError> {
        let buffers = self.readers.under_way() * CHUNK as u64;
        let taken = memory::resident().saturating_sub(self.before).saturating_sub(buffers);
        if self.loaded < TELLING && to_come > 0 {
            // Too little to tell from.
            let available = memory::available();
            return if available < RESERVE {
                Err(CacheError::Memory { needed: RESERVE, available })
            } else {
                Ok(())
            };
        }
        let whole = self.whole(taken, to_come);
        let needed = whole.saturating_mul(PEAK).saturating_sub(taken).saturating_add(RESERVE);
        let available = memory::available();
        if available < needed { Err(CacheError::Memory { needed, available }) } else { Ok(()) }
    }

    /// Once, makes room for as many ids as there will be if what comes is like what was loaded, for growing takes long.
    fn reserve(&mut self, to_come: u64) {
        let Some(known) = self.known.take() else { return };
        let fresh = self.whole((self.loader.len() - known) as u64, to_come);
        let ids = usize::try_from(fresh).unwrap_or(usize::MAX).saturating_add(known);
        if memory::available() / PEAK > RESERVE.saturating_add((ids as u64).saturating_mul(AN_ID)) {
            self.before += self.loader.reserve(ids);
        }
    }

    /// What that makes for the whole of the log which is so much for what was loaded.
    fn whole(&self, loaded: u64, to_come: u64) -> u64 {
        let whole = u128::from(loaded) * u128::from(self.loaded + to_come) / u128::from(self.loaded.max(1));
        u64::try_from(whole).unwrap_or(u64::MAX)
    }

    /// Takes a malformed stretch.
    pub fn damage(&mut self, at: Locator) {
        self.account.damage(at);
    }

    /// The index of all lines, its log, and the log's account.
    pub fn finish(mut self) -> Result<(Index, Arc<Generation>, Account), CacheError> {
        if let Some(last) = self.waiting.take() {
            self.readers.read(last);
        }
        while let Some(read) = self.readers.wait() {
            self.take(read);
        }
        // Not needed any more, while finishing needs memory.
        self.spare = Vec::new();
        self.afford(0)?;
        let Self { loader, generation, account, readers, .. } = self;
        drop(readers);
        Ok((loader.finish_by(finish), generation, account))
    }

    fn take(&mut self, read: Read) {
        let Read { reader, part, lines } = read;
        let len = lines.bytes().len() as u64;
        self.loaded += len;
        self.end = lines.offset() + len;
        let buffer = lines.into_buffer();
        if buffer.len() <= CHUNK * 2 {
            self.spare.push(buffer);
        }
        self.account.records += part.records;
        part.malformed.iter().for_each(|&at| self.account.damage(at));
        self.loader.take(reader, part);
    }
}

/// What was found in a stretch, by which reader.
#[derive(Debug)]
struct Read {
    reader: usize,
    part: Part,
    lines: Lines,
}

fn read(number: usize, reader: &mut Reader, lines: Lines) -> Read {
    reader.lines(lines.offset(), lines.bytes());
    Read { reader: number, part: reader.part(), lines }
}

/// A stretch and its number.
type Numbered = (u64, Lines);
type Outcome = (u64, std::thread::Result<Read>);

/// Threads that read, or, of a small log, none.
#[derive(Debug, Default)]
struct Readers {
    threads: Vec<JoinHandle<()>>,
    lines: Option<Sender<Numbered>>,
    /// What nobody has begun with.
    queue: Option<Arc<Mutex<Receiver<Numbered>>>>,
    found: Option<Receiver<Outcome>>,
    /// Found before one that comes earlier in the log.
    early: BTreeMap<u64, std::thread::Result<Read>>,
    /// Number of stretches given to readers, and taken from them.
    given: u64,
    taken: u64,
    /// Reads if there are no threads, or what they have not begun with while it is waited for.
    own: Reader,
}

impl Readers {
    /// Stretches whose bytes are held: those that are read, and one that is gathered.
    fn under_way(&self) -> u64 {
        self.given - self.taken + 1
    }

    /// Starts the threads before the first stretch, if there are processors for them.
    fn start(&mut self) {
        if self.given > 0 {
            return;
        }
        // One processor is for this thread: it has as much to do as a reader, and all wait for it.
        let count = memory::threads(READERS + 1) - 1;
        let (lines, queue) = mpsc::channel();
        let (sender, found) = mpsc::channel();
        let queue = Arc::new(Mutex::new(queue));
        for number in 0..count {
            let (queue, sender) = (Arc::clone(&queue), sender.clone());
            let body = move || {
                let mut reader = Reader::default();
                loop {
                    let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok((number_of_stretch, lines)) = next else { return };
                    let read = catch_unwind(AssertUnwindSafe(|| read(number, &mut reader, lines)));
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
            self.queue = Some(queue);
            self.found = Some(found);
        }
    }

    /// Gives a stretch to whoever is free; they must come in the order of the log.
    fn read(&mut self, lines: Lines) {
        let number = self.given;
        self.given += 1;
        if let Some(queue) = &self.lines {
            // The threads wait until the sender is gone.
            let _ = queue.send((number, lines));
            return;
        }
        // Numbers of threads are below that.
        self.early.insert(number, Ok(read(READERS, &mut self.own, lines)));
    }

    /// The next stretch, if it is there or too many are under way.
    fn next(&mut self) -> Option<Read> {
        let busy = self.given - self.taken > (AHEAD * self.threads.len()) as u64;
        while !self.early.contains_key(&self.taken) {
            let found = self.found.as_ref()?;
            let (number, read) = if busy { self.more()? } else { found.try_recv().ok()? };
            self.early.insert(number, read);
        }
        self.pop()
    }

    /// The next stretch; `None` if that was all.
    fn wait(&mut self) -> Option<Read> {
        while self.taken < self.given && !self.early.contains_key(&self.taken) {
            let (number, read) = self.more()?;
            self.early.insert(number, read);
        }
        self.pop()
    }

    /// A stretch that was read, now or by this.
    fn more(&mut self) -> Option<Outcome> {
        let found = self.found.as_ref()?;
        if let Ok(outcome) = found.try_recv() {
            return Some(outcome);
        }
        // Whoever has the queue waits for lines, or is about to begin with some.
        let queue = self.queue.as_ref()?.try_lock().ok();
        let next = queue.and_then(|queue| queue.try_recv().ok());
        match next {
            Some((number, lines)) => Some((number, Ok(read(READERS, &mut self.own, lines)))),
            None => found.recv().ok(),
        }
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
