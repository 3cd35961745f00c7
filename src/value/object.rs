//! JSON objects: members in order, no name twice.

use std::borrow::Cow;
use std::collections::HashMap;

use super::{ParseError, Text, Value, parse, write};

/// A JSON object: members in the order of the text, no name twice.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Object<'a> {
    members: Vec<(Text<'a>, Value<'a>)>,
}

/// A member of an object.
pub type Member<'o, 'a> = (&'o Text<'a>, &'o Value<'a>);

/// Up to this many members are looked through one by one; of more, a table is made.
const FEW: usize = 16;

impl<'a> Object<'a> {
    /// An object without members.
    pub fn new() -> Self {
        Self::default()
    }

    /// Parses one whole JSON object (Python's dialect), white space around it allowed.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        parse::object(bytes)
    }

    /// The member of that name.
    pub fn get(&self, name: &str) -> Option<&Value<'a>> {
        self.get_bytes(name.as_bytes())
    }

    /// The member of that name (WTF-8 bytes).
    pub fn get_bytes(&self, name: &[u8]) -> Option<&Value<'a>> {
        self.iter().find(|(other, _)| other.as_bytes() == name).map(|(_, value)| value)
    }

    /// The value at the end of a path of members through nested objects.
    pub fn at_path(&self, members: &[Text<'_>]) -> Option<&Value<'a>> {
        let (last, parents) = members.split_last()?;
        let mut object = self;
        for member in parents {
            match object.get_bytes(member.as_bytes())? {
                Value::Object(inner) => object = inner,
                _ => return None,
            }
        }
        object.get_bytes(last.as_bytes())
    }

    /// The member of that name (WTF-8 bytes), to change.
    pub fn get_mut(&mut self, name: &[u8]) -> Option<&mut Value<'a>> {
        self.members.iter_mut().find(|(other, _)| other.as_bytes() == name).map(|(_, value)| value)
    }

    /// Sets a member, in its place if it exists, else at the end; gives the former value.
    pub fn insert(&mut self, name: Text<'a>, value: Value<'a>) -> Option<Value<'a>> {
        if let Some(place) = self.get_mut(name.as_bytes()) {
            return Some(std::mem::replace(place, value));
        }
        self.members.push((name, value));
        None
    }

    /// Takes a member out.
    pub fn remove(&mut self, name: &[u8]) -> Option<Value<'a>> {
        let position = self.position(name)?;
        Some(self.members.remove(position).1)
    }

    /// Renames a member in its place; false if there is no `from`. A former `to` is taken out.
    pub fn rename(&mut self, from: &[u8], to: Text<'a>) -> bool {
        if self.position(from).is_none() {
            return false;
        }
        if from != to.as_bytes() {
            self.remove(to.as_bytes());
            if let Some((name, _)) = self.members.iter_mut().find(|(name, _)| name.as_bytes() == from) {
                *name = to;
            }
        }
        true
    }

    fn position(&self, name: &[u8]) -> Option<usize> {
        self.members.iter().position(|(other, _)| other.as_bytes() == name)
    }

    /// The members in order.
    pub fn iter(&self) -> impl Iterator<Item = (&Text<'a>, &Value<'a>)> {
        self.members.iter().map(|(name, value)| (name, value))
    }

    /// The members of both objects but for those that both have just so. What is the same is found if the order of members is, apart
    /// from single ones that only one object has; otherwise it is among the others, of both.
    pub fn differing<'o>(&'o self, other: &'o Self) -> (Vec<Member<'o, 'a>>, Vec<Member<'o, 'a>>) {
        let (mut mine, mut theirs) = (self.members.as_slice(), other.members.as_slice());
        let (mut left, mut right) = (Vec::new(), Vec::new());
        while let (Some((first, rest)), Some((other, others))) = (mine.split_first(), theirs.split_first()) {
            let same_name =
                |next: Option<&(Text<'_>, Value<'_>)>, name: &Text<'_>| next.is_some_and(|it| it.0 == *name);
            if first.0 == other.0 {
                if first.1 != other.1 {
                    left.push((&first.0, &first.1));
                    right.push((&other.0, &other.1));
                }
                (mine, theirs) = (rest, others);
            } else if same_name(rest.first(), &other.0) {
                left.push((&first.0, &first.1));
                mine = rest;
            } else if same_name(others.first(), &first.0) {
                right.push((&other.0, &other.1));
                theirs = others;
            } else {
                left.push((&first.0, &first.1));
                right.push((&other.0, &other.1));
                (mine, theirs) = (rest, others);
            }
        }
        left.extend(mine.iter().map(|(name, value)| (name, value)));
        right.extend(theirs.iter().map(|(name, value)| (name, value)));
        (left, right)
    }

    /// Number of members.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// As [`Value::write_python`].
    pub fn write_python(&self, out: &mut Vec<u8>) {
        write::python_object(self, out);
    }

    /// The same object, owning everything.
    pub fn into_owned(self) -> Object<'static> {
        let own = |(name, value): (Text<'_>, Value<'_>)| (name.into_owned(), value.into_owned());
        Object { members: self.members.into_iter().map(own).collect() }
    }

    /// As [`Value::same`].
    pub(super) fn same(&self, other: &Object<'_>) -> bool {
        if self.len() != other.len() {
            return false;
        }
        // Mostly they are in the same order; the table is made when the first one is not.
        let mut table = None;
        self.members.iter().zip(&other.members).all(|((name, value), (other_name, other_value))| {
            if name.as_bytes() == other_name.as_bytes() {
                return value.same(other_value);
            }
            if self.len() <= FEW {
                return other.get_bytes(name.as_bytes()).is_some_and(|found| value.same(found));
            }
            let table = table.get_or_insert_with(|| {
                other.iter().map(|(name, value)| (name.as_bytes(), value)).collect::<HashMap<_, _>>()
            });
            table.get(name.as_bytes()).is_some_and(|found| value.same(found))
        })
    }
}

