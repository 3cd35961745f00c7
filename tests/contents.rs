//! Contents of entries are POSIX: what programs expect of any file system.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::Duration;

use common::{
    Cache, Fixture, Mount, Options, User, append, close, errno, ls, making, not_permitted, put, python, read,
    run,
};
use rustix::fs::{CWD, FallocateFlags, RenameFlags};

fn fixture() -> Fixture {
    // `contents_plain.rs` includes this file.
    Fixture::new(if module_path!().starts_with("contents_plain") { "nopassthrough" } else { "" })
}

#[test]
fn files_are_the_real_files() {
    let Fixture { mount, entry, real, cache } = fixture();
    fs::write(entry.join("a"), "hello").unwrap();
    assert_eq!(read(real.join("a")), "hello");
    let (seen, there) = (fs::metadata(entry.join("a")).unwrap(), fs::metadata(real.join("a")).unwrap());
    for (what, one, other) in [
        ("size", seen.size(), there.size()),
        ("mode", u64::from(seen.mode()), u64::from(there.mode())),
        ("uid", u64::from(seen.uid()), u64::from(there.uid())),
        ("gid", u64::from(seen.gid()), u64::from(there.gid())),
        ("nlink", seen.nlink(), there.nlink()),
        ("blocks", seen.blocks(), there.blocks()),
    ] {
        assert_eq!(one, other, "{what}");
    }
    assert_eq!(seen.modified().unwrap(), there.modified().unwrap());
    // Append, truncate, extend, overwrite in place.
    let mut file = OpenOptions::new().append(true).open(entry.join("a")).unwrap();
    file.write_all(b" world").unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.write_all(b"!").unwrap();
    assert_eq!(read(entry.join("a")), "hello world!", "O_APPEND writes at the end");
    file.set_len(5).unwrap();
    assert_eq!(read(entry.join("a")), "hello");
    fs::write(entry.join("a"), "x").unwrap();
    assert_eq!(fs::metadata(entry.join("a")).unwrap().len(), 1, "O_TRUNC");
    let file = making().open(entry.join("a")).unwrap();
    file.write_at(b"zz", 10).unwrap();
    file.sync_all().unwrap();
    file.sync_data().unwrap();
    assert_eq!(fs::read(real.join("a")).unwrap(), b"x\0\0\0\0\0\0\0\0\0zz");
    // What changes underneath is seen.
    fs::write(real.join("b"), "under").unwrap();
    common::poll("a file made underneath", std::time::Duration::from_secs(5), || {
        fs::read_to_string(entry.join("b")).ok().filter(|text| text == "under")
    });
    assert_eq!(ls(&entry), ["a", "b"]);
    assert_eq!(ls(cache.join(entry.file_name().unwrap())), ["a", "b"]);
    mount.stop();
}

#[test]
fn large_files_come_back_as_they_were() {
    let Fixture { cache: _cache, mount, entry, real, .. } = fixture();
    let mut random = common::Random(7);
    let data: Vec<u8> = (0..(5 << 20) / 8).flat_map(|_| random.next().to_le_bytes()).collect();
    fs::write(entry.join("big"), &data).unwrap();
    assert!(fs::read(entry.join("big")).unwrap() == data);
    assert!(fs::read(real.join("big")).unwrap() == data);
    let file = making().open(entry.join("big")).unwrap();
    let mut expected = data;
    for _ in 0..200 {
        let at = random.below(expected.len() - 5000);
        let len = random.below(5000);
        if random.below(2) == 0 {
            let bytes = vec![u8::try_from(len & 0xff).unwrap(); len];
            file.write_all_at(&bytes, at as u64).unwrap();
            expected[at..at + len].copy_from_slice(&bytes);
        } else {
            let mut bytes = vec![0; len];
            file.read_exact_at(&mut bytes, at as u64).unwrap();
            assert!(bytes == expected[at..at + len]);
        }
    }
    drop(file);
    assert!(fs::read(real.join("big")).unwrap() == expected);
    mount.stop();
}

#[test]
fn directories_nest_and_are_removed_only_when_empty() {
    let Fixture { cache: _cache, mount, entry, real, .. } = fixture();
    fs::create_dir_all(entry.join("a/b/c")).unwrap();
    fs::write(entry.join("a/b/c/f"), "").unwrap();
    assert!(fs::metadata(real.join("a/b/c/f")).unwrap().is_file());
    assert_eq!(errno(fs::remove_dir(entry.join("a/b"))), libc::ENOTEMPTY);
    assert_eq!(errno(fs::remove_file(entry.join("a"))), libc::EISDIR);
    assert_eq!(errno(fs::remove_dir(entry.join("a/b/c/f"))), libc::ENOTDIR);
    assert_eq!(errno(fs::create_dir(entry.join("a"))), libc::EEXIST);
    assert_eq!(errno(fs::read_dir(entry.join("a/b/c/f/x"))), libc::ENOTDIR);
    assert_eq!(errno(fs::remove_dir(&entry)), libc::ENOTEMPTY, "an entry with contents is not deleted");
    assert_eq!(fs::metadata(entry.join("a")).unwrap().nlink(), 3);
    fs::remove_dir_all(entry.join("a")).unwrap();
    assert_eq!(ls(&real), [""; 0]);
    mount.stop();
}

