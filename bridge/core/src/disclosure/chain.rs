//! The chain: each record holds the hash of the one before, and the bridge signs where it stands from
//! time to time.
//!
//! Whoever changes, takes out, adds or moves a record breaks it at that place; whoever makes a new chain
//! lacks the key. What comes behind the last checkpoint can be cut off unseen by the records alone: the
//! bridge knows its head, and a verifier that is told the head finds that too. What lies before the
//! first record that is left has gone by retention, or was taken out: each checkpoint says how old at
//! least everything is that it vouches for and the one before did not.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use ryggrad_schemas::identifiers::Organisasjonsnummer;
use sha2::{Digest, Sha256};

use super::entry::{Entry, Link};
use crate::asymmetric::{PublicKey, SigningKey};

/// Where a chain stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The number of the last record; 0 if there is none.
    pub number: u64,
    /// Its hash; empty if there is none.
    pub hash: String,
}

/// A chain that is being written.
#[derive(Debug, Clone)]
pub struct Chain {
    controller: Organisasjonsnummer,
    head: Head,
    /// Records since the last checkpoint.
    unsigned: u64,
    /// When the last checkpoint was made, or the first record.
    since: Option<Timestamp>,
}

impl Chain {
    /// A new one.
    pub fn new(controller: Organisasjonsnummer) -> Self {
        Self { controller, head: Head { number: 0, hash: String::new() }, unsigned: 0, since: None }
    }

    /// Goes on where a verifier has found it to end; behind where it is known to have been, if it has lost its end: what is
    /// missing then stays a gap for everyone who looks.
    pub fn behind(controller: Organisasjonsnummer, report: &Report, known: Option<&Head>) -> Self {
        match known.filter(|known| known.number > report.head.number) {
            Some(known) => Self { controller, head: known.clone(), unsigned: 0, since: None },
            None => Self { controller, head: report.head.clone(), unsigned: report.unsigned, since: report.since },
        }
    }

    /// Where it stands.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Records that no checkpoint vouches for yet.
    pub fn unsigned(&self) -> u64 {
        self.unsigned
    }

    /// The next record: its number and its bytes. It counts as written from here on.
    pub fn append(&mut self, at: Timestamp, entry: Entry) -> Result<(u64, Vec<u8>), serde_json::Error> {
        let number = self.head.number + 1;
        let is_checkpoint = matches!(entry, Entry::Checkpoint { .. });
        if is_checkpoint || self.since.is_none() {
            self.since = Some(at);
        }
        let link = Link { number, before: self.head.hash.clone(), controller: self.controller, at, entry };
        let bytes = serde_json::to_vec(&link)?;
        self.head = Head { number, hash: hash(&bytes) };
        self.unsigned = if is_checkpoint { 0 } else { self.unsigned + 1 };
        Ok((number, bytes))
    }

    /// Vouches for everything so far.
    pub fn checkpoint(&mut self, at: Timestamp, key: &SigningKey) -> Result<(u64, Vec<u8>), serde_json::Error> {
        let since = self.since.unwrap_or(at);
        let (id, body) = signed(self.controller, &self.head, since);
        let signature = key.sign(&id, at.as_second(), body.as_bytes());
        self.append(at, Entry::Checkpoint { since, signature })
    }
}

/// What a checkpoint vouches for, as id and body of a message.
fn signed(controller: Organisasjonsnummer, head: &Head, since: Timestamp) -> (String, String) {
    (format!("ryggrad.disclosures/{controller}/{}", head.number), format!("{} {since}", head.hash))
}

fn hash(bytes: &[u8]) -> String {
    STANDARD.encode(Sha256::digest(bytes))
}

