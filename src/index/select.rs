//! Questions about many entries: sets by expression, order, and values by their cut names.

use std::ops::Bound::{self, Excluded, Included, Unbounded};

use roaring::RoaringBitmap;

use super::attribute::Attribute;
use super::posting::{Posting, Union, bitmap_of};
use super::{Index, Row};
use crate::name::{self, Key, NAME_MAX};
use crate::query::{Expr, Op, Operand, compare, matches};
use crate::value::Leaf;

/// A range of values.
type Range = (Bound<Leaf>, Bound<Leaf>);

/// The values of the operand's type.
fn class(leaf: &Leaf) -> Range {
    match leaf {
        Leaf::Null => (Included(Leaf::Null), Included(Leaf::Null)),
        Leaf::Bool(_) => (Included(Leaf::Bool(false)), Included(Leaf::Bool(true))),
        Leaf::Double(_) | Leaf::Integer(_) | Leaf::NaN => {
            (Included(Leaf::Double(f64::NEG_INFINITY)), Included(Leaf::NaN))
        }
        Leaf::String(_) => (Included(Leaf::String(Box::default())), Excluded(Leaf::Json(Box::default()))),
        // Nothing but arrays begins with `[`, and `\` is what follows it.
        Leaf::Json(text) if text.starts_with('[') => {
            (Included(Leaf::Json("[".into())), Excluded(Leaf::Json("\\".into())))
        }
        Leaf::Json(_) => (Included(Leaf::Json("{".into())), Unbounded),
    }
}

/// The values below or above the operand: none for types that have no order of their own, and for NaN, which has none.
fn ordered(op: Op, leaf: &Leaf) -> Option<Range> {
    let (from, to) = match leaf {
        Leaf::Null | Leaf::Bool(_) | Leaf::NaN | Leaf::Json(_) => return None,
        Leaf::Double(_) | Leaf::Integer(_) => (class(leaf).0, Excluded(Leaf::NaN)),
        Leaf::String(_) => class(leaf),
    };
    match op {
        Op::Eq | Op::Ne => None,
        Op::Lt => Some((from, Excluded(leaf.clone()))),
        Op::Le => Some((from, Included(leaf.clone()))),
        Op::Gt => Some((Excluded(leaf.clone()), to)),
        Op::Ge => Some((Included(leaf.clone()), to)),
    }
}

impl Attribute {
    fn in_range(&self, range: Range) -> RoaringBitmap {
        // `BTreeMap::range` panics on a range that excludes its one value twice or is reversed.
        if let (Included(from) | Excluded(from), Included(to) | Excluded(to)) = (&range.0, &range.1)
            && (from > to || from == to && range != (Included(from.clone()), Included(to.clone())))
        {
            return RoaringBitmap::new();
        }
        let mut union = Union::default();
        union.extend(self.values.range(range).map(|(_, posting)| posting));
        union.finish()
    }

    fn equal(&self, leaf: &Leaf) -> RoaringBitmap {
        self.values.get(leaf).map(Posting::to_bitmap).unwrap_or_default()
    }

    fn compare(&self, op: Op, leaf: &Leaf) -> RoaringBitmap {
        match op {
            Op::Eq => self.equal(leaf),
            Op::Ne => {
                // Not the class less the equal ones: an array may have this element and others.
                let mut union = Union::default();
                union.extend(
                    self.values
                        .range(class(leaf))
                        .filter(|(other, _)| *other != leaf)
                        .map(|(_, posting)| posting),
                );
                union.finish()
            }
            Op::Lt | Op::Le | Op::Gt | Op::Ge => {
                ordered(op, leaf).map(|range| self.in_range(range)).unwrap_or_default()
            }
        }
    }

