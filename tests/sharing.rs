//! Two mounts of one cache: what is changed through one is seen through the other, names and data alike.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::time::Duration;

use common::{Cache, Mount, append, errno, ls, poll, put, read};

fn soon(what: &str, mut ask: impl FnMut() -> bool) {
    poll(what, Duration::from_secs(4), || ask().then_some(()));
}

/// Two mounts, with and without kernel passthrough, of a cache with one entry that both have looked at.
fn pairs() -> Vec<(Cache, Mount, Mount, String)> {
    ["refresh=0.2", "refresh=0.2,nopassthrough"]
        .into_iter()
        .map(|options| {
            let cache = Cache::new();
            let one = cache.mount_with(options);
            let two = cache.mount_with(options);
            let id = one.make("k=1,model=vit");
            soon("the other mount has it", || fs::exists(two.join("entries").join(&id)).unwrap());
            (cache, one, two, id)
        })
        .collect()
}

#[test]
fn attributes() {
    for (cache, one, two, id) in pairs() {
        let entry = two.join("entries").join(&id);
        assert_eq!(two.get(&id, "k"), "1");
        assert_eq!(ls(entry.join(".attrs")), ["k", "model"]);
        assert!(!fs::exists(entry.join(".attrs/new")).unwrap());
        let json = read(entry.join(".attrs.json"));
        one.set(&id, "k", "2");
        one.set(&id, "new", "\"text\"");
        soon("the attribute file", || two.get(&id, "k") == "2");
        soon("its size", || {
            one.set(&id, "k", "12345");
            fs::metadata(entry.join(".attrs/k")).unwrap().len() == 6
        });
        soon("a new one", || fs::read_to_string(entry.join(".attrs/new")).is_ok_and(|text| text == "text\n"));
        assert_eq!(ls(entry.join(".attrs")), ["k", "model", "new"]);
        assert_eq!(xattr::get(&entry, "user.k").unwrap().unwrap(), b"12345");
        assert_ne!(read(entry.join(".attrs.json")), json);
        append(entry.join(".attrs.json"), r#"{"k": null, "merged": true}"#).unwrap();
        soon("the merge", || {
            fs::read_to_string(one.join("entries").join(&id).join(".attrs/merged"))
                .is_ok_and(|text| text == "true\n")
        });
        soon("what it took away", || !fs::exists(one.join("entries").join(&id).join(".attrs/k")).unwrap());
        fs::remove_file(entry.join(".attrs/new")).unwrap();
        soon("the removal", || ls(one.join("entries").join(&id).join(".attrs")) == ["merged", "model"]);
        assert_eq!(cache.entry(&id).len(), 4);
        one.stop();
        two.stop();
    }
}

#[test]
fn views_counts_and_tables() {
    for (_cache, one, two, id) in pairs() {
        assert_eq!(ls(two.join("by-attr/model/vit")), [id.as_str()]);
        assert_eq!(read(two.join("by-attr/model/vit/count")), "1\n");
        assert_eq!(read(two.join("table.jsonl")).lines().count(), 1);
        assert_eq!(ls(two.join("where/n ge 3")), [""; 0]);
        assert!(!fs::exists(two.join("by-attr/model/vit/by-attr/n")).unwrap());
        let more: Vec<_> = (0..5).map(|n| one.make(&format!("model=vit,n={n}"))).collect();
        soon("the listing", || ls(two.join("by-attr/model/vit")).len() == 6);
        soon("the count", || read(two.join("by-attr/model/vit/count")) == "6\n");
        soon("the expression", || ls(two.join("where/n ge 3")).len() == 2);
        soon("the table", || read(two.join("table.jsonl")).lines().count() == 6);
        soon("a key below", || ls(two.join("by-attr/model/vit/by-attr/n")).len() == 5);
        soon("the order", || ls(two.join("sort/n")).len() == 5);
        assert_eq!(fs::metadata(two.join("by-attr/model/vit")).unwrap().len(), 6);
        fs::rename(one.join("entries").join(&more[0]), one.join("trash").join(&more[0])).unwrap();
        soon("the trash", || ls(two.join("trash")) == [more[0].as_str()]);
        soon("its absence", || !fs::exists(two.join("by-attr/model/vit").join(&more[0])).unwrap());
        fs::rename(two.join("trash").join(&more[0]), two.join("entries").join(&more[0])).unwrap();
        soon("its return", || fs::exists(one.join("by-attr/model/vit").join(&more[0])).unwrap());
        one.stop();
        two.stop();
    }
}

#[test]
fn contents() {
    for (_cache, one, two, id) in pairs() {
        let (here, there) = (one.join("entries").join(&id), two.join("entries").join(&id));
        fs::write(here.join("f"), "first").unwrap();
        soon("a new file", || fs::read_to_string(there.join("f")).is_ok_and(|text| text == "first"));
        assert_eq!(ls(&there), ["f"]);
        // Of the same size, in place.
        fs::write(here.join("f"), "secnd").unwrap();
        soon("other data", || read(there.join("f")) == "secnd");
        let mut file = fs::OpenOptions::new().append(true).open(here.join("f")).unwrap();
        file.write_all(b" and more").unwrap();
        soon("what was appended", || read(there.join("f")) == "secnd and more");
        soon("its size", || fs::metadata(there.join("f")).unwrap().len() == 14);
        // `tail -f`: one descriptor that stays open.
        let mut tail = fs::File::open(there.join("f")).unwrap();
        tail.seek(SeekFrom::End(0)).unwrap();
        file.write_all(b"!").unwrap();
        soon("what is appended while it is open", || {
            let mut text = String::new();
            tail.read_to_string(&mut text).unwrap();
            text == "!"
        });
        // Replaced, renamed, removed.
        fs::write(here.join("g"), "replacement").unwrap();
        fs::rename(here.join("g"), here.join("f")).unwrap();
        soon("the replacement", || read(there.join("f")) == "replacement");
        fs::rename(here.join("f"), here.join("h")).unwrap();
        soon("the new name", || {
            fs::exists(there.join("h")).unwrap() && !fs::exists(there.join("f")).unwrap()
        });
        assert_eq!(ls(&there), ["h"]);
        fs::remove_file(here.join("h")).unwrap();
        soon("the removal", || !fs::exists(there.join("h")).unwrap());
        fs::create_dir_all(here.join("d/e")).unwrap();
        soon("a directory", || fs::exists(there.join("d/e")).unwrap());
        fs::write(there.join("d/e/x"), "from the other side").unwrap();
        soon("what is made in it", || {
            fs::read_to_string(here.join("d/e/x")).is_ok_and(|text| text == "from the other side")
        });
        one.stop();
        two.stop();
    }
}

#[test]
fn an_entry_that_is_deleted_while_the_other_mount_uses_it() {
    for (cache, one, two, id) in pairs() {
        let (here, there) = (one.join("entries").join(&id), two.join("entries").join(&id));
        fs::write(there.join("f"), "kept").unwrap();
        let mut open = fs::File::open(there.join("f")).unwrap();
        let directory = fs::File::open(&there).unwrap();
        fs::remove_dir_all(&here).unwrap();
        assert!(cache.entries().is_empty());
        soon("it is gone", || !fs::exists(&there).unwrap());
        let mut text = String::new();
        open.read_to_string(&mut text).unwrap();
        assert_eq!(text, "kept", "an open file stays");
        assert!(put(there.join(".attrs/k"), "2").is_err());
        assert!(fs::write(there.join("g"), "x").is_err());
        // By a descriptor of the directory that is gone: an error, not a new entry.
        let made = rustix::fs::openat(
            &directory,
            "g",
            rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY,
            rustix::fs::Mode::RUSR,
        );
        assert!(made.is_err());
        assert!(cache.entries().is_empty() && !cache.join(&id).exists());
        // The same id can be made again.
        fs::create_dir(&here).unwrap();
        soon("it is back", || fs::exists(&there).unwrap());
        assert_eq!(ls(&there), [""; 0]);
        one.stop();
        two.stop();
    }
}

#[test]
fn the_trash_is_raced_for_and_loses_nothing() {
    let cache = Cache::new();
    let mounts = [cache.mount_with("refresh=0.1"), cache.mount_with("refresh=0.1")];
    let id = mounts[0].make("k=1");
    fs::write(mounts[0].join("entries").join(&id).join("f"), "contents").unwrap();
    soon("the other mount has it", || fs::exists(mounts[1].join("entries").join(&id)).unwrap());
    for round in 0..60 {
        let (from, to) = if round % 2 == 0 { ("entries", "trash") } else { ("trash", "entries") };
        let won: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = mounts
                .iter()
                .map(|mount| {
                    let (from, to) = (mount.join(from).join(&id), mount.join(to).join(&id));
                    scope.spawn(move || usize::from(fs::rename(from, to).is_ok()))
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert!(won >= 1, "round {round}");
        for mount in &mounts {
            soon("both see where it is", || {
                ls(mount.join(to)) == [id.as_str()] && ls(mount.join(from)).is_empty()
            });
            assert_eq!(read(mount.join(to).join(&id).join("f")), "contents", "round {round}");
        }
    }
    assert_eq!(cache.entry(&id)["k"], 1);
    // An id is permanent: in the trash it is taken as well.
    fs::rename(mounts[0].join("entries").join(&id), mounts[0].join("trash").join(&id)).unwrap();
    for mount in &mounts {
        assert_eq!(errno(fs::create_dir(mount.join("entries").join(&id))), libc::EEXIST);
    }
    for mount in mounts {
        mount.stop();
    }
    cache.command(&["check"]).ok();
}

#[test]
fn the_trash_keeps_every_change_that_was_acknowledged() {
    let cache = Cache::new();
    let mounts = [cache.mount(), cache.mount()];
    for _ in 0..30 {
        let id = mounts[0].make("n=0");
        let file = mounts[1].join("entries").join(&id).join(".attrs/n");
        soon("the other mount has it", || file.exists());
        let last = std::thread::scope(|scope| {
            let changes =
                scope.spawn(|| (1..10_000).take_while(|n| put(&file, n.to_string()).is_ok()).last());
            // Whoever takes the entry out while it is being changed takes it as it is then.
            soon("it is changed", || cache.entry(&id)["n"] != 0);
            fs::rename(mounts[0].join("entries").join(&id), mounts[0].join("trash").join(&id)).unwrap();
            changes.join().unwrap()
        });
        let kept: serde_json::Value =
            serde_json::from_str(&read(cache.join(format!("_trash/{id}.json")))).unwrap();
        assert!(kept["n"].as_u64() >= last, "{kept} after {last:?}");
    }
    for mount in mounts {
        mount.stop();
    }
    cache.command(&["check"]).ok();
}

#[test]
fn compaction_through_one_mount_disturbs_no_other() {
    for (cache, one, two, id) in pairs() {
        for n in 0..50 {
            one.set(&id, "n", &n.to_string());
            two.set(&id, "m", &n.to_string());
            if n % 10 == 0 {
                cache.command(&["compact"]).ok();
            }
            assert_eq!(one.get(&id, "n"), n.to_string());
            assert_eq!(two.get(&id, "m"), n.to_string());
        }
        soon("both agree", || two.get(&id, "n") == "49" && one.get(&id, "m") == "49");
        assert_eq!(cache.entry(&id)["n"], 49);
        one.stop();
        two.stop();
    }
}
