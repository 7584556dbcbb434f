//! Standard Webhooks 1.0.0, symmetric (`v1`): HMAC-SHA256 over id, timestamp and body.
//!
//! Source of the rule: the Standard Webhooks specification. The secret never prints; comparison
//! takes constant time. Must never sign an id or timestamp that a receiver could have chosen.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use secrecy::{ExposeSecret, SecretBox};
use sha2::Sha256;

use crate::asymmetric::SigningKeys;

const PREFIX: &str = "whsec_";
const KEY_BYTES_MIN: usize = 24;
const KEY_BYTES_MAX: usize = 64;
/// `v1,` and 32 bytes in base64.
const ENTRY_BYTES: usize = 47;

/// A signing secret of one endpoint.
pub struct Secret(SecretBox<Vec<u8>>);

/// Why a text is no signing secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSecret {
    /// No `whsec_` in front.
    #[error("a secret starts with {PREFIX}")]
    Prefix,
    /// Not base64.
    #[error("a secret is {PREFIX} followed by base64 (standard alphabet, padded)")]
    Base64,
    /// Too short or too long.
    #[error("a secret has {KEY_BYTES_MIN} to {KEY_BYTES_MAX} bytes")]
    Length,
}

impl Secret {
    /// A secret from raw bytes.
    pub fn from_bytes(key: Vec<u8>) -> Result<Self, InvalidSecret> {
        if (KEY_BYTES_MIN..=KEY_BYTES_MAX).contains(&key.len()) {
            Ok(Self(SecretBox::new(Box::new(key))))
        } else {
            Err(InvalidSecret::Length)
        }
    }

    /// The text form, to be shown once to its owner or sealed. Handle with care.
    pub fn reveal(&self) -> String {
        format!("{PREFIX}{}", STANDARD.encode(self.0.expose_secret()))
    }

    fn mac(&self, id: &str, timestamp: &str, body: &[u8]) -> Hmac<Sha256> {
        #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
        let mut mac = Hmac::<Sha256>::new_from_slice(self.0.expose_secret()).expect("any length");
        for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
            mac.update(part);
        }
        mac
    }
}

impl FromStr for Secret {
    type Err = InvalidSecret;

    fn from_str(text: &str) -> Result<Self, InvalidSecret> {
        let encoded = text.strip_prefix(PREFIX).ok_or(InvalidSecret::Prefix)?;
        Self::from_bytes(STANDARD.decode(encoded).map_err(|_| InvalidSecret::Base64)?)
    }
}

