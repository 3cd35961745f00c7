//! System calls relative to descriptors.

use std::ffi::{CStr, CString, c_int, c_long};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// A time to set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetTime {
    /// Leave it.
    Omit,
    /// The present.
    Now,
    /// Seconds and nanoseconds.
    At(i64, u32),
}

/// What `statvfs` says.
pub type VfsStat = libc::statvfs64;

pub(super) fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn check_long(result: c_long) -> io::Result<u64> {
    u64::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// The path of a held file: leads to it whatever its name is now.
pub(super) fn proc_path(fd: BorrowedFd<'_>) -> CString {
    // A formatted number has no NUL.
    CString::new(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap_or_default()
}

/// Opens one component below a directory; a symbolic link is ELOOP, or itself with `O_PATH`.
pub fn open_at(dir: BorrowedFd<'_>, name: &CStr, flags: c_int) -> io::Result<OwnedFd> {
    open_beneath(dir, name, flags, 0)
}

/// As [`open_at`], making a file with this mode.
pub fn open_create(dir: BorrowedFd<'_>, name: &CStr, flags: c_int, mode: u32) -> io::Result<OwnedFd> {
    open_beneath(dir, name, flags | libc::O_CREAT, mode & 0o7777)
}

fn open_beneath(dir: BorrowedFd<'_>, name: &CStr, flags: c_int, mode: u32) -> io::Result<OwnedFd> {
    /// Set once the kernel has said that it has no `openat2` (before 5.6, or a sandbox).
    static MISSING: AtomicBool = AtomicBool::new(false);
    let flags = flags | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    if !MISSING.load(Ordering::Relaxed) {
        // SAFETY: a struct of integers, for which zero is a value.
        let mut how: libc::open_how = unsafe { std::mem::zeroed() };
        how.flags = u64::from(flags.cast_unsigned());
        how.mode = u64::from(mode);
        how.resolve = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_SYMLINKS | libc::RESOLVE_NO_MAGICLINKS;
        let size = size_of::<libc::open_how>();
        // SAFETY: the name ends in NUL; pointer and size are those of the struct.
        let fd =
            unsafe { libc::syscall(libc::SYS_openat2, dir.as_raw_fd(), name.as_ptr(), &raw const how, size) };
        match c_int::try_from(fd) {
            // SAFETY: a fresh descriptor that nobody else owns.
            Ok(fd) if fd >= 0 => return Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
            Ok(_) | Err(_) => {}
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::ENOSYS) {
            return Err(error);
        }
        MISSING.store(true, Ordering::Relaxed);
    }
    // One component, not followed: the same, only less strictly said.
    // SAFETY: the name ends in NUL.
    let fd = check(unsafe { libc::openat(dir.as_raw_fd(), name.as_ptr(), flags, mode) })?;
    // SAFETY: a fresh descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Opens a held file anew, for reading or writing.
pub fn reopen(fd: BorrowedFd<'_>, flags: c_int) -> io::Result<OwnedFd> {
    let flags = flags & !(libc::O_NOFOLLOW | libc::O_CREAT | libc::O_EXCL) | libc::O_CLOEXEC;
    // SAFETY: the path ends in NUL.
    let fd = check(unsafe { libc::open(proc_path(fd).as_ptr(), flags) })?;
    // SAFETY: a fresh descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Opens a held directory for reading its names.
pub fn open_directory_stream(dir: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    open_at(dir, c".", libc::O_RDONLY | libc::O_DIRECTORY)
}

/// Makes a directory.
pub fn make_directory(dir: BorrowedFd<'_>, name: &CStr, mode: u32) -> io::Result<()> {
    // SAFETY: the name ends in NUL.
    check(unsafe { libc::mkdirat(dir.as_raw_fd(), name.as_ptr(), mode & 0o7777) }).map(drop)
}

/// Makes a node of the type in `mode`; `rdev` is a device number as FUSE has it.
pub fn make_node(dir: BorrowedFd<'_>, name: &CStr, mode: u32, rdev: u32) -> io::Result<()> {
    let device = libc::makedev((rdev & 0x000f_ff00) >> 8, (rdev & 0xff) | ((rdev >> 12) & 0x000f_ff00));
    // SAFETY: the name ends in NUL.
    check(unsafe { libc::mknodat(dir.as_raw_fd(), name.as_ptr(), mode, device) }).map(drop)
}

/// Makes a symbolic link.
pub fn make_symlink(dir: BorrowedFd<'_>, name: &CStr, target: &CStr) -> io::Result<()> {
    // SAFETY: both end in NUL.
    check(unsafe { libc::symlinkat(target.as_ptr(), dir.as_raw_fd(), name.as_ptr()) }).map(drop)
}

/// Gives a held file another name.
pub fn hard_link(fd: BorrowedFd<'_>, dir: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    let path = proc_path(fd);
    // SAFETY: both end in NUL.
    let result = unsafe {
        libc::linkat(libc::AT_FDCWD, path.as_ptr(), dir.as_raw_fd(), name.as_ptr(), libc::AT_SYMLINK_FOLLOW)
    };
    check(result).map(drop)
}

/// Renames; `flags` as of `renameat2`.
pub fn rename(from: (BorrowedFd<'_>, &CStr), to: (BorrowedFd<'_>, &CStr), flags: u32) -> io::Result<()> {
    // SAFETY: both names end in NUL.
    let result = unsafe {
        libc::renameat2(from.0.as_raw_fd(), from.1.as_ptr(), to.0.as_raw_fd(), to.1.as_ptr(), flags)
    };
    check(result).map(drop)
}

/// Removes a name; of a directory if `directory`.
pub fn unlink(dir: BorrowedFd<'_>, name: &CStr, directory: bool) -> io::Result<()> {
    let flags = if directory { libc::AT_REMOVEDIR } else { 0 };
    // SAFETY: the name ends in NUL.
    check(unsafe { libc::unlinkat(dir.as_raw_fd(), name.as_ptr(), flags) }).map(drop)
}

/// Target of a held symbolic link.
pub fn read_link(fd: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    // The longest target that Linux has, and one byte to know that it was not cut.
    let mut target = vec![0_u8; 4097];
    // SAFETY: the empty name stands for the link itself; pointer and length are those of the buffer.
    let length =
        unsafe { libc::readlinkat(fd.as_raw_fd(), c"".as_ptr(), target.as_mut_ptr().cast(), target.len()) };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    target.truncate(length);
    Ok(target)
}

/// Changes permission bits of a held file.
pub fn chmod(fd: BorrowedFd<'_>, mode: u32) -> io::Result<()> {
    // SAFETY: the path ends in NUL.
    check(unsafe { libc::chmod(proc_path(fd).as_ptr(), mode & 0o7777) }).map(drop)
}

/// Changes owner and group of a held file; of a symbolic link itself.
pub fn chown(fd: BorrowedFd<'_>, uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
    let (uid, gid) = (uid.unwrap_or(u32::MAX), gid.unwrap_or(u32::MAX));
    // SAFETY: the empty name stands for the file itself.
    check(unsafe { libc::fchownat(fd.as_raw_fd(), c"".as_ptr(), uid, gid, libc::AT_EMPTY_PATH) }).map(drop)
}

/// Changes times of a held file; of a symbolic link itself.
pub fn set_times(fd: BorrowedFd<'_>, atime: SetTime, mtime: SetTime) -> io::Result<()> {
    let spec = |time| match time {
        SetTime::Omit => libc::timespec { tv_sec: 0, tv_nsec: libc::UTIME_OMIT },
        SetTime::Now => libc::timespec { tv_sec: 0, tv_nsec: libc::UTIME_NOW },
        SetTime::At(sec, nsec) => libc::timespec { tv_sec: sec, tv_nsec: i64::from(nsec) },
    };
    let times = [spec(atime), spec(mtime)];
    // SAFETY: the empty name stands for the file itself; the raw call, because libc's refuses the empty name.
    let result = unsafe {
        libc::syscall(libc::SYS_utimensat, fd.as_raw_fd(), c"".as_ptr(), times.as_ptr(), libc::AT_EMPTY_PATH)
    };
    match check_long(result) {
        // Before Linux 5.8 there is no empty name here.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            let path = proc_path(fd);
            // SAFETY: the path ends in NUL; two times.
            check(unsafe { libc::utimensat(libc::AT_FDCWD, path.as_ptr(), times.as_ptr(), 0) }).map(drop)
        }
        result => result.map(drop),
    }
}

/// Sets the size of a held file, if the thread may write to it.
pub fn truncate(fd: BorrowedFd<'_>, size: u64) -> io::Result<()> {
    let path = proc_path(fd);
    // SAFETY: the path ends in NUL.
    check(unsafe { libc::truncate64(path.as_ptr(), offset(size)?) }).map(drop)
}

/// Sets the size of a file that is open for writing.
pub fn truncate_open(fd: BorrowedFd<'_>, size: u64) -> io::Result<()> {
    // SAFETY: plain numbers.
    check(unsafe { libc::ftruncate64(fd.as_raw_fd(), offset(size)?) }).map(drop)
}

/// Whether the thread may access a held file so (`R_OK`, `W_OK`, `X_OK`).
pub fn access(fd: BorrowedFd<'_>, mode: c_int) -> io::Result<()> {
    let flags = libc::AT_EACCESS | libc::AT_EMPTY_PATH;
    // SAFETY: the empty name stands for the file itself; the raw call, because libc emulates it.
    let result = unsafe { libc::syscall(libc::SYS_faccessat2, fd.as_raw_fd(), c"".as_ptr(), mode, flags) };
    check_long(result).map(drop)
}

/// Reads up to `size` bytes; fewer only at the end of the file.
pub fn read_at(fd: BorrowedFd<'_>, position: u64, size: usize) -> io::Result<Vec<u8>> {
    let mut data: Vec<u8> = Vec::with_capacity(size);
    while data.len() < size {
        let at = offset(position.saturating_add(u64::try_from(data.len()).unwrap_or(u64::MAX)))?;
        let spare = data.spare_capacity_mut();
        let wanted = spare.len().min(size);
        // SAFETY: the spare capacity is writable memory of that length.
        let read = unsafe { libc::pread64(fd.as_raw_fd(), spare.as_mut_ptr().cast(), wanted, at) };
        match usize::try_from(read) {
            Ok(0) => break,
            // SAFETY: the kernel has written that many bytes there.
            Ok(read) => unsafe { data.set_len(data.len() + read) },
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => {}
                error if data.is_empty() => return Err(error),
                _ => break,
            },
        }
    }
    data.truncate(size);
    Ok(data)
}

/// Writes all; fewer bytes only if an error came after some.
pub fn write_at(fd: BorrowedFd<'_>, position: u64, data: &[u8]) -> io::Result<usize> {
    let mut written = 0;
    while let Some(rest) = data.get(written..).filter(|rest| !rest.is_empty()) {
        let at = offset(position.saturating_add(u64::try_from(written).unwrap_or(u64::MAX)))?;
        // SAFETY: pointer and length are those of the slice.
        let result = unsafe { libc::pwrite64(fd.as_raw_fd(), rest.as_ptr().cast(), rest.len(), at) };
        match usize::try_from(result) {
            Ok(0) => break,
            Ok(count) => written += count,
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => {}
                error if written == 0 => return Err(error),
                _ => break,
            },
        }
    }
    Ok(written)
}

/// Makes a file or directory durable.
pub fn sync(fd: BorrowedFd<'_>, data_only: bool) -> io::Result<()> {
    // SAFETY: plain numbers.
    check(unsafe { if data_only { libc::fdatasync(fd.as_raw_fd()) } else { libc::fsync(fd.as_raw_fd()) } })
        .map(drop)
}

/// Closes a copy of the descriptor: network file systems report write errors then.
pub fn close_duplicate(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the copy is closed at once and nobody else has it.
    check(unsafe { libc::close(check(libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 0))?) }).map(drop)
}

