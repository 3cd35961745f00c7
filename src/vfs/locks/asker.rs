//! What the kernel tells of the thread that asks for a lock, and the library does not pass on: by which call it asks, and whether
//! a signal has come for it. It waits for the answer meanwhile, so that its number means no other thread.

use std::fs;
use std::io;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::Family;

/// How long a thread that has just asked may take to wait for the answer: on a busy machine, others run first.
const PATIENCE: Duration = Duration::from_millis(20);
const PAUSE: Duration = Duration::from_micros(50);

/// Whose lock a thread asks for by the call that it waits in. [`Family::Either`] if that is not to be known: it takes the
/// right to trace the thread, which security modules may keep from ordinary users.
pub(super) fn family(thread: u32) -> Family {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let call = fs::read_to_string(format!("/proc/{thread}/syscall")).unwrap_or_default();
        if call.trim_end() != "running" {
            return of_call(&call);
        }
        if Instant::now() >= deadline {
            return Family::Either;
        }
        sleep(PAUSE);
    }
}

/// The first word is the number of the call.
fn of_call(call: &str) -> Family {
    match call.split_whitespace().next().and_then(|number| number.parse::<libc::c_long>().ok()) {
        Some(libc::SYS_flock) => Family::Flock,
        Some(libc::SYS_fcntl) => Family::Fcntl,
        _ => Family::Either,
    }
}

/// Whether a signal has come for the thread that it neither blocks nor ignores. To be right: the kernel has a program whose thread
/// was told of none call again only if there is one, and hands it an error that does not exist (512) otherwise.
pub(super) fn is_signalled(thread: u32) -> bool {
    let Some(signals) = Signals::of(&format!("/proc/{thread}/status")) else { return false };
    let shared = signals.shared & !signals.deaf;
    if signals.own & !signals.deaf != 0 {
        return true;
    }
    // One that came for the process is told to a single thread: the first one, unless that is deaf to it.
    shared != 0
        && (signals.threads == 1
            || signals.process == thread
            || all_others_are_deaf(thread, signals.process, shared).unwrap_or(false))
}

fn all_others_are_deaf(thread: u32, process: u32, signals: u64) -> io::Result<bool> {
    for entry in fs::read_dir(format!("/proc/{process}/task"))? {
        let entry = entry?;
        if entry.file_name().to_str() == Some(&thread.to_string()) {
            continue;
        }
        // A thread that has ended meanwhile takes none.
        let other = entry.path().join("status").to_str().and_then(Signals::of);
        if other.is_some_and(|other| !other.ended && signals & !other.deaf != 0) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What has come for a thread, by the numbers of the signals.
#[derive(Debug, Default, PartialEq, Eq)]
struct Signals {
    process: u32,
    /// Threads of that process.
    threads: u32,
    /// For this thread alone; for its process.
    own: u64,
    shared: u64,
    /// What it blocks or ignores.
    deaf: u64,
    ended: bool,
}

impl Signals {
    fn of(path: &str) -> Option<Self> {
        fs::read_to_string(path).ok().map(|text| Self::parse(&text))
    }

    fn parse(status: &str) -> Self {
        let mut signals = Self::default();
        for (name, value) in status.lines().filter_map(|line| line.split_once(':')) {
            let value = value.trim();
            let mask = || u64::from_str_radix(value, 16).unwrap_or(0);
            match name {
                "Tgid" => signals.process = value.parse().unwrap_or(0),
                "Threads" => signals.threads = value.parse().unwrap_or(0),
                "State" => signals.ended = value.starts_with(['Z', 'X']),
                "SigPnd" => signals.own = mask(),
                "ShdPnd" => signals.shared = mask(),
                "SigBlk" | "SigIgn" => signals.deaf |= mask(),
                _ => {}
            }
        }
        signals
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_told_apart() {
        let of = |number: libc::c_long| of_call(&format!("{number} 0x3 0x2 0x0 0x0 0x0 0x0 0x7ffd 0x7f1c\n"));
        assert_eq!(of(libc::SYS_flock), Family::Flock);
        assert_eq!(of(libc::SYS_fcntl), Family::Fcntl);
        assert_eq!(of(libc::SYS_read), Family::Either);
        for unknown in ["", "-1 0x7ffd 0x7f1c\n", "running\n"] {
            assert_eq!(of_call(unknown), Family::Either, "{unknown}");
        }
        assert_eq!(family(0), Family::Either);
    }

    #[test]
    fn signals_are_read() {
        let text = "Name:\tx: y\nState:\tD (disk sleep)\nTgid:\t70\nPid:\t71\nThreads:\t2\nSigQ:\t1/9\n\
                    SigPnd:\t0000000000000001\nShdPnd:\t0000000000004000\nSigBlk:\t0000000000000002\n\
                    SigIgn:\t0000000000001000\nSigCgt:\t00000000ffffffff\n";
        let expected =
            Signals { process: 70, threads: 2, own: 1, shared: 0x4000, deaf: 0x1002, ended: false };
        assert_eq!(Signals::parse(text), expected);
        assert!(Signals::parse("State:\tZ (zombie)\n").ended);
        assert!(!is_signalled(0));
    }
}
