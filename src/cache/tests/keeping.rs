//! Indexes that are kept, and come back: with the same answers as the log gives, or not at all.

use std::os::unix::fs::FileExt as _;

use proptest::prelude::*;

use super::*;
use crate::query::Expr;
use crate::store::Directory;

/// A cache with a log of some entries, and a place to keep its index.
struct World {
    dir: TempDir,
    keep: TempDir,
}

impl World {
    fn new(lines: impl IntoIterator<Item = String>) -> Self {
        let log: String = lines.into_iter().map(|line| line + "\n").collect();
        Self { dir: directory(&log), keep: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Opens the cache; `background` keeps the index when it is closed.
    fn open(&self, background: bool) -> Arc<Cache> {
        let options = Options { keep: Some(self.keep.path().join("kept")), ..options(background) };
        Cache::open(self.path(), &options).unwrap()
    }

    /// Opens and closes it, so that its index is kept.
    fn keep(&self) {
        self.open(true).close().unwrap();
        assert!(self.is_kept());
    }

    fn is_kept(&self) -> bool {
        let about = self.path().canonicalize().unwrap();
        Directory::open(&self.keep.path().join("kept"), false).is_ok_and(|dir| dir.read(&about).is_ok())
    }

    fn file(&self) -> std::path::PathBuf {
        fs::read_dir(self.keep.path().join("kept")).unwrap().next().unwrap().unwrap().path()
    }

    fn append(&self, text: &str) {
        let mut log = fs::OpenOptions::new().append(true).open(self.path().join("_entries")).unwrap();
        std::io::Write::write_all(&mut log, text.as_bytes()).unwrap();
    }

    /// Whether what is kept was used: asks the store how it began.
    fn check(&self) -> bool {
        let cache = self.open(false);
        assert_same(&cache, &open(self.path()));
        cache.inner.keeping.lock().unwrap().is_kept()
    }
}

/// Everything that can be asked is answered alike.
fn assert_same(left: &Cache, right: &Cache) {
    assert_eq!(ids(left), ids(right));
    for name in ids(left) {
        let entry = |cache: &Cache| {
            let row = cache.index().row(&name).unwrap();
            cache.entry(row).unwrap()
        };
        assert_eq!(entry(left).object, entry(right).object);
        assert_eq!(entry(left).time.to_bits(), entry(right).time.to_bits());
    }
    let (one, other) = (left.index(), right.index());
    assert_eq!(one.keys(None), other.keys(None));
    let names = |index: &Index, rows: Vec<Row>| {
        rows.into_iter().map(|row| index.id(row).unwrap()).collect::<Vec<_>>()
    };
    for key in one.keys(None) {
        assert_eq!(one.values(&key, None), other.values(&key, None));
        assert_eq!(
            names(&one, one.sorted(&key, one.live())),
            names(&other, other.sorted(&key, other.live()))
        );
    }
    for expr in ["a > 1", "_timestamp >= 3", "not has(a)", "t[] = 1 or a = x", "_id < e3"] {
        let expr = Expr::parse(expr).unwrap();
        let rows = |index: &Index| {
            let rows = index.select(&expr, 0.0).iter().map(Row).collect();
            let mut names = names(index, rows);
            names.sort();
            names
        };
        assert_eq!(rows(&one), rows(&other));
    }
    let (one, other) = (left.status(), right.status());
    assert_eq!(
        (one.entries, one.malformed, one.log_bytes, one.dead_records),
        (other.entries, other.malformed, other.log_bytes, other.dead_records)
    );
    assert_eq!(left.store().dialect(), right.store().dialect());
}

fn lines(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|n| {
        if n % 9 == 5 {
            return format!("damaged {n}");
        }
        format!(r#"{{"@": "e{}", "a": {}, "t": [1, "{n}"], "o": {{"x": {n}.5}}, "$": {n}}}"#, n % 40, n % 7)
    })
}

#[test]
fn a_kept_index_gives_the_answers_of_the_log() {
    let world = World::new(lines(50));
    world.keep();
    assert!(world.check());
    // What was appended since is followed.
    world.append("{\"@\": \"e1\", \"a\": 9, \"$\": 1}\n{\"@\": \"n\", \"a\": \"x\"}\n");
    assert!(world.check());
    // Half a line is not taken.
    world.append("{\"@\": \"half\"");
    assert!(world.check());
    world.append("}\n");
    assert!(world.check());
}

#[test]
fn changes_are_made_to_a_kept_index_as_to_any() {
    let world = World::new(lines(50));
    world.keep();
    let cache = world.open(true);
    assert!(cache.inner.keeping.lock().unwrap().is_kept());
    cache.change(set("e3", "a", "12")).unwrap();
    cache.change(delete("e4")).unwrap();
    cache.change(create("new", r#"{"a": 5}"#)).unwrap();
    assert_same(&cache, &open(world.path()));
    cache.compact().unwrap();
    assert_same(&cache, &open(world.path()));
    cache.change(set("e3", "a", "13")).unwrap();
    cache.close().unwrap();
    assert!(world.check(), "after compaction it is kept anew");
}

#[test]
fn another_log_is_not_taken_for_the_kept_one() {
    let world = World::new(lines(50));
    world.keep();
    let path = world.path().join("_entries");
    let good = fs::read(&path).unwrap();
    let at = log_of(world.path()).find("\"a\": 3").unwrap() as u64 + 5;

    // Written over in place, the same size, times set back.
    let times = fs::metadata(&path).unwrap().modified().unwrap();
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.write_all_at(b"8", at).unwrap();
    file.set_modified(times).unwrap();
    drop(file);
    assert!(!world.check());
    fs::write(&path, &good).unwrap();
    assert!(world.check(), "the same bytes again, whatever the times say");

    // Another file under the name, as another node makes it by compaction; then one that is shorter.
    fs::write(
        world.path().join("other"),
        String::from_utf8(good.clone()).unwrap().replace("\"e3\"", "\"e7\""),
    )
    .unwrap();
    fs::rename(world.path().join("other"), &path).unwrap();
    assert!(!world.check());
    fs::write(&path, &good[..good.len() / 2]).unwrap();
    assert!(!world.check());
    // What is kept of another cache, under this one's name.
    let other = World::new(lines(50));
    other.keep();
    fs::copy(other.file(), world.file()).unwrap();
    fs::write(&path, &good).unwrap();
    assert!(!world.check());
    // No log at all.
    fs::remove_file(&path).unwrap();
    assert_eq!(world.open(false).status().entries, 0);
}

#[test]
fn small_caches_are_not_kept_and_nothing_is_kept_in_the_cache() {
    let world = World::new(lines(2));
    world.open(true).close().unwrap();
    assert!(!world.is_kept());
    let world = World::new(lines(50));
    let names = |dir: &Path| {
        let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    world.open(false).close().unwrap();
    let before = names(world.path());
    assert!(!world.is_kept(), "a command does not keep");
    world.keep();
    assert_eq!(names(world.path()), before);
    // Where nothing can be kept, nothing happens.
    let nowhere = Options { keep: Some("/proc/none".into()), ..options(true) };
    let cache = Cache::open(world.path(), &nowhere).unwrap();
    assert_same(&cache, &open(world.path()));
    cache.close().unwrap();
}

#[test]
fn it_is_kept_while_the_mount_is_quiet_and_by_several_at_once() {
    let world = World::new(lines(50));
    let (one, other) = (world.open(true), world.open(true));
    eventually("keeping", || world.is_kept());
    assert!(world.check());
    one.change(set("e3", "a", "12")).unwrap();
    one.close().unwrap();
    other.close().unwrap();
    assert!(world.check());
    assert_eq!(fs::read_dir(world.keep.path().join("kept")).unwrap().count(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn damage_is_never_believed(flips in prop::collection::vec((any::<prop::sample::Index>(), 1_u8..), 1..3), cut in any::<prop::sample::Index>(), cuts in any::<bool>()) {
        let world = World::new(lines(50));
        world.keep();
        let good = fs::read(world.file()).unwrap();
        let mut bad = good.clone();
        for (place, bits) in flips {
            let place = place.index(bad.len());
            bad[place] ^= bits;
        }
        if cuts {
            bad = good[..cut.index(good.len())].to_vec();
        }
        let damaged = bad != good;
        fs::write(world.file(), &bad).unwrap();
        prop_assert_eq!(world.check(), !damaged);
    }
}
