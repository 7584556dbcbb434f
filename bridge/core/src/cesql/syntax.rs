//! What a text becomes: a tree that is evaluated as it stands.
//!
//! Names are in lower case, patterns and functions are looked up, constants are worked out. Must
//! never be taller than the limit: whoever walks it goes down by recursion.

use super::functions::Function;
use super::like::Pattern;
use super::value::Value;

/// A part of an expression, and where it stands in the text.
#[derive(Debug, Clone)]
pub(super) struct Node {
    /// In bytes from the start; the text is short.
    pub(super) at: u32,
    /// Of the tree below it, itself included.
    pub(super) height: u32,
    pub(super) kind: Kind,
}

/// What a part is.
#[derive(Debug, Clone)]
pub(super) enum Kind {
    Literal(Value<'static>),
    Attribute(Box<str>),
    Exists(Box<str>),
    Not(Box<Node>),
    Negate(Box<Node>),
    Arithmetic(Arithmetic, Box<[Node; 2]>),
    Order(Order, Box<[Node; 2]>),
    Equal {
        negated: bool,
        sides: Box<[Node; 2]>,
    },
    Logic(Logic, Box<[Node; 2]>),
    Like {
        negated: bool,
        operand: Box<Node>,
        pattern: Pattern,
    },
    In {
        negated: bool,
        operand: Box<Node>,
        elements: Box<[Node]>,
    },
    Call(Function, Box<[Node]>),
    /// Nobody knows a function of this name with so many arguments; they are never looked at.
    UnknownCall(Box<str>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Logic {
    And,
    Or,
    Xor,
}

impl Node {
    pub(super) fn new(at: usize, kind: Kind) -> Self {
        let below = children(&kind).map(|child| child.height).max().unwrap_or_default();
        Self { at: u32::try_from(at).unwrap_or(u32::MAX), height: below + 1, kind }
    }

    /// Whether it always has the same value as far as its own kind goes: everything below is literal.
    pub(super) fn is_constant(&self) -> bool {
        let asks = matches!(self.kind, Kind::Attribute(_) | Kind::Exists(_) | Kind::UnknownCall(_) | Kind::Literal(_));
        !asks && children(&self.kind).all(|child| matches!(child.kind, Kind::Literal(_)))
    }
}

fn children(kind: &Kind) -> impl Iterator<Item = &Node> {
    let (one, many): (Option<&Node>, &[Node]) = match kind {
        Kind::Literal(_) | Kind::Attribute(_) | Kind::Exists(_) | Kind::UnknownCall(_) => (None, &[]),
        Kind::Not(operand) | Kind::Negate(operand) | Kind::Like { operand, .. } => (Some(operand), &[]),
        Kind::Arithmetic(_, sides) | Kind::Order(_, sides) | Kind::Equal { sides, .. } | Kind::Logic(_, sides) => (None, sides.as_slice()),
        Kind::In { operand, elements, .. } => (Some(operand), elements),
        Kind::Call(_, arguments) => (None, arguments),
    };
    one.into_iter().chain(many)
}
