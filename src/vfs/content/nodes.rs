//! The table of nodes: ids, lookup counts, where each node was last found, and a bounded set of descriptors.
//!
//! A node has no descriptor of its own: it is found again through its parent and its name, and known by its identity
//! ([`FileId`]). Descriptors of the nodes in use are kept in a ring of fixed size (second chance). Only nodes whose name
//! was removed while the kernel knows them hold one for as long as they are known.

use std::collections::HashMap;
use std::ffi::{CString, OsStr, OsString};
use std::hash::Hasher;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use hashbrown::DefaultHashBuilder;

use super::Root;
use crate::backing::{Stat, StatTime};
use crate::name::Id;
use crate::vfs::{CONTENT_BIT, Ino, Signature};

/// Which file: the same for all its names, another one after the inode number was used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct FileId {
    pub dev: u64,
    pub ino: u64,
    pub btime: StatTime,
}

impl FileId {
    pub fn of(stat: &Stat) -> Self {
        Self { dev: stat.dev, ino: stat.ino, btime: stat.btime }
    }
}

/// What a node id stands for. Directories are also told apart by the view ([`view_of`]) that they are seen through.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Key {
    /// An entry's own directory, whether it exists or not.
    Root(u64, Id),
    /// A file or directory below.
    File(u64, FileId),
}

/// The number of a view: 0 for `entries/` (and for everything that is no directory), 1 for `trash/`, more for aliases.
pub(super) fn view_of(root: &Root) -> u64 {
    match root {
        Root::Entries(_) => 0,
        Root::Trash(_) => 1,
        Root::Alias(_, number) => number.saturating_add(2),
    }
}

/// The id of a root.
pub(super) fn entry_of(root: &Root) -> &Id {
    match root {
        Root::Entries(id) | Root::Trash(id) | Root::Alias(id, _) => id,
    }
}

/// Where a node was last found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// An entry's own directory.
    Root(Root),
    /// A name in a directory.
    Below(Ino, Box<OsStr>),
}

impl Signature {
    /// Of what is there now.
    pub fn of(stat: &Stat) -> Self {
        let (mtime, ctime) = (stat.mtime, stat.ctime);
        let times =
            [mtime.sec.cast_unsigned(), mtime.nsec.into(), ctime.sec.cast_unsigned(), ctime.nsec.into()];
        Self(times.into_iter().fold(stat.size, |hash, part| mix(hash).wrapping_add(part)))
    }
}

/// A file or directory that the kernel knows, or that is on the way to one.
#[derive(Debug)]
pub(super) struct Node {
    pub key: Key,
    /// The directory of an entry, if it is there.
    root_file: Option<FileId>,
    /// `S_IFMT` of the mode.
    pub kind: u32,
    /// The view below, for directories.
    pub view: u64,
    /// The node of the entry's own directory.
    pub root: Ino,
    pub place: Place,
    /// Its entry was deleted or moved away.
    pub gone: bool,
    /// What the kernel counts.
    lookups: u64,
    /// Nodes whose place is below this one.
    children: u64,
    own: Option<Box<Own>>,
    slot: Option<u32>,
    /// As the kernel last heard it with attributes.
    pub told: Option<Signature>,
    /// Nothing that the kernel has kept of the data is older than this; none if a later change might not have shown.
    pub opened: Option<Signature>,
}

/// Descriptors that are a node's own: few nodes have any.
#[derive(Debug, Default)]
struct Own {
    /// Open files of it, by handle.
    opens: Vec<(u64, Arc<OwnedFd>)>,
    /// Its name was removed: there is no other way to it.
    held: Option<Arc<OwnedFd>>,
}

#[derive(Debug)]
struct Slot {
    ino: Ino,
    fd: Arc<OwnedFd>,
    used: bool,
}

/// Descriptors that nobody needs any more: to be closed after the table's lock is given up.
pub(super) type Closing = Vec<Arc<OwnedFd>>;

/// The way to a node: the nearest node with a descriptor and the names from there, or the entry's directory.
#[derive(Debug)]
pub(super) enum Way {
    /// A descriptor of it.
    Held(Arc<OwnedFd>),
    /// Through names, each with the node that must be found there.
    Through(Start, Vec<Step>),
    /// Its entry was deleted, or the node is unknown.
    Gone,
}

#[derive(Debug)]
pub(super) enum Start {
    Held(Arc<OwnedFd>),
    Root(Ino, Root),
}

