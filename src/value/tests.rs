//! Tests of values.

use std::cmp::Ordering;
use std::hash::{BuildHasher, RandomState};
use std::process::{Command, Stdio};

use proptest::prelude::*;

use super::strategy::{numbers, objects, texts, values};
use super::*;

fn parse(text: &str) -> Value<'_> {
    Value::parse(text.as_bytes()).unwrap()
}

fn leaf(text: &str) -> Leaf {
    Leaf::of(&parse(text))
}

fn error(bytes: &[u8]) -> (usize, ParseErrorKind) {
    let error = Value::parse(bytes).unwrap_err();
    (error.offset, error.kind)
}

fn python(value: &Value<'_>) -> String {
    let mut out = Vec::new();
    value.write_python(&mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn parses_what_python_writes() {
    let text =
        r#"{"a": 1e-05, "b": [NaN, -Infinity, true, null], "c": {"": "x"}, "d": 1180591620717411303424}"#;
    assert_eq!(python(&parse(text)), text);
    assert_eq!(python(&parse(" \t\r\n[ ]\n")), "[]");
    assert_eq!(python(&parse(r#""\u00e9\ud83d\ude00\/\b\f\n\r\t\"\\é😀""#)), {
        r#""\u00e9\ud83d\ude00/\b\f\n\r\t\"\\\u00e9\ud83d\ude00""#
    });
    assert_eq!(
        python(&Value::String(Text::from_str("\x00\x1f\x7f \u{2028}"))),
        r#""\u0000\u001f\u007f \u2028""#
    );
}

#[test]
fn pairs_of_surrogates_are_one_character_and_lone_ones_stay() {
    let Value::String(text) = parse(r#""\ud83d\ude00""#) else { panic!() };
    assert_eq!(text.as_str(), Some("😀"));
    for lone in [r#""\udcff""#, r#""\ud83d""#, r#""\ud83dx""#, r#""\ud83d\ud83d""#, r#""\ud83d\u0041""#] {
        let Value::String(text) = parse(lone) else { panic!() };
        assert_eq!(text.as_str(), None, "{lone}");
        assert_eq!(Text::from_wtf8(text.as_bytes()), Some(text.clone()));
    }
    assert_eq!(python(&parse(r#""\ud83d\udcff\udcff""#)), r#""\ud83d\udcff\udcff""#);
    assert_eq!(Text::from_wtf8(&b"\xed\xa0\xbd\xed\xb8\x80"[..]), None, "a pair has another spelling");
    assert_eq!(Text::from_wtf8(&b"a\xff"[..]), None);
}

#[test]
fn of_duplicate_names_the_last_value_stands_in_the_place_of_the_first() {
    assert_eq!(python(&parse(r#"{"a": 1, "b": 2, "\u0061": 3}"#)), r#"{"a": 3, "b": 2}"#);
    let members = |range: std::ops::Range<u32>| range.map(|n| format!("\"k{n}\": {n}")).collect::<Vec<_>>();
    for count in [15, 16, 17, 18, 40] {
        let twice = [members(0..count), vec!["\"k3\": 0".into(), format!("\"k{}\": 1", count - 1)]].concat();
        let once = members(0..count).join(", ").replace("\"k3\": 3,", "\"k3\": 0,");
        let once = once.replace(&format!("\"k{0}\": {0}", count - 1), &format!("\"k{}\": 1", count - 1));
        assert_eq!(python(&parse(&format!("{{{}}}", twice.join(", ")))), format!("{{{once}}}"));
    }
}

#[test]
fn a_huge_object_takes_no_quadratic_time() {
    let members: Vec<_> = (0..200_000).map(|n| format!("\"key{n}\":{n}")).collect();
    let text = format!("{{{0},{0}}}", members.join(","));
    let Value::Object(object) = parse(&text) else { panic!() };
    assert_eq!(object.len(), 200_000);
    let reversed: Vec<_> = members.into_iter().rev().collect();
    assert!(Value::Object(object).same(&parse(&format!("{{{}}}", reversed.join(",")))));
}

#[test]
fn says_where_and_why_a_text_is_refused() {
    use ParseErrorKind::{NotUtf8, TooDeep, TrailingBytes, UnexpectedByte, UnexpectedEnd};
    for (text, offset, kind) in [
        ("", 0, UnexpectedEnd),
        (" ", 1, UnexpectedEnd),
        ("{\"a\"", 4, UnexpectedEnd),
        ("{\"a\": 1, }", 9, UnexpectedByte(b'}')),
        ("[1,]", 3, UnexpectedByte(b']')),
        ("\"a\nb\"", 2, UnexpectedByte(b'\n')),
        ("\"abcdefghijk\x01\"", 12, UnexpectedByte(1)),
        ("\"abc", 4, UnexpectedEnd),
        ("\"\\x\"", 2, UnexpectedByte(b'x')),
        ("\"\\u12g4\"", 5, UnexpectedByte(b'g')),
        ("\"\\ud83d\\u12\"", 11, UnexpectedByte(b'"')),
        ("01", 1, TrailingBytes),
        ("1.", 2, UnexpectedEnd),
        ("-", 1, UnexpectedEnd),
        ("-NaN", 1, UnexpectedByte(b'N')),
        ("Infinite", 7, UnexpectedByte(b'e')),
        ("+1", 0, UnexpectedByte(b'+')),
        (".5", 0, UnexpectedByte(b'.')),
        ("1e", 2, UnexpectedEnd),
        ("trux", 3, UnexpectedByte(b'x')),
        ("1 2", 2, TrailingBytes),
        ("\u{feff}1", 0, UnexpectedByte(0xEF)),
    ] {
        assert_eq!(error(text.as_bytes()), (offset, kind), "{text:?}");
    }
    assert_eq!(error(b"\"a\xff\""), (2, NotUtf8));
    assert_eq!(error("[".repeat(100_000).as_bytes()), (MAX_DEPTH, TooDeep));
    assert_eq!(error("{\"a\":".repeat(100_000).as_bytes()), (MAX_DEPTH * 5, TooDeep));
    assert!(Value::parse(format!("{}{}", "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH)).as_bytes()).is_ok());
    assert_eq!(Object::parse(b" [1]").unwrap_err().kind, ParseErrorKind::NotAnObject);
    assert_eq!(Object::parse(b"{} x").unwrap_err().kind, TrailingBytes);
    assert_eq!(error(b"1x").1, TrailingBytes);
    assert_eq!(Object::parse(b"{]").unwrap_err().to_string(), "unexpected byte `]` (at byte 1)");
}

#[test]
fn usual_numbers_are_plain_to_see() {
    for text in ["0", "-7", "0.25", "-0.0", "1e-05", "1.5E+3", "362.08987700971585", "123456789012345"] {
        assert_eq!(
            Number::double(text).map(f64::to_bits),
            Some((text.parse::<f64>().unwrap() + 0.0).to_bits())
        );
    }
    for text in [
        "", "-", "+1", "01", "-00.5", ".5", "1.", "1.e5", "1..5", "1e", "inf", "nan", "NaN", "Infinity",
        " 1", "1 ",
    ] {
        assert_eq!(Number::double(text), None, "{text:?}");
    }
}

#[test]
fn numbers_are_one_value_whatever_their_spelling() {
    for (spellings, text) in [
        (vec!["1", "1.0", "1e0", "10E-1", "1.00"], "1"),
        (vec!["0", "-0", "-0.0", "0e5"], "0"),
        (vec!["0.1", "1e-1", "0.10"], "0.1"),
        (vec!["1e-05", "0.00001"], "1e-05"),
        (vec!["0.0001"], "0.0001"),
        (vec!["1e16", "10000000000000000"], "10000000000000000"),
        (vec!["72057594037927936", "72057594037927936.0"], "72057594037927936"),
        (vec!["72057594037927937"], "72057594037927937"),
        (vec!["1e17", "100000000000000000"], "1e+17"),
        (vec!["1e22"], "1e+22"),
        (vec!["-1.5e300", "-15e299"], "-1.5e+300"),
        (vec!["1180591620717411303424"], "1.1805916207174113e+21"),
        (vec!["9223372036854775808"], "9.223372036854776e+18"),
        (vec!["9223372036854775809"], "9223372036854775809"),
        (vec!["9007199254740993"], "9007199254740993"),
        (vec!["1e400", "Infinity"], "Infinity"),
        (vec!["-Infinity"], "-Infinity"),
        (vec!["NaN"], "NaN"),
        (vec!["1234567.25"], "1234567.25"),
        (vec!["5e-324"], "5e-324"),
    ] {
        for spelling in spellings {
            assert_eq!(leaf(spelling).to_text(), text, "{spelling}");
            assert_eq!(leaf(spelling), leaf(text));
            assert!(leaf(spelling).to_value().same(&parse(spelling)));
        }
    }
    let big = format!("1{}", "0".repeat(400));
    assert_eq!(leaf(&big).to_text(), big);
    assert!(leaf(&big) < leaf("Infinity"));
    assert_ne!(leaf("true"), leaf("1"));
    assert_ne!(leaf("\"1\""), leaf("1"));
}

#[test]
fn doubles_become_tokens_as_python_prints_them() {
    for (value, token) in [
        (1.0, "1.0"),
        (-0.0, "-0.0"),
        (0.1, "0.1"),
        (1e-5, "1e-05"),
        (1e15, "1000000000000000.0"),
        (1e16, "1e+16"),
        (1.5e300, "1.5e+300"),
        (123_456.75, "123456.75"),
        (0.0001, "0.0001"),
        (1.25e-100, "1.25e-100"),
        (f64::NAN, "NaN"),
        (f64::NEG_INFINITY, "-Infinity"),
    ] {
        assert_eq!(Number::from(value).token(), token);
    }
    assert!(Number::new("1.").is_none() && Number::new("").is_none() && Number::new(" 1").is_none());
}

#[test]
fn leaves_have_the_documented_order() {
    let ascending = [
        "null",
        "false",
        "true",
        "-Infinity",
        "-36893488147419103233",
        "-36893488147419103232",
        "-1e-5",
        "0",
        "1e-5",
        "1",
        "9007199254740992",
        "9007199254740993",
        "9007199254740994",
        "9223372036854775807",
        "9223372036854775808",
        "9223372036854775809",
        "1e300",
        &format!("2{}", "0".repeat(400)),
        &format!("3{}", "0".repeat(400)),
        "Infinity",
        "NaN",
        "\"\"",
        "\"a\"",
        "\"b\"",
        "\"\\ud800\"",
        "\"\\uffff\"",
        "\"\\ud83d\\ude00\"",
        "[1]",
        "[2]",
        "{}",
    ];
    for (left_at, left) in ascending.iter().enumerate() {
        for (right_at, right) in ascending.iter().enumerate() {
            assert_eq!(leaf(left).cmp(&leaf(right)), left_at.cmp(&right_at), "{left} {right}");
        }
    }
}

#[test]
fn the_text_form_is_bare_where_unambiguous() {
    for (json, text) in [
        (r#""resnet18""#, "resnet18"),
        (r#""a b\tc\nd""#, "a b\tc\nd"),
        (r#""""#, r#""""#),
        (r#""\"x""#, r#""\"x""#),
        (r#""x\n""#, r#""x\n""#),
        (r#""x\r""#, r#""x\r""#),
        (r#""\u007f""#, r#""\u007f""#),
        (r#""\udcff\u00e9""#, "\"\\udcffé\""),
        (r#""0.1""#, r#""0.1""#),
        (r#"" 1 ""#, r#"" 1 ""#),
        (r#""true""#, r#""true""#),
        (r#""NaN""#, r#""NaN""#),
        (r#""[1]""#, r#""[1]""#),
        (r#""[1""#, "[1"),
        (r#""truely""#, "truely"),
        (r#""0123""#, "0123"),
        (r#""2026-11-22""#, "2026-11-22"),
        ("[1.0, {\"b\": 1e1, \"a\": \"\\u00e9\"}]", "[1,{\"a\":\"é\",\"b\":10}]"),
        ("{ }", "{}"),
        ("true", "true"),
    ] {
        assert_eq!(parse(json).to_text(), text);
        assert!(Value::from_text(text).same(&parse(json)));
    }
    assert_eq!(Value::from_text("0.10"), Value::Number(Number::new("0.10").unwrap()), "the token is kept");
    assert_eq!(Value::from_text("\"x"), Value::String(Text::from_str("\"x")));
}

#[test]
fn objects_change_in_place() {
    let mut object = Object::parse(br#"{"a": 1, "b": 2, "c": 3}"#).unwrap();
    assert!(object.rename(b"b", Text::from_str("c")));
    assert!(!object.rename(b"b", Text::from_str("d")));
    assert!(object.rename(b"a", Text::from_str("a")));
    assert_eq!(object.insert(Text::from_str("d"), Value::Null), None);
    assert_eq!(object.insert(Text::from_str("a"), Value::Bool(true)), Some(parse("1")));
    let mut out = Vec::new();
    object.write_python(&mut out);
    assert_eq!(String::from_utf8(out).unwrap(), r#"{"a": true, "c": 2, "d": null}"#);
    assert_eq!(object.remove(b"c"), Some(parse("2")));
    assert_eq!((object.get("c"), object.len(), object.is_empty()), (None, 2, false));
}

#[test]
fn objects_are_the_same_in_any_order() {
    assert!(parse(r#"{"a": 1, "b": NaN}"#).same(&parse(r#"{"b": NaN, "a": 1.0}"#)));
    assert!(!parse(r#"{"a": 1, "b": 2}"#).same(&parse(r#"{"a": 1, "c": 2}"#)));
    assert!(!parse(r#"{"a": 1}"#).same(&parse(r#"{"a": true}"#)));
}

/// The names of what differs between two objects.
fn differing(left: &str, right: &str) -> (String, String) {
    let [left, right] = [left, right].map(|json| Object::parse(json.as_bytes()).unwrap());
    let (left, right) = left.differing(&right);
    let names = |members: Vec<Member<'_, '_>>| members.iter().filter_map(|(name, _)| name.as_str()).collect();
    (names(left), names(right))
}

#[test]
fn what_differs_between_objects_is_found_member_by_member() {
    let same = |left: &str, right: &str, names: [&str; 2]| {
        assert_eq!(differing(left, right), (names[0].to_owned(), names[1].to_owned()), "{left} {right}");
    };
    same(r#"{"a": 1, "b": 2, "c": 3}"#, r#"{"a": 1, "b": 2, "c": 3}"#, ["", ""]);
    same(r#"{"a": 1, "b": 2, "c": 3}"#, r#"{"a": 1, "b": 7, "c": 3}"#, ["b", "b"]);
    same(r#"{"a": 1, "b": 2, "c": 3}"#, r#"{"a": 1, "c": 3, "d": 4}"#, ["b", "d"]);
    same(r#"{"b": 2, "c": 3}"#, r#"{"a": 1, "b": 2, "c": 3}"#, ["", "a"]);
    same("{}", r#"{"a": 1}"#, ["", "a"]);
    same(r#"{"a": {"b": 1}, "c": [1]}"#, r#"{"a": {"b": 2}, "c": [1]}"#, ["a", "a"]);
}

/// `json.dumps(json.loads(line))` of every line, by Python itself; `None` where there is no Python.
fn through_python(lines: &str) -> Option<String> {
    use std::io::Write as _;
    let program = "import json,sys\nfor l in sys.stdin.buffer: print(json.dumps(json.loads(l)))";
    let mut child = Command::new("python3")
        .args(["-c", program])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .ok()?;
    // One line in, one line out, of a few kilobytes: no deadlock.
    child.stdin.take()?.write_all(lines.as_bytes()).ok()?;
    let output = child.wait_with_output().ok()?;
    assert!(output.status.success());
    String::from_utf8(output.stdout).ok()
}

#[test]
fn python_writes_the_same_bytes() {
    let lines = [
        r#"{"a": [1, 2.5, -0.0, 1e-05, 1e+16, 1e+22, NaN, -Infinity], "": {"b": {}, "c": []}}"#,
        r#"["\ud83d", "\udcff\ud83d", "\ud83d\ude00", "\u00e9\u007f\u2028\uffff", "\b\f\n\r\t\"\\/\u0000"]"#,
        r#"{"n": 1180591620717411303424, "b": [true, false, null]}"#,
    ];
    let lines = lines.join("\n") + "\n";
    if let Some(output) = through_python(&lines) {
        assert_eq!(output, lines);
    }
    for line in lines.lines() {
        assert_eq!(python(&parse(line)), line);
    }
}

proptest! {
    #[test]
    fn text_forms_read_back(value in values()) {
        let text = value.to_text();
        let read = Value::from_text(&text);
        prop_assert!(read.same(&value), "{text:?}");
        prop_assert_eq!(read.to_text(), text);
        prop_assert!(Leaf::of(&value).to_value().same(&value));
    }

    #[test]
    fn any_text_is_a_value_that_keeps(text in prop_oneof![any::<String>(), "[\\[\\]{}\",:0-9a-fnrtuslINy. \\n\\\\-]{0,10}"]) {
        let value = Value::from_text(&text);
        prop_assert!(Value::from_text(&value.to_text()).same(&value));
    }

    #[test]
    fn python_form_parses_back(value in values()) {
        let text = python(&value);
        prop_assert!(text.is_ascii());
        prop_assert_eq!(&parse(&text), &value);
        prop_assert_eq!(parse(&text).into_owned(), value);
    }

    #[test]
    fn same_values_have_equal_leaves(values in prop::collection::vec(values(), 2), numbers in prop::collection::vec(numbers(), 2)) {
        let numbers: Vec<_> = numbers.into_iter().map(Value::Number).collect();
        for pair in [&values, &numbers] {
            let leaves: Vec<_> = pair.iter().map(Leaf::of).collect();
            prop_assert_eq!(pair[0].same(&pair[1]), leaves[0] == leaves[1]);
            prop_assert_eq!(leaves[0].cmp(&leaves[1]) == Ordering::Equal, leaves[0] == leaves[1]);
            prop_assert_eq!(leaves[0].cmp(&leaves[1]), leaves[1].cmp(&leaves[0]).reverse());
            prop_assert_eq!(leaves[0].to_text() == leaves[1].to_text(), leaves[0] == leaves[1]);
            let state = RandomState::new();
            if leaves[0] == leaves[1] {
                prop_assert_eq!(state.hash_one(&leaves[0]), state.hash_one(&leaves[1]));
            }
        }
    }

    #[test]
    fn what_does_not_differ_is_the_same_in_both(
        left in objects(), right in objects(), moves in prop::collection::vec(any::<(prop::sample::Index, bool)>(), 0..4),
    ) {
        // Much in common, in another order here and there.
        let (mut left, mut right) = (left, right);
        for (at, mine) in moves {
            let [from, to] = if mine { [&mut left, &mut right] } else { [&mut right, &mut left] };
            if !from.is_empty() {
                let (name, value) = from.iter().nth(at.index(from.len())).map(|(n, v)| (n.clone(), v.clone())).unwrap();
                to.insert(name, value);
            }
        }
        let (mine, theirs) = left.differing(&right);
        let rest = |object: &Object<'static>, members: &[Member<'_, '_>]| {
            let mut rest = object.clone();
            for (name, value) in members {
                assert_eq!(rest.remove(name.as_bytes()).as_ref(), Some(*value));
            }
            let mut rest: Vec<_> = rest.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
            rest.sort_by(|one, other| one.0.cmp(&other.0));
            rest
        };
        prop_assert_eq!(rest(&left, &mine), rest(&right, &theirs));
    }

    #[test]
    fn doubles_read_back_bit_by_bit(value in any::<f64>()) {
        let token = Number::from(value).token().to_owned();
        prop_assert_eq!(token.parse::<f64>().unwrap().to_bits(), value.to_bits());
    }

    #[test]
    fn what_is_plain_to_see_is_so(number in numbers(), other in "-?[-+.0-9eEiInNfa]{0,18}") {
        for text in [number.token(), &other] {
            let exactly = Number::new(text).map(|number| Leaf::of(&Value::Number(number)));
            prop_assert!(Number::double(text).is_none_or(|double| Some(Leaf::Double(double)) == exactly), "{text:?}");
        }
    }

    #[test]
    fn the_order_of_numbers_is_transitive(numbers in prop::collection::vec(numbers(), 3)) {
        let mut leaves: Vec<_> = numbers.into_iter().map(|number| Leaf::of(&Value::Number(number))).collect();
        leaves.sort();
        prop_assert!(leaves[0] <= leaves[1] && leaves[1] <= leaves[2] && leaves[0] <= leaves[2]);
    }

    #[test]
    fn wtf8_is_recognised(text in texts(), junk in prop::collection::vec(any::<u8>(), 0..6)) {
        prop_assert!(Text::from_wtf8(text.as_bytes()).is_some());
        if let Some(text) = Text::from_wtf8(junk.clone()) {
            let value = Value::String(text);
            let written = python(&value);
            prop_assert_eq!(&parse(&written), &value);
        } else {
            prop_assert!(std::str::from_utf8(&junk).is_err());
        }
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = Value::parse(&bytes);
    }

    #[test]
    fn no_damage_panics(value in values(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>()) {
        let mut text = python(&value).into_bytes();
        let at = at.index(text.len());
        if cut { text.truncate(at) } else { text[at] = byte }
        if let Ok(value) = Value::parse(&text) {
            prop_assert!(Value::from_text(&value.to_text()).same(&value));
        }
    }
}
