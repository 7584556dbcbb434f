//! Made from `avro/proevemaaling` by `tests/generated.rs`. Do not edit.
#![cfg_attr(rustfmt, rustfmt_skip)]
#![allow(missing_docs, reason = "documented in the schema")]

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::avro::WriteAvro;
use crate::document::{self, ToDocument};

/// One synthetic measurement of a made-up patient. For trial installations only.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ProeveMaaling {
    /// The controller's pseudonym of the patient, also the record's key. Never an identity number.
    #[serde(rename = "pasient")]
    pub pasient: String,
    /// The measurement's own id.
    #[serde(rename = "maalingId")]
    pub maaling_id: String,
    /// When it was measured, RFC 3339.
    #[serde(rename = "tidspunkt")]
    pub tidspunkt: String,
    /// What was measured, e.g. puls.
    #[serde(rename = "maalingstype")]
    pub maalingstype: String,
    #[serde(rename = "verdi")]
    pub verdi: f64,
    /// Unit of verdi (UCUM).
    #[serde(rename = "enhet")]
    pub enhet: String,
    /// What whoever measured has written.
    #[serde(rename = "kommentar")]
    pub kommentar: Option<String>,
}

impl WriteAvro for ProeveMaaling {
    fn write(&self, datum: &mut Vec<u8>) {
        self.pasient.write(datum);
        self.maaling_id.write(datum);
        self.tidspunkt.write(datum);
        self.maalingstype.write(datum);
        self.verdi.write(datum);
        self.enhet.write(datum);
        self.kommentar.write(datum);
    }
}

impl ToDocument for ProeveMaaling {
    fn give(&self) -> Value {
        let mut members = Map::new();
        members.insert("pasient".to_owned(), self.pasient.give());
        members.insert("maalingId".to_owned(), self.maaling_id.give());
        members.insert("tidspunkt".to_owned(), self.tidspunkt.give());
        members.insert("maalingstype".to_owned(), self.maalingstype.give());
        members.insert("verdi".to_owned(), self.verdi.give());
        members.insert("enhet".to_owned(), self.enhet.give());
        document::give_member(&mut members, "kommentar", &self.kommentar);
        Value::Object(members)
    }
}

impl crate::avro::AvroEvent for ProeveMaaling {
    const SCHEMA: &'static str = "proevemaaling";
}
