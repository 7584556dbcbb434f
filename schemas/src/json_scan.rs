//! Where JSON values begin and end in a text, byte by byte, with the whole grammar checked.
//!
//! This is what every document passes through most often, so it builds nothing and tells no
//! errors: who gets `None` asks a real parser what is wrong. Must never accept what that parser
//! refuses; a test compares the two.

/// A place in a text.
pub(crate) struct Scan<'t> {
    text: &'t str,
    at: usize,
}

/// Objects and arrays that are open, the innermost last; a bit is set for an object.
#[derive(Default)]
struct Nesting {
    inner: u128,
    depth: u32,
    outer: Vec<u128>,
}

impl Nesting {
    fn push(&mut self, is_object: bool) {
        if self.depth == u128::BITS {
            self.outer.push(self.inner);
            self.depth = 0;
        }
        self.inner = (self.inner << 1) | u128::from(is_object);
        self.depth += 1;
    }

    fn last(&self) -> Option<bool> {
        (self.depth > 0).then_some(self.inner & 1 == 1)
    }

    fn pop(&mut self) {
        self.inner >>= 1;
        self.depth -= 1;
        if self.depth == 0
            && let Some(outer) = self.outer.pop()
        {
            (self.inner, self.depth) = (outer, u128::BITS);
        }
    }
}

impl<'t> Scan<'t> {
    pub(crate) fn new(text: &'t str) -> Self {
        Self { text, at: 0 }
    }

    /// Steps into an object or array; whether there is anything in it.
    pub(crate) fn open(&mut self, opening: u8, closing: u8) -> Option<bool> {
        self.space();
        self.byte(opening)?;
        self.space();
        if self.peek()? == closing {
            self.at += 1;
            return Some(false);
        }
        Some(true)
    }

    /// Steps over what stands between two parts; whether there is another.
    pub(crate) fn next(&mut self, closing: u8) -> Option<bool> {
        self.space();
        let found = self.peek()?;
        if found != b',' && found != closing {
            return None;
        }
        self.at += 1;
        self.space();
        Some(found == b',')
    }

    /// Steps over a member's name and colon. The name as it is written, and whether it has escapes.
    pub(crate) fn name(&mut self) -> Option<(&'t str, bool)> {
        let start = self.at;
        let has_escapes = self.string()?;
        let name = self.text.get(start..self.at)?;
        self.space();
        self.byte(b':')?;
        self.space();
        Some((name, has_escapes))
    }

