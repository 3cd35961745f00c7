//! A node that was cut off while it held the lock: the file system gave the lock away, and then it comes back.

use super::faults::{Fault, Faulty, Op};
use super::*;

/// A store that takes its file system for one of several machines, and suspects every lock.
fn suspicious(dir: &Path) -> Store {
    let mut store = open(dir);
    store.local = false;
    store.suspicion.wait = Duration::ZERO;
    store
}

/// The file system gives the lock away, and the holder does not know it.
fn lose(locked: &Locked<'_>) {
    use sys::Sys as _;
    sys::Real.unlock(&locked.gate.as_ref().unwrap().file).unwrap();
}

fn line(id: &str) -> String {
    format!("{}\n", record(id, "1"))
}

#[test]
fn what_a_cut_off_node_writes_late_destroys_nothing_and_is_not_acknowledged() {
    let dir = cache(line("a").as_bytes());
    let (cut, other) = (suspicious(dir.path()), suspicious(dir.path()));
    let mut lines = Lines::default();
    let mut locked = cut.lock().unwrap();
    locked.catch_up(&mut lines).unwrap();
    lose(&locked);
    append(&other, &mut Lines::default(), &line("b")).unwrap();
    append(&other, &mut Lines::default(), &line("c")).unwrap();
    let error = locked.append(line("late").as_bytes()).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ESTALE));
    drop(locked);
    let all = [record("a", "1"), record("b", "1"), record("c", "1")];
    assert_eq!(String::from_utf8(log_of(dir.path())).unwrap(), format!("{}\n", all.join("\n")));
    // It recovers by itself.
    append(&cut, &mut lines, &line("d")).unwrap();
    assert_eq!(lines.texts(), all);
    assert!(log_of(dir.path()).ends_with(line("d").as_bytes()));
}

#[test]
fn a_compaction_that_lands_late_finds_nothing_to_rename() {
    let dir = cache(line("a").as_bytes());
    fs::write(dir.path().join("_entries.tmp-1"), "what the node that was cut off had written").unwrap();
    append(&suspicious(dir.path()), &mut Lines::default(), &line("b")).unwrap();
    assert_eq!(names(dir.path(), "_entries"), ["_entries"]);
}

#[test]
fn a_slow_append_that_is_there_is_acknowledged_once() {
    let dir = cache(line("a").as_bytes());
    let store = suspicious(dir.path());
    let mut lines = Lines::default();
    for id in ["b", "c"] {
        append(&store, &mut lines, &line(id)).unwrap();
    }
    assert_eq!(String::from_utf8(log_of(dir.path())).unwrap(), line("a") + &line("b") + &line("c"));
}

#[test]
fn nothing_is_cut_off_by_who_may_have_lost_the_lock() {
    let dir = cache(line("a").as_bytes());
    let faulty = Arc::new(Faulty::default());
    let mut store =
        Store::open_with(Arc::clone(&faulty) as Arc<dyn sys::Sys>, dir.path(), &Options::default()).unwrap();
    store.local = false;
    store.suspicion.wait = Duration::ZERO;
    let mut lines = Lines::default();
    let mut locked = store.lock().unwrap();
    locked.catch_up(&mut lines).unwrap();
    lose(&locked);
    // A Python program, which knows nothing of all this.
    fs::write(dir.path().join("_entries"), line("a") + &line("python")).unwrap();
    faulty.arm(0, Fault::Errno(libc::EIO));
    assert_eq!(locked.append(line("late").as_bytes()).unwrap_err().raw_os_error(), Some(libc::EIO));
    assert_eq!(faulty.disarm(), Some(Op::Write));
    assert_eq!(String::from_utf8(log_of(dir.path())).unwrap(), line("a") + &line("python"));
}

#[test]
fn a_quick_lock_moves_nothing_but_after_a_long_silence() {
    let dir = cache(line("a").as_bytes());
    let mut store = open(dir.path());
    store.local = false;
    let inode = || fs::metadata(dir.path().join("_entries")).unwrap().ino();
    let first = inode();
    let mut lines = Lines::default();
    append(&store, &mut lines, &line("b")).unwrap();
    append(&store, &mut lines, &line("c")).unwrap();
    assert_eq!(inode(), first);
    store.suspicion.silence = Duration::ZERO;
    append(&store, &mut lines, &line("d")).unwrap();
    assert_ne!(inode(), first);
    assert_eq!(String::from_utf8(log_of(dir.path())).unwrap().lines().count(), 4);
}

