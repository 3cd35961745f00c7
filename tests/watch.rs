//! Directories whose changes the kernel reports are watched: what is in them is kept by the kernel for long, and what others
//! change is seen at once all the same.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs::{self, File, OpenOptions, Permissions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::{Cache, Mount, append, errno, ls, poll, read};

/// Well before what is kept would be looked at again by itself.
const AT_ONCE: Duration = Duration::from_secs(4);
/// Longer than anything is kept of what is not watched.
const A_WHILE: Duration = Duration::from_millis(1500);
/// Whatever the machine is doing.
const AT_LAST: Duration = Duration::from_secs(60);

/// An entry that is seen through one path, in a file system that reports changes: for such a one a name is kept.
struct World {
    mount: Mount,
    entry: PathBuf,
    real: PathBuf,
    _cache: Cache,
    _memory: Option<tempfile::TempDir>,
}

impl World {
    fn new(options: &str) -> Self {
        let scratch = common::scratch();
        // ext, xfs, btrfs, tmpfs; a container's own file system may be of layers.
        let kind = rustix::fs::statfs(scratch.path()).unwrap().f_type;
        let reports = [0xEF53, 0x5846_5342, 0x9123_683E, 0x0102_1994].contains(&kind);
        let memory = (!reports).then(|| tempfile::tempdir_in("/dev/shm").unwrap());
        let cache = memory.as_ref().map_or_else(Cache::new, |memory| Cache::at(memory.path()));
        cache.add("e1", 1.0, "");
        let mount = cache.mount_with(options);
        let (entry, real) = (mount.join("entries/e1"), cache.join("e1"));
        Self { mount, entry, real, _cache: cache, _memory: memory }
    }

    /// A directory with some files, through the mount and underneath.
    fn directory(&self, name: &str) -> (PathBuf, PathBuf) {
        let (seen, real) = (self.entry.join(name), self.real.join(name));
        fs::create_dir(&real).unwrap();
        for n in 0..20 {
            fs::write(real.join(format!("f{n}")), "12345").unwrap();
        }
        fs::write(real.join("witness"), "").unwrap();
        (seen, real)
    }

    fn watched(&self) -> u64 {
        self.mount.status()["watched_directories"].as_u64().unwrap()
    }
}

/// As `ls -l`.
fn list(directory: &Path) {
    for found in fs::read_dir(directory).unwrap() {
        found.unwrap().metadata().unwrap();
    }
}

/// Lists a directory until what was listed is certainly kept for long: what is not reported, another link to a file in it, is
/// not seen a while later.
fn kept(seen: &Path, real: &Path) {
    poll("it is kept", AT_LAST, || is_kept(seen, real).then_some(()));
}

fn is_kept(seen: &Path, real: &Path) -> bool {
    let link = real.with_extension("link");
    list(seen);
    fs::hard_link(real.join("witness"), &link).unwrap();
    let end = Instant::now() + A_WHILE;
    let mut kept = true;
    while kept && Instant::now() < end {
        kept = fs::metadata(seen.join("witness")).unwrap().nlink() == 1;
        std::thread::sleep(Duration::from_millis(20));
    }
    // The witness is as it was; that is reported.
    fs::remove_file(&link).unwrap();
    fs::set_permissions(real.join("witness"), Permissions::from_mode(0o644)).unwrap();
    poll("the witness is seen as it is", AT_ONCE, || {
        (fs::metadata(seen.join("witness")).unwrap().nlink() == 1).then_some(())
    });
    kept
}

/// Whether the kernel can be told to forget names (Linux 6.16): without that nothing is watched.
fn names_can_be_forgotten() -> bool {
    let release = read("/proc/sys/kernel/osrelease");
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|text| text.parse::<u32>().ok());
    (numbers.next().unwrap(), numbers.next().unwrap()) >= (6, 16)
}

fn at_once(what: &str, mut ask: impl FnMut() -> bool) {
    poll(what, AT_ONCE, || ask().then_some(()));
}

fn modes() -> [World; 2] {
    ["refresh=0.2", "nopassthrough"].map(World::new)
}

