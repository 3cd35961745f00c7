//! `find`, `values`, `schema`: questions to the index.

use std::path::Path;

use roaring::RoaringBitmap;
use serde_json::Value as Json;

use super::args::{FindArgs, Format, SchemaArgs, ValuesArgs};
use super::conditions::{self, key, read};
use super::failure::{self, Result};
use super::locate::{Access, open};
use super::output::{self, Out, local_time};
use crate::cache::Cache;
use crate::index::Row;
use crate::name::{Key, flatten};
use crate::value::{Leaf, Object, Text};
use crate::view::{self, table::Csv};

/// `cachedirfs find`.
pub fn find(asked: Option<&Path>, args: &FindArgs) -> Result<()> {
    let order = args.sort.as_deref().map(order).transpose()?;
    let conditions = conditions::all(&args.conditions)?;
    let cache = open(asked, Access::Read)?;
    let set = conditions::select(&cache, conditions.as_ref());
    let mut rows = ordered(&cache, &set, order.as_ref());
    rows.truncate(args.limit.unwrap_or(usize::MAX));
    let mut out = Out::stdout();
    match if args.json { Format::Jsonl } else { args.format } {
        Format::Ids => {
            for row in rows {
                if let Some(id) = cache.index().id(row) {
                    out.line(id.as_str())?;
                }
            }
        }
        Format::Jsonl => {
            for row in rows {
                out.object(&read(&cache, row)?.object)?;
            }
        }
        Format::Csv => csv(&mut out, &cache, &rows)?,
        Format::Table => table(&mut out, &cache, &rows)?,
    }
    out.finish()
}

/// A key to order by, and whether descending.
struct Order {
    key: Key,
    descending: bool,
}

fn order(text: &str) -> Result<Order> {
    let (descending, name) = match text.strip_prefix('-') {
        Some(name) => (true, name),
        None => (false, text),
    };
    Ok(Order { key: key(name)?, descending })
}

fn ordered(cache: &Cache, set: &RoaringBitmap, order: Option<&Order>) -> Vec<Row> {
    let Some(order) = order else { return set.iter().map(Row).collect() };
    let mut rows = cache.index().sorted(&order.key, set);
    if order.descending {
        rows.reverse();
    }
    rows
}

/// As `table.csv` of a mount.
fn csv(out: &mut Out, cache: &Cache, rows: &[Row]) -> Result<()> {
    let set = rows.iter().map(|row| row.0).collect();
    let keys = cache.index().keys(Some(&set));
    let mut lines = Vec::new();
    let table = Csv::new(&keys, &mut lines);
    for &row in rows {
        let entry = read(cache, row)?;
        table.row(&entry.id, entry.time, &entry.object, &mut lines);
        out.bytes(&lines)?;
        lines.clear();
    }
    out.bytes(&lines)
}

/// Aligned columns: the id, the time, and every key that one of the entries has.
fn table(out: &mut Out, cache: &Cache, rows: &[Row]) -> Result<()> {
    let mut columns: Vec<Key> = Vec::new();
    let mut places = std::collections::HashMap::new();
    let mut lines = vec![Vec::new()];
    for &row in rows {
        let entry = read(cache, row)?;
        let mut cells = Vec::new();
        for (key, value) in flatten(&entry.object) {
            let place = *places.entry(key.clone()).or_insert_with(|| {
                columns.push(key);
                columns.len() + 1
            });
            if cells.len() <= place {
                cells.resize(place + 1, String::new());
            }
            if let Some(cell) = cells.get_mut(place) {
                *cell = value.to_text();
            }
        }
        cells.resize(cells.len().max(2), String::new());
        if let [id, time, ..] = &mut *cells {
            entry.id.as_str().clone_into(id);
            *time = local_time(entry.time);
        }
        lines.push(cells);
    }
    if rows.is_empty() {
        out.note("no entry");
        return Ok(());
    }
    if let Some(header) = lines.first_mut() {
        header.extend(["_id", "_timestamp"].map(str::to_owned));
        header.extend(columns.iter().map(|key| key.as_str().to_owned()));
    }
    out.columns(&lines)
}

/// `cachedirfs values`.
pub fn values(asked: Option<&Path>, args: &ValuesArgs) -> Result<()> {
    let key = key(&args.key)?;
    let conditions = conditions::all(&args.conditions)?;
    let cache = open(asked, Access::Read)?;
    let within = conditions.map(|conditions| conditions::select(&cache, Some(&conditions)));
    let values = cache.index().values(&key, within.as_ref());
    let mut out = Out::stdout();
    if args.json {
        for (leaf, count) in &values {
            let mut object = Object::new();
            object.insert(Text::from_str("value"), leaf.to_value());
            object.insert(Text::from_str("count"), output::count(*count));
            out.object(&object)?;
        }
    } else {
        if values.is_empty() {
            out.note(&format!("no entry has {}", key.as_str()));
        }
        let rows: Vec<_> =
            values.iter().map(|(leaf, count)| vec![Leaf::to_text(leaf), count.to_string()]).collect();
        out.columns(&rows)?;
    }
    out.finish()
}

/// `cachedirfs schema`.
pub fn schema(asked: Option<&Path>, args: &SchemaArgs) -> Result<()> {
    let conditions = conditions::all(&args.conditions)?;
    let cache = open(asked, Access::Read)?;
    let set = conditions::select(&cache, conditions.as_ref());
    let document = view::schema::schema(&cache.index(), &set);
    let mut out = Out::stdout();
    if args.json {
        out.bytes(document.as_bytes())?;
        return out.finish();
    }
    let document: Json = serde_json::from_str(&document)
        .map_err(|e| failure::error(format!("the schema cannot be read back: {e}")))?;
    let mut rows = vec![HEADER.map(str::to_owned).to_vec()];
    for (key, about) in document.get("keys").and_then(Json::as_object).into_iter().flatten() {
        let cell = |name: &str| about.get(name).map_or_else(String::new, plain);
        let types = about.get("types").and_then(Json::as_object).into_iter().flatten();
        let types = types.map(|(name, _)| name.as_str()).collect::<Vec<_>>().join("|");
        let frequent = about.get("frequent").and_then(Json::as_array).into_iter().flatten().take(FREQUENT);
        let frequent = frequent
            .filter_map(|value| Some(format!("{} ({})", plain(value.get("value")?), value.get("count")?)))
            .collect::<Vec<_>>()
            .join(", ");
        rows.push(vec![
            key.clone(),
            cell("count"),
            types,
            cell("distinct"),
            cell("min"),
            cell("max"),
            frequent,
        ]);
    }
    out.columns(&rows)?;
    out.finish()
}

/// The columns of `schema`.
const HEADER: [&str; 7] = ["KEY", "ENTRIES", "TYPES", "DISTINCT", "MIN", "MAX", "MOST FREQUENT"];
/// So many of the most frequent values are shown.
const FREQUENT: usize = 3;

/// Strings without quotes.
fn plain(value: &Json) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
