//! Directory streams: snapshots of names, rendered as they are read.

use std::cell::LazyCell;
use std::ffi::OsString;
use std::hash::Hasher;

use super::attr::id_of;
use super::handle::Handle;
use super::place::{Caching, Place};
use super::{Tree, now};
use crate::index::Row;
use crate::sync::atomic::Ordering;
use crate::sync::{Arc, Mutex, MutexGuard, PoisonError};
use crate::trash;
use crate::vfs::{Caller, DirEntry, Entry, Error, Ino, Opened, ROOT, Result};
use crate::view::{self, Base, Dir, Listing, Set};

/// Names of a directory, as they were when it was opened or rewound.
#[derive(Debug)]
enum Names {
    /// With their types.
    List(Vec<(String, u32)>),
    /// Directories of `entries/`.
    Entries(Vec<u32>),
    /// Links of a set directory; numbered with so many digits in `sort/`.
    Links(Set, Vec<u32>, Option<usize>),
}

/// An open directory.
#[derive(Debug)]
pub(super) struct Stream {
    ino: Ino,
    place: Arc<Place>,
    /// Uses the kernel's cache.
    cached: bool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    names: Names,
    /// Somebody has read from it: going back to the start is a new look.
    used: bool,
}

/// Takes a name, and the set and row if it is a link; says whether to go on.
type Add<'a> = dyn FnMut(&DirEntry, Option<(&Set, u32)>) -> bool + 'a;

/// `.` and `..` come first.
const DOTS: u64 = 2;
/// To give so many links with their attributes takes less time than one more request.
const FEW_LINKS: usize = 16;

impl Names {
    fn len(&self) -> usize {
        match self {
            Self::List(names) => names.len(),
            Self::Entries(rows) | Self::Links(_, rows, _) => rows.len(),
        }
    }
}

impl Stream {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_many_links(&self) -> bool {
        matches!(&self.lock().names, Names::Links(_, rows, _) if rows.len() > FEW_LINKS)
    }
}

impl Tree {
    /// Opens a stream of a virtual directory.
    pub fn opendir(&self, ino: Ino) -> Result<Opened> {
        let place = self.place(ino)?;
        let (names, stamp) = self.names_of(&place)?;
        let caching = self.table.open_stream(ino, stamp);
        let state = Mutex::new(State { names, used: false });
        let cached = caching != Caching::Without;
        let fh = self.handles.add(Handle::Stream(Arc::new(Stream { ino, place, cached, state })));
        // A stream without the cache leaves it to the others.
        Ok(Opened { fh, cache_dir: cached, keep_cache: caching != Caching::Anew, ..Opened::default() })
    }

    /// What a directory lists, and a number that is another one when it may list something else; `None` if nobody can say.
    fn names_of(&self, place: &Place) -> Result<(Names, Option<u64>)> {
        let of_type = |names: Vec<String>, kind| names.into_iter().map(|name| (name, kind)).collect();
        Ok(match place {
            Place::View(Dir::Set(set)) if set.is_all() => match set.base() {
                Base::Root => {
                    let mut names = vec![("README".to_owned(), libc::S_IFREG)];
                    let dirs = ["entries", "by-attr", "where", "sort", "new", "memo", "trash"];
                    names.extend(dirs.map(|name| (name.to_owned(), libc::S_IFDIR)));
                    (Names::List(names), Some(0))
                }
                Base::Entries => {
                    let index = self.cache.index();
                    (Names::Entries(index.live().iter().collect()), Some(index.live_generation()))
                }
            },
            Place::View(dir) => self.names_of_view(dir),
            Place::New | Place::Memo => (Names::List(Vec::new()), None),
            Place::Trash => {
                let names = trash::list(&self.cache)?.into_iter().map(|entry| entry.id.to_file_name());
                (Names::List(of_type(names.collect(), libc::S_IFDIR)), None)
            }
            Place::Attrs(root) => {
                let names = view::attribute::names(&self.record(id_of(root))?.object);
                (Names::List(of_type(names, libc::S_IFREG)), None)
            }
            _ => return Err(Error::NotDirectory),
        })
    }

    fn names_of_view(&self, dir: &Dir) -> (Names, Option<u64>) {
        let index = self.cache.index();
        let rows = self.sets.rows(dir.set(), &index, now());
        let mut stamp = match dir {
            Dir::Set(_) => rows.stamp,
            Dir::Values(_, key) => rows.stamp.map(|stamp| stamp.max(index.key_generation(key))),
            Dir::Keys(_) | Dir::Sort(_) => rows.stamp.map(|_| index.generation()),
            Dir::Where(_) => Some(0),
        };
        let names = match view::list(&index, dir, &rows.bitmap) {
            Listing::Links(rows) => Names::Links(dir.set().clone(), rows, None),
            Listing::Numbered(rows, width) => Names::Links(dir.set().clone(), rows, Some(width)),
            Listing::Names(mut names) => {
                if matches!(dir, Dir::Keys(_) | Dir::Values(..)) {
                    let made = self.made();
                    let more = made.iter().filter_map(|made| view::made_name(dir, made));
                    let more: Vec<String> = more.filter(|name| !names.contains(name)).collect();
                    names.extend(more);
                    // Both only count up.
                    let made = self.made_generation.load(Ordering::Relaxed);
                    stamp = stamp.map(|stamp| stamp.wrapping_add(made << 40));
                }
                Names::List(names.into_iter().map(|name| (name, libc::S_IFDIR)).collect())
            }
        };
        (names, stamp)
    }

