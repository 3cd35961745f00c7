//! The lexer: text to tokens with their columns.

use super::{Op, SyntaxError};
use crate::value::{Text, Value};

/// What a token is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// `(`
    Open,
    /// `)`
    Close,
    /// `,`
    Comma,
    /// An operator spelled in symbols.
    Op(Op),
    /// `~`
    Like,
    /// A bare word, or an array or object in JSON.
    Word(String),
    /// A string in JSON quotes.
    Quoted(Text<'static>),
}

/// A token and the column of its first character, from 1.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Lexeme {
    pub(super) column: usize,
    pub(super) token: Token,
    /// The text it was read from, for messages.
    pub(super) text: String,
}

/// Whether a character ends a bare word.
pub(super) fn ends_word(character: char) -> bool {
    character.is_whitespace() || matches!(character, '(' | ')' | ',' | '=' | '<' | '>' | '~')
}

/// Splits an expression into tokens.
pub(super) fn lex(text: &str) -> Result<Vec<Lexeme>, SyntaxError> {
    let mut lexemes = Vec::new();
    let mut rest = text;
    let mut column = 1;
    while let Some(first) = rest.chars().next() {
        let (token, len) =
            if first.is_whitespace() { (None, first.len_utf8()) } else { next(first, rest, column)? };
        let (read, after) = rest.split_at_checked(len).unwrap_or((rest, ""));
        if let Some(token) = token {
            lexemes.push(Lexeme { column, token, text: read.to_owned() });
        }
        column += read.chars().count();
        rest = after;
    }
    Ok(lexemes)
}

/// The token at the start of `rest` and its length in bytes.
fn next(first: char, rest: &str, column: usize) -> Result<(Option<Token>, usize), SyntaxError> {
    let symbols = [
        ("!=", Token::Op(Op::Ne)),
        ("<=", Token::Op(Op::Le)),
        (">=", Token::Op(Op::Ge)),
        ("==", Token::Op(Op::Eq)),
        ("=", Token::Op(Op::Eq)),
        ("<", Token::Op(Op::Lt)),
        (">", Token::Op(Op::Gt)),
        ("~", Token::Like),
        ("(", Token::Open),
        (")", Token::Close),
        (",", Token::Comma),
    ];
    for (symbol, token) in symbols {
        if rest.starts_with(symbol) {
            return Ok((Some(token), symbol.len()));
        }
    }
    match first {
        // An empty member at the start of a longer key: `"".name`, `""[]`.
        '"' if rest.strip_prefix("\"\"").is_some_and(|after| after.starts_with(['.', '['])) => Ok(word(rest)),
        '"' => quoted(rest, column),
        '[' | '{' => Ok(json(rest).unwrap_or_else(|| word(rest))),
        _ => Ok(word(rest)),
    }
}

fn word(rest: &str) -> (Option<Token>, usize) {
    let mut end = rest.len();
    for (offset, character) in rest.char_indices() {
        if ends_word(character) || rest.get(offset..).is_some_and(|from| from.starts_with("!=")) {
            end = offset;
            break;
        }
    }
    (Some(Token::Word(rest.get(..end).unwrap_or(rest).to_owned())), end)
}

/// Offset after the JSON string that starts at the start of `rest`.
fn string_end(rest: &str) -> Option<usize> {
    let mut escaped = false;
    for (offset, byte) in rest.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some(offset + 1),
            _ => {}
        }
    }
    None
}

fn quoted(rest: &str, column: usize) -> Result<(Option<Token>, usize), SyntaxError> {
    let error = |found: &str, expected: &str| SyntaxError {
        column,
        found: found.to_owned(),
        expected: expected.to_owned(),
    };
    let end = string_end(rest).ok_or_else(|| error("a string without its end", "a closing \""))?;
    match Value::parse(rest.get(..end).unwrap_or_default().as_bytes()) {
        Ok(Value::String(text)) => Ok((Some(Token::Quoted(text.into_owned())), end)),
        _ => Err(error("a malformed string", "a string as in JSON")),
    }
}

/// An array or object in JSON at the start of `rest`, if there is a whole one.
fn json(rest: &str) -> Option<(Option<Token>, usize)> {
    let mut depth = 0_usize;
    let mut offset = 0;
    loop {
        match rest.as_bytes().get(offset)? {
            b'"' => {
                offset += string_end(rest.get(offset..)?)?;
                continue;
            }
            b'[' | b'{' => depth += 1,
            b']' | b'}' => {
                depth -= 1;
                if depth == 0 {
                    break;
                }
            }
            _ => {}
        }
        offset += 1;
    }
    let text = rest.get(..=offset)?;
    Value::parse(text.as_bytes()).ok()?;
    // `[1]x` is a bare word like any other.
    if rest.get(offset + 1..)?.chars().next().is_some_and(|after| !ends_word(after)) {
        return None;
    }
    Some((Some(Token::Word(text.to_owned())), text.len()))
}
