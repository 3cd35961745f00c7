//! The group commit under explored schedules: who waits is told, once, and what they are told is in the log.

use std::io::Write as _;
use std::panic::resume_unwind;

use super::*;
use crate::store::faults::{Fault, Op};
use crate::store::steps::Steps;
use crate::sync::atomic::{AtomicU32, Ordering};
use crate::sync::explore;
use shuttle::rand::Rng as _;
use shuttle::thread::{JoinHandle, spawn};

type Told = mpsc::Receiver<Result<Outcome, CacheError>>;

/// A cache whose every lock and system call is a step of the schedule.
pub(crate) fn model(dir: &Path, sync: bool, background: bool) -> (Arc<Steps>, Arc<Cache>) {
    let sys = Arc::new(Steps::default());
    let store = store::Options { read_only: false, sync };
    let store = Store::open_with(Arc::clone(&sys) as Arc<_>, dir, &store).unwrap();
    let options = Options { read_only: false, sync, refresh: Duration::ZERO, background, keep: None };
    (sys, Cache::with_store(store, &options).unwrap())
}

pub(crate) fn join(threads: Vec<JoinHandle<()>>) {
    for thread in threads {
        thread.join().unwrap();
    }
}

/// Hands a change in; a callback that is dropped without having been called ends the channel.
fn submit(cache: &Cache, change: Change) -> Told {
    let (sender, told) = mpsc::channel();
    cache.submit(change, Box::new(move |outcome| sender.send(outcome).unwrap()));
    told
}

/// The outcome that somebody must have been told by now.
fn told(told: &Told) -> Result<Outcome, CacheError> {
    told.try_recv().expect("whoever waits is told")
}

/// What another program reads.
fn found(dir: &Path) -> Vec<String> {
    // If even making it failed, there is none.
    let log = fs::read_to_string(dir.join("_entries")).unwrap_or_default();
    assert!(log.is_empty() || log.ends_with('\n'), "{log:?}");
    ids(&model(dir, false, false).1)
}

#[test]
fn every_change_is_decided_once_and_seen_by_who_made_it() {
    explore(|| {
        let dir = tempfile::tempdir().unwrap();
        let (sys, cache) = model(dir.path(), false, true);
        let clients: Vec<_> = (0..3)
            .map(|t| {
                let cache = Arc::clone(&cache);
                spawn(move || {
                    let (own, key) = (format!("own{t}"), format!("k{t}"));
                    let shared = cache.change_all(vec![create("a", "{}"), set("a", &key, "1")]).unwrap();
                    assert!(matches!(shared[1], Ok(Outcome::Done(true))), "{shared:?}");
                    assert_eq!(attribute(&cache, "a", &key).unwrap(), "1");
                    let claim = cache.change(memo("m", "1", &own)).unwrap();
                    let claimed = claim == Outcome::Done(true);
                    if claimed {
                        assert_eq!(attribute(&cache, &own, "m").unwrap(), "1");
                    }
                    (shared[0].is_ok(), claimed)
                })
            })
            .collect();
        let outcomes: Vec<_> = clients.into_iter().map(|client| client.join().unwrap()).collect();
        assert_eq!(outcomes.iter().filter(|(made, _)| *made).count(), 1, "{outcomes:?}");
        assert_eq!(outcomes.iter().filter(|(_, claimed)| *claimed).count(), 1, "{outcomes:?}");
        cache.close().unwrap();
        // One line for each change that was acknowledged; but a compaction may have come if the machine was slow.
        if sys.0.count(Op::Rename) == 0 {
            assert_eq!(log_of(dir.path()).lines().count(), 5);
        }
        let fresh = model(dir.path(), false, false).1;
        assert_eq!(ids(&fresh).len(), 2);
        assert!((0..3).all(|t| attribute(&fresh, "a", &format!("k{t}")).as_deref() == Some("1")));
    });
}

