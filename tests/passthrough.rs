//! Who gets kernel passthrough, and that the status of a mount says so.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::time::Duration;

use common::{Cache, Mount, Mounted, Options, User, binary, is_root, read, run};

const SIZE: usize = 8 << 20;

/// A cache with a file of some size.
fn cache(user: Option<&User>) -> Cache {
    let cache = user.map_or_else(Cache::new, Cache::of);
    cache.add("e1", 1.0, "");
    fs::write(cache.join("e1/big"), vec![7; SIZE]).unwrap();
    for path in ["e1", "e1/big", "_entries", "_lock"] {
        if let Some(user) = user {
            user.own(&cache.join(path));
        }
    }
    cache
}

/// Bytes that the daemon has read so far.
fn read_by_daemon(mount: &Mount) -> usize {
    let text = read(format!("/proc/{}/io", mount.pid()));
    text.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap().parse().unwrap()
}

/// What the status says, once what it says was seen to be so.
#[track_caller]
fn is_in_use(mount: &Mount) -> bool {
    let said = |text: &str| {
        let value: serde_json::Value = serde_json::from_str(text).unwrap();
        value["passthrough"].as_bool().unwrap()
    };
    let before = said(&mount.sh("cat .status").ok());
    let start = read_by_daemon(mount);
    mount.sh(&format!("[ $(cat entries/e1/big | wc -c) = {SIZE} ]")).ok();
    let through_daemon = read_by_daemon(mount) - start >= SIZE;
    assert_eq!(before, !through_daemon, "what .status says before the first file is opened");
    assert_eq!(said(&mount.sh("cat .status").ok()), before);
    before
}

#[test]
fn root_gets_it_unless_told_otherwise() {
    let cache = cache(None);
    let mount = cache.mount();
    let in_use = is_in_use(&mount);
    if is_root() && std::env::var("CACHEDIRFS_TEST_OPTIONS").is_err() {
        assert!(in_use, "Linux 6.9 and later have it for root:\n{}", mount.log());
    }
    let status = |json: &[&str]| run(Command::new(binary()).arg("status").arg(mount.path()).args(json)).ok();
    let text = status(&[]);
    let line = text.lines().find(|line| line.starts_with("passthrough")).expect("a line of it");
    assert!(line.ends_with(&format!(" {in_use}")), "{line}");
    assert!(status(&["--json"]).contains(&format!("\"passthrough\": {in_use}")));
    let without = cache.mount_with("nopassthrough");
    assert!(!is_in_use(&without));
    let ahead = |mount: &Mount| {
        let device = fs::metadata(mount.path()).unwrap().dev();
        format!("/sys/class/bdi/{}:{}/read_ahead_kb", rustix::fs::major(device), rustix::fs::minor(device))
    };
    // Not where what describes the kernel is only for reading.
    if in_use && OpenOptions::new().write(true).open(ahead(&without)).is_ok() {
        let kib = |mount: &Mount| read(ahead(mount)).trim().parse::<u32>().unwrap();
        common::poll("who reads through the daemon reads ahead more", Duration::from_secs(20), || {
            (kib(&without) > kib(&mount)).then_some(())
        });
    }
}

#[test]
fn an_ordinary_user_does_not() {
    let user = User::ordinary();
    let cache = cache(Some(&user));
    let mount = Mount::new(cache.path(), &Options { user: Some(&user), ..Options::default() });
    assert!(!is_in_use(&mount));
}

#[test]
fn what_lies_on_a_stack_of_file_systems_does_not() {
    if !is_root() {
        eprintln!("only root mounts an overlay");
        return;
    }
    let dir = common::scratch();
    // An upper directory must not lie on an overlay, as a container's does.
    let outer = Mounted::new("tmpfs", "rw", dir.path());
    for name in ["lower", "upper", "work", "all"] {
        fs::create_dir(dir.path().join(name)).unwrap();
    }
    let layers = format!("lowerdir={0}/lower,upperdir={0}/upper,workdir={0}/work", dir.path().display());
    let all = dir.path().join("all");
    let inner = Mounted::new("overlay", &layers, &all);
    fs::create_dir_all(all.join("cache/e1")).unwrap();
    fs::write(all.join("cache/e1/big"), vec![7; SIZE]).unwrap();
    fs::write(all.join("cache/_entries"), "{\"@\": \"e1\", \"$\": 1.0}\n").unwrap();
    let mount = Mount::new(&all.join("cache"), &Options::default());
    assert!(!is_in_use(&mount));
    mount.stop();
    drop(inner);
    drop(outer);
}
