//! Who holds the lock, as far as this machine knows.

use std::os::fd::AsFd as _;

use super::{LOCK, Store, sys};

/// The process that holds the lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its number.
    pub pid: u32,
    /// Its name, if it is still there: a lock outlives who took it in those who inherited the file.
    pub name: Option<String>,
    /// Whether it was stopped, by a signal or a debugger.
    pub stopped: bool,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "process {}", self.pid)?;
        match (&self.name, self.stopped) {
            (Some(name), true) => write!(f, " ({name}, stopped)"),
            (Some(name), false) => write!(f, " ({name})"),
            (None, _) => f.write_str(" (which has ended)"),
        }
    }
}

impl Store {
    /// Who holds the lock; `None`: nobody, a process on another node or in another container, or the kernel does not tell.
    pub fn holder(&self) -> Option<Holder> {
        let id = sys::Sys::stat(&sys::Real, self.dir.as_fd(), LOCK).ok()?.id;
        let pid = holder(&std::fs::read_to_string("/proc/locks").ok()?, &id)?;
        // Not `stat`: the kernel (6.18) keeps it from being read while the process executes another program, which may wait for us.
        let status = std::fs::read(format!("/proc/{pid}/status")).unwrap_or_default();
        let status = String::from_utf8_lossy(&status);
        let field = |name| status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
        let name = field("Name").map(|name| name.replace(char::is_control, "?"));
        let stopped = field("State").is_some_and(|state| state.starts_with(['T', 't']));
        Some(Holder { pid, name, stopped })
    }
}

/// The process of the flock on a file, in the kernel's list: `1: FLOCK  ADVISORY  WRITE 708 fe:00:262146 0 EOF`; those who wait
/// have an arrow.
fn holder(locks: &str, id: &sys::FileId) -> Option<u32> {
    let mut found = None;
    for line in locks.lines() {
        let mut fields = line.split_whitespace().skip(1);
        let (Some("FLOCK"), Some(_), Some("WRITE"), Some(pid), Some(file)) =
            (fields.next(), fields.next(), fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let Some(pid) = pid.parse().ok().filter(|&pid| pid > 0) else { continue };
        match id.is_listed_as(file) {
            Some(true) => return Some(pid),
            // Some file systems (btrfs, overlayfs) show one device here and another one to stat.
            Some(false) => found = Some(pid),
            None => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_list_is_understood() {
        let id = sys::FileId::new(libc::makedev(0xfe, 0), 262_146);
        let list = "\
1: POSIX  ADVISORY  WRITE 11 fe:00:262146 0 EOF
2: FLOCK  ADVISORY  WRITE 12 fe:00:262147 0 EOF
3: FLOCK  ADVISORY  WRITE 708 fe:00:262146 0 EOF
3: -> FLOCK  ADVISORY  WRITE 709 fe:00:262146 0 EOF
4: FLOCK  ADVISORY  READ 13 fe:00:262146 0 EOF
";
        assert_eq!(holder(list, &id), Some(708));
        assert_eq!(holder("1: FLOCK  ADVISORY  WRITE 0 fe:00:262146 0 EOF\n", &id), None, "elsewhere");
        assert_eq!(holder("1: FLOCK  ADVISORY  WRITE 5 00:2a:262146 0 EOF\n", &id), Some(5));
        assert_eq!(holder("garbage\n\n1: FLOCK\n", &id), None);
    }

    #[test]
    fn we_are_found_ourselves() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), &crate::store::Options::default()).unwrap();
        assert_eq!(store.holder(), None);
        let held = store.lock().unwrap();
        let holder = store.holder().unwrap();
        assert_eq!((holder.pid, holder.stopped), (std::process::id(), false));
        assert!(holder.to_string().starts_with(&format!("process {} (", std::process::id())));
        drop(held);
        assert_eq!(store.holder(), None);
    }
}
