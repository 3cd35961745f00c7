//! The ids of all rows, compactly, and the way back from an id to its row.

use std::hash::BuildHasher;

use hashbrown::hash_table::Entry;
use hashbrown::{DefaultHashBuilder, HashTable};

/// Rows whose ids share one buffer: growing never copies more than one buffer, and offsets fit in 32 bits.
const CHUNK: usize = 1 << 16;

/// The ids that share a buffer.
#[derive(Debug, Clone, Default)]
struct Chunk {
    bytes: String,
    /// Where each id ends.
    ends: Vec<u32>,
}

impl Chunk {
    fn get(&self, at: usize) -> Option<&str> {
        let end = usize::try_from(*self.ends.get(at)?).ok()?;
        let start = match at.checked_sub(1) {
            Some(before) => usize::try_from(*self.ends.get(before)?).ok()?,
            None => 0,
        };
        self.bytes.get(start..end)
    }
}

/// Ids in order of rows.
#[derive(Debug, Clone, Default)]
pub(super) struct Ids {
    chunks: Vec<Chunk>,
    rows: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

fn id_at(chunks: &[Chunk], row: u32) -> Option<&str> {
    let row = usize::try_from(row).ok()?;
    chunks.get(row / CHUNK)?.get(row % CHUNK)
}

impl Ids {
    /// Number of rows.
    pub(super) fn len(&self) -> usize {
        self.chunks.last().map_or(0, |last| (self.chunks.len() - 1) * CHUNK + last.ends.len())
    }

    /// The id of a row.
    pub(super) fn get(&self, row: u32) -> Option<&str> {
        id_at(&self.chunks, row)
    }

    /// The row of an id.
    pub(super) fn find(&self, id: &str) -> Option<u32> {
        let hash = self.hasher.hash_one(id);
        self.rows.find(hash, |&row| id_at(&self.chunks, row) == Some(id)).copied()
    }

    /// The row of an id, a new one if it has none. Memory ends long before row numbers do.
    pub(super) fn intern(&mut self, id: &str) -> u32 {
        let row = u32::try_from(self.len()).unwrap_or(u32::MAX);
        let Self { chunks, rows, hasher } = self;
        let is_it = |&row: &u32| id_at(chunks, row) == Some(id);
        let rehash = |&row: &u32| hasher.hash_one(id_at(chunks, row).unwrap_or_default());
        match rows.entry(hasher.hash_one(id), is_it, rehash) {
            Entry::Occupied(found) => return *found.get(),
            Entry::Vacant(free) => free.insert(row),
        };
        if chunks.last().is_none_or(|chunk| chunk.ends.len() == CHUNK) {
            if let Some(full) = chunks.last_mut() {
                full.bytes.shrink_to_fit();
            }
            chunks.push(Chunk::default());
        }
        if let Some(chunk) = chunks.last_mut() {
            chunk.bytes.push_str(id);
            chunk.ends.push(u32::try_from(chunk.bytes.len()).unwrap_or(u32::MAX));
        }
        row
    }

    /// Gives back memory that is not used.
    pub(super) fn shrink_to_fit(&mut self) {
        for chunk in &mut self.chunks {
            chunk.bytes.shrink_to_fit();
            chunk.ends.shrink_to_fit();
        }
        let Self { chunks, rows, hasher } = self;
        rows.shrink_to_fit(|&row| hasher.hash_one(id_at(chunks, row).unwrap_or_default()));
    }
}
