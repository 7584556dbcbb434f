//! Settings of `[bridge.trust]`: the issuer whose tokens open the API.
//!
//! Must never start a bridge with an issuer that it could not hold anyone to.

use ryggrad_bridge_core::trust::{AccessTokens, ProofRules, PublicUrl, TokenRules};
use serde::{Deserialize, Serialize};
use url::Url;

/// The issuer, and how strictly its tokens and the proofs beside them are taken.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrustConfig {
    /// The issuer's address, as its tokens name it (`iss`), to the letter.
    pub issuer: String,
    /// This API's name at the issuer (`aud`), which its scopes begin with.
    pub audience: String,
    /// Where this API is, as clients see it: what proofs are made for.
    pub public_url: String,
    /// `dpop` or `bearer`; never both.
    pub access_tokens: AccessTokens,
    /// Whether proofs must carry a nonce of this bridge.
    pub require_dpop_nonce: bool,
    /// How far clocks may be apart.
    pub leeway_ms: u32,
    /// How old a proof may be, beside that.
    pub proof_age_ms: u32,
    /// Proofs that are remembered so that none is used twice; beyond this, requests are refused.
    pub proofs_max: usize,
    /// How often the issuer's keys are fetched anew.
    pub jwks_cache_ms: u64,
    /// For how long beyond that its last keys count while it is away.
    pub jwks_outage_ms: u64,
    /// How long after an attempt to fetch keys the next may follow: for a key that is not known, or after a failure.
    pub jwks_refresh_min_ms: u64,
    /// Bytes of a document of the issuer.
    pub document_bytes_max: usize,
    /// How long the issuer may take for one.
    pub document_timeout_ms: u64,
    /// Units that lie below others, all of which are held in memory (some 20 bytes each).
    pub units_max: usize,
}

impl Default for TrustConfig {
    fn default() -> Self {
        Self {
            issuer: String::new(),
            audience: String::new(),
            public_url: String::new(),
            access_tokens: AccessTokens::Dpop,
            require_dpop_nonce: false,
            leeway_ms: 5_000,
            proof_age_ms: 10_000,
            proofs_max: 100_000,
            jwks_cache_ms: 24 * 3_600_000,
            jwks_outage_ms: 6 * 3_600_000,
            jwks_refresh_min_ms: 10_000,
            document_bytes_max: 256 * 1024,
            document_timeout_ms: 10_000,
            units_max: 4_000_000,
        }
    }
}

/// Which setting cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTrust {
    /// The issuer.
    #[error("bridge.trust.issuer is an https address without query and fragment, as the issuer's tokens name it")]
    Issuer,
    /// The audience.
    #[error("bridge.trust.audience is this API's name at the issuer, like nhn:hendelser, of visible characters")]
    Audience,
    /// The public address.
    #[error("bridge.trust.public_url is the https address of this API as clients see it, without query and fragment")]
    PublicUrl,
}

impl TrustConfig {
    /// What tokens and proofs must be. Plain http is for development.
    pub(super) fn rules(&self, development: bool) -> Result<(TokenRules, ProofRules), InvalidTrust> {
        let issuer = Url::parse(&self.issuer).map_err(|_| InvalidTrust::Issuer)?;
        let secure = issuer.scheme() == "https" || (development && issuer.scheme() == "http");
        if !secure || !issuer.has_host() || issuer.query().is_some() || issuer.fragment().is_some() {
            return Err(InvalidTrust::Issuer);
        }
        // It stands in headers, between quotes.
        let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
        if self.audience.is_empty() || !self.audience.bytes().all(plain) {
            return Err(InvalidTrust::Audience);
        }
        let public_url = PublicUrl::read(&self.public_url, development).ok_or(InvalidTrust::PublicUrl)?;
        let leeway_ms = self.leeway_ms.into();
        let tokens = TokenRules { issuer: self.issuer.clone(), audience: self.audience.clone(), tokens: self.access_tokens, leeway_ms };
        Ok((tokens, ProofRules { public_url, age_ms: self.proof_age_ms.into(), leeway_ms, nonces: None }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issuer_that_nobody_could_be_held_to_is_refused() {
        let good = TrustConfig {
            issuer: "https://sts.example.org".to_owned(),
            audience: "nhn:hendelser".to_owned(),
            public_url: "https://hendelser.example.org".to_owned(),
            ..TrustConfig::default()
        };
        let with = |change: &dyn Fn(&mut TrustConfig)| {
            let mut config = good.clone();
            change(&mut config);
            config
        };
        let plain = with(&|config| config.issuer = "http://127.0.0.1:1".to_owned());
        for (config, development, expected) in [
            (good.clone(), false, None),
            (plain.clone(), true, None),
            (plain, false, Some(InvalidTrust::Issuer)),
            (with(&|config| config.issuer = String::new()), false, Some(InvalidTrust::Issuer)),
            (with(&|config| config.issuer.push_str("/?x")), false, Some(InvalidTrust::Issuer)),
            (with(&|config| config.audience = String::new()), false, Some(InvalidTrust::Audience)),
            (with(&|config| config.audience = "a\"b".to_owned()), false, Some(InvalidTrust::Audience)),
            (with(&|config| config.public_url = "hendelser.example.org".to_owned()), false, Some(InvalidTrust::PublicUrl)),
            (with(&|config| config.public_url = "http://x.example.org".to_owned()), false, Some(InvalidTrust::PublicUrl)),
        ] {
            assert_eq!(config.rules(development).err(), expected, "{config:?}");
        }
    }
}
