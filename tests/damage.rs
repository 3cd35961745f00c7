//! Damage of every kind, anywhere in the log: it hides nothing that is whole, `check` finds it, and `check --repair` takes it
//! out, after a copy of the log as it was. Nothing is silently dropped.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use common::{Cache, Random, amount, ls, poll, seed};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(20);

/// What `check` finds, but for what is only worth knowing.
fn findings(cache: &Cache) -> Vec<Value> {
    let checked = cache.command(&["check", "--json"]);
    let text = String::from_utf8(checked.stdout).unwrap();
    let found: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|finding| finding["note"] == false)
        .collect();
    assert_eq!(checked.status.success(), found.is_empty(), "the exit status tells: {text}");
    found
}

/// The entries that are shown, with their attribute `n`.
fn shown(cache: &Cache) -> BTreeMap<String, i64> {
    let mount = cache.mount_with("ro");
    let table = common::read(mount.join("table.jsonl"));
    mount.stop();
    table
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .map(|line| {
            let id = line["_id"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
            (id, line["n"].as_i64().unwrap_or(-1))
        })
        .collect()
}

fn names(cache: &Cache, prefix: &str) -> Vec<String> {
    ls(cache.path()).into_iter().filter(|name| name.starts_with(prefix)).collect()
}

/// A cache of whole records with damage between the second and the third, or at the end.
fn damaged(damage: &[u8], at_end: bool) -> Cache {
    let cache = Cache::new();
    let mut log = Vec::new();
    for n in 0..4 {
        fs::create_dir(cache.join(format!("e{n}"))).unwrap();
        if n == 2 && !at_end {
            log.extend_from_slice(damage);
        }
        log.extend_from_slice(cache.record(&format!("e{n}"), 1.0, &format!(r#""n": {n}"#)).as_bytes());
        log.push(b'\n');
    }
    if at_end {
        log.extend_from_slice(damage);
    }
    fs::write(cache.join("_entries"), log).unwrap();
    cache
}

/// Whether all bytes of some damage are in files that were set aside, where each stretch of one kind is a line.
fn is_set_aside(cache: &Cache, damage: &[u8]) -> bool {
    let aside: Vec<u8> =
        names(cache, "_torn-").iter().flat_map(|name| fs::read(cache.join(name)).unwrap()).collect();
    let nuls = |bytes: &[u8]| memchr::memchr_iter(0, bytes).count();
    nuls(&aside) >= nuls(damage)
        && damage
            .split(|byte| matches!(byte, b'\n' | 0))
            .all(|piece| memchr::memmem::find(&aside, piece).is_some())
}

#[test]
fn every_kind_of_damage_is_found_and_mended_and_nothing_is_dropped() {
    let deep = format!(r#"{{"_id": "/x/deep", "n": {}1{}}}"#, "[".repeat(200), "]".repeat(200));
    let huge = "y".repeat(70 << 20);
    let torn = r#"{"_id": "/x/torn", "lr": 0."#;
    let kinds: Vec<(&str, Vec<u8>)> = vec![
        ("torn, with a newline", format!("{torn}\n").into()),
        ("torn, in front of a good record", torn.into()),
        ("NULs in front of a good record", vec![0; 5000]),
        ("NULs, with a newline", [vec![0; 300], b"\n".to_vec()].concat()),
        ("a page of NULs over several records", [torn.as_bytes(), &[0; 4096], b"tail\"}\n"].concat()),
        ("not JSON", b"no object\n".to_vec()),
        ("an array", b"[1, 2]\n".to_vec()),
        ("an object without an id", b"{\"n\": 7}\n".to_vec()),
        ("an id that cannot be", b"{\"_id\": \"/x/..\", \"n\": 7}\n".to_vec()),
        ("an id that is no string", b"{\"_id\": 7}\n".to_vec()),
        ("not UTF-8", b"{\"_id\": \"/x/b\xff\xfe\", \"n\": 7}\n".to_vec()),
        ("binary", (0..=255).filter(|byte| *byte != b'\n').chain([b'\n']).collect()),
        ("nested too deeply", format!("{deep}\n").into()),
        ("a line that is too long for memory", format!("{huge}\n").into()),
        ("the end of another file", b"end of something\"}\n{\"half\": \n".to_vec()),
    ];
    for (kind, damage) in &kinds {
        for at_end in [false, true] {
            let what = format!("{kind}, at the end: {at_end}");
            let cache = damaged(damage, at_end);
            let before = cache.log_bytes();
            let all: BTreeMap<_, _> = (0..4_i64).map(|n| (format!("e{n}"), n)).collect();
            assert_eq!(shown(&cache), all, "{what}: it hides nothing that is whole");
            let found = findings(&cache);
            assert!(!found.is_empty(), "{what}: not found");
            assert_eq!(cache.log_bytes(), before, "{what}: looking changes nothing");
            assert!(found.iter().all(|finding| finding["line"].is_u64()), "{what}: {found:?}");

            // Compaction keeps it: it is not silently dropped.
            if !at_end {
                cache.command(&["compact"]).ok();
                let kept = cache.log_bytes();
                let piece = damage.strip_suffix(b"\n").unwrap_or(damage);
                let there = piece
                    .split(|byte| *byte == b'\n')
                    .all(|line| memchr::memmem::find(&kept, line).is_some());
                assert!(there, "{what}: dropped by compaction");
                assert_eq!(shown(&cache), all, "{what}");
                fs::write(cache.join("_entries"), &before).unwrap();
            }

            cache.command(&["check", "--repair"]).ok();
            assert_eq!(findings(&cache), [] as [Value; 0], "{what}: after the repair");
            assert_eq!(shown(&cache), all, "{what}: after the repair");
            let text = cache.entries();
            assert_eq!(text.len(), 4, "{what}: a plain reader reads every line");
            assert!(is_set_aside(&cache, damage), "{what}: destroyed");
            let copies = names(&cache, "_backup-");
            if !at_end {
                assert_eq!(copies.len(), 1, "{what}");
                assert_eq!(fs::read(cache.join(&copies[0])).unwrap(), before, "{what}: the copy");
            }
            // A second repair has nothing to do, and the cache goes on.
            cache.command(&["check", "--repair"]).ok();
            assert_eq!(names(&cache, "_backup-"), copies, "{what}");
            let mount = cache.mount();
            mount.set("e1", "n", "11");
            let id = mount.make("n=5");
            mount.stop();
            assert_eq!((&cache.entry("e1")["n"], &cache.entry(&id)["n"]), (&11.into(), &5.into()), "{what}");
        }
    }
}

/// Bytes are flipped, taken out, put in or zeroed at random places: every record whose bytes are untouched counts.
#[test]
fn random_damage_hides_nothing_that_is_whole() {
    // Names that no flipped bit makes into each other.
    let id = |n: usize| format!("e{:016x}", Random(u64::try_from(n).unwrap()).next());
    let seed = seed("random_damage");
    let mut random = Random(seed);
    for round in 0..amount("CACHEDIRFS_DAMAGE_ROUNDS", 25) {
        let cache = Cache::new();
        // One record an entry, so that a spoilt one is missing and never an older one in its place.
        let lines: Vec<Vec<u8>> = (0..60)
            .map(|n| {
                fs::create_dir(cache.join(id(n))).unwrap();
                let padding = "p".repeat(random.below(200));
                let line = cache.record(&id(n), 1.0, &format!(r#""n": {n}, "s": "{padding}""#));
                [line.as_bytes(), b"\n"].concat()
            })
            .collect();
        let mut spoilt = BTreeSet::new();
        let mut damaged = lines.clone();
        for _ in 0..=random.below(6) {
            let n = random.below(lines.len());
            spoilt.insert(n);
            let line = &mut damaged[n];
            if line.is_empty() {
                continue;
            }
            let at = random.below(line.len());
            let len = random.below(line.len() - at) + 1;
            match random.below(5) {
                0 => line[at] ^= 1 << random.below(8),
                1 => line[at..at + len].fill(0),
                2 => drop(line.drain(at..at + len)),
                3 => drop(line.splice(at..at, (0..len).map(|i| u8::try_from(i % 256).unwrap()))),
                _ => line.truncate(at),
            }
        }
        let log = damaged.concat();
        fs::write(cache.join("_entries"), &log).unwrap();
        let whole: BTreeMap<String, i64> = (0..lines.len())
            .filter(|n| !spoilt.contains(n))
            // What stands directly behind a line that lost its end is searched for, and found if it is whole.
            .map(|n| (id(n), i64::try_from(n).unwrap()))
            .collect();
        let what = format!("seed {seed}, round {round}, spoilt {spoilt:?}");
        let first = shown(&cache);
        let missing: Vec<_> = whole.iter().filter(|(id, n)| first.get(*id) != Some(n)).collect();
        assert!(missing.is_empty(), "{what}: {missing:?} are whole and not shown");
        let gone = (0..lines.len()).filter(|n| !first.contains_key(&id(*n))).count();
        assert!(gone == 0 || !findings(&cache).is_empty(), "{what}: silently dropped");
        let _ = cache.command(&["check", "--repair"]);
        let second = shown(&cache);
        let at =
            |shown: &BTreeMap<String, i64>| whole.keys().map(|id| shown.get(id).copied()).collect::<Vec<_>>();
        assert_eq!(at(&first), at(&second), "{what}");
        assert!(second.len() >= first.len(), "{what}: the repair lost an entry");
        // Ids that the damage made have no directory, and the entries that it took have no record: nothing else is left.
        for finding in findings(&cache) {
            assert_eq!(finding["kind"], "unsaved", "{what}: {finding}");
        }
        cache.entries();
        // Each byte of the log as it was is somewhere yet.
        let backups = names(&cache, "_backup-");
        let kept = backups.iter().any(|name| log.starts_with(&fs::read(cache.join(name)).unwrap()));
        assert!(kept || cache.log_bytes() == log || backups.is_empty(), "{what}");
        if backups.is_empty() {
            let torn: usize =
                names(&cache, "_torn-").iter().map(|name| fs::read(cache.join(name)).unwrap().len()).sum();
            assert!(cache.log_bytes().len() + torn >= log.len(), "{what}: bytes are missing");
        }
    }
}

/// What is not in the log: temporary files, directories of deleted entries, moves to the trash that were interrupted, things
/// where they do not belong.
#[test]
fn what_is_left_beside_the_log_is_found_and_mended() {
    let cache = Cache::new();
    for n in 0..4 {
        cache.add(&format!("e{n}"), 1.0, &format!(r#""n": {n}"#));
    }
    assert_eq!(findings(&cache), [] as [Value; 0]);
    let kind_of = |cache: &Cache, name: &str| {
        findings(cache)
            .iter()
            .find(|finding| finding["place"].as_str() == Some(name))
            .map(|f| f["kind"].clone())
    };
    fs::write(cache.join("_entries.tmp-4242"), "half a log").unwrap();
    cache.append(&[format!(
        r#"{{"_id": "{}/gone", "_deleted": true, "_timestamp": 1.0}}"#,
        cache.path().display()
    )]);
    fs::create_dir(cache.join("gone")).unwrap();
    fs::create_dir(cache.join("_trash")).unwrap();
    let record = cache.record("e3", 1.0, r#""n": 3"#);
    // The record of an entry was written to the trash, and then nothing more happened.
    fs::write(cache.join("_trash/e3.json"), record + "\n").unwrap();
    fs::create_dir(cache.join("unsaved")).unwrap();
    fs::write(cache.join("unsaved/precious"), "x").unwrap();
    for (name, kind) in [
        ("_entries.tmp-4242", "temporary"),
        ("gone", "deleted"),
        ("_trash/e3.json", "trash"),
        ("unsaved", "unsaved"),
    ] {
        assert_eq!(kind_of(&cache, name).unwrap_or_default(), kind, "{name}");
    }
    let _ = cache.command(&["check", "--repair"]);
    let left = findings(&cache);
    // Contents are never removed by a guess: a program may be about to save them.
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(left[0]["kind"], "unsaved");
    assert_eq!(common::read(cache.join("unsaved/precious")), "x");
    assert_eq!(shown(&cache).len(), 4);
    assert_eq!(ls(cache.join("_trash")), [""; 0]);
}

/// Damage that comes while the cache is mounted, in the midst of the log.
#[test]
fn damage_while_mounted_hides_nothing_that_is_whole() {
    let cache = Cache::new();
    for n in 0..20 {
        cache.add(&format!("e{n}"), 1.0, &format!(r#""n": {n}"#));
    }
    let mount = cache.mount();
    assert_eq!(ls(mount.join("entries")).len(), 20);
    cache.append_bytes(b"\0\0\0\0{\"_id\": \"/x/torn\", \"n\"\n");
    cache.add("later", 1.0, r#""n": 99"#);
    poll("the entry behind it", SOON, || fs::exists(mount.join("by-attr/n/99/later")).unwrap().then_some(()));
    assert!(mount.status()["malformed"].as_u64().unwrap() >= 1);
    mount.set("e3", "n", "33");
    assert!(!findings(&cache).is_empty());
    cache.command(&["check", "--repair"]).ok();
    poll("the repair is seen", SOON, || (mount.status()["malformed"] == 0).then_some(()));
    assert_eq!(ls(mount.join("entries")).len(), 21);
    mount.set("e4", "n", "44");
    assert_eq!(mount.get("e3", "n"), "33");
    mount.stop();
    assert_eq!(cache.entries().len(), 21);
}
