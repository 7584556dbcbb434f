//! From a text to a tree, by the published grammar's precedence.
//!
//! `NOT` and `-` take an operand without operators; `LIKE` and `IN` follow one; arithmetic and
//! comparisons go from left to right; `AND`, `OR` and `XOR` are one level and group from the
//! right. Must never go deeper than the limit, whatever the text.

use super::evaluate;
use super::fault::{ParseError, Place, Refusal, Warning};
use super::functions;
use super::lexer::{self, Keyword, Lexeme, Symbol, Token};
use super::like::Pattern;
use super::syntax::{Arithmetic, Kind, Logic, Node, Order};
use super::value::Value;
use super::{EXPRESSION_BYTES_MAX, LIST_MAX, NESTING_MAX};

/// Compiles a text; beside the tree, what is probably not meant.
pub(super) fn parse(text: &str) -> Result<(Node, Vec<Warning>), ParseError> {
    let mut warnings = Vec::new();
    let root = whole(text, &mut warnings).map_err(|refusal| refusal.in_text(text))?;
    warnings.sort_by_key(|warning| warning.place);
    Ok((root, warnings))
}

fn whole(text: &str, warnings: &mut Vec<Warning>) -> Result<Node, Refusal> {
    if text.len() > EXPRESSION_BYTES_MAX {
        return Err(Refusal::new(0, format!("the expression has {} bytes; at most {EXPRESSION_BYTES_MAX} are allowed", text.len())));
    }
    let mut parser = Parser { text, next: lexer::next(text, 0)?, depth: 0, warnings };
    let root = parser.expression()?;
    match parser.next.token {
        Token::End => Ok(root),
        _ => Err(parser.expected("an operator or the end")),
    }
}

struct Parser<'t, 'w> {
    text: &'t str,
    next: Lexeme<'t>,
    depth: usize,
    warnings: &'w mut Vec<Warning>,
}

/// The operators of arithmetic and comparison, the tighter ones with the higher level.
#[derive(Clone, Copy)]
enum Binary {
    Arithmetic(Arithmetic),
    Order(Order),
    Equal { negated: bool },
}

const COMPARISON: u8 = 1;
const SUM: u8 = 2;
const PRODUCT: u8 = 3;

fn binary(token: Token<'_>) -> Option<(Binary, u8)> {
    let Token::Symbol(symbol) = token else { return None };
    Some(match symbol {
        Symbol::Times => (Binary::Arithmetic(Arithmetic::Multiply), PRODUCT),
        Symbol::Divide => (Binary::Arithmetic(Arithmetic::Divide), PRODUCT),
        Symbol::Modulo => (Binary::Arithmetic(Arithmetic::Modulo), PRODUCT),
        Symbol::Plus => (Binary::Arithmetic(Arithmetic::Add), SUM),
        Symbol::Minus => (Binary::Arithmetic(Arithmetic::Subtract), SUM),
        Symbol::Less => (Binary::Order(Order::Less), COMPARISON),
        Symbol::LessOrEqual => (Binary::Order(Order::LessOrEqual), COMPARISON),
        Symbol::Greater => (Binary::Order(Order::Greater), COMPARISON),
        Symbol::GreaterOrEqual => (Binary::Order(Order::GreaterOrEqual), COMPARISON),
        Symbol::Equal => (Binary::Equal { negated: false }, COMPARISON),
        Symbol::NotEqual => (Binary::Equal { negated: true }, COMPARISON),
        Symbol::Open | Symbol::Close | Symbol::Comma => return None,
    })
}

fn logic(token: Token<'_>) -> Option<Logic> {
    match token {
        Token::Keyword(Keyword::And) => Some(Logic::And),
        Token::Keyword(Keyword::Or) => Some(Logic::Or),
        Token::Keyword(Keyword::Xor) => Some(Logic::Xor),
        _ => None,
    }
}

