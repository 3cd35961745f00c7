//! Odd names: every byte in contents, and values and keys that no file name can be.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;

use common::{Cache, errno, ls, read, target};

#[test]
fn contents_have_every_byte_but_slash_and_nul() {
    let cache = Cache::new();
    let mount = cache.mount();
    let id = mount.make("k=1");
    let entry = mount.join("entries").join(&id);
    let mut names = BTreeSet::new();
    for byte in (1..=255_u8).filter(|byte| *byte != b'/') {
        names.insert(OsStr::from_bytes(&[byte, b'x']).to_owned());
        if byte != b'.' {
            names.insert(OsStr::from_bytes(&[byte]).to_owned());
        }
    }
    names.insert(OsString::from("n".repeat(255)));
    names.insert(OsString::from("é".repeat(127)));
    names.insert(OsString::from("..."));
    names.insert(OsString::from("%2F"));
    for name in &names {
        fs::write(entry.join(name), name.as_bytes()).unwrap_or_else(|e| panic!("{name:?}: {e}"));
    }
    let listed: BTreeSet<_> = fs::read_dir(&entry).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(listed, names);
    let real: BTreeSet<_> = fs::read_dir(cache.join(&id)).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(real, names);
    for name in &names {
        assert_eq!(fs::read(entry.join(name)).unwrap(), name.as_bytes());
        assert_eq!(fs::read(mount.join("by-attr/k/1").join(&id).join(name)).unwrap(), name.as_bytes());
    }
    for name in &names {
        fs::remove_file(entry.join(name)).unwrap();
    }
    fs::create_dir(entry.join("d".repeat(255))).unwrap();
    assert_eq!(errno(fs::create_dir(entry.join("d".repeat(256)))), libc::ENAMETOOLONG);
    mount.stop();
}

