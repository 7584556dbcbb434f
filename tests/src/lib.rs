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
pub mod events;
pub mod oracle;
pub mod process;
pub mod random;
pub mod receiver;
pub mod rude;
pub mod scenario;
pub mod topic;
pub mod upstream;
pub mod wait;
