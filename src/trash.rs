//! Entries that were taken out: `_trash/ID/` with the contents, `_trash/ID.json` with the record.
//!
//! To the trash: write the record under a temporary name, delete the entry in the log, give the record its name (written
//! anew if somebody changed the entry in between), move the directory. Back: move the directory, restore the record in the
//! log, remove the one in the trash. For good: remove the directory, then the record. Whatever step a crash interrupts,
//! what is left says what to do ([`mend`]): the log decides whether the entry is live.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::cache::{Cache, CacheError, Change, Entry, Outcome};
use crate::name::Id;
use crate::record::parse_record;
use crate::value::Object;

/// The directory in the cache.
pub const NAME: &str = "_trash";
/// Ends the name of an entry's record in it.
const RECORD: &str = ".json";
/// In front of the name of a record whose entry may not have been deleted yet.
const TEMPORARY: &str = ".new-";

/// Why something could not be moved to the trash, back, or out of it.
#[derive(Debug)]
pub enum TrashError {
    /// No such entry, or none in the trash.
    NotFound,
    /// It exists at the other side.
    Exists,
    /// Its record in the trash is no record.
    Malformed,
    /// The cache refused.
    Cache(CacheError),
    /// A system call failed.
    Io {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

impl From<CacheError> for TrashError {
    fn from(source: CacheError) -> Self {
        match source {
            CacheError::NoEntry => Self::NotFound,
            CacheError::Exists => Self::Exists,
            other => Self::Cache(other),
        }
    }
}

/// Result of an operation on the trash.
pub type Result<T> = std::result::Result<T, TrashError>;

/// An entry in the trash.
#[derive(Debug, Clone, PartialEq)]
pub struct Trashed {
    /// Its id.
    pub id: Id,
    /// Its record, reserved members too.
    pub object: Object<'static>,
    /// The time of the entry, seconds since the epoch.
    pub time: f64,
    /// When it was taken out.
    pub since: SystemTime,
}

/// What an interrupted step left, or what does not belong in the trash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leftover {
    /// A live entry's record: a move to the trash that was not decided, or one back that was.
    RecordOfLive(Id),
    /// A live entry's directory is in the trash and none is in the cache.
    DirectoryOfLive(Id),
    /// A trashed entry's directory is still in the cache.
    DirectoryOutside(Id),
    /// A directory without a record: its attributes are not known.
    NoRecord(String),
    /// A record that cannot be read.
    Malformed(String),
    /// The record of an entry that was not deleted, or had been taken out by somebody else; or no whole record.
    Temporary(String),
    /// The only record of an entry that was deleted, under this temporary name.
    Unnamed(String, Id),
}

/// Names in the cache, through its open directory: a cache that is moved while in use is still the same one.
struct Places {
    cache: PathBuf,
    trash: PathBuf,
}

impl Places {
    fn of(cache: &Cache) -> Self {
        let cache = PathBuf::from(format!("/proc/self/fd/{}", cache.store().dir().as_raw_fd()));
        Self { trash: cache.join(NAME), cache }
    }

    fn outside(&self, id: &Id) -> PathBuf {
        self.cache.join(id.as_str())
    }

    fn inside(&self, id: &Id) -> PathBuf {
        self.trash.join(id.as_str())
    }

    fn record(&self, id: &Id) -> PathBuf {
        self.trash.join(format!("{}{RECORD}", id.as_str()))
    }

    /// Makes the trash if it is missing; a link or a file in its place is refused.
    fn make(&self) -> Result<()> {
        match fs::create_dir(&self.trash) {
            Ok(()) => {
                // Whoever may make entries may put them in the trash, not only who did so first.
                let like =
                    fs::metadata(&self.cache).and_then(|m| fs::set_permissions(&self.trash, m.permissions()));
                like.map_err(|source| TrashError::Io { doing: "set the permissions of the trash", source })?;
                sync(&self.cache)
            }
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {
                if is_directory(&self.trash) {
                    Ok(())
                } else {
                    Err(TrashError::Io { doing: "use the trash", source: ErrorKind::NotADirectory.into() })
                }
            }
            Err(source) => Err(TrashError::Io { doing: "make the trash", source }),
        }
    }
}

fn doing(doing: &'static str) -> impl FnOnce(io::Error) -> TrashError {
    move |source| match source.kind() {
        ErrorKind::NotFound => TrashError::NotFound,
        ErrorKind::AlreadyExists | ErrorKind::DirectoryNotEmpty => TrashError::Exists,
        _ => TrashError::Io { doing, source },
    }
}

fn is_directory(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir())
}

