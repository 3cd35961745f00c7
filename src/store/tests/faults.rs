//! File operations that fail, stop short, or kill the process, at a chosen call.

use std::collections::VecDeque;
use std::ffi::{CStr, c_int};
use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Mutex;
use std::time::Duration;

use crate::store::sys::{Real, Stat, Sys};

/// A file operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    Open,
    Stat,
    Read,
    Write,
    Truncate,
    Sync,
    Rename,
    Unlink,
    Chmod,
    Lock,
}

/// What happens at the chosen call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It gives this errno and does nothing.
    Errno(i32),
    /// It and every later one of its kind give this errno: a full disk.
    Full(i32),
    /// A write takes half of the bytes, and its repetition gives this errno; other calls as [`Fault::Errno`].
    Short(i32),
    /// The process dies before it.
    DieBefore,
    /// The process dies after it.
    DieAfter,
    /// The process dies when half is written; other calls as [`Fault::DieAfter`].
    DieHalf,
}

/// Where somebody who has not the lock writes when we write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Where {
    /// At the end; what we write lands behind it, as if our idea of the end had been old.
    Before,
    /// Behind what we write.
    After,
    /// Over what we write.
    Over,
}

#[derive(Debug, Default)]
struct State {
    armed: Option<(usize, Fault)>,
    calls: usize,
    /// Every call of this kind (of any, if `None`) fails from now on.
    broken: Option<(Option<Op>, i32)>,
    /// The next call of this kind fails.
    next: Option<(Op, i32)>,
    hit: Option<Op>,
}

/// Something that happens in the midst of others' work.
type Incident = Box<dyn FnOnce() + Send>;

/// The real system calls, until the chosen one.
#[derive(Default)]
pub(crate) struct Faulty {
    /// What happens just after the next call of a kind.
    incident: Mutex<Option<(Op, Incident)>>,
    /// For how long the machine slept.
    slept: Mutex<Duration>,
    state: Mutex<State>,
    done: Mutex<Vec<Op>>,
    /// What somebody else writes at our next writes, one after the other.
    others: Mutex<VecDeque<(Where, Vec<u8>)>>,
}

enum Verdict {
    Go,
    Half,
    /// Do it, then die.
    Last,
}

impl std::fmt::Debug for Faulty {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Faulty").field("state", &self.state).finish_non_exhaustive()
    }
}

impl Faulty {
    /// Something happens just after the next call of a kind.
    pub fn after(&self, op: Op, incident: impl FnOnce() + Send + 'static) {
        *self.incident.lock().unwrap() = Some((op, Box::new(incident)));
    }

    /// The machine sleeps.
    pub fn sleep(&self, duration: Duration) {
        *self.slept.lock().unwrap() += duration;
    }

    fn happen(&self, op: Op) {
        let incident = self.incident.lock().unwrap().take_if(|(kind, _)| *kind == op);
        if let Some((_, incident)) = incident {
            incident();
        }
    }

    /// Arms a fault at the call of this number, from 0, counted from now on.
    pub fn arm(&self, call: usize, fault: Fault) {
        *self.state.lock().unwrap() = State { armed: Some((call, fault)), ..State::default() };
    }

    /// Takes the fault away, as a new process or a mended disk would; gives the kind of the call that it hit.
    pub fn disarm(&self) -> Option<Op> {
        std::mem::take(&mut *self.state.lock().unwrap()).hit
    }

    /// Every call of a kind fails from now on.
    pub fn break_always(&self, op: Op, errno: i32) {
        self.state.lock().unwrap().broken = Some((Some(op), errno));
    }

    /// Somebody without the lock writes at our next write to which nobody does yet.
    pub fn intrude(&self, place: Where, bytes: &str) {
        self.others.lock().unwrap().push_back((place, bytes.as_bytes().to_vec()));
    }

    /// Writes, and lets others write.
    fn write_among_others(&self, file: &File, buf: &[u8], at: u64) -> io::Result<usize> {
        let Some((place, bytes)) = self.others.lock().unwrap().pop_front() else {
            return Real.write(file, buf, at);
        };
        let len = |bytes: &[u8]| u64::try_from(bytes.len()).unwrap();
        let (ours, theirs) = match place {
            Where::Before => (at + len(&bytes), at),
            Where::After => (at, at + len(buf)),
            Where::Over => (at, at),
        };
        let written = Real.write(file, buf, ours)?;
        assert_eq!(Real.write(file, &bytes, theirs)?, bytes.len());
        Ok(written)
    }

    /// How many calls of a kind were made.
    pub fn count(&self, op: Op) -> usize {
        self.done.lock().unwrap().iter().filter(|done| **done == op).count()
    }

    /// Which of these kinds the last call was of.
    #[cfg(feature = "models")]
    pub fn last_of(&self, kinds: &[Op]) -> Option<Op> {
        self.done.lock().unwrap().iter().rev().find(|done| kinds.contains(done)).copied()
    }

