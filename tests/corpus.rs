//! The inputs that fuzzing found interesting, and those that once failed: what must hold for any input holds for them.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation)]

#[path = "fuzz/checks.rs"]
mod checks;

use std::path::Path;

fn run(target: &str, check: fn(&[u8])) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/seeds").join(target);
    let mut count = 0;
    for file in std::fs::read_dir(&dir).unwrap() {
        let path = file.unwrap().path();
        println!("{}", path.display());
        check(&std::fs::read(path).unwrap());
        count += 1;
    }
    assert!(count > 10, "the corpus of {target} is there");
}

#[test]
fn expressions() {
    run("expr", checks::expr);
}

#[test]
fn records() {
    run("record", checks::record);
}

#[test]
fn paths() {
    run("path", checks::path);
}

#[test]
fn recovery() {
    run("recover", checks::recover);
}
