//! Why a producer ends, and why upstream could not be followed.
//!
//! Texts must never quote what upstream sent.

use std::error::Error;

use ryggrad_detect::enhetsregisteret::{LookUpError, PageError, UnknownFeed};
use ryggrad_detect::feed::PageFault;
use ryggrad_detect::position::UnreadablePosition;
use ryggrad_log::SealError;

use crate::credentials::CredentialsError;
use crate::http::HttpError;
use crate::snapshot::DumpError;

/// Why a producer ended other than by a stop.
#[derive(Debug, thiserror::Error)]
pub enum ProducerError {
    /// The settings make no sense; every fault.
    #[error("the producer's settings are wrong: {}", faults.join("; "))]
    Config {
        /// The faults.
        faults: Vec<String>,
    },
    /// The catalogue lacks what the source needs.
    #[error("the catalogue has no source {source_name} with an event type")]
    NoSource {
        /// The source.
        source_name: String,
    },
    /// The catalogue names a feed that the source does not have.
    #[error("the catalogue does not fit the source")]
    Feed(#[from] UnknownFeed),
    /// No HTTP client can be built.
    #[error("cannot set up an HTTP client")]
    Client(#[source] reqwest::Error),
    /// Upstream wants to know who asks, and this producer can't say it.
    #[error("the producer has no credentials")]
    Credentials(#[from] CredentialsError),
    /// The log refuses at the start; waiting would not help.
    #[error("the log refuses this producer")]
    Log(#[source] ryggrad_log::Error),
    /// A stored position can't be read.
    #[error("it is not known how far the source has been read")]
    Position(#[source] UnreadablePosition),
    /// Quarantined content can't be sealed.
    #[error("cannot seal what must be quarantined")]
    Seal(#[source] SealError),
    /// A dump could not be read, and was to be read only once.
    #[error("the dump of {feed} could not be read to its end; nothing was deleted; see to the cause and start again")]
    Snapshot {
        /// The feed.
        feed: String,
        /// Why.
        #[source]
        source: Box<UpstreamError>,
    },
    /// A newer producer of the same source is at work.
    #[error("another producer took over the source {source_name}; only one may run at a time")]
    TakenOver {
        /// The source.
        source_name: String,
    },
}

/// Why upstream could not be followed just now. The position stays.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// No answer.
    #[error("upstream gives no answer")]
    Http(#[from] HttpError),
    /// An answer with a status that makes no sense here.
    #[error("upstream answered with status {status} to a {question}")]
    Status {
        /// HTTP status.
        status: u16,
        /// What was asked for.
        question: &'static str,
    },
    /// An answer that is no page.
    #[error("upstream's answer is no page of its feed")]
    NoPage(#[from] PageError),
    /// A page that can't be followed.
    #[error("upstream's page cannot be followed")]
    Page(#[from] PageFault),
    /// A look-up's answer that is no document.
    #[error("upstream's answer is no document")]
    NoDocument(#[from] LookUpError),
    /// A dump can't be opened.
    #[error("the file of the dump cannot be opened")]
    File(#[source] std::io::Error),
    /// A dump can't be read to its end.
    #[error("the dump cannot be read to its end")]
    Dump(#[from] DumpError),
    /// Upstream seems to have nothing at all.
    #[error("upstream seems to be empty, which is not believed at once")]
    Empty,
    /// What the topic says can't be read.
    #[error("the log cannot be read")]
    Log(#[source] ryggrad_log::Error),
    /// What was found out no longer holds.
    #[error("too much was published meanwhile; the comparison begins again")]
    Superseded,
}

impl UpstreamError {
    /// Short name, for metrics.
    pub fn code(&self) -> String {
        match self {
            Self::Http(error) => error.code(),
            Self::Status { status, .. } => format!("status-{status}"),
            Self::NoPage(PageError::Html { .. }) => "html".to_owned(),
            Self::NoPage(_) => "no-page".to_owned(),
            Self::Page(PageFault::WentBackwards { .. }) => "went-backwards".to_owned(),
            Self::Page(PageFault::NoPositions { .. }) => "no-positions".to_owned(),
            Self::NoDocument(_) => "no-document".to_owned(),
            Self::File(_) => "dump-file".to_owned(),
            Self::Dump(DumpError::Broken(_) | DumpError::Torn(_)) => "dump-torn".to_owned(),
            Self::Dump(DumpError::Format { .. }) => "dump-format".to_owned(),
            Self::Dump(DumpError::Unfit(_)) => "dump-too-large".to_owned(),
            Self::Empty => "empty".to_owned(),
            Self::Log(_) => "log".to_owned(),
            Self::Superseded => "superseded".to_owned(),
        }
    }
}

/// Why a loop of this crate ends.
#[derive(Debug)]
pub(crate) enum End {
    /// It was asked to.
    Stopped,
    /// It can't go on.
    Failed(ProducerError),
}

impl From<ProducerError> for End {
    fn from(error: ProducerError) -> Self {
        Self::Failed(error)
    }
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        // librdkafka's errors name their cause already.
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}
