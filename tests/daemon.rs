//! The life of a mount: into the background, live when the command comes back, a clean end, plain messages.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use common::{Cache, binary, run};

const LONG: Duration = Duration::from_secs(60);

/// A mount point whose mount ends with the test.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let dir = common::scratch();
        std::fs::create_dir(dir.path().join("mnt")).unwrap();
        Self { dir }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().canonicalize().unwrap().join("mnt")
    }

    fn mount(&self, cache: &Path, more: &[&str]) -> common::Finished {
        let mut command = Command::new(binary());
        command.args(["mount", "--log"]).arg(self.log()).arg(cache).arg(self.path()).args(more);
        run(&mut command)
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    fn umount(&self, more: &[&str]) -> common::Finished {
        run(Command::new(binary()).arg("umount").args(more).arg(self.path()))
    }

    fn pid(&self) -> i32 {
        let status: serde_json::Value =
            serde_json::from_str(&common::read(self.path().join(".status"))).unwrap();
        i32::try_from(status["pid"].as_i64().unwrap()).unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if common::mountinfo(&self.path()).is_some() {
            let _ = Command::new("umount").arg("-l").arg(self.path()).output();
        }
    }
}

/// One that nobody has waited for has ended all the same.
fn is_alive(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit(')').next().is_some_and(|rest| !rest.trim_start().starts_with('Z')))
}

fn ends(pid: i32) {
    common::poll("the end of the daemon", LONG, || (!is_alive(pid)).then_some(()));
}

#[test]
fn umount_comes_back_when_the_daemon_is_gone() {
    let cache = Cache::new();
    let place = Place::new();
    place.mount(cache.path(), &[]).ok();
    let pid = place.pid();
    place.umount(&[]).ok();
    assert!(!is_alive(pid));
    assert!(common::read(place.log()).contains("everything is synced"), "{}", common::read(place.log()));
}

#[test]
fn the_daemon_holds_nothing_of_whoever_started_it() {
    let cache = Cache::new();
    let place = Place::new();
    // `run` reads standard output and error to their ends: a daemon that held them would make it wait.
    let script = format!(
        "exec 9>lock; '{}' mount --log '{}' '{}' '{}'",
        binary().display(),
        place.log().display(),
        cache.path().display(),
        place.path().display()
    );
    run(common::bash(place.dir.path(), &script).env("A", "b")).ok();
    let held: Vec<PathBuf> = std::fs::read_dir(format!("/proc/{}/fd", place.pid()))
        .unwrap()
        .filter_map(|fd| std::fs::read_link(fd.unwrap().path()).ok())
        .collect();
    assert!(!held.contains(&place.dir.path().join("lock")), "{held:?}");
    let cwd = std::fs::read_link(format!("/proc/{}/cwd", place.pid())).unwrap();
    assert_eq!(cwd, Path::new("/"), "it keeps no directory busy");
    place.umount(&[]).ok();
}

#[test]
fn a_signal_ends_a_mount_that_is_in_use() {
    let cache = Cache::new();
    cache.add("e1", 1.0, "");
    let place = Place::new();
    place.mount(cache.path(), &[]).ok();
    let pid = place.pid();
    let held = std::fs::File::open(place.path().join("entries/e1")).unwrap();
    assert!(place.umount(&[]).fails().contains("in use"));
    assert!(is_alive(pid));
    // SAFETY: the daemon of this test; plain numbers.
    unsafe { libc::kill(pid, libc::SIGTERM) };
    ends(pid);
    assert!(common::mountinfo(&place.path()).is_none());
    drop(held);
}

#[test]
fn the_next_mount_takes_away_what_a_killed_daemon_left() {
    let cache = Cache::new();
    cache.add("e1", 1.0, "");
    let place = Place::new();
    place.mount(cache.path(), &[]).ok();
    let pid = place.pid();
    // SAFETY: the daemon of this test; plain numbers.
    unsafe { libc::kill(pid, libc::SIGKILL) };
    common::poll("a dead mount", LONG, || std::fs::metadata(place.path()).is_err().then_some(()));
    let status = run(Command::new(binary()).arg("status")).ok();
    assert!(status.contains("dead"), "{status}");
    assert!(place.mount(cache.path(), &[]).fails_not().contains("killed daemon"));
    assert_eq!(common::ls(place.path().join("entries")), ["e1"]);
    place.umount(&[]).ok();
}

trait FailsNot {
    /// What it complained of, though it succeeded.
    fn fails_not(self) -> String;
}

impl FailsNot for common::Finished {
    fn fails_not(self) -> String {
        assert!(self.status.success(), "{}", self.stderr);
        self.stderr
    }
}

#[test]
fn what_fails_in_the_daemon_is_told_by_the_command() {
    let cache = Cache::new();
    let place = Place::new();
    let message = place.mount(cache.path(), &["-o", "no_such_option_at_all"]).fails();
    assert!(message.contains(place.path().to_str().unwrap()), "{message}");
    std::fs::create_dir(cache.join("_entries")).unwrap();
    let message = place.mount(cache.path(), &[]).fails();
    assert!(message.contains("_entries"), "{message}");
    assert!(common::mountinfo(&place.path()).is_none());
    assert!(place.umount(&[]).fails().contains("no cache is mounted"));
}

#[test]
fn a_cache_that_cannot_be_written_to_is_mounted_read_only_or_not_at_all() {
    let user = common::User::ordinary();
    let cache = Cache::new();
    cache.add("e1", 1.0, r#""lr": 0.1"#);
    let place = Place::new();
    user.own(place.dir.path());
    user.own(&place.path());
    let program = user.binary(place.dir.path());
    let mount = |more: &[&str]| {
        let mut command = Command::new(&program);
        command.args(["mount", "--log"]).arg(place.log()).arg(cache.path()).arg(place.path()).args(more);
        run(&mut user.wrap(&command))
    };
    assert!(mount(&[]).fails().contains("-o ro"));
    mount(&["-o", "ro"]).ok();
    let mut read = Command::new("cat");
    read.arg(place.path().join("entries/e1/.attrs/lr"));
    assert_eq!(run(&mut user.wrap(&read)).ok(), "0.1\n");
    let mut command = Command::new(&program);
    command.arg("umount").arg(place.path());
    run(&mut user.wrap(&command)).ok();
}
