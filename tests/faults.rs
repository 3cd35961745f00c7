//! Full disks, read-only caches, caches and logs that vanish: an errno, no crash, nothing lost.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;
use std::time::Duration;

use common::{Cache, Mount, Mounted, Options, User, binary, errno, ls, poll, put, read, run};

fn soon(what: &str, mut ask: impl FnMut() -> bool) {
    poll(what, Duration::from_secs(5), || ask().then_some(()));
}

#[test]
fn a_full_disk_is_enospc_and_nothing_is_lost() {
    let cache = Cache::new();
    let small = Mounted::new("tmpfs", "size=1m,mode=755", cache.path());
    let mount = cache.mount();
    let first = mount.make("k=1,big=0");
    let filler = mount.join("entries").join(&first).join("filler");
    assert_eq!(errno(put(&filler, vec![1_u8; 2 << 20])), libc::ENOSPC);

    // The page at the end of the log has some room left: until it is full.
    let mut written = 0;
    let attribute = mount.join("entries").join(&first).join(".attrs/big");
    let refused = loop {
        let value = format!("{written}{}", "x".repeat(900));
        match put(&attribute, &value) {
            Ok(()) => written += 1,
            Err(e) => break e.raw_os_error().unwrap(),
        }
        assert!(written < 100, "the disk does not fill");
    };
    assert_eq!(refused, libc::ENOSPC);
    let before = cache.log();
    assert!(before.ends_with('\n'), "no half record is left");
    let present = cache.entry(&first)["big"].clone();
    let shown = mount.get(&first, "big");
    assert_eq!(
        present.as_str().map_or_else(|| present.to_string(), str::to_owned),
        shown,
        "what is shown is what is recorded"
    );
    for n in 0..5 {
        let many = format!("k=2,n={n},big={}", "y".repeat(200));
        // A directory without a record must not stay behind.
        if let Err(e) = fs::create_dir(mount.join("new").join(&many)) {
            assert_eq!(e.raw_os_error(), Some(libc::ENOSPC));
        }
    }
    let entries = cache.entries().len();
    assert_eq!(ls(mount.join("entries")).len(), entries);
    let directories = fs::read_dir(cache.path())
        .unwrap()
        .filter(|e| e.as_ref().unwrap().file_type().unwrap().is_dir())
        .count();
    assert_eq!(directories, entries, "as many directories as entries");

    // Room again: everything goes on.
    fs::remove_file(&filler).unwrap();
    // The kernel lets go of a file a moment after its name is gone.
    poll("there is room", Duration::from_secs(20), || put(&attribute, "small\n").ok());
    let second = mount.make("k=3");
    assert_eq!(cache.entry(&first)["big"], "small");
    assert_eq!(ls(mount.join("by-attr/k/3")), [second.as_str()]);
    mount.stop();
    drop(small);
}

