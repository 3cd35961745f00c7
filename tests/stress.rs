//! Many threads do everything at once in one mount; afterwards it shows exactly what a fresh mount shows.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::{Cache, Mount, Random, amount, append, put, seed};

/// Errors that concurrent changes of the same names explain.
fn expected(error: &std::io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ENOENT
                | libc::EEXIST
                | libc::ENOTEMPTY
                | libc::ENOTDIR
                | libc::EISDIR
                | libc::ESTALE
                | libc::EPERM
                | libc::EINVAL
                | libc::ENODATA
                | libc::EXDEV
                | libc::ELOOP
                | libc::EBUSY
        )
    )
}

fn in_contents(entry: &Path, random: &mut Random) -> std::io::Result<()> {
    let name = |random: &mut Random| -> PathBuf {
        let mut path = entry.to_owned();
        for _ in 0..random.below(3) {
            path.push(random.word(&["d0", "d1"]));
        }
        path.join(random.word(&["a", "b", "c", "d0", "d1"]))
    };
    let path = name(random);
    match random.below(13) {
        0 | 1 => fs::write(path, vec![b'x'; random.below(20_000)]),
        2 => fs::create_dir(path),
        3 => fs::rename(path, name(random)),
        4 => fs::remove_file(path),
        5 => fs::remove_dir(path),
        6 => fs::hard_link(path, name(random)),
        7 => symlink("a", path),
        8 => fs::read_dir(path)?.try_for_each(|found| found?.metadata().map(drop)),
        9 => fs::read(path).map(drop),
        10 => fs::set_permissions(path, fs::Permissions::from_mode(0o700)),
        11 => {
            let file = fs::OpenOptions::new().read(true).write(true).open(&path)?;
            let _ = fs::remove_file(&path);
            file.write_at(b"after", 3)?;
            file.set_len(5)
        }
        _ => xattr::set(path, "user.x", b"1"),
    }
}

const STATUS: [&str; 3] = ["new", "running", "done"];

fn in_views(mount: &Path, ids: &[String], random: &mut Random, n: usize) -> std::io::Result<()> {
    let id = random.pick(ids).clone();
    let entry = mount.join("entries").join(&id);
    let status = mount.join("by-attr/status").join(random.word(&STATUS));
    match random.below(16) {
        0 => fs::create_dir(mount.join(format!("new/n={n},status=new"))),
        1 => put(entry.join(".attrs/k"), random.below(5).to_string()),
        2 => put(entry.join(".attrs/status"), random.word(&STATUS)),
        3 => fs::remove_file(entry.join(".attrs/k")),
        4 => {
            let _ = fs::create_dir(&status);
            let from = mount.join("by-attr/status").join(random.word(&STATUS));
            fs::rename(from.join(&id), status.join(&id))
        }
        5 => symlink(format!("../../../entries/{id}"), status.join(&id)),
        6 => fs::rename(&entry, mount.join("trash").join(&id)),
        7 | 8 => fs::rename(mount.join("trash").join(&id), &entry),
        9 => fs::read_dir(status)?.try_for_each(|found| {
            // A link of an entry that went in the meantime is not there any more.
            let _ = found?.metadata();
            Ok(())
        }),
        10 => append(entry.join(".attrs.json"), format!(r#"{{"merged": {n}}}"#)),
        11 => fs::read_to_string(mount.join("table.csv")).map(drop),
        12 => fs::read_dir(mount.join("where/k ge 2/sort/-k")).map(|names| {
            names.count();
        }),
        13 => xattr::set(&entry, "user.x", n.to_string().as_bytes()),
        14 => fs::create_dir(&entry),
        _ => fs::read_dir(mount.join("by-attr/k"))?.try_for_each(|value| {
            fs::read_dir(value?.path()).map(|names| {
                names.count();
            })
        }),
    }
}

/// Everything that a mount shows, but for what differs by nature: times and inode numbers.
fn picture(mount: &Mount) -> String {
    let script = r#"
find . -path ./README -prune -o -name .status -prune -o -printf '%p %y %m %n %s %l\n' | sort
find entries trash -type f -exec md5sum {} + | sort
for e in entries/*; do echo "$e"; cat "$e/.attrs.json"; getfattr -d --absolute-names "$e"; done
cat table.csv count
"#;
    mount.sh(script).ok()
}

#[test]
fn everything_at_once_leaves_what_a_fresh_mount_shows() {
    let seed = seed("everything_at_once");
    let span = Duration::from_secs(amount("CACHEDIRFS_STRESS_SECONDS", 5) as u64);
    let cache = Cache::new();
    for n in 0..12 {
        cache.add(
            &format!("e{n:02}"),
            f64::from(n),
            &format!(r#""n": {n}, "k": {}, "status": "new""#, n % 3),
        );
    }
    let ids: Vec<_> = (0..12).map(|n| format!("e{n:02}")).collect();
    let mount = cache.mount();
    let counter = AtomicUsize::new(1000);
    let succeeded = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for thread in 0..8_u64 {
            let (mount, ids, counter, succeeded) = (mount.path(), &ids, &counter, &succeeded);
            scope.spawn(move || {
                let mut random = Random(seed ^ (thread << 40));
                let deadline = Instant::now() + span;
                while Instant::now() < deadline {
                    let result = if thread % 2 == 0 {
                        in_contents(&mount.join("entries").join(&ids[random.below(3)]), &mut random)
                    } else {
                        in_views(mount, ids, &mut random, counter.fetch_add(1, Ordering::Relaxed))
                    };
                    match result {
                        Ok(()) => drop(succeeded.fetch_add(1, Ordering::Relaxed)),
                        Err(error) => assert!(expected(&error), "{error}"),
                    }
                }
            });
        }
    });
    eprintln!("{} operations succeeded", succeeded.load(Ordering::Relaxed));
    for value in STATUS {
        // One without entries, made by `mkdir`, is there in its mount alone.
        let _ = fs::remove_dir(mount.join("by-attr/status").join(value));
    }
    let shown = picture(&mount);
    let fresh = cache.mount();
    let there = picture(&fresh);
    for (one, other) in shown.lines().zip(there.lines()) {
        assert_eq!(one, other);
    }
    assert_eq!(shown.lines().count(), there.lines().count());
    fresh.stop();
    mount.stop();
    let check = cache.command(&["check"]);
    assert!(check.status.success(), "{}{}", String::from_utf8_lossy(&check.stdout), check.stderr);
}