    fn enter(&self, op: Op) -> io::Result<Verdict> {
        self.done.lock().unwrap().push(op);
        let mut state = self.state.lock().unwrap();
        let call = state.calls;
        state.calls += 1;
        match state.broken {
            Some((kind, errno)) if kind.is_none_or(|kind| kind == op) => {
                return Err(io::Error::from_raw_os_error(errno));
            }
            _ => {}
        }
        if let Some((_, errno)) = state.next.take_if(|(kind, _)| *kind == op) {
            return Err(io::Error::from_raw_os_error(errno));
        }
        let Some((_, fault)) = state.armed.filter(|(at, _)| *at == call) else { return Ok(Verdict::Go) };
        state.hit = Some(op);
        match fault {
            Fault::Short(errno) if op == Op::Write => {
                state.next = Some((Op::Write, errno));
                Ok(Verdict::Half)
            }
            Fault::Errno(errno) | Fault::Short(errno) => Err(io::Error::from_raw_os_error(errno)),
            Fault::Full(errno) => {
                state.broken = Some((Some(op), errno));
                Err(io::Error::from_raw_os_error(errno))
            }
            Fault::DieBefore => {
                state.broken = Some((None, libc::EIO));
                Err(io::Error::from_raw_os_error(libc::EIO))
            }
            Fault::DieHalf if op == Op::Write => {
                state.broken = Some((None, libc::EIO));
                Ok(Verdict::Half)
            }
            Fault::DieAfter | Fault::DieHalf => {
                state.broken = Some((None, libc::EIO));
                Ok(Verdict::Last)
            }
        }
    }

    fn call<T>(&self, op: Op, real: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        match self.enter(op)? {
            Verdict::Go | Verdict::Half => real(),
            Verdict::Last => {
                real()?;
                Err(io::Error::from_raw_os_error(libc::EIO))
            }
        }
    }
}

impl Sys for Faulty {
    fn open(&self, dir: BorrowedFd<'_>, name: &CStr, flags: c_int, mode: u32) -> io::Result<File> {
        self.call(Op::Open, || Real.open(dir, name, flags, mode))
    }

    fn stat(&self, dir: BorrowedFd<'_>, name: &CStr) -> io::Result<Stat> {
        self.call(Op::Stat, || Real.stat(dir, name))
    }

    fn stat_file(&self, file: &File) -> io::Result<Stat> {
        self.call(Op::Stat, || Real.stat_file(file))
    }

    fn read(&self, file: &File, buf: &mut [u8], at: u64) -> io::Result<usize> {
        self.call(Op::Read, || Real.read(file, buf, at))
    }

    fn write(&self, file: &File, buf: &[u8], at: u64) -> io::Result<usize> {
        match self.enter(Op::Write)? {
            Verdict::Go => {
                let written = self.write_among_others(file, buf, at);
                self.happen(Op::Write);
                written
            }
            Verdict::Half => Real.write(file, &buf[..buf.len() / 2], at),
            Verdict::Last => {
                Real.write(file, buf, at)?;
                Err(io::Error::from_raw_os_error(libc::EIO))
            }
        }
    }

    fn truncate(&self, file: &File, len: u64) -> io::Result<()> {
        self.call(Op::Truncate, || Real.truncate(file, len))
    }

    fn sync_data(&self, file: &File) -> io::Result<()> {
        // Nothing is lost without a power cut: the real sync only costs time.
        let _ = file;
        self.call(Op::Sync, || Ok(()))
    }

    fn sync_dir(&self, _: BorrowedFd<'_>) -> io::Result<()> {
        self.call(Op::Sync, || Ok(()))
    }

    fn rename(&self, dir: BorrowedFd<'_>, from: &CStr, to: &CStr) -> io::Result<()> {
        self.call(Op::Rename, || Real.rename(dir, from, to))
    }

    fn unlink(&self, dir: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
        self.call(Op::Unlink, || Real.unlink(dir, name))
    }

    fn set_mode(&self, file: &File, mode: u32) -> io::Result<()> {
        self.call(Op::Chmod, || Real.set_mode(file, mode))
    }

    fn set_owner(&self, file: &File, uid: u32, gid: u32) -> io::Result<()> {
        self.call(Op::Chmod, || Real.set_owner(file, uid, gid))
    }

    fn try_lock(&self, file: &File) -> io::Result<bool> {
        self.call(Op::Lock, || Real.try_lock(file))
    }

    fn lock(&self, file: &File) -> io::Result<()> {
        self.call(Op::Lock, || Real.lock(file))
    }

    fn unlock(&self, file: &File) -> io::Result<()> {
        // A process that dies unlocks.
        let _ = self.call(Op::Lock, || Ok(()));
        Real.unlock(file)
    }

    fn uptime(&self) -> Duration {
        Real.uptime() + *self.slept.lock().unwrap()
    }
}
