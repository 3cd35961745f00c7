//! Locks, channels and threads of all that several threads share, from one place: they are those of the standard library,
//! but in the tests of schedules (feature `models`), where `shuttle` decides which thread goes on at each of them.

#[cfg(not(all(test, feature = "models")))]
pub(crate) use std::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        TryLockError, Weak, atomic, mpsc,
    },
    thread,
};

#[cfg(all(test, feature = "models"))]
pub(crate) use self::shuttled::{
    Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
    TryLockError, Weak, atomic, mpsc, thread,
};

/// In a model all threads are one of the system: none may sleep in the kernel.
pub(crate) const MODELLED: bool = cfg!(all(test, feature = "models"));

#[cfg(all(test, feature = "models"))]
mod shuttled {
    pub(crate) use shuttle::sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        TryLockError, Weak, atomic, mpsc,
    };
    // Never waited for: what fills it in waits for nobody.
    pub(crate) use std::sync::OnceLock;

    pub(crate) mod thread {
        use std::sync::Arc;
        use std::sync::atomic::{AtomicBool, Ordering};
        use std::time::Duration;

        pub(crate) use shuttle::thread::{Thread, ThreadId, current, yield_now};

        /// There is no time in a model: whoever sleeps lets others go on.
        pub(crate) fn sleep(_: Duration) {
            yield_now();
        }

        /// A thread that can be asked whether it has ended, which those of `shuttle` cannot.
        #[derive(Debug)]
        pub(crate) struct JoinHandle<T> {
            inner: shuttle::thread::JoinHandle<T>,
            finished: Arc<AtomicBool>,
        }

        impl<T> JoinHandle<T> {
            pub fn thread(&self) -> &Thread {
                self.inner.thread()
            }

            pub fn is_finished(&self) -> bool {
                self.finished.load(Ordering::Relaxed)
            }
        }

        pub(crate) struct Builder(shuttle::thread::Builder);

        impl Builder {
            pub fn new() -> Self {
                Self(shuttle::thread::Builder::new())
            }

            pub fn name(self, name: String) -> Self {
                Self(self.0.name(name))
            }

            pub fn spawn<T: Send + 'static>(
                self,
                body: impl FnOnce() -> T + Send + 'static,
            ) -> std::io::Result<JoinHandle<T>> {
                let finished = Arc::new(AtomicBool::new(false));
                let told = Arc::clone(&finished);
                let inner = self.0.spawn(move || {
                    let result = body();
                    told.store(true, Ordering::Relaxed);
                    result
                })?;
                Ok(JoinHandle { inner, finished })
            }
        }
    }
}

/// Runs a scenario under many schedules, half of them with few preemptions; each must hold and end. `CACHEDIRFS_SCHEDULES`
/// is how many; what is printed of one that fails runs it again as `CACHEDIRFS_SCHEDULE`.
#[cfg(all(test, feature = "models"))]
pub(crate) fn explore(scenario: impl Fn() + Send + Sync + Clone + 'static) {
    use shuttle::scheduler::{PctScheduler, RandomScheduler};
    use shuttle::{Config, Runner};
    const PREEMPTIONS: usize = 3;
    if let Ok(schedule) = std::env::var("CACHEDIRFS_SCHEDULE") {
        return shuttle::replay(scenario, &schedule);
    }
    let many = std::env::var("CACHEDIRFS_SCHEDULES").ok().and_then(|many| many.parse().ok()).unwrap_or(1000);
    let config = || {
        let mut config = Config::new();
        config.stack_size = 1 << 18;
        config
    };
    Runner::new(RandomScheduler::new(many / 2), config()).run(scenario.clone());
    Runner::new(PctScheduler::new(PREEMPTIONS, many / 2), config()).run(scenario);
}
