//! Changes of an entry's attributes, as pure functions of the object.

use crate::name::Key;
use crate::value::{Leaf, Object, Value};

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
    /// A reserved member (EPERM).
    Reserved,
    /// Not an array (EINVAL).
    NotAnArray,
}

/// Applies an edit to an object; reserved members stay. Says whether anything changed. On an error the object is unchanged.
pub fn apply(object: &mut Object<'static>, edit: &Edit) -> Result<bool, EditError> {
    todo!()
}
