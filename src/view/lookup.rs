//! Names in directories of views.

use std::sync::Arc;

use roaring::RoaringBitmap;

use super::{Dir, File, NoName, Set, Term};
use crate::index::{Index, Row};
use crate::name::{Id, Key, cut_prefix, leaf_file_name, unescape};
use crate::query::Expr;
use crate::value::{Leaf, Value};

/// What a name in a directory of a view stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// A directory of a view.
    Dir(Dir),
    /// A file about the set.
    File(File),
    /// The link to an entry.
    Link(Row),
    /// Another spelling of this name, which exists.
    Spelling(String),
}

/// The rows that a question about a set is confined to: none are if the set is all entries.
pub fn within<'r>(set: &Set, rows: &'r RoaringBitmap) -> Option<&'r RoaringBitmap> {
    if set.is_all() { None } else { Some(rows) }
}

/// Finds a name in a directory whose set has these `rows`. `made` says of a directory without entries whether it is
/// there all the same.
pub fn lookup(
    index: &Index,
    dir: &Dir,
    rows: &RoaringBitmap,
    name: &str,
    made: &dyn Fn(&Dir) -> bool,
) -> Result<Found, NoName> {
    if let Dir::Set(set) = dir {
        return in_set(index, set, rows, name);
    }
    let (child, spelling) = child(index, dir, name)?;
    if !exists(index, &child, rows) && !made(&child) {
        return Err(NoName::NotFound);
    }
    Ok(if spelling == name { Found::Dir(child) } else { Found::Spelling(spelling) })
}

fn in_set(index: &Index, set: &Set, rows: &RoaringBitmap, name: &str) -> Result<Found, NoName> {
    let found = match name {
        "by-attr" => Found::Dir(Dir::Keys(set.clone())),
        "where" => Found::Dir(Dir::Where(set.clone())),
        "sort" => Found::Dir(Dir::Sort(set.clone())),
        "table.csv" => Found::File(File::Csv),
        "table.jsonl" => Found::File(File::Jsonl),
        "schema.json" => Found::File(File::Schema),
        "count" => Found::File(File::Count),
        _ => {
            let name = match set.terms().last() {
                // Any number will do: the one it had in a listing may be another's now.
                Some(Term::Sort(..)) => without_ordinal(name).ok_or(NoName::NotFound)?,
                Some(_) => name,
                // All entries are directories of `entries/`, or not listed (the root).
                None => return Err(NoName::NotFound),
            };
            let id = Id::from_file_name(name).ok_or(NoName::NotFound)?;
            let row = index.row(id.as_str()).filter(|row| rows.contains(row.0)).ok_or(NoName::NotFound)?;
            Found::Link(row)
        }
    };
    Ok(found)
}

/// `ID` of `NNNNNN-ID`.
fn without_ordinal(name: &str) -> Option<&str> {
    let (ordinal, id) = name.split_once('-')?;
    (ordinal.len() >= super::list::ORDINAL_WIDTH && ordinal.bytes().all(|byte| byte.is_ascii_digit()))
        .then_some(id)
}

/// The directory that a name in a directory of keys, values, expressions or orders would stand for, whether it exists
/// or not, and the one spelling of the name.
pub fn child(index: &Index, dir: &Dir, name: &str) -> Result<(Dir, String), NoName> {
    match dir {
        Dir::Set(_) => Err(NoName::NotFound),
        Dir::Keys(set) => {
            let key = key_of(index, name)?;
            let spelling = key.to_file_name();
            Ok((Dir::Values(set.clone(), key), spelling))
        }
        Dir::Values(set, key) => {
            let leaf = leaf_of(index, key, name)?;
            let spelling = leaf_file_name(&leaf);
            Ok((Dir::Set(set.and(Term::Value(key.clone(), leaf))), spelling))
        }
        Dir::Where(set) => {
            let text = unescape(name).ok_or(NoName::NotUtf8)?;
            let expr = Expr::parse(&text).map_err(|_| NoName::Malformed)?;
            Ok((Dir::Set(set.and(Term::Where(name.into(), Arc::new(expr)))), name.to_owned()))
        }
        Dir::Sort(set) => {
            let (down, key) = match name.strip_prefix('-') {
                Some(key) => (true, key),
                None => (false, name),
            };
            let key = key_of(index, key)?;
            let spelling = if down { format!("-{}", key.to_file_name()) } else { sort_name(&key) };
            Ok((Dir::Set(set.and(Term::Sort(key, down))), spelling))
        }
    }
}

/// The name of a key in `sort/`, ascending: the key, but that a first `-` would mean descending.
pub(super) fn sort_name(key: &Key) -> String {
    let name = key.to_file_name();
    match name.strip_prefix('-') {
        Some(rest) => format!("%2D{rest}"),
        None => name,
    }
}

/// Whether a directory that [`child`] gave is there, in a set of these rows.
pub fn exists(index: &Index, dir: &Dir, rows: &RoaringBitmap) -> bool {
    match dir {
        Dir::Values(set, key) => index.has_key(key, within(set, rows)),
        Dir::Set(set) => match set.terms().last() {
            Some(Term::Value(key, leaf)) => {
                index.has_value(key, leaf, if set.terms().len() == 1 { None } else { Some(rows) })
            }
            Some(Term::Sort(key, _)) => {
                !key.is_elements()
                    && (key.is_reserved()
                        || index.has_key(key, if set.terms().len() == 1 { None } else { Some(rows) }))
            }
            Some(Term::Where(..)) | None => true,
        },
        Dir::Keys(_) | Dir::Where(_) | Dir::Sort(_) => true,
    }
}

/// The key that a file name stands for.
fn key_of(index: &Index, name: &str) -> Result<Key, NoName> {
    if cut_prefix(name).is_some()
        && let Some(key) = index.keys(None).into_iter().find(|key| key.to_file_name() == name)
    {
        return Ok(key);
    }
    Key::parse(name).map_err(NoName::from)
}

/// The value that a file name stands for.
fn leaf_of(index: &Index, key: &Key, name: &str) -> Result<Leaf, NoName> {
    if cut_prefix(name).is_some()
        && let Some(leaf) = index.leaf_by_cut_name(key, name)
    {
        return Ok(leaf);
    }
    let text = unescape(name).ok_or(NoName::NotUtf8)?;
    Ok(Leaf::of(&Value::from_text(&text)))
}
