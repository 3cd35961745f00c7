//! Locks on files of entries hold against everybody: programs of the mount, of other mounts, and of no mount.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use common::{Cache, Mount, Options, User, bash, poll, read, run};

/// No answer within this is a hang.
const SOON: Duration = Duration::from_secs(20);
/// What is not answered within this waits.
const WAITS: Duration = Duration::from_millis(120);

/// An interpreter that any user can run, if there is one: not one below somebody's home.
fn python() -> &'static str {
    let shared = ["/usr/bin/python3", "/usr/local/bin/python3"];
    shared.into_iter().find(|path| Path::new(path).exists()).unwrap_or("python3")
}

/// A process of `locker.py`. Killed at the end.
struct Locker {
    child: Child,
    input: ChildStdin,
    answers: Receiver<String>,
}

impl Locker {
    fn new() -> Self {
        Self::by(None)
    }

    fn by(user: Option<&User>) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/locker.py");
        // By its text: an ordinary user may not be able to read the file.
        let mut command = Command::new(python());
        command.arg("-c").arg(read(script)).current_dir("/");
        if let Some(user) = user {
            command = user.wrap(&command);
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("start python3");
        let (send, answers) = channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    break;
                }
            }
        });
        Self { input: child.stdin.take().unwrap(), child, answers }
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    fn tell(&mut self, line: &str) {
        writeln!(self.input, "{line}").unwrap();
    }

    #[track_caller]
    fn answer(&mut self) -> String {
        self.answers.recv_timeout(SOON).expect("an answer of the locker")
    }

    #[track_caller]
    fn ask(&mut self, line: &str) -> String {
        self.tell(line);
        self.answer()
    }

    #[track_caller]
    fn ok(&mut self, line: &str) -> &mut Self {
        let answer = self.ask(line);
        assert!(answer.starts_with("ok"), "{line}: {answer}");
        self
    }

    #[track_caller]
    fn refused(&mut self, line: &str) -> &mut Self {
        let answer = self.ask(line);
        assert_eq!(answer, "EAGAIN", "{line}");
        self
    }

    /// Asks for a lock, and sees that there is no answer yet.
    #[track_caller]
    fn waits(&mut self, line: &str) {
        self.tell(line);
        let answer = self.answers.recv_timeout(WAITS);
        assert_eq!(answer, Err(RecvTimeoutError::Timeout), "{line}");
    }

    fn signal(&self, signal: i32) {
        // SAFETY: a child that has not been waited for; plain numbers.
        unsafe { libc::kill(self.pid(), signal) };
    }

    /// Kills it, and waits for its end: that the kernel lets it end is part of what is tested.
    #[track_caller]
    fn kill(&mut self) {
        self.signal(libc::SIGKILL);
        poll("a killed process ends", SOON, || self.child.try_wait().unwrap());
    }
}

