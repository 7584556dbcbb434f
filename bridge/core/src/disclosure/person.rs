//! Whom a record is about: a pseudonym that means nothing outside one controller's records.
//!
//! Must never be the pseudonym that events or relations use: who reads the records learns of nobody whom it
//! does not know already.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use ryggrad_schemas::identifiers::Organisasjonsnummer;
use sha2::Sha256;

use crate::access::Subject;

/// Makes them. Does not print.
#[derive(Clone)]
pub struct Persons(Hmac<Sha256>);

impl Persons {
    /// With the bridge's key for this purpose.
    pub fn new(key: &[u8; 32]) -> Self {
        #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
        let mac = Hmac::<Sha256>::new_from_slice(key).expect("any length");
        Self(mac)
    }

    /// A controller's person.
    pub fn of(&self, controller: Organisasjonsnummer, subject: &Subject) -> String {
        let mut mac = self.0.clone();
        mac.update(controller.to_string().as_bytes());
        mac.update(b"/");
        mac.update(subject.as_str().as_bytes());
        URL_SAFE_NO_PAD.encode(&mac.finalize().into_bytes()[..16])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_is_the_same_within_a_controller_and_another_elsewhere() {
        let (one, other) = ("312345676".parse().unwrap(), "310000019".parse().unwrap());
        let persons = Persons::new(&[7; 32]);
        let of = |persons: &Persons, controller, subject| persons.of(controller, &Subject::new(subject));
        assert_eq!(of(&persons, one, "p"), of(&persons.clone(), one, "p"));
        let all = [of(&persons, one, "p"), of(&persons, one, "q"), of(&persons, other, "p"), of(&Persons::new(&[8; 32]), one, "p")];
        assert_eq!(all.iter().collect::<std::collections::BTreeSet<_>>().len(), all.len());
        assert!(all.iter().all(|person| person.len() == 22 && !person.contains("312345676")));
    }
}
