//! How much the kernel reads ahead, where it reads through the daemon.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// In KiB. The kernel's own is 128 for every file system of this kind, and what a daemon asks for at the mount can only be less: each
/// request costs a good deal more than the data that it brings. More than this at once does not stay in the processor's cache on
/// its way.
const KIB: u32 = 512;

/// Has the kernel read ahead more in a mount, of which the administrator's daemon need not ask anybody. The mount answers already.
pub(super) fn set(mountpoint: &Path) {
    if let Err(error) = try_set(mountpoint) {
        log::debug!("the kernel reads ahead as usual: {error}");
    }
}

fn try_set(mountpoint: &Path) -> io::Result<()> {
    let device = fs::metadata(mountpoint)?.dev();
    let (major, minor) = (libc::major(device), libc::minor(device));
    fs::write(format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb"), KIB.to_string())
}