/// What is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It is no record of a chain.
    #[error("record at offset {offset} cannot be read")]
    Unreadable {
        /// Where.
        offset: i64,
    },
    /// A record of another controller.
    #[error("record {number} at offset {offset} belongs to another controller")]
    Foreign {
        /// Where.
        offset: i64,
        /// Its number.
        number: u64,
    },
    /// Numbers do not follow each other.
    #[error("record at offset {offset} has number {number}, where {expected} was to come: records are missing, moved or added")]
    Gap {
        /// Where.
        offset: i64,
        /// What it has.
        number: u64,
        /// What it should have.
        expected: u64,
    },
    /// The record before it was changed, or this one was.
    #[error("record {number} at offset {offset} does not continue the one before it: one of the two was changed")]
    Broken {
        /// Where.
        offset: i64,
        /// Its number.
        number: u64,
    },
    /// A checkpoint that the bridge has not signed.
    #[error("the checkpoint {number} at offset {offset} is not signed by the bridge")]
    Unsigned {
        /// Where.
        offset: i64,
        /// Its number.
        number: u64,
    },
    /// Its beginning is gone before its time.
    #[error("the chain begins with record {first}, and records before it are younger than they are kept: its beginning was cut off")]
    Beginning {
        /// The first record found.
        first: u64,
    },
    /// The chain ends elsewhere than the bridge says.
    #[error("the chain ends with record {found}, and the bridge has written {expected}: the end was cut off or replaced")]
    End {
        /// The last record found.
        found: u64,
        /// The last that was written.
        expected: u64,
    },
}

/// What was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The number of the first record that is left; none if there is no record.
    pub first: Option<u64>,
    /// Where the chain stands.
    pub head: Head,
    /// Good checkpoints.
    pub checkpoints: u64,
    /// Records that no checkpoint vouches for.
    pub unsigned: u64,
    /// When the last checkpoint was made, or else the first record.
    pub since: Option<Timestamp>,
    /// What is wrong, in order; the first so many.
    pub faults: Vec<Fault>,
}

/// Reads a chain from its first record on.
pub struct Verifier {
    controller: Organisasjonsnummer,
    /// Keys that checkpoints may be signed with: the present one and former ones.
    keys: Vec<PublicKey>,
    /// What is younger has not expired.
    kept_since: Timestamp,
    faults_max: usize,
    /// Where it is known to have been.
    known: Option<Head>,
    report: Report,
}

impl Verifier {
    /// Has read nothing yet.
    pub fn new(controller: Organisasjonsnummer, keys: Vec<PublicKey>, kept_since: Timestamp, faults_max: usize) -> Self {
        let head = Head { number: 0, hash: String::new() };
        let report = Report { first: None, head, checkpoints: 0, unsigned: 0, since: None, faults: Vec::new() };
        Self { controller, keys, kept_since, faults_max, known: None, report }
    }

    /// Held against where the chain is known to have been, and what has not expired: it passes there, or ends there.
    pub fn past(mut self, known: Option<Head>) -> Self {
        self.known = known;
        self
    }

    /// Takes in the next record; gives it if it can be read.
    pub fn take(&mut self, offset: i64, bytes: &[u8]) -> Option<Link> {
        let Some(link) =
            serde_json::from_slice::<Link>(bytes).ok().filter(|link| serde_json::to_vec(link).is_ok_and(|again| again == bytes))
        else {
            self.fault(Fault::Unreadable { offset });
            return None;
        };
        let number = link.number;
        if link.controller != self.controller {
            self.fault(Fault::Foreign { offset, number });
        }
        let expected = self.report.head.number + 1;
        match self.report.first {
            // The first of all has nothing before it; any other has, and the first checkpoint says how old that was.
            None => {
                (self.report.first, self.report.since) = (Some(number), Some(link.at));
                if (number == 1) != link.before.is_empty() {
                    self.fault(Fault::Broken { offset, number });
                }
            }
            Some(_) if number != expected => self.fault(Fault::Gap { offset, number, expected }),
            Some(_) if link.before != self.report.head.hash => self.fault(Fault::Broken { offset, number }),
            Some(_) => {}
        }
        self.report.unsigned += 1;
        if let Entry::Checkpoint { since, signature } = &link.entry {
            let vouched = Head { number: number.saturating_sub(1), hash: link.before.clone() };
            let (id, body) = signed(self.controller, &vouched, *since);
            let at_s = link.at.as_second().to_string();
            if self.keys.iter().any(|key| key.verifies(&id, &at_s, signature, body.as_bytes())) {
                if let Some(first) = self.report.first.filter(|first| *first > 1)
                    && self.report.checkpoints == 0
                    && *since >= self.kept_since
                {
                    self.fault(Fault::Beginning { first });
                }
                self.report.checkpoints += 1;
                (self.report.unsigned, self.report.since) = (0, Some(link.at));
            } else {
                self.fault(Fault::Unsigned { offset, number });
            }
        }
        self.report.head = Head { number, hash: hash(bytes) };
        if self.known.as_ref().is_some_and(|known| known.number == number && *known != self.report.head) {
            self.fault(Fault::Broken { offset, number });
        }
        Some(link)
    }