impl Clone for Secret {
    fn clone(&self) -> Self {
        Self(SecretBox::new(Box::new(self.0.expose_secret().clone())))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The value of `webhook-signature` for a message. `timestamp_s` is the attempt's own time.
pub fn sign(secret: &Secret, id: &str, timestamp_s: i64, body: &[u8]) -> String {
    let mut entry = String::with_capacity(ENTRY_BYTES);
    append(&mut entry, secret, id, &timestamp_s.to_string(), body);
    entry
}

fn append(list: &mut String, secret: &Secret, id: &str, timestamp: &str, body: &[u8]) {
    list.push_str("v1,");
    STANDARD.encode_string(secret.mac(id, timestamp, body).finalize().into_bytes(), list);
}

/// The value of `webhook-signature` by several keys: all secrets that are in force, the newest
/// first, and the bridge's own keys if their signatures are asked for.
pub fn sign_all(secrets: &[Secret], keys: Option<&SigningKeys>, id: &str, timestamp_s: i64, body: &[u8]) -> String {
    let timestamp = timestamp_s.to_string();
    let mut list = String::with_capacity((ENTRY_BYTES + 1) * secrets.len());
    for secret in secrets {
        separate(&mut list);
        append(&mut list, secret, id, &timestamp, body);
    }
    for key in keys.into_iter().flat_map(SigningKeys::signing) {
        separate(&mut list);
        list.push_str(&key.sign(id, timestamp_s, body));
    }
    list
}

fn separate(list: &mut String) {
    if !list.is_empty() {
        list.push(' ');
    }
}

/// Why a message is not to be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// A header is missing or empty.
    #[error("webhook-id, webhook-timestamp or webhook-signature is missing")]
    Missing,
    /// The timestamp is no integer.
    #[error("webhook-timestamp is no integer")]
    Timestamp,
    /// Too old or too new.
    #[error("webhook-timestamp is outside the tolerance")]
    Stale,
    /// No entry of the list fits.
    #[error("no signature fits")]
    Signature,
}

/// Verifies a message as a receiver does. `tolerance_s` is 300 in the reference libraries.
pub fn verify(
    secret: &Secret,
    now_s: i64,
    tolerance_s: i64,
    id: &str,
    timestamp: &str,
    signature: &str,
    body: &[u8],
) -> Result<(), VerifyError> {
    if [id, timestamp, signature].iter().any(|value| value.is_empty()) {
        return Err(VerifyError::Missing);
    }
    let timestamp_s: i64 = timestamp.parse().map_err(|_| VerifyError::Timestamp)?;
    if now_s.abs_diff(timestamp_s) > tolerance_s.unsigned_abs() {
        return Err(VerifyError::Stale);
    }
    let fits = signature
        .split(' ')
        .filter_map(|entry| entry.split_once(','))
        .filter(|(version, _)| *version == "v1")
        .filter_map(|(_, encoded)| STANDARD.decode(encoded).ok())
        .any(|given| secret.mac(id, timestamp, body).verify_slice(&given).is_ok());
    if fits { Ok(()) } else { Err(VerifyError::Signature) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::asymmetric::SigningKey;

    // Published test vectors of the Standard Webhooks libraries (Rust and Go).
    const VECTORS: [(&str, &str, i64, &str, &str); 2] = [
        (
            "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
            "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
            1_649_367_553,
            r#"{"email":"test@example.com","username":"test_user"}"#,
            "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=",
        ),
        (
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            r#"{"test": 2432232314}"#,
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        ),
    ];

    #[test]
    fn signs_the_published_vectors() {
        for (secret, id, timestamp_s, body, expected) in VECTORS {
            assert_eq!(sign(&secret.parse().unwrap(), id, timestamp_s, body.as_bytes()), expected);
        }
    }

    #[test]
    fn verifies_what_the_specification_says() {
        let (secret, id, at, body, good) = VECTORS[1];
        let secret: Secret = secret.parse().unwrap();
        let at_text = at.to_string();
        let list = format!("v1,aGVp v2,eHh4 broken {good}");
        for (what, now_s, id, timestamp, signature, expected) in [
            ("good", at, id, at_text.as_str(), good, Ok(())),
            ("a list with a wrong, an unknown and the right one", at, id, &at_text, &list, Ok(())),
            ("exactly as old as allowed", at + 300, id, &at_text, good, Ok(())),
            ("too old", at + 301, id, &at_text, good, Err(VerifyError::Stale)),
            ("too new", at - 301, id, &at_text, good, Err(VerifyError::Stale)),
            ("no id", at, "", &at_text, good, Err(VerifyError::Missing)),
            ("no timestamp", at, id, "", good, Err(VerifyError::Missing)),
            ("no signature", at, id, &at_text, "", Err(VerifyError::Missing)),
            ("empty signature", at, id, &at_text, "v1,", Err(VerifyError::Signature)),
            ("other id", at, "msg_x", &at_text, good, Err(VerifyError::Signature)),
            ("no number", at, id, "soon", good, Err(VerifyError::Timestamp)),
        ] {
            assert_eq!(verify(&secret, now_s, 300, id, timestamp, signature, body.as_bytes()), expected, "{what}");
        }
        assert_eq!(verify(&secret, at, 300, id, &at_text, good, b"{}"), Err(VerifyError::Signature));
    }

    #[test]
    fn several_keys_sign_side_by_side() {
        let (secret, id, at, body, good) = VECTORS[1];
        let (new, old): (Secret, Secret) = ("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD".parse().unwrap(), secret.parse().unwrap());
        let key = SigningKey::from_seed(&[7; 32]).unwrap();
        let keys = SigningKeys::from(SigningKey::from_seed(&[7; 32]).unwrap());
        let list = sign_all(&[new.clone(), old.clone()], Some(&keys), id, at, body.as_bytes());
        assert_eq!(list, [sign(&new, id, at, body.as_bytes()), good.to_owned(), key.sign(id, at, body.as_bytes())].join(" "));
        for secret in [&new, &old] {
            assert_eq!(verify(secret, at, 300, id, &at.to_string(), &list, body.as_bytes()), Ok(()));
        }
        assert!(key.public().verifies(id, &at.to_string(), &list, body.as_bytes()));
        assert_eq!(sign_all(&[old], None, id, at, body.as_bytes()), good);
    }

    #[test]
    fn a_secret_has_a_shape_and_never_prints() {
        for (text, expected) in [
            ("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", InvalidSecret::Prefix),
            ("whsec_", InvalidSecret::Length),
            ("whsec_?", InvalidSecret::Base64),
            ("whsec_YWJj", InvalidSecret::Length),
        ] {
            assert_eq!(text.parse::<Secret>().map(|_| ()), Err(expected), "{text}");
        }
        let secret: Secret = VECTORS[0].0.parse().unwrap();
        assert_eq!(format!("{secret:?}"), "Secret(…)");
        assert_eq!(secret.reveal(), VECTORS[0].0);
    }
}
