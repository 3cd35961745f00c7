//! The index as bytes, and back: arrays as they stand in memory, so that reading them is hardly more than copying.
//!
//! Whoever keeps the bytes sees to it that they are whole; what is read is checked nevertheless so far that nothing in it can do
//! worse than give wrong answers.

use roaring::RoaringBitmap;

use super::Index;
use super::attribute::Attribute;
use super::base::Base;
use super::ids::{CHUNK, Chunk, Ids};
use super::keys::Keys;
use super::rows::Rows;
use super::times::Times;
use super::values::{Texts, Values};
use crate::name::Key;

/// Counted up whenever the bytes change, or what they mean: what a value, a key or their order is.
pub const FORMAT: u32 = 1;

/// Takes bytes; what goes wrong is for whoever gave it.
pub type Put<'p> = dyn FnMut(&[u8]) + 'p;
/// Fills a buffer, and says whether it could.
pub type Get<'g> = dyn FnMut(&mut [u8]) -> bool + 'g;

/// Writes.
struct Writer<'p> {
    put: &'p mut Put<'p>,
    scratch: Vec<u8>,
}

impl Writer<'_> {
    fn number(&mut self, number: u64) {
        (self.put)(&number.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        (self.put)(bytes);
    }

    /// Little-endian, as these machines have them; see [`is_possible`].
    fn array<T: bytemuck::NoUninit>(&mut self, array: &[T]) {
        self.number(array.len() as u64);
        (self.put)(bytemuck::cast_slice(array));
    }

    fn bitmap(&mut self, bitmap: &RoaringBitmap) {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        // A vector takes everything.
        let _ = bitmap.serialize_into(&mut scratch);
        self.bytes(&scratch);
        self.scratch = scratch;
    }

    fn texts(&mut self, texts: &Texts) {
        self.array(&texts.ends);
        self.bytes(&texts.bytes);
    }

    fn base(&mut self, base: &Base) {
        self.array(&base.values.scalars);
        self.texts(&base.values.integers);
        self.texts(&base.values.strings);
        self.texts(&base.values.jsons);
        self.array(&base.starts);
        self.array(&base.rows);
        self.number(base.many.len() as u64);
        for (value, rows) in &base.many {
            self.number((*value).into());
            self.bitmap(rows);
        }
        self.bitmap(&base.all);
        self.array(&base.back);
        self.array(&base.back_starts);
    }
}

/// Reads.
struct Reader<'g> {
    get: &'g mut Get<'g>,
    /// Bytes that there are: no length is believed that is above that.
    left: u64,
    scratch: Vec<u8>,
}

impl Reader<'_> {
    fn fill(&mut self, bytes: &mut [u8]) -> Option<()> {
        self.left = self.left.checked_sub(bytes.len() as u64)?;
        (self.get)(bytes).then_some(())
    }

    fn number(&mut self) -> Option<u64> {
        let mut bytes = [0; 8];
        self.fill(&mut bytes)?;
        Some(u64::from_le_bytes(bytes))
    }

    /// A number of things of which each takes at least so many bytes.
    fn count(&mut self, bytes: usize) -> Option<usize> {
        let count = self.number()?;
        (count.checked_mul(bytes as u64)? <= self.left).then_some(())?;
        usize::try_from(count).ok()
    }

    fn array<T: bytemuck::AnyBitPattern + bytemuck::NoUninit>(&mut self) -> Option<Vec<T>> {
        let count = self.count(size_of::<T>())?;
        let mut array: Vec<T> = bytemuck::allocation::zeroed_vec(count);
        self.fill(bytemuck::cast_slice_mut(&mut array))?;
        Some(array)
    }

    /// Rows below a number of rows.
    fn rows(&mut self, below: u32) -> Option<Vec<u32>> {
        let rows = self.array::<u32>()?;
        // Without a branch for each.
        (rows.is_empty() || rows.iter().fold(0, |most, &row| most.max(row)) < below).then_some(rows)
    }

    fn text(&mut self) -> Option<String> {
        String::from_utf8(self.array()?).ok()
    }

    fn bitmap(&mut self, below: u32) -> Option<RoaringBitmap> {
        let len = self.count(1)?;
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.resize(len, 0);
        self.fill(&mut scratch)?;
        let bitmap = RoaringBitmap::deserialize_from(&*scratch).ok()?;
        self.scratch = scratch;
        bitmap.max().is_none_or(|last| last < below).then_some(bitmap)
    }

    fn texts(&mut self) -> Option<Texts> {
        let (ends, bytes) = (self.array::<u64>()?, self.array::<u8>()?);
        let sound = ends.is_sorted() && ends.last().copied().unwrap_or(0) == bytes.len() as u64;
        sound.then_some(Texts { ends, bytes })
    }

    fn base(&mut self, below: u32) -> Option<Base> {
        let scalars = self.array()?;
        let (integers, strings, jsons) = (self.texts()?, self.texts()?, self.texts()?);
        let values = Values { scalars, integers, strings, jsons };
        let starts = self.array::<u32>()?;
        let rows = self.rows(below)?;
        let mut many = Vec::new();
        for _ in 0..self.count(8)? {
            let value = u32::try_from(self.number()?).ok()?;
            many.push((value, self.bitmap(below)?));
        }
        let all = self.bitmap(below)?;
        let (back, back_starts) = (self.array::<u32>()?, self.array::<u32>()?);
        let base = Base { values, starts, rows, many, all, back, back_starts };
        base.is_sound().then_some(base)
    }
}

