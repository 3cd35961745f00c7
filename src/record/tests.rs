use proptest::prelude::*;

use super::*;
use crate::name::{Key, flatten};
use crate::value::MAX_DEPTH;
use crate::value::strategy::{objects, values};

fn object(text: &str) -> Object<'static> {
    Object::parse(text.as_bytes()).unwrap().into_owned()
}

fn value(text: &str) -> Value<'static> {
    Value::parse(text.as_bytes()).unwrap().into_owned()
}

fn key(text: &str) -> Key {
    Key::parse(text).unwrap()
}

fn print(object: &Object<'_>) -> String {
    let mut out = Vec::new();
    object.write_python(&mut out);
    String::from_utf8(out).unwrap()
}

/// The object after an edit and what the edit said; on an error it must be what it was.
fn edited(before: &str, edit: &Edit) -> (String, Result<bool, EditError>) {
    let mut object = object(before);
    let result = apply(&mut object, edit);
    let after = print(&object);
    if result != Ok(true) {
        assert_eq!(after, before, "{edit:?} says {result:?} but changed something");
    }
    (after, result)
}

fn set(name: &str, to: &str) -> Edit {
    Edit::Set(key(name), value(to), SetMode::Any)
}

fn rename(from: &str, to: &str) -> Edit {
    Edit::Rename { from: key(from), to: key(to), no_replace: false }
}

fn changes(before: &str, edit: &Edit, after: &str) {
    assert_eq!(edited(before, edit), (after.to_owned(), Ok(true)), "{edit:?}");
}

fn keeps(before: &str, edit: &Edit) {
    assert_eq!(edited(before, edit).1, Ok(false), "{edit:?}");
}

fn fails(before: &str, edit: &Edit, error: EditError) {
    assert_eq!(edited(before, edit).1, Err(error), "{edit:?}");
}

fn the_record(line: &[u8]) -> Record<'_> {
    let mut pieces = parse_line(line);
    assert_eq!(pieces.len(), 1, "{pieces:?}");
    match pieces.remove(0) {
        (range, Piece::Record(record)) => {
            assert_eq!(range, 0..line.len());
            record
        }
        (_, piece) => panic!("{piece:?}"),
    }
}

fn malformed(line: &[u8]) -> Malformed {
    parse_record(line).unwrap_err()
}

