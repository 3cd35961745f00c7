//! The allocator of a daemon that lives for weeks.

/// Few arenas, and freed memory goes back: glibc's defaults keep one arena a thread, each with its own high-water mark.
pub fn settle() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: mallopt takes plain numbers; no other thread exists yet.
        unsafe {
            libc::mallopt(libc::M_ARENA_MAX, 2);
            libc::mallopt(libc::M_TRIM_THRESHOLD, 1 << 20);
        }
    }
}
