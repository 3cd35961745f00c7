//! What expressions mean, on one object. The index answers the same for sets; a property test compares them.

use std::cmp::Ordering;

use super::parse::{is_id, is_time};
use super::{Expr, Op, Operand, matches};
use crate::name::Key;
use crate::value::{Leaf, Object, Value};

/// Whether an expression holds for an entry: its object, its id, its time (seconds since the epoch); `now` likewise.
///
/// A comparison of different types, or on a key that is missing or has members, is false. On `KEY[]` it holds if it
/// does for some element. NaN equals NaN and is neither above nor below anything; null, true, false, arrays and
/// objects are equal or not, but have no order.
pub fn holds(expr: &Expr, object: &Object<'_>, id: &str, time: f64, now: f64) -> bool {
    let leaves = |key: &Key| leaves(key, object, id, time);
    match expr {
        Expr::Compare(key, op, operand) => {
            let operand = match operand {
                Operand::Leaf(leaf) => leaf.clone(),
                Operand::Ago(seconds) => Leaf::from(now - seconds),
            };
            leaves(key).iter().any(|leaf| compare(leaf, *op, &operand))
        }
        Expr::Like(key, pattern) => leaves(key).iter().any(|leaf| match leaf {
            Leaf::String(bytes) => std::str::from_utf8(bytes).is_ok_and(|text| matches(pattern, text)),
            _ => false,
        }),
        Expr::In(key, list) => leaves(key).iter().any(|leaf| list.contains(leaf)),
        Expr::Has(key) if is_id(key) || is_time(key) => true,
        Expr::Has(key) if key.is_elements() => !leaves(key).is_empty(),
        Expr::Has(key) => value_at(key, object).is_some(),
        Expr::And(left, right) => holds(left, object, id, time, now) && holds(right, object, id, time, now),
        Expr::Or(left, right) => holds(left, object, id, time, now) || holds(right, object, id, time, now),
        Expr::Not(inner) => !holds(inner, object, id, time, now),
    }
}

/// Whether `leaf op operand` holds.
pub fn compare(leaf: &Leaf, op: Op, operand: &Leaf) -> bool {
    if class(leaf) != class(operand) {
        return false;
    }
    let ordered =
        matches!(leaf, Leaf::Double(_) | Leaf::Integer(_) | Leaf::String(_)) && *operand != Leaf::NaN;
    match op {
        Op::Eq => leaf == operand,
        Op::Ne => leaf != operand,
        Op::Lt => ordered && leaf.cmp(operand) == Ordering::Less,
        Op::Le => ordered && leaf.cmp(operand) != Ordering::Greater,
        Op::Gt => ordered && leaf.cmp(operand) == Ordering::Greater,
        Op::Ge => ordered && leaf.cmp(operand) != Ordering::Less,
    }
}

/// Leaves of different classes are of different types.
fn class(leaf: &Leaf) -> u8 {
    match leaf {
        Leaf::Null => 0,
        Leaf::Bool(_) => 1,
        Leaf::Double(_) | Leaf::Integer(_) | Leaf::NaN => 2,
        Leaf::String(_) => 3,
        Leaf::Json(text) if text.starts_with('[') => 4,
        Leaf::Json(_) => 5,
    }
}

/// The values that a key asks about: none, one, or the elements of an array.
fn leaves(key: &Key, object: &Object<'_>, id: &str, time: f64) -> Vec<Leaf> {
    if is_id(key) {
        return vec![Leaf::String(id.as_bytes().into())];
    }
    if is_time(key) {
        return vec![Leaf::from(time)];
    }
    match value_at(key, object) {
        Some(Value::Array(elements)) if key.is_elements() => elements.iter().map(Leaf::of).collect(),
        _ if key.is_elements() => Vec::new(),
        Some(Value::Object(inner)) if !inner.is_empty() => Vec::new(),
        Some(value) => vec![Leaf::of(value)],
        None => Vec::new(),
    }
}

/// The value, with members or without, at a key.
fn value_at<'o>(key: &Key, object: &'o Object<'o>) -> Option<&'o Value<'o>> {
    if key.is_reserved() {
        return None;
    }
    object.at_path(&key.members())
}
