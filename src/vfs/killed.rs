//! Whether who closes a file was killed: the kernel closes what is open then, and does not say why.

use std::fs;

/// Flag of a thread that is ending.
const PF_EXITING: u64 = 4;

/// Whether a thread is ending by a signal. It waits for the answer to its close meanwhile, so that its number means no other
/// thread. `false` where that is not to be known: of other users' processes to an ordinary user, of another namespace's.
pub(super) fn is_killed(thread: u32) -> bool {
    // A thread closes files also when it executes a program, and until we have answered the kernel (6.18) then lets nobody read
    // its `stat`, `exe`, and others. This can be read: a thread that is ending has no memory any more, that goes before the files.
    fs::read_to_string(format!("/proc/{thread}/statm")).is_ok_and(|statm| says_ending(&statm))
        && fs::read_to_string(format!("/proc/{thread}/stat")).is_ok_and(|stat| says_killed(&stat))
}

/// Reads the line: all sizes of memory are 0.
fn says_ending(statm: &str) -> bool {
    statm.split_ascii_whitespace().all(|pages| pages == "0")
}

/// Reads the line: flags are the 9th field, the exit code is the 52nd. The 2nd, in parentheses, may hold anything.
fn says_killed(stat: &str) -> bool {
    let Some((_, fields)) = stat.rsplit_once(") ") else { return false };
    let mut fields = fields.split_ascii_whitespace();
    let flags = fields.nth(6).and_then(|flags| flags.parse::<u64>().ok()).unwrap_or(0);
    let code = fields.nth(42).and_then(|code| code.parse::<u32>().ok()).unwrap_or(0);
    flags & PF_EXITING != 0 && code & 0x7f != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(flags: u32, code: u32) -> String {
        let between = "0 ".repeat(42);
        format!("7 (a) b c) D 1 7 7 0 -1 {flags} {between}{code}\n")
    }

    #[test]
    fn only_who_ends_by_a_signal_is_killed() {
        assert!(says_killed(&line(0x40_0004, 9)));
        assert!(says_killed(&line(0x40_0004, 0x0b | 0x80)), "with a core");
        assert!(!says_killed(&line(0x40_0004, 0)), "exit");
        assert!(!says_killed(&line(0x40_0004, 9 << 8)), "exit with a status");
        assert!(!says_killed(&line(0x40_0000, 9)), "lives");
        assert!(!says_killed(""));
        let own = fs::read_to_string("/proc/self/stat").unwrap();
        assert_eq!(own.rsplit_once(") ").unwrap().1.split_ascii_whitespace().count(), 50);
    }

    #[test]
    fn only_who_has_no_memory_is_ending() {
        assert!(says_ending("0 0 0 0 0 0 0\n"));
        assert!(!says_ending("1 1 0 0 0 1 0\n"), "executes a program");
        assert!(!says_ending(&fs::read_to_string("/proc/self/statm").unwrap()));
    }

    #[test]
    fn who_lives_and_who_is_not_there_is_not_killed() {
        assert!(!is_killed(std::process::id()));
        assert!(!is_killed(0));
    }
}
