//! The entries of the sets that are in use, and their files, remembered until something they depend on changes.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

use roaring::RoaringBitmap;

use crate::cache::Entry;
use crate::index::{Index, Row};
use crate::name::Id;
use crate::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use crate::view::{File, Set};

/// How many sets are remembered.
const SETS: usize = 64;
/// How long the answer to a question about ages is.
const AGING: Duration = Duration::from_secs(1);
/// How many bytes of files are remembered.
const BYTES: usize = 256 << 20;
/// A file longer than this is remembered until it is opened, and then for as long as somebody has it open.
const LARGE: usize = 16 << 20;

/// The entries of a set at one time.
#[derive(Debug)]
pub(super) struct Rows {
    /// See [`Set::stamp`].
    pub stamp: Option<u64>,
    /// Of the index, when it was asked.
    generation: u64,
    at: Instant,
    pub bitmap: RoaringBitmap,
    /// The newest entry and its time.
    newest: OnceLock<Newest>,
}

#[derive(Debug, Clone, Copy)]
struct Newest {
    time: f64,
    row: u32,
    /// Of the times of entries, when it was found.
    times: u64,
}

impl Rows {
    /// The entries of a set; what was known of them `before` saves looking through all for the newest.
    fn of(set: &Set, index: &Index, now: f64, before: Option<&Self>) -> Self {
        let bitmap = set.rows(index, now).into_owned();
        let newest = OnceLock::new();
        if let Some(before) = before
            && let Some(known) = before.newest.get()
            && known.times == index.time_generation()
            && bitmap.contains(known.row)
        {
            let later = newest_of(index, &(&bitmap - &before.bitmap));
            let _ = newest.set(if later.time > known.time { later } else { *known });
        }
        Self { stamp: set.stamp(index), generation: index.generation(), at: Instant::now(), bitmap, newest }
    }

    fn is_current(&self, set: &Set, index: &Index) -> bool {
        if self.newest.get().is_some_and(|newest| newest.times != index.time_generation()) {
            return false;
        }
        match self.stamp {
            Some(stamp) => set.stamp(index) == Some(stamp),
            None => self.generation == index.generation() && self.at.elapsed() < AGING,
        }
    }

    /// The time of the newest entry, seconds since the epoch.
    pub fn newest(&self, index: &Index) -> f64 {
        self.newest.get_or_init(|| newest_of(index, &self.bitmap)).time
    }
}

fn newest_of(index: &Index, rows: &RoaringBitmap) -> Newest {
    let (time, row) = index.newest(rows);
    Newest { time, row: row.map_or(u32::MAX, |Row(row)| row), times: index.time_generation() }
}

/// Remembers a few answers, the latest used.
#[derive(Debug)]
struct Recent<K, V> {
    map: HashMap<K, (V, u64)>,
    clock: u64,
}

impl<K: Eq + Hash + Clone, V> Recent<K, V> {
    fn new() -> Self {
        Self { map: HashMap::new(), clock: 0 }
    }

    fn get(&mut self, key: &K) -> Option<&V> {
        self.clock += 1;
        let (value, used) = self.map.get_mut(key)?;
        *used = self.clock;
        Some(value)
    }

    fn put(&mut self, key: K, value: V) {
        self.clock += 1;
        self.map.insert(key, (value, self.clock));
    }

    fn drop_oldest(&mut self) {
        if let Some(key) = self.map.iter().min_by_key(|(_, (_, used))| *used).map(|(key, _)| key.clone()) {
            self.map.remove(&key);
        }
    }
}

/// Locked after the index, and for no longer than a step in a map.
#[derive(Debug)]
pub(super) struct Sets(Mutex<Recent<Set, Arc<Rows>>>);

impl Sets {
    pub fn new() -> Self {
        Self(Mutex::new(Recent::new()))
    }

    /// The entries of a set now.
    pub fn rows(&self, set: &Set, index: &Index, now: f64) -> Arc<Rows> {
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = lock().get(set).map(Arc::clone);
        let rows = match before {
            Some(rows) if rows.is_current(set, index) => return rows,
            before => Arc::new(Rows::of(set, index, now, before.as_deref())),
        };
        let mut recent = lock();
        recent.put(set.clone(), Arc::clone(&rows));
        while recent.map.len() > SETS {
            recent.drop_oldest();
        }
        rows
    }
}

/// How many records are remembered.
const RECORDS: usize = 8;

/// The records of the entries whose attributes are being looked at, one after the other.
#[derive(Debug)]
pub(super) struct Looked(Mutex<Recent<Id, (u64, Arc<Entry>)>>);

