//! The lock: `flock(LOCK_EX)` on `_lock`, the same that Python's `filelock` takes.

use std::fs::File;
use std::io;
use std::time::{Duration, Instant};

use super::fence::Taken;
use super::{LOCK, NO_LOCK_FILE, Store, StoreError, TRIES, hold, sys};
use crate::processors;
use crate::sync::atomic::Ordering;
use crate::sync::{Arc, MutexGuard, mpsc, thread};

/// How often a thread that waits for the lock looks whether it still should.
const PATIENCE: Duration = Duration::from_millis(50);
/// After such a wait for the lock the log says so, and again after each doubling of it.
const TELL: Duration = Duration::from_secs(2);

/// The open `_lock`.
#[derive(Debug)]
pub(super) struct LockFile {
    pub file: Arc<File>,
    id: sys::FileId,
}

/// The store with its lock held; dropping it unlocks.
#[derive(Debug)]
pub struct Locked<'s> {
    pub(super) store: &'s Store,
    pub(super) gate: MutexGuard<'s, Option<LockFile>>,
    pub(super) taken: Taken,
    /// The log, opened under the lock, and its verified end; there after a [`Locked::catch_up`].
    pub(super) log: Option<(Arc<File>, u64)>,
}

impl Store {
    /// Takes the lock; blocks. Creates `_lock` if it is missing.
    pub fn lock(&self) -> Result<Locked<'_>, StoreError> {
        if self.options.read_only {
            return Err(StoreError::ReadOnly);
        }
        if self.is_poisoned() {
            return Err(StoreError::Poisoned);
        }
        let mut gate = hold(&self.gate);
        let taken = self.take(&mut gate)?;
        Ok(Locked { store: self, gate, taken, log: None })
    }

    /// Takes the lock of a local file system if nobody has it; `None` also if that is not known at once.
    pub fn try_lock(&self) -> Option<Locked<'_>> {
        if self.options.read_only || self.is_poisoned() || !self.local {
            return None;
        }
        let gate = self.gate.try_lock().ok()?;
        let before = self.before_lock();
        let lock = gate.as_ref()?;
        if !self.sys.try_lock(&lock.file).ok()? {
            return None;
        }
        let locked = Locked { store: self, gate, taken: Taken::at(self.sys.uptime(), before), log: None };
        let named = self.sys.stat(self.dir(), LOCK).ok()?;
        locked.gate.as_ref().is_some_and(|lock| lock.id == named.id).then_some(locked)
    }

    /// Takes the flock of the file that has the lock's name.
    fn take(&self, gate: &mut Option<LockFile>) -> Result<Taken, StoreError> {
        let before = self.before_lock();
        for _ in 0..TRIES {
            let lock = match gate.take() {
                Some(lock) => lock,
                None => self.open_lock()?,
            };
            if let Err(error) = self.flock(&lock.file) {
                if error.is_stale() {
                    continue;
                }
                return Err(error);
            }
            // Whoever removes or replaces `_lock` must not make two holders: only the file of that name counts.
            match sys::retry(|| self.sys.stat(self.dir(), LOCK)) {
                Ok(stat) if stat.id == lock.id => {
                    *gate = Some(lock);
                    return Ok(Taken::at(self.sys.uptime(), before));
                }
                Ok(_) => {}
                Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ESTALE)) => {}
                Err(source) => return Err(StoreError::Io { doing: "looking at the lock", source }),
            }
        }
        Err(StoreError::Io { doing: "taking the lock", source: io::Error::from_raw_os_error(libc::ESTALE) })
    }

    /// Makes sure that the file system supports flock, without waiting for it.
    pub(super) fn probe_lock(&self) -> Result<(), StoreError> {
        let lock = self.open_lock()?;
        if sys::retry(|| self.sys.try_lock(&lock.file)).map_err(failed)? {
            sys::retry(|| self.sys.unlock(&lock.file)).map_err(failed)?;
        }
        *hold(&self.gate) = Some(lock);
        Ok(())
    }

    /// Ends the wait of a thread for the lock, now and later: it gets `EINTR`.
    pub fn abandon(&self) {
        self.abandoned.store(true, Ordering::Release);
    }

    fn open_lock(&self) -> Result<LockFile, StoreError> {
        const DOING: &str = "opening the lock";
        for _ in 0..TRIES {
            match self.open_regular(LOCK, libc::O_RDWR, DOING, NO_LOCK_FILE) {
                Ok((file, stat)) => return Ok(LockFile { file: Arc::new(file), id: stat.id }),
                Err(e) if e.raw_os_error() == Some(libc::ENOENT) => {}
                Err(e) if e.is_stale() => continue,
                Err(e) => return Err(e),
            }
            match self.create(LOCK, DOING) {
                Ok(_) => {}
                Err(e) if e.raw_os_error() == Some(libc::EEXIST) => {}
                Err(e) => return Err(e),
            }
        }
        Err(StoreError::Io { doing: DOING, source: io::Error::from_raw_os_error(libc::ESTALE) })
    }

    /// Waits for the flock, but not for ever: a stopped process or a cut network may hold it, and we want to be able to end.
    fn flock(&self, file: &Arc<File>) -> Result<(), StoreError> {
        if sys::retry(|| self.sys.try_lock(file)).map_err(failed)? {
            return Ok(());
        }
        let (sender, receiver) = mpsc::channel();
        let (sys, waiting) = (Arc::clone(&self.sys), Arc::clone(file));
        thread::Builder::new()
            .name("cachedirfs-lock".to_owned())
            .spawn(processors::as_usual(move || {
                // If nobody waits any more, dropping the last reference closes the file, and that unlocks it.
                let _ = sender.send(sys::retry(|| sys.lock(&waiting)));
            }))
            .map_err(StoreError::io("waiting for the lock"))?;
        let begun = Instant::now();
        let mut told = TELL;
        loop {
            if begun.elapsed() >= told {
                told *= 2;
                let holder =
                    self.holder().map_or_else(|| "a process elsewhere".to_owned(), |it| it.to_string());
                let (path, seconds) = (self.path.display(), begun.elapsed().as_secs());
                ::log::warn!(
                    "{path}: {holder} holds the lock; changes have been waiting for it for {seconds} s"
                );
            }
            match receiver.recv_timeout(PATIENCE) {
                Ok(result) => {
                    if told > TELL {
                        let (path, seconds) = (self.path.display(), begun.elapsed().as_secs_f64());
                        ::log::info!("{path}: the lock is free, after {seconds:.1} s");
                    }
                    return result.map_err(failed);
                }
                Err(mpsc::RecvTimeoutError::Timeout) if !self.abandoned.load(Ordering::Acquire) => {}
                Err(_) => {
                    let source = io::Error::from_raw_os_error(libc::EINTR);
                    return Err(StoreError::Io { doing: "waiting for the lock", source });
                }
            }
        }
    }
}

