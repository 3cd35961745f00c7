//! `new`, `show`, `set`, `unset`, `rm`, `diff`, `compact`: entries by their ids, or by what holds for them.

use std::ffi::CString;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::args::{CompactArgs, DiffArgs, Matching, NewArgs, RmArgs, SetArgs, ShowArgs, UnsetArgs};
use super::conditions::{self, attributes, entry, id, key_to_change, pair};
use super::failure::{self, Result, usage};
use super::locate::{Access, open};
use super::output::{self, Out, local_time, string};
use crate::cache::{Cache, CacheError, Change, Entry, Outcome};
use crate::index::Row;
use crate::name::{Id, Key, flatten};
use crate::query::Expr;
use crate::record::{Edit, EditError, SetMode};
use crate::trash::TrashError;
use crate::value::{Leaf, Object, Text, Value};

/// So many changes are one round under the lock.
const ROUND: usize = 10_000;

/// The real directory of an entry.
pub fn directory(cache: &Cache, id: &Id) -> PathBuf {
    cache.store().path().join(id.as_str())
}

/// Commits, syncs and ends; a change is reported as done only after this.
pub fn close(cache: &Cache) -> Result<()> {
    cache.close().map_err(|e| failure::cache(cache.store().path().display(), &e))
}

/// `cachedirfs new`.
pub fn new(asked: Option<&Path>, args: &NewArgs) -> Result<()> {
    let pairs = args.pairs.iter().map(|text| pair(text)).collect::<Result<Vec<_>>>()?;
    let attrs = attributes(&pairs)?;
    let cache = open(asked, Access::Write)?;
    let fresh = make_directory(&cache)?;
    let made = cache
        .change(Change::Create { id: fresh.clone(), attrs })
        .map_err(|e| failure::cache(fresh.as_str(), &e))
        .and_then(|_| close(&cache));
    if made.is_err() {
        // Empty: nothing is lost with it. If it cannot be removed, `check` names it.
        let _ = fs::remove_dir(directory(&cache, &fresh));
        return made;
    }
    let mut out = Out::stdout();
    print_place(&mut out, &cache, &fresh, args.json)?;
    out.finish()
}

/// A fresh id with its directory.
pub fn make_directory(cache: &Cache) -> Result<Id> {
    cache.make_directory(0o777).map_err(|e| failure::cache(cache.store().path().display(), &e))
}

/// An entry's id and its directory, on a line.
pub fn print_place(out: &mut Out, cache: &Cache, id: &Id, json: bool) -> Result<()> {
    if json {
        out.object(&place(cache, id))
    } else {
        out.line(&format!("{}\t{}", id.as_str(), directory(cache, id).display()))
    }
}

/// An entry's id and its directory, for programs.
pub fn place(cache: &Cache, id: &Id) -> Object<'static> {
    let mut object = Object::new();
    object.insert(Text::from_str("id"), string(id.as_str()));
    object.insert(Text::from_str("path"), string(directory(cache, id).to_string_lossy()));
    object
}

/// `cachedirfs show`.
pub fn show(asked: Option<&Path>, args: &ShowArgs) -> Result<()> {
    let ids = args.ids.iter().map(|text| id(text)).collect::<Result<Vec<_>>>()?;
    let cache = open(asked, Access::Read)?;
    let mut out = Out::stdout();
    for (number, id) in ids.iter().enumerate() {
        let entry = entry(&cache, id)?;
        if args.json {
            out.object(&entry.object)?;
            continue;
        }
        if number > 0 {
            out.line("")?;
        }
        let place = directory(&cache, id);
        out.line(&format!("{}  {}  {}", id.as_str(), local_time(entry.time), place.display()))?;
        let rows: Vec<_> = flatten(&entry.object)
            .iter()
            .map(|(key, value)| vec![format!("  {}", key.as_str()), value.to_text()])
            .collect();
        out.columns(&rows)?;
    }
    out.finish()
}

/// `cachedirfs set`.
pub fn set(asked: Option<&Path>, args: &SetArgs) -> Result<()> {
    let (which, words) = which(&args.words, &args.matching)?;
    if words.is_empty() {
        return Err(usage("nothing to set: expected KEY=VALUE after the id"));
    }
    let edits = words
        .iter()
        .map(|text| pair(text).map(|(key, value)| Edit::Set(key, value, SetMode::Any)))
        .collect::<Result<Vec<_>>>()?;
    change(asked, &which, &edits, &args.matching)
}

