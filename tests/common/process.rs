//! Commands that cannot hang: each is a process group of its own and is killed at its deadline.

use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::COMMAND_TIMEOUT;

/// What a command that ended left behind.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Its exit status.
    pub status: ExitStatus,
    /// What it printed.
    pub stdout: Vec<u8>,
    /// What it complained of.
    pub stderr: String,
    /// The command, for messages.
    pub command: String,
}

impl Finished {
    /// Its output; it must have succeeded.
    #[track_caller]
    pub fn ok(self) -> String {
        assert!(
            self.status.success(),
            "{}: {}\n--- stdout\n{}\n--- stderr\n{}",
            self.command,
            self.status,
            String::from_utf8_lossy(&self.stdout),
            self.stderr
        );
        String::from_utf8(self.stdout).unwrap_or_else(|e| panic!("output of {}: {e}", self.command))
    }

    /// Its output, as lines.
    #[track_caller]
    pub fn lines(self) -> Vec<String> {
        self.ok().lines().map(str::to_owned).collect()
    }

    /// What it complained of; it must have failed, by its own will.
    #[track_caller]
    pub fn fails(self) -> String {
        assert!(!self.status.success(), "{}: succeeded", self.command);
        assert_eq!(self.status.signal(), None, "{}: {}\n{}", self.command, self.status, self.stderr);
        assert!(!self.stderr.contains("panicked at"), "{}: {}", self.command, self.stderr);
        self.stderr
    }
}

/// A command that runs.
#[derive(Debug)]
pub struct Running {
    child: Child,
    stdout: Option<JoinHandle<Vec<u8>>>,
    stderr: Option<JoinHandle<Vec<u8>>>,
    command: String,
}

fn drain(mut from: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = from.read_to_end(&mut bytes);
        bytes
    })
}

/// Starts a command. No index is kept where the caller has his own, but in a directory of the test if that says so.
#[track_caller]
pub fn start(command: &mut Command) -> Running {
    let text = format!("{command:?}");
    if command.get_envs().all(|(name, _)| name != "XDG_CACHE_HOME") {
        command.env("CACHEDIRFS_KEEP", "0");
    }
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap_or_else(|e| panic!("start {text}: {e}"));
    let stdout = child.stdout.take().map(drain);
    let stderr = child.stderr.take().map(drain);
    Running { child, stdout, stderr, command: text }
}

impl Running {
    /// Its process.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// Whether it has ended.
    pub fn ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Kills it and every process it started.
    pub fn kill(&mut self) {
        // SAFETY: the group of a child that has not been waited for; plain numbers.
        unsafe { libc::kill(-self.pid(), libc::SIGKILL) };
    }

    /// Waits until it ends; kills it and fails at the deadline.
    #[track_caller]
    pub fn finish(mut self, limit: Duration) -> Finished {
        let deadline = Instant::now() + limit;
        let mut late = false;
        let mut pause = Duration::from_micros(200);
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > deadline {
                late = true;
                self.kill();
                // A process that hangs in a dead mount cannot be waited for.
                let hangs = Instant::now() > deadline + Duration::from_secs(5);
                assert!(!hangs, "{}: not ended within {limit:?}, and cannot be killed", self.command);
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(10));
        };
        // Whatever it left running would hold the pipes open.
        // SAFETY: plain numbers; the group is gone or ours.
        unsafe { libc::kill(-self.pid(), libc::SIGKILL) };
        let text =
            |thread: Option<JoinHandle<Vec<u8>>>| thread.map(|t| t.join().unwrap()).unwrap_or_default();
        let stdout = text(self.stdout.take());
        let stderr = String::from_utf8_lossy(&text(self.stderr.take())).into_owned();
        assert!(!late, "{}: not ended within {limit:?}\n{stderr}", self.command);
        Finished { status, stdout, stderr, command: std::mem::take(&mut self.command) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            self.kill();
            let deadline = Instant::now() + Duration::from_secs(5);
            while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }
}

/// Waits for a command.
#[track_caller]
pub fn finish(running: Running) -> Finished {
    running.finish(COMMAND_TIMEOUT)
}

/// Runs a command to its end.
#[track_caller]
pub fn run(command: &mut Command) -> Finished {
    finish(start(command))
}

/// A bash script that ends at the first failure, in a directory.
pub fn bash(directory: &Path, script: &str) -> Command {
    let mut command = Command::new("bash");
    command.args(["-euo", "pipefail", "-c", script]).current_dir(directory).env("LC_ALL", "C.UTF-8");
    command
}
