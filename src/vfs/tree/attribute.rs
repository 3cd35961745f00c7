//! Attribute files and `.attrs.json`: what is written is set when the file is closed.

use std::ffi::OsStr;
use std::time::Duration;

use super::attr::id_of;
use super::handle::Handle;
use super::place::Place;
use super::{Tree, text};
use crate::cache::CacheError;
use crate::name::{Id, Key};
use crate::record::{Edit, RECORD_MAX, SetMode, apply};
use crate::sync::{Arc, Mutex, MutexGuard, PoisonError};
use crate::value::{Text, Value};
use crate::vfs::content::Root;
use crate::vfs::killed::is_killed;
use crate::vfs::{Attr, Caller, Done, Entry, Error, Ino, Opened, Result, SetAttr};
use crate::view;

/// Longest content that is taken: no record holds more.
const CONTENT_MAX: usize = RECORD_MAX + 1;

/// An attribute file, or `.attrs.json`, that is open for writing.
#[derive(Debug)]
pub(super) struct AttributeFile {
    pub ino: Ino,
    pub id: Id,
    /// `.attrs.json`, not a single attribute.
    json: bool,
    append: bool,
    content: Mutex<Content>,
}

#[derive(Debug)]
struct Content {
    data: Vec<u8>,
    changed: Changed,
    /// Who has written to it: whose tables of descriptors, by the kernel's numbers. `None`: somebody whose is not known.
    writers: Vec<Option<u64>>,
    /// Who closed it last was killed: what was written may be the half of something.
    abandoned: bool,
    setting: Setting,
}

impl Content {
    fn new(data: Vec<u8>, changed: Changed) -> Self {
        Self { data, changed, writers: Vec::new(), abandoned: false, setting: Setting::default() }
    }

    fn is_written_by(&self, owner: u64) -> bool {
        self.writers.iter().any(|writer| writer.is_none_or(|writer| writer == owner))
    }
}

/// What was begun to be set. Several processes may have the file open, and each closes it (a child of a program that writes, too,
/// before it executes another one): what one of them has begun is told to all.
#[derive(Default)]
struct Setting {
    /// So many changes are under way.
    changes: u32,
    /// Who has closed it meanwhile.
    waiting: Vec<Done<()>>,
    /// Why what was written last could not be set.
    failed: Option<i32>,
}

impl std::fmt::Debug for Setting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Setting").field("changes", &self.changes).finish_non_exhaustive()
    }
}

impl Setting {
    /// What whoever closes the file is told of what was set.
    fn outcome(&self) -> Result<()> {
        self.failed.map_or(Ok(()), |errno| Err(std::io::Error::from_raw_os_error(errno).into()))
    }
}

/// What has to be done when the file is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Changed {
    /// Nothing.
    No,
    /// It was emptied, or made, and nothing was written since. A shell closes a file so before it has even started the
    /// command that writes to it: such a close only shows (`true`) the file empty, the last one sets it.
    Emptied(bool),
    /// It is set.
    Written,
}

impl AttributeFile {
    fn lock(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A change has ended: gives those who wait for it.
    fn ended(&self, result: &Result<()>) -> Vec<Done<()>> {
        let setting = &mut self.lock().setting;
        setting.changes -= 1;
        setting.failed = result.as_ref().err().map(Error::errno);
        if setting.changes == 0 { std::mem::take(&mut setting.waiting) } else { Vec::new() }
    }

    /// A merge patch for `.attrs.json`, not its content.
    fn is_patch(&self) -> bool {
        self.json && self.append
    }
}

impl Tree {
    /// Opens an attribute file, or `.attrs.json`.
    pub(super) fn open_attribute(
        &self,
        caller: &Caller,
        ino: Ino,
        place: &Place,
        flags: i32,
    ) -> Result<Opened> {
        let (id, json) = match place {
            Place::Attribute(id, _) => (id, false),
            Place::Json(id) => (id, true),
            _ => return Err(Error::NotPermitted),
        };
        let now = || -> Result<Vec<u8>> {
            Ok(match place {
                Place::Attribute(id, key) => {
                    view::attribute::file(self.attribute_text(id, key)?.ok_or(Error::NotFound)?)
                }
                _ => view::attribute::object_line(&self.record(id)?.object),
            })
        };
        if flags & libc::O_ACCMODE == libc::O_RDONLY {
            let fh = self.handles.add(Handle::Bytes(now()?.into()));
            return Ok(Opened { fh, direct_io: true, ..Opened::default() });
        }
        if let Place::Attribute(_, key) = place
            && key.is_reserved()
        {
            return Err(Error::NotPermitted);
        }
        self.may_change(caller, id)?;
        let empty = flags & libc::O_TRUNC != 0;
        let append = flags & libc::O_APPEND != 0 && !(json && empty);
        let data = if empty || json && append { Vec::new() } else { now()? };
        let changed = if empty { Changed::Emptied(false) } else { Changed::No };
        Ok(self.open_for_writing(ino, id, json, append, Content::new(data, changed)))
    }

