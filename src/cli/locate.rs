//! Which cache a command is about.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::failure::{self, Result, error};
use super::mounts;
use crate::cache::{Cache, Options};

/// The log's name: what makes a directory a cache.
const LOG: &str = "_entries";

/// Whether a command changes the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// It takes no lock and needs no write permission.
    Read,
    /// It does.
    Write,
}

/// The cache that was asked for, else the nearest one from the current directory upwards; a mount stands for its cache.
pub fn directory(asked: Option<&Path>) -> Result<PathBuf> {
    if let Some(path) = asked {
        let canonical = canonical(path)?;
        if !canonical.is_dir() {
            return Err(error(format!("the cache {} is not a directory", path.display())));
        }
        return Ok(mounted_at(&canonical)?.unwrap_or(canonical));
    }
    let here = canonical(Path::new("."))?;
    if let Some(cache) = mounted_at(&here)? {
        return Ok(cache);
    }
    match here.ancestors().find(|dir| dir.join(LOG).is_file()) {
        Some(cache) => Ok(cache.to_owned()),
        None => Err(error(format!("no cache in {} or above it", here.display()))
            .hint("say which one: -C DIR, or CACHEDIRFS_CACHE=DIR in the environment")),
    }
}

/// Opens it.
pub fn open(asked: Option<&Path>, access: Access) -> Result<Arc<Cache>> {
    let path = directory(asked)?;
    let options = Options {
        read_only: access == Access::Read,
        sync: false,
        refresh: Duration::from_secs(1),
        background: false,
        keep: super::kept::directory(),
    };
    Cache::open(&path, &options).map_err(|e| failure::cache(path.display(), &e))
}

fn canonical(path: &Path) -> Result<PathBuf> {
    path.canonicalize().map_err(|e| {
        let failure = failure::io("look at the cache", path.display(), &e);
        match e.kind() {
            ErrorKind::NotFound => {
                failure.hint(format!("a new cache is an empty directory: mkdir {}", path.display()))
            }
            ErrorKind::NotConnected => failure.hint(format!(
                "its daemon was killed: `cachedirfs umount {}`, then mount again",
                path.display()
            )),
            _ => failure,
        }
    })
}

/// The cache whose mount a directory is, or lies in.
fn mounted_at(path: &Path) -> Result<Option<PathBuf>> {
    let mounts = mounts::all().map_err(|e| failure::io("read", "/proc/self/mountinfo", &e))?;
    let Some(mountpoint) =
        mounts.iter().filter(|mount| path.starts_with(mount)).max_by_key(|mount| mount.as_os_str().len())
    else {
        return Ok(None);
    };
    let status = mounts::status(mountpoint);
    match status.and_then(|status| mounts::text(&status, "cache")) {
        Some(cache) => Ok(Some(cache.into())),
        None => {
            Err(error(format!("the mount on {} does not say which cache it shows", mountpoint.display()))
                .hint("name the cache directory itself: -C DIR"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_taken_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(directory(Some(dir.path())).unwrap(), dir.path().canonicalize().unwrap());
        let message = directory(Some(&dir.path().join("none"))).unwrap_err().message().unwrap();
        assert!(message.contains("mkdir"), "{message}");
    }
}
