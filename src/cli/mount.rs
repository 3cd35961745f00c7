//! `mount`: everything that can be wrong is found and told before a daemon is left behind.

use std::ffi::CString;
use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::args::{MountArgs, seconds};
use super::failure::{self, Result, error, usage};
use super::{below, daemon, logging, mounts};
use crate::fuse::MountOptions;

/// How often the log is looked at unless `refresh=` says otherwise.
const REFRESH: Duration = Duration::from_secs(1);
/// Dead mounts may lie on each other; more than this many is something else.
const MOST_DEAD: usize = 8;

/// A mount to be, checked.
#[derive(Debug)]
pub struct Plan {
    /// The cache, canonical.
    pub cache: PathBuf,
    /// The mount point, canonical.
    pub mountpoint: PathBuf,
    /// How the cache is opened.
    pub open: crate::cache::Options,
    /// How it is mounted.
    pub mount: MountOptions,
    /// What makes the file system of the cache unfit for several nodes.
    pub doubt: Option<String>,
}

/// `cachedirfs mount`.
pub fn run(args: &MountArgs, verbose: u8) -> Result<()> {
    if args.foreground {
        logging::foreground(verbose);
        return daemon::serve(&plan(args)?, false, || ());
    }
    // The daemon outlives whoever started it: it must hold none of the descriptors that were left open.
    daemon::close_inherited();
    let plan = plan(args)?;
    let log = logging::File::open(args.log.as_deref(), &plan.mountpoint)?;
    if let Some(doubt) = &plan.doubt {
        failure::warn(doubt);
    }
    daemon::start(&plan, log, verbose)
}

fn plan(args: &MountArgs) -> Result<Plan> {
    let (open, mount) = options(&args.options)?;
    let cache = directory(&args.directory, "cache")?;
    let mountpoint = mountpoint(&args.mountpoint)?;
    if mountpoint.starts_with(&cache) {
        return Err(error(format!(
            "the mount point {} lies inside the cache {}",
            mountpoint.display(),
            cache.display()
        ))
        .hint("mount it on a directory elsewhere"));
    }
    if mounts::all().is_ok_and(|all| all.iter().any(|other| cache.starts_with(other))) {
        return Err(error(format!("{} is inside a mounted cache", cache.display()))
            .hint("mount the directory of the cache itself; `cachedirfs status` shows where it is"));
    }
    fuse_is_there()?;
    if mount.allow_other {
        others_may()?;
    }
    if !mount.read_only {
        writable(&cache)?;
    }
    let doubt = if mount.read_only { None } else { below::doubt(&cache) };
    Ok(Plan { cache, mountpoint, open, mount, doubt })
}

/// Turns the words of `-o` into options.
fn options(words: &[String]) -> Result<(crate::cache::Options, MountOptions)> {
    let mut open = crate::cache::Options {
        read_only: false,
        sync: false,
        refresh: REFRESH,
        background: true,
        keep: super::kept::directory(),
    };
    let mut mount = MountOptions::default();
    for word in words {
        match word.split_once('=').map_or((word.as_str(), None), |(name, value)| (name, Some(value))) {
            ("" | "rw" | "defaults", None) => {}
            ("ro", None) => (open.read_only, mount.read_only) = (true, true),
            ("allow_other", None) => mount.allow_other = true,
            ("sync", None) => open.sync = true,
            ("nopassthrough", None) => mount.no_passthrough = true,
            ("nokeep", None) => open.keep = None,
            ("refresh", Some(value)) => {
                open.refresh = duration(value).filter(|refresh| !refresh.is_zero()).ok_or_else(|| {
                    usage(format!("-o {word}: expected a number of seconds above 0, such as 0.5"))
                })?;
            }
            ("attr_timeout", Some(value)) => {
                let timeout = duration(value).ok_or_else(|| {
                    usage(format!("-o {word}: expected a number of seconds, such as 60, or 0"))
                })?;
                mount.attr_timeout = Some(timeout);
            }
            ("threads", Some(value)) => {
                mount.threads =
                    value.parse().ok().filter(|threads| (1..=256).contains(threads)).ok_or_else(|| {
                        usage(format!("-o threads={value}: expected a number from 1 to 256"))
                    })?;
            }
            ("nonempty", None) => {
                return Err(usage("-o nonempty: a cache is mounted on an empty directory only"));
            }
            ("ro" | "rw" | "allow_other" | "sync" | "nopassthrough" | "nokeep", Some(_)) => {
                return Err(usage(format!("-o {word}: this option takes no value")));
            }
            ("refresh" | "attr_timeout" | "threads", None) => {
                return Err(usage(format!("-o {word}: this option needs a value, {word}=…")));
            }
            _ => mount.other.push(word.clone()),
        }
    }
    Ok((open, mount))
}

/// A length of time in seconds.
fn duration(value: &str) -> Option<Duration> {
    Duration::try_from_secs_f64(seconds(value).ok()?).ok()
}

/// A directory that must exist, as a canonical path.
fn directory(path: &Path, what: &str) -> Result<PathBuf> {
    let place = path.display();
    let found = path.canonicalize().and_then(|path| Ok((std::fs::metadata(&path)?.is_dir(), path)));
    match found {
        Ok((true, path)) => Ok(path),
        Ok((false, _)) => Err(error(format!("the {what} {place} is not a directory"))),
        Err(e) if e.kind() == ErrorKind::NotFound => {
            Err(error(format!("the {what} {place} does not exist"))
                .hint(format!("make it: mkdir -p {place}")))
        }
        Err(e) => Err(failure::io(&format!("look at the {what}"), place, &e)),
    }
}