/// A value and the name of its directory.
const VALUES: &[(&str, &str)] = &[
    (r#""""#, "\"\""),
    (r#"".""#, "%2E"),
    (r#""..""#, "%2E%2E"),
    (r#""...""#, "..."),
    (r#""/""#, "%2F"),
    (r#""a/b/c""#, "a%2Fb%2Fc"),
    (r#""%""#, "%25"),
    (r#""%2F""#, "%252F"),
    (r#""line\nbreak""#, "line%0Abreak"),
    (r#""tab\there""#, "tab%09here"),
    (r#""end\n""#, "\"end\\n\""),
    (r#""\u0001""#, "\"\\u0001\""),
    (r#""\"quoted\"""#, "\"\\\"quoted\\\"\""),
    (r#"" ""#, " "),
    (r#"" a ""#, " a "),
    (r#""-rf""#, "-rf"),
    (r#""*""#, "*"),
    (r#""~""#, "~"),
    (r#""a=b,c""#, "a=b,c"),
    (r#""grün""#, "grün"),
    (r#""日本""#, "日本"),
    (r#""\ud83d\ude00""#, "😀"),
    (r#""0.1""#, "\"0.1\""),
    ("0.1", "0.1"),
    (r#""true""#, "\"true\""),
    ("true", "true"),
    ("1", "1"),
    (r#""1""#, "\"1\""),
    (r#""[1]""#, "\"[1]\""),
    ("[1]", "[1]"),
    (r#"["a/b",  1.0]"#, "[\"a%2Fb\",1]"),
    ("null", "null"),
    (r#""null""#, "\"null\""),
    ("NaN", "NaN"),
    ("-Infinity", "-Infinity"),
    ("{}", "{}"),
    ("9223372036854775808", "9.223372036854776e+18"),
    ("9223372036854775809", "9223372036854775809"),
    ("1180591620717411303424", "1.1805916207174113e+21"),
    ("1180591620717411303425", "1180591620717411303425"),
    ("1e16", "10000000000000000"),
    ("1e17", "1e+17"),
    ("100000000000000000", "1e+17"),
    ("-0.0", "0"),
    ("1e-05", "1e-05"),
    ("0.00001", "1e-05"),
];

#[test]
fn values_have_one_name_each_that_leads_back() {
    let cache = Cache::new();
    let lines: Vec<_> = VALUES
        .iter()
        .enumerate()
        .map(|(n, (value, _))| cache.record(&format!("e{n:02}"), 1.0, &format!(r#""v": {value}"#)))
        .collect();
    cache.append(&lines);
    let mount = cache.mount();
    let expected: BTreeSet<_> = VALUES.iter().map(|(_, name)| (*name).to_owned()).collect();
    assert_eq!(ls(mount.join("by-attr/v")).into_iter().collect::<BTreeSet<_>>(), expected);
    for (n, (value, name)) in VALUES.iter().enumerate() {
        let directory = mount.join("by-attr/v").join(name);
        let id = format!("e{n:02}");
        assert!(ls(&directory).contains(&id), "{value} in {name}");
        assert!(fs::symlink_metadata(&directory).unwrap().is_dir(), "{name} is the one spelling");
        assert_eq!(directory.join(&id).canonicalize().unwrap(), mount.join("entries").join(&id));
    }
    mount.stop();
}

#[test]
fn values_that_are_too_long_are_cut_and_found() {
    let cache = Cache::new();
    let long = [
        ("e1", "x".repeat(256)),
        ("e2", "x".repeat(300)),
        ("e3", format!("{}é", "x".repeat(254))),
        ("e4", "日".repeat(200)),
        ("e5", "/".repeat(90)),
        ("e6", "y".repeat(255)),
        ("e7", format!("{}\n", "z".repeat(100_000))),
    ];
    for (id, value) in &long {
        cache.add(id, 1.0, &format!(r#""v": {}"#, serde_json::to_string(value).unwrap()));
    }
    let mount = cache.mount();
    let names = ls(mount.join("by-attr/v"));
    assert_eq!(names.len(), long.len());
    for name in &names {
        assert!(name.len() <= 255);
        let ids = ls(mount.join("by-attr/v").join(name));
        assert_eq!(ids.len(), 1);
        let (id, value) = long.iter().find(|(id, _)| *id == ids[0]).unwrap();
        let cut = *id != "e6";
        let hash = name.rsplit_once('~').map(|(_, hash)| hash);
        assert_eq!(
            hash.is_some_and(|hash| hash.len() == 16 && hash.bytes().all(|b| b.is_ascii_hexdigit())),
            cut,
            "{name}"
        );
        let text = mount.get(id, "v");
        let expected = if *id == "e7" { serde_json::to_string(value).unwrap() } else { value.clone() };
        assert_eq!(text, expected);
        assert_eq!(read(mount.join("by-attr/v").join(name).join("count")), "1\n");
    }
    // Two that differ only after the cut are two.
    let cuts: Vec<_> = names.iter().filter(|name| name.starts_with("xxx")).collect();
    assert_eq!(cuts.len(), 3);
    mount.stop();
    let mount = cache.mount();
    assert_eq!(ls(mount.join("by-attr/v")), names, "the same names at the next mount");
    mount.stop();
}

#[test]
fn keys_that_no_file_name_can_be() {
    let cache = Cache::new();
    let keys = [
        (r#""""#, "\"\""),
        (r#"".""#, "%2E"),
        (r#""..""#, "%2E%2E"),
        (r#""a.b""#, "a%2Eb"),
        (r#"".hidden""#, "%2Ehidden"),
        (r#""a/b""#, "a%2Fb"),
        (r#""%41""#, "%2541"),
        (r#""line\nbreak""#, "line%0Abreak"),
        (r#""\u0000""#, "%00"),
        (r#""list[]""#, "list%5B%5D"),
        (r#""\"q""#, "%22q"),
        (r#"" ""#, " "),
        (r#""grün""#, "grün"),
    ];
    for (n, (key, _)) in keys.iter().enumerate() {
        cache.add(&format!("e{n:02}"), 1.0, &format!("{key}: {n}"));
    }
    let long = "k".repeat(300);
    cache.add("long", 1.0, &format!(r#""{long}": 1"#));
    let mount = cache.mount();
    let listed = ls(mount.join("by-attr"));
    assert_eq!(listed.len(), keys.len() + 1);
    for (n, (_, name)) in keys.iter().enumerate() {
        let id = format!("e{n:02}");
        assert_eq!(ls(mount.join("entries").join(&id).join(".attrs")), [*name]);
        assert_eq!(ls(mount.join("by-attr").join(name).join(n.to_string())), [id.as_str()]);
        // Written by that name, it is the same key.
        mount.set(&id, name, "changed");
        assert_eq!(cache.entry(&id).len(), 3);
        assert_eq!(ls(mount.join("by-attr").join(name)), ["changed"]);
    }
    let name = ls(mount.join("entries/long/.attrs")).remove(0);
    assert!(name.len() <= 255 && name.contains('~'), "{name}");
    assert_eq!(mount.get("long", &name), "1");
    assert_eq!(ls(mount.join("by-attr").join(&name).join("1")), ["long"]);
    mount.set("long", &name, "2");
    assert_eq!(cache.entry("long")[&long], 2);
    mount.stop();
}

#[test]
fn another_spelling_of_a_key_is_the_same_key() {
    let cache = Cache::new();
    cache.add("e1", 1.0, r#""a.b": 1, "c": {"d": 2}"#);
    let mount = cache.mount();
    assert_eq!(target(mount.join("by-attr/a%2eb")), std::path::Path::new("a%2Eb"));
    assert_eq!(target(mount.join("by-attr/%63.d")), std::path::Path::new("c.d"));
    assert_eq!(ls(mount.join("by-attr/a%2eb/1")), ["e1"]);
    assert_eq!(errno(fs::symlink_metadata(mount.join("by-attr/a.b"))), libc::ENOENT);
    mount.stop();
}

#[test]
fn names_of_lists_are_decoded() {
    let cache = Cache::new();
    let mount = cache.mount();
    for (list, attrs) in [
        ("a=1,b=x", serde_json::json!({"a": 1, "b": "x"})),
        ("a=%2C%2F%25", serde_json::json!({"a": ",/%"})),
        ("a%3Db=1", serde_json::json!({"a=b": 1})),
        ("a=b=c", serde_json::json!({"a": "b=c"})),
        ("a=", serde_json::json!({"a": ""})),
        ("a=\"1\"", serde_json::json!({"a": "1"})),
        ("opt.name=adam,opt.lr=0.1", serde_json::json!({"opt": {"name": "adam", "lr": 0.1}})),
        ("x%2Ey=1", serde_json::json!({"x.y": 1})),
        ("a=1,a=2", serde_json::json!({"a": 2})),
        ("l=[1%2C2]", serde_json::json!({"l": [1, 2]})),
        ("ü=é", serde_json::json!({"ü": "é"})),
        ("no list", serde_json::json!({})),
    ] {
        let id = mount.make(list);
        let mut object = cache.entry(&id);
        object.retain(|name, _| !name.starts_with('_'));
        assert_eq!(serde_json::Value::Object(object), attrs, "{list}");
    }
    assert_eq!(errno(fs::create_dir(mount.join("new/_id=3"))), libc::EINVAL);
    mount.stop();
}
