//! What virtual nodes stand for, and the table that gives them ids.

use std::collections::HashMap;

use hashbrown::DefaultHashBuilder;

use crate::name::{Id, Key};
use crate::sync::{Arc, Mutex, MutexGuard, PoisonError};
use crate::vfs::content::Root;
use crate::vfs::{Ino, LINK_BIT, ROOT};
use crate::view::{Base, Dir, File, Set};

/// What a virtual node stands for. Directories have one for each path; files of one entry are shared by its paths.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Place {
    /// `README`
    Readme,
    /// `.status`
    Status,
    /// `new/`
    New,
    /// `memo/`
    Memo,
    /// `trash/`
    Trash,
    /// A directory of a view; the root and `entries/` are all entries.
    View(Dir),
    /// A file about a set.
    File(Set, File),
    /// A symbolic link from another spelling of a name to the one that is shown.
    Spelling {
        /// The directory.
        dir: Arc<Place>,
        /// The other spelling.
        name: String,
        /// The one name.
        target: String,
    },
    /// `.attrs/` of an entry.
    Attrs(Root),
    /// `.attrs/KEY`
    Attribute(Id, Key),
    /// `.attrs.json`
    Json(Id),
}

impl Place {
    /// The root of the mount.
    pub fn root() -> Self {
        Self::View(Dir::Set(Set::all(Base::Root)))
    }

    /// `entries/`
    pub fn entries() -> Self {
        Self::View(Dir::Set(Set::all(Base::Entries)))
    }

    fn set(&self) -> Option<&Set> {
        match self {
            Self::View(Dir::Set(set)) if !set.is_all() => Some(set),
            _ => None,
        }
    }
}

/// The numbers of set directories in the ids of their links.
const VIEW_BITS: u32 = 30;

/// The ids of virtual nodes and their lookup counts, which go up and down under this one lock. Held for no longer than
/// a step in a map; nothing else is locked under it.
#[derive(Debug)]
pub(super) struct Table(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    nodes: HashMap<Ino, Node, DefaultHashBuilder>,
    places: HashMap<Arc<Place>, Ino>,
    views: HashMap<u32, Ino, DefaultHashBuilder>,
    next: Ino,
    next_view: u32,
}

#[derive(Debug)]
struct Node {
    place: Arc<Place>,
    lookups: u64,
    /// Of a set directory: its number in the ids of links.
    view: Option<u32>,
    /// Of an attribute file: handles that have emptied it and written nothing yet.
    emptied: u32,
    /// Of a directory: the stamp of the listing in the kernel's cache.
    cached: Option<u64>,
    /// Of a directory: open streams that use that cache.
    streams: u32,
}

/// How a directory stream uses the kernel's cache of the directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Caching {
    /// Not at all.
    Without,
    /// What is there is dropped, and what is read is kept.
    Anew,
    /// What is there is this listing.
    Kept,
}

