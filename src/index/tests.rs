use std::collections::BTreeMap;

use proptest::prelude::*;
use roaring::RoaringBitmap;

use super::*;
use crate::name::{self, flatten, leaf_file_name};
use crate::query::{Expr, Op, Operand, holds};
use crate::record::{Dialect, Piece, parse_line};

const NOW: f64 = 1000.0;

fn object(json: &str) -> Object<'_> {
    Object::parse(json.as_bytes()).unwrap()
}

fn key(text: &str) -> Key {
    Key::parse(text).unwrap()
}

fn leaf(text: &str) -> Leaf {
    Leaf::of(&Value::from_text(text))
}

fn rows(rows: &[u32]) -> RoaringBitmap {
    rows.iter().copied().collect()
}

fn tidy(index: &mut Index) -> bool {
    let Some(tidied) = index.tidied() else { return false };
    index.tidy(tidied);
    true
}

fn at(offset: u64) -> Locator {
    Locator { offset, len: 7 }
}

fn record<'a>(id: &str, time: f64, object: Option<Object<'a>>) -> Record<'a> {
    Record {
        id: Id::new(id).unwrap(),
        time,
        deleted: object.is_none(),
        dialect: Dialect::Path,
        object: object.unwrap_or_default(),
    }
}

/// An index of entries `e0`, `e1`, … with these objects.
fn index_of(objects: &[&str]) -> Index {
    let mut loader = Loader::default();
    for (number, json) in (0u32..).zip(objects) {
        loader.add(&record(&format!("e{number}"), f64::from(number), Some(object(json))), at(number.into()));
    }
    loader.finish()
}

fn select(index: &Index, expr: &str) -> RoaringBitmap {
    index.select(&Expr::parse(expr).unwrap(), NOW)
}

