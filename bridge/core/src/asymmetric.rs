//! Standard Webhooks 1.0.0, asymmetric (`v1a`): Ed25519 over id, timestamp and body.
//!
//! One key pair for the bridge; receivers that trust its public key need no shared secret. The
//! secret half never prints. Source of the key's text forms: the Standard Webhooks specification,
//! and for the bytes behind them (seed, then public key) the libraries in use.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use secrecy::{ExposeSecret, SecretBox};
use sha2::{Digest, Sha256};

const SECRET_PREFIX: &str = "whsk_";
const PUBLIC_PREFIX: &str = "whpk_";
const HALF_BYTES: usize = 32;

/// The bridge's key pair.
pub struct SigningKey {
    seed: SecretBox<[u8; HALF_BYTES]>,
    pair: Ed25519KeyPair,
}

/// Why a text is no signing key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    /// Another prefix.
    #[error("a signing key starts with {SECRET_PREFIX}, a public key with {PUBLIC_PREFIX}")]
    Prefix,
    /// Not base64.
    #[error("after its prefix a key is base64 (standard alphabet, padded)")]
    Base64,
    /// Of several, none that signs.
    #[error("one line at least holds a signing key, which starts with {SECRET_PREFIX}")]
    NoneSigns,
    /// Too short or too long, or halves that do not belong together.
    #[error(
        "a signing key has {HALF_BYTES} bytes (the seed), or twice that with the public key that belongs to it; a public key has {HALF_BYTES}"
    )]
    Bytes,
}

impl SigningKey {
    /// The key pair of a seed.
    pub fn from_seed(seed: &[u8; HALF_BYTES]) -> Result<Self, InvalidKey> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| InvalidKey::Bytes)?;
        Ok(Self { seed: SecretBox::new(Box::new(*seed)), pair })
    }

    /// The secret text form, to be written into a file for the bridge's eyes only.
    pub fn reveal(&self) -> String {
        let both = [self.seed.expose_secret().as_slice(), self.pair.public_key().as_ref()].concat();
        format!("{SECRET_PREFIX}{}", STANDARD.encode(both))
    }

    /// The half that everyone may know.
    pub fn public(&self) -> PublicKey {
        let mut key = [0; HALF_BYTES];
        key.copy_from_slice(self.pair.public_key().as_ref());
        PublicKey(key)
    }

    /// One entry of `webhook-signature`.
    pub fn sign(&self, id: &str, timestamp_s: i64, body: &[u8]) -> String {
        let signed = [id.as_bytes(), b".", timestamp_s.to_string().as_bytes(), b".", body].concat();
        format!("v1a,{}", STANDARD.encode(self.pair.sign(&signed)))
    }
}

impl FromStr for SigningKey {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        let encoded = text.strip_prefix(SECRET_PREFIX).ok_or(InvalidKey::Prefix)?;
        let bytes = STANDARD.decode(encoded).map_err(|_| InvalidKey::Base64)?;
        let (seed, public) = bytes.split_first_chunk::<HALF_BYTES>().ok_or(InvalidKey::Bytes)?;
        let key = Self::from_seed(seed)?;
        if public.is_empty() || public == key.public().0 { Ok(key) } else { Err(InvalidKey::Bytes) }
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(…)")
    }
}

/// A public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicKey([u8; HALF_BYTES]);

impl PublicKey {
    /// A name for the key: the beginning of its SHA-256.
    pub fn id(&self) -> String {
        Sha256::digest(self.0).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }

    /// Whether one of the entries of `webhook-signature` is this key's.
    pub fn verifies(&self, id: &str, timestamp: &str, signatures: &str, body: &[u8]) -> bool {
        let signed = [id.as_bytes(), b".", timestamp.as_bytes(), b".", body].concat();
        let entries = signatures.split(' ').filter_map(|entry| entry.strip_prefix("v1a,"));
        let given = entries.filter_map(|encoded| STANDARD.decode(encoded).ok());
        let key = UnparsedPublicKey::new(&ED25519, self.0);
        given.into_iter().any(|signature| key.verify(&signed, &signature).is_ok())
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PUBLIC_PREFIX}{}", STANDARD.encode(self.0))
    }
}