#[test]
fn whoever_waits_when_the_cache_is_closed_is_told() {
    explore(|| {
        let dir = tempfile::tempdir().unwrap();
        let (sys, cache) = model(dir.path(), false, true);
        let before = [submit(&cache, create("before", "{}")), {
            // A callback that closes, on a thread that the others wait for.
            let (sender, told) = mpsc::channel();
            let own = Arc::clone(&cache);
            let done = move |outcome| {
                own.close().unwrap();
                sender.send(outcome).unwrap();
            };
            cache.submit(create("closer", "{}"), Box::new(done));
            told
        }];
        let clients: Vec<_> = (0..2)
            .map(|t| {
                let cache = Arc::clone(&cache);
                spawn(move || {
                    let first = submit(&cache, create(&format!("e{t}"), "{}"));
                    let (sender, synced) = mpsc::channel();
                    cache.sync(Box::new(move |result| sender.send(result).unwrap()));
                    (first, submit(&cache, create(&format!("f{t}"), "{}")), synced)
                })
            })
            .collect();
        let closers: Vec<_> = (0..2)
            .map(|_| {
                let cache = Arc::clone(&cache);
                spawn(move || cache.close().unwrap())
            })
            .collect();
        let waiting: Vec<_> = clients.into_iter().map(|client| client.join().unwrap()).collect();
        join(closers);
        assert!(matches!(submit(&cache, create("late", "{}")).recv(), Ok(Err(CacheError::Closed))));
        let (sender, synced) = mpsc::channel();
        cache.sync(Box::new(move |result| sender.send(result).unwrap()));
        synced.recv().expect("a sync after the end is told").unwrap();
        // The one that closes in a callback may still be on its way out of it.
        assert!(matches!(before[1].recv(), Ok(Ok(Outcome::Done(true)))));
        let mut expected = vec!["before".to_owned(), "closer".to_owned()];
        assert!(matches!(told(&before[0]), Ok(Outcome::Done(true))));
        for (t, (first, second, synced)) in waiting.iter().enumerate() {
            synced.try_recv().expect("a sync is told").unwrap();
            for (name, change) in [("e", first), ("f", second)] {
                match told(change) {
                    Ok(outcome) => {
                        assert_eq!(outcome, Outcome::Done(true));
                        expected.push(format!("{name}{t}"));
                    }
                    Err(error) => assert!(matches!(error, CacheError::Closed), "{error}"),
                }
            }
        }
        expected.sort();
        assert_eq!(found(dir.path()), expected);
        assert_eq!(sys.0.last_of(&[Op::Write, Op::Sync]), Some(Op::Sync), "the last thing is made durable");
    });
}

#[test]
fn a_failure_reaches_all_who_depend_on_it() {
    explore(|| {
        let mut rng = shuttle::rand::thread_rng();
        let dir = tempfile::tempdir().unwrap();
        let (sys, cache) = model(dir.path(), rng.gen_bool(0.5), true);
        let faults = [Fault::Errno(libc::EIO), Fault::Short(libc::ENOSPC), Fault::Full(libc::ENOSPC)];
        sys.0.arm(rng.gen_range(0..60), faults[rng.gen_range(0..faults.len())]);
        let clients: Vec<_> = (0..3)
            .map(|t| {
                let cache = Arc::clone(&cache);
                spawn(move || {
                    let (first, second) = (format!("e{t}"), format!("f{t}"));
                    let waiting =
                        [(first.clone(), create(&first, "{}")), (second.clone(), create(&second, "{}"))]
                            .map(|(name, change)| (name, submit(&cache, change)));
                    waiting.map(|(name, told)| (name, told.recv().expect("told")))
                })
            })
            .collect();
        let outcomes: Vec<_> = clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
        let closed = cache.close();
        let hit = sys.0.disarm();
        let found = found(dir.path());
        for (name, outcome) in outcomes {
            let there = found.contains(&name);
            // What could not be cut off again may be there.
            let may_be = hit == Some(Op::Truncate);
            assert!(outcome.is_ok() == there || (there && may_be), "{name}: {outcome:?}, {hit:?}, {found:?}");
        }
        if cache.store().is_poisoned() {
            assert!(closed.is_err());
            assert!(matches!(cache.change(delete("e0")), Err(CacheError::Closed)));
        }
    });
}

#[test]
fn a_panic_of_one_harms_no_other() {
    explore(|| {
        let dir = tempfile::tempdir().unwrap();
        let (_, cache) = model(dir.path(), false, true);
        let hooked = Arc::new(AtomicBool::new(false));
        let once = Arc::clone(&hooked);
        cache.set_hook(Box::new(move |_| {
            if !once.swap(true, Ordering::SeqCst) {
                resume_unwind(Box::new("in the hook"));
            }
        }));
        let clients: Vec<_> = (0..2)
            .map(|t| {
                let cache = Arc::clone(&cache);
                spawn(move || {
                    let panics = create(&format!("p{t}"), "{}");
                    cache.submit(panics, Box::new(|_| resume_unwind(Box::new("in a callback"))));
                    cache.sync(Box::new(|_| resume_unwind(Box::new("in a callback"))));
                    cache.change(create(&format!("e{t}"), "{}")).unwrap();
                })
            })
            .collect();
        join(clients);
        cache.close().unwrap();
        assert_eq!(found(dir.path()), ["e0", "e1", "p0", "p1"]);
    });
}

