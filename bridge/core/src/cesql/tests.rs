//! The rules of CloudEvents SQL, one row each.

use serde_json::{Map, json};

use super::*;
use ErrorKind::{Cast, FunctionEvaluation, Math, MissingAttribute, MissingFunction};

fn event() -> Map<String, serde_json::Value> {
    let event = json!({
        "specversion": "1.0", "id": "e1", "source": "/klinikk/7", "type": "no.example.maaling.registrert.v1",
        "hop": "3", "limit": 10, "urgent": true, "navn": "Åse Øye", "data": {"a": 1}, "nothing": null,
    });
    event.as_object().unwrap().clone()
}

/// The value as JSON and the kinds of errors.
fn asked(text: &str) -> (serde_json::Value, Vec<ErrorKind>) {
    let event = event();
    let attributes = JsonAttributes(&event);
    let expression = Expression::parse(text).unwrap_or_else(|why| panic!("{text}: {why}"));
    let found = expression.evaluate(&attributes);
    let errors: Vec<ErrorKind> = found.errors.iter().map(|error| error.kind).collect();
    match expression.matches(&attributes) {
        Ok(passes) => assert_eq!((passes, errors.is_empty()), (found.passes(), true), "{text}"),
        Err(kind) => assert_eq!(errors.first(), Some(&kind), "{text}"),
    }
    (found.value.to_json(), errors)
}

