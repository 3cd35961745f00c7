//! A model of the page cache: what was not synced may be lost, written in any order, torn, or become NULs.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::CStr;
use std::sync::Mutex;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::*;
use crate::record::{Malformed, Piece, parse_line};
use crate::store::sys::{FileId, Real, Stat, Sys};

/// Something that was done to the disk, or was promised.
#[derive(Debug, Clone)]
enum Event {
    Create(String, usize),
    Rename(String, String),
    Unlink(String),
    SyncDir,
    Write(usize, u64, Vec<u8>),
    Truncate(usize, u64),
    Sync(usize),
    /// This record is durable from here on.
    Promise(String),
}

/// The real file operations, written down.
#[derive(Debug, Default)]
struct Recorder {
    events: Mutex<Vec<Event>>,
    files: Mutex<(HashMap<FileId, usize>, usize)>,
}

impl Recorder {
    fn push(&self, event: Event) {
        self.events.lock().unwrap().push(event);
    }

    fn number(&self, file: &File) -> usize {
        self.files.lock().unwrap().0[&Real.stat_file(file).unwrap().id]
    }
}

fn text(name: &CStr) -> String {
    name.to_str().unwrap().to_owned()
}

impl Sys for Recorder {
    fn open(&self, dir: BorrowedFd<'_>, name: &CStr, flags: c_int, mode: u32) -> io::Result<File> {
        let file = Real.open(dir, name, flags, mode)?;
        if flags & libc::O_CREAT != 0 {
            let mut files = self.files.lock().unwrap();
            let number = files.1;
            files.1 += 1;
            files.0.insert(Real.stat_file(&file)?.id, number);
            self.push(Event::Create(text(name), number));
        }
        Ok(file)
    }

    fn stat(&self, dir: BorrowedFd<'_>, name: &CStr) -> io::Result<Stat> {
        Real.stat(dir, name)
    }

    fn stat_file(&self, file: &File) -> io::Result<Stat> {
        Real.stat_file(file)
    }

    fn read(&self, file: &File, buf: &mut [u8], at: u64) -> io::Result<usize> {
        Real.read(file, buf, at)
    }

    fn write(&self, file: &File, buf: &[u8], at: u64) -> io::Result<usize> {
        self.push(Event::Write(self.number(file), at, buf.to_vec()));
        Real.write(file, buf, at)
    }

    fn truncate(&self, file: &File, len: u64) -> io::Result<()> {
        self.push(Event::Truncate(self.number(file), len));
        Real.truncate(file, len)
    }

    fn sync_data(&self, file: &File) -> io::Result<()> {
        self.push(Event::Sync(self.number(file)));
        Ok(())
    }

    fn sync_dir(&self, _: BorrowedFd<'_>) -> io::Result<()> {
        self.push(Event::SyncDir);
        Ok(())
    }

    fn rename(&self, dir: BorrowedFd<'_>, from: &CStr, to: &CStr) -> io::Result<()> {
        self.push(Event::Rename(text(from), text(to)));
        Real.rename(dir, from, to)
    }

    fn unlink(&self, dir: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
        self.push(Event::Unlink(text(name)));
        Real.unlink(dir, name)
    }

    fn set_mode(&self, file: &File, mode: u32) -> io::Result<()> {
        Real.set_mode(file, mode)
    }

    fn set_owner(&self, file: &File, uid: u32, gid: u32) -> io::Result<()> {
        Real.set_owner(file, uid, gid)
    }

    fn try_lock(&self, file: &File) -> io::Result<bool> {
        Real.try_lock(file)
    }

    fn lock(&self, file: &File) -> io::Result<()> {
        Real.lock(file)
    }

    fn unlock(&self, file: &File) -> io::Result<()> {
        Real.unlock(file)
    }
}

/// Writes bytes into a file; a gap becomes NULs.
fn put(content: &mut Vec<u8>, at: u64, bytes: &[u8]) {
    let at = usize::try_from(at).unwrap();
    content.resize(content.len().max(at + bytes.len()), 0);
    content[at..at + bytes.len()].copy_from_slice(bytes);
}

/// What is on the disk if the power goes after these events.
fn after_the_cut(events: &[Event], rng: &mut StdRng) -> BTreeMap<String, Vec<u8>> {
    // Names change in order, but nobody knows how far; what was synced is certain.
    let certain = events.iter().rposition(|event| matches!(event, Event::SyncDir)).unwrap_or(0);
    let until = rng.random_range(certain..=events.len());
    let mut names = BTreeMap::new();
    for event in &events[..until] {
        match event {
            Event::Create(name, file) => drop(names.insert(name.clone(), *file)),
            Event::Rename(from, to) => {
                let file = names.remove(from).unwrap();
                names.insert(to.clone(), file);
            }
            Event::Unlink(name) => drop(names.remove(name)),
            _ => {}
        }
    }
    let content = |file: usize, rng: &mut StdRng| {
        let synced = events.iter().rposition(|event| matches!(event, Event::Sync(f) if *f == file));
        let mut content = Vec::new();
        for (i, event) in events.iter().enumerate() {
            let fate = if synced.is_some_and(|synced| i < synced) { 0 } else { rng.random_range(0..4) };
            match (event, fate) {
                (Event::Write(f, at, bytes), 0) if *f == file => put(&mut content, *at, bytes),
                // Torn.
                (Event::Write(f, at, bytes), 1) if *f == file => {
                    put(&mut content, *at, &bytes[..rng.random_range(0..=bytes.len())]);
                }
                // The size reached the disk, the bytes did not; what was there before stays.
                (Event::Write(f, at, bytes), 2) if *f == file => {
                    let end = usize::try_from(*at).unwrap() + bytes.len();
                    content.resize(content.len().max(end), 0);
                }
                (Event::Truncate(f, len), 0 | 1) if *f == file => {
                    content.resize(usize::try_from(*len).unwrap(), 0);
                }
                _ => {}
            }
        }
        content
    };
    names.into_iter().map(|(name, file)| (name, content(file, rng))).collect()
}

