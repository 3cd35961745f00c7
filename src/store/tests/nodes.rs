//! A file system of several machines, at its worst: what is open shows what was there when it was opened, and what is not
//! synced is seen by nobody else.

use std::collections::HashMap;
use std::ffi::CStr;
use std::os::fd::{AsRawFd as _, RawFd};
use std::sync::Mutex;

use super::faults::{Faulty, Op};
use super::*;
use crate::store::sys::{FileId, Real, Stat, Sys};

/// What all nodes share.
#[derive(Debug, Default)]
struct Servers {
    /// Bytes that were written and not synced: they get to the servers only then. The file, the offset, the bytes.
    pending: Mutex<Vec<(FileId, u64, Vec<u8>)>>,
}

/// A node's client.
#[derive(Debug, Default)]
struct Client {
    servers: Arc<Servers>,
    /// How long each file was when its descriptor was opened or its attributes were asked for by force.
    sizes: Mutex<HashMap<RawFd, u64>>,
    locked: Mutex<bool>,
}

impl Client {
    /// Others change nothing in the cache without the lock; the lock file itself, and new files, are nobody's yet.
    fn must_be_locked(&self, doing: &str) {
        assert!(*self.locked.lock().unwrap(), "{doing} without the lock");
    }
}

impl Sys for Client {
    fn open(&self, dir: BorrowedFd<'_>, name: &CStr, flags: c_int, mode: u32) -> io::Result<File> {
        let file = Real.open(dir, name, flags, mode)?;
        assert_eq!(flags & libc::O_APPEND, 0, "whose idea of the end may be old");
        self.sizes.lock().unwrap().insert(file.as_raw_fd(), Real.stat_file(&file)?.size);
        Ok(file)
    }

    fn stat(&self, dir: BorrowedFd<'_>, name: &CStr) -> io::Result<Stat> {
        Real.stat(dir, name)
    }

    fn stat_file(&self, file: &File) -> io::Result<Stat> {
        let mut stat = Real.stat_file(file)?;
        if let Some(size) = self.sizes.lock().unwrap().get(&file.as_raw_fd()) {
            stat.size = *size;
        }
        Ok(stat)
    }

    fn read(&self, file: &File, buf: &mut [u8], at: u64) -> io::Result<usize> {
        let size = self.sizes.lock().unwrap().get(&file.as_raw_fd()).copied().unwrap_or(u64::MAX);
        let len = usize::try_from(size.saturating_sub(at)).unwrap_or(usize::MAX).min(buf.len());
        Real.read(file, &mut buf[..len], at)
    }

    fn write(&self, file: &File, buf: &[u8], at: u64) -> io::Result<usize> {
        self.must_be_locked("a write");
        let mut sizes = self.sizes.lock().unwrap();
        let size = sizes.entry(file.as_raw_fd()).or_default();
        assert_eq!(at, *size, "nothing is written but at the end");
        let real = Real.stat_file(file)?;
        let mut pending = self.servers.pending.lock().unwrap();
        let own: u64 =
            pending.iter().filter(|(id, ..)| *id == real.id).map(|(.., bytes)| bytes.len() as u64).sum();
        assert_eq!(at, real.size + own, "the end is the true one");
        pending.push((real.id, at, buf.to_vec()));
        *size += buf.len() as u64;
        Ok(buf.len())
    }

    fn truncate(&self, file: &File, len: u64) -> io::Result<()> {
        self.must_be_locked("a cut");
        self.sync_data(file)?;
        self.sizes.lock().unwrap().insert(file.as_raw_fd(), len);
        Real.truncate(file, len)
    }

    fn sync_data(&self, file: &File) -> io::Result<()> {
        let id = Real.stat_file(file)?.id;
        let mut pending = self.servers.pending.lock().unwrap();
        for (_, at, bytes) in pending.extract_if(.., |(of, ..)| *of == id) {
            assert_eq!(Real.write(file, &bytes, at)?, bytes.len());
        }
        Ok(())
    }

    fn sync_dir(&self, _: BorrowedFd<'_>) -> io::Result<()> {
        Ok(())
    }

    fn rename(&self, dir: BorrowedFd<'_>, from: &CStr, to: &CStr) -> io::Result<()> {
        self.must_be_locked("a rename");
        Real.rename(dir, from, to)
    }

    fn unlink(&self, dir: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
        Real.unlink(dir, name)
    }

    fn set_mode(&self, file: &File, mode: u32) -> io::Result<()> {
        Real.set_mode(file, mode)
    }

    fn set_owner(&self, file: &File, uid: u32, gid: u32) -> io::Result<()> {
        Real.set_owner(file, uid, gid)
    }

    fn try_lock(&self, file: &File) -> io::Result<bool> {
        let got = Real.try_lock(file)?;
        *self.locked.lock().unwrap() |= got;
        Ok(got)
    }

    fn lock(&self, file: &File) -> io::Result<()> {
        Real.lock(file)?;
        *self.locked.lock().unwrap() = true;
        Ok(())
    }

    fn unlock(&self, file: &File) -> io::Result<()> {
        let pending = self.servers.pending.lock().unwrap();
        assert!(pending.is_empty(), "the lock is given up before others can see {pending:?}");
        drop(pending);
        *self.locked.lock().unwrap() = false;
        Real.unlock(file)
    }
}

