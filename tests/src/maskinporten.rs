//! A stand-in for Maskinporten: a real OpenID provider with the one grant that Maskinporten has.

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::foreign;
use crate::helseid::Keys;
use crate::process::{Process, free_port};
use crate::scenario::ORGANISATION;

/// What its client may ask for.
pub const SCOPE: &str = "folkeregister:deling/offentligmedhjemmel";

/// The provider, running. Its client is `klient`, of [`ORGANISATION`].
pub struct Maskinporten {
    process: Process,
    _folder: TempDir,
    port: u16,
}

impl Maskinporten {
    /// A provider that knows the client by its RSA key, named `klient-RSA`.
    pub async fn start(issuer: &Keys, client: &Keys) -> Self {
        let (folder, port) = (tempfile::tempdir().expect("a folder"), free_port());
        let key: Value = serde_json::from_str(&issuer.pair("RS256").private_jwk("en")).expect("JSON");
        let settings = json!({"organisation": ORGANISATION, "scopes": [SCOPE], "key": key, "client": client.registered("RS256")});
        let process = foreign::serve("play_maskinporten.cjs", folder.path(), port, &settings).await;
        Self { process, _folder: folder, port }
    }

    /// Its name.
    pub fn issuer(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// How many tokens it has given.
    pub fn granted(&self) -> usize {
        self.said().lines().filter(|line| *line == "granted").count()
    }

    /// What it has said, for who wonders.
    pub fn said(&self) -> String {
        self.process.said()
    }

    /// The claims of a token, once a stock library has verified it.
    pub async fn verified(&self, token: &str) -> Value {
        foreign::node("play_maskinporten.cjs", &["verify", &self.issuer()], token.to_owned()).await.remove(0)
    }
}
