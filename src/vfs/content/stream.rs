//! Directory streams: the backing file system's own, with its own positions, so that removing names while reading
//! behaves as it does there.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use crate::backing;

const BUFFER: usize = 32 * 1024;

/// One name as the file system gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RawEntry<'s> {
    /// Inode number.
    pub ino: u64,
    /// Position after it.
    pub cookie: u64,
    /// `S_IFMT` bits; 0 if unknown.
    pub kind: u32,
    pub name: &'s OsStr,
}

/// A stream; of a directory that does not exist yet, it has `.` and `..`.
#[derive(Debug)]
pub(super) struct Stream {
    fd: Option<OwnedFd>,
    buffer: Vec<u8>,
    /// What of the buffer was not given yet.
    start: usize,
    end: usize,
    /// The position of what is at `start`.
    cookie: u64,
}

impl Stream {
    pub fn new(fd: Option<OwnedFd>) -> Self {
        Self { fd, buffer: Vec::new(), start: 0, end: 0, cookie: 0 }
    }

    /// Goes on with another descriptor of the directory, or with none.
    pub fn set(&mut self, fd: Option<OwnedFd>) {
        // No position of a directory: the next reading seeks.
        *self = Self { cookie: u64::MAX, ..Self::new(fd) };
    }

    /// The directory, if it exists.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().map(AsFd::as_fd)
    }

    /// Gives the entries after a position to `add` until it says stop (false).
    pub fn read(
        &mut self,
        cookie: u64,
        add: &mut dyn FnMut(Option<BorrowedFd<'_>>, RawEntry<'_>) -> bool,
    ) -> io::Result<()> {
        let Some(fd) = self.fd.as_ref().map(AsFd::as_fd) else {
            for (position, name) in [(1, "."), (2, "..")] {
                let entry =
                    RawEntry { ino: 1, cookie: position, kind: libc::S_IFDIR, name: OsStr::new(name) };
                if position > cookie && !add(None, entry) {
                    break;
                }
            }
            return Ok(());
        };
        if cookie != self.cookie || cookie == 0 {
            backing::seek_directory(fd, cookie)?;
            (self.start, self.end, self.cookie) = (0, 0, cookie);
        }
        loop {
            if self.start >= self.end {
                self.buffer.resize(BUFFER, 0);
                (self.start, self.end) = (0, backing::entries_raw(fd, &mut self.buffer)?);
                if self.end == 0 {
                    return Ok(());
                }
            }
            let rest = self.buffer.get(self.start..self.end).unwrap_or_default();
            let Some((entry, length)) = parse(rest) else {
                return Err(io::Error::from_raw_os_error(libc::EIO));
            };
            if !add(Some(fd), entry) {
                return Ok(());
            }
            self.cookie = entry.cookie;
            self.start += length;
        }
    }
}

/// The first `linux_dirent64` of a buffer, and its length.
fn parse(buffer: &[u8]) -> Option<(RawEntry<'_>, usize)> {
    let number = |at: usize| Some(u64::from_ne_bytes(buffer.get(at..at + 8)?.try_into().ok()?));
    let length = usize::from(u16::from_ne_bytes(buffer.get(16..18)?.try_into().ok()?));
    let name = buffer.get(19..length)?;
    let name = name.get(..name.iter().position(|&byte| byte == 0)?)?;
    let kind = u32::from(*buffer.get(18)?) << 12;
    Some((RawEntry { ino: number(0)?, cookie: number(8)?, kind, name: OsStr::from_bytes(name) }, length))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs::{self, File};

    use super::*;

    fn names(stream: &mut Stream, mut cookie: u64, at_most: usize) -> (Vec<String>, u64) {
        let mut found = Vec::new();
        stream
            .read(cookie, &mut |_, entry| {
                if found.len() == at_most {
                    return false;
                }
                found.push(entry.name.to_str().unwrap().to_owned());
                cookie = entry.cookie;
                true
            })
            .unwrap();
        (found, cookie)
    }

    #[test]
    fn every_name_once_while_names_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        for i in 0..3000 {
            File::create(dir.path().join(format!("file-{i}"))).unwrap();
        }
        let mut stream = Stream::new(Some(File::open(dir.path()).unwrap().into()));
        let (mut seen, mut cookie) = (BTreeSet::new(), 0);
        loop {
            let (found, next) = names(&mut stream, cookie, 100);
            if found.is_empty() {
                break;
            }
            for name in found {
                if name.starts_with("file") {
                    fs::remove_file(dir.path().join(&name)).unwrap();
                }
                assert!(seen.insert(name));
            }
            cookie = next;
        }
        assert_eq!(seen.len(), 3002);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_position_can_be_gone_back_to() {
        let dir = tempfile::tempdir().unwrap();
        for i in 0..50 {
            File::create(dir.path().join(i.to_string())).unwrap();
        }
        let mut stream = Stream::new(Some(File::open(dir.path()).unwrap().into()));
        let (_, middle) = names(&mut stream, 0, 20);
        let (rest, _) = names(&mut stream, middle, 100);
        assert_eq!(rest.len(), 32);
        assert_eq!(names(&mut stream, middle, 100).0, rest);
        File::create(dir.path().join("new")).unwrap();
        assert!(
            names(&mut stream, 0, 100).0.contains(&"new".to_owned()),
            "rewinding shows what is there now"
        );
    }

    #[test]
    fn a_missing_directory_is_empty() {
        let mut stream = Stream::new(None);
        assert_eq!(names(&mut stream, 0, 10), (vec![".".into(), "..".into()], 2));
        assert_eq!(names(&mut stream, 1, 10).0, [".."]);
        assert!(names(&mut stream, 2, 10).0.is_empty());
    }
}
