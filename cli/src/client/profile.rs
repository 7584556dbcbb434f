//! The profile: addresses and tokens that `ryggrad up` leaves for the other commands.
//!
//! Tokens never print, also not in an error about a broken file.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::exit::{Code, Stop};

/// Where the profile is unless told otherwise.
pub const DEFAULT_PATH: &str = ".ryggrad/client.toml";

/// A bearer token. Shows itself only to [`Token::reveal`].
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Token(String);

impl Token {
    /// The token itself, for an Authorization header.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether there is nothing in it, as in `RYGGRAD_TOKEN=`.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

impl FromStr for Token {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.trim().to_owned()))
    }
}

/// What a profile may hold; all of it optional.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// The bridge's address, e.g. `http://127.0.0.1:8484`.
    pub bridge: Option<String>,
    /// An organisation's token.
    pub token: Option<Token>,
    /// The operator's token.
    pub operator_token: Option<Token>,
    /// Kafka's address, e.g. `127.0.0.1:9092`.
    pub kafka: Option<String>,
    /// Certificates for that Kafka.
    pub kafka_tls: Option<TlsFiles>,
}

/// Files (PEM) to show Kafka who we are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// Whom to trust.
    pub ca_file: Option<PathBuf>,
    /// Our certificate.
    pub certificate_file: Option<PathBuf>,
    /// Its key.
    pub key_file: Option<PathBuf>,
}

impl Profile {
    /// Reads the profile named, or the default one if it is there.
    pub fn load(named: Option<&Path>) -> Result<Self, Stop> {
        let path = named.map_or_else(|| PathBuf::from(DEFAULT_PATH), Path::to_owned);
        match std::fs::read_to_string(&path) {
            Ok(text) => Self::parse(&text).map_err(|what| unreadable(&path, &what)),
            Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(unreadable(&path, &error.to_string())),
        }
    }

    /// Reads a profile's text.
    fn parse(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| {
            // The library's own rendering quotes the line, and the line may hold a token.
            let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            let what = if error.message().starts_with("unknown field") { error.message() } else { "this is not what a profile holds" };
            format!("line {line}: {what}")
        })
    }
}

fn unreadable(path: &Path, what: &str) -> Stop {
    Stop {
        code: Code::Usage,
        what: format!("the profile {} cannot be read: {what}", path.display()),
        remedy: Some("./ryggrad up writes a fresh one; RYGGRAD_PROFILE names another".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = "bridge = \"http://127.0.0.1:8484\"\ntoken = \"tok\"\noperator_token = \"op\"\nkafka = \"127.0.0.1:9092\"\n";

    #[test]
    fn a_profile_has_optional_members_alone() {
        let whole = Profile::parse(WHOLE).unwrap();
        assert_eq!(whole.bridge.as_deref(), Some("http://127.0.0.1:8484"));
        assert_eq!(whole.kafka.as_deref(), Some("127.0.0.1:9092"));
        assert_eq!(whole.token.as_ref().map(Token::reveal), Some("tok"));
        assert_eq!(whole.operator_token.as_ref().map(Token::reveal), Some("op"));
        assert_eq!(Profile::parse("").unwrap(), Profile::default());
    }

    #[test]
    fn a_broken_profile_tells_the_line_but_never_a_token() {
        for (text, line) in [
            ("bridge = \"x\"\ntoken = \"geheim", "line 2"),
            ("token = \"geheim\"\nbrigde = \"x\"\n", "line 2: unknown field `brigde`"),
            ("\n\ntoken = [\"geheim\"]\n", "line 3"),
            ("token = \"geheim\"\ntoken = \"geheim\"\n", "line 2"),
        ] {
            let error = Profile::parse(text).unwrap_err();
            assert!(error.contains(line), "{error}");
            assert!(!error.contains("geheim"), "{error}");
        }
        assert!(!format!("{:?}", Profile::parse(WHOLE).unwrap()).contains("tok\""));
    }

    #[test]
    fn only_the_default_profile_may_be_absent() {
        let nowhere = Path::new("/nonexistent/client.toml");
        assert_eq!(Profile::load(Some(nowhere)).unwrap_err().code, Code::Usage);
    }
}
