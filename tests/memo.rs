//! `cachedirfs memo`: once, whoever asks, and never stuck.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::process::Command;
use std::time::Duration;

use common::{Cache, binary, run, start};

const LONG: Duration = Duration::from_secs(60);

fn memo(cache: &Cache, args: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.arg("-C").arg(cache.path()).arg("memo").args(args);
    command
}

#[test]
fn the_command_runs_once_in_the_entrys_directory() {
    let cache = Cache::new();
    let script = "echo said; echo $CACHEDIRFS_ID > id; pwd -P > where; echo x >> runs";
    let first = run(&mut memo(&cache, &["lr=0.1", "seed=1", "--", "sh", "-c", script]));
    assert!(first.stderr.contains("said"), "the command's output is on standard error: {}", first.stderr);
    let first = first.ok();
    let (id, path) = first.trim_end().split_once('\t').unwrap();
    assert_eq!(common::read(cache.join(id).join("id")).trim(), id);
    assert_eq!(common::read(cache.join(id).join("where")).trim(), path);
    // Another spelling, another order.
    let again = run(&mut memo(&cache, &["seed=1.0", "lr=0.10", "--", "sh", "-c", script])).ok();
    assert_eq!(again, first);
    assert_eq!(common::read(cache.join(id).join("runs")), "x\n");
    let entry = cache.entry(id);
    assert_eq!((&entry["lr"], &entry["run"]["status"]), (&0.1.into(), &0.into()));
    assert!(entry["run"]["end"].as_f64() >= entry["run"]["start"].as_f64());
    assert!(entry["run"]["host"].is_string() && entry["run"]["pid"].is_u64());
    assert_eq!(cache.entries().len(), 1);
    cache.command(&["check"]).ok();
}

#[test]
fn a_failed_run_is_told_marked_and_taken_over() {
    let cache = Cache::new();
    let failed = run(&mut memo(&cache, &["a=1", "--", "sh", "-c", "exit 7"]));
    assert_eq!(failed.status.code(), Some(7));
    let id = cache.entries()[0].0.clone();
    assert_eq!(cache.entry(&id)["run"]["status"], 7);
    let again = run(&mut memo(&cache, &["a=1", "--", "true"])).ok();
    assert!(again.starts_with(&id));
    assert_eq!(cache.entry(&id)["run"]["status"], 0);
    let missing = run(&mut memo(&cache, &["b=1", "--", "/no/such/program"]));
    assert!(missing.fails().contains("/no/such/program"));
}

#[test]
fn who_does_not_wait_is_told_that_it_runs_elsewhere() {
    let cache = Cache::new();
    let winner =
        start(&mut memo(&cache, &["a=1", "--", "sh", "-c", "while [ ! -e go ]; do sleep 0.01; done"]));
    let id = common::poll("a claim", LONG, || cache.entries().first().map(|entry| entry.0.clone()));
    let told = run(&mut memo(&cache, &["a=1", "--", "true"]));
    assert_eq!(told.status.code(), Some(75));
    assert!(told.stderr.contains("running elsewhere"), "{}", told.stderr);
    let told = run(&mut memo(&cache, &["a=1", "--wait", "--timeout", "0.3", "--", "true"]));
    assert_eq!(told.status.code(), Some(75));
    let waiting = start(&mut memo(&cache, &["a=1", "--wait", "--", "false"]));
    std::fs::write(cache.join(&id).join("go"), "").unwrap();
    winner.finish(LONG).ok();
    assert!(waiting.finish(LONG).ok().starts_with(&id));
}

#[test]
fn a_killed_winner_is_taken_over_and_its_command_ended() {
    let cache = Cache::new();
    let mut winner = start(&mut memo(&cache, &["a=1", "--", "sh", "-c", "echo $$ > pid; exec sleep 1000"]));
    let id = common::poll("a claim", LONG, || cache.entries().first().map(|entry| entry.0.clone()));
    let pid = common::poll("a run", LONG, || {
        std::fs::read_to_string(cache.join(&id).join("pid")).ok().filter(|text| text.ends_with('\n'))
    });
    // Only the process itself, as the out-of-memory killer does.
    // SAFETY: a child of ours that has not been waited for.
    unsafe { libc::kill(winner.pid(), libc::SIGKILL) };
    common::poll("the end", LONG, || winner.ended().then_some(()));
    common::poll("the end of its command", LONG, || {
        (!std::path::Path::new("/proc").join(pid.trim()).join("cmdline").exists()
            || std::fs::read(format!("/proc/{}/cmdline", pid.trim())).is_ok_and(|line| line.is_empty()))
        .then_some(())
    });
    let taken = run(&mut memo(&cache, &["a=1", "--", "sh", "-c", "echo mine > result"])).ok();
    assert!(taken.starts_with(&id));
    assert_eq!(common::read(cache.join(&id).join("result")), "mine\n");
    assert_eq!(cache.entry(&id)["run"]["status"], 0);
}

#[test]
fn an_entry_that_somebody_else_made_counts_as_done() {
    let cache = Cache::new();
    cache.add("e1", 1.0, r#""lr": 0.1, "loss": 0.5"#);
    assert!(run(&mut memo(&cache, &["lr=0.1", "--", "false"])).ok().starts_with("e1\t"));
    let out = run(&mut memo(&cache, &["lr=0.1", "--json", "--", "false"])).ok();
    let out: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&out["id"], &out["ran"]), (&"e1".into(), &false.into()));
}