impl Table {
    pub fn new() -> Self {
        let root = Arc::new(Place::root());
        let node =
            Node { place: Arc::clone(&root), lookups: 1, view: None, emptied: 0, cached: None, streams: 0 };
        Self(Mutex::new(Inner {
            nodes: [(ROOT, node)].into_iter().collect(),
            places: HashMap::from([(root, ROOT)]),
            views: HashMap::default(),
            next: ROOT + 1,
            next_view: 0,
        }))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The id of a place; its lookup count goes up by one.
    pub fn raise(&self, place: Place) -> Ino {
        let mut inner = self.lock();
        if let Some(&ino) = inner.places.get(&place) {
            if let Some(node) = inner.nodes.get_mut(&ino) {
                node.lookups += 1;
            }
            return ino;
        }
        let ino = inner.next;
        inner.next += 1;
        let view = place.set().map(|_| inner.free_view());
        if let Some(view) = view {
            inner.views.insert(view, ino);
        }
        let place = Arc::new(place);
        inner.places.insert(Arc::clone(&place), ino);
        inner.nodes.insert(ino, Node { place, lookups: 1, view, emptied: 0, cached: None, streams: 0 });
        ino
    }

    /// Lowers a lookup count; at zero the node is gone.
    pub fn forget(&self, ino: Ino, count: u64) {
        if ino == ROOT {
            return;
        }
        let mut inner = self.lock();
        let Some(node) = inner.nodes.get_mut(&ino) else { return };
        node.lookups = node.lookups.saturating_sub(count);
        inner.drop_unused(ino);
    }

    /// What a node stands for.
    pub fn get(&self, ino: Ino) -> Option<Arc<Place>> {
        self.lock().nodes.get(&ino).map(|node| Arc::clone(&node.place))
    }

    /// The id of a place that the kernel knows.
    #[cfg(test)]
    pub fn find(&self, place: &Place) -> Option<Ino> {
        self.lock().places.get(place).copied()
    }

    /// The set whose links have this number.
    pub fn set_of_view(&self, view: u32) -> Option<Set> {
        let inner = self.lock();
        inner.nodes.get(inner.views.get(&view)?)?.place.set().cloned()
    }

    /// The id of the link to a row in a set directory.
    pub fn link(&self, dir: Ino, row: u32) -> Option<Ino> {
        let view = self.lock().nodes.get(&dir)?.view?;
        Some(LINK_BIT | u64::from(view) << 32 | u64::from(row))
    }

    /// The node of `from` stands for `to` from now on; a former node of `to` for nothing that can be found by name.
    pub fn rename(&self, from: &Place, to: Place) {
        let mut inner = self.lock();
        let Some(ino) = inner.places.remove(from) else {
            inner.places.remove(&to);
            return;
        };
        let to = Arc::new(to);
        inner.places.insert(Arc::clone(&to), ino);
        if let Some(node) = inner.nodes.get_mut(&ino) {
            node.place = to;
        }
    }

    /// The place was removed: its node is found by id alone.
    pub fn unlink(&self, place: &Place) {
        self.lock().places.remove(place);
    }

    /// Whether the node is the one that is found by its place.
    pub fn is_linked(&self, ino: Ino) -> bool {
        let inner = self.lock();
        inner.nodes.get(&ino).is_some_and(|node| inner.places.get(&node.place) == Some(&ino))
    }

    /// Counts handles that have emptied an attribute file and written nothing yet.
    pub fn emptied(&self, ino: Ino, more: bool) {
        let mut inner = self.lock();
        if let Some(node) = inner.nodes.get_mut(&ino) {
            node.emptied = if more { node.emptied + 1 } else { node.emptied.saturating_sub(1) };
            inner.drop_unused(ino);
        }
    }

    /// Whether somebody has emptied this attribute file and written nothing yet.
    pub fn is_emptied(&self, place: &Place) -> bool {
        let inner = self.lock();
        inner.places.get(place).and_then(|ino| inner.nodes.get(ino)).is_some_and(|node| node.emptied > 0)
    }

    /// Opens a directory stream of a listing with this stamp; `None` if it is for this stream alone.
    ///
    /// The kernel fills its cache as somebody reads, drops it when an open does not keep it (and whenever it likes), and
    /// then takes up its readers in the middle of what the next one fills in. So all streams that use the cache at a time
    /// are of one listing; a stream of another one does without.
    pub fn open_stream(&self, ino: Ino, stamp: Option<u64>) -> Caching {
        let mut inner = self.lock();
        let (Some(node), Some(stamp)) = (inner.nodes.get_mut(&ino), stamp) else { return Caching::Without };
        let same = node.cached == Some(stamp);
        if node.streams > 0 && !same {
            return Caching::Without;
        }
        node.streams += 1;
        node.cached = Some(stamp);
        if same { Caching::Kept } else { Caching::Anew }
    }

    /// Whether a stream that uses the cache may go on with another listing, of this stamp: nobody else reads.
    pub fn rewind_stream(&self, ino: Ino, stamp: Option<u64>) -> bool {
        let mut inner = self.lock();
        match inner.nodes.get_mut(&ino) {
            Some(node) if node.streams == 1 => {
                node.cached = stamp;
                true
            }
            _ => false,
        }
    }

    /// Closes a directory stream that uses the cache.
    pub fn close_stream(&self, ino: Ino) {
        if let Some(node) = self.lock().nodes.get_mut(&ino) {
            node.streams = node.streams.saturating_sub(1);
        }
    }

    /// Number of nodes that the kernel knows.
    pub fn len(&self) -> usize {
        self.lock().nodes.len()
    }
}

impl Inner {
    /// Takes a node out that the kernel has forgotten, unless it still shows what is about to be set: the kernel may forget a
    /// file before its last close is recorded, and whoever finds it again must find it empty.
    fn drop_unused(&mut self, ino: Ino) {
        if self.nodes.get(&ino).is_none_or(|node| node.lookups > 0 || node.emptied > 0) {
            return;
        }
        if let Some(node) = self.nodes.remove(&ino) {
            // The place may be another node's by now.
            if self.places.get(&node.place) == Some(&ino) {
                self.places.remove(&node.place);
            }
            if let Some(view) = node.view {
                self.views.remove(&view);
            }
        }
    }

