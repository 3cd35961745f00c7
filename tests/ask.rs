//! Questions as paths: expressions, order, tables, memo, trash.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::{Cache, Mount, errno, ls, not_permitted, poll, python, read, run, target};
use serde_json::{Value, json};

fn sweep() -> Cache {
    let cache = Cache::new();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    cache.add(
        "e1",
        1_600_000_000.0,
        r#""lr": 0.1, "model": "resnet18", "loss": 0.5, "tags": ["best", "old"], "opt": {"name": "adam"}"#,
    );
    cache.add("e2", 1_700_000_000.5, r#""lr": 0.01, "model": "vit-b/16", "loss": 0.25, "tags": [], "n": 10"#);
    cache.add(
        "e3",
        now - 3600.0,
        r#""lr": 0.1, "model": "vit-l", "loss": "nan", "n": 9, "error": "oom, again""#,
    );
    cache.add(
        "e4",
        now - 10.0,
        r#""lr": 1e-05, "model": "VIT", "loss": NaN, "n": "x", "opt": {"name": "sgd"}"#,
    );
    cache
}

#[test]
fn expressions_are_directories() {
    let cache = sweep();
    let mount = cache.mount();
    let holds = |expression: &str| ls(mount.join("where").join(expression));
    for (expression, expected) in [
        ("loss < 0.5", &["e2"][..]),
        ("loss le 0.5", &["e1", "e2"]),
        ("loss=0.5", &["e1"]),
        ("loss = nan", &["e3"]),
        ("loss = NaN", &["e4"]),
        ("lr = 1e-1", &["e1", "e3"]),
        ("lr eq 0.10 and model ne resnet18", &["e3"]),
        ("model ~ \"vit*\"", &["e2", "e3"]),
        ("model like vit-?", &["e3"]),
        ("model ~ *", &["e1", "e2", "e3", "e4"]),
        ("model = \"vit*\"", &[]),
        ("model = vit-b%2F16", &["e2"]),
        ("model in (resnet18, vit-l, 7)", &["e1", "e3"]),
        ("has(error)", &["e3"]),
        ("not has(error) and (loss lt 0.3 or loss gt 0.4)", &["e1", "e2"]),
        ("has(opt)", &["e1", "e4"]),
        ("opt.name = adam", &["e1"]),
        ("tags[] = best", &["e1"]),
        ("n > 9", &["e2"]),
        ("n >= 9", &["e2", "e3"]),
        ("n = x", &["e4"]),
        ("n < zzz", &["e4"]),
        ("n = \"9\"", &[]),
        ("error = \"oom, again\"", &["e3"]),
        ("none = 1", &[]),
        ("not none = 1", &["e1", "e2", "e3", "e4"]),
        ("_timestamp > -2h", &["e3", "e4"]),
        ("_timestamp > -1m", &["e4"]),
        ("_timestamp < 2021-01-01", &["e1"]),
        ("_timestamp >= 2020-09-13 and _timestamp < 2023-11-15", &["e1", "e2"]),
        ("((((lr = 0.1))))", &["e1", "e3"]),
        ("not not lr = 0.1", &["e1", "e3"]),
    ] {
        assert_eq!(holds(expression), expected, "{expression}");
        let count = read(mount.join("where").join(expression).join("count"));
        assert_eq!(count, format!("{}\n", expected.len()), "{expression}");
    }
    assert_eq!(ls(mount.join("where")), [""; 0], "where/ itself lists nothing");
    assert_eq!(target(mount.join("where/lr = 0.01/e2")), Path::new("../../entries/e2"));
    // Without quoting, from a shell.
    assert_eq!(mount.sh("ls where/loss\\ lt\\ 0.3").lines(), ["e2"]);
    mount.stop();
}

#[test]
fn a_syntax_error_is_einval_and_costs_nothing() {
    let cache = sweep();
    let mount = cache.mount();
    let deep = format!("{}lr=1{}", "(".repeat(120), ")".repeat(120));
    let nots = format!("{}lr=1", "not ".repeat(60));
    for bad in [
        "lr <",
        "lr < 0.1 and",
        "and",
        "(",
        ")",
        "lr = 1)",
        "has(",
        "has()",
        "lr in ()",
        "lr ! 1",
        "lr 1",
        deep.as_str(),
    ] {
        let path = mount.join("where").join(bad);
        assert_eq!(errno(fs::symlink_metadata(&path)), libc::EINVAL, "{bad}");
        assert_eq!(errno(fs::read_dir(&path)), libc::EINVAL, "{bad}");
    }
    assert!(fs::read_dir(mount.join("where").join(nots)).is_ok());
    not_permitted(fs::create_dir(mount.join("where/lr = 1/x")));
    mount.stop();
}

#[test]
fn order_is_by_value_and_numbered() {
    let cache = Cache::new();
    let values = [
        "null", "false", "true", "-1", "0.5", "2", "10", "1e3", "NaN", "\"\"", "\"10\"", "\"A\"", "\"a\"",
        "\"é\"", "\"日\"", "\"😀\"", "[1]",
    ];
    let mut lines: Vec<_> = values
        .iter()
        .enumerate()
        .map(|(n, v)| {
            cache.record(
                &format!("e{n:02}"),
                f64::from(100 - i32::try_from(n).unwrap()),
                &format!(r#""v": {v}"#),
            )
        })
        .collect();
    lines.reverse();
    lines.push(cache.record("without", 1.0, r#""w": 1"#));
    cache.append(&lines);
    let mount = cache.mount();
    let ids = |path: &str| -> Vec<String> {
        ls(mount.join(path)).iter().map(|name| name.split_once('-').unwrap().1.to_owned()).collect()
    };
    let expected: Vec<_> = (0..values.len()).map(|n| format!("e{n:02}")).collect();
    assert_eq!(ids("sort/v"), expected);
    let reversed: Vec<_> = expected.iter().rev().cloned().collect();
    assert_eq!(ids("sort/-v"), reversed);
    let names = ls(mount.join("sort/v"));
    assert!(
        names
            .iter()
            .all(|name| name.split_once('-').unwrap().0.len() == names[0].split_once('-').unwrap().0.len())
    );
    assert!(names[0].split_once('-').unwrap().0.len() >= 6, "{names:?}");
    assert_eq!(target(mount.join("sort/v").join(&names[3])), Path::new("../../entries/e03"));
    assert_eq!(ls(mount.join("sort")), ["v", "w"]);
    assert_eq!(read(mount.join("sort/v/count")), format!("{}\n", values.len()));
    // By time, and below a set.
    assert_eq!(ids("sort/-_timestamp")[0], "e00");
    assert_eq!(ids("where/v gt 0 and v lt 100/sort/-v"), ["e06", "e05", "e04"]);
    assert_eq!(mount.sh("ls sort/v | head -1").lines(), [names[0].as_str()]);
    assert_eq!(errno(fs::symlink_metadata(mount.join("sort/none"))), libc::ENOENT);
    mount.stop();
}

#[test]
fn the_same_questions_in_another_order_have_the_same_answer() {
    let cache = sweep();
    let mount = cache.mount();
    for path in [
        "by-attr/lr/0.1/where/n ge 9",
        "where/n ge 9/by-attr/lr/0.1",
        "where/n ge 9/where/lr = 0.1",
        "where/lr = 0.1 and n ge 9",
        "by-attr/lr/0.1/where/has(n)/by-attr/model/vit-l",
        "sort/n/by-attr/lr/0.1",
    ] {
        assert_eq!(ls(mount.join(path)), ["e3"], "{path}");
        assert_eq!(mount.join(path).join("e3").canonicalize().unwrap(), mount.join("entries/e3"));
        assert_eq!(read(mount.join(path).join("count")), "1\n");
        assert_eq!(read(mount.join(path).join("table.csv")).lines().count(), 2);
    }
    mount.stop();
}

#[test]
fn tables_are_whole_files_of_exact_size() {
    let cache = sweep();
    cache.add("e5", 5.0, "\"model\": \"=1+1, \\\"quoted\\\"\\nline\", \"x\": 0.30000000000000004, \"lr\": -1, \"\\u00e9\": \"\\u00fc\", \"b\": true, \"z\": null, \"e\": \"\"");
    let mount = cache.mount();
    for name in ["table.csv", "table.jsonl", "schema.json", "count"] {
        for set in [".", "by-attr/lr/0.1", "where/n ge 9", "sort/n", "entries"] {
            let path = mount.join(set).join(name);
            let bytes = fs::read(&path).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().len(), bytes.len() as u64, "{set}/{name}");
            assert!(!bytes.is_empty());
            let mut end = String::new();
            let mut file = fs::File::open(&path).unwrap();
            file.seek(SeekFrom::End(-1)).unwrap();
            file.read_to_string(&mut end).unwrap();
            assert_eq!(end, "\n", "{set}/{name}");
        }
    }
    let csv = read(mount.join("table.csv"));
    assert!(csv.starts_with("_id,_timestamp,"), "{csv}");
    let parse = r#"
import csv, json, sys
rows = list(csv.DictReader(open(sys.argv[1], newline="")))
print(json.dumps(rows))
"#;
    let rows = run(Command::new(python()).args(["-c", parse]).arg(mount.join("table.csv"))).ok();
    let rows: Vec<serde_json::Map<String, Value>> = serde_json::from_str(&rows).unwrap();
    assert_eq!(rows.len(), 5);
    let row = rows.iter().find(|row| row["_id"] == "e5").unwrap();
    for (column, cell) in [
        ("model", "=1+1, \"quoted\"\nline"),
        ("x", "0.30000000000000004"),
        ("lr", "-1"),
        ("é", "ü"),
        ("b", "true"),
        ("z", "null"),
        ("e", ""),
        ("opt.name", ""),
        ("_timestamp", "5.0"),
    ] {
        assert_eq!(row[column], cell, "{column}");
    }
    let lines: BTreeSet<_> = read(mount.join("table.jsonl")).lines().map(str::to_owned).collect();
    let records: BTreeSet<_> = cache.log().lines().map(str::to_owned).collect();
    assert_eq!(lines, records, "the exact objects");
    let schema: Value = serde_json::from_str(&read(mount.join("by-attr/lr/0.1/schema.json"))).unwrap();
    assert_eq!(schema["entries"], 2);
    assert_eq!(schema["keys"]["lr"]["min"], 0.1);
    assert_eq!(schema["keys"]["model"]["distinct"], 2);
    assert_eq!(schema["keys"]["loss"]["types"], json!({"number": 1, "string": 1}));
    mount.stop();
}

#[test]
fn an_open_table_is_a_snapshot() {
    let cache = sweep();
    let mount = cache.mount();
    let mut file = fs::File::open(mount.join("table.csv")).unwrap();
    let len = file.metadata().unwrap().len();
    let mut start = [0; 10];
    file.read_exact(&mut start).unwrap();
    let id = mount.make("lr=7,fresh=1");
    fs::remove_dir(mount.join("entries/e1")).unwrap();
    let mut rest = String::new();
    file.read_to_string(&mut rest).unwrap();
    assert_eq!(rest.len() as u64 + 10, len);
    assert!(rest.contains("e1,") && !rest.contains(&id));
    let now = read(mount.join("table.csv"));
    assert!(!now.contains("e1,") && now.contains(&id) && now.contains("fresh"));
    assert_eq!(fs::metadata(mount.join("table.csv")).unwrap().len(), now.len() as u64);
    mount.stop();
}

#[test]
fn a_memo_is_made_once_whatever_the_spelling() {
    let cache = sweep();
    let one = cache.mount();
    let two = cache.mount();
    assert_eq!(ls(one.join("memo")), [""; 0]);
    assert_eq!(errno(fs::symlink_metadata(one.join("memo/lr=7"))), libc::ENOENT);
    // The oldest entry that includes the pairs.
    assert_eq!(one.id(&one.join("memo/lr=0.1")), "e1");
    assert_eq!(one.id(&one.join("memo/lr=0.10,model=vit-l")), "e3");
    assert_eq!(errno(fs::create_dir(one.join("memo/lr=1e-1"))), libc::EEXIST);
    fs::create_dir(one.join("memo/lr=7,seed=1")).unwrap();
    let id = one.id(&one.join("memo/lr=7,seed=1"));
    for list in ["seed=1,lr=7", "lr=7.0,seed=1", "seed=1e0,lr=7"] {
        for mount in [&one, &two] {
            assert_eq!(errno(fs::create_dir(mount.join("memo").join(list))), libc::EEXIST, "{list}");
            assert_eq!(mount.id(&mount.join("memo").join(list)), id, "{list}");
        }
    }
    fs::write(one.join("memo/seed=1,lr=7/result"), "42").unwrap();
    assert_eq!(read(two.join("memo/lr=7,seed=1/result")), "42");
    assert_eq!(cache.entry(&id)["lr"], 7);
    assert_eq!(cache.entry(&id)["seed"], 1);
    for bad in ["a=1,,b", "=3", "a"] {
        assert_eq!(errno(fs::create_dir(one.join("memo").join(bad))), libc::EINVAL, "{bad}");
    }
    // Deleted, it can be made again.
    fs::remove_dir_all(one.join("entries").join(&id)).unwrap();
    poll("the other mount forgets it", Duration::from_secs(3), || {
        fs::symlink_metadata(two.join("memo/lr=7,seed=1")).is_err().then_some(())
    });
    fs::create_dir(two.join("memo/lr=7,seed=1")).unwrap();
    assert_ne!(two.id(&two.join("memo/lr=7,seed=1")), id);
    one.stop();
    two.stop();
}

#[test]
fn the_trash_takes_gives_back_and_removes() {
    let cache = sweep();
    fs::write(cache.join("e1/out"), "kept").unwrap();
    let mount = cache.mount();
    mount.sh("mv entries/e1 trash/ && mv entries/e2 trash/").ok();
    assert_eq!(ls(mount.join("trash")), ["e1", "e2"]);
    assert_eq!(ls(mount.join("entries")), ["e3", "e4"]);
    assert_eq!(ls(mount.join("by-attr/lr/0.1")), ["e3"]);
    assert_eq!(read(mount.join("trash/e1/out")), "kept");
    assert_eq!(read(cache.join("_trash/e1/out")), "kept");
    assert!(read(cache.join("_trash/e1.json")).contains("resnet18"));
    assert_eq!(cache.entries().len(), 2);
    mount.kill();
    let mount = cache.mount();
    assert_eq!(ls(mount.join("trash")), ["e1", "e2"], "it outlives the mount");
    mount.sh("mv trash/e1 entries/").ok();
    assert_eq!(ls(mount.join("by-attr/lr/0.1")), ["e1", "e3"]);
    assert_eq!(read(mount.join("entries/e1/out")), "kept");
    assert_eq!(cache.entry("e1")["_timestamp"], 1_600_000_000.0, "it keeps its time");
    assert_eq!(errno(fs::rename(mount.join("trash/e2"), mount.join("entries/e9"))), libc::EPERM);
    mount.sh("rm -r trash/e2").ok();
    assert_eq!(ls(mount.join("trash")), [""; 0]);
    assert!(!cache.join("_trash/e2").exists() && !cache.join("_trash/e2.json").exists());
    mount.stop();
    cache.command(&["check"]).ok();
}

#[test]
fn a_listing_is_whole_whatever_others_do() {
    const STABLE: usize = 3000;
    let cache = Cache::new();
    let mut lines: Vec<_> =
        (0..STABLE).map(|n| cache.record(&format!("stable{n:05}"), 1.0, r#""k": 1"#)).collect();
    lines.extend((0..300).map(|n| cache.record(&format!("going{n:05}"), 1.0, r#""k": 1"#)));
    cache.append(&lines);
    let mount = cache.mount_with("refresh=0.1");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                match n % 6 {
                    0 => cache.append(&[cache.record(&format!("new{n}"), 2.0, r#""k": 1"#)]),
                    1 => cache.append(&[cache.record(&format!("going{:05}", n % 300), 2.0, r#""k": 2"#)]),
                    2 => {
                        let _ = fs::remove_dir(mount.join(format!("entries/going{:05}", (n * 7) % 300)));
                    }
                    3 => {
                        mount.make(&format!("k=1,n={n}"));
                    }
                    4 if n % 10 == 4 => drop(cache.command(&["compact"]).ok()),
                    _ => std::thread::sleep(Duration::from_millis(1)),
                }
            }
        });
        let deadline = std::time::Instant::now() + Duration::from_secs(6);
        let mut rounds = 0;
        while std::time::Instant::now() < deadline {
            for view in ["by-attr/k/1", "entries", "where/has(k)", "sort/k"] {
                let names = ls(mount.join(view));
                let ids: Vec<_> = names
                    .iter()
                    .map(|name| if view == "sort/k" { name.split_once('-').unwrap().1 } else { name })
                    .collect();
                let set: BTreeSet<_> = ids.iter().copied().collect();
                assert_eq!(set.len(), ids.len(), "a duplicate in {view}");
                assert_eq!(
                    set.iter().filter(|id| id.starts_with("stable")).count(),
                    STABLE,
                    "missing in {view}"
                );
            }
            let rows = read(mount.join("by-attr/k/1/table.jsonl"));
            assert_eq!(rows.lines().filter(|line| line.contains("/stable")).count(), STABLE);
            rounds += 1;
        }
        stop.store(true, Ordering::Relaxed);
        assert!(rounds > 2);
    });
    mount.stop();
}

#[test]
fn what_walks_the_tree_ends() {
    let cache = sweep();
    for n in 0..60 {
        cache.add(&format!("more{n}"), 1.0, &format!(r#""lr": {}, "n": {n}, "model": "m{}""#, n % 7, n % 3));
        fs::write(cache.join(format!("more{n}/f")), "x").unwrap();
    }
    let mount = cache.mount();
    let names: usize = mount.sh("find . | wc -l").ok().trim().parse().unwrap();
    // Each entry once in entries, and once for each of at most five keys in by-attr and in sort.
    assert!((64..64 * 14).contains(&names), "{names}");
    mount.sh("ls -R . > /dev/null; du -a . > /dev/null; tree . > /dev/null; grep -r needle . || true").ok();
    assert_eq!(mount.sh("rg -l x . | grep -c /more").ok(), "60\n");
    let out = common::scratch();
    mount.sh(&format!("rsync -a ./ '{0}/x/' && chmod -R u+w '{0}'", out.path().display())).ok();
    mount.stop();
}

fn questions(mount: &Mount) -> Vec<(String, &'static str)> {
    vec![
        (r#"best=$(ls sort/lr | head -1); cat "sort/lr/$best/.attrs/model""#.to_owned(), "VIT\n"),
        (r#"for run in by-attr/lr/0.1/*/; do cat "$run/.attrs/model"; done"#.to_owned(), "resnet18\nvit-l\n"),
        ("ls by-attr/lr/0.1/by-attr/model/resnet18".to_owned(), "e1\n"),
        ("ls 'where/loss < 0.6/sort/loss' | head -1 | cut -d- -f2".to_owned(), "e2\n"),
        (format!("cat '{}/where/has(error)/count'", mount.path().display()), "1\n"),
    ]
}

#[test]
fn bash_and_python_ask_the_questions_of_the_readme() {
    let cache = sweep();
    let mount = cache.mount();
    for (question, answer) in questions(&mount) {
        let got = mount.sh(&question).ok();
        assert_eq!(got, answer, "{question}");
    }
    let script = r#"
import csv, json, sys
from pathlib import Path
mnt = Path(sys.argv[1])
entry = mnt / "new/first"; entry.mkdir()
(entry / ".attrs/lr").write_text("0.1")
(entry / "model.txt").write_text("weights")
found = {}
for entry in (mnt / "entries").iterdir():
    attributes = json.loads((entry / ".attrs.json").read_text())
    found[entry.name] = (attributes["lr"], [file.name for file in entry.iterdir()])
assert len(found) == 5 and (0.1, ["model.txt"]) in found.values(), found
with open(mnt / "by-attr/lr/0.1/table.csv", newline="") as file:
    rows = list(csv.DictReader(file))
assert len(rows) == 3 and {row["lr"] for row in rows} == {"0.1"}, rows
lines = [json.loads(line) for line in (mnt / "table.jsonl").read_text().splitlines()]
assert len(lines) == 5
assert sorted(p.name for p in (mnt / "where" / "model ~ \"vit*\"").iterdir()) == ["e2", "e3"]
"#;
    run(Command::new(python()).args(["-c", script]).arg(mount.path())).ok();
    let node = r#"
const fs = require("fs")
const runs = fs.readFileSync(process.argv[1] + "/by-attr/lr/0.1/table.jsonl", "utf8").trim().split("\n").map(line => JSON.parse(line))
if (runs.length != 3) process.exit(1)
if (fs.readdirSync(process.argv[1] + "/where/has(error)").join() != "e3") process.exit(2)
"#;
    // Where the interpreter is there.
    if Command::new("node").arg("--version").output().is_ok_and(|out| out.status.success()) {
        run(Command::new("node").args(["-e", node]).arg(mount.path())).ok();
    }
    if Command::new("Rscript").arg("--version").output().is_ok_and(|out| out.status.success()) {
        let r =
            format!("stopifnot(nrow(read.csv('{}/by-attr/lr/0.1/table.csv')) == 3)", mount.path().display());
        run(Command::new("Rscript").args(["-e", &r])).ok();
    }
    mount.stop();
}
