//! `statx`: the attributes and the identity of a file.

use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};

/// A point in time: seconds since the epoch and nanoseconds after them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct StatTime {
    /// Seconds, may be negative.
    pub sec: i64,
    /// Nanoseconds, below 10^9.
    pub nsec: u32,
}

/// What `statx` says of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stat {
    /// Device of the file system.
    pub dev: u64,
    /// Inode number there.
    pub ino: u64,
    /// When the inode was made; zero where the file system does not say.
    pub btime: StatTime,
    /// Type and permissions.
    pub mode: u32,
    /// Links.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of a device node: major and minor.
    pub rdev: (u32, u32),
    /// Bytes.
    pub size: u64,
    /// Blocks of 512 bytes.
    pub blocks: u64,
    /// Preferred block size.
    pub blksize: u32,
    /// Last access.
    pub atime: StatTime,
    /// Last change of the data.
    pub mtime: StatTime,
    /// Last change of the node.
    pub ctime: StatTime,
}

impl Stat {
    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFDIR
    }

    /// Whether it is a regular file.
    pub fn is_file(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFREG
    }

    /// Whether two are of one and the same file.
    pub fn is_same_file(&self, other: &Self) -> bool {
        (self.dev, self.ino, self.btime) == (other.dev, other.ino, other.btime)
    }
}

/// Attributes of an open file.
pub fn stat(fd: BorrowedFd<'_>) -> io::Result<Stat> {
    statx(fd, c"", libc::AT_EMPTY_PATH)
}

/// Attributes of a name below a directory; of a symbolic link itself.
pub fn stat_at(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<Stat> {
    statx(dir, name, libc::AT_SYMLINK_NOFOLLOW | libc::AT_NO_AUTOMOUNT)
}

fn statx(fd: BorrowedFd<'_>, name: &CStr, flags: i32) -> io::Result<Stat> {
    let mut raw = MaybeUninit::<libc::statx>::zeroed();
    let mask = libc::STATX_BASIC_STATS | libc::STATX_BTIME;
    // SAFETY: the descriptor is borrowed for the call, the name ends in NUL, and the buffer has the size of the struct.
    let result = unsafe { libc::statx(fd.as_raw_fd(), name.as_ptr(), flags, mask, raw.as_mut_ptr()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: every field is an integer, the memory was zeroed, and the call succeeded.
    let raw = unsafe { raw.assume_init() };
    let time = |t: libc::statx_timestamp| StatTime { sec: t.tv_sec, nsec: t.tv_nsec };
    let has_btime = raw.stx_mask & libc::STATX_BTIME != 0;
    Ok(Stat {
        dev: u64::from(raw.stx_dev_major) << 32 | u64::from(raw.stx_dev_minor),
        ino: raw.stx_ino,
        btime: if has_btime { time(raw.stx_btime) } else { StatTime::default() },
        mode: u32::from(raw.stx_mode),
        nlink: raw.stx_nlink,
        uid: raw.stx_uid,
        gid: raw.stx_gid,
        rdev: (raw.stx_rdev_major, raw.stx_rdev_minor),
        size: raw.stx_size,
        blocks: raw.stx_blocks,
        blksize: raw.stx_blksize,
        atime: time(raw.stx_atime),
        mtime: time(raw.stx_mtime),
        ctime: time(raw.stx_ctime),
    })
}
