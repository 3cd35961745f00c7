//! Random operations on the mount against plain maps. `CACHEDIRFS_SEED=N` runs one seed again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::symlink;

use common::{Cache, Mount, Random, amount, append, errno, ls, put, read, seed};

const KEYS: &[&str] = &["lr", "model", "opt.name", "opt.beta", "tags", "note"];
/// Text forms, each the one spelling.
const VALUES: &[&str] = &[
    "0.1",
    "1e-05",
    "1",
    "\"1\"",
    "true",
    "null",
    "resnet18",
    "vit b/16",
    "",
    "[\"a\",\"b\"]",
    "[]",
    "x.y",
    "%",
];
/// Other spellings, written as such: `(written, value)`.
const SPELLINGS: &[(&str, &str)] =
    &[("0.10", "0.1"), ("1.0", "1"), ("[\"a\", \"b\"]", "[\"a\",\"b\"]"), ("\"x.y\"", "x.y")];

type Attrs = BTreeMap<String, String>;

#[derive(Debug, Clone, Default)]
struct Entry {
    attrs: Attrs,
    files: BTreeMap<String, Vec<u8>>,
}

#[derive(Debug, Default)]
struct Model {
    entries: BTreeMap<String, Entry>,
    trash: BTreeMap<String, Entry>,
    /// Value directories made by mkdir that may be empty.
    empty: BTreeSet<(String, String)>,
}

/// The name of a value's directory: what these values need.
fn dir(value: &str) -> String {
    if value.is_empty() { "\"\"".to_owned() } else { value.replace('%', "%25").replace('/', "%2F") }
}

/// What an attribute file holds for a value.
fn text(value: &str) -> String {
    if value.is_empty() { "\"\"\n".to_owned() } else { format!("{value}\n") }
}

impl Model {
    fn by_attr(&self) -> BTreeMap<String, BTreeMap<String, BTreeSet<String>>> {
        let mut views: BTreeMap<String, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
        let mut add = |key: &str, name: String, id: &str| {
            views.entry(key.to_owned()).or_default().entry(name).or_default().insert(id.to_owned());
        };
        for (id, entry) in &self.entries {
            for (key, value) in &entry.attrs {
                add(key, dir(value), id);
                if value == "[\"a\",\"b\"]" {
                    add(&format!("{key}[]"), "a".to_owned(), id);
                    add(&format!("{key}[]"), "b".to_owned(), id);
                }
            }
        }
        views
    }

    /// Compares the whole mount with the model.
    fn check(&self, mount: &Mount) {
        assert_eq!(ls(mount.join("entries")), self.entries.keys().cloned().collect::<Vec<_>>());
        assert_eq!(ls(mount.join("trash")), self.trash.keys().cloned().collect::<Vec<_>>());
        assert_eq!(read(mount.join("count")), format!("{}\n", self.entries.len()));
        for (id, entry) in &self.entries {
            let path = mount.join("entries").join(id);
            assert_eq!(ls(path.join(".attrs")), entry.attrs.keys().cloned().collect::<Vec<_>>(), "{id}");
            for (key, value) in &entry.attrs {
                assert_eq!(read(path.join(".attrs").join(key)), text(value), "{key} of {id}");
            }
            assert_eq!(ls(&path), entry.files.keys().cloned().collect::<Vec<_>>(), "{id}");
            for (name, data) in &entry.files {
                assert_eq!(&fs::read(path.join(name)).unwrap(), data, "{name} of {id}");
            }
        }
        let views = self.by_attr();
        let listed: BTreeSet<_> = ls(mount.join("by-attr")).into_iter().collect();
        let with_empty: BTreeSet<_> =
            views.keys().cloned().chain(self.empty.iter().map(|(key, _)| key.clone())).collect();
        assert!(views.keys().all(|key| listed.contains(key)) && listed.is_subset(&with_empty), "{listed:?}");
        for (key, values) in &views {
            for name in ls(mount.join("by-attr").join(key)) {
                let ids = ls(mount.join("by-attr").join(key).join(&name));
                match values.get(&name) {
                    Some(expected) => {
                        assert_eq!(ids.into_iter().collect::<BTreeSet<_>>(), *expected, "{key}/{name}");
                    }
                    None => assert!(
                        ids.is_empty() && self.empty.contains(&(key.clone(), name.clone())),
                        "by-attr/{key}/{name} should not be there: {ids:?}"
                    ),
                }
            }
            for (name, expected) in values {
                let path = mount.join("by-attr").join(key).join(name);
                assert_eq!(read(path.join("count")), format!("{}\n", expected.len()), "{key}/{name}");
            }
        }
        // Refined: one random pair is enough, they are cheap but many.
        if let (Some((one, ones)), Some((other, others))) = (views.iter().next(), views.iter().last()) {
            for (name, ids) in ones {
                let below = mount.join("by-attr").join(one).join(name).join("by-attr").join(other);
                for (second, more) in others {
                    let both: Vec<_> = ids.intersection(more).cloned().collect();
                    if both.is_empty() && !self.empty.contains(&(other.clone(), second.clone())) {
                        assert_eq!(errno(fs::symlink_metadata(below.join(second))), libc::ENOENT);
                    } else if !both.is_empty() {
                        assert_eq!(ls(below.join(second)), both);
                    }
                }
            }
        }
    }
}