#[test]
fn both_dialects_and_their_mixtures() {
    let record = the_record(br#"{"_id": "/data/cache/e4kq0zpw3", "lr": 0.10, "_timestamp": 1510000000.25}"#);
    assert_eq!((record.id.as_str(), record.dialect, record.deleted), ("e4kq0zpw3", Dialect::Path, false));
    assert_eq!(record.time.to_bits(), 1_510_000_000.25_f64.to_bits());

    let record = the_record(br#"{"@": "run one", "$": 7, "lr": 1}"#);
    assert_eq!((record.id.as_str(), record.dialect), ("run one", Dialect::Name));
    assert_eq!(record.time.to_bits(), 7_f64.to_bits());

    let record = the_record(br#"{"@": "b", "_timestamp": 2, "_id": "/c/a", "$": 3}"#);
    assert_eq!((record.id.as_str(), record.dialect), ("a", Dialect::Path), "`_id` wins");
    assert_eq!(record.time.to_bits(), 2_f64.to_bits());

    let record = the_record(br#"{"@": "b", "_timestamp": "then", "_id": 5, "$": 3}"#);
    assert_eq!((record.id.as_str(), record.dialect), ("b", Dialect::Name), "`_id` is not usable");
    assert_eq!(record.time.to_bits(), 3_f64.to_bits(), "`_timestamp` is not usable");

    for time in ["", r#", "_timestamp": NaN"#, r#", "$": 1e999"#, r#", "_timestamp": true"#] {
        let line = format!(r#"{{"_id": "/c/a"{time}}}"#);
        assert_eq!(the_record(line.as_bytes()).time.to_bits(), 0_f64.to_bits(), "{line}");
    }
}

#[test]
fn only_true_marks_a_deletion() {
    assert!(the_record(br#"{"_id": "/c/a", "_deleted": true}"#).deleted);
    for other in ["false", "1", "\"true\"", "null", "[true]"] {
        assert!(!the_record(format!(r#"{{"@": "a", "_deleted": {other}}}"#).as_bytes()).deleted, "{other}");
    }
}

#[test]
fn an_id_is_the_last_component_if_it_can_be() {
    assert_eq!(the_record(br#"{"_id": "relative/../e1"}"#).id.as_str(), "e1");
    assert_eq!(the_record(br#"{"@": "sub/e1"}"#).id.as_str(), "e1");
    for id in [
        "",
        "/",
        "/c/",
        "/c/.",
        "/c/..",
        ".",
        "..",
        "/c/.hidden",
        "/c/_trash",
        "_entries",
        r"/c/a\u0000b",
        r"\udcff",
    ] {
        for name in ["_id", "@"] {
            let line = format!(r#"{{"{name}": "{id}"}}"#);
            assert_eq!(malformed(line.as_bytes()), Malformed::NoId, "{line}");
        }
    }
}

#[test]
fn what_is_no_object_is_malformed() {
    for line in [
        &b"["[..],
        b"1",
        b"[]",
        b"{\"_id\": \"/c/a\"",
        b"{\"_id\": \"/c/a\"} {\"_id\": \"/c/b\"}",
        b"\xff",
        b"{\"_id\": \"/c/a\", \"x\": \"\xff\"}",
        b"\xef\xbb\xbf{\"_id\": \"/c/a\"}",
    ] {
        assert_eq!(malformed(line), Malformed::NotAnObject, "{}", line.escape_ascii());
    }
    assert_eq!(malformed(b"{}"), Malformed::NoId);
    assert_eq!(malformed(&vec![b' '; 4 * RECORD_MAX + 1]), Malformed::TooLong);
}

#[test]
fn a_record_behind_a_torn_one_counts_if_it_is_the_rest_of_the_line() {
    let b = r#"{"_id": "/c/b", "x": 2}"#;
    for torn in [
        r#"{"_id": "/a", "lr": 0."#,
        r#"{"_id": "/a", "s": ""#,
        r#"{"x": {"_id": "/n"}, "y""#,
        r#"{"@": "n"}"#,
        "x",
    ] {
        let line = format!("{torn}{b}");
        let pieces = parse_line(line.as_bytes());
        assert_eq!(pieces.len(), 2, "{line}");
        assert_eq!(pieces[0], (0..torn.len(), Piece::Malformed(Malformed::NotAnObject)), "{line}");
        assert!(matches!(&pieces[1], (_, Piece::Record(record)) if record.id.as_str() == "b"), "{line}");
        // Not so while the line has no end: it may be a part of the torn one.
        assert_eq!(parse_tail(line.as_bytes()).len(), 1);
    }
    let line = format!("{{\"_id\": \"/a\"\0{{\"@\": {b}\0{b}");
    let kinds: Vec<_> =
        parse_line(line.as_bytes()).iter().map(|(_, p)| matches!(p, Piece::Record(_))).collect();
    assert_eq!(kinds, [false, false, false, true, false, true]);
    for line in [r#"{"x": {"_id": "/n"}, "y""#, "", "{", r#"{"_id": "/a", "x": {"_id": "/b"}, "y": 1"#] {
        assert!(parse_line(line.as_bytes()).iter().all(|(_, piece)| matches!(piece, Piece::Malformed(_))));
    }
}

#[test]
fn nuls_are_no_part_of_a_record() {
    let ids = |line: &[u8]| -> Vec<String> {
        let pieces = parse_line(line);
        let mut at = 0;
        for (range, _) in &pieces {
            assert!(range.start >= at && range.end > range.start && range.end <= line.len());
            at = range.end;
        }
        let name = |(range, piece): (Range<usize>, Piece<'_>)| match piece {
            Piece::Record(record) => {
                assert_eq!(parse_record(&line[range]).as_ref(), Ok(&record), "a piece stands alone");
                record.id.as_str().to_owned()
            }
            Piece::Malformed(why) => format!("{why:?}"),
        };
        pieces.into_iter().map(name).collect()
    };
    assert_eq!(ids(b""), [""; 0]);
    assert_eq!(ids(b" \t\r"), [""; 0]);
    assert_eq!(ids(b"\0\0\0"), ["Nuls"]);
    assert_eq!(ids(b"\0\0{\"@\": \"a\"}"), ["Nuls", "a"]);
    assert_eq!(ids(b"{\"@\": \"a\"}\0"), ["a", "Nuls"]);
    assert_eq!(ids(b"{\"@\": \"a\"}\0\0 \0{\"@\": \"b\"}\r"), ["a", "Nuls", "Nuls", "b"]);
    assert_eq!(ids(b"{\"@\": \"a\", \0\0{\"@\": \"b\"}"), ["NotAnObject", "Nuls", "b"]);
    assert_eq!(ids(b"{\"@\": \0\"a\"}"), ["NotAnObject", "Nuls", "NotAnObject"]);
}

fn encoded(attrs: &str, dialect: Dialect) -> String {
    let id = Id::new("e1").unwrap();
    String::from_utf8(encode(&id, 1.5, &object(attrs), dialect, "/data/cache")).unwrap()
}

#[test]
fn records_are_written_as_the_python_writer_does() {
    assert_eq!(encoded("{}", Dialect::Path), r#"{"_id": "/data/cache/e1", "_timestamp": 1.5}"#);
    assert_eq!(encoded("{}", Dialect::Name), r#"{"@": "e1", "$": 1.5}"#);
    assert_eq!(
        encoded(r#"{"lr":1e-05,"name":"é"}"#, Dialect::Path),
        r#"{"_id": "/data/cache/e1", "lr": 1e-05, "name": "\u00e9", "_timestamp": 1.5}"#
    );
    let id = Id::new("e1").unwrap();
    let root = String::from_utf8(encode(&id, 1.0, &Object::new(), Dialect::Path, "/")).unwrap();
    assert!(root.starts_with(r#"{"_id": "/e1", "#), "{root}");
}

#[test]
fn reserved_members_change_dialect_in_their_places() {
    let first = r#"{"a": 1, "_id": "/old/e0", "_timestamp": 9, "b": 2}"#;
    assert_eq!(encoded(first, Dialect::Name), r#"{"a": 1, "@": "e1", "$": 1.5, "b": 2}"#);
    let mixed = r#"{"$": 1, "a": 1, "@": "e0", "b": 2, "_id": "/old/e0", "_timestamp": 9}"#;
    let after = r#"{"_timestamp": 1.5, "a": 1, "_id": "/data/cache/e1", "b": 2}"#;
    assert_eq!(encoded(mixed, Dialect::Path), after);
    assert_eq!(
        encoded(r#"{"$": 1.50, "a": 1}"#, Dialect::Path),
        r#"{"_id": "/data/cache/e1", "_timestamp": 1.50, "a": 1}"#
    );
}

#[test]
fn deletions_are_read_back() {
    let id = Id::new("e1").unwrap();
    let path = encode_deletion(&id, 2.0, Dialect::Path, "/c");
    assert_eq!(path, br#"{"_id": "/c/e1", "_timestamp": 2.0, "_deleted": true}"#);
    assert!(parse_record(&path).unwrap().deleted);
    assert_eq!(encode_deletion(&id, 2.0, Dialect::Name, "/c"), br#"{"@": "e1", "$": 2.0, "_deleted": true}"#);
}

#[test]
fn set_makes_what_is_missing_and_keeps_what_is_equal() {
    changes("{}", &set("a", "1"), r#"{"a": 1}"#);
    changes("{}", &set("a.b.c", "1"), r#"{"a": {"b": {"c": 1}}}"#);
    changes(r#"{"a": {"b": 1}, "z": 0}"#, &set("a.c", "2"), r#"{"a": {"b": 1, "c": 2}, "z": 0}"#);
    changes(r#"{"a": 1, "b": 2}"#, &set("a", "true"), r#"{"a": true, "b": 2}"#);
    changes(r#"{"a": {}}"#, &set("a", "1"), r#"{"a": 1}"#);
    changes(r#"{"a": 1}"#, &set("a", r#"{"b": 2}"#), r#"{"a": {"b": 2}}"#);
    keeps(r#"{"a": 0.10}"#, &set("a", "1e-1"));
    keeps(r#"{"a": {"b": 1, "c": 2}}"#, &set("a", r#"{"c": 2.0, "b": 1}"#));
    changes(r#"{"a": 1}"#, &set("a%2Eb", "2"), r#"{"a": 1, "a.b": 2}"#);
}

#[test]
fn set_refuses_contradictions() {
    fails(r#"{"a": 1}"#, &set("a.b", "1"), EditError::Exists);
    fails(r#"{"a": {}}"#, &set("a.b", "1"), EditError::Exists);
    fails(r#"{"a": [1]}"#, &set("a.b.c", "1"), EditError::Exists);
    fails(r#"{"a": {"b": 1}}"#, &set("a", "1"), EditError::Exists);
    fails(r#"{"a": {"b": 1}}"#, &set("a", r#"{"c": 1}"#), EditError::Exists);
    for name in ["_id", "_timestamp", "@", "$", "_id.x", "a[]"] {
        fails(r#"{"_id": "/c/e1", "a": [1]}"#, &set(name, "\"/c/e1\""), EditError::Reserved);
    }
}

#[test]
fn set_heeds_its_mode() {
    let with = |name: &str, to: &str, mode| Edit::Set(key(name), value(to), mode);
    fails(r#"{"a": 1}"#, &with("a", "1", SetMode::Create), EditError::Exists);
    fails(r#"{"a": 1}"#, &with("b", "1", SetMode::Replace), EditError::NoKey);
    fails(r#"{"a": 1}"#, &with("a.b", "1", SetMode::Replace), EditError::NoKey);
    changes(r#"{"a": 1}"#, &with("b", "1", SetMode::Create), r#"{"a": 1, "b": 1}"#);
    changes(r#"{"a": 1}"#, &with("a", "2", SetMode::Replace), r#"{"a": 2}"#);
}

#[test]
fn no_edit_deletes_the_entry() {
    let edits = [
        set("_deleted", "true"),
        Edit::Replace(object(r#"{"_deleted": true}"#)),
        Edit::Merge(object(r#"{"_deleted": true}"#)),
        rename("a", "_deleted"),
        rename("b.c", "_deleted"),
        Edit::Move(key("_deleted"), Leaf::Bool(false), Value::Bool(true)),
    ];
    for edit in edits {
        let before = r#"{"a": true, "b": {"c": true}, "_deleted": false}"#;
        fails(before, &edit, EditError::Reserved);
    }
    changes("{}", &set("_deleted", "1"), r#"{"_deleted": 1}"#);
    changes("{}", &set("x._deleted", "true"), r#"{"x": {"_deleted": true}}"#);
}

#[test]
fn nothing_is_written_that_could_not_be_read_again() {
    let nested = |depth: usize| value(&format!("{}1{}", "[".repeat(depth), "]".repeat(depth)));
    let path = |members: usize| key(&vec!["m"; members].join("."));
    let readable = |object: &Object<'_>| Object::parse(print(object).as_bytes()).is_ok();
    for (members, room) in [(1, MAX_DEPTH - 1), (10, MAX_DEPTH - 10), (MAX_DEPTH, 0)] {
        let mut object = Object::new();
        apply(&mut object, &Edit::Set(path(members), nested(room), SetMode::Any)).unwrap();
        assert!(readable(&object));
        if room < MAX_DEPTH - 1 {
            let edit = Edit::Set(path(members), nested(room + 1), SetMode::Any);
            fails("{}", &edit, EditError::TooDeep);
            fails(
                &format!(r#"{{"x": {}}}"#, nested(room + 1).to_text()),
                &Edit::Rename { from: key("x"), to: path(members), no_replace: false },
                EditError::TooDeep,
            );
        }
    }
    fails("{}", &Edit::AddElement(key("a.b"), nested(MAX_DEPTH - 2)), EditError::TooDeep);
    let mut deep = Object::new();
    deep.insert(Text::from_str("a"), nested(MAX_DEPTH));
    fails("{}", &Edit::Replace(deep.clone()), EditError::TooDeep);
    fails("{}", &Edit::Merge(deep), EditError::TooDeep);
    let long = Key::from_members(std::iter::repeat_n(b"m".as_slice(), 100_000));
    fails("{}", &Edit::Set(long, Value::Null, SetMode::Any), EditError::TooDeep);
}

#[test]
fn unset_takes_the_parents_that_it_emptied() {
    let unset = |name: &str| Edit::Unset(key(name));
    changes(r#"{"a": 1}"#, &unset("a"), "{}");
    changes(r#"{"a": {"b": {"c": 1}}, "z": {}}"#, &unset("a.b.c"), r#"{"z": {}}"#);
    changes(r#"{"a": {"b": {"c": 1}, "d": 2}}"#, &unset("a.b.c"), r#"{"a": {"d": 2}}"#);
    changes(r#"{"a": {"b": {}, "c": 1}}"#, &unset("a.c"), r#"{"a": {"b": {}}}"#);
    changes(r#"{"a": {"b": {}}}"#, &unset("a.b"), "{}");
    for name in ["b", "a.c", "a.b.c", "a"] {
        fails(r#"{"a": {"b": 1}}"#, &unset(name), EditError::NoKey);
    }
    for name in ["_id", "$", "a[]"] {
        fails(r#"{"_id": "/c/e1", "a": [1]}"#, &unset(name), EditError::Reserved);
    }
}

#[test]
fn rename_keeps_the_place_if_it_can() {
    changes(r#"{"a": 1, "b": 2}"#, &rename("a", "c"), r#"{"c": 1, "b": 2}"#);
    changes(r#"{"a": 1, "b": 2, "c": 3}"#, &rename("b", "a"), r#"{"a": 2, "c": 3}"#);
    changes(r#"{"o": {"a": 1, "b": 2}}"#, &rename("o.a", "o.c"), r#"{"o": {"c": 1, "b": 2}}"#);
    changes(r#"{"a": 1, "b": 2}"#, &rename("a", "o.a"), r#"{"b": 2, "o": {"a": 1}}"#);
    changes(r#"{"o": {"a": 1}, "b": 2}"#, &rename("o.a", "a"), r#"{"b": 2, "a": 1}"#);
    changes(r#"{"a": 1}"#, &rename("a", "a.b"), r#"{"a": {"b": 1}}"#);
    changes(r#"{"a": {"b": 1}}"#, &rename("a.b", "a"), r#"{"a": 1}"#);
    keeps(r#"{"a": 1}"#, &rename("a", "a"));
    fails(r#"{"a": 1, "b": 2}"#, &rename("c", "c"), EditError::NoKey);
    fails(r#"{"a": 1, "b": 2}"#, &rename("a", "b.c"), EditError::Exists);
    fails(r#"{"a": 1, "o": {"b": 2}}"#, &rename("a", "o"), EditError::Exists);
    fails(r#"{"o": {"a": 1, "b": 2}}"#, &rename("o.a", "o"), EditError::Exists);
    fails(r#"{"o": {"a": 1}}"#, &rename("o", "p"), EditError::NoKey);
    fails(r#"{"_id": "x", "a": 1}"#, &rename("a", "_id"), EditError::Reserved);
    fails(r#"{"_id": "x", "a": 1}"#, &rename("_id", "b"), EditError::Reserved);
    for (from, to) in [("a", "b"), ("a", "a"), ("a", "o.c")] {
        let edit = Edit::Rename { from: key(from), to: key(to), no_replace: true };
        fails(r#"{"a": 1, "b": 2, "o": {"c": 3}}"#, &edit, EditError::Exists);
    }
}

#[test]
fn elements_are_added_once_and_removed_all() {
    let add = |name: &str, element: &str| Edit::AddElement(key(name), value(element));
    let remove = |name: &str, element: &str| Edit::RemoveElement(key(name), Leaf::of(&value(element)));
    changes("{}", &add("o.tags", "1"), r#"{"o": {"tags": [1]}}"#);
    changes(r#"{"tags": [1]}"#, &add("tags", "true"), r#"{"tags": [1, true]}"#);
    keeps(r#"{"tags": [1.0, 2]}"#, &add("tags", "1"));
    changes(r#"{"tags": [1, 2, 1.0]}"#, &remove("tags", "1"), r#"{"tags": [2]}"#);
    changes(r#"{"tags": [1]}"#, &remove("tags", "1"), r#"{"tags": []}"#);
    fails(r#"{"tags": [1]}"#, &remove("tags", "2"), EditError::NoKey);
    fails("{}", &remove("tags", "2"), EditError::NoKey);
    fails(r#"{"tags": 2}"#, &remove("tags", "2"), EditError::NotAnArray);
    fails(r#"{"tags": 2}"#, &add("tags", "2"), EditError::NotAnArray);
    fails(r#"{"tags": {"a": 2}}"#, &add("tags", "2"), EditError::NotAnArray);
    fails(r#"{"tags": 2}"#, &add("tags.x", "2"), EditError::Exists);
    fails("{}", &add("_id", "2"), EditError::Reserved);
}

#[test]
fn move_is_compare_and_swap() {
    let step = |from: &str, to: &str| Edit::Move(key("s"), Leaf::of(&value(from)), value(to));
    changes(r#"{"s": 1.0}"#, &step("1", "2"), r#"{"s": 2}"#);
    keeps(r#"{"s": 1.0}"#, &step("1", "1"));
    fails(r#"{"s": 1}"#, &step("true", "2"), EditError::NoKey);
    fails("{}", &step("1", "2"), EditError::NoKey);
    fails(r#"{"s": {"a": 1}}"#, &step(r#"{"a": 1}"#, "2"), EditError::NoKey);
    let reserved = Edit::Move(key("_id"), Leaf::of(&value("1")), value("2"));
    fails(r#"{"_id": 1}"#, &reserved, EditError::Reserved);
}

#[test]
fn replace_keeps_the_reserved_and_takes_the_order() {
    let before = r#"{"_id": "/c/e1", "a": 0.10, "b": 2, "_timestamp": 1.0}"#;
    let replace = |new: &str| Edit::Replace(object(new));
    changes(
        before,
        &replace(r#"{"c":3,"a":1e-1}"#),
        r#"{"_id": "/c/e1", "c": 3, "a": 0.10, "_timestamp": 1.0}"#,
    );
    changes(before, &replace("{}"), r#"{"_id": "/c/e1", "_timestamp": 1.0}"#);
    changes(
        before,
        &replace(r#"{"b":2,"a":0.1}"#),
        r#"{"_id": "/c/e1", "b": 2, "a": 0.10, "_timestamp": 1.0}"#,
    );
    changes(before, &replace(r#"{"_timestamp":1,"x":1}"#), r#"{"_id": "/c/e1", "_timestamp": 1.0, "x": 1}"#);
    keeps(before, &replace(r#"{"a":0.1,"b":2.0}"#));
    keeps(before, &replace(before));
    for new in [r#"{"_id":"/d/e1"}"#, r#"{"_timestamp":2}"#, r#"{"@":"e1"}"#, r#"{"$":null}"#] {
        fails(before, &replace(new), EditError::Reserved);
    }
}

#[test]
fn merge_is_rfc_7396() {
    // The RFC's appendix, as far as both are objects.
    let cases = [
        (r#"{"a": "b"}"#, r#"{"a":"c"}"#, r#"{"a": "c"}"#),
        (r#"{"a": "b"}"#, r#"{"b":"c"}"#, r#"{"a": "b", "b": "c"}"#),
        (r#"{"a": "b"}"#, r#"{"a":null}"#, "{}"),
        (r#"{"a": "b", "b": "c"}"#, r#"{"a":null}"#, r#"{"b": "c"}"#),
        (r#"{"a": ["b"]}"#, r#"{"a":"c"}"#, r#"{"a": "c"}"#),
        (r#"{"a": "c"}"#, r#"{"a":["b"]}"#, r#"{"a": ["b"]}"#),
        (r#"{"a": {"b": "c"}}"#, r#"{"a":{"b":"d","c":null}}"#, r#"{"a": {"b": "d"}}"#),
        (r#"{"a": [{"b": "c"}]}"#, r#"{"a":[1]}"#, r#"{"a": [1]}"#),
        (r#"{"e": null}"#, r#"{"a":1}"#, r#"{"e": null, "a": 1}"#),
        ("{}", r#"{"a":{"bb":{"ccc":null}}}"#, r#"{"a": {"bb": {}}}"#),
    ];
    for (before, patch, after) in cases {
        changes(before, &Edit::Merge(object(patch)), after);
    }
    let before = r#"{"_id": null, "@": "e1", "a": {"b": 0.10}}"#;
    for patch in [r#"{"a":{"b":0.1}}"#, r#"{"x":null}"#, "{}", r#"{"a":{}}"#, r#"{"_id":null,"@":"e1"}"#] {
        keeps(before, &Edit::Merge(object(patch)));
    }
    for patch in [r#"{"@":null}"#, r#"{"@":"e2","a":1}"#, r#"{"$":null}"#] {
        fails(before, &Edit::Merge(object(patch)), EditError::Reserved);
    }
}

#[test]
fn large_objects_are_edited_at_once() {
    // By looking through 40,000 members for each of 40,000 this would take minutes.
    let large = |to: usize| -> Object<'static> {
        (0..40_000)
            .map(|n| (Text::from_str(format!("k{n}")), Value::Number(Number::new(to.to_string()).unwrap())))
            .collect()
    };
    let mut object = large(1);
    assert_eq!(apply(&mut object, &Edit::Merge(large(2))), Ok(true));
    assert_eq!(apply(&mut object, &Edit::Replace(large(2))), Ok(false));
    assert_eq!(object, large(2));
}

/// What RFC 7396 says, in its own words.
fn merge_patch(target: Option<&Value<'static>>, patch: &Value<'static>) -> Value<'static> {
    let Value::Object(patch) = patch else { return patch.clone() };
    let mut result = match target {
        Some(Value::Object(object)) => object.clone(),
        _ => Object::new(),
    };
    for (name, value) in patch.iter() {
        if *value == Value::Null {
            result.remove(name.as_bytes());
        } else {
            let merged = merge_patch(result.get_bytes(name.as_bytes()), value);
            result.insert(name.clone(), merged);
        }
    }
    Value::Object(result)
}

fn attributes() -> impl Strategy<Value = Object<'static>> {
    objects().prop_map(without_reserved).prop_filter("no deletion", |object| !is_deletion(object))
}

/// Few names, so that edits meet what is there.
fn small() -> impl Strategy<Value = Object<'static>> {
    let leaf = prop_oneof![Just(value("1")), Just(value("1.0")), Just(value("null")), Just(value("\"x\""))];
    let member = leaf.prop_recursive(3, 16, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::Array),
            prop::collection::vec(("[abc]", inner), 0..3).prop_map(members),
        ]
    });
    prop::collection::vec(("[abc]", member), 0..4).prop_map(|list| match members(list) {
        Value::Object(object) => object,
        _ => Object::new(),
    })
}

fn members(list: Vec<(String, Value<'static>)>) -> Value<'static> {
    Value::Object(list.into_iter().map(|(name, value)| (Text::from_str(name), value)).collect())
}

/// The attributes that are neither this key nor below it.
fn outside(object: &Object<'static>, key: &Key) -> Vec<(Key, Value<'static>)> {
    let within = |other: &Key| match other.as_str().strip_prefix(key.as_str()) {
        Some(rest) => rest.is_empty() || rest.starts_with('.'),
        None => false,
    };
    let others = flatten(object).into_iter().filter(|(other, _)| !within(other));
    others.map(|(other, value)| (other, value.clone().into_owned())).collect()
}

proptest! {
    #[test]
    fn lines_of_any_bytes_are_covered(line in prop_oneof![
        prop::collection::vec(any::<u8>(), 0..64),
        prop::collection::vec(prop::sample::select(b"\0\0 {}\"@a:,1".to_vec()), 0..64),
    ]) {
        let pieces = parse_line(&line);
        let mut covered = vec![false; line.len()];
        for (range, piece) in &pieces {
            prop_assert_eq!(line[range.clone()].contains(&0), *piece == Piece::Malformed(Malformed::Nuls));
            for seen in &mut covered[range.clone()] {
                prop_assert!(!std::mem::replace(seen, true), "twice");
            }
        }
        for (byte, covered) in line.iter().zip(covered) {
            prop_assert!(covered || byte.is_ascii_whitespace());
        }
    }

    #[test]
    fn records_are_read_as_written(object in attributes(), time in -1e12..1e12_f64, name in any::<bool>(), from_name in any::<bool>()) {
        let dialect = |name| if name { Dialect::Name } else { Dialect::Path };
        let id = Id::new("e4kq0zpw3").unwrap();
        // Through one dialect, then the other.
        let first = encode(&id, time, &object, dialect(from_name), "/some where/é\"");
        let line = encode(&id, time, &parse_record(&first).unwrap().object, dialect(name), "/elsewhere");
        prop_assert!(!line.contains(&b'\n') && line.is_ascii());
        let record = parse_record(&line).unwrap();
        prop_assert_eq!(&record.id, &id);
        prop_assert_eq!(record.time.to_bits(), (time + 0.0).to_bits());
        prop_assert_eq!(record.dialect, dialect(name));
        prop_assert_eq!(print(&without_reserved(record.object.clone())), print(&object));
        prop_assert_eq!(record.object.len(), object.len() + 2);
    }

    #[test]
    fn what_was_set_is_there_and_nothing_else_changed(object in attributes(), name in "[ab]?[.]?[ab]\"?", value in values()) {
        let Ok(key) = Key::parse(&name) else { return Ok(()) };
        let mut after = object.clone();
        if apply(&mut after, &Edit::Set(key.clone(), value.clone(), SetMode::Any)).is_ok() {
            let others = |object: &Object<'static>| outside(object, &key);
            prop_assert_eq!(others(&object), others(&after));
            let at = key.members().iter().try_fold(Value::Object(after.clone()), |value, member| match value {
                Value::Object(object) => object.get_bytes(member.as_bytes()).cloned(),
                _ => None,
            });
            prop_assert!(at.unwrap().same(&value));
            // Set again, and unset again.
            prop_assert_eq!(apply(&mut after, &Edit::Set(key.clone(), value.clone(), SetMode::Any)), Ok(false));
            if !matches!(value, Value::Object(ref members) if !members.is_empty()) {
                prop_assert_eq!(apply(&mut after, &Edit::Unset(key.clone())), Ok(true));
                prop_assert_eq!(others(&object), others(&after));
            }
        }
    }

    #[test]
    fn every_attribute_can_be_set_to_its_text_form(object in attributes()) {
        for (key, value) in flatten(&object) {
            let edit = Edit::Set(key, Value::from_text(&value.to_text()), SetMode::Replace);
            prop_assert_eq!(apply(&mut object.clone(), &edit), Ok(false));
        }
    }

    #[test]
    fn merge_agrees_with_the_rfc(before in small(), patch in small()) {
        let expected = merge_patch(Some(&Value::Object(before.clone())), &Value::Object(patch.clone()));
        let mut after = before.clone();
        let changed = apply(&mut after, &Edit::Merge(patch)).unwrap();
        prop_assert!(Value::Object(after.clone()).same(&expected), "{}", print(&after));
        prop_assert_eq!(changed, after != before);
        prop_assert_eq!(changed, !Value::Object(before).same(&expected));
    }

    #[test]
    fn replace_gives_what_was_asked_for(before in small(), new in small()) {
        let mut after = before.clone();
        let changed = apply(&mut after, &Edit::Replace(new.clone())).unwrap();
        prop_assert_eq!(changed, after != before);
        prop_assert!(Value::Object(after.clone()).same(&Value::Object(new.clone())));
        let names = |object: &Object<'static>| object.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        prop_assert_eq!(names(&after), names(&new));
    }

    #[test]
    fn rename_there_and_back(before in small(), from in "[abc]([.][abc])?", to in "[de]([.][de])?") {
        let mut after = before.clone();
        if apply(&mut after, &rename(&from, &to)) == Ok(true) {
            prop_assert_eq!(flatten(&after).len(), flatten(&before).len());
            prop_assert_eq!(apply(&mut after, &rename(&to, &from)), Ok(true));
            prop_assert!(Value::Object(after).same(&Value::Object(before)));
        }
    }
}

mod shapes {
    use super::*;

    fn split(example: &str, line: &str) -> Option<Vec<String>> {
        let shape = Shape::of(example.as_bytes(), &Object::parse(example.as_bytes()).unwrap())?;
        let mut tokens = Vec::new();
        let is_it = shape.split(line.as_bytes(), &mut tokens);
        is_it.then(|| tokens.iter().map(|token| line[token.start..token.end].to_owned()).collect())
    }

    #[test]
    fn a_line_of_the_same_shape_is_taken_apart() {
        let example =
            r#"{"@": "e1", "lr": 0.1, "opt": {"name": "adam", "on": true}, "tags": ["a", "b"], "$": 1.5}"#;
        let line = r#"{"@": "e22", "lr": null, "opt": {"name": "s\"{gd", "on": {}}, "tags": [{"a": "]"}, []], "$": -2}"#;
        let tokens = split(example, line).unwrap();
        assert_eq!(tokens, [r#""e22""#, "null", r#""s\"{gd""#, "{}", r#"[{"a": "]"}, []]"#, "-2"]);
        for other in [
            r#"{"@": "e1", "lr": 0.1, "opt": {"name": "adam", "on": true}, "tags": ["a", "b"], "$": 1.5, "x": 1}"#,
            r#"{"@": "e1", "lr": 0.1, "opt": {"name": "adam", "on": true}, "tags": ["a", "b"]}"#,
            r#"{"@": "e1", "lr": {"x": 1}, "opt": {"name": "adam", "on": true}, "tags": ["a", "b"], "$": 1.5}"#,
            r#"{"@": "e1", "lr": 0.1, "opt": {"name": "adam", "on": true}, "tags": ["a", "b"], "$": 1.5"#,
            r#"{"@": "e1", "lr": 0.1, "opt": {"name": "adam", "on": true}, "tags": ["a", "b"], "$": "#,
            "",
        ] {
            assert_eq!(split(example, other), None, "{other}");
        }
    }

    #[test]
    fn words_of_every_length_end_where_they_end() {
        for len in 1..30 {
            let word = "1".repeat(len);
            for end in [",", "}", "]", " ", "\t", "]}"] {
                let line = format!(r#"{{"@": "e", "a": {word}{end}"#);
                let whole = r#"{"@": "e", "a": 0, "b": 1}"#;
                let lines = line + r#" "b": -1.5e+07}"#;
                if end == "," {
                    assert_eq!(split(whole, &lines).unwrap()[1..], [word.clone(), "-1.5e+07".to_owned()]);
                } else {
                    assert_eq!(split(whole, &lines), None, "{lines}");
                }
            }
        }
    }

    #[test]
    fn what_is_odd_has_no_shape() {
        for line in [
            r#"{"a": 1}"#,
            r#"{"_id": "/c/e", "@": "e"}"#,
            r#"{"@": "e", "$": 1, "_timestamp": 1}"#,
            r#"{"@": "e", "_deleted": true}"#,
            r#"{"@": "e", "$": {"x": 1}}"#,
            r#"{"@": "e", "a": 1, "a": 2}"#,
            r#"{"@": "e", "a": {"b": 1, "c": 2}, "a": 2}"#,
            r#"{"@": "e", "\u0061": 1}"#,
        ] {
            assert_eq!(Shape::of(line.as_bytes(), &Object::parse(line.as_bytes()).unwrap()), None, "{line}");
        }
    }
}
