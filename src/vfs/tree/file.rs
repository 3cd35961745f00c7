//! Virtual files: what they contain, and reading them.

use std::ffi::OsStr;
use std::sync::Arc;

use super::Tree;
use super::handle::Handle;
use super::place::Place;
use crate::vfs::{Caller, Done, Entry, Error, Ino, Opened, Result};
use crate::view::File;

impl Tree {
    /// Opens a virtual file: what is read is what it was then.
    pub fn open(&self, caller: &Caller, ino: Ino, flags: i32) -> Result<Opened> {
        let place = self.place(ino)?;
        if matches!(*place, Place::Attribute(..) | Place::Json(_)) {
            return self.open_attribute(caller, ino, &place, flags);
        }
        if flags & libc::O_ACCMODE != libc::O_RDONLY || flags & libc::O_TRUNC != 0 {
            return Err(Error::NotPermitted);
        }
        let bytes = self.bytes(&place)?;
        if let Place::File(set, file) = &*place {
            self.files.opened(set, *file, &bytes);
        }
        let fh = self.handles.add_snapshot(bytes)?;
        Ok(Opened { fh, direct_io: true, ..Opened::default() })
    }

    /// Makes an attribute and opens its file; nothing else can be created.
    pub fn create(&self, caller: &Caller, parent: Ino, name: &OsStr, flags: i32) -> Result<(Entry, Opened)> {
        self.writable()?;
        match &*self.place(parent)? {
            Place::Attrs(root) => self.create_attribute(caller, root, name, flags),
            _ => Err(Error::NotPermitted),
        }
    }

    /// Makes an attribute.
    pub fn mknod(self: &Arc<Self>, caller: &Caller, parent: Ino, name: &OsStr, mode: u32, done: Done<Entry>) {
        match self.writable().and_then(|()| self.place(parent)).as_deref() {
            Ok(Place::Attrs(root)) if matches!(mode & libc::S_IFMT, 0 | libc::S_IFREG) => {
                self.make_attribute(caller, root, name, done);
            }
            Ok(_) => done(Err(Error::NotPermitted)),
            Err(_) => done(Err(self.writable().err().unwrap_or(Error::Stale))),
        }
    }

    /// Virtual files have no holes.
    pub fn lseek(&self, fh: u64, offset: i64, whence: i32) -> Result<i64> {
        let len = match self.handles.get(fh)? {
            Handle::Bytes(bytes) => bytes.len(),
            Handle::Attribute(_) | Handle::Stream(_) => return Err(Error::Invalid),
        };
        let len = i64::try_from(len).map_err(|_| Error::Invalid)?;
        match whence {
            _ if offset < 0 || offset >= len => {
                Err(Error::Io(std::io::Error::from_raw_os_error(libc::ENXIO)))
            }
            libc::SEEK_DATA => Ok(offset),
            libc::SEEK_HOLE => Ok(len),
            _ => Err(Error::Invalid),
        }
    }

    /// Reads from a virtual file.
    pub fn read(&self, fh: u64, offset: u64, size: u32) -> Result<Vec<u8>> {
        match self.handles.get(fh)? {
            Handle::Bytes(bytes) => Ok(part(&bytes, offset, size)),
            Handle::Attribute(file) => Ok(Self::read_attribute(&file, offset, size)),
            Handle::Stream(_) => Err(Error::IsDirectory),
        }
    }

    /// The content of a virtual file that is no attribute.
    pub(super) fn bytes(&self, place: &Place) -> Result<Arc<Vec<u8>>> {
        match place {
            Place::Readme => Ok(Arc::new(self.readme().into_bytes())),
            Place::Status => Ok(Arc::new(self.status())),
            Place::File(set, File::Count) => {
                Ok(Arc::new(format!("{}\n", self.rows(set).bitmap.len()).into_bytes()))
            }
            Place::File(set, file) => self.about_set(set, *file),
            _ => Err(Error::IsDirectory),
        }
    }
}

/// A part of some bytes; less than asked only at their end.
pub(super) fn part(bytes: &[u8], offset: u64, size: u32) -> Vec<u8> {
    let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
    let end = start.saturating_add(usize::try_from(size).unwrap_or(usize::MAX)).min(bytes.len());
    bytes.get(start..end).unwrap_or_default().to_vec()
}
