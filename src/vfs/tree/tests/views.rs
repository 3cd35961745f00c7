//! Views: listings, sizes and times, changes through links, tables, kernel caching.

use super::{World, errno, wait};
use crate::vfs::{DirEntry, Entry, Ino};

fn sweep() -> World {
    let world = World::new();
    world.entry(
        "e1",
        r#"{"lr": 0.1, "model": "resnet18", "loss": 0.5, "tags": ["best"], "status": "running"}"#,
    );
    world.entry("e2", r#"{"lr": 0.1, "model": "vit", "loss": 0.25, "status": "running"}"#);
    world.entry("e3", r#"{"lr": 1, "model": "vit", "status": "done"}"#);
    world
}

#[test]
fn paths_are_questions() {
    let world = sweep();
    assert_eq!(world.ls("by-attr/lr").unwrap(), ["0.1", "1"]);
    assert_eq!(world.ls("by-attr/lr/0.1").unwrap(), ["e1", "e2"]);
    assert_eq!(world.ls("by-attr/lr/0.1/by-attr/model/vit").unwrap(), ["e2"]);
    assert_eq!(world.ls("entries/by-attr/model/vit/where/lr lt 1").unwrap(), ["e2"]);
    assert_eq!(world.ls("where/lr eq 0.1/sort/loss").unwrap(), ["000001-e2", "000002-e1"]);
    assert_eq!(world.ls("sort").unwrap(), ["loss", "lr", "model", "status", "tags"]);
    assert_eq!(world.ls("where").unwrap(), [""; 0]);
    assert_eq!(world.find("where/lr >").unwrap_err(), libc::EINVAL);
    assert_eq!(world.link("by-attr/lr/0.1/e1").unwrap(), "../../../entries/e1");
    assert_eq!(world.link("entries/by-attr/lr/0.1/e1").unwrap(), "../../../../entries/e1");
    assert_eq!(world.link("by-attr/lr/1e-1").unwrap(), "0.1");
    assert_eq!(world.read("by-attr/lr/0.1/count").unwrap(), "2\n");
    assert_eq!(world.read("count").unwrap(), "3\n");
}

#[test]
fn a_set_tells_its_size_and_newest_time() {
    let world = sweep();
    let set = world.stat("by-attr/lr/0.1").unwrap();
    let [e1, e2] = ["e1", "e2"].map(|id| world.stat(&format!("by-attr/lr/0.1/{id}")).unwrap());
    assert_eq!((set.size, set.mtime), (2, e1.mtime.max(e2.mtime)));
    assert!(e1.mtime <= e2.mtime && e1.mtime.sec > 1_700_000_000);
    assert_eq!(e1.size, "../../../entries/e1".len() as u64);
    assert_eq!(e1.mode, libc::S_IFLNK | 0o777);
    assert_ne!(e1.ino, world.ino("by-attr/model/resnet18/e1").unwrap(), "two paths, two nodes");
}

#[test]
fn moving_a_link_changes_the_attribute_by_one_record() {
    let world = sweep();
    let before = world.log().len();
    world.mv("by-attr/status/running/e1", "by-attr/status/done/e1").unwrap();
    assert_eq!(world.log().len(), before + 1);
    assert_eq!(world.ls("by-attr/status/done").unwrap(), ["e1", "e3"]);
    assert_eq!(world.read("entries/e1/.attrs/status").unwrap(), "done\n");
    assert_eq!(world.mv("by-attr/status/running/e1", "by-attr/status/done/e1"), Err(libc::ENOENT));
    for (from, to) in [
        ("by-attr/status/running/e2", "by-attr/status/done/other"),
        ("by-attr/status/running/e2", "by-attr/model/resnet18/e2"),
        ("by-attr/status/running/e2", "where/lr gt 0/e2"),
        ("by-attr/status/running/e2", "entries/e9"),
        ("by-attr/status/running/e2", "e2"),
        ("by-attr/status/running/e2", "by-attr/lr/1/by-attr/status/done/e2"),
        ("by-attr/status/running", "by-attr/status/walking"),
        ("by-attr/status", "by-attr/state"),
    ] {
        assert_eq!(world.mv(from, to), Err(libc::EPERM), "{from} to {to}");
    }
    world.mv("by-attr/lr/0.1/by-attr/status/running/e2", "by-attr/lr/0.1/by-attr/status/done/e2").unwrap();
    assert_eq!(world.find("by-attr/status/running").unwrap_err(), libc::ENOENT);
}

#[test]
fn a_link_can_be_made() {
    let world = sweep();
    let entry = world.ln("../../../entries/e1", "by-attr/model/vit/e1").unwrap();
    assert_eq!(entry.attr.ino, world.ino("by-attr/model/vit/e1").unwrap());
    assert_eq!(world.read("entries/e1/.attrs/model").unwrap(), "vit\n");
    let refused = |target: &str, path: &str| world.ln(target, path).unwrap_err();
    assert_eq!(refused("../../../entries/e1", "by-attr/model/vit/e1"), libc::EEXIST);
    assert_eq!(refused("../../../entries/e9", "by-attr/model/vit/e9"), libc::ENOENT);
    assert_eq!(refused("../../../entries/e1", "by-attr/lr/1/e2"), libc::EPERM);
    assert_eq!(refused("../../entries/e1", "where/lr gt 9/e1"), libc::EPERM);
    assert_eq!(refused("x", "entries/x"), libc::EPERM);
    assert_eq!(refused("entries/e1", "e1"), libc::EPERM);
}

#[test]
fn elements_are_added_and_taken_out() {
    let world = sweep();
    world.ln("../../../entries/e2", "by-attr/tags[]/best/e2").unwrap();
    assert_eq!(world.read("entries/e2/.attrs/tags").unwrap(), "[\"best\"]\n");
    world.mkdir("by-attr/tags[]/worst").unwrap();
    world.mv("by-attr/tags[]/best/e1", "by-attr/tags[]/worst/e1").unwrap();
    assert_eq!(world.read("entries/e1/.attrs/tags").unwrap(), "[\"worst\"]\n");
    world.rm("by-attr/tags[]/best/e2").unwrap();
    assert_eq!(world.ls("by-attr/tags[]").unwrap(), ["worst"]);
    assert_eq!(world.read("entries/e2/.attrs/tags").unwrap(), "[]\n");
}

#[test]
fn nothing_else_can_be_done_in_a_view() {
    let world = sweep();
    let before = world.log();
    for path in
        ["by-attr/lr/1/e3", "sort/lr/000001-e1", "where/lr gt 0/e1", "by-attr/lr/1/count", "table.csv"]
    {
        assert_eq!(world.rm(path), Err(libc::EPERM), "{path}");
        assert_eq!(world.chmod(path, 0o600), Err(libc::EPERM), "{path}");
    }
    for path in ["by-attr/lr/1", "by-attr/lr", "by-attr", "sort/lr", "where/lr gt 0", "by-attr/lr/1/by-attr"]
    {
        assert_eq!(world.rmdir(path), Err(libc::EPERM), "{path}");
        assert_eq!(world.chmod(path, 0o700), Err(libc::EPERM), "{path}");
    }
    for path in ["where/x", "sort/x", "by-attr/lr/1/x", "where/lr gt 0/x"] {
        assert_eq!(world.mkdir(path).unwrap_err(), libc::EPERM, "{path}");
        assert_eq!(world.write("by-attr/lr/1/file", "x"), Err(libc::EPERM));
    }
    assert_eq!(world.write("table.csv", "x"), Err(libc::EPERM));
    assert_eq!(world.log(), before);
}

#[test]
fn value_directories_are_made_in_memory() {
    let world = sweep();
    let before = world.log();
    world.mkdir("by-attr/status/failed").unwrap();
    world.mkdir("by-attr/phase").unwrap();
    world.mkdir("by-attr/phase/one").unwrap();
    assert_eq!(world.log(), before);
    assert_eq!(world.ls("by-attr/status").unwrap(), ["done", "running", "failed"]);
    assert_eq!(world.ls("by-attr/status/failed").unwrap(), [""; 0]);
    assert_eq!(world.mkdir("by-attr/status/failed").unwrap_err(), libc::EEXIST);
    assert_eq!(world.mkdir("by-attr/status/done").unwrap_err(), libc::EEXIST);
    assert_eq!(world.mkdir("by-attr/_id").unwrap_err(), libc::EPERM);
    assert_eq!(world.find("by-attr/lr/1/by-attr/phase").unwrap_err(), libc::ENOENT);
    world.rmdir("by-attr/status/failed").unwrap();
    assert_eq!(world.find("by-attr/status/failed").unwrap_err(), libc::ENOENT);
    world.ln("../../../entries/e3", "by-attr/phase/one/e3").unwrap();
    assert_eq!(world.read("entries/e3/.attrs/phase").unwrap(), "one\n");
}

#[test]
fn tables_have_the_size_that_stat_tells() {
    let world = sweep();
    let csv = world.read("table.csv").unwrap();
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(lines.len(), 4);
    assert_eq!(lines[0], "_id,_timestamp,loss,lr,model,status,tags");
    assert!(
        lines[1].starts_with("e1,") && lines[1].ends_with(",0.5,0.1,resnet18,running,\"[\"\"best\"\"]\"")
    );
    let csv = world.read("where/has(loss)/sort/loss/table.csv").unwrap();
    let ids: Vec<&str> = csv.lines().skip(1).map(|line| &line[..2]).collect();
    assert_eq!(ids, ["e2", "e1"], "in the order that was asked for");
    let jsonl = world.read("by-attr/model/vit/table.jsonl").unwrap();
    assert_eq!(jsonl, format!("{}\n{}\n", world.log()[1], world.log()[2]));
    assert!(world.read("schema.json").unwrap().contains("\"entries\": 3"));
    assert!(world.read("by-attr/lr/1/schema.json").unwrap().contains("\"entries\": 1"));
}

#[test]
fn an_open_file_is_a_snapshot() {
    let world = sweep();
    let ino = world.ino("by-attr/lr/0.1/count").unwrap();
    let opened = world.vfs.open(&world.caller, ino, libc::O_RDONLY).unwrap();
    world.mv("by-attr/lr/0.1/e1", "by-attr/lr/1/e1").unwrap();
    assert_eq!(world.vfs.read(opened.fh, 0, 100).unwrap(), b"2\n");
    assert_eq!(world.read("by-attr/lr/0.1/count").unwrap(), "1\n");
}

fn names(world: &World, fh: u64, cookie: u64, limit: usize) -> Vec<(String, u64)> {
    let mut names = Vec::new();
    world
        .vfs
        .readdir(fh, cookie, &mut |entry| {
            names.push((entry.name.clone().into_string().unwrap(), entry.cookie));
            names.len() < limit
        })
        .unwrap();
    names
}

#[test]
fn a_stream_is_a_snapshot_until_it_is_rewound() {
    let world = sweep();
    let ino = world.ino("by-attr/lr/0.1").unwrap();
    let fh = world.vfs.opendir(&world.caller, ino).unwrap().fh;
    let first = names(&world, fh, 0, 3);
    assert_eq!(first[2].0, "e1");
    world.rmdir("entries/e1").unwrap();
    world.ln("../../../entries/e3", "by-attr/lr/0.1/e3").unwrap();
    let rest = names(&world, fh, first[2].1, 10);
    assert_eq!(rest.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["e2"]);
    let again = names(&world, fh, 0, 10);
    assert_eq!(again.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), [".", "..", "e2", "e3"]);
    world.vfs.releasedir(fh);
}

#[test]
fn listings_are_kept_by_the_kernel_until_something_they_show_changes() {
    let world = sweep();
    let ino = world.ino("by-attr/lr/0.1").unwrap();
    let keeps = |ino: Ino| {
        let opened = world.vfs.opendir(&world.caller, ino).unwrap();
        world.vfs.releasedir(opened.fh);
        assert!(opened.cache_dir);
        opened.keep_cache
    };
    assert_eq!([keeps(ino), keeps(ino)], [false, true]);
    world.write("entries/e1/.attrs/loss", "7").unwrap();
    assert!(keeps(ino), "nobody's lr changed");
    world.write("entries/e1/.attrs/lr", "7").unwrap();
    assert_eq!([keeps(ino), keeps(ino)], [false, true]);
    let status = world.ino("by-attr/status").unwrap();
    assert_eq!([keeps(status), keeps(status)], [false, true]);
    world.mkdir("by-attr/status/failed").unwrap();
    assert!(!keeps(status));
}

#[test]
fn streams_of_different_listings_do_not_share_the_kernels_cache() {
    let world = sweep();
    let ino = world.ino("by-attr/lr/0.1").unwrap();
    let open = || world.vfs.opendir(&world.caller, ino).unwrap();
    let (one, two) = (open(), open());
    assert!(one.cache_dir && two.cache_dir && two.keep_cache);
    world.mv("by-attr/lr/0.1/e1", "by-attr/lr/1/e1").unwrap();
    let three = open();
    assert!(!three.cache_dir && three.keep_cache, "it neither uses nor drops what the others read");
    assert_eq!(names(&world, three.fh, 0, 10).len(), 3);
    assert_eq!(names(&world, one.fh, 0, 10).len(), 4);
    assert_eq!(names(&world, one.fh, 0, 10).len(), 4, "two reads the same listing");
    world.vfs.releasedir(two.fh);
    assert_eq!(names(&world, one.fh, 0, 10).len(), 3, "rewound, and alone");
    for opened in [one, three] {
        world.vfs.releasedir(opened.fh);
    }
    assert!(open().keep_cache, "of the listing that was read last");
}

#[test]
fn readdirplus_counts_what_it_gives() {
    let world = sweep();
    let ino = world.ino("by-attr/lr").unwrap();
    let fh = world.vfs.opendir(&world.caller, ino).unwrap().fh;
    let mut given: Vec<(String, Entry)> = Vec::new();
    world
        .vfs
        .readdirplus(&world.caller, fh, 0, &mut |name, entry| {
            if name.name == "1" {
                return false;
            }
            given.push((name.name.clone().into_string().unwrap(), *entry));
            true
        })
        .unwrap();
    world.vfs.releasedir(fh);
    assert_eq!(given.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), [".", "..", "0.1"]);
    let taken = given[2].1.attr.ino;
    assert_eq!(given[2].1.attr.size, 2);
    assert!(world.vfs.getattr(taken, None).is_ok());
    world.vfs.forget(taken, 1);
    assert_eq!(errno(world.vfs.getattr(taken, None)).unwrap_err(), libc::ESTALE, "one count was given");
}

