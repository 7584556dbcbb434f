//! CloudEvents SQL 1.0: a question about one event's attributes, compiled once, asked of many.
//!
//! Cast: [`lexer`] and [`parser`] read the text, [`syntax`] is what it becomes, [`value`] and
//! [`like`] are the language's types and patterns, [`functions`] what it can call, [`evaluate`]
//! asks. Total: every text is refused or compiled, every expression has a value for every event.
//! Must never panic, never look into an event's data, and never take more time or stack than the
//! limits here allow, whoever wrote the text.

mod attributes;
mod evaluate;
mod fault;
mod functions;
mod lexer;
mod like;
mod parser;
mod syntax;
#[cfg(test)]
mod tests;
mod value;

pub use attributes::{Attributes, JsonAttributes, RecordAttributes};
pub use evaluate::{ErrorKind, Evaluation, EvaluationError};
pub use fault::{ParseError, Place, Warning};
pub use value::{Type, Value};

/// Longest expression, in bytes.
pub const EXPRESSION_BYTES_MAX: usize = 4_096;
/// Deepest nesting: of brackets, of operators, and of operators in a row, which nest as well.
pub const NESTING_MAX: usize = 128;
/// Most elements of an `IN`, and most arguments of a function.
pub const LIST_MAX: usize = 512;

/// A compiled expression.
#[derive(Debug, Clone)]
pub struct Expression {
    text: String,
    root: syntax::Node,
    warnings: Vec<Warning>,
}

impl Expression {
    /// Compiles a text.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let (root, warnings) = parser::parse(text)?;
        Ok(Self { text: text.to_owned(), root, warnings })
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What is allowed and probably not meant.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// Its value for an event, and everything that went wrong on the way.
    pub fn evaluate<'e>(&'e self, attributes: &'e dyn Attributes) -> Evaluation<'e> {
        evaluate::complete(&self.text, &self.root, attributes)
    }

    /// Whether an event passes: the value is Boolean true, and nothing went wrong. Ends at the
    /// first error, which it returns.
    pub fn matches(&self, attributes: &dyn Attributes) -> Result<bool, ErrorKind> {
        evaluate::passes(&self.root, attributes)
    }
}
