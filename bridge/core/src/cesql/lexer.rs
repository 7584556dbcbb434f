//! Words of an expression: the longest that fits, a keyword before a name, a number before both.
//!
//! A sign right before digits belongs to the number (`3-2` is two numbers side by side), as the
//! published grammar has it. Must never allocate, nor look at a character twice.

use super::fault::Refusal;

/// A word of the language, in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keyword {
    And,
    Or,
    Xor,
    Not,
    Like,
    Exists,
    In,
    True,
    False,
}

const KEYWORDS: [(&str, Keyword); 9] = [
    ("and", Keyword::And),
    ("or", Keyword::Or),
    ("xor", Keyword::Xor),
    ("not", Keyword::Not),
    ("like", Keyword::Like),
    ("exists", Keyword::Exists),
    ("in", Keyword::In),
    ("true", Keyword::True),
    ("false", Keyword::False),
];

/// What is neither word nor number nor text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Symbol {
    Open,
    Close,
    Comma,
    Plus,
    Minus,
    Times,
    Divide,
    Modulo,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// Longer ones before those that they begin with.
const SYMBOLS: [(&str, Symbol); 15] = [
    ("!=", Symbol::NotEqual),
    ("<>", Symbol::NotEqual),
    ("<=", Symbol::LessOrEqual),
    (">=", Symbol::GreaterOrEqual),
    ("(", Symbol::Open),
    (")", Symbol::Close),
    (",", Symbol::Comma),
    ("+", Symbol::Plus),
    ("-", Symbol::Minus),
    ("*", Symbol::Times),
    ("/", Symbol::Divide),
    ("%", Symbol::Modulo),
    ("=", Symbol::Equal),
    ("<", Symbol::Less),
    (">", Symbol::Greater),
];

/// What stands at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token<'t> {
    Keyword(Keyword),
    /// Letters and digits: an attribute, or if there are only letters a function.
    Word(&'t str),
    /// Letters and underscores: a function.
    FunctionName(&'t str),
    /// With its sign.
    Integer(&'t str),
    /// Between these quotes, backslashes as they stand.
    Text(&'t str, char),
    Symbol(Symbol),
    End,
}

/// A token and where it stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lexeme<'t> {
    pub(super) token: Token<'t>,
    pub(super) at: usize,
    pub(super) end: usize,
}

/// The token at or after a place.
pub(super) fn next(text: &str, from: usize) -> Result<Lexeme<'_>, Refusal> {
    let rest = text.get(from..).unwrap_or_default();
    let trimmed = rest.trim_start_matches([' ', '\t', '\r', '\n']);
    let at = from + (rest.len() - trimmed.len());
    let Some(first) = trimmed.chars().next() else { return Ok(Lexeme { token: Token::End, at, end: at }) };
    let (token, length) = if matches!(first, '\'' | '"') {
        quoted(trimmed, first).ok_or_else(|| Refusal::new(at, format!("expected a closing {first} for the text that begins here")))?
    } else if first.is_ascii_alphanumeric() {
        word(trimmed)
    } else {
        number_or_symbol(trimmed).ok_or_else(|| {
            let shown = first.escape_default();
            Refusal::new(at, format!("expected an attribute, a value, an operator or a bracket, found the character {shown}"))
        })?
    };
    Ok(Lexeme { token, at, end: at + length })
}

fn run_of(text: &str, belongs: impl Fn(u8) -> bool) -> &str {
    let length = text.bytes().take_while(|byte| belongs(*byte)).count();
    // Only ASCII belongs anywhere, so that this is a boundary.
    text.get(..length).unwrap_or_default()
}

fn word(text: &str) -> (Token<'_>, usize) {
    let word = run_of(text, |byte| byte.is_ascii_alphanumeric());
    let name = run_of(text, |byte| byte.is_ascii_alphabetic() || byte == b'_');
    if name.len() > word.len() {
        return (Token::FunctionName(name), name.len());
    }
    let keyword = KEYWORDS.iter().find(|(keyword, _)| keyword.eq_ignore_ascii_case(word));
    let token = match keyword {
        Some((_, keyword)) => Token::Keyword(*keyword),
        None if word.bytes().all(|byte| byte.is_ascii_digit()) => Token::Integer(word),
        None => Token::Word(word),
    };
    (token, word.len())
}

fn number_or_symbol(text: &str) -> Option<(Token<'_>, usize)> {
    if let Some(unsigned) = text.strip_prefix(['+', '-']) {
        let length = 1 + run_of(unsigned, |byte| byte.is_ascii_digit()).len();
        if length > 1 {
            return Some((Token::Integer(text.get(..length)?), length));
        }
    }
    let (symbol, token) = SYMBOLS.iter().find(|(symbol, _)| text.starts_with(symbol))?;
    Some((Token::Symbol(*token), symbol.len()))
}

/// A text up to its closing quote. A doubled quote does not close it: the published lexer takes
/// both into the text.
fn quoted(text: &str, quote: char) -> Option<(Token<'_>, usize)> {
    let mut characters = text.char_indices().skip(1).peekable();
    while let Some((at, character)) = characters.next() {
        if character == '\\' {
            characters.next()?;
        } else if character == quote {
            if characters.next_if(|(_, next)| *next == quote).is_some() {
                continue;
            }
            return Some((Token::Text(text.get(1..at)?, quote), at + 1));
        }
    }
    None
}

/// The value of a quoted text: a backslash before the own quote goes, every other one stays.
pub(super) fn unquoted(raw: &str, quote: char) -> String {
    let mut value = String::with_capacity(raw.len());
    let mut characters = raw.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            value.push(character);
            continue;
        }
        match characters.next() {
            Some(escaped) if escaped == quote => value.push(quote),
            Some(other) => value.extend(['\\', other]),
            None => value.push('\\'),
        }
    }
    value
}

/// What a fault calls a token.
pub(super) fn name_of(token: &Token<'_>) -> String {
    const SHOWN_CHARS_MAX: usize = 40;
    let shown = |text: &str| text.chars().take(SHOWN_CHARS_MAX).collect::<String>();
    match token {
        Token::Keyword(keyword) => {
            let name = KEYWORDS.iter().find(|(_, known)| known == keyword).map_or("", |(name, _)| name);
            name.to_ascii_uppercase()
        }
        Token::Word(word) | Token::FunctionName(word) | Token::Integer(word) => shown(word),
        Token::Text(..) => "a text".to_owned(),
        Token::Symbol(symbol) => SYMBOLS.iter().find(|(_, known)| known == symbol).map_or("", |(text, _)| text).to_owned(),
        Token::End => "the end".to_owned(),
    }
}
