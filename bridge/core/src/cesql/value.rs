//! The language's three types and what becomes of one where another is wanted.
//!
//! Must never trim, round or guess: what is not written as an Integer or a Boolean is none.

use std::borrow::Cow;
use std::fmt;

use serde_json::json;

/// A type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// 32 bits with a sign.
    Integer,
    /// True or false.
    Boolean,
    /// Unicode text.
    String,
}

impl fmt::Display for Type {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Integer => "Integer",
            Self::Boolean => "Boolean",
            Self::String => "String",
        })
    }
}

impl Type {
    /// What stands for a value that could not be had.
    pub(super) const fn zero(self) -> Value<'static> {
        match self {
            Self::Integer => Value::Integer(0),
            Self::Boolean => Value::Boolean(false),
            Self::String => Value::String(Cow::Borrowed("")),
        }
    }
}

/// A value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value<'a> {
    /// 32 bits with a sign.
    Integer(i32),
    /// True or false.
    Boolean(bool),
    /// Unicode text.
    String(Cow<'a, str>),
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::String(Cow::Borrowed(text))
    }
}

impl<'a> Value<'a> {
    /// Its type.
    pub const fn type_of(&self) -> Type {
        match self {
            Self::Integer(_) => Type::Integer,
            Self::Boolean(_) => Type::Boolean,
            Self::String(_) => Type::String,
        }
    }

    /// In JSON.
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Integer(integer) => json!(integer),
            Self::Boolean(boolean) => json!(boolean),
            Self::String(text) => json!(text),
        }
    }

    /// The same without looking into its text's owner.
    pub(super) fn borrowed(&'a self) -> Self {
        match self {
            Self::Integer(integer) => Self::Integer(*integer),
            Self::Boolean(boolean) => Self::Boolean(*boolean),
            Self::String(text) => Self::String(Cow::Borrowed(text)),
        }
    }

    pub(super) fn into_owned(self) -> Value<'static> {
        match self {
            Self::Integer(integer) => Value::Integer(integer),
            Self::Boolean(boolean) => Value::Boolean(boolean),
            Self::String(text) => Value::String(Cow::Owned(text.into_owned())),
        }
    }

    /// As an Integer, if it can be one.
    pub(super) fn to_integer(&self) -> Option<i32> {
        match self {
            Self::Integer(integer) => Some(*integer),
            Self::Boolean(boolean) => Some(i32::from(*boolean)),
            // A sign at most, then ASCII digits: the language's own rule.
            Self::String(text) => text.parse().ok(),
        }
    }

    /// As a Boolean, if it can be one.
    pub(super) fn to_boolean(&self) -> Option<bool> {
        match self {
            Self::Integer(integer) => Some(*integer != 0),
            Self::Boolean(boolean) => Some(*boolean),
            Self::String(text) if text.eq_ignore_ascii_case("true") => Some(true),
            Self::String(text) if text.eq_ignore_ascii_case("false") => Some(false),
            Self::String(_) => None,
        }
    }

    /// As a String, which everything can be.
    pub fn into_text(self) -> Cow<'a, str> {
        match self {
            Self::Integer(integer) => Cow::Owned(integer.to_string()),
            Self::Boolean(boolean) => Cow::Borrowed(if boolean { "true" } else { "false" }),
            Self::String(text) => text,
        }
    }

    /// Whether this and a value of the wanted type are equal; `None` if this cannot be cast to it.
    pub(super) fn equals(self, wanted: &Value<'_>) -> Option<bool> {
        match wanted {
            Value::Integer(integer) => self.to_integer().map(|own| own == *integer),
            Value::Boolean(boolean) => self.to_boolean().map(|own| own == *boolean),
            Value::String(text) => Some(self.into_text() == *text),
        }
    }
}
