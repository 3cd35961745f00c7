//! The views by attribute: listing, refinement, names, order, links, and what may be changed through them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::Duration;

use common::{Cache, errno, ls, not_permitted, poll, read, target};

/// Four runs of a small sweep.
fn sweep() -> Cache {
    let cache = Cache::new();
    cache.add(
        "e1",
        100.0,
        r#""lr": 0.1, "model": "resnet18", "tags": ["best", "old"], "opt": {"name": "adam"}"#,
    );
    cache.add(
        "e2",
        300.5,
        r#""lr": 0.1, "model": "vit", "tags": ["old"], "opt": {"name": "sgd", "beta": 0.9}"#,
    );
    cache.add("e3", 200.0, r#""lr": 1e-05, "model": "resnet18", "status": "running""#);
    cache.add("e4", 400.0, r#""lr": "0.1", "model": "vit", "status": "running""#);
    cache
}

#[test]
fn the_root_and_by_attr_list_what_there_is() {
    let cache = sweep();
    let mount = cache.mount();
    assert_eq!(ls(mount.path()), ["README", "by-attr", "entries", "memo", "new", "sort", "trash", "where"]);
    assert_eq!(ls(mount.join("entries")), ["e1", "e2", "e3", "e4"]);
    assert_eq!(
        ls(mount.join("by-attr")),
        ["lr", "model", "opt.beta", "opt.name", "status", "tags", "tags[]"]
    );
    assert_eq!(ls(mount.join("by-attr/lr")), ["\"0.1\"", "0.1", "1e-05"]);
    assert_eq!(ls(mount.join("by-attr/lr/0.1")), ["e1", "e2"]);
    assert_eq!(ls(mount.join("by-attr/lr/\"0.1\"")), ["e4"]);
    assert_eq!(ls(mount.join("by-attr/opt.name")), ["adam", "sgd"]);
    assert_eq!(ls(mount.join("by-attr/tags[]")), ["best", "old"]);
    assert_eq!(ls(mount.join("by-attr/tags[]/old")), ["e1", "e2"]);
    assert_eq!(ls(mount.join("by-attr/tags")).len(), 2);
    let readme = read(mount.join("README"));
    assert!(readme.contains("by-attr"), "{readme}");
    mount.stop();
}

#[test]
fn links_are_relative_and_carry_the_time_of_the_entry() {
    let cache = sweep();
    fs::write(cache.join("e2/loss.txt"), "0.25\n").unwrap();
    let mount = cache.mount();
    let link = mount.join("by-attr/lr/0.1/e2");
    assert_eq!(target(&link), Path::new("../../../entries/e2"));
    assert_eq!(read(link.join("loss.txt")), "0.25\n");
    assert_eq!(link.canonicalize().unwrap(), mount.join("entries/e2"));
    let deep = mount.join("by-attr/lr/0.1/by-attr/model/vit/e2");
    assert_eq!(target(&deep), Path::new("../../../../../../entries/e2"));
    assert_eq!(deep.canonicalize().unwrap(), mount.join("entries/e2"));

    let meta = fs::symlink_metadata(&link).unwrap();
    assert!(meta.is_symlink());
    assert_eq!((meta.mtime(), meta.mtime_nsec()), (300, 500_000_000));
    assert_eq!(meta.len(), u64::try_from("../../../entries/e2".len()).unwrap());
    let value = fs::metadata(mount.join("by-attr/lr/0.1")).unwrap();
    assert_eq!(value.len(), 2, "the size of a value directory is its number of entries");
    assert_eq!((value.mtime(), value.mtime_nsec()), (300, 500_000_000), "its mtime that of its newest");

    assert_eq!(mount.sh("ls -t by-attr/model/vit").lines(), ["e4", "e2"]);
    assert_eq!(mount.sh("ls -tr by-attr/model/resnet18").lines(), ["e1", "e3"]);
    mount.stop();
}

#[test]
fn every_set_can_be_asked_again_at_any_depth() {
    let cache = sweep();
    let mount = cache.mount();
    let by = |path: &str| ls(mount.join(path));
    assert_eq!(by("by-attr/lr/0.1/by-attr/model/resnet18"), ["e1"]);
    assert_eq!(by("by-attr/model/resnet18/by-attr/lr/0.1"), ["e1"]);
    assert_eq!(by("by-attr/lr/0.1/by-attr/tags[]/old/by-attr/model/vit/by-attr/opt.name/sgd"), ["e2"]);
    assert_eq!(by("by-attr/lr/0.1/by-attr"), ["lr", "model", "opt.beta", "opt.name", "tags", "tags[]"]);
    assert_eq!(by("by-attr/lr/0.1/by-attr/model"), ["resnet18", "vit"]);
    assert_eq!(by("by-attr/lr/1e-05/by-attr/model"), ["resnet18"]);
    assert_eq!(by("entries/by-attr/model/vit"), ["e2", "e4"]);
    // Found by name, not listed.
    assert_eq!(by("by-attr/lr/0.1"), ["e1", "e2"]);
    assert_eq!(read(mount.join("count")), "4\n");
    assert_eq!(read(mount.join("entries/count")), "4\n");
    assert_eq!(read(mount.join("by-attr/lr/0.1/count")), "2\n");
    assert_eq!(read(mount.join("by-attr/lr/0.1/by-attr/model/resnet18/count")), "1\n");
    assert_eq!(fs::metadata(mount.join("by-attr/lr/0.1/count")).unwrap().len(), 2);
    for nothing in ["by-attr/lr/1e-05/by-attr/tags", "by-attr/lr/1e-05/by-attr/model/vit"] {
        assert_eq!(errno(fs::symlink_metadata(mount.join(nothing))), libc::ENOENT, "{nothing}");
    }
    mount.stop();
}

#[test]
fn another_spelling_is_a_link_to_the_one_name() {
    let cache = Cache::new();
    cache.add("e1", 1.0, r#""lr": 0.10, "n": 1.0, "s": "a/b", "big": 1e22"#);
    cache.add("e2", 2.0, r#""lr": 1e-1, "n": 1, "t": true"#);
    let mount = cache.mount();
    assert_eq!(ls(mount.join("by-attr/lr")), ["0.1"]);
    assert_eq!(ls(mount.join("by-attr/n")), ["1"]);
    assert_eq!(ls(mount.join("by-attr/s")), ["a%2Fb"]);
    assert_eq!(ls(mount.join("by-attr/big")), ["1e+22"]);
    for (key, other, name) in [
        ("lr", "0.10", "0.1"),
        ("lr", "1e-1", "0.1"),
        ("n", "1.0", "1"),
        ("s", "a%2fb", "a%2Fb"),
        ("s", "%61%2Fb", "a%2Fb"),
        ("big", "10000000000000000000000", "1e+22"),
    ] {
        let path = mount.join("by-attr").join(key).join(other);
        assert_eq!(target(&path), Path::new(name), "{key}/{other}");
        assert_eq!(ls(&path), ls(mount.join("by-attr").join(key).join(name)));
    }
    assert_eq!(ls(mount.join("by-attr/lr/0.10")), ["e1", "e2"]);
    // Neither true nor "1" is 1.
    assert_eq!(errno(fs::symlink_metadata(mount.join("by-attr/n/true"))), libc::ENOENT);
    assert_eq!(errno(fs::symlink_metadata(mount.join("by-attr/n/\"1\""))), libc::ENOENT);
    mount.stop();
}

#[test]
fn what_is_not_there_is_enoent_and_what_is_not_text_eilseq() {
    use std::os::unix::ffi::OsStrExt;
    let cache = sweep();
    let mount = cache.mount();
    for nothing in [
        "x",
        "by-attr/none",
        "by-attr/lr/7",
        "by-attr/lr/0.1/e3",
        "by-attr/lr/0.1/x",
        "entries/none",
        "entries/e1/none",
        "entries/e1/.attrs/none",
        "new/none",
        "trash/none",
    ] {
        assert_eq!(errno(fs::symlink_metadata(mount.join(nothing))), libc::ENOENT, "{nothing}");
    }
    for path in
        [&b"by-attr/\xff"[..], b"by-attr/lr/\xff", b"by-attr/lr/0.1/\xff", b"entries/\xff", b"new/\xff"]
    {
        let found = errno(fs::symlink_metadata(mount.join(std::ffi::OsStr::from_bytes(path))));
        assert!([libc::ENOENT, libc::EILSEQ].contains(&found), "{path:?}: {found}");
    }
    for path in [&b"new/\xff=1"[..], b"entries/\xff"] {
        let made = fs::create_dir(mount.join(std::ffi::OsStr::from_bytes(path)));
        assert_eq!(errno(made), libc::EILSEQ, "{path:?}");
    }
    mount.stop();
}

#[test]
fn a_view_refuses_every_change_it_does_not_name() {
    let cache = sweep();
    let before = cache.log();
    let mount = cache.mount();
    let at = |path: &str| mount.join(path);
    not_permitted(fs::remove_file(at("by-attr/lr/0.1/e1")));
    not_permitted(fs::remove_dir(at("by-attr/lr/0.1")));
    not_permitted(fs::remove_dir(at("by-attr/lr")));
    not_permitted(fs::remove_dir(at("by-attr")));
    not_permitted(fs::remove_dir(at("entries")));
    not_permitted(fs::remove_file(at("README")));
    not_permitted(fs::write(at("x"), ""));
    not_permitted(fs::write(at("by-attr/x"), ""));
    not_permitted(fs::write(at("by-attr/lr/x"), ""));
    not_permitted(fs::write(at("by-attr/lr/0.1/x"), ""));
    not_permitted(fs::write(at("entries/x"), ""));
    not_permitted(fs::create_dir(at("x")));
    not_permitted(fs::create_dir(at("by-attr/lr/0.1/x")));
    not_permitted(fs::rename(at("by-attr/lr/0.1"), at("by-attr/lr/0.2")));
    not_permitted(fs::rename(at("by-attr/lr"), at("by-attr/rate")));
    not_permitted(fs::rename(at("entries/e1"), at("entries/e9")));
    let mode = fs::Permissions::from_mode(0o777);
    not_permitted(fs::set_permissions(at("by-attr/lr/0.1"), mode));
    not_permitted(fs::write(at("by-attr/lr/0.1/count"), "9"));
    assert_eq!(errno(symlink("../../../entries/none", at("by-attr/lr/0.1/none"))), libc::ENOENT);
    assert_eq!(ls(at("entries")), ["e1", "e2", "e3", "e4"]);
    mount.stop();
    assert_eq!(cache.log(), before, "nothing was recorded");
}

#[test]
fn moving_and_linking_between_values_sets_the_attribute() {
    let cache = sweep();
    let mount = cache.mount();
    let at = |path: &str| mount.join(path);
    assert_eq!(
        errno(fs::rename(at("by-attr/status/running/e3"), at("by-attr/status/done/e3"))),
        libc::ENOENT
    );
    fs::create_dir(at("by-attr/status/done")).unwrap();
    assert_eq!(ls(at("by-attr/status")), ["done", "running"]);
    assert_eq!(ls(at("by-attr/status/done")), [""; 0]);
    assert_eq!(errno(fs::create_dir(at("by-attr/status/done"))), libc::EEXIST);
    let records = cache.log().lines().count();
    mount.sh("mv by-attr/status/running/e3 by-attr/status/done/").ok();
    assert_eq!(ls(at("by-attr/status/done")), ["e3"]);
    assert_eq!(ls(at("by-attr/status/running")), ["e4"]);
    assert_eq!(cache.entry("e3")["status"], "done");
    assert_eq!(mount.get("e3", "status"), "done");
    assert!(cache.log().lines().count() <= records + 1, "one record");

    mount.sh("ln -s ../../../entries/e1 by-attr/status/done/e1").ok();
    assert_eq!(ls(at("by-attr/status/done")), ["e1", "e3"]);
    assert_eq!(cache.entry("e1")["status"], "done");

    // A new key, and a value that is no string.
    mount.sh("mkdir by-attr/round by-attr/round/2 && ln -s ../../../entries/e1 by-attr/round/2/e1").ok();
    assert_eq!(cache.entry("e1")["round"], 2);
    assert_eq!(mount.get("e1", "round"), "2");

    // The last one leaves: the value goes with it.
    mount.sh("mv by-attr/status/running/e4 by-attr/status/done/").ok();
    assert_eq!(ls(at("by-attr/status/done")), ["e1", "e3", "e4"]);
    assert!(!ls(at("by-attr/status")).contains(&"running".to_owned()));

    // Below a set too: the other attributes stay.
    fs::create_dir(at("by-attr/model/vit/by-attr/status/late")).unwrap();
    mount.sh("mv by-attr/model/vit/by-attr/status/done/e4 by-attr/model/vit/by-attr/status/late/").ok();
    assert_eq!(cache.entry("e4")["status"], "late");
    assert_eq!(cache.entry("e4")["model"], "vit");
    mount.stop();
}

#[test]
fn elements_of_arrays_are_added_and_removed_by_links() {
    let cache = sweep();
    let mount = cache.mount();
    mount.sh("ln -s ../../../entries/e2 'by-attr/tags[]/best/e2'").ok();
    assert_eq!(cache.entry("e2")["tags"], serde_json::json!(["old", "best"]));
    assert_eq!(ls(mount.join("by-attr/tags[]/best")), ["e1", "e2"]);
    mount.sh("rm 'by-attr/tags[]/old/e1'").ok();
    assert_eq!(cache.entry("e1")["tags"], serde_json::json!(["best"]));
    assert_eq!(ls(mount.join("by-attr/tags[]/old")), ["e2"]);
    // An array is made where there is none.
    mount.sh("mkdir 'by-attr/tags[]/new' && ln -s ../../../entries/e3 'by-attr/tags[]/new/e3'").ok();
    assert_eq!(cache.entry("e3")["tags"], serde_json::json!(["new"]));
    assert_eq!(mount.get("e3", "tags"), r#"["new"]"#);
    mount.stop();
}

#[test]
fn ids_that_are_names_of_sets_are_shown_encoded() {
    let cache = Cache::new();
    for id in ["count", "by-attr", "%x", "where", "plain"] {
        cache.add(id, 1.0, r#""k": 1"#);
        fs::write(cache.join(id).join("who"), id).unwrap();
    }
    let mount = cache.mount();
    let names = ["%25x", "%62y-attr", "%63ount", "%77here", "plain"];
    assert_eq!(ls(mount.join("entries")), names);
    assert_eq!(ls(mount.join("by-attr/k/1")), names);
    assert_eq!(read(mount.join("by-attr/k/1/%63ount/who")), "count");
    assert_eq!(read(mount.join("entries/%25x/who")), "%x");
    assert_eq!(read(mount.join("entries/%63ount/.attrs/_id")), "count\n");
    assert_eq!(read(mount.join("entries/count")), "5\n");
    assert_eq!(read(mount.join("by-attr/k/1/count")), "5\n");
    mount.stop();
}

#[test]
fn nested_keys_are_joined_by_dots_and_dots_are_escaped() {
    let cache = Cache::new();
    cache.add("e1", 1.0, r#""a": {"b": {"c": 1}, "": 2}, "a.b": 3, "": 4, "e": {}, "sl/ash": 5, "q\"": 6"#);
    let mount = cache.mount();
    assert_eq!(ls(mount.join("entries/e1/.attrs")), ls(mount.join("by-attr")));
    let keys = ls(mount.join("by-attr"));
    assert_eq!(keys, ["\"\"", "a%2Eb", "a.\"\"", "a.b.c", "e", "q\"", "sl%2Fash"]);
    for (key, value) in keys.iter().zip(["4", "3", "2", "1", "{}", "6", "5"]) {
        assert_eq!(mount.get("e1", key), value, "{key}");
        assert_eq!(ls(mount.join("by-attr").join(key)), [value], "{key}");
    }
    mount.stop();
}

#[test]
fn changes_made_here_are_seen_by_the_next_call() {
    let cache = sweep();
    let mount = cache.mount();
    for round in 0..30 {
        let id = mount.make(&format!("round={round}"));
        assert_eq!(ls(mount.join(format!("by-attr/round/{round}"))), [id.as_str()]);
        assert_eq!(read(mount.join(format!("by-attr/round/{round}/count"))), "1\n");
        mount.set(&id, "round", "none");
        let gone = fs::symlink_metadata(mount.join(format!("by-attr/round/{round}")));
        assert_eq!(errno(gone), libc::ENOENT);
        assert!(ls(mount.join("by-attr/round/none")).contains(&id));
        assert_eq!(fs::metadata(mount.join("by-attr/round/none")).unwrap().len(), round + 1);
        fs::remove_file(mount.join("entries").join(&id).join(".attrs/round")).unwrap();
        assert!(!fs::exists(mount.join("by-attr/round/none").join(&id)).unwrap());
        mount.set(&id, "round", "none");
        assert!(fs::exists(mount.join("by-attr/round/none").join(&id)).unwrap());
    }
    mount.stop();
}

#[test]
fn changes_made_by_others_are_seen_soon() {
    let cache = sweep();
    let mount = cache.mount();
    assert_eq!(ls(mount.join("by-attr/lr/0.1")), ["e1", "e2"]);
    assert!(!fs::exists(mount.join("by-attr/lr/0.1/e5")).unwrap());
    assert!(!fs::exists(mount.join("by-attr/fresh")).unwrap());
    cache.add("e5", 500.0, r#""lr": 0.1, "fresh": 1"#);
    let soon = Duration::from_secs(3);
    poll("a new entry is listed", soon, || {
        (ls(mount.join("by-attr/lr/0.1")) == ["e1", "e2", "e5"]).then_some(())
    });
    poll("it is found", soon, || fs::exists(mount.join("by-attr/lr/0.1/e5")).unwrap().then_some(()));
    poll("its key is found", soon, || fs::exists(mount.join("by-attr/fresh/1/e5")).unwrap().then_some(()));
    cache.append(&[cache.record("e5", 500.0, r#""lr": 0.2"#)]);
    poll("it moved", soon, || fs::exists(mount.join("by-attr/lr/0.2/e5")).unwrap().then_some(()));
    assert_eq!(ls(mount.join("by-attr/lr/0.1")), ["e1", "e2"]);
    assert_eq!(mount.get("e5", "lr"), "0.2");
    mount.stop();
}

#[test]
fn bulk_moves_of_thousands() {
    let cache = Cache::new();
    let lines: Vec<_> = (0..2000)
        .map(|n| cache.record(&format!("e{n:05}"), f64::from(n), r#""status": "running""#))
        .collect();
    cache.append(&lines);
    let mount = cache.mount();
    mount.sh("mkdir by-attr/status/done && mv by-attr/status/running/* by-attr/status/done/").ok();
    assert_eq!(read(mount.join("by-attr/status/done/count")), "2000\n");
    assert_eq!(ls(mount.join("by-attr/status")), ["done"]);
    mount.stop();
    assert!(cache.entries().iter().all(|(_, attrs)| attrs["status"] == "done"));
}
