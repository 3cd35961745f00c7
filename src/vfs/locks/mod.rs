//! Locks of programs on files of the mount: taken on the files underneath, so that they hold against everybody.
//!
//! A lock of `flock` belongs to an open file, one of `fcntl` to a process, which the daemon is not: both are taken on a
//! descriptor that is opened for the owner and file, and belong to that (`F_OFD_SETLK`). Virtual files are locked on a
//! nameless file that stands for them.
//!
//! The kernel tells which of the two it is, the library does not; [`asker`] finds out. Where it cannot, both are taken.
//!
//! The table is locked for moments, never across a call that touches a file.

mod asker;
mod ranges;
mod wait;

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use self::ranges::Ranges;
use self::wait::Waits;
use super::{Done, Ino, Result};
use crate::backing::{self, HeldLock, LockKind, Range};

/// A lock that a program asks for, or gives up.
#[derive(Debug, Clone, Copy)]
pub struct LockRequest {
    /// The file.
    pub ino: Ino,
    /// The handle that it is asked through.
    pub fh: u64,
    /// Whose lock it is, by the kernel's own number: a process, or an open file.
    pub owner: u64,
    /// The process, for those who ask who holds it.
    pub pid: u32,
    /// The thread that asks, and waits for the answer.
    pub thread: u32,
    /// `None` unlocks.
    pub kind: Option<LockKind>,
    /// What of the file; of `flock`, all.
    pub range: Range,
}

/// By which call a lock is asked for: the two do not know each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Flock,
    Fcntl,
    /// Not to be known: of both.
    Either,
}

impl Family {
    fn meets(self, other: Self) -> bool {
        self == other || self == Self::Either || other == Self::Either
    }

    fn with(self, other: Self) -> Self {
        if self == other { self } else { Self::Either }
    }
}

/// Files of which it is remembered that they were locked once.
const REMEMBERED: usize = 1 << 16;
/// A close that the kernel has told of may be on its way through another thread: a lock that is in the way is looked at
/// again after these.
const PATIENCE: [Duration; 2] = [Duration::from_micros(100), Duration::from_micros(400)];

/// All locks of a mount.
#[derive(Debug, Default)]
pub(super) struct Locks {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    table: Mutex<Table>,
    /// Number of holders: most closes need not look further.
    holders: AtomicUsize,
    /// Whether anything was ever locked: most opens need not look further.
    used: AtomicBool,
    waits: Waits,
}

#[derive(Debug, Default)]
struct Table {
    files: HashMap<Ino, FileLocks>,
    locked_once: HashSet<Ino>,
    next: u64,
}

#[derive(Debug, Default)]
struct FileLocks {
    /// What a virtual file is locked on.
    nameless: Option<Arc<OwnedFd>>,
    holders: Vec<Holder>,
}

/// An owner that has locked something of a file, or is about to.
#[derive(Debug)]
struct Holder {
    number: u64,
    owner: u64,
    family: Family,
    /// The handle that it came through last: with that it goes, if no close of the owner was told before.
    fh: u64,
    pid: u32,
    file: Arc<OwnedFd>,
    ranges: Ranges,
    /// Calls that use it now.
    users: usize,
}

/// The use of a holder, from [`Shared::claim`] to [`Shared::settle`].
#[derive(Debug)]
struct Claim {
    request: LockRequest,
    family: Family,
    number: u64,
    file: Arc<OwnedFd>,
}

impl Locks {
    /// Whether a file was ever locked through this mount.
    pub fn was_locked(&self, ino: Ino) -> bool {
        self.shared.used.load(Ordering::Relaxed) && self.shared.table().locked_once.contains(&ino)
    }

    /// Locks or unlocks. `open` is the descriptor of the handle; none for virtual files. If it may `wait`, it does so on a
    /// thread of its own, until it has the lock or a signal has come for who asks.
    pub fn set(&self, request: LockRequest, open: Option<&Arc<OwnedFd>>, wait: bool, done: Done<()>) {
        let shared = &self.shared;
        let family = shared.family(&request, open);
        if request.kind.is_none() {
            return done(shared.unlock(&request, family).map_err(Into::into));
        }
        let claim = match shared.claim(request, family, open) {
            Ok(claim) => claim,
            Err(error) => return done(Err(error.into())),
        };
        let result = shared.attempt(&claim, !wait);
        let refused = matches!(&result, Err(error) if error.kind() == io::ErrorKind::WouldBlock);
        if !wait || !refused {
            shared.settle(&claim, &result);
            return done(result.map_err(Into::into));
        }
        let (file, family, shared) = (Arc::clone(&claim.file), claim.family, Arc::clone(shared));
        let call = move || request.apply(family, file.as_fd(), true);
        let finish = move |result: io::Result<()>| {
            shared.settle(&claim, &result);
            done(result.map_err(Into::into));
        };
        let signalled = Box::new(move || asker::is_signalled(request.thread));
        self.shared.waits.start(signalled, call, Box::new(finish));
    }

