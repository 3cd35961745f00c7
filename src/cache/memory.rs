//! How much memory there is to be had: a cache that grows past it is refused in words, before the kernel ends the daemon.

use std::path::Path;
use std::time::{Duration, Instant};

use super::{CacheError, Inner, hold};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU64, Ordering};

/// So much is left to everything else.
pub(super) const RESERVE: u64 = 64 << 20;
/// When so many bytes of the log were taken in, it is looked at again.
const OFTEN: u64 = 1 << 20;
/// A log that was too large is not read again before this.
const AGAIN: Duration = Duration::from_secs(10);

/// What was last found out about memory.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Bytes of the log taken in since.
    taken: AtomicU64,
    /// When there was too little, and what for.
    short: Mutex<Option<(Instant, u64, u64)>>,
}

impl Inner {
    /// Refuses to take in more of the log if there is no memory for it.
    pub(super) fn spare_memory(&self) -> Result<(), CacheError> {
        let mut short = hold(&self.memory.short);
        if let Some((_, needed, available)) = short.filter(|(since, ..)| since.elapsed() < AGAIN) {
            return Err(CacheError::Memory { needed, available });
        }
        if short.is_none() && self.memory.taken.load(Ordering::Relaxed) < OFTEN {
            return Ok(());
        }
        self.memory.taken.store(0, Ordering::Relaxed);
        *short = None;
        let available = available();
        if available >= RESERVE {
            return Ok(());
        }
        *short = Some((Instant::now(), RESERVE, available));
        Err(CacheError::Memory { needed: RESERVE, available })
    }

    /// So many bytes of the log were taken in.
    pub(super) fn took(&self, bytes: usize) {
        self.memory.taken.fetch_add(u64::try_from(bytes).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// The log needs more memory than there is.
    pub(super) fn is_short(&self, error: &CacheError) {
        if let CacheError::Memory { needed, available } = *error {
            *hold(&self.memory.short) = Some((Instant::now(), needed, available));
        }
    }
}

/// Bytes that this process may still take: of the machine, of its control group, of its limits.
pub(super) fn available() -> u64 {
    [machine(), group(Path::new("/sys/fs/cgroup")), limits()].into_iter().flatten().min().unwrap_or(u64::MAX)
}

/// Bytes in which this process is resident, but for files.
pub(super) fn resident() -> u64 {
    read(Path::new("/proc/self/status")).and_then(|text| field(&text, "RssAnon:")).unwrap_or(0)
}

/// Gives back to the system what the allocator keeps.
pub(super) fn give_back() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: malloc_trim takes a plain number and locks by itself.
        unsafe { libc::malloc_trim(0) };
    }
}

fn read(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

/// The value of a line `NAME NUMBER kB`, in bytes.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

/// What the whole machine has left, without pushing others out.
fn machine() -> Option<u64> {
    let text = read(Path::new("/proc/meminfo"))?;
    Some(field(&text, "MemAvailable:")?.saturating_add(field(&text, "SwapFree:").unwrap_or(0)))
}

/// How many threads a large piece of work may have. Each takes address space for its stack and its share of the allocator, long
/// before it takes memory: where that is limited, there are none.
pub(super) fn threads(most: usize) -> usize {
    let limited = LIMITS.into_iter().any(|(resource, _)| limit(resource).is_some());
    if limited { 1 } else { std::thread::available_parallelism().map_or(1, usize::from).min(most) }
}

/// The limits of this process, and what counts towards them.
const LIMITS: [(libc::__rlimit_resource_t, &str); 2] =
    [(libc::RLIMIT_AS, "VmSize:"), (libc::RLIMIT_DATA, "VmData:")];

/// A limit of this process, if there is one.
fn limit(resource: libc::__rlimit_resource_t) -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the place for the answer is valid for the call.
    let known = unsafe { libc::getrlimit(resource, &raw mut limit) } == 0;
    (known && limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur)
}

/// What is left of the limits of this process.
fn limits() -> Option<u64> {
    let text = read(Path::new("/proc/self/status"))?;
    let left = |(resource, name)| Some(limit(resource)?.saturating_sub(field(&text, name).unwrap_or(0)));
    LIMITS.into_iter().filter_map(left).min()
}

/// What is left to the control groups of this process, of either version.
fn group(root: &Path) -> Option<u64> {
    read(Path::new("/proc/self/cgroup"))?.lines().filter_map(|line| group_of(root, line)).min()
}

/// What is left to the group of one line of `/proc/PID/cgroup`, `NUMBER:CONTROLLERS:PATH`, and to those that it is in.
fn group_of(root: &Path, line: &str) -> Option<u64> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (controllers, path) = (fields.next()?, fields.next()?);
    let (root, limit, usage, cached) = match controllers {
        "" => (root.to_owned(), "memory.max", "memory.current", "inactive_file "),
        "memory" => {
            (root.join("memory"), "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file ")
        }
        _ => return None,
    };
    let number = |path: &Path| read(path)?.trim().parse::<u64>().ok();
    let groups = root.join(path.trim_start_matches('/'));
    let left = |group: &Path| {
        // Not a number: no limit.
        let limit = number(&group.join(limit))?;
        let stat = read(&group.join("memory.stat")).unwrap_or_default();
        let cached = stat.lines().find_map(|line| line.strip_prefix(cached)?.trim().parse::<u64>().ok());
        // What is cached of files goes when memory is wanted.
        Some(limit.saturating_sub(number(&group.join(usage))?.saturating_sub(cached.unwrap_or(0))))
    };
    groups.ancestors().take_while(|group| group.starts_with(&root)).filter_map(left).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_tells() {
        assert!(machine().unwrap() > 1 << 20);
        assert!(available() <= machine().unwrap() + (1 << 30));
        assert!(resident() > 0);
    }

    #[test]
    fn the_narrowest_group_counts() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let write = |path: &str, text: &str| {
            std::fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
            std::fs::write(root.join(path), text).unwrap();
        };
        assert_eq!(group_of(root, "0::/job/step"), None);
        write("job/memory.max", "1000\n");
        write("job/memory.current", "700\n");
        write("job/memory.stat", "anon 1\ninactive_file 200\n");
        write("job/step/memory.max", "max\n");
        write("job/step/memory.current", "600\n");
        assert_eq!(group_of(root, "0::/job/step"), Some(500));
        assert_eq!(group_of(root, "0::/"), None);
        write("memory/old/memory.limit_in_bytes", "300\n");
        write("memory/old/memory.usage_in_bytes", "100\n");
        write("memory/old/memory.stat", "total_inactive_file 50\n");
        assert_eq!(group_of(root, "4:memory:/old"), Some(250));
        assert_eq!(group_of(root, "5:cpu:/old"), None);
    }
}
