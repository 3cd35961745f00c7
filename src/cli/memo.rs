//! `memo`: one run for one set of attributes, whoever asks.
//!
//! The claim is an entry ([`Change::Memo`], decided under the cache's lock); who is running it holds a flock on
//! `_run-ID` in the cache, from before the claim can be seen until the result stands in the entry. So a claim whose
//! lock is free and that has no result is one whose runner died, on whatever node, and the next caller takes it over.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use fs2::FileExt;

use super::args::MemoArgs;
use super::conditions::{self, attributes, entry, now, pair};
use super::entries::{self, directory};
use super::failure::{self, Failure, Result, error, usage};
use super::locate::{Access, open};
use super::output::{Out, string};
use super::{daemon, status};
use crate::cache::{Cache, Change, Entry, Outcome};
use crate::name::{Id, Key};
use crate::record::{Edit, SetMode};
use crate::value::{Leaf, Number, Object, Text, Value};

/// Exit status when somebody else is still running it: `EX_TEMPFAIL` of sysexits.h.
const RUNNING_ELSEWHERE: u8 = 75;
/// In front of the id, the name of the file whose lock a run holds.
pub const RUN_PREFIX: &str = "_run-";
/// How often a waiting caller looks.
const POLL: Duration = Duration::from_millis(200);
/// A claim that is deleted and made again and again is given up after so many rounds.
const ROUNDS: usize = 100;

/// How a run stands, as its entry says.
#[derive(Debug, Clone, PartialEq)]
enum State {
    /// It has a result: the command ended with status 0, or the entry was not made by `memo` at all.
    Done,
    /// The command ended otherwise.
    Failed(String),
    /// Somebody runs it, or died while running it.
    Running {
        /// Where.
        host: String,
        /// Which process there.
        pid: String,
    },
}

/// `cachedirfs memo`.
pub fn run(asked: Option<&Path>, args: &MemoArgs) -> Result<()> {
    let pairs = args.pairs.iter().map(|text| pair(text)).collect::<Result<Vec<_>>>()?;
    if let Some((key, _)) =
        pairs.iter().find(|(key, _)| key.as_str() == "run" || key.as_str().starts_with("run."))
    {
        return Err(usage(format!("the key `{}` is kept for what memo records of the run", key.as_str())));
    }
    let mut attrs = attributes(&pairs)?;
    attrs.insert(Text::from_str("run"), Value::Object(started()));
    // Of a key that stands twice the last value wins, as in the object.
    let mut pairs: Vec<(Key, Leaf)> =
        pairs.iter().map(|(key, value)| (key.clone(), Leaf::of(value))).collect();
    pairs.reverse();
    let mut seen = std::collections::HashSet::new();
    pairs.retain(|(key, _)| seen.insert(key.clone()));

    let cache = open(asked, Access::Write)?;
    let deadline = args
        .timeout
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .map(|t| Instant::now() + t);
    let mut waited = false;
    for _ in 0..ROUNDS {
        let (id, lock) = claim(&cache, &pairs, &attrs)?;
        if let Some(lock) = lock {
            return compute(&cache, &id, lock, args);
        }
        loop {
            cache.refresh().map_err(|e| failure::cache(cache.store().path().display(), &e))?;
            // Deleted meanwhile: claim again.
            let Ok(found) = entry(&cache, &id) else { break };
            let state = state(&found);
            match &state {
                State::Done => return tell(&cache, &id, false, args),
                State::Failed(status) if waited => {
                    return Err(error(format!(
                        "the run of {} failed elsewhere (status {status})",
                        id.as_str()
                    ))
                    .hint("ask again to run it here"));
                }
                State::Failed(_) | State::Running { .. } => {}
            }
            match RunLock::try_take(&cache, &id)? {
                Some(lock) if take_over(&cache, &id)? => {
                    if let State::Running { host, pid } = state {
                        log::warn!(
                            "the process {pid} on {host} that ran {} is gone: taking over",
                            id.as_str()
                        );
                    }
                    return compute(&cache, &id, lock, args);
                }
                // Done or deleted meanwhile: look again.
                Some(lock) => {
                    lock.remove();
                    continue;
                }
                None if !args.wait => {
                    running(&id, &state);
                    return Err(Failure::Status(RUNNING_ELSEWHERE));
                }
                None => {}
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                running(&id, &state);
                return Err(Failure::Status(RUNNING_ELSEWHERE));
            }
            waited = true;
            std::thread::sleep(POLL);
        }
    }
    Err(error("the entry is deleted again and again by somebody else"))
}

