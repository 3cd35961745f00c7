//! Expressions: lexer, parser, tree.
//!
//! ```text
//! expr  = and { "or" and }            and = not { "and" not }        not = "not" not | prim
//! prim  = "(" expr ")" | "has" "(" KEY ")" | KEY "in" "(" VALUE { "," VALUE } ")" | KEY OP VALUE
//! OP    = "=" "!=" "<" "<=" ">" ">=" "~"  or the words  eq ne lt le gt ge like
//! ```
//!
//! Keys are spelled as everywhere ([`Key`]); a key or value with spaces, operators, parentheses or commas is put
//! in JSON quotes. An unquoted operand is read by its text form (`0.1` is a number, `resnet18` a string); a quoted one is always
//! a string, and `=` compares it literally: `*` and `?` are wildcards under `~` only. Expressions in paths are percent-decoded
//! by the caller before they come here.

mod eval;
mod lex;
mod parse;
#[cfg(test)]
pub(crate) mod tests;
mod time;

use std::fmt;
use std::hash::{Hash, Hasher};

use crate::name::Key;
use crate::value::{Leaf, Text, Value};

pub use eval::{compare, holds};

/// Longest expression, in bytes (a file name cannot be longer than 255; the command line can).
pub const EXPR_MAX: usize = 64 << 10;
/// Deepest nesting of parentheses and `not`.
pub const DEPTH_MAX: usize = 100;
/// Most conditions in one expression; a chain of `and` is as deep as it is long.
pub const TERMS_MAX: usize = 500;

/// A comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    /// `=`, `eq`
    Eq,
    /// `!=`, `ne`: the key exists, its value has the operand's type and is another one.
    Ne,
    /// `<`, `lt`
    Lt,
    /// `<=`, `le`
    Le,
    /// `>`, `gt`
    Gt,
    /// `>=`, `ge`
    Ge,
}

/// What a key is compared with.
#[derive(Debug, Clone, PartialEq)]
pub enum Operand {
    /// A value.
    Leaf(Leaf),
    /// Seconds before now (`-7d`, `-12h`, `-30m`, `-45s`, `-2w`), finite; only for the time of an entry.
    Ago(f64),
}

/// An expression.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Expr {
    /// `KEY op VALUE`
    Compare(Key, Op, Operand),
    /// `KEY ~ PATTERN`: `*` any text, `?` one character; strings only.
    Like(Key, String),
    /// `KEY in (…)`
    In(Key, Vec<Leaf>),
    /// `has(KEY)`: the key exists, with a value or with members; `has(KEY[])`: the array has elements.
    Has(Key),
    /// Both.
    And(Box<Expr>, Box<Expr>),
    /// Either.
    Or(Box<Expr>, Box<Expr>),
    /// Not.
    Not(Box<Expr>),
}

/// Where an expression is wrong and what could stand there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyntaxError {
    /// Column of the character, from 1.
    pub column: usize,
    /// What was found there.
    pub found: String,
    /// What was expected.
    pub expected: String,
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "column {}: found {}, expected {}", self.column, self.found, self.expected)
    }
}

impl std::error::Error for SyntaxError {}

// An age is finite: equal ages are equal to themselves.
impl Eq for Operand {}

impl Hash for Operand {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Self::Leaf(leaf) => leaf.hash(state),
            Self::Ago(seconds) => (seconds + 0.0).to_bits().hash(state),
        }
    }
}

impl Expr {
    /// Parses an expression.
    pub fn parse(text: &str) -> Result<Self, SyntaxError> {
        parse::parse(text)
    }

    /// The keys that it asks about.
    pub fn keys(&self) -> Vec<&Key> {
        match self {
            Self::Compare(key, ..) | Self::Like(key, _) | Self::In(key, _) | Self::Has(key) => vec![key],
            Self::And(left, right) | Self::Or(left, right) => {
                let mut keys = left.keys();
                keys.extend(right.keys());
                keys
            }
            Self::Not(inner) => inner.keys(),
        }
    }

