//! What the bridge and the producers have written themselves and read back: the cursor store, and Kafka's own topics.
//!
//! Laws: what is read says the same once it is written and read again; memory is bounded by the bytes that came; a value
//! without its check sum is not read.

use jiff::Timestamp;
use ryggrad_bridge_core::access::{Change, Kept};
use ryggrad_bridge_core::cursor::{Cursor, Place};
use ryggrad_bridge_core::machine::Numbering;
use ryggrad_bridge_core::removal::{Removals, Taken};
use ryggrad_bridge_core::replay::Replay;
use ryggrad_bridge_core::subscription::Subscription;
use ryggrad_bridge_core::watch_list::WatchList;
use ryggrad_bridge_core::watch_list::bucket::{self, RecordKey};
use ryggrad_detect::command::{Command, Outcome};
use ryggrad_detect::position;
use ryggrad_detect::quarantine::{Quarantined, open_entries};
use ryggrad_schemas::{Catalogue, Headers, LogRecord};
use ryggrad_store::{Entry, KeptAnswer, KeptHead, entry};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::parts::{choose, divide, seed};

const OWN: &str = "312345676";

pub(crate) fn store(input: &[u8]) -> bool {
    let Some((parser, rest)) = choose(input, 6) else { return false };
    match parser {
        0 => Cursor::from_bytes(rest).is_ok_and(|cursor| {
            holds(&cursor, rest.len());
            true
        }),
        1 => {
            // Which key, and a value whose check sum is right.
            let Some((length, rest)) = rest.split_first() else { return false };
            let (key, body) = rest.split_at(rest.len().min(usize::from(*length)));
            let value = summed(body);
            let Ok(found) = entry::parse(key, &value) else { return false };
            if let Entry::Cursor { cursor, .. } = &found {
                holds(cursor, body.len());
            }
            // Keys may have more behind them that is not read.
            let (key_again, value_again) = (entry::key(&found), entry::value(&found));
            assert!(key.starts_with(&key_again));
            assert_eq!(entry::parse(&key_again, &value_again).as_ref(), Ok(&found));
            true
        }
        2 => {
            let controller = OWN.parse().unwrap();
            KeptHead::parse(controller, &summed(rest)).is_some_and(|head| {
                assert_eq!(head.value(), summed(rest));
                true
            })
        }
        3 => KeptAnswer::parse(&[7; 32], &summed(rest)).is_some_and(|answer| {
            assert_eq!(answer.value(), summed(rest));
            true
        }),
        4 => bucket::decode(rest).is_some_and(|keys| {
            assert_eq!(bucket::encode(&keys), rest);
            true
        }),
        _ => RecordKey::parse(&String::from_utf8_lossy(rest)).is_some_and(|key| {
            assert_eq!(RecordKey::parse(&key.to_string()), Some(key));
            true
        }),
    }
}

fn summed(body: &[u8]) -> Vec<u8> {
    [crc32fast::hash(body).to_be_bytes().as_slice(), body].concat()
}

fn holds(cursor: &Cursor, bytes: usize) {
    assert!(cursor.pending.len() + cursor.collapsed.len() + cursor.rewinds.len() <= bytes, "more than its bytes can hold");
    let again = cursor.to_bytes();
    assert_eq!(Cursor::from_bytes(&again).as_ref(), Ok(cursor));
    assert_eq!(Cursor::from_bytes(&again).unwrap().to_bytes(), again);
    assert!(cursor.resume_at() <= cursor.scanned_to);
    let back = cursor.rewound(0);
    assert!(back.scanned_to == 0 && !back.attached && back.pending.iter().all(|(offset, pending)| *offset < 0 || pending.void));
}

pub(crate) fn store_seeds() -> Vec<Vec<u8>> {
    let cursor = Cursor::starting_at(3).rewound(2);
    let mut attached = Cursor::starting_at(100);
    attached.attached = true;
    attached.pending.insert(117, ryggrad_bridge_core::cursor::Pending { number: 4, void: false });
    attached.collapsed.insert(ryggrad_bridge_core::cursor::LaneKey(7), ryggrad_bridge_core::cursor::Collapsed { mark: 120, parked: true });
    let place = Place { topic: 1, partition: 2 };
    let entries = [
        Entry::Live { place, to: 17 },
        Entry::Cursor { subscription: [7; 16], place, cursor: attached.clone() },
        Entry::Numbering { subscription: [7; 16], numbering: Numbering { epoch: 1, next: 9 } },
    ];
    let entries = entries.iter().map(|one| {
        let key = entry::key(one);
        seed(1, [&[key.len() as u8], key.as_slice(), &entry::value(one)[4..]].concat())
    });
    let head = [&[0; 16][..], b"hash"].concat();
    let list = uuid::Uuid::from_u128(7);
    let others = vec![
        seed(0, cursor.to_bytes()),
        seed(0, attached.to_bytes()),
        seed(2, head),
        seed(3, [1; 8 + 32 + 32 + 3]),
        seed(4, bucket::encode(&[0, 312_345_676, (1 << 40) - 1])),
        seed(5, RecordKey::List(list).to_string()),
        seed(5, RecordKey::Bucket { list, generation: 3, bucket: 12 }.to_string()),
    ];
    entries.chain(others).collect()
}