#[test]
fn what_two_caches_change_at_once_both_prevails() {
    explore(|| {
        let dir = directory("{\"_id\": \"/a\", \"x\": 0}\n");
        let caches = [model(dir.path(), false, true).1, model(dir.path(), false, false).1];
        let mut clients: Vec<_> = caches
            .iter()
            .enumerate()
            .map(|(c, cache)| {
                let cache = Arc::clone(cache);
                spawn(move || {
                    cache.change(set("a", &format!("k{c}"), "1")).unwrap();
                    let claim = cache.change(memo("m", "1", &format!("e{c}"))).unwrap();
                    assert!(attribute(&cache, "a", &format!("k{c}")).is_some(), "read your writes");
                    usize::from(claim == Outcome::Done(true))
                })
            })
            .collect();
        let compacting = Arc::clone(&caches[0]);
        clients.push(spawn(move || {
            compacting.compact().unwrap();
            0
        }));
        let won: usize = clients.into_iter().map(|client| client.join().unwrap()).sum();
        assert_eq!(won, 1);
        for cache in &caches {
            cache.refresh().unwrap();
            for key in ["k0", "k1"] {
                assert_eq!(attribute(cache, "a", key).as_deref(), Some("1"));
            }
            assert_eq!(ids(cache).len(), 2);
        }
        let log = log_of(dir.path());
        assert!((2..=4).contains(&log.lines().count()), "nothing is doubled: {log}");
        for cache in &caches {
            cache.close().unwrap();
        }
    });
}

/// What the hook was told, and whether anything was not as it must be while it ran: a panic there would not end the test.
#[derive(Default)]
struct Heard {
    ask: Mutex<Option<mpsc::Sender<mpsc::Sender<()>>>>,
    rows: std::sync::Mutex<Vec<Row>>,
    closed: AtomicBool,
    late: AtomicBool,
    unseen: AtomicBool,
    /// Begun and not ended.
    running: AtomicU32,
}

#[test]
fn the_kernel_is_told_before_the_acknowledgement_without_any_lock_and_never_after_the_end() {
    explore(|| {
        let dir = tempfile::tempdir().unwrap();
        let (_, cache) = model(dir.path(), false, true);
        let heard = Arc::new(Heard::default());
        // A request that is answered only while the hook runs: it needs what every handler needs.
        let (ask, asked) = mpsc::channel::<mpsc::Sender<()>>();
        let reader = Arc::clone(&cache);
        let handler = spawn(move || {
            for answer in asked {
                let row = reader.index().row("first");
                let _ = row.map(|row| reader.entry(row).unwrap());
                let _ = reader.status();
                reader.sync(Box::new(move |_| answer.send(()).unwrap()));
            }
        });
        *hold(&heard.ask) = Some(ask);
        let (hearing, weak) = (Arc::clone(&heard), Arc::downgrade(&cache));
        cache.set_hook(Box::new(move |published| {
            let Some(cache) = weak.upgrade() else { return };
            hearing.running.fetch_add(1, Ordering::SeqCst);
            hearing.late.fetch_or(hearing.closed.load(Ordering::SeqCst), Ordering::SeqCst);
            let all_there = published.rows.iter().all(|row| cache.index().id(*row).is_some());
            hearing.unseen.fetch_or(!all_there, Ordering::SeqCst);
            // Every lock can be had, by this thread too: it has none.
            drop(cache.store().lock().unwrap());
            drop(hold(&cache.inner.account));
            drop(cache.inner.index_mut());
            drop(hold(&cache.inner.generation));
            drop((hold(&cache.inner.queue), hold(&cache.inner.syncs)));
            // And by a handler that is waited for.
            let (sender, answered) = mpsc::channel();
            hold(&hearing.ask).as_ref().unwrap().send(sender).unwrap();
            answered.recv().unwrap();
            hearing.rows.lock().unwrap().extend(&published.rows);
            hearing.running.fetch_sub(1, Ordering::SeqCst);
        }));
        cache.change(create("first", "{}")).unwrap();
        let clients: Vec<_> = (0..2)
            .map(|t| {
                let (cache, heard) = (Arc::clone(&cache), Arc::clone(&heard));
                spawn(move || {
                    let name = format!("e{t}");
                    cache.change(create(&name, "{}")).unwrap();
                    let row = cache.index().row(&name).unwrap();
                    assert!(heard.rows.lock().unwrap().contains(&row), "{name}: acknowledged, but not told");
                })
            })
            .collect();
        // Another program appends: its record is found by whoever looks first.
        let (path, refreshing) = (dir.path().join("_entries"), Arc::clone(&cache));
        let other = spawn(move || {
            let lock = refreshing.store().lock().unwrap();
            let mut log = fs::OpenOptions::new().append(true).open(path).unwrap();
            log.write_all(b"{\"_id\": \"/other\"}\n").unwrap();
            drop(lock);
            refreshing.refresh().unwrap();
            assert!(refreshing.index().row("other").is_some());
        });
        join(clients);
        other.join().unwrap();
        cache.close().unwrap();
        heard.closed.store(true, Ordering::SeqCst);
        assert!(!heard.unseen.load(Ordering::SeqCst), "told before it was published");
        assert_eq!(heard.rows.lock().unwrap().len(), 4, "each is told, once");
        hold(&heard.ask).take();
        handler.join().unwrap();
        assert_eq!(heard.running.load(Ordering::SeqCst), 0, "a lock was held, or an answer was wrong");
        assert!(!heard.late.load(Ordering::SeqCst), "told after the end");
    });
}
