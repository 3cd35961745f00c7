//! Several caches on one directory, and other programs.

use std::collections::HashSet;
use std::io::Write as _;
use std::sync::atomic::Ordering;

use super::*;

#[test]
fn nothing_is_lost_of_many_writers() {
    let dir = tempfile::tempdir().unwrap();
    let caches = [mounted(dir.path()), mounted(dir.path()), open(dir.path())];
    std::thread::scope(|scope| {
        for (c, cache) in caches.iter().enumerate() {
            for t in 0..3 {
                scope.spawn(move || {
                    for i in 0..60 {
                        let name = format!("e{c}_{t}_{i}");
                        cache.change(create(&name, "{\"n\": 0}")).unwrap();
                        cache.change(set(&name, "n", &i.to_string())).unwrap();
                        assert_eq!(attribute(cache, &name, "n").unwrap(), i.to_string(), "read your writes");
                        if i % 3 == 0 {
                            cache.change(delete(&name)).unwrap();
                        }
                    }
                });
            }
        }
        // A program of the first generation: record and newline apart, under the lock.
        scope.spawn(|| {
            let lock = fs::File::create(dir.path().join("_lock")).unwrap();
            for i in 0..60 {
                fs2::FileExt::lock_exclusive(&lock).unwrap();
                let path = dir.path().join("_entries");
                let mut log = fs::OpenOptions::new().append(true).create(true).open(path).unwrap();
                write!(log, "{{\"_id\": \"/py/p{i}\", \"n\": {i}}}").unwrap();
                log.write_all(b"\n").unwrap();
                drop(log);
                fs2::FileExt::unlock(&lock).unwrap();
            }
        });
    });
    let expected = 9 * 40 + 60;
    let fresh = open(dir.path());
    assert_eq!(fresh.status().entries, expected);
    assert_eq!(fresh.status().malformed, 0);
    for cache in &caches {
        cache.refresh().unwrap();
        assert_eq!(ids(cache), ids(&fresh));
        for name in ids(cache) {
            assert_eq!(attribute(cache, &name, "n"), attribute(&fresh, &name, "n"));
        }
    }
    fresh.compact().unwrap();
    assert_eq!(log_of(dir.path()).lines().count() as u64, expected, "nothing is doubled");
}

#[test]
fn edits_of_one_entry_from_two_caches_both_prevail() {
    let dir = tempfile::tempdir().unwrap();
    let caches = [mounted(dir.path()), mounted(dir.path())];
    caches[0].change(create("a", "{}")).unwrap();
    std::thread::scope(|scope| {
        for (c, cache) in caches.iter().enumerate() {
            scope.spawn(move || {
                for i in 0..100 {
                    cache.change(set("a", &format!("k{c}_{i}"), &i.to_string())).unwrap();
                }
            });
        }
    });
    for cache in &caches {
        cache.refresh().unwrap();
        for c in 0..2 {
            for i in 0..100 {
                assert_eq!(attribute(cache, "a", &format!("k{c}_{i}")).unwrap(), i.to_string());
            }
        }
    }
}

#[test]
fn a_claim_has_one_winner() {
    let dir = tempfile::tempdir().unwrap();
    let caches = [mounted(dir.path()), mounted(dir.path())];
    let won = Mutex::new(Vec::new());
    let found = Mutex::new(HashSet::new());
    std::thread::scope(|scope| {
        for (c, cache) in caches.iter().enumerate() {
            for t in 0..4 {
                let (won, found) = (&won, &found);
                scope.spawn(move || {
                    for i in 0..25 {
                        let fresh = format!("e{c}_{t}_{i}");
                        match cache.change(memo("k", &i.to_string(), &fresh)).unwrap() {
                            Outcome::Done(_) => won.lock().unwrap().push((i, fresh)),
                            Outcome::Found(id) => {
                                found.lock().unwrap().insert((i, id.as_str().to_owned()));
                            }
                            Outcome::Deleted(_) => panic!("a memo deletes nothing"),
                        }
                    }
                });
            }
        }
    });
    let mut won = won.into_inner().unwrap();
    won.sort();
    assert_eq!(won.iter().map(|(i, _)| *i).collect::<Vec<_>>(), (0..25).collect::<Vec<_>>());
    assert!(found.into_inner().unwrap().iter().all(|found| won.contains(found)));
}

