//! A file of our own, outside the cache, in which something derived from the log is kept: private, whole or not at all,
//! and never needed.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Read, Write as _};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use super::sys::{Real, Sys as _, retry};

/// How the names of kept files end, and of such as are being written.
const SUFFIX: &str = ".index";
const TEMPORARY: &str = ".tmp";
/// So many files are kept, of so many caches, and so many bytes; those used longest ago go first.
const FILES: usize = 16;
const BYTES: u64 = 4 << 30;
/// What was not used for so long is of a cache that is gone.
const UNUSED: Duration = Duration::from_secs(60 * 24 * 3600);
/// What is still being written after so long was left by a process that died.
const ABANDONED: Duration = Duration::from_secs(3600);
/// How much is written or read at a time, and has its part in the checksum taken while it is at hand.
const CHUNK: usize = 1 << 20;
/// The checksum at the end.
const CHECKSUM: usize = 16;

/// A directory of kept files.
#[derive(Debug)]
pub struct Directory {
    dir: File,
    path: PathBuf,
}

/// A kept file that is read.
pub struct KeptReader {
    file: File,
    hash: Xxh3,
    /// Bytes before the checksum that are still to be read.
    left: u64,
}

/// A file that is written.
pub struct KeptWriter {
    file: File,
    hash: Xxh3,
    buf: Vec<u8>,
}

fn refused(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, why)
}

/// Whether nobody else can have made or changed it.
fn is_ours(stat: &std::fs::Metadata) -> bool {
    // SAFETY: geteuid has no preconditions.
    stat.uid() == unsafe { libc::geteuid() } && stat.mode() & 0o022 == 0
}

impl Directory {
    /// Opens a directory, and makes it if `make` says so and it does not exist: only its owner may enter it.
    pub fn open(path: &Path, make: bool) -> io::Result<Self> {
        if make {
            let nearest = path.ancestors().find_map(|path| std::fs::metadata(path).ok());
            // SAFETY: geteuid has no preconditions.
            if unsafe { libc::geteuid() } == 0 && nearest.is_none_or(|stat| stat.uid() != 0) {
                // What root makes in the home of somebody else (`sudo` may leave HOME as it was) is in the way there.
                return Err(refused("the directory belongs to somebody else"));
            }
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        }
        let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW;
        let dir = std::fs::OpenOptions::new().read(true).custom_flags(flags).open(path)?;
        if !is_ours(&dir.metadata()?) {
            return Err(refused("the directory belongs to somebody else, or others may write to it"));
        }
        Ok(Self { dir, path: path.to_owned() })
    }

    /// The name of the file about something.
    fn name(about: &Path, suffix: &str) -> CString {
        let number = xxh3_128(about.as_os_str().as_bytes());
        // Digits and letters only.
        CString::new(format!("{number:032x}{suffix}")).unwrap_or_default()
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    fn open_ours(&self, name: &CStr) -> io::Result<File> {
        let file = retry(|| Real.open(self.fd(), name, libc::O_RDONLY, 0))?;
        let stat = file.metadata()?;
        if stat.is_file() && is_ours(&stat) { Ok(file) } else { Err(refused("it is not a file of ours")) }
    }

    /// Reads what is kept about something; notes that it was used.
    pub fn read(&self, about: &Path) -> io::Result<KeptReader> {
        let file = self.open_ours(&Self::name(about, SUFFIX))?;
        let left = file.metadata()?.len().checked_sub(CHECKSUM as u64).ok_or(io::ErrorKind::UnexpectedEof)?;
        // A file system that cannot note it forgets the file sooner.
        let _ = file.set_modified(SystemTime::now());
        Ok(KeptReader { file, hash: Xxh3::new(), left })
    }

    /// Keeps something, instead of what was kept before; all or nothing of what `write` writes.
    pub fn write(
        &self,
        about: &Path,
        write: impl FnOnce(&mut KeptWriter) -> io::Result<()>,
    ) -> io::Result<()> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        self.prune(&Self::name(about, SUFFIX));
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = Self::name(about, &format!(".{}-{number}{TEMPORARY}", std::process::id()));
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL;
        let create = || retry(|| Real.open(self.fd(), &name, flags, 0o600));
        let file = match create() {
            Err(e) if e.raw_os_error() == Some(libc::EEXIST) => {
                // Left by a process of the same number.
                retry(|| Real.unlink(self.fd(), &name))?;
                create()?
            }
            other => other?,
        };
        let mut writer = KeptWriter { file, hash: Xxh3::new(), buf: Vec::with_capacity(CHUNK) };
        let written = write(&mut writer)
            .and_then(|()| writer.finish())
            .and_then(|()| retry(|| Real.rename(self.fd(), &name, &Self::name(about, SUFFIX))));
        written.inspect_err(|_| {
            let _ = Real.unlink(self.fd(), &name);
        })
    }