#[test]
fn thousands_of_names_are_listed_once_each_even_while_they_are_removed() {
    let Fixture { cache: _cache, mount, entry, .. } = fixture();
    let names: BTreeSet<_> = (0..3000).map(|n| format!("file-with-a-longer-name-{n:05}")).collect();
    for name in &names {
        File::create(entry.join(name)).unwrap();
    }
    let listed = ls(&entry);
    assert_eq!(listed.len(), names.len());
    assert_eq!(listed.into_iter().collect::<BTreeSet<_>>(), names);
    let mut seen = BTreeSet::new();
    for found in fs::read_dir(&entry).unwrap() {
        let name = found.unwrap().file_name().into_string().unwrap();
        fs::remove_file(entry.join(&name)).unwrap();
        assert!(seen.insert(name));
    }
    assert_eq!(seen, names);
    assert_eq!(ls(&entry), [""; 0]);
    mount.stop();
}

#[test]
fn an_unlinked_file_lives_while_it_is_open() {
    let Fixture { cache: _cache, mount, entry, .. } = fixture();
    let mut file = making().open(entry.join("f")).unwrap();
    file.write_all(b"before").unwrap();
    fs::remove_file(entry.join("f")).unwrap();
    assert_eq!(errno(fs::metadata(entry.join("f"))), libc::ENOENT);
    file.write_all(b" after").unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "before after");
    assert_eq!(file.metadata().unwrap().len(), 12, "fstat");
    assert_eq!(file.metadata().unwrap().nlink(), 0);
    file.set_len(3).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 3, "ftruncate");
    file.set_permissions(fs::Permissions::from_mode(0o600)).unwrap();
    // Another file of that name is another file.
    fs::write(entry.join("f"), "other").unwrap();
    let mut old = [0; 3];
    file.read_exact_at(&mut old, 0).unwrap();
    assert_eq!(&old, b"bef");
    // Replaced by a rename while open.
    fs::write(entry.join("g"), "replacement").unwrap();
    let held = File::open(entry.join("f")).unwrap();
    fs::rename(entry.join("g"), entry.join("f")).unwrap();
    let mut kept = [0; 5];
    held.read_exact_at(&mut kept, 0).unwrap();
    assert_eq!(&kept, b"other");
    assert_eq!(read(entry.join("f")), "replacement");
    mount.stop();
}

#[test]
fn a_name_that_others_gave_to_another_file_is_that_file() {
    let Fixture { cache: _cache, mount, entry, real } = fixture();
    for round in 0..3 {
        fs::write(entry.join("f"), "old").unwrap();
        // The kernel keeps the name, and the daemon an open file.
        let mut held = making().open(entry.join("f")).unwrap();
        assert_eq!(fs::metadata(entry.join("f")).unwrap().len(), 3);
        fs::write(real.join("g"), "replaced").unwrap();
        fs::rename(real.join("g"), real.join("f")).unwrap();
        match round {
            0 => assert_eq!(read(entry.join("f")), "replaced"),
            1 => {
                fs::write(entry.join("f"), "written").unwrap();
                assert_eq!(read(real.join("f")), "written");
            }
            _ => {
                fs::remove_file(real.join("f")).unwrap();
                assert_eq!(errno(File::open(entry.join("f"))), libc::ENOENT);
            }
        }
        let mut text = String::new();
        held.read_to_string(&mut text).unwrap();
        assert_eq!(text, "old", "who has it open keeps it");
    }
    mount.stop();
}

