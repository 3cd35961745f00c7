//! A thread that answers beside the program that asks: what others see meanwhile, and that all is as usual after it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{JoinHandle, spawn};
use std::time::{Duration, Instant};

use common::{Cache, Mount, is_root, ls, poll, read};

const SOON: Duration = Duration::from_secs(60);
/// As the kernel numbers it.
const SCHED_IDLE: &str = "5";

/// A thread that asks for names that are not there, one after the other, until it is told to end or something else comes of it.
struct Asker {
    asked: Arc<AtomicU64>,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<i32>>,
}

impl Asker {
    fn new(directory: PathBuf) -> Self {
        let (asked, end) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, stop) = (Arc::clone(&asked), Arc::clone(&end));
        let thread = spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let number = count.fetch_add(1, Ordering::Relaxed);
                let errno = common::errno(fs::symlink_metadata(directory.join(format!("none{number}"))));
                if errno != libc::ENOENT {
                    return errno;
                }
            }
            libc::ENOENT
        });
        Self { asked, end, thread: Some(thread) }
    }

    fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    /// What came of it at last.
    fn end(mut self) -> i32 {
        self.join().unwrap().unwrap()
    }

    fn join(&mut self) -> Option<std::thread::Result<i32>> {
        self.end.store(true, Ordering::Relaxed);
        self.thread.take().map(JoinHandle::join)
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        let _ = self.join();
    }
}

/// Of each thread of a process: the processors on which it may run, and its policy.
fn scheduled(pid: i32) -> Vec<(String, String)> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let of_thread = |path: &Path| {
        let status = fs::read_to_string(path.join("status")).ok()?;
        let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
        let stat = fs::read_to_string(path.join("stat")).ok()?;
        let policy = stat.rsplit_once(") ")?.1.split(' ').nth(38)?;
        Some((allowed.trim().to_owned(), policy.to_owned()))
    };
    threads.filter_map(|thread| of_thread(&thread.unwrap().path())).collect()
}

/// Whether a thread of the daemon gives way just now.
fn one_gives_way(mount: &Mount) -> bool {
    scheduled(mount.pid()).iter().any(|(_, policy)| policy == SCHED_IDLE)
}

/// Whether other programs have wanted all processors for a minute: then no thread gives way, and that there is none proves nothing.
fn is_busy() -> bool {
    let load = fs::read_to_string("/proc/loadavg").unwrap();
    let load: f64 = load.split(' ').next().unwrap().parse().unwrap();
    let processors = std::thread::available_parallelism().unwrap().get();
    let busy = load > f64::from(u32::try_from(processors).unwrap()) + 1.5;
    if busy {
        eprintln!("not seen whether a thread gives way: the load of this machine is {load}");
    }
    busy
}

fn possible() -> bool {
    std::thread::available_parallelism().unwrap().get() > 1 && is_root()
}

#[test]
fn a_thread_gives_way_to_the_program_that_asks_and_is_as_usual_after_it() {
    let cache = Cache::new();
    let mount = cache.mount();
    let id = mount.make("lr=0.1");
    let usual: BTreeSet<_> = scheduled(mount.pid()).into_iter().collect();
    assert_eq!(usual.len(), 1, "all threads alike: {usual:?}");
    let asker = Asker::new(mount.join(format!("entries/{id}")));
    if possible() {
        let start = Instant::now();
        poll("a thread that gives way", 2 * SOON, || {
            (one_gives_way(&mount) || (start.elapsed() > SOON && is_busy())).then_some(())
        });
    }
    poll("answers", SOON, || (asker.asked() > 20_000).then_some(()));
    assert_eq!(asker.end(), libc::ENOENT);
    poll("all threads as usual", SOON, || {
        let now: BTreeSet<_> = scheduled(mount.pid()).into_iter().collect();
        (now == usual).then_some(())
    });
}

#[test]
fn others_are_answered_too_while_a_program_asks_without_pause() {
    let cache = Cache::new();
    let mount = cache.mount();
    let id = mount.make("lr=0.1");
    let asker = Asker::new(mount.join(format!("entries/{id}")));
    poll("answers", SOON, || (asker.asked() > 1_000).then_some(()));
    let start = Instant::now();
    for round in 0..100 {
        mount.set(&id, "round", &round.to_string());
        assert_eq!(ls(mount.join(format!("by-attr/round/{round}"))), std::slice::from_ref(&id));
        assert_eq!(read(mount.join(format!("entries/{id}/.attrs/round"))), format!("{round}\n"));
    }
    assert!(start.elapsed() < SOON, "100 rounds took {:?}", start.elapsed());
    assert_eq!(asker.end(), libc::ENOENT);
}

#[test]
fn the_daemon_ends_while_a_program_asks_without_pause() {
    let cache = Cache::new();
    for _ in 0..3 {
        let mount = cache.mount();
        let id = mount.make("lr=0.1");
        let asker = Asker::new(mount.join(format!("entries/{id}")));
        poll("answers", SOON, || (asker.asked() > 5_000).then_some(()));
        // The directory that is there without the mount has no such entry either.
        mount.stop();
        let errno = asker.end();
        assert!([libc::ENOENT, libc::ENOTCONN, libc::ECONNABORTED].contains(&errno), "errno {errno}");
    }
}
