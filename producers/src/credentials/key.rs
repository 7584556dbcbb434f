//! The key that this client signs with, from a JWK or from PKCS #8 in PEM.
//!
//! ring signs: RSA of 2048 to 4096 bits, P-256 and P-384. HelseID's own tools make P-521 too, which is refused in
//! words. Must never print or give away the private half.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::error::{KeyRejected, Unspecified};
use ring::rand::{SecureRandom, SystemRandom};
use ring::rsa::{KeyPairComponents, PublicKeyComponents};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, KeyPair as _, RSA_PKCS1_SHA256,
    RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaEncoding, RsaKeyPair,
};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// How texts are signed (JOSE).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// With SHA-384.
    Rs384,
    /// With SHA-512.
    Rs512,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// With SHA-384.
    Ps384,
    /// With SHA-512.
    Ps512,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
}

impl Algorithm {
    const ALL: [Self; 8] = [Self::Rs256, Self::Rs384, Self::Rs512, Self::Ps256, Self::Ps384, Self::Ps512, Self::Es256, Self::Es384];

    /// Its name in JOSE.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
        }
    }

    fn padding(self) -> Option<&'static dyn RsaEncoding> {
        Some(match self {
            Self::Rs256 => &RSA_PKCS1_SHA256,
            Self::Rs384 => &RSA_PKCS1_SHA384,
            Self::Rs512 => &RSA_PKCS1_SHA512,
            Self::Ps256 => &RSA_PSS_SHA256,
            Self::Ps384 => &RSA_PSS_SHA384,
            Self::Ps512 => &RSA_PSS_SHA512,
            Self::Es256 | Self::Es384 => return None,
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Curve {
    P256,
    P384,
}

impl Curve {
    const ALL: [Self; 2] = [Self::P256, Self::P384];

    fn parts(self) -> (&'static str, Algorithm, &'static EcdsaSigningAlgorithm) {
        match self {
            Self::P256 => ("P-256", Algorithm::Es256, &ECDSA_P256_SHA256_FIXED_SIGNING),
            Self::P384 => ("P-384", Algorithm::Es384, &ECDSA_P384_SHA384_FIXED_SIGNING),
        }
    }
}

/// Why a text is no key to sign with.
#[derive(Debug, thiserror::Error)]
pub enum InvalidKey {
    /// Neither form.
    #[error("it is neither a JWK (a JSON object) nor an unencrypted private key in PKCS #8 (PEM, \"BEGIN PRIVATE KEY\")")]
    Form,
    /// A public key.
    #[error("it is the public half of a key; the private one signs")]
    Public,
    /// Something is missing, or no base64url.
    #[error("its member {0} is missing, or no base64url")]
    Member(&'static str),
    /// No key that can be signed with here.
    #[error("its kind is not taken: RSA of 2048 to 4096 bits, P-256 and P-384 are (P-521 and Ed25519 are not)")]
    Kind,
    /// The numbers do not make a key.
    #[error("it is no sound key ({0})")]
    Unsound(KeyRejected),
    /// An algorithm that is not this key's.
    #[error("{wanted} cannot be used with it; {fits} can")]
    Algorithm {
        /// The algorithm that was asked for.
        wanted: String,
        /// Those that can be used.
        fits: String,
    },
}

enum Pair {
    Rsa(RsaKeyPair),
    Curve(Curve, EcdsaKeyPair),
}

/// A key pair, with the algorithm that it is used with.
pub struct SigningKey {
    pair: Pair,
    algorithm: Algorithm,
    id: Option<String>,
    random: SystemRandom,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(…)")
    }
}

impl SigningKey {
    /// Reads a key. The algorithm is the one asked for, else the one that the key names, else `rsa` or the curve's.
    pub fn read(text: &str, algorithm: Option<Algorithm>, rsa: Algorithm) -> Result<Self, InvalidKey> {
        let (pair, id, named) = if text.trim_start().starts_with('{') {
            let jwk: Map<String, Value> = serde_json::from_str(text).map_err(|_| InvalidKey::Form)?;
            let text = |name: &str| jwk.get(name).and_then(Value::as_str).map(str::to_owned);
            (from_jwk(&jwk)?, text("kid"), text("alg"))
        } else {
            let der = PrivatePkcs8KeyDer::from_pem_slice(text.as_bytes()).map_err(|_| InvalidKey::Form)?;
            (from_pkcs8(der.secret_pkcs8_der())?, None, None)
        };
        let fits: Vec<Algorithm> = Algorithm::ALL.into_iter().filter(|algorithm| pair.takes(*algorithm)).collect();
        let wanted = algorithm.map(|algorithm| algorithm.name().to_owned()).or(named);
        let algorithm = match &wanted {
            Some(wanted) => fits.iter().find(|algorithm| algorithm.name() == wanted),
            None => fits.iter().find(|algorithm| **algorithm == rsa).or(fits.first()),
        };
        let names = || fits.iter().map(|algorithm| algorithm.name()).collect::<Vec<_>>().join(", ");
        let refused = || InvalidKey::Algorithm { wanted: wanted.clone().unwrap_or_default(), fits: names() };
        Ok(Self { algorithm: *algorithm.ok_or_else(refused)?, pair, id, random: SystemRandom::new() })
    }

    /// A fresh key on P-256, which nobody else ever has.
    pub(super) fn fresh() -> Result<Self, InvalidKey> {
        let random = SystemRandom::new();
        let broken = |Unspecified| InvalidKey::Kind;
        let der = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).map_err(broken)?;
        Ok(Self { pair: from_pkcs8(der.as_ref())?, algorithm: Algorithm::Es256, id: None, random })
    }

    /// The algorithm that it is used with.
    pub(super) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The name that its file gives it.
    pub(super) fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// The public half, as a JWK.
    pub fn public_jwk(&self) -> Value {
        let encoded = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match &self.pair {
            Pair::Rsa(pair) => {
                let PublicKeyComponents::<Vec<u8>> { n, e } = pair.public().into();
                json!({"kty": "RSA", "n": encoded(&n), "e": encoded(&e)})
            }
            Pair::Curve(curve, pair) => {
                // The point, uncompressed: a byte that says so, and its halves.
                let (x, y) = pair.public_key().as_ref()[1..].split_at(pair.public_key().as_ref().len() / 2);
                json!({"kty": "EC", "crv": curve.parts().0, "x": encoded(x), "y": encoded(y)})
            }
        }
    }

    /// Signs header and payload: a compact JWS.
    pub(super) fn sign(&self, header: &Value, payload: &Value) -> Result<String, Unspecified> {
        let encoded = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encoded(header), encoded(payload));
        let random: &dyn SecureRandom = &self.random;
        let signature = match (&self.pair, self.algorithm.padding()) {
            (Pair::Rsa(pair), Some(padding)) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(padding, random, signed.as_bytes(), &mut signature)?;
                signature
            }
            (Pair::Curve(_, pair), None) => pair.sign(random, signed.as_bytes())?.as_ref().to_vec(),
            _ => return Err(Unspecified),
        };
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

impl Pair {
    fn takes(&self, algorithm: Algorithm) -> bool {
        match self {
            Self::Rsa(_) => algorithm.padding().is_some(),
            Self::Curve(curve, _) => curve.parts().1 == algorithm,
        }
    }
}

fn from_jwk(jwk: &Map<String, Value>) -> Result<Pair, InvalidKey> {
    let bytes = |name: &'static str| {
        let member = jwk.get(name).and_then(Value::as_str).and_then(|encoded| URL_SAFE_NO_PAD.decode(encoded).ok());
        member.filter(|bytes| !bytes.is_empty()).ok_or(InvalidKey::Member(name))
    };
    let text = |name: &str| jwk.get(name).and_then(Value::as_str);
    let kind = text("kty");
    let curve = Curve::ALL.into_iter().find(|curve| kind == Some("EC") && text("crv") == Some(curve.parts().0));
    if kind != Some("RSA") && curve.is_none() {
        return Err(InvalidKey::Kind);
    }
    if !jwk.contains_key("d") {
        return Err(InvalidKey::Public);
    }
    match curve {
        Some(curve) => {
            let point = [vec![4], bytes("x")?, bytes("y")?].concat();
            let pair = EcdsaKeyPair::from_private_key_and_public_key(curve.parts().2, &bytes("d")?, &point, &SystemRandom::new());
            Ok(Pair::Curve(curve, pair.map_err(InvalidKey::Unsound)?))
        }
        None => {
            let components = KeyPairComponents {
                public_key: PublicKeyComponents { n: bytes("n")?, e: bytes("e")? },
                d: bytes("d")?,
                p: bytes("p")?,
                q: bytes("q")?,
                dP: bytes("dp")?,
                dQ: bytes("dq")?,
                qInv: bytes("qi")?,
            };
            Ok(Pair::Rsa(RsaKeyPair::from_components(&components).map_err(InvalidKey::Unsound)?))
        }
    }
}

/// The file does not say its kind in a way that is easily read: the one that takes it.
fn from_pkcs8(der: &[u8]) -> Result<Pair, InvalidKey> {
    let curve =
        |curve: Curve| EcdsaKeyPair::from_pkcs8(curve.parts().2, der, &SystemRandom::new()).ok().map(|pair| Pair::Curve(curve, pair));
    let rsa = RsaKeyPair::from_pkcs8(der).ok().map(Pair::Rsa);
    rsa.or_else(|| Curve::ALL.into_iter().find_map(curve)).ok_or(InvalidKey::Kind)
}
