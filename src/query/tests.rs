use proptest::prelude::*;

use super::*;
use crate::value::Object;

const NOW: f64 = 1_800_000_000.0;

fn ask(expr: &str, object: &str) -> bool {
    let expr = Expr::parse(expr).unwrap_or_else(|error| panic!("{expr}: {error}"));
    holds(&expr, &Object::parse(object.as_bytes()).unwrap(), "e1", 1_795_305_600.0, NOW)
}

#[test]
fn the_example_of_the_design() {
    let expr = r#"loss < 0.5 and (model = resnet18 or model ~ "vit*") and not has(error)"#;
    assert!(ask(expr, r#"{"loss": 0.4, "model": "vit-b"}"#));
    assert!(ask(expr, r#"{"loss": 1e-05, "model": "resnet18"}"#));
    assert!(!ask(expr, r#"{"loss": 0.4, "model": "vit-b", "error": null}"#));
    assert!(!ask(expr, r#"{"loss": 0.5, "model": "vit-b"}"#));
    assert!(!ask(expr, r#"{"loss": "0.4", "model": "vit-b"}"#));
    assert!(!ask(r#"model = "vit*""#, r#"{"model": "vit-b"}"#), "wildcards are for ~ only");
}

#[test]
fn words_are_operators_too() {
    for (word, symbol) in
        [("eq", "="), ("ne", "!="), ("lt", "<"), ("le", "<="), ("gt", ">"), ("ge", ">="), ("like", "~")]
    {
        assert_eq!(
            Expr::parse(&format!("loss {word} 5")).unwrap(),
            Expr::parse(&format!("loss{symbol}5")).unwrap(),
            "{word}"
        );
    }
    assert!(ask("lr in (0.10, 3) and model like res*", r#"{"lr": 0.1, "model": "resnet"}"#));
}

#[test]
fn types_do_not_mix() {
    for (expr, object) in [
        ("a = 1", r#"{"a": true}"#),
        ("a = true", r#"{"a": 1}"#),
        ("a != 1", r#"{"a": "1"}"#),
        ("a != 1", "{}"),
        ("a < 5", r#"{"a": null}"#),
        ("a < b", r#"{"a": 3}"#),
        ("a > 5", r#"{"a": NaN}"#),
        ("a <= NaN", r#"{"a": NaN}"#),
        ("a > false", r#"{"a": true}"#),
        (r#"a = "1""#, r#"{"a": 1}"#),
        ("opt = 1", r#"{"opt": {"name": 1}}"#),
    ] {
        assert!(!ask(expr, object), "{expr} on {object}");
    }
    assert!(ask("a = NaN", r#"{"a": NaN}"#));
    assert!(ask("a != false", r#"{"a": true}"#));
    assert!(ask("a > 9007199254740992", r#"{"a": 9007199254740993}"#), "integers are exact");
}

#[test]
fn members_elements_and_reserved_keys() {
    let object = r#"{"opt": {"name": "adam", "": 1}, "tags": ["best", 0.10], "and": 1, "a b": 2}"#;
    assert!(ask("opt.name eq adam and has(opt) and has(opt.name) and not has(opt.x)", object));
    assert!(ask("tags[] = best and tags[] = 0.1 and not tags[] = x", object));
    assert!(ask(r#"tags = ["best", 0.1] and has(tags[])"#, object));
    assert!(ask(r#""and" = 1 and "a b" = 2 and "opt.\"\"" = 1"#, object));
    assert!(ask("_id = e1 and @ ~ e?", object));
    assert!(ask(r#""".x = 2 and has("".x)"#, r#"{"": {"x": 2}}"#));
    assert!(ask(r#""" = 1"#, r#"{"": 1}"#));
    assert!(ask("a = [1]x", r#"{"a": "[1]x"}"#));
}

#[test]
fn dates_and_ages_are_for_the_time_of_an_entry() {
    assert!(ask("_timestamp = 2026-11-22", "{}"));
    assert!(ask("_timestamp >= 2026-11-21T23:59:59 and $ < 2026-11-22T00:01", "{}"));
    assert!(ask("_timestamp < -54d and _timestamp > -55d", "{}"));
    assert!(ask("day = 2026-11-22", r#"{"day": "2026-11-22"}"#), "elsewhere it is a string");
    for text in ["_timestamp = 2026-02-30", "$ < 7d", "_timestamp > yesterday"] {
        assert!(Expr::parse(text).unwrap_err().expected.contains("a date"), "{text}");
    }
}

#[test]
fn errors_point_at_the_column() {
    for (text, column, expected) in [
        ("", 1, "a key"),
        ("loss", 5, "an operator"),
        ("loss <", 7, "a value"),
        ("loss < 0.5 nd x", 12, "`and`, `or` or the end"),
        ("(lr = 1", 8, "`and`, `or` or `)`"),
        ("ü = 1 and \"x", 11, "a closing \""),
        ("has(lr = 1)", 8, "`)`"),
        ("lr in (1, 2", 12, "`,` or `)`"),
        ("lr in ()", 8, "a value"),
        ("a..b = 1", 1, "a key"),
    ] {
        let error = Expr::parse(text).unwrap_err();
        assert_eq!(error.column, column, "{text}: {error}");
        assert!(error.expected.contains(expected), "{text}: {error}");
    }
}

#[test]
fn deep_and_long_expressions_are_refused() {
    for text in ["(".repeat(60_000), "not ".repeat(10_000), "a=1 or ".repeat(8_000), "a".repeat(70_000)] {
        assert!(Expr::parse(&text).is_err());
    }
    let long = vec!["a = 1"; TERMS_MAX].join(" or ");
    assert!(ask(&long, r#"{"a": 1}"#));
    let long = Expr::parse(&long).unwrap();
    assert_eq!(Expr::parse(&long.to_string()), Ok(long));
}

#[test]
fn patterns() {
    for (pattern, text, expected) in [
        ("", "", true),
        ("*", "", true),
        ("?", "", false),
        ("a*c", "abbbc", true),
        ("a*c", "abbbcd", false),
        ("*a*b", "xaxxb", true),
        ("**x", "x", true),
        ("?ü*", "aü", true),
        ("a", "b", false),
    ] {
        assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
    }
    assert!(!matches(&"*a".repeat(50), &"a".repeat(49)));
}

/// Random expressions over a few keys, of any shape.
pub(crate) fn exprs() -> impl Strategy<Value = Expr> {
    let key = prop_oneof![
        Just("a"),
        Just("b"),
        Just("opt.name"),
        Just("tags[]"),
        Just("tags"),
        Just("_timestamp"),
        Just("_id"),
        Just("in"),
        Just("has"),
        Just("\"\""),
    ]
    .prop_map(|key| Key::parse(key).unwrap());
    let op = prop_oneof![Just(Op::Eq), Just(Op::Ne), Just(Op::Lt), Just(Op::Le), Just(Op::Gt), Just(Op::Ge)];
    let leaf = || crate::value::strategy::values().prop_map(|value| Leaf::of(&value));
    let term = prop_oneof![
        (key.clone(), op, leaf()).prop_map(|(key, op, leaf)| Expr::Compare(key, op, Operand::Leaf(leaf))),
        (key.clone(), "[ab*?]{0,4}").prop_map(|(key, pattern)| Expr::Like(key, pattern)),
        (key.clone(), prop::collection::vec(leaf(), 1..3)).prop_map(|(key, leaves)| Expr::In(key, leaves)),
        key.prop_map(Expr::Has),
        (0.0..1e9_f64).prop_map(|age| { Expr::Compare(Key::parse("$").unwrap(), Op::Gt, Operand::Ago(age)) }),
    ];
    term.prop_recursive(4, 16, 2, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(l, r)| Expr::And(Box::new(l), Box::new(r))),
            (inner.clone(), inner.clone()).prop_map(|(l, r)| Expr::Or(Box::new(l), Box::new(r))),
            inner.prop_map(|inner| Expr::Not(Box::new(inner))),
        ]
    })
}

proptest! {
    #[test]
    fn any_text_is_parsed_or_refused(text in ".*") {
        let _ = Expr::parse(&text);
    }

    #[test]
    fn any_tokens_are_parsed_or_refused(
        tokens in prop::collection::vec(
            prop_oneof![
                Just("("), Just(")"), Just("and"), Just("or"), Just("not"), Just("has"), Just("in"), Just(","),
                Just("a"), Just("="), Just("<"), Just("!="), Just("~"), Just("\"x\""), Just("1e-05"), Just("["), Just("-7d"),
            ],
            0..20,
        ),
    ) {
        if let Ok(expr) = Expr::parse(&tokens.join(" ")) {
            prop_assert_eq!(Expr::parse(&expr.to_string()).unwrap(), expr);
        }
    }

    #[test]
    fn the_one_spelling_is_the_same_tree(expr in exprs()) {
        prop_assert_eq!(Expr::parse(&expr.to_string()).map_err(|error| TestCaseError::fail(format!("{expr}: {error}")))?, expr);
    }
}
