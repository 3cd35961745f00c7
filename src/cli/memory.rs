//! The allocator of a daemon that lives for weeks.

use std::time::Duration;

/// How often [`Tender::tend`] is worth calling.
pub const OFTEN: Duration = Duration::from_secs(20);
/// Who has worked for so long since the last time may have freed much.
const WORK: Duration = Duration::from_millis(50);

/// Few arenas: glibc's default is one a thread, each with a high-water mark of its own.
pub fn settle() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: mallopt takes plain numbers; no other thread exists yet.
        unsafe { libc::mallopt(libc::M_ARENA_MAX, 2) };
    }
}

/// Gives back what is free now and then: glibc keeps what was freed below anything that is still in use, such as what a large
/// log took on its way into the index. How much that is cannot be seen from outside: what is free may have been resident all along.
#[derive(Debug, Default)]
pub struct Tender {
    worked: Duration,
}

impl Tender {
    /// Gives back what is free, if there may be much.
    pub fn tend(&mut self) {
        #[cfg(target_env = "gnu")]
        if work() > self.worked + WORK {
            // SAFETY: malloc_trim takes a plain number and locks by itself.
            unsafe { libc::malloc_trim(0) };
            self.worked = work();
        }
    }
}

/// The processor time of this process.
#[cfg(target_env = "gnu")]
fn work() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the place for the answer is valid. If there is none it stays zero.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    let nanos = u32::try_from(time.tv_nsec).unwrap_or_default();
    Duration::new(u64::try_from(time.tv_sec).unwrap_or_default(), nanos)
}