fn check(rows: impl IntoIterator<Item = (&'static str, serde_json::Value, Vec<ErrorKind>)>) {
    for (text, value, errors) in rows {
        assert_eq!(asked(text), (value, errors), "{text}");
    }
}

#[test]
fn the_examples_of_the_reference() {
    check([
        ("type LIKE 'no.example.%' AND urgent", json!(true), vec![]),
        ("hop + 1 < limit", json!(true), vec![]),
        ("hop = 3", json!(true), vec![]),
        ("3 = hop", json!(true), vec![]),
        ("'03' = 3", json!(true), vec![]),
        ("3 = '03'", json!(false), vec![]),
        ("EXISTS subject OR source IN ('/a', '/klinikk/7')", json!(true), vec![]),
        ("subject = 'p1' OR urgent", json!(true), vec![MissingAttribute]),
        ("urgent OR subject = 'p1'", json!(true), vec![]),
        ("limit IN ('9', '10')", json!(true), vec![]),
        ("limit IN ('ti', 10)", json!(true), vec![Cast]),
        ("SUBSTRING(source, -1)", json!("7"), vec![]),
        ("LEFT(id, -2)", json!("e1"), vec![FunctionEvaluation]),
        ("CONCAT_WS('/', hop, limit, urgent)", json!("3/10/true"), vec![]),
        ("NAVN(id)", json!(false), vec![MissingFunction]),
        ("source > 5", json!(false), vec![Cast]),
    ]);
}

#[test]
fn words_and_literals() {
    check([
        ("TRUE", json!(true), vec![]),
        ("fAlSe", json!(false), vec![]),
        ("not true", json!(false), vec![]),
        ("ID", json!("e1"), vec![]),
        ("007", json!(7), vec![]),
        ("+7", json!(7), vec![]),
        ("-2147483648", json!(i32::MIN), vec![]),
        ("--7", json!(7), vec![]),
        ("limit - -1", json!(11), vec![]),
        (r"'a\n'", json!(r"a\n"), vec![]),
        (r"LENGTH('a\n')", json!(3), vec![]),
        (r"'it\'s'", json!("it's"), vec![]),
        (r#""it's""#, json!("it's"), vec![]),
        (r#""a\"b""#, json!("a\"b"), vec![]),
        (r#"'a\"b'"#, json!(r#"a\"b"#), vec![]),
        ("'it''s'", json!("it''s"), vec![]),
        ("'a\nb'", json!("a\nb"), vec![]),
        ("''", json!(""), vec![]),
        (" \t\r\n urgent \n", json!(true), vec![]),
        ("data", json!(false), vec![MissingAttribute]),
        ("EXISTS nothing", json!(false), vec![]),
        ("7up", json!(false), vec![MissingAttribute]),
    ]);
}

#[test]
fn precedence_and_association() {
    check([
        ("NOT urgent = false", json!(true), vec![]),
        ("2 + 3 * 4", json!(14), vec![]),
        ("(2 + 3) * 4", json!(20), vec![]),
        ("9 - 4 - 2", json!(3), vec![]),
        ("100 / 5 / 2", json!(10), vec![]),
        ("- limit * 2", json!(-20), vec![]),
        ("1 < 2 = true", json!(true), vec![]),
        ("true OR false AND false", json!(true), vec![]),
        ("false AND false OR true", json!(false), vec![]),
        ("true XOR true XOR true", json!(true), vec![]),
        ("limit + hop LIKE '3%'", json!(11), vec![]),
        ("limit + 1 IN (1, 11)", json!(11), vec![]),
        ("limit * hop IN (3)", json!(10), vec![]),
        ("NOT EXISTS subject AND urgent", json!(true), vec![]),
        ("id LIKE 'e%' IN (true)", json!(true), vec![]),
        ("id IN ('e1') LIKE 'true'", json!(true), vec![]),
        ("NOT id IN ('true')", json!(false), vec![Cast]),
        ("NOT - 0", json!(true), vec![]),
        ("- NOT false", json!(-1), vec![]),
    ]);
}

#[test]
fn casts() {
    check([
        ("5 = '05'", json!(false), vec![]),
        ("'05' = 5", json!(true), vec![]),
        ("TRUE = 'TRUE'", json!(false), vec![]),
        ("'TRUE' = TRUE", json!(true), vec![]),
        ("'x' = 0", json!(false), vec![Cast]),
        ("'x' != 0", json!(false), vec![Cast]),
        ("'x' + 1", json!(0), vec![Cast]),
        ("NOT 'x'", json!(false), vec![Cast]),
        ("NOT 0", json!(true), vec![]),
        ("NOT 17", json!(false), vec![]),
        ("true + true", json!(2), vec![]),
        ("'+7' + 0", json!(7), vec![]),
        ("'-7' + 0", json!(-7), vec![]),
        ("'' + 0", json!(0), vec![Cast]),
        ("'+' + 0", json!(0), vec![Cast]),
        ("' 1' + 0", json!(0), vec![Cast]),
        ("'1.0' + 0", json!(0), vec![Cast]),
        ("'2147483648' + 0", json!(0), vec![Cast]),
        ("'007' + 0", json!(7), vec![]),
        ("INT('x')", json!(0), vec![Cast]),
        ("INT(true)", json!(1), vec![]),
        ("BOOL('FALSE')", json!(false), vec![]),
        ("BOOL('nei')", json!(false), vec![Cast]),
        ("STRING(-5)", json!("-5"), vec![]),
        ("IS_INT('5') AND NOT IS_INT('x') AND IS_BOOL('True') AND NOT IS_BOOL('ja') AND IS_BOOL(2)", json!(true), vec![]),
        ("1 IN (true)", json!(true), vec![]),
        ("'a' IN (1, 'b', 'a')", json!(true), vec![]),
        ("5 NOT IN ('x', 6)", json!(true), vec![Cast]),
    ]);
}

#[test]
fn absent_attributes() {
    for (text, value) in [
        ("m", json!(false)),
        ("(m)", json!(false)),
        ("m = ''", json!(false)),
        ("m != ''", json!(false)),
        ("'' <> m", json!(false)),
        ("NOT m", json!(false)),
        ("- m", json!(0)),
        ("m + 1", json!(0)),
        ("7 % m", json!(0)),
        ("UPPER(m)", json!("")),
        ("LENGTH(m)", json!(0)),
        ("INT(m)", json!(0)),
        ("IS_INT(m)", json!(false)),
        ("CONCAT('a', m)", json!("")),
        ("m LIKE '%'", json!(false)),
        ("m NOT LIKE 'x'", json!(false)),
        ("m IN ('')", json!(false)),
        ("m NOT IN ('x')", json!(false)),
        ("id IN (m, 'e1')", json!(false)),
        ("id NOT IN ('x', m)", json!(false)),
        ("m < 1", json!(false)),
        ("(m + 1) * 2 = 0", json!(true)),
        ("m OR true", json!(false)),
        ("true AND m", json!(false)),
        ("m XOR true", json!(false)),
        ("true XOR m", json!(false)),
    ] {
        assert_eq!(asked(text), (value, vec![MissingAttribute]), "{text}");
    }
    check([("EXISTS m", json!(false), vec![]), ("EXISTS id", json!(true), vec![]), ("id IN ('e1', m)", json!(true), vec![])]);
}

#[test]
fn arithmetic_and_its_errors() {
    check([
        ("-7 / 2", json!(-3), vec![]),
        ("-7 % 2", json!(-1), vec![]),
        ("7 % -2", json!(1), vec![]),
        ("7 / 0", json!(0), vec![Math]),
        ("7 % 0", json!(0), vec![Math]),
        ("2147483647 + 1", json!(0), vec![Math]),
        ("-2147483648 - 1", json!(0), vec![Math]),
        ("65536 * 65536", json!(0), vec![Math]),
        ("- -2147483648", json!(0), vec![Math]),
        ("-2147483648 / -1", json!(0), vec![Math]),
        ("-2147483648 % -1", json!(0), vec![]),
        ("ABS(-2147483648)", json!(i32::MAX), vec![Math]),
        ("ABS(-5)", json!(5), vec![]),
        ("(7 / 0) + 1", json!(1), vec![Math]),
        ("7 / 0 + 'x'", json!(0), vec![Math, Cast]),
    ]);
}

#[test]
fn short_circuits() {
    check([
        ("false AND 1 / 0 = 0", json!(false), vec![]),
        ("true OR 1 / 0 = 0", json!(true), vec![]),
        ("true XOR 1 / 0 = 0", json!(false), vec![Math]),
        ("'maybe' AND m", json!(false), vec![Cast]),
        ("'maybe' OR true", json!(true), vec![Cast]),
        ("'maybe' XOR true", json!(false), vec![Cast]),
        ("1 / 0 = 0 AND true", json!(true), vec![Math]),
        ("'' AND m", json!(false), vec![Cast]),
        ("NAVN(1 / 0, m)", json!(false), vec![MissingFunction]),
    ]);
}

#[test]
fn like() {
    check([
        ("'abc' LIKE 'abc'", json!(true), vec![]),
        ("'abc' LIKE 'ABC'", json!(false), vec![]),
        ("'abc' LIKE 'ab'", json!(false), vec![]),
        ("'abc' LIKE '%'", json!(true), vec![]),
        ("'' LIKE '%'", json!(true), vec![]),
        ("'' LIKE ''", json!(true), vec![]),
        ("'a' LIKE ''", json!(false), vec![]),
        ("'' LIKE '_'", json!(false), vec![]),
        ("'abc' LIKE 'a%'", json!(true), vec![]),
        ("'abc' LIKE '%c'", json!(true), vec![]),
        ("'abc' LIKE '%b%'", json!(true), vec![]),
        ("'abc' LIKE 'a_c'", json!(true), vec![]),
        ("'aØc' LIKE 'a_c'", json!(true), vec![]),
        ("'abcabd' LIKE '%ab_'", json!(true), vec![]),
        ("'abcabdx' LIKE '%ab_'", json!(false), vec![]),
        ("'aXbXc' LIKE 'a%b%c'", json!(true), vec![]),
        ("'ac' LIKE 'a%%c'", json!(true), vec![]),
        ("'a\nc' LIKE 'a%c'", json!(true), vec![]),
        (r"'100%' LIKE '100\%'", json!(true), vec![]),
        (r"'100x' LIKE '100\%'", json!(false), vec![]),
        (r"'a_b' LIKE 'a\_b'", json!(true), vec![]),
        (r"'axb' LIKE 'a\_b'", json!(false), vec![]),
        (r"'a\n' LIKE 'a\n'", json!(true), vec![]),
        (r"'it\'s' LIKE 'it\'_'", json!(true), vec![]),
        ("'a*b.c[' LIKE 'a*b.c['", json!(true), vec![]),
        ("'ab' NOT LIKE 'a_'", json!(false), vec![]),
        ("limit LIKE '1_'", json!(true), vec![]),
        ("urgent LIKE 'tr%'", json!(true), vec![]),
    ]);
}

#[test]
fn functions() {
    check([
        ("LENGTH(navn)", json!(7), vec![]),
        ("length(12345)", json!(5), vec![]),
        ("CONCAT()", json!(""), vec![]),
        ("CONCAT('a', 1, true)", json!("a1true"), vec![]),
        ("CONCAT_WS()", json!(false), vec![MissingFunction]),
        ("CONCAT_WS('-')", json!(""), vec![]),
        ("CONCAT_WS('-', 'a')", json!("a"), vec![]),
        ("LOWER(navn)", json!("åse øye"), vec![]),
        ("UPPER (navn)", json!("ÅSE ØYE"), vec![]),
        ("TRIM('\u{a0} a b\t\n')", json!("a b"), vec![]),
        ("TRIM('  ')", json!(""), vec![]),
        ("LEFT(navn, 3)", json!("Åse"), vec![]),
        ("LEFT(navn, 0)", json!(""), vec![]),
        ("LEFT(navn, 99)", json!("Åse Øye"), vec![]),
        ("RIGHT(navn, 3)", json!("Øye"), vec![]),
        ("RIGHT(navn, 0)", json!(""), vec![]),
        ("RIGHT(navn, 99)", json!("Åse Øye"), vec![]),
        ("RIGHT(navn, -1)", json!("Åse Øye"), vec![FunctionEvaluation]),
        ("LEFT('abc', 'x')", json!(""), vec![Cast]),
        ("SUBSTRING(navn, 5)", json!("Øye"), vec![]),
        ("SUBSTRING(navn, 7)", json!("e"), vec![]),
        ("SUBSTRING(navn, 8)", json!(""), vec![FunctionEvaluation]),
        ("SUBSTRING(navn, -7)", json!("Åse Øye"), vec![]),
        ("SUBSTRING(navn, -8)", json!(""), vec![FunctionEvaluation]),
        ("SUBSTRING(navn, 0)", json!(""), vec![]),
        ("SUBSTRING(navn, 0, -1)", json!(""), vec![]),
        ("SUBSTRING(navn, -3, 2)", json!("Øy"), vec![]),
        ("SUBSTRING(navn, 5, 99)", json!("Øye"), vec![]),
        ("SUBSTRING(navn, 5, 0)", json!(""), vec![]),
        ("SUBSTRING(navn, 5, -1)", json!(""), vec![FunctionEvaluation]),
        ("SUBSTRING('', 1)", json!(""), vec![FunctionEvaluation]),
        ("SUBSTRING(navn)", json!(false), vec![MissingFunction]),
    ]);
}

#[test]
fn what_is_no_expression_is_refused_at_its_place() {
    for (text, column, expected) in [
        ("", 1, "expected an attribute"),
        ("type LIKE id", 11, "expected a pattern in quotes"),
        ("a -1", 3, "expected an operator or the end, found -1"),
        ("3-2", 2, "found -2"),
        ("+ 7", 1, "found +"),
        ("+x", 1, "found +"),
        ("- 2147483648", 3, "between -2147483648 and 2147483647"),
        ("2147483648", 1, "between"),
        ("a IN ()", 7, "expected an attribute"),
        ("a IN 1", 6, "expected ( and"),
        ("a NOT = 1", 7, "expected LIKE or IN after NOT, found ="),
        ("EXISTS (a)", 8, "the name of an attribute"),
        ("EXISTS 7", 8, "the name of an attribute"),
        ("EXISTS like", 8, "found LIKE"),
        ("'abc", 1, "expected a closing '"),
        (r"'abc\'", 1, "expected a closing '"),
        ("a = ", 5, "found the end"),
        ("(a", 3, "expected an operator or ), found the end"),
        ("LENGTH(a", 9, "another argument or )"),
        ("LENGTH(a,)", 10, "expected an attribute"),
        ("a b", 3, "found b"),
        ("a_b = 1", 5, "expected ( after the name of a function"),
        ("abc1(a)", 1, "the name of a function"),
        ("a ! b", 3, "the character !"),
        ("a = 'ø' AND æ", 13, "the character"),
        ("a.b", 2, "the character ."),
    ] {
        let fault = Expression::parse(text).unwrap_err();
        assert_eq!((fault.place.line, fault.place.column), (1, column), "{text}: {fault}");
        assert!(fault.detail.contains(expected), "{text}: {fault}");
    }
    let fault = Expression::parse("a = 'æ\nø' AND\n  x y").unwrap_err();
    assert_eq!(fault.place, Place { offset: 20, line: 3, column: 5 });
}

#[test]
fn limits_hold() {
    let nested = |levels: usize| format!("{}a{}", "(".repeat(levels), ")".repeat(levels));
    let in_a_row = |operators: usize, operator: &str| format!("a{}", format!(" {operator} a").repeat(operators));
    let list = |elements: usize| format!("a IN ({})", vec!["1"; elements].join(","));
    for (fits, exceeds) in [
        (nested(NESTING_MAX), nested(NESTING_MAX + 1)),
        (in_a_row(NESTING_MAX - 1, "OR"), in_a_row(NESTING_MAX, "OR")),
        (in_a_row(NESTING_MAX - 1, "+"), in_a_row(NESTING_MAX, "+")),
        ("NOT ".repeat(NESTING_MAX - 1) + "a", "NOT ".repeat(NESTING_MAX) + "a"),
        (list(LIST_MAX), list(LIST_MAX + 1)),
        (format!("{:EXPRESSION_BYTES_MAX$}", "a"), format!("{:1$}", "a", EXPRESSION_BYTES_MAX + 1)),
    ] {
        Expression::parse(&fits).unwrap();
        Expression::parse(&exceeds).unwrap_err();
    }
}

#[test]
fn doubtful_texts_are_warned_of() {
    for (text, expected) in [
        ("a AND b AND c", None),
        ("a AND (b OR c)", None),
        ("a AND b OR c", Some((9, "same precedence"))),
        ("a OR NAVN(b)", Some((6, "no function NAVN"))),
        ("a = 'it''s'", Some((5, "two characters"))),
        (r"a = 'it\''", None),
        ("a = ''", None),
    ] {
        let expression = Expression::parse(text).unwrap();
        let found: Vec<(usize, &str)> =
            expression.warnings().iter().map(|warning| (warning.place.column, warning.detail.as_str())).collect();
        match expected {
            None => assert_eq!(found, [], "{text}"),
            Some((column, part)) => assert!(found.len() == 1 && found[0].0 == column && found[0].1.contains(part), "{text}: {found:?}"),
        }
    }
}

#[test]
fn a_record_shows_what_its_receivers_get() {
    use ryggrad_schemas::LogRecord;
    let headers = [
        ("ce_id", "a"),
        ("ce_id", "b"),
        ("ce_subject", ""),
        ("ce_kommune", ""),
        ("ce_data", "x"),
        ("ce_deliverynumber", "1"),
        ("content-type", "application/avro"),
        ("other", "x"),
    ];
    let value = Some(Vec::new());
    let event = LogRecord {
        topic: "t".to_owned(),
        partition: 0,
        offset: 0,
        timestamp_ms: 0,
        key: None,
        value,
        headers: headers.into_iter().collect(),
    };
    let tombstone = LogRecord { value: None, ..event.clone() };
    let attributes = RecordAttributes(&event);
    for (name, expected) in [
        ("id", Some("b")),
        ("subject", None),
        ("kommune", Some("")),
        ("data", None),
        ("deliverynumber", None),
        ("other", None),
        ("type", None),
        ("datacontenttype", Some("application/json")),
    ] {
        assert_eq!(attributes.text(name), expected, "{name}");
    }
    assert_eq!(RecordAttributes(&tombstone).text("datacontenttype"), None);
}

#[test]
fn an_error_says_where_and_about_what() {
    let event = event();
    let expression = Expression::parse("urgent AND\n subject = 'x'").unwrap();
    let attributes = JsonAttributes(&event);
    let found = expression.evaluate(&attributes);
    assert_eq!(
        found.errors,
        [EvaluationError { kind: MissingAttribute, place: Place { offset: 12, line: 2, column: 2 }, name: "subject".to_owned() }]
    );
}
