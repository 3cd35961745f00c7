//! Others who write to the log between our reading and our writing, without the lock or with an old idea of its end.

use super::failing::{errno, faulty};
use super::*;
use crate::store::faults::{Fault, Where};

const LOG: &str =
    "{\"_id\": \"/a\", \"x\": 1, \"_timestamp\": 1.0}\n{\"_id\": \"/b\", \"x\": 1, \"_timestamp\": 1.0}\n";

/// What an index made from the log alone shows: the ids in order, and `x` and `y` of each.
fn shown(cache: &Cache) -> Vec<(String, Option<String>, Option<String>)> {
    ids(cache)
        .into_iter()
        .map(|id| {
            let [x, y] = ["x", "y"].map(|key| attribute(cache, &id, key));
            (id, x, y)
        })
        .collect()
}

/// Makes changes in one round while others write; gives the outcomes and the cache.
fn disturbed(
    place: Where,
    others: &[&str],
    changes: &[Change],
) -> (TempDir, Arc<Cache>, Vec<Result<Outcome, CacheError>>) {
    let dir = directory(LOG);
    let (sys, cache) = faulty(dir.path(), false, false);
    for lines in others {
        sys.intrude(place, lines);
    }
    let outcomes = cache.change_all(changes.to_vec()).unwrap();
    (dir, cache, outcomes)
}

fn agrees(dir: &TempDir, cache: &Cache) {
    let fresh = open(dir.path());
    assert_eq!(shown(cache), shown(&fresh), "what is shown is what the log says:\n{}", log_of(dir.path()));
    assert_eq!(cache.status().malformed, fresh.status().malformed);
    cache.refresh().unwrap();
    assert_eq!(shown(cache), shown(&fresh), "nothing comes twice");
    // And it goes on.
    cache.change(set("a", "last", "1")).unwrap();
    assert_eq!(attribute(&open(dir.path()), "a", "last").unwrap(), "1");
}

#[test]
fn an_update_of_the_same_entry_is_not_lost() {
    for place in [Where::Before, Where::After] {
        let theirs = "{\"_id\": \"/a\", \"x\": 1, \"y\": \"theirs\", \"_timestamp\": 1.0}\n";
        let (dir, cache, outcomes) = disturbed(place, &[theirs], &[set("a", "x", "2")]);
        assert!(matches!(outcomes.as_slice(), [Ok(Outcome::Done(true))]), "{place:?}: {outcomes:?}");
        assert_eq!(attribute(&cache, "a", "x").unwrap(), "2", "{place:?}: ours");
        assert_eq!(attribute(&cache, "a", "y").unwrap(), "theirs", "{place:?}");
        agrees(&dir, &cache);
    }
}

#[test]
fn others_who_come_again_and_again_lose_nothing_either() {
    for place in [Where::Before, Where::After] {
        let theirs = ["y", "z"]
            .map(|key| format!("{{\"_id\": \"/a\", \"x\": 1, \"{key}\": 5, \"_timestamp\": 1.0}}\n"));
        let theirs: Vec<&str> = theirs.iter().map(String::as_str).collect();
        let (dir, cache, outcomes) = disturbed(place, &theirs, &[set("a", "x", "2")]);
        assert!(matches!(outcomes.as_slice(), [Ok(Outcome::Done(true))]), "{place:?}: {outcomes:?}");
        // Their second record was written without having seen their first.
        let [x, y, z] = ["x", "y", "z"].map(|key| attribute(&cache, "a", key));
        assert_eq!((x.as_deref(), y.as_deref(), z.as_deref()), (Some("2"), None, Some("5")), "{place:?}");
        agrees(&dir, &cache);
    }
}

#[test]
fn a_memo_that_somebody_else_has_claimed_is_found() {
    for place in [Where::Before, Where::After] {
        let theirs = "{\"_id\": \"/theirs\", \"k\": 7, \"_timestamp\": 1.0}\n";
        let (dir, cache, outcomes) =
            disturbed(place, &[theirs], &[memo("k", "7", "ours"), set("b", "x", "3")]);
        assert!(
            matches!(outcomes.as_slice(), [Ok(Outcome::Found(found)), Ok(Outcome::Done(true))] if *found == id("theirs")),
            "{place:?}: {outcomes:?}"
        );
        assert_eq!(ids(&cache), ["a", "b", "theirs"], "{place:?}: one winner");
        assert_eq!(attribute(&cache, "b", "x").unwrap(), "3", "what shared the round");
        agrees(&dir, &cache);
    }
}

#[test]
fn a_deleted_entry_stays_deleted() {
    for place in [Where::Before, Where::After] {
        let theirs = "{\"_id\": \"/a\", \"x\": 9, \"_timestamp\": 1.0}\n";
        let (dir, cache, outcomes) = disturbed(place, &[theirs], &[delete("a")]);
        let [Ok(Outcome::Deleted(was))] = outcomes.as_slice() else { panic!("{place:?}: {outcomes:?}") };
        assert_eq!(was.get("x").unwrap().to_text(), "9", "{place:?}: as it was in the end");
        assert_eq!(ids(&cache), ["b"], "{place:?}");
        let fresh = open(dir.path());
        assert_eq!(ids(&fresh), ["b"], "{place:?}");
    }
}

