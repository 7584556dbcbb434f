//! Durable cursors. The only crate that knows sled.
//!
//! sled is the truth for cursors and for nothing else; whatever is in a damaged directory can be
//! made again from the changelog topic at the price of repeated deliveries. Promise: when `Writer::commit`
//! answers, the cursors are on disk, all of a commit or none. Never hands out a cursor whose
//! checksum is wrong.

mod entry;
mod open;
mod writer;

pub use entry::{Entry, SubscriptionId};
pub use open::{Bound, Loaded, OpenError, Opened, Store, Stored};
pub use writer::{Change, CommitError, Writer};