    /// The names from position `cookie` on, given to `add` until it says stop. `add` gets the row too, of a link.
    fn read_names(&self, fh: u64, cookie: u64, add: &mut Add<'_>) -> Result<()> {
        /// So many names are rendered under one look into the index.
        const BATCH: usize = 512;
        let stream = self.handles.stream(fh)?;
        let mut state = stream.lock();
        if cookie == 0 && state.used {
            let (names, stamp) = self.names_of(&stream.place)?;
            if !stream.cached || self.table.rewind_stream(stream.ino, stamp) {
                state.names = names;
            }
        }
        state.used = true;
        for (cookie, name) in
            (cookie + 1..=DOTS).zip([".", ".."].iter().skip(usize::try_from(cookie).unwrap_or(2)))
        {
            let ino = if *name == "." { stream.ino } else { ROOT };
            let entry = DirEntry { ino, cookie, kind: libc::S_IFDIR, name: OsString::from(name) };
            if !add(&entry, None) {
                return Ok(());
            }
        }
        let mut position = usize::try_from(cookie.saturating_sub(DOTS)).unwrap_or(usize::MAX);
        while position < state.names.len() {
            let batch = self.render(&stream, &state.names, position, BATCH);
            for (entry, row) in &batch {
                let row = match (&state.names, row) {
                    (Names::Links(set, ..), Some(row)) => Some((set, *row)),
                    _ => None,
                };
                if !add(entry, row) {
                    return Ok(());
                }
            }
            position += BATCH;
        }
        Ok(())
    }

    /// A few names from a position on. Those of entries that were deleted meanwhile are still names.
    fn render(
        &self,
        stream: &Stream,
        names: &Names,
        from: usize,
        count: usize,
    ) -> Vec<(DirEntry, Option<u32>)> {
        let cookies = from.saturating_add(1)..;
        let cookie = |position: usize| u64::try_from(position).unwrap_or(u64::MAX).saturating_add(DOTS);
        match names {
            Names::List(names) => {
                let entry = |(position, (name, kind)): (usize, &(String, u32))| {
                    let (ino, name) = (some_ino(name), OsString::from(name));
                    (DirEntry { ino, cookie: cookie(position), kind: *kind, name }, None)
                };
                cookies.zip(names.iter().skip(from).take(count)).map(entry).collect()
            }
            Names::Entries(rows) => {
                let index = self.cache.index();
                let entry = |(position, row): (usize, &u32)| {
                    let name = index.id(Row(*row))?.to_file_name();
                    let (ino, name) = (some_ino(&name), OsString::from(name));
                    Some((DirEntry { ino, cookie: cookie(position), kind: libc::S_IFDIR, name }, None))
                };
                cookies.zip(rows.iter().skip(from).take(count)).filter_map(entry).collect()
            }
            Names::Links(_, rows, width) => {
                let index = self.cache.index();
                let base = self.table.link(stream.ino, 0).unwrap_or(crate::vfs::LINK_BIT);
                let entry = |(position, row): (usize, &u32)| {
                    let id = index.id(Row(*row))?;
                    let name = match width {
                        Some(width) => view::ordinal_name(position - 1, *width, &id),
                        None => id.to_file_name(),
                    };
                    let (ino, name) = (base | u64::from(*row), OsString::from(name));
                    let entry = DirEntry { ino, cookie: cookie(position), kind: libc::S_IFLNK, name };
                    Some((entry, Some(*row)))
                };
                cookies.zip(rows.iter().skip(from).take(count)).filter_map(entry).collect()
            }
        }
    }

    /// The names of a stream.
    pub fn readdir(&self, fh: u64, cookie: u64, add: &mut dyn FnMut(&DirEntry) -> bool) -> Result<()> {
        self.read_names(fh, cookie, &mut |entry, _| add(entry))
    }

    /// The names of a stream, each looked up; names that are gone by now are left out.
    ///
    /// The kernel asks for this at the start of every stream, and later on only if names of the directory are looked up. To take
    /// a link with its attributes takes the kernel longer than all else about it. So of many links, at the start, none are given,
    /// unless links were looked at since the listing before: then they probably are again, as by `ls -l`.
    pub fn readdirplus(
        &self,
        caller: &Caller,
        fh: u64,
        cookie: u64,
        add: &mut dyn FnMut(&DirEntry, &Entry) -> bool,
    ) -> Result<()> {
        let stream = self.handles.stream(fh)?;
        let names_only =
            cookie == 0 && stream.has_many_links() && !self.links_looked_at.swap(false, Ordering::Relaxed);
        if !names_only {
            self.shown.list();
        }
        let dir = stream.ino;
        let cache = LazyCell::new(|| self.cache_stat());
        self.read_names(fh, cookie, &mut |name, link| {
            let dots = name.cookie <= DOTS;
            let is_last = names_only && name.cookie == DOTS;
            let entry = if dots {
                // The kernel knows them.
                self.getattr(dir, None).map(|(attr, ttl)| Entry { attr, entry_ttl: ttl, attr_ttl: ttl })
            } else if let Some((set, row)) = link {
                match &*cache {
                    Ok(cache) => self.enter_link_of(cache, dir, set, Row(row)),
                    Err(_) => return true,
                }
            } else {
                self.lookup(caller, dir, &name.name)
            };
            let Ok(entry) = entry else { return !is_last };
            let taken = add(name, &entry);
            if !taken && !dots {
                self.forget_any(entry.attr.ino, 1);
            }
            taken && !is_last
        })
    }

    /// Closes a stream.
    pub fn releasedir(&self, fh: u64) {
        if let Some(Handle::Stream(stream)) = self.handles.remove(fh)
            && stream.cached
        {
            self.table.close_stream(stream.ino);
        }
    }
}

/// Some number for a name whose node is not known before a lookup.
fn some_ino(name: &str) -> Ino {
    let mut hasher = fnv::FnvHasher::default();
    hasher.write(name.as_bytes());
    hasher.finish() >> 2 | 1 << 61
}
