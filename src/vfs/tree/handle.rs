//! Open virtual files and directory streams.

use std::collections::HashMap;

use super::attribute::AttributeFile;
use super::stream::Stream;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use crate::vfs::{Error, Ino, Result};

/// What a handle stands for.
#[derive(Debug, Clone)]
pub(super) enum Handle {
    /// A file as it was when it was opened.
    Bytes(Arc<Vec<u8>>),
    /// An attribute file, or `.attrs.json`, that is open for writing.
    Attribute(Arc<AttributeFile>),
    /// A directory.
    Stream(Arc<Stream>),
}

/// All large files that are open together are at most this long, unless there is but one: who opens one more is told so.
const OPEN_BYTES: usize = 1 << 30;
/// Files up to this size do not count.
const SMALL: usize = 64 << 10;

/// The open handles. Locked for a step in the map, under nothing else.
#[derive(Debug)]
pub(super) struct Handles {
    map: RwLock<HashMap<u64, Handle>>,
    /// Inner lock: how often each large file is open, by its address, and how many bytes they are together.
    large: Mutex<(HashMap<usize, usize>, usize)>,
    limit: usize,
    next: AtomicU64,
}

impl Handles {
    pub fn new() -> Self {
        Self::with_limit(OPEN_BYTES)
    }

    fn with_limit(limit: usize) -> Self {
        Self { map: RwLock::default(), large: Mutex::default(), limit, next: AtomicU64::new(1) }
    }

    fn read(&self) -> RwLockReadGuard<'_, HashMap<u64, Handle>> {
        self.map.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of a new handle.
    pub fn add(&self, handle: Handle) -> u64 {
        let fh = self.next.fetch_add(1, Ordering::Relaxed);
        self.map.write().unwrap_or_else(PoisonError::into_inner).insert(fh, handle);
        fh
    }

    /// The number of a new handle of a file about a set. Equal bytes that are open already cost nothing.
    pub fn add_snapshot(&self, bytes: Arc<Vec<u8>>) -> Result<u64> {
        if bytes.len() > SMALL {
            let mut large = self.large.lock().unwrap_or_else(PoisonError::into_inner);
            let (open, held) = &mut *large;
            if !open.contains_key(&address(&bytes)) {
                if *held > 0 && held.saturating_add(bytes.len()) > self.limit {
                    return Err(Error::Limit);
                }
                *held += bytes.len();
            }
            *open.entry(address(&bytes)).or_default() += 1;
        }
        Ok(self.add(Handle::Bytes(bytes)))
    }

    /// A file is no longer open by one handle.
    fn close_snapshot(&self, bytes: &Arc<Vec<u8>>) {
        let mut large = self.large.lock().unwrap_or_else(PoisonError::into_inner);
        let (open, held) = &mut *large;
        // Attribute files are never counted.
        let Some(count) = open.get_mut(&address(bytes)) else { return };
        *count -= 1;
        if *count == 0 {
            open.remove(&address(bytes));
            *held -= bytes.len();
        }
    }

    pub fn get(&self, fh: u64) -> Result<Handle> {
        self.read().get(&fh).cloned().ok_or(Error::BadHandle)
    }

    pub fn attribute(&self, fh: u64) -> Option<Arc<AttributeFile>> {
        match self.get(fh) {
            Ok(Handle::Attribute(file)) => Some(file),
            _ => None,
        }
    }

    pub fn stream(&self, fh: u64) -> Result<Arc<Stream>> {
        match self.get(fh)? {
            Handle::Stream(stream) => Ok(stream),
            _ => Err(Error::BadHandle),
        }
    }

    /// All handles that write to a node.
    pub fn writers(&self, ino: Ino) -> Vec<Arc<AttributeFile>> {
        let writes = |handle: &Handle| match handle {
            Handle::Attribute(file) if file.ino == ino => Some(Arc::clone(file)),
            _ => None,
        };
        self.read().values().filter_map(writes).collect()
    }

    pub fn remove(&self, fh: u64) -> Option<Handle> {
        let handle = self.map.write().unwrap_or_else(PoisonError::into_inner).remove(&fh);
        if let Some(Handle::Bytes(bytes)) = &handle {
            self.close_snapshot(bytes);
        }
        handle
    }

    /// Number of open handles.
    pub fn len(&self) -> usize {
        self.read().len()
    }
}

fn address(bytes: &Arc<Vec<u8>>) -> usize {
    Arc::as_ptr(bytes).addr()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_files_are_limited_by_their_bytes_together() {
        let handles = Handles::with_limit(10 * SMALL);
        let file = |size: usize| Arc::new(vec![0; size]);
        let table = file(6 * SMALL);
        let same: Vec<_> = (0..1000).map(|_| handles.add_snapshot(Arc::clone(&table)).unwrap()).collect();
        assert!(matches!(handles.add_snapshot(file(5 * SMALL)), Err(Error::Limit)));
        let other = handles.add_snapshot(file(4 * SMALL)).unwrap();
        assert!(matches!(handles.add_snapshot(file(2 * SMALL)), Err(Error::Limit)));
        // Small ones do not count, and what is open stays open.
        let small: Vec<_> = (0..1000).map(|_| handles.add_snapshot(file(SMALL)).unwrap()).collect();
        handles.get(other).unwrap();
        for fh in same {
            handles.remove(fh);
        }
        let second = handles.add_snapshot(file(5 * SMALL)).unwrap();
        for fh in small.into_iter().chain([other, second]) {
            handles.remove(fh);
        }
        // One alone may be longer.
        let long = handles.add_snapshot(file(20 * SMALL)).unwrap();
        assert!(matches!(handles.add_snapshot(file(2 * SMALL)), Err(Error::Limit)));
        handles.remove(long);
        assert_eq!((handles.len(), handles.large.lock().unwrap().1), (0, 0));
    }
}