    fn open_for_writing(&self, ino: Ino, id: &Id, json: bool, append: bool, content: Content) -> Opened {
        let content = Mutex::new(content);
        let file = AttributeFile { ino, id: id.clone(), json, append, content };
        let fh = self.handles.add(Handle::Attribute(Arc::new(file)));
        Opened { fh, direct_io: true, ..Opened::default() }
    }

    /// The key that is made by a name in `.attrs/`: not a reserved one, and none that contradicts another.
    fn new_key(&self, caller: &Caller, id: &Id, name: &OsStr) -> Result<(Key, bool)> {
        let name = text(name)?;
        if name.starts_with('.') {
            return Err(Error::NotPermitted);
        }
        let mut object = self.record(id)?.object.clone();
        let key = view::attribute::key_of(&object, name)?;
        if key.is_reserved() {
            return Err(Error::NotPermitted);
        }
        if key.is_elements() {
            return Err(Error::Invalid);
        }
        self.may_change(caller, id)?;
        let exists = view::attribute::value(&object, &key).is_some();
        apply(&mut object, &Edit::Set(key.clone(), empty(), SetMode::Any))?;
        Ok((key, exists))
    }

    /// Makes an attribute and opens its file.
    pub(super) fn create_attribute(
        &self,
        caller: &Caller,
        root: &Root,
        name: &OsStr,
        flags: i32,
    ) -> Result<(Entry, Opened)> {
        let id = id_of(root);
        let (key, exists) = self.new_key(caller, id, name)?;
        if exists && flags & libc::O_EXCL != 0 {
            return Err(Error::Exists);
        }
        let place = Place::Attribute(id.clone(), key);
        if exists {
            let entry = self.enter(place.clone())?;
            return match self.open_attribute(caller, entry.attr.ino, &place, flags) {
                Ok(opened) => Ok((entry, opened)),
                Err(error) => {
                    self.table.forget(entry.attr.ino, 1);
                    Err(error)
                }
            };
        }
        // From now on it is there, and empty, though nothing is set before it is closed.
        let ino = self.table.raise(place.clone());
        self.table.emptied(ino, true);
        let mut entry = match self.enter(place) {
            Ok(entry) => entry,
            Err(error) => {
                self.table.emptied(ino, false);
                self.table.forget(ino, 1);
                return Err(error);
            }
        };
        self.table.forget(ino, 1);
        entry.attr.size = 0;
        let content = Content::new(Vec::new(), Changed::Emptied(true));
        Ok((entry, self.open_for_writing(ino, id, false, flags & libc::O_APPEND != 0, content)))
    }

    /// Makes an attribute that is the empty string.
    pub(super) fn make_attribute(
        self: &Arc<Self>,
        caller: &Caller,
        root: &Root,
        name: &OsStr,
        done: Done<Entry>,
    ) {
        let id = id_of(root).clone();
        match self.new_key(caller, &id, name) {
            Err(error) => done(Err(error)),
            Ok((_, true)) => done(Err(Error::Exists)),
            Ok((key, false)) => {
                let place = Place::Attribute(id.clone(), key.clone());
                let tree = Arc::clone(self);
                let edits = vec![Edit::Set(key, empty(), SetMode::Create)];
                self.edit(id, edits, Box::new(move |result| done(result.and_then(|()| tree.enter(place)))));
            }
        }
    }

    /// Reads from a file that is open for writing.
    pub(super) fn read_attribute(file: &AttributeFile, offset: u64, size: u32) -> Vec<u8> {
        super::file::part(&file.lock().data, offset, size)
    }

