//! The index that is kept for the next mount: used when the log is the one that it is about, followed when the log has grown,
//! and never believed otherwise.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt, chown};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use common::{Cache, Mount, Options, Random, Tracer, User, binary, ls, poll, read, run, seed};

const SOON: Duration = Duration::from_secs(60);
/// Enough to be kept.
const ENTRIES: usize = 20_500;
const USED: &str = "begins with the kept index";

/// A cache with many entries, and a place for its index.
struct World {
    cache: Cache,
    place: tempfile::TempDir,
}

fn lines(from: usize, to: usize) -> Vec<String> {
    let line = |n: usize| {
        let loss = format!("{:.4}", 1.0 / (1.0 + f64::from(u32::try_from(n).unwrap())));
        format!(
            r#"{{"@": "e{n:07}", "n": {n}, "lr": 0.{}, "loss": {loss}, "tags": ["t{}"], "$": {n}.5}}"#,
            n % 10,
            n % 7
        )
    };
    (from..to).map(line).collect()
}

impl World {
    fn new() -> Self {
        let world = Self { cache: Cache::new(), place: common::scratch() };
        world.cache.append(&lines(0, ENTRIES));
        world
    }

    /// As [`World::new`], with its index kept.
    fn kept() -> Self {
        let world = Self::new();
        assert!(!world.served(ENTRIES), "there is nothing yet");
        assert_eq!(world.files().len(), 1);
        world
    }

    fn options(&self) -> Options<'_> {
        Options { keep: Some(self.place.path()), ..Options::default() }
    }

    fn mount(&self) -> Mount {
        Mount::new(self.cache.path(), &self.options())
    }

    fn directory(&self) -> PathBuf {
        self.place.path().join("cachedirfs")
    }

    fn files(&self) -> Vec<PathBuf> {
        ls(self.directory()).into_iter().map(|name| self.directory().join(name)).collect()
    }

    fn log(&self) -> PathBuf {
        self.cache.join("_entries")
    }

    /// Mounts it, compares what is shown with the log, and unmounts it. Says whether the kept index was used.
    fn served(&self, entries: usize) -> bool {
        let mount = self.mount();
        check(&mount, entries);
        mount.stop().contains(USED)
    }
}

/// What is shown of so many entries, each as [`lines`] says.
fn check(mount: &Mount, entries: usize) {
    assert_eq!(read(mount.join("count")), format!("{entries}\n"));
    for n in [0, 1, entries / 2, entries - 1] {
        let id = format!("e{n:07}");
        assert_eq!(ls(mount.join(format!("by-attr/n/{n}"))), [id.as_str()]);
        assert_eq!(mount.get(&id, "n"), n.to_string());
    }
    let some = entries.div_ceil(10);
    assert_eq!(read(mount.join("by-attr/lr/0/count")), format!("{some}\n"));
    assert_eq!(read(mount.join("where/n ge 7 and n lt 12/by-attr/tags[]/t0/count")), "1\n");
    assert_eq!(ls(mount.join(format!("where/n = {entries}"))).len(), 0);
}

/// The lines of the log with one value changed, of the same length: 1234 is 9234.
fn altered(log: &str) -> String {
    log.replace("\"n\": 1234,", "\"n\": 9234,")
}

#[test]
fn it_is_used_as_long_as_the_log_is_the_same_and_followed_when_it_grows() {
    let world = World::kept();
    assert!(world.served(ENTRIES));
    // Commands use it as well, and write none.
    let ids = |world: &World| {
        let mut command = Command::new(binary());
        command.env("XDG_CACHE_HOME", world.place.path()).env("RUST_LOG", "info");
        run(command.arg("-C").arg(world.cache.path()).args(["find", "n = 1234", "--format", "ids"]))
    };
    let found = ids(&world);
    assert!(found.stderr.contains(USED), "{}", found.stderr);
    assert_eq!(found.ok(), "e0001234\n");
    // What came since, by others and by a mount itself.
    world.cache.append(&lines(ENTRIES, ENTRIES + 10));
    assert!(world.served(ENTRIES + 10));
    let mount = world.mount();
    let id = mount.make("n=-1");
    mount.set("e0000003", "n", "-3");
    assert!(mount.stop().contains(USED));
    let mount = world.mount();
    assert_eq!(ls(mount.join("by-attr/n/-1")), [id.as_str()]);
    assert_eq!(ls(mount.join("by-attr/n/-3")), ["e0000003"]);
    assert_eq!(ls(mount.join("where/n = 3")).len(), 0);
    assert!(mount.stop().contains(USED));
    // Half a record at the end is nobody's yet.
    let text = lines(ENTRIES + 10, ENTRIES + 11).remove(0);
    world.cache.append_bytes(&text.as_bytes()[..30]);
    let mount = Mount::new(world.cache.path(), &Options { options: "ro", ..world.options() });
    assert_eq!(read(mount.join("count")), format!("{}\n", ENTRIES + 11));
    assert!(mount.stop().contains(USED));
}

