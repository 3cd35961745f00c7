//! Locks on open files: `flock`, and ranges that belong to the open file description (`F_OFD_SETLK`), which exclude those of
//! `fcntl` like any other.

use std::ffi::{c_int, c_short};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Once;

use super::sys::check;

/// What a lock lets others do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockKind {
    /// Others may have shared ones.
    Shared,
    /// Others may have none.
    Exclusive,
}

impl LockKind {
    /// As `l_type` of `fcntl`.
    pub fn fcntl_type(self) -> c_int {
        match self {
            Self::Shared => libc::F_RDLCK,
            Self::Exclusive => libc::F_WRLCK,
        }
    }
}

/// Bytes from the first to the last, both counted in; to [`END`] is to the end of the file, wherever that will be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The first byte.
    pub start: u64,
    /// The last byte.
    pub end: u64,
}

/// The last byte that a file can have.
pub const END: u64 = i64::MAX.unsigned_abs();

impl Range {
    /// The whole file.
    pub const ALL: Self = Self { start: 0, end: END };

    /// Whether they have a byte in common.
    pub fn overlaps(self, other: Self) -> bool {
        self.start <= other.end && other.start <= self.end
    }
}

/// A lock that is in the way of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldLock {
    /// Its kind.
    pub kind: LockKind,
    /// What it covers.
    pub range: Range,
    /// The process that holds it; 0 if it belongs to an open file description or to another node.
    pub pid: u32,
}

/// Locks or unlocks (`None`) with `flock`. EWOULDBLOCK if it is locked and `wait` is false; EINTR after a signal.
pub fn flock(fd: BorrowedFd<'_>, kind: Option<LockKind>, wait: bool) -> io::Result<()> {
    let operation = match kind {
        Some(LockKind::Shared) => libc::LOCK_SH,
        Some(LockKind::Exclusive) => libc::LOCK_EX,
        None => libc::LOCK_UN,
    };
    let operation = if wait { operation } else { operation | libc::LOCK_NB };
    // SAFETY: plain numbers.
    check(unsafe { libc::flock(fd.as_raw_fd(), operation) }).map(drop)
}

/// Locks or unlocks (`None`) a range, on behalf of the open file description. EAGAIN if it is locked and `wait` is false;
/// EINTR after a signal.
pub fn lock_range(fd: BorrowedFd<'_>, kind: Option<LockKind>, range: Range, wait: bool) -> io::Result<()> {
    let mut raw = raw_lock(kind, range)?;
    let command = if wait { libc::F_OFD_SETLKW } else { libc::F_OFD_SETLK };
    // SAFETY: the struct outlives the call.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), command, &raw mut raw) }).map(drop)
}

/// The first lock of others that is in the way of this one.
pub fn find_lock(fd: BorrowedFd<'_>, kind: LockKind, range: Range) -> io::Result<Option<HeldLock>> {
    let mut raw = raw_lock(Some(kind), range)?;
    // SAFETY: the struct outlives the call.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_OFD_GETLK, &raw mut raw) })?;
    let kind = match c_int::from(raw.l_type) {
        libc::F_RDLCK => LockKind::Shared,
        libc::F_WRLCK => LockKind::Exclusive,
        _ => return Ok(None),
    };
    let start = raw.l_start.max(0).unsigned_abs();
    let end = match raw.l_len {
        length @ 1.. => start.saturating_add(length.unsigned_abs() - 1),
        _ => END,
    };
    Ok(Some(HeldLock { kind, range: Range { start, end }, pid: u32::try_from(raw.l_pid).unwrap_or(0) }))
}

fn raw_lock(kind: Option<LockKind>, range: Range) -> io::Result<libc::flock64> {
    let invalid = || io::Error::from_raw_os_error(libc::EINVAL);
    let number = |number: u64| i64::try_from(number).map_err(|_| invalid());
    let kind = kind.map_or(libc::F_UNLCK, LockKind::fcntl_type);
    // SAFETY: a struct of integers, for which zero is a value; the owner must be 0.
    let mut raw: libc::flock64 = unsafe { MaybeUninit::zeroed().assume_init() };
    raw.l_type = c_short::try_from(kind).map_err(|_| invalid())?;
    raw.l_whence = c_short::try_from(libc::SEEK_SET).map_err(|_| invalid())?;
    raw.l_start = number(range.start)?;
    raw.l_len = match range.end {
        END.. => 0,
        end => number(end.checked_sub(range.start).ok_or_else(invalid)? + 1)?,
    };
    Ok(raw)
}

