//! Logs that are known again, and such as only look like it.

use std::os::unix::fs::FileExt as _;

use super::*;

/// A log of more than two blocks.
fn long() -> String {
    let mut log = String::new();
    let mut number = 0;
    while log.len() < (5 << 20) / 2 {
        log.push_str(&record(&format!("e{number:07}"), &format!("\"{}\"", "x".repeat(200))));
        log.push('\n');
        number += 1;
    }
    log
}

fn sealed(dir: &Path) -> Seal {
    let store = open(dir);
    store.follow(&mut Lines::default()).unwrap();
    vouched(&store)
}

fn vouched(store: &Store) -> Seal {
    let mut seal = store.seal().unwrap();
    store.vouch(&mut seal).unwrap();
    seal
}

/// Whether a new store knows the log again; if so, the lines that it follows then.
fn resumed(dir: &Path, seal: &Seal) -> Option<Vec<String>> {
    let store = open(dir);
    let generation = store.resume(seal).unwrap()?;
    let mut lines = Lines { generation: Some(generation), ..Lines::default() };
    assert!(!store.follow(&mut lines).unwrap().replaced);
    assert_eq!(store.seal().unwrap().blocks, sealed(dir).blocks);
    Some(lines.texts())
}

/// The seal with what the kernel says now: as if the log had been still.
fn trusting(store_of: &Path, seal: &Seal) -> Seal {
    let log = store_of.join("_entries");
    std::fs::File::options().write(true).open(&log).unwrap();
    eventually_still(&log);
    Seal { still: sealed(store_of).still, ..seal.clone() }
}

fn eventually_still(log: &Path) {
    let changed = fs::metadata(log).unwrap().ctime();
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        if now.as_secs().cast_signed() >= changed + 4 {
            return;
        }
        assert!(Instant::now() < end);
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_log_is_known_again_and_what_was_appended_is_followed() {
    let dir = cache(long().as_bytes());
    let seal = sealed(dir.path());
    assert_eq!(seal.blocks.len(), 3);
    assert_eq!(resumed(dir.path(), &seal), Some(vec![]));
    let store = open(dir.path());
    store.lock().unwrap().catch_up(&mut Lines::default()).unwrap();
    let mut locked = store.lock().unwrap();
    locked.catch_up(&mut Lines::default()).unwrap();
    locked.append(format!("{}\n", record("new", "1")).as_bytes()).unwrap();
    drop(locked);
    assert_eq!(resumed(dir.path(), &seal), Some(vec![record("new", "1")]));
    // What this store itself appended and compacted it knows as well as what it read.
    assert_eq!(store.seal().unwrap().blocks, sealed(dir.path()).blocks);
    let keep = [Locator { offset: 0, len: u32::try_from(long().find('\n').unwrap()).unwrap() }];
    let mut locked = store.lock().unwrap();
    locked.catch_up(&mut Lines::default()).unwrap();
    locked.compact(&keep).unwrap();
    drop(locked);
    assert_eq!(store.seal().unwrap().blocks, sealed(dir.path()).blocks);
    assert_eq!(resumed(dir.path(), &seal), None, "a shorter log");
}

#[test]
fn a_copy_is_as_good_but_another_log_is_not() {
    let dir = cache(long().as_bytes());
    let seal = sealed(dir.path());
    let copy = cache(long().as_bytes());
    assert_eq!(resumed(copy.path(), &seal), Some(vec![]));
    // Any byte of it: at the beginning, in the middle, at the end.
    let log = copy.path().join("_entries");
    let len = fs::metadata(&log).unwrap().len();
    for offset in [30, 1 << 20, len / 2, len - 5] {
        let file = std::fs::File::options().read(true).write(true).open(&log).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset).unwrap();
        file.write_all_at(&[byte[0] ^ 1], offset).unwrap();
        assert_eq!(resumed(copy.path(), &seal), None, "{offset}");
        file.write_all_at(&byte, offset).unwrap();
        assert_eq!(resumed(copy.path(), &seal), Some(vec![]));
    }
    fs::write(&log, format!("{0}{0}", long())).unwrap();
    assert_eq!(resumed(copy.path(), &seal), None, "it has grown too much");
    fs::remove_file(&log).unwrap();
    assert!(open(copy.path()).resume(&seal).is_err());
}

#[test]
fn times_that_were_set_back_deceive_nobody() {
    let dir = cache(long().as_bytes());
    let seal = sealed(dir.path());
    assert_eq!(seal.still, None, "it was written a moment ago");
    let seal = trusting(dir.path(), &seal);
    assert!(seal.still.is_some());
    assert_eq!(resumed(dir.path(), &seal), Some(vec![]));
    let log = dir.path().join("_entries");
    let modified = fs::metadata(&log).unwrap().modified().unwrap();
    let file = std::fs::File::options().write(true).open(&log).unwrap();
    let offset = long().find("e0000100").unwrap() as u64 + 60;
    file.write_all_at(b"y", offset).unwrap();
    file.set_modified(modified).unwrap();
    assert_eq!(fs::metadata(&log).unwrap().modified().unwrap(), modified);
    assert_eq!(resumed(dir.path(), &seal), None);
    // Another start of the machine: the times say nothing.
    let mut seal = trusting(dir.path(), &seal);
    seal.still.as_mut().unwrap().boot = "another".to_owned();
    assert_eq!(resumed(dir.path(), &seal), None);
}