#[test]
fn another_log_is_read_anew() {
    let world = World::kept();
    let good = fs::read_to_string(world.log()).unwrap();
    // Written over in place, of the same size, with the time of modification set back.
    let at = good.find("\"n\": 1234,").unwrap() as u64 + 5;
    let modified = fs::metadata(world.log()).unwrap().modified().unwrap();
    let file = File::options().write(true).open(world.log()).unwrap();
    file.write_all_at(b"9", at).unwrap();
    file.set_modified(modified).unwrap();
    drop(file);
    let mount = world.mount();
    assert_eq!(ls(mount.join("by-attr/n/9234")), ["e0001234", "e0009234"]);
    assert_eq!(ls(mount.join("where/n = 1234")).len(), 0);
    assert!(!mount.stop().contains(USED));
    // What was read then is kept by now; and again.
    assert!(world.mount().stop().contains(USED));

    // Replaced by another file of the same size, with other entries of the same ids.
    fs::write(world.cache.join("other"), good.replace("e0000005", "x0000005")).unwrap();
    fs::rename(world.cache.join("other"), world.log()).unwrap();
    let mount = world.mount();
    assert_eq!(ls(mount.join("by-attr/n/5")), ["x0000005"]);
    assert!(!mount.stop().contains(USED));

    // Cut short.
    let half: String = lines(0, ENTRIES - 100).into_iter().map(|line| line + "\n").collect();
    assert!(good.starts_with(&half));
    fs::write(world.log(), half).unwrap();
    assert!(!world.served(ENTRIES - 100));

    // Compacted, by a command that keeps nothing: the records are other ones by then.
    world.cache.append(&lines(ENTRIES - 100, ENTRIES));
    let changed: Vec<String> = lines(0, 300).iter().map(|line| line.replace(".5}", ".25}")).collect();
    world.cache.append(&changed);
    assert!(world.served(ENTRIES), "it has only grown");
    let before = fs::metadata(world.log()).unwrap().len();
    world.cache.command(&["compact"]).ok();
    assert!(fs::metadata(world.log()).unwrap().len() < before);
    assert!(!world.served(ENTRIES));
    assert!(world.served(ENTRIES));

    // Emptied, and gone.
    fs::write(world.log(), "").unwrap();
    assert_eq!(read(world.mount().join("count")), "0\n");
    fs::remove_file(world.log()).unwrap();
    assert_eq!(read(world.mount().join("count")), "0\n");
}

/// What is written in place while it is mounted is not vouched for by what the kernel says afterwards.
#[test]
fn a_log_that_was_edited_behind_a_mount_is_read_anew_by_the_next_one() {
    let world = World::new();
    let mount = world.mount();
    let good = fs::read_to_string(world.log()).unwrap();
    let file = File::options().write(true).open(world.log()).unwrap();
    file.write_all_at(altered(&good).as_bytes(), 0).unwrap();
    drop(file);
    // Until the log counts as one that nobody writes.
    let edited = std::time::Instant::now();
    poll("a quiet log", SOON, || (edited.elapsed() > Duration::from_secs(3)).then_some(()));
    mount.stop();
    let mount = world.mount();
    assert_eq!(ls(mount.join("by-attr/n/9234")), ["e0001234", "e0009234"]);
    assert_eq!(mount.get("e0001234", "n"), "9234");
    mount.stop();
}

#[test]
fn damage_is_never_believed() {
    let world = World::kept();
    let file = world.files().remove(0);
    let good = fs::read(&file).unwrap();
    let mut random = Random(seed("damage_is_never_believed"));
    let find = || {
        let mut command = Command::new(binary());
        command
            .env("XDG_CACHE_HOME", world.place.path())
            .env("RUST_LOG", "info")
            .arg("-C")
            .arg(world.cache.path());
        let finished = run(command.args(["find", "n = 1234", "--format", "ids"]));
        let used = finished.stderr.contains(USED);
        assert_eq!(finished.ok(), "e0001234\n");
        used
    };
    assert!(find());
    for _ in 0..common::amount("CACHEDIRFS_DAMAGES", 12) {
        let mut bad = good.clone();
        match random.below(4) {
            0 => bad.truncate(random.below(good.len())),
            1 => bad.push(0),
            _ => {
                let at = random.below(good.len());
                bad[at] ^= 1 << random.below(8);
            }
        }
        fs::write(&file, &bad).unwrap();
        assert!(!find());
    }
    fs::write(&file, &good).unwrap();
    assert!(find());
    // The next mount makes it anew.
    fs::write(&file, &good[..good.len() / 2]).unwrap();
    assert!(!world.served(ENTRIES));
    assert!(world.served(ENTRIES));
}

