//! What the kernel tells of the thread that asks for a lock, and the library does not pass on: by which call it asks, and whether
//! a signal has come for it. It waits for the answer meanwhile, so that its number means no other thread.

use std::fs;
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

/// Whether a signal has come that the thread neither blocks nor ignores.
pub(super) fn is_signalled(thread: u32) -> bool {
    fs::read_to_string(format!("/proc/{thread}/status")).is_ok_and(|status| has_signal(&status))
}

fn has_signal(status: &str) -> bool {
    let mask = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
    };
    (mask("SigPnd") | mask("ShdPnd")) & !mask("SigBlk") & !mask("SigIgn") != 0
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
    fn signals_count_that_come_through() {
        let status = |pending: &str, shared: &str, blocked: &str, ignored: &str| {
            format!(
                "Name:\tx\nSigQ:\t1/9\nSigPnd:\t{pending}\nShdPnd:\t{shared}\nSigBlk:\t{blocked}\nSigIgn:\t{ignored}\n"
            )
        };
        let none = "0000000000000000";
        let term = "0000000000004000";
        assert!(!has_signal(&status(none, none, term, none)));
        assert!(has_signal(&status(term, none, none, none)));
        assert!(has_signal(&status(none, term, none, term.replace('4', "2").as_str())));
        assert!(!has_signal(&status(none, term, term, none)));
        assert!(!has_signal(&status(term, none, none, term)));
        assert!(!has_signal(""));
        assert!(!is_signalled(0));
    }
}