impl Base {
    fn is_sound(&self) -> bool {
        let spans = |starts: &[u32], count: u64, all: usize| match (starts.first(), starts.last()) {
            (None, None) => count == all as u64,
            (Some(0), Some(&last)) => {
                starts.len() as u64 == count + 1 && last as usize == all && starts.is_sorted()
            }
            _ => false,
        };
        let len = self.values.len();
        let back = if self.back.is_empty() {
            self.back_starts.is_empty() && len <= super::base::FEW_VALUES
        } else {
            spans(&self.back_starts, self.all.len(), self.back.len())
        };
        let places = || self.many.iter().map(|(value, _)| value);
        spans(&self.starts, len as u64, self.rows.len())
            && back
            && self.back.iter().fold(0, |most, &value| most.max(value)) as usize <= len.saturating_sub(1)
            && places().is_sorted_by(|a, b| a < b)
            && places().next_back().is_none_or(|&last| (last as usize) < len)
    }
}

/// Whether indexes can be kept by this machine.
pub const fn is_possible() -> bool {
    cfg!(target_endian = "little")
}

impl Index {
    /// About how many bytes are needed to copy and to write the index.
    pub fn keeping_bytes(&self) -> u64 {
        let changed = || self.attributes.iter().filter(|attribute| attribute.settled().is_none());
        let copied: u64 = changed().map(|attribute| attribute.fresh_bytes() * 2).sum();
        let folded = changed().map(Attribute::folding_bytes).max().unwrap_or(0);
        self.ids.len() as u64 * 64 + copied + folded
    }

    /// Writes the index.
    pub fn keep<'p>(&'p self, put: &'p mut Put<'p>) {
        let mut writer = Writer { put, scratch: Vec::new() };
        let Self { ids, rows, times, live, keys, attributes, .. } = self;
        writer.number(ids.len() as u64);
        for chunk in &ids.chunks {
            writer.bytes(chunk.bytes.as_bytes());
            writer.array(&chunk.ends);
        }
        writer.number(ids.seed);
        writer.array(&ids.table);
        let (all_times, offsets, lens) = rows.columns();
        writer.array(all_times);
        writer.array(offsets);
        writer.array(lens);
        let folded;
        let (len, order) = if let Some(settled) = times.settled() {
            settled
        } else {
            folded = times.folded(rows);
            folded.settled().unwrap_or_default()
        };
        writer.number(len.into());
        writer.array(order);
        writer.bitmap(live);
        writer.number(attributes.len() as u64);
        for (key, attribute) in keys.from(0).iter().zip(attributes) {
            writer.bytes(key.as_str().as_bytes());
            match attribute.settled() {
                Some(base) => writer.base(base),
                None => writer.base(&attribute.folded()),
            }
        }
    }

    /// Reads an index from so many bytes; `None` if it is none. It is that of a log that has just been loaded.
    pub fn from_kept<'g>(left: u64, get: &'g mut Get<'g>) -> Option<Self> {
        let mut reader = Reader { get, left, scratch: Vec::new() };
        let len = u32::try_from(reader.number()?).ok()?;
        let count = usize::try_from(len).ok()?;
        let mut chunks = Vec::new();
        while chunks.len() * CHUNK < count {
            let (bytes, ends) = (reader.text()?, reader.array::<u32>()?);
            let expected = (count - chunks.len() * CHUNK).min(CHUNK);
            (ends.len() == expected && ends.is_sorted() && *ends.last()? as usize == bytes.len())
                .then_some(())?;
            chunks.push(Chunk { bytes, ends }.into());
        }
        let seed = reader.number()?;
        let table = reader.array::<u64>()?;
        let ids = Ids { chunks, table, seed };
        ids.is_sound().then_some(())?;
        let rows = Rows::from_columns(reader.array()?, reader.array()?, reader.array()?, count)?;
        let in_order = u32::try_from(reader.number()?).ok()?;
        let order = reader.rows(len)?;
        (in_order <= len && (order.is_empty() || order.len() == in_order as usize)).then_some(())?;
        let times = Times::from_settled(in_order, order);
        let live = reader.bitmap(len)?;
        let generation = 1;
        let mut keys = Keys::default();
        let mut attributes = Vec::new();
        for number in 0..reader.count(8)? {
            let spelled = reader.text()?;
            let key = Key::parse(&spelled).ok().filter(|key| key.as_str() == spelled)?;
            // None twice.
            (keys.intern(key) as usize == number).then_some(())?;
            attributes.push(Attribute::new(reader.base(len)?, generation));
        }
        (reader.left == 0).then_some(())?;
        Some(Self {
            ids,
            rows,
            times,
            live,
            keys,
            attributes,
            due: Vec::new(),
            generation,
            live_generation: generation,
            time_generation: generation,
            base_generation: generation,
        })
    }
}
