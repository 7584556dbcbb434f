//! Records of event topics, as anybody who may write there could have made them: headers, keys and framed Avro.
//!
//! Laws: every reader finds the same attributes; what is rendered is JSON with these and the data as the careful reader has
//! it; headers of binary mode can break no request; a value that was read is the same once it is written anew.

use ryggrad_bridge_core::cesql::{Attributes as _, JsonAttributes, RecordAttributes};
use ryggrad_bridge_core::delivery::{Numbered, batch, binary, render, render_binary, render_notice, structured};
use ryggrad_consumers::Event;
use ryggrad_schemas::avro::{self, AvroEvent};
use ryggrad_schemas::cloudevents::{Attributes, attributes_of};
use ryggrad_schemas::document::ToDocument;
use ryggrad_schemas::proeve::ProeveMaaling;
use ryggrad_schemas::virksomhet::{Endringstype, Virksomhet, VirksomhetEndret};
use ryggrad_schemas::{Headers, LogRecord, avro_container};
use serde_json::Value;

use crate::documents::{document_seeds, written_alike};
use crate::parts::{is_plain, tells_nothing_of, told};

const DELIVERED: Numbered = Numbered { epoch: 1, number: 7, replay: None };

/// A byte that counts headers, these with a zero byte behind each name and value, and the framed value. The first three
/// headers are there in any case if the upper half of that byte says so.
pub(crate) fn run(input: &[u8]) -> bool {
    let Some((count, mut rest)) = input.split_first() else { return false };
    let mut headers = Headers::default();
    if count & 0x80 != 0 {
        for (name, value) in [("ce_specversion", "1.0"), ("ce_id", "1"), ("ce_source", "urn:a"), ("ce_type", "no.ryggrad.a.v1")] {
            headers.push(name, value);
        }
    }
    for _ in 0..count & 0x0f {
        let mut part = || {
            let at = rest.iter().position(|byte| *byte == 0).unwrap_or(rest.len());
            let (part, left) = rest.split_at(at);
            rest = left.get(1..).unwrap_or_default();
            String::from_utf8_lossy(part).into_owned()
        };
        let (name, value) = (part(), part());
        headers.push(&name, &value);
    }
    let value = (!rest.is_empty()).then(|| rest.to_vec());
    let record = LogRecord { topic: "t".to_owned(), partition: 0, offset: 5, timestamp_ms: 0, key: Some("k".to_owned()), value, headers };
    let readable = record.value.as_deref().is_none_or(framed);
    attributes(&record);
    let rendered = renders(&record, readable);
    if let Err(error) = Event::decode(record.clone()) {
        tells_nothing_of(&told(&error), record.value.as_deref().unwrap_or_default());
    }
    rendered
}

fn framed(value: &[u8]) -> bool {
    let mut scratch = Vec::new();
    let readable = written_alike(value);
    assert_eq!(avro_container::datum(value, &mut scratch).is_ok(), readable);
    repeats::<VirksomhetEndret>(value);
    repeats::<ProeveMaaling>(value);
    readable
}

fn repeats<T: AvroEvent + ToDocument>(value: &[u8]) {
    let Ok(read) = avro::decode::<T>(value) else { return };
    let again = avro::decode::<T>(&avro::encode(&read).unwrap()).expect("what was written cannot be read");
    assert_eq!(again.give(), read.give());
}

fn attributes(record: &LogRecord) {
    let (owned, borrowed) = (Attributes::from_record(record), attributes_of(record));
    match (owned, borrowed) {
        (Ok(owned), Ok(borrowed)) => {
            let find = |name: &str| borrowed.iter().find(|(found, _)| *found == name).map(|(_, value)| *value);
            assert_eq!(
                (find("id"), find("source"), find("type")),
                (Some(owned.id.as_str()), Some(owned.source.as_str()), Some(owned.ce_type.as_str()))
            );
            assert_eq!((find("subject"), find("time")), (owned.subject.as_deref(), owned.time.as_deref()));
            assert!(owned.extensions.iter().all(|(name, value)| find(name) == Some(value)));
            let others = 4 + owned.extensions.len() + usize::from(owned.subject.is_some()) + usize::from(owned.time.is_some());
            assert_eq!(borrowed.len(), others);
        }
        (Err(owned), Err(borrowed)) => assert_eq!(owned, borrowed),
        (owned, borrowed) => panic!("one of them finds a CloudEvent: {owned:?} {borrowed:?}"),
    }
}

