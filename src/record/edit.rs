//! Changes of an entry's attributes, as pure functions of the object.

use std::collections::HashMap;

use super::{DELETED, is_deletion, is_reserved};
use crate::name::Key;
use crate::value::{Leaf, MAX_DEPTH, Object, Text, Value};

/// Whether a key must or must not exist for a `Set`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SetMode {
    /// Either.
    #[default]
    Any,
    /// It must not exist (`XATTR_CREATE`).
    Create,
    /// It must exist (`XATTR_REPLACE`).
    Replace,
}

/// One change.
#[derive(Debug, Clone, PartialEq)]
pub enum Edit {
    /// Sets a key. An equal value keeps its old token: nothing changes.
    Set(Key, Value<'static>, SetMode),
    /// Removes a key; parents that become empty objects by it are removed too.
    Unset(Key),
    /// Renames a key; a former `to` is replaced unless `no_replace`.
    Rename {
        /// The key.
        from: Key,
        /// Its new name.
        to: Key,
        /// EEXIST if `to` exists.
        no_replace: bool,
    },
    /// Adds an element to the array at the key (made if missing), unless it has it. The key is without `[]`.
    AddElement(Key, Value<'static>),
    /// Removes every element equal to this one from the array at the key.
    RemoveElement(Key, Leaf),
    /// Sets the attribute to the second value only if it is the first now, else [`EditError::NoKey`]
    /// (a move between value directories).
    Move(Key, Leaf, Value<'static>),
    /// Replaces all attributes. Reserved members in it must be as they are, or absent.
    Replace(Object<'static>),
    /// RFC 7396 merge patch. Reserved members in it must be as they are, or absent.
    Merge(Object<'static>),
}

/// Why an edit cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EditError {
    /// The key does not exist (ENODATA or ENOENT).
    NoKey,
    /// The key, or one that contradicts it (a value where members are, members where a value is), exists (EEXIST).
    Exists,
    /// A reserved member, elements (`KEY[]`) where only a whole value can be, or what would make the record a
    /// deletion (EPERM).
    Reserved,
    /// Not an array (EINVAL).
    NotAnArray,
    /// Nested deeper than [`MAX_DEPTH`]: it could not be read again (EINVAL).
    TooDeep,
}

impl std::fmt::Display for EditError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NoKey => "no such key",
            Self::Exists => "the key, or one that contradicts it, exists",
            Self::Reserved => "reserved",
            Self::NotAnArray => "not an array",
            Self::TooDeep => "nested too deeply",
        })
    }
}

impl std::error::Error for EditError {}

/// Applies an edit to an object; reserved members stay. Says whether anything changed. On an error the object is unchanged.
///
/// A key is a value: `{}` is one, an object with members is not (its members are), so it can be neither removed
/// nor renamed as a whole, and a value can be set neither in its place nor below another value.
pub fn apply(object: &mut Object<'static>, edit: &Edit) -> Result<bool, EditError> {
    match edit {
        Edit::Set(key, value, mode) => set(object, &Path::of(key)?, value, *mode),
        Edit::Unset(key) => unset(object, &Path::of(key)?).map(|_| true),
        Edit::Rename { from, to, no_replace } => {
            rename(object, &Path::of(from)?, &Path::of(to)?, *no_replace)
        }
        Edit::AddElement(key, value) => add_element(object, &Path::of(key)?, value),
        Edit::RemoveElement(key, leaf) => remove_element(object, &Path::of(key)?, leaf),
        Edit::Move(key, from, to) => {
            let path = Path::of(key)?;
            if Leaf::of(find_value(object, &path)?) != *from {
                return Err(EditError::NoKey);
            }
            set(object, &path, to, SetMode::Any)
        }
        Edit::Replace(new) => replace(object, new),
        Edit::Merge(patch) => merge(object, patch),
    }
}

/// The members that lead to an attribute.
#[derive(PartialEq)]
struct Path {
    parents: Vec<Text<'static>>,
    last: Text<'static>,
}

impl Path {
    fn of(key: &Key) -> Result<Self, EditError> {
        let mut parents = key.members();
        if key.is_elements() || parents.first().is_some_and(is_reserved) {
            return Err(EditError::Reserved);
        }
        if parents.len() > MAX_DEPTH {
            return Err(EditError::TooDeep);
        }
        let last = parents.pop().ok_or(EditError::NoKey)?;
        Ok(Self { parents, last })
    }

    /// Whether `value`, standing here, could be read again, and would not delete the entry.
    fn admits(&self, value: &Value<'_>) -> Result<(), EditError> {
        if self.parents.is_empty()
            && self.last.as_bytes() == DELETED.as_bytes()
            && *value == Value::Bool(true)
        {
            return Err(EditError::Reserved);
        }
        let room = MAX_DEPTH.checked_sub(self.parents.len() + 1).ok_or(EditError::TooDeep)?;
        if fits(value, room) { Ok(()) } else { Err(EditError::TooDeep) }
    }
}

