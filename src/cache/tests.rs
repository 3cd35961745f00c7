//! Tests of the cache on real directories.

#[cfg(not(feature = "models"))]
mod among;
#[cfg(not(feature = "models"))]
mod changing;
#[cfg(not(feature = "models"))]
mod failing;
#[cfg(not(feature = "models"))]
mod keeping;
#[cfg(feature = "models")]
pub(crate) mod models;
#[cfg(not(feature = "models"))]
mod sharing;

use std::fs;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::record::SetMode;
use crate::value::{Text, Value};

pub(super) fn options(background: bool) -> Options {
    Options { read_only: false, sync: false, refresh: Duration::from_millis(200), background, keep: None }
}

/// A cache that does everything on the calling thread.
pub(super) fn open(dir: &Path) -> Arc<Cache> {
    Cache::open(dir, &options(false)).unwrap()
}

/// A cache with its threads.
pub(super) fn mounted(dir: &Path) -> Arc<Cache> {
    Cache::open(dir, &options(true)).unwrap()
}

pub(super) fn directory(log: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("_entries"), log).unwrap();
    dir
}

pub(super) fn log_of(dir: &Path) -> String {
    fs::read_to_string(dir.join("_entries")).unwrap()
}

pub(super) fn id(name: &str) -> Id {
    Id::new(name).unwrap()
}

pub(super) fn key(name: &str) -> Key {
    Key::parse(name).unwrap()
}

pub(super) fn leaf(text: &str) -> Leaf {
    Leaf::of(&Value::from_text(text))
}

pub(super) fn object(json: &str) -> Object<'static> {
    Object::parse(json.as_bytes()).unwrap().into_owned()
}

pub(super) fn create(name: &str, json: &str) -> Change {
    Change::Create { id: id(name), attrs: object(json) }
}

pub(super) fn set(name: &str, attribute: &str, text: &str) -> Change {
    let edit = Edit::Set(key(attribute), Value::from_text(text), SetMode::Any);
    Change::Edit { id: id(name), edits: vec![edit] }
}

pub(super) fn delete(name: &str) -> Change {
    Change::Delete { id: id(name) }
}

pub(super) fn memo(pair: &str, value: &str, fresh: &str) -> Change {
    let attrs = Object::new();
    let mut change = Change::Memo { pairs: vec![(key(pair), leaf(value))], fresh: id(fresh), attrs };
    if let Change::Memo { attrs, .. } = &mut change {
        attrs.insert(Text::from_str(pair.to_owned()), Value::from_text(value));
    }
    change
}

/// The attributes of an entry, as text; `None` if it is not live.
pub(super) fn attribute(cache: &Cache, name: &str, attribute: &str) -> Option<String> {
    let row = cache.index().row(name)?;
    let entry = cache.entry(row).unwrap();
    assert_eq!(entry.id.as_str(), name);
    let text = entry.object.get(attribute).map(Value::to_text);
    if let Some(text) = &text {
        // The index says the same.
        let rows = cache.index().posting(&key(attribute), &leaf(text));
        assert!(rows.contains(row.0), "{name} is not found by {attribute}={text}");
    }
    text
}

/// The live ids, in order.
pub(super) fn ids(cache: &Cache) -> Vec<String> {
    let index = cache.index();
    let mut ids: Vec<_> =
        index.live().iter().map(|row| index.id(Row(row)).unwrap().as_str().to_owned()).collect();
    ids.sort();
    ids
}

/// Polls until a condition holds.
pub(super) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < end, "{what} did not come about");
        std::thread::sleep(Duration::from_millis(1));
    }
}