impl<'t> Parser<'t, '_> {
    fn advance(&mut self) -> Result<Lexeme<'t>, Refusal> {
        let following = lexer::next(self.text, self.next.end)?;
        Ok(std::mem::replace(&mut self.next, following))
    }

    fn is_symbol(&self, symbol: Symbol) -> bool {
        self.next.token == Token::Symbol(symbol)
    }

    fn take(&mut self, token: Token<'_>) -> Result<bool, Refusal> {
        let there = self.next.token == token;
        if there {
            self.advance()?;
        }
        Ok(there)
    }

    fn expected(&self, what: &str) -> Refusal {
        Refusal::new(self.next.at, format!("expected {what}, found {}", lexer::name_of(&self.next.token)))
    }

    fn close(&mut self, what: &str) -> Result<(), Refusal> {
        if self.take(Token::Symbol(Symbol::Close))? { Ok(()) } else { Err(self.expected(what)) }
    }

    fn warn(&mut self, at: usize, detail: String) {
        self.warnings.push(Warning { place: Place::of(self.text, at), detail });
    }

    /// A node, or its value where that never changes.
    fn build(&self, at: usize, kind: Kind) -> Result<Node, Refusal> {
        let node = Node::new(at, kind);
        if usize::try_from(node.height).is_ok_and(|height| height > NESTING_MAX) {
            return Err(too_deep(at));
        }
        Ok(match evaluate::constant(&node) {
            Some(value) => Node::new(at, Kind::Literal(value)),
            None => node,
        })
    }

    /// One level further down.
    fn below<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, Refusal>) -> Result<T, Refusal> {
        if self.depth >= NESTING_MAX {
            return Err(too_deep(self.next.at));
        }
        self.depth += 1;
        let found = read(self);
        self.depth -= 1;
        found
    }

    fn expression(&mut self) -> Result<Node, Refusal> {
        let mut operands = vec![self.comparison(COMPARISON)?];
        let mut operators: Vec<(Logic, usize)> = Vec::new();
        let mut is_mixed = false;
        while let Some(operator) = logic(self.next.token) {
            let at = self.advance()?.at;
            if operators.last().is_some_and(|(before, _)| *before != operator) && !std::mem::replace(&mut is_mixed, true) {
                let detail = "AND, OR and XOR have the same precedence and group from the right: set brackets to say what is meant";
                self.warn(at, detail.to_owned());
            }
            operators.push((operator, at));
            operands.push(self.comparison(COMPARISON)?);
        }
        // As many operators as there are operands but one.
        let mut operands = operands.into_iter().rev();
        let Some(mut right) = operands.next() else { return Err(self.expected("an expression")) };
        for (left, (operator, at)) in operands.zip(operators.into_iter().rev()) {
            right = self.build(at, Kind::Logic(operator, Box::new([left, right])))?;
        }
        Ok(right)
    }

    /// Arithmetic and comparisons of at least this level.
    fn comparison(&mut self, level_min: u8) -> Result<Node, Refusal> {
        let mut left = self.followed()?;
        while let Some((operator, level)) = binary(self.next.token).filter(|(_, level)| *level >= level_min) {
            let at = self.advance()?.at;
            // Three levels at most: no need to count them.
            let right = self.comparison(level + 1)?;
            let sides = Box::new([left, right]);
            let kind = match operator {
                Binary::Arithmetic(operator) => Kind::Arithmetic(operator, sides),
                Binary::Order(order) => Kind::Order(order, sides),
                Binary::Equal { negated } => Kind::Equal { negated, sides },
            };
            left = self.build(at, kind)?;
        }
        Ok(left)
    }

    /// An operand with what may follow it.
    fn followed(&mut self) -> Result<Node, Refusal> {
        let mut operand = self.operand()?;
        loop {
            let at = self.next.at;
            let negated = self.next.token == Token::Keyword(Keyword::Not);
            if negated {
                self.advance()?;
            }
            operand = match self.next.token {
                Token::Keyword(Keyword::Like) => {
                    self.advance()?;
                    self.like(at, negated, operand)?
                }
                Token::Keyword(Keyword::In) => {
                    self.advance()?;
                    if !self.take(Token::Symbol(Symbol::Open))? {
                        return Err(self.expected("( and the elements of IN"));
                    }
                    let elements = self.list("another element or )")?.into_boxed_slice();
                    self.build(at, Kind::In { negated, operand: Box::new(operand), elements })?
                }
                _ if negated => return Err(self.expected("LIKE or IN after NOT")),
                _ => return Ok(operand),
            };
        }
    }

    fn like(&mut self, at: usize, negated: bool, operand: Node) -> Result<Node, Refusal> {
        let Token::Text(raw, quote) = self.next.token else { return Err(self.expected("a pattern in quotes after LIKE")) };
        self.warn_of_doubled(raw, quote);
        self.advance()?;
        let pattern = Pattern::new(&lexer::unquoted(raw, quote));
        self.build(at, Kind::Like { negated, operand: Box::new(operand), pattern })
    }

    /// One or more expressions and the closing bracket.
    fn list(&mut self, what: &str) -> Result<Vec<Node>, Refusal> {
        let mut nodes = vec![self.below(Self::expression)?];
        while self.take(Token::Symbol(Symbol::Comma))? {
            if nodes.len() >= LIST_MAX {
                return Err(Refusal::new(self.next.at, format!("a list has at most {LIST_MAX} expressions")));
            }
            nodes.push(self.below(Self::expression)?);
        }
        self.close(what)?;
        Ok(nodes)
    }

    /// An operand with what stands before it.
    fn operand(&mut self) -> Result<Node, Refusal> {
        let at = self.next.at;
        match self.next.token {
            Token::Keyword(Keyword::Not) => {
                self.advance()?;
                let operand = self.below(Self::operand)?;
                self.build(at, Kind::Not(Box::new(operand)))
            }
            Token::Symbol(Symbol::Minus) => {
                self.advance()?;
                let operand = self.below(Self::operand)?;
                self.build(at, Kind::Negate(Box::new(operand)))
            }
            _ => self.primary(),
        }
    }

    fn primary(&mut self) -> Result<Node, Refusal> {
        let at = self.next.at;
        let kind = match self.next.token {
            Token::Symbol(Symbol::Open) => {
                self.advance()?;
                let inner = self.below(Self::expression)?;
                self.close("an operator or )")?;
                return Ok(inner);
            }
            Token::Keyword(Keyword::Exists) => {
                self.advance()?;
                let Token::Word(name) = self.next.token else { return Err(self.expected("the name of an attribute after EXISTS")) };
                Kind::Exists(name.to_ascii_lowercase().into())
            }
            Token::Keyword(Keyword::True) => Kind::Literal(Value::Boolean(true)),
            Token::Keyword(Keyword::False) => Kind::Literal(Value::Boolean(false)),
            Token::Integer(digits) => {
                let out_of_range = |_| Refusal::new(at, format!("expected an Integer between {} and {}", i32::MIN, i32::MAX));
                Kind::Literal(Value::Integer(digits.parse().map_err(out_of_range)?))
            }
            Token::Text(raw, quote) => {
                self.warn_of_doubled(raw, quote);
                Kind::Literal(Value::String(lexer::unquoted(raw, quote).into()))
            }
            Token::Word(name) => {
                self.advance()?;
                if self.is_symbol(Symbol::Open) {
                    return self.call(at, name);
                }
                return self.build(at, Kind::Attribute(name.to_ascii_lowercase().into()));
            }
            Token::FunctionName(name) => {
                self.advance()?;
                if !self.is_symbol(Symbol::Open) {
                    return Err(self.expected("( after the name of a function (an attribute's name has letters and digits only)"));
                }
                return self.call(at, name);
            }
            _ => return Err(self.expected("an attribute, a value, a function, NOT, EXISTS or (")),
        };
        self.advance()?;
        self.build(at, kind)
    }

    fn call(&mut self, at: usize, name: &str) -> Result<Node, Refusal> {
        if name.bytes().any(|byte| byte.is_ascii_digit()) {
            return Err(Refusal::new(at, "expected the name of a function before (: letters and underscores"));
        }
        self.advance()?;
        let empty = self.take(Token::Symbol(Symbol::Close))?;
        let arguments = if empty { Vec::new() } else { self.list("another argument or )")? };
        let Some(function) = functions::find(name, arguments.len()) else {
            let count = arguments.len();
            self.warn(at, format!("there is no function {name} with {count} arguments: this is an error for every event"));
            return self.build(at, Kind::UnknownCall(name.into()));
        };
        self.build(at, Kind::Call(function, arguments.into_boxed_slice()))
    }

    fn warn_of_doubled(&mut self, raw: &str, quote: char) {
        let mut escaped = false;
        let mut before = ' ';
        for character in raw.chars() {
            if character == quote && before == quote && !escaped {
                return self.warn(self.next.at, format!("two {quote} are two characters of the text: write \\{quote} for one"));
            }
            before = if escaped { ' ' } else { character };
            escaped = character == '\\' && !escaped;
        }
    }
}

fn too_deep(at: usize) -> Refusal {
    Refusal::new(at, format!("nests deeper than {NESTING_MAX} levels; use IN, or several filters"))
}
