//! Cuts a JSON array that comes in pieces into its elements, without reading them.
//!
//! Promises: an element is handed out only once it is whole; the end is believed only when the
//! array was closed and nothing but white space follows; one element bounds the memory.

use memchr::memchr2;

/// Why a dump is no dump, or not a whole one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Torn {
    /// It does not begin as an array.
    #[error("it is no JSON array")]
    NoArray,
    /// It ends early.
    #[error("it ends after {rows} whole rows without its closing bracket")]
    EndsEarly {
        /// Whole rows before.
        rows: u64,
    },
    /// Something stands between rows that can't.
    #[error("after {rows} rows stands neither a comma nor the closing bracket")]
    Separator {
        /// Whole rows before.
        rows: u64,
    },
    /// A row larger than is read.
    #[error("the row after {rows} others is longer than {bytes_max} bytes")]
    RowTooLong {
        /// Whole rows before.
        rows: u64,
        /// The limit.
        bytes_max: usize,
    },
    /// More follows after the array.
    #[error("something follows after the closing bracket")]
    Trailing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Outside,
    /// A row or, with `closable`, the end of the array may follow.
    BeforeRow {
        closable: bool,
    },
    Plain,
    Text,
    Escape,
    AfterRow,
    Closed,
}

/// The cutter.
#[derive(Debug)]
pub struct Rows {
    place: Place,
    depth: u32,
    /// The part of a row that earlier pieces brought.
    begun: Vec<u8>,
    rows: u64,
    row_bytes_max: usize,
}

impl Rows {
    /// For rows of at most `row_bytes_max`.
    pub fn new(row_bytes_max: usize) -> Self {
        Self { place: Place::Outside, depth: 0, begun: Vec::new(), rows: 0, row_bytes_max }
    }

    /// Takes the next piece and hands out the rows that it completes.
    pub fn push(&mut self, piece: &[u8], mut each: impl FnMut(&[u8])) -> Result<(), Torn> {
        let (mut at, mut from) = (0, 0);
        while let Some(byte) = piece.get(at).copied() {
            match self.place {
                Place::Plain | Place::Text | Place::Escape => {
                    if let Some(end) = self.within(piece, &mut at) {
                        self.hand_out(&piece[from..end], &mut each)?;
                    }
                    continue;
                }
                _ if matches!(byte, b' ' | b'\t' | b'\n' | b'\r') => {}
                Place::Outside if byte == b'[' => self.place = Place::BeforeRow { closable: true },
                // A byte order mark.
                Place::Outside if matches!(byte, 0xef | 0xbb | 0xbf) => {}
                Place::Outside => return Err(Torn::NoArray),
                Place::BeforeRow { closable: true } | Place::AfterRow if byte == b']' => self.place = Place::Closed,
                Place::AfterRow if byte == b',' => self.place = Place::BeforeRow { closable: false },
                Place::BeforeRow { .. } if !matches!(byte, b',' | b']' | b'}') => {
                    (self.place, self.depth, from) = (Place::Plain, 0, at);
                    continue;
                }
                Place::BeforeRow { .. } | Place::AfterRow => return Err(Torn::Separator { rows: self.rows }),
                Place::Closed => return Err(Torn::Trailing),
            }
            at += 1;
        }
        if matches!(self.place, Place::Plain | Place::Text | Place::Escape) {
            self.begun.extend_from_slice(&piece[from..]);
            self.check_length(self.begun.len())?;
        }
        Ok(())
    }

