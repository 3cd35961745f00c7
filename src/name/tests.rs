//! Tests of names.

use proptest::prelude::*;

use super::*;
use crate::value::strategy::{objects, texts, values};
use crate::value::{MAX_DEPTH, Object, Text, Value};

fn key(text: &str) -> Key {
    Key::parse(text).unwrap()
}

fn member_key(members: &[&str]) -> Key {
    Key::from_members(members.iter().map(|member| member.as_bytes()))
}

fn leaf(text: &str) -> Leaf {
    Leaf::of(&Value::from_text(text))
}

/// What the kernel takes as a file name.
fn is_file_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= NAME_MAX && !name.contains(['/', '\0']) && name != "." && name != ".."
}

#[test]
fn ids_are_checked() {
    for name in ["", ".", "..", ".a", "_a", "a/b", "/", "a\0"] {
        assert_eq!(Id::new(name), Err(NameError::Malformed), "{name:?}");
    }
    assert_eq!(Id::new(&"a".repeat(256)), Err(NameError::TooLong));
    assert!(Id::new(&"a".repeat(255)).is_ok());
    assert_eq!(Id::from_path("/data/cache/e4kq0zpw3").unwrap().as_str(), "e4kq0zpw3");
    assert_eq!(Id::from_path("item_1").unwrap().as_str(), "item_1");
    for path in ["/data/cache/e1/", "/", "", "/a/..", "a/_trash"] {
        assert_eq!(Id::from_path(path), Err(NameError::Malformed), "{path:?}");
    }
}

#[test]
fn ids_that_are_reserved_names_are_shown_encoded() {
    for (id, name) in [
        ("e1", "e1"),
        ("count", "%63ount"),
        ("by-attr", "%62y-attr"),
        ("table.csv", "%74able.csv"),
        ("%63ount", "%2563ount"),
        ("%", "%25"),
        ("counts", "counts"),
        ("é", "é"),
        ("50%", "50%"),
    ] {
        assert_eq!(Id::new(id).unwrap().to_file_name(), name);
        assert_eq!(Id::from_file_name(name).unwrap().as_str(), id);
    }
    for name in ["count", "%", "%6", "%63", "%65ntry", "%zz", "%2", "%5Ftrash", "_a", "", "%2fx", "%éa"] {
        assert_eq!(Id::from_file_name(name), None, "{name}");
    }
}

