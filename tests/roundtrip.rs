//! Reading any attribute and writing back what was read leaves the same JSON value, through every way there is.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;

use cachedirfs::value::{Object, Text, Value};
use common::{Cache, Mount, amount, ls, put};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

/// A JSON string as Python prints it: any UTF-16 units, lone surrogates among them.
fn string() -> impl Strategy<Value = String> {
    let units = prop_oneof![
        4 => 0x20_u16..0x7f,
        2 => prop::sample::select("\"\\/%.,=~ \n\t[]{}:0123456789eE+-ntfNI".encode_utf16().collect::<Vec<_>>()),
        1 => 0_u16..0x20,
        1 => prop::sample::select(vec![0x7f_u16, 0x80, 0x85, 0xa0, 0xff, 0x301, 0x2028, 0xfeff, 0xfffd, 0xffff]),
        1 => 0x100_u16..0xd800,
        1 => 0xd800_u16..0xe000,
    ];
    let whole = prop::sample::select(vec![
        "",
        "0.1",
        "true",
        "null",
        "NaN",
        "-Infinity",
        "[1]",
        "{}",
        "\"",
        "\"a\"",
        " 1 ",
        "1\n",
        ".",
        "..",
        "1e5",
        "01",
        "-",
        "1.",
        "a\n",
        "\n",
        "😀",
    ]);
    prop_oneof![
        3 => prop::collection::vec(units, 0..12),
        1 => whole.prop_map(|text| text.encode_utf16().collect()),
        1 => (1_usize..400, 0x61_u16..0x7b).prop_map(|(len, unit)| vec![unit; len]),
    ]
    .prop_map(|units| {
        let mut text = String::from("\"");
        for unit in units {
            match unit {
                0x22 => text.push_str("\\\""),
                0x5c => text.push_str("\\\\"),
                0x20..0x7f => text.push(char::from_u32(u32::from(unit)).unwrap()),
                _ => write!(text, "\\u{unit:04x}").unwrap(),
            }
        }
        text.push('"');
        text
    })
}

/// A number token as Python's parser takes it.
fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<i64>().prop_map(|n| n.to_string()),
        (-1000_i64..1000).prop_map(|n| n.to_string()),
        any::<f64>().prop_filter("finite", |x| x.is_finite()).prop_map(|x| format!("{x:e}")),
        any::<f64>().prop_filter("finite", |x| x.is_finite()).prop_map(|x| format!("{x:?}")),
        "-?[1-9][0-9]{15,60}",
        "-?(0|[1-9][0-9]{0,3})\\.[0-9]{1,4}([eE][+-]?[0-9]{1,2})?",
        prop::sample::select(vec![
            "NaN",
            "Infinity",
            "-Infinity",
            "-0.0",
            "-0",
            "1e22",
            "1E400",
            "0.10",
            "1e-05"
        ])
        .prop_map(str::to_owned),
    ]
}

fn leaf() -> impl Strategy<Value = String> {
    prop_oneof![
        1 => prop::sample::select(vec!["null", "true", "false"]).prop_map(str::to_owned),
        3 => number(),
        4 => string(),
    ]
}

/// Any JSON text.
fn json() -> impl Strategy<Value = String> {
    leaf().prop_recursive(4, 24, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(|items| format!("[{}]", items.join(", "))),
            prop::collection::vec((string(), inner), 0..5).prop_map(|members| {
                let members: Vec<_> =
                    members.iter().map(|(name, value)| format!("{name}: {value}")).collect();
                format!("{{{}}}", members.join(", "))
            }),
        ]
    })
}

fn record(cache: &Cache, row: usize, attrs: &str) -> String {
    let comma = if attrs.is_empty() { "" } else { ", " };
    if row.is_multiple_of(2) {
        format!(r#"{{"_id": "{}/e{row}"{comma}{attrs}, "_timestamp": 1.5}}"#, cache.path().display())
    } else {
        format!(r#"{{"@": "e{row}"{comma}{attrs}, "$": 1.5}}"#)
    }
}

/// The last object of each id.
fn load(cache: &Cache) -> HashMap<String, Object<'static>> {
    let mut found = HashMap::new();
    for line in cache.log_bytes().split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let object = Object::parse(line).unwrap().into_owned();
        let id = object.get("_id").or_else(|| object.get("@"));
        let Some(Value::String(id)) = id else { panic!("a record without an id") };
        found.insert(id.as_str().unwrap().rsplit('/').next().unwrap().to_owned(), object);
    }
    found
}

