//! Backing files registered with the kernel, which then reads and writes them itself.

use std::collections::HashMap;
use std::io;
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

    fn nodes(&self) -> MutexGuard<'_, HashMap<Ino, Shared>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
