//! Asks an expression about an event.
//!
//! Two modes, one walk: the complete one goes on after an error and returns the value with all of
//! them; the other ends at the first. An absent attribute, or one that cannot be cast, makes the
//! operation that it stands in return its type's zero value. Must never allocate where no text is
//! made or changed, and never compute what short circuits leave out.

use std::fmt;

use super::fault::Place;
use super::syntax::{Arithmetic, Kind, Logic, Node, Order};
use super::value::{Type, Value};
use super::{Attributes, functions::Function};

/// What went wrong for an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ErrorKind {
    /// Division by zero, or a result out of range.
    Math,
    /// A value that cannot be of the type that is wanted.
    Cast,
    /// An attribute that the event does not have.
    MissingAttribute,
    /// A function that nobody knows.
    MissingFunction,
    /// A function that cannot work with its arguments.
    FunctionEvaluation,
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Math => "MathError",
            Self::Cast => "CastError",
            Self::MissingAttribute => "MissingAttributeError",
            Self::MissingFunction => "MissingFunctionError",
            Self::FunctionEvaluation => "FunctionEvaluationError",
        })
    }
}

/// An error and where in the expression it arose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EvaluationError {
    /// What went wrong.
    pub kind: ErrorKind,
    /// Where.
    pub place: Place,
    /// The attribute, function, operator or wanted type that it concerns.
    pub name: String,
}

/// What an expression says of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evaluation<'e> {
    /// Its value, in spite of errors.
    pub value: Value<'e>,
    /// In the order in which they arose.
    pub errors: Vec<EvaluationError>,
}

impl Evaluation<'_> {
    /// Whether the event passes a filter.
    pub fn passes(&self) -> bool {
        self.value == Value::Boolean(true) && self.errors.is_empty()
    }
}

pub(super) fn complete<'e>(text: &str, root: &'e Node, attributes: &'e dyn Attributes) -> Evaluation<'e> {
    let mut run = Run { attributes, errors: Some(Vec::new()) };
    // Nothing ends a complete run early.
    let value = run.value(root).unwrap_or_else(|_| Type::Boolean.zero());
    let errors = run.errors.unwrap_or_default().into_iter();
    let errors = errors.map(|noted| EvaluationError { kind: noted.kind, place: Place::of(text, noted.at), name: noted.name.to_owned() });
    Evaluation { value, errors: errors.collect() }
}

pub(super) fn passes(root: &Node, attributes: &dyn Attributes) -> Result<bool, ErrorKind> {
    let mut run = Run { attributes, errors: None };
    run.value(root).map(|value| value == Value::Boolean(true))
}

/// The value of a node whose operands are all literals, unless it is an error: that arises for
/// every event anew.
pub(super) fn constant(node: &Node) -> Option<Value<'static>> {
    struct Nothing;
    impl Attributes for Nothing {
        fn attribute(&self, _: &str) -> Option<Value<'_>> {
            None
        }
    }
    if !node.is_constant() {
        return None;
    }
    let mut run = Run { attributes: &Nothing, errors: None };
    run.value(node).ok().map(Value::into_owned)
}

struct Noted<'e> {
    kind: ErrorKind,
    at: usize,
    name: &'e str,
}

struct Run<'e> {
    attributes: &'e dyn Attributes,
    /// `None` if the first one ends it.
    errors: Option<Vec<Noted<'e>>>,
}

/// A step ends early only where the first error ends the run.
type Step<T> = Result<T, ErrorKind>;

impl<'e> Run<'e> {
    fn note(&mut self, kind: ErrorKind, node: &Node, name: &'e str) -> Step<()> {
        let errors = self.errors.as_mut().ok_or(kind)?;
        errors.push(Noted { kind, at: usize::try_from(node.at).unwrap_or(usize::MAX), name });
        Ok(())
    }