/// Whether a value is nested at most so deep.
fn fits(value: &Value<'_>, room: usize) -> bool {
    match value {
        Value::Array(elements) => {
            room.checked_sub(1).is_some_and(|room| elements.iter().all(|element| fits(element, room)))
        }
        Value::Object(object) => members_fit(object, room),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
    }
}

fn members_fit(object: &Object<'_>, room: usize) -> bool {
    room.checked_sub(1).is_some_and(|room| object.iter().all(|(_, member)| fits(member, room)))
}

/// Whether this is no value itself but members.
fn is_members(value: &Value<'_>) -> bool {
    matches!(value, Value::Object(object) if !object.is_empty())
}

/// What stands at a path; [`EditError::Exists`] if a value lies on the way.
fn find<'o>(object: &'o Object<'static>, path: &Path) -> Result<Option<&'o Value<'static>>, EditError> {
    let mut object = object;
    for parent in &path.parents {
        match object.get_bytes(parent.as_bytes()) {
            None => return Ok(None),
            Some(Value::Object(members)) if !members.is_empty() => object = members,
            Some(_) => return Err(EditError::Exists),
        }
    }
    Ok(object.get_bytes(path.last.as_bytes()))
}

/// The value at a path; [`EditError::NoKey`] if there is none.
fn find_value<'o>(object: &'o Object<'static>, path: &Path) -> Result<&'o Value<'static>, EditError> {
    match find(object, path) {
        Ok(Some(value)) if !is_members(value) => Ok(value),
        _ => Err(EditError::NoKey),
    }
}

/// Puts a value where [`find`] found none or one to be replaced.
fn put(object: &mut Object<'static>, path: &Path, value: Value<'static>) {
    let mut object = object;
    for parent in &path.parents {
        if object.get_bytes(parent.as_bytes()).is_none() {
            object.insert(parent.clone(), Value::Object(Object::new()));
        }
        match object.get_mut(parent.as_bytes()) {
            Some(Value::Object(members)) => object = members,
            _ => return,
        }
    }
    object.insert(path.last.clone(), value);
}

fn set(
    object: &mut Object<'static>,
    path: &Path,
    value: &Value<'static>,
    mode: SetMode,
) -> Result<bool, EditError> {
    if mode == SetMode::Replace {
        find_value(object, path)?;
    }
    match find(object, path)? {
        Some(_) if mode == SetMode::Create => return Err(EditError::Exists),
        Some(present) if present.same(value) => return Ok(false),
        Some(present) if is_members(present) => return Err(EditError::Exists),
        _ => path.admits(value)?,
    }
    put(object, path, value.clone());
    Ok(true)
}