/// A file that has no name and no content, to lock it.
pub fn nameless_file() -> io::Result<OwnedFd> {
    // SAFETY: the name ends in NUL.
    let fd = check(unsafe { libc::memfd_create(c"locks".as_ptr(), libc::MFD_CLOEXEC) })?;
    // SAFETY: a fresh descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Whether a descriptor may be read from and written to.
pub fn access_mode(fd: BorrowedFd<'_>) -> io::Result<c_int> {
    // SAFETY: plain numbers.
    Ok(check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) })? & libc::O_ACCMODE)
}

/// Number of this thread, for [`wake_thread`].
pub fn thread_number() -> i32 {
    static HANDLER: Once = Once::new();
    extern "C" fn nothing(_signal: c_int) {}
    HANDLER.call_once(|| {
        // SAFETY: zero is a value of the struct; the handler does nothing. Without SA_RESTART: calls end with EINTR.
        unsafe {
            let mut action: libc::sigaction = MaybeUninit::zeroed().assume_init();
            action.sa_sigaction = nothing as extern "C" fn(c_int) as libc::sighandler_t;
            libc::sigemptyset(&raw mut action.sa_mask);
            libc::sigaction(wake_signal(), &raw const action, std::ptr::null_mut());
        }
    });
    crate::processors::this_thread()
}

/// Ends the system call in which a thread of this process waits. If it is in none yet, nothing comes of it.
pub fn wake_thread(number: i32) {
    // SAFETY: plain numbers; the signal has a handler that does nothing. A thread that is gone is ESRCH.
    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), number, wake_signal()) };
}

fn wake_signal() -> c_int {
    libc::SIGRTMIN() + 5
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::backing::reopen;

    #[test]
    fn ranges_exclude_each_other_between_descriptions() {
        let file = nameless_file().unwrap();
        let other = reopen(file.as_fd(), libc::O_RDWR).unwrap();
        let range = Range { start: 10, end: 19 };
        lock_range(file.as_fd(), Some(LockKind::Exclusive), range, false).unwrap();
        let refused = lock_range(other.as_fd(), Some(LockKind::Shared), Range::ALL, false).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EAGAIN));
        let held = find_lock(other.as_fd(), LockKind::Shared, Range::ALL).unwrap().unwrap();
        assert_eq!(held, HeldLock { kind: LockKind::Exclusive, range, pid: 0 });
        assert_eq!(find_lock(file.as_fd(), LockKind::Exclusive, Range::ALL).unwrap(), None);
        lock_range(other.as_fd(), Some(LockKind::Shared), Range { start: 20, end: END }, false).unwrap();
        let held =
            find_lock(file.as_fd(), LockKind::Exclusive, Range { start: 25, end: 30 }).unwrap().unwrap();
        assert_eq!(held.range, Range { start: 20, end: END });
        lock_range(file.as_fd(), None, Range::ALL, false).unwrap();
        lock_range(other.as_fd(), Some(LockKind::Exclusive), Range::ALL, false).unwrap();
    }

    #[test]
    fn a_thread_that_waits_is_woken() {
        let file = nameless_file().unwrap();
        let other = reopen(file.as_fd(), libc::O_RDWR).unwrap();
        flock(file.as_fd(), Some(LockKind::Exclusive), false).unwrap();
        let (send, number) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            send.send(thread_number()).unwrap();
            flock(other.as_fd(), Some(LockKind::Shared), true)
        });
        let number = number.recv().unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while !thread.is_finished() {
            assert!(std::time::Instant::now() < deadline);
            wake_thread(number);
            std::thread::yield_now();
        }
        assert_eq!(thread.join().unwrap().unwrap_err().raw_os_error(), Some(libc::EINTR));
    }
}
