//! The thin seam at the store's file operations: one trait, the real system calls, and (in tests) one that fails.
//!
//! Everything that can lose or tear a record goes through [`Sys`], so that tests can fail, shorten or kill each call.

use std::ffi::{CStr, c_int};
use std::fs::{File, Permissions};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, RawFd};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::time::Duration;

use fs2::FileExt as _;

/// What is asked about a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Stat {
    /// Its identity.
    pub id: FileId,
    /// Its size in bytes.
    pub size: u64,
    /// Its type and permissions.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// When its bytes were changed last, in seconds since the epoch (as they count for a time before that) and nanoseconds.
    pub modified: (u64, u64),
    /// When anything about it was changed last.
    pub changed: (u64, u64),
}

/// The identity of a file, as long as somebody holds it open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct FileId {
    dev: u64,
    ino: u64,
}

impl FileId {
    /// The identity that these numbers make.
    #[cfg(test)]
    pub fn new(dev: u64, ino: u64) -> Self {
        Self { dev, ino }
    }

    /// Whether `MAJOR:MINOR:INODE`, as the kernel lists locks, is this file; `Some(false)`: the inode is, the device is not.
    pub fn is_listed_as(&self, text: &str) -> Option<bool> {
        let mut fields = text.split(':');
        let (major, minor) = (fields.next()?, fields.next()?);
        let ino: u64 = fields.next()?.parse().ok()?;
        let device =
            libc::makedev(u32::from_str_radix(major, 16).ok()?, u32::from_str_radix(minor, 16).ok()?);
        (ino == self.ino).then_some(device == self.dev)
    }

    /// Device and inode.
    pub fn numbers(self) -> (u64, u64) {
        (self.dev, self.ino)
    }
}

impl Stat {
    /// Whether it is a regular file.
    pub fn is_file(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFREG
    }
}

