//! Signed texts in compact form (RFC 7515), and where a request carries them.
//!
//! Taken apart strictly: bounded, base64url without padding, JSON objects in which no member stands twice,
//! since two readers could then see two texts. Must never be taken for verified: that is the key's word.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::Value;

use super::claims::AccessTokens;
use super::fault::Fault;

/// Longest access token, in bytes.
pub const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// Longest proof, in bytes.
pub const PROOF_BYTES_MAX: usize = 8 * 1024;

/// What tokens of the bridge's own begin with.
const LOCAL_PREFIX: &str = "ryg";

/// What a request shows.
#[derive(Clone, Copy)]
pub struct Credentials<'r> {
    /// The access token.
    pub token: &'r str,
    /// The proof, where the deployment asks for one.
    pub proof: Option<&'r str>,
}

/// Finds them in the values of `Authorization` and `DPoP`.
pub fn credentials<'r>(
    mut authorization: impl Iterator<Item = &'r [u8]>,
    mut dpop: impl Iterator<Item = &'r [u8]>,
    tokens: AccessTokens,
) -> Result<Credentials<'r>, Fault> {
    let value = authorization.next().ok_or(Fault::NoToken)?;
    if authorization.next().is_some() {
        return Err(Fault::RepeatedHeader);
    }
    let value = std::str::from_utf8(value).map_err(|_| Fault::TokenShape)?;
    let (scheme, token) = value.split_once(' ').ok_or(Fault::Scheme)?;
    let token = token.trim_matches(' ');
    if token.starts_with(LOCAL_PREFIX) && !token.contains('.') {
        return Err(Fault::LocalToken);
    }
    if !scheme.eq_ignore_ascii_case(tokens.scheme()) {
        return Err(Fault::Scheme);
    }
    if tokens == AccessTokens::Bearer {
        return Ok(Credentials { token, proof: None });
    }
    let proof = dpop.next().ok_or(Fault::NoProof)?;
    if dpop.next().is_some() {
        return Err(Fault::ProofShape);
    }
    Ok(Credentials { token, proof: Some(std::str::from_utf8(proof).map_err(|_| Fault::ProofShape)?) })
}

/// A text taken apart.
pub struct Jws<'t> {
    header: Members,
    payload: Members,
    signed: &'t [u8],
    signature: Vec<u8>,
}

impl<'t> Jws<'t> {
    /// Takes a text apart. None where it is no compact JWS of two JSON objects.
    pub fn read(text: &'t str) -> Option<Self> {
        let (signed, signature) = text.rsplit_once('.')?;
        let (header, payload) = signed.split_once('.')?;
        let object = |part: &str| serde_json::from_slice::<Members>(&URL_SAFE_NO_PAD.decode(part).ok()?).ok();
        Some(Self {
            header: object(header)?,
            payload: object(payload)?,
            signed: signed.as_bytes(),
            signature: URL_SAFE_NO_PAD.decode(signature).ok()?,
        })
    }

    /// The name of the key that it says it was signed with.
    pub fn key_id(&self) -> Result<&str, Fault> {
        self.header_text("kid").ok_or(Fault::KeyId)
    }

    /// A member of the header.
    pub(super) fn header(&self, name: &str) -> Option<&Value> {
        self.header.0.get(name)
    }

    /// A member of the header that is a text.
    pub(super) fn header_text(&self, name: &str) -> Option<&str> {
        self.header(name).and_then(Value::as_str)
    }

    /// A claim.
    pub(super) fn claim(&self, name: &str) -> Option<&Value> {
        self.payload.0.get(name)
    }

    /// A claim that is a text.
    pub(super) fn claim_text(&self, name: &str) -> Option<&str> {
        self.claim(name).and_then(Value::as_str)
    }

    /// A claim that is a moment, in milliseconds: tenths of a second may be written too.
    pub(super) fn claim_ms(&self, name: &str) -> Option<i64> {
        let ms = self.claim(name)?.as_f64()? * 1_000.0;
        // Far beyond the calendar, and far below where numbers become coarse.
        (0.0..1e15).contains(&ms).then_some(ms as i64)
    }

    /// What was signed.
    pub(super) fn signed(&self) -> &'t [u8] {
        self.signed
    }

    /// The signature.
    pub(super) fn signature(&self) -> &[u8] {
        &self.signature
    }
}

/// Members of a JSON object, each of which stands once.
struct Members(BTreeMap<String, Value>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Once;

        impl<'de> Visitor<'de> for Once {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Members, A::Error> {
                let mut members = BTreeMap::new();
                while let Some((name, value)) = access.next_entry()? {
                    if members.insert(name, value).is_some() {
                        return Err(A::Error::custom("a member stands twice"));
                    }
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Once)
    }
}
