//! What an expression can call: names, arguments and what each function does.
//!
//! Lengths and positions count characters (code points). `INT`, `BOOL`, `STRING`, `IS_INT` and
//! `IS_BOOL` are extensions that all known engines have. Must never fail without saying which
//! value stands for the result.

use std::borrow::Cow;

use super::evaluate::ErrorKind;
use super::value::{Type, Value};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    Length,
    Concat,
    ConcatWithSeparator,
    Lower,
    Upper,
    Trim,
    Left,
    Right,
    Substring,
    Absolute,
    Int,
    Bool,
    Text,
    IsInt,
    IsBool,
}

struct Definition {
    name: &'static str,
    function: Function,
    arguments_min: usize,
    arguments_max: usize,
    result: Type,
}

const fn define(name: &'static str, function: Function, arguments_min: usize, arguments_max: usize, result: Type) -> Definition {
    Definition { name, function, arguments_min, arguments_max, result }
}

const MANY: usize = usize::MAX;

const DEFINITIONS: [Definition; 15] = [
    define("length", Function::Length, 1, 1, Type::Integer),
    define("concat", Function::Concat, 0, MANY, Type::String),
    define("concat_ws", Function::ConcatWithSeparator, 1, MANY, Type::String),
    define("lower", Function::Lower, 1, 1, Type::String),
    define("upper", Function::Upper, 1, 1, Type::String),
    define("trim", Function::Trim, 1, 1, Type::String),
    define("left", Function::Left, 2, 2, Type::String),
    define("right", Function::Right, 2, 2, Type::String),
    define("substring", Function::Substring, 2, 3, Type::String),
    define("abs", Function::Absolute, 1, 1, Type::Integer),
    define("int", Function::Int, 1, 1, Type::Integer),
    define("bool", Function::Bool, 1, 1, Type::Boolean),
    define("string", Function::Text, 1, 1, Type::String),
    define("is_int", Function::IsInt, 1, 1, Type::Boolean),
    define("is_bool", Function::IsBool, 1, 1, Type::Boolean),
];

/// The function of this name, in any case, with so many arguments.
pub(super) fn find(name: &str, arguments: usize) -> Option<Function> {
    let fits =
        |known: &&Definition| known.name.eq_ignore_ascii_case(name) && (known.arguments_min..=known.arguments_max).contains(&arguments);
    DEFINITIONS.iter().find(fits).map(|known| known.function)
}

impl Function {
    /// Its name in messages.
    pub(super) fn name(self) -> &'static str {
        self.definition().map_or("", |known| known.name)
    }

    /// The type of what it returns.
    pub(super) fn result(self) -> Type {
        self.definition().map_or(Type::Boolean, |known| known.result)
    }

    fn definition(self) -> Option<&'static Definition> {
        DEFINITIONS.iter().find(|known| known.function == self)
    }

    /// The type that the argument at an index is cast to; `None` for any.
    pub(super) fn parameter(self, index: usize) -> Option<Type> {
        match self {
            Self::Int | Self::Bool | Self::Text | Self::IsInt | Self::IsBool => None,
            Self::Absolute => Some(Type::Integer),
            Self::Left | Self::Right | Self::Substring if index > 0 => Some(Type::Integer),
            _ => Some(Type::String),
        }
    }

    /// Calls it with arguments of the right number and types.
    pub(super) fn call<'e>(self, arguments: Vec<Value<'e>>) -> (Value<'e>, Option<ErrorKind>) {
        let mut arguments = arguments.into_iter();
        let first = arguments.next();
        match self {
            Self::Concat => (Value::String(joined(Cow::Borrowed(""), first.into_iter().chain(arguments))), None),
            _ => match first {
                Some(first) => self.call_with(first, arguments),
                // Nothing else is called without arguments.
                None => (self.result().zero(), Some(ErrorKind::MissingFunction)),
            },
        }
    }

    fn call_with<'e>(self, first: Value<'e>, mut others: std::vec::IntoIter<Value<'e>>) -> (Value<'e>, Option<ErrorKind>) {
        let mut number = || others.next().and_then(|value| value.to_integer());
        let value = match self {
            Self::Length => Value::Integer(i32::try_from(first.into_text().chars().count()).unwrap_or(i32::MAX)),
            Self::Concat => Value::String(first.into_text()),
            Self::ConcatWithSeparator => Value::String(joined(first.into_text(), others)),
            Self::Lower => Value::String(lower(first.into_text())),
            Self::Upper => Value::String(Cow::Owned(first.into_text().to_uppercase())),
            Self::Trim => Value::String(part(first.into_text(), |text| {
                let start = text.len() - text.trim_start().len();
                start..start + text.trim().len()
            })),
            Self::Left => return cut(first.into_text(), number().unwrap_or_default(), |text, count| 0..after(text, count)),
            Self::Right => return cut(first.into_text(), number().unwrap_or_default(), |text, count| before_end(text, count)..text.len()),
            Self::Substring => {
                let (position, length) = (number().unwrap_or_default(), number());
                return substring(first.into_text(), position, length);
            }
            Self::Absolute => {
                let number = first.to_integer().unwrap_or_default();
                return match number.checked_abs() {
                    Some(absolute) => (Value::Integer(absolute), None),
                    None => (Value::Integer(i32::MAX), Some(ErrorKind::Math)),
                };
            }
            Self::Int => return cast(first.to_integer().map(Value::Integer), Type::Integer),
            Self::Bool => return cast(first.to_boolean().map(Value::Boolean), Type::Boolean),
            Self::Text => Value::String(first.into_text()),
            Self::IsInt => Value::Boolean(first.to_integer().is_some()),
            Self::IsBool => Value::Boolean(first.to_boolean().is_some()),
        };
        (value, None)
    }
}

