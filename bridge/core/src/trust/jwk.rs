//! Public keys as JSON (RFC 7517), their thumbprints (RFC 7638), and an issuer's set of them.
//!
//! A key says by its own kind which algorithms it is for; what a signed text says is held against that. Must
//! never take a key that has a private part, and never hold more keys than `KEYS_MAX`.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{RsaPublicKeyComponents, UnparsedPublicKey};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::algorithm::{Algorithm, Verification};
use super::fault::Fault;
use super::jws::Jws;

/// Most keys of an issuer that are held.
const KEYS_MAX: usize = 64;
/// Longest name of a key, in bytes.
const KID_BYTES_MAX: usize = 256;
/// Members that no public key has: of RSA, of curves, and of shared secrets.
const PRIVATE: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// A public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// The one algorithm that it says it is for.
    algorithm: Option<Algorithm>,
    material: Material,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Material {
    Rsa {
        modulus: Vec<u8>,
        exponent: Vec<u8>,
    },
    /// The point, uncompressed.
    Curve {
        curve: Curve,
        point: Vec<u8>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Curve {
    P256,
    P384,
}

impl Curve {
    const fn parts(self) -> (&'static str, usize, Algorithm) {
        match self {
            Self::P256 => ("P-256", 32, Algorithm::Es256),
            Self::P384 => ("P-384", 48, Algorithm::Es384),
        }
    }
}

/// Why a JSON object is no key to verify with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InvalidKey {
    /// It has a private part.
    Private,
    /// A kind that is not taken, for another use, or malformed.
    Unfit,
}

impl Key {
    /// Reads a key.
    pub(super) fn read(jwk: &Map<String, Value>) -> Result<Self, InvalidKey> {
        if PRIVATE.iter().any(|name| jwk.contains_key(*name)) {
            return Err(InvalidKey::Private);
        }
        Self::public(jwk).ok_or(InvalidKey::Unfit)
    }

    fn public(jwk: &Map<String, Value>) -> Option<Self> {
        let text = |name: &str| jwk.get(name).and_then(Value::as_str);
        let bytes = |name: &str| text(name).and_then(|encoded| URL_SAFE_NO_PAD.decode(encoded).ok()).filter(|bytes| !bytes.is_empty());
        let verifies = |operations: &Value| operations.as_array().is_some_and(|all| all.iter().any(|one| one == "verify"));
        if jwk.get("use").is_some_and(|for_what| for_what != "sig") || jwk.get("key_ops").is_some_and(|operations| !verifies(operations)) {
            return None;
        }
        let algorithm = match jwk.get("alg") {
            None => None,
            Some(named) => Some(Algorithm::named(named.as_str()?)?),
        };
        let material = match text("kty")? {
            "RSA" => Material::Rsa { modulus: bytes("n")?, exponent: bytes("e")? },
            "EC" => {
                let curve = [Curve::P256, Curve::P384].into_iter().find(|curve| text("crv") == Some(curve.parts().0))?;
                let (x, y) = (bytes("x")?, bytes("y")?);
                if x.len() != curve.parts().1 || y.len() != x.len() {
                    return None;
                }
                Material::Curve { curve, point: [&[4], x.as_slice(), y.as_slice()].concat() }
            }
            _ => return None,
        };
        Some(Self { algorithm, material })
    }

    /// Whether an algorithm is one of this key's.
    pub(super) fn is_for(&self, algorithm: Algorithm) -> bool {
        let fits = match (&self.material, algorithm.verification()) {
            (Material::Rsa { .. }, Verification::Rsa(_)) => true,
            (Material::Curve { curve, .. }, Verification::Curve(_)) => curve.parts().2 == algorithm,
            _ => false,
        };
        fits && self.algorithm.is_none_or(|own| own == algorithm)
    }

    /// Whether a text was signed with the private half of this key.
    pub(super) fn signed(&self, algorithm: Algorithm, jws: &Jws<'_>) -> bool {
        let verified = match (&self.material, algorithm.verification()) {
            (Material::Rsa { modulus, exponent }, Verification::Rsa(parameters)) => {
                RsaPublicKeyComponents { n: modulus, e: exponent }.verify(parameters, jws.signed(), jws.signature())
            }
            (Material::Curve { point, .. }, Verification::Curve(curve)) => {
                UnparsedPublicKey::new(curve, point).verify(jws.signed(), jws.signature())
            }
            _ => return false,
        };
        self.is_for(algorithm) && verified.is_ok()
    }

    /// Its thumbprint: SHA-256 over the members that make it up, in their one order.
    pub(super) fn thumbprint(&self) -> String {
        let encoded = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        // None of the values needs an escape.
        let members = match &self.material {
            Material::Rsa { modulus, exponent } => {
                format!(r#"{{"e":"{}","kty":"RSA","n":"{}"}}"#, encoded(exponent), encoded(modulus))
            }
            Material::Curve { curve, point } => {
                let (name, bytes, _) = curve.parts();
                let (x, y) = point[1..].split_at(bytes);
                format!(r#"{{"crv":"{name}","kty":"EC","x":"{}","y":"{}"}}"#, encoded(x), encoded(y))
            }
        };
        encoded(&Sha256::digest(members))
    }
}

/// Why a document is no set of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKeySet {
    /// Not JSON with `keys`.
    #[error("the issuer's keys are no JWK set")]
    Shape,
    /// Nothing to verify with.
    #[error("the issuer publishes no key that could verify a token")]
    Empty,
}

/// The keys of an issuer, by their names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeySet(Vec<(String, Key)>);

impl KeySet {
    /// Reads a set. Keys of other kinds and for other uses are left out, as are those without a name.
    pub fn read(document: &[u8]) -> Result<Self, InvalidKeySet> {
        let document: Value = serde_json::from_slice(document).map_err(|_| InvalidKeySet::Shape)?;
        let keys = document.get("keys").and_then(Value::as_array).ok_or(InvalidKeySet::Shape)?;
        let read = |jwk: &Value| {
            let jwk = jwk.as_object()?;
            let kid = jwk.get("kid")?.as_str().filter(|kid| kid.len() <= KID_BYTES_MAX)?;
            Some((kid.to_owned(), Key::read(jwk).ok()?))
        };
        let keys: Vec<_> = keys.iter().filter_map(read).take(KEYS_MAX).collect();
        if keys.is_empty() { Err(InvalidKeySet::Empty) } else { Ok(Self(keys)) }
    }

    /// The key of that name.
    pub fn find(&self, kid: &str) -> Result<&Key, Fault> {
        self.0.iter().find(|(name, _)| name == kid).map(|(_, key)| key).ok_or(Fault::UnknownKey)
    }
}
