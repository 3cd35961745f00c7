//! Other file systems that a test mounts.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::run;

/// A mount of another file system; taken away at the end.
pub struct Mounted(PathBuf);

impl Mounted {
    /// Mounts a file system that needs no device.
    #[track_caller]
    pub fn new(kind: &str, options: &str, at: &Path) -> Self {
        run(Command::new("mount").args(["-t", kind, "-o", options, kind]).arg(at)).ok();
        Self(at.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}
