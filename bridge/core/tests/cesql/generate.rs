//! Draws trees and writes them down, with no more brackets than the grammar needs, or with more.

use super::oracle::{Tree, Val};
use super::random::Random;

const ATTRIBUTES: [&str; 11] = ["id", "source", "TYPE", "type", "hop", "Limit", "urgent", "least", "a", "7up", "borte"];
const TEXTS: [&str; 26] = [
    "",
    "a",
    "ab",
    "aab",
    "abab",
    "a%b",
    "a_b",
    "5",
    "05",
    "-7",
    "+3",
    "-",
    "10",
    "true",
    "False",
    "TRUE",
    "Åse",
    "ß",
    " x\t",
    "\u{2003}é\u{a0}",
    "it's",
    "\"",
    "100%",
    "a\\nb",
    "2147483648",
    "no.ryggrad.a.v1",
];
const INTEGERS: [i32; 12] = [0, 1, -1, 2, 3, -3, 7, 10, 46_341, i32::MAX, i32::MIN, i32::MIN + 1];
const LOGIC: [&str; 3] = ["AND", "OR", "XOR"];
const COMPARISONS: [&str; 7] = ["=", "!=", "<>", "<", "<=", ">", ">="];
const SUMS: [&str; 2] = ["+", "-"];
const PRODUCTS: [&str; 3] = ["*", "/", "%"];
const PIECES: [&str; 9] = ["a", "b", "%", "%", "_", "\\%", "\\_", "\\n", "Å"];
/// Names with a usual number of arguments.
const FUNCTIONS: [(&str, u64); 18] = [
    ("LENGTH", 1),
    ("CONCAT", 2),
    ("CONCAT", 0),
    ("CONCAT_WS", 3),
    ("CONCAT_WS", 1),
    ("LOWER", 1),
    ("UPPER", 1),
    ("TRIM", 1),
    ("LEFT", 2),
    ("RIGHT", 2),
    ("SUBSTRING", 2),
    ("SUBSTRING", 3),
    ("ABS", 1),
    ("INT", 1),
    ("BOOL", 1),
    ("STRING", 1),
    ("IS_INT", 1),
    ("IS_BOOL", 1),
];

pub fn tree(random: &mut Random, depth: u64) -> Tree {
    if depth == 0 {
        return leaf(random);
    }
    let below = |random: &mut Random| {
        let depth = random.below(depth);
        Box::new(tree(random, depth))
    };
    match random.below(20) {
        0 => Tree::Not(below(random)),
        1 => Tree::Minus(below(random)),
        2..7 => Tree::Binary(random.one_of(&LOGIC), below(random), below(random)),
        7..11 => Tree::Binary(random.one_of(&COMPARISONS), below(random), below(random)),
        11 | 12 => Tree::Binary(random.one_of(&SUMS), below(random), below(random)),
        13 => Tree::Binary(random.one_of(&PRODUCTS), below(random), below(random)),
        14 | 15 => {
            let pieces = random.below(6);
            let pattern = (0..pieces).map(|_| random.one_of(&PIECES)).collect();
            Tree::Like(random.chance(30), below(random), pattern)
        }
        16 => {
            let operand = below(random);
            let elements = 1 + random.below(4);
            Tree::In(random.chance(30), operand, (0..elements).map(|_| *below(random)).collect())
        }
        _ => {
            let (name, usual) = random.one_of(&FUNCTIONS);
            let name = if random.chance(3) { "NAVN" } else { name };
            let arguments = if random.chance(4) { random.below(4) } else { usual };
            Tree::Call(in_some_case(random, name), (0..arguments).map(|_| *below(random)).collect())
        }
    }
}

fn leaf(random: &mut Random) -> Tree {
    match random.below(10) {
        0..4 => Tree::Attribute(random.one_of(&ATTRIBUTES).to_owned()),
        4 => Tree::Exists(random.one_of(&ATTRIBUTES).to_owned()),
        5 => Tree::Literal(Val::Bool(random.chance(50))),
        6 | 7 => Tree::Literal(Val::Int(random.one_of(&INTEGERS))),
        _ => Tree::Literal(Val::Str(random.one_of(&TEXTS).to_owned())),
    }
}

