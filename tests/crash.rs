//! The daemon is killed at any moment, the log is cut at any byte: what was acknowledged is there.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{Cache, Mount, Random, amount, errno, ls, poll, put, read, seed};
use serde_json::Value;

const WORKERS: usize = 3;

/// What one worker was told about its entries: the attribute `n`, `None` once deleted.
#[derive(Debug, Default)]
struct Told {
    entries: BTreeMap<String, Option<u64>>,
    /// The change that was under way when the daemon died: it may or may not have happened.
    doubt: Option<(String, Option<u64>)>,
    /// A `mkdir` was under way: one more entry of this worker and number may exist.
    making: Option<u64>,
    next: u64,
}

/// Makes, changes and deletes entries until an error (the daemon is dead) or the word.
fn work(mount: &Path, worker: usize, told: &mut Told, random: &mut Random, stop: &AtomicBool) {
    told.doubt = None;
    told.making = None;
    while !stop.load(Ordering::Relaxed) {
        let live: Vec<_> =
            told.entries.iter().filter(|(_, n)| n.is_some()).map(|(id, _)| id.clone()).collect();
        let choice = random.below(10);
        let n = told.next;
        told.next += 1;
        if choice < 4 || live.is_empty() {
            let path = mount.join(format!("new/worker={worker},n={n}"));
            told.making = Some(n);
            if fs::create_dir(&path).is_err() {
                return;
            }
            // The entry exists; its id is asked for in a second call that may fail.
            let Ok(id) = fs::read_to_string(path.join(".attrs/_id")) else { return };
            told.making = None;
            told.entries.insert(id.trim_end().to_owned(), Some(n));
        } else {
            let id = random.pick(&live).clone();
            let entry = mount.join("entries").join(&id);
            let new = (choice < 9).then_some(n);
            told.doubt = Some((id.clone(), new));
            let done = match new {
                Some(n) => put(entry.join(".attrs/n"), n.to_string()),
                None => fs::remove_dir(&entry),
            };
            if done.is_err() {
                return;
            }
            told.doubt = None;
            told.entries.insert(id, new);
        }
    }
}

fn verify(mount: &Mount, told: &mut [Told]) {
    for (worker, told) in told.iter_mut().enumerate() {
        let dir = mount.join(format!("by-attr/worker/{worker}"));
        let listed = if fs::exists(&dir).unwrap() { ls(&dir) } else { Vec::new() };
        if let Some((id, new)) = told.doubt.take() {
            let found = listed.contains(&id).then(|| mount.get(&id, "n").parse().unwrap());
            assert!(
                found == new || found == told.entries[&id],
                "{id}: {found:?} is neither {new:?} nor {:?}",
                told.entries[&id]
            );
            told.entries.insert(id, found);
        }
        for id in &listed {
            if !told.entries.contains_key(id) {
                let n: u64 = mount.get(id, "n").parse().unwrap();
                assert_eq!(told.making.take(), Some(n), "entry {id} that nobody made");
                told.entries.insert(id.clone(), Some(n));
            }
        }
        for (id, n) in &told.entries {
            assert_eq!(listed.contains(id), n.is_some(), "{id} of worker {worker}");
        }
    }
}

fn verify_values(mount: &Mount, told: &[Told]) {
    for (id, n) in told.iter().flat_map(|told| &told.entries) {
        if let Some(n) = n {
            assert_eq!(mount.get(id, "n"), n.to_string(), "{id}");
        }
    }
}