/// `cachedirfs unset`.
pub fn unset(asked: Option<&Path>, args: &UnsetArgs) -> Result<()> {
    let (which, words) = which(&args.words, &args.matching)?;
    if words.is_empty() {
        return Err(usage("nothing to remove: expected keys after the id"));
    }
    let edits = words.iter().map(|text| key_to_change(text).map(Edit::Unset)).collect::<Result<Vec<_>>>()?;
    change(asked, &which, &edits, &args.matching)
}

/// What a change is for.
enum Which {
    One(Id),
    Matching(Option<Expr>),
}

/// The entry or the entries of `set` and `unset`, and the words that are left.
fn which<'w>(words: &'w [String], matching: &Matching) -> Result<(Which, &'w [String])> {
    if !matching.filter.is_empty() {
        return Ok((Which::Matching(conditions::all(&matching.filter)?), words));
    }
    match words.split_first() {
        Some((first, rest)) => {
            let id = id(first).map_err(|e| e.hint("expected the id of an entry, or --where EXPR"))?;
            Ok((Which::One(id), rest))
        }
        None => Err(usage("expected the id of an entry, or --where EXPR")),
    }
}

fn change(asked: Option<&Path>, which: &Which, edits: &[Edit], how: &Matching) -> Result<()> {
    let cache = open(asked, if how.dry_run { Access::Read } else { Access::Write })?;
    let ids = match which {
        Which::One(id) => vec![entry(&cache, id)?.id],
        Which::Matching(filter) => {
            let rows = conditions::select(&cache, filter.as_ref());
            let index = cache.index();
            rows.iter().filter_map(|row| index.id(Row(row))).collect()
        }
    };
    let mut changed = 0_u64;
    if !how.dry_run {
        for id in &ids {
            not_sealed(&cache, id)?;
        }
        for round in ids.chunks(ROUND) {
            let wanted = round.iter().map(|id| Change::Edit { id: id.clone(), edits: edits.to_vec() });
            let outcomes = cache
                .change_all(wanted.collect())
                .map_err(|e| failure::cache(cache.store().path().display(), &e))?;
            for (id, outcome) in round.iter().zip(outcomes) {
                match outcome {
                    Ok(Outcome::Done(true)) => changed += 1,
                    Ok(Outcome::Done(false) | Outcome::Found(_) | Outcome::Deleted(_)) => {}
                    // Of many entries some may lack the key, or go meanwhile: there is nothing to change then.
                    Err(CacheError::Edit(EditError::NoKey) | CacheError::NoEntry)
                        if matches!(which, Which::Matching(_)) => {}
                    Err(e) => return Err(failure::cache(id.as_str(), &e)),
                }
            }
        }
        close(&cache)?;
    }
    let mut out = Out::stdout();
    if how.json {
        let mut object = Object::new();
        object.insert(Text::from_str("matched"), output::count(u64::try_from(ids.len()).unwrap_or(u64::MAX)));
        object.insert(Text::from_str("changed"), output::count(changed));
        let ids = ids.iter().map(|id| string(id.as_str())).collect();
        object.insert(Text::from_str("ids"), Value::Array(ids));
        out.object(&object)?;
    } else if how.dry_run || matches!(which, Which::Matching(_)) {
        out.line(&count(ids.len()))?;
        if how.dry_run {
            for id in &ids {
                out.line(id.as_str())?;
            }
        }
    }
    out.finish()
}

/// `1 entry`, `2 entries`.
pub fn count(number: usize) -> String {
    if number == 1 { "1 entry".to_owned() } else { format!("{number} entries") }
}

/// A directory that may not be written to seals the attributes as well, as it does in a mount.
pub fn not_sealed(cache: &Cache, id: &Id) -> Result<()> {
    let path = directory(cache, id);
    let Ok(name) = CString::new(path.as_os_str().as_bytes()) else { return Ok(()) };
    // SAFETY: `name` ends in NUL and outlives the call.
    if unsafe { libc::faccessat(libc::AT_FDCWD, name.as_ptr(), libc::W_OK, libc::AT_EACCESS) } == 0 {
        return Ok(());
    }
    let reason = std::io::Error::last_os_error();
    if reason.kind() == ErrorKind::NotFound {
        return Ok(());
    }
    Err(failure::io("change the entry", path.display(), &reason)
        .hint("it may be sealed; `chmod u+w` on its directory opens it again"))
}

