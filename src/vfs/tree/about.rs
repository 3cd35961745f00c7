//! The files about a set: `table.csv`, `table.jsonl`, `schema.json`.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::{Tree, now};
use crate::cache::{CacheError, Records};
use crate::processors;
use crate::record::parse_record;
use crate::vfs::Result;
use crate::view::table::{Csv, jsonl_row};
use crate::view::{self, File, Set};

/// So many records are one piece of work.
const PIECE: usize = 2048;
/// Threads that make one table.
const THREADS: usize = 4;
/// Whether there is memory for a table is asked from so many bytes of records on.
const MUCH: u64 = 4 << 20;

impl Tree {
    /// The content of a file about a set; remembered, so that the size that `stat` tells is that of what is read.
    pub(super) fn about_set(&self, set: &Set, file: File) -> Result<Arc<Vec<u8>>> {
        let index = self.cache.index();
        let generation = index.generation();
        if let Some(bytes) = self.files.get(set, file, generation) {
            return Ok(bytes);
        }
        let rows = self.sets.rows(set, &index, now());
        let aging = rows.stamp.is_none();
        let bytes = if file == File::Schema {
            let schema = view::schema::schema(&index, &rows.bitmap);
            drop(index);
            schema.into_bytes()
        } else {
            let records = self.cache.records(&index, set.in_order(&index, &rows.bitmap));
            let keys = match file {
                File::Csv => index.keys(view::within(set, &rows.bitmap)),
                _ => Vec::new(),
            };
            // The records are read without the index: writers go on.
            drop(index);
            // The lines, and once more while they are put together.
            let needed = records.bytes().saturating_mul(2);
            if needed > MUCH && self.cache.has_memory_for(needed).is_err() {
                // What is only remembered goes first.
                self.files.clear();
                self.cache.has_memory_for(needed)?;
            }
            let mut header = Vec::new();
            let csv = (file == File::Csv).then(|| Csv::new(&keys, &mut header));
            table(csv.as_ref(), header, &records)?
        };
        let bytes = Arc::new(bytes);
        self.files.put(set, file, generation, aging, &bytes);
        Ok(bytes)
    }
}

/// The lines of a table, after its header. Large ones are made by several threads.
fn table(csv: Option<&Csv>, header: Vec<u8>, records: &Records) -> std::result::Result<Vec<u8>, CacheError> {
    let pieces = records.len().div_ceil(PIECE);
    let next = AtomicUsize::new(0);
    let made = Mutex::new(Vec::with_capacity(pieces));
    let work = || {
        loop {
            let piece = next.fetch_add(1, Ordering::Relaxed);
            if piece >= pieces {
                return;
            }
            let lines = lines(csv, records, piece);
            made.lock().unwrap_or_else(PoisonError::into_inner).push((piece, lines));
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS).min(pieces);
    std::thread::scope(|scope| {
        for _ in 1..threads {
            let builder = std::thread::Builder::new().name("cachedirfs-table".to_owned());
            // Without a thread more this one does it all.
            if builder.spawn_scoped(scope, processors::as_usual(work)).is_err() {
                break;
            }
        }
        work();
    });
    let mut made = made.into_inner().unwrap_or_else(PoisonError::into_inner);
    made.sort_unstable_by_key(|(piece, _)| *piece);
    let mut table = header;
    table.reserve(made.iter().map(|(_, lines)| lines.as_ref().map_or(0, Vec::len)).sum());
    for (_, lines) in made {
        table.extend_from_slice(&lines?);
    }
    Ok(table)
}

fn lines(csv: Option<&Csv>, records: &Records, piece: usize) -> std::result::Result<Vec<u8>, CacheError> {
    let mut lines = Vec::new();
    let start = piece * PIECE;
    let range = start..(start + PIECE).min(records.len());
    records.read(range, &mut |bytes| match csv {
        Some(csv) => {
            // It was well-formed when it was indexed; a log that somebody spoilt since is read anew soon.
            if let Ok(record) = parse_record(bytes) {
                csv.row(&record.id, record.time, &record.object, &mut lines);
            }
        }
        None => jsonl_row(bytes, &mut lines),
    })?;
    Ok(lines)
}