#[test]
fn kill_at_any_moment_loses_nothing_that_was_acknowledged() {
    let seed = seed("kill_at_any_moment");
    let mut random = Random(seed);
    let rounds = amount("CACHEDIRFS_CRASH_ROUNDS", 60);
    let cache = Cache::new();
    let mut told: Vec<_> = (0..WORKERS).map(|_| Told::default()).collect();
    let mut foreign = 0;
    for round in 0..rounds {
        let mut mount = cache.mount();
        verify(&mount, &mut told);
        if round % 10 == 0 {
            verify_values(&mount, &told);
        }
        let stop = AtomicBool::new(false);
        let after = Duration::from_micros(random.next() % 120_000);
        let path = mount.path().to_owned();
        std::thread::scope(|scope| {
            for (worker, told) in told.iter_mut().enumerate() {
                let (path, stop, mut random) = (&path, &stop, Random(random.next()));
                scope.spawn(move || work(path, worker, told, &mut random, stop));
            }
            // Another program writes the log meanwhile.
            let deadline = Instant::now() + after;
            while Instant::now() < deadline {
                foreign += 1;
                cache.append(&[cache.record(&format!("foreign{foreign}"), 1.0, r#""foreign": true"#)]);
                std::thread::sleep(
                    Duration::from_millis(7).min(deadline.saturating_duration_since(Instant::now())),
                );
            }
            mount.kill_daemon();
            stop.store(true, Ordering::Relaxed);
        });
        mount.kill();
        // A reader that knows nothing of us reads every line but perhaps the last.
        let log = cache.log();
        let whole = log.rfind('\n').map_or(0, |end| end + 1);
        for line in log[..whole].lines() {
            assert!(serde_json::from_str::<Value>(line).is_ok(), "round {round}: {line}");
        }
    }
    let mount = cache.mount();
    verify(&mount, &mut told);
    verify_values(&mount, &told);
    let listed = if foreign == 0 { 0 } else { ls(mount.join("by-attr/foreign/true")).len() };
    assert_eq!(listed, foreign);
    let made: usize = told.iter().map(|told| told.entries.len()).sum();
    eprintln!("{rounds} rounds: {made} entries made, {foreign} of another program");
    assert!(made > rounds, "the load did something");
    mount.stop();
    cache.command(&["compact"]).ok();
    let live = told.iter().flat_map(|told| told.entries.values()).filter(|n| n.is_some()).count();
    assert_eq!(cache.log().lines().count(), live + foreign);
}

#[test]
fn a_killed_daemon_leaves_a_mount_that_the_next_one_takes_away() {
    let cache = Cache::new();
    cache.add("e1", 1.0, r#""k": 1"#);
    let mut dead = cache.mount();
    dead.kill_daemon();
    assert_eq!(errno(fs::read_dir(dead.path())), libc::ENOTCONN);
    let again = cache.command(&["mount", cache.path().to_str().unwrap(), dead.path().to_str().unwrap()]);
    again.ok();
    assert_eq!(ls(dead.join("by-attr/k/1")), ["e1"]);
    cache.command(&["umount", dead.path().to_str().unwrap()]).ok();
    assert!(common::mountinfo(dead.path()).is_none());
}

/// Each cut is mended by a writer, and every record that was complete is there afterwards.
#[test]
fn a_log_cut_at_every_byte_is_mended() {
    let cache = Cache::new();
    cache.add("e1", 1.0, r#""k": 1"#);
    let before = cache.log_bytes();
    let last = [
        cache.record("e2", 2.0, "\"k\": {\"\u{fc}\": [1, \"}\\n\\u0041\"]}"),
        cache.record("e1", 1.0, r#""k": 2"#),
    ];
    cache.append(&last);
    let whole = cache.log_bytes();
    let ends = [before.len(), before.len() + last[0].len() + 1, whole.len()];
    for cut in before.len()..=whole.len() {
        fs::write(cache.join("_entries"), &whole[..cut]).unwrap();
        let id = cache.command(&["new", &format!("cut={cut}"), "--json"]).ok();
        let id = serde_json::from_str::<Value>(&id).unwrap()["id"].as_str().unwrap().to_owned();
        // A record is complete if its newline is all that is missing.
        let complete = ends.iter().filter(|end| cut + 1 >= **end).count();
        let entries = cache.entries();
        let ids: Vec<_> = entries.iter().map(|(id, _)| id.as_str()).collect();
        let expected = if complete >= 2 { vec!["e1", "e2", &*id] } else { vec!["e1", &*id] };
        assert_eq!(ids, expected, "cut at {cut}");
        assert_eq!(cache.entry("e1")["k"], if complete == 3 { 2 } else { 1 }, "cut at {cut}");
        assert_eq!(cache.entry(&id)["cut"], cut);
        assert!(cache.log_bytes().ends_with(b"\n"));
        // The torn bytes are set aside, never destroyed.
        let aside: Vec<_> = ls(cache.path()).into_iter().filter(|name| name.starts_with("_torn-")).collect();
        let torn = !ends.iter().any(|end| cut == *end || cut + 1 == *end);
        assert_eq!(aside.len(), usize::from(torn), "cut at {cut}: {aside:?}");
        if let Some(name) = aside.first() {
            let start = ends.iter().filter(|end| **end < cut).max().unwrap();
            assert_eq!(fs::read(cache.join(name)).unwrap(), &whole[*start..cut], "cut at {cut}");
            fs::remove_file(cache.join(name)).unwrap();
        }
        fs::remove_dir(cache.join(&id)).unwrap();
    }
}

#[test]
fn a_torn_tail_is_not_shown_and_mended_by_the_first_change_through_the_mount() {
    let cache = Cache::new();
    cache.add("e1", 1.0, r#""k": 1"#);
    cache.append_bytes(br#"{"_id": "/x/e2", "k": 1, "_tim"#);
    let mount = cache.mount();
    assert_eq!(ls(mount.join("entries")), ["e1"]);
    let id = mount.make("k=2");
    assert_eq!(cache.entries().len(), 2);
    assert_eq!(ls(mount.join("by-attr/k/2")), [id.as_str()]);
    // Torn again while mounted: by a program that died.
    cache.append_bytes(br#"{"_id": "/x/e3", "k": 1"#);
    mount.set("e1", "k", "3");
    assert_eq!(cache.entries().len(), 2);
    assert_eq!(cache.entry("e1")["k"], 3);
    // One whose newline alone is missing is a record.
    cache.append_bytes(cache.record("e4", 4.0, r#""k": 4"#).as_bytes());
    mount.set("e1", "k", "5");
    poll("it is there", Duration::from_secs(3), || {
        fs::exists(mount.join("by-attr/k/4/e4")).unwrap().then_some(())
    });
    assert_eq!(cache.entries().len(), 3);
    mount.stop();
}

#[test]
fn nuls_that_a_power_cut_left_are_damage_and_hide_no_record() {
    let cache = Cache::new();
    cache.add("e1", 1.0, r#""k": 1"#);
    cache.append_bytes(&[0; 300]);
    cache.append(&[cache.record("e2", 2.0, r#""k": 2"#)]);
    cache.append_bytes(&[0; 5000]);
    let mount = cache.mount();
    assert_eq!(ls(mount.join("entries")), ["e1", "e2"]);
    assert!(mount.status()["malformed"].as_u64().unwrap() >= 1);
    let id = mount.make("k=3");
    assert_eq!(ls(mount.join("by-attr/k")), ["1", "2", "3"]);
    mount.kill();
    let mount = cache.mount();
    assert_eq!(ls(mount.join("by-attr/k/3")), [id.as_str()]);
    assert_eq!(read(mount.join("count")), "3\n");
    mount.stop();
}

#[test]
fn a_compaction_that_is_killed_leaves_the_old_log_or_the_new() {
    let seed = seed("a_compaction_that_is_killed");
    let mut random = Random(seed);
    let cache = Cache::new();
    let lines: Vec<_> = (0..4000)
        .map(|n| {
            cache.record(&format!("e{}", n % 500), 1.0, &format!(r#""n": {n}, "s": "{}""#, "x".repeat(200)))
        })
        .collect();
    cache.append(&lines);
    let bytes = cache.log_bytes();
    let expected = cache.entries();
    for _ in 0..20 {
        let mut compact = common::start(
            std::process::Command::new(common::binary()).arg("-C").arg(cache.path()).arg("compact"),
        );
        std::thread::sleep(Duration::from_micros(random.next() % 40_000));
        compact.kill();
        drop(compact);
        assert_eq!(cache.entries(), expected);
        fs::write(cache.join("_entries"), &bytes).unwrap();
    }
    cache.command(&["compact"]).ok();
    assert_eq!(cache.entries(), expected);
    assert_eq!(cache.log().lines().count(), 500);
    // What the killed ones left behind is found.
    cache.command(&["check", "--repair"]);
    let left: Vec<_> =
        ls(cache.path()).into_iter().filter(|name| !["_entries", "_lock"].contains(&&**name)).collect();
    assert_eq!(left, [""; 0], "left behind");
}
