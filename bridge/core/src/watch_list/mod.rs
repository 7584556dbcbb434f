//! Watch lists: the keys that an organisation wants to hear of, and nothing else.
//!
//! Cast: [`index`] finds the lists that hold a key, [`bucket`] is how keys are stored, [`keys`]
//! checks what owners upload. A list narrows subscriptions and never widens one. Must never show a
//! key: not in a fault, not in a form that prints.

pub mod bucket;
pub mod index;
pub mod keys;

use ryggrad_schemas::identifiers::{KeyDomain, Organisasjonsnummer};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::access::Caller;
use crate::subscription::{Fault, parse_description};

pub use index::{Fingerprint, Fingerprints, Index, Slot};

/// A list without its keys, as the topic holds it. It says which generation of them counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchList {
    /// Assigned by the bridge.
    pub id: Uuid,
    /// Whose it is.
    pub organisation: Organisasjonsnummer,
    /// Who has made it for that organisation, and fills it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supplier: Option<Organisasjonsnummer>,
    /// What its keys are.
    pub domain: KeyDomain,
    /// The owner's own words.
    pub description: Option<String>,
    /// Which upload of the whole set counts; 0 before the first key.
    pub generation: u64,
    /// Into how many buckets its keys are spread; each of them has a record.
    pub buckets: u32,
    /// How many keys it has.
    pub keys_count: usize,
    /// When it was made, RFC 3339.
    pub created_at: String,
    /// When it was last changed.
    pub updated_at: String,
}

impl WatchList {
    /// Whom it is for.
    pub fn caller(&self) -> Caller {
        Caller::new(self.organisation, self.supplier)
    }

    /// What its owner, and operators, may see.
    pub fn public(&self) -> Value {
        let mut shown = json!({
            "id": self.id, "organisation": self.organisation, "domain": self.domain, "keys_count": self.keys_count,
            "generation": self.generation, "created_at": self.created_at, "updated_at": self.updated_at,
        });
        if let Some(supplier) = self.supplier {
            shown["supplier"] = json!(supplier);
        }
        if let Some(description) = &self.description {
            shown["description"] = json!(description);
        }
        shown
    }
}

/// A checked request for a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewWatchList {
    /// What its keys are to be.
    pub domain: KeyDomain,
    /// The owner's own words.
    pub description: Option<String>,
}

/// Checks a request for a list.
pub fn parse_new(body: &Value) -> Result<NewWatchList, Vec<Fault>> {
    let mut faults = Vec::new();
    let Some(members) = members(body, &["domain", "description"], &mut faults) else { return Err(faults) };
    let description = parse_description(members, &mut faults);
    let domain = members.get("domain").and_then(Value::as_str).and_then(KeyDomain::named);
    if domain.is_none() {
        let known = KeyDomain::ALL.map(KeyDomain::name).join(", ");
        faults.push(Fault::new("/domain", format!("is what the keys are, one of: {known}")));
    }
    match domain {
        Some(domain) if faults.is_empty() => Ok(NewWatchList { domain, description }),
        _ => Err(faults),
    }
}

/// Checks a merge patch, which can change the description alone; `None` if it leaves that as it is.
pub fn parse_patch(body: &Value) -> Result<Option<Option<String>>, Vec<Fault>> {
    let mut faults = Vec::new();
    let Some(members) = members(body, &["description"], &mut faults) else { return Err(faults) };
    let description = members.contains_key("description").then(|| parse_description(members, &mut faults));
    if faults.is_empty() { Ok(description) } else { Err(faults) }
}

/// The members of a body. Those that are unknown are not repeated: one may be a key in the wrong place.
fn members<'a>(body: &'a Value, known: &[&str], faults: &mut Vec<Fault>) -> Option<&'a Map<String, Value>> {
    let members = body.as_object();
    let known_alone = members.is_some_and(|members| members.keys().all(|name| known.contains(&name.as_str())));
    if !known_alone {
        faults.push(Fault::new("", format!("the body is a JSON object of {} and nothing else", known.join(", "))));
    }
    members
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_checked_and_never_repeated() {
        let domain = KeyDomain::Organisasjonsnummer;
        let good = json!({"domain": "organisasjonsnummer", "description": "ours"});
        assert_eq!(parse_new(&good), Ok(NewWatchList { domain, description: Some("ours".to_owned()) }));
        for (body, pointers) in [
            (json!([]), vec![""]),
            (json!({}), vec!["/domain"]),
            (json!({"domain": "312345676", "description": 7, "312345676": 1}), vec!["", "/description", "/domain"]),
        ] {
            let faults = parse_new(&body).unwrap_err();
            assert_eq!(faults.iter().map(|fault| fault.pointer.as_str()).collect::<Vec<_>>(), pointers, "{body}");
            assert!(faults.iter().all(|fault| !fault.detail.contains("312345676")), "{faults:?}");
        }
        assert_eq!(parse_patch(&json!({})), Ok(None));
        assert_eq!(parse_patch(&json!({"description": null})), Ok(Some(None)));
        assert!(parse_patch(&json!({"domain": "organisasjonsnummer"})).is_err());
    }
}
