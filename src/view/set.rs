//! Sets of entries, by the path that asks for them.

use std::borrow::Cow;
use std::sync::Arc;

use roaring::RoaringBitmap;

use crate::index::{Index, Row};
use crate::name::{Id, Key};
use crate::query::Expr;
use crate::value::Leaf;

/// The directory that a path of a set starts at. Both stand for all entries, but no two paths share a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Base {
    /// The root of the mount.
    Root,
    /// `entries/`
    Entries,
}

/// One step of narrowing, as the path has it.
#[derive(Debug, Clone)]
pub enum Term {
    /// `by-attr/KEY/VALUE`
    Value(Key, Leaf),
    /// `where/EXPR`: the name as it was asked for, and what it says.
    Where(Arc<str>, Arc<Expr>),
    /// `sort/KEY` or, descending, `sort/-KEY`: those that have the key.
    Sort(Key, bool),
}

// The name of an expression says all, and two names of one expression are two directories.
impl PartialEq for Term {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Value(key, leaf), Self::Value(other, value)) => key == other && leaf == value,
            (Self::Where(name, _), Self::Where(other, _)) => name == other,
            (Self::Sort(key, down), Self::Sort(other, other_down)) => key == other && down == other_down,
            _ => false,
        }
    }
}

impl Eq for Term {}

impl std::hash::Hash for Term {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        match self {
            Self::Value(key, leaf) => (0_u8, key, leaf).hash(state),
            Self::Where(name, _) => (1_u8, name).hash(state),
            Self::Sort(key, down) => (2_u8, key, down).hash(state),
        }
    }
}

/// The entries that a set directory lists: those for which every term holds.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Set {
    base: Base,
    terms: Arc<[Term]>,
}

impl Set {
    /// All entries.
    pub fn all(base: Base) -> Self {
        Self { base, terms: Arc::new([]) }
    }

    /// This set, narrowed by one more term.
    #[must_use]
    pub fn and(&self, term: Term) -> Self {
        Self { base: self.base, terms: self.terms.iter().cloned().chain([term]).collect() }
    }

    /// Where its path starts.
    pub fn base(&self) -> Base {
        self.base
    }

    /// Its terms, in the order of the path.
    pub fn terms(&self) -> &[Term] {
        &self.terms
    }

    /// Whether it is all entries.
    pub fn is_all(&self) -> bool {
        self.terms.is_empty()
    }

    /// The set before its last term, and that term.
    pub fn split_last(&self) -> Option<(Self, &Term)> {
        let (last, terms) = self.terms.split_last()?;
        Some((Self { base: self.base, terms: terms.into() }, last))
    }

    /// Number of directories between the root and what the set directory lists.
    pub fn depth(&self) -> usize {
        let base = match self.base {
            Base::Root => 0,
            Base::Entries => 1,
        };
        let depth = |term: &Term| match term {
            Term::Value(..) => 3,
            Term::Where(..) | Term::Sort(..) => 2,
        };
        base + self.terms.iter().map(depth).sum::<usize>()
    }

    /// The target of the link to an entry: the way from the set directory to `entries/ID`.
    pub fn link_target(&self, id: &Id) -> String {
        let mut target = "../".repeat(self.depth());
        target.push_str("entries/");
        target.push_str(&id.to_file_name());
        target
    }

    /// The entries of the set; `now` is seconds since the epoch.
    pub fn rows<'i>(&self, index: &'i Index, now: f64) -> Cow<'i, RoaringBitmap> {
        let mut rows: Option<RoaringBitmap> = None;
        for term in &*self.terms {
            let of_term = match (term, &rows) {
                (Term::Value(key, leaf), _) => index.posting(key, leaf),
                // Of a small set it is quickly said.
                (Term::Where(_, expr), Some(rows)) => index.select_in(expr, now, rows),
                (Term::Where(_, expr), None) => index.select(expr, now),
                (Term::Sort(key, _), _) => index.rows_with(key),
            };
            rows = Some(match rows {
                Some(rows) => rows & of_term,
                None => of_term,
            });
        }
        rows.map_or(Cow::Borrowed(index.live()), Cow::Owned)
    }

    /// The entries in the order of its last `sort/`; without one in the order in which they were first recorded.
    pub fn in_order(&self, index: &Index, rows: &RoaringBitmap) -> Vec<Row> {
        let sort = self.terms.iter().rev().find_map(|term| match term {
            Term::Sort(key, down) => Some((key, *down)),
            _ => None,
        });
        match sort {
            Some((key, down)) => {
                let mut sorted = index.sorted(key, rows);
                if down {
                    sorted.reverse();
                }
                sorted
            }
            None => rows.iter().map(Row).collect(),
        }
    }

    /// Whether the entries of the set change with time.
    pub fn ages(&self) -> bool {
        self.terms.iter().any(|term| matches!(term, Term::Where(_, expr) if expr.asks_age()))
    }

    /// A number that grows whenever the entries of the set, or their order, may have changed. `None` if they change
    /// with time as well.
    pub fn stamp(&self, index: &Index) -> Option<u64> {
        if self.ages() {
            return None;
        }
        let mut stamp = index.live_generation();
        for term in &*self.terms {
            match term {
                Term::Value(key, _) | Term::Sort(key, _) => stamp = stamp.max(index.key_generation(key)),
                Term::Where(_, expr) => {
                    stamp =
                        expr.keys().into_iter().map(|key| index.key_generation(key)).fold(stamp, u64::max);
                }
            }
        }
        Some(stamp)
    }
}
