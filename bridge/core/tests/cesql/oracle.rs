//! CloudEvents SQL as the specification tells it, in the plainest way: a tree, walked.
//!
//! Shares no code with the product, and no thought about speed either.

use std::collections::BTreeMap;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Val {
    Int(i32),
    Bool(bool),
    Str(String),
}

impl Val {
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Int(_) => "Integer",
            Self::Bool(_) => "Boolean",
            Self::Str(_) => "String",
        }
    }
}

#[derive(Debug, Clone)]
pub enum Tree {
    Literal(Val),
    Attribute(String),
    Exists(String),
    Not(Box<Tree>),
    Minus(Box<Tree>),
    /// The operator as it is written, in capitals.
    Binary(&'static str, Box<Tree>, Box<Tree>),
    Like(bool, Box<Tree>, String),
    In(bool, Box<Tree>, Vec<Tree>),
    Call(String, Vec<Tree>),
}

/// What comes of it.
#[derive(Debug, Clone)]
pub struct Outcome {
    pub value: Val,
    pub error: bool,
    /// It is the bare name of an attribute that the event lacks.
    absent: bool,
}

type Attributes = BTreeMap<&'static str, Val>;

fn good(value: Val) -> Outcome {
    Outcome { value, error: false, absent: false }
}

fn bad(value: Val) -> Outcome {
    Outcome { value, error: true, absent: false }
}

fn with(value: Val, error: bool) -> Outcome {
    Outcome { value, error, absent: false }
}

fn no() -> Val {
    Val::Bool(false)
}

fn cast_to_int(value: &Val) -> Option<i32> {
    match value {
        Val::Int(integer) => Some(*integer),
        Val::Bool(boolean) => Some(if *boolean { 1 } else { 0 }),
        Val::Str(text) => {
            let (negative, digits) = match text.as_bytes() {
                [b'-', digits @ ..] => (true, digits),
                [b'+', digits @ ..] => (false, digits),
                digits => (false, digits),
            };
            if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
                return None;
            }
            let mut number: i64 = 0;
            for digit in digits {
                number = number * 10 + i64::from(digit - b'0');
                if number > 10_000_000_000 {
                    return None;
                }
            }
            i32::try_from(if negative { -number } else { number }).ok()
        }
    }
}

fn cast_to_bool(value: &Val) -> Option<bool> {
    match value {
        Val::Int(integer) => Some(*integer != 0),
        Val::Bool(boolean) => Some(*boolean),
        Val::Str(text) => match text.to_lowercase().as_str() {
            "true" => Some(true),
            "false" => Some(false),
            _ => None,
        },
    }
}

fn cast_to_str(value: &Val) -> String {
    match value {
        Val::Int(integer) => format!("{integer}"),
        Val::Bool(true) => "true".to_owned(),
        Val::Bool(false) => "false".to_owned(),
        Val::Str(text) => text.clone(),
    }
}

/// Whether `value`, cast to the type of `model`, equals it.
fn same(value: &Val, model: &Val) -> Option<bool> {
    match model {
        Val::Int(integer) => cast_to_int(value).map(|own| own == *integer),
        Val::Bool(boolean) => cast_to_bool(value).map(|own| own == *boolean),
        Val::Str(text) => Some(cast_to_str(value) == *text),
    }
}

