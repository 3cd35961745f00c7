//! Attributes of virtual nodes.

use std::time::Duration;

use super::place::{Place, split_link};
use super::{LONG, SHORT, Tree, time_of};
use crate::backing::{Stat, StatTime};
use crate::index::Row;
use crate::name::{Id, Key};
use crate::vfs::content::Root;
use crate::vfs::{Attr, Error, Ino, LINK_BIT, Result, Time};
use crate::view::{self, Dir, Set};

/// A node's attributes; the id is filled in by whoever knows it.
pub(super) struct Look {
    pub attr: Attr,
    pub ttl: Duration,
}

const BLOCK: u32 = 4096;

impl Tree {
    /// Attributes of a virtual node.
    pub fn getattr(&self, ino: Ino, fh: Option<u64>) -> Result<(Attr, Duration)> {
        let mut look = if ino & LINK_BIT == 0 {
            let place = self.place(ino)?;
            let mut look = match self.look(&place) {
                Ok(look) => look,
                // A file that was removed while it is open.
                Err(error) => self.look_open(fh).ok_or(error)?,
            };
            if let Some(size) = self.written_size(fh) {
                look.attr.size = size;
            }
            look
        } else {
            let (view, row) = split_link(ino);
            let set = self.table.set_of_view(view).ok_or(Error::Stale)?;
            self.look_link(&self.cache_stat()?, &set, Row(row))?
        };
        look.attr.ino = ino;
        Ok((look.attr, look.ttl))
    }

    /// Attributes of a place, if it is there.
    pub(super) fn look(&self, place: &Place) -> Result<Look> {
        Ok(match place {
            Place::View(dir) => self.look_dir(dir)?,
            Place::New | Place::Memo | Place::Trash => {
                let cache = self.cache_stat()?;
                Look { attr: of_cache(&cache, libc::S_IFDIR | cache.mode & 0o777), ttl: SHORT }
            }
            Place::Readme | Place::Status => {
                let size = self.bytes(place)?.len();
                Look { ttl: Duration::ZERO, ..self.look_file(size, self.started)? }
            }
            Place::File(set, _) => {
                let size = self.bytes(place)?.len();
                let rows = self.rows(set);
                let newest = rows.newest(&self.cache.index());
                self.look_file(size, time_of(newest))?
            }
            Place::Spelling { target, .. } => symlink(&self.cache_stat()?, target.len(), self.started),
            Place::Attrs(root) => self.look_attrs(root)?,
            Place::Attribute(id, key) => {
                let text = self.attribute_text(id, key)?.ok_or(Error::NotFound)?;
                self.look_attribute(id, text.len() + 1, key.is_reserved())?
            }
            Place::Json(id) => {
                let size = view::attribute::object_line(&self.record(id)?.object).len();
                self.look_attribute(id, size, false)?
            }
        })
    }

    fn look_dir(&self, dir: &Dir) -> Result<Look> {
        let cache = self.cache_stat()?;
        let read = cache.mode & 0o555;
        // Whoever may look may try: what counts are the permission bits of the entry that is changed.
        let change = read | (cache.mode & 0o444) >> 1;
        let mut look = Look { attr: of_cache(&cache, 0), ttl: self.view_ttl() };
        look.attr.mode = libc::S_IFDIR
            | match dir {
                Dir::Set(set) if set.is_all() && set.base() == view::Base::Entries => cache.mode & 0o777,
                Dir::Set(set) => match set.terms().last() {
                    Some(view::Term::Value(..)) => change,
                    _ => read,
                },
                Dir::Keys(_) | Dir::Values(..) => change,
                Dir::Where(_) | Dir::Sort(_) => read,
            };
        match dir {
            Dir::Set(set) if set.is_all() => look.ttl = SHORT,
            Dir::Set(set) => {
                let rows = self.rows(set);
                let newest = time_of(rows.newest(&self.cache.index()));
                look.attr.size = rows.bitmap.len();
                set_times(&mut look.attr, if rows.bitmap.is_empty() { self.started } else { newest });
                // Somebody may hold the directory open and ask without looking it up again.
                look.ttl = look.ttl.min(SHORT);
            }
            _ => set_times(&mut look.attr, self.started),
        }
        Ok(look)
    }

