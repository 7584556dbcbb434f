//! The log: everything that Ryggrad does with Apache Kafka. The only crate that knows rdkafka.
//!
//! Cast: [`Publisher`] writes transactions, [`Appender`] single acknowledged records, [`follow`]
//! and [`read_to_end`] read on threads of their own, [`read_stretches`] reads what was fixed
//! beforehand, [`Copier`] copies records byte for byte, [`groups`] knows how far others have read, [`topics`] creates and checks topics from
//! the catalogue, [`LocalBroker`] runs a real broker for development, tests and benchmarks,
//! [`LocalAuthority`] vouches on this machine, [`access_control`] reads and sets ACLs and quotas,
//! [`ReceiverTopics`] empties and deletes topics of single receivers,
//! [`Seal`] encrypts what must not lie open in a topic.
//!
//! Promises: only committed records are read; an offset outside the log is an error and never a
//! silent reset; no librdkafka type or thread leaks out; every error says what to do about it.

pub mod access_control;
mod appender;
pub mod bench;
mod connection;
mod copier;
mod ends;
mod error;
pub mod groups;
mod local_authority;
mod local_broker;
mod offsets;
mod publisher;
mod reader;
mod receiver_topics;
mod scan;
mod seal;
mod stretch;
pub mod topics;

pub use appender::{Acknowledgement, Appended, Appender};
pub use connection::{Connection, InvalidSecurity, KeyPassword, Security};
pub use copier::{Copier, Progress};
pub use ends::Ends;
pub use error::{Error, Remedy};
pub use local_authority::{AuthorityError, Identity, LocalAuthority};
pub use local_broker::{BROKER_HEAP, BROKER_SETTINGS, Durability, LocalBroker, LocalBrokerError, LocalBrokerOptions, PRINCIPAL_RULES};
pub use offsets::{
    Extent, Moment, Moments, Pulse, TransactionWatch, Watermarks, cluster_id, extent, offset_at_time, offsets_of, watermarks,
};
pub use publisher::{Marks, Publisher, PublisherOptions};
pub use reader::{Follower, Read, ReaderLimits, Start, follow, read_to_end};
pub use receiver_topics::ReceiverTopics;
pub use scan::{Fetcher, Lent, scan, scan_from, scan_partitions};
pub use seal::{Seal, SealError};
pub use stretch::{Seen, Stretch, read_stretches};
