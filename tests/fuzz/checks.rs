//! What must hold for any input; run by the fuzzer (`scripts/fuzz`) and, over the kept corpus, by `tests/corpus.rs`.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use cachedirfs::cache::{Cache, Change, Options};
use cachedirfs::index::{Index, Loader};
use cachedirfs::name::{Id, Key, parse_pairs, to_file_name, unescape};
use cachedirfs::query::{Expr, holds};
use cachedirfs::record::{Dialect, Locator, Malformed, Piece, encode, parse_line, parse_record, parse_tail};
use cachedirfs::value::{Object, Value};
use cachedirfs::view::{Base, Dir, Found, Listing, Set, list, lookup};

/// An expression is refused, or has a spelling that is the same tree, and can be evaluated.
pub fn expr(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(expr) = Expr::parse(text) else { return };
    assert_eq!(Expr::parse(&expr.to_string()).as_ref(), Ok(&expr), "{text} is spelled {expr}");
    let object =
        Object::parse(br#"{"a": 1, "b": "x", "opt": {"name": null}, "tags": [1, "x", NaN]}"#).unwrap();
    holds(&expr, &object, "e1", 1.5, 2.5);
    let index = sample();
    assert!(index.select(&expr, 2.5).is_subset(index.live()));
}

/// The pieces of a line are in it, in order; a record is the same after it was written again, in both dialects.
pub fn record(data: &[u8]) {
    let mut end = 0;
    for (range, piece) in parse_line(data) {
        assert!(end <= range.start && range.start < range.end && range.end <= data.len());
        end = range.end;
        let Piece::Record(record) = piece else { continue };
        if record.deleted {
            continue;
        }
        for dialect in [Dialect::Path, Dialect::Name] {
            let line = encode(&record.id, record.time, &record.object, dialect, "/cache");
            assert!(!line.contains(&b'\n'));
            let again = parse_record(&line).unwrap();
            assert_eq!((&again.id, again.dialect), (&record.id, dialect));
            let attributes = |object: Object<'_>| cachedirfs::record::without_reserved(object.into_owned());
            let (old, new) = (attributes(record.object.clone()), attributes(again.object));
            assert!(Value::Object(old).same(&Value::Object(new)));
        }
    }
}

/// A path, a name a line, walked through the views: every name is found or refused, and what a directory lists is found.
pub fn path(data: &[u8]) {
    let index = sample();
    let mut dir = Dir::Set(Set::all(Base::Root));
    for name in data.split(|&byte| byte == b'\n').take(24) {
        let Ok(name) = std::str::from_utf8(name) else { return };
        let _ = (parse_pairs(name), Id::new(name), Id::from_file_name(name));
        if let Ok(key) = Key::parse(name) {
            assert_eq!(Key::parse(key.as_str()).as_ref(), Ok(&key));
        }
        let file_name = to_file_name(name);
        assert!(
            file_name.len() <= 255
                && !file_name.contains(['/', '\0'])
                && file_name != "."
                && file_name != ".."
        );
        if file_name.len() < 250 {
            assert_eq!(unescape(&file_name).as_deref(), Some(name));
        }
        let rows = dir.set().rows(&index, 2.5).into_owned();
        if let Listing::Names(names) = list(&index, &dir, &rows) {
            for name in names {
                let found = lookup(&index, &dir, &rows, &name, &|_| false);
                assert!(matches!(found, Ok(Found::Dir(_))), "{name} is listed and gives {found:?}");
            }
        }
        match lookup(&index, &dir, &rows, name, &|_| false) {
            Ok(Found::Dir(child)) => dir = child,
            Ok(Found::Spelling(one)) => match lookup(&index, &dir, &rows, &one, &|_| false) {
                Ok(Found::Dir(child)) => dir = child,
                other => panic!("{name} is another spelling of {one}, which gives {other:?}"),
            },
            _ => return,
        }
    }
}

/// Whatever the log is: it is read and appended to, and no entry of a whole line is lost or changed.
pub fn recover(data: &[u8]) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("_entries"), data).unwrap();
    let mut expected = BTreeMap::new();
    // Of a tail without its newline, what is whole counts, and what stands before that; an object within a torn record does not.
    let tail = data.rsplit(|&byte| byte == b'\n').next().unwrap();
    let is_whole = |piece: &Piece<'_>| matches!(piece, Piece::Record(_) | Piece::Malformed(Malformed::NoId));
    let whole =
        parse_tail(tail).iter().rev().find(|(_, piece)| is_whole(piece)).map_or(0, |(range, _)| range.end);
    let data = data.get(..data.len() - tail.len() + whole).unwrap();
    for line in data.split(|&byte| byte == b'\n') {
        for (_, piece) in parse_line(line) {
            let Piece::Record(record) = piece else { continue };
            if record.deleted {
                expected.remove(record.id.as_str());
            } else {
                expected.insert(record.id.as_str().to_owned(), record.object.into_owned());
            }
        }
    }
    let options = Options {
        read_only: false,
        sync: false,
        refresh: Duration::from_secs(1),
        background: false,
        keep: None,
    };
    let fresh = Id::new("efuzzfuzz").unwrap();
    let cache = Cache::open(dir.path(), &options).unwrap();
    if !expected.contains_key(fresh.as_str()) {
        cache.change(Change::Create { id: fresh.clone(), attrs: Object::new() }).unwrap();
        expected.insert(fresh.as_str().to_owned(), Object::new());
    }
    cache.compact().unwrap();
    cache.close().unwrap();
    let cache = Cache::open(dir.path(), &options).unwrap();
    let rows: Vec<u32> = cache.index().live().iter().collect();
    assert_eq!(rows.len(), expected.len());
    for row in rows {
        let entry = cache.entry(cachedirfs::index::Row(row)).unwrap();
        let object = expected.get(entry.id.as_str()).unwrap();
        if entry.id != fresh {
            assert!(
                Value::Object(entry.object).same(&Value::Object(object.clone())),
                "{:?} has changed",
                entry.id
            );
        }
    }
}

/// A few entries with values of every type.
fn sample() -> Index {
    let log: &[&str] = &[
        r#"{"_id": "/c/e1", "a": 1, "b": "x/y", "opt": {"name": "adam"}, "tags": ["x", 1], "_timestamp": 1}"#,
        r#"{"@": "e2", "a": 0.10, "b": "", "opt": 3, "tags": [], "$": 2}"#,
        r#"{"@": "%e3", "a": NaN, "b": null, "": true, "x.y": {"": {}}, "$": 3}"#,
        r#"{"@": "by-attr", "a": 9007199254740993, "b": "\udcff", "t[]": "~0123456789abcdef", "$": 4}"#,
    ];
    let mut loader = Loader::default();
    for (number, line) in log.iter().enumerate() {
        let at = Locator { offset: number as u64 * 1000, len: line.len() as u32 };
        loader.add(&parse_record(line.as_bytes()).unwrap(), at);
    }
    loader.finish()
}
