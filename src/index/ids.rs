//! The ids of all rows, compactly, and the way back from an id to its row.

use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::DefaultHashBuilder;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Rows whose ids share one buffer: growing never copies more than one buffer, and offsets fit in 32 bits.
pub(super) const CHUNK: usize = 1 << 16;

/// The ids that share a buffer.
#[derive(Debug, Clone, Default)]
pub(super) struct Chunk {
    pub bytes: String,
    /// Where each id ends.
    pub ends: Vec<u32>,
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
#[derive(Debug, Clone)]
pub(super) struct Ids {
    pub chunks: Vec<Arc<Chunk>>,
    /// Half of an id's hash and, below it, one more than its row; 0 is free. An id stands in the first free place from the one
    /// that its hash names, in proportion, so that a larger table has the same order.
    pub table: Vec<u64>,
    /// Nobody who chooses ids may know it.
    pub seed: u64,
}

impl Default for Ids {
    fn default() -> Self {
        Self { chunks: Vec::new(), table: Vec::new(), seed: DefaultHashBuilder::default().hash_one(0) }
    }
}

fn id_at(chunks: &[Arc<Chunk>], row: usize) -> Option<&str> {
    chunks.get(row / CHUNK)?.get(row % CHUNK)
}

/// The place that a hash names in a table of this size.
fn place(hash: u64, len: usize) -> usize {
    // Below `len`, so it fits.
    usize::try_from(((hash >> 32) * len as u64) >> 32).unwrap_or(0)
}

/// The size of a table with room for so many rows.
fn table_len(rows: usize) -> usize {
    rows / 3 * 4 + 4
}

/// So many ids are looked for at a time.
const TOGETHER: usize = 64;

const LOW: u64 = 0xFFFF_FFFF;

impl Ids {
    /// Number of rows.
    pub(super) fn len(&self) -> usize {
        self.chunks.last().map_or(0, |last| (self.chunks.len() - 1) * CHUNK + last.ends.len())
    }

    /// The id of a row.
    pub(super) fn get(&self, row: u32) -> Option<&str> {
        id_at(&self.chunks, usize::try_from(row).ok()?)
    }

    /// The row of an id, or the free place where it would stand.
    fn look(&self, id: &str, hash: u64) -> Result<u32, usize> {
        let mut at = place(hash, self.table.len());
        // There is always a free place; the bound is for a table that was made by somebody else.
        for _ in 0..self.table.len() {
            let entry = self.table.get(at).copied().unwrap_or(0);
            if entry == 0 {
                break;
            }
            if entry & !LOW == hash & !LOW
                && let Ok(row) = u32::try_from((entry & LOW) - 1)
                && self.get(row) == Some(id)
            {
                return Ok(row);
            }
            at = if at + 1 == self.table.len() { 0 } else { at + 1 };
        }
        Err(at)
    }

    /// The row of an id.
    pub(super) fn find(&self, id: &str) -> Option<u32> {
        self.look(id, xxh3_64_with_seed(id.as_bytes(), self.seed)).ok()
    }

    /// The row of an id, a new one if it has none. Memory ends long before row numbers do.
    pub(super) fn intern(&mut self, id: &str) -> u32 {
        self.intern_hashed(id, xxh3_64_with_seed(id.as_bytes(), self.seed))
    }

    /// As [`Ids::intern`], of many: gives the row of each, in order.
    pub(super) fn intern_all<'i>(&mut self, ids: impl Iterator<Item = &'i str>, mut each: impl FnMut(u32)) {
        let mut ids = ids.peekable();
        let mut together = Vec::with_capacity(TOGETHER);
        while ids.peek().is_some() {
            self.make_room(TOGETHER);
            together.clear();
            let hashed = |id: &'i str| (id, xxh3_64_with_seed(id.as_bytes(), self.seed));
            together.extend(ids.by_ref().take(TOGETHER).map(hashed));
            // The table is larger than what the processor has at hand: its waits are taken together.
            let read = |hash: u64| self.table.get(place(hash, self.table.len())).copied().unwrap_or(0);
            std::hint::black_box(together.iter().fold(0, |all, (_, hash)| all ^ read(*hash)));
            for (id, hash) in &together {
                each(self.intern_hashed(id, *hash));
            }
        }
    }

    /// Makes room for so many rows in all, and some more, at once. Gives the bytes that it takes.
    pub(super) fn reserve(&mut self, rows: usize) -> u64 {
        let rows = rows + rows / 32;
        if self.table.len() < table_len(rows) {
            self.resize(rows);
        }
        self.table.len() as u64 * 8
    }

    /// Sees to it that so many ids can come without the table growing.
    fn make_room(&mut self, more: usize) {
        let len = self.len() + more;
        if self.table.len() / 4 * 3 <= len {
            self.resize(len + len / 2 + 16);
        }
    }

    fn intern_hashed(&mut self, id: &str, hash: u64) -> u32 {
        self.make_room(0);
        let len = self.len();
        let free = match self.look(id, hash) {
            Ok(row) => return row,
            Err(free) => free,
        };
        let row = u32::try_from(len).unwrap_or(u32::MAX);
        if let Some(entry) = self.table.get_mut(free) {
            *entry = hash & !LOW | (u64::from(row) + 1);
        }
        if self.chunks.last().is_none_or(|chunk| chunk.ends.len() == CHUNK) {
            if let Some(full) = self.chunks.last_mut() {
                Arc::make_mut(full).bytes.shrink_to_fit();
            }
            self.chunks.push(Arc::default());
        }
        if let Some(chunk) = self.chunks.last_mut() {
            let chunk = Arc::make_mut(chunk);
            chunk.bytes.push_str(id);
            chunk.ends.push(u32::try_from(chunk.bytes.len()).unwrap_or(u32::MAX));
        }
        row
    }

    /// Makes a table with room for so many rows.
    fn resize(&mut self, rows: usize) {
        let mut table = vec![0_u64; table_len(rows)];
        for &entry in self.table.iter().filter(|&&entry| entry != 0) {
            let mut at = place(entry, table.len());
            while table.get(at).is_some_and(|&entry| entry != 0) {
                at = if at + 1 == table.len() { 0 } else { at + 1 };
            }
            if let Some(free) = table.get_mut(at) {
                *free = entry;
            }
        }
        self.table = table;
    }

    /// Whether every entry of the table is a row, and there is a free place.
    pub(super) fn is_sound(&self) -> bool {
        let used = self.table.iter().filter(|&&entry| entry != 0).count();
        let most = self.table.iter().fold(0, |most, &entry| most.max(entry & LOW));
        let rows = self.len();
        used == rows && most <= rows as u64 && (rows == 0 || used < self.table.len())
    }

    /// Gives back memory that is not used.
    pub(super) fn shrink_to_fit(&mut self) {
        for chunk in &mut self.chunks {
            let chunk = Arc::make_mut(chunk);
            chunk.bytes.shrink_to_fit();
            chunk.ends.shrink_to_fit();
        }
        let len = self.len();
        if self.table.len() > len / 3 * 4 + len / 16 + 64 {
            self.resize(len + 8);
        }
    }
}
