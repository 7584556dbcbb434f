//! What organisations and controllers say of each other, and what they ask about disclosures.
//!
//! Laws: nothing that is refused is repeated; what is taken holds no national identity number, has a period that is one,
//! and is the same once it was kept and read again; the history names no person.

use jiff::Timestamp;
use ryggrad_bridge_core::access::request::{
    ITEMS_MAX, TEXT_CHARS_MAX, parse_block, parse_delegation, parse_grant, parse_look, parse_member, parse_relation,
};
use ryggrad_bridge_core::access::{Asked, Change, Fact, Facts, Kept, Look, Period, Who, is_pseudonym};
use ryggrad_bridge_core::subscription::Fault;
use ryggrad_schemas::Catalogue;
use serde_json::json;

use crate::parts::{choose, json, seed, tells_nothing_of};

const OWN: &str = "312345676";
const OTHER: &str = "923609016";
const PERSON_DIGITS: usize = 11;

pub(crate) fn run(input: &[u8]) -> bool {
    let Some((kind, text)) = choose(input, 6) else { return false };
    let Some(body) = json(text) else { return false };
    let own = OWN.parse().unwrap();
    let asked = Asked { now: Timestamp::UNIX_EPOCH, catalogue: Catalogue::built_in() };
    let made = match kind {
        0 => parse_member(&body, own, asked).map(Fact::Member),
        1 => parse_delegation(&body, Some(own), asked).map(Fact::Delegation),
        2 => parse_grant(&body, None, asked).map(Fact::Grant),
        3 => parse_relation(&body, own, asked).map(Fact::Relation),
        4 => parse_block(&body, own, asked).map(Fact::Block),
        _ => {
            return match parse_look(&body) {
                Ok(look) => {
                    assert!(
                        (1..=Look::LIMIT_MAX).contains(&look.limit) && look.subject.is_none_or(|subject| is_pseudonym(subject.as_str()))
                    );
                    true
                }
                Err(faults) => refused(&faults, text),
            };
        }
    };
    match made {
        Ok(fact) => {
            holds(&fact);
            true
        }
        Err(faults) => refused(&faults, text),
    }
}

fn refused(faults: &[Fault], text: &[u8]) -> bool {
    assert!(!faults.is_empty());
    tells_nothing_of(&format!("{faults:?}"), text);
    false
}

fn holds(fact: &Fact) {
    let kept = Kept { fact: fact.clone(), changed_at: Timestamp::UNIX_EPOCH };
    let text = serde_json::to_string(&kept).unwrap();
    assert_eq!(serde_json::from_str::<Kept>(&text).unwrap(), kept);
    let period = |period: &Period| assert!(period.until.is_none_or(|until| period.from < until));
    let types = |types: &[String]| {
        assert!(types.len() <= ITEMS_MAX && types.iter().all(|pattern| Catalogue::built_in().matching(pattern).next().is_some()));
    };
    let id = uuid::Uuid::from_u128(7).to_string();
    let change = Change::new(Timestamp::UNIX_EPOCH, Who::default(), fact.kind(), &id, Some(fact), Some(fact));
    let history = serde_json::to_value(&change).unwrap();
    match fact {
        Fact::Member(member) => {
            member.bases.iter().for_each(|basis| {
                period(&basis.period);
                types(&basis.types);
            });
            let texts = member.contact_points.iter().chain(member.bases.iter().map(|basis| &basis.law));
            for text in texts.chain(member.normen.iter().flat_map(|normen| [&normen.version, &normen.signer])) {
                let digits = text.split(|letter: char| !letter.is_ascii_digit()).map(str::len).max();
                assert!(text.chars().count() <= TEXT_CHARS_MAX && digits < Some(PERSON_DIGITS));
            }
        }
        Fact::Delegation(delegation) => {
            period(&delegation.period);
            types(&delegation.types);
            assert_ne!(delegation.organisation, delegation.supplier);
        }
        Fact::Grant(grant) => {
            period(&grant.period);
            types(&grant.types);
        }
        Fact::Relation(relation) => {
            period(&relation.period);
            assert!(is_pseudonym(relation.subject.as_str()) && history["after"].get("subject").is_none());
        }
        Fact::Block(block) => {
            period(&block.period);
            types(&block.types);
            assert!(is_pseudonym(block.subject.as_str()) && history["before"].get("subject").is_none());
        }
    }
    let mut facts = Facts::default();
    fact.clone().set(&id, &mut facts);
    fact.unset(&id, &mut facts);
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let period = json!({"from": "2026-01-01T00:00:00Z", "until": "2027-01-01T00:00:00Z"});
    let member = json!({
        "standing": "active", "is_controller": true, "agreement": {"reference": "A-1", "from": "2026-01-01T00:00:00Z"},
        "bases": [{"types": ["no.ryggrad.*"], "law": "pasientjournalloven § 19", "from": period["from"], "until": null}],
        "normen": {"version": "7.0", "signer": "Kari Nordmann", "until": period["until"]}, "contact_points": ["post@sykehus.example.no"],
    });
    let until = &period["until"];
    vec![
        seed(0, member.to_string()),
        seed(1, json!({"supplier": OTHER, "types": ["no.ryggrad.*"], "until": until}).to_string()),
        seed(2, json!({"receiver": OTHER, "types": ["no.ryggrad.*"], "view": "full", "from": period["from"]}).to_string()),
        seed(3, json!({"receiver": OTHER, "subject": "p1", "until": until}).to_string()),
        seed(4, json!({"receiver": OTHER, "subject": "p1", "types": ["no.ryggrad.*"]}).to_string()),
        seed(4, json!({"subject": "p1"}).to_string()),
        seed(
            5,
            json!({"controller": OWN, "purpose": "p", "subject": "p1", "after": "7", "limit": 10, "format": "fhir-auditevent"}).to_string(),
        ),
    ]
}
