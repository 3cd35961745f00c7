//! A mount that ends with the test, whatever happens: politely if it can, by force if it must.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use super::{Finished, User, binary, poll, run};

/// How long a daemon may take until it is live, and until it has ended.
const START_TIMEOUT: Duration = Duration::from_secs(20);
const END_TIMEOUT: Duration = Duration::from_secs(20);

/// How to mount.
#[derive(Debug, Clone, Copy)]
pub struct Options<'o> {
    /// `-o`
    #[allow(clippy::struct_field_names)] // what the command line calls it
    pub options: &'o str,
    /// Who mounts it; the caller if `None`.
    pub user: Option<&'o User>,
    /// When the connection is cut, so that no test hangs for ever.
    pub limit: Duration,
    /// `XDG_CACHE_HOME`: below it indexes are kept. Without, none is.
    pub keep: Option<&'o Path>,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self { options: "", user: None, limit: Duration::from_secs(240), keep: None }
    }
}

/// A mounted cache.
#[derive(Debug)]
pub struct Mount {
    child: Child,
    path: PathBuf,
    scratch: Option<tempfile::TempDir>,
    user: Option<User>,
    /// Number of the kernel's connection.
    connection: u32,
    /// Ends the watchdog when dropped.
    watchdog: Option<Sender<()>>,
    ended: Option<ExitStatus>,
}

impl Mount {
    /// Starts the daemon in the foreground and waits until the mount is live.
    #[track_caller]
    pub fn new(cache: &Path, options: &Options<'_>) -> Self {
        let mut mount = Self::start(cache, options);
        mount.live();
        mount
    }

    /// As [`Mount::new`], run by another program that becomes the daemon: its arguments end with the daemon's command.
    #[track_caller]
    pub fn under(wrapper: Command, cache: &Path, options: &Options<'_>) -> Self {
        let mut mount = Self::start_under(Some(wrapper), cache, options);
        mount.live();
        mount
    }

    /// Starts the daemon on a fresh mount point; [`Mount::live`] waits for it.
    #[track_caller]
    pub fn start(cache: &Path, options: &Options<'_>) -> Self {
        Self::start_under(None, cache, options)
    }

    fn start_under(wrapper: Option<Command>, cache: &Path, options: &Options<'_>) -> Self {
        let scratch = super::scratch();
        let path = scratch.path().canonicalize().unwrap().join("mnt");
        std::fs::create_dir(&path).unwrap();
        let program = options.user.map_or_else(|| binary().to_owned(), |user| user.binary(scratch.path()));
        let log = std::fs::File::create(scratch.path().join("log")).unwrap();
        let mut command = match wrapper {
            Some(mut wrapper) => {
                wrapper.arg(program);
                wrapper
            }
            None => Command::new(program),
        };
        command.arg("mount").arg(cache).arg(&path).arg("-f");
        // Everything may be run with other options: one thread, without passthrough, ...
        let more = std::env::var("CACHEDIRFS_TEST_OPTIONS").unwrap_or_default();
        for options in [options.options, &more] {
            if !options.is_empty() {
                command.args(["-o", options]);
            }
        }
        command.env("RUST_BACKTRACE", "1").env_remove("CACHEDIRFS_CACHE");
        match options.keep {
            Some(place) => command.env("XDG_CACHE_HOME", place).env_remove("CACHEDIRFS_KEEP"),
            None => command.env("CACHEDIRFS_KEEP", "0"),
        };
        if let Some(user) = options.user {
            user.own(&path);
            command = user.wrap(&command);
        }
        let child = command
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("start the daemon");
        let mut mount = Self {
            child,
            path,
            scratch: Some(scratch),
            user: options.user.cloned(),
            connection: 0,
            watchdog: None,
            ended: None,
        };
        mount.watch(options.limit);
        mount
    }

