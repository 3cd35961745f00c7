//! Every system call of append, recovery, following and compaction fails in turn, and the process dies around each.

use super::faults::{Fault, Faulty};
use super::*;

const FAULTS: [Fault; 12] = [
    Fault::Errno(libc::EIO),
    Fault::Errno(libc::ENOSPC),
    Fault::Errno(libc::EINTR),
    Fault::Errno(libc::ESTALE),
    Fault::Full(libc::ENOSPC),
    Fault::Full(libc::EDQUOT),
    Fault::Full(libc::EIO),
    Fault::Short(libc::ENOSPC),
    Fault::Short(libc::EINTR),
    Fault::DieBefore,
    Fault::DieAfter,
    Fault::DieHalf,
];

fn dies(fault: Fault) -> bool {
    matches!(fault, Fault::DieBefore | Fault::DieAfter | Fault::DieHalf)
}

fn faulty(dir: &Path, sync: bool) -> (Arc<Faulty>, Store) {
    let sys = Arc::new(Faulty::default());
    let store =
        Store::open_with(Arc::clone(&sys) as Arc<dyn sys::Sys>, dir, &Options { read_only: false, sync })
            .unwrap();
    (sys, store)
}

/// What another process finds, after it has mended the log.
fn found(dir: &Path) -> Vec<String> {
    let mut lines = Lines::default();
    open(dir).lock().unwrap().catch_up(&mut lines).unwrap();
    lines.texts()
}

/// Runs a scenario with each fault at each call, until none is hit any more.
fn everywhere(mut scenario: impl FnMut(Fault, usize) -> bool) {
    for fault in FAULTS {
        let calls = (0..10_000).take_while(|&call| scenario(fault, call)).count();
        assert!(calls > 3, "{fault:?} was hit at {calls} calls only");
    }
}

#[test]
fn appends_are_whole_or_not_there() {
    let torn = r#"{"_id": "/x/t", "#;
    let base = [record("a", "1"), record("b", "2")];
    let new = [record("c", "3"), record("d", "4")];
    for (tail, sync) in [("", false), ("", true), (torn, false), (torn, true)] {
        everywhere(|fault, call| {
            let dir = cache(format!("{}\n{tail}", base.join("\n")).as_bytes());
            let (sys, store) = faulty(dir.path(), sync);
            let mut lines = Lines::default();
            sys.arm(call, fault);
            let result = append(&store, &mut lines, &format!("{}\n", new.join("\n")));
            let Some(op) = sys.disarm() else { return false };
            let what = format!("{fault:?} at call {call}, {op:?}, tail {tail:?}, sync {sync}");
            let mut expected: Vec<_> = base.to_vec();
            if result.is_ok() {
                expected.extend_from_slice(&new);
            }
            if dies(fault) {
                drop(store);
                let found = found(dir.path());
                // What was not acknowledged may be there, but whole, and in order.
                let all: Vec<_> = base.iter().chain(&new).cloned().collect();
                assert!(found.starts_with(&expected) && all.starts_with(&found), "{what}: {found:?}");
                return true;
            }
            if matches!(fault, Fault::Full(_)) && op == faults::Op::Truncate {
                // It could not be cut off: the next one mends it.
                assert!(found(dir.path()).starts_with(&expected), "{what}");
            } else {
                assert_eq!(found(dir.path()), expected, "{what}");
            }
            // The store goes on, unless it must not.
            let last = format!("{}\n", record("e", "5"));
            match append(&store, &mut lines, &last) {
                Ok(_) => expected.push(record("e", "5")),
                Err(StoreError::Poisoned) => assert_eq!(op, faults::Op::Sync, "{what}"),
                Err(e) => panic!("{what}: then {e}"),
            }
            assert_eq!(found(dir.path()), expected, "{what}, and then");
            // Its sink knows all but its own lines, whether it had to read anew or not.
            let mut known = Lines::default();
            store.forget();
            store.follow(&mut known).unwrap();
            assert_eq!(known.texts(), expected, "{what}");
            true
        });
    }
}