#[test]
fn keys_have_one_spelling() {
    for (members, spelling) in [
        (&["lr"][..], "lr"),
        (&["opt", "name"], "opt.name"),
        (&["a.b", "c"], "a%2Eb.c"),
        (&[""], "\"\""),
        (&["", "a", ""], "\"\".a.\"\""),
        (&["\"\""], "%22\""),
        (&["a\"b"], "a\"b"),
        (&["tags[]"], "tags%5B%5D"),
        (&["tags[]", "a"], "tags[].a"),
        (&["[]"], "%5B%5D"),
        (&["a/b%c\n\x7f"], "a%2Fb%25c%0A%7F"),
        (&["."], "%2E"),
        (&["ключ", "a=b,c"], "ключ.a=b,c"),
    ] {
        assert_eq!(member_key(members).as_str(), spelling);
        assert_eq!(key(spelling), member_key(members));
        assert!(!key(spelling).is_elements());
    }
    for (other, spelling) in [
        ("%6cr", "lr"),
        ("a%2eb", "a%2Eb"),
        ("50%", "50%25"),
        ("a/b", "a%2Fb"),
        ("\"a", "%22a"),
        ("\"\"x", "%22\"x"),
        ("a%3Db", "a=b"),
    ] {
        assert_eq!(key(other).as_str(), spelling);
    }
    let lone = Object::parse(br#"{"a\udcff": 1}"#).unwrap();
    assert_eq!(flatten(&lone)[0].0.as_str(), "a%ED%B3%BF");
}

#[test]
fn keys_that_are_none_are_refused() {
    for text in ["", ".", "a.", ".a", "a..b", "[]", "a.[]"] {
        assert_eq!(Key::parse(text), Err(NameError::Malformed), "{text:?}");
    }
    assert_eq!(Key::parse("a%ff"), Err(NameError::NotUtf8));
    assert_eq!(Key::parse("%ED%A0%BD%ED%B8%80"), Err(NameError::NotUtf8), "a pair is one character");
    let deepest = vec!["a"; MAX_DEPTH].join(".");
    assert!(Key::parse(&deepest).is_ok());
    assert_eq!(Key::parse(&(deepest + ".a")), Err(NameError::TooLong));
}

#[test]
fn keys_of_elements() {
    let tags = key("tags");
    assert_eq!(tags.elements().as_str(), "tags[]");
    assert_eq!(tags.elements(), key("tags[]"));
    assert_eq!(tags.elements().elements(), tags.elements());
    assert_eq!(tags.elements().without_elements(), tags);
    assert!(tags.elements().is_elements());
    assert_eq!(tags.elements().members(), [Text::from_str("tags")]);
    assert_eq!(key("a[][]"), member_key(&["a[]"]).elements());
    assert_eq!(key("\"\"[]"), member_key(&[""]).elements());
}

#[test]
fn reserved_keys() {
    for text in ["_id", "_timestamp", "@", "$", "%5fid", "_id.a", "@[]"] {
        assert!(key(text).is_reserved(), "{text}");
    }
    for text in ["id", "a._id", "_i", "_id%2Ea", "@@"] {
        assert!(!key(text).is_reserved(), "{text}");
    }
}

#[test]
fn objects_are_flattened_in_order() {
    let text = br#"{"_id": "/c/e1", "b": {"x": 1, "y": {"": [1]}}, "a.b": {}, "a": {"_id": 2}, "@": {"z": 1}, "$": 1}"#;
    let object = Object::parse(text).unwrap();
    let leaves: Vec<_> = flatten(&object)
        .into_iter()
        .map(|(key, value)| format!("{}={}", key.as_str(), value.to_text()))
        .collect();
    assert_eq!(leaves, ["b.x=1", "b.y.\"\"=[1]", "a%2Eb={}", "a._id=2"]);
}

#[test]
fn values_become_file_names() {
    for (text, name) in [
        ("resnet18", "resnet18"),
        (".", "%2E"),
        ("..", "%2E%2E"),
        ("...", "..."),
        ("a/b 100%", "a%2Fb 100%25"),
        ("a\nb\t", "a%0Ab%09"),
        ("é😀", "é😀"),
    ] {
        assert_eq!(to_file_name(text), name);
        assert_eq!(unescape(name).as_deref(), Some(text));
    }
    assert_eq!(leaf_file_name(&leaf("1e-1")), "0.1");
    assert_eq!(leaf_file_name(&leaf("\"\"")), "\"\"");
    assert_eq!(unescape("%").as_deref(), Some("%"));
    assert_eq!(unescape("%4").as_deref(), Some("%4"));
    assert_eq!(unescape("%zz%61%4a").as_deref(), Some("%zzaJ"));
    assert_eq!(unescape("%ff"), None);
    assert_eq!(unescape("%c3%A9").as_deref(), Some("é"));
}

#[test]
fn names_that_are_too_long_are_cut() {
    let longest = "a".repeat(255);
    assert_eq!(to_file_name(&longest), longest);
    assert_eq!(cut_prefix(&longest), None);
    let cut = to_file_name(&"a".repeat(256));
    assert_eq!(cut.len(), 255);
    assert_eq!(cut_prefix(&cut), Some(&*"a".repeat(238)));
    // FNV-1a 64, by its definition.
    let hash = (0..256)
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, _| (hash ^ u64::from(b'a')).wrapping_mul(0x0100_0000_01b3));
    assert!(cut.ends_with(&format!("~{hash:016x}")));

    for length in 230..250 {
        let text = "a".repeat(length) + &"😀".repeat(10);
        let name = to_file_name(&text);
        assert!(text.starts_with(cut_prefix(&name).unwrap()));
        let text = "a".repeat(length) + &"%".repeat(10);
        let name = to_file_name(&text);
        assert!(text.starts_with(&unescape(cut_prefix(&name).unwrap()).unwrap()));
    }
    assert_ne!(to_file_name(&cut), cut, "no text has the name of another");
    assert!(cut_prefix(&to_file_name(&cut)).is_some());
    assert_eq!(cut_prefix("a~0123456789abcdef"), None, "too short to have been cut");
    assert_eq!(cut_prefix(""), None);
    let long = key(&"k/".repeat(100));
    assert_eq!(long.to_file_name().len(), 254, "no escape is split, and none is encoded twice");
}

