//! What one owner has locked of a file.

use crate::backing::{LockKind, Range};

/// Locked ranges: in order, apart from each other, neighbours of one kind joined.
#[derive(Debug, Default)]
pub(super) struct Ranges(Vec<(Range, LockKind)>);

impl Ranges {
    /// Locks a range, or unlocks it (`None`), whatever it was before.
    pub fn set(&mut self, range: Range, kind: Option<LockKind>) {
        let mut next = Vec::with_capacity(self.0.len() + 2);
        for &(old, old_kind) in &self.0 {
            if !old.overlaps(range) {
                next.push((old, old_kind));
                continue;
            }
            if old.start < range.start {
                next.push((Range { start: old.start, end: range.start - 1 }, old_kind));
            }
            if old.end > range.end {
                next.push((Range { start: range.end + 1, end: old.end }, old_kind));
            }
        }
        next.extend(kind.map(|kind| (range, kind)));
        next.sort_by_key(|(range, _)| range.start);
        next.dedup_by(|later, earlier| {
            let join = later.1 == earlier.1 && earlier.0.end.checked_add(1) == Some(later.0.start);
            if join {
                earlier.0.end = later.0.end;
            }
            join
        });
        self.0 = next;
    }

    /// Whether nothing is locked.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether something of a range is locked in this way.
    pub fn has(&self, range: Range, kind: LockKind) -> bool {
        self.0.iter().any(|(held, held_kind)| *held_kind == kind && held.overlaps(range))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::backing::END;

    const SHARED: Option<LockKind> = Some(LockKind::Shared);
    const EXCLUSIVE: Option<LockKind> = Some(LockKind::Exclusive);

    #[test]
    fn a_part_is_unlocked_or_changed() {
        let mut ranges = Ranges::default();
        ranges.set(Range::ALL, SHARED);
        ranges.set(Range { start: 10, end: 19 }, EXCLUSIVE);
        assert!(ranges.has(Range { start: 0, end: 9 }, LockKind::Shared));
        assert!(!ranges.has(Range { start: 10, end: 19 }, LockKind::Shared));
        assert!(ranges.has(Range { start: END, end: END }, LockKind::Shared));
        ranges.set(Range { start: 0, end: 14 }, None);
        assert!(!ranges.has(Range { start: 0, end: 14 }, LockKind::Exclusive));
        assert!(ranges.has(Range { start: 15, end: 15 }, LockKind::Exclusive));
        ranges.set(Range::ALL, None);
        assert!(ranges.is_empty());
    }

    proptest! {
        #[test]
        fn as_a_byte_for_byte_model(steps in prop::collection::vec((0_u64..24, 0_u64..24, 0_usize..3), 0..40)) {
            let kinds = [None, SHARED, EXCLUSIVE];
            let mut ranges = Ranges::default();
            let mut model = [None; 24];
            for (a, b, kind) in steps {
                let (start, end) = (a.min(b), a.max(b));
                ranges.set(Range { start, end }, kinds[kind]);
                for byte in start..=end {
                    model[usize::try_from(byte).unwrap()] = kinds[kind];
                }
                for (byte, kind) in (0..).zip(model) {
                    let at = Range { start: byte, end: byte };
                    for each in [LockKind::Shared, LockKind::Exclusive] {
                        prop_assert_eq!(ranges.has(at, each), kind == Some(each));
                    }
                }
                prop_assert_eq!(ranges.is_empty(), model.iter().all(Option::is_none));
                prop_assert!(ranges.0.windows(2).all(|w| w[0].0.end < w[1].0.start
                    && (w[0].1 != w[1].1 || w[0].0.end + 1 < w[1].0.start)));
            }
        }
    }
}
