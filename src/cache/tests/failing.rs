//! Disks that fill, logs that vanish, calls that fail.

use super::*;
use crate::store::faults::{Fault, Faulty, Op};

pub(super) fn faulty(dir: &Path, sync: bool, background: bool) -> (Arc<Faulty>, Arc<Cache>) {
    let sys = Arc::new(Faulty::default());
    let store = store::Options { read_only: false, sync };
    let store = Store::open_with(Arc::clone(&sys) as Arc<_>, dir, &store).unwrap();
    let cache = Cache::with_store(store, &Options { sync, ..options(background) }).unwrap();
    (sys, cache)
}

pub(super) fn errno<T>(result: Result<T, CacheError>) -> Option<i32> {
    match result {
        Err(CacheError::Store(error)) => error.raw_os_error(),
        _ => None,
    }
}

#[test]
fn acknowledged_is_there_and_refused_is_not() {
    let faults = [
        Fault::Errno(libc::EIO),
        Fault::Errno(libc::ENOSPC),
        Fault::Errno(libc::ESTALE),
        Fault::Full(libc::ENOSPC),
        Fault::Short(libc::EDQUOT),
        Fault::DieBefore,
        Fault::DieAfter,
        Fault::DieHalf,
    ];
    for sync in [false, true] {
        for fault in faults {
            for call in 0..200 {
                let dir = directory("{\"_id\": \"/a\", \"x\": 1}\n{\"_id\": \"/b\"}\n{\"_id\": \"/t");
                let (sys, cache) = faulty(dir.path(), sync, false);
                sys.arm(call, fault);
                let changes = [
                    set("a", "x", "2"),
                    create("c", "{}"),
                    delete("b"),
                    memo("x", "9", "m"),
                    set("a", "y", "3"),
                ];
                let (first, second) = changes.split_at(2);
                let mut outcomes = cache.change_all(first.to_vec()).unwrap();
                outcomes.extend(cache.change_all(second.to_vec()).unwrap());
                let hit = sys.disarm();
                let what = format!("{fault:?} at call {call}, {hit:?}, sync {sync}: {outcomes:?}");
                let done: Vec<bool> = outcomes.iter().map(Result::is_ok).collect();
                let died = matches!(fault, Fault::DieBefore | Fault::DieAfter | Fault::DieHalf);
                let fresh = open(dir.path());
                let _ = fresh.change(delete("nobody"));
                let seen = [
                    attribute(&fresh, "a", "x").unwrap() == "2",
                    fresh.index().row("c").is_some(),
                    fresh.index().row("b").is_none(),
                    fresh.index().row("m").is_some(),
                    attribute(&fresh, "a", "y").is_some(),
                ];
                for (i, (&done, &seen)) in done.iter().zip(&seen).enumerate() {
                    let may_differ = died || hit == Some(Op::Truncate);
                    assert!(done == seen || (may_differ && seen), "change {i}, {what}");
                }
                if !died {
                    // The cache knows what is in the log.
                    cache.refresh().unwrap();
                    assert_eq!(ids(&cache), ids(&fresh), "{what}");
                    for name in ids(&fresh) {
                        for key in ["x", "y"] {
                            assert_eq!(
                                attribute(&cache, &name, key),
                                attribute(&fresh, &name, key),
                                "{what}"
                            );
                        }
                    }
                }
                if hit.is_none() {
                    assert!(call > 20, "{what}");
                    break;
                }
            }
        }
    }
}

#[test]
fn a_full_disk_is_told_and_passes() {
    let dir = directory("{\"_id\": \"/a\", \"x\": 1}\n");
    let (sys, cache) = faulty(dir.path(), false, true);
    for error in [libc::ENOSPC, libc::EDQUOT, libc::EIO] {
        sys.break_always(Op::Write, error);
        assert_eq!(errno(cache.change(set("a", "x", "2"))), Some(error));
        assert_eq!(attribute(&cache, "a", "x").unwrap(), "1");
        sys.disarm();
    }
    cache.change(set("a", "x", "2")).unwrap();
    assert_eq!(attribute(&cache, "a", "x").unwrap(), "2");
}

#[test]
fn changes_become_durable_by_themselves() {
    let dir = tempfile::tempdir().unwrap();
    let (sys, cache) = faulty(dir.path(), false, true);
    cache.change(create("a", "{}")).unwrap();
    let before = sys.count(Op::Sync);
    cache.change(create("b", "{}")).unwrap();
    eventually("a sync", || sys.count(Op::Sync) > before);
    // A failed one is not forgotten, and not tried again.
    sys.break_always(Op::Sync, libc::EIO);
    cache.change(create("c", "{}")).unwrap();
    eventually("the failure", || cache.status().poisoned);
    sys.disarm();
    assert!(matches!(cache.change(create("d", "{}")), Err(CacheError::Store(_))));
    let (sender, receiver) = mpsc::channel();
    cache.sync(Box::new(move |result| sender.send(result.is_err()).unwrap()));
    assert!(receiver.recv().unwrap(), "it says so to whoever asks for durability");
    assert!(cache.close().is_err());
    assert_eq!(ids(&open(dir.path())), ["a", "b", "c"]);
}

