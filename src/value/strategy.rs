//! Arbitrary values for property tests, with all the odd ones of Python's JSON.

use proptest::prelude::*;

use super::{Number, Object, Text, Value};

/// Arbitrary strings, among them such as look like JSON or cannot be file names, and lone surrogates.
pub(crate) fn texts() -> impl Strategy<Value = Text<'static>> {
    let odd = prop::sample::select(vec![
        "",
        "0.1",
        "true",
        "null",
        "NaN",
        "[1]",
        "{}",
        " 1 ",
        "\"",
        "\"a\"",
        "a\n",
        "\n",
        "a\nb",
        ".",
        "..",
        "a/b",
        "%",
        "%41",
        "%2E",
        "\0",
        "\x7f",
        "\t",
        "a=b,c",
        "[]",
        "a[]",
        "\"\"",
        "Ünïcödé 😀",
        "-",
        "tru",
        "-Infinity",
        "1 2",
        "{\"a\":1}",
        "[",
        "ab~0123456789abcdef",
        "_id",
        "_timestamp",
        "@",
        "$",
    ])
    .prop_map(|text: &str| text.as_bytes().to_vec());
    let units = prop::collection::vec(prop_oneof![0xD7FE_u16..0xE002, 0_u16..0x100, any::<u16>()], 0..8)
        .prop_map(|units| {
            char::decode_utf16(units)
                .flat_map(|unit| match unit {
                    Ok(character) => character.to_string().into_bytes(),
                    Err(error) => {
                        let [high, low] = error.unpaired_surrogate().to_be_bytes();
                        vec![0xE0 | high >> 4, 0x80 | (high & 0x0F) << 2 | low >> 6, 0x80 | low & 0x3F]
                    }
                })
                .collect::<Vec<u8>>()
        });
    let long = "[a-z%/é]{200,300}".prop_map(String::into_bytes);
    prop_oneof![
        3 => ".{0,12}".prop_map(String::into_bytes),
        3 => "[a-z.=,/\"%\\[\\]{}0-9 \\n-]{0,8}".prop_map(String::into_bytes),
        3 => odd,
        2 => units,
        1 => long,
    ]
    .prop_map(|bytes| Text::from_wtf8(bytes).unwrap())
}

/// Arbitrary number tokens.
pub(crate) fn numbers() -> impl Strategy<Value = Number<'static>> {
    let odd = prop::sample::select(vec![
        "NaN",
        "Infinity",
        "-Infinity",
        "1180591620717411303424",
        "9223372036854775808",
        "9223372036854775809",
        "0.10",
        "1e-05",
        "1E5",
        "1.0",
        "1e0",
        "-0",
        "-0.0",
        "1e400",
        "-1e400",
        "72057594037927936",
        "72057594037927937",
        "100000000000000000",
        "1e16",
        "1e17",
        "5e-324",
        "1e22",
        "9007199254740993",
    ])
    .prop_map(|token: &str| Number::new(token).unwrap());
    prop_oneof![
        odd,
        any::<i128>().prop_map(|value| Number::new(value.to_string()).unwrap()),
        any::<i32>().prop_map(|value| Number::new(value.to_string()).unwrap()),
        any::<f64>().prop_map(Number::from),
        "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?"
            .prop_map(|token| Number::new(token).unwrap()),
    ]
}

/// Arbitrary values.
pub(crate) fn values() -> impl Strategy<Value = Value<'static>> {
    let leaf = prop_oneof![
        1 => Just(Value::Null),
        1 => any::<bool>().prop_map(Value::Bool),
        4 => numbers().prop_map(Value::Number),
        4 => texts().prop_map(Value::String),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::Array),
            objects_of(inner).prop_map(Value::Object),
        ]
    })
}

/// Arbitrary objects.
pub(crate) fn objects() -> impl Strategy<Value = Object<'static>> {
    objects_of(values())
}

fn objects_of(value: impl Strategy<Value = Value<'static>>) -> impl Strategy<Value = Object<'static>> {
    prop::collection::vec((texts(), value), 0..5).prop_map(|members| {
        let mut object = Object::new();
        for (name, value) in members {
            object.insert(name, value);
        }
        object
    })
}