impl FromStr for PublicKey {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        let encoded = text.strip_prefix(PUBLIC_PREFIX).ok_or(InvalidKey::Prefix)?;
        let bytes = STANDARD.decode(encoded).map_err(|_| InvalidKey::Base64)?;
        Ok(Self(bytes.try_into().map_err(|_| InvalidKey::Bytes)?))
    }
}

/// The bridge's keys, as its operator keeps them: one a line, and what begins with `#` is said of them.
///
/// The first that starts with `whsk_` signs records of disclosures; all of those sign deliveries, side by side; `whpk_` is what
/// is left of one that signs no more, and has signed records that are still kept.
#[derive(Debug)]
pub struct SigningKeys {
    current: SigningKey,
    beside: Vec<SigningKey>,
    former: Vec<PublicKey>,
}

impl SigningKeys {
    /// The one that signs what one key signs.
    pub fn current(&self) -> &SigningKey {
        &self.current
    }

    /// Those that sign deliveries, the current one first.
    pub fn signing(&self) -> impl Iterator<Item = &SigningKey> {
        std::iter::once(&self.current).chain(&self.beside)
    }

    /// Those that have signed what is still kept.
    pub fn verifying(&self) -> Vec<PublicKey> {
        self.signing().map(SigningKey::public).chain(self.former.iter().copied()).collect()
    }

    /// What no longer signs.
    pub fn former(&self) -> &[PublicKey] {
        &self.former
    }

    /// A further key, which signs beside the others from now on.
    pub fn add(&mut self, key: SigningKey) {
        self.beside.push(key);
    }

    /// The newest is the current one from now on; false if there is no other.
    pub fn promote(&mut self) -> bool {
        let Some(newest) = self.beside.pop() else { return false };
        self.beside.insert(0, std::mem::replace(&mut self.current, newest));
        true
    }

    /// All but the current one sign no more; how many those are.
    pub fn retire(&mut self) -> usize {
        let retired = self.beside.len();
        self.former.splice(0..0, self.beside.drain(..).map(|key| key.public()));
        retired
    }

    /// The secret text form, to be written into a file for the bridge's eyes only.
    pub fn reveal(&self) -> String {
        let signing = self.signing().map(|key| key.reveal() + "\n");
        signing.chain(self.former.iter().map(|key| format!("{key}\n"))).collect()
    }
}

impl From<SigningKey> for SigningKeys {
    fn from(current: SigningKey) -> Self {
        Self { current, beside: Vec::new(), former: Vec::new() }
    }
}

