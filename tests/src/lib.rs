//! The test harness: a real broker, the real binary, a receiver with bad manners on request.
//!
//! Must never sleep to wait for something: it waits for a state, with a deadline that fails.

pub mod broker;
