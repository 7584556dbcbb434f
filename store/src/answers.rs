//! Answers that are kept for repetitions of their requests, in a tree of their own.
//!
//! They come sealed. Values begin with a checksum; one that is damaged counts as not there: its request is then made anew.

use crate::checksum::{checked, with_checksum};
use crate::open::{OpenError, Store};

const TIME_BYTES: usize = 8;
const ID_BYTES: usize = 32;

/// A kept answer. The three names are digests, and tell nobody anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptAnswer {
    /// The request's key.
    pub key: [u8; ID_BYTES],
    /// Who it is counted for.
    pub owner: [u8; ID_BYTES],
    /// The request.
    pub fingerprint: [u8; ID_BYTES],
    /// When it was answered, milliseconds since 1970.
    pub at_ms: i64,
    /// What it was answered, sealed.
    pub sealed: Vec<u8>,
}

impl KeptAnswer {
    /// As it is stored.
    pub fn value(&self) -> Vec<u8> {
        let body = [&self.at_ms.to_be_bytes()[..], &self.owner, &self.fingerprint, &self.sealed].concat();
        with_checksum(&body)
    }

    /// Reads what is stored under a key; nothing if it is damaged.
    pub fn parse(key: &[u8], value: &[u8]) -> Option<Self> {
        let body = checked(value)?;
        let (at_ms, rest) = body.split_first_chunk::<TIME_BYTES>()?;
        let (owner, rest) = rest.split_first_chunk::<ID_BYTES>()?;
        let (fingerprint, sealed) = rest.split_first_chunk::<ID_BYTES>()?;
        let (key, at_ms) = (key.try_into().ok()?, i64::from_be_bytes(*at_ms));
        Some(Self { key, owner: *owner, fingerprint: *fingerprint, at_ms, sealed: sealed.to_vec() })
    }
}

impl Store {
    /// The answer to the request with this key.
    pub fn answer(&self, key: [u8; ID_BYTES]) -> Result<Option<KeptAnswer>, OpenError> {
        Ok(self.answers.get(key)?.and_then(|value| KeptAnswer::parse(&key, &value)))
    }

    /// Every answer that is kept, one after the other: each may be large.
    pub fn answers(&self) -> impl Iterator<Item = Result<KeptAnswer, OpenError>> {
        let read = |found: Result<(sled::IVec, sled::IVec), sled::Error>| match found {
            Ok((key, value)) => KeptAnswer::parse(&key, &value).map(Ok),
            Err(error) => Some(Err(error.into())),
        };
        self.answers.iter().filter_map(read)
    }
}
