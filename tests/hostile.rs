//! Hostile timing and hostile hands: daemons killed or stopped at any moment, clocks that jump, files of the cache that
//! become something else. The daemon lives, says what is wrong, and loses nothing that it acknowledged.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use common::{
    Cache, Disk, Mount, Options, Random, Tracer, User, amount, binary, errno, ls, poll, put, run, seed, start,
};

const SOON: Duration = Duration::from_secs(20);

fn signal(pid: i32, number: i32) {
    // SAFETY: a daemon of this test; plain numbers.
    assert_eq!(unsafe { libc::kill(pid, number) }, 0);
}

fn fifo(path: &Path) {
    run(Command::new("mkfifo").arg(path)).ok();
}

#[test]
fn kill_during_mount_and_unmount_loses_nothing() {
    let mut random = Random(seed("kill_during_mount_and_unmount"));
    let cache = Cache::new();
    let lines: Vec<_> =
        (0..3000).map(|n| cache.record(&format!("e{n}"), 1.0, &format!(r#""n": {n}"#))).collect();
    cache.append(&lines);
    let before = cache.log();
    for _ in 0..amount("CACHEDIRFS_CRASH_ROUNDS", 20) {
        let mut mount = Mount::start(cache.path(), &Options::default());
        std::thread::sleep(Duration::from_micros(random.next() % 60_000));
        mount.kill_daemon();
        drop(mount);
        assert_eq!(cache.log(), before);
    }
    for round in 0..amount("CACHEDIRFS_CRASH_ROUNDS", 20) {
        let mut mount = cache.mount();
        mount.set("e7", "round", &round.to_string());
        let id = mount.make(&format!("made={round}"));
        signal(mount.pid(), libc::SIGTERM);
        std::thread::sleep(Duration::from_micros(random.next() % 20_000));
        mount.kill_daemon();
        drop(mount);
        assert_eq!(cache.entry("e7")["round"], round, "acknowledged before the end");
        assert_eq!(cache.entry(&id)["made"], round);
    }
    let mount = cache.mount();
    assert_eq!(ls(mount.join("by-attr/made")).len(), amount("CACHEDIRFS_CRASH_ROUNDS", 20));
    mount.stop();
}

#[test]
fn kill_during_the_daemons_own_compaction_leaves_the_old_log_or_the_new() {
    let mut random = Random(seed("kill_during_the_daemons_own_compaction"));
    let cache = Cache::new();
    // So large and so dead that it is compacted at once.
    let filler = "x".repeat(2000);
    let lines: Vec<_> = (0..9000)
        .map(|n| cache.record(&format!("e{}", n % 1500), 1.0, &format!(r#""n": {n}, "s": "{filler}""#)))
        .collect();
    cache.append(&lines);
    let bytes = cache.log_bytes();
    assert!(bytes.len() > 16 << 20);
    let expected = cache.entries();
    let (mut old, mut new, mut during) = (0, 0, 0);
    for _ in 0..10 {
        let mut mount = cache.mount();
        std::thread::sleep(Duration::from_micros(random.next() % 80_000));
        mount.kill_daemon();
        drop(mount);
        during += usize::from(ls(cache.path()).iter().any(|name| name.starts_with("_entries.tmp-")));
        assert_eq!(cache.entries(), expected);
        if cache.log_bytes().len() == bytes.len() {
            old += 1;
        } else {
            new += 1;
            fs::write(cache.join("_entries"), &bytes).unwrap();
        }
    }
    eprintln!(
        "killed {old} times before, {new} times after the rename; {during} times a temporary file was left"
    );
    let mount = cache.mount();
    poll("the compaction", SOON, || (cache.log().lines().count() == 1500).then_some(()));
    assert_eq!(cache.entries(), expected);
    mount.stop();
    run(Command::new(binary()).arg("-C").arg(cache.path()).args(["check", "--repair"]));
    let left: Vec<_> = ls(cache.path()).into_iter().filter(|name| name.starts_with("_entries.")).collect();
    assert_eq!(left, [""; 0]);
}

/// A write that was begun.
type Begun = std::thread::JoinHandle<std::io::Result<()>>;

/// Stops a mount in the midst of an append: it holds the lock. Who detaches from it lets it go on.
fn stopped_in_a_write(cache: &Cache, mount: &Mount, id: &str) -> (Tracer, Begun) {
    let tracer = Tracer::attach(mount.pid(), &cache.join("_entries"), &["pwrite64:signal=SIGSTOP:when=1"]);
    let attribute = mount.join("entries").join(id).join(".attrs/a");
    let writer = std::thread::spawn(move || put(attribute, "1"));
    // Its state in /proc is that of a stop whenever the tracer looks at it, so also before the write.
    poll("the stop", SOON, || tracer.text().contains("stopped by SIGSTOP").then_some(()));
    (tracer, writer)
}

#[test]
fn a_stopped_mount_that_holds_the_lock_is_named_and_hinders_no_reader() {
    let cache = Cache::new();
    let (first, second) = (cache.mount(), cache.mount());
    let id = first.make("k=1");
    poll("it is seen", SOON, || fs::exists(second.join("entries").join(&id)).unwrap().then_some(()));
    let (tracer, stopped) = stopped_in_a_write(&cache, &first, &id);
    let attribute = second.join("entries").join(&id).join(".attrs/b");
    let waits = std::thread::spawn(move || put(attribute, "2"));

    // Who is waited for is told in the status, on the command line and in the log.
    let holder = format!("process {} (cachedirfs, stopped)", first.pid());
    poll("the status", SOON, || (second.status()["waiting_for"] == holder.as_str()).then_some(()));
    let status = second.status();
    assert_eq!(status["waiting"], "the lock");
    assert!(status["waiting_seconds"].as_f64().unwrap() > 1.0);
    let mut command = Command::new(binary());
    let told = run(command.arg("status").arg(second.path())).ok();
    assert!(told.contains(&holder), "{told}");
    poll("the log", SOON, || second.log().contains(&format!("{holder} holds the lock")).then_some(()));
    // Readers go on, and so does what needs no lock.
    assert_eq!(second.get(&id, "k"), "1");
    assert_eq!(ls(second.join("by-attr/k/1")), [id.as_str()]);
    put(second.join("entries").join(&id).join("file"), "contents").unwrap();
    assert!(!waits.is_finished() && !stopped.is_finished());

    signal(first.pid(), libc::SIGCONT);
    drop(tracer);
    stopped.join().unwrap().unwrap();
    waits.join().unwrap().unwrap();
    let entry = cache.entry(&id);
    assert_eq!((&entry["a"], &entry["b"]), (&1.into(), &2.into()), "both prevail");
    assert!(second.status()["waiting_for"].is_null());
    first.stop();
    second.stop();
}

#[test]
fn a_stopped_mount_that_is_killed_frees_the_lock() {
    let cache = Cache::new();
    let (mut first, second) = (cache.mount(), cache.mount());
    let id = first.make("k=1");
    poll("it is seen", SOON, || fs::exists(second.join("entries").join(&id)).unwrap().then_some(()));
    let (tracer, stopped) = stopped_in_a_write(&cache, &first, &id);
    let attribute = second.join("entries").join(&id).join(".attrs/b");
    let waits = std::thread::spawn(move || put(attribute, "2"));
    poll("the wait", SOON, || (second.status()["waiting"] == "the lock").then_some(()));
    first.kill_daemon();
    drop((first, tracer));
    assert!(stopped.join().unwrap().is_err(), "never acknowledged");
    waits.join().unwrap().unwrap();
    assert_eq!(second.get(&id, "b"), "2");
    second.stop();
    cache.entries();
}

#[test]
fn a_mount_that_waits_for_the_lock_can_be_ended() {
    let cache = Cache::new();
    cache.add("e1", 1.0, "");
    let mount = cache.mount();
    let lock = File::open(cache.join("_lock")).unwrap();
    fs2::FileExt::lock_exclusive(&lock).unwrap();
    let attribute = mount.join("entries/e1/.attrs/b");
    let waits = std::thread::spawn(move || put(attribute, "2"));
    poll("the wait", SOON, || (mount.status()["waiting"] == "the lock").then_some(()));
    let me = std::process::id();
    assert!(mount.status()["waiting_for"].as_str().unwrap().starts_with(&format!("process {me} (")));
    signal(mount.pid(), libc::SIGTERM);
    assert!(waits.join().unwrap().is_err(), "never acknowledged");
    drop(mount);
    drop(lock);
    assert!(!cache.entry("e1").contains_key("b"));
}

#[test]
fn a_daemon_that_was_suspended_goes_on() {
    let cache = Cache::new();
    let mount = cache.mount();
    let id = mount.make("k=1");
    for _ in 0..3 {
        signal(mount.pid(), libc::SIGSTOP);
        let attribute = mount.join("entries").join(&id).join(".attrs/k");
        let waits = std::thread::spawn(move || put(attribute, "2"));
        // Meanwhile others go on.
        cache.append(&[cache.record("other", 1.0, r#""o": 1"#)]);
        std::thread::sleep(Duration::from_millis(200));
        signal(mount.pid(), libc::SIGCONT);
        waits.join().unwrap().unwrap();
        poll("the other's entry", SOON, || {
            fs::exists(mount.join("by-attr/o/1/other")).unwrap().then_some(())
        });
    }
    assert_eq!(cache.entry(&id)["k"], 2);
    mount.stop();
}

#[test]
fn a_clock_that_jumps_changes_nothing_but_timestamps() {
    let library = ["x86_64-linux-gnu", "aarch64-linux-gnu"]
        .map(|machine| format!("/usr/lib/{machine}/faketime/libfaketimeMT.so.1"))
        .into_iter()
        .find(|path| Path::new(path).exists())
        .expect("libfaketime (Debian: faketime)");
    let scratch = common::scratch();
    let now = scratch.path().join("now");
    fs::write(&now, "+0").unwrap();
    let mut wrapper = Command::new("env");
    wrapper.arg(format!("LD_PRELOAD={library}")).arg(format!("FAKETIME_TIMESTAMP_FILE={}", now.display()));
    // The clock of intervals does not jump on Linux; the clock on the wall does.
    wrapper.args(["FAKETIME_NO_CACHE=1", "DONT_FAKE_MONOTONIC=1"]);
    let cache = Cache::new();
    let mount = Mount::under(wrapper, cache.path(), &Options::default());
    let other = cache.mount();
    let mut made = Vec::new();
    for jump in ["+0", "-3650d", "+36500d", "-50000d", "+1d", "+0"] {
        fs::write(&now, jump).unwrap();
        let begun = Instant::now();
        let id = mount.make(&format!("k=1,jump={}", made.len()));
        mount.set(&id, "n", "1");
        mount.set(&id, "n", "2");
        assert_eq!(mount.get(&id, "n"), "2", "{jump}");
        poll("the other mount", SOON, || {
            fs::exists(other.join("by-attr/k/1").join(&id)).unwrap_or(false).then_some(())
        });
        other.set(&id, "n", "3");
        poll("this mount", SOON, || (mount.get(&id, "n") == "3").then_some(()));
        File::open(mount.path()).unwrap().sync_all().unwrap();
        assert!(begun.elapsed() < Duration::from_secs(10), "{jump}: {:?}", begun.elapsed());
        made.push((cache.entry(&id)["_timestamp"].as_f64().unwrap(), id));
        assert_eq!(ls(mount.join("entries")).len(), made.len(), "{jump}");
    }
    assert!(made[1].0 < made[0].0 - 1e8 && made[2].0 > made[0].0 + 1e9, "the clock did jump: {made:?}");
    // In order of time, whatever the order of the log.
    made.sort_by(|a, b| a.0.total_cmp(&b.0));
    let sorted: Vec<_> = ls(mount.join("sort/_timestamp"));
    for (link, (_, id)) in sorted.iter().zip(&made) {
        assert!(link.ends_with(id.as_str()), "{sorted:?}");
    }
    // And it is compacted, once writes have settled.
    poll("compaction", SOON, || (cache.log().lines().count() == made.len()).then_some(()));
    mount.stop();
    other.stop();
}

#[test]
fn a_file_system_that_is_unmounted_underneath_keeps_what_was_acknowledged() {
    let test = "a_file_system_that_is_unmounted_underneath_keeps_what_was_acknowledged";
    if !common::in_namespace(test, Duration::from_secs(120)) {
        return;
    }
    let disk = Disk::new("ext4", "noatime");
    let place = disk.path().join("cache");
    fs::create_dir(&place).unwrap();
    let cache = Cache::at(&place);
    let mount = cache.mount();
    let id = mount.make("k=1");
    // While it is mounted the file system is in use.
    assert!(run(Command::new("umount").arg(disk.path())).fails().contains("busy"));
    run(Command::new("umount").arg("-l").arg(disk.path())).ok();
    // It is gone from where it was, but not for who has it open: either it is refused, or it is really there afterwards.
    let done = put(mount.join("entries").join(&id).join(".attrs/k"), "2").is_ok();
    let made = fs::create_dir(mount.join("new/k=3")).is_ok();
    assert_eq!(ls(mount.join("entries")).len(), 1 + usize::from(made));
    assert!(!fs::exists(&place).unwrap(), "nothing is made at the place where it was");
    mount.stop();
    disk.mount();
    let cache = Cache::at(&place);
    assert_eq!(cache.entry(&id)["k"], if done { 2 } else { 1 });
    assert_eq!(cache.entries().len(), 1 + usize::from(made));
}

/// What the log or the lock is made to be.
const DAMAGES: [&str; 8] =
    ["removed", "empty", "replaced", "directory", "fifo", "link", "socket", "dangling link"];

fn damage(cache: &Cache, name: &str, what: &str) {
    let path = cache.join(name);
    let kept = cache.join("_kept");
    match what {
        "removed" => fs::remove_file(&path).unwrap(),
        "empty" => fs::write(&path, "").unwrap(),
        "replaced" => {
            // At once: a copy that has just begun is an empty log.
            fs::copy(&path, &kept).unwrap();
            fs::rename(&kept, &path).unwrap();
        }
        _ => fs::rename(&path, &kept).unwrap(),
    }
    match what {
        "directory" => fs::create_dir(&path).unwrap(),
        "fifo" => fifo(&path),
        "link" => symlink(&kept, &path).unwrap(),
        "dangling link" => symlink("nowhere", &path).unwrap(),
        "socket" => drop(std::os::unix::net::UnixListener::bind(&path).unwrap()),
        _ => {}
    }
}

fn undo(cache: &Cache, name: &str) {
    let (path, kept) = (cache.join(name), cache.join("_kept"));
    if fs::symlink_metadata(&kept).is_ok() {
        if path.is_dir() {
            fs::remove_dir(&path).unwrap();
        } else {
            let _ = fs::remove_file(&path);
        }
        fs::rename(&kept, &path).unwrap();
    }
}

/// The log and the lock become something else while the cache is mounted: changes are refused or are in the right log, nothing
/// hangs, and once it is what it was again, all goes on by itself.
#[test]
fn a_log_or_lock_that_becomes_something_else_while_mounted() {
    for name in ["_entries", "_lock"] {
        for what in DAMAGES {
            let case = format!("{name}: {what}");
            let cache = Cache::new();
            let mut mount = cache.mount();
            let id = mount.make("n=0");
            let before = cache.log();
            damage(&cache, name, what);
            let begun = Instant::now();
            let attribute = mount.join("entries").join(&id).join(".attrs/n");
            let result = put(&attribute, "1");
            let regular = ["removed", "empty", "replaced"].contains(&what);
            if name == "_entries" && what == "empty" {
                // Somebody has taken everything away: so there is no such entry.
                assert!(result.is_err(), "{case}");
            } else {
                assert_eq!(result.is_ok(), regular, "{case}: {result:?}");
            }
            if !regular {
                assert_eq!(errno(result), libc::EIO, "{case}");
                assert_eq!(mount.get(&id, "n"), "0", "{case}: reading goes on");
                let log = if name == "_lock" { cache.log() } else { common::read(cache.join("_kept")) };
                assert_eq!(log, before, "{case}: nothing is written through it");
                // The command line and `check` say it, and do not hang on a fifo either.
                let message = cache.command(&["new", "k=1"]).fails();
                assert!(message.contains(name), "{case}: {message}");
                let check = cache.command(&["check"]);
                let found = String::from_utf8_lossy(&check.stdout).into_owned();
                assert!(!check.status.success() && found.contains(name), "{case}: {found}");
                let message = cache.command(&["check", "--repair"]).fails();
                assert!(message.contains(name), "{case}: {message}");
                let point = common::scratch();
                let mut command = Command::new(binary());
                command.arg("mount").arg(cache.path()).arg(point.path()).arg("-f");
                let message = run(&mut command).fails();
                assert!(message.contains(name), "{case}: {message}");
                if name == "_entries" {
                    poll("the trouble", SOON, || {
                        mount.status()["trouble"]
                            .as_str()
                            .is_some_and(|text| text.contains(name))
                            .then_some(())
                    });
                }
            }
            assert!(begun.elapsed() < Duration::from_secs(15), "{case}: {:?}", begun.elapsed());
            undo(&cache, name);
            mount.live();
            poll("it goes on", SOON, || fs::create_dir(mount.join("new/n=5")).is_ok().then_some(()));
            let entries = cache.entries();
            assert_eq!(entries.last().unwrap().1["n"], 5, "{case}");
            if what != "empty" || name == "_lock" {
                assert_eq!(entries.len(), 2, "{case}");
                assert_eq!(entries[0].1["n"], i32::from(regular), "{case}");
            }
            poll("trouble ends", SOON, || mount.status()["trouble"].is_null().then_some(()));
            mount.stop();
        }
    }
}

/// What an ordinary user may no longer read or write.
#[test]
fn a_log_or_lock_that_becomes_unreadable() {
    let user = User::ordinary();
    for name in ["_entries", "_lock"] {
        let cache = Cache::of(&user);
        let options = Options { user: Some(&user), ..Options::default() };
        let mount = Mount::new(cache.path(), &options);
        mount.sh("mkdir new/n=0").ok();
        let id = cache.entries()[0].0.clone();
        let path = cache.join(name);
        // Of somebody else, and closed.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o0)).unwrap();
        let before = cache.log();
        if name == "_entries" {
            assert!(mount.sh("mkdir new/n=1").fails().contains("Permission denied"));
            assert_eq!(cache.log(), before);
        } else {
            // The lock is open already, and still the one of that name: it excludes others as before.
            mount.sh("mkdir new/n=1").ok();
        }
        assert!(mount.sh(&format!("cat entries/{id}/.attrs/n")).status.success(), "reading goes on");
        let point = common::scratch();
        user.own(point.path());
        let mut command = Command::new(user.binary(point.path()));
        let mountpoint = point.path().join("mnt");
        fs::create_dir(&mountpoint).unwrap();
        user.own(&mountpoint);
        command.arg("mount").arg(cache.path()).arg(&mountpoint).arg("-f");
        let message = run(&mut user.wrap(&command)).fails();
        assert!(message.contains("Permission denied"), "{name}: {message}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        mount.sh(&format!("echo 2 > entries/{id}/.attrs/n")).ok();
        assert_eq!(cache.entry(&id)["n"], 2);
        mount.stop();
    }
}

/// A lock that many hands remove again and again, while others write: no record goes over another.
#[test]
fn a_lock_that_is_removed_again_and_again_loses_no_record() {
    let cache = Cache::new();
    let (first, second) = (cache.mount(), cache.mount());
    let remove = format!("while :; do rm -f '{}'; sleep 0.003; done", cache.join("_lock").display());
    let remover = start(Command::new("sh").args(["-c", &remove]));
    let told: Vec<_> = std::thread::scope(|scope| {
        let workers: Vec<_> = [&first, &second]
            .into_iter()
            .enumerate()
            .map(|(worker, mount)| {
                scope.spawn(move || {
                    (0..300)
                        .map(|n| format!("w={worker},n={n}"))
                        .filter(|name| fs::create_dir(mount.join("new").join(name)).is_ok())
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    drop(remover);
    let entries = cache.entries();
    let found: std::collections::HashSet<_> =
        entries.iter().map(|(_, object)| format!("w={},n={}", object["w"], object["n"])).collect();
    let lost: Vec<_> = told.iter().filter(|name| !found.contains(*name)).collect();
    eprintln!("{} of 600 acknowledged", told.len());
    assert!(lost.is_empty(), "{lost:?}");
    assert!(told.len() > 300);
    first.stop();
    second.stop();
}