impl Drop for Locker {
    fn drop(&mut self) {
        self.signal(libc::SIGKILL);
        let deadline = Instant::now() + SOON;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// A mounted cache and a file in it, through the mount and underneath.
struct Fixture {
    mount: Mount,
    file: String,
    real: String,
    cache: Cache,
    id: String,
}

fn fixture_with(options: &str) -> Fixture {
    let cache = Cache::new();
    cache.add("e1", 1.0, "");
    fs::write(cache.join("e1/f"), "content").unwrap();
    let mount = cache.mount_with(options);
    let text = |path: PathBuf| path.to_str().unwrap().to_owned();
    Fixture {
        file: text(mount.join("entries/e1/f")),
        real: text(cache.join("e1/f")),
        mount,
        cache,
        id: "e1".into(),
    }
}

fn fixture() -> Fixture {
    fixture_with("")
}

/// A cache, with an entry and a file in it, that belongs to a user.
fn cache_of(user: &User) -> Cache {
    let cache = Cache::of(user);
    cache.add("e1", 1.0, "");
    fs::write(cache.join("e1/f"), "").unwrap();
    for path in ["e1", "e1/f", "_entries", "_lock"] {
        user.own(&cache.join(path));
    }
    cache
}

/// Two processes with the file open as `f`.
fn pair(one: &str, other: &str) -> (Locker, Locker) {
    let (mut a, mut b) = (Locker::new(), Locker::new());
    a.ok(&format!("open f {one}"));
    b.ok(&format!("open f {other}"));
    (a, b)
}

#[track_caller]
fn settled(mount: &Mount) {
    poll("no locks are left", SOON, || {
        let status = mount.status();
        (status["locks_held"] == 0 && status["locks_waiting"] == 0).then_some(())
    });
}

fn waiting(mount: &Mount, count: usize) {
    poll("so many wait", SOON, || (mount.status()["locks_waiting"] == count).then_some(()));
}

/// All that two processes may expect of each other, wherever each of them is.
fn exclude_each_other(one: &str, other: &str) {
    let (mut a, mut b) = pair(one, other);
    // flock
    a.ok("flock f ex");
    b.refused("flock f sh nb").refused("flock f ex nb");
    a.ok("flock f sh");
    b.ok("flock f sh nb");
    a.refused("flock f ex nb").ok("flock f sh nb");
    a.ok("flock f un");
    b.ok("flock f ex nb");
    a.waits("flock f ex");
    b.ok("flock f un");
    assert_eq!(a.answer(), "ok");
    b.waits("flock f sh");
    a.ok("close f");
    assert_eq!(b.answer(), "ok", "the last close unlocks");
    b.ok("flock f un");
    a.ok(&format!("open f {one}"));
    // fcntl
    a.ok("lock f w 0 10").ok("lock f r 20 10");
    b.refused("lock f r 5 10 nb").ok("lock f w 10 10 nb").ok("lock f r 25 1 nb").refused("lock f w 29 1 nb");
    b.ok("lock f w 30 0 nb");
    a.refused("lock f r 1000000 1 nb").ok("lock f u 0 5");
    b.ok("lock f w 0 5 nb").refused("lock f w 0 6 nb");
    a.waits("lock f w 0 10");
    b.ok("lock f u 0 5");
    assert_eq!(a.answer(), "ok");
    b.ok("lock f u");
    a.ok("lock f u");
    // flock and fcntl do not know each other.
    a.ok("flock f ex nb");
    b.ok("lock f w nb");
    a.ok("flock f un");
    // An open file's own locks are of the kind of fcntl.
    b.ok("lock f u");
    a.ok("ofd f w 0 100 nb");
    b.refused("lock f r 99 1 nb").refused("ofd f w 50 1 nb");
    b.waits("lock f w");
    a.ok("ofd f u 0 100");
    assert_eq!(b.answer(), "ok");
    b.ok("close f");
    a.ok("ofd f w nb");
    a.ok("close f");
    // A process that is killed holds nothing.
    let (mut a, mut b) = pair(one, other);
    a.ok("lock f w").ok("flock f ex");
    b.waits("lock f r");
    a.kill();
    assert_eq!(b.answer(), "ok");
    b.ok("flock f ex");
    let mut c = Locker::new();
    c.ok(&format!("open f {one}"));
    c.waits("flock f sh");
    b.kill();
    assert_eq!(c.answer(), "ok");
    // Shared ones through descriptors that read only.
    let (mut a, mut b) = pair(&format!("{one} RDONLY"), &format!("{other} RDONLY"));
    c.ok("flock f un");
    a.ok("lock f r nb").ok("flock f sh nb");
    b.ok("lock f r nb").ok("flock f sh nb");
    c.refused("lock f w nb").refused("flock f ex nb");
    assert_eq!(a.ask("lock f w nb"), "EBADF");
    b.ok("close f");
    a.ok("close f");
    poll("closing unlocks", SOON, || (c.ask("lock f w nb") == "ok").then_some(()));
    poll("closing unlocks", SOON, || (c.ask("flock f ex nb") == "ok").then_some(()));
}

#[test]
fn in_one_mount() {
    for options in ["", "nopassthrough", "threads=1"] {
        let fixture = fixture_with(options);
        exclude_each_other(&fixture.file, &fixture.file);
        settled(&fixture.mount);
    }
}

#[test]
fn against_a_program_of_no_mount() {
    for options in ["", "nopassthrough"] {
        let fixture = fixture_with(options);
        exclude_each_other(&fixture.file, &fixture.real);
        exclude_each_other(&fixture.real, &fixture.file);
        settled(&fixture.mount);
    }
}

#[test]
fn between_two_mounts() {
    let fixture = fixture();
    let other = fixture.cache.mount();
    let there = other.join("entries/e1/f");
    exclude_each_other(&fixture.file, there.to_str().unwrap());
    settled(&fixture.mount);
    settled(&other);
}

#[test]
fn through_all_paths_of_an_entry() {
    let fixture = fixture();
    fs::create_dir(fixture.mount.join("new/x")).unwrap();
    let alias = fixture.mount.join("new/x/f");
    fs::write(&alias, "").unwrap();
    let id = fixture.mount.id(&fixture.mount.join("new/x"));
    let entry = fixture.mount.join("entries").join(id).join("f");
    exclude_each_other(alias.to_str().unwrap(), entry.to_str().unwrap());
}

#[test]
fn an_ordinary_user() {
    let user = User::ordinary();
    let cache = cache_of(&user);
    let mount = Mount::new(cache.path(), &Options { user: Some(&user), ..Options::default() });
    let (mut a, mut b) = (Locker::by(Some(&user)), Locker::by(Some(&user)));
    a.ok(&format!("open f {}", mount.join("entries/e1/f").display()));
    b.ok(&format!("open f {}", cache.join("e1/f").display()));
    for verb in [["flock f ex nb", "flock f un", "flock f ex"], ["lock f w nb", "lock f u", "lock f w"]] {
        a.ok(verb[0]);
        b.refused(verb[0]);
        b.waits(verb[2]);
        a.ok(verb[1]);
        assert_eq!(b.answer(), "ok");
        // Whose signals the kernel tells of on behalf of nobody.
        a.tell("alarm 50");
        assert_eq!(a.answer(), "ok");
        assert_eq!(a.ask(verb[2]), "EINTR");
        b.ok(verb[1]);
    }
}

/// The daemon of an ordinary user is not told by which call root asks: it takes locks of both kinds.
#[test]
fn those_whom_the_daemon_may_not_trace() {
    if !common::is_root() {
        eprintln!("only root is somebody whom an ordinary user's daemon may not trace: run as root");
        return;
    }
    let user = User::ordinary();
    let cache = cache_of(&user);
    let options = Options { user: Some(&user), options: "allow_other", ..Options::default() };
    let mount = Mount::new(cache.path(), &options);
    let (here, real) = (mount.join("entries/e1/f"), cache.join("e1/f"));
    let (mut a, mut b) = pair(here.to_str().unwrap(), real.to_str().unwrap());
    for verb in [["flock f ex nb", "flock f un", "flock f ex"], ["lock f w nb", "lock f u", "lock f w"]] {
        a.ok(verb[0]);
        b.refused(verb[0]);
        b.waits(verb[2]);
        a.ok(verb[1]);
        assert_eq!(b.answer(), "ok");
        a.refused(verb[0]).ok("alarm 50");
        assert_eq!(a.ask(verb[2]), "EINTR");
        b.ok(verb[1]);
        // What was refused or interrupted left nothing behind.
        b.ok("flock f ex nb").ok("lock f w nb").ok("flock f un").ok("lock f u");
    }
    a.ok("flock f sh nb").ok("flock f ex nb");
    b.refused("lock f r nb").refused("flock f sh nb");
    a.ok("flock f un").ok("lock f r 0 10 nb").ok("lock f r").ok("close f");
    poll("the last close unlocks", SOON, || (b.ask("flock f ex nb") == "ok").then_some(()));
    poll("the last close unlocks", SOON, || (b.ask("lock f w nb") == "ok").then_some(()));
    settled(&mount);
}

#[test]
fn other_users_of_a_root_mount() {
    if !common::is_root() {
        eprintln!("only root mounts for others without asking: covered by an_ordinary_user");
        return;
    }
    let user = User::ordinary();
    let fixture = fixture_with("allow_other");
    fs::set_permissions(&fixture.real, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let (mut root, mut other) = (Locker::new(), Locker::by(Some(&user)));
    root.ok(&format!("open f {}", fixture.file));
    assert_eq!(other.ask(&format!("open f {}", fixture.file)), "EACCES");
    other.ok(&format!("open f {} RDONLY", fixture.file));
    other.ok("lock f r nb").ok("flock f sh nb");
    root.refused("lock f w nb").refused("flock f ex nb");
    other.kill();
    root.ok("lock f w").ok("flock f ex");
}

#[test]
fn a_read_only_mount() {
    let fixture = fixture();
    let other = fixture.cache.mount_with("ro");
    let there = other.join("entries/e1/f");
    let (mut a, mut b) = pair(&fixture.file, &format!("{} RDONLY", there.display()));
    b.ok("lock f r 0 10 nb").ok("flock f ex nb");
    a.refused("lock f w nb").refused("flock f sh nb");
    assert_eq!(b.ask("lock f w nb"), "EBADF");
    b.kill();
    a.ok("lock f w").ok("flock f ex");
    settled(&other);
}

#[test]
fn who_is_in_the_way() {
    let fixture = fixture();
    let (mut a, mut b) = pair(&fixture.file, &fixture.file);
    let mut direct = Locker::new();
    direct.ok(&format!("open f {}", fixture.real));
    assert_eq!(a.ask("get f w"), "free");
    a.ok("lock f r 10 5");
    assert_eq!(a.ask("get f w"), "free", "one's own");
    assert_eq!(b.ask("get f r"), "free", "shared with shared");
    assert_eq!(b.ask("get f w"), format!("r 10 5 {}", a.pid()));
    assert_eq!(b.ask("get f w 0 10"), "free");
    assert_eq!(direct.ask("get f w"), "r 10 5 -1", "the daemon's open file holds it");
    b.ok("lock f r 12 0");
    assert_eq!(a.ask("get f w 15 1"), format!("r 12 0 {}", b.pid()));
    b.ok("lock f u");
    direct.ok("lock f w 100 100");
    assert_eq!(b.ask("get f r 150 1"), format!("w 100 100 {}", direct.pid()));
    // Two mounts know no more than two nodes do.
    let other = fixture.cache.mount();
    let mut c = Locker::new();
    c.ok(&format!("open f {}", other.join("entries/e1/f").display()));
    assert_eq!(c.ask("get f w 0 50"), "r 10 5 0");
}

#[test]
fn as_posix_has_it() {
    let fixture = fixture();
    let (mut a, mut b) = pair(&fixture.file, &fixture.file);
    // Closing any descriptor of a file gives up the process's locks on it.
    a.ok(&format!("open g {}", fixture.file)).ok("lock f w").ok("close g");
    b.ok("lock f w nb").ok("lock f u");
    a.ok("lock f w").ok("dup g f").ok("close g");
    b.ok("lock f w nb").ok("lock f u");
    // A child has none of them, though it has the file, and what it closes is no business of its parent.
    a.ok("lock f w").ok("fork child");
    a.refused("@child lock f w nb").ok("@child close f");
    b.refused("lock f r nb");
    a.ok(&format!("@child open g {}", fixture.file)).refused("@child lock g r nb");
    a.ok("lock f u").ok("@child lock g w nb").refused("lock f r nb").ok("@child close g").ok("lock f w nb");
    a.ok("lock f u");
    // The child goes on with the file when its parent closes it: the parent's locks go, those of the open file stay.
    a.ok("fork heir").ok("lock f w 0 10").ok("ofd f w 20 10").ok("flock f ex").ok("close f");
    b.ok("lock f w 0 10 nb").refused("lock f w 20 10 nb").refused("flock f sh nb");
    a.ok("@heir close f");
    poll("the last close unlocks", SOON, || (b.ask("lock f w nb") == "ok").then_some(()));
    poll("the last close unlocks", SOON, || (b.ask("flock f ex nb") == "ok").then_some(()));
    b.ok("close f");
    // One process, a descriptor to read and one to write: one owner.
    a.ok(&format!("open r {} RDONLY", fixture.file)).ok("lock r r 0 100");
    a.ok(&format!("open w {} WRONLY", fixture.file)).ok("lock w w 0 100 nb");
    b.ok(&format!("open f {}", fixture.file)).refused("lock f r 99 1 nb");
    // Who gives up locks of the one kind keeps those of the other, though both are of one open file.
    a.ok("lock r u").ok("flock w ex").ok("ofd w u");
    b.refused("flock f ex nb");
    a.ok("flock w un").ok("ofd w w nb").ok("flock w un");
    b.refused("lock f w nb");
    a.ok("ofd w u").ok("lock w w 0 100");
    // The same file unlinked.
    a.ok("flock w ex");
    fs::remove_file(&fixture.file).unwrap();
    b.refused("lock f r 99 1 nb").refused("flock f ex nb");
    a.kill();
    b.ok("lock f w").ok("flock f ex");
}

#[test]
fn who_opens_first_and_who_makes_the_file() {
    let fixture = fixture();
    let file = fixture.mount.join("entries").join(&fixture.id).join("lock");
    let (mut a, mut b) = (Locker::new(), Locker::new());
    a.ok(&format!("open f {} RDWR|CREAT", file.display())).ok("fork child").ok("lock f w").ok("close f");
    b.ok(&format!("open f {} RDWR|CREAT", file.display())).ok("lock f w nb");
    // Opened when it was never locked yet, to read: its locks go at the latest when the last descriptor is closed.
    let other = fixture.mount.join("entries").join(&fixture.id).join("f");
    a.ok(&format!("open f {} RDONLY", other.display())).ok("lock f r").ok("close f");
    b.ok(&format!("open g {}", other.display()));
    poll("closing unlocks", SOON, || (b.ask("lock g w nb") == "ok").then_some(()));
}

#[test]
fn a_signal_ends_the_wait() {
    let fixture = fixture();
    let (mut a, mut b) = pair(&fixture.real, &fixture.file);
    a.ok("lock f w").ok("flock f ex");
    for line in ["lock f w", "lock f r 5 5", "flock f ex", "flock f sh", "ofd f w"] {
        b.ok("alarm 50");
        assert_eq!(b.ask(line), "EINTR", "{line}");
        // With SA_RESTART it goes on waiting.
        b.ok("alarm 20 restart");
        b.waits(line);
        b.signal(libc::SIGALRM);
        assert_eq!(b.answers.recv_timeout(WAITS), Err(RecvTimeoutError::Timeout), "{line}");
        b.signal(libc::SIGSTOP);
        b.signal(libc::SIGCONT);
        assert_eq!(b.answers.recv_timeout(WAITS), Err(RecvTimeoutError::Timeout), "{line}");
        waiting(&fixture.mount, 1);
        b.kill();
        waiting(&fixture.mount, 0);
        b = Locker::new();
        b.ok(&format!("open f {}", fixture.file));
    }
    // What a killed or interrupted process waited for is not its afterwards.
    a.ok("lock f u").ok("flock f un");
    let mut c = Locker::new();
    c.ok(&format!("open f {}", fixture.file)).ok("lock f w nb").ok("flock f ex nb");
    c.kill();
    settled(&fixture.mount);
    // As people see it.
    a.ok("flock f ex");
    let started = Instant::now();
    let script = format!(
        "for signal in TERM INT; do timeout -s $signal 0.3 flock '{0}' true || echo $?; done",
        fixture.file
    );
    let out = run(&mut bash(Path::new("/"), &script));
    assert_eq!(out.ok(), "124\n124\n");
    assert!(started.elapsed() < Duration::from_secs(5));
    let out = run(&mut bash(Path::new("/"), &format!("flock -w 0.2 '{}' true || echo $?", fixture.file)));
    assert_eq!(out.ok(), "1\n", "flock -w");
    settled(&fixture.mount);
}

/// A signal for a process is for one of its threads: the kernel tells the first one, unless that blocks it.
#[test]
fn a_signal_ends_the_wait_of_one_thread() {
    const PROGRAM: &str = "import ctypes, fcntl, os, signal, sys, threading
libc = ctypes.CDLL(None, use_errno=True)
signal.signal(signal.SIGUSR1, lambda *_: None)
signal.siginterrupt(signal.SIGUSR1, True)
files = [os.open(sys.argv[1], os.O_RDWR) for _ in range(2)]
def wait(file):
    return 0 if libc.flock(file, fcntl.LOCK_EX) == 0 else ctypes.get_errno()
def second():
    print('second', wait(files[1]), flush=True)
    libc.flock(files[1], fcntl.LOCK_UN)
thread = threading.Thread(target=second)
thread.start()
if sys.argv[2] == 'blocked':
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
print('first', wait(files[0]), flush=True)
libc.flock(files[0], fcntl.LOCK_UN)
thread.join()
";
    let fixture = fixture();
    for (how, interrupted, other) in [("open", "first", "second"), ("blocked", "second", "first")] {
        // Twice: the kernel tells of the first one only.
        for _ in 0..2 {
            let mut holder = Locker::new();
            holder.ok(&format!("open f {}", fixture.real)).ok("flock f ex");
            let mut command = Command::new(python());
            command.args(["-c", PROGRAM, &fixture.file, how]).stdout(Stdio::piped());
            let mut child = command.spawn().unwrap();
            let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
            waiting(&fixture.mount, 2);
            // SAFETY: a child that has not been waited for; plain numbers.
            unsafe { libc::kill(i32::try_from(child.id()).unwrap(), libc::SIGUSR1) };
            let eintr = libc::EINTR;
            assert_eq!(lines.next().unwrap().unwrap(), format!("{interrupted} {eintr}"), "{how}");
            std::thread::sleep(WAITS);
            waiting(&fixture.mount, 1);
            holder.ok("flock f un");
            assert_eq!(lines.next().unwrap().unwrap(), format!("{other} 0"), "{how}");
            assert!(poll("the program ends", SOON, || child.try_wait().unwrap()).success());
        }
    }
}

#[test]
fn those_who_wait_hold_up_nobody_else() {
    let fixture = fixture_with("threads=2");
    let mut holder = Locker::new();
    holder.ok(&format!("open f {}", fixture.real)).ok("lock f w").ok("flock f ex");
    let mut lockers: Vec<_> = (0..12)
        .map(|n| {
            let mut locker = Locker::new();
            locker.ok(&format!("open f {}", fixture.file));
            locker.tell(if n % 2 == 0 { "lock f w" } else { "flock f ex" });
            locker
        })
        .collect();
    waiting(&fixture.mount, 12);
    let started = Instant::now();
    fs::write(fixture.mount.join("entries/e1/other"), "x").unwrap();
    assert_eq!(read(fixture.mount.join("entries/e1/other")), "x");
    fixture.mount.set("e1", "k", "1");
    assert!(started.elapsed() < SOON);
    // Most are killed; the others get it one after the other.
    for locker in lockers.drain(4..) {
        drop(locker);
    }
    waiting(&fixture.mount, 4);
    holder.kill();
    for _ in 0..2 {
        for parity in 0..2 {
            let at = poll("one of them is next", SOON, || {
                lockers.iter().enumerate().find_map(|(n, locker)| {
                    (n % 2 == parity).then(|| locker.answers.try_recv().ok()).flatten().map(|answer| {
                        assert_eq!(answer, "ok");
                        n
                    })
                })
            });
            lockers[at].ok(if at % 2 == 0 { "lock f u" } else { "flock f un" });
        }
    }
    drop(lockers);
    settled(&fixture.mount);
}

#[test]
fn the_end_of_a_daemon_unlocks() {
    let fixture = fixture();
    let (mut a, mut b) = pair(&fixture.file, &fixture.real);
    a.ok("lock f w").ok("flock f ex");
    let mut c = Locker::new();
    c.ok(&format!("open f {}", fixture.file));
    c.waits("flock f ex");
    b.waits("lock f w");
    fixture.mount.kill();
    assert_eq!(b.answer(), "ok");
    b.ok("flock f ex");
    let answer = c.answer();
    assert!(["ECONNABORTED", "ENOTCONN"].contains(&answer.as_str()), "{answer}");
}

#[test]
fn unmounting_with_a_waiter() {
    let fixture = fixture();
    let (mut a, mut b) = pair(&fixture.real, &fixture.file);
    a.ok("flock f ex");
    b.waits("flock f ex");
    let status = fixture.mount.status();
    assert_eq!(status["locks_waiting"], 1);
    let log = fixture.mount.stop();
    assert!(log.contains("in use") || log.is_empty(), "{log}");
    a.ok("flock f un");
    drop(b);
}

#[test]
fn virtual_files_are_locked_in_the_mount() {
    let fixture = fixture();
    fixture.mount.set("e1", "lr", "0.1");
    for name in ["entries/e1/.attrs/lr", "entries/e1/.attrs.json", "README", "count"] {
        let path = fixture.mount.join(name);
        let flags = if name.contains("attrs") { "RDWR" } else { "RDONLY" };
        let path = format!("{} {flags}", path.display());
        let (mut a, mut b) = pair(&path, &path);
        a.ok("flock f ex");
        b.refused("flock f sh nb");
        b.waits("flock f sh");
        a.ok("flock f un");
        assert_eq!(b.answer(), "ok");
        a.ok("lock f r 0 10");
        assert_eq!(b.ask("get f w"), format!("r 0 10 {}", a.pid()));
        if flags == "RDWR" {
            b.refused("lock f w nb");
            b.waits("lock f w");
            a.ok("close f");
            assert_eq!(b.answer(), "ok");
        }
        drop((a, b));
        settled(&fixture.mount);
    }
    // A shell that updates an attribute under its lock.
    let script = "cd entries/e1; for n in $(seq 40); do (flock 9; echo $(($(cat .attrs/n) + 1)) > .attrs/n) 9<.attrs.json & done; wait";
    fixture.mount.set("e1", "n", "0");
    fixture.mount.sh(script).ok();
    assert_eq!(fixture.mount.get("e1", "n"), "40");
}

#[test]
fn descriptors_are_kept_only_for_what_is_locked() {
    let fixture = fixture();
    let open = || fs::read_dir(format!("/proc/{}/fd", fixture.mount.pid())).unwrap().count();
    let mut a = Locker::new();
    let before = open();
    for n in 0..50 {
        let path = fixture.mount.join("entries/e1").join(format!("n{n}"));
        a.ok(&format!("open f {} RDWR|CREAT", path.display())).ok("lock f w 0 10").ok("lock f u 0 10");
        assert_eq!(fixture.mount.status()["locks_held"], 0);
        a.ok("lock f w").ok("flock f ex").ok("close f");
    }
    settled(&fixture.mount);
    let after = poll("descriptors are closed", SOON, || Some(open()).filter(|now| *now < before + 20));
    assert!(after < before + 20, "{before}, {after}");
}

/// Many processes that count in files, under their locks.
#[test]
fn nobody_ever_shares_an_exclusive_lock() {
    let fixture = fixture();
    let other = fixture.cache.mount_with("nopassthrough");
    let places = [fixture.mount.join("entries/e1"), other.join("entries/e1"), fixture.cache.join("e1")];
    let rounds = common::amount("CACHEDIRFS_LOCK_ROUNDS", 150);
    fs::write(fixture.cache.join("e1/guard"), "").unwrap();
    for (name, call) in
        [("flock", "fcntl.flock(f, fcntl.LOCK_EX)"), ("fcntl", "fcntl.lockf(f, fcntl.LOCK_EX)")]
    {
        // The counter lies beside the mounts: what is tested is the lock, not how soon data is seen elsewhere.
        let counter = fixture.cache.join("counter");
        fs::write(&counter, "0").unwrap();
        let program = format!(
            "import fcntl, sys
for _ in range({rounds}):
    with open(sys.argv[1] + '/guard', 'r+') as f:
        {call}
        n = int(open(sys.argv[2]).read())
        open(sys.argv[2], 'w').write(str(n + 1))
"
        );
        let running: Vec<_> = (0..6)
            .map(|n| {
                let mut command = Command::new(python());
                command.args(["-c", &program]).arg(&places[n % 3]).arg(&counter);
                common::start(&mut command)
            })
            .collect();
        for process in running {
            common::finish(process).ok();
        }
        assert_eq!(read(&counter), (6 * rounds).to_string(), "{name}");
    }
    settled(&fixture.mount);
    settled(&other);
}

/// SQLite in a mount, in another mount and beside them, at once.
fn sqlite_everywhere(options: &str, modes: &[&str]) {
    let fixture = fixture_with(options);
    let other = fixture.cache.mount_with(options);
    let rounds = common::amount("CACHEDIRFS_LOCK_ROUNDS", 40);
    for mode in modes {
        let program = "import sqlite3, sys
mode, path, who, rounds = sys.argv[1:]
db = sqlite3.connect(path, timeout=60, isolation_level=None)
db.execute('pragma journal_mode=%s' % mode)
db.execute('create table if not exists t (who, n)')
for n in range(int(rounds)):
    db.execute('begin immediate')
    total = db.execute('select count(*) from t').fetchone()[0]
    db.execute('insert into t values (?, ?)', (who, total))
    db.execute('commit')
";
        let name = format!("e1/{mode}.db");
        let places = [
            fixture.mount.join("entries").join(&name),
            fixture.cache.join(&name),
            fixture.mount.join("entries").join(&name),
            other.join("entries").join(&name),
        ];
        let start = |who: usize, path: &Path, rounds: usize| {
            let mut command = Command::new(python());
            command.args(["-c", program, mode]).arg(path).arg(who.to_string()).arg(rounds.to_string());
            common::start(&mut command)
        };
        // Of those who change the mode of a database at the same moment, SQLite tells some at once that it is locked, in any directory.
        common::finish(start(0, &places[1], 0)).ok();
        let running: Vec<_> = places.iter().enumerate().map(|(who, path)| start(who, path, rounds)).collect();
        for process in running {
            common::finish(process).ok();
        }
        let check = "import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
print(db.execute('pragma integrity_check').fetchone()[0], db.execute('select count(*), count(distinct n) from t').fetchone())
";
        let out = run(Command::new(python()).args(["-c", check]).arg(&places[1])).ok();
        assert_eq!(out.trim(), format!("ok ({0}, {0})", 4 * rounds), "{mode}");
    }
}

#[test]
fn sqlite_here_and_there_at_once() {
    // WAL needs shared memory: programs that map one file. What a mount maps is the file underneath only with passthrough.
    let passthrough = fixture().mount.status()["passthrough"] == true;
    sqlite_everywhere("", if passthrough { &["delete", "truncate", "wal"] } else { &["delete", "truncate"] });
}

#[test]
fn sqlite_without_passthrough() {
    sqlite_everywhere("nopassthrough", &["delete", "truncate"]);
}

/// Under a lock, a program sees what others have written under theirs: data and size, however much the kernel kept.
#[test]
fn what_others_wrote_under_a_lock_is_seen() {
    for options in ["", "nopassthrough", "nopassthrough,threads=1"] {
        let fixture = fixture_with(options);
        let (mut a, mut b) = pair(&fixture.file, &fixture.real);
        for round in 0..30_u32 {
            let (one, other, verb) =
                if round % 2 == 0 { (&mut a, &mut b, "lock f w") } else { (&mut b, &mut a, "flock f ex") };
            let unlock = verb.replace(" w", " u").replace(" ex", " un");
            let text = format!("round-{round}{}", "x".repeat(usize::try_from(round % 5).unwrap()));
            one.ok(verb).ok(&format!("write f {text}")).ok(&unlock);
            other.ok(verb);
            assert_eq!(other.ask("read f"), text, "{options}");
            other.ok(&unlock);
        }
    }
}
