//! Directories whose changes the kernel reports, whoever makes them (`inotify`).

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

pub use inotify::WatchDescriptor;
use inotify::{EventMask, Inotify, WatchMask};

use super::sys::{proc_path, reports_changes};

/// Where changes come from; reading does not wait.
#[derive(Debug)]
pub struct Changes(Inotify);

/// Adds directories to those whose changes are reported, and takes them out.
#[derive(Debug, Clone)]
pub struct Watcher(inotify::Watches);

/// Something has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change<'c> {
    /// Changes were lost: anything may have changed, anywhere.
    Lost,
    /// The directory is not watched any more.
    Ended,
    /// This name is there now, or stands for another file.
    Came(&'c OsStr),
    /// A name has gone.
    Went,
    /// Data or attributes of the file of this name.
    File(&'c OsStr),
}

/// What reports changes, and what is told of which directories.
pub fn changes() -> io::Result<(Changes, Watcher)> {
    let inotify = Inotify::init()?;
    let watches = inotify.watches();
    Ok((Changes(inotify), Watcher(watches)))
}

impl Changes {
    /// Gives what has happened and was not given yet. Changes of one directory come in their order. It ends even if there are ever
    /// more.
    pub fn read(&mut self, give: &mut dyn FnMut(&WatchDescriptor, Change<'_>)) -> io::Result<()> {
        let mut buffer = [0; 16 << 10];
        // As many as the kernel keeps.
        for _ in 0..64 {
            let events = match self.0.read_events(&mut buffer) {
                Ok(events) => events,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            for event in events {
                if let Some(change) = change(event.mask, event.name) {
                    give(&event.wd, change);
                }
            }
        }
        Ok(())
    }
}

/// What an event means; none if nothing to us.
fn change(mask: EventMask, name: Option<&OsStr>) -> Option<Change<'_>> {
    if mask.contains(EventMask::Q_OVERFLOW) {
        return Some(Change::Lost);
    }
    if mask.intersects(EventMask::IGNORED | EventMask::UNMOUNT) {
        return Some(Change::Ended);
    }
    if mask.intersects(EventMask::DELETE | EventMask::MOVED_FROM) {
        return Some(Change::Went);
    }
    // Without a name it is about the directory itself.
    let name = name?;
    if mask.intersects(EventMask::CREATE | EventMask::MOVED_TO) {
        return Some(Change::Came(name));
    }
    (!mask.contains(EventMask::ISDIR)).then_some(Change::File(name))
}

impl Watcher {
    /// Begins to watch a held directory. EOPNOTSUPP where not every change is reported: on file systems that others change too.
    pub fn add(&self, directory: BorrowedFd<'_>) -> io::Result<WatchDescriptor> {
        if !reports_changes(directory)? {
            return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP));
        }
        let names = WatchMask::CREATE | WatchMask::DELETE | WatchMask::MOVED_FROM | WatchMask::MOVED_TO;
        let files = WatchMask::MODIFY | WatchMask::ATTRIB | WatchMask::CLOSE_WRITE;
        let mask = names | files | WatchMask::EXCL_UNLINK | WatchMask::ONLYDIR;
        let path = proc_path(directory);
        self.0.clone().add(OsStr::new(&*path.to_string_lossy()), mask)
    }

    /// Ends it. It may have ended already.
    pub fn remove(&self, watch: WatchDescriptor) {
        if let Err(error) = self.0.clone().remove(watch) {
            log::debug!("a directory was not watched any more: {error}");
        }
    }
}

impl AsFd for Changes {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
