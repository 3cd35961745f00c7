//! The rows in order of their times, so that a question about times need not look at all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use roaring::RoaringBitmap;

use super::ordered::OrderedDouble;
use super::posting::bitmap_of;
use super::rows::Rows;
use crate::query::{Op, compare};
use crate::value::Leaf;

/// What has changed is folded in when it is this part of all, and some more.
const FOLD_PART: usize = 8;
#[cfg(not(test))]
const FOLD_FROM: usize = 4096;
#[cfg(test)]
const FOLD_FROM: usize = 4;

/// Rows that ever had a time, by time.
#[derive(Debug, Clone, Default)]
pub(super) struct Times {
    /// Number of rows in order.
    len: u32,
    /// The rows in order; empty if they are the first `len` rows in the order of rows, as in a log that is only appended to.
    order: Vec<u32>,
    /// The times by which those are ordered whose time is another by now, or which are gone from the order.
    former: BTreeMap<u32, f64>,
    /// Rows that came since, or got another time.
    fresh: BTreeSet<(OrderedDouble, u32)>,
}

fn ordered(time: f64) -> OrderedDouble {
    // Adding zero makes -0.0 the one zero.
    OrderedDouble::from(time + 0.0)
}

impl Times {
    /// The order of some rows.
    pub(super) fn of(rows: &Rows, those: impl Iterator<Item = u32>) -> Self {
        let mut order: Vec<u32> = those.collect();
        // Mostly in order already, which this finds.
        order.sort_by_key(|&row| (ordered(rows.time(row)), row));
        let len = u32::try_from(order.len()).unwrap_or(u32::MAX);
        if order.iter().zip(0..).all(|(&row, at)| row == at) {
            order = Vec::new();
        }
        order.shrink_to_fit();
        Self { len, order, ..Self::default() }
    }

    /// Whether nothing has changed since the order was made.
    pub(super) fn settled(&self) -> Option<(u32, &[u32])> {
        (self.former.is_empty() && self.fresh.is_empty()).then_some((self.len, &*self.order))
    }

    /// As [`Times::settled`] has told.
    pub(super) fn from_settled(len: u32, order: Vec<u32>) -> Self {
        Self { len, order, ..Self::default() }
    }

    /// All rows in order.
    pub(super) fn folded(&self, rows: &Rows) -> Self {
        let old = (0..self.len).filter_map(|at| self.at(at)).filter(|row| !self.former.contains_key(row));
        Self::of(rows, old.chain(self.fresh.iter().map(|(_, row)| *row)))
    }

    fn at(&self, at: u32) -> Option<u32> {
        if self.order.is_empty() {
            return (at < self.len).then_some(at);
        }
        self.order.get(usize::try_from(at).ok()?).copied()
    }

    /// The time by which a row is ordered.
    fn time(&self, rows: &Rows, row: u32) -> f64 {
        match self.former.get(&row) {
            Some(time) => *time,
            None => rows.time(row),
        }
    }

    /// A row gets a time; `old` is the one that it had. Before `rows` knows it.
    pub(super) fn set(&mut self, rows: &Rows, row: u32, old: Option<f64>, new: f64) {
        match old {
            Some(old) if ordered(old) == ordered(new) => return,
            Some(old) => {
                if !self.fresh.remove(&(ordered(old), row)) {
                    self.former.entry(row).or_insert(old);
                }
            }
            None => {
                let last = self.len.checked_sub(1).and_then(|last| self.at(last));
                let follows =
                    last.is_none_or(|last| (ordered(self.time(rows, last)), last) <= (ordered(new), row));
                if follows && self.order.is_empty() && row == self.len {
                    self.len += 1;
                    return;
                }
                if follows && !self.order.is_empty() {
                    self.order.push(row);
                    self.len += 1;
                    return;
                }
            }
        }
        self.fresh.insert((ordered(new), row));
    }

    /// Whether so much has changed that it should be folded.
    pub(super) fn is_due(&self) -> bool {
        self.fresh.len() > usize::try_from(self.len).unwrap_or(usize::MAX) / FOLD_PART + FOLD_FROM
    }

    /// The row with the latest time of some rows that ever had one; `None` if there is none, or if it is not quicker to look at
    /// all of them.
    pub(super) fn newest(&self, rows: &Rows, among: &RoaringBitmap) -> Option<u32> {
        let most = usize::try_from(among.len()).unwrap_or(usize::MAX);
        let in_order = usize::try_from(self.len).unwrap_or(usize::MAX);
        let settled = if self.order.is_empty() && self.former.is_empty() {
            let number = self.len.checked_sub(1).map_or(0, |last| among.rank(last));
            number.checked_sub(1).and_then(|last| among.select(u32::try_from(last).ok()?))
        } else {
            let latest = (0..self.len).rev().take(most).filter_map(|at| self.at(at));
            let found = latest.into_iter().find(|row| among.contains(*row) && !self.former.contains_key(row));
            if found.is_none() && in_order > most {
                return None;
            }
            found
        };
        let fresh = self.fresh.iter().rev().take(most).map(|(_, row)| *row).find(|row| among.contains(*row));
        if fresh.is_none() && self.fresh.len() > most {
            return None;
        }
        settled.into_iter().chain(fresh).max_by_key(|&row| ordered(rows.time(row)))
    }

    /// Number of rows in order for which a condition holds that holds for the first ones and none after.
    fn partition(&self, rows: &Rows, holds: impl Fn(f64) -> bool) -> u32 {
        let (mut from, mut to) = (0, self.len);
        while from < to {
            let middle = from + (to - from) / 2;
            if self.at(middle).is_some_and(|row| holds(self.time(rows, row))) {
                from = middle + 1;
            } else {
                to = middle;
            }
        }
        from
    }

    fn between(&self, range: Range<u32>) -> RoaringBitmap {
        let mut found = if self.order.is_empty() {
            let mut found = RoaringBitmap::new();
            if !range.is_empty() {
                found.insert_range(range);
            }
            found
        } else {
            let mut rows: Vec<u32> = range.filter_map(|at| self.at(at)).collect();
            rows.sort_unstable();
            bitmap_of(rows)
        };
        self.former.keys().for_each(|&row| {
            found.remove(row);
        });
        found
    }

    /// The rows, live or not, whose time compares so.
    pub(super) fn compare(&self, rows: &Rows, op: Op, operand: &Leaf) -> RoaringBitmap {
        let holds = |op: Op, time: f64| compare(&Leaf::from(time), op, operand);
        // Of the types of operands, only numbers compare at all; NaN is unequal to every time.
        if operand.as_f64().is_none_or(f64::is_nan) {
            return if holds(op, 0.0) {
                self.between(0..self.len) | self.fresh(|_| true)
            } else {
                RoaringBitmap::new()
            };
        }
        let below = self.partition(rows, |time| holds(Op::Lt, time));
        let up_to = self.partition(rows, |time| holds(Op::Le, time));
        let found = match op {
            Op::Lt => self.between(0..below),
            Op::Le => self.between(0..up_to),
            Op::Gt => self.between(up_to..self.len),
            Op::Ge => self.between(below..self.len),
            Op::Eq => self.between(below..up_to),
            Op::Ne => self.between(0..below) | self.between(up_to..self.len),
        };
        found | self.fresh(|time| holds(op, time))
    }

    /// Those that came since: few, in proportion.
    fn fresh(&self, holds: impl Fn(f64) -> bool) -> RoaringBitmap {
        let mut rows: Vec<u32> =
            self.fresh.iter().filter(|(time, _)| holds((*time).into())).map(|(_, row)| *row).collect();
        rows.sort_unstable();
        bitmap_of(rows)
    }
}
