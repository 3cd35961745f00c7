//! Tests of paths, names, listings and changes over small indexes.

use roaring::RoaringBitmap;

use super::*;
use crate::index::{Index, Loader, Row};
use crate::name::{Id, leaf_file_name};
use crate::record::{Edit, Locator, SetMode, parse_record};
use crate::value::{Leaf, Object, Value};

fn index(records: &[&str]) -> Index {
    let mut loader = Loader::default();
    for (offset, record) in (0..).zip(records) {
        loader.add(&parse_record(record.as_bytes()).unwrap(), Locator { offset, len: 1 });
    }
    loader.finish()
}

fn sweep() -> Index {
    index(&[
        r#"{"@":"e1","lr":0.1,"model":"resnet18","loss":0.5,"tags":["best","x"],"$":1}"#,
        r#"{"@":"e2","lr":0.10,"model":"vit","loss":2,"$":2}"#,
        r#"{"@":"e3","lr":"0.1","model":"a/b","loss":"none","$":3}"#,
        r#"{"@":"count","lr":1e-5,"model":"vit","loss":0.25,"-x":1,"$":4}"#,
        r#"{"@":"gone","lr":0.1,"_deleted":true,"$":5}"#,
    ])
}

/// Walks a path of names from a directory, as the kernel does.
fn walk(index: &Index, path: &[&str]) -> Result<Found, NoName> {
    let mut found = Found::Dir(Dir::Set(Set::all(Base::Root)));
    for name in path {
        let Found::Dir(dir) = &found else { panic!("{name} below {found:?}") };
        let rows = dir.set().rows(index, 10.0);
        found = lookup(index, dir, &rows, name, &|_| false)?;
    }
    Ok(found)
}

fn dir(index: &Index, path: &[&str]) -> Dir {
    match walk(index, path) {
        Ok(Found::Dir(dir)) => dir,
        other => panic!("{path:?} is {other:?}"),
    }
}

fn names(index: &Index, path: &[&str]) -> Vec<String> {
    let dir = dir(index, path);
    match list(index, &dir, &dir.set().rows(index, 10.0)) {
        Listing::Names(names) => names,
        Listing::Links(rows) => rows.iter().map(|row| index.id(Row(*row)).unwrap().to_file_name()).collect(),
        Listing::Numbered(rows, width) => rows
            .iter()
            .enumerate()
            .map(|(position, row)| ordinal_name(position, width, &index.id(Row(*row)).unwrap()))
            .collect(),
    }
}

#[test]
fn values_are_directories_of_their_entries() {
    let index = sweep();
    assert_eq!(names(&index, &["by-attr"]), ["-x", "loss", "lr", "model", "tags", "tags[]"]);
    assert_eq!(names(&index, &["by-attr", "lr"]), ["1e-05", "0.1", "\"0.1\""]);
    assert_eq!(names(&index, &["by-attr", "lr", "0.1"]), ["e1", "e2"]);
    assert_eq!(names(&index, &["by-attr", "lr", "\"0.1\""]), ["e3"]);
    assert_eq!(names(&index, &["by-attr", "model"]), ["a%2Fb", "resnet18", "vit"]);
    assert_eq!(names(&index, &["by-attr", "model", "a%2Fb"]), ["e3"]);
    assert_eq!(names(&index, &["by-attr", "tags[]"]), ["best", "x"]);
    assert_eq!(names(&index, &["by-attr", "tags[]", "best"]), ["e1"]);
    assert_eq!(names(&index, &["by-attr", "tags", "[\"best\",\"x\"]"]), ["e1"]);
}

#[test]
fn another_spelling_is_a_link_to_the_one_name() {
    let index = sweep();
    for (path, target) in [
        (["by-attr", "lr", "1e-1"], "0.1"),
        (["by-attr", "lr", "0.00001"], "1e-05"),
        (["by-attr", "model", "v%69t"], "vit"),
    ] {
        assert_eq!(walk(&index, &path), Ok(Found::Spelling(target.to_owned())), "{path:?}");
    }
    assert_eq!(walk(&index, &["by-attr", "l%72"]), Ok(Found::Spelling("lr".to_owned())));
    assert_eq!(walk(&index, &["sort", "-l%72"]), Ok(Found::Spelling("-lr".to_owned())));
}