#[test]
fn attr_timeout_is_how_long_attributes_of_files_are_kept() {
    let plain = if module_path!().starts_with("contents_plain") { ",nopassthrough" } else { "" };
    for (options, kept) in [("attr_timeout=3600", true), ("attr_timeout=0", false)] {
        let Fixture { cache, mount, .. } = Fixture::new(&format!("{options}{plain}"));
        // Seen through one path: what has two is asked for each time.
        let (entry, real) = (mount.join("entries/single"), cache.join("single"));
        fs::create_dir(&entry).unwrap();
        let mut number = 0;
        let mut is_kept = || {
            number += 1;
            let name = format!("f{number}");
            fs::write(real.join(&name), "one").unwrap();
            assert_eq!(fs::metadata(entry.join(&name)).unwrap().len(), 3);
            append(real.join(&name), " two").unwrap();
            let kept = fs::metadata(entry.join(&name)).unwrap().len() == 3;
            // What is opened is there, and known from then on.
            assert_eq!(read(entry.join(&name)), "one two");
            assert_eq!(fs::metadata(entry.join(&name)).unwrap().len(), 7, "{options}");
            kept
        };
        if kept {
            // The kernel forgets all names when attributes of entries change, as they just have.
            common::poll("attributes are kept", Duration::from_secs(20), || is_kept().then_some(()));
        } else {
            assert!((0..20).all(|_| !is_kept()));
        }
        // A file that others make is not missed for as long.
        assert_eq!(errno(fs::metadata(entry.join("g"))), libc::ENOENT);
        fs::write(real.join("g"), "").unwrap();
        common::poll("a new file is seen", Duration::from_secs(20), || {
            entry.join("g").exists().then_some(())
        });
        mount.stop();
    }
}

#[test]
fn renames_replace_refuse_and_exchange() {
    let Fixture { cache: _cache, mount, entry, real, .. } = fixture();
    let rename = |from: &str, to: &str, flags| {
        rustix::fs::renameat_with(CWD, entry.join(from), CWD, entry.join(to), flags)
            .map_err(std::io::Error::from)
    };
    fs::write(entry.join("a"), "A").unwrap();
    fs::write(entry.join("b"), "B").unwrap();
    fs::create_dir(entry.join("d")).unwrap();
    fs::write(entry.join("d/x"), "X").unwrap();
    assert_eq!(errno(rename("a", "b", RenameFlags::NOREPLACE)), libc::EEXIST);
    rename("a", "c", RenameFlags::NOREPLACE).unwrap();
    assert_eq!(ls(&entry), ["b", "c", "d"]);
    rename("b", "c", RenameFlags::EXCHANGE).unwrap();
    assert_eq!((read(entry.join("b")), read(entry.join("c"))), ("A".to_owned(), "B".to_owned()));
    rename("b", "d", RenameFlags::EXCHANGE).unwrap();
    assert_eq!(read(entry.join("b/x")), "X");
    assert_eq!(read(entry.join("d")), "A");
    assert_eq!(errno(rename("b", "none", RenameFlags::EXCHANGE)), libc::ENOENT);
    // A plain rename replaces files; directories only if they are empty.
    rename("c", "d", RenameFlags::empty()).unwrap();
    assert_eq!(read(real.join("d")), "B");
    fs::create_dir_all(entry.join("full/y")).unwrap();
    assert_eq!(errno(rename("b", "full", RenameFlags::empty())), libc::ENOTEMPTY);
    assert_eq!(errno(rename("d", "b", RenameFlags::empty())), libc::EISDIR);
    assert_eq!(errno(rename("b", "d", RenameFlags::empty())), libc::ENOTDIR);
    assert_eq!(errno(rename("b", "b/sub", RenameFlags::empty())), libc::EINVAL);
    fs::remove_dir(entry.join("full/y")).unwrap();
    rename("b", "full", RenameFlags::empty()).unwrap();
    assert_eq!(read(entry.join("full/x")), "X");
    // To another entry, like between directories.
    let other = mount.make("k=2");
    let there = mount.join("entries").join(&other);
    fs::rename(entry.join("full"), there.join("moved")).unwrap();
    fs::rename(entry.join("d"), there.join("d")).unwrap();
    assert_eq!(read(there.join("moved/x")), "X");
    assert_eq!(ls(&entry), [""; 0]);
    // Into what is no contents.
    assert_eq!(errno(fs::rename(there.join("d"), mount.join("by-attr/k/1/d"))), libc::EPERM);
    mount.stop();
}