/// Claims the pairs: the entry, and the lock if it is ours to run.
fn claim(cache: &Cache, pairs: &[(Key, Leaf)], attrs: &Object<'static>) -> Result<(Id, Option<RunLock>)> {
    let fresh = entries::make_directory(cache)?;
    // Before the claim can be seen: nobody ever sees one whose lock is free while its winner lives.
    let lock = RunLock::try_take(cache, &fresh)?
        .ok_or_else(|| error(format!("somebody else holds the lock of the new entry {}", fresh.as_str())))?;
    let change = Change::Memo { pairs: pairs.to_vec(), fresh: fresh.clone(), attrs: attrs.clone() };
    let outcome = cache.change(change).map_err(|e| failure::cache(cache.store().path().display(), &e));
    match outcome {
        Ok(Outcome::Done(_)) => return Ok((fresh, Some(lock))),
        Ok(Outcome::Found(_) | Outcome::Deleted(_)) | Err(_) => {}
    }
    // Empty, and ours alone: nobody else knows the id.
    let _ = fs::remove_dir(directory(cache, &fresh));
    lock.remove();
    match outcome? {
        Outcome::Found(id) => Ok((id, None)),
        Outcome::Done(_) | Outcome::Deleted(_) => Ok((fresh, None)),
    }
}

/// With the run's lock held: takes the claim if it is still without a result.
fn take_over(cache: &Cache, id: &Id) -> Result<bool> {
    cache.refresh().map_err(|e| failure::cache(cache.store().path().display(), &e))?;
    let Ok(found) = entry(cache, id) else { return Ok(false) };
    if state(&found) == State::Done {
        return Ok(false);
    }
    record(cache, id, &started())?;
    Ok(true)
}

/// What an entry says of its run.
fn state(entry: &Entry) -> State {
    let Some(Value::Object(run)) = entry.object.get("run") else { return State::Done };
    let text = |name| match run.get(name) {
        Some(value) => value.to_text(),
        None => "?".to_owned(),
    };
    match run.get("status") {
        Some(Value::Number(status)) if status.token() == "0" => State::Done,
        Some(Value::Null) | None => State::Running { host: text("host"), pid: text("pid") },
        Some(status) => State::Failed(status.to_text()),
    }
}

/// The attributes of a run that starts now.
fn started() -> Object<'static> {
    let mut run = Object::new();
    run.insert(Text::from_str("host"), string(host()));
    run.insert(Text::from_str("pid"), super::output::count(u64::from(std::process::id())));
    run.insert(Text::from_str("start"), Value::Number(Number::from(now())));
    run.insert(Text::from_str("end"), Value::Null);
    run.insert(Text::from_str("status"), Value::Null);
    run
}

/// Sets members of `run`, durably.
fn record(cache: &Cache, id: &Id, run: &Object<'static>) -> Result<()> {
    let edits = run
        .iter()
        .map(|(name, value)| {
            let key = conditions::key(&format!("run.{}", name.as_str().unwrap_or_default()))?;
            Ok(Edit::Set(key, value.clone(), SetMode::Any))
        })
        .collect::<Result<_>>()?;
    cache.change(Change::Edit { id: id.clone(), edits }).map_err(|e| failure::cache(id.as_str(), &e))?;
    let (send, synced) = mpsc::channel();
    cache.sync(Box::new(move |result| drop(send.send(result))));
    match synced.recv() {
        Ok(result) => result.map_err(|e| failure::cache(id.as_str(), &e)),
        // The cache was closed under us, which syncs as well.
        Err(mpsc::RecvError) => Ok(()),
    }
}

/// Runs the command and records how it ended.
fn compute(cache: &Arc<Cache>, id: &Id, lock: RunLock, args: &MemoArgs) -> Result<()> {
    let place = directory(cache, id);
    match fs::create_dir(&place) {
        Err(e) if e.kind() != ErrorKind::AlreadyExists => {
            return Err(failure::io("make", place.display(), &e));
        }
        _ => {}
    }
    let outcome = execute(&place, id, args);
    let status = match &outcome {
        Ok(status) => status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1),
        // As a shell has it.
        Err(e) if e.kind() == ErrorKind::NotFound => 127,
        Err(_) => 126,
    };
    let mut end = Object::new();
    end.insert(Text::from_str("end"), Value::Number(Number::from(now())));
    end.insert(Text::from_str("status"), Number::new(status.to_string()).map_or(Value::Null, Value::Number));
    record(cache, id, &end)?;
    lock.remove();
    if let Err(e) = outcome {
        let command =
            args.command.first().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        return Err(failure::io("run", command, &e));
    }
    tell(cache, id, true, args)?;
    match u8::try_from(status) {
        Ok(0) => Ok(()),
        Ok(status) => Err(Failure::Status(status)),
        Err(_) => Err(Failure::Status(1)),
    }
}