#[derive(Debug)]
pub(super) struct Step {
    pub ino: Ino,
    pub name: CString,
    pub file: FileId,
}

/// All nodes.
#[derive(Debug)]
pub(super) struct Table {
    /// Boxed, so that a table that has grown for many nodes costs little when they are gone.
    nodes: HashMap<Ino, Box<Node>, DefaultHashBuilder>,
    /// Nodes whose key is not the one that their id was made of (moved between views).
    moved: HashMap<Key, Ino>,
    /// Nodes of entries' own directories, but those that are found where the search for `entries/ID` begins.
    other_roots: HashMap<Id, Vec<Ino>>,
    ring: Vec<Option<Slot>>,
    free: Vec<usize>,
    hand: usize,
    capacity: usize,
    has_shrunk: bool,
}

/// So many nodes are worth giving their memory back to the system.
const MANY: usize = 1 << 15;

/// Where the search for the id of a key begins.
fn first_id(key: &Key) -> Ino {
    match key {
        Key::File(view, file) => file_ino(*view, file.dev, file.ino),
        Key::Root(view, id) => first_root_id(*view, id),
    }
}

/// The node that `entries/ID` has unless that is another's.
fn usual_root(id: &Id) -> Ino {
    first_root_id(0, id)
}

fn first_root_id(view: u64, id: &Id) -> Ino {
    let mut hasher = fnv::FnvHasher::default();
    hasher.write(id.as_str().as_bytes());
    masked(mix(hasher.finish() ^ mix(view.wrapping_add(0x5eed))))
}

/// The id that a file most probably has, by what a directory stream tells of it.
pub(super) fn file_ino(view: u64, dev: u64, ino: u64) -> Ino {
    masked(mix(ino ^ mix(dev ^ mix(view))))
}

/// The index of a place in the ring.
fn place(slot: u32) -> usize {
    usize::try_from(slot).unwrap_or(usize::MAX)
}

fn masked(hash: u64) -> Ino {
    CONTENT_BIT | hash & ((1 << 61) - 1)
}

/// The finalizer of splitmix64: a bijection that spreads every bit.
fn mix(value: u64) -> u64 {
    let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}

impl Table {
    pub fn new(capacity: usize) -> Self {
        Self {
            nodes: HashMap::default(),
            moved: HashMap::new(),
            other_roots: HashMap::new(),
            ring: Vec::new(),
            free: Vec::new(),
            hand: 0,
            capacity: capacity.max(1),
            has_shrunk: false,
        }
    }

    pub fn get(&self, ino: Ino) -> Option<&Node> {
        self.nodes.get(&ino).map(|node| &**node)
    }

    pub fn get_mut(&mut self, ino: Ino) -> Option<&mut Node> {
        self.nodes.get_mut(&ino).map(|node| &mut **node)
    }

    /// Number of nodes.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Number of nodes, and of descriptors in the ring.
    #[cfg(test)]
    pub fn sizes(&self) -> (usize, usize) {
        (self.nodes.len(), self.ring.iter().flatten().count())
    }

    /// Forgets every descriptor that can be opened again.
    #[cfg(test)]
    pub fn drop_ring(&mut self) {
        self.nodes.values_mut().for_each(|node| node.slot = None);
        (self.ring, self.free, self.hand) = (Vec::new(), Vec::new(), 0);
    }

    /// The node that has this key, if it is known; otherwise the id that it would get.
    fn slot_of(&self, key: &Key) -> Result<Ino, Ino> {
        if let Some(&ino) = self.moved.get(key) {
            return Ok(ino);
        }
        let mut ino = first_id(key);
        while let Some(node) = self.nodes.get(&ino) {
            if !node.gone && node.key == *key {
                return Ok(ino);
            }
            ino = masked(ino.wrapping_add(1));
        }
        Err(ino)
    }

    pub fn find(&self, key: &Key) -> Option<Ino> {
        self.slot_of(key).ok()
    }