#[test]
fn a_sync_covers_what_was_acknowledged_before() {
    let dir = tempfile::tempdir().unwrap();
    for background in [false, true] {
        let (sys, cache) = faulty(dir.path(), false, background);
        cache.change(create(&format!("a{background}"), "{}")).unwrap();
        let before = sys.count(Op::Sync);
        let (sender, receiver) = mpsc::channel();
        cache.sync(Box::new(move |result| sender.send(result.is_ok()).unwrap()));
        assert!(receiver.recv().unwrap());
        assert!(sys.count(Op::Sync) > before);
    }
    let (sys, cache) = faulty(dir.path(), true, true);
    let before = sys.count(Op::Sync);
    cache.change(create("b", "{}")).unwrap();
    assert!(sys.count(Op::Sync) > before, "with `sync`, before it is acknowledged");
}

#[test]
fn a_cache_that_vanishes_keeps_its_face() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("cache");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("_entries"), "{\"_id\": \"/a\", \"x\": 1}\n").unwrap();
    let cache = mounted(&dir);
    fs::remove_dir_all(&dir).unwrap();
    eventually("the trouble", || cache.status().trouble.is_some());
    assert_eq!(attribute(&cache, "a", "x").unwrap(), "1");
    assert_eq!(errno(cache.change(set("a", "x", "2"))), Some(libc::ENOENT));
    assert_eq!(errno(cache.make_directory(0o777)), Some(libc::ENOENT));
    cache.close().unwrap();
}

#[test]
fn a_log_that_is_removed_or_cut_loses_no_more_than_was_taken() {
    let log = "{\"_id\": \"/a\", \"x\": 1}\n{\"_id\": \"/b\", \"x\": 1}\n";
    let dir = directory(log);
    let path = dir.path().join("_entries");
    let cache = mounted(dir.path());
    fs::remove_file(&path).unwrap();
    eventually("the trouble", || cache.status().trouble.is_some());
    assert_eq!(ids(&cache), ["a", "b"]);
    cache.change(set("b", "x", "2")).unwrap();
    eventually("its end", || cache.status().trouble.is_none());
    assert_eq!(log_of(dir.path()).lines().count(), 3, "it was put back");
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(22).unwrap();
    eventually("the cut log", || ids(&cache) == ["a"]);
    cache.change(create("c", "{}")).unwrap();
    assert_eq!(ids(&open(dir.path())), ["a", "c"]);
}

#[test]
fn a_record_of_a_log_that_another_node_has_replaced_is_read_from_the_new_one() {
    let dir = directory("{\"_id\": \"/gone\"}\n{\"_id\": \"/a\", \"x\": 1}\n");
    let (sys, cache) = faulty(dir.path(), false, false);
    let row = cache.index().row("a").unwrap();
    let other = open(dir.path());
    other.change(delete("gone")).unwrap();
    other.compact().unwrap();
    sys.arm(0, Fault::Errno(libc::ESTALE));
    let entry = cache.entry(row).unwrap();
    assert_eq!(sys.disarm(), Some(Op::Read));
    assert_eq!(entry.object.get("x").unwrap().to_text(), "1");
    assert_eq!(ids(&cache), ["a"]);
    sys.break_always(Op::Read, libc::ESTALE);
    assert_eq!(errno(cache.entry(row)), Some(libc::ESTALE), "it ends");
}

#[test]
fn what_was_appended_lately_is_not_read_again() {
    let dir = directory("{\"_id\": \"/a\", \"x\": 1, \"y\": 1}\n");
    let (sys, cache) = faulty(dir.path(), false, false);
    cache.change(set("a", "x", "2")).unwrap();
    cache.change(create("b", "{\"x\": 0}")).unwrap();
    sys.break_always(Op::Read, libc::EIO);
    cache.change(set("a", "x", "3")).unwrap();
    cache.change_all(vec![set("b", "x", "4"), set("b", "y", "5"), delete("b"), create("b", "{}")]).unwrap();
    cache.change(set("b", "y", "6")).unwrap();
    let shown = |name: &str| ["x", "y"].map(|key| attribute(&cache, name, key));
    let text = |text: &str| Some(text.to_owned());
    assert_eq!((shown("a"), shown("b")), ([text("3"), text("1")], [None, text("6")]));
    sys.disarm();
    assert_eq!(cache.compact().unwrap(), 7);
    sys.break_always(Op::Read, libc::EIO);
    assert_eq!(errno(cache.change(set("a", "x", "7"))), Some(libc::EIO), "it stands in another file now");
    sys.disarm();
    cache.change(set("a", "x", "8")).unwrap();
    let again = open(dir.path());
    assert_eq!(["x", "y"].map(|key| attribute(&again, "a", key)), [text("8"), text("1")]);
    assert_eq!(["x", "y"].map(|key| attribute(&again, "b", key)), [None, text("6")]);
}

#[test]
fn a_lock_that_is_held_stalls_changes_and_nothing_else() {
    let dir = directory("{\"_id\": \"/a\", \"x\": 1}\n");
    let cache = mounted(dir.path());
    let other = open(dir.path());
    let held = other.store().lock().unwrap();
    let (sender, receiver) = mpsc::channel();
    cache.submit(set("a", "x", "2"), Box::new(move |outcome| sender.send(outcome.is_ok()).unwrap()));
    eventually("the wait is told", || {
        cache.status().waiting.is_some_and(|(what, seconds)| what == "the lock" && seconds > 1.0)
    });
    assert_eq!(attribute(&cache, "a", "x").unwrap(), "1");
    cache.refresh().unwrap();
    assert!(receiver.try_recv().is_err());
    drop(held);
    assert!(receiver.recv().unwrap());
    eventually("nothing waits", || cache.status().waiting.is_none());
}
