//! Errors of the log, each with what the caller should do about it.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// What an error asks of the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// The same call may succeed later: wait and repeat it.
    Retry,
    /// The transaction is void and has been aborted: read the position again and redo it.
    Abort,
    /// This client is of no use any more (fenced, fatal): build a new one, or stop.
    Die,
}

/// The brokers ask nobody who it is.
#[derive(Debug, thiserror::Error)]
#[error("the brokers have no authorizer: set authorizer.class.name, or use ./ryggrad up --secure")]
pub(crate) struct NoAuthorizer;

/// Something that Kafka would not do.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing}")]
pub struct Error {
    /// What was tried, to follow "cannot".
    pub doing: String,
    /// What to do about it.
    pub remedy: Remedy,
    /// What the client library says.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

impl Error {
    pub(crate) fn new(doing: impl Into<String>, source: KafkaError) -> Self {
        Self { doing: doing.into(), remedy: remedy_of(&source), source: Box::new(source) }
    }

    pub(crate) fn other(doing: impl Into<String>, remedy: Remedy, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { doing: doing.into(), remedy, source: source.into() }
    }

    /// Whether no broker answers, as opposed to one that refuses.
    pub fn is_unreachable(&self) -> bool {
        use RDKafkaErrorCode as Code;
        let code = self.source.downcast_ref::<KafkaError>().and_then(KafkaError::rdkafka_error_code);
        matches!(
            code,
            Some(Code::BrokerTransportFailure | Code::AllBrokersDown | Code::OperationTimedOut | Code::Resolve | Code::MessageTimedOut)
        )
    }

    /// Whether a newer producer of the same transactional id has taken over. Our own transaction
    /// that timed out looks just the same.
    pub fn is_fenced(&self) -> bool {
        use RDKafkaErrorCode as Code;
        let Some(error) = self.source.downcast_ref::<KafkaError>() else { return false };
        let code = match error {
            KafkaError::Transaction(error) => Some(error.code()),
            error => error.rdkafka_error_code(),
        };
        // librdkafka makes some of them "fatal" and leaves the reason to the text.
        matches!(code, Some(Code::Fenced | Code::InvalidProducerEpoch | Code::ProducerFenced))
            || ["fence", "old epoch"].iter().any(|word| error.to_string().contains(word))
    }

    /// Whether the brokers let everybody do everything, so that there is nothing to be set.
    pub fn lacks_authorizer(&self) -> bool {
        self.source.is::<NoAuthorizer>()
    }

    /// The whole chain in one line.
    pub fn chain(&self) -> String {
        format!("{self}: {}", self.source)
    }
}

fn remedy_of(error: &KafkaError) -> Remedy {
    if let KafkaError::Transaction(error) = error {
        return if error.is_fatal() {
            Remedy::Die
        } else if error.txn_requires_abort() {
            Remedy::Abort
        } else if error.is_retriable() {
            Remedy::Retry
        } else {
            Remedy::Die
        };
    }
    use RDKafkaErrorCode as Code;
    match error.rdkafka_error_code() {
        Some(Code::Fatal | Code::Fenced | Code::InvalidProducerEpoch | Code::ProducerFenced) => Remedy::Die,
        Some(Code::PurgeQueue | Code::PurgeInflight) => Remedy::Abort,
        _ => match error {
            KafkaError::ClientConfig(..) | KafkaError::ClientCreation(_) => Remedy::Die,
            _ => Remedy::Retry,
        },
    }
}
