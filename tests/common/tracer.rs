//! System calls of a running daemon that fail, stop or kill it, by `strace`.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::{Running, poll, scratch, start};

/// A tracer that is attached to a process; detached when dropped.
#[derive(Debug)]
pub struct Tracer {
    running: Option<Running>,
    dir: tempfile::TempDir,
}

impl Tracer {
    /// Tampers with system calls of a process and all its threads that concern a path: `inject` is what `strace --inject` takes.
    #[track_caller]
    pub fn attach(pid: i32, path: &Path, inject: &[&str]) -> Self {
        let dir = scratch();
        let mut command = Command::new("strace");
        command.args(["-f", "-ttt", "-y", "-p", &pid.to_string(), "-P"]).arg(path).arg("-o");
        command.arg(dir.path().join("trace"));
        for expression in inject {
            command.args(["-e", &format!("inject={expression}")]);
        }
        let mut running = start(&mut command);
        poll("strace to attach", Duration::from_secs(20), || {
            assert!(!running.ended(), "strace ended: {command:?}");
            traced(pid).then_some(())
        });
        Self { running: Some(running), dir }
    }

    /// What was traced so far.
    pub fn text(&self) -> String {
        std::fs::read(self.dir.path().join("trace"))
            .map_or_else(|_| String::new(), |bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// How often something was tampered with.
    pub fn hits(&self) -> usize {
        self.text().matches("(INJECTED").count()
    }

    /// Lets the process go; gives what was traced.
    #[track_caller]
    pub fn detach(mut self) -> String {
        self.end();
        self.text()
    }

    fn end(&mut self) {
        if let Some(mut running) = self.running.take() {
            // SAFETY: a child that has not been waited for; plain numbers.
            unsafe { libc::kill(running.pid(), libc::SIGTERM) };
            poll("strace to detach", Duration::from_secs(20), || running.ended().then_some(()));
        }
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        self.end();
    }
}

/// Whether every thread of a process has a tracer.
fn traced(pid: i32) -> bool {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    tasks.flatten().all(|task| {
        std::fs::read_to_string(task.path().join("status")).is_ok_and(|status| {
            status.lines().any(|line| line.starts_with("TracerPid:") && !line.ends_with("\t0"))
        })
    })
}