#[test]
fn what_nobody_has_is_not_there() {
    let index = sweep();
    for path in [
        &["by-attr", "nothing"][..],
        &["by-attr", "_id"],
        &["by-attr", "lr", "7"],
        &["by-attr", "lr", "0.1", "e3"],
        &["by-attr", "lr", "0.1", "gone"],
        &["by-attr", "lr", "0.1", "by-attr", "-x"],
        &["by-attr", "lr", "0.1", "by-attr", "model", "a%2Fb"],
        &["sort", "nothing"],
        &["sort", "tags[]"],
        &["by-attr", "lr", "0.1", "sort", "-x"],
        &["nothing"],
        &["e1"],
    ] {
        assert_eq!(walk(&index, path), Err(NoName::NotFound), "{path:?}");
    }
    assert_eq!(walk(&index, &["where", "lr >"]), Err(NoName::Malformed));
}

#[test]
fn questions_about_the_answer_to_any_depth_and_in_any_order() {
    let index = sweep();
    let vit = ["by-attr", "lr", "0.1", "by-attr", "model", "vit"];
    assert_eq!(names(&index, &vit), ["e2"]);
    assert_eq!(names(&index, &["by-attr", "model", "vit", "where", "lr eq 0.1"]), ["e2"]);
    assert_eq!(names(&index, &["by-attr", "lr", "0.1", "by-attr", "model"]), ["resnet18", "vit"]);
    assert_eq!(
        names(&index, &["where", "loss lt 1", "by-attr"]),
        ["-x", "loss", "lr", "model", "tags", "tags[]"]
    );
    assert_eq!(names(&index, &["by-attr", "model", "vit", "by-attr", "-x"]), ["1"]);
    assert_eq!(names(&index, &["where"]), [""; 0]);
    assert_eq!(names(&index, &["where", "model = \"a%2Fb\""]), ["e3"]);
    assert_eq!(names(&index, &["where", "loss lt 1"]), ["e1", "%63ount"]);
}

#[test]
fn sorted_links_carry_their_place() {
    let index = sweep();
    assert_eq!(names(&index, &["sort", "loss"]), ["000001-%63ount", "000002-e1", "000003-e2", "000004-e3"]);
    assert_eq!(names(&index, &["sort", "-loss"]), ["000001-e3", "000002-e2", "000003-e1", "000004-%63ount"]);
    assert_eq!(names(&index, &["by-attr", "lr", "0.1", "sort", "-loss"]), ["000001-e2", "000002-e1"]);
    assert_eq!(names(&index, &["sort", "tags"]), ["000001-e1"]);
    assert_eq!(names(&index, &["sort", "-_timestamp"])[0], "000001-%63ount");
    let e1 = Ok(Found::Link(index.row("e1").unwrap()));
    assert_eq!(walk(&index, &["sort", "loss", "000002-e1"]), e1);
    assert_eq!(
        walk(&index, &["sort", "loss", "000009-e1"]),
        e1,
        "the place may have changed since the listing"
    );
    for name in ["e1", "1-e1", "000001", "00000x-e1", "000001-gone", "000001-count"] {
        assert_eq!(walk(&index, &["sort", "loss", name]), Err(NoName::NotFound), "{name}");
    }
}

#[test]
fn a_key_with_a_dash_is_not_taken_for_descending() {
    let index = sweep();
    assert_eq!(names(&index, &["sort"]), ["%2Dx", "loss", "lr", "model", "tags"]);
    assert_eq!(names(&index, &["sort", "%2Dx"]), ["000001-%63ount"]);
    assert_eq!(names(&index, &["sort", "--x"]), ["000001-%63ount"]);
    assert_eq!(walk(&index, &["sort", "-x"]), Err(NoName::NotFound));
}

