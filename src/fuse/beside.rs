//! Which thread answers: any, or, while one program asks without pause, one on the processor of that program.
//!
//! To wake a thread on another processor takes longer than most requests do, above all in virtual machines, where both processors
//! fall asleep between request and answer. A program that waits for an answer does not need its own, so the thread that answers
//! runs there, and gives way to the program (and to everybody else) when that goes on: for a thread that stayed the scheduler
//! would move the program to an idle processor. Now and then it does so nevertheless; the thread follows. The other threads are out
//! of the way meanwhile: they do not come back from a request that they have answered. (The loop that reads requests belongs to
//! the library, and who reads is the kernel's choice among those who wait.)
//!
//! All this is a matter of speed alone, and only for who may give way and be as before after that ([`processors::may_give_way`]).
//! It ends when no requests come, when others ask too, and when an answer takes long, since others want the processor or the disk
//! is waited for: then all threads answer again, as usual.

use std::cell::RefCell;
use std::io;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::processors::{self, Seen};

/// So many requests of one thread, each within [`SOON`] of the last, and none while another is answered, are a program that asks
/// without pause.
const RUN: u64 = 32;
const SOON: Duration = Duration::from_micros(200);
/// If the thread has to sleep before so many requests in a row, the program is on another processor.
const FAR: u32 = 3;
/// If it is not, it is only slow: so many requests until it is looked at again.
const PATIENCE: u32 = 64;
/// How often it is looked at whether it is still of use. Others who ask meanwhile may have to wait for as long.
const TICK: Duration = Duration::from_millis(5);
/// Fewer requests in that time: others want the processor, or it is the disk that is waited for.
const FEW: u64 = 8;
/// After it was of no use it is not tried again for a while: the next is twice as long, up to the most.
const PAUSE: Duration = Duration::from_millis(10);
const MOST_PAUSE: Duration = Duration::from_millis(640);

thread_local! {
    /// Of the thread that answers alone.
    static ALONE: RefCell<Option<Alone>> = const { RefCell::new(None) };
}

/// What the thread that answers alone knows.
#[derive(Debug)]
struct Alone {
    /// Which time it is: the thread is not told when one is over.
    time: u64,
    program: Seen,
    processor: usize,
    /// As of [`processors::sleeps`], and before how many requests in a row there were more.
    sleeps: i64,
    slept: u32,
    patience: u32,
}

impl Alone {
    /// A request of the program has come.
    fn comes(&mut self) {
        let sleeps = processors::sleeps();
        self.slept = if sleeps == self.sleeps { 0 } else { self.slept + 1 };
        self.sleeps = sleeps;
        self.patience = self.patience.saturating_sub(1);
    }

    /// Goes where the program is. Only when it has its answer: see [`Seen::processor`].
    fn follow(&mut self) -> io::Result<()> {
        if self.slept < FAR || self.patience > 0 {
            return Ok(());
        }
        self.slept = 0;
        let processor = self.program.processor()?;
        if processor == self.processor {
            self.patience = PATIENCE;
            return Ok(());
        }
        processors::give_way(processors::this_thread(), processor)?;
        self.processor = processor;
        Ok(())
    }
}

/// Calls a function for the calling thread if it is the one that answers alone this time.
fn if_alone(time: u64, call: impl FnOnce(&mut Alone)) -> bool {
    ALONE.with_borrow_mut(|alone| match alone {
        Some(alone) if alone.time == time => {
            call(alone);
            true
        }
        _ => false,
    })
}

/// What the threads of a session know of each other.
#[derive(Debug)]
pub(super) struct Beside {
    possible: bool,
    began: Instant,
    /// Requests being answered, of those for which somebody waits.
    inside: AtomicUsize,
    /// The thread that asked last, and how many requests of it came without pause.
    asker: AtomicU32,
    run: AtomicU64,
    /// Requests answered; those of others than the program beside which a thread runs.
    answered: AtomicU64,
    of_others: AtomicU64,
    /// When the last one was answered, and until when this is not tried again: nanoseconds since `began`.
    last: AtomicU64,
    pause_ends: AtomicU64,
    /// The thread beside which one runs, or 0. Changed under the lock.
    program: AtomicU32,
    /// Counts the times that a thread ran beside a program.
    time: AtomicU64,
    /// How long the next pause is.
    pause: Mutex<Duration>,
    over: Condvar,
}

impl Beside {
    pub fn new() -> Self {
        Self {
            possible: processors::may_give_way(),
            began: Instant::now(),
            inside: AtomicUsize::new(0),
            asker: AtomicU32::new(0),
            run: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            of_others: AtomicU64::new(0),
            last: AtomicU64::new(0),
            pause_ends: AtomicU64::new(0),
            program: AtomicU32::new(0),
            time: AtomicU64::new(0),
            pause: Mutex::new(PAUSE),
            over: Condvar::new(),
        }
    }