    /// Whether it asks how old an entry is, so that its answer changes with time.
    pub fn asks_age(&self) -> bool {
        match self {
            Self::Compare(_, _, operand) => matches!(operand, Operand::Ago(_)),
            Self::Like(..) | Self::In(..) | Self::Has(_) => false,
            Self::And(left, right) | Self::Or(left, right) => left.asks_age() || right.asks_age(),
            Self::Not(inner) => inner.asks_age(),
        }
    }
}

impl Expr {
    fn fmt_in(&self, f: &mut fmt::Formatter<'_>, parentheses: bool) -> fmt::Result {
        if parentheses { write!(f, "({self})") } else { write!(f, "{self}") }
    }
}

/// The expression in one spelling, which parses to the same tree.
impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Compare(key, op, operand) => {
                let symbol = match op {
                    Op::Eq => "=",
                    Op::Ne => "!=",
                    Op::Lt => "<",
                    Op::Le => "<=",
                    Op::Gt => ">",
                    Op::Ge => ">=",
                };
                write!(f, "{} {symbol} ", key_text(key))?;
                match operand {
                    Operand::Leaf(leaf) => f.write_str(&leaf_text(leaf)),
                    Operand::Ago(seconds) => write!(f, "-{seconds}s"),
                }
            }
            Self::Like(key, pattern) => write!(f, "{} ~ {}", key_text(key), quote(pattern.as_bytes())),
            Self::In(key, leaves) => {
                let list: Vec<String> = leaves.iter().map(leaf_text).collect();
                write!(f, "{} in ({})", key_text(key), list.join(", "))
            }
            Self::Has(key) => write!(f, "has({})", key_text(key)),
            // Chains group to the left: parentheses stand only where the tree is another one.
            Self::And(left, right) => {
                left.fmt_in(f, matches!(**left, Self::Or(..)))?;
                f.write_str(" and ")?;
                right.fmt_in(f, matches!(**right, Self::Or(..) | Self::And(..)))
            }
            Self::Or(left, right) => {
                write!(f, "{left} or ")?;
                right.fmt_in(f, matches!(**right, Self::Or(..)))
            }
            Self::Not(inner) => {
                f.write_str("not ")?;
                inner.fmt_in(f, matches!(**inner, Self::Or(..) | Self::And(..)))
            }
        }
    }
}

/// A key as a bare word, or in quotes where a bare word would be read as something else.
fn key_text(key: &Key) -> String {
    let text = key.as_str();
    let word = !matches!(text, "and" | "or" | "not" | "has")
        && !text.starts_with(['"', '[', '{'])
        && !text.contains(lex::ends_word)
        && !text.contains("!=");
    if word { text.to_owned() } else { quote(text.as_bytes()) }
}

fn leaf_text(leaf: &Leaf) -> String {
    match leaf {
        // A bare string could be read as a number, a date or a pattern of the grammar: quotes are always right.
        Leaf::String(bytes) => quote(bytes),
        other => other.to_text(),
    }
}

fn quote(wtf8: &[u8]) -> String {
    let mut out = Vec::new();
    if let Some(text) = Text::from_wtf8(wtf8) {
        Value::String(text).write_python(&mut out);
    }
    // Python's form is ASCII.
    String::from_utf8(out).unwrap_or_default()
}

/// Whether a text matches a pattern: `*` is any text, `?` is any one character, all else itself.
pub fn matches(pattern: &str, text: &str) -> bool {
    let (mut pattern, mut text) = (pattern.chars(), text.chars());
    // After a `*`: the pattern behind it, and the text from which it is tried next.
    let mut retry: Option<(std::str::Chars<'_>, std::str::Chars<'_>)> = None;
    loop {
        let mut rest = text.clone();
        let mut next = pattern.clone();
        match (next.next(), rest.next()) {
            (Some('*'), _) => {
                retry = Some((next.clone(), text.clone()));
                pattern = next;
                continue;
            }
            (None, None) => return true,
            (Some(wanted), Some(found)) if wanted == '?' || wanted == found => {
                (pattern, text) = (next, rest);
                continue;
            }
            _ => {}
        }
        let Some((after, from)) = &mut retry else { return false };
        if from.next().is_none() {
            return false;
        }
        (pattern, text) = (after.clone(), from.clone());
    }
}