    fn value(&mut self, node: &'e Node) -> Step<Value<'e>> {
        match &node.kind {
            Kind::Literal(value) => Ok(value.borrowed()),
            // Of an absent one alone, nobody knows the type.
            Kind::Attribute(_) => Ok(self.operand(node)?.unwrap_or_else(|| Type::Boolean.zero())),
            Kind::Exists(name) => Ok(Value::Boolean(self.attributes.attribute(name).is_some())),
            Kind::Not(operand) => Ok(Value::Boolean(self.boolean(operand)?.is_some_and(|value| !value))),
            Kind::Negate(operand) => {
                let Some(number) = self.integer(operand)? else { return Ok(Type::Integer.zero()) };
                self.checked(number.checked_neg(), node, "-")
            }
            Kind::Arithmetic(operator, sides) => self.arithmetic(*operator, sides, node),
            Kind::Order(order, sides) => self.order(*order, sides),
            Kind::Equal { negated, sides } => self.equal(*negated, sides),
            Kind::Logic(operator, sides) => self.logic(*operator, sides).map(Value::Boolean),
            Kind::Like { negated, operand, pattern } => {
                let Some(value) = self.operand(operand)? else { return Ok(Type::Boolean.zero()) };
                Ok(Value::Boolean(pattern.matches(&value.into_text()) != *negated))
            }
            Kind::In { negated, operand, elements } => self.is_in(*negated, operand, elements),
            Kind::Call(function, arguments) => self.call(*function, arguments, node),
            Kind::UnknownCall(name) => {
                self.note(ErrorKind::MissingFunction, node, name)?;
                Ok(Type::Boolean.zero())
            }
        }
    }

    /// The value of an operand; `None` if it is an absent attribute.
    fn operand(&mut self, node: &'e Node) -> Step<Option<Value<'e>>> {
        let Kind::Attribute(name) = &node.kind else { return self.value(node).map(Some) };
        let found = self.attributes.attribute(name);
        if found.is_none() {
            self.note(ErrorKind::MissingAttribute, node, name)?;
        }
        Ok(found)
    }

    /// What a cast made of an operand; an error if it failed.
    fn cast<T>(&mut self, value: Option<T>, node: &'e Node, wanted: &'static str) -> Step<Option<T>> {
        if value.is_none() {
            self.note(ErrorKind::Cast, node, wanted)?;
        }
        Ok(value)
    }

    fn integer(&mut self, node: &'e Node) -> Step<Option<i32>> {
        let Some(value) = self.operand(node)? else { return Ok(None) };
        self.cast(value.to_integer(), node, "Integer")
    }

    fn boolean(&mut self, node: &'e Node) -> Step<Option<bool>> {
        let Some(value) = self.operand(node)? else { return Ok(None) };
        self.cast(value.to_boolean(), node, "Boolean")
    }

    fn checked(&mut self, result: Option<i32>, node: &'e Node, name: &'static str) -> Step<Value<'e>> {
        if result.is_none() {
            self.note(ErrorKind::Math, node, name)?;
        }
        Ok(Value::Integer(result.unwrap_or_default()))
    }

    fn arithmetic(&mut self, operator: Arithmetic, sides: &'e [Node; 2], node: &'e Node) -> Step<Value<'e>> {
        let [left, right] = sides;
        let (left, right) = (self.integer(left)?, self.integer(right)?);
        let (Some(left), Some(right)) = (left, right) else { return Ok(Type::Integer.zero()) };
        let (result, name) = match operator {
            Arithmetic::Add => (left.checked_add(right), "+"),
            Arithmetic::Subtract => (left.checked_sub(right), "-"),
            Arithmetic::Multiply => (left.checked_mul(right), "*"),
            Arithmetic::Divide => (left.checked_div(right), "/"),
            // Of the smallest number divided by -1 nothing is left, though the quotient has no room.
            Arithmetic::Modulo if right == -1 => (Some(0), "%"),
            Arithmetic::Modulo => (left.checked_rem(right), "%"),
        };
        self.checked(result, node, name)
    }

    fn order(&mut self, order: Order, sides: &'e [Node; 2]) -> Step<Value<'e>> {
        let [left, right] = sides;
        let (left, right) = (self.integer(left)?, self.integer(right)?);
        let (Some(left), Some(right)) = (left, right) else { return Ok(Type::Boolean.zero()) };
        Ok(Value::Boolean(match order {
            Order::Less => left < right,
            Order::LessOrEqual => left <= right,
            Order::Greater => left > right,
            Order::GreaterOrEqual => left >= right,
        }))
    }

    /// The right side's type decides.
    fn equal(&mut self, negated: bool, sides: &'e [Node; 2]) -> Step<Value<'e>> {
        let [left, right] = sides;
        let (found, wanted) = (self.operand(left)?, self.operand(right)?);
        let (Some(found), Some(wanted)) = (found, wanted) else { return Ok(Type::Boolean.zero()) };
        let equal = self.cast(found.equals(&wanted), left, name_of(wanted.type_of()))?;
        Ok(Value::Boolean(equal.is_some_and(|equal| equal != negated)))
    }

    fn logic(&mut self, operator: Logic, sides: &'e [Node; 2]) -> Step<bool> {
        let [left, right] = sides;
        let Some(found) = self.operand(left)? else {
            if operator == Logic::Xor {
                self.boolean(right)?;
            }
            return Ok(false);
        };
        let found = self.cast(found.to_boolean(), left, "Boolean")?;
        // What cannot be cast counts as false, as far as the short circuit is concerned.
        match (operator, found) {
            (Logic::And, None | Some(false)) => Ok(false),
            (Logic::Or, Some(true)) => Ok(true),
            (Logic::And | Logic::Or, _) => Ok(self.boolean(right)?.unwrap_or_default()),
            (Logic::Xor, found) => {
                let other = self.boolean(right)?;
                Ok(found.zip(other).is_some_and(|(one, other)| one != other))
            }
        }
    }

    /// The left side's type decides. An element that cannot be cast is not equal.
    fn is_in(&mut self, negated: bool, operand: &'e Node, elements: &'e [Node]) -> Step<Value<'e>> {
        let Some(wanted) = self.operand(operand)? else { return Ok(Type::Boolean.zero()) };
        for element in elements {
            let Some(found) = self.operand(element)? else { return Ok(Type::Boolean.zero()) };
            let equal = self.cast(found.equals(&wanted), element, name_of(wanted.type_of()))?;
            if equal == Some(true) {
                return Ok(Value::Boolean(!negated));
            }
        }
        Ok(Value::Boolean(negated))
    }

    fn call(&mut self, function: Function, nodes: &'e [Node], node: &'e Node) -> Step<Value<'e>> {
        let mut arguments = Vec::with_capacity(nodes.len());
        for (index, argument) in nodes.iter().enumerate() {
            let Some(value) = self.operand(argument)? else { continue };
            let cast = match function.parameter(index) {
                None => Some(value),
                Some(Type::String) => Some(Value::String(value.into_text())),
                Some(Type::Integer) => self.cast(value.to_integer().map(Value::Integer), argument, "Integer")?,
                Some(Type::Boolean) => self.cast(value.to_boolean().map(Value::Boolean), argument, "Boolean")?,
            };
            arguments.extend(cast);
        }
        if arguments.len() < nodes.len() {
            return Ok(function.result().zero());
        }
        let (value, error) = function.call(arguments);
        if let Some(kind) = error {
            self.note(kind, node, function.name())?;
        }
        Ok(value)
    }
}

const fn name_of(wanted: Type) -> &'static str {
    match wanted {
        Type::Integer => "Integer",
        Type::Boolean => "Boolean",
        Type::String => "String",
    }
}
