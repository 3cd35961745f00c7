//! What a log's bytes were, in a few numbers: by which a log can be known again without being understood.

use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// Bytes that make a block.
pub(super) const BLOCK: u64 = 1 << 20;

/// The digest of a log from its beginning on.
#[derive(Clone)]
pub(super) struct Digest {
    /// Of every whole block.
    blocks: Vec<u64>,
    /// Of the beginning of the next one.
    rest: Box<Xxh3>,
    len: u64,
    /// Whether something was left out.
    gaps: bool,
}

impl std::fmt::Debug for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Digest").field("len", &self.len).finish_non_exhaustive()
    }
}

impl Default for Digest {
    fn default() -> Self {
        Self { blocks: Vec::new(), rest: Box::new(Xxh3::new()), len: 0, gaps: false }
    }
}

impl Digest {
    /// That of a log whose blocks are known, but for the last one, whose bytes these are.
    pub fn resumed(blocks: &[u64], last: &[u8]) -> Self {
        let mut digest =
            Self { blocks: blocks.to_vec(), len: blocks.len() as u64 * BLOCK, ..Self::default() };
        digest.take(digest.len, last);
        digest
    }

    /// Takes the bytes from an offset on.
    pub fn take(&mut self, offset: u64, mut bytes: &[u8]) {
        self.gaps |= offset != self.len;
        while !self.gaps && !bytes.is_empty() {
            let room = usize::try_from(BLOCK - self.len % BLOCK).unwrap_or(usize::MAX);
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            if now.len() as u64 == BLOCK {
                self.blocks.push(xxh3_64(now));
            } else {
                self.rest.update(now);
                if now.len() == room {
                    self.blocks.push(self.rest.digest());
                    self.rest.reset();
                }
            }
            self.len += now.len() as u64;
            bytes = later;
        }
    }

    /// The digests of all blocks of the first `len` bytes, the last of which may be a part of one; `None` if it is not known.
    pub fn blocks(&self, len: u64) -> Option<Vec<u64>> {
        if self.gaps || self.len != len {
            return None;
        }
        let mut blocks = self.blocks.clone();
        if !len.is_multiple_of(BLOCK) {
            blocks.push(self.rest.digest());
        }
        Some(blocks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_does_not_matter_how_the_bytes_come() {
        let bytes: Vec<u8> =
            (0..3_000_000_u32).map(|number| (number.wrapping_mul(number) >> 7).to_le_bytes()[0]).collect();
        let of = |sizes: &[usize]| {
            let mut digest = Digest::default();
            let (mut at, mut sizes) = (0, sizes.iter().cycle());
            while at < bytes.len() {
                let end = (at + sizes.next().unwrap()).min(bytes.len());
                digest.take(at as u64, &bytes[at..end]);
                at = end;
            }
            digest.blocks(bytes.len() as u64).unwrap()
        };
        let whole = of(&[bytes.len()]);
        assert_eq!(whole.len(), 3);
        assert_eq!(of(&[1 << 20]), whole);
        assert_eq!(of(&[7, 100_000, 1 << 20, 3]), whole);
        let block = usize::try_from(BLOCK).unwrap();
        let resumed = Digest::resumed(&whole[..2], &bytes[2 * block..]);
        assert_eq!(resumed.blocks(bytes.len() as u64).unwrap(), whole);
        assert_eq!(whole[1], xxh3_64(&bytes[block..2 * block]));
    }

    #[test]
    fn a_gap_is_not_hidden() {
        let mut digest = Digest::default();
        digest.take(0, b"abc");
        digest.take(4, b"e");
        assert_eq!(digest.blocks(4), None);
        assert_eq!(digest.blocks(5), None);
        assert_eq!(Digest::default().blocks(0), Some(vec![]));
    }
}