    fn like(&self, pattern: &str) -> RoaringBitmap {
        let literal = pattern.split(['*', '?']).next().unwrap_or_default().as_bytes();
        let from = (Included(Leaf::String(literal.into())), Excluded(Leaf::Json(Box::default())));
        let mut union = Union::default();
        for (leaf, posting) in self.values.range(from) {
            let Leaf::String(text) = leaf else { break };
            if !text.starts_with(literal) {
                break;
            }
            if std::str::from_utf8(text).is_ok_and(|text| matches(pattern, text)) {
                union.add(posting);
            }
        }
        union.finish()
    }
}

impl Index {
    /// The rows for which an expression holds; `now` is seconds since the epoch. `_timestamp` and `$` ask about the entry's
    /// time, `_id` and `@` about its id. An integer or double compares with dates spelled `2026-11-22` on the time only.
    pub fn select(&self, expr: &Expr, now: f64) -> RoaringBitmap {
        match expr {
            Expr::And(left, right) => {
                let left = self.select(left, now);
                if left.is_empty() {
                    return left;
                }
                // `not` on the right is taken away, rather than made whole.
                if let Expr::Not(right) = &**right {
                    left - self.select(right, now)
                } else {
                    left & self.select(right, now)
                }
            }
            Expr::Or(left, right) => self.select(left, now) | self.select(right, now),
            Expr::Not(inner) => &self.live - self.select(inner, now),
            Expr::Has(key) if is_id(key) || is_time(key) => self.live.clone(),
            Expr::Has(key) => {
                let mut rows = RoaringBitmap::new();
                for attribute in self.keys.family(key).filter_map(|number| self.attribute(number)) {
                    rows |= &attribute.rows;
                }
                rows
            }
            Expr::Compare(key, op, operand) => {
                let age;
                let operand = match operand {
                    Operand::Leaf(leaf) => leaf,
                    Operand::Ago(seconds) => {
                        age = Leaf::from(now - seconds);
                        &age
                    }
                };
                if is_id(key) {
                    self.compare_id(*op, operand)
                } else if is_time(key) {
                    self.live_where(|row| compare(&Leaf::from(self.rows.time(row)), *op, operand))
                } else {
                    self.attribute_of(key)
                        .map(|attribute| attribute.compare(*op, operand))
                        .unwrap_or_default()
                }
            }
            Expr::In(key, list) if is_time(key) => {
                self.live_where(|row| list.contains(&Leaf::from(self.rows.time(row))))
            }
            Expr::In(key, list) if is_id(key) => list
                .iter()
                .map(|leaf| self.compare_id(Op::Eq, leaf))
                .fold(RoaringBitmap::new(), |all, rows| all | rows),
            Expr::In(key, list) => {
                let mut union = Union::default();
                if let Some(attribute) = self.attribute_of(key) {
                    union.extend(list.iter().filter_map(|leaf| attribute.values.get(leaf)));
                }
                union.finish()
            }
            Expr::Like(key, pattern) if is_id(key) => {
                self.live_where(|row| self.ids.get(row).is_some_and(|id| matches(pattern, id)))
            }
            Expr::Like(key, pattern) => {
                self.attribute_of(key).map(|attribute| attribute.like(pattern)).unwrap_or_default()
            }
        }
    }

    fn compare_id(&self, op: Op, operand: &Leaf) -> RoaringBitmap {
        let Leaf::String(operand) = operand else { return RoaringBitmap::new() };
        if op == Op::Eq {
            let row = std::str::from_utf8(operand).ok().and_then(|id| self.row(id));
            return bitmap_of(row.map(|Row(row)| row));
        }
        self.live_where(|row| {
            let order = self.ids.get(row).map(|id| id.as_bytes().cmp(operand));
            order.is_some_and(|order| match op {
                Op::Eq => order.is_eq(),
                Op::Ne => order.is_ne(),
                Op::Lt => order.is_lt(),
                Op::Le => order.is_le(),
                Op::Gt => order.is_gt(),
                Op::Ge => order.is_ge(),
            })
        })
    }

    fn live_where(&self, holds: impl Fn(u32) -> bool) -> RoaringBitmap {
        bitmap_of(self.live.iter().filter(|&row| holds(row)))
    }