fn renders(record: &LogRecord, readable: bool) -> bool {
    let is_event = attributes_of(record).is_ok();
    assert_eq!((render(record).is_ok(), render_binary(record).is_ok()), (is_event && readable, is_event && readable));
    assert_eq!(render_notice(record).is_ok(), is_event);
    let (Ok(rendered), Ok(rendered_binary)) = (render(record), render_binary(record)) else { return false };
    let text = structured(&rendered, &DELIVERED);
    let text = std::str::from_utf8(&text).unwrap();
    let Ok(event) = serde_json::from_str::<Value>(text) else {
        // Only what nests deeper than it reads is no JSON for it.
        assert!(ryggrad_schemas::json_text::check(text).is_ok(), "what is rendered is no JSON: {text}");
        return true;
    };
    if !is_plain(text) {
        return true;
    }
    let members = event.as_object().unwrap();
    assert_eq!((members["specversion"].as_str(), members["deliverynumber"].as_str()), (Some("1.0"), Some("7")));
    assert_eq!(members.get("data").is_some(), record.value.is_some());
    assert_eq!(serde_json::from_slice::<Value>(&batch([(&rendered, DELIVERED)])).unwrap(), Value::Array(vec![event.clone()]));
    // A filter sees what a receiver gets.
    let own = ["deliveryepoch", "deliverynumber"];
    for (name, _) in members.iter().filter(|(name, _)| !own.contains(&name.as_str())) {
        let of_json = JsonAttributes(members);
        assert_eq!(RecordAttributes(record).text(name), of_json.attribute(name).map(|value| value.into_text()).as_deref(), "{name:?}");
    }
    for header in record.headers.iter().filter_map(|(name, _)| name.strip_prefix("ce_")) {
        let shown = members.get(header).filter(|_| !own.contains(&header) && !matches!(header, "data" | "data_base64"));
        assert_eq!(RecordAttributes(record).text(header), shown.and_then(Value::as_str), "{header:?}");
    }
    let payload = binary(&rendered_binary, &DELIVERED);
    for (name, value) in &payload.headers {
        assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'));
        assert!(value.bytes().all(|byte| byte.is_ascii_graphic()), "{value:?} would break the request");
    }
    if record.value.is_some() {
        assert_eq!(serde_json::from_slice::<Value>(&payload.body).unwrap(), members["data"]);
    }
    true
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let virksomhet =
        document_seeds().iter().map(|text| Virksomhet::from_json(std::str::from_utf8(text).unwrap()).unwrap()).collect::<Vec<_>>();
    let event = |virksomhet| VirksomhetEndret {
        organisasjonsnummer: "312345676".to_owned(),
        endringstype: Endringstype::Ny,
        endringer: vec!["/navn".to_owned()],
        funnet: "feed".to_owned(),
        kilde: "k".to_owned(),
        posisjon: "1".to_owned(),
        tidspunkt: Some("2026-01-01T00:00:00Z".to_owned()),
        virksomhetstype: "enhet".to_owned(),
        virksomhet,
    };
    let extended = b"\x83ce_subject\x00312345676\x00ce_endringstype\x00Blaab\xc3\xa6r \"%\x00ce_time\x00\x00";
    let bare = b"\x06ce_specversion\x001.0\0ce_id\x001\0ce_source\0urn:a\0ce_type\0t\0ce_datacontenttype\0x\0ce_data\0y\0";
    let mut seeds = vec![bare.to_vec(), extended.to_vec()];
    seeds.extend(virksomhet.into_iter().map(|virksomhet| [&extended[..], &avro::encode(&event(virksomhet)).unwrap()].concat()));
    seeds.push([&b"\x80"[..], &avro::encode(&event(None)).unwrap()].concat());
    seeds
}