    /// The node of a file found at a place; its lookup count is raised by one. Gives none if the parent is unknown.
    pub fn enter(&mut self, parent: Ino, name: &OsStr, stat: &Stat, closing: &mut Closing) -> Option<Ino> {
        let (view, root) = self.nodes.get(&parent).map(|node| (node.view, node.root))?;
        let view = if stat.is_directory() { view } else { 0 };
        let file = FileId::of(stat);
        let key = Key::File(view, file);
        let ino = match self.slot_of(&key) {
            Ok(ino) => {
                self.place(ino, parent, name, closing);
                ino
            }
            Err(ino) => {
                let place = Place::Below(parent, name.into());
                self.nodes
                    .insert(ino, Node::new(key, Some(file), stat.mode & libc::S_IFMT, view, root, place));
                if let Some(parent) = self.nodes.get_mut(&parent) {
                    parent.children += 1;
                }
                ino
            }
        };
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.lookups += 1;
            node.told = Some(Signature::of(stat));
        }
        Some(ino)
    }

    /// The node of an entry's own directory; its lookup count is raised by one.
    pub fn enter_root(&mut self, root: Root, file: Option<FileId>, closing: &mut Closing) -> Ino {
        let view = view_of(&root);
        let id = entry_of(&root).clone();
        let key = Key::Root(view, id.clone());
        match self.slot_of(&key) {
            Ok(ino) => {
                self.set_root_file(ino, file, closing);
                if let Some(node) = self.nodes.get_mut(&ino) {
                    node.lookups += 1;
                }
                ino
            }
            Err(ino) => {
                if ino != usual_root(&id) {
                    self.other_roots.entry(id).or_default().push(ino);
                }
                let mut node = Node::new(key, file, libc::S_IFDIR, view, ino, Place::Root(root));
                node.lookups = 1;
                self.nodes.insert(ino, node);
                ino
            }
        }
    }

    /// An entry's directory was made, or is another one than before.
    pub fn set_root_file(&mut self, ino: Ino, file: Option<FileId>, closing: &mut Closing) {
        let Some(node) = self.nodes.get_mut(&ino).filter(|node| node.root_file != file) else { return };
        node.root_file = file;
        node.opened = None;
        if let Some(slot) = node.slot.take() {
            closing.extend(self.take_slot(place(slot)));
        }
    }

    /// Whether many nodes have gone since this was last asked.
    pub fn has_shrunk(&mut self) -> bool {
        std::mem::take(&mut self.has_shrunk)
    }

    /// Through how many paths an entry is seen now.
    pub fn roots_of(&self, root: &Root) -> usize {
        self.roots(entry_of(root)).count()
    }

    /// The nodes of an entry's own directory that are not gone.
    fn roots<'t>(&'t self, id: &'t Id) -> impl Iterator<Item = Ino> + 't {
        let usual = usual_root(id);
        let is_there = self.nodes.get(&usual).is_some_and(|node| !node.gone && node.is_root_of(id));
        let others = if self.other_roots.is_empty() { None } else { self.other_roots.get(id) };
        is_there.then_some(usual).into_iter().chain(others.into_iter().flatten().copied())
    }

    /// A node is no more one of an entry's own directory.
    fn drop_root(&mut self, id: &Id, ino: Ino) {
        if let Some(others) = self.other_roots.get_mut(id) {
            others.retain(|&other| other != ino);
            if others.is_empty() {
                self.other_roots.remove(id);
            }
        }
    }

    /// Whether the entry of this directory is seen through more than one path now.
    pub fn is_shared(&self, ino: Ino) -> bool {
        if self.other_roots.is_empty() {
            return false;
        }
        let root = self.nodes.get(&ino).and_then(|node| self.nodes.get(&node.root));
        match root.map(|root| &root.key) {
            Some(Key::Root(_, id)) => self.roots(id).nth(1).is_some(),
            Some(Key::File(..)) | None => false,
        }
    }

    /// Roots of this entry, seen through any path but the trash; of the trash only itself.
    pub fn roots_like(&self, root: &Root) -> Vec<Ino> {
        let trash = |view: u64| view == 1;
        let wanted = trash(view_of(root));
        self.roots(entry_of(root))
            .filter(|ino| self.nodes.get(ino).is_some_and(|node| trash(node.view) == wanted))
            .collect()
    }

    /// Marks a root as deleted: its id is not given again while the kernel knows it.
    pub fn mark_gone(&mut self, ino: Ino, closing: &mut Closing) {
        let Some(node) = self.nodes.get_mut(&ino) else { return };
        node.gone = true;
        closing.extend(node.own.as_mut().and_then(|own| own.held.take()));
        let slot = node.slot.take();
        if let Key::Root(_, id) = &node.key {
            let id = id.clone();
            self.drop_root(&id, ino);
        }
        if let Some(slot) = slot {
            closing.extend(self.take_slot(place(slot)));
        }
    }

    /// Notes where a node is now.
    pub fn place(&mut self, ino: Ino, parent: Ino, name: &OsStr, closing: &mut Closing) {
        let Some((view, root)) = self.nodes.get(&parent).map(|node| (node.view, node.root)) else { return };
        let Some(node) = self.nodes.get_mut(&ino) else { return };
        let Place::Below(old, old_name) = &mut node.place else { return };
        let before = std::mem::replace(old, parent);
        if **old_name != *name {
            *old_name = name.into();
        }
        node.root = root;
        // What lies below keeps the view that its ids were made of; only this node is found under another key now.
        if let Key::File(key_view, file) = node.key
            && key_view != view
            && node.kind == libc::S_IFDIR
        {
            let key = Key::File(view, file);
            let old = std::mem::replace(&mut node.key, key.clone());
            self.moved.remove(&old);
            if first_id(&key) != ino {
                self.moved.insert(key, ino);
            }
        }
        if before != parent {
            if let Some(parent) = self.nodes.get_mut(&parent) {
                parent.children += 1;
            }
            self.release_child(before, closing);
        }
    }

    /// Lowers a lookup count; removes the nodes that nobody knows any more.
    pub fn forget(&mut self, ino: Ino, count: u64, closing: &mut Closing) {
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.lookups = node.lookups.saturating_sub(count);
            self.remove_unused(ino, closing);
        }
    }

    fn release_child(&mut self, ino: Ino, closing: &mut Closing) {
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.children = node.children.saturating_sub(1);
            self.remove_unused(ino, closing);
        }
    }

    fn remove_unused(&mut self, mut ino: Ino, closing: &mut Closing) {
        while self
            .nodes
            .get(&ino)
            .is_some_and(|node| node.lookups == 0 && node.children == 0 && !node.is_open())
        {
            let Some(node) = self.nodes.remove(&ino) else { return };
            if let Some(slot) = node.slot {
                closing.extend(self.take_slot(place(slot)));
            }
            closing.extend(node.own.and_then(|own| own.held));
            self.moved.remove(&node.key);
            match node.place {
                Place::Root(root) => {
                    self.drop_root(entry_of(&root), ino);
                    return;
                }
                Place::Below(parent, _) => {
                    let Some(node) = self.nodes.get_mut(&parent) else { return };
                    node.children = node.children.saturating_sub(1);
                    ino = parent;
                }
            }
        }
        let capacity = self.nodes.capacity();
        if self.nodes.len() < capacity / 8 {
            self.nodes.shrink_to(self.nodes.len() * 2);
            self.has_shrunk |= capacity > MANY;
        }
    }

    /// Notes an open file: as long as it is open, it is the way to the node.
    pub fn opened(&mut self, ino: Ino, fh: u64, fd: Arc<OwnedFd>) {
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.own.get_or_insert_default().opens.push((fh, fd));
        }
    }

    /// The handles by which a file is open.
    pub fn open_handles(&self, ino: Ino) -> Vec<u64> {
        let own = self.nodes.get(&ino).and_then(|node| node.own.as_ref());
        own.map_or_else(Vec::new, |own| own.opens.iter().map(|(fh, _)| *fh).collect())
    }

    /// An open file was closed.
    pub fn closed(&mut self, ino: Ino, fh: u64, closing: &mut Closing) {
        let Some(node) = self.nodes.get_mut(&ino) else { return };
        if let Some(own) = &mut node.own {
            if let Some(index) = own.opens.iter().position(|(other, _)| *other == fh) {
                closing.push(own.opens.swap_remove(index).1);
            }
            if own.opens.is_empty() && own.held.is_none() {
                node.own = None;
            }
        }
        self.remove_unused(ino, closing);
    }

    /// Whether the name of a node was removed: a descriptor is the only way to it.
    pub fn is_nameless(&self, ino: Ino) -> bool {
        self.nodes.get(&ino).and_then(|node| node.own.as_ref()).is_some_and(|own| own.held.is_some())
    }

    /// A descriptor of the node if there is one now.
    pub fn descriptor(&mut self, ino: Ino) -> Option<Arc<OwnedFd>> {
        let node = self.nodes.get(&ino)?;
        let own = node.own.as_ref();
        if let Some(fd) =
            own.and_then(|own| own.held.as_ref().or_else(|| own.opens.first().map(|(_, fd)| fd)))
        {
            return Some(Arc::clone(fd));
        }
        let slot = self.ring.get_mut(place(node.slot?))?.as_mut()?;
        slot.used = true;
        Some(Arc::clone(&slot.fd))
    }

    /// Keeps a descriptor for as long as the kernel knows the node: its name is about to be removed.
    pub fn hold(&mut self, ino: Ino, fd: Arc<OwnedFd>, closing: &mut Closing) {
        let Some(node) = self.nodes.get_mut(&ino) else { return };
        node.own.get_or_insert_default().held = Some(fd);
        if let Some(slot) = node.slot.take() {
            closing.extend(self.take_slot(place(slot)));
        }
    }

    /// The name was not removed after all.
    pub fn unhold(&mut self, ino: Ino, closing: &mut Closing) {
        closing.extend(self.nodes.get_mut(&ino).and_then(|node| node.own.as_mut()?.held.take()));
    }

    /// Keeps a descriptor until its place in the ring is needed.
    pub fn keep(&mut self, ino: Ino, fd: &Arc<OwnedFd>, closing: &mut Closing) {
        if self.nodes.get(&ino).is_none_or(|node| node.gone || node.slot.is_some()) {
            return;
        }
        let fresh = Slot { ino, fd: Arc::clone(fd), used: true };
        let index = match self.free.pop() {
            Some(index) => index,
            None if self.ring.len() < self.capacity => {
                self.ring.push(None);
                self.ring.len() - 1
            }
            None => self.victim(),
        };
        let Some(slot) = self.ring.get_mut(index) else { return };
        if let Some(old) = slot.replace(fresh) {
            if let Some(node) = self.nodes.get_mut(&old.ino) {
                node.slot = None;
            }
            closing.push(old.fd);
        }
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.slot = u32::try_from(index).ok();
        }
    }

    /// The next place of the ring that was not used since the hand last passed it.
    fn victim(&mut self) -> usize {
        loop {
            let index = self.hand;
            self.hand = (self.hand + 1) % self.ring.len().max(1);
            match self.ring.get_mut(index) {
                Some(Some(slot)) if slot.used => slot.used = false,
                Some(_) | None => return index,
            }
        }
    }

    fn take_slot(&mut self, index: usize) -> Option<Arc<OwnedFd>> {
        let slot = self.ring.get_mut(index)?.take()?;
        self.free.push(index);
        Some(slot.fd)
    }

    /// The way to a node.
    pub fn way(&mut self, ino: Ino) -> Way {
        let mut steps = Vec::new();
        let mut at = ino;
        loop {
            let Some(node) = self.nodes.get(&at).filter(|node| !node.gone) else { return Way::Gone };
            // Directories moved behind the mount may be known as each other's parents.
            if steps.len() > self.nodes.len() {
                return Way::Gone;
            }
            let place = match &node.place {
                Place::Root(root) => Err(root.clone()),
                Place::Below(parent, name) => Ok((*parent, OsString::from(name))),
            };
            let file = node.file();
            if let Some(fd) = self.descriptor(at) {
                if steps.is_empty() {
                    return Way::Held(fd);
                }
                steps.reverse();
                return Way::Through(Start::Held(fd), steps);
            }
            match (place, file) {
                (Err(root), _) => {
                    steps.reverse();
                    return Way::Through(Start::Root(at, root), steps);
                }
                (Ok((parent, name)), Some(file)) => {
                    let Ok(name) = crate::backing::component(&name) else { return Way::Gone };
                    steps.push(Step { ino: at, name, file });
                    at = parent;
                }
                (Ok(_), None) => return Way::Gone,
            }
        }
    }
}

impl Node {
    fn is_root_of(&self, id: &Id) -> bool {
        matches!(&self.key, Key::Root(_, root) if root == id)
    }

    /// The file; none for an entry without a directory.
    pub fn file(&self) -> Option<FileId> {
        match self.key {
            Key::Root(..) => self.root_file,
            Key::File(_, file) => Some(file),
        }
    }

    fn is_open(&self) -> bool {
        self.own.as_ref().is_some_and(|own| !own.opens.is_empty())
    }

    /// The directory and the name that it was last found by.
    pub fn below(&self) -> Option<(Ino, OsString)> {
        match &self.place {
            Place::Root(_) => None,
            Place::Below(parent, name) => Some((*parent, OsString::from(name))),
        }
    }

    fn new(key: Key, root_file: Option<FileId>, kind: u32, view: u64, root: Ino, place: Place) -> Box<Self> {
        Box::new(Self {
            key,
            root_file,
            kind,
            view,
            root,
            place,
            gone: false,
            lookups: 0,
            children: 0,
            own: None,
            slot: None,
            told: None,
            opened: None,
        })
    }
}