#[test]
fn a_failed_sync_of_a_network_file_system_is_no_end() {
    let dir = cache(line("a").as_bytes());
    let faulty = Arc::new(Faulty::default());
    let mut store =
        Store::open_with(Arc::clone(&faulty) as Arc<dyn sys::Sys>, dir.path(), &Options::default()).unwrap();
    store.local = false;
    let mut lines = Lines::default();
    append(&store, &mut lines, &line("b")).unwrap();
    faulty.break_always(Op::Sync, libc::EIO);
    assert_eq!(append(&store, &mut lines, &line("c")).unwrap_err().raw_os_error(), Some(libc::EIO));
    faulty.disarm();
    append(&store, &mut lines, &line("d")).unwrap();
    assert_eq!(String::from_utf8(log_of(dir.path())).unwrap(), line("a") + &line("b") + &line("d"));
    assert!(!store.is_poisoned());
}

#[test]
fn a_node_that_slept_while_it_held_the_lock_does_not_believe_in_it() {
    let dir = cache(line("a").as_bytes());
    let sys = Arc::new(Faulty::default());
    let mut cut =
        Store::open_with(Arc::clone(&sys) as Arc<dyn sys::Sys>, dir.path(), &Options::default()).unwrap();
    cut.local = false;
    let other = suspicious(dir.path());
    let mut locked = cut.lock().unwrap();
    locked.catch_up(&mut Lines::default()).unwrap();
    // It is suspended; the file system gives its lock away.
    lose(&locked);
    append(&other, &mut Lines::default(), &line("b")).unwrap();
    sys.sleep(Duration::from_secs(3600));
    let error = locked.append(line("late").as_bytes()).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ESTALE));
    drop(locked);
    assert_eq!(String::from_utf8(log_of(dir.path())).unwrap(), line("a") + &line("b"));
}

#[test]
fn a_lock_that_is_removed_while_it_is_held_makes_no_two_writers() {
    let dir = cache(line("a").as_bytes());
    let store = open(dir.path());
    let mut lines = Lines::default();
    let mut locked = store.lock().unwrap();
    locked.catch_up(&mut lines).unwrap();
    fs::remove_file(dir.path().join("_lock")).unwrap();
    append(&open(dir.path()), &mut Lines::default(), &line("b")).unwrap();
    let error = locked.append(line("late").as_bytes()).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ESTALE), "it would go over the other's record");
    drop(locked);
    append(&store, &mut lines, &line("c")).unwrap();
    assert_eq!(String::from_utf8(log_of(dir.path())).unwrap(), line("a") + &line("b") + &line("c"));
}

#[test]
fn a_lock_that_is_removed_after_the_write_is_noticed_before_the_acknowledgement() {
    for overwritten in [false, true] {
        let dir = cache(line("a").as_bytes());
        let sys = Arc::new(Faulty::default());
        let store =
            Store::open_with(Arc::clone(&sys) as Arc<dyn sys::Sys>, dir.path(), &Options::default()).unwrap();
        let path = dir.path().to_owned();
        sys.after(Op::Write, move || {
            fs::remove_file(path.join("_lock")).unwrap();
            if overwritten {
                // Somebody had read the log before our write, and takes its end for his.
                fs::write(path.join("_entries"), line("a") + &line("x")).unwrap();
            } else {
                append(&open(&path), &mut Lines::default(), &line("b")).unwrap();
            }
        });
        let mut lines = Lines::default();
        let result = append(&store, &mut lines, &line("c"));
        store.follow(&mut lines).unwrap();
        let log = String::from_utf8(log_of(dir.path())).unwrap();
        assert_eq!(result.is_ok(), !overwritten);
        assert_eq!(log, line("a") + &if overwritten { line("x") } else { line("c") + &line("b") });
        assert_eq!(lines.texts().len(), log.lines().count());
    }
}
