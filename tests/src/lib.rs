//! The test harness: a real broker, the real binary, a receiver with bad manners on request.
//!
//! Must never sleep to wait for something: it waits for a state, with a deadline that fails.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test harness fails loudly and prints its seeds"
)]

pub mod bridge;
pub mod broker;
pub mod channels;
pub mod conformance;
pub mod crowd;
pub mod disclosed;
pub mod events;
pub mod foreign;
pub mod guard;
pub mod helseid;
pub mod ledger;
pub mod maskinporten;
pub mod measurements;
pub mod oracle;
pub mod process;
pub mod random;
pub mod receiver;
pub mod rude;
pub mod scenario;
pub mod schema_registry;
pub mod topic;
pub mod trial;
pub mod upstream;
pub mod wait;
pub mod wire;

/// Whether tests are to take their full scale: `./ryggrad test --full`, or `RYGGRAD_TEST_FULL=1`.
///
/// The tests are the same either way; only numbers (units, rounds, kills) may depend on it.
pub fn full() -> bool {
    std::env::var_os("RYGGRAD_TEST_FULL").is_some_and(|value| value == "1")
}
