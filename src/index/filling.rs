//! Sets of slots while a log is loaded: only appended to, then turned into what the index keeps.

use roaring::RoaringBitmap;

use super::posting::{INLINE, append};

/// Slots that wait to be appended together: a bitmap looks for its last bit before it takes more.
const BATCH: usize = 128;
/// So many slots share a container of a bitmap.
const BLOCK: u32 = 1 << 16;
/// If one in so many is taken, it is quicker to set bits than to append.
const DENSE: u32 = 16;

/// A posting to be.
#[derive(Debug)]
pub(super) enum Filling {
    /// The first `len` of `slots`.
    Inline { len: u8, slots: [u32; INLINE] },
    /// More.
    Large(Box<Large>),
}

#[derive(Debug, Default)]
pub(super) struct Large {
    bitmap: RoaringBitmap,
    /// Those after the ones in the bitmap, or, where they are dense, none.
    pending: Vec<u32>,
    /// Those after all others, where they are dense.
    block: Option<Block>,
}

/// Slots of one container.
#[derive(Debug)]
struct Block {
    number: u32,
    bits: Box<[u8; BLOCK as usize / 8]>,
}

impl Large {
    fn push(&mut self, slot: u32) {
        if let Some(block) = &mut self.block {
            if block.set(slot) {
                return;
            }
            if self.end_block() {
                self.begin_block(slot);
                return;
            }
        }
        if self.pending.last() == Some(&slot) {
            return;
        }
        if self.pending.len() >= BATCH {
            let span = self.pending.first().map_or(0, |first| slot - first);
            let dense = u64::from(span / DENSE) < self.pending.len() as u64;
            append(&mut self.bitmap, self.pending.drain(..));
            if dense {
                self.begin_block(slot);
                return;
            }
        }
        self.pending.push(slot);
    }

    fn begin_block(&mut self, slot: u32) {
        let mut block = Block { number: slot / BLOCK, bits: Box::new([0; _]) };
        block.set(slot);
        self.block = Some(block);
    }

    /// Moves the slots of the block to the bitmap; says whether it was dense.
    fn end_block(&mut self) -> bool {
        let Some(block) = self.block.take() else { return false };
        let block = RoaringBitmap::from_lsb0_bytes(block.number * BLOCK, &*block.bits);
        let dense = block.len() >= u64::from(BLOCK / DENSE);
        self.bitmap |= block;
        dense
    }
}

impl Block {
    /// Takes a slot, if it is one of these.
    fn set(&mut self, slot: u32) -> bool {
        let at = usize::try_from(slot % BLOCK / 8).ok();
        let byte = at.filter(|_| slot / BLOCK == self.number).and_then(|at| self.bits.get_mut(at));
        byte.map(|byte| *byte |= 1 << (slot % 8)).is_some()
    }
}

impl Default for Filling {
    fn default() -> Self {
        Self::Inline { len: 0, slots: [0; INLINE] }
    }
}

impl Filling {
    /// Appends a slot that is not below the last one.
    pub(super) fn push(&mut self, slot: u32) {
        match self {
            Self::Inline { len, slots } => {
                let used = usize::from(*len);
                if used > 0 && slots.get(used - 1) == Some(&slot) {
                    return;
                }
                if let Some(free) = slots.get_mut(used) {
                    *free = slot;
                    *len += 1;
                } else {
                    let pending = slots.iter().copied().chain([slot]).collect();
                    *self = Self::Large(Box::new(Large { pending, ..Large::default() }));
                }
            }
            Self::Large(large) => large.push(slot),
        }
    }

    /// Adds the slots to a list, or gives them as a bitmap: then nothing is added.
    pub(super) fn finish(self, slots: &mut Vec<u32>) -> Option<RoaringBitmap> {
        match self {
            Self::Inline { len, slots: few } => slots.extend(few.iter().take(len.into())),
            Self::Large(large) if large.bitmap.is_empty() => slots.extend(large.pending),
            Self::Large(mut large) => {
                large.end_block();
                append(&mut large.bitmap, large.pending);
                return Some(large.bitmap);
            }
        }
        None
    }
}

/// All slots of a key: most keys are in most records, so these are few runs.
#[derive(Debug, Default)]
pub(super) struct Runs(Vec<(u32, u32)>);

impl Runs {
    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Appends a slot that is not below the last one.
    pub(super) fn push(&mut self, slot: u32) {
        match self.0.last_mut() {
            Some((_, last)) if slot <= last.saturating_add(1) => *last = slot,
            _ => self.0.push((slot, slot)),
        }
    }

    /// Appends others, `by` so much higher.
    pub(super) fn extend(&mut self, others: &Self, by: u32) {
        for &(from, to) in &others.0 {
            match self.0.last_mut() {
                Some((_, last)) if from + by <= last.saturating_add(1) => *last = (*last).max(to + by),
                _ => self.0.push((from + by, to + by)),
            }
        }
    }

    /// The rows. `to_row` gives the row of a slot that still counts; without it slots are rows, and all count.
    pub(super) fn finish(self, to_row: Option<&dyn Fn(u32) -> Option<u32>>) -> RoaringBitmap {
        let mut bitmap = RoaringBitmap::new();
        if let Some(to_row) = to_row {
            let mut rows: Vec<u32> =
                self.0.into_iter().flat_map(|(from, to)| from..=to).filter_map(to_row).collect();
            rows.sort_unstable();
            append(&mut bitmap, rows);
        } else {
            for (from, to) in self.0 {
                bitmap.insert_range(from..=to);
            }
        }
        bitmap
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_found_again_however_dense_they_are() {
        // All, then gaps that grow within a block and over several, then all again; each twice.
        let steps = [(200_000, 1), (5_000, 17), (3_000, 300), (20, 70_000), (100_000, 2), (70_000, 1)];
        let mut slot = 5;
        let mut slots = Vec::new();
        for (count, step) in steps {
            for _ in 0..count {
                slots.push(slot);
                slot += step;
            }
        }
        for end in [3, 4, 100, 200, 131_067, 131_068, slots.len()] {
            let mut filling = Filling::default();
            for &slot in slots.iter().take(end) {
                filling.push(slot);
                filling.push(slot);
            }
            let mut found = Vec::new();
            let rest = filling.finish(&mut found);
            found.extend(rest.into_iter().flatten());
            assert!(found == slots[..end], "{end}");
        }
    }
}
