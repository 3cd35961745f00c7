//! Waiting for changes: inotify on the cache directory where the kernel has it, a clock everywhere.

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use inotify::{EventMask, Inotify, WatchMask};

use super::{LOG, hold};
use crate::sync::{MODELLED, Mutex, thread};

/// Tells of changes of the log, and can be woken.
#[derive(Debug)]
pub(super) struct Watch {
    /// Held by the thread that waits; made by the first wait, for whoever looks but once does without (closing one takes the
    /// kernel ten milliseconds).
    eye: Mutex<Eye>,
    /// An eventfd; `None` if there was none to have: then waits are short.
    bell: Option<OwnedFd>,
}

#[derive(Debug)]
enum Eye {
    /// Not needed yet.
    Closed,
    /// The kernel has none to give.
    Blind,
    Open(Inotify),
}

impl Watch {
    /// Watches nothing yet.
    pub fn new() -> Self {
        Self { eye: Mutex::new(Eye::Closed), bell: bell().ok() }
    }

    /// Waits until the log in a directory may have changed, the bell is rung, or the time has passed. The first call does not
    /// wait: it may have changed since it was read.
    pub fn wait(&self, dir: BorrowedFd<'_>, timeout: Duration) {
        if MODELLED {
            return thread::yield_now();
        }
        let end = Instant::now() + timeout;
        let mut eye = hold(&self.eye);
        if matches!(*eye, Eye::Closed) {
            *eye = match watch(dir) {
                Ok(inotify) => Eye::Open(inotify),
                Err(e) => {
                    ::log::info!("no inotify on the cache directory: {e}");
                    Eye::Blind
                }
            };
            return;
        }
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let left = if self.bell.is_some() { left } else { left.min(Duration::from_millis(50)) };
            let watched = match &*eye {
                Eye::Open(inotify) => Some(inotify.as_fd()),
                Eye::Closed | Eye::Blind => None,
            };
            let ready = poll(watched, self.bell.as_ref().map(AsFd::as_fd), left);
            if ready.bell {
                self.drain();
                return;
            }
            if ready.watched
                && let Eye::Open(inotify) = &mut *eye
                && concerns_the_log(inotify)
            {
                return;
            }
            if self.bell.is_none() || Instant::now() >= end {
                return;
            }
        }
    }

    /// Ends a wait of another thread, or the next one.
    pub fn wake(&self) {
        let Some(bell) = &self.bell else { return };
        let one = 1_u64.to_ne_bytes();
        // SAFETY: the eventfd is open for the call and the buffer has the eight bytes that it takes.
        // A full counter means that it rings already.
        let _ = unsafe { libc::write(bell.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    fn drain(&self) {
        let Some(bell) = &self.bell else { return };
        let mut count = [0_u8; 8];
        // SAFETY: the eventfd is open for the call and the buffer has the eight bytes that it gives; it does not block.
        let _ = unsafe { libc::read(bell.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
    }
}

fn watch(dir: BorrowedFd<'_>) -> io::Result<Inotify> {
    let inotify = Inotify::init()?;
    let mask = WatchMask::MODIFY | WatchMask::CREATE | WatchMask::MOVED_TO | WatchMask::DELETE;
    // The directory that is open, whatever its name is by now.
    inotify.watches().add(format!("/proc/self/fd/{}", dir.as_raw_fd()), mask)?;
    Ok(inotify)
}

fn bell() -> io::Result<OwnedFd> {
    // SAFETY: eventfd has no preconditions.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call has just given this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Reads all events that wait; says whether one is about the log, or may be.
fn concerns_the_log(inotify: &mut Inotify) -> bool {
    let mut concerns = false;
    let mut buffer = [0; 4096];
    while let Ok(events) = inotify.read_events(&mut buffer) {
        for event in events {
            concerns |= event.mask.contains(EventMask::Q_OVERFLOW)
                || event.name.is_none_or(|name| name.as_encoded_bytes() == LOG.to_bytes());
        }
    }
    concerns
}

/// What poll said.
struct Ready {
    watched: bool,
    bell: bool,
}

fn poll(watched: Option<BorrowedFd<'_>>, bell: Option<BorrowedFd<'_>>, timeout: Duration) -> Ready {
    // A negative descriptor is left out by poll.
    let entry = |fd: Option<BorrowedFd<'_>>| libc::pollfd {
        fd: fd.map_or(-1, |fd| fd.as_raw_fd()),
        events: libc::POLLIN,
        revents: 0,
    };
    let mut fds = [entry(watched), entry(bell)];
    let millis = c_int::try_from(timeout.as_millis().saturating_add(1)).unwrap_or(c_int::MAX);
    // SAFETY: the array has two entries, whose descriptors are open for the call.
    let n = unsafe { libc::poll(fds.as_mut_ptr(), 2, millis) };
    let [watched, bell] = fds;
    Ready { watched: n > 0 && watched.revents != 0, bell: n > 0 && bell.revents != 0 }
}