/// A value's text as part of a `K=V` list.
fn in_list(text: &str) -> String {
    let mut name = String::new();
    for c in text.chars() {
        if matches!(c, '/' | '%' | ',') || c.is_ascii_control() {
            write!(name, "%{:02X}", u32::from(c)).unwrap();
        } else {
            name.push(c);
        }
    }
    name
}

/// Copies every attribute of every entry in every way, then compares the log.
fn check(mount: &Mount, cache: &Cache, values: &[String]) -> Result<(), TestCaseError> {
    let mut copies = Vec::new();
    let mut whole = Vec::new();
    for (row, value) in values.iter().enumerate() {
        let id = format!("e{row}");
        let entry = mount.join("entries").join(&id);
        let attrs = entry.join(".attrs");
        for (n, key) in ls(&attrs).into_iter().enumerate() {
            let file = fs::read(attrs.join(&key)).unwrap();
            // In its own place: nothing changes. To another: the same value.
            put(attrs.join(&key), &file).unwrap();
            put(attrs.join(format!("file-{n}")), &file).unwrap();
            copies.push((id.clone(), key.clone(), id.clone(), format!("file-{n}")));
            let name = format!("user.{key}");
            if name.len() <= 255 && file.len() <= 60_000 {
                let value = xattr::get(&entry, &name).unwrap().expect("an extended attribute");
                prop_assert_eq!([&value[..], b"\n"].concat(), file.clone(), "both have one text form");
                xattr::set(&entry, &name, &value).unwrap();
                xattr::set(&entry, format!("user.xattr-{n}"), &value).unwrap();
                copies.push((id.clone(), key.clone(), id.clone(), format!("xattr-{n}")));
            }
            let text = String::from_utf8(file).expect("text forms are UTF-8");
            let list = format!("pair={}", in_list(text.strip_suffix('\n').unwrap()));
            if list.len() <= 255 {
                let new = mount.join("new").join(&list);
                match fs::create_dir(&new) {
                    Ok(()) => {}
                    // The same list once more: an alias of the same mount.
                    Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                    Err(e) => prop_assert!(false, "mkdir new/{}: {}", list, e),
                }
                copies.push((id.clone(), key.clone(), mount.id(&new), "pair".to_owned()));
            }
        }
        // The object: as it is, with one more member.
        let text = fs::read(entry.join(".attrs.json")).unwrap();
        put(entry.join(".attrs.json"), &text).unwrap();
        let mut object = Object::parse(&text).unwrap().into_owned();
        let own = Value::parse(value.as_bytes()).unwrap().into_owned();
        object.insert(Text::from_str("json"), own.clone());
        let mut text = Vec::new();
        object.write_python(&mut text);
        put(entry.join(".attrs.json"), &text).unwrap();
        whole.push((id.clone(), "json", own));
    }
    let log = load(cache);
    let leaves = |id: &str| -> HashMap<String, Value<'static>> {
        cachedirfs::name::flatten(&log[id])
            .into_iter()
            .map(|(key, value)| (key.to_file_name(), value.clone().into_owned()))
            .collect()
    };
    for (id, key, other, copy) in copies {
        let (from, to) = (leaves(&id), leaves(&other));
        let (from, to) = (&from[&key], to.get(&copy));
        prop_assert!(to.is_some_and(|to| from.same(to)), "{} of {} became {:?} from {:?}", key, id, to, from);
    }
    for (id, key, own) in whole {
        prop_assert!(log[&id].get(key).is_some_and(|value| value.same(&own)), "{} of {}", key, id);
        prop_assert!(log[&id].get("v").is_some_and(|value| value.same(&own)), "v of {}", id);
    }
    Ok(())
}

#[test]
fn what_is_read_can_be_written_back() {
    let config = Config {
        cases: u32::try_from(amount("CACHEDIRFS_ROUNDTRIP_CASES", 60)).unwrap(),
        max_shrink_iters: 60,
        failure_persistence: None,
        ..Config::default()
    };
    let mut runner = TestRunner::new(config);
    let result = runner.run(&prop::collection::vec(json(), 1..30), |values| {
        let cache = Cache::new();
        let lines: Vec<_> = values
            .iter()
            .enumerate()
            .map(|(row, value)| record(&cache, row, &format!(r#""v": {value}"#)))
            .collect();
        cache.append(&lines);
        let mount = cache.mount();
        check(&mount, &cache, &values)?;
        mount.stop();
        Ok(())
    });
    if let Err(failure) = result {
        panic!("{failure}");
    }
}