    /// The rows of `set` that have `key`, in ascending order of its value (equal ones in order of rows; of an array's
    /// elements the least counts); descending is this, reversed. `_timestamp`, `$`, `_id`, `@` order by the time and the id.
    pub fn sorted(&self, key: &Key, set: &RoaringBitmap) -> Vec<Row> {
        if is_id(key) || is_time(key) {
            let mut rows: Vec<u32> = (set & &self.live).iter().collect();
            if is_id(key) {
                rows.sort_unstable_by(|&a, &b| self.ids.get(a).cmp(&self.ids.get(b)));
            } else {
                // Adding zero makes -0.0 the one zero.
                rows.sort_by(|&a, &b| (self.rows.time(a) + 0.0).total_cmp(&(self.rows.time(b) + 0.0)));
            }
            return rows.into_iter().map(Row).collect();
        }
        let Some(attribute) = self.attribute_of(key) else { return Vec::new() };
        let mut left = &attribute.rows & set;
        let total = usize::try_from(left.len()).unwrap_or(usize::MAX);
        let all = left.len() == attribute.rows.len();
        let mut rows = Vec::with_capacity(total);
        for posting in attribute.values.values() {
            if rows.len() >= total {
                break;
            }
            let from = rows.len();
            if key.is_elements() {
                posting.append_to(&mut rows, Some(&left));
                for row in rows.iter().skip(from) {
                    left.remove(*row);
                }
            } else {
                posting.append_to(&mut rows, if all { None } else { Some(&left) });
            }
        }
        rows.into_iter().map(Row).collect()
    }

    /// The value whose directory name, too long and cut, is `name`; see [`crate::name::to_file_name`].
    pub fn leaf_by_cut_name(&self, key: &Key, name: &str) -> Option<Leaf> {
        let attribute = self.attribute_of(key)?;
        let prefix = name::cut_prefix(name)?;
        // The cut may go through an escape; a `%` of the text itself is always escaped.
        let prefix = match prefix.rfind('%') {
            Some(at) if at + 3 > prefix.len() => prefix.get(..at)?,
            _ => prefix,
        };
        let prefix = name::unescape(prefix)?;
        let is_it = |leaf: &&Leaf| {
            let text = leaf.to_text();
            text.starts_with(&prefix) && name::to_file_name(&text) == name
        };
        let find = |range: Range| attribute.values.range(range).map(|(leaf, _)| leaf).find(is_it);
        let find_from = |from: Leaf| {
            let values = attribute.values.range(from..).map(|(leaf, _)| leaf);
            let begins = |leaf: &&Leaf| match leaf {
                Leaf::String(text) => text.starts_with(prefix.as_bytes()),
                Leaf::Json(text) => text.starts_with(&prefix),
                _ => false,
            };
            values.take_while(begins).find(is_it)
        };
        let bare = || find_from(Leaf::String(prefix.as_bytes().into()));
        let found = match prefix.chars().next()? {
            '"' => {
                // Every byte of a string becomes 6 at most in JSON, and every one of those 3 at most in a name.
                let strings =
                    attribute.values.range(class(&Leaf::String(Box::default()))).map(|(leaf, _)| leaf);
                strings
                    .filter(|leaf| matches!(leaf, Leaf::String(text) if text.len() > NAME_MAX / 18))
                    .find(is_it)
            }
            '[' | '{' => find_from(Leaf::Json(prefix.as_str().into())).or_else(bare),
            // Only whole numbers of hundreds of digits have names as long as that.
            '-' => find((Included(Leaf::Double(f64::NEG_INFINITY)), Included(Leaf::Double(-1e200))))
                .or_else(bare),
            '0'..='9' => find((Included(Leaf::Double(1e200)), Included(Leaf::NaN))).or_else(bare),
            _ => bare(),
        };
        found.cloned()
    }
}

fn is_id(key: &Key) -> bool {
    matches!(key.as_str(), "_id" | "@")
}

fn is_time(key: &Key) -> bool {
    matches!(key.as_str(), "_timestamp" | "$")
}
