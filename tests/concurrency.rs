//! Many writers at once: Python programs on the log, shells through the mount, and a second mount of the same cache.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use common::{Cache, Mount, bash, ls, poll, python_script, read, start};
use serde_json::Value;

/// Makes entries through a mount, sets an attribute of every one and a second time of every fifth; prints `ID JSON`.
const SHELL_WRITER: &str = r#"
cd "$MNT"
for ((n = 0; n < COUNT; n++)); do
    dir=new/writer=$TAG,number=$n
    mkdir "$dir"
    read -r id < "$dir/.attrs/_id"
    echo "$TAG $n" > "$dir/out"
    echo "0.$n" > "entries/$id/.attrs/lr"
    if ((n % 5 == 0)); then echo done > "entries/$id/.attrs/status"; fi
    echo "$id $n"
done
"#;

fn soon<T>(what: &str, ask: impl FnMut() -> Option<T>) -> T {
    poll(what, Duration::from_secs(10), ask)
}

#[test]
fn nothing_is_lost_and_nothing_doubled() {
    const PYTHON: usize = 300;
    const SHELL: usize = 200;
    let cache = Cache::new();
    let one = cache.mount();
    let two = cache.mount_with("refresh=0.2");
    let mut writers = Vec::new();
    for (tag, dialect) in [("p0", "path"), ("p1", "name"), ("p2", "path"), ("p3", "path")] {
        let count = PYTHON.to_string();
        writers.push((tag, start(python_script("writer.py").arg(cache.path()).args([&count, tag, dialect]))));
    }
    for (tag, mount) in [("s0", &one), ("s1", &two), ("s2", &one), ("s3", &two)] {
        let mut shell = bash(Path::new("/"), SHELL_WRITER);
        shell.env("MNT", mount.path()).env("TAG", tag).env("COUNT", SHELL.to_string());
        writers.push((tag, start(&mut shell)));
    }
    let mut expected = BTreeSet::new();
    for (tag, writer) in writers {
        for line in writer.finish(Duration::from_secs(150)).lines() {
            expected.insert((line.split(' ').next().unwrap().to_owned(), tag.to_owned()));
        }
    }
    let count = 4 * PYTHON + 4 * SHELL;
    assert_eq!(expected.len(), count, "every id is given once");

    let check = |entries: Vec<(String, serde_json::Map<String, Value>)>| {
        let found: BTreeSet<_> = entries
            .iter()
            .map(|(id, attrs)| (id.clone(), attrs["writer"].as_str().unwrap().to_owned()))
            .collect();
        assert_eq!(found, expected);
        for (id, attrs) in entries {
            let number = attrs["number"].as_u64().unwrap();
            let shell = attrs["writer"].as_str().unwrap().starts_with('s');
            let complete = if shell {
                attrs["lr"].to_string().parse::<f64>() == format!("0.{number}").parse()
                    && attrs.contains_key("status") == (number % 5 == 0)
            } else {
                attrs.contains_key("loss") == (number % 5 == 0)
            };
            assert!(complete, "{id}: {attrs:?}");
        }
    };
    check(cache.entries());
    for mount in [&one, &two] {
        soon("both mounts list all", || (ls(mount.join("entries")).len() == count).then_some(()));
        soon("both have the last record of all", || {
            (read(mount.join("by-attr/status/done/count")) == "160\n"
                && fs::read_dir(mount.join("by-attr/loss")).unwrap().count() == PYTHON / 5)
                .then_some(())
        });
        for (tag, each) in [("p2", PYTHON), ("s0", SHELL), ("s1", SHELL)] {
            let ids = ls(mount.join("by-attr/writer").join(tag));
            assert_eq!(ids.len(), each, "{tag}");
            let id = &ids[7];
            let number = mount.get(id, "number");
            assert_eq!(read(mount.join("entries").join(id).join("out")), format!("{tag} {number}\n"));
        }
    }
    one.stop();
    two.stop();
    cache.command(&["compact"]).ok();
    assert_eq!(cache.log().lines().count(), count, "one record an entry");
    check(cache.entries());
    cache.command(&["check"]).ok();
}

#[test]
fn two_mounts_that_set_attributes_of_one_entry_both_prevail() {
    const ROUNDS: usize = 80;
    let cache = Cache::new();
    let one = cache.mount();
    let two = cache.mount();
    let id = one.make("n=0");
    soon("the other mount has it", || fs::exists(two.join("entries").join(&id)).unwrap().then_some(()));
    std::thread::scope(|scope| {
        for (name, mount) in [("one", &one), ("two", &two)] {
            let id = &id;
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    mount.set(id, &format!("{name}-{round}"), &round.to_string());
                    // Read back at once: one's own change is visible.
                    assert_eq!(mount.get(id, &format!("{name}-{round}")), round.to_string());
                }
            });
        }
    });
    let entry = cache.entry(&id);
    for name in ["one", "two"] {
        for round in 0..ROUNDS {
            assert_eq!(entry.get(&format!("{name}-{round}")), Some(&Value::from(round)), "{name}-{round}");
        }
    }
    assert_eq!(entry.len(), 2 * ROUNDS + 3);
    for mount in [&one, &two] {
        soon("both list all attributes", || {
            (ls(mount.join("entries").join(&id).join(".attrs")).len() == 2 * ROUNDS + 1).then_some(())
        });
    }
    one.stop();
    two.stop();
}

#[test]
fn elements_added_through_two_mounts_are_all_there() {
    const EACH: usize = 40;
    let cache = Cache::new();
    let one = cache.mount();
    let two = cache.mount();
    let id = one.make(r#"tags=["seed"]"#);
    soon("the other mount has it", || fs::exists(two.join("entries").join(&id)).unwrap().then_some(()));
    std::thread::scope(|scope| {
        for (name, mount) in [("one", &one), ("two", &two)] {
            let id = &id;
            scope.spawn(move || {
                for n in 0..EACH {
                    let value = mount.join(format!("by-attr/tags[]/{name}-{n}"));
                    fs::create_dir(&value).unwrap();
                    symlink(format!("../../../entries/{id}"), value.join(id)).unwrap();
                }
            });
        }
    });
    let tags: BTreeSet<_> =
        cache.entry(&id)["tags"].as_array().unwrap().iter().map(|t| t.as_str().unwrap().to_owned()).collect();
    assert_eq!(tags.len(), 2 * EACH + 1);
    one.stop();
    two.stop();
}

#[test]
fn one_entry_is_deleted_once_and_made_once() {
    let cache = Cache::new();
    let mounts: Vec<Mount> = (0..2).map(|_| cache.mount()).collect();
    let mut outcomes = BTreeMap::new();
    for round in 0..30 {
        let name = format!("run{round}");
        let results: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = mounts
                .iter()
                .map(|mount| {
                    let path = mount.join("entries").join(&name);
                    scope.spawn(move || fs::create_dir(path).map_err(|e| e.raw_os_error().unwrap()))
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        for result in results {
            *outcomes.entry(result).or_insert(0) += 1;
        }
    }
    assert_eq!(outcomes, BTreeMap::from([(Ok(()), 30), (Err(libc::EEXIST), 30)]));
    assert_eq!(cache.entries().len(), 30);
    for mount in &mounts {
        soon("both list them", || (ls(mount.join("entries")).len() == 30).then_some(()));
    }
    fs::remove_dir(mounts[0].join("entries/run3")).unwrap();
    soon("a deletion is seen", || (!fs::exists(mounts[1].join("entries/run3")).unwrap()).then_some(()));
    assert_eq!(cache.entries().len(), 29);
    for mount in mounts {
        mount.stop();
    }
}
