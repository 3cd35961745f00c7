//! The least that a filesystem can do for `mkdir` and extended attributes: every name is free but those that begin with `e`, every
//! directory that is asked for is there at once, and every attribute set. What it costs is what the kernel takes to ask. Or mkdir makes
//! a directory and a record, as it is made without FUSE.

use std::ffi::OsStr;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use fuser::{
    Errno, FileHandle, Filesystem, Generation, INodeNo, InitFlags, KernelConfig, ReplyAttr, ReplyEmpty,
    ReplyEntry, Request,
};

use crate::clocks;
use crate::serve::{TTL, directory, session};

struct Null {
    next: AtomicU64,
    /// Where directories are made.
    real: Option<PathBuf>,
}

impl Filesystem for Null {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let _ = config.add_capabilities(InitFlags::FUSE_PARALLEL_DIROPS);
        Ok(())
    }

    fn lookup(&self, _request: &Request, _parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if !name.as_encoded_bytes().starts_with(b"e") {
            return reply.error(Errno::ENOENT);
        }
        let ino = self.next.fetch_add(1, Ordering::Relaxed);
        reply.entry(&TTL, &directory(ino), Generation(0));
    }

    fn setxattr(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _name: &OsStr,
        _value: &[u8],
        _flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }

    fn getattr(&self, _request: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&TTL, &directory(ino.0));
    }

    fn mkdir(
        &self,
        _request: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        let ino = self.next.fetch_add(1, Ordering::Relaxed);
        match self.real.as_ref().map_or(Ok(()), |real| clocks::entry(real, ino)) {
            Ok(()) => reply.entry(&TTL, &directory(ino), Generation(0)),
            Err(error) => reply.error(error.into()),
        }
    }
}

/// Serves until it is unmounted; what `real` says is made there.
pub fn serve(mountpoint: &str, threads: u64, real: Option<&str>) -> io::Result<()> {
    // The root is node 1.
    let next = AtomicU64::new(2);
    session(Null { next, real: real.map(PathBuf::from) }, mountpoint, threads, &[])
}
