//! Many files, few descriptors: a walk over all of an entry needs bounded memory, and gives it back.
//!
//! `CACHEDIRFS_WALK_FILES=1000000` for the full size; `TMPDIR` says where the files are made.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::time::{Duration, Instant};

use common::{Cache, Mount, Options, amount, bash, finish, poll, read, start};

/// What `ulimit -n` says for the daemon, hard limit too.
const DESCRIPTORS: u64 = 1024;
const IN_ONE_DIRECTORY: usize = 1000;
/// Memory that a file may cost that the kernel keeps in its caches, in bytes, and what may stay when it has dropped them.
const EACH: u64 = 400;
const STAYS: u64 = 24 << 20;

fn resident(mount: &Mount) -> u64 {
    let text = read(format!("/proc/{}/status", mount.pid()));
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() << 10
}

fn descriptors(mount: &Mount) -> u64 {
    fs::read_dir(format!("/proc/{}/fd", mount.pid())).unwrap().count().try_into().unwrap()
}

fn nodes(mount: &Mount) -> u64 {
    mount.status()["content_nodes"].as_u64().unwrap()
}

#[test]
fn a_walk_over_many_files() {
    let files = amount("CACHEDIRFS_WALK_FILES", 50_000);
    let limit = Duration::from_secs(60 + u64::try_from(files / 500).unwrap());
    let cache = Cache::new();
    cache.add("e1", 1.0, "");
    for directory in 0..files.div_ceil(IN_ONE_DIRECTORY) {
        let path = cache.join(format!("e1/d{directory}"));
        fs::create_dir(&path).unwrap();
        for file in directory * IN_ONE_DIRECTORY..files.min((directory + 1) * IN_ONE_DIRECTORY) {
            fs::write(path.join(format!("file-{file}")), "1").unwrap();
        }
    }
    let few = libc::rlimit { rlim_cur: DESCRIPTORS, rlim_max: DESCRIPTORS };
    // SAFETY: the struct outlives the call. What is started from here on has this limit: this is the only test here.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const few) }, 0);
    let mount = Mount::new(cache.path(), &Options { limit: limit * 3, ..Options::default() });
    let (before, known) = (resident(&mount), nodes(&mount));

    // Every file is looked at and read, by several programs at once.
    let started = Instant::now();
    let entry = mount.join("entries/e1");
    let walk = "find . -type f -printf '%s\\n' | sort | uniq -c & find . -type f -print0 | xargs -0 cat | wc -c & wait";
    let mut walking = start(&mut bash(&entry, walk));
    let (mut peak, mut most) = (before, 0);
    while !walking.ended() {
        (peak, most) = (peak.max(resident(&mount)), most.max(descriptors(&mount)));
        assert!(started.elapsed() < limit, "the walk does not end");
        std::thread::sleep(Duration::from_millis(20));
    }
    let found = finish(walking).ok();
    let mut lines: Vec<_> = found.lines().map(str::trim).collect();
    lines.sort_unstable();
    let mut expected = [format!("{files} 1"), files.to_string()];
    expected.sort_unstable();
    assert_eq!(lines, expected, "each file once, with its one byte");
    let took = started.elapsed();
    assert!(most < DESCRIPTORS, "{most} descriptors");
    let kept = nodes(&mount);
    let each = u64::try_from(files).unwrap() * EACH;
    assert!(peak < before + STAYS + each, "{peak} bytes, {before} before");

    // The kernel forgets, as it does when memory is needed.
    // SAFETY: cannot fail, touches no memory.
    let root = unsafe { libc::geteuid() } == 0;
    let mut after = None;
    if root && fs::write("/proc/sys/vm/drop_caches", "2").is_ok() {
        let limit = Duration::from_secs(90);
        poll("the nodes are forgotten", limit, || {
            // Again: what was in use then is not now.
            let _ = fs::write("/proc/sys/vm/drop_caches", "2");
            (nodes(&mount) <= known + 10).then_some(())
        });
        after = Some(poll("the memory is given back", limit, || {
            Some(resident(&mount)).filter(|now| *now < before + STAYS)
        }));
        assert!(descriptors(&mount) < DESCRIPTORS / 2);
    } else {
        eprintln!("the kernel's caches cannot be dropped here: that memory is given back is not shown");
    }
    eprintln!(
        "{files} files in {took:.1?}: {} KiB before, {} KiB at most, {} nodes kept, {} KiB after they were forgotten; \
         at most {most} descriptors",
        before >> 10,
        peak >> 10,
        kept,
        after.map_or_else(|| "?".to_owned(), |after| (after >> 10).to_string()),
    );
    mount.stop();
}
