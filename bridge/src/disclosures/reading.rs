//! Who looks at the records, and what is found: within one controller, and recorded before anything is shown.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use ryggrad_bridge_core::access::Look;
use ryggrad_bridge_core::disclosure::audit_event::audit_event;
use ryggrad_bridge_core::disclosure::{Intent, Link, Outcome, Reading, Report, Verifier, record_of};
use ryggrad_log::{Start, scan, scan_from, topics, watermarks};
use ryggrad_schemas::identifiers::Organisasjonsnummer;
use serde_json::{Value, json};

use super::keeper::topic_of;
use super::{Disclosures, Looked, NotRecorded};

/// Faults that are shown.
const FAULTS_MAX: usize = 100;

/// An intent, with how its last attempt went.
pub struct Found {
    number: u64,
    controller: Organisasjonsnummer,
    at: Timestamp,
    intent: Intent,
    outcome: Option<Outcome>,
}

impl Found {
    /// Its number, where the next page begins after.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// As Ryggrad says it.
    pub fn plain(&self) -> Value {
        let outcome =
            self.outcome.as_ref().map(|outcome| json!({"how": outcome.how, "attempt": outcome.attempt, "status": outcome.status}));
        json!({"number": self.number, "at": self.at, "controller": self.controller, "intent": self.intent, "outcome": outcome})
    }

    /// As FHIR says it.
    pub fn audit_event(&self) -> Value {
        audit_event(self.controller, self.at, &self.intent, self.outcome.as_ref())
    }
}

struct Search {
    look: Look,
    person: Option<String>,
    found: BTreeMap<u64, Found>,
}

impl Search {
    fn take(&mut self, bytes: &[u8]) {
        // What cannot be read is the verifier's to tell.
        let Ok(link) = serde_json::from_slice::<Link>(bytes) else { return };
        let (controller, at) = (link.controller, link.at);
        for (number, intent) in link.intents() {
            if self.found.len() < self.look.limit && self.wants(number, at, intent) {
                self.found.insert(number, Found { number, controller, at, intent: intent.clone(), outcome: None });
            }
        }
        for outcome in link.outcomes() {
            if let Some(found) = self.found.get_mut(&outcome.intent) {
                found.outcome = Some(outcome.clone());
            }
        }
    }

    fn wants(&self, number: u64, at: Timestamp, intent: &Intent) -> bool {
        let Look { organisation, from, until, after, .. } = &self.look;
        number > *after
            && self.person.as_ref().is_none_or(|person| intent.person.as_ref() == Some(person))
            && organisation.is_none_or(|organisation| intent.receiver == organisation || intent.supplier == Some(organisation))
            && from.is_none_or(|from| at >= from)
            && until.is_none_or(|until| at < until)
    }
}

impl Disclosures {
    /// Whether there are records of a controller's.
    pub async fn has(&self, controller: Organisasjonsnummer) -> Result<bool, NotRecorded> {
        // There were, if they have gone from Kafka.
        Ok(self.desk.store.head(controller)?.is_some() || topics::list(&self.desk.connection).await?.contains_key(&topic_of(controller)))
    }

    /// What was disclosed, as asked; the look itself is recorded first.
    pub async fn search(&self, controller: Organisasjonsnummer, reading: Reading, look: Look) -> Result<Vec<Found>, NotRecorded> {
        let Looked { head, offset } = self.look(controller, reading).await?;
        let person = look.subject.as_ref().map(|subject| self.persons.of(controller, subject));
        // By how much numbers are ahead of offsets now: at least as much as they ever were.
        let ahead = i64::try_from(head.number).unwrap_or(i64::MAX) - offset;
        let from = i64::try_from(record_of(look.after)).unwrap_or(i64::MAX).saturating_sub(ahead);
        let marks = watermarks(&self.desk.connection, &topic_of(controller), 0, self.desk.config.kafka_timeout_ms).await?;
        let from = from.clamp(marks.low, marks.high.max(marks.low));
        let search = Search { look, person, found: BTreeMap::new() };
        let search = scan_from(&self.desk.connection, &topic_of(controller), Start::Offset(from), search, |search, record| {
            search.take(record.value().unwrap_or_default());
            Ok(())
        })
        .await?;
        Ok(search.found.into_values().collect())
    }

    /// Whether the records are what was written; the look itself is recorded first.
    pub async fn verify(&self, controller: Organisasjonsnummer, reading: Reading) -> Result<Report, NotRecorded> {
        let head = self.look(controller, reading).await?.head;
        let retention = SignedDuration::from_millis(self.desk.retention_ms(controller).await?);
        let kept_since = Timestamp::now().checked_sub(retention).unwrap_or(Timestamp::MIN);
        let known = self.desk.store.head(controller)?.filter(|known| known.at_ms >= kept_since.as_millisecond());
        let verifier =
            Verifier::new(controller, self.desk.signing_keys.verifying(), kept_since, FAULTS_MAX).past(known.map(|known| known.head));
        let last = head.number;
        // What was written since is another look's.
        let (verifier, _) = scan(&self.desk.connection, &topic_of(controller), (verifier, false), move |(verifier, is_done), record| {
            if !*is_done {
                *is_done = verifier.take(record.offset(), record.value().unwrap_or_default()).is_some_and(|link| link.number >= last);
            }
            Ok(())
        })
        .await?;
        Ok(verifier.finish(Some(&head)))
    }
}