pub(crate) fn facts(input: &[u8]) -> bool {
    let Some((parser, rest)) = choose(input, 10) else { return false };
    match parser {
        0 => repeats::<Kept>(rest, |kept| {
            let told = kept.fact.public().to_string();
            assert!(kept.fact.kind().is_about_persons() || !told.contains("\"subject\":"));
        }),
        1 => repeats::<Change>(rest, |_| {}),
        2 => repeats::<Subscription>(rest, |subscription| {
            let shown = serde_json::to_string(&subscription.public()).unwrap();
            assert!(!shown.contains("sealed_secret") && !shown.contains("sealed_headers"));
        }),
        3 => repeats::<Replay>(rest, |replay| assert_eq!(replay.age(), replay.clone().age())),
        4 => repeats::<WatchList>(rest, |list| drop(list.public())),
        5 => repeats::<Command>(rest, |_| {}),
        6 => repeats::<Outcome>(rest, |_| {}),
        7 => {
            let record = record("enhetsregisteret/enheter", rest, Headers::default());
            position::from_records(source(), std::slice::from_ref(&record)).is_ok_and(|found| {
                let Some(at) = found.get("enheter") else { return false };
                let again = position::to_record(source(), "enheter", *at);
                let again = LogRecord { value: again.value, ..record.clone() };
                assert_eq!(position::from_records(source(), &[again]), Ok(found));
                true
            })
        }
        8 => {
            let Some((key, value)) = divide(rest) else { return false };
            let mut removals = Removals::default();
            let record = record(&String::from_utf8_lossy(key), value, Headers::default());
            let taken = removals.take(&record, |topic| (topic == "t").then_some(1));
            // What names a key is never passed over, whatever its value is.
            assert_eq!(taken == Taken::Nothing, !key.starts_with(b"t/"));
            assert_eq!(removals.len(), usize::from(taken != Taken::Nothing));
            taken == Taken::Exact
        }
        _ => {
            let Some((position, subject)) = divide(rest) else { return false };
            let (position, subject) = (String::from_utf8_lossy(position), String::from_utf8_lossy(subject));
            let headers = [("source", source().name.as_str()), ("feed", "enheter"), ("position", &position), ("subject", &subject)];
            let entries = open_entries(source(), &[record("k", b"x", headers.into_iter().collect())]);
            let Some(entry) = entries.first() else { return false };
            let again = Quarantined::new(entry.position, ryggrad_detect::quarantine::TOO_LARGE_TO_KEEP, Vec::new()).to_record(
                source(),
                &entry.feed,
                Vec::new(),
            );
            assert_eq!(again.headers.get("position").and_then(|text| text.parse().ok()), Some(entry.position));
            true
        }
    }
}

fn source() -> &'static ryggrad_schemas::catalogue::Source {
    &Catalogue::built_in().sources[0]
}

fn record(key: &str, value: &[u8], headers: Headers) -> LogRecord {
    LogRecord {
        topic: "t".to_owned(),
        partition: 0,
        offset: 5,
        timestamp_ms: 0,
        key: Some(key.to_owned()),
        value: Some(value.to_vec()),
        headers,
    }
}

/// What can be read is the same once it was written and read again.
fn repeats<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(bytes: &[u8], also: impl Fn(&T)) -> bool {
    let Ok(read) = serde_json::from_slice::<T>(bytes) else { return false };
    also(&read);
    let written = serde_json::to_vec(&read).unwrap();
    let again: T = serde_json::from_slice(&written).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&written)));
    assert_eq!(again, read);
    true
}

pub(crate) fn fact_seeds() -> Vec<Vec<u8>> {
    let at = Timestamp::UNIX_EPOCH;
    let period = json!({"from": at, "until": null});
    let member = json!({
        "organisation": OWN, "standing": "active", "agreement": {"reference": "A", "from": at}, "is_controller": true,
        "bases": [{"types": ["*"], "law": "x", "period": period}], "normen": null, "contact_points": ["a"],
    });
    let block = json!({"controller": null, "subject": "p1", "receiver": OWN, "types": [], "period": period});
    let id = uuid::Uuid::from_u128(7);
    let subscription = json!({
        "id": id, "organisation": OWN, "channel": "webhook", "types": ["no.ryggrad.*"], "filters": [{"sql": "EXISTS subject"}], "watch_list": null,
        "sink": "https://m.example.org/", "description": null, "start": "now", "state": "active", "reason": null, "created_at": at,
        "from": {"t": [0, 1]}, "sealed_secret": "00", "previous": [{"sealed_secret": "00", "until_ms": 1}],
    });
    let replay = json!({
        "id": id, "subscription": id, "types": ["a.*"], "filters": [{"prefix": {"type": "a"}}], "events_per_minute_max": 60,
        "partitions": [{"topic": "t", "partition": 0, "from": 0, "to": 9}], "state": "running", "started_at": at,
    });
    let list = json!({
        "id": id, "organisation": OWN, "domain": "organisasjonsnummer", "description": "d", "generation": 1, "buckets": 2, "keys_count": 3,
        "created_at": at, "updated_at": at,
    });
    let change =
        json!({"at": at, "by": {"organisation": OWN}, "kind": "block", "id": id, "concerns": [OWN], "before": null, "after": {"a": 1}});
    vec![
        seed(0, json!({"fact": {"member": member}, "changed_at": at}).to_string()),
        seed(0, json!({"fact": {"block": block}, "changed_at": at}).to_string()),
        seed(1, change.to_string()),
        seed(2, subscription.to_string()),
        seed(3, replay.to_string()),
        seed(4, list.to_string()),
        seed(5, r#"{"id":"1","do":"reset","feed":"enheter","position":7}"#),
        seed(5, r#"{"id":"1","do":"repair","offset":7,"key":"312345676"}"#),
        seed(6, r#"{"id":"1","done":true,"text":"x"}"#),
        seed(7, r#"{"position":22259617,"count":3}"#),
        seed(8, "t/312345676\0{\"partition\":1,\"offset\":17,\"id\":\"x\"}"),
        seed(9, "17\u{0}312345676"),
    ]
}
