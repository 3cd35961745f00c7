//! Unmounting by root and by ordinary users.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// Unmounts, if the mount of this device is still there.
pub(super) fn unmount(mountpoint: &Path, device: BorrowedFd<'_>) -> io::Result<()> {
    if !is_live(device) {
        return Ok(());
    }
    let path = CString::new(mountpoint.as_os_str().as_bytes())?;
    match umount(&path, 0) {
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
            log::warn!("{} is in use: it goes when the last file is closed", mountpoint.display());
            umount(&path, libc::MNT_DETACH)
        }
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => fusermount(mountpoint),
        // Not mounted any more.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
        result => result,
    }
}

/// Whether the kernel still has the mount.
pub(super) fn is_live(device: BorrowedFd<'_>) -> bool {
    let mut poll = libc::pollfd { fd: device.as_raw_fd(), events: 0, revents: 0 };
    // SAFETY: one element, which outlives the call.
    let ready = unsafe { libc::poll(&raw mut poll, 1, 0) };
    ready <= 0 || poll.revents & libc::POLLERR == 0
}

fn umount(path: &CString, flags: i32) -> io::Result<()> {
    // SAFETY: the path ends in NUL.
    if unsafe { libc::umount2(path.as_ptr(), flags | libc::UMOUNT_NOFOLLOW) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Ordinary users unmount through the set-user-id helper.
fn fusermount(mountpoint: &Path) -> io::Result<()> {
    let run = |lazy: &[&str]| {
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for program in ["fusermount3", "fusermount"] {
            let mut command = Command::new(program);
            command.arg("-u").args(lazy).arg("--").arg(mountpoint).stdin(Stdio::null());
            match command.output() {
                Ok(output) if output.status.success() => return Ok(()),
                Ok(output) => {
                    let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                    return Err(io::Error::other(message));
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    };
    run(&[]).or_else(|error| {
        log::warn!("{error}: it goes when the last file is closed");
        run(&["-z"])
    })
}
