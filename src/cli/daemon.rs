//! The life of a mount's process: into the background, serving, and a clean end on a signal.

use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use super::failure::{self, Result, error};
use super::mount::Plan;
use super::{logging, memory, mounts};
use crate::cache::Cache;
use crate::fuse::Mount;

/// What the daemon writes to its parent once the mount is live; anything else is an error message.
const LIVE: &[u8] = b"\x06";
/// How long the first try for the lock may take before the mount goes on without it.
const FIRST_LOCK: Duration = Duration::from_secs(10);
/// How long the session may take to end after it was detached from a busy mount point.
const DETACHED: Duration = Duration::from_secs(2);

/// Closes every descriptor but the three standard ones.
pub fn close_inherited() {
    // SAFETY: nothing in this process has opened a descriptor yet, so none of them is owned by anybody.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
}

/// Starts the daemon; comes back when the mount is live or could not be.
pub fn start(plan: &Plan, log: logging::File, verbose: u8) -> Result<()> {
    let (mut from_daemon, to_parent) =
        io::pipe().map_err(|e| failure::io("make", "a pipe for the daemon", &e))?;
    // SAFETY: this process has one thread, so the child may use everything it has.
    match unsafe { libc::fork() } {
        -1 => Err(failure::io("start", "the daemon", &io::Error::last_os_error())),
        0 => {
            drop(from_daemon);
            // The status of this process is the status of the daemon: nobody but a supervisor asks for it.
            let code = daemon(plan, log, verbose, to_parent);
            std::process::exit(code);
        }
        child => {
            drop(to_parent);
            let mut said = Vec::new();
            // A read error is told like a daemon that said nothing.
            let _ = from_daemon.read_to_end(&mut said);
            if said == LIVE {
                return Ok(());
            }
            let mut status = 0;
            // SAFETY: `status` is a valid place for the answer; the child is ours.
            unsafe { libc::waitpid(child, &raw mut status, 0) };
            if said.is_empty() {
                let log = log.path.map_or(String::new(), |path| format!("; its log is {}", path.display()));
                return Err(error(format!("the daemon ended before the mount was live{log}")));
            }
            Err(error(String::from_utf8_lossy(&said)))
        }
    }
}

/// The daemon's process, from the fork to its end.
fn daemon(plan: &Plan, log: logging::File, verbose: u8, parent: io::PipeWriter) -> i32 {
    // Closed once the parent knows: it reads until then.
    let mut parent = Some(parent);
    let mut tell = |message: &[u8]| {
        if let Some(mut parent) = parent.take() {
            // A parent that was killed does not matter: the mount is what was asked for.
            let _ = parent.write_all(message);
        }
    };
    let outcome = detach(log).map_err(|e| failure::io("go", "into the background", &e)).and_then(|()| {
        logging::background(verbose);
        serve(plan, true, || tell(LIVE))
    });
    match outcome {
        Ok(()) => 0,
        Err(failure) => {
            let message = failure.message().unwrap_or_default();
            log::error!("{message}");
            tell(message.as_bytes());
            1
        }
    }
}