impl FromStr for SigningKeys {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        let (mut signing, mut former) = (Vec::new(), Vec::new());
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if line.starts_with(PUBLIC_PREFIX) { former.push(line.parse()?) } else { signing.push(line.parse()?) }
        }
        let mut signing = signing.into_iter();
        Ok(Self { current: signing.next().ok_or(InvalidKey::NoneSigns)?, beside: signing.collect(), former })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Published test vector, with its test key.
    const SECRET: &str = "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg==";
    const PUBLIC: &str = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=";
    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const TIMESTAMP_S: i64 = 1_614_265_330;
    const BODY: &[u8] = br#"{"test": 2432232314}"#;
    const SIGNATURE: &str = "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg==";

    #[test]
    fn signs_and_verifies_the_published_vector() {
        let key: SigningKey = SECRET.parse().unwrap();
        assert_eq!((key.reveal().as_str(), key.public().to_string().as_str()), (SECRET, PUBLIC));
        assert_eq!(key.sign(ID, TIMESTAMP_S, BODY), SIGNATURE);
        let (public, at): (PublicKey, _) = (PUBLIC.parse().unwrap(), TIMESTAMP_S.to_string());
        let list = format!("v1,aGVp v1a,eHh4 v2,x broken {SIGNATURE}");
        for (what, id, at, signatures, body, expected) in [
            ("good", ID, at.as_str(), SIGNATURE, BODY, true),
            ("a list", ID, &at, list.as_str(), BODY, true),
            ("another id", "msg_x", &at, SIGNATURE, BODY, false),
            ("another time", ID, "1614265331", SIGNATURE, BODY, false),
            ("another body", ID, &at, SIGNATURE, b"{}", false),
            ("another version", ID, &at, &SIGNATURE.replace("v1a", "v1"), BODY, false),
            ("empty", ID, &at, "v1a,", BODY, false),
        ] {
            assert_eq!(public.verifies(id, at, signatures, body), expected, "{what}");
        }
    }

    #[test]
    fn a_key_has_a_shape_and_never_prints() {
        let seed_alone = format!("{SECRET_PREFIX}{}", STANDARD.encode(&STANDARD.decode(&SECRET[5..]).unwrap()[..32]));
        assert_eq!(seed_alone.parse::<SigningKey>().unwrap().reveal(), SECRET);
        let mut halves = STANDARD.decode(&SECRET[5..]).unwrap();
        halves[40] ^= 1;
        let apart = format!("{SECRET_PREFIX}{}", STANDARD.encode(halves));
        for (text, expected) in [
            (PUBLIC, InvalidKey::Prefix),
            ("whsk_?", InvalidKey::Base64),
            ("whsk_YWJj", InvalidKey::Bytes),
            (apart.as_str(), InvalidKey::Bytes),
        ] {
            assert_eq!(text.parse::<SigningKey>().map(|_| ()), Err(expected), "{text}");
        }
        assert_eq!(SECRET.parse::<PublicKey>(), Err(InvalidKey::Prefix));
        assert_eq!(format!("{:?}", SECRET.parse::<SigningKey>().unwrap()), "SigningKey(…)");
        assert_eq!(PUBLIC.parse::<PublicKey>().unwrap().id().len(), 16);
    }

    #[test]
    fn a_key_takes_over_from_another_in_three_steps() {
        let key = |byte| SigningKey::from_seed(&[byte; HALF_BYTES]).unwrap();
        let said = |keys: &SigningKeys| {
            let again: SigningKeys = format!("# of two\n\n{}", keys.reveal()).parse().unwrap();
            assert_eq!(again.reveal(), keys.reveal());
            let names = |keys: Vec<PublicKey>| {
                keys.into_iter().map(|public| (1..4).find(|byte| key(*byte).public() == public).unwrap()).collect::<Vec<u8>>()
            };
            (names(keys.signing().map(SigningKey::public).collect()), names(keys.verifying()))
        };
        let mut keys = SigningKeys::from(key(1));
        assert!(!keys.promote() && keys.retire() == 0, "there is no other");
        assert_eq!(said(&keys), (vec![1], vec![1]));
        keys.add(key(2));
        assert_eq!((said(&keys), keys.current().public()), ((vec![1, 2], vec![1, 2]), key(1).public()));
        assert!(keys.promote());
        assert_eq!((said(&keys), keys.current().public()), ((vec![2, 1], vec![2, 1]), key(2).public()));
        assert_eq!(keys.retire(), 1);
        assert_eq!(said(&keys), (vec![2], vec![2, 1]));
        keys.add(key(3));
        assert!(keys.promote() && keys.retire() == 1);
        assert_eq!(said(&keys), (vec![3], vec![3, 2, 1]));
        for (text, fault) in [("", InvalidKey::NoneSigns), (PUBLIC, InvalidKey::NoneSigns), ("key", InvalidKey::Prefix)] {
            assert_eq!(text.parse::<SigningKeys>().unwrap_err(), fault, "{text}");
        }
    }
}
