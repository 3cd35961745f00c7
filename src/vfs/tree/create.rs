//! Making and removing entries and value directories.

use std::ffi::{CString, OsStr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::lookup::{memo_number, memo_pairs, memo_row, object_of};
use super::place::Place;
use super::{Tree, now, text};
use crate::backing::{self, credentials};
use crate::cache::{Change, Outcome};
use crate::name::{Id, pairs_to_list, parse_pairs};
use crate::trash::TrashError;
use crate::value::Object;
use crate::vfs::content::Root;
use crate::vfs::{Caller, Done, Entry, Error, Ino, Result};
use crate::view::{self, Base, Dir, NoName};

impl Tree {
    /// Makes an entry, or a directory of a view.
    pub fn mkdir(
        self: &Arc<Self>,
        caller: &Caller,
        parent: Ino,
        name: &OsStr,
        mode: u32,
        umask: u32,
        done: Done<Entry>,
    ) {
        let place = match self.writable().and_then(|()| self.place(parent)) {
            Ok(place) => place,
            Err(error) => return done(Err(error)),
        };
        match &*place {
            Place::View(Dir::Set(set)) if set.is_all() && set.base() == Base::Entries => {
                self.shown.entry();
                self.make_named(caller, name, mode, umask, done);
            }
            Place::View(dir) => {
                self.shown.view();
                done(self.make_dir(dir, name));
            }
            Place::New => {
                self.shown.entry();
                self.make_new(caller, name, mode, umask, done);
            }
            Place::Memo => {
                self.shown.view();
                self.make_memo(caller, name, mode, umask, done);
            }
            _ => done(Err(Error::NotPermitted)),
        }
    }

    /// `mkdir entries/NAME`: the directory decides whether the name is free.
    fn make_named(self: &Arc<Self>, caller: &Caller, name: &OsStr, mode: u32, umask: u32, done: Done<Entry>) {
        let directory = text(name).and_then(|name| {
            let id = Id::from_file_name(name).ok_or(Error::Invalid)?;
            if self.row(&id).is_ok() {
                return Err(Error::Exists);
            }
            // An id is permanent: one in the trash is taken, too.
            if !matches!(crate::trash::get(&self.cache, &id), Err(TrashError::NotFound)) {
                return Err(Error::Exists);
            }
            self.make_entry_dir(caller, &id, mode, umask)?;
            Ok(id)
        });
        let id = match directory {
            Ok(id) => id,
            Err(error) => return done(Err(error)),
        };
        let (tree, root) = (Arc::clone(self), Root::Entries(id.clone()));
        self.record_made(
            id,
            Object::new(),
            Box::new(move |made| done(made.and_then(|()| tree.enter_root(root)))),
        );
    }

    fn make_entry_dir(&self, caller: &Caller, id: &Id, mode: u32, umask: u32) -> Result<()> {
        let name = backing::component(OsStr::new(id.as_str()))?;
        let _as = self.act_as(caller)?;
        let _umask = credentials::umask(umask);
        backing::make_directory(self.cache.store().dir(), &name, mode & 0o7777)?;
        Ok(())
    }

    /// Removes a directory that was made for nothing; it may be somebody's by now, then it is not empty.
    fn unmake(&self, id: &Id) {
        if let Ok(name) = CString::new(id.as_str())
            && let Err(error) = backing::unlink(self.cache.store().dir(), &name, true)
        {
            log::warn!("the directory {} was made in vain and could not be removed: {error}", id.as_str());
        }
    }

    /// Records an entry whose directory was just made.
    fn record_made(self: &Arc<Self>, id: Id, attrs: Object<'static>, done: Done<()>) {
        let (tree, made) = (Arc::clone(self), id.clone());
        self.cache.submit(
            Change::Create { id, attrs },
            Box::new(move |outcome| match outcome {
                Ok(_) => done(Ok(())),
                Err(error) => {
                    tree.unmake(&made);
                    done(Err(error.into()));
                }
            }),
        );
    }

    /// A directory of an entry with a fresh id.
    fn make_fresh(&self, caller: &Caller, mode: u32, umask: u32) -> Result<Id> {
        let _as = self.act_as(caller)?;
        let _umask = credentials::umask(umask);
        Ok(self.cache.make_directory(mode & 0o7777)?)
    }

    /// `mkdir new/NAME`
    fn make_new(self: &Arc<Self>, caller: &Caller, name: &OsStr, mode: u32, umask: u32, done: Done<Entry>) {
        let known = self.names().new.get(name).map(|(id, _)| id.clone());
        let fresh = || -> Result<_> {
            if known.is_some_and(|id| self.row(&id).is_ok()) {
                return Err(Error::Exists);
            }
            let attrs = attributes_of(name)?;
            Ok((self.make_fresh(caller, mode, umask)?, attrs))
        };
        let (id, attrs) = match fresh() {
            Ok(fresh) => fresh,
            Err(error) => return done(Err(error)),
        };
        let (tree, fresh, name) = (Arc::clone(self), id.clone(), name.to_owned());
        let done: Done<()> = Box::new(move |made| {
            let entry = made.and_then(|()| {
                let number = {
                    let mut names = tree.names();
                    names.next += 1;
                    let number = names.next;
                    names.new.insert(name, (fresh.clone(), number));
                    number
                };
                tree.alias(fresh, number)
            });
            done(entry);
        });
        self.record_made(id, attrs, done);
    }

    /// `mkdir memo/LIST`: decided under the lock.
    fn make_memo(self: &Arc<Self>, caller: &Caller, name: &OsStr, mode: u32, umask: u32, done: Done<Entry>) {
        let claim = text(name).and_then(|list| {
            let pairs = memo_pairs(list)?;
            if memo_row(&self.cache.index(), &pairs).is_some() {
                return Err(Error::Exists);
            }
            let attrs = object_of(parse_pairs(list)?)?;
            Ok((list, pairs, attrs, self.make_fresh(caller, mode, umask)?))
        });
        let (list, pairs, attrs, fresh) = match claim {
            Ok(claim) => claim,
            Err(error) => return done(Err(error)),
        };
        let spelling = pairs_to_list(&pairs);
        let other_spelling = spelling != list;
        let (tree, id) = (Arc::clone(self), fresh.clone());
        self.cache.submit(
            Change::Memo { pairs, fresh, attrs },
            Box::new(move |outcome| {
                let result = match outcome {
                    Ok(Outcome::Done(_) | Outcome::Deleted(_)) => {
                        tree.alias(id, memo_number(&spelling)).map(|mut entry| {
                            if other_spelling {
                                // Looked up again, it is a link.
                                entry.entry_ttl = Duration::ZERO;
                            }
                            entry
                        })
                    }
                    Ok(Outcome::Found(_)) => {
                        tree.unmake(&id);
                        Err(Error::Exists)
                    }
                    Err(error) => {
                        tree.unmake(&id);
                        Err(error.into())
                    }
                };
                done(result);
            }),
        );
    }

    /// `mkdir by-attr/KEY` and `mkdir by-attr/KEY/VALUE`: in memory, until there are entries.
    fn make_dir(&self, dir: &Dir, name: &OsStr) -> Result<Entry> {
        if !matches!(dir, Dir::Keys(_) | Dir::Values(..)) {
            return Err(Error::NotPermitted);
        }
        let name = text(name)?;
        let (child, spelling) = {
            let index = self.cache.index();
            let (child, spelling) = view::child(&index, dir, name).map_err(|error| match error {
                NoName::NotFound => Error::NotPermitted,
                error => error.into(),
            })?;
            if let Dir::Values(_, key) = &child
                && key.is_reserved()
            {
                return Err(Error::NotPermitted);
            }
            let rows = self.sets.rows(dir.set(), &index, now());
            if view::exists(&index, &child, &rows.bitmap) {
                return Err(Error::Exists);
            }
            (child, spelling)
        };
        if !self.made().insert(child.clone()) {
            return Err(Error::Exists);
        }
        self.made_generation.fetch_add(1, Ordering::Relaxed);
        let mut entry = self.enter(Place::View(child))?;
        if spelling != name {
            entry.entry_ttl = Duration::ZERO;
        }
        Ok(entry)
    }

    /// Removes an entry, or a directory that was made in memory.
    pub fn rmdir(self: &Arc<Self>, caller: &Caller, parent: Ino, name: &OsStr, done: Done<()>) {
        match self.to_remove(caller, parent, name) {
            Ok(Some(id)) => self.delete(caller, id, done),
            Ok(None) => done(Ok(())),
            Err(error) => done(Err(error)),
        }
    }

    /// The entry that `rmdir` of this name deletes; everything else it removes at once.
    fn to_remove(&self, caller: &Caller, parent: Ino, name: &OsStr) -> Result<Option<Id>> {
        self.writable()?;
        match &*self.place(parent)? {
            Place::View(Dir::Set(set)) if set.is_all() && set.base() == Base::Entries => {
                let name = text(name).map_err(|_| Error::NotFound)?;
                if crate::name::is_reserved_in_sets(name) {
                    return Err(Error::NotPermitted);
                }
                let id = Id::from_file_name(name).ok_or(Error::NotFound)?;
                self.row(&id)?;
                Ok(Some(id))
            }
            Place::New => {
                let (id, _) = self.names().new.get(name).cloned().ok_or(Error::NotFound)?;
                Ok(Some(id))
            }
            Place::Memo => {
                let pairs = memo_pairs(text(name)?)?;
                let index = self.cache.index();
                let row = memo_row(&index, &pairs).ok_or(Error::NotFound)?;
                Ok(Some(index.id(row).ok_or(Error::NotFound)?))
            }
            Place::Trash => {
                self.remove_trashed(caller, text(name).map_err(|_| Error::NotFound)?)?;
                Ok(None)
            }
            Place::View(dir @ (Dir::Keys(_) | Dir::Values(..))) => {
                let name = text(name).map_err(|_| Error::NotFound)?;
                let index = self.cache.index();
                let (child, _) = view::child(&index, dir, name).map_err(|_| Error::NotFound)?;
                let rows = self.sets.rows(dir.set(), &index, now());
                if view::exists(&index, &child, &rows.bitmap) {
                    return Err(Error::NotPermitted);
                }
                if !self.made().remove(&child) {
                    return Err(Error::NotFound);
                }
                self.made_generation.fetch_add(1, Ordering::Relaxed);
                Ok(None)
            }
            _ => Err(Error::NotPermitted),
        }
    }

    /// Deletes an entry whose directory is empty. The directory goes first: it decides that nothing is lost, even if somebody is
    /// writing there, and that the caller may.
    fn delete(self: &Arc<Self>, caller: &Caller, id: Id, done: Done<()>) {
        let root = Root::Entries(id.clone());
        let removed = match self.contents.is_empty_root(&root) {
            Ok(true) => self.contents.rmdir_root(caller, &root),
            Ok(false) => Err(Error::NotEmpty),
            Err(error) => Err(error),
        };
        if let Err(error) = removed {
            return done(Err(error));
        }
        let (tree, caller) = (Arc::clone(self), *caller);
        self.cache.submit(
            Change::Delete { id: id.clone() },
            Box::new(move |outcome| {
                let result = match outcome {
                    // Of all who delete it at once, here and on other nodes, one succeeds.
                    Ok(_) | Err(crate::cache::CacheError::NoEntry) => {
                        tree.names().new.retain(|_, (other, _)| *other != id);
                        tree.gone(&id);
                        outcome.map(drop).map_err(Error::from)
                    }
                    Err(error) => {
                        // Without its directory it is still a result; nothing of it was lost.
                        let _ = tree.make_entry_dir(&caller, &id, 0o777, 0o022);
                        Err(error.into())
                    }
                };
                done(result);
            }),
        );
    }
}

/// The attributes that a name in `new/` sets: none if it is just a name.
fn attributes_of(name: &OsStr) -> Result<Object<'static>> {
    match name.to_str() {
        Some(list) if list.contains('=') => object_of(parse_pairs(list)?),
        None if name.as_encoded_bytes().contains(&b'=') => Err(Error::NotUtf8),
        _ => Ok(Object::new()),
    }
}