/// What a failed flock means.
fn failed(source: io::Error) -> StoreError {
    match source.raw_os_error() {
        Some(libc::ENOSYS | libc::EOPNOTSUPP) => StoreError::NoLock(source),
        // A client of CephFS that has lost a lock while its node was cut off refuses all further ones of that file.
        Some(libc::EIO) => StoreError::Io {
            doing: "taking the lock (if it stays so, this node has to mount the file system of the cache anew)",
            source,
        },
        _ => StoreError::Io { doing: "taking the lock", source },
    }
}

impl Locked<'_> {
    /// Whether the file that we have locked is known to be no longer the one of the lock's name. If it was removed or replaced,
    /// somebody may have locked another one meanwhile.
    pub(super) fn is_lost(&self) -> bool {
        let store = self.store;
        match sys::retry(|| store.sys.stat(store.dir(), LOCK)) {
            Ok(stat) => self.gate.as_ref().is_none_or(|lock| lock.id != stat.id),
            Err(e) => e.raw_os_error() == Some(libc::ENOENT),
        }
    }

    /// Gives the lock up and takes it again.
    pub(super) fn retake(&mut self) -> Result<(), StoreError> {
        self.give_up();
        self.log = None;
        self.taken = self.store.take(&mut self.gate)?;
        Ok(())
    }

    fn give_up(&mut self) {
        let Some(lock) = self.gate.as_ref() else { return };
        if sys::retry(|| self.store.sys.unlock(&lock.file)).is_err() {
            // Closing it unlocks it too.
            *self.gate = None;
        }
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        self.give_up();
    }
}
