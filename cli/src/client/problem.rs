//! A refusal as the bridge tells it: `application/problem+json` (RFC 9457), or whatever a proxy
//! in between has written instead.
//!
//! Every member is shown, also those that this program does not know. Must never fail.

use std::fmt;

use serde_json::{Map, Value};

const PLAIN_TEXT_CHARS_MAX: usize = 300;

/// One refusal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Problem {
    /// HTTP status.
    pub status: u16,
    /// What kind of problem, in a few words.
    pub title: String,
    /// What is wrong this time.
    pub detail: Option<String>,
    /// What is wrong with single members: a JSON pointer, and what.
    pub errors: Vec<(String, String)>,
    /// The remaining members, `type` among them.
    pub others: Vec<(String, String)>,
}

impl Problem {
    /// Reads an answer's body.
    pub fn read(status: u16, reason: Option<&str>, body: &[u8]) -> Self {
        let mut problem = match serde_json::from_slice(body) {
            Ok(Value::Object(members)) => Self::from_members(members),
            _ => Self { detail: plain_text(body), ..Self::default() },
        };
        problem.status = status;
        if problem.title.is_empty() {
            problem.title = reason.unwrap_or("no reason given").to_owned();
        }
        problem
    }

    fn from_members(mut members: Map<String, Value>) -> Self {
        // The status line counts; the member repeats it.
        members.remove("status");
        let title = members.remove("title").map(text).unwrap_or_default();
        let detail = members.remove("detail").map(text).filter(|detail| !detail.is_empty());
        let errors = match members.remove("errors") {
            Some(Value::Array(items)) => items.into_iter().map(error).collect(),
            Some(other) => vec![(String::new(), text(other))],
            None => Vec::new(),
        };
        if members.get("type").and_then(Value::as_str) == Some("about:blank") {
            members.remove("type");
        }
        let others = members.into_iter().map(|(name, value)| (name, text(value))).collect();
        Self { status: 0, title, detail, errors, others }
    }
}

fn error(item: Value) -> (String, String) {
    match item {
        Value::Object(mut members) => {
            let pointer = members.remove("pointer").map(text).unwrap_or_default();
            let detail = members.remove("detail").map(text).unwrap_or_default();
            let rest = if members.is_empty() { String::new() } else { format!(" {}", Value::Object(members)) };
            (pointer, detail.trim_end_matches('.').to_owned() + &rest)
        }
        other => (String::new(), text(other)),
    }
}

fn text(value: Value) -> String {
    match value {
        Value::String(text) => text,
        other => other.to_string(),
    }
}

fn plain_text(body: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(body);
    let words: Vec<&str> = text.split_whitespace().collect();
    let text: String = words.join(" ").chars().take(PLAIN_TEXT_CHARS_MAX).collect();
    (!text.is_empty()).then_some(text)
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.title.trim_end_matches('.'), self.status)?;
        if let Some(detail) = &self.detail {
            write!(f, ". {}", detail.trim_end_matches('.'))?;
        }
        for (pointer, detail) in &self.errors {
            let separator = if pointer.is_empty() { "" } else { ": " };
            write!(f, ". {pointer}{separator}{}", detail.trim_end_matches('.'))?;
        }
        for (name, value) in &self.others {
            write!(f, ". {name}: {value}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_becomes_sentences_with_every_member() {
        for (body, expected) in [
            (
                r#"{"type":"https://ryggrad.no/errors/sink","title":"The sink is refused.","status":422,"detail":"It is not https.",
                    "errors":[{"pointer":"/sink","detail":"must start with https://"},{"pointer":"/types/0","detail":"is unknown.","known":["a"]}],"trace":7}"#,
                "The sink is refused (422). It is not https. /sink: must start with https://. /types/0: is unknown {\"known\":[\"a\"]}. trace: 7. type: https://ryggrad.no/errors/sink",
            ),
            (r#"{"type":"about:blank","title":"Not Found"}"#, "Not Found (422)"),
            (r#"{"title":17,"errors":"all of it"}"#, "17 (422). all of it"),
            (r#"{"errors":["a",{"detail":"b"}]}"#, "Unprocessable Content (422). a. b"),
            ("", "Unprocessable Content (422)"),
            ("<html>\n  <b>Bad</b> gateway\n", "Unprocessable Content (422). <html> <b>Bad</b> gateway"),
            ("[1]", "Unprocessable Content (422). [1]"),
        ] {
            assert_eq!(Problem::read(422, Some("Unprocessable Content"), body.as_bytes()).to_string(), expected);
        }
        assert_eq!(Problem::read(599, None, b"").to_string(), "no reason given (599)");
    }

    #[test]
    fn a_long_page_is_cut() {
        let page = "x".repeat(10_000);
        assert_eq!(Problem::read(502, None, page.as_bytes()).detail.map(|detail| detail.len()), Some(PLAIN_TEXT_CHARS_MAX));
    }
}
