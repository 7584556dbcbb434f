//! An issuer's description of itself (OpenID Connect Discovery), of which the bridge needs where its keys are.
//!
//! Must never take the word of an issuer that calls itself by another name.

use serde_json::Value;

/// Where the description of an issuer is, below its address.
const WELL_KNOWN: &str = "/.well-known/openid-configuration";

/// What is needed of a description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Discovery {
    /// Where the issuer's keys are.
    pub jwks_uri: String,
}

/// Why a description is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDiscovery {
    /// No JSON object.
    #[error("the issuer's description is no JSON object")]
    Shape,
    /// It says that it is another issuer's.
    #[error("the description is another issuer's: its issuer is not bridge.trust.issuer to the letter")]
    OtherIssuer,
    /// It says nothing about keys.
    #[error("the issuer's description has no jwks_uri")]
    NoKeys,
}

impl Discovery {
    /// Where the description of an issuer is.
    pub fn address(issuer: &str) -> String {
        format!("{}{WELL_KNOWN}", issuer.trim_end_matches('/'))
    }

    /// Reads the description of an issuer.
    pub fn read(document: &[u8], issuer: &str) -> Result<Self, InvalidDiscovery> {
        let Ok(Value::Object(members)) = serde_json::from_slice(document) else { return Err(InvalidDiscovery::Shape) };
        if members.get("issuer").and_then(Value::as_str) != Some(issuer) {
            return Err(InvalidDiscovery::OtherIssuer);
        }
        let jwks_uri = members.get("jwks_uri").and_then(Value::as_str).ok_or(InvalidDiscovery::NoKeys)?;
        Ok(Self { jwks_uri: jwks_uri.to_owned() })
    }
}
