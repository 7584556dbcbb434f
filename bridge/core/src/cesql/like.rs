//! Patterns of `LIKE`: `%` is anything, `_` one character, `\%` and `\_` themselves.
//!
//! The usual shapes (a beginning, an end, a part) are comparisons of bytes; all else goes by two
//! pointers with a restart at the last `%`. Must never recurse, nor take longer than text times
//! pattern.

/// A compiled pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Pattern {
    Anything,
    Exact(Box<str>),
    Prefix(Box<str>),
    Suffix(Box<str>),
    Contains(Box<str>),
    Pieces(Box<[Piece]>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece {
    Character(char),
    One,
    Many,
}

impl Pattern {
    /// Compiles the value of a string literal.
    pub(super) fn new(text: &str) -> Self {
        let mut pieces = Vec::with_capacity(text.len());
        let mut characters = text.chars().peekable();
        while let Some(character) = characters.next() {
            pieces.push(match character {
                '%' if pieces.last() == Some(&Piece::Many) => continue,
                '%' => Piece::Many,
                '_' => Piece::One,
                '\\' => characters.next_if(|next| matches!(next, '%' | '_')).map_or(Piece::Character('\\'), Piece::Character),
                other => Piece::Character(other),
            });
        }
        let literal = |pieces: &[Piece]| -> Option<Box<str>> {
            let character = |piece: &Piece| if let Piece::Character(character) = piece { Some(*character) } else { None };
            pieces.iter().map(character).collect::<Option<String>>().map(String::into_boxed_str)
        };
        let shaped = match pieces.as_slice() {
            [Piece::Many] => Some(Self::Anything),
            [Piece::Many, inner @ .., Piece::Many] => literal(inner).map(Self::Contains),
            [Piece::Many, end @ ..] => literal(end).map(Self::Suffix),
            [start @ .., Piece::Many] => literal(start).map(Self::Prefix),
            all => literal(all).map(Self::Exact),
        };
        shaped.unwrap_or_else(|| Self::Pieces(pieces.into_boxed_slice()))
    }

    /// Whether the whole text fits.
    pub(super) fn matches(&self, text: &str) -> bool {
        match self {
            Self::Anything => true,
            Self::Exact(wanted) => text == &**wanted,
            Self::Prefix(start) => text.starts_with(&**start),
            Self::Suffix(end) => text.ends_with(&**end),
            Self::Contains(part) => text.contains(&**part),
            Self::Pieces(pieces) => matches_pieces(pieces, text),
        }
    }
}

fn matches_pieces(pieces: &[Piece], text: &str) -> bool {
    let mut rest = text.chars();
    let mut at = 0;
    // The piece behind the last `%`, and the text that it was tried on.
    let mut restart: Option<(usize, std::str::Chars<'_>)> = None;
    loop {
        let before = rest.clone();
        let fits = match pieces.get(at) {
            Some(Piece::Many) => {
                at += 1;
                restart = Some((at, rest.clone()));
                continue;
            }
            Some(Piece::One) => rest.next().is_some(),
            Some(Piece::Character(wanted)) => rest.next() == Some(*wanted),
            None if before.as_str().is_empty() => return true,
            None => false,
        };
        if fits {
            at += 1;
            continue;
        }
        if before.as_str().is_empty() {
            // Further on there is less text still.
            return false;
        }
        // The last `%` takes one character more.
        let Some((behind, tried)) = &mut restart else { return false };
        if tried.next().is_none() {
            return false;
        }
        (at, rest) = (*behind, tried.clone());
    }
}