    /// Waits until the mount is live.
    #[track_caller]
    pub fn live(&mut self) {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                self.ended = Some(status);
                panic!("the daemon ended ({status}) before the mount was live:\n{}", self.log());
            }
            if let Some(connection) = mountinfo(&self.path)
                && self.answers()
            {
                self.connection = connection;
                return;
            }
            assert!(Instant::now() < deadline, "the mount is not live in time:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(3));
        }
    }

    /// Whether a request is answered: to whoever mounted it, as root may not look into an ordinary user's mount.
    fn answers(&self) -> bool {
        let path = self.path.join("entries");
        match &self.user {
            Some(user) => {
                let mut command = Command::new("test");
                command.arg("-d").arg(path);
                run(&mut user.wrap(&command)).status.success()
            }
            None => std::fs::symlink_metadata(path).is_ok(),
        }
    }

    /// Kills the daemon and cuts the connection when the time is up: who waits in the mount gets an error.
    fn watch(&mut self, limit: Duration) {
        let (sender, receiver) = channel();
        self.watchdog = Some(sender);
        let (pid, path) = (self.pid(), self.path.clone());
        std::thread::spawn(move || {
            if receiver.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                eprintln!("{}: the time is up ({limit:?}): the mount is cut off", path.display());
                if let Some(connection) = mountinfo(&path) {
                    abort(connection);
                }
                // SAFETY: plain numbers; the child is waited for only after this thread was told to end.
                unsafe { libc::kill(pid, libc::SIGKILL) };
            }
        });
    }

    /// The mount point.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path in the mount.
    pub fn join(&self, path: impl AsRef<Path>) -> PathBuf {
        self.path.join(path)
    }

    /// Process id of the daemon.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// What the daemon has logged.
    pub fn log(&self) -> String {
        let path = self.scratch.as_ref().map(|dir| dir.path().join("log"));
        path.and_then(|path| std::fs::read(path).ok())
            .map_or_else(String::new, |bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// `.status` of the root.
    #[track_caller]
    pub fn status(&self) -> serde_json::Map<String, serde_json::Value> {
        serde_json::from_str(&super::read(self.join(".status"))).expect(".status is an object")
    }

    /// Runs a bash script in the mount point, as whoever mounted it.
    #[track_caller]
    pub fn sh(&self, script: &str) -> Finished {
        let mut command = super::bash(Path::new("/"), &format!("cd '{}'\n{script}", self.path.display()));
        command.env("MNT", &self.path);
        match &self.user {
            Some(user) => run(&mut user.wrap(&command)),
            None => run(&mut command),
        }
    }

    /// The entry made by `mkdir new/NAME`: its id.
    #[track_caller]
    pub fn make(&self, name: &str) -> String {
        let path = self.join("new").join(name);
        std::fs::create_dir(&path).unwrap_or_else(|e| panic!("mkdir new/{name}: {e}"));
        self.id(&path)
    }

    /// The id of an entry, by any of its paths.
    #[track_caller]
    #[allow(clippy::unused_self)] // reads as what it is: the mount is asked
    pub fn id(&self, entry: &Path) -> String {
        super::read(entry.join(".attrs/_id")).trim_end_matches('\n').to_owned()
    }

    /// An attribute file, without its final newline.
    #[track_caller]
    pub fn get(&self, id: &str, key: &str) -> String {
        let text = super::read(self.join("entries").join(id).join(".attrs").join(key));
        text.strip_suffix('\n').expect("an attribute file ends in a newline").to_owned()
    }

    /// Writes an attribute file.
    #[track_caller]
    pub fn set(&self, id: &str, key: &str, value: &str) {
        let path = self.join("entries").join(id).join(".attrs").join(key);
        super::put(&path, format!("{value}\n")).unwrap_or_else(|e| panic!("set {key} of {id}: {e}"));
    }

    /// Ends the daemon by a signal and checks that it ended cleanly and left no mount.
    #[track_caller]
    pub fn stop(mut self) -> String {
        self.end(libc::SIGTERM)
    }

    /// As [`Mount::stop`], with another signal.
    #[track_caller]
    pub fn stop_by(mut self, signal: i32) -> String {
        self.end(signal)
    }

    /// Unmounts from outside, as `umount` does, and checks that the daemon ends cleanly.
    #[track_caller]
    pub fn unmount(mut self) -> String {
        poll("the mount is no longer busy", END_TIMEOUT, || unmount(&self.path, 0).ok());
        self.end(0)
    }

    #[track_caller]
    fn end(&mut self, signal: i32) -> String {
        // SAFETY: a child that has not been waited for; plain numbers.
        unsafe { libc::kill(self.pid(), signal) };
        let status = self.wait(END_TIMEOUT);
        let log = self.log();
        let status = status.unwrap_or_else(|| panic!("the daemon did not end in time:\n{log}"));
        assert!(status.success(), "the daemon ended badly: {status}\n{log}");
        assert!(!log.contains("panicked at"), "a panic in the daemon:\n{log}");
        assert!(mountinfo(&self.path).is_none(), "the daemon ended and left its mount:\n{log}");
        log
    }

    /// Kills the daemon as a crash would, and takes away the dead mount.
    pub fn kill(mut self) {
        self.kill_daemon();
    }

    /// Kills the daemon; the dead mount stays.
    pub fn kill_daemon(&mut self) {
        // SAFETY: a child that has not been waited for; plain numbers.
        unsafe { libc::kill(self.pid(), libc::SIGKILL) };
        assert!(self.wait(END_TIMEOUT).is_some(), "the daemon outlives SIGKILL: it hangs in the kernel");
    }

    fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + limit;
        while self.ended.is_none() && Instant::now() < deadline {
            self.ended = self.child.try_wait().ok().flatten();
            if self.ended.is_none() {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        if self.ended.is_some() {
            self.watchdog = None;
        }
        self.ended
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let mut trouble = None;
        if self.ended.is_none() {
            // SAFETY: a child that has not been waited for; plain numbers.
            unsafe { libc::kill(self.pid(), libc::SIGTERM) };
            match self.wait(END_TIMEOUT) {
                Some(status) if status.success() => {}
                Some(status) => trouble = Some(format!("the daemon ended badly: {status}")),
                None => {
                    trouble = Some("the daemon did not end after SIGTERM".to_owned());
                    abort(self.connection);
                    // SAFETY: as above.
                    unsafe { libc::kill(self.pid(), libc::SIGKILL) };
                    self.wait(END_TIMEOUT);
                }
            }
        }
        self.watchdog = None;
        let log = self.log();
        if log.contains("panicked at") {
            trouble = Some("a panic in the daemon".to_owned());
        }
        let mut tries = 0;
        while let (Some(connection), true) = (mountinfo(&self.path), tries < 4) {
            abort(connection);
            let _ = unmount(&self.path, libc::MNT_DETACH);
            tries += 1;
        }
        if mountinfo(&self.path).is_some() {
            // Never removed through the mount: that would be the cache itself.
            eprintln!("{} stays mounted", self.path.display());
            std::mem::forget(self.scratch.take());
        } else {
            let _ = std::fs::remove_dir(&self.path);
        }
        if std::thread::panicking() {
            if !log.is_empty() {
                eprintln!("--- log of the daemon of {}\n{log}", self.path.display());
            }
        } else if let Some(trouble) = trouble {
            panic!("{trouble}:\n{log}");
        }
    }
}

/// The connection number of the FUSE mount on this path, if there is one.
pub fn mountinfo(path: &Path) -> Option<u32> {
    let text = std::fs::read_to_string("/proc/self/mountinfo").expect("/proc/self/mountinfo");
    let path = path.to_str().expect("a path of UTF-8");
    text.lines().rev().find_map(|line| {
        let fields: Vec<_> = line.split(' ').collect();
        let (_, minor) = fields.get(2)?.split_once(':')?;
        let kind = fields.iter().skip_while(|field| **field != "-").nth(1)?;
        (*fields.get(4)? == path && kind.starts_with("fuse")).then(|| minor.parse().ok())?
    })
}

fn unmount(path: &Path, flags: i32) -> std::io::Result<()> {
    let text = CString::new(path.as_os_str().as_bytes()).unwrap();
    // SAFETY: `text` ends in NUL and outlives the call.
    if unsafe { libc::umount2(text.as_ptr(), flags) } == 0 {
        return Ok(());
    }
    let failure = std::io::Error::last_os_error();
    if failure.raw_os_error() == Some(libc::EPERM) {
        let mut command = Command::new("fusermount3");
        command.arg(if flags == 0 { "-u" } else { "-uz" }).arg(path);
        if command.output()?.status.success() {
            return Ok(());
        }
    }
    Err(failure)
}

/// Cuts a connection: everyone who waits for it gets an error.
fn abort(connection: u32) {
    let file = PathBuf::from(format!("/sys/fs/fuse/connections/{connection}/abort"));
    if !file.exists() {
        let _ = Command::new("mount").args(["-t", "fusectl", "fusectl", "/sys/fs/fuse/connections"]).output();
    }
    let _ = std::fs::write(file, "1");
}
