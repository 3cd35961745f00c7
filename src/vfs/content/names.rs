//! Operations that make, remove and move names.

use std::ffi::{CStr, OsStr};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use super::nodes::{Closing, FileId, Key};
use super::{Contents, Root, c_string, files, root_name, stream};
use crate::backing::{self, component};
use crate::vfs::{Caller, Entry, Error, Ino, Opened, Result};

impl Contents {
    /// Makes a node.
    pub fn mknod(
        &self,
        caller: &Caller,
        parent: Ino,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
    ) -> Result<Entry> {
        self.make(caller, parent, name, umask, |directory, name| {
            backing::make_node(directory, name, mode, rdev)
        })
    }

    /// Makes a directory.
    pub fn mkdir(&self, caller: &Caller, parent: Ino, name: &OsStr, mode: u32, umask: u32) -> Result<Entry> {
        self.make(caller, parent, name, umask, |directory, name| {
            backing::make_directory(directory, name, mode)
        })
    }

    /// Makes a symbolic link.
    pub fn symlink(&self, caller: &Caller, parent: Ino, name: &OsStr, target: &OsStr) -> Result<Entry> {
        let target = c_string(target)?;
        self.make(caller, parent, name, 0, |directory, name| backing::make_symlink(directory, name, &target))
    }

    /// Makes a hard link.
    pub fn link(&self, caller: &Caller, ino: Ino, parent: Ino, name: &OsStr) -> Result<Entry> {
        self.writable()?;
        let file = self.descriptor(ino)?;
        self.make(caller, parent, name, 0, |directory, name| {
            backing::hard_link(file.as_fd(), directory, name)
        })
    }

    fn make(
        &self,
        caller: &Caller,
        parent: Ino,
        name: &OsStr,
        umask: u32,
        make: impl FnOnce(BorrowedFd<'_>, &CStr) -> io::Result<()>,
    ) -> Result<Entry> {
        self.writable()?;
        let directory = self.present_directory(caller, parent)?;
        let c_name = component(name)?;
        {
            let _caller = self.act_as(caller, umask)?;
            make(directory.as_fd(), &c_name)?;
        }
        self.enter(parent, directory.as_fd(), name)
    }

    /// Makes and opens a file.
    pub fn create(
        &self,
        caller: &Caller,
        parent: Ino,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
    ) -> Result<(Entry, Opened)> {
        self.writable()?;
        let directory = self.present_directory(caller, parent)?;
        let c_name = component(name)?;
        let flags = flags & (files::OPEN_FLAGS | libc::O_EXCL) | libc::O_NONBLOCK | libc::O_NOCTTY;
        let fd = {
            let _caller = self.act_as(caller, umask)?;
            backing::open_create(directory.as_fd(), &c_name, flags, mode)?
        };
        let stat = backing::stat(fd.as_fd())?;
        // Somebody else may have made something else of that name first.
        if !stat.is_file() {
            return Err(Error::Exists);
        }
        let entry = self.enter_stat(parent, name, &stat)?;
        let opened = self.add_file(entry.attr.ino, fd, flags | libc::O_CREAT, &stat);
        Ok((entry, opened))
    }

    /// Removes a name.
    pub fn unlink(&self, caller: &Caller, parent: Ino, name: &OsStr) -> Result<()> {
        self.remove(caller, parent, name, false)
    }

    /// Removes a directory.
    pub fn rmdir(&self, caller: &Caller, parent: Ino, name: &OsStr) -> Result<()> {
        self.remove(caller, parent, name, true)
    }

    fn remove(&self, caller: &Caller, parent: Ino, name: &OsStr, is_directory: bool) -> Result<()> {
        self.writable()?;
        let directory = self.directory(parent)?.ok_or(Error::NotFound)?;
        let c_name = component(name)?;
        let held = self.hold(parent, directory.as_fd(), &c_name)?;
        let _caller = self.take_on(caller)?;
        let result = backing::unlink(directory.as_fd(), &c_name, is_directory);
        if result.is_err() {
            self.unhold(held);
        }
        Ok(result?)
    }

    /// Removes an entry's own directory (empty), as `rmdir entries/ID` does after the record was deleted; a missing one is no
    /// error.
    pub fn rmdir_root(&self, caller: &Caller, root: &Root) -> Result<()> {
        self.writable()?;
        let name = root_name(root)?;
        let base = match self.base(root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            base => base?,
        };
        let _caller = self.take_on(caller)?;
        match backing::unlink(base.as_fd(), &name, true) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => Ok(result?),
        }
    }

