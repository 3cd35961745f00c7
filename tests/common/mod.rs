//! What the tests that really mount stand on: a cache in a temporary directory, a mount that always ends, commands
//! that cannot hang.
#![allow(
    dead_code,
    unused_imports,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod cache;
mod disk;
mod fixture;
mod mount;
mod mounted;
mod process;
mod python;
mod tracer;
mod user;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub use cache::Cache;
pub use disk::{Disk, in_namespace, rounds};
pub use fixture::{Fixture, making};
pub use mount::{Mount, Options, mountinfo};
pub use mounted::Mounted;
pub use process::{Finished, Running, bash, finish, run, start};
pub use python::{python, python_script};
pub use tracer::Tracer;
pub use user::{User, is_root};

/// How long one command may take before it is killed and the test fails.
pub const COMMAND_TIMEOUT: Duration = Duration::from_secs(90);

/// The binary that was built for these tests.
pub fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_cachedirfs"))
}

/// A directory that any user can enter, removed at the end of the test.
pub fn scratch() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt;
    tempfile::Builder::new()
        .prefix("cachedirfs-test-")
        .permissions(std::fs::Permissions::from_mode(0o755))
        .tempdir()
        .expect("a temporary directory")
}

/// Asks until the answer is `Some`, at most until the deadline.
pub fn poll<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The names in a directory, sorted.
#[track_caller]
pub fn ls(path: impl AsRef<Path>) -> Vec<String> {
    let path = path.as_ref();
    let mut names: Vec<_> = std::fs::read_dir(path)
        .unwrap_or_else(|e| panic!("list {}: {e}", path.display()))
        .map(|entry| entry.unwrap_or_else(|e| panic!("list {}: {e}", path.display())).file_name())
        .map(|name| name.into_string().expect("names of UTF-8"))
        .collect();
    names.sort();
    names
}

/// A whole file, as text.
#[track_caller]
pub fn read(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()))
}

/// Writes a file as a careful program does: the error of `close`, where attributes are set, is not lost.
pub fn put(path: impl AsRef<Path>, data: impl AsRef<[u8]>) -> std::io::Result<()> {
    let mut file = std::fs::File::create(path)?;
    std::io::Write::write_all(&mut file, data.as_ref())?;
    close(file)
}

/// Adds to a file, likewise.
pub fn append(path: impl AsRef<Path>, data: impl AsRef<[u8]>) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new().append(true).open(path)?;
    std::io::Write::write_all(&mut file, data.as_ref())?;
    close(file)
}

/// Closes a file and gives the error of that.
pub fn close(file: std::fs::File) -> std::io::Result<()> {
    use std::os::fd::IntoRawFd;
    // SAFETY: the descriptor is ours alone; the file gave it up.
    if unsafe { libc::close(file.into_raw_fd()) } == 0 {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error())
    }
}

/// The number of the error, which there must be.
#[track_caller]
pub fn errno<T>(result: std::io::Result<T>) -> i32 {
    match result {
        Ok(_) => panic!("an error was expected"),
        Err(e) => e.raw_os_error().unwrap_or_else(|| panic!("an error of the system was expected: {e}")),
    }
}

/// It must be refused as something that this file system does not do: EPERM. An ordinary user may be told EACCES, as the
/// kernel looks at the permission bits first.
#[track_caller]
pub fn not_permitted<T>(result: std::io::Result<T>) {
    let found = errno(result);
    assert!(found == libc::EPERM || found == libc::EACCES && !is_root(), "EPERM was expected: {found}");
}

/// Target of a symbolic link.
#[track_caller]
pub fn target(path: impl AsRef<Path>) -> PathBuf {
    let path = path.as_ref();
    std::fs::read_link(path).unwrap_or_else(|e| panic!("readlink {}: {e}", path.display()))
}

/// Seed of the random tests: `CACHEDIRFS_SEED`, else a fresh one. Printed, so that a failure can be run again.
pub fn seed(test: &str) -> u64 {
    let seed = std::env::var("CACHEDIRFS_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        u64::try_from(now.as_nanos() & 0xffff_ffff).unwrap()
    });
    eprintln!("{test}: CACHEDIRFS_SEED={seed}");
    seed
}

/// How much of something a test does: the variable if it is set, for a longer run, else `usual`.
pub fn amount(variable: &str, usual: usize) -> usize {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// A small reproducible generator (splitmix64).
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    /// Any number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end).unwrap()).unwrap()
    }

    /// One of these words.
    pub fn word(&mut self, of: &[&'static str]) -> &'static str {
        of[self.below(of.len())]
    }

    /// One of these.
    pub fn pick<'t, T>(&mut self, of: &'t [T]) -> &'t T {
        &of[self.below(of.len())]
    }
}