/// The command in the entry's directory. Its standard output goes to ours for errors: our own says where the result is.
fn execute(place: &Path, id: &Id, args: &MemoArgs) -> io::Result<ExitStatus> {
    let Some((program, arguments)) = args.command.split_first() else {
        return Err(ErrorKind::InvalidInput.into());
    };
    let signals = daemon::block_signals();
    let mut command = Command::new(program);
    command
        .args(arguments)
        .current_dir(place)
        .env("CACHEDIRFS_ID", id.as_str())
        .env("CACHEDIRFS_DIR", place)
        .stdout(io::stderr());
    // SAFETY: between fork and exec only calls that are safe there, on memory of the child's own.
    unsafe {
        command.pre_exec(move || {
            libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const signals, std::ptr::null_mut());
            // Whoever kills us with the signal that cannot be caught ends the run too: the next caller would
            // otherwise compute in the same directory at the same time.
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM);
            Ok(())
        });
    }
    let mut child = command.spawn()?;
    if let Some(process) = status::process(i64::from(child.id())) {
        // A terminal's signals reach the command by themselves; the one for us alone is handed on.
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            while let Some(signal) = daemon::next_signal(&signals) {
                if signal == libc::SIGTERM {
                    // SAFETY: a descriptor that this thread owns, and plain numbers.
                    unsafe {
                        libc::syscall(
                            libc::SYS_pidfd_send_signal,
                            process.as_raw_fd(),
                            signal,
                            std::ptr::null::<libc::siginfo_t>(),
                            0,
                        )
                    };
                }
            }
        })?;
    }
    child.wait()
}

/// Where the result is: the one line of our output.
fn tell(cache: &Cache, id: &Id, ran: bool, args: &MemoArgs) -> Result<()> {
    let mut out = Out::stdout();
    if args.json {
        let mut object = entries::place(cache, id);
        object.insert(Text::from_str("ran"), Value::Bool(ran));
        out.object(&object)?;
    } else {
        entries::print_place(&mut out, cache, id, false)?;
    }
    out.finish()
}

fn running(id: &Id, state: &State) {
    let who = match state {
        State::Running { host, pid } => format!(" (host {host}, process {pid})"),
        State::Done | State::Failed(_) => String::new(),
    };
    let _ = writeln!(io::stderr(), "cachedirfs: {} is running elsewhere{who}", id.as_str());
}

fn host() -> String {
    let mut name = [0_u8; 256];
    // SAFETY: the buffer is as long as is said.
    if unsafe { libc::gethostname(name.as_mut_ptr().cast(), name.len()) } != 0 {
        return "?".to_owned();
    }
    String::from_utf8_lossy(name.split(|&byte| byte == 0).next().unwrap_or_default()).into_owned()
}

/// The lock of a run; held until it is dropped or its holder dies.
#[derive(Debug)]
struct RunLock {
    path: PathBuf,
    _file: File,
}

impl RunLock {
    /// Takes the lock of an entry's run; `None` if somebody holds it.
    fn try_take(cache: &Cache, id: &Id) -> Result<Option<Self>> {
        let path = cache.store().path().join(format!("{RUN_PREFIX}{}", id.as_str()));
        let doing = |doing: &str, e: &io::Error| failure::io(doing, path.display(), e);
        loop {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .custom_flags(libc::O_NOFOLLOW)
                .open(&path)
                .map_err(|e| doing("open", &e))?;
            match FileExt::try_lock_exclusive(&file) {
                Ok(()) => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(e) => return Err(doing("lock", &e)),
            }
            // Whoever ends a run removes the file: a lock on a removed one excludes nobody.
            let held = file.metadata().map_err(|e| doing("look at", &e))?;
            match fs::symlink_metadata(&path) {
                Ok(named) if (named.dev(), named.ino()) == (held.dev(), held.ino()) => {
                    return Ok(Some(Self { path, _file: file }));
                }
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                Err(e) => return Err(doing("look at", &e)),
            }
        }
    }

    /// Removes the file, with the lock still held, and unlocks.
    fn remove(self) {
        // A file that is left over does no harm: its lock is free.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state_of(json: &str) -> State {
        let object = Object::parse(json.as_bytes()).unwrap().into_owned();
        state(&Entry { row: crate::index::Row(0), id: Id::new("e1").unwrap(), time: 0.0, object })
    }

    #[test]
    fn an_entry_tells_how_its_run_stands() {
        assert_eq!(state_of(r#"{"lr": 1}"#), State::Done);
        assert_eq!(state_of(r#"{"run": {"status": 0}}"#), State::Done);
        assert_eq!(state_of(r#"{"run": {"status": 3}}"#), State::Failed("3".to_owned()));
        let running = State::Running { host: "a".to_owned(), pid: "7".to_owned() };
        assert_eq!(state_of(r#"{"run": {"host": "a", "pid": 7, "status": null}}"#), running);
    }
}