fn sync(directory: &Path) -> Result<()> {
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(|source| TrashError::Io { doing: "sync a directory", source })
}

/// Renames, and fails with EEXIST rather than replace.
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    let [from_name, to_name] = [from, to].map(|path| CString::new(path.as_os_str().as_bytes()));
    let (from_name, to_name) = (from_name?, to_name?);
    let (old, new) = (from_name.as_ptr(), to_name.as_ptr());
    // SAFETY: both names end in NUL and outlive the call.
    if unsafe { libc::renameat2(libc::AT_FDCWD, old, libc::AT_FDCWD, new, libc::RENAME_NOREPLACE) } == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    // Network file systems may lack the flag. Nobody but us makes names in the trash.
    if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS | libc::EOPNOTSUPP)) {
        return match fs::symlink_metadata(to) {
            Ok(_) => Err(ErrorKind::AlreadyExists.into()),
            Err(e) if e.kind() == ErrorKind::NotFound => fs::rename(from, to),
            Err(e) => Err(e),
        };
    }
    Err(error)
}

/// Whether the caller may move the directory, which changes its `..`. A missing one is no obstacle.
fn may_move(path: &Path) -> Result<()> {
    let name = CString::new(path.as_os_str().as_bytes())
        .map_err(|e| TrashError::Io { doing: "look at the entry", source: e.into() })?;
    let flags = libc::AT_EACCESS | libc::AT_SYMLINK_NOFOLLOW;
    // SAFETY: the name ends in NUL and outlives the call.
    if unsafe { libc::faccessat(libc::AT_FDCWD, name.as_ptr(), libc::W_OK, flags) } == 0 {
        return Ok(());
    }
    let source = io::Error::last_os_error();
    if source.kind() == ErrorKind::NotFound {
        return Ok(());
    }
    Err(TrashError::Io { doing: "move the entry's directory", source })
}

/// Moves a live entry to the trash.
pub fn put(cache: &Cache, id: &Id) -> Result<()> {
    let row = cache.index().row(id.as_str()).ok_or(TrashError::NotFound)?;
    let places = Places::of(cache);
    may_move(&places.outside(id))?;
    places.make()?;
    // What an earlier life of this id left there would be lost or stand in the way.
    if is_directory(&places.inside(id)) {
        return Err(TrashError::Exists);
    }
    // The entry `ID.json` stands where the record is to be.
    if is_directory(&places.record(id)) {
        return Err(TrashError::Exists);
    }
    let mut entry = cache.entry(row)?;
    let temporary = write_record(&places, &entry.object)?;
    let outcome = cache.change(Change::Delete { id: id.clone() }).inspect_err(|_| {
        let _ = fs::remove_file(&temporary);
    })?;
    let mut is_written = true;
    if let Outcome::Deleted(object) = outcome {
        // Somebody may have changed it meanwhile.
        is_written = object == entry.object;
        entry.object = object;
    }
    let moved = name_record(&places, &entry, &temporary, is_written).and_then(|()| move_in(&places, id));
    if moved.is_err() {
        give_back(cache, &places, entry);
    }
    moved
}

/// Gives the record of an entry, which may be `is_written` under a temporary name, its name.
fn name_record(places: &Places, entry: &Entry, temporary: &Path, is_written: bool) -> Result<()> {
    let record = places.record(&entry.id);
    // `mend` on another node may have taken it for a leftover.
    if !is_written || fs::rename(temporary, &record).is_err() {
        let fresh = write_record(places, &entry.object)?;
        let _ = fs::remove_file(temporary);
        fs::rename(fresh, record).map_err(doing("name the record in the trash"))?;
    }
    sync(&places.trash)
}

