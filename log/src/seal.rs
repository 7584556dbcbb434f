//! Encryption of what must not lie open in a topic: signing secrets, quarantined documents.
//!
//! ChaCha20-Poly1305 with a 256-bit key and a nonce that the caller draws at random. The context
//! (say, the subscription's id) is authenticated, so a sealed value can't be moved to another
//! record. The key never prints.

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Nonce};
use hmac::{Hmac, Mac};
use sha2::Sha256;

const NONCE_BYTES: usize = 12;

/// A key that seals and opens, and from which others follow.
#[derive(Clone)]
pub struct Seal {
    cipher: ChaCha20Poly1305,
    derivation: Hmac<Sha256>,
}

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seal(…)")
    }
}

/// Why a sealed value can't be opened, or a value sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Too short to be a sealed value.
    #[error("this is no sealed value")]
    Shape,
    /// Wrong key, wrong context or altered bytes.
    #[error("the sealed value does not open with this key in this place")]
    Refused,
}

impl Seal {
    /// A seal from a 32-byte key.
    pub fn new(key: &[u8; 32]) -> Self {
        #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
        let derivation = <Hmac<Sha256> as Mac>::new_from_slice(key).expect("any length");
        Self { cipher: ChaCha20Poly1305::new(key.into()), derivation }
    }

    /// A key for another purpose, always the same for the same purpose; neither tells of the other.
    pub fn derive(&self, purpose: &str) -> [u8; 32] {
        self.derivation.clone().chain_update(purpose.as_bytes()).finalize().into_bytes().into()
    }

    /// Seals a value. `nonce` must be fresh random bytes, never used before with this key.
    pub fn seal(&self, nonce: [u8; NONCE_BYTES], context: &str, plain: &[u8]) -> Result<Vec<u8>, SealError> {
        let payload = Payload { msg: plain, aad: context.as_bytes() };
        let sealed = self.cipher.encrypt(Nonce::from_slice(&nonce), payload).map_err(|_| SealError::Refused)?;
        Ok([nonce.as_slice(), &sealed].concat())
    }

    /// Opens a sealed value.
    pub fn open(&self, context: &str, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        let (nonce, body) = sealed.split_at_checked(NONCE_BYTES).ok_or(SealError::Shape)?;
        let payload = Payload { msg: body, aad: context.as_bytes() };
        self.cipher.decrypt(Nonce::from_slice(nonce), payload).map_err(|_| SealError::Refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_derived_key_is_one_purpose_of_one_key() {
        let derived = |key: u8, purpose| Seal::new(&[key; 32]).derive(purpose);
        assert_eq!(derived(1, "a"), derived(1, "a"));
        assert!(derived(1, "a") != derived(1, "b") && derived(1, "a") != derived(2, "a") && derived(1, "a") != [1; 32]);
    }

    #[test]
    fn opens_only_with_its_key_in_its_place_unaltered() {
        let seal = Seal::new(&[1; 32]);
        let sealed = seal.seal([7; 12], "a", b"plain").unwrap();
        assert_eq!(seal.open("a", &sealed), Ok(b"plain".to_vec()));
        assert_eq!(seal.open("b", &sealed), Err(SealError::Refused));
        assert_eq!(Seal::new(&[2; 32]).open("a", &sealed), Err(SealError::Refused));
        for index in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[index] ^= 1;
            assert_eq!(seal.open("a", &altered), Err(SealError::Refused), "byte {index}");
        }
        assert_eq!(seal.open("a", &sealed[..11]), Err(SealError::Shape));
        assert!(!format!("{seal:?}").contains('1'));
    }
}
