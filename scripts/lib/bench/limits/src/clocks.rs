//! Work on directories, timed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use sonic_rs::JsonValueTrait;

/// Runs `work(n)` for all numbers below `count`, shared out to threads that start together; prints the seconds.
fn shared(count: u64, threads: u64, work: impl Fn(u64) -> io::Result<()> + Sync) -> io::Result<()> {
    let barrier = Barrier::new(usize::try_from(threads).expect("few threads") + 1);
    let elapsed = thread::scope(|scope| {
        let hands: Vec<_> = (0..threads)
            .map(|thread| {
                let (barrier, work) = (&barrier, &work);
                scope.spawn(move || {
                    barrier.wait();
                    (thread..count).step_by(usize::try_from(threads).expect("few threads")).try_for_each(work)
                })
            })
            .collect();
        barrier.wait();
        let start = Instant::now();
        for hand in hands {
            hand.join().expect("no panic")?;
        }
        Ok::<_, io::Error>(start.elapsed())
    })?;
    println!("{}", elapsed.as_secs_f64());
    Ok(())
}

/// The parse-only passes.
pub fn parse(log: &str) -> io::Result<()> {
    let start = Instant::now();
    let mut bytes = Vec::new();
    File::open(log)?.read_to_end(&mut bytes)?;
    let read = start.elapsed();
    let start = Instant::now();
    let mut lines = 0_u64;
    for line in bytes.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
        let value: sonic_rs::Value = sonic_rs::from_slice(line).expect("an object");
        assert!(std::hint::black_box(&value).is_object());
        lines += 1;
    }
    let sonic = start.elapsed() + read;
    let start = Instant::now();
    let mut buffers = simd_json::Buffers::new(4096);
    let mut tape_lines = 0_u64;
    for line in bytes.split_mut(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
        let tape = simd_json::to_tape_with_buffers(line, &mut buffers).expect("an object");
        std::hint::black_box(&tape);
        tape_lines += 1;
    }
    assert_eq!(lines, tape_lines);
    println!("{} {}", sonic.as_secs_f64(), (start.elapsed() + read).as_secs_f64());
    Ok(())
}

fn flock(file: &File, operation: i32) -> io::Result<()> {
    // SAFETY: the descriptor is open for the call.
    if unsafe { libc::flock(file.as_raw_fd(), operation) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// What a C program would do to make entries: mkdir, lock, append, unlock, with the descriptors kept open.
pub fn make(dir: &str, count: u64, writers: u64) -> io::Result<()> {
    let dir = Path::new(dir);
    shared(count, writers, |n| entry(dir, n))
}

thread_local! {
    /// Each writer locks through a description of its own, as different processes do.
    static FILES: std::cell::RefCell<Option<(File, File)>> = const { std::cell::RefCell::new(None) };
}

/// A directory, and a record of it. A thread does so in one directory only.
pub fn entry(dir: &Path, n: u64) -> io::Result<()> {
    FILES.with_borrow_mut(|files| {
        let (lock, log) = match files {
            Some(files) => files,
            None => {
                let open = |name| OpenOptions::new().append(true).create(true).open(dir.join(name));
                files.insert((open("_lock")?, open("_entries")?))
            }
        };
        let path = dir.join(format!("m{n:08}"));
        fs::create_dir(&path)?;
        let line = format!(
            "{{\"_id\": \"{}\", \"lr\": 0.1, \"seed\": {n}, \"_timestamp\": {}.25}}\n",
            path.display(),
            1_700_000_000 + n
        );
        flock(lock, libc::LOCK_EX)?;
        log.write_all(line.as_bytes())?;
        flock(lock, libc::LOCK_UN)
    })
}

/// The same through a mount.
pub fn mkdir(dir: &str, count: u64, writers: u64) -> io::Result<()> {
    let dir = Path::new(dir);
    shared(count, writers, |n| fs::create_dir(dir.join(format!("lr=0.1,seed={n}"))))
}

/// Lookups, each of another name.
pub fn stat(dir: &str, first: u64, count: u64, threads: u64) -> io::Result<()> {
    let dir = Path::new(dir);
    shared(count, threads, |n| fs::symlink_metadata(dir.join(format!("e{:08}", first + n))).map(drop))
}

/// How long readers wait while something else goes on.
pub fn wait(dir: &str, first: u64, count: u64, listed: &str) -> io::Result<()> {
    let done = Arc::new(AtomicBool::new(false));
    let looks = {
        let (done, dir) = (Arc::clone(&done), Path::new(dir).to_owned());
        thread::spawn(move || -> io::Result<Duration> {
            let mut longest = Duration::ZERO;
            while !done.load(Ordering::Relaxed) {
                for n in first..first + count {
                    let start = Instant::now();
                    fs::symlink_metadata(dir.join(format!("e{n:08}")))?;
                    longest = longest.max(start.elapsed());
                    if done.load(Ordering::Relaxed) {
                        break;
                    }
                    thread::sleep(Duration::from_micros(200));
                }
            }
            Ok(longest)
        })
    };
    let lists = {
        let (done, listed) = (Arc::clone(&done), Path::new(listed).to_owned());
        thread::spawn(move || -> io::Result<Duration> {
            let mut longest = Duration::ZERO;
            while !done.load(Ordering::Relaxed) {
                let start = Instant::now();
                let names = fs::read_dir(&listed)?.count();
                longest = longest.max(start.elapsed());
                assert!(names > 0, "an empty listing");
                thread::sleep(Duration::from_millis(1));
            }
            Ok(longest)
        })
    };
    io::stdin().read_to_end(&mut Vec::new())?;
    done.store(true, Ordering::Relaxed);
    let [looks, lists] = [looks, lists].map(|hand| hand.join().expect("no panic"));
    println!("{} {}", looks?.as_secs_f64(), lists?.as_secs_f64());
    Ok(())
}

/// Changes of an attribute, each thread's of an entry of its own.
pub fn set(dir: &str, count: u64, writers: u64) -> io::Result<()> {
    shared(count, writers, |n| {
        let path = std::ffi::CString::new(format!("{dir}/e{:08}", n % writers))?;
        let value = format!("{n}");
        // SAFETY: both strings end in NUL, and the value is as long as said.
        let done = unsafe {
            libc::setxattr(path.as_ptr(), c"user.step".as_ptr(), value.as_ptr().cast(), value.len(), 0)
        };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    })
}
