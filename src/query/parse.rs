//! The parser: tokens to a tree, by recursive descent.

use super::lex::{Lexeme, Token, lex};
use super::{DEPTH_MAX, EXPR_MAX, Expr, Op, Operand, SyntaxError, TERMS_MAX, time};
use crate::name::{Key, NameError};
use crate::value::{Leaf, Value};

/// Parses a whole expression.
pub(super) fn parse(text: &str) -> Result<Expr, SyntaxError> {
    if text.len() > EXPR_MAX {
        return Err(SyntaxError {
            column: 1,
            found: format!("an expression of {} bytes", text.len()),
            expected: format!("at most {EXPR_MAX}"),
        });
    }
    let end = text.chars().count() + 1;
    let mut parser = Parser { lexemes: lex(text)?, at: 0, end, depth: 0, terms: 0 };
    let expr = parser.or()?;
    match parser.peek() {
        None => Ok(expr),
        Some(_) => Err(parser.error("`and`, `or` or the end")),
    }
}

struct Parser {
    lexemes: Vec<Lexeme>,
    at: usize,
    /// Column after the last character.
    end: usize,
    depth: usize,
    terms: usize,
}

impl Parser {
    fn peek(&self) -> Option<&Token> {
        self.lexemes.get(self.at).map(|lexeme| &lexeme.token)
    }

    fn peek_second(&self) -> Option<&Token> {
        self.lexemes.get(self.at + 1).map(|lexeme| &lexeme.token)
    }

    /// Whether the next token is this bare word.
    fn at_word(&self, word: &str) -> bool {
        matches!(self.peek(), Some(Token::Word(found)) if found == word)
    }

    /// Steps over this bare word if it is next.
    fn take_word(&mut self, word: &str) -> bool {
        let found = self.at_word(word);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, token: &Token, expected: &str) -> Result<(), SyntaxError> {
        if self.peek() != Some(token) {
            return Err(self.error(expected));
        }
        self.at += 1;
        Ok(())
    }

    /// That the next token is not what could stand there.
    fn error(&self, expected: &str) -> SyntaxError {
        match self.lexemes.get(self.at) {
            Some(lexeme) => SyntaxError {
                column: lexeme.column,
                found: format!("`{}`", lexeme.text),
                expected: expected.to_owned(),
            },
            None => {
                SyntaxError { column: self.end, found: "the end".to_owned(), expected: expected.to_owned() }
            }
        }
    }

    fn or(&mut self) -> Result<Expr, SyntaxError> {
        let mut left = self.and()?;
        while self.take_word("or") {
            left = Expr::Or(Box::new(left), Box::new(self.and()?));
        }
        Ok(left)
    }

    fn and(&mut self) -> Result<Expr, SyntaxError> {
        let mut left = self.not()?;
        while self.take_word("and") {
            left = Expr::And(Box::new(left), Box::new(self.not()?));
        }
        Ok(left)
    }

