//! What is mounted on directories of the mount. A kernel that is told to forget the names of a file system takes away what is mounted
//! on them, without asking. So it is not told while something is, and no names are kept meanwhile that it would have to forget.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::AsRawFd;
use std::thread;

/// Major and minor number of the device that a mount is.
pub(super) type Device = (u32, u32);

/// The mounts of this process, and a change of them.
const MOUNTS: &str = "/proc/self/mountinfo";

/// Has a thread call `changed` whenever something is mounted below a mount for which nothing was, or the last of it has gone. It
/// begins with nothing, and ends with the mount.
pub(super) fn watch(device: Device, changed: impl FnMut(bool) + Send + 'static) {
    let not_seen = |error: io::Error| log::warn!("it is not seen what is mounted below: {error}");
    let watch = move || follow(device, changed).unwrap_or_else(not_seen);
    let spawned = thread::Builder::new().name("below".into()).stack_size(64 << 10).spawn(watch);
    spawned.map_or_else(not_seen, drop);
}

fn follow(device: Device, mut changed: impl FnMut(bool)) -> io::Result<()> {
    let mut mounts = File::open(MOUNTS)?;
    let (mut before, mut text) = (false, Vec::new());
    loop {
        text.clear();
        mounts.rewind()?;
        mounts.read_to_end(&mut text)?;
        let Some(now) = is_something_below(&String::from_utf8_lossy(&text), device) else { return Ok(()) };
        if now != before {
            changed(now);
            before = now;
        }
        wait(&mounts)?;
    }
}

/// Waits until the mounts have changed since this file was opened, or this was last called.
fn wait(mounts: &File) -> io::Result<()> {
    let mut asked = libc::pollfd { fd: mounts.as_raw_fd(), events: libc::POLLPRI, revents: 0 };
    loop {
        // SAFETY: one struct, which outlives the call.
        if unsafe { libc::poll(&raw mut asked, 1, -1) } >= 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Whether a mount stands on a directory of a device, by what `/proc/self/mountinfo` says; none if the device is mounted nowhere.
fn is_something_below(mounts: &str, (major, minor): Device) -> Option<bool> {
    /// As in `36 35 98:0 /root /at rw …`: id, id of the mount that it stands on, device.
    fn fields(line: &str) -> Option<(&str, &str, &str)> {
        let mut fields = line.split(' ');
        Some((fields.next()?, fields.next()?, fields.next()?))
    }
    let device = format!("{major}:{minor}");
    let all = || mounts.lines().filter_map(fields);
    let ours: HashSet<_> = all().filter(|&(_, _, of)| of == device).map(|(id, ..)| id).collect();
    if ours.is_empty() {
        return None;
    }
    Some(all().any(|(_, below, _)| ours.contains(below)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_on_a_mount_is_below_it() {
        let root = "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n";
        let ours = "40 22 0:45 / /home/u/runs rw,nosuid shared:9 - fuse.cachedirfs cachedirfs rw\n";
        let bound = "41 22 0:45 /entries/a /mnt rw - fuse.cachedirfs cachedirfs rw\n";
        let beside = "42 22 0:46 / /home/u/runs2 rw - tmpfs x rw\n";
        let below = "43 40 0:47 / /home/u/runs/entries/a/d rw - tmpfs x rw\n";
        let below_bound = "44 41 0:47 / /mnt/d rw - tmpfs x rw\n";
        let of_itself = "45 40 0:45 /entries/a /home/u/runs/entries/b rw - fuse.cachedirfs cachedirfs rw\n";
        let see = |lines: &[&str]| is_something_below(&lines.concat(), (0, 45));
        assert_eq!(see(&[root, beside]), None);
        assert_eq!(see(&[root, ours, beside]), Some(false));
        assert_eq!(see(&[root, ours, bound, beside]), Some(false));
        for line in [below, below_bound, of_itself] {
            assert_eq!(see(&[line, root, ours, bound]), Some(true), "{line}");
        }
        assert_eq!(see(&[root, "", "short\n"]), None);
    }
}
