//! The cursor of a receiver that fetches: an opaque word for "everything up to here is taken".
//!
//! base64url of a version, the epoch, the number, and an HMAC over these and the subscription.
//! Must never be taken from another subscription or another bridge, nor be forged: whoever may
//! move a cursor may make events go unseen.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use uuid::Uuid;

const VERSION: u8 = 1;
const TAG_BYTES: usize = 16;
const BODY_BYTES: usize = 13;
/// Keeps these codes apart from any other that is made with the same key.
const DOMAIN: &[u8] = b"ryggrad pull cursor";

/// Where a receiver is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PullCursor {
    /// Which run of numbers.
    pub epoch: u32,
    /// The number of the last delivery taken; 0 is none yet.
    pub number: u64,
}

/// Why a text is no cursor of this subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCursor {
    /// Of a form that this bridge does not write.
    #[error("it has a form that this bridge does not know")]
    Version,
    /// Damaged, made up, of another subscription, or of a bridge with another key.
    #[error("it is damaged, or another subscription's")]
    Foreign,
}

/// Writes and reads cursors. The key never prints.
#[derive(Clone)]
pub struct CursorKey(Hmac<Sha256>);

impl std::fmt::Debug for CursorKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CursorKey(…)")
    }
}

impl CursorKey {
    /// A key of its own for this purpose.
    pub fn new(key: &[u8; 32]) -> Self {
        #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
        let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any length");
        mac.update(DOMAIN);
        Self(mac)
    }

    /// The cursor as text.
    pub fn encode(&self, subscription: Uuid, cursor: PullCursor) -> String {
        let mut bytes = Vec::with_capacity(BODY_BYTES + TAG_BYTES);
        bytes.push(VERSION);
        bytes.extend(cursor.epoch.to_be_bytes());
        bytes.extend(cursor.number.to_be_bytes());
        let tag = self.mac(subscription, &bytes).finalize().into_bytes();
        bytes.extend(&tag[..TAG_BYTES]);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads a cursor of this subscription.
    pub fn decode(&self, subscription: Uuid, text: &str) -> Result<PullCursor, InvalidCursor> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| InvalidCursor::Foreign)?;
        match bytes.first() {
            Some(&VERSION) => {}
            Some(_) => return Err(InvalidCursor::Version),
            None => return Err(InvalidCursor::Foreign),
        }
        let (body, tag) = bytes.split_at_checked(BODY_BYTES).filter(|(_, tag)| tag.len() == TAG_BYTES).ok_or(InvalidCursor::Foreign)?;
        // In constant time.
        self.mac(subscription, body).verify_truncated_left(tag).map_err(|_| InvalidCursor::Foreign)?;
        let (epoch, number) = body[1..].split_first_chunk::<4>().ok_or(InvalidCursor::Foreign)?;
        let number = number.first_chunk::<8>().ok_or(InvalidCursor::Foreign)?;
        Ok(PullCursor { epoch: u32::from_be_bytes(*epoch), number: u64::from_be_bytes(*number) })
    }

    fn mac(&self, subscription: Uuid, body: &[u8]) -> Hmac<Sha256> {
        let mut mac = self.0.clone();
        mac.update(subscription.as_bytes());
        mac.update(body);
        mac
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_for_its_own_subscription_and_key_only() {
        let (key, own, other) = (CursorKey::new(&[1; 32]), Uuid::from_u128(1), Uuid::from_u128(2));
        for (epoch, number) in [(0, 0), (1, 17), (u32::MAX, u64::MAX)] {
            let cursor = PullCursor { epoch, number };
            let text = key.encode(own, cursor);
            assert_eq!(text.len(), 39);
            assert_eq!(key.decode(own, &text), Ok(cursor));
            assert_eq!(key.decode(other, &text), Err(InvalidCursor::Foreign));
            assert_eq!(CursorKey::new(&[2; 32]).decode(own, &text), Err(InvalidCursor::Foreign));
        }
        assert_eq!(format!("{key:?}"), "CursorKey(…)");
    }

    #[test]
    fn no_altered_cursor_is_taken() {
        let (key, own) = (CursorKey::new(&[1; 32]), Uuid::from_u128(1));
        let text = key.encode(own, PullCursor { epoch: 3, number: 70_000 });
        let bytes = URL_SAFE_NO_PAD.decode(&text).unwrap();
        for index in 0..bytes.len() {
            for bit in 0..8 {
                let mut altered = bytes.clone();
                altered[index] ^= 1 << bit;
                let expected = if index == 0 { InvalidCursor::Version } else { InvalidCursor::Foreign };
                assert_eq!(key.decode(own, &URL_SAFE_NO_PAD.encode(altered)), Err(expected), "byte {index}");
            }
        }
        for cut in 0..text.len() {
            assert!(key.decode(own, &text[..cut]).is_err(), "{cut}");
        }
        for other in ["", "0", "nei takk", "åå", "AQ", &format!("{text}AAAA"), &format!("{text}="), &"A".repeat(100_000)] {
            assert!(key.decode(own, other).is_err());
        }
    }
}
