#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use serde_json::{Value, json};

use super::csv_line::split;
use super::movielens::display_title;
use super::python_literal::parse;

#[test]
fn movielens_titles_read_as_people_say_them() {
    let cases = [
        ("Toy Story (1995)", "Toy Story (1995)"),
        ("Matrix, The (1999)", "The Matrix (1999)"),
        ("Postman, The (Postino, Il) (1994)", "The Postman (1994)"),
        ("Beautiful Mind, A (2001)", "A Beautiful Mind (2001)"),
        ("American in Paris, An (1951)", "An American in Paris (1951)"),
        ("Avventura, L' (Adventure, The) (1960)", "L'Avventura (1960)"),
        (
            "Good, the Bad and the Ugly, The (Buono, il brutto, il cattivo, Il) (1966)",
            "The Good, the Bad and the Ugly (1966)",
        ),
        ("Léon: The Professional (a.k.a. The Professional) (Léon) (1994)", "Léon: The Professional (1994)"),
        ("Supercop (Police Story 3 (Part II)) (1992)", "Supercop (1992)"),
        ("Death Note: Desu nôto (2006–2007)", "Death Note: Desu nôto (2006–2007)"),
        ("Babylon 5", "Babylon 5"),
        ("Assembly (Ji jie hao) (2007) ", "Assembly (2007)"),
        ("Paris, Texas (1984)", "Paris, Texas (1984)"),
        ("(Untitled) (2009)", "(Untitled) (2009)"),
        ("(2012)", "(2012)"),
        ("Broken (paren (1990)", "Broken (1990)"),
        ("", ""),
    ];
    for (raw, expected) in cases {
        assert_eq!(display_title(raw), expected, "{raw}");
    }
}

#[test]
fn csv_lines_are_split_at_commas_outside_quotes() {
    assert_eq!(split("a,b,,").unwrap(), ["a", "b", "", ""]);
    assert_eq!(split(r#""a,b","say ""hi""",c"#).unwrap(), ["a,b", "say \"hi\"", "c"]);
    assert_eq!(split("").unwrap(), [""]);
    assert_eq!(split(r#"5" disk,x"#).unwrap(), ["5\" disk", "x"]);
    assert_eq!(split(r#""open,x"#), Err("quotation mark without an end"));
    assert_eq!(split(r#""a"b,x"#), Err("text after a closing quotation mark"));
}

#[test]
fn python_literals_become_json() {
    let cases = [
        ("{}", json!({})),
        ("{'a': 1, 'b': -2.5, 'c': [True, False, None],}", json!({"a": 1, "b": -2.5, "c": [true, false, null]})),
        ("(1, (2,), ())", json!([1, [2], []])),
        ("{1, 2}", json!([1, 2])),
        ("{3: 'x'}", json!({"3": "x"})),
        (
            r#"['it\'s', "it's", u"\u00e9\xe9\351", '\ud83d\ude00', '\U0001f600', '\ud83d']"#,
            json!(["it's", "it's", "ééé", "😀", "😀", "\u{fffd}"]),
        ),
        (r"['a' 'b', r'\n', '\n\\\q']", json!(["ab", "\\n", "\n\\\\q"])),
        ("[1e3, 12L, 1_000]", json!([1000.0, 12, 1000])),
        ("'plain'", json!("plain")),
    ];
    for (text, expected) in cases {
        assert_eq!(parse(text), Some(expected), "{text}");
    }
    for text in [
        "",
        "{",
        "{'a'}x",
        "{'a': }",
        "[1 2]",
        "'open",
        r"'\x4'",
        "open('x')",
        "nan",
        "{[]: 1}",
        "--1",
        &"[".repeat(10_000),
    ] {
        assert_eq!(parse(text), None, "{text:.40}");
    }
}

/// Writes a value as Python's `repr` would.
fn repr(value: &Value) -> String {
    match value {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => {
            let text = text.replace('\\', "\\\\").replace('\'', "\\'").replace('\n', "\\n").replace('\r', "\\r");
            format!("'{text}'")
        }
        Value::Array(values) => format!("[{}]", values.iter().map(repr).collect::<Vec<_>>().join(", ")),
        Value::Object(fields) => {
            let field = |(key, value): (&String, &Value)| format!("{}: {}", repr(&json!(key)), repr(value));
            format!("{{{}}}", fields.iter().map(field).collect::<Vec<_>>().join(", "))
        }
    }
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(|n| json!(n)),
        any::<String>().prop_map(Value::String),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::btree_map(any::<String>(), inner, 0..4)
                .prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn python_literals_round_trip(value in value()) {
        prop_assert_eq!(parse(&repr(&value)), Some(value));
    }

    #[test]
    fn no_text_makes_the_parsers_panic(text in "[\\[\\](){}'\"\\\\uxUN0-9a-f,: .é😀-]{0,60}") {
        let _ = parse(&text);
        let _ = split(&text);
        let _ = display_title(&text);
    }
}
