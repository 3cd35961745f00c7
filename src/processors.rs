//! On which processors threads run.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;
use std::thread;

/// A thread of this machine, by the number that the kernel gives it.
pub(crate) type ThreadId = i32;

/// The calling thread.
pub(crate) fn this_thread() -> ThreadId {
    // SAFETY: has no arguments and cannot fail.
    unsafe { libc::gettid() }
}

/// How the threads of this process are scheduled, as it was when this was first asked.
struct Usual {
    /// Empty if there are more processors than the set can hold.
    processors: libc::cpu_set_t,
    may_give_way: bool,
}

fn usual() -> &'static Usual {
    static USUAL: OnceLock<Usual> = OnceLock::new();
    USUAL.get_or_init(|| {
        let processors = allowed();
        // Only some may: root, and whom RLIMIT_NICE lets. It is tried out by a thread of which nothing is expected after that.
        let tried = thread::spawn(|| {
            // SAFETY: has no memory to get wrong.
            let policy = unsafe { libc::sched_getscheduler(0) };
            policy == libc::SCHED_OTHER
                && set_policy(0, libc::SCHED_IDLE).and_then(|()| set_policy(0, libc::SCHED_OTHER)).is_ok()
        });
        // SAFETY: reads the set.
        let several = unsafe { libc::CPU_COUNT(&processors) } > 1;
        Usual { processors, may_give_way: tried.join().unwrap_or_default() && several }
    })
}

/// The processors on which the calling thread may run.
fn allowed() -> libc::cpu_set_t {
    let mut set = no_processors();
    // SAFETY: the set has the size that is told, and outlives the call.
    unsafe { libc::sched_getaffinity(0, size_of_val(&set), &raw mut set) };
    set
}

fn no_processors() -> libc::cpu_set_t {
    // SAFETY: plain bits, none of which is set.
    unsafe { std::mem::zeroed() }
}

/// Whether [`give_way`] is of use: there is more than one processor, and threads can become again what they were.
pub(crate) fn may_give_way() -> bool {
    usual().may_give_way
}

/// Has a thread of this process run on one processor only, and only if nobody else wants to run there, until [`release`]. So do
/// the threads that it starts. EINVAL if this process may not run there.
pub(crate) fn give_way(thread: ThreadId, processor: usize) -> io::Result<()> {
    let size = 8 * size_of::<libc::cpu_set_t>();
    // SAFETY: the processor is checked to be within the set.
    if processor >= size || !unsafe { libc::CPU_ISSET(processor, &usual().processors) } {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let mut set = no_processors();
    // SAFETY: as above.
    unsafe { libc::CPU_SET(processor, &mut set) };
    set_affinity(thread, &set)?;
    set_policy(thread, libc::SCHED_IDLE)
}

/// What a thread does that is started while a request is answered: it runs as usual, whoever starts it.
pub(crate) fn as_usual<T>(body: impl FnOnce() -> T) -> impl FnOnce() -> T {
    move || {
        release(this_thread());
        body()
    }
}

/// Has a thread of this process run as usual, if it still runs.
pub(crate) fn release(thread: ThreadId) {
    if !may_give_way() {
        return;
    }
    let released =
        set_policy(thread, libc::SCHED_OTHER).and_then(|()| set_affinity(thread, &usual().processors));
    if let Err(error) = released
        && error.raw_os_error() != Some(libc::ESRCH)
    {
        log::warn!("thread {thread} does not run as usual: {error}");
    }
}

/// Whether there are processors for all that want one.
pub(crate) fn calm() -> bool {
    let Ok(load) = std::fs::read_to_string("/proc/loadavg") else { return false };
    // As in `0.20 0.18 0.12 2/80 11206`: threads that run or want to, of all.
    let running = load.split([' ', '/']).nth(3).and_then(|running| running.parse::<i64>().ok());
    // SAFETY: has no memory to get wrong.
    running.is_some_and(|running| running <= unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) })
}

/// How often the calling thread has slept, since it had to wait for something.
pub(crate) fn sleeps() -> i64 {
    // SAFETY: plain numbers, which may be zero.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the buffer outlives the call.
    unsafe { libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage) };
    usage.ru_nvcsw
}

fn set_policy(thread: ThreadId, policy: i32) -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: the parameters outlive the call.
    if unsafe { libc::sched_setscheduler(thread, policy, &raw const parameters) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn set_affinity(thread: ThreadId, set: &libc::cpu_set_t) -> io::Result<()> {
    // SAFETY: the set has the size that is told, and outlives the call.
    if unsafe { libc::sched_setaffinity(thread, size_of_val(set), set) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// A thread of any process, to be asked where it runs.
#[derive(Debug)]
pub(crate) struct Seen(File);

impl Seen {
    pub fn new(thread: u32) -> io::Result<Self> {
        File::open(format!("/proc/{thread}/stat")).map(Self)
    }

    /// The processor on which it runs, or has run last. ESRCH if it has ended. While it executes another program this can wait for
    /// as long as that takes: not to be asked by a thread for which that program may be waiting.
    pub fn processor(&self) -> io::Result<usize> {
        /// Of the fields behind the name of the program, which may contain anything: the 39th of all.
        const FIELD: usize = 36;
        let mut stat = [0; 1024];
        let length = self.0.read_at(&mut stat, 0)?;
        let stat = String::from_utf8_lossy(stat.get(..length).unwrap_or_default());
        let field = stat.rsplit_once(") ").and_then(|(_, fields)| fields.split(' ').nth(FIELD));
        field.and_then(|field| field.parse().ok()).ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where the calling thread may run, and its policy.
    fn mine() -> (libc::cpu_set_t, i32) {
        // SAFETY: has no memory to get wrong.
        (allowed(), unsafe { libc::sched_getscheduler(0) })
    }

    #[test]
    fn a_thread_runs_where_it_gives_way_and_as_usual_again() {
        let (before, policy) = mine();
        let me = this_thread();
        let seen = Seen::new(u32::try_from(me).unwrap()).unwrap();
        // SAFETY: within the set.
        let all: Vec<_> = (0..1024).filter(|it| unsafe { libc::CPU_ISSET(*it, &before) }).collect();
        // SAFETY: has no arguments.
        assert_eq!(may_give_way(), all.len() > 1 && unsafe { libc::geteuid() } == 0);
        if may_give_way() {
            for processor in all {
                give_way(me, processor).unwrap();
                assert_eq!(seen.processor().unwrap(), processor);
                assert_eq!(mine().1, libc::SCHED_IDLE);
            }
            release(me);
        }
        // SAFETY: reads both sets.
        assert!(unsafe { libc::CPU_EQUAL(&mine().0, &before) });
        assert_eq!(mine().1, policy);
        assert_eq!(give_way(me, 1 << 20).unwrap_err().raw_os_error(), Some(libc::EINVAL));
        assert_eq!(Seen::new(u32::MAX).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn who_waits_has_slept() {
        let before = sleeps();
        thread::sleep(std::time::Duration::from_millis(1));
        assert!(sleeps() > before);
    }
}
