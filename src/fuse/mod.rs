//! The only user of `fuser`: decode, call [`crate::vfs`], map the error, reply.

use std::path::Path;
use std::sync::Arc;

use crate::cache::Cache;

/// What `-o` asks of the kernel and the daemon.
#[derive(Debug, Clone, Default)]
pub struct MountOptions {
    /// `ro`
    pub read_only: bool,
    /// `allow_other`
    pub allow_other: bool,
    /// Number of threads that read requests; 0 for the default.
    pub threads: usize,
    /// `nopassthrough`: never let the kernel serve data from backing files.
    pub no_passthrough: bool,
    /// Options handed to the kernel as they are (`nosuid`, `noexec`, …).
    pub other: Vec<String>,
}

/// A live mount.
#[derive(Debug)]
pub struct Mount {
    _todo: (),
}

impl Mount {
    /// Mounts; comes back when the mount is live.
    pub fn new(cache: Arc<Cache>, mountpoint: &Path, options: &MountOptions) -> std::io::Result<Self> {
        todo!()
    }

    /// Waits until it is unmounted, by whomever.
    pub fn wait(self) -> std::io::Result<()> {
        todo!()
    }

    /// A function that unmounts, for a signal handling thread.
    pub fn unmounter(&self) -> Box<dyn FnMut() -> std::io::Result<()> + Send> {
        todo!()
    }
}