#[test]
fn the_last_record_of_an_id_wins() {
    let mut loader = Loader::default();
    loader.add(&record("a", 1.0, Some(object(r#"{"x": 1, "gone": 1}"#))), at(0));
    loader.add(&record("b", 2.0, Some(object(r#"{"x": 1}"#))), at(10));
    loader.add(&record("c", 3.0, Some(object(r#"{"x": 1}"#))), at(20));
    loader.add(&record("a", 1.0, Some(object(r#"{"x": 2}"#))), at(30));
    loader.add(&record("b", 9.0, None), at(40));
    let index = loader.finish();
    assert_eq!(index.len(), 2);
    assert_eq!(index.values(&key("x"), None), [(leaf("1"), 1), (leaf("2"), 1)]);
    assert_eq!(index.keys(None), [key("x")]);
    assert_eq!(index.row("a"), Some(Row(0)));
    assert_eq!(index.locator(Row(0)), Some(at(30)));
    assert_eq!((index.row("b"), index.row_ever("b"), index.locator(Row(1))), (None, Some(Row(1)), None));
    assert_eq!(index.time(Row(1)).to_bits(), 2.0_f64.to_bits(), "a deletion is not the time of an entry");
}

#[test]
fn rows_are_permanent() {
    let mut index = index_of(&["{}", r#"{"x": 1}"#, "{}"]);
    index.apply(&record("e1", 5.0, None), Some(&object(r#"{"x": 1}"#)), at(99));
    assert_eq!(index.id(Row(1)), Some(Id::new("e1").unwrap()));
    assert!(!index.is_live(Row(1)) && index.len() == 2);

    let mut loader = Loader::replacing(&index);
    loader.add(&record("new", 6.0, Some(object(r#"{"x": 2}"#))), at(0));
    loader.add(&record("e1", 7.0, Some(object(r#"{"x": 3}"#))), at(10));
    let index = loader.finish();
    assert_eq!((index.row("new"), index.row("e1"), index.row("e0")), (Some(Row(3)), Some(Row(1)), None));
    assert_eq!(index.values(&key("x"), None), [(leaf("2"), 1), (leaf("3"), 1)]);
    assert_eq!(index.posting(&key("x"), &leaf("2")), rows(&[3]));
    assert_eq!(index.id(Row(0)), Some(Id::new("e0").unwrap()));
}

#[test]
fn relocated_records_are_found() {
    let mut index = index_of(&["{}", "{}"]);
    let generation = index.generation();
    index.relocate([(Row(1), at(77))]);
    assert_eq!((index.locator(Row(0)), index.locator(Row(1))), (Some(at(0)), Some(at(77))));
    assert_eq!(index.generation(), generation, "nothing that is shown has changed");
}

#[test]
fn a_change_touches_only_the_keys_that_it_changes() {
    let mut index = index_of(&[r#"{"a": 1, "b": 1, "o": {"m": 1}}"#, r#"{"c": 1}"#]);
    let generations = |index: &Index| {
        ["a", "b", "c", "o", "o.m", "_id", "_timestamp", "x"].map(|k| index.key_generation(&key(k)))
    };
    let before = generations(&index);

    let old = object(r#"{"a": 1, "b": 1, "o": {"m": 1}}"#);
    let new = object(r#"{"a": 1.0, "b": 2, "o": {"m": 2}}"#);
    index.apply(&record("e0", 0.0, Some(new.clone())), Some(&old), at(50));
    let now = index.generation();
    assert_eq!(generations(&index), [before[0], now, before[2], now, now, before[5], before[6], before[7]]);
    assert!(now > before[1] && index.live_generation() < now);

    let before = generations(&index);
    index.apply(&record("e0", 3.0, None), Some(&new), at(60));
    let now = index.generation();
    assert_eq!(generations(&index), [now, now, before[2], now, now, now, now, before[7]]);
    assert_eq!(index.live_generation(), now);

    index.apply(&record("e0", 3.0, None), None, at(70));
    index.apply(&record("never", 3.0, None), None, at(80));
    assert_eq!(index.generation(), now, "what is gone cannot go");

    let replaced = Loader::replacing(&index).finish();
    assert!(generations(&replaced).iter().all(|&generation| generation > now));
}

#[test]
fn an_old_object_that_is_not_told_is_found() {
    let mut index = index_of(&[r#"{"a": 1, "t": [1, 2, {"x": 3}]}"#, r#"{"a": 1}"#]);
    index.apply(&record("e0", 0.0, Some(object(r#"{"a": 2}"#))), None, at(9));
    assert_eq!(index.values(&key("a"), None), [(leaf("1"), 1), (leaf("2"), 1)]);
    assert_eq!(index.keys(None), [key("a")]);
}

#[test]
fn elements_of_arrays_are_values_of_their_own_key() {
    let index = index_of(&[r#"{"t": ["x", "y", "x", {"k": 1}]}"#, r#"{"t": []}"#, r#"{"t": ["y"]}"#]);
    assert_eq!(index.keys(None), [key("t"), key("t[]")]);
    assert_eq!(index.values(&key("t[]"), None), [(leaf("x"), 1), (leaf("y"), 2), (leaf(r#"{"k":1}"#), 1)]);
    assert_eq!(
        index.values(&key("t[]"), Some(&rows(&[0, 1]))),
        [(leaf("x"), 1), (leaf("y"), 1), (leaf(r#"{"k":1}"#), 1)]
    );
    assert_eq!(index.sorted(&key("t[]"), &rows(&[0, 1, 2])), [Row(0), Row(2)]);
    assert_eq!(select(&index, "has(t[])"), rows(&[0, 2]));
}

#[test]
fn members_count_as_having_the_key() {
    let index =
        index_of(&[r#"{"opt": {"name": "adam"}}"#, r#"{"opt": 1}"#, r#"{"opt": {}}"#, r#"{"optimum": 1}"#]);
    assert_eq!(select(&index, "has(opt)"), rows(&[0, 1, 2]));
    assert!(index.has_key(&key("opt"), None) && !index.has_key(&key("opt"), Some(&rows(&[0, 3]))));
    // A member that looks like elements is spelled in another way if it is the last.
    let index = index_of(&[r#"{"t[]": {"x": 1}}"#, r#"{"t": [1]}"#]);
    assert_eq!(select(&index, "has(t%5B%5D)"), rows(&[0]));
    assert_eq!(select(&index, "has(t[])"), rows(&[1]));
}

#[test]
fn postings_of_every_size_take_and_lose_rows() {
    let json = r#"{"x": 1}"#;
    let mut index = Index::default();
    let mut expected = RoaringBitmap::new();
    let check = |index: &Index, expected: &RoaringBitmap| {
        assert_eq!(index.posting(&key("x"), &leaf("1")), *expected);
        assert_eq!(index.values(&key("x"), None).iter().map(|(_, count)| count).sum::<u64>(), expected.len());
    };
    for row in 0..600 {
        index.apply(&record(&format!("e{row}"), 0.0, Some(object(json))), None, at(0));
        tidy(&mut index);
        expected.insert(row);
        check(&index, &expected);
    }
    // 7 has no common divisor with 600: every row goes, in no order.
    for step in 0..600 {
        let row = step * 7 % 600;
        index.apply(&record(&format!("e{row}"), 0.0, None), Some(&object(json)), at(0));
        expected.remove(row);
        check(&index, &expected);
    }
    assert_eq!((index.keys(None), index.values(&key("x"), None)), (vec![], vec![]));
}

/// Enough records that every way to collect the values of a key is taken; with `again`, every 13th twice.
fn check_large_load(again: bool) {
    let json = |number: u32| {
        let unique = f64::from(number % 90_000) / 7.0 * if number.is_multiple_of(2) { 1.0 } else { -1.0 };
        let odd = if number.is_multiple_of(1000) { "null" } else { "Infinity" };
        let measured = if number.is_multiple_of(500) { odd.to_owned() } else { format!("{unique:?}") };
        let text = number % 70_001;
        let sparse = if number.is_multiple_of(3) { r#", "sparse": 1"# } else { "" };
        let (few, many) = (number / 50, number % 301);
        format!(
            r#"{{"measured": {measured}, "text": "{text}", "few": {few}, "many": {many}, "tags": ["a", {many}, "a"], "all": 1{sparse}}}"#
        )
    };
    let mut loader = Loader::default();
    let mut expected: BTreeMap<Key, BTreeMap<Leaf, Vec<u32>>> = BTreeMap::new();
    for number in 0..100_000 {
        let json = json(number);
        let object = object(&json);
        let id = format!("e{number}");
        if again && number.is_multiple_of(13) {
            loader.add(
                &record(&id, 0.0, Some(self::object(r#"{"all": 1, "measured": 0.25, "gone": "x"}"#))),
                at(0),
            );
        }
        let mut add = |key: Key, value: &Value<'_>| {
            let rows = expected.entry(key).or_default().entry(Leaf::of(value)).or_default();
            if rows.last() != Some(&number) {
                rows.push(number);
            }
        };
        for (key, value) in flatten(&object) {
            if let Value::Array(elements) = value {
                for element in elements {
                    add(key.elements(), element);
                }
            }
            add(key, value);
        }
        loader.add(&record(&id, 0.0, Some(object)), at(0));
    }
    let index = loader.finish();
    assert_eq!(index.keys(None), expected.keys().cloned().collect::<Vec<_>>());
    for (key, values) in expected {
        let counts: Vec<_> = values.iter().map(|(leaf, rows)| (leaf.clone(), rows.len() as u64)).collect();
        assert!(index.values(&key, None) == counts, "{key:?}");
        for (leaf, rows) in values {
            assert!(index.posting(&key, &leaf).into_iter().eq(rows), "{key:?} {leaf:?}");
        }
    }
    assert_eq!(select(&index, "has(all)").len(), 100_000);
}

#[test]
fn a_large_log_is_loaded() {
    check_large_load(false);
}

#[test]
fn a_large_log_with_replaced_records_is_loaded() {
    check_large_load(true);
}

#[test]
fn ids_fill_more_than_one_buffer() {
    let mut loader = Loader::default();
    for number in 0..70_000 {
        loader.add(&record(&format!("e{number}"), 0.0, Some(Object::new())), at(number));
    }
    let index = loader.finish();
    for row in [0, 1, 65_535, 65_536, 65_537, 69_999] {
        assert_eq!(index.row(&format!("e{row}")), Some(Row(row)));
        assert_eq!(index.id(Row(row)).unwrap().as_str(), format!("e{row}"));
    }
    assert_eq!((index.row("e70000"), index.id(Row(70_000))), (None, None));
}

#[test]
fn values_with_cut_names_are_found() {
    let texts = [
        "x".repeat(300),
        format!("{}y", "x".repeat(299)),
        "/".repeat(200),
        "%".repeat(200),
        "é".repeat(200),
        format!("\"{}", "q".repeat(300)),
        "\\u0001".repeat(60),
        format!("-{}", "z".repeat(300)),
        format!("[{}", "z".repeat(300)),
        format!("7{}", "z".repeat(300)),
    ];
    let mut jsons: Vec<String> = texts.iter().map(|text| serde_json::to_string(text).unwrap()).collect();
    jsons.push(format!("\"{}\"", "\\u0001".repeat(60)));
    jsons.push(format!("\"{}\"", "\\ud800".repeat(60)));
    jsons.push(format!("\"{}\"", "1".repeat(300)));
    jsons.push(format!("[{}1]", "1, ".repeat(300)));
    jsons.push("9".repeat(300));
    jsons.push(format!("-{}", "9".repeat(300)));
    let objects: Vec<String> = jsons.iter().map(|json| format!(r#"{{"k": {json}}}"#)).collect();
    let index = index_of(&objects.iter().map(String::as_str).collect::<Vec<_>>());
    for object in &objects {
        let leaf = Leaf::of(Object::parse(object.as_bytes()).unwrap().get("k").unwrap());
        let name = leaf_file_name(&leaf);
        assert!(name::cut_prefix(&name).is_some(), "{object}");
        assert_eq!(index.leaf_by_cut_name(&key("k"), &name), Some(leaf), "{object}");
    }
    let other = leaf_file_name(&leaf(&"x".repeat(301)));
    assert_eq!(index.leaf_by_cut_name(&key("k"), &other), None);
    assert_eq!(index.leaf_by_cut_name(&key("none"), &other), None);
}

fn to_bytes(index: &Index) -> Vec<u8> {
    let mut bytes = Vec::new();
    index.keep(&mut |more| bytes.extend_from_slice(more));
    bytes
}

fn from_bytes(bytes: &[u8]) -> Option<Index> {
    let mut rest = bytes;
    Index::from_kept(bytes.len() as u64, &mut |buf| {
        let Some((now, later)) = rest.split_at_checked(buf.len()) else { return false };
        buf.copy_from_slice(now);
        rest = later;
        true
    })
}

fn through_bytes(index: &Index) -> Index {
    from_bytes(&to_bytes(index)).unwrap()
}

#[test]
fn a_kept_index_goes_on() {
    let mut index = index_of(&[r#"{"x": 1, "o": {"m": [1, 2]}}"#, r#"{"x": 1}"#, r#"{"x": "ü"}"#]);
    index.apply(&record("e1", 1.0, None), None, at(5));
    let mut kept = through_bytes(&index);
    assert_eq!((kept.row("e0"), kept.row("e1"), kept.row_ever("e1")), (Some(Row(0)), None, Some(Row(1))));
    for index in [&mut index, &mut kept] {
        index.apply(&record("e1", 1.0, Some(object(r#"{"o": {"m": [2]}}"#))), None, at(6));
        index.apply(&record("e0", 9.0, Some(object(r#"{"x": 2}"#))), None, at(7));
        index.apply(&record("new", 3.0, Some(object(r#"{"x": 2}"#))), None, at(8));
        assert_eq!(select(index, "x = 2"), rows(&[0, 3]));
        assert_eq!(select(index, "o.m[] = 2"), rows(&[1]));
        assert_eq!(select(index, "_timestamp > 2"), rows(&[0, 3]));
        assert_eq!(index.keys(None), [key("o.m"), key("o.m[]"), key("x")]);
    }
    assert!(from_bytes(&[]).is_none());
    assert_eq!(through_bytes(&Index::default()).len(), 0);
}

/// Lines of a log: records of few shapes, some of them damaged or spelled in other ways.
fn lines() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let ids = prop::sample::select(vec!["e0", "e1", "e2", "e3", "e4", "f", "_x", "a/b"]);
    let value = prop_oneof![
        8 => values().prop_map(|value| {
            let mut out = Vec::new();
            value.write_python(&mut out);
            String::from_utf8(out).unwrap()
        }),
        2 => prop::sample::select(vec!["1.", "01", "tru", "\"", "\"a\tb\"", "\"\\u12\"", "[1", "[1,]", "[ ]", "{ }", "\"é\"", "-", "\"\\ud800\"", "\"\\n\""]).prop_map(str::to_owned),
    ];
    let shapes = prop::sample::select(vec![
        r#"{"_id": "/c/ID", "a": V, "b": V, "_timestamp": 1.5}"#,
        r#"{"_id": "/c/ID", "a": V, "b": V, "_timestamp": 900}"#,
        r#"{"@": "ID", "a": V, "o": {"name": V, "": {"x": V}}, "t": V, "$": 1e3}"#,
        r#"{"@": "ID", "a": V, "a": V, "$": 2}"#,
        r#"{"@": "ID","t":V,  "_id": "ID"}"#,
        r#"{"@": "ID", "b": V, "_deleted": true}"#,
        r#"{"@": "ID", "t[]": V, "$": V}"#,
        r#"{"a": V, "@": "ID", "e\u0301": V}"#,
        r#"{"@": "ID", "o": {"name": V, "name": V}}"#,
        r#" {"@" : "ID", "t" : V } "#,
        "{\"@\": \"ID\", \"b\": V}\0{\"@\": \"f\", \"b\": V}",
        r#"{"@": "ID", "b": {"@": "f", "b": V}"#,
    ]);
    let line = (
        shapes,
        ids,
        prop::collection::vec(value, 6),
        prop::option::weighted(0.05, (any::<prop::sample::Index>(), any::<u8>())),
    );
    let line = line.prop_map(|(shape, id, values, damage)| {
        let mut line = shape.replace("ID", id);
        for value in values {
            line = line.replacen('V', &value, 1);
        }
        let mut line = line.into_bytes();
        if let Some((place, byte)) = damage {
            let place = place.index(line.len());
            line[place] = byte;
        }
        line.retain(|byte| *byte != b'\n');
        line
    });
    prop::collection::vec(line, 0..40)
}

type Entry = (f64, Object<'static>, Locator);

/// Entries as plain objects, in order of first appearance.
#[derive(Debug, Default, Clone)]
struct Model {
    entries: Vec<(String, Option<Entry>)>,
}

impl Model {
    fn set(&mut self, record: &Record<'static>, at: Locator) {
        let id = record.id.as_str();
        let row = self.entries.iter().position(|(other, _)| other == id).unwrap_or(self.entries.len());
        if row == self.entries.len() {
            self.entries.push((id.to_owned(), None));
        }
        self.entries[row].1 = (!record.deleted).then(|| (record.time, record.object.clone(), at));
    }

    fn object(&self, id: &str) -> Option<&Object<'static>> {
        let entry = self.entries.iter().find(|(other, _)| other == id)?;
        entry.1.as_ref().map(|(_, object, _)| object)
    }

    fn live(&self) -> impl Iterator<Item = (u32, &str, f64, &Object<'static>)> {
        (0..).zip(&self.entries).filter_map(|(row, (id, entry))| {
            entry.as_ref().map(|(time, object, _)| (row, id.as_str(), *time, object))
        })
    }

    /// For every key, for every value, the rows.
    fn postings(&self) -> BTreeMap<Key, BTreeMap<Leaf, RoaringBitmap>> {
        let mut postings: BTreeMap<Key, BTreeMap<Leaf, RoaringBitmap>> = BTreeMap::new();
        for (row, _, _, object) in self.live() {
            for (key, value) in flatten(object) {
                if let Value::Array(elements) = value {
                    for element in elements {
                        postings
                            .entry(key.elements())
                            .or_default()
                            .entry(Leaf::of(element))
                            .or_default()
                            .insert(row);
                    }
                }
                postings.entry(key).or_default().entry(Leaf::of(value)).or_default().insert(row);
            }
        }
        postings
    }

    fn check(&self, index: &Index, exprs: &[Expr], within: &RoaringBitmap) {
        for (row, (id, entry)) in (0..).zip(&self.entries) {
            assert_eq!(index.row_ever(id), Some(Row(row)));
            assert_eq!(index.id(Row(row)).unwrap().as_str(), id);
            assert_eq!(index.row(id), entry.as_ref().map(|_| Row(row)));
            assert_eq!(index.locator(Row(row)), entry.as_ref().map(|(_, _, at)| *at));
            if let Some((time, _, _)) = entry {
                assert_eq!(index.time(Row(row)).to_bits(), time.to_bits());
            }
        }
        assert_eq!(index.live(), &self.live().map(|(row, ..)| row).collect::<RoaringBitmap>());
        assert_eq!(index.len(), self.live().count());

        let postings = self.postings();
        assert_eq!(index.keys(None), postings.keys().cloned().collect::<Vec<_>>());
        let all = self.live().map(|(row, ..)| row).collect();
        for within in [None, Some(within), Some(&all)] {
            let count =
                |rows: &RoaringBitmap| within.map_or(rows.len(), |within| rows.intersection_len(within));
            let mut keys = Vec::new();
            for (key, values) in &postings {
                let mut expected: Vec<_> =
                    values.iter().map(|(leaf, rows)| (leaf.clone(), count(rows))).collect();
                expected.retain(|(_, count)| *count > 0);
                assert_eq!(index.has_key(key, within), !expected.is_empty());
                if !expected.is_empty() {
                    keys.push(key.clone());
                }
                assert_eq!(index.values(key, within), expected);
            }
            assert_eq!(index.keys(within), keys);
        }
        for (key, values) in &postings {
            for (leaf, rows) in values {
                assert_eq!(index.posting(key, leaf), *rows);
                assert!(index.has_value(key, leaf, None) && !index.has_value(key, &Leaf::from(0.125), None));
                assert_eq!(index.has_value(key, leaf, Some(within)), !rows.is_disjoint(within));
            }
            for set in [within, &all] {
                let mut expected: Vec<u32> = Vec::new();
                for rows in values.values() {
                    expected.extend(
                        (rows & set).iter().filter(|row| !expected.contains(row)).collect::<Vec<_>>(),
                    );
                }
                assert_eq!(
                    index.sorted(key, set),
                    expected.into_iter().map(Row).collect::<Vec<_>>(),
                    "{key:?}"
                );
            }
        }
        let mut by_time: Vec<_> = self.live().filter(|(row, ..)| within.contains(*row)).collect();
        by_time.sort_by(|a, b| Leaf::from(a.2).cmp(&Leaf::from(b.2)));
        assert_eq!(
            index.sorted(&key("_timestamp"), within),
            by_time.iter().map(|(row, ..)| Row(*row)).collect::<Vec<_>>()
        );
        by_time.sort_by_key(|(_, id, ..)| *id);
        assert_eq!(
            index.sorted(&key("@"), within),
            by_time.iter().map(|(row, ..)| Row(*row)).collect::<Vec<_>>()
        );

        for expr in exprs {
            let holds = |(row, id, time, object)| holds(expr, object, id, time, NOW).then_some(row);
            assert_eq!(
                index.select(expr, NOW),
                self.live().filter_map(holds).collect::<RoaringBitmap>(),
                "{expr:?}"
            );
            assert_eq!(index.select_in(expr, NOW, within), index.select(expr, NOW) & within, "{expr:?}");
        }
    }
}

fn values() -> impl Strategy<Value = Value<'static>> {
    let tokens = [
        "null",
        "true",
        "false",
        "0",
        "-0.0",
        "1",
        "1.0",
        "1e0",
        "0.5",
        "-3",
        "NaN",
        "Infinity",
        "-Infinity",
        "9223372036854775807",
        "9223372036854775808",
        "9223372036854775809",
        "-100000000000000000001",
        r#""""#,
        r#""a""#,
        r#""ab""#,
        r#""b*""#,
        r#""1""#,
        r#""true""#,
        r#""\udcff""#,
        r#""é""#,
        r#""e1""#,
        "[]",
        "[1]",
        r#"["a", "b", "a"]"#,
        r#"[{"k": 1}, [], null]"#,
        "[1.0, 2]",
        "{}",
        r#"{"name": "a"}"#,
        r#"{"name": {"": 1}, "x": []}"#,
        r#"{"x": {}}"#,
        "1000",
    ];
    prop::sample::select(tokens.to_vec()).prop_map(|token| Value::parse(token.as_bytes()).unwrap())
}

fn objects() -> impl Strategy<Value = Object<'static>> {
    let names = ["a", "b", "o", "t", "t[]", "o.name", "", "a/b", "_id", "$", "_deleted", "é"];
    prop::collection::vec((prop::sample::select(names.to_vec()), values()), 0..6).prop_map(|members| {
        let mut object = Object::new();
        for (name, value) in members {
            object.insert(crate::value::Text::from_str(name), value);
        }
        object
    })
}

fn records() -> impl Strategy<Value = Vec<Record<'static>>> {
    let ids = prop::sample::select(vec!["e0", "e1", "e2", "e3", "e4", "f"]);
    let times = prop::sample::select(vec![0.0, -0.0, 1.0, 900.0, 1000.0, f64::INFINITY]);
    let one = (ids, times, prop::option::weighted(0.8, objects()));
    prop::collection::vec(one.prop_map(|(id, time, object)| record(id, time, object)), 0..25)
}

fn exprs() -> impl Strategy<Value = Expr> {
    let keys = [
        "a",
        "b",
        "o",
        "o.name",
        "o.name.\"\"",
        "o.x",
        "o.x[]",
        "t",
        "t[]",
        "t%5B%5D",
        "t[].name",
        "o%2Ename",
        "\"\"",
        "_id",
        "@",
        "$",
        "_timestamp",
        "_id.name",
        "_deleted",
        "none",
    ];
    let keys = prop::sample::select(keys.map(key).to_vec());
    let leaves =
        prop_oneof![values().prop_map(|value| Leaf::of(&value)), Just(leaf("900")), Just(leaf("e2"))].boxed();
    let ops = prop::sample::select(vec![Op::Eq, Op::Ne, Op::Lt, Op::Le, Op::Gt, Op::Ge]);
    let operands = prop_oneof![9 => leaves.clone().prop_map(Operand::Leaf), 1 => Just(Operand::Ago(100.0))];
    let patterns = prop::sample::select(vec!["*", "a*", "?", "e?", "ab", "b*", "*b", "é", ""]);
    let one = prop_oneof![
        6 => (keys.clone(), ops, operands).prop_map(|(key, op, operand)| Expr::Compare(key, op, operand)),
        1 => (keys.clone(), patterns).prop_map(|(key, pattern)| Expr::Like(key, pattern.to_owned())),
        1 => (keys.clone(), prop::collection::vec(leaves, 0..4)).prop_map(|(key, leaves)| Expr::In(key, leaves)),
        1 => keys.prop_map(Expr::Has),
    ];
    one.prop_recursive(3, 8, 2, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(left, right)| Expr::And(left.into(), right.into())),
            (inner.clone(), inner.clone()).prop_map(|(left, right)| Expr::Or(left.into(), right.into())),
            inner.prop_map(|inner| Expr::Not(inner.into())),
        ]
    })
}

/// What becomes of entries: a record of the number with this time (or a deletion), and whether the index is tidied then.
fn dated() -> impl Strategy<Value = Vec<(u32, Option<f64>, bool)>> {
    let time = prop_oneof![
        4 => (0_u32..20).prop_map(f64::from),
        1 => Just(-1.0),
        1 => Just(0.0),
        1 => Just(f64::INFINITY),
    ];
    prop::collection::vec((0_u32..24, prop::option::weighted(0.8, time), prop::bool::weighted(0.1)), 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_newest_is_the_one_that_a_look_at_all_finds(
        first in prop::collection::vec(0_u32..20, 0..16),
        ascending in any::<bool>(),
        then in dated(),
        among in prop::collection::vec(prop::collection::btree_set(0_u32..30, 0..12), 1..4),
    ) {
        let mut first = first;
        if ascending {
            first.sort_unstable();
        }
        let mut loader = Loader::default();
        for (number, time) in (0_u32..).zip(first) {
            loader.add(&record(&format!("e{number}"), f64::from(time), Some(Object::new())), at(number.into()));
        }
        let mut index = loader.finish();
        for (number, time, tidied) in then {
            let object = time.map(|_| Object::new());
            index.apply(&record(&format!("e{number}"), time.unwrap_or(1000.0), object), None, at(1));
            while tidied && tidy(&mut index) {}
            for among in among.iter().map(|rows| rows.iter().copied().collect::<RoaringBitmap>()).chain([index.live().clone()]) {
                let among = among & index.live();
                let latest = among.iter().map(|row| index.time(Row(row))).fold(0.0, f64::max);
                let (time, row) = index.newest(&among);
                prop_assert_eq!(time.to_bits(), latest.to_bits());
                prop_assert_eq!(row.is_some(), latest > 0.0);
                prop_assert!(row.is_none_or(|row| among.contains(row.0) && index.time(row).to_bits() == time.to_bits()));
            }
        }
    }

    #[test]
    fn the_index_answers_as_plain_objects_do(
        log in records(), more in records(), replaced in records(),
        exprs in prop::collection::vec(exprs(), 40), within in prop::collection::btree_set(0u32..8, 0..6),
    ) {
        let within = within.into_iter().collect();
        let mut model = Model::default();
        let mut applied = Index::default();
        let mut loader = Loader::default();
        let mut offset = 0;
        for record in &log {
            offset += 10;
            let old = model.object(record.id.as_str()).cloned();
            applied.apply(record, old.as_ref(), at(offset));
            loader.add(record, at(offset));
            model.set(record, at(offset));
        }
        let mut index = loader.finish();
        model.check(&applied, &exprs, &within);
        model.check(&index, &exprs, &within);
        while tidy(&mut applied) {}
        model.check(&applied, &exprs, &within);

        for record in &more {
            offset += 10;
            let old = model.object(record.id.as_str()).cloned();
            let (before, generation) = (model.postings(), index.generation());
            let known: Vec<_> = before.keys().map(|key| (key.clone(), index.key_generation(key))).collect();
            let row = index.apply(record, old.as_ref(), at(offset));
            model.set(record, at(offset));
            if offset % 30 == 0 {
                while tidy(&mut index) {}
            }
            prop_assert_eq!(index.row_ever(record.id.as_str()), Some(row));
            let after = model.postings();
            for (key, then) in known {
                let mut family = before.keys().chain(after.keys()).filter(|other| {
                    **other == key || !key.is_elements() && other.members().starts_with(&key.members()) && **other != key.elements()
                });
                let changed = family.any(|other| before.get(other) != after.get(other));
                prop_assert_eq!(index.key_generation(&key), if changed { generation + 1 } else { then }, "{:?}", key);
            }
        }
        model.check(&index, &exprs, &within);

        let kept = through_bytes(&index);
        model.check(&kept, &exprs, &within);

        let mut loader = Loader::replacing(&index);
        for entry in &mut model.entries {
            entry.1 = None;
        }
        for record in &replaced {
            offset += 10;
            loader.add(record, at(offset));
            model.set(record, at(offset));
        }
        let replaced = loader.finish();
        model.check(&replaced, &exprs, &within);
        prop_assert!(replaced.generation() > index.generation());
    }

    /// Lines of known shapes are not parsed, and several readers share the log: it must not be seen.
    #[test]
    fn readers_find_what_the_parser_finds(
        lines in lines(), cuts in prop::collection::vec(0_usize..100, 0..6), turns in prop::collection::vec(0_usize..2, 7),
        room in 0_usize..40, exprs in prop::collection::vec(exprs(), 10), within in prop::collection::btree_set(0u32..8, 0..6),
    ) {
        let within = within.into_iter().collect();
        let (mut model, mut offset, mut malformed) = (Model::default(), 0, Vec::new());
        for line in &lines {
            for (range, piece) in parse_line(line) {
                let at = Locator { offset: offset + range.start as u64, len: u32::try_from(range.len()).unwrap() };
                match piece {
                    Piece::Record(record) => {
                        let object = record.object.into_owned();
                        model.set(&Record { object, id: record.id, ..record }, at);
                    }
                    Piece::Malformed(_) => malformed.push(at),
                }
            }
            offset += line.len() as u64 + 1;
        }
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(lines.len())).collect();
        cuts.extend([0, lines.len()]);
        cuts.sort_unstable();
        let mut readers = [Reader::default(), Reader::default()];
        let (mut loader, mut offset, mut found) = (Loader::default(), 0, Vec::new());
        for (cut, turn) in cuts.windows(2).zip(turns) {
            let mut bytes = Vec::new();
            for line in &lines[cut[0]..cut[1]] {
                bytes.extend_from_slice(line);
                bytes.push(b'\n');
            }
            readers[turn].lines(offset, &bytes);
            offset += bytes.len() as u64;
            let part = readers[turn].part();
            found.extend_from_slice(&part.malformed);
            loader.take(turn, part);
            // There may be room for ids, for more or fewer than come.
            prop_assert!(loader.reserve(room) >= loader.len() as u64 * 8);
        }
        prop_assert_eq!(found, malformed);
        model.check(&loader.finish(), &exprs, &within);
    }

    /// Damage is found by a checksum; but even what it let pass could do no harm.
    #[test]
    fn damaged_bytes_do_no_harm(log in records(), flips in prop::collection::vec((any::<prop::sample::Index>(), 1_u8..), 1..4),
        cut in prop::option::of(any::<prop::sample::Index>()), exprs in prop::collection::vec(exprs(), 5)) {
        let mut loader = Loader::default();
        for record in &log {
            loader.add(record, at(1));
        }
        let mut bytes = to_bytes(&loader.finish());
        for (place, bits) in flips {
            let place = place.index(bytes.len());
            bytes[place] ^= bits;
        }
        if let Some(cut) = cut {
            let len = cut.index(bytes.len());
            bytes.truncate(len);
        }
        if let Some(mut index) = from_bytes(&bytes) {
            for expr in &exprs {
                let rows = index.select(expr, NOW);
                index.select_in(expr, NOW, &rows);
            }
            for key in index.keys(None) {
                index.values(&key, None);
                index.values(&key, Some(&rows(&[0, 2])));
                let live = index.live().clone();
                index.sorted(&key, &live);
                index.leaf_by_cut_name(&key, "x");
            }
            for id in ["e0", "e1", "f", "new"] {
                index.row(id).and_then(|row| index.locator(row));
                index.apply(&record(id, 1.0, Some(object(r#"{"a": 1, "t": [1]}"#))), None, at(1));
            }
            while tidy(&mut index) {}
        }
    }
}
