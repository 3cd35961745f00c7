//! Tests of the store on real files, and with failing ones.

mod damage;
mod failing;
mod fence;
mod following;
mod nodes;
mod powercut;
mod sealing;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::*;
use crate::name::Id;
use crate::value::Object;

/// What a sink was given.
#[derive(Debug, Default)]
pub(super) struct Lines {
    pub given: Vec<(Locator, Vec<u8>)>,
    pub oversized: Vec<Locator>,
    pub replaced: usize,
    pub generation: Option<Arc<Generation>>,
}

impl Sink for Lines {
    fn replaced(&mut self, generation: &Arc<Generation>) {
        *self =
            Self { replaced: self.replaced + 1, generation: Some(Arc::clone(generation)), ..Self::default() };
    }

    fn line(&mut self, at: Locator, line: &[u8]) {
        self.given.push((at, line.to_vec()));
    }

    fn oversized(&mut self, at: Locator) {
        self.oversized.push(at);
    }
}

impl Lines {
    pub fn texts(&self) -> Vec<String> {
        self.given.iter().map(|(_, line)| String::from_utf8_lossy(line).into_owned()).collect()
    }
}

pub(super) fn record(id: &str, x: &str) -> String {
    format!(r#"{{"_id": "/old/place/{id}", "x": {x}, "_timestamp": 1500000000.25}}"#)
}

pub(super) fn cache(log: &[u8]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("_entries"), log).unwrap();
    dir
}

pub(super) fn open(dir: &Path) -> Store {
    Store::open(dir, &Options::default()).unwrap()
}

pub(super) fn log_of(dir: &Path) -> Vec<u8> {
    fs::read(dir.join("_entries")).unwrap()
}

/// The names in a directory that begin so.
pub(super) fn names(dir: &Path, prefix: &str) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with(prefix))
        .collect();
    names.sort();
    names
}

/// Takes the lock, reads, appends.
pub(super) fn append(store: &Store, sink: &mut Lines, text: &str) -> Result<u64, StoreError> {
    let mut locked = store.lock()?;
    locked.catch_up(sink)?;
    match locked.append(text.as_bytes())? {
        Landed::Here(base) => Ok(base),
        Landed::AmongOthers => panic!("nobody else writes"),
    }
}

/// Polls until a condition holds.
pub(super) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < end, "{what} did not come about");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn what_one_store_appends_another_reads() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (open(dir.path()), open(dir.path()));
    let (mut at_a, mut at_b) = (Lines::default(), Lines::default());
    b.follow(&mut at_b).unwrap();
    assert_eq!(at_b.texts(), Vec::<String>::new());
    let base = append(&a, &mut at_a, "{\"@\": \"a\"}\n{\"@\": \"b\"}\n").unwrap();
    assert_eq!(base, 0);
    assert_eq!(a.dialect(), Dialect::Name, "the first record decides");
    b.follow(&mut at_b).unwrap();
    assert_eq!(at_b.texts(), ["{\"@\": \"a\"}", "{\"@\": \"b\"}"]);
    assert_eq!(append(&b, &mut at_b, "{\"@\": \"c\"}\n").unwrap(), 22);
    let followed = a.follow(&mut at_a).unwrap();
    assert_eq!(followed, Followed { lines: 1, replaced: false }, "our own lines are not given to us");
    assert_eq!(at_a.texts(), ["{\"@\": \"c\"}"]);
    let (at, line) = at_a.given.first().unwrap().clone();
    assert_eq!(at_a.generation.unwrap().read(at).unwrap(), line);
}

#[test]
fn the_lock_excludes_threads_and_stores() {
    let dir = tempfile::tempdir().unwrap();
    let stores = [open(dir.path()), open(dir.path())];
    let inside = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for store in stores.iter().chain(&stores) {
            scope.spawn(|| {
                for i in 0..50 {
                    let mut locked = store.lock().unwrap();
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two hold the lock");
                    locked.catch_up(&mut Lines::default()).unwrap();
                    locked.append(format!("{{\"@\": \"e{i}\"}}\n").as_bytes()).unwrap();
                    inside.fetch_sub(1, Ordering::SeqCst);
                }
            });
        }
    });
    let mut lines = Lines::default();
    open(dir.path()).follow(&mut lines).unwrap();
    assert_eq!(lines.given.len(), 200, "none overwrote another");
}

#[test]
fn a_lock_that_is_replaced_still_has_one_holder() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (open(dir.path()), open(dir.path()));
    let held = a.lock().unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| drop(b.lock().unwrap()));
        fs::remove_file(dir.path().join("_lock")).unwrap();
        fs::write(dir.path().join("_lock"), b"").unwrap();
        drop(held);
        waiting.join().unwrap();
    });
    // Both hold on to the new file now.
    let held = a.lock().unwrap();
    let lock = fs::File::open(dir.path().join("_lock")).unwrap();
    assert!(fs2::FileExt::try_lock_exclusive(&lock).is_err());
    drop(held);
    fs2::FileExt::try_lock_exclusive(&lock).unwrap();
}

#[test]
fn waiting_for_the_lock_can_be_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (open(dir.path()), open(dir.path()));
    let held = a.lock().unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| b.lock().map(drop));
        b.abandon();
        assert_eq!(waiting.join().unwrap().unwrap_err().raw_os_error(), Some(libc::EINTR));
    });
    drop(held);
    // Nor does what was given up keep the lock when it gets it.
    eventually("the lock is free", || {
        let lock = fs::File::open(dir.path().join("_lock")).unwrap();
        fs2::FileExt::try_lock_exclusive(&lock).is_ok()
    });
}

