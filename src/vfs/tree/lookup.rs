//! Finding names, and what symbolic links point to.

use std::ffi::OsStr;
use std::hash::Hasher;
use std::sync::Arc;
use std::time::Duration;

use super::attr::{Look, id_of};
use super::place::{Place, split_link};
use super::{LONG, SHORT, Tree, now, text};
use crate::backing::Stat;
use crate::index::{Index, Row};
use crate::name::{Id, Key, flatten, pairs_to_list, parse_pairs};
use crate::sync::atomic::Ordering;
use crate::value::{Leaf, Object, Value};
use crate::vfs::content::Root;
use crate::vfs::{CONTENT_BIT, Caller, Entry, Error, Ino, LINK_BIT, Result};
use crate::view::{self, Base, Dir, Found, Set};

impl Tree {
    /// Finds a name in a virtual directory.
    pub fn lookup(&self, _caller: &Caller, parent: Ino, name: &OsStr) -> Result<Entry> {
        let place = self.place(parent)?;
        let found = match &*place {
            Place::View(dir) => return self.lookup_view(parent, &place, dir, name),
            Place::New => {
                self.shown.entry();
                let (id, number) = self.names().new.get(name).cloned().ok_or(Error::NotFound)?;
                return self.alias(id, number);
            }
            Place::Memo => return self.lookup_memo(&place, text(name).map_err(|_| Error::Invalid)?),
            Place::Trash => return self.lookup_trash(text(name).map_err(|_| Error::NotFound)?),
            Place::Attrs(root) => self.lookup_attribute(root, text(name).map_err(|_| Error::NotFound)?)?,
            Place::Readme
            | Place::Status
            | Place::File(..)
            | Place::Spelling { .. }
            | Place::Attribute(..)
            | Place::Json(_) => return Err(Error::NotDirectory),
        };
        self.enter(found)
    }

    fn lookup_view(&self, parent: Ino, place: &Arc<Place>, dir: &Dir, name: &OsStr) -> Result<Entry> {
        let name = text(name).map_err(|_| match dir {
            Dir::Where(_) => Error::NotUtf8,
            _ => Error::NotFound,
        })?;
        if let Dir::Set(set) = dir
            && set.is_all()
            && let Some(entry) = self.lookup_all(set, name)?
        {
            return Ok(entry);
        }
        self.shown.view();
        let set = dir.set();
        let found = {
            let index = self.cache.index();
            let rows = self.sets.rows(set, &index, now());
            view::lookup(&index, dir, &rows.bitmap, name, &|dir| self.made().contains(dir))
        };
        let found = found.map_err(|error| match (dir, error) {
            (Dir::Where(_), error) => error.into(),
            _ => Error::NotFound,
        })?;
        match found {
            Found::Dir(dir) => self.enter(Place::View(dir)),
            Found::File(file) => self.enter(Place::File(set.clone(), file)),
            Found::Link(row) => {
                self.links_looked_at.store(true, Ordering::Relaxed);
                self.enter_link(parent, set, row)
            }
            Found::Spelling(target) => {
                self.enter(Place::Spelling { dir: Arc::clone(place), name: name.to_owned(), target })
            }
        }
    }

    /// What the root and `entries/` have beyond what every set directory has.
    fn lookup_all(&self, set: &Set, name: &str) -> Result<Option<Entry>> {
        if set.base() == Base::Entries {
            if crate::name::is_reserved_in_sets(name) {
                return Ok(None);
            }
            let id = Id::from_file_name(name).ok_or(Error::NotFound)?;
            self.shown.entry();
            self.row(&id)?;
            return self.enter_root(Root::Entries(id)).map(Some);
        }
        let place = match name {
            "README" => Place::Readme,
            ".status" => Place::Status,
            "entries" => Place::entries(),
            "new" => Place::New,
            "memo" => Place::Memo,
            "trash" => Place::Trash,
            _ => return Ok(None),
        };
        self.enter(place).map(Some)
    }

    /// The directory of an entry. It may be made, and its entry deleted, behind the mount.
    pub(super) fn enter_root(&self, root: Root) -> Result<Entry> {
        let mut entry = self.contents.root(root)?;
        entry.entry_ttl = self.view_ttl().max(SHORT);
        Ok(entry)
    }

    /// The directory of an entry under a name of its own; what is gone is forgotten.
    pub(super) fn alias(&self, id: Id, number: u64) -> Result<Entry> {
        self.row(&id)?;
        self.names().aliases.entry(id.clone()).or_default().insert(number);
        let mut entry = self.enter_root(Root::Alias(id, number))?;
        entry.entry_ttl = self.view_ttl();
        Ok(entry)
    }

    /// A node of a place that is there; its lookup count goes up.
    pub(super) fn enter(&self, place: Place) -> Result<Entry> {
        let Look { mut attr, ttl } = self.look(&place)?;
        let entry_ttl = match &place {
            Place::View(dir) => match dir {
                Dir::Set(set) if set.is_all() => LONG,
                Dir::Keys(set) | Dir::Where(set) | Dir::Sort(set) if set.is_all() => LONG,
                _ => self.view_ttl(),
            },
            Place::Readme | Place::Status | Place::New | Place::Memo | Place::Trash => LONG,
            Place::File(..) | Place::Spelling { .. } | Place::Attrs(_) => self.view_ttl(),
            Place::Attribute(..) | Place::Json(_) => Duration::ZERO,
        };
        attr.ino = self.table.raise(place);
        Ok(Entry { attr, entry_ttl, attr_ttl: ttl })
    }

    /// The link to a row in a set directory.
    pub(super) fn enter_link(&self, parent: Ino, set: &Set, row: Row) -> Result<Entry> {
        self.enter_link_of(&self.cache_stat()?, parent, set, row)
    }

