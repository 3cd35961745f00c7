//! Changing attributes through links: `mv`, `ln -s` and `rm` in set directories.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use super::attr::id_of;
use super::place::Place;
use super::{Tree, text};
use crate::index::Row;
use crate::name::Id;
use crate::vfs::{Caller, Done, Entry, Error, Ino, Result};
use crate::view::{Base, Dir, Set, change};

/// `mv -n`; all other flags are for what views do not have.
const NO_REPLACE: u32 = libc::RENAME_NOREPLACE;

impl Tree {
    /// Removes a name that is no directory.
    pub fn unlink(self: &Arc<Self>, caller: &Caller, parent: Ino, name: &OsStr, done: Done<()>) {
        let place = match self.writable().and_then(|()| self.place(parent)) {
            Ok(place) => place,
            Err(error) => return done(Err(error)),
        };
        match &*place {
            Place::Attrs(root) => self.unlink_attribute(caller, root, name, done),
            Place::View(Dir::Set(set)) => {
                let change = change::remove(set).ok_or(Error::NotPermitted).and_then(|edits| {
                    let (id, row) = self.linked(name)?;
                    if !self.rows(set).bitmap.contains(row.0) {
                        return Err(Error::NotFound);
                    }
                    self.may_change(caller, &id)?;
                    Ok((id, edits))
                });
                match change {
                    Ok((id, edits)) => self.edit(id, edits, done),
                    Err(error) => done(Err(error)),
                }
            }
            _ => done(Err(Error::NotPermitted)),
        }
    }

    /// The live entry that a link's name says.
    fn linked(&self, name: &OsStr) -> Result<(Id, Row)> {
        let id = name.to_str().and_then(Id::from_file_name).ok_or(Error::NotFound)?;
        let row = self.row(&id)?;
        Ok((id, row))
    }

    /// `ln -s ../../../entries/ID by-attr/KEY/VALUE/ID`
    pub fn symlink(
        self: &Arc<Self>,
        caller: &Caller,
        parent: Ino,
        name: &OsStr,
        target: &OsStr,
        done: Done<Entry>,
    ) {
        self.shown.view();
        let change = || -> Result<_> {
            self.writable()?;
            let place = self.place(parent)?;
            let Place::View(Dir::Set(set)) = &*place else { return Err(Error::NotPermitted) };
            let edits = change::add(set).ok_or(Error::NotPermitted)?;
            // The link says what it is called after; it cannot point elsewhere.
            if target.as_bytes().rsplit(|&byte| byte == b'/').next() != Some(name.as_bytes()) {
                return Err(Error::NotPermitted);
            }
            let (id, row) = self.linked(name)?;
            if self.rows(set).bitmap.contains(row.0) {
                return Err(Error::Exists);
            }
            self.fits(set, row)?;
            self.may_change(caller, &id)?;
            Ok((set.clone(), id, row, edits))
        };
        match change() {
            Ok((set, id, row, edits)) => {
                let tree = Arc::clone(self);
                let enter =
                    move |result: Result<()>| result.and_then(|()| tree.enter_link(parent, &set, row));
                self.edit(id, edits, Box::new(move |result| done(enter(result))));
            }
            Err(error) => done(Err(error)),
        }
    }

    /// Whether an entry that gets the value of a set directory is in the set then: the change sets its last term and no other.
    fn fits(&self, set: &Set, row: Row) -> Result<()> {
        let (before, _) = set.split_last().ok_or(Error::NotPermitted)?;
        if self.rows(&before).bitmap.contains(row.0) { Ok(()) } else { Err(Error::NotPermitted) }
    }

    /// Renames between virtual directories.
    pub fn rename(
        self: &Arc<Self>,
        caller: &Caller,
        from: (Ino, &OsStr),
        to: (Ino, &OsStr),
        flags: u32,
        done: Done<()>,
    ) {
        let places = self.writable().and_then(|()| Ok((self.place(from.0)?, self.place(to.0)?)));
        let (from_place, to_place) = match places {
            Ok(places) => places,
            Err(error) => return done(Err(error)),
        };
        if flags & !NO_REPLACE != 0 {
            return done(Err(Error::Invalid));
        }
        let no_replace = flags & NO_REPLACE != 0;
        match (&*from_place, &*to_place) {
            (Place::Attrs(root), Place::Attrs(other)) if id_of(root) == id_of(other) => {
                self.rename_attribute(caller, id_of(root), from.1, to.1, no_replace, done);
            }
            (Place::Attrs(_), Place::Attrs(_)) => done(Err(Error::CrossDevice)),
            (Place::View(Dir::Set(entries)), Place::Trash) if is_entries(entries) => {
                done(self.move_to_trash(caller, from.1, to.1));
            }
            (Place::Trash, Place::View(Dir::Set(entries))) if is_entries(entries) => {
                done(self.out_of_trash(caller, from.1, to.1));
            }
            (Place::View(Dir::Set(old)), Place::View(Dir::Set(new))) => {
                let change = self.move_between(caller, (old, from.1), (new, to.1), no_replace);
                match change {
                    Ok((id, edits)) => self.edit(id, edits, done),
                    Err(error) => done(Err(error)),
                }
            }
            _ => done(Err(Error::NotPermitted)),
        }
    }

    /// `mv by-attr/KEY/VALUE/ID by-attr/KEY/OTHER/`
    fn move_between(
        &self,
        caller: &Caller,
        from: (&Set, &OsStr),
        to: (&Set, &OsStr),
        no_replace: bool,
    ) -> Result<(Id, Vec<crate::record::Edit>)> {
        let edits = change::rename(from.0, to.0).ok_or(Error::NotPermitted)?;
        if from.1 != to.1 {
            return Err(Error::NotPermitted);
        }
        text(from.1).map_err(|_| Error::NotFound)?;
        let (id, row) = self.linked(from.1)?;
        if !self.rows(from.0).bitmap.contains(row.0) {
            return Err(Error::NotFound);
        }
        self.fits(to.0, row)?;
        if no_replace && self.rows(to.0).bitmap.contains(row.0) {
            return Err(Error::Exists);
        }
        self.may_change(caller, &id)?;
        Ok((id, edits))
    }
}

fn is_entries(set: &Set) -> bool {
    set.is_all() && set.base() == Base::Entries
}