#[test]
fn only_regular_files_are_a_log_and_a_lock() {
    for name in ["_entries", "_lock"] {
        for kind in ["fifo", "directory", "link", "dangling"] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join(name);
            match kind {
                "fifo" => {
                    let c_path = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
                    // SAFETY: the path ends in NUL.
                    assert_eq!(unsafe { libc::mkfifo(c_path.as_ptr(), 0o666) }, 0);
                }
                "directory" => fs::create_dir(&path).unwrap(),
                "link" => {
                    fs::write(dir.path().join("target"), b"").unwrap();
                    symlink("target", &path).unwrap();
                }
                _ => symlink("nowhere", &path).unwrap(),
            }
            let error = Store::open(dir.path(), &Options::default()).unwrap_err();
            assert!(matches!(error, StoreError::NotACache(_)), "{name} as {kind}: {error}");
        }
    }
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), b"").unwrap();
    let error = Store::open(&dir.path().join("file"), &Options::default()).unwrap_err();
    assert!(matches!(error, StoreError::NotACache(_)), "{error}");
}

#[test]
fn a_log_that_turns_into_something_else_is_refused_and_taken_again() {
    let dir = cache(format!("{}\n", record("a", "1")).as_bytes());
    let store = open(dir.path());
    let mut lines = Lines::default();
    store.follow(&mut lines).unwrap();
    let path = dir.path().join("_entries");
    fs::rename(&path, dir.path().join("kept")).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(matches!(store.follow(&mut lines), Err(StoreError::NotACache(_))));
    assert!(matches!(append(&store, &mut lines, "{}\n"), Err(StoreError::NotACache(_))));
    fs::remove_dir(&path).unwrap();
    fs::rename(dir.path().join("kept"), &path).unwrap();
    store.follow(&mut lines).unwrap();
    assert_eq!((lines.texts(), lines.replaced), (vec![record("a", "1")], 1), "nothing was lost or doubled");
}

#[test]
fn reading_only_makes_nothing_and_takes_no_lock() {
    let dir = cache(format!("{}\n{{\"_id\": \"torn", record("a", "1")).as_bytes());
    let writer = open(dir.path());
    let held = writer.lock().unwrap();
    let before = (names(dir.path(), ""), log_of(dir.path()));
    let store = Store::open(dir.path(), &Options { read_only: true, sync: false }).unwrap();
    let mut lines = Lines::default();
    store.follow(&mut lines).unwrap();
    assert_eq!(lines.texts(), [record("a", "1")]);
    assert!(matches!(store.lock(), Err(StoreError::ReadOnly)));
    store.sync().unwrap();
    assert_eq!((names(dir.path(), ""), log_of(dir.path())), before);
    drop(held);
}

#[test]
fn who_may_write_the_directory_may_write_the_log() {
    for (mode, expected) in [(0o775, 0o664), (0o2770, 0o660), (0o777, 0o666)] {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).unwrap();
        append(&open(dir.path()), &mut Lines::default(), "{\"@\": \"a\"}\n").unwrap();
        for name in ["_entries", "_lock"] {
            let found = fs::metadata(dir.path().join(name)).unwrap().mode() & 0o777;
            assert_eq!(found, expected, "{name} in a directory of mode {mode:o}");
        }
    }
}

#[test]
fn compaction_keeps_order_bytes_and_permissions() {
    let texts = [record("a", "1"), "no object".into(), record("b", "2"), record("a", "3"), "{}".into()];
    let dir = cache(format!("{}\n", texts.join("\n")).as_bytes());
    let path = dir.path().join("_entries");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let (store, other) = (open(dir.path()), open(dir.path()));
    let (mut lines, mut at_other) = (Lines::default(), Lines::default());
    other.follow(&mut at_other).unwrap();
    let mut locked = store.lock().unwrap();
    locked.catch_up(&mut lines).unwrap();
    let keep: Vec<_> = [3, 2, 1, 4].iter().map(|&i: &usize| lines.given[i].0).collect();
    let (generation, places) = locked.compact(&keep).unwrap();
    let kept = [record("a", "3"), record("b", "2"), "no object".into(), "{}".into()];
    assert_eq!(String::from_utf8(log_of(dir.path())).unwrap(), format!("{}\n", kept.join("\n")));
    for (at, text) in places.iter().zip(&kept) {
        assert_eq!(generation.read(*at).unwrap(), text.as_bytes());
    }
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
    assert_eq!(names(dir.path(), "_entries"), ["_entries"]);
    // The same lock, and the same store, go on behind it.
    locked.append(format!("{}\n", record("c", "4")).as_bytes()).unwrap();
    drop(locked);
    assert_eq!(store.follow(&mut lines).unwrap(), Followed::default());
    // Old places stay readable, and followers read anew.
    let (at, text) = &at_other.given[0];
    assert_eq!(&at_other.generation.as_ref().unwrap().read(*at).unwrap(), text);
    assert_eq!(other.follow(&mut at_other).unwrap(), Followed { lines: 5, replaced: true });
    assert_eq!(at_other.texts()[4], record("c", "4"));
}