    /// A number that no set directory has; those that were given up are used again after all others.
    fn free_view(&mut self) -> u32 {
        loop {
            let view = self.next_view;
            self.next_view = (view + 1) & ((1 << VIEW_BITS) - 1);
            if !self.views.contains_key(&view) {
                return view;
            }
        }
    }
}

/// Number of the set directory and row in the id of a link.
pub(super) fn split_link(ino: Ino) -> (u32, u32) {
    let low = |bits: u64| u32::try_from(bits & u64::from(u32::MAX)).unwrap_or(u32::MAX);
    (low((ino & !LINK_BIT) >> 32), low(ino))
}

#[cfg(test)]
#[cfg(not(feature = "models"))]
mod tests {
    use super::*;

    fn set(value: &str) -> Place {
        let key = Key::parse("lr").unwrap();
        let leaf = crate::value::Leaf::of(&crate::value::Value::from_text(value));
        Place::View(Dir::Set(Set::all(Base::Root).and(crate::view::Term::Value(key, leaf))))
    }

    #[test]
    fn a_node_lives_as_long_as_it_is_counted() {
        let table = Table::new();
        let ino = table.raise(Place::New);
        assert_eq!(table.raise(Place::New), ino);
        table.forget(ino, 1);
        assert_eq!(*table.get(ino).unwrap(), Place::New);
        table.forget(ino, 1);
        assert!(table.get(ino).is_none());
        assert_ne!(table.raise(Place::New), ino, "ids are never used again");
        table.forget(ROOT, 1000);
        assert!(table.get(ROOT).is_some());
        assert_eq!(table.len(), 2);
    }

    #[test]
    fn links_say_which_set_and_row() {
        let table = Table::new();
        let (one, two) = (table.raise(set("1")), table.raise(set("2")));
        let link = table.link(two, 77).unwrap();
        assert_ne!(table.link(one, 77), Some(link));
        let (view, row) = split_link(link);
        assert_eq!((Place::View(Dir::Set(table.set_of_view(view).unwrap())), row), (set("2"), 77));
        table.forget(two, 1);
        assert_eq!(table.set_of_view(view), None);
        assert_eq!(table.link(ROOT, 1), None, "the root lists no links");
    }

    #[test]
    fn a_renamed_node_keeps_its_id_and_the_replaced_one_is_nowhere() {
        let table = Table::new();
        let [a, b] = ["a", "b"].map(|key| Place::Attribute(Id::new("e1").unwrap(), Key::parse(key).unwrap()));
        let (first, second) = (table.raise(a.clone()), table.raise(b.clone()));
        table.rename(&a, b.clone());
        assert_eq!(table.raise(b), first);
        assert!(table.is_linked(first) && !table.is_linked(second));
        assert!(table.find(&a).is_none());
        table.forget(second, 1);
        assert!(table.is_linked(first), "forgetting the replaced node leaves the other one");
    }

    #[test]
    fn an_emptied_file_is_empty_until_that_is_set_even_if_it_is_forgotten() {
        let table = Table::new();
        let place = Place::Attribute(Id::new("e1").unwrap(), Key::parse("k").unwrap());
        let ino = table.raise(place.clone());
        table.emptied(ino, true);
        table.forget(ino, 1);
        assert!(table.is_emptied(&place));
        assert_eq!(table.raise(place.clone()), ino);
        table.emptied(ino, false);
        assert!(!table.is_emptied(&place) && table.is_linked(ino));
        table.emptied(ino, true);
        table.forget(ino, 1);
        table.emptied(ino, false);
        assert!(table.get(ino).is_none());
    }

    #[test]
    fn streams_that_share_the_cache_are_of_one_listing() {
        let table = Table::new();
        let open = |stamp| table.open_stream(ROOT, stamp);
        assert_eq!([open(Some(1)), open(Some(1))], [Caching::Anew, Caching::Kept]);
        assert_eq!([open(Some(2)), open(Some(2))], [Caching::Without; 2], "others read the former");
        assert!(!table.rewind_stream(ROOT, Some(2)));
        table.close_stream(ROOT);
        assert_eq!(open(Some(2)), Caching::Without);
        assert!(table.rewind_stream(ROOT, Some(2)), "the only one");
        assert_eq!(open(Some(2)), Caching::Kept);
        table.close_stream(ROOT);
        table.close_stream(ROOT);
        assert_eq!([open(Some(3)), open(Some(3))], [Caching::Anew, Caching::Kept]);
        assert_eq!(open(None), Caching::Without, "changes with time");
    }
}
