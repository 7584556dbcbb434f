//! The bridge's decisions: subscriptions, matching, cursors, lanes, retries, signatures, egress.
//!
//! Pure: no tokio, sockets, clock, randomness or files; time and entropy are arguments.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests"))]

pub mod access;
pub mod asymmetric;
pub mod cesql;
pub mod cursor;
pub mod delivery;
pub mod disclosure;
pub mod egress;
pub mod endpoint;

pub mod filter;
pub mod headers;
pub mod hub;
pub mod idempotency;
pub mod letter_name;
pub mod machine;
pub mod matching;
mod mixer;
pub mod network;
pub mod outcome;
pub mod outlet;
pub mod own_headers;
pub mod patch;
pub mod pull_cursor;
pub mod record;
pub mod removal;
pub mod replay;
pub mod retry;
pub mod rewind;
pub mod role;
pub mod settings;
pub mod signature;
pub mod socket;
pub mod subscription;
pub mod trust;
pub mod watch_list;
pub mod whole_number;
