//! Torn tails, NULs, and damage in the middle.

use super::*;

/// Mends a log; gives its lines, the log, and what was set aside.
fn mended(log: &[u8]) -> (Vec<String>, Vec<u8>, Vec<u8>) {
    let dir = cache(log);
    let store = open(dir.path());
    let mut lines = Lines::default();
    let mut locked = store.lock().unwrap();
    locked.catch_up(&mut lines).unwrap();
    let log = log_of(dir.path());
    // Whatever it was, the next record is whole.
    locked.append(format!("{}\n", record("next", "0")).as_bytes()).unwrap();
    drop(locked);
    let mut again = Lines::default();
    open(dir.path()).follow(&mut again).unwrap();
    let mut expected = lines.texts();
    expected.push(record("next", "0"));
    assert_eq!(again.texts(), expected);
    let mut aside = Vec::new();
    for name in names(dir.path(), "_torn-") {
        aside.extend(fs::read(dir.path().join(name)).unwrap());
    }
    (lines.texts(), log, aside)
}

#[test]
fn a_tail_cut_at_any_byte_is_mended() {
    let texts = [
        record("a", "1"),
        r#"{"@": "b", "s": "x{\"_id\": \"/c\"}", "nested": {"@": "no"}, "$": 2.5}"#.to_owned(),
        record("c", r#"{"deep": [1, {"_id": "/not/me"}]}"#),
    ];
    let whole = format!("{}\n", texts.join("\n"));
    let ends: Vec<usize> = whole.match_indices('\n').map(|(i, _)| i).collect();
    for cut in 0..=whole.len() {
        let (lines, log, aside) = mended(&whole.as_bytes()[..cut]);
        // A record without its end is whole: Python's writer writes the two separately.
        let complete = ends.iter().filter(|&&end| end <= cut).count();
        assert_eq!(lines, texts[..complete], "cut at {cut}");
        let mut expected = texts[..complete].join("\n");
        if complete > 0 {
            expected.push('\n');
        }
        assert_eq!(String::from_utf8(log).unwrap(), expected, "cut at {cut}");
        let rest = whole.as_bytes()[..cut].get(expected.len()..).unwrap_or_default();
        assert_eq!(aside, rest, "nothing is destroyed, cut at {cut}");
    }
}

#[test]
fn tails_of_a_power_cut() {
    let (a, b) = (record("a", "1"), record("b", "2"));
    let cases: &[(&str, &[&str], &str)] = &[
        ("\0\0\0", &[], "\0\0\0"),
        (&format!("{a}\0\0"), &[&a], "\0\0"),
        (&format!("{a}\n\0\0\0"), &[&a], "\0\0\0"),
        (&format!("{a}\n{b}\0\0\0{{\"_id\""), &[&a, &b], "\0\0\0{\"_id\""),
        (&format!("{a}\n   "), &[&a], "   "),
        ("{\"no\": \"id\"}", &["{\"no\": \"id\"}"], ""),
        (&format!("{a}\nnull"), &[&a], "null"),
    ];
    for (log, lines, aside) in cases {
        let (found, _, found_aside) = mended(log.as_bytes());
        assert_eq!(&found, lines, "{log:?}");
        assert_eq!(String::from_utf8(found_aside).unwrap(), *aside, "{log:?}");
    }
    // NULs in front of a whole record do not swallow it.
    let (found, log, aside) = mended(format!("{a}\n\0\0\0{b}").as_bytes());
    assert_eq!(found, [a.clone(), format!("\0\0\0{b}")]);
    assert_eq!((String::from_utf8(log).unwrap(), aside.len()), (format!("{a}\n\0\0\0{b}\n"), 0));
}

#[test]
fn repair_moves_damage_and_saves_what_is_behind_it() {
    let (a, b, c) = (record("a", "1"), record("b", "2"), record("c", "3"));
    let torn = r#"{"_id": "/x/t", "lr": 0."#;
    let log = format!("{a}\n{torn}{b}\n\nno object\n\0\0{c}\0\n{{\"no\": \"id\"}}\n{torn}");
    let dir = cache(log.as_bytes());
    let store = open(dir.path());
    let mut lines = Lines::default();
    let mut locked = store.lock().unwrap();
    locked.catch_up(&mut lines).unwrap();
    let before = log_of(dir.path());
    let torn_before = names(dir.path(), "_torn-");
    assert_eq!(torn_before.len(), 1, "the tail");
    let repaired = locked.repair().unwrap();
    drop(locked);
    assert_eq!(String::from_utf8(log_of(dir.path())).unwrap(), format!("{a}\n{b}\n{c}\n"));
    assert_eq!((repaired.stretches, repaired.salvaged), (5, 1));
    assert_eq!(fs::read(dir.path().join(repaired.backup.unwrap())).unwrap(), before);
    let aside = fs::read_to_string(dir.path().join(repaired.set_aside.unwrap())).unwrap();
    assert_eq!(aside, format!("{torn}\nno object\n\0\0\n\0\n{{\"no\": \"id\"}}\n"));
    store.follow(&mut lines).unwrap();
    assert_eq!(lines.texts(), [a, b, c]);
    // A second repair finds nothing, and leaves nothing.
    let mut locked = store.lock().unwrap();
    locked.catch_up(&mut lines).unwrap();
    assert_eq!(locked.repair().unwrap(), Repaired::default());
    assert_eq!(names(dir.path(), "_backup-").len(), 1);
}
