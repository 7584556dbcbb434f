//! Chains of records of disclosures, with anything done to them; and names of topics for one receiver.
//!
//! Laws: a chain as it was written has no fault, and one with any byte altered has; a record of nobody's making never makes
//! a chain longer unseen; a topic's name that is taken is that name.

use std::sync::LazyLock;

use jiff::Timestamp;
use ryggrad_bridge_core::access::kafka_access::Outlet;
use ryggrad_bridge_core::asymmetric::SigningKey;
use ryggrad_bridge_core::disclosure::{Chain, Entry, Head, Link, Reading, Verifier};
use ryggrad_schemas::Organisasjonsnummer;
use serde_json::json;

use crate::parts::{altered, choose, json, seed};

const FAULTS_MAX: usize = 8;

struct Written {
    controller: Organisasjonsnummer,
    key: SigningKey,
    head: Head,
    records: Vec<Vec<u8>>,
}

static WRITTEN: LazyLock<Written> = LazyLock::new(|| {
    let (controller, key) = ("312345676".parse().unwrap(), SigningKey::from_seed(&[4; 32]).unwrap());
    let at = Timestamp::UNIX_EPOCH;
    let mut chain = Chain::new(controller);
    let mut records = Vec::new();
    let outcome = json!({"intent": 1_000, "attempt": 1, "how": "delivered", "status": 204});
    let together = |kind: &str, of: serde_json::Value| -> Entry { serde_json::from_value(json!({"kind": kind, "of": [of, of]})).unwrap() };
    let reading = Entry::Reading(Reading { by: None, client: Some("c".to_owned()), asked: "verify".to_owned(), purpose: None });
    for entry in [together("intents", intent()), together("outcomes", outcome)] {
        records.push(chain.append(at, entry).unwrap().1);
    }
    records.push(chain.checkpoint(at, &key).unwrap().1);
    records.push(chain.append(at, reading).unwrap().1);
    Written { controller, key, head: chain.head().clone(), records }
});

fn intent() -> serde_json::Value {
    json!({
        "delivery": "msg_1", "event": "e", "ce_type": "t", "topic": "t", "partition": 0, "offset": 7, "person": "p",
        "receiver": "923609016", "supplier": null, "client": "c", "subscription": uuid::Uuid::from_u128(7), "channel": "webhook",
        "host": "m.example.org", "view": "full", "with_addresses": true, "basis": "x", "purpose": null,
    })
}

fn verified(records: &[Vec<u8>]) -> usize {
    let mut verifier = Verifier::new(WRITTEN.controller, vec![WRITTEN.key.public()], Timestamp::UNIX_EPOCH, FAULTS_MAX);
    for (offset, record) in (0..).zip(records) {
        if let Some(link) = verifier.take(offset, record) {
            assert_eq!(&serde_json::to_vec(&link).unwrap(), record, "what is read is not all that stands there");
        }
    }
    let report = verifier.finish(Some(&WRITTEN.head));
    assert!(report.faults.len() <= FAULTS_MAX);
    report.faults.len()
}

pub(crate) fn run(input: &[u8]) -> bool {
    match choose(input, 4) {
        // Altered bytes, in any of the records.
        Some((0, changes)) => {
            let Some((which, changes)) = changes.split_first() else { return false };
            let mut records = WRITTEN.records.clone();
            let which = usize::from(*which) % records.len();
            records[which] = altered(&records[which], changes);
            let unaltered = records == WRITTEN.records;
            assert_eq!(verified(&records) == 0, unaltered, "an altered chain has no fault, or a good one has");
            unaltered
        }
        // Other records: taken out, doubled, in another order.
        Some((1, order)) => {
            let records: Vec<_> =
                order.iter().take(16).map(|which| WRITTEN.records[usize::from(*which) % WRITTEN.records.len()].clone()).collect();
            // What is left behind the last checkpoint cannot tell how old what came before it was: the next one will.
            let waits_for_checkpoint = records == WRITTEN.records[WRITTEN.records.len() - 1..];
            let unaltered = records == WRITTEN.records;
            assert_eq!(verified(&records) == 0, unaltered || waits_for_checkpoint);
            unaltered
        }
        // Another record, in the place of one or behind all.
        Some((2, record)) => {
            let read = serde_json::from_slice::<Link>(record).is_ok();
            for place in 0..=WRITTEN.records.len() {
                let mut records = WRITTEN.records.clone();
                match records.get_mut(place) {
                    Some(there) if there == record => continue,
                    Some(there) => *there = record.to_vec(),
                    None => records.push(record.to_vec()),
                }
                assert!(verified(&records) > 0, "a record that nobody wrote goes unseen");
            }
            read && json(record).is_some()
        }
        Some((_, name)) => {
            let name = String::from_utf8_lossy(name);
            Outlet::named(&name).is_some_and(|outlet| {
                assert_eq!(outlet.topic(), name, "it is another topic's name");
                true
            })
        }
        None => false,
    }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![seed(0, [0]), seed(1, [0, 1, 2, 3]), seed(3, format!("ut.312345676.{}", uuid::Uuid::from_u128(7)))];
    seeds.extend(WRITTEN.records.iter().map(|record| seed(2, record)));
    seeds
}
