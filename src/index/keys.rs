//! The keys of a cache, numbered in order of first appearance, and the walk over an object that finds them.

use std::collections::BTreeMap;
use std::hash::Hash;
use std::ops::Bound;

use hashbrown::{Equivalent, HashMap};

use crate::name::Key;
use crate::value::{Member, Text, Value};

/// Number of a key.
pub(super) type KeyNumber = u32;

/// The node that stands for the object itself.
const ROOT: u32 = 0;

/// Numbered keys. Members are followed from node to node, so that a key is spelled out only once.
#[derive(Debug, Clone, Default)]
pub(super) struct Keys {
    spelled: Vec<Key>,
    numbers: BTreeMap<Box<str>, KeyNumber>,
    children: HashMap<Child<Box<[u8]>>, u32>,
    /// What is known of each node but the root, which has number 0 and no place here.
    nodes: Vec<Node>,
}

/// A path of members.
#[derive(Debug, Clone)]
struct Node {
    parent: u32,
    member: Box<[u8]>,
    /// The number of its key, if an object had a value there.
    value: Option<KeyNumber>,
    /// The number of `KEY[]`, if an object had an array with elements there.
    elements: Option<KeyNumber>,
}

/// A member below a node.
#[derive(Debug, Clone, Hash, PartialEq, Eq)]
struct Child<N> {
    parent: u32,
    member: N,
}

impl Equivalent<Child<Box<[u8]>>> for Child<&[u8]> {
    fn equivalent(&self, key: &Child<Box<[u8]>>) -> bool {
        self.parent == key.parent && *self.member == *key.member
    }
}

impl Keys {
    /// Number of keys.
    pub(super) fn len(&self) -> usize {
        self.spelled.len()
    }

    /// The number of a key.
    pub(super) fn number(&self, key: &Key) -> Option<KeyNumber> {
        self.numbers.get(key.as_str()).copied()
    }

    /// The key of a number.
    pub(super) fn key(&self, number: KeyNumber) -> Option<&Key> {
        self.spelled.get(usize::try_from(number).ok()?)
    }

    /// The keys from a number on, in order of numbers.
    pub(super) fn from(&self, number: usize) -> &[Key] {
        self.spelled.get(number..).unwrap_or_default()
    }

    /// The number of the key at the end of a path of members, and of its elements, as [`Keys::walk`] gives them.
    pub(super) fn numbers_at<'m>(
        &mut self,
        members: impl IntoIterator<Item = &'m [u8]>,
        elements: bool,
    ) -> Option<KeyNumber> {
        let node = members.into_iter().fold(ROOT, |parent, member| self.child(parent, member));
        if elements { self.elements_number(node) } else { self.value_number(node) }
    }

    /// The numbers in order of keys.
    pub(super) fn in_order(&self) -> impl Iterator<Item = KeyNumber> {
        self.numbers.values().copied()
    }

    /// The key itself and those of its members, whichever there are.
    pub(super) fn family(&self, key: &Key) -> impl Iterator<Item = KeyNumber> {
        let members = if key.is_elements() { Vec::new() } else { self.members(key) };
        self.number(key).into_iter().chain(members)
    }

    fn members(&self, key: &Key) -> Vec<KeyNumber> {
        // A last member may be spelled in another way than one with members, so a member is added to see.
        let members = key.members();
        let members = members.iter().map(Text::as_bytes).chain([&b"x"[..]]);
        let member = Key::from_members(members);
        let Some(from) = member.as_str().strip_suffix('x') else { return Vec::new() };
        // Dots and slashes within members are escaped and `/` follows `.`, so these and only these lie between.
        let to = format!("{}/", from.strip_suffix('.').unwrap_or(from));
        let range = self.numbers.range::<str, _>((Bound::Excluded(from), Bound::Excluded(&*to)));
        range.map(|(_, &number)| number).collect()
    }

    /// Calls `visit` with every leaf of an object, given by its members, as [`crate::name::flatten`] gives them, and with every
    /// element of an array under `KEY[]`.
    pub(super) fn walk<'o>(
        &mut self,
        members: impl IntoIterator<Item = Member<'o, 'o>>,
        visit: &mut impl FnMut(KeyNumber, &'o Value<'o>),
    ) {
        self.walk_below(ROOT, members, visit);
    }

    fn walk_below<'o>(
        &mut self,
        parent: u32,
        members: impl IntoIterator<Item = Member<'o, 'o>>,
        visit: &mut impl FnMut(KeyNumber, &'o Value<'o>),
    ) {
        for (name, value) in members {
            let member = name.as_bytes();
            if parent == ROOT && matches!(member, b"_id" | b"_timestamp" | b"@" | b"$") {
                continue;
            }
            let node = self.child(parent, member);
            match value {
                Value::Object(members) if !members.is_empty() => self.walk_below(node, members.iter(), visit),
                _ => {
                    if let Some(number) = self.value_number(node) {
                        visit(number, value);
                    }
                    if let Value::Array(elements) = value
                        && !elements.is_empty()
                        && let Some(number) = self.elements_number(node)
                    {
                        for element in elements {
                            visit(number, element);
                        }
                    }
                }
            }
        }
    }

    fn child(&mut self, parent: u32, member: &[u8]) -> u32 {
        if let Some(&node) = self.children.get(&Child { parent, member }) {
            return node;
        }
        self.nodes.push(Node { parent, member: member.into(), value: None, elements: None });
        let node = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
        self.children.insert(Child { parent, member: member.into() }, node);
        node
    }

    fn node(&self, node: u32) -> Option<&Node> {
        self.nodes.get(usize::try_from(node).ok()?.checked_sub(1)?)
    }

    fn node_mut(&mut self, node: u32) -> Option<&mut Node> {
        self.nodes.get_mut(usize::try_from(node).ok()?.checked_sub(1)?)
    }

    fn spell(&self, mut node: u32) -> Key {
        let mut members = Vec::new();
        while let Some(found) = self.node(node) {
            members.push(&*found.member);
            node = found.parent;
        }
        Key::from_members(members.into_iter().rev())
    }

    fn value_number(&mut self, node: u32) -> Option<KeyNumber> {
        if let Some(number) = self.node(node)?.value {
            return Some(number);
        }
        let number = self.intern(self.spell(node));
        self.node_mut(node)?.value = Some(number);
        Some(number)
    }

    fn elements_number(&mut self, node: u32) -> Option<KeyNumber> {
        if let Some(number) = self.node(node)?.elements {
            return Some(number);
        }
        let number = self.intern(self.spell(node).elements());
        self.node_mut(node)?.elements = Some(number);
        Some(number)
    }

    /// The number of a key, a new one if it has none.
    pub(super) fn intern(&mut self, key: Key) -> KeyNumber {
        if let Some(number) = self.number(&key) {
            return number;
        }
        let number = u32::try_from(self.spelled.len()).unwrap_or(u32::MAX);
        self.numbers.insert(key.as_str().into(), number);
        self.spelled.push(key);
        number
    }
}