#[test]
fn mounts_that_start_and_end_at_once_leave_a_good_one() {
    let world = World::new();
    for round in 0..3 {
        let mut mounts: Vec<Mount> =
            (0..3).map(|_| Mount::start(world.cache.path(), &world.options())).collect();
        for mount in &mut mounts {
            mount.live();
            check(mount, ENTRIES + round * 1000);
        }
        // Enough that each of them keeps it anew.
        world.cache.append(&lines(ENTRIES + round * 1000, ENTRIES + round * 1000 + 1000));
        for mount in &mounts {
            poll("what was appended", SOON, || {
                (read(mount.join("count")) == format!("{}\n", ENTRIES + round * 1000 + 1000)).then_some(())
            });
        }
        for mount in &mounts {
            // SAFETY: a child that has not been waited for; plain numbers.
            unsafe { libc::kill(mount.pid(), libc::SIGTERM) };
        }
        for mount in mounts {
            assert_eq!(mount.stop().contains(USED), round > 0);
        }
        assert_eq!(world.files().len(), 1, "{:?}", world.files());
    }
    assert!(world.served(ENTRIES + 3000));
}

/// Killed at each of its writes: the former one stands, and is followed.
#[test]
fn whoever_dies_while_it_is_written_leaves_the_former_one() {
    let world = World::kept();
    let file = world.files().remove(0);
    let good = fs::read(&file).unwrap();
    let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
    let mut entries = ENTRIES;
    for when in 1..=3 {
        world.cache.append(&lines(entries, entries + 1000));
        entries += 1000;
        let mount = world.mount();
        assert!(mount.log().contains(USED));
        check(&mount, entries);
        let unfinished = world.directory().join(format!("{name}.{}-0.tmp", mount.pid()));
        let tracer = Tracer::attach(mount.pid(), &unfinished, &[&format!("write:signal=KILL:when={when}")]);
        // SAFETY: a child that has not been waited for; plain numbers.
        unsafe { libc::kill(mount.pid(), libc::SIGTERM) };
        poll("its death", SOON, || tracer.text().contains("killed by SIGKILL").then_some(()));
        drop(tracer);
        mount.kill();
        assert!(unfinished.exists(), "write {when}: it was not being written");
        assert_eq!(fs::read(&file).unwrap(), good);
    }
    assert!(world.served(entries), "the former one is followed");
    assert_ne!(fs::read(&file).unwrap(), good, "and made anew");
    // What the dead have left goes after a while.
    for name in ls(world.directory()).iter().filter(|name| name.contains(".tmp")) {
        let old = std::time::SystemTime::now() - Duration::from_secs(7200);
        File::options().write(true).open(world.directory().join(name)).unwrap().set_modified(old).unwrap();
    }
    world.cache.append(&lines(entries, entries + 1000));
    assert!(world.served(entries + 1000));
    assert_eq!(world.files().len(), 1);
}

#[test]
fn what_somebody_else_could_have_made_is_not_read() {
    let world = World::kept();
    let file = world.files().remove(0);
    let mode = |path: &PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let set = |path: &PathBuf, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    assert_eq!((mode(&world.directory()), mode(&file)), (0o700, 0o600));
    for (path, bad, good) in
        [(&file, 0o620, 0o600), (&file, 0o602, 0o600), (&world.directory(), 0o777, 0o700)]
    {
        set(path, bad);
        assert!(!world.served(ENTRIES), "{} with {bad:o}", path.display());
        set(path, good);
        // It may have been made anew.
        assert!(world.served(ENTRIES));
    }
    if common::is_root() {
        let (user, file) = (User::ordinary(), world.files().remove(0));
        for path in [&file, &world.directory()] {
            chown(path, Some(user.uid()), None).unwrap();
            assert!(!world.served(ENTRIES), "{}", path.display());
            chown(path, Some(0), None).unwrap();
        }
        // Nothing of root's comes into somebody else's home.
        let home = common::scratch();
        user.own(home.path());
        let keep = home.path().join(".cache");
        Mount::new(world.cache.path(), &Options { keep: Some(&keep), ..Options::default() }).stop();
        assert!(!keep.exists());
    }
}

#[test]
fn it_can_be_switched_off_and_is_never_in_the_cache() {
    let world = World::new();
    let off = Mount::new(world.cache.path(), &Options { options: "nokeep", ..world.options() });
    check(&off, ENTRIES);
    off.stop();
    assert!(!world.directory().exists());
    let names = ls(world.cache.path());
    assert!(!world.served(ENTRIES));
    assert_eq!(ls(world.cache.path()), names);
    assert!(world.directory().exists());
    let off = Mount::new(world.cache.path(), &Options { options: "nokeep", ..world.options() });
    assert!(!off.stop().contains(USED));
    // A small one is read sooner than found.
    let small = World { cache: Cache::new(), place: common::scratch() };
    small.cache.append(&lines(0, 500));
    assert!(!small.served(500));
    assert!(!small.directory().exists());
}
