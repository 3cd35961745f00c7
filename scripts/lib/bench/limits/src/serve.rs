//! The least that a filesystem of links must do: all names and attributes are known, and never change.

use std::collections::HashMap;
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use fuser::{
    Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags,
    KernelConfig, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyDirectoryPlus,
    ReplyEntry, ReplyOpen, Request, Session,
};

/// How long the kernel may keep names and attributes.
pub const TTL: Duration = Duration::from_secs(24 * 60 * 60);
/// Nodes 2 and up are links.
const FIRST: u64 = 2;

struct Links {
    names: Vec<String>,
    numbers: HashMap<String, u64>,
    /// Where what stands under a name is looked at, when it is looked up.
    real: Option<File>,
}

/// Attributes of a directory.
pub fn directory(ino: u64) -> FileAttr {
    FileAttr {
        ino: INodeNo(ino),
        size: 0,
        blocks: 0,
        atime: SystemTime::UNIX_EPOCH,
        mtime: SystemTime::UNIX_EPOCH,
        ctime: SystemTime::UNIX_EPOCH,
        crtime: SystemTime::UNIX_EPOCH,
        kind: FileType::Directory,
        perm: 0o755,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

fn attr(ino: u64) -> FileAttr {
    match ino {
        1 => directory(ino),
        _ => FileAttr { size: 24, kind: FileType::Symlink, perm: 0o777, ..directory(ino) },
    }
}

/// Attributes of the directory that has a name.
fn look(real: &File, ino: u64, name: &OsStr) -> io::Result<FileAttr> {
    let name = CString::new(name.as_bytes())?;
    let mut stat = std::mem::MaybeUninit::<libc::stat>::zeroed();
    let flags = libc::AT_SYMLINK_NOFOLLOW;
    // SAFETY: the directory is open, the name ends in NUL, and the buffer has the size of the struct.
    if unsafe { libc::fstatat(real.as_raw_fd(), name.as_ptr(), stat.as_mut_ptr(), flags) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a struct of integers that was zeroed, and the call succeeded.
    let stat = unsafe { stat.assume_init() };
    let mtime = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(stat.st_mtime).unwrap_or(0));
    Ok(FileAttr { size: u64::try_from(stat.st_size).unwrap_or(0), mtime, ..directory(ino) })
}

impl Links {
    /// Numbers, nodes and names from a position on; `.` and `..` come first.
    fn from(&self, offset: u64) -> impl Iterator<Item = (u64, u64, FileType, &str)> {
        let dots = [".", ".."].into_iter().map(|name| (1, FileType::Directory, name));
        let links = (FIRST..).zip(&self.names).map(|(ino, name)| (ino, FileType::Symlink, name.as_str()));
        // Skipping in the vector is one step, in the chain it would be `offset` steps.
        let dots = dots.skip(usize::try_from(offset).unwrap().min(2));
        let links = links.skip(usize::try_from(offset.saturating_sub(2)).unwrap());
        (offset + 1..).zip(dots.chain(links)).map(|(next, (ino, kind, name))| (next, ino, kind, name))
    }
}

impl Filesystem for Links {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        for capability in [
            InitFlags::FUSE_CACHE_SYMLINKS,
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_READDIRPLUS_AUTO,
        ] {
            let _ = config.add_capabilities(capability);
        }
        Ok(())
    }

    fn lookup(&self, _request: &Request, _parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match name.to_str().and_then(|name| self.numbers.get(name)) {
            Some(&ino) => {
                let attr = match &self.real {
                    Some(real) => match look(real, ino, name) {
                        Ok(attr) => attr,
                        Err(error) => return reply.error(error.into()),
                    },
                    None => attr(ino),
                };
                reply.entry(&TTL, &attr, Generation(0));
            }
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _request: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&TTL, &attr(ino.0));
    }

    fn readlink(&self, _request: &Request, ino: INodeNo, reply: ReplyData) {
        match usize::try_from(ino.0 - FIRST).ok().and_then(|n| self.names.get(n)) {
            Some(name) => reply.data(format!("../../../entries/{name}").as_bytes()),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn opendir(&self, _request: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE);
    }

    fn readdir(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        for (next, ino, kind, name) in self.from(offset) {
            if reply.add(INodeNo(ino), next, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn readdirplus(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        for (next, ino, _, name) in self.from(offset) {
            if reply.add(INodeNo(ino), next, name, &TTL, &attr(ino), Generation(0)) {
                break;
            }
        }
        reply.ok();
    }
}

/// Serves until it is unmounted.
pub fn serve(mountpoint: &str, count: u64, threads: u64, real: Option<&str>) -> io::Result<()> {
    let names: Vec<String> = (0..count).map(|n| format!("e{n:08}")).collect();
    let numbers = names.iter().cloned().zip(FIRST..).collect();
    let real = real.map(File::open).transpose()?;
    session(Links { names, numbers, real }, mountpoint, threads, &[MountOption::RO])
}

/// Serves a filesystem until it is unmounted; the kernel checks permissions.
pub fn session(
    filesystem: impl Filesystem + Send + Sync + 'static,
    mountpoint: &str,
    threads: u64,
    more: &[MountOption],
) -> io::Result<()> {
    let mut config = Config::default();
    config.mount_options = vec![MountOption::FSName("limits".into()), MountOption::DefaultPermissions];
    config.mount_options.extend_from_slice(more);
    config.n_threads = Some(usize::try_from(threads).expect("few threads"));
    config.clone_fd = threads > 1;
    Session::new(filesystem, Path::new(mountpoint), &config)?.spawn()?.join()
}
