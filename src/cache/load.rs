//! Loading a replaced log: one thread parses ahead while this one fills the index.

use std::ops::Range;
use std::sync::{Arc, mpsc};

use super::intake::within;
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
        }
    }

    /// Takes a line.
    pub fn line(&mut self, at: Locator, line: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(line);
        self.lines.push((start..self.bytes.len(), at));
        if self.bytes.len() >= SEGMENT {
            self.load();
        }
    }

    /// Takes a malformed stretch.
    pub fn damage(&mut self, at: Locator) {
        self.account.damage(at);
    }

    /// The index of all lines, its log, and the log's account.
    pub fn finish(mut self) -> (Index, Arc<Generation>, Account) {
        self.load();
        let Self { loader, generation, account, bytes, lines } = self;
        // Not needed any more, while finishing needs memory.
        drop((bytes, lines));
        (loader.finish(), generation, account)
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
