//! Contents of entries behave like the directory underneath where it is hard: changes behind the mount, two paths to one
//! file, deep trees, names that change under what is open, very large files, crafted caches.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::{Cache, Fixture, errno, ls, making, read};
use rustix::fs::FallocateFlags;

fn fixture() -> Fixture {
    // `posix_plain.rs` includes this file.
    Fixture::new(if module_path!().starts_with("posix_plain") { "nopassthrough" } else { "" })
}

/// A file of 100 bytes, known to the mount, and long enough unchanged for the kernel to keep what it has read of it.
fn settled(entry: &Path, name: &str) -> PathBuf {
    let path = entry.join(name);
    fs::write(&path, "0".repeat(100)).unwrap();
    let changed = fs::metadata(&path).unwrap().modified().unwrap();
    common::poll("time goes on", Duration::from_secs(5), || {
        (changed.elapsed().unwrap().as_millis() > 200).then_some(())
    });
    for _ in 0..2 {
        assert_eq!(read(&path), "0".repeat(100));
    }
    path
}

#[test]
fn what_is_written_behind_the_mount_is_there_at_the_next_open() {
    let Fixture { cache: _cache, mount, entry, real } = fixture();
    for path in [settled(&entry, "one"), settled(&mount.join("new/k=1"), "two")] {
        let name = path.file_name().unwrap();
        // Of the same size, shorter, longer: read, and mapped.
        for (round, size) in [100, 100, 7, 5000, 100_000].into_iter().enumerate() {
            let text =
                char::from_digit(u32::try_from(round).unwrap() + 1, 10).unwrap().to_string().repeat(size);
            fs::write(real.join(name), &text).unwrap();
            assert_eq!(read(&path), text, "{name:?} round {round}");
            fs::write(real.join(name), text.replace(|_| true, "x")).unwrap();
            let file = File::open(&path).unwrap();
            assert_eq!(file.metadata().unwrap().len(), size as u64);
            let mapped = Mapped::new(&file, size, false);
            assert!(mapped.bytes().iter().all(|&byte| byte == b'x'), "{name:?} round {round}, mapped");
        }
        // And the other way.
        fs::write(&path, "through the mount").unwrap();
        assert_eq!(read(real.join(name)), "through the mount");
        // In place, while nobody has it open.
        OpenOptions::new().write(true).open(real.join(name)).unwrap().write_all_at(b"THROUGH", 0).unwrap();
        assert_eq!(read(&path), "THROUGH the mount");
        // Another file of that name.
        fs::write(real.join("replacement"), "replaced").unwrap();
        fs::rename(real.join("replacement"), real.join(name)).unwrap();
        common::poll("the file that replaced it is seen", Duration::from_secs(5), || {
            (read(&path) == "replaced").then_some(())
        });
    }
    mount.stop();
}

/// A shared mapping of a whole file.
struct Mapped(*mut libc::c_void, usize);

impl Mapped {
    fn new(file: &File, size: usize, writable: bool) -> Self {
        let access = if writable { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
        // SAFETY: a fresh mapping, which is unmapped when this is dropped.
        let at =
            unsafe { libc::mmap(std::ptr::null_mut(), size, access, libc::MAP_SHARED, file.as_raw_fd(), 0) };
        assert_ne!(at, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
        Self(at, size)
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: mapped for as long as this lives; the tests write to it only between uses.
        unsafe { std::slice::from_raw_parts(self.0.cast(), self.1) }
    }

    fn write(&self, at: usize, data: &[u8]) {
        assert!(at + data.len() <= self.1);
        // SAFETY: within the mapping, which is writable.
        unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), self.0.cast::<u8>().add(at), data.len()) };
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: mapped by us, and nobody has a reference any more.
        unsafe { libc::munmap(self.0, self.1) };
    }
}

