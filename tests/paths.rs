//! Every path gives the set that a plain loop over the JSON objects gives. `CACHEDIRFS_SEED=N` runs one seed again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::path::PathBuf;

use common::{Cache, Mount, Random, amount, errno, ls, read, seed};
use serde_json::{Map, Value};

/// JSON and the text form that expressions and paths know it by.
const VALUES: &[(&str, &str)] = &[
    ("1", "1"),
    ("1.0", "1"),
    ("0.1", "0.1"),
    ("1e-1", "0.1"),
    ("-2.5", "-2.5"),
    ("1e3", "1000"),
    ("\"1\"", "\"1\""),
    ("\"a\"", "a"),
    ("\"B\"", "B"),
    ("\"abc\"", "abc"),
    ("\"é\"", "é"),
    ("\"two words\"", "two words"),
    ("\"x/y\"", "x/y"),
    ("\"100%\"", "100%"),
    ("true", "true"),
    ("false", "false"),
    ("null", "null"),
    ("[\"a\", 1]", "[\"a\",1]"),
    ("[]", "[]"),
];
const KEYS: &[&str] = &["lr", "model", "opt.name", "opt.k", "note", "list"];

type Attrs = Map<String, Value>;

#[derive(Debug, Clone)]
enum Expr {
    Compare(&'static str, &'static str, usize),
    Like(&'static str, &'static str),
    In(&'static str, Vec<usize>),
    Has(&'static str),
    Element(&'static str, usize),
    And(Box<Expr>, Box<Expr>),
    Or(Box<Expr>, Box<Expr>),
    Not(Box<Expr>),
}

fn get<'a>(attrs: &'a Attrs, key: &str) -> Option<&'a Value> {
    let mut value = None;
    let mut at = Some(attrs);
    for member in key.split('.') {
        value = at?.get(member);
        at = value.and_then(Value::as_object);
    }
    value
}

fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        _ => one == other,
    }
}

fn same_type(one: &Value, other: &Value) -> bool {
    std::mem::discriminant(one) == std::mem::discriminant(other)
}

fn order(one: &Value, other: &Value) -> Option<Ordering> {
    match (one, other) {
        (Value::Number(a), Value::Number(b)) => a.as_f64().partial_cmp(&b.as_f64()),
        (Value::String(a), Value::String(b)) => Some(a.chars().cmp(b.chars())),
        _ => None,
    }
}

fn wild(pattern: &[char], text: &[char]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some(('*', rest)) => (0..=text.len()).any(|skip| wild(rest, &text[skip..])),
        Some((c, rest)) => {
            text.split_first().is_some_and(|(d, more)| (*c == '?' || c == d) && wild(rest, more))
        }
    }
}

impl Expr {
    fn random(random: &mut Random, depth: usize) -> Self {
        let key = random.word(KEYS);
        let value = random.below(VALUES.len());
        let choice = random.below(if depth == 0 { 6 } else { 10 });
        match choice {
            0..3 => {
                let op = random.word(&["=", "!=", "<", "<=", ">", ">="]);
                // Only numbers and strings have an order that the test states on its own.
                let value = if op.contains(['<', '>']) { random.below(14) } else { value };
                Self::Compare(key, op, value)
            }
            3 => Self::Like(key, random.word(&["*", "a*", "?", "*c", "a?c", "two*", "*o*", "é", "x*y", "b"])),
            4 => Self::In(key, (0..=random.below(3)).map(|_| random.below(VALUES.len())).collect()),
            5 if random.below(3) == 0 => Self::Element("list", random.below(14)),
            5 => Self::Has(random.word(&["lr", "model", "opt", "opt.name", "list", "none"])),
            6 | 7 => {
                Self::And(Self::random(random, depth - 1).into(), Self::random(random, depth - 1).into())
            }
            8 => Self::Or(Self::random(random, depth - 1).into(), Self::random(random, depth - 1).into()),
            _ => Self::Not(Self::random(random, depth - 1).into()),
        }
    }

