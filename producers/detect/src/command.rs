//! What an operator tells a source to do, and what came of it, as records.
//!
//! A command stands in `ryggrad.source-commands`; it is carried out once, in the transaction that
//! moves the position past it. What came of it stands beside the positions. Must never carry a
//! document or a secret: whoever may read the topic reads it.

use ryggrad_schemas::catalogue::{Source, topics};
use ryggrad_schemas::{EncodedRecord, Headers};
use serde::{Deserialize, Serialize};

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Task {
    /// Compare a feed, or all, with its dump now.
    Reconcile {
        /// The feed; all if it is absent.
        #[serde(skip_serializing_if = "Option::is_none")]
        feed: Option<String>,
    },
    /// Read a feed on after this position.
    Reset {
        /// The feed.
        feed: String,
        /// The position.
        position: u64,
    },
    /// Publish what was set aside, now that it can be read or looked up.
    Repair {
        /// Offset in the quarantine.
        offset: i64,
        /// The key, where what was set aside does not tell it.
        #[serde(skip_serializing_if = "Option::is_none")]
        key: Option<String>,
    },
    /// Count what was set aside as dealt with, without an event.
    Dismiss {
        /// Offset in the quarantine.
        offset: i64,
    },
}

/// A command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// The caller's own id, to recognise the outcome by.
    pub id: String,
    /// What is to be done.
    #[serde(flatten)]
    pub task: Task,
}

impl Command {
    /// The record that carries it.
    pub fn to_record(&self, source: &Source) -> Result<EncodedRecord, serde_json::Error> {
        Ok(EncodedRecord {
            topic: topics::SOURCE_COMMANDS.to_owned(),
            partition: Some(0),
            key: source.name.clone(),
            value: Some(serde_json::to_vec(self)?),
            headers: Headers::default(),
        })
    }

    /// The command in a record's value.
    pub fn parse(value: &[u8]) -> Option<Self> {
        serde_json::from_slice(value).ok()
    }
}

/// What came of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The command's id.
    pub id: String,
    /// Whether it was carried out.
    pub done: bool,
    /// What was done, or why not, for people.
    pub text: String,
}

impl Outcome {
    /// The record beside the positions.
    pub fn to_record(&self, source: &Source) -> Result<EncodedRecord, serde_json::Error> {
        Ok(EncodedRecord {
            topic: topics::SOURCE_POSITIONS.to_owned(),
            partition: Some(source.positions_partition),
            key: format!("{}/command-outcome", source.name),
            value: Some(serde_json::to_vec(self)?),
            headers: Headers::default(),
        })
    }

    /// The outcome in a record of the positions, if it is one.
    pub fn parse(source: &Source, key: Option<&str>, value: Option<&[u8]>) -> Option<Self> {
        let is_outcome = key?.strip_prefix(&source.name)? == "/command-outcome";
        serde_json::from_slice(value.filter(|_| is_outcome)?).ok()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use ryggrad_schemas::Catalogue;

    use super::*;

    #[test]
    fn commands_and_outcomes_are_read_back_as_they_were_written() {
        let source = Catalogue::built_in().source("enhetsregisteret").unwrap();
        for task in [
            Task::Reconcile { feed: None },
            Task::Reset { feed: "enheter".to_owned(), position: 17 },
            Task::Repair { offset: 3, key: Some("312345676".to_owned()) },
            Task::Dismiss { offset: 3 },
        ] {
            let command = Command { id: "a".to_owned(), task };
            let record = command.to_record(source).unwrap();
            assert_eq!((record.topic.as_str(), record.key.as_str()), ("ryggrad.source-commands", "enhetsregisteret"));
            assert_eq!(Command::parse(&record.value.unwrap()), Some(command));
        }
        assert_eq!(Command::parse(br#"{"id":"a","do":"explode"}"#), None);
        let outcome = Outcome { id: "a".to_owned(), done: true, text: "done".to_owned() };
        let record = outcome.to_record(source).unwrap();
        assert_eq!(Outcome::parse(source, Some(&record.key), record.value.as_deref()), Some(outcome));
        assert_eq!(Outcome::parse(source, Some("enhetsregisteret/enheter"), record.value.as_deref()), None);
    }
}
