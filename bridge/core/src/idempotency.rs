//! Idempotency keys (IETF draft *The Idempotency-Key HTTP Header Field*): which request repeats which.
//!
//! A key belongs to a caller. Its first request goes ahead; while it is under way, and after it was answered, the
//! same request is told apart from another one by a fingerprint. Must never know what an answer says, and must never
//! hold more keys than it was told to.

use std::collections::{BTreeSet, HashMap};

use jiff::Timestamp;
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// Longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 255;
/// How long an answer is kept for repetitions.
pub const KEPT_MS: i64 = 24 * 3_600_000;

/// Names a key of a caller without telling either.
pub type KeyId = [u8; 32];
/// Names who the keys of a caller are counted for.
pub type OwnerId = [u8; 32];
/// Tells requests apart.
pub type Fingerprint = [u8; 32];

/// A request with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// Whose key it is, and which.
    pub key: KeyId,
    /// Who it is counted for.
    pub owner: OwnerId,
    /// What is asked for.
    pub fingerprint: Fingerprint,
}

impl Asked {
    /// A request. `caller` is all that decides about what a caller may do; `owner` may have several callers.
    pub fn new(owner: &str, caller: &str, key: &str, method: &str, target: &str, body: &[u8]) -> Self {
        Self {
            key: digest(&[owner.as_bytes(), caller.as_bytes(), key.as_bytes()]),
            owner: digest(&[owner.as_bytes()]),
            fingerprint: digest(&[method.as_bytes(), target.as_bytes(), body]),
        }
    }

    /// The id of what this very request makes: the same whenever it is repeated.
    pub fn new_id(&self) -> Uuid {
        Uuid::new_v5(&Uuid::NAMESPACE_OID, &[self.key, self.fingerprint].concat())
    }
}

/// Whether something of a derived id was made by a request that is repeated now. What is older than any kept
/// answer has nothing to do with it.
pub fn is_repeated(created_at: Option<Timestamp>, now: Timestamp) -> bool {
    created_at.is_some_and(|created_at| now.as_millisecond() - created_at.as_millisecond() < KEPT_MS)
}

/// Of parts that can't run into each other.
fn digest(parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// Whether a text can be a key: 1 to 255 visible ASCII characters.
pub fn is_key(text: &[u8]) -> bool {
    (1..=KEY_BYTES_MAX).contains(&text.len()) && text.iter().all(u8::is_ascii_graphic)
}

/// What becomes of a request with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It is the first: it goes ahead.
    Proceed,
    /// It is answered as the first was.
    Replay,
    /// The first has no answer yet.
    UnderWay,
    /// The key's request was another one.
    Reused,
    /// Its owner has as many keys as one may have.
    OwnerFull,
    /// There are as many keys as there may be.
    Full,
}

struct Known {
    owner: OwnerId,
    fingerprint: Fingerprint,
    /// `None` while the request is under way.
    answered_at_ms: Option<i64>,
}

/// Every key that counts.
pub struct Keys {
    known: HashMap<KeyId, Known>,
    by_age: BTreeSet<(i64, KeyId)>,
    owners: HashMap<OwnerId, usize>,
    per_owner_max: usize,
    total_max: usize,
}

impl Keys {
    /// No keys, and how many there may be.
    pub fn new(per_owner_max: usize, total_max: usize) -> Self {
        Self { known: HashMap::new(), by_age: BTreeSet::new(), owners: HashMap::new(), per_owner_max, total_max }
    }

    /// What becomes of a request. Where that is `Proceed`, `answered` or `given_up` has to follow.
    pub fn begin(&mut self, asked: &Asked) -> Decision {
        if let Some(known) = self.known.get(&asked.key) {
            return match known.answered_at_ms {
                _ if known.fingerprint != asked.fingerprint => Decision::Reused,
                Some(_) => Decision::Replay,
                None => Decision::UnderWay,
            };
        }
        if self.owners.get(&asked.owner).is_some_and(|keys| *keys >= self.per_owner_max) {
            return Decision::OwnerFull;
        }
        if self.known.len() >= self.total_max {
            return Decision::Full;
        }
        self.insert(asked, None);
        Decision::Proceed
    }

    /// The request was answered, and the answer is kept.
    pub fn answered(&mut self, key: KeyId, at_ms: i64) {
        if let Some(known) = self.known.get_mut(&key) {
            known.answered_at_ms = Some(at_ms);
            self.by_age.insert((at_ms, key));
        }
    }

    /// Nothing came of the request that is kept: its key is free.
    pub fn given_up(&mut self, key: KeyId) {
        if self.known.get(&key).is_some_and(|known| known.answered_at_ms.is_none()) {
            self.remove(key);
        }
    }