    fn holds(&self, attrs: &Attrs) -> bool {
        match self {
            Self::Compare(key, op, value) => {
                let operand = json(*value);
                let Some(found) = get(attrs, key) else { return false };
                if found.as_object().is_some_and(|object| !object.is_empty()) {
                    return false;
                }
                match *op {
                    "=" => same(found, &operand),
                    "!=" => same_type(found, &operand) && !same(found, &operand),
                    op => order(found, &operand).is_some_and(|order| match op {
                        "<" => order.is_lt(),
                        "<=" => order.is_le(),
                        ">" => order.is_gt(),
                        _ => order.is_ge(),
                    }),
                }
            }
            Self::Like(key, pattern) => get(attrs, key).and_then(Value::as_str).is_some_and(|text| {
                wild(&pattern.chars().collect::<Vec<_>>(), &text.chars().collect::<Vec<_>>())
            }),
            Self::In(key, values) => {
                get(attrs, key).is_some_and(|found| values.iter().any(|value| same(found, &json(*value))))
            }
            Self::Has(key) => get(attrs, key).is_some(),
            Self::Element(key, value) => get(attrs, key)
                .and_then(Value::as_array)
                .is_some_and(|items| items.iter().any(|item| same(item, &json(*value)))),
            Self::And(a, b) => a.holds(attrs) && b.holds(attrs),
            Self::Or(a, b) => a.holds(attrs) || b.holds(attrs),
            Self::Not(a) => !a.holds(attrs),
        }
    }

    /// The expression as text, in one of its spellings.
    fn text(&self, random: &mut Random) -> String {
        match self {
            Self::Compare(key, op, value) => {
                let words = [("=", "eq"), ("!=", "ne"), ("<", "lt"), ("<=", "le"), (">", "gt"), (">=", "ge")];
                let word = words.iter().find(|(sign, _)| sign == op).unwrap().1;
                match random.below(3) {
                    0 => format!("{key} {word} {}", operand(*value)),
                    1 => format!("{key}{op}{}", operand(*value)),
                    _ => format!("{key} {op} {}", operand(*value)),
                }
            }
            Self::Like(key, pattern) => {
                format!("{key} {} \"{pattern}\"", random.pick(&["~", "like"]))
            }
            Self::In(key, values) => {
                let values: Vec<_> = values.iter().map(|value| operand(*value)).collect();
                format!("{key} in ({})", values.join(", "))
            }
            Self::Has(key) => format!("has({key})"),
            Self::Element(key, value) => format!("{key}[] = {}", operand(*value)),
            Self::And(a, b) => format!("({} and {})", a.text(random), b.text(random)),
            Self::Or(a, b) => format!("({} or {})", a.text(random), b.text(random)),
            Self::Not(a) => format!("not ({})", a.text(random)),
        }
    }
}

fn json(value: usize) -> Value {
    serde_json::from_str(VALUES[value].0).unwrap()
}

/// A value in an expression: strings that would be read as anything else in quotes.
fn operand(value: usize) -> String {
    let (text, form) = VALUES[value];
    let needs = form.contains([' ', '(', ')', ',', '[']);
    match json(value) {
        Value::String(_) if needs || form.starts_with('"') => text.to_owned(),
        _ => form.to_owned(),
    }
}

/// Operands that the grammar cannot spell without quotes, which would make strings of them.
fn spelled(value: usize) -> bool {
    !matches!(json(value), Value::Array(_))
}

impl Expr {
    fn can_be_spelled(&self) -> bool {
        match self {
            Self::Compare(_, _, value) | Self::Element(_, value) => spelled(*value),
            Self::In(_, values) => values.iter().all(|value| spelled(*value)),
            Self::Like(..) | Self::Has(_) => true,
            Self::And(a, b) | Self::Or(a, b) => a.can_be_spelled() && b.can_be_spelled(),
            Self::Not(a) => a.can_be_spelled(),
        }
    }
}