impl<'a> FromIterator<(Text<'a>, Value<'a>)> for Object<'a> {
    /// Of a name that stands twice the last value counts, in the place of the first.
    fn from_iter<I: IntoIterator<Item = (Text<'a>, Value<'a>)>>(members: I) -> Self {
        let mut builder = Builder::default();
        for (name, value) in members {
            builder.put(name, value);
        }
        builder.finish()
    }
}

/// An object in the making: puts a member in constant time, however many there are.
#[derive(Default)]
pub(super) struct Builder<'a> {
    object: Object<'a>,
    /// Positions by name, once there are more than a few.
    positions: Option<HashMap<Cow<'a, [u8]>, usize>>,
    /// A bit for each name that stands here (see [`bit`]): most names stand once, and need no search.
    bits: u64,
}

impl<'a> Builder<'a> {
    /// Sets a member, in its place if it exists, else at the end.
    pub(super) fn put(&mut self, name: Text<'a>, value: Value<'a>) {
        let members = &mut self.object.members;
        if members.is_empty() {
            members.reserve(FEW);
        }
        if members.len() == FEW {
            let by_name = |(at, (name, _)): (usize, &(Text<'a>, Value<'a>))| (name.as_cow().clone(), at);
            self.positions.get_or_insert_with(|| members.iter().enumerate().map(by_name).collect());
        }
        let bit = bit(name.as_bytes());
        let is_new = self.bits & bit == 0;
        self.bits |= bit;
        let former = match &self.positions {
            _ if is_new => None,
            Some(positions) => positions.get(name.as_bytes()).copied(),
            None => members.iter().position(|(other, _)| other.as_bytes() == name.as_bytes()),
        };
        if let Some((_, place)) = former.and_then(|position| members.get_mut(position)) {
            *place = value;
            return;
        }
        if let Some(positions) = &mut self.positions {
            positions.insert(name.as_cow().clone(), members.len());
        }
        members.push((name, value));
    }

    /// The object.
    pub(super) fn finish(self) -> Object<'a> {
        self.object
    }
}

/// One of 64 bits, by the length of a name and the bytes at its ends.
fn bit(name: &[u8]) -> u64 {
    let ends = match name {
        [] => 0,
        [first, .., last] => usize::from(*first) * 7 + usize::from(*last) * 3,
        [only] => usize::from(*only) * 10,
    };
    1 << ((ends + name.len()) % 64)
}