fn cast<'e>(value: Option<Value<'e>>, wanted: Type) -> (Value<'e>, Option<ErrorKind>) {
    match value {
        Some(value) => (value, None),
        None => (wanted.zero(), Some(ErrorKind::Cast)),
    }
}

fn joined<'e>(separator: Cow<'e, str>, mut values: impl Iterator<Item = Value<'e>>) -> Cow<'e, str> {
    let Some(first) = values.next() else { return Cow::Borrowed("") };
    let mut whole = first.into_text();
    for value in values {
        let text = whole.to_mut();
        text.push_str(&separator);
        text.push_str(&value.into_text());
    }
    whole
}

fn lower(text: Cow<'_, str>) -> Cow<'_, str> {
    let is_lower = text.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase());
    if is_lower { text } else { Cow::Owned(text.to_lowercase()) }
}

/// A part of a text, without copying what is only lent.
fn part(text: Cow<'_, str>, range: impl Fn(&str) -> std::ops::Range<usize>) -> Cow<'_, str> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.get(range(text)).unwrap_or_default()),
        Cow::Owned(text) => Cow::Owned(text.get(range(&text)).unwrap_or_default().to_owned()),
    }
}

/// `LEFT` and `RIGHT`: a negative count is an error, and leaves the text as it is.
fn cut<'e>(text: Cow<'e, str>, count: i32, range: impl Fn(&str, usize) -> std::ops::Range<usize>) -> (Value<'e>, Option<ErrorKind>) {
    match usize::try_from(count) {
        Ok(count) => (Value::String(part(text, |text| range(text, count))), None),
        Err(_) => (Value::String(text), Some(ErrorKind::FunctionEvaluation)),
    }
}

/// Where so many characters end; the whole text if it has fewer.
fn after(text: &str, count: usize) -> usize {
    text.char_indices().nth(count).map_or(text.len(), |(at, _)| at)
}

/// Where the last so many characters begin.
fn before_end(text: &str, count: usize) -> usize {
    match count.checked_sub(1) {
        None => text.len(),
        Some(last) => text.char_indices().nth_back(last).map_or(0, |(at, _)| at),
    }
}

fn substring(text: Cow<'_, str>, position: i32, length: Option<i32>) -> (Value<'_>, Option<ErrorKind>) {
    if position == 0 {
        return (Type::String.zero(), None);
    }
    let characters = text.chars().count();
    let distance = usize::try_from(position.unsigned_abs()).unwrap_or(usize::MAX);
    let length = length.map_or(Ok(usize::MAX), usize::try_from);
    let (Ok(length), true) = (length, distance <= characters) else {
        return (Type::String.zero(), Some(ErrorKind::FunctionEvaluation));
    };
    let found = part(text, |text| {
        let start = if position > 0 { after(text, distance - 1) } else { before_end(text, distance) };
        let rest = text.get(start..).unwrap_or_default();
        start..start + after(rest, length)
    });
    (Value::String(found), None)
}