#[test]
fn pairs_are_read_and_written() {
    let pairs = parse_pairs("lr=1e-1,model=resnet18,opt.name=a%2Cb=c,a%3Db%2C=%22%22,e=,lr=0.10").unwrap();
    let shown: Vec<_> = pairs.iter().map(|(key, value)| (key.as_str(), value.to_text())).collect();
    let expected =
        [("lr", "0.1"), ("model", "resnet18"), ("opt.name", "a,b=c"), ("a=b,", "\"\""), ("e", "\"\"")];
    assert_eq!(shown, expected.map(|(key, text)| (key, text.to_owned())));
    let leaves: Vec<_> = pairs.iter().map(|(key, value)| (key.clone(), Leaf::of(value))).collect();
    assert_eq!(pairs_to_list(&leaves), "a%3Db%2C=\"\",e=\"\",lr=0.1,model=resnet18,opt.name=a%2Cb=c");
    for list in [
        "",
        "a",
        "a=1,,b",
        "=3",
        "a=1,",
        ",a=1",
        "a=1,,b=2",
        "_id=3",
        "a.=1",
        "a[]=1",
        "@=x",
        "_deleted=true",
    ] {
        assert_eq!(parse_pairs(list).unwrap_err(), NameError::Malformed, "{list}");
    }
    assert_eq!(parse_pairs("a=%ff").unwrap_err(), NameError::NotUtf8);
    let (key, value) = parse_pair("opt.name=a,b%2C=c").unwrap();
    assert_eq!((key.as_str(), value.to_text()), ("opt.name", "a,b%2C=c".to_owned()));
    assert_eq!(parse_pair("a").unwrap_err(), NameError::Malformed);
}

/// Follows members into an object.
fn find<'o>(object: &'o Object<'o>, members: &[Text<'_>]) -> Option<&'o Value<'o>> {
    let (first, rest) = members.split_first()?;
    match (object.get_bytes(first.as_bytes())?, rest) {
        (value, []) => Some(value),
        (Value::Object(inner), rest) => find(inner, rest),
        _ => None,
    }
}

proptest! {
    #[test]
    fn keys_round_trip(members in prop::collection::vec(texts(), 1..4)) {
        let key = Key::from_members(members.iter().map(Text::as_bytes));
        prop_assert_eq!(&key.members(), &members);
        prop_assert_eq!(Key::parse(key.as_str()), Ok(key.clone()));
        prop_assert_eq!(Key::parse(key.elements().as_str()), Ok(key.elements()));
        prop_assert_eq!(&key.elements().members(), &members);
        prop_assert_eq!(&key.elements().without_elements(), &key);
        prop_assert!(!key.is_elements());
        for name in [key.to_file_name(), key.elements().to_file_name()] {
            prop_assert!(is_file_name(&name) && !name.starts_with('.'), "{name}");
            if cut_prefix(&name).is_none() {
                prop_assert!(Key::parse(&name).is_ok_and(|read| read.without_elements() == key));
            }
        }
    }

    #[test]
    fn any_key_text_has_one_spelling(text in prop_oneof![any::<String>(), "[a.%\"\\[\\]2Ef]{1,8}"]) {
        if let Ok(key) = Key::parse(&text) {
            prop_assert_eq!(Key::parse(key.as_str()), Ok(key.clone()));
            let members = key.members();
            let again = Key::from_members(members.iter().map(Text::as_bytes));
            prop_assert_eq!(again, key.without_elements());
        }
    }

    #[test]
    fn flattened_keys_find_their_values(object in objects()) {
        for (key, value) in flatten(&object) {
            prop_assert_eq!(find(&object, &key.members()), Some(value));
        }
    }

    #[test]
    fn file_names_of_values_read_back(value in values()) {
        let leaf = Leaf::of(&value);
        let name = leaf_file_name(&leaf);
        prop_assert!(is_file_name(&name), "{name}");
        if cut_prefix(&name).is_none() {
            prop_assert!(Value::from_text(&unescape(&name).unwrap()).same(&value));
        }
    }

    #[test]
    fn file_names_are_decoded(text in "[a-z%/.~\\x00-\\x20\\x7fé]{0,80}") {
        prop_assert_eq!(unescape(&to_file_name(&text)), Some(text));
    }

    #[test]
    fn lists_of_pairs_read_back(pairs in prop::collection::vec((texts(), values()), 1..4)) {
        let mut expected: Vec<(Key, Leaf)> = Vec::new();
        for (name, value) in pairs {
            let key = Key::from_members([name.as_bytes()]);
            if !key.is_reserved() && expected.iter().all(|(other, _)| *other != key) {
                expected.push((key, Leaf::of(&value)));
            }
        }
        prop_assume!(!expected.is_empty());
        expected.sort();
        let list = pairs_to_list(&expected);
        prop_assert!(!list.contains(['/', '\0', '\n']));
        let read = parse_pairs(&list).unwrap();
        let read: Vec<_> = read.into_iter().map(|(key, value)| (key, Leaf::of(&value))).collect();
        prop_assert_eq!(pairs_to_list(&read), list);
        prop_assert_eq!(read, expected);
    }

    #[test]
    fn ids_round_trip(name in prop_oneof!["[a-z%0-9.é]{1,6}", "(by-attr|where|count|%63ount)"]) {
        if let Ok(id) = Id::new(&name) {
            prop_assert_eq!(Id::from_file_name(&id.to_file_name()), Some(id));
        }
    }
}