    /// Removes what is kept about something.
    pub fn remove(&self, about: &Path) -> io::Result<()> {
        retry(|| Real.unlink(self.fd(), &Self::name(about, SUFFIX)))
    }

    /// Removes what was used longest ago, until there is room for one more, and what was left half written.
    fn prune(&self, keep: &CStr) {
        let Ok(names) = std::fs::read_dir(format!("/proc/self/fd/{}", self.dir.as_raw_fd()))
            .or_else(|_| std::fs::read_dir(&self.path))
        else {
            return;
        };
        let mut kept = Vec::new();
        for entry in names.flatten() {
            let (name, Ok(stat)) = (entry.file_name(), entry.metadata()) else { continue };
            let Some(text) = name.to_str().filter(|_| stat.is_file()) else { continue };
            let Ok(name) = CString::new(text) else { continue };
            let used = stat.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            if text.ends_with(TEMPORARY) && used.elapsed().is_ok_and(|ago| ago > ABANDONED) {
                let _ = Real.unlink(self.fd(), &name);
            } else if text.ends_with(SUFFIX) && *name != *keep {
                kept.push((used, stat.len(), name));
            }
        }
        kept.sort_unstable_by(|a, b| b.cmp(a));
        let mut bytes = 0;
        for (number, (used, len, name)) in kept.into_iter().enumerate() {
            bytes += len;
            let unused = used.elapsed().is_ok_and(|ago| ago > UNUSED);
            if unused || number + 1 >= FILES || bytes > BYTES {
                let _ = Real.unlink(self.fd(), &name);
            }
        }
    }
}

impl KeptWriter {
    /// Writes bytes.
    pub fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.buf.len() + bytes.len() <= CHUNK {
            self.buf.extend_from_slice(bytes);
            return Ok(());
        }
        self.flush()?;
        for chunk in bytes.chunks(CHUNK) {
            self.hash.update(chunk);
            self.file.write_all(chunk)?;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.hash.update(&self.buf);
        self.file.write_all(&self.buf)?;
        self.buf.clear();
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        self.flush()?;
        self.file.write_all(&self.hash.digest128().to_le_bytes())
    }
}

impl KeptReader {
    /// Bytes that are left.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// Fills a buffer.
    pub fn get(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        if bytes.len() as u64 > self.left {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for chunk in bytes.chunks_mut(CHUNK) {
            self.file.read_exact(chunk)?;
            self.hash.update(chunk);
            self.left -= chunk.len() as u64;
        }
        Ok(())
    }

    /// Whether everything was read, and is what was written. Only then may it be believed.
    pub fn is_whole(mut self) -> io::Result<bool> {
        let mut checksum = [0; CHECKSUM];
        self.file.read_exact(&mut checksum)?;
        let rest = self.file.read(&mut [0])?;
        Ok(self.left == 0 && rest == 0 && checksum == self.hash.digest128().to_le_bytes())
    }
}