#[test]
fn a_file_is_one_through_both_its_paths() {
    let Fixture { cache: _cache, mount, entry, real } = fixture();
    let (here, there) = (entry.join("f"), mount.join("new/k=1/f"));
    fs::write(&here, "a".repeat(10_000)).unwrap();
    let (one, other) = (making().open(&here).unwrap(), making().open(&there).unwrap());
    let (mapped, seen) = (Mapped::new(&one, 10_000, true), Mapped::new(&other, 10_000, false));
    let at = |file: &File, offset| {
        let mut bytes = [0; 4];
        file.read_exact_at(&mut bytes, offset).unwrap();
        bytes
    };
    // Always, without closing or syncing anything.
    one.write_all_at(b"1111", 0).unwrap();
    assert_eq!((&at(&other, 0), &seen.bytes()[..4]), (b"1111", &b"1111"[..]));
    other.write_all_at(b"2222", 5000).unwrap();
    assert_eq!((&at(&one, 5000), &mapped.bytes()[5000..5004]), (b"2222", &b"2222"[..]));
    mapped.write(9000, b"3333");
    assert_eq!((&at(&other, 9000), &seen.bytes()[9000..9004]), (b"3333", &b"3333"[..]));
    other.set_len(20_000).unwrap();
    assert_eq!((one.metadata().unwrap().len(), fs::metadata(&here).unwrap().len()), (20_000, 20_000));
    one.set_permissions(fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(fs::metadata(&there).unwrap().mode() & 0o777, 0o640);
    // Names appear and vanish in both at once.
    fs::write(entry.join("g"), "").unwrap();
    assert!(mount.join("new/k=1/g").exists());
    fs::rename(mount.join("new/k=1/g"), mount.join("new/k=1/h")).unwrap();
    assert_eq!(ls(&entry), ["f", "h"]);
    assert!(!entry.join("g").exists() && entry.join("h").exists());
    drop((mapped, seen));
    one.sync_all().unwrap();
    assert_eq!(&fs::read(real.join("f")).unwrap()[9000..9004], b"3333");
    mount.stop();
}

#[test]
fn trees_deeper_than_any_path_and_names_of_full_length() {
    use rustix::fs::{Mode, OFlags, mkdirat, openat, unlinkat};
    let Fixture { cache: _cache, mount, entry, real } = fixture();
    // 40 names of 255 bytes: 10,000 bytes, where a path has 4095.
    let name = |level: usize| format!("{level:03}-{}", "n".repeat(251));
    let mut at = rustix::fs::open(&entry, OFlags::PATH, Mode::empty()).unwrap();
    let mut way = vec![at.try_clone().unwrap()];
    for level in 0..40 {
        mkdirat(&at, name(level), Mode::RWXU).unwrap();
        at = openat(&at, name(level), OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        way.push(at.try_clone().unwrap());
    }
    let flags = OFlags::RDWR | OFlags::CREATE;
    let mut deep = File::from(openat(&at, "f", flags, Mode::RUSR | Mode::WUSR).unwrap());
    deep.write_all(b"deep").unwrap();
    // The top is renamed while everything below is open.
    fs::rename(entry.join(name(0)), entry.join("moved")).unwrap();
    let mut text = [0; 4];
    deep.read_exact_at(&mut text, 0).unwrap();
    assert_eq!(&text, b"deep");
    deep.set_permissions(fs::Permissions::from_mode(0o640)).unwrap();
    let mut again = String::new();
    File::from(openat(&at, "f", OFlags::RDONLY, Mode::empty()).unwrap()).read_to_string(&mut again).unwrap();
    assert_eq!(again, "deep");
    assert_eq!(fs::metadata(real.join("moved")).unwrap().nlink(), 3);
    // A path of nearly 4095 bytes; one more is too long.
    let mut path = entry.join("moved");
    let room = 4095 - path.as_os_str().len() - 1;
    for level in 1..=room / 256 {
        path.push(name(level));
    }
    assert!(fs::metadata(&path).unwrap().is_dir());
    assert_eq!(errno(fs::metadata(path.join("x".repeat(255)).join("x".repeat(255)))), libc::ENAMETOOLONG);
    for level in (0..40).rev() {
        if level == 39 {
            unlinkat(&way[40], "f", rustix::fs::AtFlags::empty()).unwrap();
        }
        let present = if level == 0 { "moved".to_owned() } else { name(level) };
        unlinkat(&way[level], present, rustix::fs::AtFlags::REMOVEDIR).unwrap();
    }
    assert_eq!(ls(&real), [""; 0]);
    mount.stop();
}

#[test]
fn directories_are_renamed_while_files_below_are_open() {
    let Fixture { cache: _cache, mount, entry, real } = fixture();
    fs::create_dir_all(entry.join("a/b")).unwrap();
    fs::write(entry.join("a/b/f"), "text").unwrap();
    let file = making().open(entry.join("a/b/f")).unwrap();
    let mapped = Mapped::new(&file, 4, true);
    let directory = File::open(entry.join("a/b")).unwrap();
    let other = mount.join("entries").join(mount.make("k=2"));
    let mut shell = std::process::Command::new("sh")
        .args(["-c", "read x; cat f; echo new > made; /bin/pwd -P"])
        .current_dir(entry.join("a/b"))
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // Renamed, moved to another entry, and removed at last.
    fs::rename(entry.join("a"), entry.join("c")).unwrap();
    fs::rename(entry.join("c/b"), other.join("d")).unwrap();
    file.write_all_at(b"T", 0).unwrap();
    mapped.write(1, b"E");
    assert_eq!(read(other.join("d/f")), "TExt");
    let listed = rustix::fs::Dir::read_from(&directory).unwrap();
    assert!(listed.filter_map(Result::ok).any(|found| found.file_name() == c"f"));
    shell.stdin.take().unwrap().write_all(b"\n").unwrap();
    let out = shell.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(out.stdout).unwrap(), format!("TExt{}\n", other.join("d").display()));
    assert_eq!(read(other.join("d/made")), "new\n");
    fs::remove_dir_all(other.join("d")).unwrap();
    file.write_all_at(b"x", 0).unwrap();
    assert_eq!((file.metadata().unwrap().nlink(), mapped.bytes()), (0, &b"xExt"[..]));
    assert_eq!(errno(fs::write(format!("/proc/self/fd/{}/late", directory.as_raw_fd()), "")), libc::ENOENT);
    assert_eq!(ls(real.join("c")), [""; 0]);
    mount.stop();
}

#[test]
fn files_of_many_gigabytes_with_holes() {
    let Fixture { cache: _cache, mount, entry, real } = fixture();
    let seek = |file: &File, to| rustix::fs::seek(file, to).unwrap();
    let (giga, mega) = (1_u64 << 30, 1_u64 << 20);
    let file = making().open(entry.join("sparse")).unwrap();
    file.set_len(100 * giga).unwrap();
    for at in [5 * giga, 60 * giga, 100 * giga - 5] {
        file.write_all_at(b"data!", at).unwrap();
    }
    let there = fs::metadata(real.join("sparse")).unwrap();
    assert_eq!(there.len(), 100 * giga);
    assert!(there.blocks() < 1000, "sparse: {} blocks", there.blocks());
    file.sync_all().unwrap();
    let data = seek(&file, rustix::fs::SeekFrom::Data(0));
    assert!(data <= 5 * giga && data > 5 * giga - mega, "{data}");
    let hole = seek(&file, rustix::fs::SeekFrom::Hole(5 * giga));
    assert!(hole > 5 * giga && hole < 5 * giga + mega, "{hole}");
    let next = seek(&file, rustix::fs::SeekFrom::Data(hole));
    assert!(next <= 60 * giga && next > 60 * giga - mega, "{next}");
    let other = making().open(entry.join("copy")).unwrap();
    let (mut from, mut to) = (60 * giga, 7 * giga);
    let copied = rustix::fs::copy_file_range(&file, Some(&mut from), &other, Some(&mut to), 5).unwrap();
    assert_eq!((copied, from, to), (5, 60 * giga + 5, 7 * giga + 5));
    let mut bytes = [0; 8];
    File::open(real.join("copy")).unwrap().read_at(&mut bytes, 7 * giga - 3).unwrap();
    assert_eq!(&bytes, b"\0\0\0data!");
    rustix::fs::fallocate(&file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 60 * giga, mega)
        .unwrap();
    file.read_exact_at(&mut bytes, 60 * giga).unwrap();
    assert_eq!(bytes, [0; 8]);
    // In one piece through the mount, in pieces over the end of 32 bits.
    let block = vec![7_u8; 3 << 20];
    file.write_all_at(&block, 4 * giga - mega).unwrap();
    let mut back = vec![0; 3 << 20];
    file.read_exact_at(&mut back, 4 * giga - mega).unwrap();
    assert!(back == block);
    mount.stop();
}

#[test]
fn nothing_leads_out_of_a_crafted_cache() {
    let cache = Cache::new();
    let outside = common::scratch();
    fs::write(outside.path().join("secret"), "secret").unwrap();
    let out = outside.path().to_str().unwrap();
    // Ids that are paths, links in place of directories, links below.
    for line in [
        r#"{"_id": "/cache/..", "a": 1, "_timestamp": 1.0}"#,
        r#"{"_id": "..", "a": 1, "_timestamp": 1.0}"#,
        r#"{"_id": "/x/.", "a": 1, "_timestamp": 1.0}"#,
        r#"{"@": "../..", "a": 1, "$": 1.0}"#,
        &format!(r#"{{"_id": "{out}/e_linked", "a": 1, "_timestamp": 1.0}}"#),
        r#"{"@": "e_real", "a": 1, "$": 1.0}"#,
    ] {
        cache.append(&[line]);
    }
    symlink(outside.path(), cache.join("e_linked")).unwrap();
    fs::create_dir_all(cache.join("e_real/sub")).unwrap();
    fs::write(cache.join("e_real/sub/secret"), "mine").unwrap();
    let mount = cache.mount();
    assert_eq!(ls(mount.join("entries")), ["e_linked", "e_real"]);
    assert_eq!(errno(fs::metadata(mount.join("entries/e_linked/secret"))), libc::ENOENT);
    assert_eq!(ls(mount.join("entries/e_linked")), [""; 0]);
    assert!(fs::write(mount.join("entries/e_linked/new"), "x").is_err());
    assert_eq!(ls(outside.path()), ["secret"]);
    // Replaced by a link while in use: what is held stays, nothing new is found outside.
    let entry = mount.join("entries/e_real");
    let (held, sub) = (File::open(entry.join("sub/secret")).unwrap(), File::open(entry.join("sub")).unwrap());
    fs::rename(cache.join("e_real/sub"), cache.join("aside")).unwrap();
    symlink(outside.path(), cache.join("e_real/sub")).unwrap();
    let mut text = [0; 4];
    held.read_exact_at(&mut text, 0).unwrap();
    assert_eq!(&text, b"mine");
    let below = |name: &str| format!("/proc/self/fd/{}/{name}", sub.as_raw_fd());
    assert_ne!(fs::read_to_string(below("secret")).unwrap_or_default(), "secret");
    let _ = fs::write(below("new"), "x");
    let _ = fs::remove_file(below("secret"));
    assert_eq!(ls(outside.path()), ["secret"], "nothing was made or removed outside");
    // The entry's own directory, likewise.
    let own = File::open(&entry).unwrap();
    fs::rename(cache.join("e_real"), cache.join("aside2")).unwrap();
    symlink(outside.path(), cache.join("e_real")).unwrap();
    for path in [entry.clone(), PathBuf::from(format!("/proc/self/fd/{}", own.as_raw_fd()))] {
        assert_ne!(fs::read_to_string(path.join("secret")).unwrap_or_default(), "secret");
        let _ = fs::write(path.join("new"), "x");
        let _ = fs::create_dir(path.join("made"));
    }
    common::poll("the link is no entry's directory", Duration::from_secs(5), || {
        fs::read_dir(&entry).map_or(Some(()), |mut names| names.next().is_none().then_some(()))
    });
    assert_eq!(
        (ls(outside.path()), read(outside.path().join("secret"))),
        (vec!["secret".to_owned()], "secret".to_owned())
    );
    mount.stop();
}

#[test]
fn a_program_that_runs_is_not_truncated() {
    let Fixture { cache: _cache, mount, entry, .. } = fixture();
    let program = entry.join("sleep");
    let flags = libc::O_RDONLY | libc::O_TRUNC;
    let truncate = || {
        rustix::fs::open(
            &program,
            rustix::fs::OFlags::from_bits_retain(flags.cast_unsigned()),
            rustix::fs::Mode::empty(),
        )
    };
    for round in 0..20 {
        fs::copy("/bin/sleep", &program).unwrap();
        let size = fs::metadata(&program).unwrap().len();
        let mut running = std::process::Command::new(&program).arg("60").spawn().unwrap();
        assert_eq!(truncate().unwrap_err().raw_os_error(), libc::ETXTBSY, "round {round}");
        assert_eq!(errno(OpenOptions::new().write(true).open(&program)), libc::ETXTBSY, "round {round}");
        assert_eq!(fs::metadata(&program).unwrap().len(), size, "round {round}");
        assert_eq!(running.try_wait().unwrap(), None, "it still runs");
        running.kill().unwrap();
        running.wait().unwrap();
    }
    truncate().unwrap();
    assert_eq!(fs::metadata(&program).unwrap().len(), 0);
    mount.stop();
}
