//! Texts that nobody would write: noise, words in any order, and expressions with wounds.

use super::generate;
use super::random::Random;

const SCRAPS: [&str; 44] = [
    "(",
    ")",
    ",",
    "+",
    "-",
    "*",
    "/",
    "%",
    "=",
    "!=",
    "<>",
    "<",
    "<=",
    ">",
    ">=",
    "!",
    "'",
    "\"",
    "\\",
    "\\'",
    "''",
    "_",
    ".",
    "AND",
    "or",
    "Xor",
    "NOT",
    "LIKE",
    "EXISTS",
    "IN",
    "TRUE",
    "false",
    "id",
    "hop",
    "borte",
    "LENGTH(",
    "SUBSTRING(",
    "NAVN(",
    "'%a_'",
    "-2147483648",
    "2147483648",
    "æ",
    "\u{0}",
    "\n",
];

pub fn text(random: &mut Random) -> String {
    match random.below(10) {
        0 => noise(random),
        1..4 => scraps(random),
        _ => wounded(random),
    }
}

fn noise(random: &mut Random) -> String {
    let length = random.below(80);
    let bytes: Vec<u8> = (0..length).map(|_| random.next().to_le_bytes()[0]).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn scraps(random: &mut Random) -> String {
    let count = random.below(16);
    let mut text = String::new();
    for _ in 0..count {
        text.push_str(random.one_of(&SCRAPS));
        if random.chance(70) {
            text.push(' ');
        }
    }
    text
}

fn wounded(random: &mut Random) -> String {
    let depth = random.below(6);
    let tree = generate::tree(random, depth);
    let mut letters: Vec<char> = generate::text(random, &tree).chars().collect();
    for _ in 0..random.below(4) {
        let at = random.below(letters.len() as u64 + 1) as usize;
        match random.below(5) {
            0 if at < letters.len() => drop(letters.drain(at..=at)),
            1 => letters.truncate(at),
            2 => {
                let scrap: Vec<char> = random.one_of(&SCRAPS).chars().collect();
                drop(letters.splice(at..at, scrap));
            }
            3 => {
                let end = (at + random.below(20) as usize).min(letters.len());
                let copy = letters[at..end].to_vec();
                drop(letters.splice(at..at, copy));
            }
            _ => letters.insert(at, char::from_u32(random.below(0x500) as u32).unwrap_or('?')),
        }
    }
    letters.into_iter().collect()
}

/// As long and as deep as may be, and more.
pub fn large() -> Vec<String> {
    let repeated = |start: &str, part: &str, count: usize, end: &str| format!("{start}{}{end}", part.repeat(count));
    let mut texts = Vec::new();
    for count in [100, 127, 128, 129, 500, 4_000, 100_000] {
        texts.push(repeated("", "(", count, "a"));
        texts.push(repeated("", "(", count, &format!("a{}", ")".repeat(count))));
        texts.push(repeated("", "NOT ", count, "a"));
        texts.push(repeated("", "- ", count, "7"));
        texts.push(repeated("a", " OR a", count, ""));
        texts.push(repeated("1", " + 1", count, ""));
        texts.push(repeated("a", " LIKE '%'", count, ""));
        texts.push(repeated("a", " IN (1)", count, ""));
        texts.push(repeated("a IN (", "1,", count, "1)"));
        texts.push(repeated("CONCAT(", "source,", count, "source)"));
        texts.push(repeated("", "UPPER(", count, &format!("source{}", ")".repeat(count))));
        texts.push(repeated("source LIKE '", "%a", count, "%'"));
        texts.push(repeated("source LIKE '", "_%", count, "'"));
        texts.push(repeated("'", "\\'", count, "'"));
        texts.push(repeated("", "9", count, ""));
        texts.push(repeated("", "a", count, ""));
        texts.push(repeated("", "æ", count, ""));
    }
    texts
}