    fn not(&mut self) -> Result<Expr, SyntaxError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.error("an expression that is nested less deeply"));
        }
        let expr = if self.take_word("not") {
            Expr::Not(Box::new(self.not()?))
        } else if self.peek() == Some(&Token::Open) {
            self.at += 1;
            let inner = self.or()?;
            self.expect(&Token::Close, "`and`, `or` or `)`")?;
            inner
        } else {
            self.term()?
        };
        self.depth -= 1;
        Ok(expr)
    }

    fn term(&mut self) -> Result<Expr, SyntaxError> {
        self.terms += 1;
        if self.terms > TERMS_MAX {
            return Err(self.error("fewer conditions"));
        }
        if self.at_word("has") && self.peek_second() == Some(&Token::Open) {
            self.at += 2;
            let key = self.key("a key")?;
            self.expect(&Token::Close, "`)`")?;
            return Ok(Expr::Has(key));
        }
        let key = self.key("a key, `not`, `has(…)` or `(`")?;
        if self.take_word("in") {
            return self.list(key);
        }
        let op = match self.peek() {
            Some(Token::Op(op)) => Some(*op),
            Some(Token::Like) => None,
            Some(Token::Word(word)) if word == "like" => None,
            Some(Token::Word(word)) => Some(word_op(word).ok_or_else(|| self.error(OPERATOR))?),
            _ => return Err(self.error(OPERATOR)),
        };
        self.at += 1;
        match op {
            Some(op) => {
                let operand = self.operand(&key)?;
                Ok(Expr::Compare(key, op, operand))
            }
            None => Ok(Expr::Like(key, self.pattern()?)),
        }
    }

    fn key(&mut self, expected: &str) -> Result<Key, SyntaxError> {
        let parsed = match self.peek() {
            Some(Token::Word(word)) if !matches!(word.as_str(), "and" | "or" | "not") => Key::parse(word),
            // The one spelling of an empty member.
            Some(Token::Quoted(text)) if text.as_bytes().is_empty() => Key::parse("\"\""),
            Some(Token::Quoted(text)) => text.as_str().map_or(Err(NameError::NotUtf8), Key::parse),
            _ => return Err(self.error(expected)),
        };
        let key = parsed.map_err(|_| self.error("a key"))?;
        self.at += 1;
        Ok(key)
    }

    fn operand(&mut self, key: &Key) -> Result<Operand, SyntaxError> {
        let operand = match self.peek() {
            Some(Token::Word(word)) if is_time(key) => match (time::age(word), time::date(word)) {
                (Some(age), _) => Operand::Ago(age),
                (None, Some(date)) => Operand::Leaf(Leaf::from(date)),
                (None, None) => match Leaf::of(&Value::from_text(word)) {
                    Leaf::String(_) => {
                        return Err(self.error("a number, a date such as 2026-11-22 or an age such as -7d"));
                    }
                    leaf => Operand::Leaf(leaf),
                },
            },
            Some(Token::Word(word)) => Operand::Leaf(Leaf::of(&Value::from_text(word))),
            Some(Token::Quoted(text)) => Operand::Leaf(Leaf::String(text.as_bytes().into())),
            _ => return Err(self.error("a value")),
        };
        self.at += 1;
        Ok(operand)
    }

    fn pattern(&mut self) -> Result<String, SyntaxError> {
        let pattern = match self.peek() {
            Some(Token::Word(word)) => Some(word.clone()),
            Some(Token::Quoted(text)) => text.as_str().map(str::to_owned),
            _ => None,
        };
        let pattern = pattern.ok_or_else(|| self.error("a pattern"))?;
        self.at += 1;
        Ok(pattern)
    }

    fn list(&mut self, key: Key) -> Result<Expr, SyntaxError> {
        self.expect(&Token::Open, "`(`")?;
        let mut leaves = Vec::new();
        loop {
            match self.operand(&key)? {
                Operand::Leaf(leaf) => leaves.push(leaf),
                Operand::Ago(_) => {
                    self.at -= 1;
                    return Err(self.error("a value, not an age"));
                }
            }
            if self.peek() != Some(&Token::Comma) {
                break;
            }
            self.at += 1;
        }
        self.expect(&Token::Close, "`,` or `)`")?;
        Ok(Expr::In(key, leaves))
    }
}

const OPERATOR: &str = "an operator (= != < <= > >= ~ eq ne lt le gt ge like in)";

fn word_op(word: &str) -> Option<Op> {
    Some(match word {
        "eq" => Op::Eq,
        "ne" => Op::Ne,
        "lt" => Op::Lt,
        "le" => Op::Le,
        "gt" => Op::Gt,
        "ge" => Op::Ge,
        _ => return None,
    })
}

/// Whether a key is the time of an entry.
pub(super) fn is_time(key: &Key) -> bool {
    matches!(key.as_str(), "_timestamp" | "$")
}

/// Whether a key is the id of an entry.
pub(super) fn is_id(key: &Key) -> bool {
    matches!(key.as_str(), "_id" | "@")
}
