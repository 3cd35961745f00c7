//! Calls that wait for a lock: each on a thread of its own, which a signal to the program ends.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::{backing, processors};

/// So many may wait at once; who comes later is refused (ENOLCK).
pub(super) const MOST: usize = 1000;
/// They do nothing but wait.
const STACK: usize = 64 << 10;
/// How often it is looked whether signals have come; less often if that takes long.
const PAUSE: Duration = Duration::from_millis(20);
/// A look may take this part of the time.
const SHARE: u32 = 10;

/// What becomes of a call.
pub(super) type Finish = Box<dyn FnOnce(io::Result<()>) + Send>;
/// Whether a signal has come for who waits.
pub(super) type Signalled = Box<dyn Fn() -> bool + Send + Sync>;

/// The calls that wait.
#[derive(Debug, Default)]
pub(super) struct Waits {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    waiting: HashMap<u64, Arc<Waiter>>,
    next: u64,
    /// Whether a thread looks for signals.
    watched: bool,
}

struct Waiter {
    /// 0 before it runs.
    thread: AtomicI32,
    signalled: Signalled,
    interrupted: AtomicBool,
}

impl std::fmt::Debug for Waiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waiter").field("thread", &self.thread).finish_non_exhaustive()
    }
}

impl Waits {
    /// Makes a call that waits. It ends with EINTR once a signal has come.
    pub fn start(
        &self,
        signalled: Signalled,
        call: impl Fn() -> io::Result<()> + Send + 'static,
        finish: Finish,
    ) {
        let refused = || Err(io::Error::from_raw_os_error(libc::ENOLCK));
        let waiter =
            Arc::new(Waiter { thread: AtomicI32::new(0), signalled, interrupted: AtomicBool::new(false) });
        let number = {
            let mut state = lock(&self.state);
            if state.waiting.len() >= MOST {
                drop(state);
                log::warn!("more than {MOST} programs wait for locks: others are refused");
                return finish(refused());
            }
            state.next += 1;
            let number = state.next;
            state.waiting.insert(number, Arc::clone(&waiter));
            number
        };
        // Kept beside the thread, in case it cannot be started.
        let finish = Arc::new(Mutex::new(Some(finish)));
        let (state, theirs) = (Arc::clone(&self.state), Arc::clone(&finish));
        let started = self.watch().and_then(|()| {
            thread("lock", move || {
                waiter.thread.store(backing::thread_number(), Ordering::Release);
                let result = waiter.wait(call);
                // From here on nobody sends this thread a signal.
                lock(&state).waiting.remove(&number);
                let finish = lock(&theirs).take();
                if let Some(finish) = finish {
                    finish(result);
                }
            })
        });
        if let Err(cause) = started {
            log::warn!("no thread to wait for a lock: {cause}");
            lock(&self.state).waiting.remove(&number);
            let finish = lock(&finish).take();
            if let Some(finish) = finish {
                finish(refused());
            }
        }
    }

    /// Number of calls that wait.
    pub fn len(&self) -> usize {
        lock(&self.state).waiting.len()
    }

    /// Sees to it that a thread looks for signals as long as anybody waits.
    fn watch(&self) -> io::Result<()> {
        let mut state = lock(&self.state);
        if state.watched {
            return Ok(());
        }
        let shared = Arc::clone(&self.state);
        thread("signals", move || watch(&shared))?;
        state.watched = true;
        Ok(())
    }
}

impl Waiter {
    fn wait(&self, call: impl Fn() -> io::Result<()>) -> io::Result<()> {
        loop {
            if self.interrupted.load(Ordering::Acquire) {
                return Err(io::Error::from_raw_os_error(libc::EINTR));
            }
            match call() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }
}

/// Ends the waits of those for whom a signal has come, until nobody waits.
fn watch(shared: &Mutex<State>) {
    loop {
        let waiters: Vec<_> = {
            let mut state = lock(shared);
            state.watched = !state.waiting.is_empty();
            if !state.watched {
                return;
            }
            state.waiting.iter().map(|(number, waiter)| (*number, Arc::clone(waiter))).collect()
        };
        let start = Instant::now();
        for (number, waiter) in &waiters {
            if !waiter.interrupted.load(Ordering::Acquire) && (waiter.signalled)() {
                waiter.interrupted.store(true, Ordering::Release);
            }
            // Said again until it has ended: it may not have been in its call yet. Under the lock its thread is still there.
            let state = lock(shared);
            if waiter.interrupted.load(Ordering::Acquire) && state.waiting.contains_key(number) {
                match waiter.thread.load(Ordering::Acquire) {
                    0 => {}
                    thread => backing::wake_thread(thread),
                }
            }
        }
        std::thread::sleep(PAUSE.max(start.elapsed() * SHARE));
    }
}

fn thread(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let builder = std::thread::Builder::new().name(name.to_owned()).stack_size(STACK);
    builder.spawn(processors::as_usual(body)).map(drop)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd, OwnedFd};
    use std::sync::mpsc::{Receiver, channel};

    use super::*;
    use crate::backing::{LockKind, flock, nameless_file, reopen};

    const SOON: Duration = Duration::from_secs(60);

    /// Waits for a file that is locked already, until it gets it or this is set.
    fn wait(waits: &Waits, mine: &Arc<OwnedFd>) -> (Receiver<io::Result<()>>, Arc<AtomicBool>) {
        let (send, answer) = channel();
        let (mine, signal) = (Arc::clone(mine), Arc::new(AtomicBool::new(false)));
        let call = move || flock(mine.as_fd(), Some(LockKind::Exclusive), true);
        let theirs = Arc::clone(&signal);
        let signalled = Box::new(move || theirs.load(Ordering::Relaxed));
        waits.start(signalled, call, Box::new(move |result| send.send(result).unwrap()));
        (answer, signal)
    }

    fn locked() -> (OwnedFd, Arc<OwnedFd>) {
        let locked = nameless_file().unwrap();
        flock(locked.as_fd(), Some(LockKind::Exclusive), false).unwrap();
        let other = reopen(locked.as_fd(), libc::O_RDWR).unwrap();
        (locked, Arc::new(other))
    }

    fn errno(answer: &Receiver<io::Result<()>>) -> Option<i32> {
        answer.recv_timeout(SOON).unwrap().unwrap_err().raw_os_error()
    }

    #[test]
    fn a_signal_ends_the_wait_of_whom_it_is_for() {
        let (locked, mine) = locked();
        let waits = Waits::default();
        let waiting: Vec<_> = (0..20).map(|_| wait(&waits, &mine)).collect();
        let ((last, _), interrupted) = waiting.split_last().unwrap();
        for (_, signal) in interrupted {
            signal.store(true, Ordering::Relaxed);
        }
        for (answer, _) in interrupted {
            assert_eq!(errno(answer), Some(libc::EINTR));
        }
        assert_eq!(waits.len(), 1);
        flock(locked.as_fd(), None, false).unwrap();
        last.recv_timeout(SOON).unwrap().unwrap();
        assert_eq!(waits.len(), 0);
    }

    #[test]
    fn so_many_wait_and_no_more() {
        let (_locked, mine) = locked();
        let waits = Waits::default();
        // They share one descriptor, as threads of one program do.
        let waiting: Vec<_> = (0..MOST).map(|_| wait(&waits, &mine)).collect();
        assert_eq!(errno(&wait(&waits, &mine).0), Some(libc::ENOLCK));
        for (_, signal) in &waiting {
            signal.store(true, Ordering::Relaxed);
        }
        for (answer, _) in &waiting {
            assert_eq!(errno(answer), Some(libc::EINTR));
        }
    }
}
