//! Backing files registered with the kernel, which then reads and writes them itself.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fuser::BackingId;

use crate::vfs::Ino;

/// The registered backing files, by node.
///
/// The kernel wants all opens of a node to be alike: all with the same registration, or all without. So the first open
/// decides, and its decision stands until the last one is closed.
#[derive(Debug)]
pub(super) struct Backings {
    enabled: AtomicBool,
    nodes: Mutex<HashMap<Ino, Shared>>,
}

#[derive(Debug)]
struct Shared {
    id: Option<Arc<BackingId>>,
    opens: u64,
}

impl Backings {
    pub fn new(enabled: bool) -> Self {
        Self { enabled: AtomicBool::new(enabled), nodes: Mutex::default() }
    }

    pub fn is_enabled(&self) -> bool {
        self.enabled.load(Ordering::Relaxed)
    }

    pub fn disable(&self) {
        self.enabled.store(false, Ordering::Relaxed);
    }

    /// Counts an open, and gives the registration for it. Once the kernel has refused one, there are no further tries.
    pub fn opened(
        &self,
        ino: Ino,
        register: impl FnOnce() -> io::Result<BackingId>,
    ) -> Option<Arc<BackingId>> {
        let mut nodes = self.nodes();
        if let Some(shared) = nodes.get_mut(&ino) {
            shared.opens += 1;
            return shared.id.clone();
        }
        let id = if self.is_enabled() {
            register().inspect_err(|error| {
                log::info!("the kernel does not serve data of this cache itself: {error}");
                self.disable();
            })
        } else {
            Err(io::ErrorKind::Unsupported.into())
        };
        let id = id.ok().map(Arc::new);
        nodes.insert(ino, Shared { id: id.clone(), opens: 1 });
        id
    }

    /// Counts the end of an open.
    pub fn released(&self, ino: Ino) {
        let mut nodes = self.nodes();
        let Some(shared) = nodes.get_mut(&ino) else { return };
        shared.opens = shared.opens.saturating_sub(1);
        let last = if shared.opens == 0 { nodes.remove(&ino) } else { None };
        drop(nodes);
        drop(last);
    }

    /// Asks the kernel once whether it would, with any file of the cache.
    pub fn probe(&self, device: BorrowedFd<'_>, file: &Path) {
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(file);
        // Without a file there is nothing to ask with: the first open tells.
        let Ok(file) = file else { return };
        if let Err(error) = register_and_forget(device, file.as_fd()) {
            log::info!("the kernel does not serve data of this cache itself: {error}");
            self.disable();
        }
    }

    fn nodes(&self) -> MutexGuard<'_, HashMap<Ino, Shared>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Registers a backing file and takes it back.
fn register_and_forget(device: BorrowedFd<'_>, file: BorrowedFd<'_>) -> io::Result<()> {
    /// `_IOW(229, 1, struct fuse_backing_map)`, `_IOW(229, 2, uint32_t)`
    const OPEN: libc::Ioctl = 0x4010_e501;
    const CLOSE: libc::Ioctl = 0x4004_e502;
    /// `struct fuse_backing_map`
    #[repr(C)]
    struct Map {
        fd: i32,
        flags: u32,
        padding: u64,
    }
    let map = Map { fd: file.as_raw_fd(), flags: 0, padding: 0 };
    // SAFETY: the kernel reads a struct of this layout, which outlives the call.
    let id = unsafe { libc::ioctl(device.as_raw_fd(), OPEN, &raw const map) };
    let id = u32::try_from(id).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: the kernel reads a number of this size, which outlives the call.
    unsafe { libc::ioctl(device.as_raw_fd(), CLOSE, &raw const id) };
    Ok(())
}
