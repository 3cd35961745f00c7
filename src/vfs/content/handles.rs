//! Open files and directory streams, by handle.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use super::stream::Stream;
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use crate::vfs::{CONTENT_BIT, Error, Ino, Result, Signature};

/// An open file.
#[derive(Debug)]
pub(super) struct OpenFile {
    pub ino: Ino,
    pub fd: Arc<OwnedFd>,
    pub writable: bool,
    /// A program that runs from it, or is about to.
    pub executed: bool,
    pub fresh: Fresh,
}

/// What a file looked like when it was opened, until the kernel has certainly had the answer.
#[derive(Debug)]
pub(super) struct Fresh {
    waiting: AtomicBool,
    seen: Option<Signature>,
}

impl Fresh {
    pub fn new(seen: Option<Signature>) -> Self {
        Self { waiting: AtomicBool::new(seen.is_some()), seen }
    }

    /// What it looked like, once.
    pub fn take(&self) -> Option<Signature> {
        if self.waiting.load(Ordering::Relaxed) && self.waiting.swap(false, Ordering::Relaxed) {
            self.seen
        } else {
            None
        }
    }
}

/// An open directory stream.
#[derive(Debug)]
pub(super) struct OpenDirectory {
    pub ino: Ino,
    /// It has a descriptor only while it is read: too many are open.
    pub transient: bool,
    /// How long the kernel may keep what is listed.
    pub ttl: Duration,
    pub fresh: Fresh,
    stream: Mutex<Stream>,
}

impl OpenDirectory {
    pub fn new(ino: Ino, stream: Stream, transient: bool, ttl: Duration, fresh: Fresh) -> Self {
        Self { ino, transient, ttl, fresh, stream: Mutex::new(stream) }
    }

    /// The stream; one call at a time. Nothing else is locked by who holds it but the table, for moments.
    pub fn stream(&self) -> MutexGuard<'_, Stream> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Clone)]
enum Handle {
    File(Arc<OpenFile>),
    Directory(Arc<OpenDirectory>),
}

/// All handles: a slab, whose index is the number of the handle.
#[derive(Debug, Default)]
pub(super) struct Handles {
    slab: RwLock<Slab>,
    directories: AtomicUsize,
}

#[derive(Debug, Default)]
struct Slab {
    handles: Vec<Option<Handle>>,
    free: Vec<usize>,
}

impl Handles {
    fn insert(&self, handle: Handle) -> u64 {
        let mut slab = self.slab.write().unwrap_or_else(PoisonError::into_inner);
        let index = slab.free.pop().unwrap_or_else(|| {
            slab.handles.push(None);
            slab.handles.len() - 1
        });
        if let Some(place) = slab.handles.get_mut(index) {
            *place = Some(handle);
        }
        // An index of memory fits.
        CONTENT_BIT | u64::try_from(index).unwrap_or(0)
    }

    fn get(&self, fh: u64) -> Option<Handle> {
        let slab = self.slab.read().unwrap_or_else(PoisonError::into_inner);
        slab.handles.get(usize::try_from(fh & !CONTENT_BIT).ok()?)?.clone()
    }

    fn remove(&self, fh: u64) -> Option<Handle> {
        let index = usize::try_from(fh & !CONTENT_BIT).ok()?;
        let mut slab = self.slab.write().unwrap_or_else(PoisonError::into_inner);
        let handle = slab.handles.get_mut(index)?.take()?;
        slab.free.push(index);
        Some(handle)
    }

    pub fn insert_file(&self, file: OpenFile) -> u64 {
        self.insert(Handle::File(Arc::new(file)))
    }

    /// So many directory streams are open.
    pub fn directories(&self) -> usize {
        self.directories.load(Ordering::Relaxed)
    }

    pub fn insert_directory(&self, directory: OpenDirectory) -> u64 {
        self.directories.fetch_add(1, Ordering::Relaxed);
        self.insert(Handle::Directory(Arc::new(directory)))
    }

    pub fn file(&self, fh: u64) -> Result<Arc<OpenFile>> {
        match self.get(fh) {
            Some(Handle::File(file)) => Ok(file),
            Some(Handle::Directory(_)) | None => Err(Error::BadHandle),
        }
    }

    pub fn directory(&self, fh: u64) -> Result<Arc<OpenDirectory>> {
        match self.get(fh) {
            Some(Handle::Directory(directory)) => Ok(directory),
            Some(Handle::File(_)) | None => Err(Error::BadHandle),
        }
    }

    pub fn remove_file(&self, fh: u64) -> Option<Arc<OpenFile>> {
        match self.remove(fh) {
            Some(Handle::File(file)) => Some(file),
            Some(Handle::Directory(_)) | None => None,
        }
    }

    pub fn remove_directory(&self, fh: u64) -> Option<Arc<OpenDirectory>> {
        match self.remove(fh) {
            Some(Handle::Directory(directory)) => {
                self.directories.fetch_sub(1, Ordering::Relaxed);
                Some(directory)
            }
            Some(Handle::File(_)) | None => None,
        }
    }
}

impl AsFd for OpenFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
