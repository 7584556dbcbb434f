//! Events put straight into the topic, without a registry: quick, and the test knows each of them.
//!
//! What a receiver should get is written down here by hand, not asked of the code under test.

use ryggrad_log::{Appender, Connection, Publisher, PublisherOptions, TransactionWatch, topics};
use ryggrad_schemas::catalogue::Latch;
use ryggrad_schemas::catalogue::topics::REMOVED;
use ryggrad_schemas::cloudevents::{AVRO, Attributes};
use ryggrad_schemas::event_id::event_id;
use ryggrad_schemas::virksomhet::{Endringstype, Kode, Virksomhet, VirksomhetEndret};
use ryggrad_schemas::{Catalogue, EncodedRecord, Headers, avro};
use serde_json::{Value, json};

use crate::topic::{VIRKSOMHET, read_all};
use crate::wait;

const SOURCE: &str = "urn:ryggrad:test:enheter";
const KILDE: &str = "test/enheter";
/// The type of events, unless another is chosen.
pub const CE_TYPE: &str = "no.ryggrad.grunndata.virksomhet.endret.v1";
const TIME: &str = "2026-01-31T08:00:00.000Z";

/// An event that was published.
#[derive(Debug, Clone)]
pub struct Published {
    /// The record's key.
    pub key: String,
    /// Its position: larger than that of all before.
    pub position: u64,
    /// What a receiver must be sent.
    pub event: Value,
}

/// A publisher of events.
pub struct Events {
    connection: Connection,
    appender: Appender,
    publisher: Publisher,
    watch: TransactionWatch,
    position: u64,
    ce_type: String,
    kommunenummer: Option<String>,
}

/// The key of that number, in the range of synthetic organisations.
pub fn key(number: u32) -> String {
    format!("3{number:08}")
}

impl Events {
    /// A publisher; makes the topics if the bridge has not done so yet.
    pub async fn start(connection: &Connection) -> Self {
        topics::ensure(connection, &Catalogue::opened(Latch::Shut).topics, 1).await.expect("the topics are there");
        let publisher = Publisher::start(connection, "test-events", &PublisherOptions::default()).await.expect("a publisher");
        let watch = TransactionWatch::new(connection).expect("a watch");
        let appender = Appender::new(connection, 10_000).expect("an appender");
        Self { connection: connection.clone(), appender, publisher, watch, position: 0, ce_type: CE_TYPE.to_owned(), kommunenummer: None }
    }

    /// Units are in this municipality from now on.
    pub fn choose_kommune(&mut self, number: &str) {
        self.kommunenummer = Some(number.to_owned());
    }

    /// Events are of this type from now on.
    pub fn choose_type(&mut self, ce_type: &str) {
        ce_type.clone_into(&mut self.ce_type);
    }

    /// Publishes one event for each key, in this order, in one transaction.
    pub async fn publish(&mut self, keys: impl IntoIterator<Item = String>) -> Vec<Published> {
        let mut records = Vec::new();
        let published = keys.into_iter().map(|key| self.make(&key, Endringstype::Endret, &mut records)).collect();
        self.commit(records).await;
        published
    }

    /// Publishes the end of a key: the event and, right behind it, its tombstone.
    pub async fn end(&mut self, key: &str) -> Published {
        let mut records = Vec::new();
        let published = self.make(key, Endringstype::Slettet, &mut records);
        self.end_with(records).await;
        published
    }

    /// Publishes the legal removal of a key and tells of it, in the form of today or in that of
    /// producers that did not say where its event stands.
    pub async fn remove(&mut self, key: &str, says_where: bool) -> Published {
        let mut records = Vec::new();
        let published = self.make(key, Endringstype::Fjernet, &mut records);
        self.end_with(records).await;
        let id = published.event["id"].as_str().expect("an id");
        let stands = read_all(&self.connection, VIRKSOMHET).await.into_iter().find(|record| record.header("ce_id") == Some(id));
        let stands = stands.expect("it was published");
        let mut value = json!({"topic": VIRKSOMHET, "key": key, "position": published.position, "id": id});
        if says_where {
            value["partition"] = json!(stands.partition);
            value["offset"] = json!(stands.offset);
        }
        self.tell_removal(key, Some(value)).await;
        published
    }

