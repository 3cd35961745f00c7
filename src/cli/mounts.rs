//! What is mounted: the kernel's table, `.status` of a mount, unmounting.

use std::ffi::{CString, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

use super::failure::{self, Result, error};
use crate::value::{Object, Value};

/// How the kernel names the type of our mounts.
const FS_TYPE: &[u8] = b"fuse.cachedirfs";
/// How long a mount may take to answer for its `.status`.
const STATUS_DEADLINE: Duration = Duration::from_secs(5);

/// The mount points of this file system in this process's mount namespace, in order of mounting.
pub fn all() -> io::Result<Vec<PathBuf>> {
    Ok(parse(&std::fs::read("/proc/self/mountinfo")?))
}

/// Whether something of this file system is mounted exactly here (an absolute path).
pub fn is_mounted(path: &Path) -> bool {
    all().is_ok_and(|mounts| mounts.iter().any(|mount| mount == path))
}

/// Reads `/proc/self/mountinfo`: mount point is the 5th field, the type stands after ` - `.
fn parse(table: &[u8]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for line in table.split(|&byte| byte == b'\n') {
        let mut fields = line.split(|&byte| byte == b' ');
        let Some(place) = fields.nth(4) else { continue };
        if fields.by_ref().any(|field| field == b"-") && fields.next() == Some(FS_TYPE) {
            found.push(PathBuf::from(OsString::from_vec(unescape(place))));
        }
    }
    found
}

/// The kernel writes space, tab, newline and backslash as `\040` and so on.
pub fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        if first == b'\\'
            && let Some((digits, after)) = tail.split_at_checked(3)
            && let Some(byte) =
                std::str::from_utf8(digits).ok().and_then(|digits| u8::from_str_radix(digits, 8).ok())
        {
            out.push(byte);
            rest = after;
        } else {
            out.push(first);
            rest = tail;
        }
    }
    out
}

/// An absolute path without links that needs no answer from the last component, which may be a dead mount.
pub fn absolute(path: &Path) -> io::Result<PathBuf> {
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) if !path.is_symlink() => {
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            Ok(parent.canonicalize()?.join(name))
        }
        _ => path.canonicalize(),
    }
}

/// The `.status` of a mount: `None` if there is none or it does not answer.
pub fn status(mountpoint: &Path) -> Option<Object<'static>> {
    let file = mountpoint.join(".status");
    let (send, receive) = mpsc::channel();
    // A daemon that hangs would hang whoever reads from its mount: let that be a thread that is left behind.
    std::thread::Builder::new()
        .spawn(move || {
            let _ = send.send(std::fs::read(file));
        })
        .ok()?;
    let bytes = receive.recv_timeout(STATUS_DEADLINE).ok()?.ok()?;
    Object::parse(&bytes).ok().map(Object::into_owned)
}

/// A member of `.status` that is a string.
pub fn text(status: &Object<'_>, name: &str) -> Option<String> {
    match status.get(name)? {
        Value::String(text) => text.as_str().map(str::to_owned),
        _ => None,
    }
}

/// A member of `.status` that is a whole number.
pub fn number(status: &Object<'_>, name: &str) -> Option<i64> {
    match status.get(name)? {
        Value::Number(number) => number.token().parse().ok(),
        _ => None,
    }
}

/// Whether a path is a mount whose daemon is gone.
pub fn is_dead(path: &Path) -> bool {
    // Opening asks the daemon; attributes may still be those that the kernel remembers of it.
    matches!(std::fs::read_dir(path), Err(e) if e.raw_os_error() == Some(libc::ENOTCONN))
}

/// Takes a mount out of the tree; `lazy`: even if it is in use.
pub fn unmount(mountpoint: &Path, lazy: bool) -> Result<()> {
    let place = mountpoint.display();
    // SAFETY: geteuid cannot fail and touches no memory.
    if unsafe { libc::geteuid() } == 0 {
        let path = CString::new(mountpoint.as_os_str().as_bytes())
            .map_err(|_| error(format!("{place}: a path cannot hold NUL")))?;
        let flags = libc::UMOUNT_NOFOLLOW | if lazy { libc::MNT_DETACH } else { 0 };
        // SAFETY: `path` ends in NUL and outlives the call.
        if unsafe { libc::umount2(path.as_ptr(), flags) } == 0 {
            return Ok(());
        }
        let source = io::Error::last_os_error();
        return Err(match source.raw_os_error() {
            Some(libc::EBUSY) => busy(mountpoint),
            Some(libc::EINVAL) => error(format!("{place} is not mounted")),
            _ => failure::io("unmount", &place, &source),
        });
    }
    let mut command = Command::new("fusermount3");
    command.arg("-u");
    if lazy {
        command.arg("-z");
    }
    let output = command.arg("--").arg(mountpoint).output().map_err(|source| no_fusermount(&source))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if said.contains("busy") { Err(busy(mountpoint)) } else { Err(error(format!("unmount {place}: {said}"))) }
}

/// The program that mounts for ordinary users is not there.
pub fn no_fusermount(source: &io::Error) -> super::failure::Failure {
    failure::io("run", "fusermount3", source)
        .hint("ordinary users mount through it: apt install fuse3 (or your system's fuse3)")
}

fn busy(mountpoint: &Path) -> super::failure::Failure {
    let place = mountpoint.display();
    error(format!("{place} is in use: some program has a file or its working directory there"))
        .hint(format!("`fuser -vm {place}` tells which; `cachedirfs umount -z {place}` takes it away anyway"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_table_is_read() {
        let table = b"22 1 8:1 / / rw - ext4 /dev/sda rw\n\
            40 22 0:50 / /mnt/my\\040runs rw,nosuid shared:1 - fuse.cachedirfs cachedirfs rw\n\
            41 22 0:51 / /mnt/other rw - fuse.sshfs x rw\n\
            broken\n";
        assert_eq!(parse(table), [PathBuf::from("/mnt/my runs")]);
    }

    #[test]
    fn escapes_of_the_table_are_undone_and_others_kept() {
        assert_eq!(unescape(br"a\040b\134c\9x\01"), br"a b\c\9x\01");
    }
}