pub fn evaluate(tree: &Tree, attributes: &Attributes) -> Outcome {
    match tree {
        Tree::Literal(value) => good(value.clone()),
        Tree::Attribute(name) => match attributes.get(name.to_lowercase().as_str()) {
            Some(value) => good(value.clone()),
            None => Outcome { value: no(), error: true, absent: true },
        },
        Tree::Exists(name) => good(Val::Bool(attributes.contains_key(name.to_lowercase().as_str()))),
        Tree::Not(operand) => {
            let operand = evaluate(operand, attributes);
            match cast_to_bool(&operand.value) {
                _ if operand.absent => bad(no()),
                None => bad(no()),
                Some(value) => with(Val::Bool(!value), operand.error),
            }
        }
        Tree::Minus(operand) => {
            let operand = evaluate(operand, attributes);
            match cast_to_int(&operand.value) {
                _ if operand.absent => bad(Val::Int(0)),
                None => bad(Val::Int(0)),
                Some(i32::MIN) => bad(Val::Int(0)),
                Some(number) => with(Val::Int(-number), operand.error),
            }
        }
        Tree::Binary(operator @ ("AND" | "OR" | "XOR"), left, right) => logic(operator, left, right, attributes),
        Tree::Binary(operator, left, right) => {
            let (left, right) = (evaluate(left, attributes), evaluate(right, attributes));
            binary(operator, &left, &right)
        }
        Tree::Like(negated, operand, pattern) => {
            let operand = evaluate(operand, attributes);
            if operand.absent {
                return bad(no());
            }
            let text: Vec<char> = cast_to_str(&operand.value).chars().collect();
            let pattern: Vec<char> = pattern.chars().collect();
            with(Val::Bool(like(&text, &pattern) != *negated), operand.error)
        }
        Tree::In(negated, operand, elements) => {
            let operand = evaluate(operand, attributes);
            if operand.absent {
                return bad(no());
            }
            let mut error = operand.error;
            for element in elements {
                let element = evaluate(element, attributes);
                if element.absent {
                    return bad(no());
                }
                error |= element.error;
                match same(&element.value, &operand.value) {
                    None => error = true,
                    Some(true) => return with(Val::Bool(!*negated), error),
                    Some(false) => {}
                }
            }
            with(Val::Bool(*negated), error)
        }
        Tree::Call(name, arguments) => call(&name.to_uppercase(), arguments, attributes),
    }
}

/// The left side first, and the right side only if it matters.
fn logic(operator: &str, left: &Tree, right: &Tree, attributes: &Attributes) -> Outcome {
    let left = evaluate(left, attributes);
    if left.absent {
        return bad(no());
    }
    let (own, error) = match cast_to_bool(&left.value) {
        Some(own) => (own, left.error),
        None if operator == "XOR" => return bad(no()),
        None => (false, true),
    };
    if operator == "AND" && !own {
        return with(no(), error);
    }
    if operator == "OR" && own {
        return with(Val::Bool(true), error);
    }
    let right = evaluate(right, attributes);
    match cast_to_bool(&right.value) {
        Some(other) if !right.absent => with(Val::Bool(if operator == "XOR" { own != other } else { other }), error || right.error),
        _ => bad(no()),
    }
}

fn binary(operator: &str, left: &Outcome, right: &Outcome) -> Outcome {
    let is_arithmetic = matches!(operator, "+" | "-" | "*" | "/" | "%");
    let zero = if is_arithmetic { Val::Int(0) } else { no() };
    if left.absent || right.absent {
        return bad(zero);
    }
    let error = left.error || right.error;
    if matches!(operator, "=" | "!=" | "<>") {
        return match same(&left.value, &right.value) {
            None => bad(zero),
            Some(equal) => with(Val::Bool(equal == (operator == "=")), error),
        };
    }
    let (Some(left), Some(right)) = (cast_to_int(&left.value), cast_to_int(&right.value)) else { return bad(zero) };
    let (left, right) = (i64::from(left), i64::from(right));
    if !is_arithmetic {
        let holds = match operator {
            "<" => left < right,
            "<=" => left <= right,
            ">" => left > right,
            _ => left >= right,
        };
        return with(Val::Bool(holds), error);
    }
    let result = match operator {
        "+" => left + right,
        "-" => left - right,
        "*" => left * right,
        _ if right == 0 => return bad(zero),
        "/" => left / right,
        _ => left % right,
    };
    match i32::try_from(result) {
        Ok(result) => with(Val::Int(result), error),
        Err(_) => bad(zero),
    }
}

fn like(text: &[char], pattern: &[char]) -> bool {
    match pattern {
        [] => text.is_empty(),
        ['%', rest @ ..] => (0..=text.len()).any(|taken| like(&text[taken..], rest)),
        ['_', rest @ ..] => !text.is_empty() && like(&text[1..], rest),
        ['\\', wanted @ ('%' | '_'), rest @ ..] => text.first() == Some(wanted) && like(&text[1..], rest),
        [wanted, rest @ ..] => text.first() == Some(wanted) && like(&text[1..], rest),
    }
}