#[test]
fn what_somebody_else_has_deleted_is_gone() {
    for place in [Where::Before, Where::After] {
        let theirs = "{\"_id\": \"/b\", \"_timestamp\": 2.0, \"_deleted\": true}\n";
        let (dir, cache, outcomes) =
            disturbed(place, &[theirs], &[set("b", "x", "2"), delete("b"), create("c", "{}")]);
        assert!(
            matches!(
                outcomes.as_slice(),
                [Err(CacheError::NoEntry), Err(CacheError::NoEntry), Ok(Outcome::Done(true))]
            ),
            "{place:?}: {outcomes:?}"
        );
        assert_eq!(ids(&cache), ["a", "c"], "{place:?}");
        agrees(&dir, &cache);
    }
}

#[test]
fn an_entry_that_somebody_else_has_made_is_theirs() {
    for place in [Where::Before, Where::After] {
        let theirs = "{\"_id\": \"/new\", \"x\": \"theirs\", \"_timestamp\": 1.0}\n";
        let (dir, cache, outcomes) = disturbed(place, &[theirs], &[create("new", "{\"x\": \"ours\"}")]);
        assert!(matches!(outcomes.as_slice(), [Err(CacheError::Exists)]), "{place:?}: {outcomes:?}");
        assert_eq!(attribute(&cache, "new", "x").unwrap(), "theirs", "{place:?}");
        agrees(&dir, &cache);
    }
}

#[test]
fn what_touches_nothing_costs_no_second_record() {
    let theirs = "{\"_id\": \"/other\", \"x\": 5, \"_timestamp\": 1.0}\nno record\n";
    for place in [Where::Before, Where::After] {
        let (dir, cache, outcomes) =
            disturbed(place, &[theirs], &[set("a", "x", "2"), create("c", "{}"), delete("b")]);
        assert!(outcomes.iter().all(Result::is_ok), "{place:?}: {outcomes:?}");
        assert_eq!(log_of(dir.path()).lines().count(), 2 + 2 + 3, "{place:?}");
        assert_eq!(cache.status().malformed, 1);
        let order = if place == Where::Before { ["a", "other", "c"] } else { ["a", "c", "other"] };
        let rows: Vec<_> = order.iter().map(|id| cache.index().row(id).unwrap()).collect();
        assert!(rows.is_sorted(), "{place:?}: in the order of the log: {rows:?}");
        agrees(&dir, &cache);
    }
}

#[test]
fn a_torn_record_of_somebody_else_harms_nothing() {
    for place in [Where::Before, Where::After] {
        let (dir, cache, outcomes) =
            disturbed(place, &["{\"_id\": \"/torn\", \"x"], &[set("a", "x", "2"), memo("k", "1", "m")]);
        assert!(outcomes.iter().all(Result::is_ok), "{place:?}: {outcomes:?}");
        assert_eq!(attribute(&cache, "a", "x").unwrap(), "2");
        assert_eq!(ids(&cache), ["a", "b", "m"]);
        agrees(&dir, &cache);
    }
}

#[test]
fn what_was_written_over_is_not_acknowledged() {
    let theirs = format!("{{\"_id\": \"/big\", \"x\": \"{}\", \"_timestamp\": 1.0}}\n", "x".repeat(500));
    let (dir, cache, outcomes) = disturbed(Where::Over, &[&theirs], &[set("a", "x", "2")]);
    assert_eq!(errno(outcomes.into_iter().next().unwrap()), Some(libc::EIO));
    cache.refresh().unwrap();
    assert_eq!(attribute(&cache, "a", "x").unwrap(), "1");
    assert_eq!(ids(&cache), ["a", "b", "big"]);
    agrees(&dir, &cache);
}

#[test]
fn whatever_fails_on_the_way_the_log_is_believed() {
    let theirs = "{\"_id\": \"/a\", \"x\": 1, \"y\": 1, \"_timestamp\": 1.0}\n";
    for fault in [
        Fault::Errno(libc::EIO),
        Fault::Errno(libc::ESTALE),
        Fault::Full(libc::ENOSPC),
        Fault::Short(libc::ENOSPC),
    ] {
        for place in [Where::Before, Where::After] {
            for call in 0..200 {
                let dir = directory(LOG);
                let (sys, cache) = faulty(dir.path(), false, false);
                sys.intrude(place, theirs);
                sys.arm(call, fault);
                let outcomes = cache.change_all(vec![set("a", "x", "2"), memo("k", "1", "m")]).unwrap();
                let hit = sys.disarm();
                let what = format!("{fault:?} at call {call}, {hit:?}, {place:?}: {outcomes:?}");
                cache.refresh().unwrap();
                let fresh = open(dir.path());
                assert_eq!(shown(&cache), shown(&fresh), "{what}");
                if outcomes.iter().all(Result::is_ok) {
                    let [x, y] = ["x", "y"].map(|key| attribute(&fresh, "a", key));
                    assert_eq!((x.as_deref(), y.as_deref()), (Some("2"), Some("1")), "{what}");
                    assert_eq!(ids(&fresh), ["a", "b", "m"], "{what}");
                }
                if hit.is_none() {
                    assert!(call > 20, "{what}");
                    break;
                }
            }
        }
    }
}
