//! System calls of the running daemon fail, by `strace --inject` and `fiu-run`: what failed is never acknowledged.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::process::Command;
use std::time::Duration;

use common::{Cache, Mount, Options, Random, Tracer, binary, errno, poll, put, read, run, seed};

const WHILE: Duration = Duration::from_secs(20);

/// Every write of the log fails in turn, with each error: the caller gets it, and nothing of the change is there.
#[test]
fn a_write_that_fails_is_never_acknowledged() {
    let cache = Cache::new();
    let mount = cache.mount();
    let id = mount.make("n=0");
    let attribute = mount.join("entries").join(&id).join(".attrs/n");
    for (error, number) in [("EIO", libc::EIO), ("ENOSPC", libc::ENOSPC), ("EDQUOT", libc::EDQUOT)] {
        let inject = format!("pwrite64:error={error}");
        for change in 1..=8 {
            let before = mount.get(&id, "n");
            let next = format!("{}", before.parse::<u64>().unwrap() + 1);
            // Whichever thread writes.
            let fails = change % 3 == 0;
            let tracer = fails.then(|| Tracer::attach(mount.pid(), &cache.join("_entries"), &[&inject]));
            let result = put(&attribute, &next);
            if let Some(tracer) = tracer {
                assert_eq!(errno(result), number, "{inject}");
                assert_eq!(tracer.hits(), 1, "{inject}: it was tried again");
                tracer.detach();
                assert_eq!(mount.get(&id, "n"), before, "{inject}");
                assert_eq!(cache.entry(&id)["n"].to_string(), before, "{inject}");
            } else {
                result.unwrap_or_else(|e| panic!("{inject}, change {change}: {e}"));
                assert_eq!(mount.get(&id, "n"), next);
                assert_eq!(cache.entry(&id)["n"].to_string(), next, "{inject}");
            }
        }
    }
    // Entries whose record could not be written leave no directory.
    let tracer = Tracer::attach(mount.pid(), &cache.join("_entries"), &["pwrite64:error=ENOSPC"]);
    assert_eq!(errno(fs::create_dir(mount.join("new/n=-1"))), libc::ENOSPC);
    assert_eq!(errno(fs::create_dir(mount.join("memo/n=-2"))), libc::ENOSPC);
    assert_eq!(errno(fs::remove_dir(mount.join("entries").join(&id))), libc::ENOSPC);
    assert!(tracer.hits() >= 3);
    tracer.detach();
    assert_eq!(common::ls(mount.join("entries")), [id.as_str()]);
    let directories = fs::read_dir(cache.path()).unwrap().filter(|e| e.as_ref().unwrap().path().is_dir());
    assert_eq!(directories.count(), 1);
    mount.stop();
}

/// With `sync`, the sync before the acknowledgement fails: the caller gets that error, and so does everybody after, until the
/// cache is mounted anew. The sync is not tried again.
#[test]
fn a_sync_that_fails_is_never_acknowledged_nor_tried_again() {
    for (error, number) in [("EIO", libc::EIO), ("ENOSPC", libc::ENOSPC)] {
        for when in 1..=2 {
            let cache = Cache::new();
            let mount = cache.mount_with("sync");
            let id = mount.make("n=0");
            let attribute = mount.join("entries").join(&id).join(".attrs/n");
            let inject = format!("fdatasync:error={error}:when={when}");
            let tracer = Tracer::attach(mount.pid(), &cache.join("_entries"), &[&inject]);
            if when == 2 {
                put(&attribute, "1").unwrap();
            }
            let last = mount.get(&id, "n");
            assert_eq!(errno(put(&attribute, "2")), number, "{inject}");
            assert_eq!(mount.get(&id, "n"), last, "{inject}: what was refused is not shown");
            // From now on every change and every sync is refused: the kernel may have dropped what was to be written.
            for _ in 0..3 {
                assert_eq!(errno(put(&attribute, "3")), libc::EIO, "{inject}");
                assert_eq!(errno(fs::create_dir(mount.join("new/n=9"))), libc::EIO, "{inject}");
                let entry = File::open(mount.join("entries").join(&id)).unwrap();
                assert_eq!(errno(entry.sync_all()), libc::EIO, "{inject}");
            }
            let text = tracer.detach();
            let syncs = text.matches("fdatasync(").count();
            assert_eq!(syncs, when, "{inject}: it was tried again:\n{text}");
            assert_eq!(mount.status()["poisoned"], true);
            assert!(
                run(Command::new(binary()).arg("status")).ok().contains("refuses changes: a sync failed")
            );
            assert_eq!(mount.get(&id, "n"), last, "reading goes on");
            // Its end says that not everything is known to be on the disk.
            mount.kill();
            let mount = cache.mount_with("sync");
            mount.set(&id, "n", "4");
            assert_eq!(mount.get(&id, "n"), "4");
            assert_eq!(cache.entry(&id)["n"], 4);
            mount.stop();
        }
    }
}

