//! Exit codes, and the sentence that a failed command leaves on stderr.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | it failed |
//! | 2 | the command line is wrong, or lacks something |
//! | 3 | not found, or refused by the server or an issuer |
//! | 4 | the bridge, Kafka or an issuer cannot be reached |
//! | 5 | a comparison or verification found a difference |
//!
//! Scripts rely on these numbers: must never change one.

use std::io::Write;
use std::process::ExitCode;

use ryggrad_consumers::read;
use ryggrad_producers::{CredentialsError, TokenError};

use crate::client::CallError;
use crate::output;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    /// Done.
    Ok = 0,
    /// It failed.
    Failure = 1,
    /// The command line is wrong, or lacks something.
    Usage = 2,
    /// Not found, or refused by the server.
    Refused = 3,
    /// The bridge or Kafka cannot be reached.
    Unreachable = 4,
    /// A comparison or verification found a difference.
    Differs = 5,
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code as u8)
    }
}

/// An error that knows its code and what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct Stop {
    /// The code to end with.
    pub code: Code,
    /// What went wrong.
    pub what: String,
    /// What to do about it.
    pub remedy: Option<String>,
}

impl Stop {
    /// Something is missing from the command line, the environment or the profile.
    pub fn usage(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { code: Code::Usage, what: what.into(), remedy: Some(remedy.into()) }
    }
}

/// The exit code of a failed command, after saying on `stderr` what went wrong and what to do.
pub fn report(error: &anyhow::Error, stderr: &mut dyn Write) -> Code {
    let (code, remedy) = judge(error);
    if code == Code::Ok {
        return code;
    }
    let mut causes: Vec<String> = Vec::new();
    for cause in error.chain() {
        let text = cause.to_string();
        // Some libraries repeat their cause in their own text.
        if !causes.last().is_some_and(|last| last.ends_with(&text)) {
            causes.push(text);
        }
    }
    let remedy = remedy.map(|remedy| format!("; {remedy}")).unwrap_or_default();
    // If stderr is gone too, only the code is left to tell.
    let _ = writeln!(stderr, "ryggrad: {}{remedy}", output::printable(&causes.join(": ")));
    code
}

fn judge(error: &anyhow::Error) -> (Code, Option<String>) {
    error.chain().find_map(judge_cause).unwrap_or((Code::Failure, None))
}

fn judge_cause(cause: &(dyn std::error::Error + 'static)) -> Option<(Code, Option<String>)> {
    if let Some(stop) = cause.downcast_ref::<Stop>() {
        return Some((stop.code, stop.remedy.clone()));
    }
    if let Some(call) = cause.downcast_ref::<CallError>() {
        return Some((call.code(), call.remedy()));
    }
    if let Some(read) = cause.downcast_ref::<read::Error>() {
        return Some(judge_read(read));
    }
    if let Some(log) = cause.downcast_ref::<ryggrad_log::Error>() {
        return Some(judge_log(log));
    }
    if let Some(credentials) = cause.downcast_ref::<CredentialsError>() {
        return Some((if matches!(credentials, CredentialsError::Client(_)) { Code::Failure } else { Code::Usage }, None));
    }
    if let Some(token) = cause.downcast_ref::<TokenError>() {
        let code = match token {
            TokenError::Refused { .. } | TokenError::ScopeRejected { .. } => Code::Refused,
            unreachable if unreachable.is_unreachable() => Code::Unreachable,
            _ => Code::Failure,
        };
        return Some((code, Some(token.remedy().to_owned())));
    }
    // The reader of our output has seen enough, as `head` does.
    let closed = matches!(cause.downcast_ref::<output::Error>(), Some(output::Error::Closed));
    closed.then_some((Code::Ok, None))
}

fn judge_read(error: &read::Error) -> (Code, Option<String>) {
    match error {
        read::Error::UnknownTopic { .. } | read::Error::UnknownPartition { .. } => {
            (Code::Refused, Some("ryggrad topics list shows what there is".to_owned()))
        }
        read::Error::MissingTopic { .. } => (Code::Refused, Some("ryggrad topics create makes it".to_owned())),
        read::Error::Stalled { .. } => (Code::Unreachable, Some("is Kafka busy or half down? Try again".to_owned())),
        read::Error::Log(error) => judge_log(error),
    }
}

fn judge_log(error: &ryggrad_log::Error) -> (Code, Option<String>) {
    if error.is_unreachable() {
        let remedy = "is Kafka running? Start it with ./ryggrad up, or name it with --kafka or KAFKA_BOOTSTRAP";
        return (Code::Unreachable, Some(remedy.to_owned()));
    }
    (Code::Failure, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Problem;
    use anyhow::Context as _;

    fn reported(error: anyhow::Error) -> (Code, String) {
        let mut stderr = Vec::new();
        let code = report(&error, &mut stderr);
        (code, String::from_utf8(stderr).unwrap())
    }

    #[test]
    fn the_cause_decides_the_code_however_deep_it_lies() {
        let problem = |status| Problem::read(status, None, b"");
        let missing = || read::Error::MissingTopic { topic: "t".to_owned() };
        for (error, expected) in [
            (anyhow::anyhow!("x"), Code::Failure),
            (Stop::usage("x", "y").into(), Code::Usage),
            (CallError::Refused(problem(404)).into(), Code::Refused),
            (CallError::Failed(problem(500)).into(), Code::Failure),
            (missing().into(), Code::Refused),
            (anyhow::Error::from(missing()).context("outer"), Code::Refused),
            (read::Error::Stalled { topic: "t".to_owned(), waited_ms: 1 }.into(), Code::Unreachable),
            (TokenError::Refused { status: 401, code: "invalid_client".to_owned() }.into(), Code::Refused),
            (TokenError::Unavailable { status: 503 }.into(), Code::Unreachable),
            (output::Error::Closed.into(), Code::Ok),
        ] {
            assert_eq!(reported(error).0, expected);
        }
    }

    #[test]
    fn one_sentence_holds_the_chain_and_the_remedy() {
        let error = Err::<(), _>(Stop::usage("no token", "set RYGGRAD_TOKEN")).context("cannot list").unwrap_err();
        assert_eq!(reported(error).1, "ryggrad: cannot list: no token; set RYGGRAD_TOKEN\n");
        assert_eq!(reported(output::Error::Closed.into()).1, "");
    }
}