impl Looked {
    pub fn new() -> Self {
        Self(Mutex::new(Recent::new()))
    }

    /// The record as it was at this generation of the index.
    pub fn get(&self, id: &Id, generation: u64) -> Option<Arc<Entry>> {
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        recent.get(id).filter(|(at, _)| *at == generation).map(|(_, record)| Arc::clone(record))
    }

    pub fn put(&self, generation: u64, record: &Arc<Entry>) {
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        recent.put(record.id.clone(), (generation, Arc::clone(record)));
        while recent.map.len() > RECORDS {
            recent.drop_oldest();
        }
    }
}

/// The bytes of files about sets: what `stat` told the size of is what a read gives.
#[derive(Debug)]
pub(super) struct Files(Mutex<Recent<(Set, File), Kept>>);

#[derive(Debug, Clone)]
struct Kept {
    /// The index's generation that it was made at.
    generation: u64,
    at: Instant,
    /// Whether it changes with time.
    aging: bool,
    bytes: Bytes,
}

#[derive(Debug, Clone)]
enum Bytes {
    Held(Arc<Vec<u8>>),
    Opened(Weak<Vec<u8>>),
}

impl Bytes {
    fn get(&self) -> Option<Arc<Vec<u8>>> {
        match self {
            Self::Held(bytes) => Some(Arc::clone(bytes)),
            Self::Opened(bytes) => bytes.upgrade(),
        }
    }

    fn held(&self) -> usize {
        match self {
            Self::Held(bytes) => bytes.len(),
            Self::Opened(_) => 0,
        }
    }
}

impl Files {
    pub fn new() -> Self {
        Self(Mutex::new(Recent::new()))
    }

    /// The bytes of a file as they were made at this generation of the index.
    pub fn get(&self, set: &Set, file: File, generation: u64) -> Option<Arc<Vec<u8>>> {
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = recent.get(&(set.clone(), file))?;
        let current = kept.generation == generation && (!kept.aging || kept.at.elapsed() < AGING);
        if current { kept.bytes.get() } else { None }
    }

    /// The bytes were opened: whoever has them open keeps them.
    pub fn opened(&self, set: &Set, file: File, bytes: &Arc<Vec<u8>>) {
        if bytes.len() <= LARGE {
            return;
        }
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((kept, _)) = recent.map.get_mut(&(set.clone(), file))
            && matches!(&kept.bytes, Bytes::Held(held) if Arc::ptr_eq(held, bytes))
        {
            kept.bytes = Bytes::Opened(Arc::downgrade(bytes));
        }
    }

    /// Forgets all of them, for their memory.
    pub fn clear(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Recent::new();
    }

    /// Remembers them, and drops others that were not used for longer if it becomes too much.
    pub fn put(&self, set: &Set, file: File, generation: u64, aging: bool, bytes: &Arc<Vec<u8>>) {
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = Kept { generation, at: Instant::now(), aging, bytes: Bytes::Held(Arc::clone(bytes)) };
        recent.put((set.clone(), file), kept);
        let held = |recent: &Recent<(Set, File), Kept>| -> usize {
            recent.map.values().map(|(kept, _)| kept.bytes.held()).sum()
        };
        while recent.map.len() > 1 && (recent.map.len() > SETS || held(&recent) > BYTES) {
            recent.drop_oldest();
        }
    }
}

#[cfg(test)]
#[cfg(not(feature = "models"))]
mod tests {
    use super::*;
    use crate::index::Loader;
    use crate::record::{Locator, parse_record};
    use crate::view::Base;

    #[test]
    fn the_newest_is_the_newest_whatever_came_went_or_was_dated_anew() {
        let mut index = Loader::default().finish();
        let (sets, all) = (Sets::new(), Set::all(Base::Root));
        let mut apply = |line: &str| {
            index.apply(&parse_record(line.as_bytes()).unwrap(), None, Locator { offset: 0, len: 1 });
            sets.rows(&all, &index, 0.0).newest(&index)
        };
        assert!((apply(r#"{"@":"a","$":5}"#) - 5.0).abs() < 1e-9);
        assert!((apply(r#"{"@":"b","$":3}"#) - 5.0).abs() < 1e-9);
        assert!((apply(r#"{"@":"c","$":7}"#) - 7.0).abs() < 1e-9);
        assert!((apply(r#"{"@":"c","_deleted":true,"$":8}"#) - 5.0).abs() < 1e-9);
        assert!((apply(r#"{"@":"b","$":9}"#) - 9.0).abs() < 1e-9);
        assert!((apply(r#"{"@":"b","$":1}"#) - 5.0).abs() < 1e-9);
    }
}
