//! Between the types of `fuser` and those of [`crate::vfs`].

use std::time::{Duration, SystemTime};

use fuser::{Errno, FileAttr, FileType, FopenFlags, INodeNo, Request, TimeOrNow};

use crate::vfs::{Attr, Caller, Error, LockKind, Opened, SetTime, Time};

pub(super) fn caller(request: &Request) -> Caller {
    Caller { uid: request.uid(), gid: request.gid(), pid: request.pid() }
}

pub(super) fn errno(error: &Error) -> Errno {
    if matches!(error, Error::Io(_) | Error::Cache(_)) {
        log::debug!("{error:?}");
    }
    Errno::from_i32(error.errno())
}

/// As [`errno`], for locks: a file system underneath that has none may say so (ENOSYS), and the kernel asks again.
pub(super) fn lock_errno(error: &Error) -> Errno {
    match error {
        Error::Io(cause) => Errno::from_i32(cause.raw_os_error().unwrap_or(libc::EIO)),
        error => errno(error),
    }
}

/// The kind of a lock; none to unlock.
pub(super) fn lock_kind(kind: i32) -> Result<Option<LockKind>, Error> {
    match kind {
        libc::F_RDLCK => Ok(Some(LockKind::Shared)),
        libc::F_WRLCK => Ok(Some(LockKind::Exclusive)),
        libc::F_UNLCK => Ok(None),
        _ => Err(Error::Invalid),
    }
}

/// The type in a mode. The bits that are none stand for a regular file.
pub(super) fn file_type(mode: u32) -> FileType {
    match mode & libc::S_IFMT {
        libc::S_IFDIR => FileType::Directory,
        libc::S_IFLNK => FileType::Symlink,
        libc::S_IFIFO => FileType::NamedPipe,
        libc::S_IFSOCK => FileType::Socket,
        libc::S_IFCHR => FileType::CharDevice,
        libc::S_IFBLK => FileType::BlockDevice,
        _ => FileType::RegularFile,
    }
}

pub(super) fn file_attr(attr: &Attr) -> FileAttr {
    FileAttr {
        ino: INodeNo(attr.ino),
        size: attr.size,
        blocks: attr.blocks,
        atime: system_time(attr.atime),
        mtime: system_time(attr.mtime),
        ctime: system_time(attr.ctime),
        crtime: SystemTime::UNIX_EPOCH,
        kind: file_type(attr.mode),
        // Twelve bits.
        perm: u16::try_from(attr.mode & 0o7777).unwrap_or(0),
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: attr.rdev,
        blksize: attr.blksize,
        flags: 0,
    }
}

fn system_time(time: Time) -> SystemTime {
    let seconds = Duration::from_secs(time.sec.unsigned_abs());
    let whole = if time.sec < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(seconds)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(seconds)
    };
    let fraction = Duration::from_nanos(u64::from(time.nsec));
    whole.and_then(|whole| whole.checked_add(fraction)).unwrap_or(SystemTime::UNIX_EPOCH)
}

/// A time to set. `fuser` 0.18 makes of S seconds before the epoch and N nanoseconds *after* them the point S seconds and N
/// nanoseconds before the epoch; both numbers can be told from it, so what the caller meant can.
pub(super) fn set_time(time: TimeOrNow) -> SetTime {
    let time = match time {
        TimeOrNow::Now => return SetTime::Now,
        TimeOrNow::SpecificTime(time) => time,
    };
    let (seconds, before) = match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => (after, false),
        Err(error) => (error.duration(), true),
    };
    let sec = match (i64::try_from(seconds.as_secs()), before) {
        (Ok(sec), false) => sec,
        (Ok(sec), true) => -sec,
        (Err(_), false) => i64::MAX,
        (Err(_), true) => i64::MIN,
    };
    SetTime::At(Time { sec, nsec: seconds.subsec_nanos() })
}

/// The flags of an open reply; `passthrough` says that the kernel serves the data: it keeps none of its own then.
pub(super) fn open_flags(opened: &Opened, passthrough: bool) -> FopenFlags {
    let mut flags = FopenFlags::empty();
    flags.set(FopenFlags::FOPEN_DIRECT_IO, opened.direct_io && !passthrough);
    flags.set(FopenFlags::FOPEN_KEEP_CACHE, opened.keep_cache && !passthrough);
    flags.set(FopenFlags::FOPEN_CACHE_DIR, opened.cache_dir);
    flags.set(FopenFlags::FOPEN_NOFLUSH, opened.no_flush);
    flags
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `fuser` makes of a time that the kernel sends.
    fn received(sec: i64, nsec: u32) -> TimeOrNow {
        let duration = Duration::new(sec.unsigned_abs(), nsec);
        let epoch = SystemTime::UNIX_EPOCH;
        TimeOrNow::SpecificTime(if sec >= 0 { epoch + duration } else { epoch - duration })
    }

    #[test]
    fn times_before_the_epoch_to_the_nanosecond() {
        for (sec, nsec) in [(0, 0), (7, 999_999_999), (-1, 0), (-1, 500_000_000), (-2_000_000_000, 1)] {
            assert_eq!(set_time(received(sec, nsec)), SetTime::At(Time { sec, nsec }));
            let shown = system_time(Time { sec, nsec });
            let nanos = match shown.duration_since(SystemTime::UNIX_EPOCH) {
                Ok(after) => i128::try_from(after.as_nanos()).unwrap(),
                Err(error) => -i128::try_from(error.duration().as_nanos()).unwrap(),
            };
            assert_eq!(nanos, i128::from(sec) * 1_000_000_000 + i128::from(nsec));
        }
        assert!(system_time(Time { sec: i64::MAX, nsec: 0 }).duration_since(SystemTime::UNIX_EPOCH).is_ok());
    }
}
