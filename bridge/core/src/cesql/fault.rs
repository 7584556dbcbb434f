//! What is wrong, or doubtful, about the text of an expression, and where.
//!
//! Must never quote more of the text than the word at fault.

use std::fmt;

use super::EXPRESSION_BYTES_MAX;

/// A place in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// In bytes from the start.
    pub offset: usize,
    /// From 1.
    pub line: usize,
    /// In characters of the line, from 1.
    pub column: usize,
}

impl Place {
    /// The place so many bytes into a text.
    pub fn of(text: &str, offset: usize) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let column = before.get(line_start..).unwrap_or_default().chars().count() + 1;
        Self { offset, line: before.matches('\n').count() + 1, column }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "line {}, column {}", self.line, self.column)
    }
}

/// Why a text is no expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {detail}")]
pub struct ParseError {
    /// Where.
    pub place: Place,
    /// What was expected, or what is wrong.
    pub detail: String,
}

/// What is allowed and probably not meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// Where.
    pub place: Place,
    /// What it means, and what would be clearer.
    pub detail: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.place, self.detail)
    }
}

/// A fault on its way out of the parser, which has no text at hand everywhere.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) at: usize,
    pub(super) detail: String,
}

impl Refusal {
    pub(super) fn new(at: usize, detail: impl Into<String>) -> Self {
        Self { at, detail: detail.into() }
    }

    pub(super) fn in_text(self, text: &str) -> ParseError {
        // Of a text that is far too long, only its length is worth a look.
        let place = if text.len() > EXPRESSION_BYTES_MAX { Place { offset: 0, line: 1, column: 1 } } else { Place::of(text, self.at) };
        ParseError { place, detail: self.detail }
    }
}