#[test]
fn compaction_leaves_the_old_log_or_the_new_one() {
    let before = [record("a", "1"), record("b", "2"), "no object".into(), record("a", "3")];
    let after = [record("a", "3"), record("b", "2"), "no object".into()];
    everywhere(|fault, call| {
        let dir = cache(format!("{}\n", before.join("\n")).as_bytes());
        let (sys, store) = faulty(dir.path(), false);
        let mut lines = Lines::default();
        let mut locked = store.lock().unwrap();
        locked.catch_up(&mut lines).unwrap();
        let keep = [lines.given[3].0, lines.given[1].0, lines.given[2].0];
        sys.arm(call, fault);
        let result = locked.compact(&keep).map(drop);
        let hit = sys.disarm();
        drop(locked);
        let Some(op) = hit else { return false };
        let what = format!("{fault:?} at call {call}, {op:?}: {result:?}");
        let found = found(dir.path());
        assert!(found == after || (result.is_err() && found == before), "{what}: {found:?}");
        if !dies(fault) {
            if op != faults::Op::Unlink {
                assert_eq!(names(dir.path(), "_entries"), ["_entries"], "{what}");
            }
            match append(&store, &mut lines, &format!("{}\n", record("e", "5"))) {
                Ok(_) => {}
                Err(StoreError::Poisoned) => assert_eq!(op, faults::Op::Sync, "{what}"),
                Err(e) => panic!("{what}: then {e}"),
            }
            let mut known = Lines::default();
            store.forget();
            store.follow(&mut known).unwrap();
            assert!(known.texts().starts_with(&found), "{what}");
        }
        // The next compaction is not hindered by what this one left.
        drop(store);
        let store = open(dir.path());
        let mut lines = Lines::default();
        let mut locked = store.lock().unwrap();
        locked.catch_up(&mut lines).unwrap();
        let keep: Vec<_> = lines.given.iter().map(|(at, _)| *at).collect();
        locked.compact(&keep).unwrap();
        assert_eq!(names(dir.path(), "_entries"), ["_entries"], "{what}");
        true
    });
}

#[test]
fn repair_destroys_nothing() {
    let log = format!("{}\n{{\"_id\": \"/t\", {}\n", record("a", "1"), record("b", "2"));
    everywhere(|fault, call| {
        let dir = cache(log.as_bytes());
        let (sys, store) = faulty(dir.path(), false);
        let mut locked = store.lock().unwrap();
        locked.catch_up(&mut Lines::default()).unwrap();
        sys.arm(call, fault);
        let result = locked.repair();
        let hit = sys.disarm();
        drop(locked);
        let what = format!("{fault:?} at call {call}, {hit:?}: {result:?}");
        let found = found(dir.path());
        if result.is_ok() || found.len() == 2 && found[1] == record("b", "2") {
            assert_eq!(found, [record("a", "1"), record("b", "2")], "{what}");
            let torn = names(dir.path(), "_torn-");
            let kept = torn
                .iter()
                .any(|name| fs::read(dir.path().join(name)).unwrap().starts_with(b"{\"_id\": \"/t\", "));
            assert!(kept, "{what}");
        } else {
            assert_eq!(log_of(dir.path()), log.as_bytes(), "{what}");
        }
        hit.is_some()
    });
}

#[test]
fn following_gives_each_line_once() {
    let lines_of = |n: usize| (0..n).map(|i| record("a", &i.to_string())).collect::<Vec<_>>();
    for replaced in [false, true] {
        everywhere(|fault, call| {
            let dir = cache(format!("{}\n", lines_of(2).join("\n")).as_bytes());
            let (sys, store) = faulty(dir.path(), false);
            let mut lines = Lines::default();
            store.follow(&mut lines).unwrap();
            let new = format!("{}\n", lines_of(4).join("\n"));
            if replaced {
                fs::write(dir.path().join("new"), new).unwrap();
                fs::rename(dir.path().join("new"), dir.path().join("_entries")).unwrap();
            } else {
                fs::write(dir.path().join("_entries"), new).unwrap();
            }
            sys.arm(call, fault);
            let _ = store.follow(&mut lines);
            let hit = sys.disarm();
            store.follow(&mut lines).unwrap();
            assert_eq!(lines.texts(), lines_of(4), "{fault:?} at call {call}, {hit:?}");
            // `everywhere` wants more calls than one look has.
            hit.is_some() || call < 4
        });
    }
}

#[test]
fn after_a_failed_sync_nothing_is_written() {
    let dir = cache(format!("{}\n", record("a", "1")).as_bytes());
    let (sys, store) = faulty(dir.path(), false);
    let mut lines = Lines::default();
    append(&store, &mut lines, &format!("{}\n", record("b", "2"))).unwrap();
    sys.arm(0, Fault::Errno(libc::EIO));
    assert_eq!(store.sync().unwrap_err().raw_os_error(), Some(libc::EIO));
    sys.disarm();
    assert!(matches!(store.sync(), Err(StoreError::Poisoned)), "a second sync must not hide it");
    assert!(matches!(store.lock(), Err(StoreError::Poisoned)));
    assert!(store.is_poisoned());
    // Reads go on; and a store that is opened anew writes.
    let other = open(dir.path());
    append(&other, &mut Lines::default(), &format!("{}\n", record("c", "3"))).unwrap();
    assert_eq!(store.follow(&mut lines).unwrap().lines, 1);
}

#[test]
fn a_file_system_without_flock_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for errno in [libc::ENOSYS, libc::EOPNOTSUPP] {
        let sys = Arc::new(Faulty::default());
        sys.break_always(faults::Op::Lock, errno);
        let error = Store::open_with(Arc::clone(&sys) as Arc<dyn sys::Sys>, dir.path(), &Options::default())
            .unwrap_err();
        assert!(matches!(error, StoreError::NoLock(_)), "{error}");
        assert!(error.to_string().contains("flock"));
    }
}
