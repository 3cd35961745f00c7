//! Logs that are replaced, cut, removed, or grow while they are followed.

use super::*;

fn two() -> String {
    format!("{}\n{}\n", record("a", "1"), record("b", "2"))
}

#[test]
fn a_line_counts_once_it_has_its_end() {
    let dir = cache(two().as_bytes());
    let store = open(dir.path());
    let mut lines = Lines::default();
    store.follow(&mut lines).unwrap();
    let mut log = fs::OpenOptions::new().append(true).open(dir.path().join("_entries")).unwrap();
    let whole = format!("{}\n", record("c", "3"));
    for byte in whole.as_bytes() {
        assert_eq!(store.follow(&mut lines).unwrap(), Followed::default());
        std::io::Write::write_all(&mut log, &[*byte]).unwrap();
    }
    assert_eq!(store.follow(&mut lines).unwrap(), Followed { lines: 1, replaced: false });
    assert_eq!(lines.texts()[2], record("c", "3"));
}

#[test]
fn a_replaced_log_is_read_anew() {
    let dir = cache(two().as_bytes());
    let store = open(dir.path());
    let mut lines = Lines::default();
    store.follow(&mut lines).unwrap();
    fs::write(dir.path().join("new"), two().replace("/a\"", "/c\"")).unwrap();
    fs::rename(dir.path().join("new"), dir.path().join("_entries")).unwrap();
    store.follow(&mut lines).unwrap();
    assert_eq!(lines.texts(), [record("c", "1"), record("b", "2")]);
    append(&store, &mut lines, &format!("{}\n", record("d", "4"))).unwrap();
    assert_eq!(lines.replaced, 2);
}

#[test]
fn a_cut_log_is_read_anew() {
    for under_lock in [false, true] {
        let dir = cache(two().as_bytes());
        let store = open(dir.path());
        let mut lines = Lines::default();
        store.follow(&mut lines).unwrap();
        let first = record("a", "1").len() as u64 + 1;
        let log = fs::OpenOptions::new().write(true).open(dir.path().join("_entries")).unwrap();
        log.set_len(first).unwrap();
        if under_lock {
            append(&store, &mut lines, &format!("{}\n", record("c", "3"))).unwrap();
        } else {
            store.follow(&mut lines).unwrap();
        }
        assert_eq!(lines.texts(), [record("a", "1")]);
        let gone = Locator { offset: first, len: 200 };
        let error = lines.generation.unwrap().read(gone).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}

#[test]
fn a_log_that_was_cut_and_has_grown_again_is_read_anew() {
    let dir = cache(two().as_bytes());
    let store = open(dir.path());
    let mut lines = Lines::default();
    store.follow(&mut lines).unwrap();
    // In place, longer than before, with other bytes where the position is.
    let long = format!("{}\n{}\n", record("d", "12345"), record("e", "67890"));
    fs::write(dir.path().join("_entries"), &long).unwrap();
    store.follow(&mut lines).unwrap();
    assert_eq!(lines.texts(), [record("d", "12345"), record("e", "67890")]);
}

#[test]
fn a_removed_log_is_missed_and_put_back_by_the_next_writer() {
    let dir = cache(two().as_bytes());
    let store = open(dir.path());
    let mut lines = Lines::default();
    store.follow(&mut lines).unwrap();
    fs::remove_file(dir.path().join("_entries")).unwrap();
    assert_eq!(store.follow(&mut lines).unwrap_err().raw_os_error(), Some(libc::ENOENT));
    assert_eq!(lines.given.len(), 2, "what was known stays known");
    append(&store, &mut lines, &format!("{}\n", record("c", "3"))).unwrap();
    let whole = format!("{}{}\n", two(), record("c", "3"));
    assert_eq!(String::from_utf8(log_of(dir.path())).unwrap(), whole);
}

#[test]
fn a_vanished_cache_directory_is_an_error() {
    let dir = cache(two().as_bytes());
    let store = open(dir.path());
    let mut lines = Lines::default();
    store.follow(&mut lines).unwrap();
    fs::remove_dir_all(dir.path()).unwrap();
    assert_eq!(store.follow(&mut lines).unwrap_err().raw_os_error(), Some(libc::ENOENT));
    assert_eq!(append(&store, &mut lines, "{}\n").unwrap_err().raw_os_error(), Some(libc::ENOENT));
    assert_eq!(lines.given.len(), 2);
}

#[test]
fn a_cache_that_is_moved_stays_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let (here, there) = (dir.path().join("here"), dir.path().join("there"));
    fs::create_dir(&here).unwrap();
    fs::write(here.join("_entries"), two()).unwrap();
    let store = open(&here);
    let mut lines = Lines::default();
    store.follow(&mut lines).unwrap();
    fs::rename(&here, &there).unwrap();
    append(&store, &mut lines, &format!("{}\n", record("c", "3"))).unwrap();
    assert_eq!(log_of(&there).len(), two().len() + record("c", "3").len() + 1);
}

