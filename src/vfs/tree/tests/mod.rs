//! Operations on paths, as a kernel would ask for them, over a real cache and without one.

#[cfg(not(feature = "models"))]
mod attributes;
#[cfg(not(feature = "models"))]
mod entries;
#[cfg(feature = "models")]
mod models;
#[cfg(not(feature = "models"))]
mod views;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

#[cfg(not(feature = "models"))]
use crate::cache::Options as CacheOptions;
use crate::cache::{Cache, Change};
use crate::name::Id;
use crate::sync::{Arc, mpsc};
use crate::value::Object;
use crate::vfs::{Attr, Caller, Done, Entry, Ino, Options, ROOT, Result, SetAttr, Vfs};

/// A mounted cache, without a mount.
struct World {
    dir: TempDir,
    cache: Arc<Cache>,
    vfs: Vfs,
    caller: Caller,
}

/// What an operation that answers later has answered; errors as errno.
fn wait<T: Send + 'static>(operation: impl FnOnce(Done<T>)) -> std::result::Result<T, i32> {
    let (answer, answered) = mpsc::channel();
    operation(Box::new(move |result| answer.send(result).unwrap()));
    errno(answered.recv_timeout(Duration::from_secs(20)).expect("an answer"))
}

fn errno<T>(result: Result<T>) -> std::result::Result<T, i32> {
    result.map_err(|error| error.errno())
}

type Answer<T> = std::result::Result<T, i32>;

#[cfg(not(feature = "models"))]
fn open(dir: &Path) -> Arc<Cache> {
    let options = CacheOptions {
        read_only: false,
        sync: false,
        refresh: Duration::from_secs(1),
        background: true,
        keep: None,
    };
    Cache::open(dir, &options).unwrap()
}

#[cfg(feature = "models")]
fn open(dir: &Path) -> Arc<Cache> {
    crate::cache::tests::models::model(dir, false, true).1
}

impl World {
    fn new() -> Self {
        Self::with(&Options { epochs: true, ..Options::default() })
    }

