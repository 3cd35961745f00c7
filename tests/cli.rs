//! The command line, more closely: what is printed, what is refused, which cache is meant.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use common::{Cache, binary, run};
use serde_json::Value;

/// Three entries: `e1` (0.1, done), `e2` (0.2, running), `e3` (0.1, failed, no loss).
fn three() -> Cache {
    let cache = Cache::new();
    cache.add("e1", 1.0, r#""lr": 0.1, "loss": 0.5, "status": "done", "opt": {"name": "adam"}"#);
    cache.add("e2", 2.0, r#""lr": 0.2, "loss": 0.25, "status": "running", "tags": ["a", "b"]"#);
    cache.add("e3", 3.0, r#""lr": 1e-1, "status": "failed", "note": "two words""#);
    cache
}

fn json(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

#[test]
fn pairs_that_cannot_be_make_nothing() {
    let cache = Cache::new();
    for (pairs, said) in [
        (&["lr"][..], "lr"),
        (&["=1"], "=1"),
        (&["_id=x"], "_id"),
        (&["a=1", "a.b=2"], "a.b"),
        (&["$=1"], "$"),
    ] {
        let finished = cache.command(&[&["new"], pairs].concat());
        assert_eq!(finished.status.code(), Some(2), "{pairs:?}");
        assert!(finished.fails().contains(said), "{pairs:?}");
    }
    assert_eq!(cache.log(), "");
    assert!(common::ls(cache.path()).iter().all(|name| name.starts_with('_')));
}

#[test]
fn find_prints_for_people_and_programs() {
    let cache = three();
    let objects = json(&cache.command(&["find", "--json", "lr=0.1"]).ok());
    assert_eq!(objects.len(), 2);
    assert_eq!(objects[0]["loss"], 0.5);
    let csv = cache.command(&["find", "--format", "csv", "has(loss)", "--sort", "loss"]).ok();
    let rows: Vec<&str> = csv.split("\r\n").collect();
    assert!(rows[0].starts_with("_id,_timestamp,"), "{csv}");
    assert!(rows[0].contains("opt.name"), "{csv}");
    assert!(rows[1].starts_with("e2,2.0,"), "{csv}");
    let table = cache.command(&["find"]).lines();
    assert!(table[0].starts_with("_id  _timestamp"), "{table:?}");
    assert!(table[1].contains("adam") && table[3].contains("two words"), "{table:?}");
    // Columns are aligned.
    let at = table[0].find("loss").unwrap();
    assert!(table[1][at..].starts_with("0.5") && table[2][at..].starts_with("0.25"), "{table:?}");
}

#[test]
fn a_syntax_error_is_shown_with_its_column() {
    let cache = three();
    let finished = cache.command(&["find", "loss < 0.5 adn lr = 1"]);
    assert_eq!(finished.status.code(), Some(2));
    let message = finished.fails();
    let lines: Vec<&str> = message.lines().collect();
    let text = lines.iter().position(|line| line.contains("loss < 0.5 adn")).unwrap();
    assert_eq!(lines[text + 1].find('^'), lines[text].find("adn"), "{message}");
    assert!(message.contains("expected"), "{message}");
}

#[test]
fn set_and_unset_change_one_entry() {
    let cache = three();
    cache.command(&["set", "e1", "loss=0.4", "opt.lr=1"]).ok();
    assert_eq!(cache.entry("e1")["loss"], 0.4);
    assert_eq!(cache.entry("e1")["opt"], serde_json::json!({"name": "adam", "lr": 1}));
    assert_eq!(cache.entry("e1")["_timestamp"], 1.0, "the time an entry was made stays");
    cache.command(&["unset", "e1", "opt.name", "opt.lr"]).ok();
    assert!(!cache.entry("e1").contains_key("opt"));
    assert!(cache.command(&["unset", "e1", "nothing"]).fails().contains("no such key"));
    assert!(cache.command(&["set", "e9", "a=1"]).fails().contains("e9"));
    // A path that ends in the id does, as `new` prints it.
    cache.command(&["set", cache.join("e2").to_str().unwrap(), "status=done"]).ok();
    assert_eq!(cache.entry("e2")["status"], "done");
}

#[test]
fn set_changes_every_match_and_counts_before() {
    let cache = three();
    let before = cache.log();
    let out = cache.command(&["set", "--where", "lr=0.1", "--dry-run", "group=1"]).lines();
    assert_eq!(out, ["2 entries", "e1", "e3"]);
    assert_eq!(cache.log(), before);
    assert_eq!(cache.command(&["set", "--where", "lr=0.1", "group=1"]).ok(), "2 entries\n");
    assert_eq!((&cache.entry("e1")["group"], &cache.entry("e3")["group"]), (&1.into(), &1.into()));
    assert!(!cache.entry("e2").contains_key("group"));
    let out = json(&cache.command(&["unset", "--json", "--where", "has(lr)", "group"]).ok());
    assert_eq!((&out[0]["matched"], &out[0]["changed"]), (&3.into(), &2.into()));
    assert!(!cache.log().lines().last().unwrap().contains("group"));
}

#[test]
fn show_diff_values_and_schema() {
    let cache = three();
    let shown = cache.command(&["show", "e1"]).ok();
    assert!(shown.contains("opt.name") && shown.contains(cache.join("e1").to_str().unwrap()), "{shown}");
    assert_eq!(json(&cache.command(&["show", "--json", "e1", "e2"]).ok())[1]["loss"], 0.25);

    let differences = json(&cache.command(&["diff", "--json", "e1", "e3"]).ok());
    let keys: Vec<&String> = differences[0].as_object().unwrap().keys().collect();
    assert!(!keys.iter().any(|key| *key == "lr"), "equal numbers do not differ: {keys:?}");
    assert_eq!(differences[0]["status"], serde_json::json!({"e1": "done", "e3": "failed"}));
    assert_eq!(differences[0]["loss"], serde_json::json!({"e1": 0.5}));

    assert_eq!(cache.command(&["values", "lr"]).lines(), ["0.1  2", "0.2  1"]);
    assert_eq!(cache.command(&["values", "lr", "status=done"]).lines(), ["0.1  1"]);
    assert_eq!(cache.command(&["values", "tags[]"]).lines(), ["a  1", "b  1"]);
    let schema: Value = serde_json::from_str(&cache.command(&["schema", "--json"]).ok()).unwrap();
    assert_eq!(schema["keys"]["loss"]["max"], 0.5);
    assert!(cache.command(&["schema"]).ok().contains("opt.name"));
}

#[test]
fn check_names_every_irregularity_and_repair_loses_nothing() {
    let cache = three();
    cache.command(&["check"]).ok();
    cache.append_bytes(b"not json\n\n[1]\n{\"no\": \"id\"}\n");
    std::fs::create_dir(cache.join("e_unsaved")).unwrap();
    cache.append_bytes(br#"{"_id": "/x/e4", "lr": "#);
    let finished = cache.command(&["check"]);
    assert_eq!(finished.status.code(), Some(1));
    let out = String::from_utf8(finished.stdout).unwrap();
    for place in ["_entries:4: ", "_entries:6: ", "_entries:7: ", "_entries:8: ", "e_unsaved: "] {
        assert!(out.contains(place), "{place} in\n{out}");
    }
    let findings = cache.command(&["check", "--json"]);
    assert!(
        json(&String::from_utf8(findings.stdout).unwrap()).iter().any(|finding| finding["kind"] == "torn")
    );

    let repaired = cache.command(&["check", "--repair"]);
    assert_eq!(repaired.status.code(), Some(1), "the unsaved directory stays: {}", repaired.stderr);
    std::fs::remove_dir(cache.join("e_unsaved")).unwrap();
    cache.command(&["check"]).ok();
    assert_eq!(cache.entries().len(), 3);
    let aside: String = common::ls(cache.path())
        .iter()
        .filter(|name| name.starts_with("_torn-"))
        .map(|name| common::read(cache.join(name)))
        .collect();
    for bytes in ["not json", "[1]", "{\"no\": \"id\"}", "\"/x/e4\""] {
        assert!(aside.contains(bytes), "{bytes} in {aside}");
    }
}

#[test]
fn interrupted_moves_to_and_from_the_trash_are_mended() {
    let move_half = |what: &dyn Fn(&Cache)| {
        let cache = three();
        std::fs::write(cache.join("e1/model"), "weights").unwrap();
        what(&cache);
        assert_eq!(cache.command(&["check"]).status.code(), Some(1));
        assert_eq!(cache.command(&["check", "--repair"]).status.code(), Some(0));
        cache
    };
    let record = |cache: &Cache| {
        std::fs::create_dir_all(cache.join("_trash")).unwrap();
        let line = cache.log().lines().find(|line| line.contains("/e1\"")).unwrap().to_owned();
        std::fs::write(cache.join("_trash/e1.json"), line + "\n").unwrap();
    };
    let delete = |cache: &Cache| {
        let id = cache.join("e1");
        cache.append(&[format!(r#"{{"_id": "{}", "_timestamp": 9.0, "_deleted": true}}"#, id.display())]);
    };
    // The record is in the trash, the entry still live.
    let cache = move_half(&record);
    assert_eq!(cache.entries().len(), 3);
    assert!(!cache.join("_trash/e1.json").exists());
    // Deleted, the directory not moved; and, the same, on the way back.
    let cache = move_half(&|cache| {
        record(cache);
        delete(cache);
    });
    assert_eq!(cache.entries().len(), 2);
    assert_eq!(common::read(cache.join("_trash/e1/model")), "weights");
    cache.command(&["trash", "restore", "e1"]).ok();
    assert_eq!(common::read(cache.join("e1/model")), "weights");
    // The writing of the record was interrupted.
    let cache = move_half(&|cache| {
        std::fs::create_dir(cache.join("_trash")).unwrap();
        std::fs::write(cache.join("_trash/.new-e1"), "{\"_i").unwrap();
    });
    assert_eq!(common::ls(cache.join("_trash")), [""; 0]);
    // It was written, and the entry not deleted.
    let unnamed = |cache: &Cache| {
        record(cache);
        std::fs::rename(cache.join("_trash/e1.json"), cache.join("_trash/.new-0123")).unwrap();
    };
    let cache = move_half(&unnamed);
    assert_eq!(common::ls(cache.join("_trash")), [""; 0]);
    assert_eq!(cache.entries().len(), 3);
    // The entry was deleted, and its record had no name yet.
    let cache = move_half(&|cache| {
        unnamed(cache);
        delete(cache);
    });
    assert_eq!(common::read(cache.join("_trash/e1/model")), "weights");
    cache.command(&["trash", "restore", "e1"]).ok();
    assert_eq!((cache.entries().len(), common::ls(cache.join("_trash"))), (3, vec![]));
}

#[test]
fn a_sealed_entry_keeps_its_attributes() {
    let user = common::User::ordinary();
    let cache = three();
    for name in ["", "e1", "_entries", "_lock"] {
        user.own(&cache.join(name));
    }
    std::fs::set_permissions(cache.join("e1"), std::fs::Permissions::from_mode(0o555)).unwrap();
    let dir = common::scratch();
    let program = user.binary(dir.path());
    let mut command = Command::new(program);
    command.arg("-C").arg(cache.path()).args(["set", "e1", "lr=7"]);
    assert!(run(&mut user.wrap(&command)).fails().contains("chmod"));
    assert_eq!(cache.entry("e1")["lr"], 0.1);
}

#[test]
fn the_cache_is_found_from_below_and_by_the_environment() {
    let cache = three();
    std::fs::create_dir(cache.join("e1/deep")).unwrap();
    let ids = |command: &mut Command| run(command.args(["find", "--format", "ids"])).lines();
    assert_eq!(ids(Command::new(binary()).current_dir(cache.join("e1/deep"))).len(), 3);
    assert_eq!(ids(Command::new(binary()).current_dir("/").env("CACHEDIRFS_CACHE", cache.path())).len(), 3);
    let elsewhere = common::scratch();
    let message = run(Command::new(binary()).current_dir(elsewhere.path()).args(["find"])).fails();
    assert!(message.contains("CACHEDIRFS_CACHE"), "{message}");
    let message = run(Command::new(binary()).args(["-C", "/nonexistent", "find"])).fails();
    assert!(message.contains("/nonexistent") && message.contains("mkdir"), "{message}");
}

#[test]
fn reading_needs_no_write_permission_and_leaves_no_trace() {
    let user = common::User::ordinary();
    let cache = three();
    std::fs::remove_file(cache.join("_lock")).unwrap();
    let dir = common::scratch();
    let mut command = Command::new(user.binary(dir.path()));
    command.arg("-C").arg(cache.path()).args(["find", "--format", "ids"]);
    assert_eq!(run(&mut user.wrap(&command)).lines().len(), 3);
    cache.command(&["check"]).ok();
    assert!(!cache.join("_lock").exists());
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let cache = Cache::new();
    let lines: Vec<String> = (0..3000)
        .map(|i| cache.record(&format!("e{i}"), 1.0, r#""text": "some text to fill a pipe with""#))
        .collect();
    cache.append(&lines);
    let mut child = Command::new(binary())
        .arg("-C")
        .arg(cache.path())
        .args(["find", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", output.status);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}
