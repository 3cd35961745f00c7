//! Sets of slots while a log is loaded: only appended to, then turned into what the index keeps.

use roaring::RoaringBitmap;

use super::posting::{INLINE, append};

/// Slots that wait to be appended together: a bitmap looks for its last bit before it takes more.
const BATCH: usize = 128;

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
    /// Those after the ones in the bitmap.
    pending: Vec<u32>,
}

impl Large {
    fn push(&mut self, slot: u32) {
        if self.pending.last() == Some(&slot) {
            return;
        }
        if self.pending.len() >= BATCH {
            // The last one stays, so that the next is compared with it.
            let keep = self.pending.pop();
            append(&mut self.bitmap, self.pending.iter().copied());
            self.pending.clear();
            self.pending.extend(keep);
        }
        self.pending.push(slot);
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
                    *self = Self::Large(Box::new(Large { bitmap: RoaringBitmap::new(), pending }));
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
            Self::Large(large) => {
                let Large { mut bitmap, pending } = *large;
                append(&mut bitmap, pending);
                return Some(bitmap);
            }
        }
        None
    }
}

/// All slots of a key: most keys are in most records, so these are few runs.
#[derive(Debug, Default)]
pub(super) struct Runs(Vec<(u32, u32)>);

impl Runs {
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
