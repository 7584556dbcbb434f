//! The bridge: fans events out of Kafka to subscribed organisations.
//!
//! Cast: [`api`] answers HTTP, [`answers`] keeps answers for repetitions, [`subscriptions`] and [`tokens`] hold facts whose truth is a
//! topic, [`access`] holds who takes part and what is opened to whom, [`watch_lists`] narrow subscriptions to keys, [`runtime`] drives one
//! pure machine per subscription, [`channel`] carries deliveries, [`outlets`] write to topics of single receivers, [`listening`] takes callers in, [`contract`] is what the API promises,
//! [`removals`] knows whose older states may not leave, [`trust`] whose callers an issuer vouches for, [`schema_registry`] shows the committed
//! schemas, [`schema_import`] brings them to a registry beside the bridge. Decisions are made in `ryggrad-bridge-core`.
//!
//! Promises: ports are bound before anything else; a change is answered after Kafka has it; a
//! delivery is settled after the answer came and the cursor is on disk; no secret is logged.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests"))]

mod access;
mod answers;
mod api;
pub mod channel;
mod config;
pub mod contract;
mod counting;
mod disclosures;
mod facts;
mod hexadecimal;
mod lifecycle;
mod listening;
mod outlets;
mod problem;
mod removals;
mod runtime;
mod schema_import;
mod schema_registry;
mod sockets;
mod subscriptions;
mod telemetry;
mod tokens;
mod trust;
mod watch_lists;

pub use config::BridgeConfig;
pub use lifecycle::{Bridge, BridgeError, Secrets};
pub use trust::{InvalidTrust, TrustConfig};
