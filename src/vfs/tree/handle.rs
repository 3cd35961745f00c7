//! Open virtual files and directory streams.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use super::attribute::AttributeFile;
use super::stream::Stream;
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

/// The open handles. Locked for a step in the map, under nothing else.
#[derive(Debug)]
pub(super) struct Handles {
    map: RwLock<HashMap<u64, Handle>>,
    next: AtomicU64,
}

impl Handles {
    pub fn new() -> Self {
        Self { map: RwLock::default(), next: AtomicU64::new(1) }
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
        self.map.write().unwrap_or_else(PoisonError::into_inner).remove(&fh)
    }

    /// Number of open handles.
    pub fn len(&self) -> usize {
        self.read().len()
    }
}