    /// Attributes of the link to a row; the owner is that of the cache directory.
    pub(super) fn look_link(&self, cache: &Stat, set: &Set, row: Row) -> Result<Look> {
        let (id, time) = {
            let index = self.cache.index();
            if !index.is_live(row) {
                return Err(Error::NotFound);
            }
            (index.id(row).ok_or(Error::NotFound)?, index.time(row))
        };
        Ok(Look { ttl: self.view_ttl(), ..symlink(cache, set.link_target(&id).len(), time_of(time)) })
    }

    fn look_file(&self, size: usize, mtime: Time) -> Result<Look> {
        Ok(file(&self.cache_stat()?, size, mtime))
    }

    fn look_attrs(&self, root: &Root) -> Result<Look> {
        let id = id_of(root);
        self.row(id)?;
        let mut attr = self.contents.root_attr(root)?;
        attr.mode = libc::S_IFDIR | attr.mode & 0o777;
        (attr.size, attr.blocks, attr.nlink) = (0, 0, 1);
        Ok(Look { attr, ttl: Duration::ZERO })
    }

    fn look_attribute(&self, id: &Id, size: usize, reserved: bool) -> Result<Look> {
        let mut attr = self.contents.root_attr(&Root::Entries(id.clone()))?;
        attr.mode = libc::S_IFREG | attr.mode & if reserved { 0o444 } else { 0o666 };
        (attr.nlink, attr.rdev) = (1, 0);
        set_size(&mut attr, size);
        Ok(Look { attr, ttl: Duration::ZERO })
    }

    /// Attributes of an attribute file that is found by its handle alone.
    fn look_open(&self, fh: Option<u64>) -> Option<Look> {
        let id = self.handles.attribute(fh?)?.id.clone();
        self.look_attribute(&id, 0, false).ok()
    }

    /// The text of an attribute; one that was emptied, or made, and not written yet is the empty string.
    pub(super) fn attribute_text(&self, id: &Id, key: &Key) -> Result<Option<String>> {
        if self.table.is_emptied(&Place::Attribute(id.clone(), key.clone())) {
            return Ok(Some(crate::value::Value::String(crate::value::Text::from_str("")).to_text()));
        }
        let record = self.record(id)?;
        Ok(view::attribute::text(&record.object, id, record.time, key))
    }
}

/// The entry of a root.
pub(super) fn id_of(root: &Root) -> &Id {
    match root {
        Root::Entries(id) | Root::Alias(id, _) | Root::Trash(id) => id,
    }
}

fn of_cache(cache: &Stat, mode: u32) -> Attr {
    let time = |time: StatTime| Time { sec: time.sec, nsec: time.nsec };
    Attr {
        ino: 0,
        size: 0,
        blocks: 0,
        atime: time(cache.atime),
        mtime: time(cache.mtime),
        ctime: time(cache.ctime),
        mode,
        // Says nothing about the number of directories below.
        nlink: 1,
        uid: cache.uid,
        gid: cache.gid,
        rdev: 0,
        blksize: BLOCK,
    }
}

fn file(cache: &Stat, size: usize, mtime: Time) -> Look {
    let mut attr = of_cache(cache, libc::S_IFREG | cache.mode & 0o444);
    set_size(&mut attr, size);
    set_times(&mut attr, mtime);
    Look { attr, ttl: Duration::ZERO }
}

fn symlink(cache: &Stat, size: usize, mtime: Time) -> Look {
    let mut look = file(cache, size, mtime);
    look.attr.mode = libc::S_IFLNK | 0o777;
    look.attr.blocks = 0;
    look.ttl = LONG;
    look
}

fn set_size(attr: &mut Attr, size: usize) {
    attr.size = u64::try_from(size).unwrap_or(u64::MAX);
    attr.blocks = attr.size.div_ceil(512);
}

fn set_times(attr: &mut Attr, time: Time) {
    (attr.atime, attr.mtime, attr.ctime) = (time, time, time);
}
