//! Questions about many entries: sets by expression, order, and values by their cut names.

use std::ops::Bound::{Excluded, Included, Unbounded};

use roaring::RoaringBitmap;

use super::attribute::{Attribute, Between};
use super::posting::bitmap_of;
use super::{Index, Row};
use crate::name::{self, Key, NAME_MAX};
use crate::query::{Expr, Op, Operand, compare, matches};
use crate::value::Leaf;

/// The values of the operand's type.
fn class(leaf: &Leaf) -> Between {
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
fn ordered(op: Op, leaf: &Leaf) -> Option<Between> {
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
    fn compare(&self, op: Op, leaf: &Leaf, within: Option<&RoaringBitmap>) -> RoaringBitmap {
        match op {
            Op::Eq => self.posting(leaf),
            Op::Ne => {
                // Not the class less the equal ones: an array may have this element and others.
                let (from, to) = class(leaf);
                let mut rows = RoaringBitmap::new();
                for range in [(from, Excluded(leaf.clone())), (Excluded(leaf.clone()), to)] {
                    rows |= self.in_range(&range, within);
                }
                rows
            }
            Op::Lt | Op::Le | Op::Gt | Op::Ge => {
                ordered(op, leaf).map(|range| self.in_range(&range, within)).unwrap_or_default()
            }
        }
    }

    fn like(&self, pattern: &str) -> RoaringBitmap {
        let literal = pattern.split(['*', '?']).next().unwrap_or_default().as_bytes();
        let begins = |leaf: &Leaf| matches!(leaf, Leaf::String(text) if text.starts_with(literal));
        let holds = |leaf: &Leaf| match leaf {
            Leaf::String(text) => std::str::from_utf8(text).is_ok_and(|text| matches(pattern, text)),
            _ => false,
        };
        self.select(&Leaf::String(literal.into()), begins, holds)
    }
}

impl Index {
    /// The rows for which an expression holds; `now` is seconds since the epoch. `_timestamp` and `$` ask about the entry's
    /// time, `_id` and `@` about its id. An integer or double compares with dates spelled `2026-11-22` on the time only.
    pub fn select(&self, expr: &Expr, now: f64) -> RoaringBitmap {
        self.ask(expr, now, None)
    }

    /// The rows of a set for which an expression holds, as [`Index::select`]; of a small set it takes little time.
    pub fn select_in(&self, expr: &Expr, now: f64, within: &RoaringBitmap) -> RoaringBitmap {
        self.ask(expr, now, Some(within)) & within
    }

    /// The rows for which an expression holds; of others than those `within` it may say anything.
    fn ask(&self, expr: &Expr, now: f64, within: Option<&RoaringBitmap>) -> RoaringBitmap {
        match expr {
            Expr::And(left, right) => {
                // The smaller first, and the other only about what is left.
                let (first, second) =
                    if self.estimate(right) < self.estimate(left) { (right, left) } else { (left, right) };
                let first = match within {
                    Some(within) => self.ask(first, now, Some(within)) & within,
                    None => self.ask(first, now, None),
                };
                if first.is_empty() {
                    return first;
                }
                // `not` is taken away, rather than made whole.
                if let Expr::Not(second) = &**second {
                    let second = self.ask(second, now, Some(&first));
                    first - second
                } else {
                    let second = self.ask(second, now, Some(&first));
                    first & second
                }
            }
            Expr::Or(left, right) => self.ask(left, now, within) | self.ask(right, now, within),
            Expr::Not(inner) => match within {
                Some(within) => (within & &self.live) - self.ask(inner, now, Some(within)),
                None => &self.live - self.ask(inner, now, None),
            },
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
                    self.compare_id(*op, operand, within)
                } else if is_time(key) {
                    self.compare_time(*op, operand, within)
                } else {
                    self.attribute_of(key)
                        .map(|attribute| attribute.compare(*op, operand, within))
                        .unwrap_or_default()
                }
            }
            Expr::In(key, list) if is_time(key) => list
                .iter()
                .map(|leaf| self.compare_time(Op::Eq, leaf, within))
                .fold(RoaringBitmap::new(), |all, rows| all | rows),
            Expr::In(key, list) if is_id(key) => list
                .iter()
                .map(|leaf| self.compare_id(Op::Eq, leaf, within))
                .fold(RoaringBitmap::new(), |all, rows| all | rows),
            Expr::In(key, list) => {
                self.attribute_of(key).map(|attribute| attribute.among(list.iter())).unwrap_or_default()
            }
            Expr::Like(key, pattern) if is_id(key) => {
                self.live_where(within, |row| self.ids.get(row).is_some_and(|id| matches(pattern, id)))
            }
            Expr::Like(key, pattern) => {
                self.attribute_of(key).map(|attribute| attribute.like(pattern)).unwrap_or_default()
            }
        }
    }

    /// About how many rows there are for which an expression holds, and so how much work it is.
    fn estimate(&self, expr: &Expr) -> u64 {
        let class_of = |key: &Key, range: &Between| {
            self.attribute_of(key).map_or(0, |attribute| attribute.estimate(range))
        };
        match expr {
            Expr::And(left, right) => self.estimate(left).min(self.estimate(right)),
            Expr::Or(left, right) => self.estimate(left) + self.estimate(right),
            Expr::Compare(key, Op::Eq, _) if is_id(key) => 1,
            Expr::Compare(key, ..) if is_id(key) || is_time(key) => self.live.len(),
            Expr::Compare(key, op, operand) => {
                let Operand::Leaf(leaf) = operand else { return 0 };
                let range = match op {
                    Op::Eq => Some((Included(leaf.clone()), Included(leaf.clone()))),
                    Op::Ne => Some(class(leaf)),
                    Op::Lt | Op::Le | Op::Gt | Op::Ge => ordered(*op, leaf),
                };
                range.map_or(0, |range| class_of(key, &range))
            }
            Expr::In(key, list) if !is_id(key) && !is_time(key) => {
                list.iter().map(|leaf| class_of(key, &(Included(leaf.clone()), Included(leaf.clone())))).sum()
            }
            Expr::In(_, list) => list.len() as u64,
            Expr::Not(_) | Expr::Like(..) | Expr::Has(_) => self.live.len(),
        }
    }

    fn compare_time(&self, op: Op, operand: &Leaf, within: Option<&RoaringBitmap>) -> RoaringBitmap {
        match within {
            Some(within) if within.len() < self.live.len() / 16 => {
                self.live_where(Some(within), |row| compare(&Leaf::from(self.rows.time(row)), op, operand))
            }
            _ => self.times.compare(&self.rows, op, operand) & &self.live,
        }
    }

    fn compare_id(&self, op: Op, operand: &Leaf, within: Option<&RoaringBitmap>) -> RoaringBitmap {
        let Leaf::String(operand) = operand else { return RoaringBitmap::new() };
        if op == Op::Eq {
            let row = std::str::from_utf8(operand).ok().and_then(|id| self.row(id));
            return bitmap_of(row.map(|Row(row)| row));
        }
        self.live_where(within, |row| {
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

    fn live_where(&self, within: Option<&RoaringBitmap>, holds: impl Fn(u32) -> bool) -> RoaringBitmap {
        match within {
            Some(within) => bitmap_of((within & &self.live).iter().filter(|&row| holds(row))),
            None => bitmap_of(self.live.iter().filter(|&row| holds(row))),
        }
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
        attribute.sorted(set, key.is_elements()).into_iter().map(Row).collect()
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
        let is_it = |leaf: &Leaf| {
            let text = leaf.to_text();
            text.starts_with(&prefix) && name::to_file_name(&text) == name
        };
        let find = |range: Between| attribute.find(&range, |_| true, is_it);
        let find_from = |from: Leaf| {
            let begins = |leaf: &Leaf| match leaf {
                Leaf::String(text) => text.starts_with(prefix.as_bytes()),
                Leaf::Json(text) => text.starts_with(&prefix),
                _ => false,
            };
            attribute.find(&(Included(from), Unbounded), begins, is_it)
        };
        let bare = || find_from(Leaf::String(prefix.as_bytes().into()));
        match prefix.chars().next()? {
            '"' => {
                // Every byte of a string becomes 6 at most in JSON, and every one of those 3 at most in a name.
                let long = |leaf: &Leaf| matches!(leaf, Leaf::String(text) if text.len() > NAME_MAX / 18);
                attribute.find(
                    &class(&Leaf::String(Box::default())),
                    |_| true,
                    |leaf| long(leaf) && is_it(leaf),
                )
            }
            '[' | '{' => find_from(Leaf::Json(prefix.as_str().into())).or_else(bare),
            // Only whole numbers of hundreds of digits have names as long as that.
            '-' => find((Included(Leaf::Double(f64::NEG_INFINITY)), Included(Leaf::Double(-1e200))))
                .or_else(bare),
            '0'..='9' => find((Included(Leaf::Double(1e200)), Included(Leaf::NaN))).or_else(bare),
            _ => bare(),
        }
    }
}

fn is_id(key: &Key) -> bool {
    matches!(key.as_str(), "_id" | "@")
}

fn is_time(key: &Key) -> bool {
    matches!(key.as_str(), "_timestamp" | "$")
}