/// The mount point: an empty directory, once dead mounts have been taken away from it.
fn mountpoint(path: &Path) -> Result<PathBuf> {
    for _ in 0..MOST_DEAD {
        if !mounts::is_dead(path) {
            break;
        }
        let place = mounts::absolute(path).map_err(|e| failure::io("look at", path.display(), &e))?;
        mounts::unmount(&place, true)?;
        let _ = std::io::Write::write_fmt(
            &mut std::io::stderr(),
            format_args!(
                "cachedirfs: took away the mount that a killed daemon left on {}\n",
                place.display()
            ),
        );
    }
    let canonical = directory(path, "mount point")?;
    let place = canonical.display();
    if mounts::is_mounted(&canonical) {
        return Err(error(format!("{place} is busy: a cache is mounted there already"))
            .hint(format!("`cachedirfs umount {place}` ends that mount")));
    }
    match std::fs::read_dir(&canonical).map(|mut names| names.next()) {
        Ok(None) => Ok(canonical),
        Ok(Some(_)) => Err(error(format!("the mount point {place} is not empty"))
            .hint("what is in it would be hidden; mount on an empty directory")),
        Err(e) => Err(failure::io("list the mount point", &place, &e)),
    }
}

/// Whether this process can speak to the kernel's FUSE at all.
fn fuse_is_there() -> Result<()> {
    let device = Path::new("/dev/fuse");
    match OpenOptions::new().read(true).write(true).open(device) {
        Ok(file) if file.metadata().is_ok_and(|meta| meta.file_type().is_char_device()) => {}
        Ok(_) => return Err(error("/dev/fuse is no device")),
        Err(e) => {
            let failure = failure::io("open", "/dev/fuse", &e);
            return Err(match e.raw_os_error() {
                Some(libc::EACCES | libc::EPERM) => failure.hint(
                    "ordinary users need read and write permission on it: chmod 666 /dev/fuse (in a container: \
                     give it the device and CAP_SYS_ADMIN)",
                ),
                Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => failure.hint(
                    "the kernel has no FUSE here: modprobe fuse (in a container: --device /dev/fuse)",
                ),
                _ => failure,
            });
        }
    }
    if !is_root() {
        let searched = std::env::var_os("PATH").unwrap_or_default();
        if !std::env::split_paths(&searched).any(|dir| dir.join("fusermount3").is_file()) {
            return Err(mounts::no_fusermount(&std::io::Error::from_raw_os_error(libc::ENOENT)));
        }
    }
    Ok(())
}

/// Whether an ordinary user may let other users in.
fn others_may() -> Result<()> {
    let allowed = is_root()
        || std::fs::read_to_string("/etc/fuse.conf")
            .is_ok_and(|text| text.lines().any(|line| line.trim() == "user_allow_other"));
    if allowed {
        return Ok(());
    }
    Err(error("-o allow_other: not allowed to ordinary users here")
        .hint("root must write the line user_allow_other to /etc/fuse.conf"))
}

/// Whether the log could be changed, so far as permissions and the file system tell.
fn writable(cache: &Path) -> Result<()> {
    let path = CString::new(cache.as_os_str().as_bytes())
        .map_err(|_| error(format!("{}: a path cannot hold NUL", cache.display())))?;
    // SAFETY: `path` ends in NUL and outlives the call.
    if unsafe { libc::faccessat(libc::AT_FDCWD, path.as_ptr(), libc::W_OK | libc::X_OK, libc::AT_EACCESS) }
        == 0
    {
        return Ok(());
    }
    Err(failure::io("write to the cache", cache.display(), &std::io::Error::last_os_error())
        .hint("mount it read-only: -o ro"))
}

fn is_root() -> bool {
    // SAFETY: geteuid cannot fail and touches no memory.
    unsafe { libc::geteuid() == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(',').map(str::to_owned).collect()
    }

    #[test]
    fn options_are_taken_apart_and_the_kernels_are_passed_on() {
        let (open, mount) =
            options(&words("ro,allow_other,refresh=0.5,attr_timeout=0,threads=3,nosuid,context=x")).unwrap();
        assert!(open.read_only && mount.read_only && mount.allow_other && !open.sync);
        assert_eq!(open.refresh, Duration::from_millis(500));
        assert_eq!(mount.attr_timeout, Some(Duration::ZERO));
        assert_eq!(mount.threads, 3);
        assert_eq!(mount.other, ["nosuid", "context=x"]);
    }

    #[test]
    fn options_that_cannot_be_are_named() {
        for word in [
            "refresh=0",
            "refresh=soon",
            "refresh",
            "attr_timeout=-1",
            "attr_timeout",
            "threads=0",
            "threads=x",
            "ro=1",
            "nonempty",
        ] {
            let message = options(&words(word)).unwrap_err().message().unwrap();
            assert!(message.contains(word), "{message}");
        }
    }

    #[test]
    fn a_mount_point_must_be_an_empty_directory() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(mountpoint(dir.path()).unwrap(), dir.path().canonicalize().unwrap());
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        let message = |path: &Path| mountpoint(path).unwrap_err().message().unwrap();
        assert!(message(dir.path()).contains("not empty"));
        assert!(message(&file).contains("not a directory"));
        assert!(message(&dir.path().join("none")).contains("mkdir"));
    }
}
