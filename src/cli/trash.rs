//! `trash`: what was taken out, back again, or gone for good.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::args::TrashCommand;
use super::conditions::{age, id};
use super::entries::{close, count};
use super::failure::{self, Failure, Result, error};
use super::locate::{Access, open};
use super::output::{Out, local_time};
use crate::name::Id;
use crate::trash::{self, TrashError, Trashed};
use crate::value::{Number, Text, Value};

/// `cachedirfs trash`.
pub fn run(asked: Option<&Path>, command: &TrashCommand) -> Result<()> {
    match command {
        TrashCommand::List { json } => list(asked, *json),
        TrashCommand::Restore { ids } => restore(asked, ids),
        TrashCommand::Empty { older_than, dry_run } => empty(asked, older_than.as_deref(), *dry_run),
    }
}

/// What is in the way, in words; `place` is an id.
pub fn failed(place: &str, error: &TrashError) -> Failure {
    match error {
        TrashError::NotFound => {
            self::error(format!("no entry {place} in the trash")).hint("`cachedirfs trash list` lists them")
        }
        TrashError::Exists => self::error(format!("{place} exists already at the other side"))
            .hint("`cachedirfs check` tells what lies in the way"),
        TrashError::Malformed => self::error(format!("the record {place}.json in the trash is malformed")),
        TrashError::Cache(source) => failure::cache(place, source),
        TrashError::Io { doing, source } => failure::io(doing, format_args!("({place})"), source),
    }
}

fn seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

fn list(asked: Option<&Path>, json: bool) -> Result<()> {
    let cache = open(asked, Access::Read)?;
    let trashed = trash::list(&cache).map_err(|e| failed("of the trash", &e))?;
    let mut out = Out::stdout();
    if json {
        for Trashed { mut object, since, .. } in trashed {
            object.insert(Text::from_str("_trashed"), Value::Number(Number::from(seconds(since))));
            out.object(&object)?;
        }
        return out.finish();
    }
    if trashed.is_empty() {
        out.note("the trash is empty");
    }
    let rows: Vec<_> = trashed
        .iter()
        .map(|entry| {
            let pairs = crate::name::flatten(&entry.object);
            let pairs: Vec<_> =
                pairs.iter().map(|(key, value)| format!("{}={}", key.as_str(), value.to_text())).collect();
            vec![entry.id.as_str().to_owned(), local_time(seconds(entry.since)), pairs.join(" ")]
        })
        .collect();
    out.columns(&rows)?;
    out.finish()
}

fn restore(asked: Option<&Path>, ids: &[String]) -> Result<()> {
    let ids = ids.iter().map(|text| id(text)).collect::<Result<Vec<_>>>()?;
    let cache = open(asked, Access::Write)?;
    for id in &ids {
        trash::restore(&cache, id).map_err(|e| failed(id.as_str(), &e))?;
    }
    close(&cache)
}

fn empty(asked: Option<&Path>, older_than: Option<&str>, dry_run: bool) -> Result<()> {
    let age = older_than.map(age).transpose()?;
    let cache = open(asked, if dry_run { Access::Read } else { Access::Write })?;
    let before = age
        .and_then(|age| Duration::try_from_secs_f64(age).ok())
        .map(|age| SystemTime::now().checked_sub(age).unwrap_or(UNIX_EPOCH));
    let ids: Vec<Id> = trash::list(&cache)
        .map_err(|e| failed("of the trash", &e))?
        .into_iter()
        .filter(|entry| before.is_none_or(|before| entry.since < before))
        .map(|entry| entry.id)
        .collect();
    let mut out = Out::stdout();
    if dry_run {
        out.line(&count(ids.len()))?;
        for id in &ids {
            out.line(id.as_str())?;
        }
        return out.finish();
    }
    for id in &ids {
        trash::remove(&cache, id).map_err(|e| failed(id.as_str(), &e))?;
    }
    close(&cache)?;
    out.line(&count(ids.len()))?;
    out.finish()
}
