//! The names that the kernel keeps, and how it is told to forget them.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::sync::Weak;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::vfs::Vfs;

/// The names that a kernel keeps.
#[derive(Debug)]
pub(super) struct Names {
    device: File,
    /// None is forgotten: something is mounted below.
    held: AtomicBool,
}

impl Names {
    pub fn new(device: &OwnedFd) -> io::Result<Self> {
        Ok(Self { device: device.try_clone()?.into(), held: AtomicBool::new(false) })
    }

    /// Has the kernel ask again for all of them.
    pub fn forget(&self) {
        if !self.held.load(Ordering::SeqCst) {
            forget_names(&self.device);
        }
    }

    /// Something is mounted below now, or nothing any more.
    pub fn hold(&self, something: bool, vfs: &Weak<Vfs>) {
        let Some(vfs) = vfs.upgrade() else { return };
        if something {
            log::info!("names of views are not kept by the kernel while something is mounted below");
            vfs.keep_names(false);
            self.held.store(true, Ordering::SeqCst);
        } else {
            log::info!("nothing is mounted below any more: names of views are kept by the kernel");
            self.held.store(false, Ordering::SeqCst);
            vfs.keep_names(true);
            self.forget();
        }
    }
}

/// Tells the kernel to ask again for every name that it keeps (`FUSE_NOTIFY_INC_EPOCH`, Linux 6.16). It takes no lock of the
/// kernel that a request could hold, so it may be sent from anywhere.
fn forget_names(mut device: &File) {
    const INC_EPOCH: i32 = 8;
    /// Of `fuse_out_header`: length, code, and no request that this answers.
    const LENGTH: u32 = 16;
    let mut message = [0; 16];
    let (length, rest) = message.split_at_mut(4);
    length.copy_from_slice(&LENGTH.to_ne_bytes());
    if let Some(code) = rest.get_mut(..4) {
        code.copy_from_slice(&INC_EPOCH.to_ne_bytes());
    }
    // One write is one message.
    if let Err(error) = device.write_all(&message) {
        log::debug!("the kernel was not told of new names: {error}");
    }
}