#[test]
fn files_of_a_listed_directory_that_others_change() {
    for world in modes() {
        let (seen, real) = world.directory("d");
        if names_can_be_forgotten() {
            kept(&seen, &real);
            assert!(world.watched() > 0);
        } else {
            list(&seen);
            assert_eq!(world.watched(), 0);
        }
        let stat = |name: &str| fs::symlink_metadata(seen.join(name)).unwrap();
        for n in 0..20 {
            stat(&format!("f{n}"));
        }
        append(real.join("f0"), "678").unwrap();
        at_once("a longer file", || stat("f0").len() == 8);
        assert_eq!(read(seen.join("f0")), "12345678");
        OpenOptions::new().write(true).open(real.join("f1")).unwrap().set_len(2).unwrap();
        at_once("a shorter one", || stat("f1").len() == 2);
        let before = stat("f2").modified().unwrap();
        let open = OpenOptions::new().write(true).open(real.join("f2")).unwrap();
        open.write_all_at(b"x", 0).unwrap();
        at_once("other data, before it is closed", || stat("f2").modified().unwrap() != before);
        fs::set_permissions(real.join("f3"), Permissions::from_mode(0o600)).unwrap();
        at_once("permissions", || stat("f3").mode() & 0o777 == 0o600);
        let group = stat("f4").gid();
        std::os::unix::fs::chown(real.join("f4"), None, Some(group)).unwrap();
        let changed = |name: &str| (stat(name).ctime(), stat(name).ctime_nsec());
        let there = fs::metadata(real.join("f4")).unwrap();
        at_once("the owner", || changed("f4") == (there.ctime(), there.ctime_nsec()));
        File::open(real.join("f5")).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
        at_once("times", || stat("f5").mtime() == 0);
        xattr::set(real.join("f6"), "user.note", b"x").unwrap();
        let there = fs::metadata(real.join("f6")).unwrap();
        at_once("extended attributes", || changed("f6") == (there.ctime(), there.ctime_nsec()));
        // Through the mount: each step is seen by the next.
        for n in 7..12 {
            let name = format!("f{n}");
            for round in 0..20 {
                append(seen.join(&name), "x").unwrap();
                assert_eq!(stat(&name).len(), 6 + round);
                fs::set_permissions(seen.join(&name), Permissions::from_mode(0o600 | (n & 1))).unwrap();
                assert_eq!(stat(&name).mode() & 0o777, 0o600 | (n & 1));
            }
        }
        world.mount.stop();
    }
}

#[test]
fn names_of_a_listed_directory_that_others_change() {
    for world in modes() {
        let kept = if names_can_be_forgotten() { kept } else { |seen: &Path, _: &Path| list(seen) };

        let (seen, real) = world.directory("replaced");
        let open = File::open(seen.join("f1")).unwrap();
        kept(&seen, &real);
        assert_eq!(open.metadata().unwrap().nlink(), 1);
        fs::write(real.join("t"), "another").unwrap();
        fs::rename(real.join("t"), real.join("f1")).unwrap();
        at_once("the other file", || fs::metadata(seen.join("f1")).unwrap().len() == 7);
        assert_eq!(read(seen.join("f1")), "another");
        at_once("that the first one has no name", || open.metadata().unwrap().nlink() == 0);

        let (seen, real) = world.directory("removed");
        kept(&seen, &real);
        fs::remove_file(real.join("f1")).unwrap();
        at_once("that it has gone", || fs::symlink_metadata(seen.join("f1")).is_err());
        assert_eq!(errno(File::open(seen.join("f1"))), libc::ENOENT);
        assert!(!ls(&seen).contains(&"f1".to_owned()));

        let (seen, real) = world.directory("made");
        kept(&seen, &real);
        assert_eq!(errno(fs::metadata(seen.join("g"))), libc::ENOENT);
        fs::write(real.join("g"), "new").unwrap();
        at_once("a new file", || fs::read_to_string(seen.join("g")).is_ok_and(|text| text == "new"));
        assert!(ls(&seen).contains(&"g".to_owned()));

        let (seen, real) = world.directory("renamed");
        kept(&seen, &real);
        fs::rename(real.join("f1"), real.join("g1")).unwrap();
        at_once("the name", || seen.join("g1").exists() && !seen.join("f1").exists());
        fs::rename(real.join("f2"), real.with_file_name("out")).unwrap();
        at_once("that it is elsewhere", || !seen.join("f2").exists());
        append(real.with_file_name("out"), "678").unwrap();
        at_once("what it is there", || fs::metadata(world.entry.join("out")).unwrap().len() == 8);

        let (seen, real) = world.directory("link");
        symlink("f1", real.join("s")).unwrap();
        kept(&seen, &real);
        assert_eq!(common::target(seen.join("s")), Path::new("f1"));
        fs::remove_file(real.join("s")).unwrap();
        symlink("f2", real.join("s")).unwrap();
        at_once("where it leads", || common::target(seen.join("s")) == Path::new("f2"));

        let (seen, real) = world.directory("moved");
        kept(&seen, &real);
        let (seen_moved, real_moved) = (seen.with_file_name("away"), real.with_file_name("away"));
        fs::rename(&real, &real_moved).unwrap();
        append(real_moved.join("f1"), "678").unwrap();
        at_once("a file of a directory that was moved", || {
            fs::metadata(seen_moved.join("f1")).is_ok_and(|meta| meta.len() == 8)
        });
        fs::remove_dir_all(&real_moved).unwrap();
        at_once("that all has gone", || !seen_moved.exists());
        world.mount.stop();
    }
}

