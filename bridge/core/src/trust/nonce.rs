//! Nonces that proofs must carry where a deployment asks for them (RFC 9449, section 9).
//!
//! Nothing is remembered: a nonce is a keyed digest of the stretch of time it belongs to. It bounds how long
//! before its use a proof can have been made, and is the same for everyone.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac::{HMAC_SHA256, Key, sign};

/// How long a nonce is the newest one. The one before it is still taken.
pub const NONCE_SLOT_S: i64 = 120;
/// Bytes of the digest that are shown.
const NONCE_BYTES: usize = 16;

/// Makes and knows nonces.
pub struct Nonces(Key);

impl Nonces {
    /// With a key that nobody else knows.
    pub fn new(key: &[u8; 32]) -> Self {
        Self(Key::new(HMAC_SHA256, key))
    }

    /// The newest.
    pub fn newest(&self, now_ms: i64) -> String {
        self.of(slot(now_ms))
    }

    /// Whether a nonce is the newest, or the one before.
    pub(super) fn takes(&self, nonce: &str, now_ms: i64) -> bool {
        let slot = slot(now_ms);
        [slot, slot - 1].into_iter().any(|slot| self.of(slot) == nonce)
    }

    fn of(&self, slot: i64) -> String {
        URL_SAFE_NO_PAD.encode(&sign(&self.0, &slot.to_be_bytes()).as_ref()[..NONCE_BYTES])
    }
}

fn slot(now_ms: i64) -> i64 {
    now_ms.div_euclid(NONCE_SLOT_S * 1_000)
}
