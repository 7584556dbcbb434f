//! Whom the bridge lets in when an issuer vouches for its callers: access tokens (JWT), and proofs that
//! whoever shows one holds the key that it was issued to (DPoP, RFC 9449).
//!
//! Cast: [`Jws`] is a signed text taken apart, [`Key`] and [`KeySet`] verify it, [`TokenRules`] say what a
//! token must be, [`ProofRules`] what a proof, [`Replays`] which proofs were used, [`Nonces`] which ones the
//! bridge asks for, [`Discovery`] where an issuer's keys are, [`Units`] which unit belongs to which.
//!
//! Every rule has a [`Fault`] of its own. Which one was broken is for the operator, never for the caller.
//! Must never take an algorithm from a text without holding it against the key, and knows no shared secrets.

mod algorithm;
mod claims;
mod discovery;
mod fault;
mod jwk;
mod jws;
mod nonce;
mod proof;
mod replay;
#[cfg(test)]
mod tests;
mod units;

pub use algorithm::Algorithm;
pub use claims::{AccessTokens, Token, TokenRules, scope_of};
pub use discovery::{Discovery, InvalidDiscovery};
pub use fault::{Fault, Refusal};
pub use jwk::{InvalidKeySet, Key, KeySet};
pub use jws::{Credentials, Jws, PROOF_BYTES_MAX, TOKEN_BYTES_MAX, credentials};
pub use nonce::{NONCE_SLOT_S, Nonces};
pub use proof::{Call, Proof, ProofRules, PublicUrl};
pub use replay::Replays;
pub use units::{TooManyUnits, Units};