    /// Tells that a key was removed, or takes that back; its event is nobody's matter here.
    pub async fn tell_removal(&self, key: &str, value: Option<Value>) {
        let removal = EncodedRecord {
            topic: REMOVED.to_owned(),
            partition: Some(0),
            key: format!("{VIRKSOMHET}/{key}"),
            value: value.map(|value| value.to_string().into_bytes()),
            headers: Headers::default(),
        };
        self.appender.append(&removal).await.expect("the removal is told");
    }

    async fn end_with(&self, mut records: Vec<EncodedRecord>) {
        let tombstone = EncodedRecord { value: None, ..records[0].clone() };
        records.push(tombstone);
        self.commit(records).await;
    }

    /// Publishes and waits until readers of committed records see it: Kafka answers a commit
    /// before every partition knows of it, and until then "now" lies before these records.
    async fn commit(&self, records: Vec<EncodedRecord>) {
        self.publisher.publish(records.into(), ()).await.expect("published");
        for partition in 0..Catalogue::built_in().topic(VIRKSOMHET).expect("it is there").partitions {
            wait::until("the transaction is over everywhere", 10, || async {
                let open = self.watch.is_open(VIRKSOMHET, partition, 5_000).await.expect("the broker answers");
                (!open).then_some(())
            })
            .await;
        }
    }

    fn make(&mut self, key: &str, endringstype: Endringstype, records: &mut Vec<EncodedRecord>) -> Published {
        self.position += 1;
        let (position, navn) = (self.position.to_string(), format!("Blåbær & \"Ærlig\" {}", self.position));
        let symbol = endringstype.symbol();
        let id = event_id(SOURCE, &position, key, "").to_string();
        let attributes = Attributes {
            id: id.clone(),
            source: SOURCE.to_owned(),
            ce_type: self.ce_type.clone(),
            subject: Some(key.to_owned()),
            time: Some(TIME.to_owned()),
            extensions: [("endringstype", Some(symbol)), ("funnet", Some("feed")), ("kommunenummer", self.kommunenummer.as_deref())]
                .into_iter()
                .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())))
                .collect(),
        };
        let value = VirksomhetEndret {
            organisasjonsnummer: key.to_owned(),
            endringstype,
            endringer: vec!["/navn".to_owned()],
            funnet: "feed".to_owned(),
            kilde: KILDE.to_owned(),
            posisjon: position.clone(),
            tidspunkt: Some(TIME.to_owned()),
            virksomhetstype: "enhet".to_owned(),
            virksomhet: Some(Virksomhet {
                organisasjonsnummer: Some(key.to_owned()),
                navn: Some(navn.clone()),
                organisasjonsform: Some(Kode { kode: Some("AS".to_owned()), beskrivelse: Some("Aksjeselskap".to_owned()), utgaatt: None }),
                konkurs: Some(false),
                ..Virksomhet::default()
            }),
        };
        records.push(EncodedRecord {
            topic: VIRKSOMHET.to_owned(),
            partition: None,
            key: key.to_owned(),
            value: Some(avro::encode(&value).expect("it fits the schema")),
            headers: attributes.to_headers(AVRO),
        });
        let event = json!({
            "specversion": "1.0", "id": id, "source": SOURCE, "type": self.ce_type, "subject": key, "time": TIME,
            "endringstype": symbol, "funnet": "feed", "datacontenttype": "application/json",
            "data": {
                "organisasjonsnummer": key, "endringstype": symbol, "endringer": ["/navn"], "funnet": "feed",
                "kilde": KILDE, "posisjon": position, "tidspunkt": TIME, "virksomhetstype": "enhet",
                "virksomhet": {
                    "organisasjonsnummer": key, "navn": navn, "konkurs": false,
                    "organisasjonsform": {"kode": "AS", "beskrivelse": "Aksjeselskap"},
                },
            },
        });
        Published { key: key.to_owned(), position: self.position, event }
    }
}
