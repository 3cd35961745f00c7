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

mod lex;
mod parse;

use crate::name::Key;
use crate::value::Leaf;

/// Longest expression, in bytes (a file name cannot be longer than 255; the command line can).
pub const EXPR_MAX: usize = 64 << 10;
/// Deepest nesting of parentheses and `not`.
pub const DEPTH_MAX: usize = 100;

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
    /// Seconds before now (`-7d`, `-12h`, `-30m`, `-45s`, `-2w`); only for the time of an entry.
    Ago(f64),
}

/// An expression.
#[derive(Debug, Clone, PartialEq)]
pub enum Expr {
    /// `KEY op VALUE`
    Compare(Key, Op, Operand),
    /// `KEY ~ PATTERN`: `*` any text, `?` one character; strings only.
    Like(Key, String),
    /// `KEY in (…)`
    In(Key, Vec<Leaf>),
    /// `has(KEY)`: the key exists, with a value or with members.
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

impl Expr {
    /// Parses an expression.
    pub fn parse(text: &str) -> Result<Self, SyntaxError> {
        todo!()
    }

    /// The keys that it asks about.
    pub fn keys(&self) -> Vec<&Key> {
        todo!()
    }
}

/// Whether a text matches a pattern of `*` and `?`; linear in the text.
pub fn matches(pattern: &str, text: &str) -> bool {
    todo!()
}