    /// Steps over a value.
    pub(crate) fn value(&mut self) -> Option<&'t str> {
        let start = self.at;
        let mut nesting = Nesting::default();
        loop {
            match self.peek()? {
                b'"' => drop(self.string()?),
                b'{' => {
                    if self.open(b'{', b'}')? {
                        nesting.push(true);
                        self.name()?;
                        continue;
                    }
                }
                b'[' => {
                    if self.open(b'[', b']')? {
                        nesting.push(false);
                        continue;
                    }
                }
                b't' => self.word(b"true")?,
                b'f' => self.word(b"false")?,
                b'n' => self.word(b"null")?,
                _ => self.number()?,
            }
            loop {
                let Some(is_object) = nesting.last() else { return self.text.get(start..self.at) };
                if self.next(if is_object { b'}' } else { b']' })? {
                    if is_object {
                        self.name()?;
                    }
                    break;
                }
                nesting.pop();
                // White space behind it belongs to nobody.
                if nesting.last().is_none() {
                    self.at = self.text.get(..self.at)?.trim_end_matches([' ', '\t', '\n', '\r']).len();
                }
            }
        }
    }

    /// Whether nothing but white space is left.
    pub(crate) fn is_at_end(&mut self) -> bool {
        self.space();
        self.at == self.text.len()
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn byte(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn word(&mut self, word: &[u8]) -> Option<()> {
        let rest = self.text.as_bytes().get(self.at..)?;
        rest.starts_with(word).then(|| self.at += word.len())
    }

    fn digits(&mut self) -> Option<()> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        (self.at > start).then_some(())
    }

    fn number(&mut self) -> Option<()> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        // `01` is two numbers, and so none.
        (!matches!(self.peek(), Some(b'0'..=b'9'))).then_some(())
    }

    /// Steps over a text; whether it has escapes.
    fn string(&mut self) -> Option<bool> {
        self.byte(b'"')?;
        let mut has_escapes = false;
        loop {
            self.plain();
            match self.peek()? {
                b'"' => {
                    self.at += 1;
                    return Some(has_escapes);
                }
                b'\\' => {
                    self.escape()?;
                    has_escapes = true;
                }
                // A control character.
                _ => return None,
            }
        }
    }

    /// Steps over all that is neither quote, backslash nor control character, eight bytes at a time.
    fn plain(&mut self) {
        const ONES: u64 = u64::from_le_bytes([1; 8]);
        const HIGHS: u64 = u64::from_le_bytes([0x80; 8]);
        let below = |bytes: u64, limit: u64| bytes.wrapping_sub(ONES * limit) & !bytes;
        let bytes = self.text.as_bytes();
        while let Some(Ok(eight)) = bytes.get(self.at..self.at + 8).map(<[u8; 8]>::try_from) {
            let eight = u64::from_le_bytes(eight);
            let (quotes, backslashes) = (eight ^ (ONES * u64::from(b'"')), eight ^ (ONES * u64::from(b'\\')));
            // The lowest bit that is set is right; those above it may not be.
            let found = (below(eight, 0x20) | below(quotes, 1) | below(backslashes, 1)) & HIGHS;
            if found != 0 {
                self.at += found.trailing_zeros() as usize / 8;
                return;
            }
            self.at += 8;
        }
        while self.peek().is_some_and(|byte| byte >= 0x20 && byte != b'"' && byte != b'\\') {
            self.at += 1;
        }
    }

    fn escape(&mut self) -> Option<()> {
        let rest = self.text.as_bytes().get(self.at + 1..)?;
        self.at += match rest {
            [b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', ..] => 2,
            [b'u', hex @ ..] if hex.len() >= 4 && hex.iter().take(4).all(u8::is_ascii_hexdigit) => 6,
            _ => return None,
        };
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use serde::de::IgnoredAny;

    use super::*;

    const DOCUMENTS: [&str; 6] = [
        r#"{ "navn" : "Blåbær & \"Ærlig\" AS" , "a":[ 1, -0.5e+10, {} ,[]], "b\u00e5" : {"c":null,"d":[true , false]} }"#,
        "[[[{\"a\":[1,{\"b\":\"\\u0041\\n\\/\"}]}]],\"0123456789 abcdef\", 0, -1, 10.25E-3]\n",
        r#""\ud800 \\ \t""#,
        "{}",
        "-0",
        " [ null ] ",
    ];

    fn is_json(text: &str) -> bool {
        let mut scan = Scan::new(text);
        scan.space();
        scan.value().is_some() && scan.is_at_end()
    }

    #[test]
    fn a_text_is_json_exactly_if_the_parser_takes_it() {
        let mut seed = 1_u64;
        let mut next = |below: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) as usize % below
        };
        let (mut taken, mut refused) = (0, 0);
        for round in 0..60_000 {
            let mut bytes = DOCUMENTS[round % DOCUMENTS.len()].as_bytes().to_vec();
            for _ in 0..next(4) {
                let (at, with) = (next(bytes.len()), br#"{}[]",:\u0019-+.eEtfn x"#);
                match next(4) {
                    0 => drop(bytes.remove(at)),
                    1 => bytes[at] = with[next(with.len())],
                    2 => bytes.insert(at, with[next(with.len())]),
                    _ => bytes[at] = next(256) as u8,
                }
                if bytes.is_empty() {
                    bytes.push(b'0');
                }
            }
            let Ok(text) = std::str::from_utf8(&bytes) else { continue };
            let expected = serde_json::from_str::<IgnoredAny>(text).is_ok();
            assert_eq!(is_json(text), expected, "{text}");
            *(if expected { &mut taken } else { &mut refused }) += 1;
        }
        assert!(taken > 5_000 && refused > 5_000, "{taken} {refused}");
    }

    #[test]
    fn nesting_is_followed_however_deep() {
        for depth in [1, 127, 128, 129, 255, 256, 257, 1_000] {
            let deep = |inside: &str| format!("{}{inside}{}", "[{\"a\":".repeat(depth), "}]".repeat(depth));
            assert!(is_json(&deep("1")) && is_json(&deep("[ ] ")), "{depth}");
            assert!(!is_json(&deep("")) && !is_json(&deep("]")) && !is_json(&format!("{}]", deep("1"))), "{depth}");
            assert!(!is_json(&format!("{}1{}", "[{\"a\":".repeat(depth), "]}".repeat(depth))), "{depth}");
        }
    }
}