#[test]
fn two_names_of_one_file_are_not_kept() {
    let world = World::new("refresh=0.2");
    let (seen, real) = world.directory("d");
    fs::hard_link(real.join("f1"), real.with_file_name("other")).unwrap();
    list(&seen);
    // Nobody reports this for the directory that was listed.
    append(real.with_file_name("other"), "678").unwrap();
    at_once("what was written through the other name", || fs::metadata(seen.join("f1")).unwrap().len() == 8);
    world.mount.stop();
}

#[test]
fn what_attr_timeout_says_stands() {
    let world = World::new("attr_timeout=1");
    let (seen, real) = world.directory("d");
    assert!(!is_kept(&seen, &real));
    assert_eq!(world.watched(), 0);
    world.mount.stop();
}

#[test]
fn more_directories_than_can_be_watched() {
    let world = World::new("");
    let directories: Vec<_> = (0..2200).map(|n| format!("d{n}")).collect();
    for name in &directories {
        fs::create_dir(world.real.join(name)).unwrap();
        fs::write(world.real.join(name).join("f"), "1").unwrap();
        list(&world.entry.join(name));
    }
    let most = world.watched();
    assert!(most < 2200, "{most}");
    assert_eq!(most > 0, names_can_be_forgotten());
    for name in &directories {
        append(world.real.join(name).join("f"), "2").unwrap();
    }
    for name in &directories {
        at_once("what was changed", || fs::metadata(world.entry.join(name).join("f")).unwrap().len() == 2);
    }
    world.mount.stop();
}

#[test]
fn a_storm_of_changes() {
    let world = World::new("refresh=0.2");
    let (seen, real) = world.directory("d");
    let names: Vec<_> = (0..3000).map(|n| format!("many-{n}")).collect();
    for name in &names {
        fs::write(real.join(name), "1").unwrap();
    }
    list(&seen);
    // More than the kernel keeps for who does not read them fast enough, perhaps.
    for mode in [0o600, 0o640, 0o644, 0o604, 0o606, 0o600] {
        for name in &names {
            fs::set_permissions(real.join(name), Permissions::from_mode(mode)).unwrap();
        }
    }
    for name in &names {
        at_once("the last mode", || fs::metadata(seen.join(name)).unwrap().mode() & 0o777 == 0o600);
    }
    for name in names.iter().step_by(2) {
        fs::remove_file(real.join(name)).unwrap();
    }
    at_once("what is left", || ls(&seen).len() == 21 + 1500);
    for (n, name) in names.iter().enumerate() {
        at_once("what has gone", || seen.join(name).exists() == (n % 2 == 1));
    }
    world.mount.stop();
}
