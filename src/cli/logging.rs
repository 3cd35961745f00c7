//! Where a daemon writes what it has to say.

use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::failure::{self, Result};

/// A log that grew beyond this is put aside as `NAME.log.old` at the next start.
const LARGE: u64 = 16 << 20;

/// The log file of a daemon in the background.
#[derive(Debug)]
pub struct File {
    /// Where it is; `None`: there is none.
    pub path: Option<PathBuf>,
    /// The open file.
    pub file: Option<fs::File>,
}

impl File {
    /// Opens the file that was asked for, or the one that a mount point has by default. Without a place for that one, says so.
    pub fn open(asked: Option<&Path>, mountpoint: &Path) -> Result<Self> {
        if let Some(path) = asked {
            let path = std::path::absolute(path).map_err(|e| failure::io("look at", path.display(), &e))?;
            let file = append(&path).map_err(|e| failure::io("open the log", path.display(), &e))?;
            return Ok(Self { path: Some(path), file: Some(file) });
        }
        let problem = match default_directory() {
            None => "neither XDG_STATE_HOME nor HOME is an absolute path".to_owned(),
            Some(directory) => {
                let path = directory.join(file_name(mountpoint));
                match fs::create_dir_all(&directory).and_then(|()| append(&path)) {
                    Ok(file) => return Ok(Self { path: Some(path), file: Some(file) }),
                    Err(e) => format!("{}: {}", path.display(), failure::reason(&e)),
                }
            }
        };
        let _ = writeln!(
            std::io::stderr(),
            "cachedirfs: note: the daemon has nowhere to log to ({problem}); --log FILE says where"
        );
        Ok(Self { path: None, file: None })
    }
}

fn append(path: &Path) -> std::io::Result<fs::File> {
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_file() && meta.len() > LARGE => {
            let mut old = path.as_os_str().to_owned();
            old.push(".old");
            fs::rename(path, old)?;
        }
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

fn default_directory() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    if let Some(state) = set("XDG_STATE_HOME") {
        return Some(state.join("cachedirfs"));
    }
    // SAFETY: geteuid cannot fail and touches no memory.
    if unsafe { libc::geteuid() } == 0 {
        return Some("/var/log/cachedirfs".into());
    }
    Some(set("HOME")?.join(".local/state/cachedirfs"))
}

/// `/mnt/my-runs` logs to `mnt-my-runs.log`.
fn file_name(mountpoint: &Path) -> String {
    let whole = mountpoint.to_string_lossy();
    let mut name = whole.trim_matches('/').replace('/', "-");
    if name.len() > 200 {
        let mut from = name.len() - 200;
        while !name.is_char_boundary(from) {
            from += 1;
        }
        name = name.split_off(from);
    }
    name + ".log"
}

fn builder(filter: &str) -> env_logger::Builder {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(filter))
}

fn filter(verbose: u8) -> &'static str {
    match verbose {
        0 => "warn,cachedirfs=info",
        1 => "info,cachedirfs=debug",
        _ => "trace",
    }
}

/// A daemon in the foreground logs to standard error.
pub fn foreground(verbose: u8) {
    let _ = builder(filter(verbose)).try_init();
}

/// A daemon in the background logs to its file, which the caller has put in the place of standard error.
pub fn background(verbose: u8) {
    let _ = builder(filter(verbose)).write_style(env_logger::WriteStyle::Never).try_init();
}

/// Other commands say only what went wrong, unless asked.
pub fn command(verbose: u8) {
    let level = match verbose {
        0 => "warn",
        1 => "debug",
        _ => "trace",
    };
    let _ = builder(level).format_timestamp(None).try_init();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_named_by_its_mount_point() {
        assert_eq!(file_name(Path::new("/mnt/my runs")), "mnt-my runs.log");
        assert!(file_name(Path::new(&format!("/{}", "ä".repeat(400)))).len() <= 255);
    }

    #[test]
    fn a_large_log_is_put_aside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.log");
        fs::File::create(&path).unwrap().set_len(LARGE + 1).unwrap();
        let opened = File::open(Some(&path), Path::new("/m")).unwrap();
        assert_eq!(opened.file.unwrap().metadata().unwrap().len(), 0);
        assert!(dir.path().join("x.log.old").exists());
    }
}
