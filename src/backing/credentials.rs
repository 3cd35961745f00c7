//! The credentials and the umask of a call: those of the caller, for this thread alone.
//!
//! Linux keeps credentials per thread; libc's wrappers change them for all threads, so the raw calls are used. The file
//! system ids (`fsuid`, `fsgid`) suffice: permissions, ownership of new files and the capabilities over files
//! follow them, while the daemon keeps its others. The umask belongs to a thread once `unshare(CLONE_FS)` has parted it.

use std::cell::Cell;
use std::io;
use std::marker::PhantomData;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The thread acts as somebody else until this is dropped.
#[derive(Debug)]
pub struct Impersonation {
    uid: bool,
    gid: bool,
    groups: bool,
    /// Credentials belong to the thread.
    _thread: PhantomData<*const ()>,
}

/// Acts as this user and group, with the supplementary groups of the process `pid`.
///
/// For root only the group is taken on. Without a process (`pid` 0, or it has ended) there are no supplementary groups:
/// fewer rights than the caller has, never more than its groups give.
pub fn impersonate(uid: u32, gid: u32, pid: u32) -> io::Result<Impersonation> {
    let mut taken = Impersonation { uid: false, gid: false, groups: false, _thread: PhantomData };
    if uid != 0 {
        let groups = supplementary_groups(pid);
        taken.groups = true;
        set_groups(&groups)?;
    }
    if gid != 0 {
        taken.gid = true;
        set_fsgid(gid)?;
    }
    if uid != 0 {
        taken.uid = true;
        set_fsuid(uid)?;
    }
    Ok(taken)
}

/// The thread is without some of the daemon's capabilities until this is dropped.
#[derive(Debug)]
pub struct Deprived {
    before: [CapabilityData; 2],
    _thread: PhantomData<*const ()>,
}

/// As the kernel has it for `capget` and `capset`, version 3.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct CapabilityData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: i32,
}

const CAPABILITY_VERSION: u32 = 0x2008_0522;

/// For writing on behalf of an ordinary user: without the rights to leave set-user-id bits in place and to exceed
/// quotas and reserved space. Does nothing if the process is not root's.
pub fn without_privileges() -> Option<Deprived> {
    const FSETID: u32 = 1 << 4;
    const SYS_RESOURCE: u32 = 1 << 24;
    if !is_root() {
        return None;
    }
    let header = CapabilityHeader { version: CAPABILITY_VERSION, pid: 0 };
    let mut before = [CapabilityData::default(); 2];
    // SAFETY: a header and two elements, as version 3 has it; 0 is the calling thread.
    if unsafe { libc::syscall(libc::SYS_capget, &raw const header, before.as_mut_ptr()) } != 0 {
        return None;
    }
    let [first, second] = before;
    let less = CapabilityData { effective: first.effective & !(FSETID | SYS_RESOURCE), ..first };
    set_capabilities(&[less, second]).ok()?;
    Some(Deprived { before, _thread: PhantomData })
}

fn set_capabilities(data: &[CapabilityData; 2]) -> io::Result<()> {
    let header = CapabilityHeader { version: CAPABILITY_VERSION, pid: 0 };
    // SAFETY: as for capget; the call changes this thread alone.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

impl Drop for Deprived {
    fn drop(&mut self) {
        if let Err(error) = set_capabilities(&self.before) {
            log::error!("cannot take back the daemon's own capabilities: {error}");
        }
    }
}

/// Whether the process is root's.
pub fn is_root() -> bool {
    // SAFETY: has no arguments and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

impl Drop for Impersonation {
    fn drop(&mut self) {
        // In reverse: with the user's id the rights come back that the others need.
        let mut result = Ok(());
        if self.uid {
            result = set_fsuid(0);
        }
        if self.gid {
            result = result.and(set_fsgid(0));
        }
        if self.groups {
            result = result.and(set_groups(&[]));
        }
        if let Err(error) = result {
            log::error!("cannot take back the daemon's own credentials: {error}");
        }
    }
}

fn set_fsuid(uid: u32) -> io::Result<()> {
    // SAFETY: plain numbers. The call cannot fail visibly: a second one with an invalid id tells the present id.
    let now = unsafe {
        libc::syscall(libc::SYS_setfsuid, uid);
        libc::syscall(libc::SYS_setfsuid, u32::MAX)
    };
    if u32::try_from(now).is_ok_and(|now| now == uid) {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(libc::EPERM))
    }
}

fn set_fsgid(gid: u32) -> io::Result<()> {
    // SAFETY: as for the user.
    let now = unsafe {
        libc::syscall(libc::SYS_setfsgid, gid);
        libc::syscall(libc::SYS_setfsgid, u32::MAX)
    };
    if u32::try_from(now).is_ok_and(|now| now == gid) {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(libc::EPERM))
    }
}

