//! A cache that Python programs write, with `json`, `tempfile` and the real `filelock`, shows the same through the mount.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::time::Duration;

use common::{Cache, Mount, Options, ls, poll, python_script, read, run, start};

fn odd(dialects: &str) -> Cache {
    let cache = Cache::new();
    run(python_script("odd.py").arg(cache.path()).arg(dialects)).ok();
    cache
}

fn compare(cache: &Cache, mount: &Mount) {
    run(python_script("compare.py").arg(cache.path()).arg(mount.path())).ok();
}

#[test]
fn the_first_dialect_reads_the_same() {
    let cache = odd("path");
    let mount = cache.mount();
    compare(&cache, &mount);
    mount.stop();
}

#[test]
fn the_later_dialect_reads_the_same() {
    let cache = odd("name");
    let mount = cache.mount();
    compare(&cache, &mount);
    mount.stop();
}

#[test]
fn both_mixed_in_a_moved_cache_read_the_same_and_compact_to_the_same() {
    let cache = odd("mixed");
    let moved = Cache::new();
    fs::remove_dir(moved.path()).unwrap();
    fs::rename(cache.path(), moved.path()).unwrap();
    let mount = moved.mount();
    compare(&moved, &mount);
    mount.stop();
    moved.command(&["compact"]).ok();
    let mount = moved.mount();
    compare(&moved, &mount);
    mount.stop();
}

#[test]
fn each_dialect_is_answered_in_itself() {
    for (dialect, id, time) in [("path", "_id", "_timestamp"), ("name", "@", "$")] {
        let cache = Cache::new();
        run(python_script("writer.py").arg(cache.path()).args(["3", "w", dialect])).ok();
        let mount = cache.mount();
        let made = mount.make("lr=0.1,n=[1%2C2]");
        mount.set(&made, "s", "text");
        compare(&cache, &mount);
        let entry = cache.entry(&made);
        assert!(entry[time].as_f64().unwrap() > 1.5e9, "{entry:?}");
        assert_eq!(entry["lr"].to_string(), "0.1");
        assert_eq!(entry["n"].to_string(), "[1,2]");
        assert_eq!(entry["s"], "text");
        let name = entry[id].as_str().unwrap();
        if dialect == "path" {
            assert_eq!(name, cache.join(&made).to_str().unwrap(), "the absolute path");
        } else {
            assert_eq!(name, made);
        }
        assert_eq!(entry.len(), 5, "{entry:?}");
        mount.stop();
    }
}

#[test]
fn a_new_log_is_of_the_first_dialect_and_python_reads_it() {
    let cache = Cache::new();
    let mount = cache.mount();
    let id = mount.make("lr=1e-05,model=resnet18");
    fs::write(mount.join("entries").join(&id).join("model.bin"), [0, 1, 2]).unwrap();
    compare(&cache, &mount);
    let line = cache.log();
    assert!(line.starts_with(&format!(r#"{{"_id": "{}", "#, cache.join(&id).display())), "{line}");
    assert!(line.contains(r#""lr": 1e-05, "model": "resnet18""#), "as json.dumps prints: {line}");
    assert_eq!(fs::read(cache.join(&id).join("model.bin")).unwrap(), [0, 1, 2]);
    mount.stop();
}

#[test]
fn odd_values_survive_a_change_of_another_attribute() {
    let cache = odd("mixed");
    let mount = cache.mount();
    mount.sh("for e in entries/*/; do echo 1 > \"$e/.attrs/touched\"; done").ok();
    compare(&cache, &mount);
    assert_eq!(read(mount.join("by-attr/touched/1/count")), format!("{}\n", ls(mount.join("entries")).len()));
    // Taken away again, every entry is what it was.
    mount.sh("rm entries/*/.attrs/touched").ok();
    compare(&cache, &mount);
    mount.stop();
}

#[test]
fn python_goes_on_writing_while_it_is_mounted() {
    let cache = Cache::new();
    let mount = Mount::new(cache.path(), &Options::default());
    let writers: Vec<_> = ["path", "name"]
        .map(|dialect| start(python_script("writer.py").arg(cache.path()).args(["60", dialect, dialect])))
        .into();
    for writer in writers {
        writer.finish(Duration::from_secs(60)).ok();
    }
    poll("all entries are listed", Duration::from_secs(3), || {
        (ls(mount.join("entries")).len() == 120).then_some(())
    });
    poll("and the last record of each", Duration::from_secs(3), || {
        (ls(mount.join("by-attr/loss/1")).len() == 2).then_some(())
    });
    compare(&cache, &mount);
    assert_eq!(
        read(
            mount
                .join("by-attr/writer/name/by-attr/number/7")
                .join(&ls(mount.join("by-attr/writer/name/by-attr/number/7"))[0])
                .join("out")
        ),
        "name 7\n"
    );
    mount.stop();
}