    /// The lock that would be in the way of this one (of `fcntl`).
    pub fn find(&self, request: LockRequest, open: Option<&Arc<OwnedFd>>) -> Result<Option<HeldLock>> {
        let Some(kind) = request.kind else { return Ok(None) };
        let file = {
            let table = self.shared.table();
            let file = table.files.get(&request.ino);
            let holder = file
                .and_then(|file| file.holders.iter().find(|holder| holder.is_of(&request, Family::Fcntl)));
            let own = holder.map(|holder| &holder.file);
            own.or(open).or(file.and_then(|file| file.nameless.as_ref())).map(Arc::clone)
        };
        let Some(file) = file else { return Ok(None) };
        let Some(mut held) = backing::find_lock(file.as_fd(), kind, request.range)? else { return Ok(None) };
        if held.pid == 0 {
            held.pid = self.shared.who_has(&request, &held);
        }
        Ok(Some(held))
    }

    /// A process closed a descriptor of a file: its locks of `fcntl` on that go.
    pub fn closed(&self, ino: Ino, owner: u64) {
        self.shared.drop_holders(ino, |holder| holder.family != Family::Flock && holder.owner == owner);
    }

    /// The last descriptor of a handle was closed: whatever was locked through it goes.
    pub fn released(&self, ino: Ino, fh: u64) {
        self.shared.drop_holders(ino, |holder| holder.fh == fh);
    }

    /// Whether nothing is locked.
    pub fn is_empty(&self) -> bool {
        self.shared.holders.load(Ordering::Acquire) == 0
    }

    /// Number of owners that hold locks, and of calls that wait for one.
    pub fn len(&self) -> (usize, usize) {
        let table = self.shared.table();
        let holders = table.files.values().flat_map(|file| &file.holders);
        let held = holders.filter(|holder| !holder.ranges.is_empty()).count();
        drop(table);
        (held, self.shared.waits.len())
    }
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// By which call a lock is asked for.
    fn family(&self, request: &LockRequest, open: Option<&Arc<OwnedFd>>) -> Family {
        // A lock of flock is of the whole file.
        if request.range != Range::ALL {
            return Family::Fcntl;
        }
        // One of fcntl takes a descriptor that can be read from, or written to.
        let mode = open.and_then(|open| backing::access_mode(open.as_fd()).ok());
        match (request.kind, mode) {
            (Some(LockKind::Exclusive), Some(libc::O_RDONLY))
            | (Some(LockKind::Shared), Some(libc::O_WRONLY)) => {
                return Family::Flock;
            }
            _ => {}
        }
        match asker::family(request.thread) {
            // What cannot be known of who unlocks is what it has, which is one family nearly always: an owner is a process, or an
            // open file, which has locks of fcntl only if they are its own (F_OFD_SETLK).
            Family::Either if request.kind.is_none() => {
                let table = self.table();
                let own = table.holders(request.ino).iter().filter(|holder| holder.owner == request.owner);
                own.map(|holder| holder.family).reduce(Family::with).unwrap_or(Family::Either)
            }
            family => family,
        }
    }

    /// Unlocks what an owner has.
    fn unlock(&self, request: &LockRequest, family: Family) -> io::Result<()> {
        let mut result = Ok(());
        let claims = self.table().claims(request, family);
        for claim in claims {
            let unlocked = request.apply(claim.family, claim.file.as_fd(), false);
            self.settle(&claim, &unlocked);
            result = result.and(unlocked);
        }
        result
    }

