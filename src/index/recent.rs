//! The texts of a key's values that were seen lately, and the numbers that the values have.

/// Longest text that is remembered.
const LONGEST: usize = 24;
/// Places at first and at most. A text has one place; what comes there later is remembered instead.
const FIRST: usize = 64;
const MOST: usize = 4096;

/// Texts and numbers.
#[derive(Debug, Default)]
pub(super) struct Recent {
    entries: Vec<Entry>,
    misses: usize,
}

#[derive(Debug, Clone, Copy, Default)]
struct Entry {
    text: [u64; 3],
    /// 0: free.
    len: u32,
    number: u32,
}

/// A text as it is compared, if it is short enough.
#[derive(Debug, Clone, Copy)]
pub(super) struct Text {
    words: [u64; 3],
    len: u32,
}

/// The first bytes of eight, so many if there are; the others are 0.
fn first(bytes: [u8; 8], count: u32) -> u64 {
    u64::from_le_bytes(bytes) & u64::MAX.checked_shr(64 - count.min(8) * 8).unwrap_or(0)
}

impl Text {
    /// That between two offsets of a line.
    #[inline]
    pub(super) fn of(line: &[u8], start: usize, end: usize) -> Option<Self> {
        let len = end.checked_sub(start)?;
        if len > LONGEST {
            return None;
        }
        let mut bytes = [0; LONGEST];
        if let Some(chunk) = line.get(start..).and_then(<[u8]>::first_chunk::<LONGEST>) {
            bytes = *chunk;
        } else {
            bytes.iter_mut().zip(line.get(start..end)?).for_each(|(to, from)| *to = *from);
        }
        let [a, b, c] = *bytes.as_chunks().0 else { return None };
        let len = u32::try_from(len).ok()?;
        let words = [first(a, len), first(b, len.saturating_sub(8)), first(c, len.saturating_sub(16))];
        Some(Self { words, len })
    }

    fn place(&self, places: usize) -> usize {
        const ODD: u64 = 0x9E37_79B9_7F4A_7C15;
        let [a, b, c] = self.words;
        let mixed =
            (a ^ b.rotate_left(23) ^ c.rotate_left(41)).wrapping_add(u64::from(self.len)).wrapping_mul(ODD);
        // The number of places is a power of two.
        usize::try_from(mixed >> 40).unwrap_or(0) & places.wrapping_sub(1)
    }
}

impl Recent {
    /// The number of a text.
    #[inline]
    pub(super) fn get(&self, text: &Text) -> Option<u32> {
        let entry = self.entries.get(text.place(self.entries.len()))?;
        // As numbers: they are at hand, their bytes in memory are not yet.
        let differs = entry.text.iter().zip(text.words).fold(0, |all, (one, other)| all | (one ^ other));
        (differs == 0 && entry.len == text.len).then_some(entry.number)
    }

    /// Remembers the number of a text that was not found.
    pub(super) fn put(&mut self, text: &Text, number: u32) {
        self.misses += 1;
        if self.entries.is_empty() {
            self.entries.resize(FIRST, Entry::default());
        } else if self.misses > self.entries.len() * 4 && self.entries.len() < MOST {
            // Many that come again have one place: those seen until now are soon seen anew.
            self.misses = 0;
            self.entries = vec![Entry::default(); self.entries.len() * 4];
        }
        let place = text.place(self.entries.len());
        if let Some(entry) = self.entries.get_mut(place) {
            *entry = Entry { text: text.words, len: text.len, number };
        }
    }
}
