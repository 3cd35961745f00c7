//! Changes and their outcomes, one cache at a time.

use std::os::unix::fs::MetadataExt as _;

use super::*;

#[test]
fn changes_are_decided_recorded_and_indexed() {
    let dir = tempfile::tempdir().unwrap();
    let cache = open(dir.path());
    assert_eq!(cache.change(create("a", r#"{"lr": 0.1}"#)).unwrap(), Outcome::Done(true));
    assert!(matches!(cache.change(create("a", "{}")), Err(CacheError::Exists)));
    assert_eq!(cache.change(set("a", "lr", "0.2")).unwrap(), Outcome::Done(true));
    assert_eq!(cache.change(set("a", "lr", "2e-1")).unwrap(), Outcome::Done(false), "an equal value");
    assert!(matches!(cache.change(set("b", "lr", "1")), Err(CacheError::NoEntry)));
    let none = Change::Edit { id: id("a"), edits: vec![Edit::Unset(key("no"))] };
    assert!(matches!(cache.change(none), Err(CacheError::Edit(EditError::NoKey))));
    let time = cache.entry(cache.index().row("a").unwrap()).unwrap().time;
    assert!(time > 1.7e9);
    assert!(matches!(cache.change(delete("a")).unwrap(), Outcome::Deleted(it) if it.get("lr").is_some()));
    assert!(matches!(cache.change(delete("a")), Err(CacheError::NoEntry)));
    assert_eq!(attribute(&cache, "a", "lr"), None);
    let back = Change::Restore { id: id("a"), object: object(r#"{"lr": 7}"#), time: 5.5 };
    assert_eq!(cache.change(back).unwrap(), Outcome::Done(true));
    // Another cache reads the same; and the log is what the design says.
    let other = open(dir.path());
    assert_eq!(attribute(&other, "a", "lr").unwrap(), "7");
    assert_eq!(other.entry(other.index().row("a").unwrap()).unwrap().time.to_bits(), 5.5_f64.to_bits());
    let log = log_of(dir.path());
    let lines: Vec<_> = log.lines().collect();
    assert_eq!(lines.len(), 4);
    let path = dir.path().canonicalize().unwrap();
    assert!(
        lines[0].starts_with(&format!("{{\"_id\": \"{}/a\", \"lr\": 0.1, \"_timestamp\": ", path.display()))
    );
    assert!(lines[2].ends_with("\"_deleted\": true}"));
}

#[test]
fn the_log_goes_on_in_its_dialect_and_entries_keep_their_time() {
    let dir = directory("{\"@\": \"a\", \"x\": 1, \"n\": 1e-05, \"$\": 12.5}\n{\"_id\": \"/b\"}\n");
    let cache = open(dir.path());
    cache.change(set("a", "x", "2")).unwrap();
    cache.change(create("c", "{}")).unwrap();
    let log = log_of(dir.path());
    let lines: Vec<_> = log.lines().collect();
    assert_eq!(lines[2], "{\"@\": \"a\", \"x\": 2, \"n\": 1e-05, \"$\": 12.5}");
    assert!(lines[3].starts_with("{\"@\": \"c\", \"$\": "));
}

#[test]
fn changes_of_one_round_see_each_other() {
    let dir = directory("{\"_id\": \"/old\", \"k\": 1}\n");
    let cache = mounted(dir.path());
    let outcomes = cache
        .change_all(vec![
            create("a", r#"{"x": 1}"#),
            create("a", "{}"),
            set("a", "y", "2"),
            set("a", "y", "2"),
            memo("y", "2.0", "m"),
            delete("a"),
            memo("y", "2", "m"),
            memo("y", "2e0", "n"),
            set("a", "y", "3"),
            create("a", r#"{"z": 3}"#),
            memo("k", "1", "o"),
            delete("old"),
            memo("k", "1", "o"),
        ])
        .unwrap();
    let text: Vec<_> = outcomes
        .iter()
        .map(|outcome| match outcome {
            Ok(Outcome::Done(done)) => done.to_string(),
            Ok(Outcome::Found(id)) => id.as_str().to_owned(),
            Ok(Outcome::Deleted(_)) => "true".to_owned(),
            Err(error) => format!("{error:?}"),
        })
        .collect();
    assert_eq!(
        text,
        [
            "true", "Exists", "true", "false", "a", "true", "true", "m", "NoEntry", "true", "old", "true",
            "true"
        ]
    );
    assert_eq!(ids(&cache), ["a", "m", "o"]);
    assert_eq!(attribute(&cache, "a", "z").unwrap(), "3");
    assert_eq!(attribute(&cache, "a", "y"), None);
    assert_eq!(cache.status().dead_records, 5, "{:?}", cache.status());
    cache.close().unwrap();
    assert_eq!(ids(&open(dir.path())), ["a", "m", "o"]);
}

#[test]
fn a_memo_finds_the_entry_recorded_first() {
    let log = ["a", "b", "c"].map(|id| format!("{{\"_id\": \"/{id}\", \"lr\": 0.10, \"m\": \"{id}\"}}\n"));
    let dir = directory(&log.concat());
    let cache = open(dir.path());
    let found = |fresh| cache.change(memo("lr", "1e-1", fresh)).unwrap();
    assert_eq!(found("f"), Outcome::Found(id("a")));
    cache.change(delete("a")).unwrap();
    assert_eq!(found("f"), Outcome::Found(id("b")));
    cache.change(set("b", "lr", "0.2")).unwrap();
    assert_eq!(found("f"), Outcome::Found(id("c")));
    // It comes back to its place.
    cache.change(set("b", "lr", "0.1")).unwrap();
    assert_eq!(found("f"), Outcome::Found(id("b")));
    let pairs = vec![(key("lr"), leaf("0.1")), (key("m"), leaf("x"))];
    let none = Change::Memo { pairs, fresh: id("f"), attrs: object(r#"{"lr": 0.1, "m": "x"}"#) };
    assert_eq!(cache.change(none).unwrap(), Outcome::Done(true));
}

#[test]
fn what_could_not_be_read_again_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let cache = open(dir.path());
    cache.change(create("a", "{}")).unwrap();
    let before = log_of(dir.path());
    let large = "x".repeat(crate::record::RECORD_MAX);
    assert!(matches!(cache.change(set("a", "x", &large)), Err(CacheError::TooLarge)));
    let deep = format!("{}1{}", "[".repeat(127), "]".repeat(127));
    let nested = ["k"; 60].join(".");
    assert!(cache.change(set("a", &nested, &deep)).is_err());
    assert_eq!(log_of(dir.path()), before);
}

#[test]
fn malformed_lines_are_counted_and_kept() {
    let good = "{\"_id\": \"/a\", \"x\": 1}";
    let dir = directory(&format!("bad\n{good}\n\0\0{{\"_id\": \"/b\"}}\n\n{{\"no\": 1}}\n{good}\n"));
    let cache = open(dir.path());
    assert_eq!(ids(&cache), ["a", "b"]);
    let status = cache.status();
    assert_eq!((status.entries, status.malformed, status.dead_records), (2, 3, 1));
    assert_eq!(cache.compact().unwrap(), 1);
    let kept = format!("{good}\n{{\"_id\": \"/b\"}}\nbad\n\0\0\n{{\"no\": 1}}\n");
    assert_eq!(log_of(dir.path()), kept);
    let status = cache.status();
    assert_eq!((status.entries, status.malformed, status.dead_records), (2, 3, 0));
    assert_eq!(status.log_bytes, kept.len() as u64);
    assert_eq!(cache.compact().unwrap(), 0);
    // Places are those of the new log.
    assert_eq!(attribute(&cache, "a", "x").unwrap(), "1");
    cache.change(set("a", "x", "2")).unwrap();
    assert_eq!(attribute(&cache, "a", "x").unwrap(), "2");
    assert_eq!(open(dir.path()).status().malformed, 3);
}

#[test]
fn directories_are_made_under_fresh_names() {
    let dir = tempfile::tempdir().unwrap();
    let cache = open(dir.path());
    let a = cache.make_directory(0o750).unwrap();
    assert_ne!(a, cache.make_directory(0o750).unwrap());
    assert_eq!(a.as_str().len(), 9);
    assert!(a.as_str().starts_with('e'));
    let mode = fs::metadata(dir.path().join(a.as_str())).unwrap().mode();
    assert_eq!(mode & 0o777, 0o750);
}

#[test]
fn closing_commits_what_waits_and_is_final() {
    let dir = tempfile::tempdir().unwrap();
    let cache = mounted(dir.path());
    let (sender, receiver) = mpsc::channel();
    for i in 0..200 {
        let sender = sender.clone();
        let done: Done = Box::new(move |outcome| sender.send(outcome.is_ok()).unwrap());
        cache.submit(create(&format!("e{i}"), "{}"), done);
    }
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| cache.close().unwrap());
        }
    });
    drop(sender);
    assert_eq!(receiver.iter().filter(|&done| done).count(), 200);
    assert!(matches!(cache.change(create("late", "{}")), Err(CacheError::Closed)));
    assert_eq!(open(dir.path()).status().entries, 200);
}

#[test]
fn who_hands_a_change_in_commits_it_unless_something_has_to_be_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let cache = mounted(dir.path());
    let me = std::thread::current().id();
    let submit = |change| {
        let (sender, receiver) = mpsc::channel();
        let done: Done = Box::new(move |outcome| {
            outcome.unwrap();
            sender.send(std::thread::current().id()).unwrap();
        });
        cache.submit(change, done);
        receiver
    };
    let mut number = 0;
    eventually("nobody else is at work", || {
        number += 1;
        submit(create(&format!("e{number}"), "{}")).recv().unwrap() == me
    });
    let locked = cache.store().lock().unwrap();
    let waiting = submit(create("waits", "{}"));
    let behind = submit(create("too", "{}"));
    assert!(waiting.try_recv().is_err());
    drop(locked);
    let other = waiting.recv().unwrap();
    assert_ne!(other, me);
    assert_eq!(behind.recv().unwrap(), other, "in order");
    // Who waits may be acting as somebody else.
    assert_eq!(cache.change(create("asked", "{}")).unwrap(), Outcome::Done(true));
    cache.close().unwrap();
    assert_eq!(ids(&open(dir.path())).len(), number + 3);
    // `sync` is left to the thread that is there for it.
    let durable = Options { sync: true, ..options(true) };
    let cache = Cache::open(dir.path(), &durable).unwrap();
    let (sender, receiver) = mpsc::channel();
    let done: Done = Box::new(move |_| sender.send(std::thread::current().id()).unwrap());
    cache.submit(create("durable", "{}"), done);
    assert_ne!(receiver.recv().unwrap(), me);
}

#[test]
fn callbacks_run_without_locks_and_may_end_the_cache() {
    let dir = tempfile::tempdir().unwrap();
    let cache = mounted(dir.path());
    let (sender, receiver) = mpsc::channel();
    let weak = Arc::downgrade(&cache);
    let rows = sender.clone();
    cache.set_hook(Box::new(move |published| {
        let cache = weak.upgrade().unwrap();
        let _ = cache.status();
        assert!(published.rows.iter().all(|row| cache.index().id(*row).is_some()));
        rows.send("published").unwrap();
    }));
    let own = Arc::clone(&cache);
    let done: Done = Box::new(move |outcome| {
        outcome.unwrap();
        let _ = own.status();
        own.refresh().unwrap();
        let again = sender.clone();
        sender.send("first").unwrap();
        own.submit(create("b", "{}"), Box::new(move |_| again.send("second").unwrap()));
        panic!("must not end the thread");
    });
    cache.submit(create("a", "{}"), done);
    let order: Vec<_> = receiver.iter().take(4).collect();
    assert_eq!(order, ["published", "first", "published", "second"], "the hook comes before the callback");
    // A callback that holds the last reference ends the threads it runs on.
    let (sender, receiver) = mpsc::channel();
    let last = Arc::clone(&cache);
    let held = mpsc::channel::<()>();
    // What has to wait for the lock is committed by the thread that is there for it.
    let locked = cache.store().lock().unwrap();
    cache.submit(
        create("c", "{}"),
        Box::new(move |_| {
            held.1.recv().ok();
            drop(last);
            sender.send(()).unwrap();
        }),
    );
    drop(locked);
    drop(cache);
    drop(held.0);
    receiver.recv().unwrap();
    assert_eq!(ids(&open(dir.path())), ["a", "b", "c"]);
}

/// A writer that dies before its newline leaves a record that was not acknowledged, and whoever appends next without looking makes
/// one line of two. Compaction writes what is no record behind those that are: it must not become the last word there.
#[test]
fn a_record_that_was_torn_off_does_not_come_back_by_compaction() {
    let torn = [
        r#"{"@": "a", "v": 1}"#,
        r#"{"x": {"@": "a", "v": 3}"#,
        r#"{"@": "gone"}{"@": "never"}"#,
        r#"{"@": "a", "v": "#,
    ];
    let lines: Vec<_> =
        torn.iter().enumerate().map(|(n, torn)| format!("{torn}{{\"@\": \"b{n}\"}}")).collect();
    let mut log = format!("{{\"@\": \"gone\"}}\n{}\n", lines.join("\n"));
    log += "{\"@\": \"a\", \"v\": 2}\n{\"@\": \"gone\", \"_deleted\": true}\n";
    let dir = directory(&log);
    for round in 0..3 {
        let cache = open(dir.path());
        assert_eq!(ids(&cache), ["a", "b0", "b1", "b2", "b3"], "{round}");
        assert_eq!(attribute(&cache, "a", "v").unwrap(), "2", "{round}");
        cache.change(set("b0", "round", &round.to_string())).unwrap();
        cache.compact().unwrap();
        assert_eq!(cache.status().malformed, 1, "{round}");
    }
    // Nothing is destroyed.
    let aside = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
    let aside: Vec<_> = aside.filter(|path| path.to_str().unwrap().contains("_torn-")).collect();
    assert_eq!(aside.len(), 1, "{aside:?}");
    let found = fs::read_to_string(&aside[0]).unwrap();
    assert_eq!(found, format!("{}\n{}\n{}\n", torn[0], torn[1], torn[2]));
    assert!(log_of(dir.path()).ends_with(&format!("{}\n", torn[3])));
}