    /// Takes in what was kept before, limits or not.
    pub fn restore(&mut self, asked: &Asked, at_ms: i64) {
        self.insert(asked, Some(at_ms));
        self.by_age.insert((at_ms, asked.key));
    }

    /// Forgets keys whose time is over; which they are.
    pub fn expire(&mut self, now_ms: i64) -> Vec<KeyId> {
        let mut expired = Vec::new();
        while let Some((at_ms, key)) = self.by_age.first().copied()
            && at_ms.saturating_add(KEPT_MS) <= now_ms
        {
            self.by_age.pop_first();
            self.remove(key);
            expired.push(key);
        }
        expired
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    fn insert(&mut self, asked: &Asked, answered_at_ms: Option<i64>) {
        *self.owners.entry(asked.owner).or_default() += 1;
        self.known.insert(asked.key, Known { owner: asked.owner, fingerprint: asked.fingerprint, answered_at_ms });
    }

    fn remove(&mut self, key: KeyId) {
        let Some(known) = self.known.remove(&key) else { return };
        if let Some(keys) = self.owners.get_mut(&known.owner) {
            *keys -= 1;
            if *keys == 0 {
                self.owners.remove(&known.owner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(owner: &str, key: &str, body: &str) -> Asked {
        Asked::new(owner, "subscribe", key, "POST", "/v1/x", body.as_bytes())
    }

    #[test]
    fn a_key_is_one_request_of_one_caller() {
        let first = asked("a", "k", "{}");
        assert_eq!(asked("a", "k", "{}"), first);
        assert_eq!(asked("a", "k", "{}").new_id(), first.new_id());
        for other in [
            asked("b", "k", "{}"),
            asked("a", "l", "{}"),
            asked("a", "k", "{ }"),
            Asked::new("a", "operate", "k", "POST", "/v1/x", b"{}"),
            Asked::new("a", "subscribe", "k", "POST", "/v1/y", b"{}"),
            Asked::new("a", "subscribek", "", "POST", "/v1/x", b"{}"),
        ] {
            assert_ne!(other, first);
            assert_ne!(other.new_id(), first.new_id(), "nothing else has its id");
        }
        for (text, expected) in [("k", true), ("", false), ("a b", false), ("å", false), ("\"8e03\"", true)] {
            assert_eq!(is_key(text.as_bytes()), expected, "{text}");
        }
        assert!(is_key(&[b'k'; KEY_BYTES_MAX]) && !is_key(&[b'k'; KEY_BYTES_MAX + 1]));
    }

    #[test]
    fn a_repetition_waits_and_is_answered_and_another_request_is_refused() {
        let mut keys = Keys::new(10, 10);
        let (first, other) = (asked("a", "k", "{}"), asked("a", "k", "{1}"));
        assert_eq!(keys.begin(&first), Decision::Proceed);
        assert_eq!((keys.begin(&first), keys.begin(&other)), (Decision::UnderWay, Decision::Reused));
        keys.given_up(first.key);
        assert_eq!(keys.begin(&other), Decision::Proceed, "what was refused leaves the key free");
        keys.answered(other.key, 5);
        keys.given_up(other.key);
        assert_eq!((keys.begin(&other), keys.begin(&first)), (Decision::Replay, Decision::Reused));
        assert_eq!((keys.expire(KEPT_MS + 4), keys.len()), (vec![], 1));
        assert_eq!((keys.expire(KEPT_MS + 5), keys.is_empty()), (vec![other.key], true));
        assert_eq!(keys.begin(&first), Decision::Proceed);
    }

    #[test]
    fn an_owner_has_so_many_keys_and_so_have_all() {
        let mut keys = Keys::new(2, 3);
        for (owner, key, expected) in [
            ("a", "1", Decision::Proceed),
            ("a", "2", Decision::Proceed),
            ("a", "3", Decision::OwnerFull),
            ("a", "1", Decision::UnderWay),
            ("b", "1", Decision::Proceed),
            ("b", "2", Decision::Full),
        ] {
            assert_eq!(keys.begin(&asked(owner, key, "")), expected, "{owner} {key}");
        }
        keys.given_up(asked("a", "2", "").key);
        assert_eq!(keys.begin(&asked("a", "3", "")), Decision::Proceed);
        let mut restored = Keys::new(0, 0);
        restored.restore(&asked("a", "1", ""), 0);
        assert_eq!(restored.begin(&asked("a", "1", "")), Decision::Replay, "what was kept counts, whatever the limits are now");
    }
}