#[test]
fn hard_and_symbolic_links() {
    let Fixture { cache: _cache, mount, entry, real, .. } = fixture();
    fs::write(entry.join("a"), "A").unwrap();
    fs::hard_link(entry.join("a"), entry.join("b")).unwrap();
    let (a, b) = (fs::metadata(entry.join("a")).unwrap(), fs::metadata(entry.join("b")).unwrap());
    assert_eq!((a.nlink(), a.ino()), (2, b.ino()));
    fs::write(entry.join("b"), "B").unwrap();
    assert_eq!(read(entry.join("a")), "B");
    fs::remove_file(entry.join("a")).unwrap();
    assert_eq!(fs::metadata(entry.join("b")).unwrap().nlink(), 1);
    symlink("b", entry.join("s")).unwrap();
    assert_eq!(common::target(entry.join("s")), Path::new("b"));
    assert_eq!(read(entry.join("s")), "B");
    assert_eq!(common::target(real.join("s")), Path::new("b"));
    symlink("nowhere", entry.join("dangling")).unwrap();
    assert_eq!(errno(fs::metadata(entry.join("dangling"))), libc::ENOENT);
    assert!(fs::symlink_metadata(entry.join("dangling")).unwrap().is_symlink());
    // To another entry of the same cache.
    let other = mount.make("k=2");
    fs::hard_link(entry.join("b"), mount.join("entries").join(&other).join("b")).unwrap();
    assert_eq!(fs::metadata(entry.join("b")).unwrap().nlink(), 2);
    mount.stop();
}

#[test]
fn modes_owners_and_times_are_kept() {
    let Fixture { cache: _cache, mount, entry, real, .. } = fixture();
    let path = entry.join("f");
    fs::write(&path, "x").unwrap();
    for mode in [0o600, 0o755, 0o444, 0o000, 0o4755, 0o2755] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, mode);
        assert_eq!(fs::metadata(real.join("f")).unwrap().mode() & 0o7777, mode);
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    // Before 1970, with a fraction; far away.
    for (seconds, nanos) in [(0, 0), (1_700_000_000, 123_456_789), (-1, 500_000_000), (4_102_444_800, 1)] {
        let time = rustix::fs::Timespec { tv_sec: seconds, tv_nsec: nanos };
        let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(CWD, &path, &times, rustix::fs::AtFlags::empty()).unwrap();
        let meta = fs::metadata(&path).unwrap();
        assert_eq!((meta.mtime(), meta.mtime_nsec()), (seconds, nanos));
        assert_eq!((meta.atime(), meta.atime_nsec()), (seconds, nanos));
    }
    // The umask is the caller's.
    mount.sh(&format!("cd '{}'; umask 027; touch g; mkdir d; mkfifo p", entry.display())).ok();
    assert_eq!(fs::metadata(real.join("g")).unwrap().mode() & 0o777, 0o640);
    assert_eq!(fs::metadata(real.join("d")).unwrap().mode() & 0o777, 0o750);
    assert!(fs::metadata(entry.join("p")).unwrap().file_type().is_fifo());
    // The entry's own directory too.
    fs::set_permissions(&entry, fs::Permissions::from_mode(0o750)).unwrap();
    assert_eq!(fs::metadata(&real).unwrap().mode() & 0o777, 0o750);
    mount.stop();
}

#[test]
fn creation_is_exclusive_where_it_must_be() {
    let Fixture { cache: _cache, mount, entry, .. } = fixture();
    OpenOptions::new().write(true).create_new(true).open(entry.join("f")).unwrap();
    assert_eq!(errno(OpenOptions::new().write(true).create_new(true).open(entry.join("f"))), libc::EEXIST);
    let winners: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    (0..50)
                        .filter(|n| {
                            let path = entry.join(format!("lock{n}"));
                            OpenOptions::new().write(true).create_new(true).open(path).is_ok()
                        })
                        .count()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(winners, 50);
    let directory = OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(entry.join("f"));
    assert_eq!(errno(directory), libc::ENOTDIR);
    let name = "n".repeat(256);
    assert_eq!(errno(File::create(entry.join(name))), libc::ENAMETOOLONG);
    mount.stop();
}

#[test]
fn appends_of_many_writers_are_whole() {
    let Fixture { cache: _cache, mount, entry, .. } = fixture();
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let entry = &entry;
            scope.spawn(move || {
                let mut file = OpenOptions::new().create(true).append(true).open(entry.join("log")).unwrap();
                for n in 0..200 {
                    file.write_all(format!("writer {writer} line {n:04}\n").as_bytes()).unwrap();
                }
            });
        }
    });
    let text = read(entry.join("log"));
    let lines: BTreeSet<_> = text.lines().collect();
    assert_eq!(lines.len(), 800);
    assert!(lines.iter().all(|line| line.len() == 18));
    mount.stop();
}

