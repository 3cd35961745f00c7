//! Attributes as extended attributes `user.KEY` of an entry's directory.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use super::Tree;
use super::attr::id_of;
use crate::cache::CacheError;
use crate::name::{Id, Key, NAME_MAX, flatten};
use crate::record::{Edit, EditError, SetMode};
use crate::vfs::content::Root;
use crate::vfs::{Caller, Done, Error, Ino, Result};
use crate::view::attribute;

const PREFIX: &[u8] = b"user.";
/// Longest value that the kernel hands out.
const VALUE_MAX: usize = 64 << 10;

impl Tree {
    /// The entry whose attribute `name` of the node is; `None` if it is an attribute of the real directory.
    fn entry_of(&self, ino: Ino, name: &OsStr) -> Option<Id> {
        if !name.as_bytes().starts_with(PREFIX) {
            return None;
        }
        self.entry_at(ino)
    }

    fn entry_at(&self, ino: Ino) -> Option<Id> {
        match self.contents.as_root(ino)? {
            Root::Trash(_) => None,
            root => Some(id_of(&root).clone()),
        }
    }

    /// Sets an extended attribute of a node of the contents.
    pub fn setxattr(
        self: &Arc<Self>,
        caller: &Caller,
        ino: Ino,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        done: Done<()>,
    ) {
        let Some(id) = self.entry_of(ino, name) else {
            return done(self.contents.setxattr(caller, ino, name, value, flags));
        };
        let edit = key_of(name).and_then(|key| {
            if key.is_elements() {
                return Err(Error::Invalid);
            }
            self.may_change(caller, &id)?;
            let mode = match flags {
                libc::XATTR_CREATE => SetMode::Create,
                libc::XATTR_REPLACE => SetMode::Replace,
                _ => SetMode::Any,
            };
            Ok(Edit::Set(key, attribute::parse_text(value)?, mode))
        });
        match edit {
            Ok(edit) => self.edit_xattr(id, edit, done),
            Err(error) => done(Err(error)),
        }
    }

    fn edit_xattr(&self, id: Id, edit: Edit, done: Done<()>) {
        let done: Done<()> = Box::new(|result| {
            done(result.map_err(|error| match error {
                Error::Cache(CacheError::Edit(EditError::NoKey)) => Error::NoAttribute,
                other => other,
            }));
        });
        self.edit(id, vec![edit], done);
    }

    /// An extended attribute of a node of the contents.
    pub fn getxattr(&self, caller: &Caller, ino: Ino, name: &OsStr) -> Result<Vec<u8>> {
        let Some(id) = self.entry_of(ino, name) else {
            return self.contents.getxattr(caller, ino, name);
        };
        let key = key_or_reserved(name).map_err(|_| Error::NoAttribute)?;
        let record = self.record(&id)?;
        let text = attribute::text(&record.object, &id, record.time, &key).ok_or(Error::NoAttribute)?;
        Ok(text.into_bytes())
    }

    /// The names of extended attributes of a node of the contents.
    pub fn listxattr(&self, caller: &Caller, ino: Ino) -> Result<Vec<u8>> {
        let mut names = self.contents.listxattr(caller, ino)?;
        let Some(id) = self.entry_at(ino) else { return Ok(names) };
        // What the real directory has of them is not seen.
        names = names
            .split_inclusive(|&byte| byte == 0)
            .filter(|name| !name.starts_with(PREFIX))
            .flatten()
            .copied()
            .collect();
        let record = self.record(&id)?;
        for (key, value) in flatten(&record.object) {
            if PREFIX.len() + key.as_str().len() <= NAME_MAX && value.to_text().len() <= VALUE_MAX {
                names.extend_from_slice(PREFIX);
                names.extend_from_slice(key.as_str().as_bytes());
                names.push(0);
            }
        }
        Ok(names)
    }

    /// Removes an extended attribute of a node of the contents.
    pub fn removexattr(self: &Arc<Self>, caller: &Caller, ino: Ino, name: &OsStr, done: Done<()>) {
        let Some(id) = self.entry_of(ino, name) else {
            return done(self.contents.removexattr(caller, ino, name));
        };
        match key_of(name).and_then(|key| self.may_change(caller, &id).map(|()| key)) {
            Ok(key) => self.edit_xattr(id, Edit::Unset(key), done),
            Err(error) => done(Err(error)),
        }
    }
}

fn key_or_reserved(name: &OsStr) -> Result<Key> {
    let key = name.as_bytes().get(PREFIX.len()..).unwrap_or_default();
    let key = std::str::from_utf8(key).map_err(|_| Error::NotUtf8)?;
    Ok(Key::parse(key)?)
}

/// A key that can be changed.
fn key_of(name: &OsStr) -> Result<Key> {
    let key = key_or_reserved(name)?;
    if key.is_reserved() { Err(Error::NotPermitted) } else { Ok(key) }
}
