//! What a change in a view means for the attributes of an entry.

use super::{Set, Term};
use crate::name::Key;
use crate::record::{Edit, SetMode};
use crate::value::Leaf;

/// The key and value of a value directory that links can be moved to and from; `None` for all other sets.
fn value_of(set: &Set) -> Option<(&Key, &Leaf)> {
    match set.terms().last() {
        Some(Term::Value(key, leaf)) if !key.is_reserved() => Some((key, leaf)),
        _ => None,
    }
}

/// `ln -s` into a set directory: sets the value, or adds the element. `None`: not in this directory.
pub fn add(to: &Set) -> Option<Vec<Edit>> {
    let (key, leaf) = value_of(to)?;
    Some(vec![if key.is_elements() {
        Edit::AddElement(key.without_elements(), leaf.to_value())
    } else {
        Edit::Set(key.clone(), leaf.to_value(), SetMode::Any)
    }])
}

/// `rm` in a set directory: takes the element out. `None`: not in this directory; the link of a scalar stays, for
/// a value is not removed but replaced.
pub fn remove(from: &Set) -> Option<Vec<Edit>> {
    let (key, leaf) = value_of(from)?;
    key.is_elements().then(|| vec![Edit::RemoveElement(key.without_elements(), leaf.clone())])
}

/// `mv` from one value directory of a key to another of the same key. `None`: not between these.
pub fn rename(from: &Set, to: &Set) -> Option<Vec<Edit>> {
    let (key, old) = value_of(from)?;
    let (to_key, new) = value_of(to)?;
    if key != to_key {
        return None;
    }
    Some(if key.is_elements() {
        let array = key.without_elements();
        vec![Edit::RemoveElement(array.clone(), old.clone()), Edit::AddElement(array, new.to_value())]
    } else {
        vec![Edit::Move(key.clone(), old.clone(), new.to_value())]
    })
}
