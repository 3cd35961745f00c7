//! Loading a replaced log: one thread parses ahead while this one fills the index.

use std::ops::Range;
use std::sync::{Arc, mpsc};

use super::CacheError;
use super::intake::within;
use super::memory::{self, RESERVE};
use super::publish::Account;
use crate::index::{Index, Loader};
use crate::record::{Locator, Piece, parse_line};
use crate::store::Generation;

/// So many bytes of lines are gathered before they are parsed.
const SEGMENT: usize = 16 << 20;
/// So many lines are parsed at a time.
const BATCH: usize = 512;
/// So many batches may wait to be indexed.
const AHEAD: usize = 8;
/// While it is finished an index takes more than before and after: so many times what it has taken by then.
const PEAK: u64 = 2;
/// What this many bytes of the log took tells what the whole will take.
const TELLING: u64 = 64 << 20;

/// A line's part that was parsed.
type Parsed<'b> = (Locator, Piece<'b>);

/// A replaced log on its way to become the index.
#[derive(Debug)]
pub(super) struct Loading {
    loader: Loader,
    generation: Arc<Generation>,
    account: Account,
    bytes: Vec<u8>,
    lines: Vec<(Range<usize>, Locator)>,
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
            lines: Vec::new(),
            before: memory::resident(),
            loaded: 0,
        }
    }

    /// Takes a line. An error means that there is not memory enough for this log.
    pub fn line(&mut self, at: Locator, line: &[u8]) -> Result<(), CacheError> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(line);
        self.lines.push((start..self.bytes.len(), at));
        if self.bytes.len() >= SEGMENT {
            self.load();
            self.afford(at.offset)?;
        }
        Ok(())
    }

    /// Whether there is memory for the whole of the log, as far as that can be told from what the lines before an offset took.
    fn afford(&self, offset: u64) -> Result<(), CacheError> {
        let size = self.generation.size().unwrap_or(offset).max(offset);
        let lines = self.lines.capacity().saturating_mul(size_of::<(Range<usize>, Locator)>());
        let buffers = u64::try_from(self.bytes.capacity().saturating_add(lines)).unwrap_or(u64::MAX);
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
        self.load();
        self.afford(0)?;
        let Self { loader, generation, account, bytes, lines, .. } = self;
        // Not needed any more, while finishing needs memory.
        drop((bytes, lines));
        Ok((loader.finish(), generation, account))
    }

    /// Loads what was gathered.
    fn load(&mut self) {
        let Self { loader, account, bytes, lines, .. } = self;
        let mut add = |batch: Vec<Parsed<'_>>| {
            for (at, piece) in batch {
                match piece {
                    Piece::Record(record) => {
                        account.records += 1;
                        loader.add(&record, at);
                    }
                    Piece::Malformed(_) => account.damage(at),
                }
            }
        };
        let (bytes, batches) = (&*bytes, || lines.chunks(BATCH));
        let done = lines.len() > BATCH && parallel(bytes, batches(), &mut add);
        if !done {
            batches().for_each(|batch| add(parse(bytes, batch)));
        }
        self.loaded += self.bytes.len() as u64;
        self.bytes.clear();
        self.lines.clear();
    }
}

/// Parses on another thread; false if there is none to have.
fn parallel<'b>(
    bytes: &'b [u8],
    batches: std::slice::Chunks<'b, (Range<usize>, Locator)>,
    add: &mut impl FnMut(Vec<Parsed<'b>>),
) -> bool {
    std::thread::scope(|scope| {
        let (sender, receiver) = mpsc::sync_channel(AHEAD);
        let parser =
            std::thread::Builder::new().name("cachedirfs-parse".to_owned()).spawn_scoped(scope, move || {
                for batch in batches {
                    if sender.send(parse(bytes, batch)).is_err() {
                        break;
                    }
                }
            });
        if parser.is_ok() {
            receiver.iter().for_each(add);
        }
        parser.is_ok()
    })
}

fn parse<'b>(bytes: &'b [u8], lines: &[(Range<usize>, Locator)]) -> Vec<Parsed<'b>> {
    let mut parsed = Vec::with_capacity(lines.len());
    for (range, at) in lines {
        for (range, piece) in parse_line(bytes.get(range.clone()).unwrap_or_default()) {
            parsed.push((within(*at, &range), piece));
        }
    }
    parsed
}
