//! Extended attributes of held files, `O_PATH` descriptors too: through `/proc/self/fd`.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use super::sys::{check, proc_path};

/// A value. Grows the buffer if the value grew in between.
pub fn get_xattr(fd: BorrowedFd<'_>, name: &CStr) -> io::Result<Vec<u8>> {
    let path = proc_path(fd);
    // SAFETY: path and name end in NUL; the length is that of the buffer.
    read_all(|buffer, length| unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), buffer.cast(), length) })
}

/// A value of a name below a directory, of a symbolic link itself. One call, where a descriptor would cost four.
pub fn get_xattr_at(dir: BorrowedFd<'_>, file: &CStr, name: &CStr) -> io::Result<Vec<u8>> {
    /// Whether the kernel has `getxattrat` (Linux 6.13).
    static PRESENT: AtomicBool = AtomicBool::new(true);
    if PRESENT.load(Ordering::Relaxed) {
        match read_all(|buffer, length| getxattrat(dir, file, name, buffer, length)) {
            Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {
                PRESENT.store(false, Ordering::Relaxed);
            }
            value => return value,
        }
    }
    let path = [proc_path(dir).as_bytes(), b"/", file.to_bytes()].concat();
    let path = CString::new(path).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    // SAFETY: path and name end in NUL; the length is that of the buffer.
    read_all(|buffer, length| unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), buffer.cast(), length) })
}

/// `getxattrat`, not followed if it is a symbolic link.
fn getxattrat(dir: BorrowedFd<'_>, file: &CStr, name: &CStr, buffer: *mut u8, length: usize) -> isize {
    /// The same number on all architectures.
    const GETXATTRAT: libc::c_long = 464;
    /// `struct xattr_args`
    #[repr(C)]
    struct Args {
        value: u64,
        size: u32,
        flags: u32,
    }
    let args = Args {
        value: u64::try_from(buffer.expose_provenance()).unwrap_or_default(),
        size: u32::try_from(length).unwrap_or(u32::MAX),
        flags: 0,
    };
    // SAFETY: file and name end in NUL, the struct has the layout and size that are told, and the length is that of the buffer.
    let result = unsafe {
        libc::syscall(
            GETXATTRAT,
            dir.as_raw_fd(),
            file.as_ptr(),
            libc::AT_SYMLINK_NOFOLLOW,
            name.as_ptr(),
            &raw const args,
            size_of::<Args>(),
        )
    };
    isize::try_from(result).unwrap_or(-1)
}

/// All names, each ended by NUL.
pub fn list_xattr(fd: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    let path: CString = proc_path(fd);
    // SAFETY: the path ends in NUL; the length is that of the buffer.
    read_all(|buffer, length| unsafe { libc::listxattr(path.as_ptr(), buffer.cast(), length) })
}

/// Sets a value; `flags` are `XATTR_CREATE` and `XATTR_REPLACE`.
pub fn set_xattr(fd: BorrowedFd<'_>, name: &CStr, value: &[u8], flags: i32) -> io::Result<()> {
    let path = proc_path(fd);
    // SAFETY: path and name end in NUL; the length is that of the value.
    check(unsafe {
        libc::setxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), flags)
    })?;
    Ok(())
}

/// Removes one.
pub fn remove_xattr(fd: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    let path = proc_path(fd);
    // SAFETY: path and name end in NUL.
    check(unsafe { libc::removexattr(path.as_ptr(), name.as_ptr()) })?;
    Ok(())
}

fn read_all(call: impl Fn(*mut u8, usize) -> isize) -> io::Result<Vec<u8>> {
    let mut buffer: Vec<u8> = vec![0; 256];
    loop {
        match usize::try_from(call(buffer.as_mut_ptr(), buffer.len())) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(buffer);
            }
            Err(_) => match io::Error::last_os_error() {
                error if error.raw_os_error() == Some(libc::ERANGE) && buffer.len() < 1 << 20 => {
                    buffer.resize(buffer.len() * 16, 0);
                }
                error => return Err(error),
            },
        }
    }
}