/// Whether setting `key` contradicts what is there; none of these keys do but to be sure.
#[allow(clippy::too_many_lines)] // one arm for each operation
fn step(model: &mut Model, mount: &Mount, random: &mut Random, n: usize) -> String {
    let ids: Vec<_> = model.entries.keys().cloned().collect();
    let key = (*random.pick(KEYS)).to_owned();
    let value = (*random.pick(VALUES)).to_owned();
    if ids.is_empty() || random.below(12) == 0 {
        return create(model, mount, random, n);
    }
    let id = random.pick(&ids).clone();
    let path = mount.join("entries").join(&id);
    let entry = model.entries.get_mut(&id).unwrap();
    match random.below(13) {
        0..3 => {
            let (written, value) = match random.below(4) {
                0 => {
                    let (written, value) = random.pick(SPELLINGS);
                    ((*written).to_owned(), (*value).to_owned())
                }
                _ => (text(&value), value),
            };
            match random.below(3) {
                0 => put(path.join(".attrs").join(&key), &written).unwrap(),
                1 => xattr::set(&path, format!("user.{key}"), written.trim_end_matches('\n').as_bytes())
                    .unwrap(),
                _ => {
                    // A temporary file and a rename, as editors and sed -i do.
                    put(path.join(".attrs/tmp"), &written).unwrap();
                    fs::rename(path.join(".attrs/tmp"), path.join(".attrs").join(&key)).unwrap();
                }
            }
            entry.attrs.insert(key.clone(), value.clone());
            format!("set {key}={written:?} of {id}")
        }
        3 => {
            let removed = entry.attrs.remove(&key).is_some();
            let result = fs::remove_file(path.join(".attrs").join(&key));
            assert_eq!(result.is_ok(), removed, "{result:?}");
            format!("unset {key} of {id}")
        }
        4 => {
            let to = (*random.pick(KEYS)).to_owned();
            let result = fs::rename(path.join(".attrs").join(&key), path.join(".attrs").join(&to));
            match entry.attrs.remove(&key) {
                Some(value) => {
                    result.unwrap();
                    entry.attrs.insert(to.clone(), value);
                }
                None => assert_eq!(errno(result), libc::ENOENT),
            }
            format!("rename {key} to {to} of {id}")
        }
        5 => {
            // From its value to another.
            let Some(old) = entry.attrs.get(&key).cloned() else { return "nothing".to_owned() };
            let to = mount.join("by-attr").join(&key).join(dir(&value));
            if fs::symlink_metadata(&to).is_err() {
                fs::create_dir(&to).unwrap();
            }
            fs::rename(mount.join("by-attr").join(&key).join(dir(&old)).join(&id), to.join(&id)).unwrap();
            entry.attrs.insert(key.clone(), value.clone());
            model.empty.insert((key.clone(), dir(&value)));
            model.empty.insert((key.clone(), dir(&old)));
            format!("mv {id} from {key}/{old} to {value}")
        }
        6 => {
            let to = mount.join("by-attr").join(&key);
            if fs::symlink_metadata(&to).is_err() {
                fs::create_dir(&to).unwrap();
            }
            let to = to.join(dir(&value));
            if fs::symlink_metadata(&to).is_err() {
                fs::create_dir(&to).unwrap();
            }
            let result = symlink(format!("../../../entries/{id}"), to.join(&id));
            if entry.attrs.get(&key) == Some(&value) {
                assert_eq!(errno(result), libc::EEXIST);
            } else {
                result.unwrap();
                entry.attrs.insert(key.clone(), value.clone());
            }
            model.empty.insert((key.clone(), dir(&value)));
            format!("ln {id} to {key}/{value}")
        }
        7..9 => {
            let name = format!("file{}", random.below(3));
            let data = vec![b'x'; random.below(9000)];
            put(path.join(&name), &data).unwrap();
            entry.files.insert(name.clone(), data);
            format!("write {name} of {id}")
        }
        9 => {
            let names: Vec<_> = entry.files.keys().cloned().collect();
            for name in names {
                fs::remove_file(path.join(&name)).unwrap();
            }
            entry.files.clear();
            fs::remove_dir(&path).unwrap();
            model.entries.remove(&id);
            assert_eq!(errno(fs::symlink_metadata(&path)), libc::ENOENT);
            format!("delete {id}")
        }
        10 => {
            fs::rename(&path, mount.join("trash").join(&id)).unwrap();
            let entry = model.entries.remove(&id).unwrap();
            model.trash.insert(id.clone(), entry);
            format!("trash {id}")
        }
        11 => {
            let Some(id) = model.trash.keys().next().cloned() else { return "nothing".to_owned() };
            fs::rename(mount.join("trash").join(&id), mount.join("entries").join(&id)).unwrap();
            let entry = model.trash.remove(&id).unwrap();
            model.entries.insert(id.clone(), entry);
            format!("restore {id}")
        }
        _ => {
            let merged = format!(r#"{{"lr": null, "note": "n{n}", "opt": {{"name": "adam"}}}}"#);
            append(path.join(".attrs.json"), &merged).unwrap();
            entry.attrs.remove("lr");
            entry.attrs.insert("note".to_owned(), format!("n{n}"));
            entry.attrs.insert("opt.name".to_owned(), "adam".to_owned());
            format!("merge {merged} into {id}")
        }
    }
}

fn create(model: &mut Model, mount: &Mount, random: &mut Random, n: usize) -> String {
    let mut attrs = Attrs::new();
    for _ in 0..random.below(3) {
        attrs.insert((*random.pick(KEYS)).to_owned(), (*random.pick(VALUES)).to_owned());
    }
    if random.below(4) == 0 {
        let id = format!("run{n}");
        fs::create_dir(mount.join("entries").join(&id)).unwrap();
        model.entries.insert(id.clone(), Entry::default());
        return format!("mkdir entries/{id}");
    }
    attrs.insert("note".to_owned(), format!("made{n}"));
    let list: Vec<_> =
        attrs.iter().map(|(key, value)| format!("{key}={}", dir(value).replace(',', "%2C"))).collect();
    let list = list.join(",");
    let id = mount.make(&list);
    model.entries.insert(id.clone(), Entry { attrs, ..Entry::default() });
    format!("mkdir new/{list} is {id}")
}

fn run(seed: u64, steps: usize) {
    let mut random = Random(seed);
    let cache = Cache::new();
    let mut mount = cache.mount();
    let mut model = Model::default();
    let mut history = Vec::new();
    for n in 0..steps {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            history.push(step(&mut model, &mount, &mut random, n));
            if n % 6 == 0 {
                model.check(&mount);
            }
        }));
        if let Err(panic) = outcome {
            eprintln!("seed {seed}, step {n}; before it:");
            for line in history.iter().rev().take(12).rev() {
                eprintln!("  {line}");
            }
            std::panic::resume_unwind(panic);
        }
        if random.below(60) == 0 {
            // The next daemon finds the same.
            if random.below(2) == 0 {
                mount.stop();
            } else {
                mount.kill();
            }
            mount = cache.mount();
            model.empty.clear();
            model.check(&mount);
            history.push("remount".to_owned());
        }
    }
    model.check(&mount);
    mount.stop();
    cache.command(&["compact"]).ok();
    assert_eq!(cache.entries().len(), model.entries.len());
    let mount = cache.mount();
    model.empty.clear();
    model.check(&mount);
    mount.stop();
}

#[test]
fn random_operations_do_what_plain_maps_do() {
    let first = seed("random_operations");
    for n in 0..amount("CACHEDIRFS_MODEL_RUNS", 8) as u64 {
        run(first.wrapping_add(n), 250);
    }
}
