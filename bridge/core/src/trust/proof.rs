//! Proofs of possession (DPoP, RFC 9449): that whoever sends this request holds the token's key.
//!
//! The address in a proof is held against the one that the operator configured, never against what a request
//! says of itself. Must never let a proof through that is not of this token, this call and this moment.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use url::Url;

use super::algorithm::Algorithm;
use super::fault::Fault;
use super::jwk::{InvalidKey, Key};
use super::jws::{Jws, PROOF_BYTES_MAX};
use super::nonce::Nonces;

/// Longest `jti`, in bytes.
const ID_BYTES_MAX: usize = 256;

/// What a proof must be.
pub struct ProofRules {
    /// Where the API is, as clients see it.
    pub public_url: PublicUrl,
    /// How old a proof may be, beside what clocks may be apart.
    pub age_ms: i64,
    /// How far a client's clock may be from this one.
    pub leeway_ms: i64,
    /// The nonces that are asked for, if any are.
    pub nonces: Option<Nonces>,
}

/// A good proof, of which only this is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proof {
    /// A digest of its key and its `jti`.
    pub id: [u8; 16],
    /// Until when it could be used again.
    pub ends_at_ms: i64,
}

/// What a proof must be about.
#[derive(Clone, Copy)]
pub struct Call<'r> {
    /// The method.
    pub method: &'r str,
    /// The path, as it was asked for.
    pub path: &'r str,
    /// The access token beside it.
    pub token: &'r str,
    /// The thumbprint of the key that the token is bound to.
    pub bound_to: &'r str,
}

impl ProofRules {
    /// Holds a proof against every rule but the one that it be new.
    pub fn check(&self, text: &str, call: Call<'_>, now_ms: i64) -> Result<Proof, Fault> {
        if text.len() > PROOF_BYTES_MAX {
            return Err(Fault::ProofSize);
        }
        let jws = Jws::read(text).ok_or(Fault::ProofShape)?;
        if jws.header("crit").is_some() {
            return Err(Fault::ProofCritical);
        }
        if jws.header_text("typ") != Some("dpop+jwt") {
            return Err(Fault::ProofType);
        }
        let algorithm = jws.header_text("alg").and_then(Algorithm::named).ok_or(Fault::ProofAlgorithm)?;
        let jwk = jws.header("jwk").and_then(|jwk| jwk.as_object()).ok_or(Fault::ProofKey)?;
        let key = Key::read(jwk).map_err(|why| match why {
            InvalidKey::Private => Fault::ProofKeyPrivate,
            InvalidKey::Unfit => Fault::ProofKey,
        })?;
        if !key.is_for(algorithm) {
            return Err(Fault::ProofAlgorithm);
        }
        if key.thumbprint() != call.bound_to {
            return Err(Fault::ProofBinding);
        }
        if !key.signed(algorithm, &jws) {
            return Err(Fault::ProofSignature);
        }
        if jws.claim_text("ath") != Some(URL_SAFE_NO_PAD.encode(Sha256::digest(call.token)).as_str()) {
            return Err(Fault::ProofToken);
        }
        let id = jws.claim_text("jti").filter(|id| (1..=ID_BYTES_MAX).contains(&id.len())).ok_or(Fault::ProofId)?;
        if jws.claim_text("htm") != Some(call.method) {
            return Err(Fault::ProofMethod);
        }
        if !jws.claim_text("htu").is_some_and(|address| self.public_url.is(address, call.path)) {
            return Err(Fault::ProofAddress);
        }
        let made_at_ms = jws.claim_ms("iat").ok_or(Fault::ProofTime)?;
        let ends_at_ms = made_at_ms.saturating_add(self.age_ms).saturating_add(self.leeway_ms);
        if now_ms > ends_at_ms || made_at_ms > now_ms.saturating_add(self.leeway_ms) {
            return Err(Fault::ProofTime);
        }
        // Last of all, so that only whoever could use a nonce is told to.
        if let Some(nonces) = &self.nonces
            && !jws.claim_text("nonce").is_some_and(|nonce| nonces.takes(nonce, now_ms))
        {
            return Err(Fault::ProofNonce);
        }
        let mut digest = Sha256::new();
        digest.update(call.bound_to);
        digest.update([0]);
        digest.update(id);
        let mut id = [0; 16];
        id.copy_from_slice(&digest.finalize()[..16]);
        Ok(Proof { id, ends_at_ms })
    }
}

/// Where the API is, as clients see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicUrl(Url);

impl PublicUrl {
    /// From an absolute address with neither query nor fragment, over https; or http, for development.
    pub fn read(text: &str, development: bool) -> Option<Self> {
        let url = Url::parse(text).ok()?;
        let secure = url.scheme() == "https" || (development && url.scheme() == "http");
        let bare = url.username().is_empty() && url.password().is_none() && url.query().is_none() && url.fragment().is_none();
        (secure && bare && url.has_host()).then_some(Self(url))
    }

    /// The whole address of a path of the API.
    pub fn of(&self, path: &str) -> String {
        format!("{}{path}", self.0.as_str().trim_end_matches('/'))
    }

    /// Whether an address in a proof is the one of a path: alike but for query, fragment and what RFC 3986
    /// calls the same.
    fn is(&self, address: &str, path: &str) -> bool {
        match (Url::parse(address), Url::parse(&self.of(path))) {
            (Ok(said), Ok(own)) => {
                let bare = said.username().is_empty() && said.password().is_none();
                let alike = said.scheme() == own.scheme() && said.host() == own.host();
                let there =
                    said.port_or_known_default() == own.port_or_known_default() && unreserved(said.path()) == unreserved(own.path());
                bare && alike && there
            }
            _ => false,
        }
    }
}

/// A path with percent signs only where they are needed, and then in capital letters.
fn unreserved(path: &str) -> Vec<u8> {
    let mut plain = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let hex = |digit: u8| char::from(digit).to_digit(16);
        let coded = match (byte, after) {
            (b'%', [high, low, ..]) => hex(*high).zip(hex(*low)).and_then(|(high, low)| u8::try_from(high * 16 + low).ok()),
            _ => None,
        };
        match coded {
            Some(letter) if letter.is_ascii_alphanumeric() || b"-._~".contains(&letter) => plain.push(letter),
            Some(_) => plain.extend([b'%', after[0].to_ascii_uppercase(), after[1].to_ascii_uppercase()]),
            None => plain.push(byte),
        }
        rest = if coded.is_some() { &after[2..] } else { after };
    }
    plain
}