#[test]
fn holes_allocation_and_copies() {
    let Fixture { cache: _cache, mount, entry, real, .. } = fixture();
    let file = making().open(entry.join("sparse")).unwrap();
    file.write_all_at(b"end", 10 << 20).unwrap();
    assert!(file.metadata().unwrap().blocks() < 1000, "sparse");
    let data = rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(0)).unwrap();
    assert!(data > 0 && data <= 10 << 20);
    assert_eq!(rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(0)).unwrap(), 0);
    let past = rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(11 << 20));
    assert_eq!(past.unwrap_err().raw_os_error(), libc::ENXIO);
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, 1 << 20).unwrap();
    assert!(fs::metadata(real.join("sparse")).unwrap().blocks() >= 2048);
    rustix::fs::fallocate(&file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 0, 1 << 20).unwrap();
    assert!(fs::metadata(real.join("sparse")).unwrap().blocks() < 1000);
    rustix::fs::fallocate(&file, FallocateFlags::KEEP_SIZE, 20 << 20, 4096).unwrap();
    assert_eq!(file.metadata().unwrap().len(), (10 << 20) + 3);
    let from = making().open(entry.join("from")).unwrap();
    from.write_all_at(b"0123456789", 0).unwrap();
    let to = making().open(entry.join("to")).unwrap();
    let (mut at, mut put) = (3, 5);
    let copied = rustix::fs::copy_file_range(&from, Some(&mut at), &to, Some(&mut put), 4).unwrap();
    assert_eq!(copied, 4);
    assert_eq!(fs::read(real.join("to")).unwrap(), b"\0\0\0\0\x003456");
    mount.stop();
}

#[test]
fn mapped_memory() {
    let Fixture { cache: _cache, mount, entry, real, .. } = fixture();
    let script = r#"
import mmap, os, sys
path = sys.argv[1]
with open(path, "w+b") as file:
    file.write(b"\0" * 10000)
    file.flush()
    with mmap.mmap(file.fileno(), 0) as shared:
        shared[5000:5005] = b"hello"
        shared.flush()
        os.pwrite(file.fileno(), b"write", 100)
        assert shared[100:105] == b"write", shared[100:105]
        # A program that only writes.
        shared[200:205] = b"dirty"
        only = os.open(path, os.O_WRONLY)
        for place in (202, 4094, 9998):
            os.pwrite(only, b"other", place)
            end = min(place + 5, 10000)
            assert shared[place:end] == b"other"[:end - place], shared[place:end]
        assert shared[200:207] == b"diother", shared[200:207]
        # What it writes from the file's own pages, too.
        os.pwrite(only, memoryview(shared)[5000:5005], 6000)
        assert shared[6000:6005] == b"hello", shared[6000:6005]
        file.seek(0, os.SEEK_END)
        assert file.tell() == 10003
        added = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.write(added, b"end")
        os.write(only, b"h")
        assert os.pread(file.fileno(), 10, 9998) == b"otherend", os.pread(file.fileno(), 10, 9998)
        shared[9999] = ord("T")
        os.close(added)
        os.close(only)
with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as shared:
    assert shared[5000:5005] == b"hello"
with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE) as private:
    private[0:1] = b"x"
"#;
    run(std::process::Command::new(python()).args(["-c", script]).arg(entry.join("m"))).ok();
    let bytes = fs::read(real.join("m")).unwrap();
    assert_eq!((&bytes[5000..5005], &bytes[100..105], bytes[0]), (&b"hello"[..], &b"write"[..], b'h'));
    assert_eq!((&bytes[200..207], &bytes[9998..]), (&b"diother"[..], &b"oTherend"[..]));
    mount.stop();
}

#[test]
fn extended_attributes_of_files_are_the_real_ones() {
    let Fixture { cache: _cache, mount, entry, real, .. } = fixture();
    let path = entry.join("f");
    fs::write(&path, "x").unwrap();
    xattr::set(&path, "user.one", b"1").unwrap();
    xattr::set(&path, "user.two", b"\0\xff").unwrap();
    assert_eq!(xattr::get(&path, "user.two").unwrap().unwrap(), b"\0\xff");
    assert_eq!(xattr::get(real.join("f"), "user.one").unwrap().unwrap(), b"1");
    let names: BTreeSet<_> = xattr::list(&path).unwrap().collect();
    assert_eq!(names, BTreeSet::from(["user.one".into(), "user.two".into()]));
    assert_eq!(xattr::get(&path, "user.none").unwrap(), None);
    xattr::remove(&path, "user.one").unwrap();
    assert_eq!(errno(xattr::remove(&path, "user.one")), libc::ENODATA);
    // A directory in an entry has its own, too.
    fs::create_dir(entry.join("d")).unwrap();
    xattr::set(entry.join("d"), "user.k", b"own").unwrap();
    assert_eq!(xattr::get(real.join("d"), "user.k").unwrap().unwrap(), b"own");
    mount.stop();
}