#[test]
fn an_id_that_is_a_name_of_sets_is_shown_encoded() {
    let index = sweep();
    assert_eq!(names(&index, &["by-attr", "-x", "1"]), ["%63ount"]);
    let count = Ok(Found::Link(index.row("count").unwrap()));
    assert_eq!(walk(&index, &["by-attr", "-x", "1", "%63ount"]), count);
    assert_eq!(walk(&index, &["by-attr", "-x", "1", "count"]), Ok(Found::File(File::Count)));
    for (name, file) in
        [("table.csv", File::Csv), ("table.jsonl", File::Jsonl), ("schema.json", File::Schema)]
    {
        assert_eq!(walk(&index, &["where", "lr gt 0", name]), Ok(Found::File(file)));
        assert_eq!(walk(&index, &[name]), Ok(Found::File(file)));
    }
}

#[test]
fn names_that_are_too_long_are_found_by_what_is_left_of_them() {
    let long = "x".repeat(300);
    let index = index(&[&format!(r#"{{"@":"e1","{long}":"{long}","$":1}}"#)]);
    let [key] = &names(&index, &["by-attr"])[..] else { panic!("one key") };
    assert_eq!(key.len(), 255);
    let [value] = &names(&index, &["by-attr", key])[..] else { panic!("one value") };
    assert_eq!(value.len(), 255);
    assert_eq!(names(&index, &["by-attr", key, value]), ["e1"]);
    assert_eq!(names(&index, &["sort"]), [key.as_str()]);
    assert_eq!(names(&index, &["sort", key]), ["000001-e1"]);
}

#[test]
fn links_lead_to_the_entry_from_any_depth() {
    let index = sweep();
    let target = |path: &[&str], id: &str| dir(&index, path).set().link_target(&Id::new(id).unwrap());
    assert_eq!(target(&["by-attr", "lr", "0.1"], "e1"), "../../../entries/e1");
    assert_eq!(target(&["where", "lr gt 0"], "e1"), "../../entries/e1");
    assert_eq!(target(&["by-attr", "lr", "0.1", "sort", "loss"], "count"), "../../../../../entries/%63ount");
    let below = Set::all(Base::Entries).and(Term::Sort(Key::parse("lr").unwrap(), false));
    assert_eq!(below.link_target(&Id::new("e1").unwrap()), "../../../entries/e1");
}

#[test]
fn made_directories_are_where_they_were_made() {
    let index = sweep();
    let keys = dir(&index, &["by-attr"]);
    let (values, _) = child(&index, &keys, "status").unwrap();
    let (done, _) = child(&index, &values, "done").unwrap();
    assert!(!exists(&index, &values, index.live()) && !exists(&index, &done, index.live()));
    assert_eq!(made_name(&keys, &values).as_deref(), Some("status"));
    assert_eq!(made_name(&values, &done).as_deref(), Some("done"));
    assert_eq!(made_name(&keys, &done), None);
    assert_eq!(made_name(&dir(&index, &["where", "lr gt 0", "by-attr"]), &values), None);
    let found = lookup(&index, &values, index.live(), "done", &|dir| *dir == done);
    assert_eq!(found, Ok(Found::Dir(done)));
}

#[test]
fn a_stamp_changes_with_what_a_listing_depends_on() {
    let mut index = sweep();
    let set = |path: &[&str]| dir(&sweep(), path).set().clone();
    let (lr, model) = (set(&["by-attr", "lr", "0.1"]), set(&["where", "model = vit"]));
    let aging = set(&["where", "_timestamp > -7d"]);
    let before = (lr.stamp(&index), model.stamp(&index));
    assert!(before.0.is_some() && aging.stamp(&index).is_none());
    let record = r#"{"@":"e1","lr":7,"model":"resnet18","loss":0.5,"tags":["best","x"],"$":1}"#;
    let old = r#"{"@":"e1","lr":0.1,"model":"resnet18","loss":0.5,"tags":["best","x"],"$":1}"#;
    let old = Object::parse(old.as_bytes()).unwrap();
    index.apply(&parse_record(record.as_bytes()).unwrap(), Some(&old), Locator { offset: 9, len: 1 });
    assert_ne!(lr.stamp(&index), before.0);
    assert_eq!(model.stamp(&index), before.1, "nobody's model changed");
    index.apply(&parse_record(br#"{"@":"e9","$":9}"#).unwrap(), None, Locator { offset: 10, len: 1 });
    assert_ne!(model.stamp(&index), before.1, "an entry came");
}

#[test]
fn moving_a_link_is_setting_the_value() {
    let index = sweep();
    let set = |path: &[&str]| dir(&index, path).set().clone();
    let key = |key: &str| Key::parse(key).unwrap();
    let (resnet, vit) = (set(&["by-attr", "model", "resnet18"]), set(&["by-attr", "model", "vit"]));
    let leaf = |text: &str| Leaf::of(&Value::from_text(text));
    let edits = change::rename(&resnet, &vit).unwrap();
    assert_eq!(edits, [Edit::Move(key("model"), leaf("resnet18"), Value::from_text("vit"))]);
    assert_eq!(change::add(&vit).unwrap(), [Edit::Set(key("model"), Value::from_text("vit"), SetMode::Any)]);
    let (best, x) = (set(&["by-attr", "tags[]", "best"]), set(&["by-attr", "tags[]", "x"]));
    let (add, remove) = (
        Edit::AddElement(key("tags"), Value::from_text("x")),
        Edit::RemoveElement(key("tags"), leaf("best")),
    );
    assert_eq!(change::add(&x), Some(vec![add.clone()]));
    assert_eq!(change::remove(&best), Some(vec![remove.clone()]));
    assert_eq!(change::rename(&best, &x).unwrap(), [remove, add]);

    assert_eq!(change::remove(&vit), None, "rm of a scalar's link must never cost a value");
    assert_eq!(change::rename(&vit, &best), None);
    assert_eq!(change::add(&set(&["where", "lr gt 0"])), None);
    assert_eq!(change::add(&set(&["sort", "lr"])), None);
    assert_eq!(change::add(&Set::all(Base::Entries)), None);
}

#[test]
fn attributes_are_files() {
    let object = Object::parse(
        br#"{"_id":"/c/e1","lr":0.10,"opt":{"name":"adam","beta":{}},"s":"0.1","":1,"_timestamp":1.50}"#,
    )
    .unwrap();
    let id = Id::new("e1").unwrap();
    assert_eq!(attribute::names(&object), ["lr", "opt.name", "opt.beta", "s", "\"\""]);
    let text = |name: &str| attribute::text(&object, &id, 9.0, &attribute::key_of(&object, name).unwrap());
    for (name, expected) in [
        ("lr", Some("0.1")),
        ("opt.name", Some("adam")),
        ("opt.beta", Some("{}")),
        ("s", Some("\"0.1\"")),
        ("\"\"", Some("1")),
        ("_id", Some("e1")),
        ("@", Some("e1")),
        ("_timestamp", Some("1.5")),
        ("$", Some("1.5")),
        ("opt", None),
        ("lr.x", None),
        ("lr[]", None),
    ] {
        assert_eq!(text(name).as_deref(), expected, "{name}");
    }
    assert_eq!(attribute::key_of(&object, ".hidden"), Err(NoName::Malformed));
    assert_eq!(attribute::parse_file(b"0.1\n"), Ok(Value::from_text("0.1")));
    assert_eq!(attribute::parse_file(b"a\n\n"), Ok(Value::from_text("a\n")));
    assert_eq!(attribute::parse_file(b""), Ok(Value::from_text("\"\"")));
    assert_eq!(attribute::parse_file(b"\xff\n"), Err(NoName::NotUtf8));
    assert_eq!(attribute::parse_object(b"[1]\n"), Err(NoName::Malformed));
    assert_eq!(attribute::parse_object(b"{\"a\":\"\xff\"}"), Err(NoName::NotUtf8));
    assert_eq!(
        attribute::object_line(&attribute::parse_object(b" {\"a\":1.0}\n").unwrap()),
        b"{\"a\": 1.0}\n"
    );
}

mod property {
    use proptest::prelude::*;

    use super::*;
    use crate::query::tests::exprs;
    use crate::value::strategy::values;

    /// A term of a path, by plain means.
    fn holds(term: &Term, object: &Object<'_>, id: &str) -> bool {
        match term {
            Term::Value(key, leaf) if key.is_elements() => {
                match attribute::value(object, &key.without_elements()) {
                    Some(Value::Array(elements)) => elements.iter().any(|element| Leaf::of(element) == *leaf),
                    _ => false,
                }
            }
            Term::Value(key, leaf) => attribute::value(object, key).map(Leaf::of).as_ref() == Some(leaf),
            Term::Where(_, expr) => crate::query::holds(expr, object, id, 1.0, 10.0),
            Term::Sort(key, _) => attribute::value(object, key).is_some(),
        }
    }

    fn keys() -> impl Strategy<Value = Key> {
        prop::sample::select(vec!["a", "b", "a.b", "b[]"]).prop_map(|key| Key::parse(key).unwrap())
    }

    fn terms() -> impl Strategy<Value = Term> {
        prop_oneof![
            (keys(), values()).prop_map(|(key, value)| Term::Value(key, Leaf::of(&value))),
            exprs().prop_map(|expr| Term::Where(expr.to_string().into(), expr.into())),
            (keys(), any::<bool>()).prop_map(|(key, down)| Term::Sort(key.without_elements(), down)),
        ]
    }

    proptest! {
        #[test]
        fn a_path_is_what_a_plain_loop_finds(
            attrs in prop::collection::vec((values(), values()), 1..6),
            terms in prop::collection::vec(terms(), 0..4),
        ) {
            let mut loader = Loader::default();
            let mut objects = Vec::new();
            for (at, (a, b)) in (0..).zip(attrs) {
                let mut line = format!("{{\"@\": \"e{at}\", \"$\": 1.0, \"a\": ").into_bytes();
                a.write_python(&mut line);
                line.extend_from_slice(b", \"b\": ");
                b.write_python(&mut line);
                line.push(b'}');
                let record = parse_record(&line).unwrap();
                loader.add(&record, Locator { offset: at, len: 1 });
                objects.push((record.id.as_str().to_owned(), record.object.into_owned()));
            }
            let index = loader.finish();
            let set = terms.iter().fold(Set::all(Base::Root), |set, term| set.and(term.clone()));
            let plain: RoaringBitmap = (0..)
                .zip(&objects)
                .filter(|(_, (id, object))| terms.iter().all(|term| holds(term, object, id)))
                .map(|(row, _)| row)
                .collect();
            let rows = set.rows(&index, 10.0).into_owned();
            prop_assert_eq!(&rows, &plain);
            prop_assert_eq!(set.in_order(&index, &rows).len() as u64, rows.len());

            // What is listed is found, by the name it is listed with.
            let within_rows = rows;
            for key in index.keys(within(&set, &within_rows)) {
                let keys = Dir::Keys(set.clone());
                let values = Dir::Values(set.clone(), key.clone());
                let found = lookup(&index, &keys, &within_rows, &key.to_file_name(), &|_| false);
                prop_assert_eq!(found, Ok(Found::Dir(values.clone())));
                for (leaf, count) in index.values(&key, within(&set, &within_rows)) {
                    let found = lookup(&index, &values, &within_rows, &leaf_file_name(&leaf), &|_| false);
                    let Ok(Found::Dir(Dir::Set(below))) = found else { panic!("{leaf:?} is {found:?}") };
                    prop_assert_eq!(below.rows(&index, 10.0).len(), count);
                }
            }
        }
    }
}