#[test]
fn what_one_cache_changes_the_other_shows_soon() {
    let dir = directory("{\"_id\": \"/a\", \"x\": 1}\n");
    let (here, there) = (mounted(dir.path()), mounted(dir.path()));
    let (sender, receiver) = mpsc::channel();
    there.set_hook(Box::new(move |published| {
        let _ = sender.send(published.clone());
    }));
    here.change(set("a", "x", "2")).unwrap();
    let published = receiver.recv_timeout(Duration::from_secs(20)).unwrap();
    assert_eq!(published.rows, [there.index().row("a").unwrap()]);
    assert_eq!(attribute(&there, "a", "x").unwrap(), "2");
    here.change(delete("a")).unwrap();
    eventually("the deletion", || ids(&there).is_empty());
}

#[test]
fn rows_outlive_replacement_and_return() {
    let dir = directory("{\"_id\": \"/a\", \"x\": 1}\n{\"_id\": \"/b\", \"x\": 1}\n");
    let (here, there) = (open(dir.path()), open(dir.path()));
    let row = there.index().row("b").unwrap();
    here.change(delete("a")).unwrap();
    here.compact().unwrap();
    there.refresh().unwrap();
    assert_eq!(ids(&there), ["b"]);
    assert_eq!(there.index().row("b"), Some(row));
    assert_eq!(attribute(&there, "b", "x").unwrap(), "1");
    here.change(create("a", "{\"x\": 2}")).unwrap();
    there.refresh().unwrap();
    assert_eq!(there.index().row("a"), Some(Row(0)));
}

#[test]
fn a_small_log_is_compacted_when_writes_have_settled() {
    let dir = tempfile::tempdir().unwrap();
    let caches = [mounted(dir.path()), mounted(dir.path())];
    caches[0].change(create("a", "{}")).unwrap();
    for i in 0..50 {
        caches[i % 2].change(set("a", "x", &i.to_string())).unwrap();
    }
    eventually("one line an entry", || log_of(dir.path()).lines().count() == 1);
    for cache in &caches {
        eventually("the follower", || {
            attribute(cache, "a", "x").as_deref() == Some("49") && cache.status().dead_records == 0
        });
    }
}

#[test]
fn readers_never_notice_a_compaction() {
    let dir = tempfile::tempdir().unwrap();
    let (here, there) = (mounted(dir.path()), mounted(dir.path()));
    for i in 0..50 {
        here.change(create(&format!("e{i}"), "{\"x\": 0}")).unwrap();
    }
    there.refresh().unwrap();
    let end = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for cache in [&here, &there] {
            let end = &end;
            scope.spawn(move || {
                while !end.load(Ordering::Relaxed) {
                    assert_eq!(cache.index().len(), 50);
                    for i in 0..50 {
                        assert!(attribute(cache, &format!("e{i}"), "id").is_none());
                        let row = cache.index().row(&format!("e{i}")).unwrap();
                        assert!(cache.entry(row).unwrap().object.get("x").is_some());
                    }
                }
            });
        }
        for round in 1..40 {
            let cache = if round % 2 == 0 { &here } else { &there };
            for i in 0..10 {
                cache.change(set(&format!("e{i}"), "x", &round.to_string())).unwrap();
            }
            (if round % 3 == 0 { &here } else { &there }).compact().unwrap();
        }
        end.store(true, Ordering::Relaxed);
    });
    assert_eq!(log_of(dir.path()).lines().count(), 50);
}

#[test]
fn the_last_words_of_a_dead_program_are_mended() {
    let dir = directory("{\"_id\": \"/a\"}\n{\"_id\": \"/b\"}");
    let cache = mounted(dir.path());
    assert_eq!(ids(&cache), ["a"]);
    eventually("the record without its end", || ids(&cache) == ["a", "b"]);
    assert!(log_of(dir.path()).ends_with("}\n"));
}

#[test]
fn a_read_only_cache_follows_and_changes_nothing() {
    let dir = directory("{\"_id\": \"/a\"}\n{\"_id\": \"/to");
    let options = Options { read_only: true, ..options(true) };
    let cache = Cache::open(dir.path(), &options).unwrap();
    let store = |error| match error {
        Err(CacheError::Store(error)) => matches!(*error, StoreError::ReadOnly),
        _ => false,
    };
    assert!(store(cache.change(create("b", "{}")).map(drop)));
    assert!(store(cache.make_directory(0o777).map(drop)));
    assert!(store(cache.compact().map(drop)));
    fs::OpenOptions::new()
        .append(true)
        .open(dir.path().join("_entries"))
        .unwrap()
        .write_all(b"rn\"}\n")
        .unwrap();
    eventually("the entry of another", || ids(&cache) == ["a", "torn"]);
    cache.close().unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "not even a lock");
}
