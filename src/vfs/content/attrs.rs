//! Attributes and extended attributes.

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use super::{Contents, Root, c_string};
use crate::backing::{self, component, credentials};
use crate::name::Id;
use crate::vfs::{Attr, Caller, Error, Ino, Result, SetAttr, SetTime};

impl Contents {
    /// Changes attributes.
    pub fn setattr(
        &self,
        caller: &Caller,
        ino: Ino,
        set: &SetAttr,
        fh: Option<u64>,
    ) -> Result<(Attr, Duration)> {
        self.writable()?;
        let open = fh.and_then(|fh| self.handles.file(fh).ok());
        let fd = match &open {
            Some(file) => Arc::clone(&file.fd),
            None => self.present_directory(caller, ino)?,
        };
        {
            let _caller = self.take_on(caller)?;
            if set.uid.is_some() || set.gid.is_some() {
                backing::chown(fd.as_fd(), set.uid, set.gid)?;
            }
            if let Some(mode) = set.mode {
                backing::chmod(fd.as_fd(), mode)?;
            }
            if let Some(size) = set.size {
                match &open {
                    Some(file) if file.writable => backing::truncate_open(file.as_fd(), size)?,
                    Some(_) | None => backing::truncate(fd.as_fd(), size)?,
                }
            }
            if set.atime.is_some() || set.mtime.is_some() {
                backing::set_times(fd.as_fd(), time_to_set(set.atime), time_to_set(set.mtime))?;
            }
        }
        let stat = backing::stat(fd.as_fd())?;
        Ok(self.attributes(&mut self.table(), ino, &stat))
    }

    /// Whether `caller` may change the attributes of an entry: whether its directory, or without one that of the cache, may be written
    /// to by its permission bits (root may; with `impersonate` the caller's credentials count).
    pub fn may_change(&self, caller: &Caller, id: &Id) -> Result<bool> {
        let root = Root::Entries(id.clone());
        // The caller need not be one who may search the directory of the cache.
        let directory = self.open_directory(&root)?;
        let _caller = self.take_on(caller)?;
        let held = directory.as_ref().map_or(self.backing.cache(), AsFd::as_fd);
        match backing::access(held, libc::W_OK) {
            Ok(()) => Ok(true),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EACCES | libc::EPERM | libc::EROFS)) => {
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Sets an extended attribute of the real file.
    pub fn setxattr(&self, caller: &Caller, ino: Ino, name: &OsStr, value: &[u8], flags: i32) -> Result<()> {
        self.writable()?;
        let fd = self.present_directory(caller, ino)?;
        let name = c_string(name)?;
        let _caller = self.take_on(caller)?;
        Ok(backing::set_xattr(fd.as_fd(), &name, value, flags)?)
    }

    /// An extended attribute of the real file.
    pub fn getxattr(&self, _caller: &Caller, ino: Ino, name: &OsStr) -> Result<Vec<u8>> {
        let c_name = c_string(name)?;
        let by_name = {
            let mut table = self.table();
            let held = table.descriptor(ino).is_some();
            match table.get(ino) {
                Some(node) if !held && node.kind != libc::S_IFDIR => node.below(),
                Some(_) | None => None,
            }
        };
        let value = if let Some((parent, file)) = by_name {
            let directory = self.directory(parent)?.ok_or(Error::Stale)?;
            backing::get_xattr_at(directory.as_fd(), &component(&file)?, &c_name)
        } else {
            let fd = self.directory(ino)?.ok_or(Error::NoAttribute)?;
            backing::get_xattr(fd.as_fd(), &c_name)
        };
        match value {
            // Without SELinux no file has a context, and who hears so of one file (`ls -l`) need not ask for each.
            Err(error)
                if error.raw_os_error() == Some(libc::ENODATA)
                    && name == "security.selinux"
                    && !has_selinux() =>
            {
                Err(Error::NotSupported)
            }
            value => Ok(value?),
        }
    }

    /// Their names.
    pub fn listxattr(&self, caller: &Caller, ino: Ino) -> Result<Vec<u8>> {
        let Some(fd) = self.directory(ino)? else { return Ok(Vec::new()) };
        let mut names = match backing::list_xattr(fd.as_fd()) {
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => return Ok(Vec::new()),
            names => names?,
        };
        if caller.uid != 0 && credentials::is_root() {
            // The daemon sees what only the administrator may.
            let visible = |name: &&[u8]| !name.is_empty() && !name.starts_with(b"trusted.");
            names = names
                .split(|&byte| byte == 0)
                .filter(visible)
                .flat_map(|name| [name, b"\0"].concat())
                .collect();
        }
        Ok(names)
    }

    /// Removes one.
    pub fn removexattr(&self, caller: &Caller, ino: Ino, name: &OsStr) -> Result<()> {
        self.writable()?;
        let fd = self.directory(ino)?.ok_or(Error::NoAttribute)?;
        let name = c_string(name)?;
        let _caller = self.take_on(caller)?;
        Ok(backing::remove_xattr(fd.as_fd(), &name)?)
    }
}

/// Whether the kernel has `SELinux` on: then it asks for contexts itself.
fn has_selinux() -> bool {
    static PRESENT: LazyLock<bool> =
        LazyLock::new(|| std::path::Path::new("/sys/fs/selinux/enforce").exists());
    *PRESENT
}

fn time_to_set(time: Option<SetTime>) -> backing::SetTime {
    match time {
        None => backing::SetTime::Omit,
        Some(SetTime::Now) => backing::SetTime::Now,
        Some(SetTime::At(time)) => backing::SetTime::At(time.sec, time.nsec),
    }
}