    /// Whether an entry's own directory is empty or missing.
    pub fn is_empty_root(&self, root: &Root) -> Result<bool> {
        let opened = self.base(root).and_then(|base| {
            backing::open_at(base.as_fd(), &root_name(root)?, libc::O_RDONLY | libc::O_DIRECTORY)
        });
        let directory = match opened {
            Ok(directory) => directory,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
            // What stands there is no directory of ours: an entry without one.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOTDIR | libc::ELOOP)) => {
                return Ok(true);
            }
            Err(error) => return Err(error.into()),
        };
        let mut empty = true;
        stream::Stream::new(Some(directory)).read(0, &mut |_, entry| {
            empty = entry.name == "." || entry.name == "..";
            empty
        })?;
        Ok(empty)
    }

    /// Renames.
    pub fn rename(&self, caller: &Caller, from: (Ino, &OsStr), to: (Ino, &OsStr), flags: u32) -> Result<()> {
        self.writable()?;
        let from_directory = self.directory(from.0)?.ok_or(Error::NotFound)?;
        let to_directory = self.present_directory(caller, to.0)?;
        let (from_name, to_name) = (component(from.1)?, component(to.1)?);
        let moved = self.known(from.0, from_directory.as_fd(), &from_name);
        let exchange = flags & libc::RENAME_EXCHANGE != 0;
        let mut replaced = None;
        if exchange {
            replaced = self.known(to.0, to_directory.as_fd(), &to_name);
        } else if flags & libc::RENAME_NOREPLACE == 0 {
            replaced = self.hold(to.0, to_directory.as_fd(), &to_name)?;
        }
        let result = {
            let _caller = self.take_on(caller)?;
            backing::rename((from_directory.as_fd(), &from_name), (to_directory.as_fd(), &to_name), flags)
        };
        let unchanged = result.is_err() || moved == replaced;
        if unchanged {
            // Two names of one file: nothing is removed.
            if !exchange {
                self.unhold(replaced);
            }
            return Ok(result?);
        }
        let mut closing = Closing::new();
        let mut table = self.table();
        if let Some(ino) = moved {
            table.place(ino, to.0, to.1, &mut closing);
        }
        if let Some(ino) = replaced.filter(|_| exchange) {
            table.place(ino, from.0, from.1, &mut closing);
        }
        drop(table);
        Ok(())
    }

    /// The directory of a parent that something is to be made in; an entry's own is made if it is missing.
    pub(super) fn present_directory(&self, caller: &Caller, ino: Ino) -> Result<Arc<OwnedFd>> {
        if let Some(directory) = self.directory(ino)? {
            return Ok(directory);
        }
        let root = self.as_root(ino).filter(|root| !matches!(root, Root::Trash(_))).ok_or(Error::NotFound)?;
        let permissions = backing::stat(self.backing.cache())?.mode & 0o777;
        let name = root_name(&root)?;
        let made = {
            let _caller = self.act_as(caller, 0)?;
            backing::make_directory(self.backing.cache(), &name, permissions)
        };
        match made {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error.into()),
            Ok(()) | Err(_) => {}
        }
        self.open_root(ino, &root)?.ok_or(Error::NotDirectory)
    }

    /// The node of a name, if the kernel knows it.
    fn known(&self, parent: Ino, directory: BorrowedFd<'_>, name: &CStr) -> Option<Ino> {
        let stat = backing::stat_at(directory, name).ok()?;
        let table = self.table();
        let view = if stat.is_directory() { table.get(parent)?.view } else { 0 };
        table.find(&Key::File(view, FileId::of(&stat)))
    }

    /// Before a name is removed: keeps a descriptor of its node, so that who has the file open, mapped or as working directory
    /// still reaches it.
    fn hold(&self, parent: Ino, directory: BorrowedFd<'_>, name: &CStr) -> Result<Option<Ino>> {
        let Some(ino) = self.known(parent, directory, name) else { return Ok(None) };
        let present = self.table().descriptor(ino);
        let fd = match present {
            Some(fd) => fd,
            None => match backing::open_at(directory, name, libc::O_PATH) {
                Ok(fd) => Arc::new(fd),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error.into()),
            },
        };
        let mut closing = Closing::new();
        self.table().hold(ino, fd, &mut closing);
        Ok(Some(ino))
    }

    fn unhold(&self, ino: Option<Ino>) {
        let mut closing = Closing::new();
        if let Some(ino) = ino {
            self.table().unhold(ino, &mut closing);
        }
    }
}