/// The file operations of the store. Names are relative to a directory, and the last component is never followed.
pub(crate) trait Sys: std::fmt::Debug + Send + Sync {
    /// Opens a name; `O_NOFOLLOW`, `O_CLOEXEC` and `O_NONBLOCK` (a fifo must not hang) are added.
    fn open(&self, dir: BorrowedFd<'_>, name: &CStr, flags: c_int, mode: u32) -> io::Result<File>;
    /// Fresh attributes of a name.
    fn stat(&self, dir: BorrowedFd<'_>, name: &CStr) -> io::Result<Stat>;
    /// Fresh attributes of an open file, asked from the server where there is one.
    fn stat_file(&self, file: &File) -> io::Result<Stat>;
    /// One read; fewer bytes than asked for are no error.
    fn read(&self, file: &File, buf: &mut [u8], at: u64) -> io::Result<usize>;
    /// One write; fewer bytes than given are no error.
    fn write(&self, file: &File, buf: &[u8], at: u64) -> io::Result<usize>;
    /// Cuts a file off.
    fn truncate(&self, file: &File, len: u64) -> io::Result<()>;
    /// Makes a file's bytes and size durable.
    fn sync_data(&self, file: &File) -> io::Result<()>;
    /// Makes a directory's names durable.
    fn sync_dir(&self, dir: BorrowedFd<'_>) -> io::Result<()>;
    /// Renames over.
    fn rename(&self, dir: BorrowedFd<'_>, from: &CStr, to: &CStr) -> io::Result<()>;
    /// Removes a name.
    fn unlink(&self, dir: BorrowedFd<'_>, name: &CStr) -> io::Result<()>;
    /// Sets permissions.
    fn set_mode(&self, file: &File, mode: u32) -> io::Result<()>;
    /// Sets owner and group.
    fn set_owner(&self, file: &File, uid: u32, gid: u32) -> io::Result<()>;
    /// Takes the flock if nobody else has it; says whether.
    fn try_lock(&self, file: &File) -> io::Result<bool>;
    /// Waits for the flock.
    fn lock(&self, file: &File) -> io::Result<()>;
    /// Gives the flock up.
    fn unlock(&self, file: &File) -> io::Result<()>;
    /// How long the machine has been up, asleep or not. Others may take over a lock while we sleep, so the clock that stops
    /// meanwhile is of no use; nor is the one that is set.
    fn uptime(&self) -> Duration {
        uptime()
    }
}

fn uptime() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the place for the answer is valid for the call. This clock exists on every Linux that has statx.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) };
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// The system calls themselves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Real;

/// Repeats a call that a signal interrupted.
pub(crate) fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// The result of a system call that gives -1 on an error.
fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn statx(dir: RawFd, name: &CStr, flags: c_int) -> io::Result<Stat> {
    let mut buf = std::mem::MaybeUninit::<libc::statx>::zeroed();
    let mask = libc::STATX_TYPE
        | libc::STATX_MODE
        | libc::STATX_INO
        | libc::STATX_SIZE
        | libc::STATX_UID
        | libc::STATX_GID
        | libc::STATX_MTIME
        | libc::STATX_CTIME;
    // SAFETY: the descriptor is open for the call, the name ends in NUL, the buffer has the size of a statx.
    check(unsafe {
        libc::statx(dir, name.as_ptr(), flags | libc::AT_STATX_FORCE_SYNC, mask, buf.as_mut_ptr())
    })?;
    // SAFETY: zeroed at first and filled by the call; every bit pattern is a statx.
    let buf = unsafe { buf.assume_init() };
    Ok(Stat {
        id: FileId { dev: libc::makedev(buf.stx_dev_major, buf.stx_dev_minor), ino: buf.stx_ino },
        size: buf.stx_size,
        mode: u32::from(buf.stx_mode),
        uid: buf.stx_uid,
        gid: buf.stx_gid,
        modified: (buf.stx_mtime.tv_sec.cast_unsigned(), buf.stx_mtime.tv_nsec.into()),
        changed: (buf.stx_ctime.tv_sec.cast_unsigned(), buf.stx_ctime.tv_nsec.into()),
    })
}

impl Sys for Real {
    fn open(&self, dir: BorrowedFd<'_>, name: &CStr, flags: c_int, mode: u32) -> io::Result<File> {
        let flags = flags | libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK;
        // SAFETY: the directory is open for the call and the name ends in NUL.
        let fd = check(unsafe { libc::openat(dir.as_raw_fd(), name.as_ptr(), flags, mode) })?;
        // SAFETY: the call has just given this descriptor to us alone.
        Ok(unsafe { File::from_raw_fd(fd) })
    }

    fn stat(&self, dir: BorrowedFd<'_>, name: &CStr) -> io::Result<Stat> {
        statx(dir.as_raw_fd(), name, libc::AT_SYMLINK_NOFOLLOW)
    }

    fn stat_file(&self, file: &File) -> io::Result<Stat> {
        statx(file.as_raw_fd(), c"", libc::AT_EMPTY_PATH)
    }

    fn read(&self, file: &File, buf: &mut [u8], at: u64) -> io::Result<usize> {
        file.read_at(buf, at)
    }

    fn write(&self, file: &File, buf: &[u8], at: u64) -> io::Result<usize> {
        file.write_at(buf, at)
    }

    fn truncate(&self, file: &File, len: u64) -> io::Result<()> {
        file.set_len(len)
    }

    fn sync_data(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    fn sync_dir(&self, dir: BorrowedFd<'_>) -> io::Result<()> {
        // SAFETY: the directory is open for the call.
        check(unsafe { libc::fsync(dir.as_raw_fd()) }).map(drop)
    }

    fn rename(&self, dir: BorrowedFd<'_>, from: &CStr, to: &CStr) -> io::Result<()> {
        let dir = dir.as_raw_fd();
        // SAFETY: the directory is open for the call and both names end in NUL.
        check(unsafe { libc::renameat(dir, from.as_ptr(), dir, to.as_ptr()) }).map(drop)
    }

    fn unlink(&self, dir: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
        // SAFETY: the directory is open for the call and the name ends in NUL.
        check(unsafe { libc::unlinkat(dir.as_raw_fd(), name.as_ptr(), 0) }).map(drop)
    }

    fn set_mode(&self, file: &File, mode: u32) -> io::Result<()> {
        file.set_permissions(Permissions::from_mode(mode))
    }

    fn set_owner(&self, file: &File, uid: u32, gid: u32) -> io::Result<()> {
        std::os::unix::fs::fchown(file, Some(uid), Some(gid))
    }

    fn try_lock(&self, file: &File) -> io::Result<bool> {
        match file.try_lock_exclusive() {
            Ok(()) => Ok(true),
            Err(e) if e.raw_os_error() == Some(libc::EWOULDBLOCK) => Ok(false),
            Err(e) => Err(e),
        }
    }

    fn lock(&self, file: &File) -> io::Result<()> {
        file.lock_exclusive()
    }

    fn unlock(&self, file: &File) -> io::Result<()> {
        fs2::FileExt::unlock(file)
    }
}

/// Reads until the buffer is full or the file ends; gives the number of bytes.
pub(crate) fn read_full(sys: &dyn Sys, file: &File, buf: &mut [u8], at: u64) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
        let n = retry(|| sys.read(file, rest, at + done as u64))?;
        if n == 0 {
            break;
        }
        done += n;
    }
    Ok(done)
}

/// Writes everything.
pub(crate) fn write_full(sys: &dyn Sys, file: &File, buf: &[u8], at: u64) -> io::Result<()> {
    let mut done = 0;
    while let Some(rest) = buf.get(done..).filter(|rest| !rest.is_empty()) {
        let n = retry(|| sys.write(file, rest, at + done as u64))?;
        if n == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        done += n;
    }
    Ok(())
}

/// Whether a directory lies on a file system of this machine alone, where what was written is seen by every process at
/// once. Everything else is taken for one that has to be synced before another node reads it.
pub(crate) fn is_local(dir: BorrowedFd<'_>) -> bool {
    /// `f_type` of ext2 to ext4, xfs, btrfs, tmpfs, ramfs, f2fs, zfs, overlayfs, bcachefs; see statfs(2).
    const LOCAL: [i64; 9] = [
        0xEF53,
        0x5846_5342,
        0x9123_683E,
        0x0102_1994,
        0x8584_58F6,
        0xF2F5_2010,
        0x2FC1_2FC1,
        0x794C_7630,
        0xCA45_1A4E,
    ];
    let mut buf = std::mem::MaybeUninit::<libc::statfs>::zeroed();
    // SAFETY: the directory is open for the call, the buffer has the size of a statfs.
    if unsafe { libc::fstatfs(dir.as_raw_fd(), buf.as_mut_ptr()) } != 0 {
        return false;
    }
    // SAFETY: zeroed at first and filled by the call; every bit pattern is a statfs.
    let kind = unsafe { buf.assume_init() }.f_type;
    #[allow(clippy::useless_conversion, reason = "the type of f_type differs between targets")]
    let kind = i64::from(kind) & 0xFFFF_FFFF;
    LOCAL.contains(&kind)
}
