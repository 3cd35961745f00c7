//! The command line: mounting and ending, and everything that needs no mount.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::process::Command;
use std::time::Duration;

use common::{Cache, binary, ls, mountinfo, poll, read, run, start};
use serde_json::Value;

fn sweep() -> Cache {
    let cache = Cache::new();
    cache.add("e1", 100.0, r#""lr": 0.1, "model": "resnet18", "loss": 0.5"#);
    cache.add("e2", 200.0, r#""lr": 0.01, "model": "vit-b", "loss": 0.25"#);
    cache.add("e3", 300.0, r#""lr": 0.1, "model": "vit-l""#);
    cache
}

#[test]
fn mount_comes_back_when_it_is_live_and_umount_when_it_is_over() {
    let cache = sweep();
    let scratch = common::scratch();
    let point = scratch.path().join("mnt");
    fs::create_dir(&point).unwrap();
    let log = scratch.path().join("log");
    let (c, p, l) = (cache.path().to_str().unwrap(), point.to_str().unwrap(), log.to_str().unwrap());
    run(Command::new(binary()).args(["mount", c, p, "--log", l])).ok();
    assert!(mountinfo(&point).is_some());
    assert_eq!(ls(point.join("by-attr/lr/0.1")), ["e1", "e3"]);
    let status = run(Command::new(binary()).args(["status", p, "--json"])).ok();
    let status: Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["entries"], 3);
    assert_eq!(status["cache"], c);
    assert!(run(Command::new(binary()).arg("status")).ok().contains(p));
    // Busy.
    let message = run(Command::new(binary()).args(["mount", c, p])).fails();
    assert!(message.contains("busy"), "{message}");
    fs::create_dir(point.join("new/lr=7")).unwrap();
    run(Command::new(binary()).args(["umount", p])).ok();
    assert!(mountinfo(&point).is_none());
    // Its parent may not have taken note of it yet.
    let process = fs::read_to_string(format!("/proc/{}/status", status["pid"])).unwrap_or_default();
    assert!(process.is_empty() || process.contains("State:\tZ"), "the daemon has ended: {process}");
    assert!(log.exists(), "a daemon in the background logs to a file");
    assert_eq!(cache.entries().len(), 4);
    let message = run(Command::new(binary()).args(["umount", p])).fails();
    assert!(message.contains("no cache is mounted"), "{message}");
}

#[test]
fn signals_and_unmounting_end_it_cleanly() {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let cache = sweep();
        let mount = cache.mount();
        let id = mount.make("k=1");
        mount.stop_by(signal);
        assert_eq!(cache.entry(&id)["k"], 1);
    }
    let cache = sweep();
    let mount = cache.mount();
    mount.make("k=1");
    mount.unmount();
    assert_eq!(cache.entries().len(), 4);
    // Still in use: it ends all the same, and the user's shell is told.
    let mount = cache.mount();
    let held = fs::File::open(mount.join("entries/e1")).unwrap();
    mount.stop();
    drop(held);
}

#[test]
fn what_cannot_be_mounted_is_said_plainly() {
    let cache = sweep();
    let scratch = common::scratch();
    let file = scratch.path().join("file");
    fs::write(&file, "").unwrap();
    let full = scratch.path().join("full");
    fs::create_dir_all(full.join("x")).unwrap();
    let empty = scratch.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let mount = |c: &std::path::Path, m: &std::path::Path, more: &[&str]| {
        run(Command::new(binary()).arg("mount").arg(c).arg(m).args(more)).fails()
    };
    assert!(mount(&file, &empty, &[]).contains("not a directory"));
    assert!(mount(&scratch.path().join("none"), &empty, &[]).contains("does not exist"));
    assert!(mount(cache.path(), &full, &[]).contains("not empty"));
    assert!(mount(cache.path(), &file, &[]).contains("not a directory"));
    assert!(mount(cache.path(), &scratch.path().join("none"), &[]).contains("does not exist"));
    assert!(mount(cache.path(), &cache.join("e1"), &[]).contains("inside"));
    assert!(mount(cache.path(), &empty, &["-o", "refresh=soon"]).contains("refresh"));
    assert!(mountinfo(&empty).is_none());
    // Nothing was left running or made.
    assert_eq!(ls(&empty), [""; 0]);
}

#[test]
fn entries_are_made_found_changed_and_removed_without_a_mount() {
    let cache = sweep();
    let made = cache.command(&["new", "lr=0.5", "opt.name=adam", r#"tags=["a"]"#]).ok();
    let id = made.split_whitespace().next().unwrap().to_owned();
    assert!(made.contains(cache.join(&id).to_str().unwrap()), "the id and the path: {made}");
    assert!(cache.join(&id).is_dir());
    let entry = cache.entry(&id);
    assert_eq!(
        (&entry["lr"], &entry["opt"], &entry["tags"]),
        (&0.5.into(), &serde_json::json!({"name": "adam"}), &serde_json::json!(["a"]))
    );

    let find = |args: &[&str]| {
        let mut all = vec!["find"];
        all.extend(args);
        all.extend(["--format", "ids"]);
        cache.command(&all).lines()
    };
    assert_eq!(find(&["lr=0.1"]), ["e1", "e3"]);
    assert_eq!(find(&["lr=0.10", "model=vit-l"]), ["e3"]);
    assert_eq!(find(&["opt.name=adam"]), [id.as_str()]);
    assert_eq!(find(&["loss < 0.4 or lr > 0.4", "--sort", "lr"]), ["e2", id.as_str()]);
    assert_eq!(find(&["model ~ \"vit*\"", "--sort=-lr", "--limit", "1"]), ["e3"]);
    assert_eq!(find(&["none=1"]), [""; 0]);

    cache.command(&["set", "e1", "status=done", "lr=0.2"]).ok();
    assert_eq!(cache.entry("e1")["status"], "done");
    assert_eq!(cache.entry("e1")["lr"], 0.2);
    cache.command(&["unset", "e1", "status"]).ok();
    assert!(!cache.entry("e1").contains_key("status"));
    let shown: Value = serde_json::from_str(&cache.command(&["show", "e1", "--json"]).ok()).unwrap();
    assert_eq!(shown, Value::Object(cache.entry("e1")));
    assert!(cache.command(&["show", "e1"]).ok().contains("resnet18"));
    assert!(cache.command(&["set", "none", "k=1"]).fails().contains("none"));
    assert!(cache.command(&["set", "e1", "_id=1"]).fails().contains("_id"));
    assert!(cache.command(&["show", "none"]).fails().contains("none"));
    cache.command(&["rm", &id]).ok();
    assert!(!cache.join(&id).exists());
    assert_eq!(cache.entries().len(), 3);
    let before = cache.log();
    cache.command(&["set", "--where", "lr <= 0.1", "mark=1", "--dry-run"]).ok();
    assert_eq!(cache.log(), before);
    cache.command(&["set", "--where", "lr <= 0.1", "mark=1"]).ok();
    assert_eq!(cache.entries().iter().filter(|(_, attrs)| attrs.get("mark") == Some(&1.into())).count(), 2);
    cache.command(&["unset", "--where", "has(mark)", "mark"]).ok();
    assert!(cache.entries().iter().all(|(_, attrs)| !attrs.contains_key("mark")));
}

#[test]
fn tables_values_schema_and_differences() {
    let cache = sweep();
    let csv = cache.command(&["find", "--format", "csv"]).lines();
    assert_eq!(csv.len(), 4);
    assert!(csv[0].starts_with("_id,_timestamp,"), "{csv:?}");
    let jsonl = cache.command(&["find", "lr=0.1", "--json"]).lines();
    assert_eq!(jsonl.len(), 2);
    assert!(jsonl.iter().all(|line| serde_json::from_str::<Value>(line).unwrap()["lr"] == 0.1));
    let values = cache.command(&["values", "model"]).ok();
    for model in ["resnet18", "vit-b", "vit-l"] {
        assert!(values.contains(model), "{values}");
    }
    let schema: Value = serde_json::from_str(&cache.command(&["schema", "--json"]).ok()).unwrap();
    assert!(schema.to_string().contains("loss"), "{schema}");
    let diff = cache.command(&["diff", "e1", "e2"]).ok();
    assert!(diff.contains("resnet18") && diff.contains("vit-b") && diff.contains("0.25"), "{diff}");
    let same = cache.command(&["diff", "e1", "e3"]).ok();
    assert!(!same.contains("0.1\n"), "only what differs: {same}");
}

#[test]
fn a_syntax_error_points_at_the_column() {
    let cache = sweep();
    for (expression, column) in
        [("lr < ", 6), ("lr < 0.1 and and", 14), ("(lr < 1", 8), ("has(", 5), ("lr ! 3", 4)]
    {
        let message = cache.command(&["find", expression]).fails();
        assert!(message.contains(&column.to_string()), "{expression}: {message}");
        assert!(message.contains("expected"), "{expression}: {message}");
    }
}

/// The lines of the log that are records.
fn records(cache: &Cache) -> Vec<String> {
    cache.log().lines().filter(|line| line.contains("_timestamp")).map(str::to_owned).collect()
}

#[test]
fn check_finds_every_irregularity_and_repair_mends() {
    let cache = sweep();
    cache.command(&["check"]).ok();
    cache.append(&["no json", r#"{"k": 1}"#]);
    fs::create_dir(cache.join("unsaved")).unwrap();
    fs::remove_dir(cache.join("e2")).unwrap();
    cache.append_bytes(br#"{"_id": "/x/torn"#);
    let check = cache.command(&["check"]);
    assert_eq!(check.status.code(), Some(1));
    let text = String::from_utf8(check.stdout.clone()).unwrap();
    for found in ["4", "5", "unsaved", "e2"] {
        assert!(text.contains(found), "{found}: {text}");
    }
    let before = records(&cache);
    cache.command(&["check", "--repair"]);
    assert_eq!(records(&cache), before);
    assert!(cache.log().lines().all(|line| line.starts_with(r#"{"_id": "#)), "only records are left");
    let aside: String = ls(cache.path())
        .iter()
        .filter(|name| name.starts_with("_torn-"))
        .map(|name| read(cache.join(name)) + "\n")
        .collect();
    for kept in ["no json", r#"{"k": 1}"#, r#"{"_id": "/x/torn"#] {
        assert!(aside.lines().any(|line| line == kept), "set aside, not destroyed: {kept}: {aside}");
    }
}

#[test]
fn compact_leaves_one_record_an_entry_in_order() {
    let cache = sweep();
    for n in 0..10 {
        cache.append(&[cache.record("e2", 200.0, &format!(r#""n": {n}"#))]);
    }
    cache.command(&["compact"]).ok();
    let ids: Vec<_> = cache.entries().into_iter().map(|(id, _)| id).collect();
    assert_eq!(ids, ["e1", "e2", "e3"]);
    assert_eq!(cache.log().lines().count(), 3);
    assert_eq!(cache.entry("e2")["n"], 9);
}

#[test]
fn a_mount_follows_the_command_line_and_a_compaction() {
    let cache = sweep();
    let mount = cache.mount();
    let soon = Duration::from_secs(3);
    cache.command(&["set", "e1", "status=done"]).ok();
    poll("the change is seen", soon, || {
        fs::exists(mount.join("by-attr/status/done/e1")).unwrap().then_some(())
    });
    cache.command(&["rm", "e3"]).ok();
    poll("the deletion is seen", soon, || (ls(mount.join("entries")) == ["e1", "e2"]).then_some(()));
    cache.command(&["compact"]).ok();
    mount.set("e2", "k", "1");
    assert_eq!(ls(mount.join("by-attr/lr")), ["0.01", "0.1"]);
    assert_eq!(mount.get("e1", "status"), "done");
    assert_eq!(cache.entries().len(), 2);
    // From inside the mount, it finds its cache.
    let id = run(Command::new(binary())
        .args(["find", "--format", "ids", "k=1"])
        .current_dir(mount.join("entries/e1")))
    .ok();
    assert_eq!(id, "e2\n");
    mount.stop();
}

#[test]
fn memo_runs_once_and_reports_the_winner() {
    let cache = Cache::new();
    let memo = |more: &[&str]| {
        let mut args = vec!["memo", "lr=0.1", "seed=1"];
        args.extend(more);
        cache.command(&args)
    };
    memo(&["--", "sh", "-c", "echo ran >> log; pwd > where"]).ok();
    memo(&["--", "sh", "-c", "echo ran >> log"]).ok();
    let entries = cache.entries();
    assert_eq!(entries.len(), 1);
    let (id, _) = &entries[0];
    assert_eq!(read(cache.join(id).join("log")), "ran\n", "once");
    assert_eq!(read(cache.join(id).join("where")).trim_end(), cache.join(id).to_str().unwrap());
    // A run that fails is taken over by the next.
    let fail = |script: &str| cache.command(&["memo", "lr=0.2", "--", "sh", "-c", script]);
    assert!(!fail("echo a >> log; exit 3").status.success());
    fail("echo b >> log").ok();
    fail("echo c >> log").ok();
    let id = cache.command(&["find", "lr=0.2", "--format", "ids"]).ok().trim().to_owned();
    assert_eq!(read(cache.join(id).join("log")), "a\nb\n");
}

#[test]
fn a_memo_whose_winner_was_killed_is_taken_over() {
    let cache = Cache::new();
    let mut first = start(Command::new(binary()).arg("-C").arg(cache.path()).args([
        "memo",
        "k=1",
        "--",
        "sh",
        "-c",
        "touch started; exec sleep 1000",
    ]));
    poll("the first one runs", Duration::from_secs(10), || {
        cache.entries().first().is_some_and(|(id, _)| cache.join(id).join("started").exists()).then_some(())
    });
    first.kill();
    drop(first);
    cache.command(&["memo", "k=1", "--wait", "--timeout", "20", "--", "touch", "taken-over"]).ok();
    assert_eq!(cache.entries().len(), 1);
    let (id, _) = &cache.entries()[0];
    assert!(cache.join(id).join("taken-over").exists());
}

#[test]
fn the_trash_is_listed_restored_and_emptied() {
    let cache = sweep();
    fs::write(cache.join("e1/out"), "kept").unwrap();
    cache.command(&["rm", "--trash", "e1"]).ok();
    cache.command(&["rm", "--trash", "e2"]).ok();
    assert_eq!(cache.entries().len(), 1);
    let list = cache.command(&["trash", "list"]).ok();
    assert!(list.contains("e1") && list.contains("e2"), "{list}");
    cache.command(&["trash", "restore", "e1"]).ok();
    assert_eq!(read(cache.join("e1/out")), "kept");
    assert_eq!(cache.entry("e1")["model"], "resnet18");
    cache.command(&["trash", "empty", "--older-than", "1d"]).ok();
    assert!(cache.command(&["trash", "list"]).ok().contains("e2"), "too young");
    cache.command(&["trash", "empty"]).ok();
    assert!(!cache.command(&["trash", "list"]).ok().contains("e2"));
    assert!(!cache.join("_trash/e2").exists());
}

#[test]
fn help_and_versions_are_there_and_nonsense_is_refused() {
    for args in [&["--help"][..], &["--version"], &["mount", "--help"], &["memo", "--help"]] {
        assert!(!run(Command::new(binary()).args(args)).ok().is_empty());
    }
    for args in [&[][..], &["nonsense"], &["mount"], &["find", "--nonsense"], &["new", "=1"], &["new", "a"]] {
        let cache = Cache::new();
        assert!(!cache.command(args).fails().is_empty());
    }
}