    /// What was found, with what the bridge says of its end.
    pub fn finish(mut self, head: Option<&Head>) -> Report {
        let found = self.report.head.number;
        if let Some(head) = head.filter(|head| **head != self.report.head) {
            self.fault(Fault::End { found, expected: head.number });
        }
        match self.known.as_ref().map(|known| known.number) {
            Some(expected) if expected > found => self.fault(Fault::End { found, expected }),
            Some(known) => {
                if let Some(first) = self.report.first.filter(|first| *first > known) {
                    self.fault(Fault::Beginning { first });
                }
            }
            None => {}
        }
        self.report
    }

    fn fault(&mut self, fault: Fault) {
        if self.report.faults.len() < self.faults_max {
            self.report.faults.push(fault);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disclosure::entry::{How, Outcome};

    const CONTROLLER: &str = "312345676";
    const RECORDS: usize = 12;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed(&[seed; 32]).unwrap()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn outcome(intent: u64) -> Entry {
        Entry::Outcomes { of: vec![Outcome { intent, attempt: 1, how: How::Delivered, status: Some(204) }] }
    }

    /// A chain with a checkpoint at every fourth place, and two records behind the last.
    fn written(key: &SigningKey) -> (Vec<Vec<u8>>, Head) {
        let mut chain = Chain::new(CONTROLLER.parse().unwrap());
        let mut records = Vec::new();
        for index in 0..RECORDS + 2 {
            let appended =
                if index % 4 == 3 { chain.checkpoint(at(index as i64), key) } else { chain.append(at(index as i64), outcome(1)) };
            records.push(appended.unwrap().1);
        }
        assert_eq!(chain.unsigned(), 2);
        (records, chain.head().clone())
    }

    /// Nothing of it has expired but what came before the second `kept_since_s`.
    fn verified(records: &[Vec<u8>], key: &SigningKey, kept_since_s: i64, head: Option<&Head>) -> Report {
        let mut verifier = Verifier::new(CONTROLLER.parse().unwrap(), vec![key.public()], at(kept_since_s), 100);
        records.iter().enumerate().for_each(|(offset, bytes)| drop(verifier.take(offset as i64, bytes)));
        verifier.finish(head)
    }

    #[test]
    fn a_whole_chain_has_no_fault_nor_has_one_whose_beginning_has_expired() {
        let key = key(1);
        let (records, head) = written(&key);
        for gone in 0..records.len() {
            let report = verified(&records[gone..], &key, 100, Some(&head));
            assert_eq!((report.faults, report.first, report.head), (vec![], Some(gone as u64 + 1), head.clone()));
        }
        assert_eq!(verified(&records, &key, 0, None).checkpoints, 3);
        assert_eq!(verified(&[], &key, 0, None).faults, []);
    }

    #[test]
    fn a_chain_that_was_read_goes_on_as_if_it_had_never_stopped() {
        let key = key(1);
        let (records, _) = written(&key);
        for cut in 1..records.len() {
            let controller = CONTROLLER.parse().unwrap();
            let mut chain = Chain::behind(controller, &verified(&records[..cut], &key, 0, None), None);
            for (index, expected) in records.iter().enumerate().skip(cut) {
                let second = at(index as i64);
                let appended = if index % 4 == 3 { chain.checkpoint(second, &key) } else { chain.append(second, outcome(1)) };
                assert_eq!(appended.unwrap().1, *expected, "cut at {cut}, record {index}");
            }
        }
    }

    #[test]
    fn whatever_is_done_to_any_record_is_found() {
        let key = key(1);
        let (records, head) = written(&key);
        let faulty = |records: &[Vec<u8>], what: &str| {
            let report = verified(records, &key, 0, Some(&head));
            assert!(!report.faults.is_empty(), "{what} is not found");
        };
        for at in 0..records.len() {
            for byte in 0..records[at].len() {
                let mut changed = records.clone();
                changed[at][byte] ^= 1;
                faulty(&changed, &format!("record {at}, byte {byte} changed"));
            }
            let mut doubled = records.clone();
            doubled.insert(at, records[at].clone());
            faulty(&doubled, &format!("record {at} doubled"));
            let mut without = records.clone();
            without.remove(at);
            faulty(&without, &format!("record {at} removed"));
            for other in 0..at {
                let mut swapped = records.clone();
                swapped.swap(at, other);
                faulty(&swapped, &format!("records {other} and {at} swapped"));
            }
            faulty(&records[..at], &format!("everything from record {at} on cut off"));
        }
        // With a checkpoint left, a beginning that is gone too early is found as well.
        (1..RECORDS).for_each(|gone| faulty(&records[gone..], &format!("everything before record {gone} cut off")));
    }

    #[test]
    fn what_was_known_of_a_chain_is_missed_and_stays_missed() {
        let key = key(1);
        let (records, _) = written(&key);
        let controller = CONTROLLER.parse().unwrap();
        let known = |number: usize| Head { number: number as u64, hash: hash(&records[number - 1]) };
        let read = |records: &[Vec<u8>], known: Head| {
            let mut verifier = Verifier::new(controller, vec![key.public()], at(0), 100).past(Some(known));
            records.iter().enumerate().for_each(|(offset, bytes)| drop(verifier.take(offset as i64, bytes)));
            verifier.finish(None)
        };
        for left in 0..records.len() {
            let report = read(&records[..left], known(8));
            assert_eq!(report.faults.is_empty(), left >= 8, "{left}: {:?}", report.faults);
            // The chain that goes on from there, read by whoever knows nothing.
            let mut chain = Chain::behind(controller, &report, Some(&known(8)));
            let mut again = records[..left].to_vec();
            again.extend((0..2).map(|second| chain.append(at(20 + second), outcome(1)).unwrap().1));
            again.push(chain.checkpoint(at(30), &key).unwrap().1);
            let faults = verified(&again, &key, 0, Some(chain.head())).faults;
            assert_eq!(faults.is_empty(), left >= 8, "{left}: {faults:?}");
        }
        assert_eq!(read(&records[8..10], known(8)).faults, [Fault::Beginning { first: 9 }]);
        let other = Head { hash: known(7).hash, ..known(8) };
        assert_eq!(read(&records, other).faults, [Fault::Broken { offset: 7, number: 8 }]);
    }

    #[test]
    fn a_chain_made_anew_by_somebody_without_the_key_is_found_without_the_head() {
        let key = key(1);
        let (forged, _) = written(&self::key(2));
        let report = verified(&forged, &key, 0, None);
        assert_eq!(report.faults.len(), 3, "{:?}", report.faults);
        assert!(matches!(report.faults[0], Fault::Unsigned { number: 4, .. }));
        // And one whose checkpoints were simply left out has none to show.
        let mut chain = Chain::new(CONTROLLER.parse().unwrap());
        let plain: Vec<Vec<u8>> = (0..5).map(|second| chain.append(at(second), outcome(1)).unwrap().1).collect();
        let report = verified(&plain, &key, 0, None);
        assert_eq!((report.faults.len(), report.checkpoints, report.unsigned), (0, 0, 5));
    }

    #[test]
    fn a_chain_of_another_controller_is_found() {
        let key = key(1);
        let (records, _) = written(&key);
        let mut verifier = Verifier::new("310000019".parse().unwrap(), vec![key.public()], at(0), 100);
        records.iter().enumerate().for_each(|(offset, bytes)| drop(verifier.take(offset as i64, bytes)));
        let faults = verifier.finish(None).faults;
        assert_eq!(faults.iter().filter(|fault| matches!(fault, Fault::Foreign { .. })).count(), records.len());
        assert_eq!(faults.iter().filter(|fault| matches!(fault, Fault::Unsigned { .. })).count(), 3);
    }
}