#[test]
fn many_links_are_given_with_attributes_only_to_who_looks_at_links() {
    let world = World::new();
    let ids: Vec<String> = (10..40).map(|number| format!("e{number}")).collect();
    for id in &ids {
        world.entry(id, r#"{"lr": 0.1}"#);
    }
    let ino = world.ino("by-attr/lr/0.1").unwrap();
    let from = |cookie| {
        let fh = world.vfs.opendir(&world.caller, ino).unwrap().fh;
        let mut given = Vec::new();
        let mut add = |name: &DirEntry, _: &Entry| {
            given.push(name.name.clone().into_string().unwrap());
            true
        };
        world.vfs.readdirplus(&world.caller, fh, cookie, &mut add).unwrap();
        world.vfs.releasedir(fh);
        given
    };
    let (dots, all) = (vec![".", ".."], [vec![".", ".."], ids.iter().map(String::as_str).collect()].concat());
    assert_eq!(from(0), dots, "names are all that is asked for, as far as is known");
    assert_eq!(from(2), ids, "the kernel knows that they are looked up");
    world.stat("by-attr/lr/0.1/e12").unwrap();
    assert_eq!(from(0), all);
    assert_eq!(from(0), dots, "nobody looked at them");
    world.link("by-attr/lr/0.1/e12").unwrap();
    assert_eq!(from(0), all);
}

#[test]
fn names_are_kept_for_long_only_if_the_kernel_can_be_told() {
    let world = sweep();
    let kept = || world.find("by-attr/lr/0.1/e1").unwrap().entry_ttl;
    assert!((10..60).contains(&kept().as_secs()), "not for ever: the kernel cannot always be told");
    assert!(world.find("where/_timestamp > -1d/e1").unwrap().entry_ttl.is_zero(), "changes with time");
    world.vfs.negotiated(false, false, false);
    assert!(kept().is_zero());
    assert!(world.find("by-attr/lr/0.1").unwrap().attr_ttl.is_zero());
    world.vfs.keep_names(true);
    assert!(!kept().is_zero());
    world.vfs.keep_names(false);
    assert!(kept().is_zero());
    assert!(world.find("entries").unwrap().entry_ttl.as_secs() > 60);
}

#[test]
fn odd_values_and_keys_are_names() {
    let world = World::new();
    world.entry("e1", r#"{"": "", ".": "..", "a/b": "c/d", "n": "x\ny", "q": "\udcff", "%": 1e400}"#);
    for key in world.ls("by-attr").unwrap() {
        let [value] = &world.ls(&format!("by-attr/{key}")).unwrap()[..] else { panic!("a value of {key}") };
        assert_eq!(world.ls(&format!("by-attr/{key}/{value}")).unwrap(), ["e1"], "{key} {value}");
        assert_eq!(world.ls(&format!("sort/{key}")).unwrap(), ["000001-e1"], "{key}");
        assert!(world.read(&format!("entries/e1/.attrs/{key}")).is_ok(), "{key}");
    }
    wait(|done| world.vfs.fsyncdir(world.vfs.opendir(&world.caller, 1).unwrap().fh, false, done)).unwrap();
}