    /// The same, of many links for which the cache directory was looked at once.
    pub(super) fn enter_link_of(&self, cache: &Stat, parent: Ino, set: &Set, row: Row) -> Result<Entry> {
        let Look { mut attr, ttl } = self.look_link(cache, set, row)?;
        attr.ino = self.table.link(parent, row.0).ok_or(Error::Stale)?;
        let entry_ttl = if set.ages() { Duration::ZERO } else { self.view_ttl() };
        Ok(Entry { attr, entry_ttl, attr_ttl: ttl })
    }

    fn lookup_attribute(&self, root: &Root, name: &str) -> Result<Place> {
        let id = id_of(root);
        let record = self.record(id)?;
        let key = view::attribute::key_of(&record.object, name).map_err(|_| Error::NotFound)?;
        Ok(Place::Attribute(id.clone(), key))
    }

    /// Lowers a lookup count of any node.
    pub fn forget_any(&self, ino: Ino, count: u64) {
        if ino & CONTENT_BIT != 0 {
            self.contents.forget(ino, count);
        } else if ino & LINK_BIT == 0 {
            self.table.forget(ino, count);
        }
    }

    /// Whether a name in a directory of the contents is a virtual one.
    pub fn is_virtual(&self, parent: Ino, name: &OsStr) -> bool {
        (name == ".attrs" || name == ".attrs.json")
            && parent & CONTENT_BIT != 0
            && self.contents.as_root(parent).is_some_and(|root| !matches!(root, Root::Trash(_)))
    }

    /// EEXIST for a virtual name in a directory of the contents.
    pub fn free_name(&self, parent: Ino, name: &OsStr) -> Result<()> {
        if self.is_virtual(parent, name) { Err(Error::Exists) } else { Ok(()) }
    }

    /// Why nothing is renamed between the contents and this virtual directory.
    pub fn not_renamed(&self, ino: Ino) -> Error {
        match self.place(ino).as_deref() {
            Ok(Place::Attrs(_)) => Error::CrossDevice,
            Ok(_) => Error::NotPermitted,
            Err(_) => Error::Stale,
        }
    }

    /// `.attrs` and `.attrs.json` in an entry's own directory; `None` if the node is none, or one in the trash.
    pub fn lookup_in_root(&self, parent: Ino, name: &OsStr) -> Option<Result<Entry>> {
        if name != ".attrs" && name != ".attrs.json" {
            return None;
        }
        self.shown.entry();
        let root = self.contents.as_root(parent)?;
        if matches!(root, Root::Trash(_)) {
            return None;
        }
        Some(self.enter(if name == ".attrs" {
            Place::Attrs(root)
        } else {
            Place::Json(id_of(&root).clone())
        }))
    }

    fn lookup_memo(&self, place: &Arc<Place>, list: &str) -> Result<Entry> {
        self.shown.view();
        let pairs = memo_pairs(list)?;
        let id = {
            let index = self.cache.index();
            let row = memo_row(&index, &pairs).ok_or(Error::NotFound)?;
            index.id(row).ok_or(Error::NotFound)?
        };
        let spelling = pairs_to_list(&pairs);
        if spelling == list {
            self.alias(id, memo_number(&spelling))
        } else {
            self.enter(Place::Spelling { dir: Arc::clone(place), name: list.to_owned(), target: spelling })
        }
    }

    /// Target of a symbolic link.
    pub fn readlink(&self, ino: Ino) -> Result<Vec<u8>> {
        if ino & LINK_BIT != 0 {
            self.links_looked_at.store(true, Ordering::Relaxed);
            let (view, row) = split_link(ino);
            let set = self.table.set_of_view(view).ok_or(Error::Stale)?;
            let id = self.cache.index().id(Row(row)).ok_or(Error::Stale)?;
            return Ok(set.link_target(&id).into_bytes());
        }
        match &*self.place(ino)? {
            Place::Spelling { target, .. } => Ok(target.clone().into_bytes()),
            _ => Err(Error::Invalid),
        }
    }
}

/// The pairs of a memo: flattened, sorted, each key once.
pub(super) fn memo_pairs(list: &str) -> Result<Vec<(Key, Leaf)>> {
    let object = object_of(parse_pairs(list)?)?;
    let mut pairs: Vec<(Key, Leaf)> =
        flatten(&object).into_iter().map(|(key, value)| (key, Leaf::of(value))).collect();
    pairs.sort();
    Ok(pairs)
}

/// The object with these attributes. Keys that contradict each other are malformed.
pub(super) fn object_of(pairs: Vec<(Key, Value<'static>)>) -> Result<Object<'static>> {
    let mut object = Object::new();
    for (key, value) in pairs {
        let edit = crate::record::Edit::Set(key, value, crate::record::SetMode::Any);
        crate::record::apply(&mut object, &edit).map_err(|_| Error::Invalid)?;
    }
    Ok(object)
}

/// The entry first recorded among those that include the pairs.
pub(super) fn memo_row(index: &Index, pairs: &[(Key, Leaf)]) -> Option<Row> {
    let mut rows = pairs.iter().map(|(key, leaf)| index.posting(key, leaf));
    let first = rows.next()?;
    rows.fold(first, |rows, other| rows & other).min().map(Row)
}

/// The number by which the contents know an entry under this list; those of `new/` are small.
pub(super) fn memo_number(list: &str) -> u64 {
    let mut hasher = fnv::FnvHasher::default();
    hasher.write(list.as_bytes());
    // Views are numbered from 2 on, below bit 62.
    hasher.finish() >> 2 | 1 << 61
}
