//! Lists of `K=V`, as directory names and on the command line.

use super::{Key, NameError, escape};
use crate::value::{Leaf, Value};

/// Reads a `K=V,K=V` list: pairs split at `,`, key from value at the first `=`, both percent-decoded, values by
/// their text form. A pair without `=`, an empty pair or an empty key is malformed; a reserved key, `_deleted` or `KEY[]`
/// too; of a key that stands twice the last value wins.
pub fn parse_pairs(list: &str) -> Result<Vec<(Key, Value<'static>)>, NameError> {
    let mut pairs: Vec<(Key, Value<'static>)> = Vec::new();
    for pair in list.split(',') {
        let (key, text) = split(pair)?;
        let text = escape::unescape(text).ok_or(NameError::NotUtf8)?;
        let value = Value::from_text(&text);
        match pairs.iter_mut().find(|(other, _)| *other == key) {
            Some((_, place)) => *place = value,
            None => pairs.push((key, value)),
        }
    }
    Ok(pairs)
}

/// One pair of the command line: as in a list, but nothing is split at `,` and the value is not percent-decoded.
pub fn parse_pair(pair: &str) -> Result<(Key, Value<'static>), NameError> {
    let (key, text) = split(pair)?;
    Ok((key, Value::from_text(text)))
}

fn split(pair: &str) -> Result<(Key, &str), NameError> {
    let (key, text) = pair.split_once('=').ok_or(NameError::Malformed)?;
    // Reading a key decodes its members, `,` and `=` among them.
    let key = Key::parse(key)?;
    // A record that says `"_deleted": true` is none of an entry.
    if key.is_reserved() || key.is_elements() || key.as_str() == "_deleted" {
        return Err(NameError::Malformed);
    }
    Ok((key, text))
}

/// The one spelling of a `K=V` list: sorted by key, values canonical.
pub fn pairs_to_list(pairs: &[(Key, Leaf)]) -> String {
    let mut pairs: Vec<_> = pairs.iter().collect();
    pairs.sort_unstable();
    let mut list = String::new();
    for (number, (key, leaf)) in pairs.into_iter().enumerate() {
        if number > 0 {
            list.push(',');
        }
        // The key is spelled with its escapes already.
        escape::escape_onto(key.as_str(), |byte| matches!(byte, b',' | b'='), &mut list);
        list.push('=');
        escape::escape_onto(&leaf.to_text(), |byte| byte == b',' || escape::needs_escape(byte), &mut list);
    }
    list
}
