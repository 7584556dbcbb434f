//! A trial: a controller with patients, a receiver that may have what is measured of them, and measurements put straight
//! into the topic.

use reqwest::Method;
use ryggrad_log::Appender;
use ryggrad_schemas::cloudevents::AVRO;
use ryggrad_schemas::proeve::ProeveMaaling;
pub use ryggrad_schemas::proeve::TYPE;
use ryggrad_schemas::{Catalogue, EncodedRecord, avro};
use serde_json::{Value, json};

use crate::bridge::Caller;
use crate::scenario::{ORGANISATION, OTHER_ORGANISATION, Scenario};

/// Whose patients are measured.
pub const CONTROLLER: &str = ORGANISATION;
/// Who follows them.
pub const RECEIVER: &str = OTHER_ORGANISATION;
/// Who takes no part.
pub const STRANGER: &str = "923609016";
/// Patients that the receiver follows: [`patient`] `0` and on.
pub const PATIENTS: usize = 8;
/// The law that members cite.
pub const LAW: &str = "pasientjournalloven § 19";

/// A controller's pseudonym of a patient.
pub fn patient(name: impl std::fmt::Display) -> String {
    format!("pseudonym-{name}")
}

/// Makes a fact or a subscription, and tells its id.
pub async fn make(caller: &Caller, kind: &str, body: Value) -> String {
    let (status, made) = caller.post(&format!("/v1/{kind}"), body).await;
    assert_eq!(status, 201, "{made}");
    made["id"].as_str().expect("an id").to_owned()
}

/// The controller and the receiver, everything in order between them.
pub struct Parties {
    /// The operator.
    pub operator: Caller,
    /// The controller, which may look at its disclosures.
    pub controller: Caller,
    /// The receiver.
    pub receiver: Caller,
    /// What opens the type to the receiver, in full.
    pub grant: String,
}

impl Parties {
    /// Makes them members, and tells the bridge what is between them.
    pub async fn meet(scenario: &Scenario) -> Self {
        let operator = scenario.operator().await;
        for organisation in [CONTROLLER, RECEIVER] {
            let body = json!({
                "standing": "active", "is_controller": organisation == CONTROLLER, "agreement": {"reference": "A-1"},
                "bases": [{"types": [TYPE], "law": LAW}],
                "normen": {"version": "6.0", "signer": "Kari Nordmann", "until": "2099-01-01T00:00:00Z"},
            });
            let (status, said) = operator.call(Method::PUT, &format!("/v1/members/{organisation}"), Some(body)).await;
            assert_eq!(status, 201, "{said}");
        }
        let (status, issued) = operator.post("/v1/tokens", json!({"organisation": CONTROLLER, "roles": ["subscribe", "audit"]})).await;
        assert_eq!(status, 201, "{issued}");
        let controller = operator.with_token(issued["token"].as_str());
        let receiver = scenario.subscriber(RECEIVER).await;
        let grant = make(&controller, "grants", json!({"receiver": RECEIVER, "types": [TYPE], "view": "full"})).await;
        for number in 0..PATIENTS {
            make(&controller, "relations", json!({"subject": patient(number), "receiver": RECEIVER, "from": "2026-01-01T00:00:00Z"})).await;
        }
        Self { operator, controller, receiver, grant }
    }
}

/// A measurement, of February 2026.
pub struct Measurement<'m> {
    /// Of whom.
    pub patient: &'m str,
    /// Its id at the controller.
    pub id: &'m str,
    /// Whose data it is.
    pub controller: &'m str,
}

impl Measurement<'_> {
    /// Puts it into the topic; tells its event's id.
    pub async fn publish(&self, appender: &Appender) -> String {
        let measured = ProeveMaaling {
            pasient: self.patient.to_owned(),
            maaling_id: self.id.to_owned(),
            tidspunkt: "2026-02-01T08:00:00Z".to_owned(),
            maalingstype: "puls".to_owned(),
            verdi: 72.0,
            enhet: "/min".to_owned(),
            ..ProeveMaaling::default()
        };
        let attributes = measured.attributes(self.controller.parse().expect("an organisation"));
        let record = EncodedRecord {
            topic: Catalogue::built_in().event(TYPE).expect("it is there").topic.clone(),
            partition: None,
            key: measured.pasient.clone(),
            value: Some(avro::encode(&measured).expect("it fits the schema")),
            headers: attributes.to_headers(AVRO),
        };
        appender.append(&record).await.expect("it is there");
        attributes.id
    }
}