/// `cachedirfs rm`.
pub fn rm(asked: Option<&Path>, args: &RmArgs) -> Result<()> {
    let ids = args.ids.iter().map(|text| id(text)).collect::<Result<Vec<_>>>()?;
    let cache = open(asked, Access::Write)?;
    for id in &ids {
        if args.trash {
            crate::trash::put(&cache, id).map_err(|e| match e {
                TrashError::NotFound => failure::cache(id.as_str(), &CacheError::NoEntry),
                other => super::trash::failed(id.as_str(), &other),
            })?;
            continue;
        }
        not_sealed(&cache, id)?;
        // The record first: from then on the entry is gone, and a directory that is left over is found by `check`.
        cache.change(Change::Delete { id: id.clone() }).map_err(|e| failure::cache(id.as_str(), &e))?;
        let path = directory(&cache, id);
        match fs::remove_dir_all(&path) {
            Err(e) if e.kind() != ErrorKind::NotFound => {
                return Err(failure::io("remove", path.display(), &e)
                    .hint("the entry is deleted; what is left of its contents is yours to remove"));
            }
            _ => {}
        }
    }
    close(&cache)
}

/// `cachedirfs diff`.
pub fn diff(asked: Option<&Path>, args: &DiffArgs) -> Result<()> {
    let ids = args.ids.iter().map(|text| id(text)).collect::<Result<Vec<_>>>()?;
    let cache = open(asked, Access::Read)?;
    let entries = ids.iter().map(|id| entry(&cache, id)).collect::<Result<Vec<_>>>()?;
    let rows = differences(&entries);
    let mut out = Out::stdout();
    if args.json {
        let mut whole = Object::new();
        for (key, values) in &rows {
            let mut cells = Object::new();
            for (id, value) in ids.iter().zip(values) {
                if let Some(leaf) = value {
                    cells.insert(Text::from_str(id.as_str().to_owned()), leaf.to_value());
                }
            }
            whole.insert(Text::from_str(key.as_str().to_owned()), Value::Object(cells));
        }
        out.object(&whole)?;
        return out.finish();
    }
    if rows.is_empty() {
        out.note("no difference");
        return out.finish();
    }
    let mut table =
        vec![std::iter::once(String::new()).chain(ids.iter().map(|id| id.as_str().to_owned())).collect()];
    for (key, values) in rows {
        let cells = values.iter().map(|value| value.as_ref().map_or(String::new(), Leaf::to_text));
        table.push(std::iter::once(key.as_str().to_owned()).chain(cells).collect());
    }
    out.columns(&table)?;
    out.finish()
}

/// The keys whose values are not the same in all entries, in order of first appearance; `None` where an entry has none.
fn differences(entries: &[Entry]) -> Vec<(Key, Vec<Option<Leaf>>)> {
    let mut keys: Vec<Key> = Vec::new();
    let mut seen = std::collections::HashSet::new();
    let flat: Vec<std::collections::HashMap<Key, Leaf>> = entries
        .iter()
        .map(|entry| {
            flatten(&entry.object)
                .into_iter()
                .map(|(key, value)| {
                    if seen.insert(key.clone()) {
                        keys.push(key.clone());
                    }
                    (key, Leaf::of(value))
                })
                .collect()
        })
        .collect();
    keys.into_iter()
        .filter_map(|key| {
            let values: Vec<_> = flat.iter().map(|leaves| leaves.get(&key).cloned()).collect();
            let all_same = values.windows(2).all(|pair| pair.first() == pair.last());
            (!all_same).then_some((key, values))
        })
        .collect()
}

/// `cachedirfs compact`.
pub fn compact(asked: Option<&Path>, args: &CompactArgs) -> Result<()> {
    let cache = open(asked, Access::Write)?;
    let place = cache.store().path().display();
    let dropped = cache.compact().map_err(|e| failure::cache(&place, &e))?;
    close(&cache)?;
    let mut out = Out::stdout();
    if args.json {
        let mut object = Object::new();
        object.insert(Text::from_str("dropped_records"), output::count(dropped));
        out.object(&object)?;
    } else {
        out.line(&format!("{dropped} records dropped"))?;
    }
    out.finish()
}
