//! Topics as the catalogue has them: created where missing, compared where they exist.
//!
//! Must never change or delete a topic that exists: a difference is shown, and people decide. (Topics of single receivers,
//! which come and go with their subscriptions, are in `receiver_topics.rs`.)

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;
use ryggrad_schemas::catalogue::Topic;

use crate::connection::Listener;
use crate::publisher::blocking;
use crate::{Connection, Error, Remedy};

/// One setting in which a topic differs from the catalogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Topic name.
    pub topic: String,
    /// Kafka's name of the setting, or `partitions`.
    pub setting: String,
    /// What the catalogue says.
    pub expected: String,
    /// What the broker says.
    pub found: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} is {}, the catalogue says {}", self.topic, self.setting, self.found, self.expected)
    }
}

/// How a topic of the catalogue stands at the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Not there.
    Missing,
    /// There, as the catalogue says.
    AsExpected,
    /// There, but different.
    Differs(Vec<Difference>),
}

const TIMEOUT: Duration = Duration::from_secs(5);

/// Compares the catalogue's topics with the broker's.
pub async fn check(connection: &Connection, topics: &[Topic]) -> Result<Vec<(String, State)>, Error> {
    let admin = Arc::new(admin(connection)?);
    let partitions = partition_counts(Arc::clone(&admin)).await?;
    let mut states = Vec::with_capacity(topics.len());
    for topic in topics {
        let state = match partitions.get(&topic.name) {
            None => State::Missing,
            Some(found) => compare(&admin, topic, *found).await?,
        };
        states.push((topic.name.clone(), state));
    }
    Ok(states)
}

/// Creates the topics that are missing and returns their names. A topic that exists and differs
/// is an error that shows every difference.
pub async fn ensure(connection: &Connection, topics: &[Topic], replication: i32) -> Result<Vec<String>, Error> {
    let states = check(connection, topics).await?;
    let differences: Vec<String> = states
        .iter()
        .filter_map(|(_, state)| if let State::Differs(differences) = state { Some(differences) } else { None })
        .flatten()
        .map(ToString::to_string)
        .collect();
    if !differences.is_empty() {
        return Err(Error::other("use the topics as they are", Remedy::Die, differences.join("; ")));
    }
    let missing: Vec<&Topic> =
        topics.iter().zip(&states).filter(|(_, (_, state))| *state == State::Missing).map(|(topic, _)| topic).collect();
    let admin = admin(connection)?;
    for topic in &missing {
        create(&admin, topic, replication).await?;
    }
    Ok(missing.into_iter().map(|topic| topic.name.clone()).collect())
}

async fn create(admin: &AdminClient<Listener>, topic: &Topic, replication: i32) -> Result<(), Error> {
    let doing = || format!("create the topic {}", topic.name);
    let config = topic.kafka_config();
    let mut new = NewTopic::new(&topic.name, topic.partitions, TopicReplication::Fixed(replication));
    for (name, value) in &config {
        new = new.set(name, value);
    }
    let options = AdminOptions::new().operation_timeout(Some(TIMEOUT));
    let results = admin.create_topics([&new], &options).await.map_err(|error| Error::new(doing(), error))?;
    match results.into_iter().next() {
        // Someone else was quicker; what they made is compared at the next start.
        None | Some(Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(()),
        Some(Err((_, code))) => Err(Error::new(doing(), KafkaError::AdminOp(code))),
    }
}

/// Partition counts of all topics, by name.
pub async fn list(connection: &Connection) -> Result<HashMap<String, usize>, Error> {
    partition_counts(Arc::new(admin(connection)?)).await
}

/// A topic as the broker has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// How many partitions it has.
    pub partitions: i32,
    /// Kafka's `cleanup.policy`.
    pub cleanup_policy: String,
    /// How long records stay, in milliseconds; none if for ever.
    pub retention_ms: Option<i64>,
}

impl Described {
    /// Whether only the latest record of each key stays.
    pub fn is_compacted(&self) -> bool {
        self.cleanup_policy.contains("compact")
    }
}

/// How a topic is; none if there is none of that name. Never creates one.
pub async fn describe(connection: &Connection, topic: &str) -> Result<Option<Described>, Error> {
    let doing = || format!("look at the topic {topic}");
    let admin = Arc::new(admin(connection)?);
    let Some(partitions) = partition_counts(Arc::clone(&admin)).await?.get(topic).copied() else { return Ok(None) };
    let described = admin
        .describe_configs([&ResourceSpecifier::Topic(topic)], &AdminOptions::new().request_timeout(Some(TIMEOUT)))
        .await
        .map_err(|error| Error::new(doing(), error))?;
    let resource = match described.into_iter().next() {
        Some(Ok(resource)) => Some(resource),
        Some(Err(code)) => return Err(Error::new(doing(), KafkaError::AdminOp(code))),
        None => None,
    };
    let said = |name| resource.as_ref().and_then(|resource| resource.get(name)).and_then(|entry| entry.value.clone());
    let retention_ms = said("retention.ms").and_then(|text| text.parse().ok()).filter(|retention_ms| *retention_ms >= 0);
    let cleanup_policy =
        said("cleanup.policy").ok_or_else(|| Error::other(doing(), Remedy::Retry, "the broker does not tell its cleanup.policy"))?;
    Ok(Some(Described { partitions: i32::try_from(partitions).unwrap_or(i32::MAX), cleanup_policy, retention_ms }))
}

/// Partition counts of all topics. Of all, since asking for one by name could create it.
pub(crate) async fn partition_counts(admin: Arc<AdminClient<Listener>>) -> Result<HashMap<String, usize>, Error> {
    blocking(move || {
        let metadata = admin.inner().fetch_metadata(None, TIMEOUT).map_err(|error| Error::new("list the topics", error))?;
        Ok(metadata.topics().iter().map(|topic| (topic.name().to_owned(), topic.partitions().len())).collect())
    })
    .await
}

async fn compare(admin: &AdminClient<Listener>, topic: &Topic, partitions: usize) -> Result<State, Error> {
    let doing = || format!("look at the topic {}", topic.name);
    let mut differences = Vec::new();
    let mut compare = |setting: &str, expected: String, found: String| {
        if expected != found {
            differences.push(Difference { topic: topic.name.clone(), setting: setting.to_owned(), expected, found });
        }
    };
    compare("partitions", topic.partitions.to_string(), partitions.to_string());
    let described = admin
        .describe_configs([&ResourceSpecifier::Topic(&topic.name)], &AdminOptions::new().request_timeout(Some(TIMEOUT)))
        .await
        .map_err(|error| Error::new(doing(), error))?;
    match described.into_iter().next() {
        Some(Ok(resource)) => {
            for (name, expected) in topic.kafka_config() {
                let found = resource.get(name).and_then(|entry| entry.value.clone()).unwrap_or_else(|| "unknown".to_owned());
                compare(name, expected, found);
            }
        }
        Some(Err(code)) => return Err(Error::new(doing(), KafkaError::AdminOp(code))),
        None => return Err(Error::other(doing(), Remedy::Retry, "the broker describes nothing")),
    }
    Ok(if differences.is_empty() { State::AsExpected } else { State::Differs(differences) })
}

pub(crate) fn admin(connection: &Connection) -> Result<AdminClient<Listener>, Error> {
    connection.client().create_with_context(Listener).map_err(|error| Error::new("create an admin client", error))
}
