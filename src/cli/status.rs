//! `umount` and `status`.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use super::args::{StatusArgs, UmountArgs};
use super::failure::{self, Result, error};
use super::mounts;
use super::output::{Out, printable, string};
use crate::value::{Object, Text, Value};

/// `cachedirfs umount`.
pub fn umount(args: &UmountArgs) -> Result<()> {
    let path = mounts::absolute(&args.mountpoint)
        .map_err(|e| failure::io("look at", args.mountpoint.display(), &e))?;
    let place = path.display();
    if !mounts::is_mounted(&path) {
        return Err(error(format!("no cache is mounted on {place}")).hint("`cachedirfs status` lists them"));
    }
    if mounts::is_dead(&path) {
        return mounts::unmount(&path, true);
    }
    // Taken before the unmount: afterwards nobody could ask, and the number might be another process's.
    let status = mounts::status(&path);
    let daemon = status.as_ref().and_then(|status| mounts::number(status, "pid")).and_then(process);
    mounts::unmount(&path, args.lazy)?;
    match daemon {
        Some(daemon) if !args.lazy && !ends_within(&daemon, args.timeout) => {
            Err(error(format!("{place} is unmounted, but its daemon has not ended after {} s", args.timeout))
                .hint(
                    "it is still writing, or waits for the cache's file system, as its log tells; or a container or another \
                     mount namespace that was made meanwhile still has the mount, until that ends",
                ))
        }
        _ => Ok(()),
    }
}

/// A descriptor of a process, which stays that process's.
pub fn process(pid: i64) -> Option<OwnedFd> {
    let pid = libc::pid_t::try_from(pid).ok()?;
    // SAFETY: pidfd_open takes plain numbers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = i32::try_from(fd).ok().filter(|&fd| fd >= 0)?;
    // SAFETY: the kernel has just given this descriptor to us alone.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn ends_within(process: &OwnedFd, seconds: f64) -> bool {
    let deadline =
        std::time::Instant::now() + Duration::try_from_secs_f64(seconds).unwrap_or(Duration::from_secs(60));
    loop {
        let left = deadline.saturating_duration_since(std::time::Instant::now());
        let mut poll = libc::pollfd { fd: process.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let wait = i32::try_from(left.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: one valid pollfd for the length of the call.
        match unsafe { libc::poll(&raw mut poll, 1, wait) } {
            0 => return false,
            -1 if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
            _ => return true,
        }
    }
}

/// `cachedirfs status`.
pub fn status(args: &StatusArgs) -> Result<()> {
    let mut out = Out::stdout();
    if let Some(mountpoint) = &args.mountpoint {
        let path =
            mounts::absolute(mountpoint).map_err(|e| failure::io("look at", mountpoint.display(), &e))?;
        let object = ask(&path)?;
        if args.json {
            out.object(&object)?;
        } else {
            let rows: Vec<_> = object
                .iter()
                .map(|(name, value)| vec![name.as_str().unwrap_or("?").replace('_', " "), value.to_text()])
                .collect();
            out.columns(&rows)?;
        }
        return out.finish();
    }
    let all = mounts::all().map_err(|e| failure::io("read", "/proc/self/mountinfo", &e))?;
    let mut rows = vec![["MOUNT POINT", "CACHE", "ENTRIES", "STATE"].map(str::to_owned).to_vec()];
    for path in &all {
        let answer = ask(path);
        if args.json {
            out.object(&answer.unwrap_or_else(|_| silent(path)))?;
            continue;
        }
        let cell = |name: &str| {
            answer
                .as_ref()
                .ok()
                .and_then(|status| status.get(name))
                .map_or_else(|| "?".to_owned(), Value::to_text)
        };
        rows.push(vec![
            path.display().to_string(),
            cell("cache"),
            cell("entries"),
            state(path, answer.as_ref().ok()),
        ]);
    }
    if !args.json {
        if all.is_empty() {
            out.note("no cache is mounted");
        } else {
            out.columns(&rows)?;
        }
    }
    out.finish()
}

fn ask(path: &Path) -> Result<Object<'static>> {
    mounts::status(path).ok_or_else(|| {
        let place = path.display();
        if mounts::is_dead(path) {
            error(format!("the daemon of {place} is gone"))
                .hint(format!("`cachedirfs umount {place}` takes the mount away; mounting again does too"))
        } else if mounts::is_mounted(path) {
            error(format!("the daemon of {place} does not answer"))
        } else {
            error(format!("no cache is mounted on {place}")).hint("`cachedirfs status` lists the mounts")
        }
    })
}

fn silent(path: &Path) -> Object<'static> {
    let mut object = Object::new();
    object.insert(Text::from_str("mountpoint"), string(path.to_string_lossy()));
    let state = if mounts::is_dead(path) { "dead" } else { "no answer" };
    object.insert(Text::from_str("state"), string(state));
    object
}

/// One word or two on how a mount is doing.
fn state(path: &Path, status: Option<&Object<'_>>) -> String {
    let Some(status) = status else {
        return if mounts::is_dead(path) { "dead" } else { "no answer" }.to_owned();
    };
    let is = |name| matches!(status.get(name), Some(Value::Bool(true)));
    let text = |name| match status.get(name) {
        Some(Value::String(text)) => text.as_str(),
        _ => None,
    };
    let mut state = if is("poisoned") {
        "refuses changes: a sync failed".to_owned()
    } else if let Some(what) = text("waiting") {
        let seconds = match status.get("waiting_seconds") {
            Some(seconds) => seconds.to_text(),
            None => "?".to_owned(),
        };
        let seconds = seconds.split('.').next().unwrap_or("?");
        let holder =
            text("waiting_for").map_or(String::new(), |holder| format!(", held by {}", printable(holder)));
        format!("has been waiting for {}{holder}, for {seconds} s", printable(what))
    } else if let Some(trouble) = text("trouble") {
        format!("shows an earlier state: {}", printable(trouble))
    } else {
        "live".to_owned()
    };
    if is("read_only") {
        state += ", read-only";
    }
    if let Some(malformed @ 1..) = mounts::number(status, "malformed") {
        let lines = if malformed == 1 { "line" } else { "lines" };
        return format!("{state}, {malformed} malformed {lines}");
    }
    state
}
