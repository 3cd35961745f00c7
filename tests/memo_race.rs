//! Many processes on two mounts claim the same memos: each is made exactly once. `CACHEDIRFS_MEMO_KEYS` sets how many.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::Duration;

use common::{Cache, amount, binary, ls, poll, python, read, run, start};

/// Claims every key in an order of its own; prints `won|found KEY ID`.
const CLAIM: &str = r#"
import os, random, sys
mnt, keys, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
order = list(range(keys))
random.Random(seed).shuffle(order)
# Half of each order is the same, so that claims really meet.
order[: keys // 2] = sorted(order[: keys // 2])
for key in order:
    pairs = [f"key={key}" if seed % 2 else f"key={key}.0", "kind=race"]
    if seed % 3 == 0:
        pairs.reverse()
    path = f"{mnt}/memo/{','.join(pairs)}"
    try:
        os.mkdir(path)
        outcome = "won"
    except FileExistsError:
        outcome = "found"
    with open(path + "/.attrs/_id") as file:
        ident = file.read().strip()
    if outcome == "won":
        with open(path + "/winner", "x") as file:
            file.write(str(seed))
    print(outcome, key, ident)
"#;

#[test]
fn each_key_is_made_exactly_once() {
    let keys: usize = amount("CACHEDIRFS_MEMO_KEYS", 400);
    let cache = Cache::new();
    let mounts = [cache.mount(), cache.mount()];
    let claims: Vec<_> = (0..16)
        .map(|n| {
            let mut command = Command::new(python());
            command.args(["-c", CLAIM]).arg(mounts[n % 2].path()).args([keys.to_string(), n.to_string()]);
            start(&mut command)
        })
        .collect();
    let mut wins = BTreeMap::new();
    let mut ids: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for claim in claims {
        for line in claim.finish(Duration::from_secs(200)).lines() {
            let mut words = line.split(' ');
            let (outcome, key, id) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
            *wins.entry(key.to_owned()).or_insert(0) += usize::from(outcome == "won");
            ids.entry(key.to_owned()).or_default().insert(id.to_owned());
        }
    }
    assert_eq!(wins.len(), keys);
    assert!(wins.values().all(|count| *count == 1), "each is won once: {wins:?}");
    assert!(ids.values().all(|ids| ids.len() == 1), "all find the winner's: {ids:?}");
    assert_eq!(cache.entries().len(), keys);
    let directories = ls(cache.path()).iter().filter(|name| !name.starts_with('_')).count();
    assert_eq!(directories, keys, "no directory of a loser stays behind");
    for mount in mounts {
        poll("both mounts list all", Duration::from_secs(5), || {
            (ls(mount.join("by-attr/kind/race")).len() == keys).then_some(())
        });
        mount.stop();
    }
}

/// Runs a shell script for `k=1`, or waits for who does.
fn memo(cache: &Cache, script: &str) -> Command {
    let mut command = Command::new(binary());
    let words = ["memo", "k=1", "--wait", "--timeout", "60", "--", "sh", "-c", script];
    command.arg("-C").arg(cache.path()).args(words);
    command
}

#[test]
fn the_command_runs_once_among_many_and_the_others_wait() {
    let cache = Cache::new();
    let script = "echo ran >> log; sleep 0.2; echo 42 > result";
    let all: Vec<_> = (0..6).map(|_| start(&mut memo(&cache, script))).collect();
    let lines: BTreeSet<_> = all.into_iter().map(|one| one.finish(Duration::from_secs(90)).ok()).collect();
    assert_eq!(lines.len(), 1, "all report the same entry: {lines:?}");
    let (id, attrs) = cache.entries().remove(0);
    assert_eq!(read(cache.join(&id).join("log")), "ran\n");
    assert_eq!(read(cache.join(&id).join("result")), "42\n");
    assert_eq!(attrs["run"]["status"], 0);
    assert_eq!(cache.entries().len(), 1);
}

#[test]
fn a_killed_winner_is_taken_over_by_one_of_many() {
    let cache = Cache::new();
    let mut winner = start(&mut memo(&cache, "touch started; exec sleep 1000"));
    poll("the winner runs", Duration::from_secs(20), || {
        let entries = cache.entries();
        entries.first().filter(|(id, _)| cache.join(id).join("started").exists()).map(|_| ())
    });
    // Reported, not waited for.
    let busy = run(Command::new(binary()).arg("-C").arg(cache.path()).args(["memo", "k=1", "--", "true"]));
    assert_eq!(busy.status.code(), Some(75), "{busy:?}");
    let waiting: Vec<_> = (0..4).map(|_| start(&mut memo(&cache, "echo again >> log"))).collect();
    winner.kill();
    drop(winner);
    for one in waiting {
        one.finish(Duration::from_secs(90)).ok();
    }
    let (id, _) = cache.entries().remove(0);
    assert_eq!(read(cache.join(id).join("log")), "again\n", "one of them ran it");
}
