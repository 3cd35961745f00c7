//! Attribute files, `.attrs.json`, extended attributes.

use std::ffi::OsStr;

use super::{Answer, World, errno, latin1, wait};
use crate::vfs::SetAttr;

const A: &str = "entries/e1/.attrs";

fn one() -> World {
    let world = World::new();
    world.entry("e1", r#"{"lr": 0.10, "opt": {"name": "adam"}, "s": "0.1"}"#);
    world
}

fn path(name: &str) -> String {
    format!("{A}/{name}")
}

#[test]
fn a_value_and_a_newline() {
    let world = one();
    assert_eq!(world.ls(A).unwrap(), ["lr", "opt.name", "s"]);
    assert_eq!(world.read(&path("lr")).unwrap(), "0.1\n");
    assert_eq!(world.read(&path("opt.name")).unwrap(), "adam\n");
    assert_eq!(world.read(&path("s")).unwrap(), "\"0.1\"\n");
    assert_eq!(world.read(&path("_id")).unwrap(), "e1\n");
    assert_eq!(world.read(&path("@")).unwrap(), "e1\n");
    for name in ["opt", "nothing", "lr[]", ".lr", ".attrs.json"] {
        assert_eq!(world.read(&path(name)), Err(libc::ENOENT), "{name}");
    }
    assert_eq!(world.find_os(&std::path::Path::new(A).join(latin1())).unwrap_err(), libc::ENOENT);
}

#[test]
fn what_is_written_is_set_by_one_record_at_close() {
    let world = one();
    let before = world.log().len();
    let fh = world.open(&path("lr"), libc::O_WRONLY | libc::O_TRUNC).unwrap();
    for (offset, piece) in [(0, "0"), (1, ".2"), (3, "5\n")] {
        world.vfs.write(fh, offset, piece.as_bytes(), None, false).unwrap();
        assert_eq!(world.read(&path("lr")).unwrap(), "0.1\n", "nothing is set before the close");
    }
    assert_eq!(world.vfs.getattr(world.ino(&path("lr")).unwrap(), Some(fh)).unwrap().0.size, 5);
    world.close(fh).unwrap();
    assert_eq!(world.read(&path("lr")).unwrap(), "0.25\n");
    assert_eq!(world.log().len(), before + 1);
    assert_eq!(world.ls("by-attr/lr").unwrap(), ["0.25"]);
}

#[test]
fn attributes_through_the_name_that_an_entry_was_given_leave_all_names_with_the_kernel() {
    let world = World::new();
    let told = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    let count = std::sync::Arc::clone(&told);
    world.vfs.set_forget_names(Box::new(move || {
        count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }));
    world.mkdir("new/lr=1").unwrap();
    assert_eq!(world.read("new/lr=1/.attrs/lr").unwrap(), "1\n");
    world.write("new/lr=1/.attrs/lr", "2").unwrap();
    assert_eq!(world.stat("new/lr=1/.attrs/lr").unwrap().size, 2);
    assert_eq!(world.read("new/lr=1/.attrs/lr").unwrap(), "2\n");
    assert_eq!(told.load(std::sync::atomic::Ordering::Relaxed), 0, "it is seen through one path only");
}

#[test]
fn a_close_without_a_change_writes_nothing() {
    let world = one();
    let before = world.log();
    let fh = world.open(&path("lr"), libc::O_RDWR).unwrap();
    assert_eq!(world.vfs.read(fh, 0, 10).unwrap(), b"0.1\n");
    world.close(fh).unwrap();
    world.write(&path("lr"), "1e-1").unwrap();
    assert_eq!(world.log(), before, "an equal value keeps its spelling");
}

#[test]
fn a_second_close_sets_only_what_was_written_since() {
    let world = one();
    let fh = world.open(&path("x"), libc::O_WRONLY | libc::O_CREAT).unwrap();
    world.vfs.write(fh, 0, b"1\n", None, false).unwrap();
    wait(|done| world.vfs.flush(crate::vfs::ROOT, fh, 0, 0, done)).unwrap();
    world.write(&path("x"), "2").unwrap();
    wait(|done| world.vfs.flush(crate::vfs::ROOT, fh, 0, 0, done)).unwrap();
    assert_eq!(world.read(&path("x")).unwrap(), "2\n");
    world.vfs.write(fh, 2, b"3\n", None, false).unwrap();
    world.close(fh).unwrap();
    assert_eq!(world.read(&path("x")).unwrap(), "1\n3\n");
}

#[test]
fn a_shell_that_closes_a_copy_first_does_not_empty_the_attribute() {
    let world = one();
    let before = world.log().len();
    let fh = world.open(&path("lr"), libc::O_WRONLY | libc::O_TRUNC).unwrap();
    // dup2(3, 1); close(3)
    wait(|done| world.vfs.flush(crate::vfs::ROOT, fh, 0, 0, done)).unwrap();
    world.vfs.write(fh, 0, b"7\n", None, false).unwrap();
    world.close(fh).unwrap();
    assert_eq!((world.read(&path("lr")).unwrap().as_str(), world.log().len()), ("7\n", before + 1));
}

#[test]
fn an_empty_file_is_the_empty_string() {
    let world = one();
    for (name, flags) in [("lr", libc::O_TRUNC), ("new", libc::O_CREAT)] {
        let fh = world.open(&path(name), libc::O_WRONLY | flags).unwrap();
        world.close(fh).unwrap();
        assert_eq!(world.read(&path(name)).unwrap(), "\"\"\n", "{name}");
    }
    let ino = world.ino(&path("s")).unwrap();
    let set = SetAttr { size: Some(0), ..SetAttr::default() };
    wait(|done| world.vfs.setattr(&world.caller, ino, &set, None, done)).unwrap();
    assert_eq!(world.read(&path("s")).unwrap(), "\"\"\n");
    world.put(&path("n"), libc::O_TRUNC, b"\n\n").unwrap();
    assert_eq!(world.read(&path("n")).unwrap(), "\"\\n\"\n");
    world.put(&path("z"), libc::O_TRUNC, b"a\0b").unwrap();
    assert_eq!(world.read(&path("z")).unwrap(), "\"a\\u0000b\"\n");
}

#[test]
fn appending_extends_the_text() {
    let world = one();
    world.append(&path("opt.name"), "w").unwrap();
    assert_eq!(world.read(&path("opt.name")).unwrap(), "adam\nw\n");
}

#[test]
fn rename_replaces_and_keeps_what_is_open() {
    let world = one();
    // sed -i: a new file beside the old one, then renamed over it
    let fh = world.open(&path("sedXXXX"), libc::O_RDWR | libc::O_CREAT | libc::O_EXCL).unwrap();
    world.vfs.write(fh, 0, b"sgd\n", None, false).unwrap();
    wait(|done| world.vfs.flush(crate::vfs::ROOT, fh, 0, 0, done)).unwrap();
    world.mv(&path("sedXXXX"), &path("opt.name")).unwrap();
    assert_eq!(world.ls(A).unwrap().len(), 3);
    assert_eq!(world.read(&path("opt.name")).unwrap(), "sgd\n");
    world.vfs.write(fh, 0, b"rms\n", None, false).unwrap();
    world.close(fh).unwrap();
    assert_eq!(world.read(&path("opt.name")).unwrap(), "rms\n");
    assert_eq!(world.mv_flags(&path("lr"), &path("s"), libc::RENAME_NOREPLACE), Err(libc::EEXIST));
    assert_eq!(world.mv(&path("lr"), &path(".lr")), Err(libc::EPERM));
    assert_eq!(world.mv(&path("lr"), &path("_id")), Err(libc::EPERM));
    assert_eq!(world.mv(&path("nothing"), &path("x")), Err(libc::ENOENT));
    assert_eq!(world.mv(&path("lr"), "entries/e1/lr"), Err(libc::EXDEV));
}

#[test]
fn what_was_removed_while_open_stays_removed() {
    let world = one();
    let ino = world.ino(&path("lr")).unwrap();
    let fh = world.open(&path("lr"), libc::O_WRONLY).unwrap();
    world.vfs.write(fh, 0, b"9\n", None, false).unwrap();
    world.rm(&path("lr")).unwrap();
    assert!(world.vfs.getattr(ino, Some(fh)).is_ok(), "fstat of what is open");
    world.close(fh).unwrap();
    assert_eq!(world.read(&path("lr")), Err(libc::ENOENT));
    assert_eq!(world.rm(&path("lr")), Err(libc::ENOENT));
}

#[test]
fn reserved_members_and_dots_are_refused() {
    let world = one();
    for name in ["_id", "_timestamp", "@", "$", "_id.x"] {
        assert_eq!(world.write(&path(name), "x"), Err(libc::EPERM), "{name}");
    }
    for name in ["_id", "_timestamp", "@", "$"] {
        assert_eq!(world.rm(&path(name)), Err(libc::EPERM), "{name}");
    }
    assert_eq!(world.write(&path(".lr.swp"), "x"), Err(libc::EPERM));
    assert_eq!(world.write(&path("tags[]"), "x"), Err(libc::EINVAL));
    assert_eq!(world.write(&path("lr.x"), "1"), Err(libc::EEXIST), "a value cannot have members");
    assert_eq!(world.write(&path("opt"), "1"), Err(libc::EEXIST), "members are in the way of a value");
    assert_eq!(world.mkdir(&path("dir")).unwrap_err(), libc::EPERM);
    assert_eq!(world.put(&path("lr"), libc::O_TRUNC, b"\xff"), Err(libc::EILSEQ));
    assert_eq!(world.read(&path("lr")).unwrap(), "0.1\n");
    let parent = world.ino(A).unwrap();
    let made = wait(|done| {
        world.vfs.create(&world.caller, parent, latin1(), 0o644, 0, libc::O_WRONLY, done);
    });
    assert_eq!(made.map(drop), Err(libc::EILSEQ));
}

#[test]
fn the_whole_object_is_replaced_or_merged() {
    let world = one();
    let json = "entries/e1/.attrs.json";
    let line = world.read(json).unwrap();
    assert!(
        line.starts_with(r#"{"_id": ""#) && line.contains(r#""lr": 0.10, "opt": {"name": "adam"}"#),
        "{line}"
    );
    world.append(json, r#"{"opt": {"beta": 1e-05}, "s": null}"#).unwrap();
    assert_eq!(world.ls(A).unwrap(), ["lr", "opt.name", "opt.beta"]);
    world.write(json, r#"{"only": [1, 2]}"#).unwrap();
    assert_eq!(world.ls(A).unwrap(), ["only"]);
    let before = world.read(json).unwrap();
    world.write(json, before.trim()).unwrap();
    for (content, expected) in
        [("[1]", libc::EINVAL), ("{", libc::EINVAL), ("", libc::EINVAL), (r#"{"_id": "x"}"#, libc::EPERM)]
    {
        assert_eq!(world.write(json, content), Err(expected), "{content}");
        assert_eq!(world.append(json, content), if content.is_empty() { Ok(()) } else { Err(expected) });
    }
    assert_eq!(world.put(json, libc::O_TRUNC, b"{\"a\": \"\xff\"}"), Err(libc::EILSEQ));
    let fh = world.open(json, libc::O_WRONLY | libc::O_TRUNC).unwrap();
    assert_eq!(world.close(fh), Err(libc::EINVAL), "nothing is no object");
    assert_eq!(world.read(json).unwrap(), before);
    assert_eq!(world.rm(json), Err(libc::EPERM));
    assert_eq!(world.mkdir("entries/e1/.attrs").unwrap_err(), libc::EEXIST);
}

#[test]
fn extended_attributes_are_the_same_attributes() {
    let world = one();
    let ino = world.ino("entries/e1").unwrap();
    let get = |name: &str| -> Answer<String> {
        errno(world.vfs.getxattr(&world.caller, ino, OsStr::new(name))).map(|v| String::from_utf8(v).unwrap())
    };
    let set = |name: &str, value: &[u8], flags| {
        wait(|done| world.vfs.setxattr(&world.caller, ino, OsStr::new(name), value, flags, done))
    };
    let list = || String::from_utf8(world.vfs.listxattr(&world.caller, ino).unwrap()).unwrap();
    assert_eq!(list(), "user.lr\0user.opt.name\0user.s\0");
    assert_eq!((get("user.lr").unwrap(), get("user._id").unwrap()), ("0.1".to_owned(), "e1".to_owned()));
    set("user.lr", b"0.3", 0).unwrap();
    assert_eq!(world.read(&path("lr")).unwrap(), "0.3\n");
    assert_eq!(set("user.lr", b"1", libc::XATTR_CREATE), Err(libc::EEXIST));
    assert_eq!(set("user.new", b"1", libc::XATTR_REPLACE), Err(libc::ENODATA));
    assert_eq!(set("user._id", b"1", 0), Err(libc::EPERM));
    assert_eq!(set("user.x", b"\xff", 0), Err(libc::EILSEQ));
    assert_eq!(get("user.opt"), Err(libc::ENODATA));
    let remove = |name: &str| wait(|done| world.vfs.removexattr(&world.caller, ino, OsStr::new(name), done));
    remove("user.opt.name").unwrap();
    assert_eq!(remove("user.opt.name"), Err(libc::ENODATA));
    let long = "x".repeat(70_000);
    set("user.long", long.as_bytes(), 0).unwrap();
    assert_eq!(list(), "user.lr\0user.s\0", "what the kernel could not hand out is not listed");
    assert_eq!(world.read(&path("long")).unwrap(), format!("{long}\n"));
}

#[test]
fn permissions_of_the_entry_govern_its_attributes() {
    let world = one();
    world.chmod("entries/e1", 0o550).unwrap();
    assert_eq!(world.stat(&path("lr")).unwrap().mode & 0o7777, 0o440);
    assert_eq!(world.stat(A).unwrap().mode & 0o7777, 0o550);
    assert_eq!(world.stat(&path("_id")).unwrap().mode & 0o7777, 0o440);
    world.chmod("entries/e1", 0o755).unwrap();
    assert_eq!(world.stat(&path("lr")).unwrap().mode & 0o7777, 0o644);
    assert_eq!(world.chmod(&path("lr"), 0o600), Err(libc::EPERM));
    assert_eq!(world.chmod(&path("lr"), 0o644), Ok(()), "to what it is: cp -p does so");
}

#[test]
fn an_attribute_that_no_record_can_hold_is_refused() {
    let world = one();
    let fh = world.open(&path("lr"), libc::O_WRONLY).unwrap();
    assert_eq!(errno(world.vfs.write(fh, 16 << 20, b"xx", None, false)), Err(libc::EFBIG));
    world.close(fh).unwrap();
    assert_eq!(world.put(&path("big"), 0, &vec![b'x'; 16 << 20]), Err(libc::EFBIG));
    assert_eq!(world.read(&path("lr")).unwrap(), "0.1\n");
}