#[test]
fn a_read_only_mount_writes_nothing_and_takes_no_lock() {
    let cache = Cache::new();
    fs::create_dir(cache.join("e1")).unwrap();
    fs::write(cache.join("e1/out"), "x").unwrap();
    fs::write(cache.join("_entries"), cache.record("e1", 1.0, r#""k": 1"#) + "\n{\"_id\": \"/torn").unwrap();
    let before = cache.log();
    let mount = cache.mount_with("ro");
    assert_eq!(ls(mount.join("by-attr/k/1")), ["e1"]);
    assert_eq!(read(mount.join("by-attr/k/1/e1/out")), "x");
    let at = |path: &str| mount.join(path);
    for (what, refused) in [
        ("mkdir new", fs::create_dir(at("new/x=1"))),
        ("mkdir entries", fs::create_dir(at("entries/x"))),
        ("mkdir value", fs::create_dir(at("by-attr/k/2"))),
        ("write", put(at("entries/e1/out"), "y")),
        ("create", put(at("entries/e1/new"), "y")),
        ("attribute", put(at("entries/e1/.attrs/k"), "2")),
        ("new attribute", put(at("entries/e1/.attrs/l"), "2")),
        ("json", put(at("entries/e1/.attrs.json"), "{}")),
        ("unlink", fs::remove_file(at("entries/e1/out"))),
        ("unset", fs::remove_file(at("entries/e1/.attrs/k"))),
        ("rmdir", fs::remove_dir(at("entries/e1"))),
        ("chmod", fs::set_permissions(at("entries/e1"), fs::Permissions::from_mode(0o700))),
        ("link", symlink("../../../entries/e1", at("by-attr/k/1/e9"))),
        ("trash", fs::rename(at("entries/e1"), at("trash/e1"))),
        ("xattr", xattr::set(at("entries/e1"), "user.k", b"2")),
    ] {
        assert_eq!(errno(refused), libc::EROFS, "{what}");
    }
    // Others' changes are followed.
    let mut log = before.clone();
    log.truncate(log.rfind('\n').unwrap() + 1);
    fs::write(cache.join("_entries"), format!("{log}{}\n", cache.record("e2", 1.0, r#""k": 1"#))).unwrap();
    soon("the change of another is seen", || ls(mount.join("by-attr/k/1")) == ["e1", "e2"]);
    mount.stop();
    assert_eq!(ls(cache.path()), ["_entries", "e1"], "no lock, no torn bytes, nothing");
}

#[test]
fn a_cache_that_a_user_cannot_write_is_mounted_read_only_or_not_at_all() {
    let user = User::ordinary();
    let cache = Cache::new();
    cache.add("e1", 1.0, r#""k": 1"#);
    fs::write(cache.join("e1/out"), "x").unwrap();
    if user.uid() == nix_uid() {
        fs::set_permissions(cache.path(), fs::Permissions::from_mode(0o555)).unwrap();
    }
    let before = cache.log();
    let scratch = common::scratch();
    let point = scratch.path().join("mnt");
    fs::create_dir(&point).unwrap();
    user.own(&point);
    let mut command = Command::new(user.binary(scratch.path()));
    command.arg("mount").arg(cache.path()).arg(&point).arg("-f");
    let message = run(&mut user.wrap(&command)).fails();
    assert!(message.contains("-o ro") && message.contains(cache.path().to_str().unwrap()), "{message}");

    let options = Options { options: "ro", user: Some(&user), ..Options::default() };
    let mount = Mount::new(cache.path(), &options);
    assert_eq!(mount.sh("ls by-attr/k/1 && cat by-attr/k/1/e1/out entries/e1/.attrs/k").ok(), "e1\nx1\n");
    assert!(mount.sh("mkdir new/k=2").fails().contains("Read-only"));
    mount.stop();
    assert_eq!(cache.log(), before);
    fs::set_permissions(cache.path(), fs::Permissions::from_mode(0o755)).unwrap();
}

fn nix_uid() -> u32 {
    // SAFETY: cannot fail, touches no memory.
    unsafe { libc::geteuid() }
}

#[test]
fn a_read_only_file_system_is_served_read_only() {
    let cache = Cache::new();
    let small = Mounted::new("tmpfs", "size=1m,mode=755", cache.path());
    cache.add("e1", 1.0, r#""k": 1"#);
    run(Command::new("mount").args(["-o", "remount,ro"]).arg(cache.path())).ok();
    let point = common::scratch();
    let message =
        run(Command::new(binary()).arg("mount").arg(cache.path()).arg(point.path()).arg("-f")).fails();
    assert!(message.contains("-o ro"), "{message}");
    let mount = cache.mount_with("ro");
    assert_eq!(ls(mount.join("by-attr/k/1")), ["e1"]);
    assert_eq!(errno(fs::create_dir(mount.join("new/k=2"))), libc::EROFS);
    mount.stop();
    drop(small);
}

#[test]
fn what_the_mount_below_refuses_is_refused() {
    let cache = Cache::new();
    let small = Mounted::new("tmpfs", "size=1m,mode=755,nodev,nosuid,noexec", cache.path());
    cache.add("e1", 1.0, r#""k": 1"#);
    let (device, program) = (cache.join("e1/null"), cache.join("e1/true"));
    run(Command::new("mknod").arg("-m666").arg(&device).args(["c", "1", "3"])).ok();
    fs::copy("/bin/true", &program).unwrap();
    assert_eq!(errno(fs::read(&device)), libc::EACCES, "underneath");
    for options in ["", "dev,exec,suid"] {
        let mount = if options.is_empty() { cache.mount() } else { cache.mount_with(options) };
        let entry = mount.join("entries/e1");
        assert_eq!(fs::read_dir(&entry).unwrap().count(), 2);
        assert_eq!(errno(fs::read(entry.join("null"))), libc::EACCES, "{options}");
        assert_eq!(errno(Command::new(entry.join("true")).status()), libc::EACCES, "{options}");
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let line = mounts.lines().find(|line| line.contains(mount.path().to_str().unwrap())).unwrap();
        assert!(line.contains("nosuid"), "{line}");
        mount.stop();
    }
    drop(small);
    // Where nothing is refused, whoever mounts says so.
    cache.add("e2", 1.0, r#""k": 1"#);
    run(Command::new("mknod").arg("-m666").arg(cache.join("e2/null")).args(["c", "1", "3"])).ok();
    let mount = cache.mount();
    assert_eq!(errno(fs::read(mount.join("entries/e2/null"))), libc::EACCES);
    mount.stop();
    let mount = cache.mount_with("dev");
    assert_eq!(fs::read(mount.join("entries/e2/null")).unwrap(), b"");
    mount.stop();
}

#[test]
fn a_cache_directory_that_vanishes_is_an_errno() {
    let cache = Cache::new();
    cache.add("e1", 1.0, r#""k": 1"#);
    fs::write(cache.join("e1/out"), "x").unwrap();
    let mut mount = cache.mount();
    assert_eq!(ls(mount.join("by-attr/k/1")), ["e1"]);
    fs::remove_dir_all(cache.path()).unwrap();
    assert!(fs::create_dir(mount.join("new/k=2")).is_err());
    assert!(fs::create_dir(mount.join("entries/e2")).is_err());
    assert!(put(mount.join("entries/e1/.attrs/k"), "2").is_err());
    assert!(put(mount.join("entries/e1/out2"), "2").is_err());
    // Whatever is said of what there was: it is said at once, and the daemon lives.
    let _ = fs::read_dir(mount.join("entries")).map(Iterator::count);
    let _ = fs::read(mount.join("entries/e1/out"));
    let _ = fs::read(mount.join("entries/e1/.attrs/k"));
    assert!(fs::exists(mount.join("README")).unwrap());
    mount.live();
    assert!(!mount.log().contains("panicked at"), "{}", mount.log());
    let _ = fs::create_dir(cache.path());
    mount.stop();
}

#[test]
fn an_entry_whose_directory_vanishes_is_shown_with_empty_contents() {
    let cache = Cache::new();
    cache.add("e1", 1.0, r#""k": 1"#);
    cache.add("e2", 1.0, r#""k": 1"#);
    fs::write(cache.join("e1/out"), "x").unwrap();
    fs::remove_dir(cache.join("e2")).unwrap();
    let mount = cache.mount();
    assert_eq!(ls(mount.join("by-attr/k/1")), ["e1", "e2"]);
    assert_eq!(ls(mount.join("entries/e2")), [""; 0]);
    assert_eq!(mount.get("e2", "k"), "1");
    assert!(!fs::exists(cache.join("e2")).unwrap(), "looking changes nothing");
    mount.set("e2", "k", "2");
    put(mount.join("entries/e2/out"), "made").unwrap();
    assert_eq!(read(cache.join("e2/out")), "made");
    assert_eq!(ls(mount.join("entries/e2")), ["out"]);

    // One that vanishes while it is in use.
    assert_eq!(ls(mount.join("entries/e1")), ["out"]);
    fs::remove_dir_all(cache.join("e1")).unwrap();
    soon("it is seen to be empty", || {
        fs::read_dir(mount.join("entries/e1")).is_ok_and(|names| names.count() == 0)
    });
    soon("it can be written again", || put(mount.join("entries/e1/out"), "again").is_ok());
    assert_eq!(read(cache.join("e1/out")), "again");
    assert_eq!(mount.get("e1", "k"), "1");
    // Empty or gone, it can be deleted.
    fs::remove_dir_all(cache.join("e2")).unwrap();
    soon("it can be deleted", || fs::remove_dir(mount.join("entries/e2")).is_ok());
    assert_eq!(ls(mount.join("entries")), ["e1"]);
    mount.stop();
}

/// A cache of ten entries that is mounted, and a change of its log by somebody else.
fn after(change: impl Fn(&Cache)) -> (Cache, Mount) {
    let cache = Cache::new();
    for n in 0..10 {
        cache.add(&format!("e{n}"), f64::from(n), &format!(r#""n": {n}, "k": 1"#));
    }
    let mount = cache.mount();
    assert_eq!(read(mount.join("by-attr/k/1/count")), "10\n");
    assert_eq!(mount.get("e5", "n"), "5");
    change(&cache);
    (cache, mount)
}

/// Whatever happened: changes go on and everything that is in the log is shown.
fn goes_on(cache: &Cache, mount: Mount) {
    let id = mount.make("k=later");
    assert_eq!(ls(mount.join("by-attr/k/later")), [id.as_str()]);
    mount.set(&id, "k", "last");
    let ids: Vec<_> = {
        let mut ids: Vec<_> = cache.entries().into_iter().map(|(id, _)| id).collect();
        ids.sort();
        ids
    };
    soon("the mount lists what the log has", || ls(mount.join("entries")) == ids);
    assert_eq!(cache.entry(&id)["k"], "last");
    for id in ids {
        assert!(!mount.get(&id, "k").is_empty());
    }
    mount.stop();
}

#[test]
fn a_log_that_is_deleted() {
    let (cache, mount) = after(|cache| fs::remove_file(cache.join("_entries")).unwrap());
    goes_on(&cache, mount);
}

#[test]
fn a_log_that_is_emptied() {
    let (cache, mount) = after(|cache| fs::write(cache.join("_entries"), "").unwrap());
    soon("the entries are gone", || ls(mount.join("entries")).is_empty());
    goes_on(&cache, mount);
}

#[test]
fn a_log_that_is_cut_in_the_middle_of_a_record() {
    let (cache, mount) = after(|cache| {
        let file = fs::OpenOptions::new().write(true).open(cache.join("_entries")).unwrap();
        file.set_len(file.metadata().unwrap().len() / 2).unwrap();
    });
    soon("fewer entries", || (4..6).contains(&ls(mount.join("entries")).len()));
    goes_on(&cache, mount);
}

#[test]
fn a_log_that_is_cut_and_grows_at_once() {
    let (cache, mount) = after(|cache| {
        let mut log = cache.log();
        log.truncate(log.find('\n').unwrap() + 1);
        for n in 0..12 {
            log.push_str(&cache.record(&format!("other{n}"), 1.0, r#""k": 2"#));
            log.push('\n');
        }
        fs::write(cache.join("_entries"), log).unwrap();
    });
    soon("the other entries", || fs::read_dir(mount.join("by-attr/k/2")).is_ok_and(|ids| ids.count() == 12));
    goes_on(&cache, mount);
}

#[test]
fn a_log_that_is_replaced() {
    let (cache, mount) = after(|cache| {
        let text = format!("{}\nno json\n\n[1]\n", cache.record("fresh", 1.0, r#""k": 3"#));
        fs::write(cache.join("_new"), text).unwrap();
        fs::rename(cache.join("_new"), cache.join("_entries")).unwrap();
    });
    soon("the one entry", || ls(mount.join("entries")) == ["fresh"]);
    assert_eq!(mount.status()["malformed"], 2);
    let id = mount.make("k=4");
    assert!(cache.log().contains("no json\n"), "kept");
    assert_eq!(ls(mount.join("entries")).len(), 2);
    fs::remove_dir(mount.join("entries").join(id)).unwrap();
    mount.stop();
}

#[test]
fn a_log_that_is_a_directory_or_a_link_is_refused() {
    for kind in ["directory", "link"] {
        let cache = Cache::new();
        let outside = common::scratch();
        if kind == "directory" {
            fs::create_dir(cache.join("_entries")).unwrap();
        } else {
            fs::write(outside.path().join("log"), "").unwrap();
            symlink(outside.path().join("log"), cache.join("_entries")).unwrap();
        }
        let point = common::scratch();
        let message =
            run(Command::new(binary()).arg("mount").arg(cache.path()).arg(point.path()).arg("-f")).fails();
        assert!(message.contains("_entries"), "{kind}: {message}");
    }
}

#[test]
fn links_in_the_cache_are_never_followed() {
    let cache = Cache::new();
    let outside = common::scratch();
    fs::write(outside.path().join("secret"), "x").unwrap();
    symlink(outside.path(), cache.join("e1")).unwrap();
    cache.append(&[cache.record("e1", 1.0, r#""k": 1"#)]);
    cache.add("e2", 1.0, r#""k": 1"#);
    symlink(outside.path(), cache.join("e2/away")).unwrap();
    let mount = cache.mount();
    assert!(!fs::exists(mount.join("entries/e1/secret")).unwrap_or(false));
    assert!(put(mount.join("entries/e1/made"), "").is_err());
    assert_eq!(ls(outside.path()), ["secret"]);
    // A link that a user made in an entry is the user's own.
    assert_eq!(read(mount.join("entries/e2/away/secret")), "x");
    assert_eq!(common::target(mount.join("entries/e2/away")), outside.path());
    mount.stop();
}

#[test]
fn malformed_records_are_skipped_and_kept() {
    let cache = Cache::new();
    let bad = [
        "not json",
        "[1, 2]",
        "{}",
        r#"{"k": 1}"#,
        r#"{"_id": 7}"#,
        r#"{"_id": ""}"#,
        r#"{"_id": "/x/.."}"#,
        r#"{"_id": "/x/."}"#,
        r#"{"_id": "/x/_trash"}"#,
        r#"{"_id": "/x/.hidden"}"#,
        r#"{"_id": "/x/e9/"}"#,
        r#"{"_id": "/x/nul\u0000"}"#,
    ];
    for (n, line) in bad.iter().enumerate() {
        cache.append(&[line]);
        cache.add(&format!("e{n}"), 1.0, r#""k": 1"#);
    }
    let mount = cache.mount();
    assert_eq!(ls(mount.join("entries")).len(), bad.len());
    assert_eq!(mount.status()["malformed"], bad.len());
    mount.stop();
    cache.command(&["compact"]).ok();
    let log = cache.log();
    for line in bad {
        assert!(log.lines().any(|kept| kept == line), "{line}");
    }
    let check = cache.command(&["check"]);
    assert_eq!(check.status.code(), Some(1));
}