fn set_groups(groups: &[u32]) -> io::Result<()> {
    // SAFETY: pointer and length are those of the slice; the raw call changes this thread alone.
    let result = unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn supplementary_groups(pid: u32) -> Vec<u32> {
    if pid == 0 {
        return Vec::new();
    }
    let Ok(status) = std::fs::read(format!("/proc/{pid}/status")) else { return Vec::new() };
    parse_groups(&status)
}

fn parse_groups(status: &[u8]) -> Vec<u32> {
    let line = status.split(|&b| b == b'\n').find_map(|line| line.strip_prefix(b"Groups:"));
    let text = line.and_then(|line| std::str::from_utf8(line).ok()).unwrap_or_default();
    text.split_ascii_whitespace().filter_map(|group| group.parse().ok()).collect()
}

/// The thread's umask is another one until this is dropped.
#[derive(Debug)]
pub struct Umask {
    before: libc::mode_t,
    /// Where threads cannot have their own umask, the process has this one for one call at a time.
    _shared: Option<MutexGuard<'static, ()>>,
    _thread: PhantomData<*const ()>,
}

static SHARED_UMASK: Mutex<()> = Mutex::new(());

thread_local! {
    /// Whether this thread has parted its umask (and working directory) from the others'; unknown at first.
    static OWN_UMASK: Cell<Option<bool>> = const { Cell::new(None) };
}

/// Sets the umask for the calls that follow on this thread. The backing file system applies it exactly as for the caller
/// itself: not at all where a default ACL stands in its place.
pub fn umask(mask: u32) -> Umask {
    let own = OWN_UMASK.get().unwrap_or_else(|| {
        // SAFETY: plain flags; affects only what this thread shares.
        let own = unsafe { libc::unshare(libc::CLONE_FS) } == 0;
        OWN_UMASK.set(Some(own));
        own
    });
    let shared = if own { None } else { Some(SHARED_UMASK.lock().unwrap_or_else(PoisonError::into_inner)) };
    // SAFETY: cannot fail.
    let before = unsafe { libc::umask(mask & 0o777) };
    Umask { before, _shared: shared, _thread: PhantomData }
}

impl Drop for Umask {
    fn drop(&mut self) {
        // SAFETY: cannot fail.
        unsafe { libc::umask(self.before) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_of_a_status_file() {
        assert_eq!(parse_groups(b"Name:\tsh\nGroups:\t4 24 1000 \nNStgid:\t7\n"), [4, 24, 1000]);
        assert_eq!(parse_groups(b"Name:\tsh\nGroups:\t \n"), [0; 0]);
        assert_eq!(parse_groups(b""), [0; 0]);
    }

    #[test]
    fn a_umask_belongs_to_its_thread() {
        // A thread inherits the umask of the one that starts it, so the other one is there first.
        let (go, wait) = std::sync::mpsc::channel();
        let other = std::thread::spawn(move || {
            wait.recv().unwrap();
            umask(0o777).before
        });
        let held = umask(0o027);
        go.send(()).unwrap();
        if OWN_UMASK.get() == Some(true) {
            assert_ne!(other.join().unwrap(), 0o027, "another thread sees this one's umask");
        }
        drop(held);
    }
}
