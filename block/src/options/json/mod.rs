//! JSON text, with the extensions, limits and output style of the reference.

mod parse;
mod print;

pub use parse::{JsonError, JsonProblem, parse};
pub use print::{Document, compact, pretty, write_pretty};

/// Lists and objects inside one another, and parts of a dotted key: more are refused, so that
/// hostile text cannot exhaust the stack.
pub const MAX_DEPTH: usize = 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::value::{Dict, Value};
    use super::*;

    fn problem(text: &str) -> (usize, JsonProblem) {
        let error = parse(text).expect_err(text);
        (error.position, error.problem)
    }

    #[test]
    fn accepts_what_the_reference_accepts() {
        for (text, value) in [
            ("'q\\'\"'", "q'\"".into()),
            (r#""\/""#, "/".into()),
            (r#""\u00e9\ud83d\ude00\u0000""#, "é😀\0".into()),
            (" 1 ", 1i64.into()),
            ("-0", 0i64.into()),
            ("1e5", 1e5.into()),
            ("9223372036854775807", i64::MAX.into()),
            ("9223372036854775808", 9_223_372_036_854_775_808u64.into()),
            ("18446744073709551616", 18_446_744_073_709_551_616.0.into()),
            ("-9223372036854775809", (-9_223_372_036_854_775_809.0).into()),
            ("[]", Value::List(Vec::new())),
            ("\t[ true,false , null]\n", Value::List(vec![true.into(), false.into(), Value::Null])),
            ("{'a':{}}", Dict::from([("a", Dict::new())]).into()),
        ] {
            assert_eq!(parse(text), Ok(value), "{text}");
        }
    }

    #[test]
    fn refuses_what_the_reference_refuses() {
        use JsonProblem::*;
        for (text, error) in [
            ("", (0, End)),
            ("q", (0, ExpectedValue)),
            (r#""\x41""#, (1, BadEscape)),
            (r#"["\ud800"]"#, (2, BadEscape)),
            (r#""\udc00""#, (1, BadEscape)),
            (r#""\ud800\u0041""#, (1, BadEscape)),
            (r#""\u12"#, (5, End)),
            ("\"a\nb\"", (2, ControlCharacter)),
            ("01", (0, BadNumber)),
            ("1.", (0, BadNumber)),
            ("-", (0, BadNumber)),
            ("1e", (0, BadNumber)),
            (".5", (0, ExpectedValue)),
            ("+1", (0, ExpectedValue)),
            ("1e999", (0, NumberTooLarge)),
            ("[1,]", (3, ExpectedValue)),
            ("[1 2]", (3, ExpectedCommaOrEnd)),
            ("[1", (2, End)),
            ("{'a':1,}", (7, ExpectedKey)),
            ("{1:1}", (1, ExpectedKey)),
            ("{'a' 1}", (5, ExpectedColon)),
            ("{'a':1,'b':2,'a':3}", (13, DuplicateKey)),
            ("{} {}", (3, Trailing)),
            ("'abc", (4, End)),
        ] {
            assert_eq!(problem(text), error, "{text}");
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse(&nested(MAX_DEPTH)).is_ok());
        assert_eq!(problem(&nested(1_000_000)), (MAX_DEPTH, JsonProblem::TooDeep));
    }

    #[test]
    fn prints_one_line_in_reference_order() {
        let text = r#"{"b":1,"a":[1,2.5,1e300,0.1,-0.0,100000000000000000000,18446744073709551615],
            "driver":"x","file":{},"l":[],"s":"é\u0001\u001f\u007f\\\"\/\n\t\ud83d\ude00","n":null}"#;
        assert_eq!(
            compact(&parse(text).unwrap()),
            concat!(
                r#"{"n": null, "s": "\u00E9\u0001\u001F\u007F\\\"/\n\t\uD83D\uDE00", "#,
                r#""a": [1, 2.5, 1.0000000000000001e+300, 0.10000000000000001, -0, 1e+20, "#,
                r#"18446744073709551615], "driver": "x", "b": 1, "l": [], "file": {}}"#
            )
        );
    }

    #[test]
    fn prints_indented_as_info_does() {
        let text =
            "{'children':[{'name':'file','info':{'children':[],'data':{}}}],'dirty-flag':false}";
        assert_eq!(
            pretty(&parse(text).unwrap()),
            r#"{
    "children": [
        {
            "name": "file",
            "info": {
                "children": [
                ],
                "data": {
                }
            }
        }
    ],
    "dirty-flag": false
}"#
        );
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            // Whole floats print as integers, which is what they come back as.
            any::<f64>()
                .prop_filter("finite, not whole", |f| f.is_finite() && f.fract() != 0.0)
                .prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::List),
                prop::collection::vec((any::<String>(), inner), 0..6)
                    .prop_map(|entries| entries.into_iter().collect::<Dict>().into()),
            ]
        })
    }

    proptest! {
        #[test]
        fn printed_text_parses_back(value in any_value()) {
            prop_assert_eq!(parse(&compact(&value)), Ok(value.clone()));
            prop_assert_eq!(parse(&pretty(&value)), Ok(value));
        }

        #[test]
        fn any_text_is_handled(text in any::<String>()) {
            let _ = parse(&text);
        }

        #[test]
        fn json_like_text_is_handled(text in r#"[\[\]{}:,"'\\u0-9a-f.eE+\- tn]{0,40}"#) {
            let _ = parse(&text);
        }
    }
}
