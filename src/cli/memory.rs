//! The allocator of a daemon that lives for weeks.

use std::time::Duration;

/// How often [`Tender::tend`] is worth calling.
pub const OFTEN: Duration = Duration::from_secs(20);
/// So many KiB more than after the last time are worth the walk through what is free, which takes longer in a large heap...
const WORTH: u64 = 1 << 10;
/// ... of which it must be this part.
const PART: u64 = 32;

/// Few arenas: glibc's default is one a thread, each with a high-water mark of its own.
pub fn settle() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: mallopt takes plain numbers; no other thread exists yet.
        unsafe { libc::mallopt(libc::M_ARENA_MAX, 2) };
    }
}

/// Gives back what is free now and then: glibc keeps what was freed below anything that is still in use, such as what a large
/// log took on its way into the index.
#[derive(Debug, Default)]
pub struct Tender {
    kept: u64,
}

impl Tender {
    /// Gives back what is free, if there may be much.
    pub fn tend(&mut self) {
        #[cfg(target_env = "gnu")]
        if resident() > self.kept + WORTH.max(self.kept / PART) {
            // SAFETY: malloc_trim takes a plain number and locks by itself.
            unsafe { libc::malloc_trim(0) };
            self.kept = resident();
        }
    }
}

/// Resident memory, in KiB; 0 if nobody tells.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