/// Without `sync`: the fsync that a program asks for, and the one in the background.
#[test]
fn a_failed_fsync_is_told_to_who_asks_and_is_never_forgotten() {
    for asked in [true, false] {
        let cache = Cache::new();
        let mount = cache.mount();
        let id = mount.make("n=0");
        File::open(mount.path()).unwrap().sync_all().expect("the root's fsync covers all");
        let attribute = mount.join("entries").join(&id).join(".attrs/n");
        let inject = "fdatasync:error=EIO:when=1";
        let tracer = Tracer::attach(mount.pid(), &cache.join("_entries"), &[inject]);
        if asked {
            let mut file = File::create(&attribute).unwrap();
            file.write_all(b"1").unwrap();
            assert_eq!(errno(file.sync_all()), libc::EIO);
            let _ = common::close(file);
        } else {
            put(&attribute, "1").unwrap();
            poll("the sync in the background", WHILE, || (tracer.hits() == 1).then_some(()));
        }
        poll("the refusal", WHILE, || (mount.status()["poisoned"] == true).then_some(()));
        for place in [mount.path().to_owned(), mount.join("entries").join(&id)] {
            let opened = File::open(&place).unwrap();
            assert_eq!(errno(opened.sync_all()), libc::EIO, "{}", place.display());
        }
        assert_eq!(errno(put(&attribute, "2")), libc::EIO);
        let text = tracer.detach();
        assert_eq!(text.matches("fdatasync(").count(), 1, "asked {asked}: tried again:\n{text}");
        assert!(mount.log().contains("nothing more is written until the cache is mounted anew"));
        mount.kill();
    }
}

/// A compaction whose sync, or whose rename, fails: the old log stays, or changes are refused.
#[test]
fn a_compaction_that_fails_loses_nothing() {
    for (inject, refused) in [
        ("fdatasync:error=EIO", false),
        ("rename,renameat,renameat2:error=EIO", false),
        // Whether the new name is on the disk is not known then: nothing may be written to the new log.
        ("fsync:error=EIO", true),
    ] {
        let cache = Cache::new();
        let mount = cache.mount();
        let id = mount.make("n=0");
        for n in 1..5 {
            mount.set(&id, "n", &n.to_string());
        }
        let before = cache.entry(&id);
        // The daemon's own compaction, once writes have settled.
        let temporary = cache.join(format!("_entries.tmp-{}", mount.pid()));
        // A rename is known by the directory that it is relative to.
        let path = if inject.starts_with("fdatasync") { temporary } else { cache.path().to_owned() };
        let tracer = Tracer::attach(mount.pid(), &path, &[inject]);
        poll("the compaction", WHILE, || (tracer.hits() > 0).then_some(()));
        tracer.detach();
        poll("its end", WHILE, || mount.log().contains("compaction failed").then_some(()));
        assert_eq!(cache.entry(&id), before, "{inject}");
        let result = put(mount.join("entries").join(&id).join(".attrs/n"), "7");
        assert_eq!(result.is_err(), refused, "{inject}: {result:?}");
        assert_eq!(mount.status()["poisoned"], refused, "{inject}");
        mount.kill();
        let mount = cache.mount();
        assert_eq!(mount.get(&id, "n"), if refused { "4" } else { "7" }, "{inject}");
        mount.set(&id, "n", "8");
        assert_eq!(cache.entry(&id)["n"], 8);
        mount.stop();
    }
}