    /// Moves on within a row. The place after its last byte, if it ends here.
    fn within(&mut self, piece: &[u8], at: &mut usize) -> Option<usize> {
        while let Some(byte) = piece.get(*at).copied() {
            match (self.place, byte) {
                (Place::Text, _) => {
                    let Some(found) = memchr2(b'"', b'\\', &piece[*at..]) else {
                        *at = piece.len();
                        return None;
                    };
                    *at += found;
                    self.place = if piece[*at] == b'"' { Place::Plain } else { Place::Escape };
                }
                (Place::Escape, _) => self.place = Place::Text,
                (_, b'"') => self.place = Place::Text,
                (_, b'{' | b'[') => self.depth += 1,
                // A scalar ends before what ends it.
                (_, b']' | b'}' | b',') if self.depth == 0 => {
                    self.place = Place::AfterRow;
                    return Some(*at);
                }
                (_, b']' | b'}') => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        *at += 1;
                        self.place = Place::AfterRow;
                        return Some(*at);
                    }
                }
                _ => {}
            }
            *at += 1;
        }
        None
    }

    fn hand_out(&mut self, part: &[u8], each: &mut impl FnMut(&[u8])) -> Result<(), Torn> {
        self.check_length(self.begun.len() + part.len())?;
        if self.begun.is_empty() {
            each(part);
        } else {
            self.begun.extend_from_slice(part);
            each(&self.begun);
            self.begun.clear();
        }
        self.rows += 1;
        Ok(())
    }

    fn check_length(&self, bytes: usize) -> Result<(), Torn> {
        if bytes > self.row_bytes_max { Err(Torn::RowTooLong { rows: self.rows, bytes_max: self.row_bytes_max }) } else { Ok(()) }
    }

    /// The number of rows, if the array was closed.
    pub fn finish(self) -> Result<u64, Torn> {
        match self.place {
            Place::Closed => Ok(self.rows),
            Place::Outside => Err(Torn::NoArray),
            _ => Err(Torn::EndsEarly { rows: self.rows }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 64;

    fn cut(text: &str, piece_bytes: usize) -> (Vec<String>, Result<u64, Torn>) {
        let (mut rows, mut found) = (Rows::new(MAX), Vec::new());
        for piece in text.as_bytes().chunks(piece_bytes) {
            if let Err(torn) = rows.push(piece, |row| found.push(String::from_utf8_lossy(row).into_owned())) {
                return (found, Err(torn));
            }
        }
        (found, rows.finish())
    }

    #[test]
    fn rows_are_the_same_however_the_array_is_divided() {
        let text = " [ {\"a\":\"}],{\\\"[\\\\\"} ,\n[1,[2]],\"x,]\", 17 ,null,{\"ø\":{}}\n] \n";
        let expected = ["{\"a\":\"}],{\\\"[\\\\\"}", "[1,[2]]", "\"x,]\"", "17 ", "null", "{\"ø\":{}}"];
        for piece_bytes in 1..text.len() + 1 {
            let (found, end) = cut(text, piece_bytes);
            assert_eq!((found.as_slice(), end), (expected.map(str::to_owned).as_slice(), Ok(6)), "{piece_bytes}");
        }
        assert_eq!(cut("[]", 1), (Vec::new(), Ok(0)));
        assert_eq!(cut("\u{feff}[1]", 2), (vec!["1".to_owned()], Ok(1)));
    }

    #[test]
    fn every_truncation_is_found_and_hands_out_only_whole_rows() {
        let text = "[{\"a\":1},{\"b\":[\"c\",{}]},{\"d\":\"e\"}]";
        for length in 0..text.len() {
            let (found, end) = cut(&text[..length], 5);
            assert!(end.is_err(), "{length}");
            assert!(found.iter().all(|row| serde_json::from_str::<serde_json::Value>(row).is_ok()), "{length}: {found:?}");
        }
    }

    #[test]
    fn what_is_no_array_or_goes_wrong_says_where() {
        for (text, torn) in [
            ("", Torn::NoArray),
            ("<html>", Torn::NoArray),
            ("{\"a\":1}", Torn::NoArray),
            ("[1 2", Torn::EndsEarly { rows: 0 }),
            ("[{} {}]", Torn::Separator { rows: 1 }),
            ("[,{}]", Torn::Separator { rows: 0 }),
            ("[{},]", Torn::Separator { rows: 1 }),
            ("[{}}", Torn::Separator { rows: 1 }),
            ("[{}]]", Torn::Trailing),
            ("[{}\u{c},{}]", Torn::Separator { rows: 1 }),
            ("[{}]\u{c}", Torn::Trailing),
        ] {
            for piece_bytes in [1, 3, 100] {
                assert_eq!(cut(text, piece_bytes).1, Err(torn), "{text:?}");
            }
        }
        let long = format!("[{{}},\"{}\"]", "x".repeat(MAX));
        for piece_bytes in [7, 1_000] {
            assert_eq!(cut(&long, piece_bytes).1, Err(Torn::RowTooLong { rows: 1, bytes_max: MAX }));
        }
    }
}
