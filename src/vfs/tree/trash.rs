//! `trash/`: entries taken out, to be put back or removed for good.

use std::ffi::OsStr;

use super::{Tree, text};
use crate::name::Id;
use crate::trash::{self, TrashError};
use crate::vfs::content::Root;
use crate::vfs::{Caller, Entry, Error, Result};

impl From<TrashError> for Error {
    fn from(error: TrashError) -> Self {
        match error {
            TrashError::NotFound => Self::NotFound,
            TrashError::Exists => Self::Exists,
            TrashError::Malformed => Self::Invalid,
            TrashError::Cache(error) => Self::Cache(error),
            TrashError::Io { source, .. } => Self::Io(source),
        }
    }
}

impl Tree {
    pub(super) fn lookup_trash(&self, name: &str) -> Result<Entry> {
        self.shown.view();
        let id = Id::from_file_name(name).ok_or(Error::NotFound)?;
        if self.row(&id).is_ok() {
            return Err(Error::NotFound);
        }
        trash::get(&self.cache, &id)?;
        let mut entry = self.enter_root(Root::Trash(id))?;
        entry.entry_ttl = self.view_ttl().min(super::SHORT);
        Ok(entry)
    }

    /// `mv entries/ID trash/`
    pub(super) fn move_to_trash(&self, caller: &Caller, name: &OsStr, new_name: &OsStr) -> Result<()> {
        let id = same_id(name, new_name)?;
        {
            let _as = self.act_as(caller)?;
            trash::put(&self.cache, &id)?;
        }
        self.gone(&id);
        Ok(())
    }

    /// `mv trash/ID entries/`
    pub(super) fn out_of_trash(&self, caller: &Caller, name: &OsStr, new_name: &OsStr) -> Result<()> {
        let id = same_id(name, new_name)?;
        {
            let _as = self.act_as(caller)?;
            trash::restore(&self.cache, &id)?;
        }
        self.contents.gone(&Root::Trash(id));
        Ok(())
    }

    /// `rmdir trash/ID`, once its contents are gone: final.
    pub(super) fn remove_trashed(&self, caller: &Caller, name: &str) -> Result<()> {
        let id = Id::from_file_name(name).ok_or(Error::NotFound)?;
        trash::get(&self.cache, &id)?;
        let root = Root::Trash(id);
        if !self.contents.is_empty_root(&root)? {
            return Err(Error::NotEmpty);
        }
        self.contents.rmdir_root(caller, &root)?;
        {
            let _as = self.act_as(caller)?;
            if let Root::Trash(id) = &root {
                trash::remove_record(&self.cache, id)?;
            }
        }
        self.contents.gone(&root);
        Ok(())
    }
}

/// An entry keeps its id wherever it is moved.
fn same_id(name: &OsStr, new_name: &OsStr) -> Result<Id> {
    if name != new_name {
        return Err(Error::NotPermitted);
    }
    Id::from_file_name(text(name).map_err(|_| Error::NotFound)?).ok_or(Error::NotFound)
}