#[test]
fn what_was_edited_since_it_was_read_is_not_vouched_for() {
    let dir = cache(long().as_bytes());
    let log = dir.path().join("_entries");
    let store = open(dir.path());
    store.follow(&mut Lines::default()).unwrap();
    let file = std::fs::File::options().write(true).open(&log).unwrap();
    let offset = long().find("e0000100").unwrap() as u64 + 60;
    file.write_all_at(b"y", offset).unwrap();
    eventually_still(&log);
    assert_eq!(vouched(&store).still, None);
    assert_eq!(resumed(dir.path(), &vouched(&store)), None);
    file.write_all_at(b"x", offset).unwrap();
    assert_eq!(vouched(&store).still, None, "it was written a moment ago");
    eventually_still(&log);
    assert!(vouched(&store).still.is_some());
}

#[test]
fn seals_that_cannot_be_are_refused() {
    let dir = cache(long().as_bytes());
    let seal = sealed(dir.path());
    for wrong in [
        Seal { offset: 0, blocks: vec![], ..seal.clone() },
        Seal { blocks: seal.blocks[1..].to_vec(), ..seal.clone() },
        Seal { offset: seal.offset - 1, ..seal.clone() },
        Seal { offset: u64::MAX, ..seal },
    ] {
        assert_eq!(open(dir.path()).resume(&wrong).unwrap().map(drop), None);
    }
}

#[test]
fn what_is_kept_is_whole_and_ours() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a/b");
    let about = Path::new("/some/cache");
    assert!(Directory::open(&path, false).is_err());
    let kept = Directory::open(&path, true).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    assert!(kept.read(about).is_err());
    let text: Vec<u8> = (0..3_000_000_u32).map(|number| number.to_le_bytes()[1]).collect();
    let write = |text: &[u8]| {
        kept.write(about, |file| {
            file.put(&text[..10])?;
            file.put(&text[10..])
        })
    };
    write(&text).unwrap();
    let read = || {
        let mut file = kept.read(about)?;
        let mut bytes = vec![0; usize::try_from(file.left()).unwrap()];
        file.get(&mut bytes)?;
        Ok::<_, io::Error>(file.is_whole()?.then_some(bytes))
    };
    assert_eq!(read().unwrap().as_ref(), Some(&text));
    let file = fs::read_dir(&path).unwrap().next().unwrap().unwrap().path();
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

    // A failure leaves what was there.
    let failed = kept.write(about, |file| file.put(b"x").and(Err(io::ErrorKind::StorageFull.into())));
    assert_eq!(failed.unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!(read().unwrap().as_ref(), Some(&text));
    assert_eq!(fs::read_dir(&path).unwrap().count(), 1);

    // Damage anywhere, or an end that is missing or too much.
    let good = fs::read(&file).unwrap();
    for place in [0, 100, good.len() / 2, good.len() - 1] {
        let mut bad = good.clone();
        bad[place] ^= 0x10;
        fs::write(&file, bad).unwrap();
        assert_eq!(read().unwrap(), None, "{place}");
    }
    for len in [0, 5, 16, good.len() - 1] {
        fs::write(&file, &good[..len]).unwrap();
        assert!(!matches!(read(), Ok(Some(_))), "{len}");
    }
    fs::write(&file, [&good[..], b"x"].concat()).unwrap();
    assert!(!matches!(read(), Ok(Some(_))));

    // Not what others could have made.
    fs::write(&file, &good).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o620)).unwrap();
    assert!(read().is_err());
    fs::remove_file(&file).unwrap();
    fs::write(dir.path().join("elsewhere"), &good).unwrap();
    symlink(dir.path().join("elsewhere"), &file).unwrap();
    assert!(read().is_err());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
    assert!(Directory::open(&path, true).is_err());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    symlink(&path, dir.path().join("link")).unwrap();
    assert!(Directory::open(&dir.path().join("link"), true).is_err());
    // What is in the way is replaced, not followed.
    write(&text).unwrap();
    assert_eq!(fs::read(dir.path().join("elsewhere")).unwrap(), good);
    assert_eq!(read().unwrap().as_ref(), Some(&text));
}

#[test]
fn what_was_used_longest_ago_goes_first() {
    let dir = tempfile::tempdir().unwrap();
    let kept = Directory::open(dir.path(), true).unwrap();
    let about = |number: u32| PathBuf::from(format!("/cache{number}"));
    fs::write(dir.path().join("mine.txt"), "").unwrap();
    let old = std::time::SystemTime::now() - Duration::from_secs(1_000_000);
    let abandoned = fs::File::create(dir.path().join("x.1-0.tmp")).unwrap();
    abandoned.set_modified(old).unwrap();
    fs::write(dir.path().join("y.2-0.tmp"), "").unwrap();
    let names = || fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
    for number in 0..20 {
        let before: Vec<_> = names().collect();
        kept.write(&about(number), |file| file.put(b"x")).unwrap();
        let new = names().find(|name| !before.contains(name)).unwrap();
        let at = old + Duration::from_secs(number.into());
        fs::File::options().write(true).open(new).unwrap().set_modified(at).unwrap();
        // This one is used again and again.
        kept.read(&about(0)).unwrap();
    }
    let left: Vec<u32> = (0..20).filter(|&number| kept.read(&about(number)).is_ok()).collect();
    assert_eq!(left, (0..1).chain(5..20).collect::<Vec<_>>());
    assert!(!dir.path().join("x.1-0.tmp").exists() && dir.path().join("y.2-0.tmp").exists());
    assert!(dir.path().join("mine.txt").exists());
    kept.remove(&about(0)).unwrap();
    assert!(kept.read(&about(0)).is_err());
}
