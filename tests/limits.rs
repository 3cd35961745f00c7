//! What is too large is refused in words: records, depth, open tables, and a cache that does not fit into memory. The daemon is
//! never killed for it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fmt::Write as _;
use std::fs::{self, File};
use std::process::Command;
use std::time::Duration;

use common::{Cache, Mount, Options, binary, errno, ls, poll, put, read, run};

const SOON: Duration = Duration::from_secs(60);
const MIB: u64 = 1 << 20;

/// Lines of entries that differ in every value.
fn lines(from: usize, to: usize) -> String {
    let mut text = String::new();
    for n in from..to {
        let padding = "x".repeat(150);
        writeln!(
            text,
            r#"{{"_id": "/x/e{n}", "n": {n}, "name": "run number {n} {padding}", "loss": 0.{n}, "_timestamp": {n}.5}}"#
        )
        .unwrap();
    }
    text
}

/// Runs a command with so much address space at most.
fn limited(bytes: u64) -> Command {
    let mut command = Command::new("prlimit");
    command.arg(format!("--as={bytes}"));
    command
}

#[test]
fn records_and_depth_are_limited() {
    let cache = Cache::new();
    let mount = cache.mount();
    let id = mount.make("k=1");
    let before = cache.log();
    let entry = mount.join("entries").join(&id);
    let nested = |depth: usize| format!(r#"{{"a": {}1{}}}"#, "[".repeat(depth), "]".repeat(depth));
    for depth in [128, 1000, 1_000_000] {
        assert_eq!(errno(put(entry.join(".attrs.json"), nested(depth))), libc::EINVAL, "depth {depth}");
    }
    let large = "x".repeat(17 << 20);
    assert_eq!(errno(put(entry.join(".attrs/a"), &large)), libc::EFBIG);
    assert_eq!(errno(put(entry.join(".attrs.json"), format!(r#"{{"a": "{large}"}}"#))), libc::EFBIG);
    let half = "x".repeat(9 << 20);
    put(entry.join(".attrs/a"), &half).unwrap();
    assert_eq!(errno(put(entry.join(".attrs/b"), &half)), libc::EFBIG, "all of them together");
    fs::remove_file(entry.join(".attrs/a")).unwrap();
    // As far as the kernel lets names through, a key may be as long as it likes.
    let key = "k".repeat(900);
    match put(entry.join(".attrs").join(&key), "1") {
        Ok(()) => fs::remove_file(entry.join(".attrs").join(&key)).unwrap(),
        Err(e) => assert_eq!(e.raw_os_error(), Some(libc::ENAMETOOLONG)),
    }
    assert_eq!(cache.entry(&id)["k"], 1);
    assert_eq!(cache.entry(&id).len(), 3, "{before}");
    // What was taken can be read again.
    put(entry.join(".attrs.json"), nested(127)).unwrap();
    put(entry.join(".attrs/b"), format!("{}{}", "[".repeat(127), "]".repeat(127))).unwrap();
    mount.stop();
    let mount = cache.mount();
    assert_eq!(ls(mount.join("entries")), [id.as_str()]);
    assert_eq!(mount.get(&id, "b"), mount.get(&id, "a").replace('1', ""));
    assert_eq!(mount.status()["malformed"], 0);
    mount.stop();
    cache.command(&["check"]).ok();
}

/// Whatever the limit: either it works, or it says what is missing. It is never killed, and never ends by a signal of its own.
#[test]
fn a_cache_that_does_not_fit_into_memory_is_refused_in_words() {
    let cache = Cache::new();
    let log = lines(0, 330_000);
    assert!(log.len() > 80 << 20, "{}", log.len());
    fs::write(cache.join("_entries"), log).unwrap();
    let (mut refused, mut served) = (0, 0);
    for limit in [120, 180, 240, 300, 360, 420, 480, 560, 700, 2000] {
        let mut command = limited(limit * MIB);
        command.arg(binary()).arg("-C").arg(cache.path()).args(["find", "n = 17", "--format", "ids"]);
        let finished = run(&mut command);
        if finished.status.success() {
            served += 1;
            assert_eq!(finished.ok(), "e17\n");
        } else {
            refused += 1;
            assert_eq!(served, 0, "{limit} MiB are refused where less was enough");
            let message = finished.fails();
            assert!(message.contains("memory") && message.contains("MiB"), "{limit} MiB: {message}");
        }
    }
    eprintln!("{refused} refused, {served} served");
    assert!(refused > 1 && served > 1);
    // A mount says so before it is live, in the foreground and in the background.
    let point = common::scratch();
    for more in [&["-f"][..], &["--log", "/dev/null"]] {
        let mut command = limited(150 * MIB);
        command.arg(binary()).arg("mount").arg(cache.path()).arg(point.path()).args(more);
        let message = run(&mut command).fails();
        assert!(message.contains("not enough memory"), "{message}");
        assert!(message.contains("the index of a cache is kept in memory"), "{message}");
    }
    assert!(common::mountinfo(point.path()).is_none());
}

fn limit(mount: &Mount, bytes: &str) {
    run(Command::new("prlimit").args(["--pid", &mount.pid().to_string(), &format!("--as={bytes}:")])).ok();
}

fn size(mount: &Mount) -> u64 {
    let status = read(format!("/proc/{}/status", mount.pid()));
    let line = status.lines().find_map(|line| line.strip_prefix("VmSize:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

#[test]
fn a_cache_that_grows_past_memory_while_mounted_is_told_and_goes_on_when_there_is_more() {
    let cache = Cache::new();
    cache.append_bytes(lines(0, 1000).as_bytes());
    let mount = cache.mount();
    assert_eq!(read(mount.join("count")), "1000\n");
    limit(&mount, &(size(&mount) + 130 * MIB).to_string());
    let mut next = 1000;
    poll("the end of the memory", SOON, || {
        cache.append_bytes(lines(next, next + 20_000).as_bytes());
        next += 20_000;
        mount.status()["trouble"]
            .as_str()
            .is_some_and(|text| text.contains("not enough memory"))
            .then_some(())
    });
    // What was there is there yet; changes are refused, for they could not be decided.
    assert_eq!(mount.get("e17", "n"), "17");
    assert_eq!(errno(put(mount.join("entries/e17/.attrs/k"), "1")), libc::ENOMEM);
    assert_eq!(errno(fs::create_dir(mount.join("new/k=1"))), libc::ENOMEM);
    assert!(mount.log().contains("not enough memory"), "{}", mount.log());
    let mut command = Command::new(binary());
    assert!(run(command.arg("status")).ok().contains("not enough memory"));
    limit(&mount, "unlimited");
    poll("all of it", SOON, || (read(mount.join("count")) == format!("{next}\n")).then_some(()));
    poll("the end of the trouble", SOON, || mount.status()["trouble"].is_null().then_some(()));
    mount.set("e17", "k", "1");
    mount.stop();
}

#[test]
fn tables_that_many_hold_open_are_limited() {
    let cache = Cache::new();
    cache.append_bytes(lines(0, 60_000).as_bytes());
    let mount = Mount::new(cache.path(), &Options::default());
    limit(&mount, &(size(&mount) + 260 * MIB).to_string());
    let mut open = Vec::new();
    let mut refused = None;
    for n in 0..60 {
        match File::open(mount.join(format!("where/n ge {n}/table.csv"))) {
            Ok(file) => open.push(file),
            Err(e) => {
                refused = Some(e.raw_os_error().unwrap());
                break;
            }
        }
    }
    let refused = refused.expect("a limit");
    assert!([libc::ENOMEM, libc::EMFILE].contains(&refused), "{refused}");
    assert!(open.len() > 2, "{}", open.len());
    // What is open can be read, and everything else goes on.
    for file in &mut open {
        let mut start = [0; 4];
        std::io::Read::read_exact(file, &mut start).unwrap();
        assert_eq!(&start, b"_id,");
    }
    assert_eq!(ls(mount.join("by-attr/n/17")), ["e17"]);
    mount.set("e17", "k", "1");
    drop(open);
    poll("room again", SOON, || File::open(mount.join("where/n ge 70/table.csv")).is_ok().then_some(()));
    mount.stop();
}