/// One step of a path and what it leaves of a set.
#[derive(Debug, Clone)]
enum Step {
    Attr(&'static str, usize),
    Where(Expr),
    Sort(&'static str),
}

impl Step {
    fn holds(&self, attrs: &Attrs) -> bool {
        let is_leaf = |value: &Value| value.as_object().is_none_or(Map::is_empty);
        match self {
            Self::Attr(key, value) => get(attrs, key).is_some_and(|found| same(found, &json(*value))),
            Self::Where(expr) => expr.holds(attrs),
            Self::Sort(key) => get(attrs, key).is_some_and(is_leaf),
        }
    }

    fn path(&self, random: &mut Random) -> PathBuf {
        let encode = |text: &str| text.replace('%', "%25").replace('/', "%2F");
        match self {
            Self::Attr(key, value) => PathBuf::from("by-attr").join(key).join(encode(VALUES[*value].1)),
            Self::Where(expr) => PathBuf::from("where").join(encode(&expr.text(random))),
            Self::Sort(key) => PathBuf::from("sort").join(key),
        }
    }
}

fn random_attrs(random: &mut Random) -> Attrs {
    let mut attrs = Map::new();
    for key in KEYS {
        if random.below(5) < 3 {
            let value = json(random.below(VALUES.len()));
            match key.split_once('.') {
                Some((outer, inner)) => {
                    let object = attrs.entry(outer).or_insert_with(|| Value::Object(Map::new()));
                    object.as_object_mut().unwrap().insert(inner.to_owned(), value);
                }
                None => drop(attrs.insert((*key).to_owned(), value)),
            }
        }
    }
    attrs
}

fn ask(mount: &Mount, objects: &[(String, Attrs)], random: &mut Random) {
    let mut steps: Vec<Step> = Vec::new();
    for _ in 0..=random.below(3) {
        steps.push(match random.below(4) {
            0 | 1 => Step::Attr(random.word(KEYS), random.below(VALUES.len())),
            2 => {
                let expr =
                    std::iter::repeat_with(|| Expr::random(random, 2)).find(Expr::can_be_spelled).unwrap();
                Step::Where(expr)
            }
            _ => Step::Sort(random.word(KEYS)),
        });
    }
    let mut path = mount.path().to_owned();
    // Names as `ls` gives them: of the last step.
    for step in &steps {
        path.push(step.path(random));
    }
    if path.components().any(|part| part.as_os_str().len() > 255) {
        return;
    }
    let expected: BTreeSet<&str> = objects
        .iter()
        .filter(|(_, attrs)| steps.iter().all(|step| step.holds(attrs)))
        .map(|(id, _)| id.as_str())
        .collect();
    // A value or key that nobody of the set before has is not there.
    let mut set: Vec<_> = objects.iter().collect();
    for step in &steps {
        set.retain(|(_, attrs)| step.holds(attrs));
        if set.is_empty() && !matches!(step, Step::Where(_)) {
            assert_eq!(errno(std::fs::symlink_metadata(&path)), libc::ENOENT, "{}", path.display());
            return;
        }
    }
    let names = ls(&path);
    let sorted = matches!(steps.last(), Some(Step::Sort(_)));
    let ids: Vec<_> = names
        .iter()
        .map(|name| if sorted { name.split_once('-').unwrap().1 } else { name.as_str() })
        .collect();
    assert_eq!(ids.len(), names.len());
    assert_eq!(ids.iter().copied().collect::<BTreeSet<_>>(), expected, "{}", path.display());
    assert_eq!(ids.len(), expected.len(), "no name twice");
    assert_eq!(read(path.join("count")), format!("{}\n", expected.len()));
    let rows: BTreeSet<_> = read(path.join("table.jsonl"))
        .lines()
        .map(|line| {
            let row: Map<String, Value> = serde_json::from_str(line).unwrap();
            row["_id"].as_str().unwrap().rsplit('/').next().unwrap().to_owned()
        })
        .collect();
    assert_eq!(rows.iter().map(String::as_str).collect::<BTreeSet<_>>(), expected);
    if let Some(Step::Sort(key)) = steps.last() {
        let of = |id: &str| get(&objects.iter().find(|(other, _)| other == id).unwrap().1, key).unwrap();
        for pair in ids.windows(2) {
            let compared = order(of(pair[0]), of(pair[1]));
            assert!(compared.is_none_or(Ordering::is_le), "{}: {pair:?}", path.display());
        }
    }
    // The same steps the other way round.
    if steps.len() > 1 && !expected.is_empty() {
        steps.reverse();
        let mut other = mount.path().to_owned();
        for step in &steps {
            other.push(step.path(random));
        }
        if other.components().all(|part| part.as_os_str().len() <= 255) {
            let sorted = matches!(steps.last(), Some(Step::Sort(_)));
            let names = ls(&other);
            let ids: BTreeSet<_> = names
                .iter()
                .map(|name| if sorted { name.split_once('-').unwrap().1 } else { name.as_str() })
                .collect();
            assert_eq!(ids, expected, "{}", other.display());
        }
    }
}

#[test]
fn every_path_gives_the_set_of_a_plain_loop() {
    let first = seed("every_path");
    for n in 0..amount("CACHEDIRFS_PATH_RUNS", 12) as u64 {
        let mut random = Random(first.wrapping_add(n));
        let cache = Cache::new();
        let objects: Vec<_> = (0..80).map(|n| (format!("e{n:02}"), random_attrs(&mut random))).collect();
        let lines: Vec<_> = objects
            .iter()
            .map(|(id, attrs)| {
                cache.record(
                    id,
                    1.0,
                    serde_json::to_string(attrs)
                        .unwrap()
                        .strip_prefix('{')
                        .unwrap()
                        .strip_suffix('}')
                        .unwrap(),
                )
            })
            .collect();
        cache.append(&lines);
        let mount = cache.mount();
        for _ in 0..250 {
            ask(&mount, &objects, &mut random);
        }
        mount.stop();
    }
}