/// Allocates or punches; `mode` as of `fallocate`.
pub fn fallocate(fd: BorrowedFd<'_>, mode: c_int, start: u64, length: u64) -> io::Result<()> {
    // SAFETY: plain numbers.
    check(unsafe { libc::fallocate64(fd.as_raw_fd(), mode, offset(start)?, offset(length)?) }).map(drop)
}

/// `lseek`; the descriptor's position is used for nothing else.
pub fn seek(fd: BorrowedFd<'_>, position: i64, whence: c_int) -> io::Result<i64> {
    // SAFETY: plain numbers.
    let result = unsafe { libc::lseek64(fd.as_raw_fd(), position, whence) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Copies within the kernel.
pub fn copy_file_range(
    from: (BorrowedFd<'_>, u64),
    to: (BorrowedFd<'_>, u64),
    length: usize,
) -> io::Result<usize> {
    let (mut from_at, mut to_at) = (offset(from.1)?, offset(to.1)?);
    // SAFETY: both positions outlive the call.
    let result = unsafe {
        libc::copy_file_range(
            from.0.as_raw_fd(),
            &raw mut from_at,
            to.0.as_raw_fd(),
            &raw mut to_at,
            length,
            0,
        )
    };
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// Numbers of a file system.
pub fn statvfs(fd: BorrowedFd<'_>) -> io::Result<VfsStat> {
    let mut raw = MaybeUninit::<VfsStat>::zeroed();
    // SAFETY: the buffer has the size of the struct.
    check(unsafe { libc::fstatvfs64(fd.as_raw_fd(), raw.as_mut_ptr()) })?;
    // SAFETY: a struct of integers that was zeroed, and the call succeeded.
    Ok(unsafe { raw.assume_init() })
}

/// Whether a file system is one of those that live on this machine.
pub fn is_local(fd: BorrowedFd<'_>) -> io::Result<bool> {
    const LOCAL: [i64; 6] = [0xEF53, 0x5846_5342, 0x9123_683E, 0x0102_1994, 0x794c_7630, 0x2FC1_2FC1];
    let mut raw = MaybeUninit::<libc::statfs64>::zeroed();
    // SAFETY: the buffer has the size of the struct.
    check(unsafe { libc::fstatfs64(fd.as_raw_fd(), raw.as_mut_ptr()) })?;
    // SAFETY: a struct of integers that was zeroed, and the call succeeded.
    let raw = unsafe { raw.assume_init() };
    Ok(LOCAL.contains(&raw.f_type))
}

/// The next raw entries of a directory stream (`linux_dirent64`), and how many bytes of them; 0 at the end.
pub fn entries_raw(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: pointer and length are those of the buffer.
    let result =
        unsafe { libc::syscall(libc::SYS_getdents64, fd.as_raw_fd(), buffer.as_mut_ptr(), buffer.len()) };
    let length = check_long(result)?;
    Ok(usize::try_from(length).unwrap_or(0).min(buffer.len()))
}

/// Puts a directory stream to a position that an entry of it gave, or to its start (0).
pub fn seek_directory(fd: BorrowedFd<'_>, cookie: u64) -> io::Result<()> {
    seek(fd, offset(cookie)?, libc::SEEK_SET).map(drop)
}

fn offset(position: u64) -> io::Result<i64> {
    i64::try_from(position).map_err(|_| io::Error::from_raw_os_error(libc::EOVERFLOW))
}

/// How many descriptors the process may have open.
pub fn descriptor_limit() -> usize {
    let mut raw = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the buffer has the size of the struct.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut raw) } != 0 {
        return 0;
    }
    usize::try_from(raw.rlim_cur).unwrap_or(usize::MAX)
}

/// Gives memory that was freed back to the system; the allocator keeps what its threads have freed otherwise.
pub fn give_back_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: has no preconditions.
    unsafe {
        libc::malloc_trim(0);
    }
}
