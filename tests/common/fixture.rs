//! An entry to work in.

use std::fs::OpenOptions;
use std::path::PathBuf;

use super::{Cache, Mount};

/// A mounted cache and the directory of a fresh entry in it, through the mount and underneath.
#[derive(Debug)]
pub struct Fixture {
    pub mount: Mount,
    pub entry: PathBuf,
    pub real: PathBuf,
    pub cache: Cache,
}

impl Fixture {
    /// Of a fresh cache, mounted with these options; the entry is `new/k=1` too.
    pub fn new(options: &str) -> Self {
        let cache = Cache::new();
        let mount = if options.is_empty() { cache.mount() } else { cache.mount_with(options) };
        let id = mount.make("k=1");
        Self { entry: mount.join("entries").join(&id), real: cache.join(&id), mount, cache }
    }
}

/// Opens a file to read and write, and makes it if it is missing.
pub fn making() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    options
}