#[test]
fn attributes_of_an_entry_are_extended_attributes() {
    let Fixture { mount, entry, cache, .. } = fixture();
    let id = entry.file_name().unwrap().to_str().unwrap().to_owned();
    let get = |name: &str| xattr::get(&entry, name).unwrap().map(|value| String::from_utf8(value).unwrap());
    assert_eq!(get("user.k").as_deref(), Some("1"));
    assert_eq!(get("user._id").as_deref(), Some(&*id));
    assert_eq!(get("user.none"), None);
    xattr::set(&entry, "user.lr", b"0.1").unwrap();
    xattr::set(&entry, "user.s", b"\"0.1\"").unwrap();
    xattr::set(&entry, "user.opt.name", b"adam").unwrap();
    assert_eq!(cache.entry(&id)["lr"], 0.1);
    assert_eq!(cache.entry(&id)["s"], "0.1");
    assert_eq!(cache.entry(&id)["opt"]["name"], "adam");
    let names: BTreeSet<_> = xattr::list(&entry).unwrap().map(|name| name.into_string().unwrap()).collect();
    let expected = ["user.k", "user.lr", "user.opt.name", "user.s"].map(str::to_owned);
    assert_eq!(names, BTreeSet::from(expected));
    assert_eq!(ls(entry.join(".attrs")), ["k", "lr", "opt.name", "s"]);
    xattr::remove(&entry, "user.lr").unwrap();
    assert!(!cache.entry(&id).contains_key("lr"));
    assert_eq!(errno(xattr::remove(&entry, "user.lr")), libc::ENODATA);
    for reserved in ["user._id", "user._timestamp", "user.@", "user.$"] {
        assert_eq!(errno(xattr::set(&entry, reserved, b"1")), libc::EPERM, "{reserved}");
        assert_eq!(errno(xattr::remove(&entry, reserved)), libc::EPERM, "{reserved}");
    }
    assert_eq!(errno(xattr::set(&entry, "user.x", b"\xff")), libc::EILSEQ);
    assert_eq!(errno(xattr::set(&entry, OsStr::from_bytes(b"user.\xff"), b"1")), libc::EILSEQ);
    let flags = |flags| rustix::fs::setxattr(&entry, "user.k", b"9", flags).map_err(std::io::Error::from);
    assert_eq!(errno(flags(rustix::fs::XattrFlags::CREATE)), libc::EEXIST);
    flags(rustix::fs::XattrFlags::REPLACE).unwrap();
    assert_eq!(get("user.k").as_deref(), Some("9"));
    let mut small = [0_u8; 3];
    let asked = rustix::fs::getxattr(&entry, "user.opt.name", &mut small[..]);
    assert_eq!(asked.unwrap_err().raw_os_error(), libc::ERANGE);
    mount.stop();
}

#[test]
fn statfs_is_that_of_the_cache() {
    let Fixture { mount, entry, cache, .. } = fixture();
    let seen = rustix::fs::statvfs(&entry).unwrap();
    let there = rustix::fs::statvfs(cache.path()).unwrap();
    assert_eq!(
        (seen.f_blocks * seen.f_frsize, seen.f_namemax),
        (there.f_blocks * there.f_frsize, there.f_namemax)
    );
    assert_eq!(rustix::fs::statvfs(mount.path()).unwrap().f_blocks, seen.f_blocks);
    mount.stop();
}

#[test]
fn directories_and_attributes_are_synced() {
    let Fixture { mount, entry, cache, .. } = fixture();
    put(entry.join(".attrs/k"), "2").unwrap();
    File::open(&entry).unwrap().sync_all().unwrap();
    let file = File::create(entry.join(".attrs/l")).unwrap();
    (&file).write_all(b"3").unwrap();
    file.sync_all().unwrap();
    // Set at the fsync already, once.
    let id = entry.file_name().unwrap().to_str().unwrap();
    assert_eq!(cache.entry(id)["l"], 3);
    let lines = cache.log().lines().count();
    drop(file);
    assert_eq!(cache.log().lines().count(), lines);
    mount.sh("sync -f entries; sync -d entries/*/.attrs/l").ok();
    mount.stop();
}

