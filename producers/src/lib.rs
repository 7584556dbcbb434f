//! Producers: follow a registry's feeds and publish every change exactly once.
//!
//! Cast: [`run`] follows Enhetsregisteret, [`FeedSource`] is what a further registry implements,
//! [`Credentials`] says who asks where a registry wants to know, [`Telemetry`] counts and tells how each feed stands.
//!
//! One process, one publisher with the source's name as transactional id. At start the publisher
//! fences older ones; then positions are read from the log; then feeds are followed. Events,
//! quarantined items, marks of removal and the new position stand in one transaction. Must never
//! keep a position anywhere but in the log.

mod commands;
mod config;
pub mod credentials;
mod crossing;
mod enhetsregisteret;
mod error;
mod follow;
mod http;
mod lane;
mod look_ups;
mod pace;
mod pages;
mod roll;
mod snapshot;
mod source;
mod status;
mod telemetry;

use std::sync::Arc;

use ryggrad_log::{Connection, Seal};
use tokio_util::sync::CancellationToken;

pub use config::{Follow, ProducerConfig, SnapshotConfig, StartAt};
pub use credentials::{
    Again, Algorithm, AuthConfig, Authorisation, Credentials, CredentialsError, InvalidAnswer, InvalidKey, InvalidMetadata, IssuerKind,
    TokenError, TokenSays, credentials,
};
pub use enhetsregisteret::{Enhetsregisteret, NAME as ENHETSREGISTERET};
pub use error::{ProducerError, UpstreamError};
pub use http::{Download, DownloadTimeouts, Http, HttpError};
pub use ryggrad_detect::decide::Start;
pub use snapshot::{Dump, DumpError, SnapshotSource};
pub use source::{FeedSource, Fetched, follow_source, follow_with_snapshots};
pub use status::{FeedState, Health, Status};
pub use telemetry::Telemetry;

/// Follows Enhetsregisteret until `stop`. Topics must exist. Trouble upstream or with the broker
/// is waited out; an error means that waiting would not help, or that another producer took over.
pub async fn run(
    config: ProducerConfig,
    connection: Connection,
    seal: Seal,
    telemetry: Telemetry,
    stop: CancellationToken,
) -> Result<(), ProducerError> {
    let source = Arc::new(Enhetsregisteret::new(&config, telemetry.clone())?);
    follow_with_snapshots(source, &config, connection, seal, telemetry, stop).await
}