    /// The holder for a lock, made if there is none.
    fn claim(&self, request: LockRequest, family: Family, open: Option<&Arc<OwnedFd>>) -> io::Result<Claim> {
        let file = {
            let mut table = self.table();
            if let Some(claim) = table.claims(&request, family).pop() {
                return Ok(claim);
            }
            if let Some(open) = open {
                Arc::clone(open)
            } else {
                let file = table.nameless(request.ino)?;
                return Ok(self.insert(&mut table, request, family, file));
            }
        };
        let file = match own_description(file.as_fd(), family) {
            Ok(own) => Arc::new(own),
            // Its permissions were changed: the handle itself does as well, as long as the daemon lives.
            Err(_) if family == Family::Flock => file,
            // What EACCES says of `fcntl` is something else.
            Err(error) if error.raw_os_error() == Some(libc::EACCES) => {
                return Err(io::Error::from_raw_os_error(libc::ENOLCK));
            }
            Err(error) => return Err(error),
        };
        let mut table = self.table();
        // Another thread of the same process may have been here meanwhile.
        let found = table.claims(&request, family).pop();
        Ok(found.unwrap_or_else(|| self.insert(&mut table, request, family, file)))
    }

    fn insert(&self, table: &mut Table, request: LockRequest, family: Family, file: Arc<OwnedFd>) -> Claim {
        if table.locked_once.len() >= REMEMBERED {
            table.locked_once.clear();
        }
        table.locked_once.insert(request.ino);
        self.used.store(true, Ordering::Relaxed);
        table.next += 1;
        let number = table.next;
        let locks = table.files.entry(request.ino).or_default();
        locks.holders.push(Holder {
            number,
            owner: request.owner,
            family,
            fh: request.fh,
            pid: request.pid,
            file: Arc::clone(&file),
            ranges: Ranges::default(),
            users: 1,
        });
        self.holders.fetch_add(1, Ordering::Release);
        Claim { request, family, number, file }
    }

    /// Tries without waiting. `final_try`: with the patience that a close on its way needs.
    fn attempt(&self, claim: &Claim, final_try: bool) -> io::Result<()> {
        let refused =
            |result: &io::Result<()>| matches!(result, Err(e) if e.kind() == io::ErrorKind::WouldBlock);
        let mut result = claim.request.apply(claim.family, claim.file.as_fd(), false);
        if final_try {
            for pause in PATIENCE {
                if !refused(&result) || !self.has_others(claim) {
                    break;
                }
                std::thread::sleep(pause);
                result = claim.request.apply(claim.family, claim.file.as_fd(), false);
            }
        }
        result
    }

    /// Notes what came of a call, and lets the holder go if it holds nothing any more.
    fn settle(&self, claim: &Claim, result: &io::Result<()>) {
        let request = &claim.request;
        if claim.family == Family::Either && result.is_err() {
            // One of the two may be locked: as after a refused flock, neither is then.
            unlock_all(Family::Either, claim.file.as_fd());
        }
        let outcome = match result {
            Ok(()) => Some(request.kind),
            Err(_) if claim.family == Family::Either => Some(None),
            // `flock` gives up the lock that was to be changed, and then tries for the other.
            Err(error)
                if claim.family == Family::Flock
                    && matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINTR)) =>
            {
                Some(None)
            }
            Err(_) => None,
        };
        let mut table = self.table();
        let Some(holder) = table.holder(request.ino, claim.number) else {
            drop(table);
            // The descriptor was closed meanwhile, and took the locks of then with it.
            if result.is_ok() && request.kind.is_some() {
                unlock_all(claim.family, claim.file.as_fd());
            }
            return;
        };
        holder.users = holder.users.saturating_sub(1);
        if let Some(kind) = outcome {
            holder.ranges.set(request.range, kind);
            if kind.is_some() {
                holder.pid = request.pid;
            }
        }
        if holder.users == 0 && holder.ranges.is_empty() {
            let gone = table.remove(request.ino, |holder| holder.number == claim.number);
            drop(table);
            self.holders.fetch_sub(gone.len(), Ordering::Release);
        }
    }

    fn drop_holders(&self, ino: Ino, which: impl Fn(&Holder) -> bool) {
        if self.holders.load(Ordering::Acquire) == 0 {
            return;
        }
        let gone = self.table().remove(ino, which);
        self.holders.fetch_sub(gone.len(), Ordering::Release);
        for holder in gone {
            // Said, not left to the end of the descriptor: others may hold it still, and not every network file system
            // takes that end for an unlock.
            unlock_all(holder.family, holder.file.as_fd());
        }
    }

    fn has_others(&self, Claim { request, family, .. }: &Claim) -> bool {
        let table = self.table();
        let mut holders = table.holders(request.ino).iter();
        holders.any(|holder| holder.family.meets(*family) && !holder.is_of(request, *family))
    }

    /// The process of this mount that holds a lock; 0 if it is none of it.
    fn who_has(&self, request: &LockRequest, held: &HeldLock) -> u32 {
        let table = self.table();
        let has = |holder: &&Holder| {
            holder.family != Family::Flock
                && !holder.is_of(request, Family::Fcntl)
                && holder.ranges.has(held.range, held.kind)
        };
        table.holders(request.ino).iter().find(has).map_or(0, |holder| holder.pid)
    }
}