/// Takes a value out, and the parents that have no other members.
fn unset(object: &mut Object<'static>, path: &Path) -> Result<Value<'static>, EditError> {
    find_value(object, path)?;
    take(object, &path.parents, &path.last).ok_or(EditError::NoKey)
}

fn take(
    object: &mut Object<'static>,
    parents: &[Text<'static>],
    last: &Text<'static>,
) -> Option<Value<'static>> {
    let Some((parent, parents)) = parents.split_first() else { return object.remove(last.as_bytes()) };
    let Some(Value::Object(members)) = object.get_mut(parent.as_bytes()) else { return None };
    let value = take(members, parents, last);
    if members.is_empty() {
        object.remove(parent.as_bytes());
    }
    value
}

fn rename(object: &mut Object<'static>, from: &Path, to: &Path, no_replace: bool) -> Result<bool, EditError> {
    let value = find_value(object, from)?;
    if from == to {
        return if no_replace { Err(EditError::Exists) } else { Ok(false) };
    }
    to.admits(value)?;
    if from.parents == to.parents {
        // In place, so that the order is kept.
        check_target(object, to, no_replace)?;
        let mut parent = object;
        for name in &from.parents {
            match parent.get_mut(name.as_bytes()) {
                Some(Value::Object(members)) => parent = members,
                _ => return Err(EditError::NoKey),
            }
        }
        return Ok(parent.rename(from.last.as_bytes(), to.last.clone()));
    }
    // What was renamed is not in its own way: `a` to `a.b`, `a.b` to `a`.
    let mut changed = object.clone();
    let value = unset(&mut changed, from)?;
    check_target(&changed, to, no_replace)?;
    put(&mut changed, to, value);
    *object = changed;
    Ok(true)
}

fn check_target(object: &Object<'static>, to: &Path, no_replace: bool) -> Result<(), EditError> {
    match find(object, to)? {
        Some(present) if no_replace || is_members(present) => Err(EditError::Exists),
        _ => Ok(()),
    }
}

fn add_element(object: &mut Object<'static>, path: &Path, value: &Value<'static>) -> Result<bool, EditError> {
    let mut elements = match find(object, path)? {
        None => Vec::new(),
        Some(Value::Array(elements)) if elements.iter().any(|element| element.same(value)) => {
            return Ok(false);
        }
        Some(Value::Array(elements)) => elements.clone(),
        Some(_) => return Err(EditError::NotAnArray),
    };
    elements.push(value.clone());
    let array = Value::Array(elements);
    path.admits(&array)?;
    put(object, path, array);
    Ok(true)
}

fn remove_element(object: &mut Object<'static>, path: &Path, leaf: &Leaf) -> Result<bool, EditError> {
    let Value::Array(elements) = find_value(object, path)? else { return Err(EditError::NotAnArray) };
    let left: Vec<_> = elements.iter().filter(|element| Leaf::of(element) != *leaf).cloned().collect();
    if left.len() == elements.len() {
        return Err(EditError::NoKey);
    }
    put(object, path, Value::Array(left));
    Ok(true)
}

/// Checks that an object that users give neither changes reserved members nor deletes the entry.
fn check_reserved(object: &Object<'static>, given: &Object<'static>) -> Result<(), EditError> {
    let kept = given
        .iter()
        .filter(|(name, _)| is_reserved(name))
        .all(|(name, value)| object.get_bytes(name.as_bytes()).is_some_and(|present| present.same(value)));
    if kept && !is_deletion(given) { Ok(()) } else { Err(EditError::Reserved) }
}

/// Replaces all attributes, in the order of `new`. Reserved members that `new` does not have stay in front of the
/// attributes, or behind them, as they were. Values that stay keep their tokens.
fn replace(object: &mut Object<'static>, new: &Object<'static>) -> Result<bool, EditError> {
    check_reserved(object, new)?;
    if !members_fit(new, MAX_DEPTH) {
        return Err(EditError::TooDeep);
    }
    let first = object.iter().position(|(name, _)| !is_reserved(name)).unwrap_or(usize::MAX);
    let (mut front, mut back) = (Vec::new(), Vec::new());
    for (at, (name, value)) in object.iter().enumerate() {
        if is_reserved(name) && new.get_bytes(name.as_bytes()).is_none() {
            if at < first { &mut front } else { &mut back }.push((name.clone(), value.clone()));
        }
    }
    let old = by_name(object);
    let attributes = new.iter().map(|(name, value)| {
        let present = old.get(name.as_bytes()).filter(|present| present.same(value));
        (name.clone(), present.map_or(value, |present| *present).clone())
    });
    let result = front.into_iter().chain(attributes).chain(back).collect();
    let changed = result != *object;
    *object = result;
    Ok(changed)
}

/// The members by name: objects may be large, and looking through them for each of many names would take for ever.
fn by_name<'o>(object: &'o Object<'static>) -> HashMap<&'o [u8], &'o Value<'static>> {
    object.iter().map(|(name, value)| (name.as_bytes(), value)).collect()
}

fn merge(object: &mut Object<'static>, patch: &Object<'static>) -> Result<bool, EditError> {
    check_reserved(object, patch)?;
    if !members_fit(patch, MAX_DEPTH) {
        return Err(EditError::TooDeep);
    }
    let (result, changed) = merged(object, patch, is_reserved);
    *object = result;
    Ok(changed)
}

/// RFC 7396: the object with the patch applied, and whether that changes anything. Members for which `is_kept`
/// holds stay as they are. No deeper than the patch or the object.
fn merged(
    object: &Object<'static>,
    patch: &Object<'static>,
    is_kept: fn(&Text<'_>) -> bool,
) -> (Object<'static>, bool) {
    let old = by_name(object);
    let new = by_name(patch);
    let mut changed = false;
    let mut merge_value = |present: Option<&Value<'static>>, value: &Value<'static>| match (present, value) {
        (Some(Value::Object(members)), Value::Object(patch)) => {
            let (members, differs) = merged(members, patch, |_| false);
            changed |= differs;
            Value::Object(members)
        }
        (Some(present), value) if present.same(value) => present.clone(),
        (_, Value::Object(patch)) => {
            changed = true;
            Value::Object(merged(&Object::new(), patch, |_| false).0)
        }
        _ => {
            changed = true;
            value.clone()
        }
    };
    let mut members = Vec::with_capacity(object.len());
    for (name, value) in object.iter() {
        match new.get(name.as_bytes()).filter(|_| !is_kept(name)) {
            None => members.push((name.clone(), value.clone())),
            Some(Value::Null) => {}
            Some(patch) => members.push((name.clone(), merge_value(Some(value), patch))),
        }
    }
    let removed = members.len() < object.len();
    for (name, value) in patch.iter().filter(|(name, value)| {
        **value != Value::Null && !is_kept(name) && !old.contains_key(name.as_bytes())
    }) {
        members.push((name.clone(), merge_value(None, value)));
    }
    (members.into_iter().collect(), changed || removed)
}