fn node(dir: &Path, servers: &Arc<Servers>) -> Store {
    let client = Client { servers: Arc::clone(servers), ..Client::default() };
    let mut store = Store::open_with(Arc::new(client), dir, &Options::default()).unwrap();
    store.local = false;
    store
}

#[test]
fn nodes_see_all_that_others_have_written_before_they_write() {
    let dir = tempfile::tempdir().unwrap();
    let servers = Arc::new(Servers::default());
    let nodes = [node(dir.path(), &servers), node(dir.path(), &servers), node(dir.path(), &servers)];
    let mut seen = [Lines::default(), Lines::default(), Lines::default()];
    let mut all = Vec::new();
    for i in 0..60_usize {
        let (store, lines) = (&nodes[i * 7 % 3], &mut seen[i * 7 % 3]);
        match i % 10 {
            // A Python program that died within its record, and one that died before its newline.
            3 | 7 => {
                let text = record(&format!("p{i}"), "1");
                let (text, whole) = if i % 10 == 3 { (&text[..20], false) } else { (&text[..], true) };
                let mut log = fs::read(dir.path().join("_entries")).unwrap();
                log.extend_from_slice(text.as_bytes());
                fs::write(dir.path().join("_entries"), log).unwrap();
                all.extend(whole.then(|| text.to_owned()));
                // Whoever takes the lock next mends it, and has nothing else to write.
                store.lock().unwrap().catch_up(lines).unwrap();
            }
            5 => {
                let mut locked = store.lock().unwrap();
                let mut everything = Lines::default();
                store.forget();
                locked.catch_up(&mut everything).unwrap();
                let keep: Vec<_> = everything.given.iter().map(|(at, _)| *at).collect();
                locked.compact(&keep).unwrap();
                drop(locked);
                *lines = Lines::default();
                store.forget();
            }
            _ => {
                all.push(record(&format!("e{i}"), "1"));
                append(store, lines, &format!("{}\n", all.last().unwrap())).unwrap();
            }
        }
    }
    assert_eq!(String::from_utf8(log_of(dir.path())).unwrap(), format!("{}\n", all.join("\n")));
    for store in nodes {
        let mut lines = Lines::default();
        store.forget();
        store.follow(&mut lines).unwrap();
        assert_eq!(lines.texts(), all);
    }
}

#[test]
fn nothing_is_synced_under_the_lock_on_this_machine_alone() {
    let dir = cache(b"");
    let faulty = Arc::new(Faulty::default());
    let store =
        Store::open_with(Arc::clone(&faulty) as Arc<dyn sys::Sys>, dir.path(), &Options::default()).unwrap();
    assert!(store.local, "the temporary directory of this test is local");
    let before = faulty.count(Op::Sync);
    append(&store, &mut Lines::default(), "{\"@\": \"a\"}\n").unwrap();
    assert_eq!(faulty.count(Op::Sync), before);
}

#[test]
fn a_file_that_is_stale_for_ever_is_an_error_and_no_endless_loop() {
    for op in [Op::Open, Op::Stat, Op::Read, Op::Lock] {
        let dir = cache(format!("{}\n", record("a", "1")).as_bytes());
        let faulty = Arc::new(Faulty::default());
        let store =
            Store::open_with(Arc::clone(&faulty) as Arc<dyn sys::Sys>, dir.path(), &Options::default())
                .unwrap();
        faulty.break_always(op, libc::ESTALE);
        let mut lines = Lines::default();
        let error = append(&store, &mut lines, "{\"@\": \"b\"}\n").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ESTALE), "{op:?}");
        faulty.disarm();
        append(&store, &mut lines, "{\"@\": \"b\"}\n").unwrap();
        assert_eq!(lines.texts(), [record("a", "1")], "{op:?}");
    }
}

#[test]
fn the_log_is_opened_to_write_once_and_anew_when_it_may_be_another_or_nodes_share_it() {
    let dir = cache(format!("{}\n", record("a", "1")).as_bytes());
    let faulty = Arc::new(Faulty::default());
    let sys = Arc::clone(&faulty) as Arc<dyn sys::Sys>;
    let mut store = Store::open_with(sys, dir.path(), &Options::default()).unwrap();
    assert!(store.local, "the temporary directory of this test is local");
    let path = dir.path().join("_entries");
    let opens = |store: &Store| {
        let before = faulty.count(Op::Open);
        let mut locked = store.lock().unwrap();
        locked.catch_up(&mut Lines::default()).unwrap();
        locked.append(format!("{}\n", record("b", "2")).as_bytes()).unwrap();
        faulty.count(Op::Open) - before
    };
    assert_eq!([opens(&store), opens(&store), opens(&store)], [1, 0, 0]);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!([opens(&store), opens(&store)], [1, 0], "who may write has changed");
    fs::copy(&path, dir.path().join("copy")).unwrap();
    fs::rename(dir.path().join("copy"), &path).unwrap();
    assert_eq!([opens(&store), opens(&store)], [1, 0], "it was replaced");
    store.local = false;
    assert_eq!([opens(&store), opens(&store)], [1, 1]);
    store.local = true;
    assert_eq!([opens(&store), opens(&store)], [1, 0], "nothing is kept open where nodes share it");
    assert_eq!(String::from_utf8(log_of(dir.path())).unwrap().lines().count(), 12);
}
