//! How much the kernel reads ahead, where it reads through the daemon.

use std::fs;

use super::below::Device;

/// In KiB. The kernel's own is 128 for every file system of this kind, and what a daemon asks for at the mount can only be less: each
/// request costs a good deal more than the data that it brings. More than this at once does not stay in the processor's cache on
/// its way.
const KIB: u32 = 512;

/// Has the kernel read ahead more in a mount, for which the administrator's daemon need not ask anybody.
pub(super) fn set((major, minor): Device) {
    let set = fs::write(format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb"), KIB.to_string());
    if let Err(error) = set {
        log::debug!("the kernel reads ahead as usual: {error}");
    }
}
