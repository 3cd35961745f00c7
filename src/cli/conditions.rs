//! Which entries: conditions of the command line, ids, pairs.

use std::time::{SystemTime, UNIX_EPOCH};

use roaring::RoaringBitmap;

use super::failure::{self, Result, usage};
use crate::cache::{Cache, Entry};
use crate::index::Row;
use crate::name::{Id, Key, NameError, parse_pair};
use crate::query::{Expr, Op, Operand};
use crate::record::{Edit, EditError, SetMode, apply};
use crate::value::{Leaf, Object, Value};

/// Seconds since the epoch.
pub fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// All conditions together; `None` if there are none.
pub fn all(conditions: &[String]) -> Result<Option<Expr>> {
    let mut whole = None;
    for text in conditions {
        let next = one(text)?;
        whole = Some(match whole {
            Some(before) => Expr::And(Box::new(before), Box::new(next)),
            None => next,
        });
    }
    Ok(whole)
}

/// An expression; or else a plain `K=V`, whose value need not be quoted as an expression's must
/// (`tags=["a", "b"]`, `path=/data (old)` is neither: it may be a slip).
fn one(text: &str) -> Result<Expr> {
    let wrong = match Expr::parse(text) {
        Ok(expr) => return Ok(expr),
        Err(wrong) => wrong,
    };
    match parse_pair(text) {
        Ok((key, value)) if is_plain(text, &value) => {
            Ok(Expr::Compare(key, Op::Eq, Operand::Leaf(Leaf::of(&value))))
        }
        _ => Err(failure::syntax(text, &wrong)),
    }
}

fn is_plain(text: &str, value: &Value<'_>) -> bool {
    let key = text.split('=').next().unwrap_or(text);
    let slip = |c: char| c.is_whitespace() || matches!(c, '<' | '>' | '!' | '~' | '(' | ')' | '"');
    match value {
        Value::String(_) => !text.contains(slip),
        _ => !key.contains(slip),
    }
}

/// The live entries for which the conditions hold.
pub fn select(cache: &Cache, conditions: Option<&Expr>) -> RoaringBitmap {
    let index = cache.index();
    match conditions {
        Some(expr) => index.select(expr, now()),
        None => index.live().clone(),
    }
}

/// A key of the command line.
pub fn key(text: &str) -> Result<Key> {
    Key::parse(text).map_err(|e| usage(format!("the key `{text}` {}", because(e))))
}

/// A key whose value can be changed.
pub fn key_to_change(text: &str) -> Result<Key> {
    let key = key(text)?;
    if key.is_reserved() {
        return Err(usage(format!("`{text}` is kept by the cache and cannot be changed")));
    }
    Ok(key)
}

fn because(error: NameError) -> &'static str {
    match error {
        NameError::Malformed => "is malformed",
        NameError::NotUtf8 => "is not UTF-8",
        NameError::TooLong => "is too long",
    }
}

/// A `K=V` of the command line.
pub fn pair(text: &str) -> Result<(Key, Value<'static>)> {
    match parse_pair(text) {
        Ok((key, value)) if !key.is_reserved() => Ok((key, value)),
        Ok(_) => Err(usage(format!("`{text}`: `_id`, `_timestamp`, `@` and `$` are kept by the cache"))),
        Err(e) if text.contains('=') => Err(usage(format!("`{text}` {}", because(e)))
            .hint("expected KEY=VALUE with a key that is not reserved, such as lr=0.1 or opt.name=adam")),
        Err(_) => Err(usage(format!("`{text}` is no KEY=VALUE, such as lr=0.1 or opt.name=adam"))),
    }
}

/// The object of pairs of the command line; dotted keys become nested objects.
pub fn attributes(pairs: &[(Key, Value<'static>)]) -> Result<Object<'static>> {
    let mut object = Object::new();
    for (key, value) in pairs {
        apply(&mut object, &Edit::Set(key.clone(), value.clone(), SetMode::Any)).map_err(|e| {
            usage(match e {
                EditError::Exists => format!("`{}` is a value and has members at once", key.as_str()),
                EditError::NoKey | EditError::Reserved | EditError::NotAnArray | EditError::TooDeep => {
                    format!("`{}` cannot be set", key.as_str())
                }
            })
        })?;
    }
    Ok(object)
}

/// An id of the command line: the id alone, or a path that ends in it, as `new` and `ls` print them.
pub fn id(text: &str) -> Result<Id> {
    Id::from_path(text.trim_end_matches('/')).map_err(|e| usage(format!("the id `{text}` {}", because(e))))
}

/// The record of a live entry.
pub fn entry(cache: &Cache, id: &Id) -> Result<Entry> {
    let none = || failure::cache(id.as_str(), &crate::cache::CacheError::NoEntry);
    let row = cache.index().row(id.as_str()).ok_or_else(none)?;
    read(cache, row)
}

/// The record of a row.
pub fn read(cache: &Cache, row: Row) -> Result<Entry> {
    cache.entry(row).map_err(|e| {
        let id = cache.index().id(row);
        failure::cache(id.as_ref().map_or("?", Id::as_str), &e)
    })
}

/// An age such as `30d`, in seconds.
pub fn age(text: &str) -> Result<f64> {
    let wrong = || usage(format!("`{text}` is no age, such as 30d, 12h, 45m, 10s or 2w"));
    let (at, unit) = text.char_indices().last().ok_or_else(wrong)?;
    let unit = match unit {
        's' => 1.0,
        'm' => 60.0,
        'h' => 3600.0,
        'd' => 86_400.0,
        'w' => 604_800.0,
        _ => return Err(wrong()),
    };
    match text.get(..at).and_then(|digits| digits.parse::<f64>().ok()) {
        Some(number) if number.is_finite() && number >= 0.0 => Ok(number * unit),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_a_unit() {
        assert!((age("30d").unwrap() - 2_592_000.0).abs() < 1e-6);
        assert!((age("1.5h").unwrap() - 5400.0).abs() < 1e-6);
        for text in ["", "d", "30", "-1d", "inf s", "3y", "ä"] {
            assert!(age(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_condition_is_an_expression_or_else_a_plain_pair() {
        assert_eq!(one("lr=0.1").unwrap(), one("lr eq 0.1").unwrap());
        assert!(matches!(one("tags=[\"a\", \"b\"]").unwrap(), Expr::Compare(_, Op::Eq, _)));
        assert!(matches!(one("loss < 0.5 and has(x)").unwrap(), Expr::And(..)));
        for slip in ["loss < ", "lr=0.1 adn has(x)", "has(x", "loss <> 1"] {
            let message = one(slip).unwrap_err().message().unwrap();
            assert!(message.contains(slip) && message.contains('^'), "{message}");
        }
    }
}
