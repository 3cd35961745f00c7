//! A cache in a temporary directory, and its log.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use fs2::FileExt;
use serde_json::Value;

use super::{Finished, Options, User, binary, run};

/// A cache directory, removed at the end.
#[derive(Debug)]
pub struct Cache {
    _dir: Option<tempfile::TempDir>,
    path: PathBuf,
}

impl Cache {
    /// An empty one.
    pub fn new() -> Self {
        let dir = super::scratch();
        let path = dir.path().canonicalize().unwrap().join("cache");
        std::fs::create_dir(&path).unwrap();
        Self { _dir: Some(dir), path }
    }

    /// The directory that is there; it stays.
    pub fn at(path: &Path) -> Self {
        Self { _dir: None, path: path.canonicalize().unwrap() }
    }

    /// One whose log has these lines, each with its directory where it has an id.
    pub fn with(lines: &[impl AsRef<str>]) -> Self {
        let cache = Self::new();
        for line in lines {
            if let Ok(value) = serde_json::from_str::<Value>(line.as_ref()) {
                let id = value.get("_id").or_else(|| value.get("@")).and_then(Value::as_str);
                if let Some(id) = id.and_then(|path| path.rsplit('/').next()) {
                    let _ = std::fs::create_dir(cache.path.join(id));
                }
            }
        }
        cache.append(lines);
        cache
    }

    /// An empty one that belongs to an ordinary user.
    pub fn of(user: &User) -> Self {
        let cache = Self::new();
        user.own(&cache.path);
        cache
    }

    /// Its directory, canonical.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path in it.
    pub fn join(&self, path: impl AsRef<Path>) -> PathBuf {
        self.path.join(path)
    }

    /// A record of the first dialect; `attrs` are members, without the braces.
    pub fn record(&self, id: &str, time: f64, attrs: &str) -> String {
        let comma = if attrs.is_empty() { "" } else { ", " };
        format!(r#"{{"_id": "{}/{id}", {attrs}{comma}"_timestamp": {time:?}}}"#, self.path.display())
    }

    /// Makes the entry's directory and appends its record as the Python writer does.
    pub fn add(&self, id: &str, time: f64, attrs: &str) {
        let _ = std::fs::create_dir(self.join(id));
        self.append(&[self.record(id, time, attrs)]);
    }

    /// Appends lines under the lock, as the Python writer does.
    pub fn append(&self, lines: &[impl AsRef<str>]) {
        let mut text = String::new();
        for line in lines {
            text.push_str(line.as_ref());
            text.push('\n');
        }
        self.append_bytes(text.as_bytes());
    }

    /// Appends any bytes under the lock.
    pub fn append_bytes(&self, bytes: &[u8]) {
        let lock = std::fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(self.join("_lock"))
            .unwrap();
        FileExt::lock_exclusive(&lock).unwrap();
        let mut log =
            std::fs::OpenOptions::new().create(true).append(true).open(self.join("_entries")).unwrap();
        log.write_all(bytes).unwrap();
        FileExt::unlock(&lock).unwrap();
    }

    /// The log.
    pub fn log(&self) -> String {
        String::from_utf8(self.log_bytes()).expect("a log of UTF-8")
    }

    /// The log's bytes; none if there is no log.
    pub fn log_bytes(&self) -> Vec<u8> {
        match std::fs::read(self.join("_entries")) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(e) => panic!("read the log: {e}"),
        }
    }

    /// What a plain reader finds: the last object of each id that is not deleted, in order of first appearance. Every
    /// line must be an object.
    #[track_caller]
    pub fn entries(&self) -> Vec<(String, serde_json::Map<String, Value>)> {
        let mut entries: Vec<(String, serde_json::Map<String, Value>)> = Vec::new();
        let mut place = std::collections::HashMap::new();
        for line in self.log().lines() {
            // Python's NaN, which this reader does not know.
            let text = line.replace(": NaN", ": \"NaN\"");
            let value: Value =
                serde_json::from_str(&text).unwrap_or_else(|e| panic!("a line of the log: {e}: {line}"));
            let Value::Object(object) = value else { panic!("no object in the log: {line}") };
            let id = object.get("_id").or_else(|| object.get("@")).and_then(Value::as_str).expect("an id");
            let id = id.rsplit('/').next().unwrap().to_owned();
            let at = *place.entry(id.clone()).or_insert(entries.len());
            if at == entries.len() {
                entries.push((id, object));
            } else {
                entries[at].1 = object;
            }
        }
        entries.retain(|(_, object)| object.get("_deleted") != Some(&Value::Bool(true)));
        entries
    }

    /// The object of an entry, as a plain reader finds it.
    #[track_caller]
    pub fn entry(&self, id: &str) -> serde_json::Map<String, Value> {
        self.entries()
            .into_iter()
            .find(|(found, _)| found == id)
            .unwrap_or_else(|| panic!("no entry {id} in the log:\n{}", self.log()))
            .1
    }

    /// Runs `cachedirfs -C CACHE ARGS`.
    #[track_caller]
    pub fn command(&self, args: &[&str]) -> Finished {
        run(Command::new(binary()).arg("-C").arg(&self.path).args(args))
    }

    /// Mounts it.
    #[track_caller]
    pub fn mount(&self) -> super::Mount {
        super::Mount::new(self.path(), &Options::default())
    }

    /// Mounts it with `-o`.
    #[track_caller]
    pub fn mount_with(&self, options: &str) -> super::Mount {
        super::Mount::new(self.path(), &Options { options, ..Options::default() })
    }
}