fn in_some_case(random: &mut Random, word: &str) -> String {
    match random.below(3) {
        0 => word.to_uppercase(),
        1 => word.to_lowercase(),
        _ => word.chars().map(|letter| if random.chance(50) { letter.to_ascii_lowercase() } else { letter.to_ascii_uppercase() }).collect(),
    }
}

/// How tightly things bind, from the loosest.
const LOGICAL: u8 = 0;
const COMPARING: u8 = 1;
const ADDING: u8 = 2;
const MULTIPLYING: u8 = 3;
const FOLLOWED: u8 = 4;
const PRECEDED: u8 = 5;
const ALONE: u8 = 6;

pub fn text(random: &mut Random, tree: &Tree) -> String {
    let mut out = String::new();
    write(random, tree, LOGICAL, &mut out);
    out
}

fn space(random: &mut Random, out: &mut String) {
    out.push_str(random.one_of(&[" ", " ", " ", "\t", "\n", "\r\n", "  "]));
}

fn word(random: &mut Random, word: &str, out: &mut String) {
    out.push_str(&in_some_case(random, word));
    space(random, out);
}

fn quoted(random: &mut Random, text: &str, out: &mut String) {
    let quote = random.one_of(&['\'', '"']);
    out.push(quote);
    for letter in text.chars() {
        if letter == quote {
            out.push('\\');
        }
        out.push(letter);
    }
    out.push(quote);
}

fn write(random: &mut Random, tree: &Tree, at_least: u8, out: &mut String) {
    let binds = match tree {
        Tree::Binary("AND" | "OR" | "XOR", ..) => LOGICAL,
        Tree::Binary("+" | "-", ..) => ADDING,
        Tree::Binary("*" | "/" | "%", ..) => MULTIPLYING,
        Tree::Binary(..) => COMPARING,
        Tree::Like(..) | Tree::In(..) => FOLLOWED,
        Tree::Not(_) | Tree::Minus(_) => PRECEDED,
        _ => ALONE,
    };
    if binds < at_least || random.chance(5) {
        out.push('(');
        write(random, tree, LOGICAL, out);
        out.push(')');
        return;
    }
    match tree {
        Tree::Literal(Val::Int(integer)) if *integer >= 0 && random.chance(10) => out.push_str(&format!("+00{integer}")),
        Tree::Literal(Val::Int(integer)) => out.push_str(&integer.to_string()),
        Tree::Literal(Val::Bool(boolean)) => out.push_str(&in_some_case(random, if *boolean { "true" } else { "false" })),
        Tree::Literal(Val::Str(text)) => quoted(random, text, out),
        Tree::Attribute(name) => out.push_str(&in_some_case(random, name)),
        Tree::Exists(name) => {
            word(random, "exists", out);
            out.push_str(name);
        }
        Tree::Not(operand) => {
            word(random, "not", out);
            write(random, operand, PRECEDED, out);
        }
        Tree::Minus(operand) => {
            // Right before digits it would be a part of the number.
            out.push_str("- ");
            write(random, operand, PRECEDED, out);
        }
        Tree::Binary(operator, left, right) => {
            // Logic groups from the right, all else from the left.
            let (left_at_least, right_at_least) = if binds == LOGICAL { (COMPARING, LOGICAL) } else { (binds, binds + 1) };
            write(random, left, left_at_least, out);
            space(random, out);
            word(random, operator, out);
            write(random, right, right_at_least, out);
        }
        Tree::Like(negated, operand, pattern) => {
            write(random, operand, FOLLOWED, out);
            space(random, out);
            if *negated {
                word(random, "not", out);
            }
            word(random, "like", out);
            quoted(random, pattern, out);
        }
        Tree::In(negated, operand, elements) => {
            write(random, operand, FOLLOWED, out);
            space(random, out);
            if *negated {
                word(random, "not", out);
            }
            word(random, "in", out);
            list(random, elements, out);
        }
        Tree::Call(name, arguments) => {
            out.push_str(name);
            if random.chance(10) {
                space(random, out);
            }
            list(random, arguments, out);
        }
    }
}

fn list(random: &mut Random, trees: &[Tree], out: &mut String) {
    out.push('(');
    for (index, tree) in trees.iter().enumerate() {
        if index > 0 {
            out.push_str(random.one_of(&[",", ", ", " ,"]));
        }
        write(random, tree, LOGICAL, out);
    }
    out.push(')');
}
