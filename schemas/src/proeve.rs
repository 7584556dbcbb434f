//! The synthetic measurement that trial installations carry, and its attributes.
//!
//! Must never hold anything of a real person: whoever is measured is made up.

use std::collections::BTreeMap;

use crate::catalogue::{Catalogue, EventType};
use crate::cloudevents::Attributes;
use crate::event_id::event_id;
pub use crate::generated::proevemaaling::ProeveMaaling;
use crate::identifiers::Organisasjonsnummer;

/// The event type.
pub const TYPE: &str = "no.ryggrad.proeve.maaling.v1";

/// CloudEvents `source` of everything that is published for a trial.
pub const SOURCE: &str = "urn:ryggrad:proeve";

/// The type as the catalogue has it.
pub fn event_type() -> Option<&'static EventType> {
    Catalogue::built_in().event(TYPE)
}

impl ProeveMaaling {
    /// The attributes of its event; `controller` is whose data it is.
    pub fn attributes(&self, controller: Organisasjonsnummer) -> Attributes {
        let mut attributes = attributes(&self.pasient, controller, &self.maaling_id, &self.tidspunkt);
        attributes.extensions.insert("maalingstype".to_owned(), self.maalingstype.clone());
        attributes
    }
}

/// The attributes that tell of a patient, whatever is told: those of a tombstone are no more. The decision is asked of
/// both, so both say whose data it is and when it happened.
pub fn attributes(pasient: &str, controller: Organisasjonsnummer, cause: &str, tidspunkt: &str) -> Attributes {
    Attributes {
        id: event_id(SOURCE, cause, pasient, "").to_string(),
        source: SOURCE.to_owned(),
        ce_type: TYPE.to_owned(),
        subject: Some(pasient.to_owned()),
        time: Some(tidspunkt.to_owned()),
        extensions: BTreeMap::from([("controller".to_owned(), controller.to_string())]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::DataClass;
    use crate::cloudevents::AVRO;

    #[test]
    fn a_measurement_says_of_whom_and_whose_it_is_and_filters_may_use_what_the_catalogue_names() {
        let event_type = event_type().unwrap();
        assert_eq!((event_type.class, event_type.key.as_str()), (DataClass::Health, "pasient"));
        let maaling = ProeveMaaling {
            pasient: "p1".to_owned(),
            maaling_id: "m1".to_owned(),
            tidspunkt: "2026-01-02T03:04:05Z".to_owned(),
            maalingstype: "puls".to_owned(),
            ..ProeveMaaling::default()
        };
        let headers = maaling.attributes("312345676".parse().unwrap()).to_headers(AVRO);
        let found = ["ce_subject", "ce_time", "ce_type", "ce_controller"].map(|name| headers.get(name).unwrap());
        assert_eq!(found, ["p1", "2026-01-02T03:04:05Z", TYPE, "312345676"]);
        for attribute in &event_type.attributes {
            assert!(headers.get(&format!("ce_{attribute}")).is_some(), "{attribute}");
        }
        let tombstone = attributes("p1", "312345676".parse().unwrap(), "m2", "2026-01-02T03:04:06Z");
        assert_ne!(headers.get("ce_id"), Some(tombstone.id.as_str()));
    }
}
