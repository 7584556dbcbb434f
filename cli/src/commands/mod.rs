//! One file per command. A command parses nothing itself and decides little: it wires.

pub mod access;
pub mod bench;
pub mod bridge;
pub mod completions;
pub mod consume;
pub mod credentials;
pub mod filter;
pub mod frame;
mod input;
pub mod keys;
pub mod listen;
pub mod offsets;
pub mod produce;
pub mod replay;
pub mod sources;
pub mod subscriptions;
pub mod tokens;
pub mod topics;
pub mod trial;
pub mod up;
pub mod watch_lists;