    /// The calling thread begins to answer a request of a thread, 0 if that is nobody's or takes long; it has answered it when what
    /// this gives is dropped.
    pub fn turn(self: &Arc<Self>, asker: u32) -> Turn<'_> {
        if !self.possible {
            return Turn { beside: None, counts: true };
        }
        let waited = self.now().saturating_sub(self.last.load(Ordering::Relaxed));
        let others = self.inside.fetch_add(1, Ordering::Relaxed);
        let same = self.asker.swap(asker, Ordering::Relaxed) == asker;
        match self.program.load(Ordering::Relaxed) {
            0 if asker != 0 && same && others == 0 && waited < nanos(SOON) => {
                self.run.fetch_add(1, Ordering::Relaxed);
            }
            0 => self.run.store(0, Ordering::Relaxed),
            program if program == asker => {
                if_alone(self.time.load(Ordering::Relaxed), Alone::comes);
            }
            _ => {
                self.of_others.fetch_add(1, Ordering::Relaxed);
            }
        }
        Turn { beside: Some(self), counts: true }
    }

    /// The same for something for which nobody waits.
    pub fn turn_aside(self: &Arc<Self>) -> Turn<'_> {
        Turn { beside: self.possible.then_some(self), counts: false }
    }

    fn now(&self) -> u64 {
        nanos(self.began.elapsed())
    }

    /// The calling thread has answered.
    fn done(self: &Arc<Self>, counts: bool) {
        let now = self.now();
        if counts {
            self.last.store(now, Ordering::Relaxed);
            self.answered.fetch_add(1, Ordering::Relaxed);
            self.inside.fetch_sub(1, Ordering::Relaxed);
        }
        if self.program.load(Ordering::Acquire) == 0 {
            let unpaused = now >= self.pause_ends.load(Ordering::Relaxed);
            if self.run.load(Ordering::Relaxed) >= RUN && unpaused {
                self.start(self.asker.load(Ordering::Relaxed));
            }
            return;
        }
        let time = self.time.load(Ordering::Relaxed);
        let alone = if_alone(time, |alone| {
            if let Err(error) = alone.follow() {
                log::trace!("the thread stays where it is: {error}");
            }
        });
        if !alone {
            self.wait();
        } else if !self.is_time(time) {
            // It may have been over before the thread was elsewhere.
            processors::release(processors::this_thread());
        }
    }

    /// From now on the calling thread answers alone, beside a program.
    fn start(self: &Arc<Self>, program: u32) {
        self.run.store(0, Ordering::Relaxed);
        if program == 0 {
            return;
        }
        if !processors::calm() {
            // That passes, and was told at once: nothing was tried in vain.
            self.pause_ends.store(self.now() + nanos(TICK), Ordering::Relaxed);
            return;
        }
        // Not under the lock: this may wait for the program, which may wait for an answer.
        let seen = Seen::new(program).and_then(|seen| Ok((seen.processor()?, seen)));
        let mut pause = self.lock();
        if self.program.load(Ordering::Relaxed) != 0 {
            return;
        }
        let (processor, seen) = match seen {
            Ok(seen) => seen,
            Err(error) => {
                log::debug!("no thread runs beside {program}: {error}");
                return self.put_off(&mut pause);
            }
        };
        let time = self.time.load(Ordering::Relaxed) + 1;
        let sleeps = processors::sleeps();
        ALONE.set(Some(Alone { time, program: seen, processor, sleeps, slept: 0, patience: 0 }));
        self.time.store(time, Ordering::Relaxed);
        self.program.store(program, Ordering::Release);
        drop(pause);
        // First somebody who watches, who must not give way.
        let (this, thread) = (Arc::clone(self), processors::this_thread());
        let watch = move || {
            if let Some(in_vain) = this.watch(time) {
                this.stop(in_vain);
            }
            processors::release(thread);
        };
        let watched = thread::Builder::new().name("beside".into()).stack_size(64 << 10).spawn(watch);
        if let Err(error) = watched.and_then(|_| processors::give_way(thread, processor)) {
            log::debug!("no thread runs beside {program}: {error}");
            self.stop(true);
            processors::release(thread);
        }
    }

    /// Not tried again for a while.
    fn put_off(&self, pause: &mut Duration) {
        self.pause_ends.store(self.now() + nanos(*pause), Ordering::Relaxed);
        *pause = MOST_PAUSE.min(*pause * 2);
    }

    /// All threads answer again.
    fn stop(&self, in_vain: bool) {
        let mut pause = self.lock();
        if in_vain {
            self.put_off(&mut pause);
        } else {
            *pause = PAUSE;
        }
        self.program.store(0, Ordering::Release);
        self.over.notify_all();
    }

    /// Comes back when it is of no use any more that one thread answers alone; tells whether it was of little, if that is not over
    /// anyway.
    fn watch(&self, time: u64) -> Option<bool> {
        let began = Instant::now();
        let counts = || (self.answered.load(Ordering::Relaxed), self.of_others.load(Ordering::Relaxed));
        let mut before = counts();
        while self.is_time(time) {
            thread::sleep(TICK);
            let now = counts();
            let (answered, of_others) = (now.0.saturating_sub(before.0), now.1.saturating_sub(before.1));
            before = now;
            if answered < FEW || of_others * 4 > answered {
                let (idle, lasted) =
                    (answered == 0 && self.inside.load(Ordering::Relaxed) == 0, began.elapsed());
                log::trace!("a thread was alone for {lasted:?}: {answered} requests, {of_others} of others");
                return Some(!idle && lasted < 4 * TICK);
            }
        }
        None
    }

    /// Whether a thread still answers alone for this time.
    fn is_time(&self, time: u64) -> bool {
        self.program.load(Ordering::Acquire) != 0 && self.time.load(Ordering::Relaxed) == time
    }

    /// Out of the way, until it is over.
    fn wait(&self) {
        let alone = |_: &mut Duration| self.program.load(Ordering::Relaxed) != 0;
        drop(self.over.wait_while(self.lock(), alone).unwrap_or_else(PoisonError::into_inner));
    }

    fn lock(&self) -> MutexGuard<'_, Duration> {
        self.pause.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that a thread answers.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    /// None where no thread ever answers beside a program.
    beside: Option<&'a Arc<Beside>>,
    /// Whether somebody waits for it.
    counts: bool,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if let Some(beside) = self.beside {
            beside.done(self.counts);
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