/// Where flock is not supported the Python package falls back to a lock that excludes nobody: the daemon must not.
#[test]
fn a_file_system_without_flock_is_refused_and_the_mount_option_named() {
    for error in ["ENOSYS", "EOPNOTSUPP"] {
        let cache = Cache::new();
        cache.add("e1", 1.0, r#""k": 1"#);
        let before = cache.log();
        let scratch = common::scratch();
        let point = scratch.path().join("mnt");
        fs::create_dir(&point).unwrap();
        let traced = |arguments: &[&str]| {
            let mut command = Command::new("strace");
            command.args(["-f", "-o", "/dev/null", "-e", &format!("inject=flock:error={error}")]);
            command.arg(binary()).args(arguments);
            run(&mut command)
        };
        let (at, place) = (cache.path().to_str().unwrap(), point.to_str().unwrap());
        let log = scratch.path().join("log");
        for foreground in [&["-f"][..], &["--log", log.to_str().unwrap()]] {
            let message = traced(&[&["mount", at, place], foreground].concat()).fails();
            assert!(message.contains("flock") && message.contains("Lustre"), "{message}");
            assert!(message.contains("-o ro"), "{message}");
        }
        // Nor does the command line write beside others.
        let message = traced(&["-C", at, "new", "k=2"]).fails();
        assert!(message.contains("flock"), "{message}");
        assert!(common::mountinfo(&point).is_none());
        assert_eq!(cache.log(), before);
        assert_eq!(common::ls(cache.path()), ["_entries", "_lock", "e1"]);
        // Reading needs no lock.
        assert!(traced(&["-C", at, "find", "k=1", "--format", "ids"]).ok().contains("e1"));
    }
}

/// Random failures of every kind of write and sync, by `fiu-run`: what was acknowledged is there, what was refused is not.
#[test]
fn random_failures_lose_nothing_that_was_acknowledged() {
    let mut random = Random(seed("random_failures"));
    for (round, faults) in [
        &["name=posix/io/rw/pwrite,probability=0.3,failinfo=28"][..],
        &[
            "name=posix/io/rw/pwrite,probability=0.2,failinfo=5",
            "name=posix/io/rw/ftruncate,probability=0.2,failinfo=5",
        ],
        &["name=posix/io/rw/pwrite/reduce,probability=0.5"],
        &["name=posix/io/sync/fdatasync,probability=0.03,failinfo=5"],
    ]
    .iter()
    .enumerate()
    {
        let cache = Cache::new();
        let ids: Vec<String> = {
            let mount = cache.mount();
            let ids = (0..4).map(|n| mount.make(&format!("n=0,who={n}"))).collect();
            mount.stop();
            ids
        };
        let mut command = Command::new("fiu-run");
        command.args(["-x", "-f", ""]);
        for fault in *faults {
            command.args(["-c", &format!("enable_random {fault}")]);
        }
        let sync = round % 2 == 1;
        let options = Options { options: if sync { "sync" } else { "" }, ..Options::default() };
        let mount = Mount::under(command, cache.path(), &options);
        let mut told: BTreeMap<&str, u64> = ids.iter().map(|id| (id.as_str(), 0)).collect();
        let mut doubt: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
        let (mut refused, mut taken) = (0, 0);
        for n in 1..400 {
            let id = random.pick(&ids).as_str();
            if put(mount.join("entries").join(id).join(".attrs/n"), n.to_string()).is_ok() {
                taken += 1;
                told.insert(id, n);
                doubt.remove(id);
            } else {
                refused += 1;
                doubt.entry(id).or_default().push(n);
            }
        }
        let poisoned = mount.status()["poisoned"] == true;
        eprintln!("{faults:?}, sync {sync}: {taken} acknowledged, {refused} refused, poisoned {poisoned}");
        assert!(taken > 0, "{faults:?}");
        assert_eq!(refused > 0, !faults[0].contains("reduce"), "{faults:?}");
        for (id, n) in &told {
            assert_eq!(mount.get(id, "n"), n.to_string(), "{faults:?}");
        }
        mount.kill();
        let mount = cache.mount();
        for (id, n) in &told {
            let found: u64 = mount.get(id, "n").parse().unwrap();
            // What could not even be cut off again, or synced, may be there: the caller was told that it failed, not that it is
            // not there.
            let may = poisoned && doubt.get(id).is_some_and(|doubt| doubt.contains(&found));
            assert!(found == *n || may, "{faults:?}: {id} is {found}, {n} was acknowledged last");
        }
        assert_eq!(read(mount.join("count")), "4\n");
        mount.stop();
    }
}

/// On file systems of several machines the kernel tells nobody what another node has done: the log is looked at all the same.
#[test]
fn where_the_kernel_tells_of_no_changes_they_are_seen_after_a_while() {
    // There is no inotify, or it never tells.
    for inject in ["inotify_init1:error=EMFILE", "inotify_add_watch:retval=1"] {
        let cache = Cache::new();
        cache.add("e1", 1.0, r#""k": 1"#);
        let scratch = common::scratch();
        let trace = scratch.path().join("trace");
        let mut command = Command::new("strace");
        // A process of its own traces, so that the one that is started is the daemon.
        command.args(["-D", "-f", "-o"]).arg(&trace).args(["-e", "trace=inotify_init1,inotify_add_watch"]);
        command.args(["-e", &format!("inject={inject}")]);
        let options = Options { options: "refresh=0.2", ..Options::default() };
        let mount = Mount::under(command, cache.path(), &options);
        poll("the daemon wants to be told", WHILE, || read(&trace).contains("(INJECTED").then_some(()));
        for n in 2..5 {
            cache.append(&[cache.record("e1", 1.0, &format!(r#""k": {n}"#))]);
            poll("it is seen", WHILE, || (mount.get("e1", "k") == n.to_string()).then_some(()));
            assert_eq!(common::ls(mount.join("by-attr/k")), [n.to_string()], "{inject}");
        }
        mount.stop();
    }
}

/// What a node believes to know of the log may be old: under the lock it is opened anew, and its size is asked of the server.
#[test]
fn under_the_lock_the_log_is_opened_anew_and_its_size_is_asked_of_the_server() {
    let cache = Cache::new();
    cache.add("e1", 1.0, r#""k": 1"#);
    let scratch = common::scratch();
    let trace = scratch.path().join("trace");
    let mut command = Command::new("strace");
    command.args(["-f", "-y", "-e", "trace=statx,fstat,newfstatat,openat,pwrite64,flock", "-o"]).arg(&trace);
    command.arg(binary()).arg("-C").arg(cache.path()).args(["set", "--where", "k = 1", "k=2"]);
    run(&mut command).ok();
    assert_eq!(cache.entry("e1")["k"], 2);
    let text = read(&trace);
    let about = |name: &str| {
        let (by_name, open) = (format!("\"{name}\""), format!("/{name}>"));
        text.lines().filter(move |line| line.contains(&by_name) || line.contains(&open))
    };
    for line in about("_entries").chain(about("_lock")) {
        assert!(!line.contains("stat") || line.contains("AT_STATX_FORCE_SYNC"), "{line}");
        assert!(!line.contains("O_APPEND"), "{line}");
    }
    // What is done under the lock that is taken last.
    let lines: Vec<_> = text.lines().collect();
    let locked = lines.iter().rposition(|line| line.contains("flock(") && line.contains("LOCK_EX")).unwrap();
    let after = &lines[locked..];
    let place = |call: &str, of: &str| after.iter().position(|line| line.contains(call) && line.contains(of));
    let opened = place("openat(", "\"_entries\", O_RDWR").expect("it is opened by its name");
    let asked = place("statx(", "/_entries>, \"\", AT_STATX_FORCE_SYNC").expect("its size is asked for");
    let written = place("pwrite64(", "/_entries>").expect("it is written to");
    let unlocked = place("flock(", "LOCK_UN").expect("the lock is given up");
    assert!(opened < asked && asked < written && written < unlocked, "{}", after.join("\n"));
}
