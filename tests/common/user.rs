//! An ordinary user: the caller, or one made for the tests when they run as root.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::{binary, run};

const NAME: &str = "cdfs-test";

/// Whether the tests run as root.
pub fn is_root() -> bool {
    // SAFETY: cannot fail, touches no memory.
    unsafe { libc::geteuid() == 0 }
}

/// An ordinary user.
#[derive(Debug, Clone)]
pub struct User {
    uid: u32,
    gid: u32,
    /// Whether the tests run as that user themselves.
    me: bool,
}

impl User {
    /// An ordinary user; made if the tests run as root. There is always one: the test fails if it cannot be made.
    pub fn ordinary() -> Self {
        static USER: OnceLock<User> = OnceLock::new();
        USER.get_or_init(|| {
            // SAFETY: these cannot fail and touch no memory.
            let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
            if uid != 0 {
                return User { uid, gid, me: true };
            }
            let find = || {
                let out = Command::new("getent").args(["passwd", NAME]).output().expect("getent");
                let line = String::from_utf8(out.stdout).unwrap();
                let mut fields = line.trim().split(':').skip(2).map(str::parse::<u32>);
                Some((fields.next()?.ok()?, fields.next()?.ok()?))
            };
            let (uid, gid) = find().unwrap_or_else(|| {
                let made = run(Command::new("useradd").args([
                    "--system",
                    "--user-group",
                    "--no-create-home",
                    "--shell",
                    "/usr/sbin/nologin",
                    NAME,
                ]));
                // Another test program may have made it in the meantime.
                find().unwrap_or_else(|| panic!("cannot make the user {NAME}: {}", made.stderr))
            });
            // On test machines the device may be for root alone.
            let device = Path::new("/dev/fuse");
            let mode = std::fs::metadata(device).expect("/dev/fuse").permissions().mode();
            if mode & 0o666 != 0o666 {
                std::fs::set_permissions(device, std::fs::Permissions::from_mode(0o666))
                    .expect("let ordinary users open /dev/fuse");
            }
            User { uid, gid, me: false }
        })
        .clone()
    }

    /// Its number.
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// Its group's number.
    pub fn gid(&self) -> u32 {
        self.gid
    }

    /// Gives it a file or directory.
    pub fn own(&self, path: &Path) {
        if !self.me {
            chown(path, Some(self.uid), Some(self.gid)).unwrap();
        }
    }

    /// The same command, run by this user.
    pub fn wrap(&self, command: &Command) -> Command {
        let mut wrapped = if self.me {
            Command::new(command.get_program())
        } else {
            let mut setpriv = Command::new("setpriv");
            setpriv
                .arg(format!("--reuid={}", self.uid))
                .arg(format!("--regid={}", self.gid))
                .args(["--clear-groups", "--inh-caps=-all", "--"])
                .arg(command.get_program());
            setpriv.env("HOME", "/nonexistent").env_remove("XDG_STATE_HOME");
            setpriv
        };
        wrapped.args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => wrapped.env(name, value),
                None => wrapped.env_remove(name),
            };
        }
        if let Some(directory) = command.get_current_dir() {
            wrapped.current_dir(directory);
        }
        wrapped
    }

    /// The binary where this user can run it: copied to `dir` if need be.
    pub fn binary(&self, dir: &Path) -> PathBuf {
        let mut test = Command::new("test");
        test.arg("-x").arg(binary());
        if self.wrap(&test).output().is_ok_and(|out| out.status.success()) {
            return binary().to_owned();
        }
        let copy = dir.join("cachedirfs");
        std::fs::copy(binary(), &copy).unwrap();
        copy
    }
}
