//! A program that is killed while it changes attributes: what was acknowledged to it is there, what was under way is there
//! whole or not at all. `CACHEDIRFS_KILLS` sets how many programs are killed at random moments.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

use common::{Cache, Mount, Random, amount, errno, ls, poll, put, python, read, run, seed};
use fs2::FileExt;
use serde_json::{Value, json};

/// Changes one entry after the other way, without an end; says what was acknowledged.
const STREAM: &str = r#"
import itertools, json, os, sys
mnt, who, first = sys.argv[1], sys.argv[2], int(sys.argv[3])
entry = f"{mnt}/entries/{who}"

def write(path, flags, *parts):
    descriptor = os.open(path, os.O_WRONLY | flags)
    for part in parts:
        os.write(descriptor, part.encode())
    os.close(descriptor)

for n in itertools.count(first):
    way = n % 4
    if way == 0:
        # A value of several writes.
        write(f"{entry}/.attrs/long", os.O_CREAT | os.O_TRUNC, *[f"{n};" * 3000] * 3)
    elif way == 1:
        patch = json.dumps({"one": n, "two": {"three": n}, "text": f"{n};" * 300})
        write(f"{entry}/.attrs.json", os.O_APPEND, patch[:200], patch[200:])
    elif way == 2:
        os.setxattr(entry, "user.short", str(n).encode())
    else:
        os.mkdir(f"{mnt}/new/who={who},n={n},twin={n}")
    print(n, flush=True)
"#;

struct Stream {
    who: String,
    /// The last that was acknowledged.
    last: u64,
    child: Child,
}