    fn with(options: &Options) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let cache = open(dir.path());
        let vfs = Vfs::new(Arc::clone(&cache), options.clone()).unwrap();
        // SAFETY: no arguments, no failure.
        let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
        Self { dir, cache, vfs, caller: Caller { uid, gid, pid: 0 } }
    }

    /// An entry with these attributes, made without the filesystem.
    fn entry(&self, id: &str, json: &str) {
        std::fs::create_dir(self.dir.path().join(id)).unwrap();
        let attrs = Object::parse(json.as_bytes()).unwrap().into_owned();
        self.cache.change(Change::Create { id: Id::new(id).unwrap(), attrs }).unwrap();
    }

    /// Finds a path, without following links. The nodes on the way are never given back.
    fn find(&self, path: &str) -> Answer<Entry> {
        self.find_os(Path::new(path))
    }

    fn find_os(&self, path: &Path) -> Answer<Entry> {
        Ok(*self.walk(path)?.last().expect("a path"))
    }

    /// The nodes of a path, each looked up once.
    fn walk(&self, path: &Path) -> Answer<Vec<Entry>> {
        let mut nodes: Vec<Entry> = Vec::new();
        for name in path {
            let parent = nodes.last().map_or(ROOT, |entry| entry.attr.ino);
            nodes.push(errno(self.vfs.lookup(&self.caller, parent, name))?);
        }
        Ok(nodes)
    }

    fn ino(&self, path: &str) -> Answer<Ino> {
        if path.is_empty() { Ok(ROOT) } else { self.find(path).map(|entry| entry.attr.ino) }
    }

    fn stat(&self, path: &str) -> Answer<Attr> {
        let ino = self.ino(path)?;
        let (attr, _) = errno(self.vfs.getattr(ino, None))?;
        Ok(attr)
    }

    /// Parent and name of a path; the parent's lookup count is never given back.
    fn split<'p>(&self, path: &'p str) -> Answer<(Ino, &'p OsStr)> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        Ok((self.ino(parent)?, OsStr::new(name)))
    }

    fn ls(&self, path: &str) -> Answer<Vec<String>> {
        let opened = errno(self.vfs.opendir(&self.caller, self.ino(path)?))?;
        let mut names = Vec::new();
        let mut cookie = 0;
        loop {
            let mut count = 0;
            // In pieces, as the kernel's buffer is small.
            self.vfs
                .readdir(opened.fh, cookie, &mut |entry| {
                    cookie = entry.cookie;
                    count += 1;
                    names.push(entry.name.clone());
                    count < 3
                })
                .unwrap();
            if count == 0 {
                break;
            }
        }
        self.vfs.releasedir(opened.fh);
        assert_eq!(names.get(..2), Some(&[OsString::from("."), OsString::from("..")][..]));
        let names: Vec<String> = names.into_iter().skip(2).map(|name| name.into_string().unwrap()).collect();
        // Whatever is listed is found.
        for name in &names {
            let child = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
            self.find(&child).unwrap_or_else(|errno| panic!("{child} is listed but not found: {errno}"));
        }
        Ok(names)
    }

    fn read(&self, path: &str) -> Answer<String> {
        let ino = self.ino(path)?;
        let opened = errno(self.vfs.open(&self.caller, ino, libc::O_RDONLY))?;
        let mut content = Vec::new();
        loop {
            let part = errno(self.vfs.read(opened.fh, content.len() as u64, 7))?;
            if part.is_empty() {
                break;
            }
            content.extend_from_slice(&part);
        }
        self.close(opened.fh)?;
        assert_eq!(self.stat(path)?.size, content.len() as u64, "size of {path}");
        Ok(String::from_utf8(content).unwrap())
    }

    fn link(&self, path: &str) -> Answer<String> {
        let target = errno(self.vfs.readlink(self.ino(path)?))?;
        Ok(String::from_utf8(target).unwrap())
    }

    /// Opens as a shell does: existing files are opened, others made.
    fn open(&self, path: &str, flags: i32) -> Answer<u64> {
        match self.ino(path) {
            Ok(ino) => errno(self.vfs.open(&self.caller, ino, flags)).map(|opened| opened.fh),
            Err(libc::ENOENT) if flags & libc::O_CREAT != 0 => {
                let (parent, name) = self.split(path)?;
                let made = wait(|done| {
                    self.vfs.create(&self.caller, parent, name, 0o644, 0o022, flags, done);
                });
                made.map(|(_, opened)| opened.fh)
            }
            Err(errno) => Err(errno),
        }
    }

    fn close(&self, fh: u64) -> Answer<()> {
        let result = wait(|done| self.vfs.flush(ROOT, fh, 0, 0, done));
        self.vfs.release(ROOT, fh);
        result
    }

    fn put(&self, path: &str, flags: i32, content: &[u8]) -> Answer<()> {
        let fh = self.open(path, libc::O_WRONLY | libc::O_CREAT | flags)?;
        let written = errno(self.vfs.write(fh, 0, content, None, false));
        let closed = self.close(fh);
        assert_eq!(written? as usize, content.len());
        closed
    }

    /// `echo CONTENT > PATH`
    fn write(&self, path: &str, content: &str) -> Answer<()> {
        self.put(path, libc::O_TRUNC, format!("{content}\n").as_bytes())
    }

    /// `echo CONTENT >> PATH`
    fn append(&self, path: &str, content: &str) -> Answer<()> {
        self.put(path, libc::O_APPEND, format!("{content}\n").as_bytes())
    }

    fn mkdir(&self, path: &str) -> Answer<Entry> {
        let (parent, name) = self.split(path)?;
        wait(|done| self.vfs.mkdir(&self.caller, parent, name, 0o777, 0o022, done))
    }

    fn rmdir(&self, path: &str) -> Answer<()> {
        let (parent, name) = self.split(path)?;
        wait(|done| self.vfs.rmdir(&self.caller, parent, name, done))
    }

    fn rm(&self, path: &str) -> Answer<()> {
        let (parent, name) = self.split(path)?;
        wait(|done| self.vfs.unlink(&self.caller, parent, name, done))
    }

    fn mv(&self, from: &str, to: &str) -> Answer<()> {
        self.mv_flags(from, to, 0)
    }

    fn mv_flags(&self, from: &str, to: &str, flags: u32) -> Answer<()> {
        let (from, to) = (self.split(from)?, self.split(to)?);
        wait(|done| self.vfs.rename(&self.caller, from, to, flags, done))
    }

    fn ln(&self, target: &str, path: &str) -> Answer<Entry> {
        let (parent, name) = self.split(path)?;
        wait(|done| self.vfs.symlink(&self.caller, parent, name, OsStr::new(target), done))
    }

    fn chmod(&self, path: &str, mode: u32) -> Answer<()> {
        let set = SetAttr { mode: Some(mode), ..SetAttr::default() };
        let ino = self.ino(path)?;
        wait(|done| self.vfs.setattr(&self.caller, ino, &set, None, done)).map(drop)
    }

    /// The records of the log, each as its line.
    fn log(&self) -> Vec<String> {
        let log = std::fs::read(self.dir.path().join("_entries")).unwrap_or_default();
        String::from_utf8(log).unwrap().lines().map(str::to_owned).collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let closed = self.cache.close();
        if !std::thread::panicking() {
            closed.unwrap();
        }
    }
}

/// A name that is not UTF-8.
fn latin1() -> &'static OsStr {
    OsStr::from_bytes(b"caf\xe9")
}
