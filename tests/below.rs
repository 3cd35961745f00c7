//! What is mounted on directories of a mount stays there, whatever changes: a kernel that forgets names takes it away.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::time::Duration;

use common::{Cache, Mount, Mounted, is_root, poll, read};

/// Sets an attribute, and looks where the entry is by it, now and before.
fn change(mount: &Mount, value: u32) {
    mount.set("e1", "lr", &value.to_string());
    let by = |value: u32| mount.join(format!("by-attr/lr/{value}/e1")).symlink_metadata();
    assert!(by(value).is_ok(), "{value}: {}", mount.log());
    assert!(by(value - 1).is_err(), "{value}: {}", mount.log());
}

#[test]
fn what_is_mounted_below_stays() {
    if !is_root() {
        eprintln!("only root mounts a tmpfs");
        return;
    }
    let cache = Cache::new();
    cache.add("e1", 1.0, r#""lr": 0"#);
    fs::create_dir_all(cache.join("e1/d")).unwrap();
    let mount = cache.mount();
    let at = mount.join("entries/e1/d");
    let mounted = Mounted::new("tmpfs", "rw", &at);
    fs::write(at.join("f"), "there").unwrap();
    let is_said = |what: &str| {
        poll(what, Duration::from_secs(20), || mount.log().contains(what).then_some(()));
    };
    is_said("while something is mounted below");
    for value in 1..50 {
        change(&mount, value);
        assert_eq!(read(at.join("f")), "there");
    }
    // Somebody else makes an entry, too, and there is one more way to this one.
    cache.add("e2", 2.0, r#""lr": 7"#);
    poll("what others made is seen", Duration::from_secs(20), || {
        mount.join("by-attr/lr/7/e2").symlink_metadata().is_ok().then_some(())
    });
    mount.sh("mkdir new/x && ls entries new/x by-attr/lr").ok();
    assert_eq!(read(at.join("f")), "there");
    drop(mounted);
    is_said("nothing is mounted below any more");
    assert!(!at.join("f").exists());
    for value in 50..60 {
        change(&mount, value);
    }
    mount.stop();
}