/// Moves an entry's directory to the trash, if it has one.
fn move_in(places: &Places, id: &Id) -> Result<()> {
    match rename(&places.outside(id), &places.inside(id)) {
        Ok(()) => sync(&places.trash),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        Err(e) => Err(doing("move the entry's directory")(e)),
    }
}

/// Takes a deletion back. If that fails as well, `mend` finishes the move.
fn give_back(cache: &Cache, places: &Places, entry: Entry) {
    let record = places.record(&entry.id);
    let back = Change::Restore { id: entry.id, object: entry.object, time: entry.time };
    if cache.change(back).is_ok() {
        let _ = fs::remove_file(record);
    }
}

/// Writes a record under a new temporary name, and syncs it.
fn write_record(places: &Places, object: &Object<'_>) -> Result<PathBuf> {
    let mut line = Vec::new();
    object.write_python(&mut line);
    line.push(b'\n');
    let temporary = places.trash.join(format!("{TEMPORARY}{:016x}", rand::random::<u64>()));
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&temporary)
        .and_then(|mut file| file.write_all(&line).and_then(|()| file.sync_all()))
        .map_err(|source| {
            let _ = fs::remove_file(&temporary);
            TrashError::Io { doing: "write the record in the trash", source }
        })?;
    sync(&places.trash)?;
    Ok(temporary)
}

/// An entry of the trash.
pub fn get(cache: &Cache, id: &Id) -> Result<Trashed> {
    read(&Places::of(cache), id)
}

fn read(places: &Places, id: &Id) -> Result<Trashed> {
    let path = places.record(id);
    let meta = fs::symlink_metadata(&path).map_err(doing("look at the record in the trash"))?;
    if !meta.is_file() {
        return Err(TrashError::NotFound);
    }
    let bytes = fs::read(&path).map_err(doing("read the record in the trash"))?;
    let record = parse_record(bytes.trim_ascii()).map_err(|_| TrashError::Malformed)?;
    if record.id != *id || record.deleted {
        return Err(TrashError::Malformed);
    }
    let since = meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
    Ok(Trashed { id: id.clone(), time: record.time, object: record.object.into_owned(), since })
}

/// The entries in the trash, the latest last; what cannot be read is left to [`leftovers`].
pub fn list(cache: &Cache) -> Result<Vec<Trashed>> {
    let places = Places::of(cache);
    let mut found = Vec::new();
    for (name, is_dir) in names(&places)? {
        if let Some(id) = name.strip_suffix(RECORD).filter(|_| !is_dir).and_then(|name| Id::new(name).ok())
            && cache.index().row(id.as_str()).is_none()
            && let Ok(trashed) = read(&places, &id)
        {
            found.push(trashed);
        }
    }
    found.sort_by(|a, b| (a.since, &a.id).cmp(&(b.since, &b.id)));
    Ok(found)
}

/// The names in the trash, and whether each is a directory, in order. Names that are not UTF-8 are no one's.
fn names(places: &Places) -> Result<Vec<(String, bool)>> {
    if !is_directory(&places.trash) {
        return Ok(Vec::new());
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(&places.trash).map_err(doing("list the trash"))? {
        let entry = entry.map_err(doing("list the trash"))?;
        let kind = entry.file_type().map_err(doing("list the trash"))?;
        if let Ok(name) = entry.file_name().into_string() {
            names.push((name, kind.is_dir()));
        }
    }
    names.sort();
    Ok(names)
}

/// Brings an entry back.
pub fn restore(cache: &Cache, id: &Id) -> Result<()> {
    let places = Places::of(cache);
    let trashed = read(&places, id)?;
    if cache.index().row(id.as_str()).is_some() {
        return Err(TrashError::Exists);
    }
    let (inside, outside) = (places.inside(id), places.outside(id));
    let moved = match rename(&inside, &outside) {
        Ok(()) => true,
        // An entry without contents, unless another one of that name stands outside.
        Err(e) if e.kind() == ErrorKind::NotFound => false,
        Err(e) => return Err(doing("move the entry's directory back")(e)),
    };
    let change = Change::Restore { id: id.clone(), object: trashed.object, time: trashed.time };
    if let Err(e) = cache.change(change) {
        // Somebody else may have just brought it back: then this is its directory.
        if moved && !matches!(e, CacheError::Exists) {
            // If this fails as well, `mend` does it.
            let _ = rename(&outside, &inside);
        }
        return Err(e.into());
    }
    match fs::remove_file(places.record(id)) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(doing("remove the record in the trash")(e)),
        _ => Ok(()),
    }
}

