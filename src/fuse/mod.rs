//! The only user of `fuser`: decode, call [`crate::vfs`], map the error, reply.

mod below;
mod beside;
mod convert;
mod names;
mod passthrough;
mod readahead;
mod server;
mod unmount;

use std::ffi::CString;
use std::fs::OpenOptions;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use fuser::{BackgroundSession, Config, MountOption, Session, SessionACL};

use crate::cache::Cache;
use crate::vfs::{self, Vfs};

use self::below::Device;
use self::names::Names;
use self::server::Server;

/// What `-o` asks of the kernel and the daemon.
#[derive(Debug, Clone, Default)]
pub struct MountOptions {
    /// `ro`
    pub read_only: bool,
    /// `allow_other`
    pub allow_other: bool,
    /// Number of threads that read requests; 0 for the default.
    pub threads: usize,
    /// `attr_timeout`: how long the kernel may keep names and attributes of contents; a second if it is not said.
    pub attr_timeout: Option<Duration>,
    /// `nopassthrough`: never let the kernel serve data from backing files.
    pub no_passthrough: bool,
    /// Options handed to the kernel as they are (`nosuid`, `noexec`, …).
    pub other: Vec<String>,
}

/// A live mount.
#[derive(Debug)]
pub struct Mount {
    /// Never dropped: `fuser` 0.18 would unmount whatever is at the mount point then, even after this mount has gone
    /// and another one has come.
    _session: ManuallyDrop<BackgroundSession>,
    /// Closed when the last thread that serves requests has ended.
    ended: Receiver<()>,
    mountpoint: PathBuf,
    device: OwnedFd,
}

/// Threads that read requests. Four, with channels of their own, answer the most clients; for a single one see [`beside`].
const THREADS: usize = 4;

impl Mount {
    /// Mounts; comes back when the mount is live.
    pub fn new(cache: Arc<Cache>, mountpoint: &Path, options: &MountOptions) -> io::Result<Self> {
        keep_large_buffers();
        allow_open_files();
        let mountpoint = mountpoint.canonicalize()?;
        let passthrough = is_root() && !options.no_passthrough;
        let vfs_options = vfs::Options {
            read_only: options.read_only,
            allow_other: options.allow_other,
            epochs: false,
            attr_timeout: options.attr_timeout,
            passthrough,
            mountpoint: mountpoint.clone(),
        };
        let below = vfs::mount_flags(cache.store().dir())?;
        let publisher = Arc::clone(&cache);
        let vfs = Vfs::new(cache, vfs_options);
        let vfs = Arc::new(vfs.map_err(|error| io::Error::from_raw_os_error(error.errno()))?);
        let (alive, ended) = mpsc::channel();
        let server = Server::new(Arc::clone(&vfs), passthrough, alive);
        let (negotiated, backings) = (server.negotiated(), server.backings());
        let session = Session::new(server, &mountpoint, &config(options, below))?;
        if backings.is_enabled() {
            backings.probe(session.as_fd(), &publisher.store().path().join("_lock"));
            if !backings.is_enabled() {
                vfs.passthrough_refused();
            }
        }
        negotiated.set_notifier(session.notifier());
        let device = session.as_fd().try_clone_to_owned()?;
        let names = if negotiated.epochs() { Some(Arc::new(Names::new(&device)?)) } else { None };
        if let Some(names) = &names {
            let (shown, hooked) = (vfs.shown(), Arc::clone(names));
            publisher.set_hook(Box::new(move |published| shown.forget(published, || hooked.forget())));
            let names = Arc::clone(names);
            vfs.set_forget_names(Box::new(move || names.forget()));
        }
        let mount = Self { _session: ManuallyDrop::new(session.spawn()?), ended, mountpoint, device };
        match device_of(&mount.mountpoint) {
            Ok(number) => {
                if is_root() && !backings.is_enabled() {
                    readahead::set(number);
                }
                if let Some(names) = names {
                    let vfs = Arc::downgrade(&vfs);
                    below::watch(number, move |something| names.hold(something, &vfs));
                }
            }
            Err(error) => {
                log::warn!("{} does not say which device it is: {error}", mount.mountpoint.display());
            }
        }
        Ok(mount)
    }

