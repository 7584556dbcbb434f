//! What an issuer says: the document about itself, and its answer to the question for a token. Pure.
//!
//! Must never take the word of an issuer that calls itself by another name, nor let an answer's own text into
//! an error: of a refusal only its code is kept.

use std::time::Duration;

use secrecy::SecretString;
use serde_json::{Map, Value};
use url::Url;

use super::error::TokenError;
use crate::http::is_loopback;

/// Longest code of a refusal that is repeated.
const CODE_BYTES_MAX: usize = 64;
/// The longest that a token is believed to last.
const LIFETIME_MAX: Duration = Duration::from_secs(86_400);

/// Why an issuer's document is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMetadata {
    /// No JSON object.
    #[error("the issuer's document about itself is no JSON object")]
    Shape,
    /// It says that it is another issuer's.
    #[error("the document is another issuer's: its issuer is not the one in the settings, to the letter")]
    OtherIssuer,
    /// No address for tokens, or one that secrets must not be sent to.
    #[error("the issuer's document has no token_endpoint that is an https address")]
    Endpoint,
}

/// Why an answer is no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAnswer {
    /// No JSON object.
    #[error("the issuer's answer is no JSON object")]
    Shape,
    /// Without a token, or with one that fits into no header.
    #[error("the issuer's answer has no access_token that could be sent")]
    Token,
    /// Bound to nothing where it should be, or the other way around.
    #[error("the issuer's token is of another type than asked for: {asked} was")]
    Type {
        /// The type that was asked for.
        asked: &'static str,
    },
    /// It does not say how long it lasts.
    #[error("the issuer's answer has no expires_in")]
    NoEnd,
    /// Longer than is read.
    #[error("the issuer's answer is too long")]
    TooLong,
}

/// Whether secrets may be sent there: over https, or within this machine.
pub(crate) fn is_secure(url: &Url) -> bool {
    url.has_host()
        && url.username().is_empty()
        && url.password().is_none()
        && (url.scheme() == "https" || is_loopback(url) && url.scheme() == "http")
}

/// Where an issuer takes requests for tokens, by its document.
pub fn token_endpoint(document: &[u8], issuer: &str) -> Result<Url, InvalidMetadata> {
    let members: Map<String, Value> = serde_json::from_slice(document).map_err(|_| InvalidMetadata::Shape)?;
    let text = |name: &str| members.get(name).and_then(Value::as_str);
    if text("issuer") != Some(issuer) {
        return Err(InvalidMetadata::OtherIssuer);
    }
    let endpoint = text("token_endpoint").and_then(|address| Url::parse(address).ok());
    endpoint.filter(is_secure).ok_or(InvalidMetadata::Endpoint)
}

/// A token as it was issued.
#[derive(Debug)]
pub struct Issued {
    /// The token.
    pub token: SecretString,
    /// How long it lasts.
    pub lifetime: Duration,
    /// What it opens, where that is not just what was asked for.
    pub scope: Option<String>,
}

/// Reads an answer to the question for a token of a type.
pub fn issued(status: u16, body: &[u8], asked: &'static str) -> Result<Issued, TokenError> {
    let members: Option<Map<String, Value>> = serde_json::from_slice(body).ok();
    let text = |name: &str| members.as_ref().and_then(|members| members.get(name)).and_then(Value::as_str);
    if status != 200 {
        return Err(if status == 429 || status >= 500 {
            TokenError::Unavailable { status }
        } else {
            TokenError::Refused { status, code: code(text("error").unwrap_or_default()) }
        });
    }
    if members.is_none() {
        return Err(InvalidAnswer::Shape.into());
    }
    // HelseID's own: an organisation that has not accepted the API's terms.
    if let Some(rejected) = text("rejected_scope").filter(|rejected| !rejected.is_empty()) {
        return Err(TokenError::ScopeRejected { scope: scopes(rejected) });
    }
    let token = text("access_token").filter(|token| !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()));
    let token = SecretString::from(token.ok_or(InvalidAnswer::Token)?);
    if !text("token_type").is_some_and(|kind| kind.eq_ignore_ascii_case(asked)) {
        return Err(InvalidAnswer::Type { asked }.into());
    }
    let lifetime_s = members.as_ref().and_then(|members| members.get("expires_in")).and_then(Value::as_u64).filter(|seconds| *seconds > 0);
    let lifetime = Duration::from_secs(lifetime_s.ok_or(InvalidAnswer::NoEnd)?).min(LIFETIME_MAX);
    Ok(Issued { token, lifetime, scope: text("scope").map(scopes) })
}

/// The code of a refusal, if it is one: RFC 6749 has words of letters and underscores.
fn code(text: &str) -> String {
    let is_code = (1..=CODE_BYTES_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    if is_code { text.to_owned() } else { "no error code".to_owned() }
}

/// Scopes as they can be shown.
fn scopes(text: &str) -> String {
    text.chars().filter(char::is_ascii).filter(|letter| !letter.is_ascii_control()).take(1_024).collect()
}
