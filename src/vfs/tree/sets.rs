//! The entries of the sets that are in use, and their files, remembered until something they depend on changes.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use roaring::RoaringBitmap;

use crate::index::{Index, Row};
use crate::view::{File, Set};

/// How many sets are remembered.
const SETS: usize = 64;
/// How long the answer to a question about ages is.
const AGING: Duration = Duration::from_secs(1);
/// How many bytes of files are remembered.
const BYTES: usize = 256 << 20;

/// The entries of a set at one time.
#[derive(Debug)]
pub(super) struct Rows {
    /// See [`Set::stamp`].
    pub stamp: Option<u64>,
    /// Of the index, when it was asked.
    generation: u64,
    at: Instant,
    pub bitmap: RoaringBitmap,
    newest: OnceLock<f64>,
}

impl Rows {
    pub fn of(set: &Set, index: &Index, now: f64) -> Self {
        Self {
            stamp: set.stamp(index),
            generation: index.generation(),
            at: Instant::now(),
            bitmap: set.rows(index, now).into_owned(),
            newest: OnceLock::new(),
        }
    }

    fn is_current(&self, set: &Set, index: &Index) -> bool {
        match self.stamp {
            Some(stamp) => set.stamp(index) == Some(stamp),
            None => self.generation == index.generation() && self.at.elapsed() < AGING,
        }
    }

    /// The time of the newest entry, seconds since the epoch.
    pub fn newest(&self, index: &Index) -> f64 {
        *self.newest.get_or_init(|| self.bitmap.iter().map(|row| index.time(Row(row))).fold(0.0, f64::max))
    }
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
        if let Some(rows) = lock().get(set)
            && rows.is_current(set, index)
        {
            return Arc::clone(rows);
        }
        let rows = Arc::new(Rows::of(set, index, now));
        let mut recent = lock();
        recent.put(set.clone(), Arc::clone(&rows));
        while recent.map.len() > SETS {
            recent.drop_oldest();
        }
        rows
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
    bytes: Arc<[u8]>,
}

impl Files {
    pub fn new() -> Self {
        Self(Mutex::new(Recent::new()))
    }

    /// The bytes of a file as they were made at this generation of the index.
    pub fn get(&self, set: &Set, file: File, generation: u64) -> Option<Arc<[u8]>> {
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = recent.get(&(set.clone(), file))?;
        (kept.generation == generation && (!kept.aging || kept.at.elapsed() < AGING))
            .then(|| Arc::clone(&kept.bytes))
    }

    /// Remembers them, and drops others that were not used for longer if it becomes too much.
    pub fn put(&self, set: &Set, file: File, generation: u64, aging: bool, bytes: &Arc<[u8]>) {
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = Kept { generation, at: Instant::now(), aging, bytes: Arc::clone(bytes) };
        recent.put((set.clone(), file), kept);
        let held = |recent: &Recent<(Set, File), Kept>| -> usize {
            recent.map.values().map(|(kept, _)| kept.bytes.len()).sum()
        };
        while recent.map.len() > 1 && (recent.map.len() > SETS || held(&recent) > BYTES) {
            recent.drop_oldest();
        }
    }
}