    /// Writes to an open attribute file, for somebody who has this table of descriptors.
    pub fn write(&self, fh: u64, offset: u64, data: &[u8], owner: Option<u64>) -> Result<u32> {
        let file = self.handles.attribute(fh).ok_or(Error::BadHandle)?;
        let mut content = file.lock();
        let offset = usize::try_from(offset).map_err(|_| Error::TooLarge)?;
        let start = if file.append { content.data.len() } else { offset };
        let end = start.checked_add(data.len()).filter(|end| *end <= CONTENT_MAX).ok_or(Error::TooLarge)?;
        if content.data.len() < end {
            content.data.resize(end, 0);
        }
        if let Some(part) = content.data.get_mut(start..end) {
            part.copy_from_slice(data);
        }
        self.set_changed(&file, &mut content, Changed::Written, owner);
        u32::try_from(data.len()).map_err(|_| Error::Invalid)
    }

    fn set_changed(&self, file: &AttributeFile, content: &mut Content, changed: Changed, owner: Option<u64>) {
        if content.changed == Changed::Emptied(true) {
            self.table.emptied(file.ino, false);
        }
        if !content.writers.contains(&owner) {
            content.writers.push(owner);
        }
        content.changed = changed;
        content.abandoned = false;
        content.setting.failed = None;
    }

    /// The size of what is being written through a handle.
    pub(super) fn written_size(&self, fh: Option<u64>) -> Option<u64> {
        let file = self.handles.attribute(fh?)?;
        let content = file.lock();
        let changed = content.changed != Changed::No && !file.is_patch();
        changed.then(|| u64::try_from(content.data.len()).unwrap_or(u64::MAX))
    }

    /// Sets what was written. An emptied file is set only if this is the last close, or fsync.
    pub(super) fn commit(self: &Arc<Self>, file: &Arc<AttributeFile>, last: bool, done: Done<()>) {
        let (data, shown) = {
            let mut content = file.lock();
            let shown = match content.changed {
                Changed::No if content.setting.changes > 0 => return content.setting.waiting.push(done),
                Changed::No => {
                    let outcome = content.setting.outcome();
                    drop(content);
                    return done(outcome);
                }
                Changed::Emptied(_) if file.json && !last => return done(Err(Error::Invalid)),
                Changed::Emptied(shown) if !last => {
                    if !shown {
                        self.table.emptied(file.ino, true);
                        content.changed = Changed::Emptied(true);
                    }
                    return done(Ok(()));
                }
                Changed::Emptied(shown) => shown,
                Changed::Written => false,
            };
            content.changed = Changed::No;
            content.setting.changes += 1;
            // What is written after a patch was merged is another patch.
            let data = if file.is_patch() { std::mem::take(&mut content.data) } else { content.data.clone() };
            (data, shown)
        };
        let (tree, set) = (Arc::clone(self), Arc::clone(file));
        let done: Done<()> = Box::new(move |result| {
            if shown {
                tree.table.emptied(set.ino, false);
            }
            let result = result.map_err(|error| match error {
                Error::Cache(CacheError::NoEntry) => Error::Stale,
                other => other,
            });
            let others = set.ended(&result);
            done(result);
            for other in others {
                let outcome = set.lock().setting.outcome();
                other(outcome);
            }
        });
        match self.edit_of(file, &data) {
            Ok(Some(edit)) => self.edit(file.id.clone(), vec![edit], done),
            Ok(None) => done(Ok(())),
            Err(error) => done(Err(error)),
        }
    }

    /// The change that is made by closing a file with this content; none if it was removed.
    fn edit_of(&self, file: &AttributeFile, data: &[u8]) -> Result<Option<Edit>> {
        let place = self.place(file.ino)?;
        Ok(match &*place {
            Place::Attribute(_, key) if self.table.is_linked(file.ino) => {
                Some(Edit::Set(key.clone(), view::attribute::parse_file(data)?, SetMode::Any))
            }
            Place::Json(_) if file.is_patch() && data.iter().all(u8::is_ascii_whitespace) => None,
            Place::Json(_) => {
                let object = view::attribute::parse_object(data)?;
                Some(if file.append { Edit::Merge(object) } else { Edit::Replace(object) })
            }
            _ => None,
        })
    }

