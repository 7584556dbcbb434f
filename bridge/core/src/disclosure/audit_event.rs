//! A disclosure as a FHIR R4 AuditEvent, after IHE Basic Audit Log Patterns, `PrivacyDisclosure.Source`.
//!
//! Built for a person's or a controller's own eyes; the person is the controller's pseudonym. Must never
//! say of a delivery without an outcome that it arrived, nor that it did not.

use jiff::Timestamp;
use ryggrad_schemas::identifiers::Organisasjonsnummer;
use serde_json::{Value, json};

use super::entry::{How, Intent, Outcome};

const PROFILE: &str = "https://profiles.ihe.net/ITI/BALP/StructureDefinition/IHE.BasicAudit.PrivacyDisclosure.Source";
const DCM: &str = "http://dicom.nema.org/resources/ontology/DCM";
/// Organisation numbers, as HL7 Norway names them.
const ORGANISATION_NUMBERS: &str = "urn:oid:2.16.578.1.12.4.1.4.101";
const EVENT_IDS: &str = "urn:ryggrad:event";
const PERSONS: &str = "urn:ryggrad:disclosures:person";

/// The AuditEvent of an intent that was recorded then, with how its last attempt went.
pub fn audit_event(controller: Organisasjonsnummer, at: Timestamp, intent: &Intent, outcome: Option<&Outcome>) -> Value {
    let (code, told) = match outcome.map(|outcome| outcome.how) {
        Some(How::Delivered) => ("0", "the receiver has taken it"),
        Some(How::Unsent) => ("4", "nothing has left"),
        Some(How::Failed) => ("8", "the receiver has not said that it has taken it; it may have"),
        None => ("8", "no outcome is recorded; the receiver may have it"),
    };
    let organisation = |number: String| json!({"identifier": {"system": ORGANISATION_NUMBERS, "value": number}});
    let agent = |code: &str, display: &str, who: Value, requestor: bool| json!({"type": {"coding": [{"system": DCM, "code": code, "display": display}]}, "who": who, "requestor": requestor});
    let mut source = agent("110153", "Source Role ID", organisation(controller.to_string()), false);
    source["network"] = json!({"address": "ryggrad", "type": "5"});
    let mut recipient = agent("110152", "Destination Role ID", organisation(intent.receiver.to_string()), true);
    // A receiver that fetches has come by itself: the channel is all that is known of its address.
    recipient["network"] = json!({"address": intent.host.as_deref().unwrap_or(&intent.channel), "type": "5"});
    if let Some(basis) = &intent.basis {
        recipient["policy"] = json!([basis]);
    }
    let mut agents = vec![source, recipient];
    if let Some(supplier) = intent.supplier {
        let role =
            json!({"coding": [{"system": DCM, "code": "110151", "display": "Application Launcher"}], "text": "acts for the recipient"});
        agents.push(json!({"type": role, "who": organisation(supplier.to_string()), "requestor": false}));
    }
    let kind = |system: &str, code: &str| json!({"system": system, "code": code});
    let entity_type = "http://terminology.hl7.org/CodeSystem/audit-entity-type";
    let role = "http://terminology.hl7.org/CodeSystem/object-role";
    let mut entities = vec![json!({
        "what": {"identifier": {"system": EVENT_IDS, "value": intent.event}},
        "type": kind(entity_type, "2"), "role": kind(role, "4"), "name": intent.ce_type,
        "detail": [
            {"type": "delivery", "valueString": intent.delivery},
            {"type": "view", "valueString": intent.view},
            {"type": "subscription", "valueString": intent.subscription.to_string()},
        ],
    })];
    if let Some(person) = &intent.person {
        entities.insert(
            0,
            json!({
                "what": {"identifier": {"system": format!("{PERSONS}:{controller}"), "value": person}},
                "type": kind(entity_type, "1"), "role": kind(role, "1"),
            }),
        );
    }
    let mut event = json!({
        "resourceType": "AuditEvent",
        "meta": {"profile": [PROFILE]},
        "type": {"system": DCM, "code": "110106", "display": "Export"},
        "subtype": [{"system": "http://terminology.hl7.org/CodeSystem/iso-21089-lifecycle", "code": "disclose", "display": "Disclose"}],
        "action": "R",
        "recorded": at.to_string(),
        "outcome": code,
        "outcomeDesc": told,
        "agent": agents,
        "source": {"observer": organisation(controller.to_string())},
        "entity": entities,
    });
    if let Some(purpose) = &intent.purpose {
        event["purposeOfEvent"] = json!([{"text": purpose}]);
    }
    event
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn intent(person: Option<&str>) -> Intent {
        Intent {
            delivery: "msg_1".to_owned(),
            event: "0198".to_owned(),
            ce_type: "no.ryggrad.x.v1".to_owned(),
            topic: "t".to_owned(),
            partition: 0,
            offset: 7,
            person: person.map(str::to_owned),
            receiver: "310000019".parse().unwrap(),
            supplier: None,
            client: None,
            subscription: Uuid::nil(),
            channel: "pull".to_owned(),
            host: None,
            view: "slim".to_owned(),
            with_addresses: false,
            basis: Some("pasientjournalloven § 19".to_owned()),
            purpose: Some("oppfølging".to_owned()),
        }
    }

    #[test]
    fn it_has_what_the_profile_demands_and_never_claims_more_than_is_known() {
        let outcome = |how| Outcome { intent: 1, attempt: 1, how, status: None };
        for (person, outcome, code) in [
            (Some("p"), Some(outcome(How::Delivered)), "0"),
            (Some("p"), Some(outcome(How::Failed)), "8"),
            (Some("p"), Some(outcome(How::Unsent)), "4"),
            (None, None, "8"),
        ] {
            let intent = intent(person);
            let at = "2026-01-31T08:00:00Z".parse().unwrap();
            let controller = "312345676".parse().unwrap();
            let event = audit_event(controller, at, &intent, outcome.as_ref());
            assert_eq!(event["outcome"], code);
            let roles: Vec<&str> =
                event["agent"].as_array().unwrap().iter().filter_map(|agent| agent["type"]["coding"][0]["code"].as_str()).collect();
            assert_eq!(roles, ["110153", "110152"]);
            assert_eq!(event["source"]["observer"], event["agent"][0]["who"]);
            let entities: Vec<&str> =
                event["entity"].as_array().unwrap().iter().filter_map(|entity| entity["type"]["code"].as_str()).collect();
            assert_eq!(entities, if person.is_some() { vec!["1", "2"] } else { vec!["2"] });
            for member in ["type", "action", "recorded", "purposeOfEvent"] {
                assert!(!event[member].is_null(), "{member}");
            }
        }
    }
}