#[test]
fn attribute_files_are_set_at_close_and_renamed_like_files() {
    let Fixture { mount, entry, cache, .. } = fixture();
    let id = entry.file_name().unwrap().to_str().unwrap().to_owned();
    let attrs = entry.join(".attrs");
    let mut file = File::create(attrs.join("text")).unwrap();
    for part in ["a", "b", "c"] {
        file.write_all(part.as_bytes()).unwrap();
    }
    assert_ne!(cache.entry(&id).get("text"), Some(&"a".into()), "not before the close");
    close(file).unwrap();
    assert_eq!(cache.entry(&id)["text"], "abc");
    assert_eq!(read(attrs.join("text")), "abc\n");
    assert_eq!(fs::metadata(attrs.join("text")).unwrap().len(), 4);
    // Appending goes on from the text form; the newline is part of the file.
    mount.sh(&format!("cd '{}'; printf 'd' >> text", attrs.display())).ok();
    assert_eq!(cache.entry(&id)["text"], "abc\nd");
    mount.sh(&format!("cd '{}'; : > text", attrs.display())).ok();
    assert_eq!(read(attrs.join("text")), "\"\"\n");
    // Recorded when the last descriptor is closed, which the kernel tells without waiting: a shell that redirects closes
    // one before anything is written.
    common::poll("it is recorded as empty", std::time::Duration::from_secs(5), || {
        (cache.entry(&id)["text"] == "").then_some(())
    });
    mount
        .sh(&format!("cd '{}'; echo 0.10 > lr; mv lr rate; echo 7 > old; mv rate old", attrs.display()))
        .ok();
    assert_eq!(cache.entry(&id)["old"].to_string(), "0.1");
    assert!(cache.log().lines().last().unwrap().contains(r#""old": 0.10"#), "the token is kept");
    assert!(!cache.entry(&id).contains_key("lr") && !cache.entry(&id).contains_key("rate"));
    not_permitted(put(attrs.join(".swp"), "x"));
    not_permitted(put(attrs.join("_id"), "x"));
    assert_eq!(errno(fs::create_dir(attrs.join("d"))), libc::EPERM);
    assert_eq!(errno(fs::rename(attrs.join("old"), entry.join("old"))), libc::EXDEV);
    let contradiction = put(attrs.join("old.member"), "1");
    assert_eq!(errno(contradiction), libc::EEXIST);
    fs::remove_file(attrs.join("old")).unwrap();
    assert_eq!(errno(fs::remove_file(attrs.join("old"))), libc::ENOENT);
    mount.stop();
}

#[test]
fn the_whole_object_is_replaced_and_merged() {
    let Fixture { mount, entry, cache, .. } = fixture();
    let id = entry.file_name().unwrap().to_str().unwrap().to_owned();
    let path = entry.join(".attrs.json");
    assert_eq!(read(&path), cache.log().lines().last().unwrap().to_owned() + "\n");
    let replace = |text: &str| put(&path, text);
    replace(r#"{"a": 1, "b": {"c": [1, null], "d": 2}}"#).unwrap();
    assert_eq!(ls(entry.join(".attrs")), ["a", "b.c", "b.d"]);
    let add = |text: &str| append(&path, text);
    add(r#"{"a": null, "b": {"d": 3}, "e": "new"}"#).unwrap();
    let object = cache.entry(&id);
    assert_eq!(object["b"], serde_json::json!({"c": [1, null], "d": 3}));
    assert_eq!((object.get("a"), &object["e"]), (None, &"new".into()));
    let before = cache.log();
    for bad in ["[1]", "{", "7", "", "{} {}", r#"{"a": tru}"#] {
        assert_eq!(errno(replace(bad)), libc::EINVAL, "{bad}");
        if !bad.is_empty() {
            assert_eq!(errno(add(bad)), libc::EINVAL, "{bad}");
        }
    }
    assert_eq!(errno(replace(r#"{"_id": "other"}"#)), libc::EPERM);
    // A program that looks at the error of close tells of it.
    let script = format!("echo '[1]' | cat > '{}'", path.display());
    assert!(mount.sh(&script).fails().contains("Invalid argument"));
    assert_eq!(cache.log(), before, "nothing changed");
    // What was read can be written back.
    let same = read(&path);
    replace(&same).unwrap();
    assert_eq!(read(&path), same);
    mount.stop();
}

#[test]
fn sealing_by_permission_bits_governs_attributes_too() {
    let user = User::ordinary();
    let cache = Cache::of(&user);
    let mount = Mount::new(cache.path(), &Options { user: Some(&user), ..Options::default() });
    mount.sh("mkdir new/k=1 && echo x > new/k=1/out").ok();
    let (id, _) = cache.entries().remove(0);
    mount.sh(&format!("chmod a-w entries/{id}")).ok();
    let before = cache.log();
    for refused in [
        "echo 2 > entries/ID/.attrs/k",
        "echo 2 > entries/ID/.attrs/new",
        "rm entries/ID/.attrs/k",
        "mv entries/ID/.attrs/k entries/ID/.attrs/l",
        "echo {} > entries/ID/.attrs.json",
        "setfattr -n user.k -v 2 entries/ID",
        "setfattr -x user.k entries/ID",
        "mkdir -p by-attr/k/2; mv by-attr/k/1/ID by-attr/k/2/",
        "touch entries/ID/new",
        "rm entries/ID/out",
    ] {
        let complaint = mount.sh(&refused.replace("ID", &id)).fails();
        assert!(
            complaint.contains("Permission denied") || complaint.contains("not permitted"),
            "{refused}: {complaint}"
        );
    }
    assert_eq!(cache.log(), before, "nothing was recorded");
    assert_eq!(mount.sh(&format!("cat entries/{id}/.attrs/k entries/{id}/out")).ok(), "1\nx\n");
    mount.sh(&format!("chmod u+w entries/{id}; echo 2 > entries/{id}/.attrs/k")).ok();
    assert_eq!(cache.entry(&id)["k"], 2);
    mount.stop();
}

#[test]
fn an_entry_is_deleted_by_rm_and_new_is_the_entry() {
    let Fixture { mount, entry, real, cache } = fixture();
    let id = entry.file_name().unwrap().to_str().unwrap().to_owned();
    // new/k=1 stays a directory that is the entry.
    fs::write(mount.join("new/k=1/f"), "through new").unwrap();
    assert_eq!(read(entry.join("f")), "through new");
    assert_eq!(mount.id(&mount.join("new/k=1")), id);
    let (one, other) = (fs::metadata(mount.join("new/k=1")).unwrap(), fs::metadata(&entry).unwrap());
    assert_ne!(one.ino(), other.ino(), "no two paths share the node of a directory");
    assert_eq!(
        fs::metadata(mount.join("new/k=1/f")).unwrap().ino(),
        fs::metadata(entry.join("f")).unwrap().ino()
    );
    assert_eq!(errno(fs::create_dir(mount.join("new/k=1"))), libc::EEXIST);
    for bad in ["a=1,,b", "=3", "a=1,b"] {
        assert_eq!(errno(fs::create_dir(mount.join("new").join(bad))), libc::EINVAL, "{bad}");
    }
    let plain = mount.make("just-a-name");
    assert_eq!(ls(mount.join("entries").join(&plain).join(".attrs")), [""; 0]);
    mount.sh(&format!("rm -r entries/{id}")).ok();
    assert!(!real.exists());
    assert_eq!(cache.entries().len(), 1);
    assert_eq!(errno(fs::metadata(&entry)), libc::ENOENT);
    assert!(fs::symlink_metadata(mount.join("by-attr/k/1")).is_err());
    // By its own name.
    fs::create_dir(mount.join("entries/my-run")).unwrap();
    assert_eq!(errno(fs::create_dir(mount.join("entries/my-run"))), libc::EEXIST);
    assert!(cache.join("my-run").is_dir());
    for bad in ["_x", ".x"] {
        assert!(fs::create_dir(mount.join("entries").join(bad)).is_err(), "{bad}");
    }
    mount.stop();
}

#[test]
fn other_users_are_checked_and_own_what_they_make() {
    let user = User::ordinary();
    if !common::is_root() {
        // Only root serves several users; an ordinary user's mount is covered by the tests of tools.
        return;
    }
    let cache = Cache::new();
    fs::set_permissions(cache.path(), fs::Permissions::from_mode(0o1777)).unwrap();
    let mount = cache.mount_with("allow_other");
    let root = mount.make("owner=root");
    fs::write(mount.join("entries").join(&root).join("secret"), "x").unwrap();
    fs::set_permissions(mount.join("entries").join(&root).join("secret"), fs::Permissions::from_mode(0o600))
        .unwrap();
    let sh = |script: &str| {
        let script = format!("cd '{}'\n{script}", mount.path().display());
        run(&mut user.wrap(&common::bash(Path::new("/"), &script)))
    };
    sh("mkdir new/owner=user && echo y > new/owner=user/f && mkdir new/owner=user/d").ok();
    let id = ls(mount.join("by-attr/owner/user")).remove(0);
    for path in [cache.join(&id), cache.join(&id).join("f"), cache.join(&id).join("d")] {
        assert_eq!(fs::metadata(&path).unwrap().uid(), user.uid(), "{}", path.display());
    }
    sh(&format!("echo 1 > entries/{id}/.attrs/n")).ok();
    for refused in
        ["cat entries/ID/secret", "echo > entries/ID/f", "echo 1 > entries/ID/.attrs/n", "rm -r entries/ID"]
    {
        let complaint = sh(&refused.replace("ID", &root)).fails();
        assert!(
            complaint.contains("Permission denied") || complaint.contains("not permitted"),
            "{refused}: {complaint}"
        );
    }
    assert_eq!(ls(mount.join("entries")).len(), 2);
    sh(&format!("rm -r entries/{id}")).ok();
    mount.stop();
}