fn call(name: &str, arguments: &[Tree], attributes: &Attributes) -> Outcome {
    // The parameters' types: s, i, or a for any; and the zero value of what is returned.
    let count = arguments.len();
    let (parameters, zero) = match (name, count) {
        ("LENGTH", 1) => ("s".to_owned(), Val::Int(0)),
        ("CONCAT", _) => ("s".repeat(count), Val::Str(String::new())),
        ("CONCAT_WS", 1..) => ("s".repeat(count), Val::Str(String::new())),
        ("LOWER" | "UPPER" | "TRIM", 1) => ("s".to_owned(), Val::Str(String::new())),
        ("LEFT" | "RIGHT" | "SUBSTRING", 2) => ("si".to_owned(), Val::Str(String::new())),
        ("SUBSTRING", 3) => ("sii".to_owned(), Val::Str(String::new())),
        ("ABS", 1) => ("i".to_owned(), Val::Int(0)),
        ("INT", 1) => ("a".to_owned(), Val::Int(0)),
        ("BOOL" | "IS_INT" | "IS_BOOL", 1) => ("a".to_owned(), no()),
        ("STRING", 1) => ("a".to_owned(), Val::Str(String::new())),
        _ => return bad(no()),
    };
    let (mut error, mut hopeless) = (false, false);
    let mut values = Vec::new();
    for (argument, parameter) in arguments.iter().zip(parameters.chars()) {
        let outcome = evaluate(argument, attributes);
        error |= outcome.error;
        hopeless |= outcome.absent;
        values.push(match parameter {
            's' => Val::Str(cast_to_str(&outcome.value)),
            'i' => cast_to_int(&outcome.value).map_or_else(
                || {
                    hopeless = true;
                    Val::Int(0)
                },
                Val::Int,
            ),
            _ => outcome.value,
        });
    }
    if hopeless {
        return bad(zero);
    }
    let outcome = apply(name, &values);
    with(outcome.value, error || outcome.error)
}

fn apply(name: &str, values: &[Val]) -> Outcome {
    let text = |index: usize| values.get(index).map(cast_to_str).unwrap_or_default();
    let letters = || text(0).chars().collect::<Vec<char>>();
    let number = |index: usize| values.get(index).and_then(cast_to_int).unwrap_or_default();
    let string = |letters: &[char]| Val::Str(letters.iter().collect());
    match name {
        "LENGTH" => good(Val::Int(letters().len() as i32)),
        "CONCAT" => good(Val::Str(values.iter().map(cast_to_str).collect())),
        "CONCAT_WS" => good(Val::Str(values[1..].iter().map(cast_to_str).collect::<Vec<_>>().join(&text(0)))),
        "LOWER" => good(Val::Str(text(0).to_lowercase())),
        "UPPER" => good(Val::Str(text(0).to_uppercase())),
        "TRIM" => {
            let mut letters = letters();
            while letters.last().is_some_and(|letter| letter.is_whitespace()) {
                letters.pop();
            }
            while letters.first().is_some_and(|letter| letter.is_whitespace()) {
                letters.remove(0);
            }
            good(string(&letters))
        }
        "LEFT" | "RIGHT" => {
            let (letters, count) = (letters(), i64::from(number(1)));
            if count < 0 {
                return bad(string(&letters));
            }
            let count = count.min(letters.len() as i64) as usize;
            good(string(if name == "LEFT" { &letters[..count] } else { &letters[letters.len() - count..] }))
        }
        "SUBSTRING" => {
            let (letters, position) = (letters(), i64::from(number(1)));
            let length = letters.len() as i64;
            if position == 0 {
                return good(Val::Str(String::new()));
            }
            let asked = if values.len() == 3 { i64::from(number(2)) } else { length };
            if position > length || position < -length || asked < 0 {
                return bad(Val::Str(String::new()));
            }
            let start = if position > 0 { position - 1 } else { length + position };
            good(string(&letters[start as usize..(start + asked).min(length) as usize]))
        }
        "ABS" if number(0) == i32::MIN => bad(Val::Int(i32::MAX)),
        "ABS" => good(Val::Int(number(0).abs())),
        "INT" => cast_to_int(&values[0]).map_or_else(|| bad(Val::Int(0)), |number| good(Val::Int(number))),
        "BOOL" => cast_to_bool(&values[0]).map_or_else(|| bad(no()), |value| good(Val::Bool(value))),
        "STRING" => good(Val::Str(text(0))),
        "IS_INT" => good(Val::Bool(cast_to_int(&values[0]).is_some())),
        _ => good(Val::Bool(cast_to_bool(&values[0]).is_some())),
    }
}