/// A session of its own, no terminal, no directory kept busy, standard error to the log.
fn detach(log: logging::File) -> io::Result<()> {
    // SAFETY: setsid touches no memory. It cannot fail: a forked child leads no process group.
    unsafe { libc::setsid() };
    std::env::set_current_dir("/")?;
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    let log = log.file.map_or_else(|| null.try_clone(), Ok)?;
    for (from, to) in [(&null, 0), (&null, 1), (&log, 2)] {
        // SAFETY: both are descriptors of this process; the standard ones are owned by nobody.
        if unsafe { libc::dup2(from.as_raw_fd(), to) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// What ends a mount.
enum Event {
    /// The session is over: somebody has unmounted it.
    Ended(io::Result<()>),
    /// A signal asks for the end.
    Signal(libc::c_int),
}

/// Mounts, calls `live`, and serves until the mount is over.
pub fn serve(plan: &Plan, background: bool, live: impl FnOnce()) -> Result<()> {
    memory::settle();
    let signals = block_signals();
    let place = plan.cache.display();
    if let Some(doubt) = &plan.doubt {
        log::warn!("{doubt}");
    }
    let cache = Cache::open(&plan.cache, &plan.open).map_err(|e| failure::cache(&place, &e))?;
    let served = session(plan, &cache, signals, background, live);
    let closed = cache.close().map_err(|e| failure::cache(&place, &e));
    served.and(closed)?;
    log::info!("{} is unmounted, everything is synced", plan.mountpoint.display());
    Ok(())
}

fn session(
    plan: &Plan,
    cache: &Arc<Cache>,
    signals: libc::sigset_t,
    background: bool,
    live: impl FnOnce(),
) -> Result<()> {
    if !plan.open.read_only {
        first_lock(plan, cache)?;
    }
    let mountpoint = plan.mountpoint.display();
    let mount = Mount::new(Arc::clone(cache), &plan.mountpoint, &plan.mount)
        .map_err(|e| failure::io("mount on", &mountpoint, &e))?;
    let mut unmount = mount.unmounter();
    let (send, events) = mpsc::channel();
    let ended = send.clone();
    let no_thread = |e: io::Error| failure::io("start", "a thread", &e);
    thread("wait", move || drop(ended.send(Event::Ended(mount.wait())))).map_err(no_thread)?;
    thread("signals", move || {
        while let Some(signal) = next_signal(&signals) {
            // A daemon has no terminal to hang up.
            if !(background && signal == libc::SIGHUP) && send.send(Event::Signal(signal)).is_err() {
                break;
            }
        }
    })
    .map_err(no_thread)?;
    log::info!(
        "cachedirfs {}: {} is mounted on {mountpoint}, process {}",
        env!("CARGO_PKG_VERSION"),
        plan.cache.display(),
        std::process::id()
    );
    live();
    let mut tender = memory::Tender::default();
    // What the log took on its way into the index.
    tender.tend();
    let event = loop {
        match events.recv_timeout(memory::OFTEN) {
            Err(mpsc::RecvTimeoutError::Timeout) => tender.tend(),
            event => break event,
        }
    };
    match event {
        Ok(Event::Ended(result)) => result.map_err(|e| failure::io("serve", &mountpoint, &e)),
        Ok(Event::Signal(signal)) => {
            log::info!("signal {signal}: unmounting {mountpoint}");
            if let Err(e) = unmount() {
                log::warn!("{mountpoint} is in use ({e}): detaching it");
                mounts::unmount(&plan.mountpoint, true)?;
            }
            match events.recv_timeout(DETACHED) {
                Ok(Event::Ended(result)) => result.map_err(|e| failure::io("serve", &mountpoint, &e)),
                // Whoever still uses it gets ENOTCONN from now on; a second signal does not wait for them.
                Ok(Event::Signal(_)) | Err(_) => Ok(()),
            }
        }
        Err(_) => Ok(()),
    }
}

fn thread(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new().name(name.to_owned()).spawn(body).map(drop)
}

/// Takes the lock once, so that a file system without flock is told at once and not by the first change.
fn first_lock(plan: &Plan, cache: &Arc<Cache>) -> Result<()> {
    let (send, locked) = mpsc::channel();
    let cache = Arc::clone(cache);
    thread("first lock", move || drop(send.send(cache.store().lock().map(drop))))
        .map_err(|e| failure::io("start", "a thread", &e))?;
    if let Ok(result) = locked.recv_timeout(FIRST_LOCK) {
        return result.map_err(|e| failure::store(plan.cache.display(), &e));
    }
    log::warn!("somebody holds the lock of {} for long; changes will wait for it", plan.cache.display());
    Ok(())
}

/// Blocks the signals that end a mount, in this thread and all that it will start: one thread waits for them.
pub fn block_signals() -> libc::sigset_t {
    // SAFETY: a signal set is plain data, and every call gets a valid one.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
            libc::sigaddset(&raw mut set, signal);
        }
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        set
    }
}

/// Waits for one of the signals; `None` if that cannot be.
pub fn next_signal(set: &libc::sigset_t) -> Option<libc::c_int> {
    let mut signal = 0;
    // SAFETY: both point to valid places for the length of the call.
    (unsafe { libc::sigwait(set, &raw mut signal) } == 0).then_some(signal)
}