#[test]
fn followers_are_woken_by_what_others_append() {
    let dir = cache(two().as_bytes());
    let (store, other) = (open(dir.path()), open(dir.path()));
    // The first does not wait, it begins to watch.
    store.wait(Duration::ZERO);
    other.wait(Duration::ZERO);
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| store.wait(Duration::from_secs(600)));
        let mut lines = Lines::default();
        while !waiting.is_finished() {
            append(&other, &mut lines, &format!("{}\n", record("c", "3"))).unwrap();
            std::thread::yield_now();
        }
    });
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| other.wait(Duration::from_secs(600)));
        while !waiting.is_finished() {
            other.wake();
            std::thread::yield_now();
        }
    });
    assert!(begun.elapsed() < Duration::from_secs(300));
}

#[test]
fn long_lines_do_not_stay_in_memory() {
    let dir = cache(two().as_bytes());
    let path = dir.path().join("_entries");
    let start = two().len() as u64;
    let log = fs::OpenOptions::new().append(true).open(&path).unwrap();
    // A hole: NULs without a disk.
    log.set_len(start + LINE_MAX + 10 * CHUNK as u64).unwrap();
    std::io::Write::write_all(&mut &log, format!("\n{}\n", record("c", "3")).as_bytes()).unwrap();
    let mut lines = Lines::default();
    let store = open(dir.path());
    store.follow(&mut lines).unwrap();
    let expected = Locator { offset: start, len: u32::try_from(LINE_MAX).unwrap() + 10 * (1 << 20) };
    assert_eq!(lines.oversized, [expected]);
    assert_eq!(lines.texts()[2], record("c", "3"));
    // And as a tail it is set aside as well.
    let end = log.metadata().unwrap().len();
    log.set_len(end + LINE_MAX + 10).unwrap();
    append(&store, &mut lines, &format!("{}\n", record("d", "4"))).unwrap();
    let torn = names(dir.path(), "_torn-");
    assert_eq!(fs::metadata(dir.path().join(&torn[0])).unwrap().len(), LINE_MAX + 10);
    assert_eq!(log.metadata().unwrap().len(), end + record("d", "4").len() as u64 + 1);
}

/// Keeps every buffer, and gives others of all lengths for them.
#[derive(Default)]
struct Keeping {
    kept: Vec<crate::store::Lines>,
    ends: u64,
}

impl Sink for Keeping {
    fn replaced(&mut self, _: &Arc<Generation>) {}

    fn line(&mut self, _: Locator, _: &[u8]) {
        panic!("lines come together");
    }

    fn lines(&mut self, lines: crate::store::Lines) -> Vec<u8> {
        assert_eq!(lines.offset(), self.ends);
        self.ends += lines.bytes().len() as u64;
        self.kept.push(lines);
        vec![b'\n'; [0, 7, 3 * CHUNK][self.kept.len() % 3]]
    }

    fn oversized(&mut self, _: Locator) {
        panic!("no line is too long");
    }
}

#[test]
fn buffers_may_be_kept() {
    let lengths = [1, 100, 70_000, 5, CHUNK + 3, 250_000];
    let line = |number: usize| "x".repeat(lengths[number % lengths.len()]) + &number.to_string() + "\n";
    let log: String = (0..40).map(line).collect();
    let dir = cache(log.as_bytes());
    let mut sink = Keeping::default();
    open(dir.path()).follow(&mut sink).unwrap();
    assert!(sink.kept.len() > 5);
    let all: Vec<u8> = sink.kept.iter().flat_map(|lines| lines.bytes().to_vec()).collect();
    assert!(all == log.as_bytes());
}