    /// Waits until it is unmounted, by whomever.
    pub fn wait(self) -> io::Result<()> {
        // Nothing is ever sent: this ends with the server.
        let _ = self.ended.recv();
        if unmount::is_live(self.device.as_fd()) {
            unmount::unmount(&self.mountpoint, self.device.as_fd())?;
            return Err(io::Error::other("the threads that serve requests have ended before the mount"));
        }
        Ok(())
    }

    /// A function that unmounts, for a signal handling thread. If files are open below the mount point, it is taken away from
    /// there, and the mount ends when they are closed.
    pub fn unmounter(&self) -> Box<dyn FnMut() -> io::Result<()> + Send> {
        let mountpoint = self.mountpoint.clone();
        let device = self.device.try_clone();
        Box::new(move || match &device {
            Ok(device) => unmount::unmount(&mountpoint, device.as_fd()),
            Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        })
    }
}

/// `below` are the flags of the mount that the cache lies on.
fn config(options: &MountOptions, below: u64) -> Config {
    let mut mount_options = vec![
        MountOption::FSName("cachedirfs".into()),
        MountOption::CUSTOM("subtype=cachedirfs".into()),
        MountOption::DefaultPermissions,
    ];
    if options.read_only {
        mount_options.push(MountOption::RO);
    }
    mount_options.extend(options.other.iter().map(|option| match option.as_str() {
        "dev" => MountOption::Dev,
        "nodev" => MountOption::NoDev,
        "suid" => MountOption::Suid,
        "nosuid" => MountOption::NoSuid,
        "exec" => MountOption::Exec,
        "noexec" => MountOption::NoExec,
        "atime" => MountOption::Atime,
        "noatime" => MountOption::NoAtime,
        "dirsync" => MountOption::DirSync,
        other => MountOption::CUSTOM(other.into()),
    }));
    // What the mount of the cache does not allow, no mount of it shall: or devices and set-user-id programs that somebody has
    // put there would work here after all.
    for (flag, allow, refuse) in [
        (libc::ST_NODEV, MountOption::Dev, MountOption::NoDev),
        (libc::ST_NOSUID, MountOption::Suid, MountOption::NoSuid),
        (libc::ST_NOEXEC, MountOption::Exec, MountOption::NoExec),
    ] {
        if below & flag != 0 {
            mount_options.retain(|option| *option != allow);
            mount_options.push(refuse);
        }
    }
    let mut config = Config::default();
    config.mount_options = mount_options;
    config.acl = if options.allow_other { SessionACL::All } else { SessionACL::Owner };
    config.n_threads = Some(if options.threads == 0 { THREADS } else { options.threads });
    // A channel for each thread needs the device itself, which fusermount3 does not.
    config.clone_fd = OpenOptions::new().read(true).write(true).open("/dev/fuse").is_ok();
    config
}

/// The device that a mount is. Its root's attributes are not asked for: this waits for no request.
fn device_of(mountpoint: &Path) -> io::Result<Device> {
    let path = CString::new(mountpoint.as_os_str().as_bytes())?;
    // SAFETY: plain numbers, which may be zero.
    let mut found: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: the path ends in NUL, and the buffer outlives the call.
    let result =
        unsafe { libc::statx(libc::AT_FDCWD, path.as_ptr(), libc::AT_STATX_DONT_SYNC, 0, &raw mut found) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok((found.stx_dev_major, found.stx_dev_minor)) }
}

fn is_root() -> bool {
    // SAFETY: has no arguments and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// Every file that is open through the mount is open in the daemon too: as many as the process may have.
fn allow_open_files() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the buffer has the size of the struct, and outlives both calls.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
    }
}

/// Buffers of a mebibyte are used again instead of being given back to the kernel and faulted in for each read. Not so those of
/// 16 MiB into which each thread of the session reads requests: mapped, they take no more memory than the largest request.
fn keep_large_buffers() {
    #[cfg(target_env = "gnu")]
    {
        const LARGE: i32 = 8 << 20;
        // SAFETY: plain numbers.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
            libc::mallopt(libc::M_TRIM_THRESHOLD, LARGE);
        }
    }
}