    /// A descriptor was closed, by this thread, which has this table of descriptors. What others have written is not set by that:
    /// whoever starts a program closes copies of descriptors that other threads are still writing to. If the thread was killed
    /// nothing is set, unless another one that has the file open writes to it, or has written and closes it.
    pub fn flush(self: &Arc<Self>, fh: u64, owner: u64, thread: u32, done: Done<()>) {
        match self.handles.get(fh) {
            Ok(Handle::Attribute(file)) => {
                let mut content = file.lock();
                let written = content.changed == Changed::Written;
                let others = written && !content.is_written_by(owner);
                if !others {
                    content.abandoned = content.changed != Changed::No && is_killed(thread);
                }
                let nothing = others || content.abandoned;
                drop(content);
                if nothing {
                    return done(Ok(()));
                }
                self.commit(&file, false, done);
            }
            Ok(_) => done(Ok(())),
            Err(error) => done(Err(error)),
        }
    }

    /// The last descriptor was closed.
    pub fn release(self: &Arc<Self>, fh: u64) {
        if let Some(Handle::Attribute(file)) = self.handles.remove(fh) {
            let mut content = file.lock();
            if content.abandoned {
                self.set_changed(&file, &mut content, Changed::No, None);
            }
            if content.changed == Changed::No {
                return;
            }
            drop(content);
            let id = file.id.clone();
            self.commit(
                &file,
                true,
                Box::new(move |result| {
                    if let Err(error) = result {
                        log::warn!("an attribute of {} could not be set: {error:?}", id.as_str());
                    }
                }),
            );
        }
    }

    /// Sets what was written, and makes it durable.
    pub fn fsync(self: &Arc<Self>, fh: u64, done: Done<()>) {
        let tree = Arc::clone(self);
        let sync: Done<()> = Box::new(move |result| match result {
            Ok(()) => tree.sync(done),
            Err(error) => done(Err(error)),
        });
        match self.handles.get(fh) {
            Ok(Handle::Attribute(file)) => self.commit(&file, true, sync),
            Ok(_) => sync(Ok(())),
            Err(error) => sync(Err(error)),
        }
    }

    /// Makes everything acknowledged durable.
    pub fn sync(&self, done: Done<()>) {
        if self.options.read_only {
            return done(Ok(()));
        }
        self.cache.sync(Box::new(|result| done(result.map_err(Error::from))));
    }

    /// Changes attributes of a virtual node: the size of attribute files. Times are not kept; owner and permissions are those of
    /// the entry, so setting them to what they are is no error.
    pub fn setattr(
        self: &Arc<Self>,
        caller: &Caller,
        ino: Ino,
        set: &SetAttr,
        fh: Option<u64>,
        done: Done<(Attr, Duration)>,
    ) {
        let now = match self.may_set(ino, set, fh) {
            Ok(now) => now,
            Err(error) => return done(Err(error)),
        };
        let Some(size) = set.size else { return done(Ok(now)) };
        let tree = Arc::clone(self);
        let done: Done<()> = Box::new(move |result| done(result.and_then(|()| tree.getattr(ino, fh))));
        match self.resize(caller, ino, size, fh) {
            Ok(None) => done(Ok(())),
            Ok(Some((id, edit))) => self.edit(id, vec![edit], done),
            Err(error) => done(Err(error)),
        }
    }

    fn may_set(&self, ino: Ino, set: &SetAttr, fh: Option<u64>) -> Result<(Attr, Duration)> {
        if ino & crate::vfs::LINK_BIT != 0
            || !matches!(*self.place(ino)?, Place::Attribute(..) | Place::Json(_))
        {
            return Err(Error::NotPermitted);
        }
        let now = self.getattr(ino, fh)?;
        let same = set.mode.is_none_or(|mode| mode & 0o7777 == now.0.mode & 0o7777)
            && set.uid.is_none_or(|uid| uid == now.0.uid)
            && set.gid.is_none_or(|gid| gid == now.0.gid);
        if same { Ok(now) } else { Err(Error::NotPermitted) }
    }

