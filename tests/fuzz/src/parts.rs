//! How an input is divided among the parsers of a target, and what all of them are held to.

use serde_json::Value;

/// The input of one parser of several: the first byte chooses.
pub(crate) fn choose(input: &[u8], parsers: u8) -> Option<(u8, &[u8])> {
    let (first, rest) = input.split_first()?;
    Some((first % parsers, rest))
}

/// Two parts, with a zero byte between them.
pub(crate) fn divide(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = input.iter().position(|byte| *byte == 0)?;
    Some((&input[..at], &input[at + 1..]))
}

/// A seed for one parser of several.
pub(crate) fn seed(parser: u8, input: impl AsRef<[u8]>) -> Vec<u8> {
    [&[parser], input.as_ref()].concat()
}

/// A few bytes each of which is changed; none of them: the original. Three bytes a change: where, and with what.
pub(crate) fn altered(original: &[u8], changes: &[u8]) -> Vec<u8> {
    let mut altered = original.to_vec();
    for change in changes.chunks_exact(3) {
        let at = usize::from(u16::from_be_bytes([change[0], change[1]]));
        if let Some(byte) = altered.get_mut(at) {
            *byte ^= change[2];
        }
    }
    altered
}

/// Nothing in an error may be of the input: no word of nine or more letters and digits of which one at least is a
/// digit, such as a number of an organisation or a person, a key or a part of a token.
pub(crate) fn tells_nothing_of(error: &str, input: &[u8]) {
    for word in input.split(|byte| !byte.is_ascii_alphanumeric()) {
        if word.len() >= 9 && word.iter().any(u8::is_ascii_digit) {
            let word = std::str::from_utf8(word).unwrap();
            assert!(!error.contains(word), "the error {error:?} repeats {word:?}");
        }
    }
}

/// The whole story of an error, causes and all.
pub(crate) fn told(error: &dyn std::error::Error) -> String {
    let mut text = format!("{error} {error:?}");
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// An input as JSON.
pub(crate) fn json(input: &[u8]) -> Option<Value> {
    serde_json::from_slice(input).ok()
}

/// Whether the JSON library's values say what a text says: they do not where a name stands that it keeps for itself.
pub(crate) fn is_plain(text: &str) -> bool {
    // Any letter of such a name may be escaped.
    !text.contains("serde_json") && !text.contains("\\u00")
}
