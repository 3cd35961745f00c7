//! File systems of their own, on loop devices, in a mount namespace that ends with the test.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::{amount, run, start};

/// Set in the process that has the namespace.
const INSIDE: &str = "CACHEDIRFS_TEST_NAMESPACE";
/// Names, with commas, of what this machine is known not to have.
const WITHOUT: &str = "CACHEDIRFS_TEST_WITHOUT";

/// Whether the caller is to do its work: it is in a mount namespace of its own. Otherwise this runs the test of that name
/// again in one, with all its output, and fails if it fails.
///
/// Needs root and loop devices. Without them the test fails, unless `CACHEDIRFS_TEST_WITHOUT=loop` says that this is known:
/// then it says that nothing was proved.
#[track_caller]
pub fn in_namespace(test: &str, limit: Duration) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    if std::env::var(WITHOUT).is_ok_and(|text| text.split(',').any(|word| word == "loop")) {
        // Not swallowed by the harness, which keeps what a test prints.
        let message = format!("NOT PROVED HERE: {test} needs root and loop devices ({WITHOUT})\n");
        let _ = std::io::Write::write_all(&mut std::io::stderr(), message.as_bytes());
        return false;
    }
    let mut command = Command::new("unshare");
    command.args(["-m", "--propagation", "private"]).arg(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--include-ignored", "--nocapture", "--test-threads=1"]).env(INSIDE, "1");
    let finished = start(&mut command).finish(limit);
    let output = String::from_utf8_lossy(&finished.stdout);
    eprintln!("{output}\n{}", finished.stderr);
    assert!(
        finished.status.success() && output.contains("1 passed"),
        "{test}, in a mount namespace of its own: {}",
        finished.status
    );
    false
}

/// A file system on a loop device, in memory.
#[derive(Debug)]
pub struct Disk {
    dir: PathBuf,
    path: PathBuf,
    options: String,
}

impl Disk {
    /// A fresh one, mounted: `ext4` or `xfs`, with mount options. Only in a namespace.
    #[track_caller]
    pub fn new(kind: &str, options: &str) -> Self {
        assert!(std::env::var_os(INSIDE).is_some(), "only in a namespace");
        let dir = super::scratch().keep();
        // In memory: what a sync takes does not depend on what else this machine's disk does.
        run(Command::new("mount").args(["-t", "tmpfs", "-o", "mode=755", "tmpfs"]).arg(&dir)).ok();
        let disk = Self { path: dir.join("fs"), dir, options: format!("loop,{options}") };
        std::fs::create_dir(&disk.path).unwrap();
        let size = if kind == "xfs" { 320 << 20 } else { 64 << 20 };
        std::fs::File::create(disk.image()).unwrap().set_len(size).unwrap();
        run(Command::new(format!("mkfs.{kind}")).arg("-q").arg(disk.image())).ok();
        disk.mount();
        disk
    }

    fn image(&self) -> PathBuf {
        self.dir.join("image")
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Mounts it, which recovers it.
    #[track_caller]
    pub fn mount(&self) {
        let mut command = Command::new("mount");
        let finished = run(command.args(["-o", &self.options]).arg(self.image()).arg(&self.path));
        assert!(
            finished.status.success(),
            "no loop device to be had ({}); on a machine known to have none, {WITHOUT}=loop leaves this out",
            finished.stderr.trim()
        );
    }

    /// Unmounts it.
    #[track_caller]
    pub fn unmount(&self) {
        run(Command::new("umount").arg(&self.path)).ok();
    }

    /// The power goes: what is not on the disk by now never comes there.
    #[track_caller]
    pub fn cut(&self) {
        run(Command::new("xfs_io").args(["-x", "-c", "shutdown"]).arg(&self.path)).ok();
    }

    /// The same without writing out anything, and whatever comes of it.
    pub fn cut_at_once(&self) {
        let _ = Command::new("xfs_io").args(["-x", "-c", "shutdown -f"]).arg(&self.path).output();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        for path in [&self.path, &self.dir] {
            let _ = Command::new("umount").arg("-l").arg(path).output();
        }
        let _ = std::fs::remove_dir(&self.dir);
    }
}

/// How many rounds a test does in each of its cases.
pub fn rounds(usual: usize) -> usize {
    amount("CACHEDIRFS_POWERCUT_ROUNDS", usual)
}