/// A random life of a log; gives what happened, and every record that was ever written.
fn life(rng: &mut StdRng) -> (Vec<Event>, HashSet<String>) {
    let dir = tempfile::tempdir().unwrap();
    let recorder = Arc::new(Recorder::default());
    let mut all = HashSet::new();
    let mut last: BTreeMap<u32, String> = BTreeMap::new();
    for _ in 0..rng.random_range(1..4) {
        let sync = rng.random();
        let options = Options { read_only: false, sync };
        let store = Store::open_with(Arc::clone(&recorder) as Arc<dyn Sys>, dir.path(), &options).unwrap();
        let mut pending: Vec<String> = Vec::new();
        for _ in 0..rng.random_range(1..6) {
            let mut locked = store.lock().unwrap();
            locked.catch_up(&mut Lines::default()).unwrap();
            match rng.random_range(0..6) {
                0 => {
                    let mut lines = Lines::default();
                    store.forget();
                    locked.catch_up(&mut lines).unwrap();
                    let alive: HashSet<_> = last.values().cloned().collect();
                    let keep: Vec<_> = lines
                        .given
                        .iter()
                        .filter(|(_, line)| alive.contains(&String::from_utf8_lossy(line).into_owned()))
                        .map(|(at, _)| *at)
                        .collect();
                    locked.compact(&keep).unwrap();
                    for record in last.values() {
                        recorder.push(Event::Promise(record.clone()));
                    }
                    pending.clear();
                }
                1 => {
                    // Another program dies in the middle of its record.
                    drop(locked);
                    let file = Real.open(store.dir(), LOG, libc::O_RDWR, 0).unwrap();
                    let size = Real.stat_file(&file).unwrap().size;
                    recorder.write(&file, b"{\"_id\": \"/x/torn\", \"lr\": 0.", size).unwrap();
                }
                _ => {
                    let mut lines = String::new();
                    for _ in 0..rng.random_range(1..4) {
                        let (id, x) = (rng.random_range(0..5_u32), rng.random_range(0..1_000_000_u32));
                        let record = record(&format!("e{id}"), &x.to_string());
                        lines.push_str(&record);
                        lines.push('\n');
                        all.insert(record.clone());
                        pending.push(record.clone());
                        last.insert(id, record);
                    }
                    locked.append(lines.as_bytes()).unwrap();
                    drop(locked);
                    if sync || rng.random_range(0..3) == 0 {
                        store.sync().unwrap();
                        for record in pending.drain(..) {
                            recorder.push(Event::Promise(record));
                        }
                    }
                }
            }
        }
    }
    let events = recorder.events.lock().unwrap().clone();
    (events, all)
}

#[test]
fn what_was_promised_survives_and_nothing_is_half_there() {
    for seed in 0..150 {
        let mut rng = StdRng::seed_from_u64(seed);
        let (events, all) = life(&mut rng);
        for _ in 0..4 {
            let events = &events[..rng.random_range(0..=events.len())];
            let disk = after_the_cut(events, &mut rng);
            let dir = tempfile::tempdir().unwrap();
            for (name, content) in &disk {
                fs::write(dir.path().join(name), content).unwrap();
            }
            let store = open(dir.path());
            let mut lines = Lines::default();
            append(&store, &mut lines, &format!("{}\n", record("next", "1"))).unwrap();
            let mut lines = Lines::default();
            store.forget();
            store.follow(&mut lines).unwrap();
            let log = String::from_utf8_lossy(disk.get("_entries").map_or(&[], Vec::as_slice));
            let what = format!("seed {seed}, log {log:?}, lines {:?}", lines.texts());
            let mut found = HashMap::new();
            for (at, line) in &lines.given {
                for (range, piece) in parse_line(line) {
                    let text = String::from_utf8_lossy(&line[range]).into_owned();
                    match piece {
                        Piece::Record(record) => {
                            let known = all.contains(&text) || record.id.as_str() == "next";
                            assert!(known, "{text:?} was never written, {what}");
                            found.entry(record.id).or_insert_with(Vec::new).push(text);
                        }
                        Piece::Malformed(Malformed::Nuls | Malformed::NotAnObject) => {}
                        Piece::Malformed(other) => panic!("{other:?} at {at:?}, {what}"),
                    }
                }
            }
            // Of each entry, the last record that was promised counts, or a later one.
            let mut promised: HashMap<String, usize> = HashMap::new();
            let mut order: Vec<&String> = Vec::new();
            for event in events {
                if let Event::Promise(record) = event {
                    order.push(record);
                    let id = Object::parse(record.as_bytes()).unwrap().get("_id").unwrap().to_text();
                    promised.insert(id, order.len() - 1);
                }
            }
            for (path, at) in promised {
                let id = Id::from_path(&path).unwrap();
                let counts = found.get(&id).and_then(|texts| texts.last()).cloned();
                let counts = counts.unwrap_or_else(|| panic!("{id:?} is lost, {what}"));
                let earlier = order[..at].contains(&&counts) && *order[at] != counts;
                assert!(!earlier, "{id:?} is back at {counts}, {what}");
            }
            assert_eq!(found[&Id::new("next").unwrap()], [record("next", "1")], "{what}");
        }
    }
}