    /// Cuts or extends what is being written; without anybody writing, gives the change that it is.
    fn resize(&self, caller: &Caller, ino: Ino, size: u64, fh: Option<u64>) -> Result<Option<(Id, Edit)>> {
        let size = usize::try_from(size).ok().filter(|size| *size <= CONTENT_MAX).ok_or(Error::TooLarge)?;
        let writers = match fh.and_then(|fh| self.handles.attribute(fh)) {
            Some(file) => vec![file],
            // An open with O_TRUNC may be told as an open and this.
            None => self.handles.writers(ino),
        };
        if !writers.is_empty() {
            for file in writers {
                let mut content = file.lock();
                content.data.resize(size, 0);
                let changed = match (size, content.changed) {
                    (0, Changed::Emptied(_)) => continue,
                    (0, _) => Changed::Emptied(false),
                    _ => Changed::Written,
                };
                self.set_changed(&file, &mut content, changed, None);
            }
            return Ok(None);
        }
        let place = self.place(ino)?;
        let Place::Attribute(id, key) = &*place else { return Err(Error::Invalid) };
        if key.is_reserved() {
            return Err(Error::NotPermitted);
        }
        self.may_change(caller, id)?;
        let mut data = view::attribute::file(self.attribute_text(id, key)?.ok_or(Error::NotFound)?);
        if data.len() == size {
            return Ok(None);
        }
        data.resize(size, 0);
        Ok(Some((id.clone(), Edit::Set(key.clone(), view::attribute::parse_file(&data)?, SetMode::Any))))
    }

    /// Removes an attribute.
    pub(super) fn unlink_attribute(
        self: &Arc<Self>,
        caller: &Caller,
        root: &Root,
        name: &OsStr,
        done: Done<()>,
    ) {
        let found = self.existing_key(caller, id_of(root), name);
        let (key, committed) = match found {
            Ok(found) => found,
            Err(error) => return done(Err(error)),
        };
        let (tree, id) = (Arc::clone(self), id_of(root).clone());
        let place = Place::Attribute(id.clone(), key.clone());
        if !committed {
            self.table.unlink(&place);
            return done(Ok(()));
        }
        let done: Done<()> = Box::new(move |result| {
            if result.is_ok() {
                tree.table.unlink(&place);
            }
            done(result);
        });
        self.edit(id, vec![Edit::Unset(key)], done);
    }

    /// A key that is there and can be changed, and whether it is set already.
    fn existing_key(&self, caller: &Caller, id: &Id, name: &OsStr) -> Result<(Key, bool)> {
        let record = self.record(id)?;
        let key = text(name).ok().and_then(|name| view::attribute::key_of(&record.object, name).ok());
        let key = key.ok_or(Error::NotFound)?;
        if key.is_reserved() {
            return Err(Error::NotPermitted);
        }
        let committed = view::attribute::value(&record.object, &key).is_some();
        if !committed && !self.table.is_emptied(&Place::Attribute(id.clone(), key.clone())) {
            return Err(Error::NotFound);
        }
        self.may_change(caller, id)?;
        Ok((key, committed))
    }

    /// Renames an attribute.
    pub(super) fn rename_attribute(
        self: &Arc<Self>,
        caller: &Caller,
        id: &Id,
        from: &OsStr,
        to: &OsStr,
        no_replace: bool,
        done: Done<()>,
    ) {
        let keys = self.existing_key(caller, id, from).and_then(|from| Ok((from, self.target_key(id, to)?)));
        let ((from, committed), to) = match keys {
            Ok(keys) => keys,
            Err(error) => return done(Err(error)),
        };
        let (old, new) =
            (Place::Attribute(id.clone(), from.clone()), Place::Attribute(id.clone(), to.clone()));
        let mut edits = Vec::new();
        if !committed {
            edits.push(Edit::Set(from.clone(), empty(), SetMode::Any));
        }
        edits.push(Edit::Rename { from, to, no_replace });
        let tree = Arc::clone(self);
        let done: Done<()> = Box::new(move |result| {
            if result.is_ok() && old != new {
                tree.table.rename(&old, new);
            }
            done(result);
        });
        self.edit(id.clone(), edits, done);
    }

    fn target_key(&self, id: &Id, name: &OsStr) -> Result<Key> {
        let name = text(name)?;
        if name.starts_with('.') {
            return Err(Error::NotPermitted);
        }
        let key = view::attribute::key_of(&self.record(id)?.object, name)?;
        if key.is_reserved() {
            return Err(Error::NotPermitted);
        }
        if key.is_elements() { Err(Error::Invalid) } else { Ok(key) }
    }
}

fn empty() -> Value<'static> {
    Value::String(Text::from_str(""))
}