impl Table {
    /// All who have locked something of a file.
    fn holders(&self, ino: Ino) -> &[Holder] {
        self.files.get(&ino).map_or(&[], |file| &file.holders)
    }

    /// A descriptor of the file that a virtual one is locked on. Nobody else has that file: this waits for nothing.
    fn nameless(&mut self, ino: Ino) -> io::Result<Arc<OwnedFd>> {
        let file = self.files.get(&ino).and_then(|file| file.nameless.clone());
        let file = file.map_or_else(|| backing::nameless_file().map(Arc::new), Ok)?;
        let fresh = Arc::new(backing::reopen(file.as_fd(), libc::O_RDWR)?);
        self.files.entry(ino).or_default().nameless = Some(file);
        Ok(fresh)
    }

    /// The holders that a request is about.
    fn claims(&mut self, request: &LockRequest, family: Family) -> Vec<Claim> {
        let Some(file) = self.files.get_mut(&request.ino) else { return Vec::new() };
        let own = file.holders.iter_mut().filter(|holder| holder.is_of(request, family));
        own.map(|holder| {
            holder.users += 1;
            // The kernel uses the numbers of owners again, maybe before the end of the former one's handle is told here.
            holder.fh = request.fh;
            holder.family = holder.family.with(family);
            // A part of a file is never locked by flock.
            let family = if request.range == Range::ALL { holder.family } else { Family::Fcntl };
            Claim { request: *request, family, number: holder.number, file: Arc::clone(&holder.file) }
        })
        .collect()
    }

    fn holder(&mut self, ino: Ino, number: u64) -> Option<&mut Holder> {
        self.files.get_mut(&ino)?.holders.iter_mut().find(|holder| holder.number == number)
    }

    fn remove(&mut self, ino: Ino, which: impl Fn(&Holder) -> bool) -> Vec<Holder> {
        let Some(file) = self.files.get_mut(&ino) else { return Vec::new() };
        let gone = file.holders.extract_if(.., |holder| which(holder)).collect();
        if file.holders.is_empty() {
            self.files.remove(&ino);
        }
        gone
    }
}

impl Holder {
    fn is_of(&self, request: &LockRequest, family: Family) -> bool {
        self.owner == request.owner && self.family.meets(family)
    }
}

impl LockRequest {
    fn apply(&self, family: Family, file: BorrowedFd<'_>, wait: bool) -> io::Result<()> {
        if family != Family::Flock {
            backing::lock_range(file, self.kind, self.range, wait)?;
        }
        if family != Family::Fcntl {
            backing::flock(file, self.kind, wait)?;
        }
        Ok(())
    }
}

/// Opens a file anew, for the locks of one owner. Never the descriptor of the handle: the kernel keeps that open for
/// passthrough, and its locks with it, for as long as there is a mount, even if there is no daemon any more.
fn own_description(open: BorrowedFd<'_>, family: Family) -> io::Result<OwnedFd> {
    const GENTLY: i32 = libc::O_NONBLOCK | libc::O_NOCTTY;
    // A process may have it open for reading here and for writing there, and has one lock.
    if family != Family::Flock
        && let Ok(fd) = backing::reopen(open, libc::O_RDWR | GENTLY)
    {
        return Ok(fd);
    }
    backing::reopen(open, backing::access_mode(open)? | GENTLY)
}

fn unlock_all(family: Family, file: BorrowedFd<'_>) {
    let of_fcntl = (family != Family::Flock).then(|| backing::lock_range(file, None, Range::ALL, false));
    let of_flock = (family != Family::Fcntl).then(|| backing::flock(file, None, false));
    for error in [of_fcntl, of_flock].into_iter().flatten().filter_map(io::Result::err) {
        log::debug!("a lock was not given up before its descriptor is closed: {error}");
    }
}