impl Stream {
    fn start(mount: &Mount, who: &str, first: u64) -> Self {
        let child = Command::new(python())
            .args(["-c", STREAM])
            .arg(mount.path())
            .args([who, &first.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self { who: who.to_owned(), last: first - 1, child }
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        let mut said = String::new();
        std::io::Read::read_to_string(&mut self.child.stdout.take().unwrap(), &mut said).unwrap();
        let status = self.child.wait().unwrap();
        assert_eq!(status.signal(), Some(libc::SIGKILL), "it ended by itself: {status}");
        // A line that was cut in the middle is not there: each is one write.
        self.last = said.lines().last().map_or(self.last, |line| line.parse().unwrap());
    }

    /// The newest change of a way that there may be, and the one before, if the newest is the one that was under way.
    fn of_way(&self, way: u64) -> [u64; 2] {
        let newest = |at_most: u64| (0..4).map(|back| at_most - back).find(|n| n % 4 == way).unwrap();
        [newest(self.last), newest(self.last + 1)]
    }

    fn check(&self, record: &Value) {
        let who = &self.who;
        let long = record["long"].as_str().unwrap();
        let short = record["short"].as_u64().unwrap();
        let one = record["one"].as_u64().unwrap();
        let n: u64 = long.split(';').next().unwrap().parse().unwrap();
        assert!(long == format!("{n};").repeat(9000), "{who}: half of a value: {} bytes of {n}", long.len());
        assert_eq!(record["two"], json!({ "three": one }), "{who}: half of a patch");
        assert_eq!(record["text"], json!(format!("{one};").repeat(300)), "{who}: half of a patch");
        for (way, found) in [n, one, short].into_iter().enumerate() {
            let allowed = self.of_way(way.try_into().unwrap());
            assert!(allowed.contains(&found), "{who}: {found}, of way {way}, not one of {allowed:?}");
        }
    }
}

#[test]
fn what_a_killed_program_was_told_is_there_and_nothing_is_half() {
    let mut random = Random(seed("what_a_killed_program_was_told"));
    let kills = amount("CACHEDIRFS_KILLS", 60);
    let cache = Cache::new();
    let mount = cache.mount();
    let people = ["a", "b", "c"];
    for who in people {
        fs::create_dir(mount.join("entries").join(who)).unwrap();
        put(mount.join(format!("entries/{who}/.attrs/long")), "0;".repeat(9000)).unwrap();
        let patch = json!({ "one": 1, "two": { "three": 1 }, "text": "1;".repeat(300), "short": 2 });
        common::append(mount.join(format!("entries/{who}/.attrs.json")), patch.to_string()).unwrap();
    }
    let mut next = [4_u64; 3];
    let mut made: [Vec<u64>; 3] = Default::default();
    for _ in 0..kills.div_ceil(people.len()) {
        let mut streams: Vec<_> =
            people.iter().zip(next).map(|(who, first)| Stream::start(&mount, who, first)).collect();
        // So that all are at work.
        poll("they work", Duration::from_secs(30), || {
            let seen = |who, n| !ls(mount.join(format!("where/who = {who} and n = {n}"))).is_empty();
            people.iter().zip(next).all(|(who, first)| seen(who, first + 3)).then_some(())
        });
        for (i, stream) in streams.iter_mut().enumerate() {
            std::thread::sleep(Duration::from_micros(random.next() % 8000));
            stream.kill();
            made[i].extend((next[i]..=stream.last).filter(|n| n % 4 == 3));
        }
        // With the last answer to a request of theirs, nothing of theirs comes any more.
        let mut records = Vec::new();
        for stream in &streams {
            records.push(
                serde_json::from_str::<Value>(&read(
                    mount.join(format!("entries/{}/.attrs.json", stream.who)),
                ))
                .unwrap(),
            );
        }
        for (i, (stream, record)) in streams.iter().zip(&records).enumerate() {
            stream.check(record);
            assert_eq!(*record, Value::Object(cache.entry(&stream.who)), "the log says the same");
            let under_way = stream.last + 1;
            let listed = ls(mount.join(format!("where/who = {} and n = {under_way}", stream.who)));
            if under_way % 4 == 3 && !listed.is_empty() {
                made[i].push(under_way);
            }
            // The next one begins with the way that comes first.
            next[i] = (under_way + 1).next_multiple_of(4);
        }
    }
    for (i, who) in people.iter().enumerate() {
        let mut found: Vec<u64> = cache
            .entries()
            .iter()
            .map(|(_, record)| record)
            .filter(|record| record.get("who").is_some_and(|it| it == who))
            .map(|record| {
                assert_eq!(record["n"], record["twin"], "half an entry");
                record["n"].as_u64().unwrap()
            })
            .collect();
        found.sort_unstable();
        assert_eq!(found, made[i], "entries of {who}");
    }
    mount.stop();
}

/// A Python program, and the signal that ended it.
fn killed(mount: &Mount, program: &str) -> Option<i32> {
    let head = "import os, signal\n\
                def die(number=signal.SIGKILL):\n    os.kill(os.getpid(), number)\n    signal.pause()\n";
    let mut command = Command::new(python());
    command.arg("-c").arg(format!("{head}{program}")).current_dir(mount.path());
    common::run(&mut command).status.signal()
}

#[test]
fn whoever_is_killed_before_the_close_has_set_nothing() {
    let cache = Cache::new();
    cache.add("e", 1.0, r#""old": 1, "other": 2"#);
    let mount = cache.mount();
    let before = cache.log();
    for path in ["old", "new"] {
        let path = format!("entries/e/.attrs/{path}");
        for flags in ["os.O_WRONLY | os.O_CREAT | os.O_TRUNC", "os.O_RDWR | os.O_CREAT"] {
            for (name, end) in
                [("SIGKILL", libc::SIGKILL), ("SIGTERM", libc::SIGTERM), ("SIGSEGV", libc::SIGSEGV)]
            {
                for rest in
                    ["", "os.write(f, b'7')", "os.write(f, b'7'); os.write(f, b'8')", "os.ftruncate(f, 0)"]
                {
                    let program = format!("f = os.open('{path}', {flags})\n{rest}\ndie(signal.{name})");
                    assert_eq!(killed(&mount, &program), Some(end), "{program}");
                    assert_eq!(cache.log(), before, "{program}");
                }
            }
        }
    }
    for (flags, text) in [("os.O_APPEND", r#"{"new": 1}"#), ("os.O_TRUNC", "{}")] {
        let program = format!(
            "f = os.open('entries/e/.attrs.json', os.O_WRONLY | {flags})\nos.write(f, b'{text}')\ndie()"
        );
        assert_eq!(killed(&mount, &program), Some(libc::SIGKILL));
        assert_eq!(cache.log(), before, "{program}");
    }
    assert_eq!(ls(mount.join("entries/e/.attrs")), ["old", "other"]);
    assert_eq!(read(mount.join("entries/e/.attrs/old")), "1\n");
    assert_eq!(errno(fs::read(mount.join("entries/e/.attrs/new"))), libc::ENOENT);
    // Nothing of them is in the way of the next.
    put(mount.join("entries/e/.attrs/new"), "3").unwrap();
    assert_eq!(mount.get("e", "new"), "3");
    mount.stop();
}

#[test]
fn who_ends_without_a_close_and_was_not_killed_has_set_it() {
    let cache = Cache::new();
    cache.add("e", 1.0, r#""old": 1"#);
    let mount = cache.mount();
    let open = "f = os.open('entries/e/.attrs/old', os.O_WRONLY | os.O_TRUNC)";
    for (n, end) in ["os._exit(0)", "os._exit(9)", "raise SystemExit(137)"].into_iter().enumerate() {
        assert_eq!(killed(&mount, &format!("{open}\nos.write(f, b'{n}')\n{end}")), None);
        assert_eq!(mount.get("e", "old"), n.to_string(), "{end}");
    }
    assert_eq!(killed(&mount, &format!("{open}\nos._exit(1)")), None);
    poll("it is empty", Duration::from_secs(10), || (mount.get("e", "old") == "\"\"").then_some(()));
    mount.stop();
}

/// A descriptor that several processes have: who lives decides.
#[test]
fn a_child_that_is_killed_spoils_nothing_of_its_parent() {
    let cache = Cache::new();
    cache.add("e", 1.0, r#""old": 1"#);
    let mount = cache.mount();
    for (rest, found) in [("os.write(f, b'2')\nos.close(f)", "2"), ("os.write(f, b'34')\nos._exit(0)", "34")]
    {
        let program = format!(
            "f = os.open('entries/e/.attrs/old', os.O_WRONLY | os.O_TRUNC)\n\
             child = os.fork()\nif child == 0:\n    die()\nos.waitpid(child, 0)\n{rest}"
        );
        assert_eq!(killed(&mount, &program), None);
        assert_eq!(mount.get("e", "old"), found);
    }
    // The parent is killed first, the child goes on.
    let program = "f = os.open('entries/e/.attrs/old', os.O_WRONLY | os.O_TRUNC)\nos.write(f, b'5')\nr, w = os.pipe()\n\
                   if os.fork() == 0:\n    os.setsid()\n    os.close(w)\n    os.read(r, 1)\n    os.write(f, b'6')\n    os._exit(0)\ndie()";
    assert_eq!(killed(&mount, program), Some(libc::SIGKILL));
    poll("the child has closed it", Duration::from_secs(10), || {
        (mount.get("e", "old") == "56").then_some(())
    });
    mount.stop();
}

/// Has an attribute file open, and written to, while it starts a program; copies of descriptors are closed as that is executed.
const STARTER: &str = r#"
import os, subprocess, sys
descriptor = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
os.write(descriptor, b"4")
said = subprocess.run(["cat", sys.argv[1]], close_fds=False, check=True, stdout=subprocess.PIPE).stdout
os.write(descriptor, b"2")
os.close(descriptor)
sys.stdout.buffer.write(said)
"#;

#[test]
fn a_program_that_is_started_while_an_attribute_is_written_sets_nothing() {
    let cache = Cache::new();
    let mount = cache.mount();
    let id = mount.make("n=1");
    let attribute = mount.join("entries").join(&id).join(".attrs/n");
    let before = cache.log().lines().count();
    let said = run(Command::new(python()).args(["-c", STARTER]).arg(attribute)).ok();
    assert_eq!(said, "1\n", "what the program read");
    assert_eq!(mount.get(&id, "n"), "42");
    assert_eq!(cache.log().lines().count(), before + 1, "{}", cache.log());
    mount.stop();
}

/// A program and a child of it have a file open: a child that executes another program closes it, too.
#[test]
fn a_close_tells_what_became_of_what_another_one_has_begun() {
    let cache = Cache::new();
    let mount = cache.mount();
    let id = mount.make("n=1");
    let path = mount.join("entries").join(&id);
    let lock = File::options().write(true).open(cache.join("_lock")).unwrap();
    FileExt::lock_exclusive(&lock).unwrap();
    let mut file = File::create(path.join(".attrs/n")).unwrap();
    file.write_all(b"2").unwrap();
    let twin = file.try_clone().unwrap();
    std::thread::scope(|scope| {
        let first = scope.spawn(|| common::close(twin));
        poll("its change waits for the lock", Duration::from_secs(30), || {
            (mount.status()["waiting"] == "the lock").then_some(())
        });
        let (sender, answered) = channel();
        scope.spawn(move || sender.send(common::close(file).is_ok()));
        let early = answered.recv_timeout(Duration::from_millis(300));
        FileExt::unlock(&lock).unwrap();
        assert!(early.is_err(), "closed, and the log says {}", cache.log());
        assert_eq!(answered.recv_timeout(Duration::from_secs(30)), Ok(true));
        assert_eq!(mount.get(&id, "n"), "2");
        first.join().unwrap().unwrap();
    });

    let mut file = File::create(path.join(".attrs.json")).unwrap();
    file.write_all(b"{").unwrap();
    let twin = file.try_clone().unwrap();
    assert_eq!(errno(common::close(twin)), libc::EINVAL);
    assert_eq!(errno(common::close(file.try_clone().unwrap())), libc::EINVAL, "nor is it set by now");
    file.write_all(b"\"n\": 3}").unwrap();
    common::close(file).unwrap();
    assert_eq!(mount.get(&id, "n"), "3");
    let log = mount.stop();
    assert!(!log.contains("could not be set"), "{log}");
}
