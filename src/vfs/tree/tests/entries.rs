//! Entries: making, finding, deleting, the trash, `new/` and `memo/`.

use std::path::Path;

use super::{World, errno, latin1, wait};
use crate::vfs::{Options, ROOT};

#[test]
fn the_root_lists_what_there_is() {
    let world = World::new();
    assert_eq!(
        world.ls("").unwrap(),
        ["README", "entries", "by-attr", "where", "sort", "new", "memo", "trash"]
    );
    assert!(world.read("README").unwrap().contains("entries/ID/"));
    let status = world.read(".status").unwrap();
    assert!(status.contains(r#""entries": 0"#) && status.ends_with("}\n"), "{status}");
    assert_eq!(world.mkdir("x").unwrap_err(), libc::EPERM);
    assert_eq!(world.write("README", "x"), Err(libc::EPERM));
    assert_eq!(world.rm("README"), Err(libc::EPERM));
    assert_eq!(world.rmdir("entries"), Err(libc::EPERM));
    assert_eq!(world.mv("new", "old"), Err(libc::EPERM));
}

#[test]
fn an_entry_is_made_with_the_name_it_is_given() {
    let world = World::new();
    world.mkdir("entries/mine").unwrap();
    assert_eq!(world.ls("entries").unwrap(), ["mine"]);
    assert!(world.dir.path().join("mine").is_dir());
    assert_eq!(world.mkdir("entries/mine").unwrap_err(), libc::EEXIST);
    for (name, errno) in [("_x", libc::EINVAL), (".x", libc::EINVAL), ("%x", libc::EINVAL)] {
        assert_eq!(world.mkdir(&format!("entries/{name}")).unwrap_err(), errno, "{name}");
    }
    std::fs::create_dir(world.dir.path().join("unsaved")).unwrap();
    assert_eq!(world.find("entries/unsaved").unwrap_err(), libc::ENOENT, "a program has not saved it yet");
    assert_eq!(world.mkdir("entries/unsaved").unwrap_err(), libc::EEXIST);
    world.mkdir("entries/%63ount").unwrap();
    assert!(world.dir.path().join("count").is_dir());
    assert_eq!(world.read("entries/count").unwrap(), "2\n");
    assert_eq!(world.mv("entries/mine", "entries/yours"), Err(libc::EPERM));
    assert_eq!(world.ls("entries").unwrap(), ["mine", "%63ount"]);
}

#[test]
fn an_entry_is_deleted_once_it_is_empty() {
    let world = World::new();
    world.entry("e1", r#"{"lr": 1}"#);
    std::fs::write(world.dir.path().join("e1/file"), "x").unwrap();
    assert_eq!(world.rmdir("entries/e1"), Err(libc::ENOTEMPTY));
    assert_eq!(world.ls("by-attr/lr/1").unwrap(), ["e1"]);
    world.rm("entries/e1/file").unwrap();
    world.rmdir("entries/e1").unwrap();
    assert_eq!(world.find("entries/e1").unwrap_err(), libc::ENOENT);
    assert_eq!(world.find("by-attr/lr").unwrap_err(), libc::ENOENT);
    assert!(!world.dir.path().join("e1").exists());
    assert!(world.log().last().unwrap().contains("_deleted"));
    assert_eq!(world.rmdir("entries/e1"), Err(libc::ENOENT));
}

#[test]
fn a_record_without_a_directory_is_a_result() {
    let world = World::new();
    world.entry("e1", r#"{"lr": 1}"#);
    std::fs::remove_dir(world.dir.path().join("e1")).unwrap();
    assert_eq!(world.ls("entries/e1").unwrap(), [""; 0]);
    world.write("entries/e1/.attrs/lr", "2").unwrap();
    world.write("entries/e1/file", "x").unwrap();
    assert!(world.dir.path().join("e1/file").exists());
    std::fs::remove_dir_all(world.dir.path().join("e1")).unwrap();
    world.rmdir("entries/e1").unwrap();
}

#[test]
fn a_name_in_new_is_the_entry_for_the_life_of_the_mount() {
    let world = World::new();
    world.mkdir("new/x").unwrap();
    let id = world.read("new/x/.attrs/_id").unwrap();
    assert_eq!(world.ls("entries").unwrap(), [id.trim()]);
    assert_eq!(world.ls("new").unwrap(), [""; 0]);
    assert_eq!(world.mkdir("new/x").unwrap_err(), libc::EEXIST);
    world.write("new/x/file", "hello").unwrap();
    world.write("new/x/.attrs/lr", "0.1").unwrap();
    assert_eq!(world.read(&format!("entries/{}/file", id.trim())).unwrap(), "hello\n");
    assert_ne!(world.ino("new/x"), world.ino(&format!("entries/{}", id.trim())), "two paths of a directory");
    assert_eq!(
        world.ino("new/x/.attrs/lr"),
        world.ino(&format!("entries/{}/.attrs/lr", id.trim())),
        "one file by two paths"
    );
    assert_eq!(world.mv("new/x", "new/y"), Err(libc::EPERM));
    assert_eq!(world.find("new/y").unwrap_err(), libc::ENOENT);
    assert_eq!(world.rmdir("new/x"), Err(libc::ENOTEMPTY));
    world.rm("new/x/file").unwrap();
    world.rmdir("new/x").unwrap();
    assert_eq!(world.find("new/x").unwrap_err(), libc::ENOENT);
    world.mkdir("new/x").unwrap();
    assert_ne!(world.read("new/x/.attrs/_id").unwrap(), id);
}

#[test]
fn a_name_in_new_may_set_attributes_by_one_record() {
    let world = World::new();
    world.mkdir("new/lr=0.10,opt.name=adam,s=\"1\"").unwrap();
    let [line] = &world.log()[..] else { panic!("one record") };
    assert!(line.contains(r#""lr": 0.10, "opt": {"name": "adam"}, "s": "1""#), "{line}");
    assert_eq!(world.read("new/lr=0.10,opt.name=adam,s=\"1\"/.attrs/lr").unwrap(), "0.1\n");
    for name in ["a=1,,b", "=3", "a=1,b", "a=1,", "_id=3", "a=1,a.b=2", "a[]=1"] {
        assert_eq!(world.mkdir(&format!("new/{name}")).unwrap_err(), libc::EINVAL, "{name}");
    }
    let new = world.ino("new").unwrap();
    let made = wait(|done| world.vfs.mkdir(&world.caller, new, latin1(), 0o777, 0o022, done));
    assert!(made.is_ok(), "a name is any bytes");
    assert_eq!(world.log().len(), 2);
    let directories =
        std::fs::read_dir(world.dir.path()).unwrap().filter(|e| e.as_ref().unwrap().path().is_dir());
    assert_eq!(directories.count(), 2, "what was refused leaves nothing behind");
}

#[test]
fn a_memo_is_made_once_and_found_by_any_spelling() {
    let world = World::new();
    assert_eq!(world.find("memo/lr=0.1,seed=3").unwrap_err(), libc::ENOENT);
    world.mkdir("memo/seed=3,lr=1e-1").unwrap();
    assert_eq!(world.mkdir("memo/lr=0.1,seed=3").unwrap_err(), libc::EEXIST);
    assert_eq!(world.mkdir("memo/lr=0.10").unwrap_err(), libc::EEXIST, "includes these");
    assert_eq!(world.link("memo/seed=3,lr=0.10").unwrap(), "lr=0.1,seed=3");
    world.write("memo/lr=0.1,seed=3/result", "42").unwrap();
    let id = world.read("memo/lr=0.1,seed=3/.attrs/_id").unwrap();
    assert_eq!(world.read(&format!("entries/{}/result", id.trim())).unwrap(), "42\n");
    world.mkdir("memo/lr=0.1,seed=4").unwrap();
    assert_eq!(world.read("memo/lr=0.1/.attrs/_id").unwrap(), id, "the oldest");
    assert_eq!(world.ls("memo").unwrap(), [""; 0]);
    for name in ["x", "=1", "a=1,,"] {
        assert_eq!(world.mkdir(&format!("memo/{name}")).unwrap_err(), libc::EINVAL, "{name}");
        assert_eq!(world.find(&format!("memo/{name}")).unwrap_err(), libc::EINVAL, "{name}");
    }
    assert_eq!(world.ls("entries").unwrap().len(), 2);
}

#[test]
fn of_many_claims_of_a_memo_one_wins() {
    let world = World::new();
    let wins: usize = std::thread::scope(|scope| {
        let claims: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    (0..20)
                        .filter(|n| {
                            world
                                .mkdir(&format!("memo/n={n}"))
                                .map_err(|e| assert_eq!(e, libc::EEXIST))
                                .is_ok()
                        })
                        .count()
                })
            })
            .collect();
        claims.into_iter().map(|claim| claim.join().unwrap()).sum()
    });
    assert_eq!((wins, world.ls("entries").unwrap().len()), (20, 20));
    let directories =
        std::fs::read_dir(world.dir.path()).unwrap().filter(|e| e.as_ref().unwrap().path().is_dir());
    assert_eq!(directories.count(), 20, "the losers' directories are gone");
}

#[test]
fn the_trash_gives_back_what_was_put_there() {
    let world = World::new();
    world.entry("e1", r#"{"lr": 1}"#);
    std::fs::write(world.dir.path().join("e1/file"), "x\n").unwrap();
    world.mv("entries/e1", "trash/e1").unwrap();
    assert_eq!((world.ls("trash").unwrap(), world.ls("entries").unwrap()), (vec!["e1".to_owned()], vec![]));
    assert_eq!(world.find("by-attr/lr").unwrap_err(), libc::ENOENT);
    assert_eq!(world.read("trash/e1/file").unwrap(), "x\n");
    assert_eq!(world.mv("trash/e1", "entries/e2"), Err(libc::EPERM));
    assert_eq!(world.mv("trash/e1", "trash/e2"), Err(libc::EPERM));
    assert_eq!(world.mkdir("trash/x").unwrap_err(), libc::EPERM);
    world.mv("trash/e1", "entries/e1").unwrap();
    assert_eq!(world.ls("by-attr/lr/1").unwrap(), ["e1"]);
    assert_eq!(world.read("entries/e1/file").unwrap(), "x\n");
    assert_eq!(world.ls("trash").unwrap(), [""; 0]);

    world.mv("entries/e1", "trash/e1").unwrap();
    assert_eq!(world.rmdir("trash/e1"), Err(libc::ENOTEMPTY));
    world.rm("trash/e1/file").unwrap();
    world.rmdir("trash/e1").unwrap();
    assert_eq!(world.ls("trash").unwrap(), [""; 0]);
    assert_eq!(std::fs::read_dir(world.dir.path().join("_trash")).unwrap().count(), 0);
}

#[test]
fn an_id_can_be_used_again() {
    let world = World::new();
    for round in 0..3 {
        world.mkdir("entries/mine").unwrap();
        assert_eq!(world.ls("entries/mine").unwrap(), [""; 0], "{round}");
        world.write("entries/mine/file", "x").unwrap();
        world.write("entries/mine/.attrs/round", &round.to_string()).unwrap();
        assert_eq!(world.read("entries/mine/.attrs/round").unwrap(), format!("{round}\n"));
        world.rm("entries/mine/file").unwrap();
        world.rmdir("entries/mine").unwrap();
    }
}

#[test]
fn a_name_in_new_comes_back_from_the_trash_with_its_entry() {
    let world = World::new();
    world.mkdir("new/x").unwrap();
    let id = world.read("new/x/.attrs/_id").unwrap();
    let (entry, trashed) = (format!("entries/{}", id.trim()), format!("trash/{}", id.trim()));
    world.mv(&entry, &trashed).unwrap();
    assert_eq!(world.find("new/x").unwrap_err(), libc::ENOENT);
    world.mv(&trashed, &entry).unwrap();
    assert_eq!(world.read("new/x/.attrs/_id").unwrap(), id);
    world.write("new/x/file", "x").unwrap();
    assert_eq!(world.read(&format!("{entry}/file")).unwrap(), "x\n");
}

#[test]
fn an_attribute_of_an_entry_that_vanished_while_it_was_written_is_stale() {
    let world = World::new();
    world.entry("e1", r#"{"lr": 1}"#);
    let fh = world.open("entries/e1/.attrs/lr", libc::O_WRONLY).unwrap();
    world.vfs.write(fh, 0, b"2", None, false).unwrap();
    world.rmdir("entries/e1").unwrap();
    assert_eq!(world.close(fh), Err(libc::ESTALE));
    assert_eq!(world.ls("entries").unwrap(), [""; 0]);
}

#[test]
fn a_node_of_a_deleted_entry_is_stale_or_gone() {
    let world = World::new();
    world.entry("e1", r#"{"lr": 1}"#);
    let (attrs, link) = (world.ino("entries/e1/.attrs/lr").unwrap(), world.ino("by-attr/lr/1/e1").unwrap());
    let set = world.ino("by-attr/lr/1").unwrap();
    world.rmdir("entries/e1").unwrap();
    assert_eq!(errno(world.vfs.getattr(attrs, None)).unwrap_err(), libc::ENOENT);
    assert_eq!(errno(world.vfs.getattr(link, None)).unwrap_err(), libc::ENOENT);
    assert!(world.vfs.getattr(set, None).is_ok());
    world.vfs.forget(set, 1000);
    assert_eq!(errno(world.vfs.getattr(link, None)).unwrap_err(), libc::ESTALE);
}

#[test]
fn nothing_can_be_changed_read_only() {
    let world = World::with(&Options { read_only: true, ..Options::default() });
    world.entry("e1", r#"{"lr": 1, "tags": ["a"]}"#);
    let refused = [
        world.mkdir("new/x").map(drop),
        world.mkdir("entries/x").map(drop),
        world.mkdir("memo/a=1").map(drop),
        world.mkdir("by-attr/x").map(drop),
        world.write("entries/e1/.attrs/lr", "2"),
        world.write("entries/e1/.attrs/x", "2"),
        world.rm("entries/e1/.attrs/lr"),
        world.rm("by-attr/tags[]/a/e1"),
        world.mv("entries/e1", "trash/e1"),
        world.rmdir("entries/e1"),
    ];
    assert_eq!(refused, [Err(libc::EROFS); 10]);
    assert_eq!(world.read("entries/e1/.attrs/lr").unwrap(), "1\n");
}

#[test]
fn every_lookup_is_forgotten() {
    let world = World::new();
    world.entry("e1", r#"{"lr": 1, "model": "vit"}"#);
    let nodes = || {
        let status = world.read(".status").unwrap();
        let (_, nodes) = status.split_once(r#""nodes": "#).unwrap();
        nodes.split(',').next().unwrap().parse::<usize>().unwrap()
    };
    let before = nodes();
    for path in ["by-attr/lr/1/by-attr/model/vit/e1", "where/lr gt 0/sort/-lr/000001-e1", "by-attr/lr/1.0"] {
        for entry in world.walk(Path::new(path)).unwrap() {
            assert_ne!(entry.attr.ino, ROOT);
            world.vfs.forget(entry.attr.ino, 1);
        }
    }
    assert_eq!(nodes(), before);
}
