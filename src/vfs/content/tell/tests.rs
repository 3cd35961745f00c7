use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::super::watch::LONG;
use super::super::{ForgetNames, Options, Root};
use super::*;
use crate::backing::Backing;
use crate::name::Id;
use crate::vfs::{Caller, Entry};

const SHORT: Duration = Duration::from_secs(1);

/// A directory in a file system that reports changes.
fn reporting() -> TempDir {
    let usual = tempfile::tempdir().unwrap();
    let reports = backing::reports_changes(File::open(usual.path()).unwrap().as_fd()).unwrap();
    if reports { usual } else { tempfile::tempdir_in("/dev/shm").unwrap() }
}

fn poll(what: &str, mut ask: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !ask() {
        assert!(Instant::now() < end, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Contents with one entry of some files, and a kernel that counts what it is told.
struct World {
    dir: TempDir,
    contents: Arc<Contents>,
    me: Caller,
    root: Ino,
    names: Arc<AtomicUsize>,
    attributes: Arc<AtomicUsize>,
    knows_nodes: Arc<AtomicBool>,
}

impl World {
    fn new(watch: bool) -> Self {
        let dir = reporting();
        fs::create_dir(dir.path().join("e1")).unwrap();
        for n in 0..10 {
            fs::write(dir.path().join(format!("e1/f{n}")), "1").unwrap();
        }
        let backing = Backing::new(File::open(dir.path()).unwrap().as_fd()).unwrap();
        let contents = Arc::new(Contents::new(backing, Options { ttl: SHORT, watch, ..Options::default() }));
        let (names, attributes): (Arc<AtomicUsize>, Arc<AtomicUsize>) = Default::default();
        let knows_nodes = Arc::new(AtomicBool::new(true));
        let (told, told_too, knows) = (names.clone(), attributes.clone(), knows_nodes.clone());
        contents.set_forget_names(ForgetNames(Box::new(move || _ = told.fetch_add(1, Ordering::SeqCst))));
        contents.begin_to_watch(ForgetAttributes(Box::new(move |_| {
            told_too.fetch_add(1, Ordering::SeqCst);
            knows.load(Ordering::SeqCst)
        })));
        let root = contents.root(Root::Entries(Id::new("e1").unwrap())).unwrap().attr.ino;
        let meta = fs::metadata(dir.path()).unwrap();
        let me = Caller { uid: meta.uid(), gid: meta.gid(), pid: 0 };
        Self { dir, contents, me, root, names, attributes, knows_nodes }
    }

    fn lookup(&self, name: &str) -> Entry {
        self.contents.lookup(&self.me, self.root, OsStr::new(name)).unwrap()
    }

    /// Names with how long they are kept, up to so many.
    fn list(&self, fh: u64, cookie: u64, most: usize) -> Vec<(u64, Duration)> {
        let mut listed = Vec::new();
        let add = &mut |name: &crate::vfs::DirEntry, entry: &Entry| {
            if listed.len() == most {
                return false;
            }
            listed.push((name.cookie, entry.entry_ttl.min(entry.attr_ttl)));
            true
        };
        self.contents.readdirplus(&self.me, fh, cookie, add).unwrap();
        listed
    }

    fn told(&self) -> (usize, usize) {
        (self.names.load(Ordering::SeqCst), self.attributes.load(Ordering::SeqCst))
    }

    /// Long enough for what was changed to have been told.
    fn settle(&self) {
        let mut last = (self.told(), Instant::now());
        poll("it is quiet", || {
            if self.told() != last.0 {
                last = (self.told(), Instant::now());
            }
            last.1.elapsed() > Duration::from_millis(1500)
        });
    }
}

#[test]
fn what_was_found_often_is_kept_and_told_of() {
    let world = World::new(true);
    assert_eq!(world.lookup("f0").attr_ttl, SHORT, "once is no reason");
    poll("it is watched", || world.lookup("f1").attr_ttl == LONG);
    let entry = world.lookup("f0");
    assert_eq!((entry.attr_ttl, entry.entry_ttl), (LONG, LONG));
    assert_eq!(world.contents.getattr(entry.attr.ino, None).unwrap().1, LONG);
    assert_eq!(world.told(), (0, 0));
    fs::write(world.dir.path().join("e1/f0"), "12").unwrap();
    poll("attributes", || world.told().1 > 0);
    assert_eq!(world.told().0, 0, "names are as they were");
    fs::write(world.dir.path().join("e1/new"), "").unwrap();
    poll("names", || world.told().0 == 1);
    world.settle();
    for n in 0..50 {
        fs::write(world.dir.path().join(format!("e1/new{n}")), "").unwrap();
    }
    world.settle();
    assert_eq!(world.told().0, 1, "nothing was kept meanwhile");
    assert_eq!(world.contents.watched(), 1);
}

#[test]
fn nothing_is_watched_that_shall_not_be() {
    let world = World::new(false);
    for _ in 0..1000 {
        assert_eq!(world.lookup("f0").attr_ttl, SHORT);
    }
    let fh = world.contents.opendir(&world.me, world.root).unwrap().fh;
    assert!(world.list(fh, 0, 100).iter().all(|(_, ttl)| *ttl <= SHORT));
    assert_eq!(world.contents.watched(), 0);
}

#[test]
fn names_that_the_kernel_takes_from_an_answer_late_are_forgotten_again() {
    let world = World::new(true);
    let fh = world.contents.opendir(&world.me, world.root).unwrap().fh;
    let first = world.list(fh, 0, 6);
    assert!(first.iter().filter(|(_, ttl)| *ttl == LONG).count() >= 4, "all but `.` and `..`: {first:?}");
    fs::rename(world.dir.path().join("e1/f0"), world.dir.path().join("e1/f1")).unwrap();
    // At once, and until an answer that was on its way has long been taken.
    poll("names", || world.told().0 >= 3);
    world.settle();
    let before = world.told().0;
    // It goes on only now: had it been stopped, it takes the names only now.
    world.list(fh, first.last().unwrap().0, 3);
    assert_eq!(world.told().0, before + 1);
    world.contents.releasedir(fh);
    world.settle();
    assert_eq!(world.told().0, before + 1);
}

#[test]
fn a_node_that_the_kernel_does_not_know_yet_is_told_of_until_it_does() {
    let world = World::new(true);
    poll("it is watched", || world.lookup("f1").attr_ttl == LONG);
    world.knows_nodes.store(false, Ordering::SeqCst);
    fs::write(world.dir.path().join("e1/f1"), "12").unwrap();
    poll("it is told again", || world.told().1 >= 4);
    world.knows_nodes.store(true, Ordering::SeqCst);
    world.settle();
    let told = world.told().1;
    world.knows_nodes.store(false, Ordering::SeqCst);
    fs::write(world.dir.path().join("e1/f1"), "123").unwrap();
    poll("it is told again", || world.told().1 >= told + 2);
    // The kernel has forgotten it meanwhile.
    let ino = world.lookup("f1").attr.ino;
    world.contents.forget(ino, u64::MAX);
    world.settle();
}

#[test]
fn the_thread_ends_with_the_contents() {
    let world = World::new(true);
    let fh = world.contents.opendir(&world.me, world.root).unwrap().fh;
    world.list(fh, 0, 100);
    let contents = Arc::downgrade(&world.contents);
    let told = Arc::downgrade(&world.names);
    drop(world);
    poll("it has ended", || contents.upgrade().is_none() && told.upgrade().is_none());
}

#[test]
fn changes_that_are_found_meanwhile_and_tables_that_are_full() {
    let dir = reporting();
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    fs::create_dir(&one).unwrap();
    fs::create_dir(&two).unwrap();
    fs::write(one.join("f"), "").unwrap();
    fs::hard_link(one.join("f"), two.join("f")).unwrap();
    fs::write(one.join("g"), "").unwrap();
    let (one, two) = (File::open(one).unwrap(), File::open(two).unwrap());
    let stat = |name| backing::stat_at(one.as_fd(), name).unwrap();
    let (_changes, watches) = watch::begin(1).unwrap();

    let seen = watches.watch(1, one.as_fd()).unwrap();
    assert!(watches.watch(2, two.as_fd()).is_none(), "one is all");
    assert!(seen.keep(&stat(c"g")));
    assert!(!seen.keep(&stat(c"f")), "it can be changed through its other name");
    assert!(!seen.keep(&backing::stat(one.as_fd()).unwrap()), "a directory");
    let directory = watches.all().pop().unwrap();
    directory.count();
    assert!(!seen.keep(&stat(c"g")), "there was a change meanwhile");

    assert_eq!(watches.names_changed(&directory), Names::Forget);
    assert_eq!(watches.names_changed(&directory), Names::Untold, "nothing was shown since");
    assert!(watches.seen(1).is_none(), "names are not kept for a while");
    poll("they are again", || watches.seen(1).is_some());
    let seen = watches.seen(1).unwrap();
    let listed = seen.list();
    assert!(seen.keep(&stat(c"g")));
    assert_eq!(watches.names_changed(&directory), Names::ForgetRepeatedly, "it is being listed");
    assert!(listed.has_changed());
    listed.answered(&watches);
    assert!(watches.is_listed(&directory));
    poll("what was answered is taken", || !watches.is_listed(&directory));

    watches.ended(&directory);
    assert_eq!(watches.len(), 0);
    let seen = watches.watch(2, two.as_fd()).unwrap();
    watches.close();
    assert!(!seen.keep(&stat(c"g")));
    assert!(watches.watch(1, one.as_fd()).is_none());
}
