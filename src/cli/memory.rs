//! The allocator of a daemon that lives for weeks.

/// Few arenas: glibc's default is one a thread, each with a high-water mark of its own.
pub fn settle() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: mallopt takes plain numbers; no other thread exists yet.
        unsafe { libc::mallopt(libc::M_ARENA_MAX, 2) };
    }
}