/// Removes an entry from the trash for good, contents and all.
pub fn remove(cache: &Cache, id: &Id) -> Result<()> {
    let places = Places::of(cache);
    match fs::remove_dir_all(places.inside(id)) {
        Err(source) if source.kind() != ErrorKind::NotFound => {
            return Err(TrashError::Io { doing: "remove the contents in the trash", source });
        }
        _ => {}
    }
    remove_record(cache, id)
}

/// Removes the record of an entry in the trash whose directory is gone.
pub fn remove_record(cache: &Cache, id: &Id) -> Result<()> {
    fs::remove_file(Places::of(cache).record(id)).map_err(doing("remove the record in the trash"))
}

/// What interrupted moves left.
pub fn leftovers(cache: &Cache) -> Result<Vec<Leftover>> {
    let places = Places::of(cache);
    let mut found = Vec::new();
    for (name, is_dir) in names(&places)? {
        if is_dir {
            match Id::new(&name) {
                Ok(id) if places.record(&id).is_file() => {}
                _ => found.push(Leftover::NoRecord(name)),
            }
            continue;
        }
        if name.starts_with(TEMPORARY) {
            found.push(unnamed(cache, &places, name));
            continue;
        }
        let Some(id) = name.strip_suffix(RECORD).and_then(|name| Id::new(name).ok()) else {
            found.push(Leftover::Malformed(name));
            continue;
        };
        let (inside, outside) = (is_directory(&places.inside(&id)), is_directory(&places.outside(&id)));
        let live = cache.index().row(id.as_str()).is_some();
        if live && inside && !outside {
            found.push(Leftover::DirectoryOfLive(id));
        } else if live {
            found.push(Leftover::RecordOfLive(id));
        } else if read(&places, &id).is_err() {
            found.push(Leftover::Malformed(name));
        } else if outside && !inside {
            found.push(Leftover::DirectoryOutside(id));
        }
    }
    Ok(found)
}

/// What to make of a temporary name.
fn unnamed(cache: &Cache, places: &Places, name: String) -> Leftover {
    let bytes = fs::read(places.trash.join(&name)).unwrap_or_default();
    match parse_record(bytes.trim_ascii()) {
        Ok(record)
            if cache.index().row(record.id.as_str()).is_none()
                && fs::symlink_metadata(places.record(&record.id)).is_err() =>
        {
            Leftover::Unnamed(name, record.id)
        }
        _ => Leftover::Temporary(name),
    }
}

/// Finishes or takes back an interrupted move. False for what only a person can decide; nothing of it is touched.
pub fn mend(cache: &Cache, leftover: &Leftover) -> Result<bool> {
    let places = Places::of(cache);
    match leftover {
        Leftover::RecordOfLive(id) if is_directory(&places.inside(id)) => return Ok(false),
        Leftover::RecordOfLive(id) => {
            fs::remove_file(places.record(id)).map_err(doing("remove the record in the trash"))?;
        }
        Leftover::DirectoryOfLive(id) => {
            rename(&places.inside(id), &places.outside(id))
                .map_err(doing("move the entry's directory back"))?;
            fs::remove_file(places.record(id)).map_err(doing("remove the record in the trash"))?;
        }
        Leftover::DirectoryOutside(id) => {
            rename(&places.outside(id), &places.inside(id)).map_err(doing("move the entry's directory"))?;
        }
        Leftover::Temporary(name) => {
            fs::remove_file(places.trash.join(name)).map_err(doing("remove an unfinished record"))?;
        }
        Leftover::Unnamed(name, id) => {
            fs::rename(places.trash.join(name), places.record(id))
                .map_err(doing("name a record in the trash"))?;
            if is_directory(&places.outside(id)) {
                rename(&places.outside(id), &places.inside(id))
                    .map_err(doing("move the entry's directory"))?;
            }
        }
        Leftover::NoRecord(_) | Leftover::Malformed(_) => return Ok(false),
    }
    Ok(true)
}
