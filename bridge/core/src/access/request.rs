//! What is asked for of members, delegations, grants, relations and blocks: checked, all faults at once.
//!
//! Must never repeat what was sent: a member in the wrong place may be a person's number.

use jiff::Timestamp;
use ryggrad_schemas::Catalogue;
use ryggrad_schemas::identifiers::Organisasjonsnummer;
use serde_json::{Map, Value};

use super::facts::{Agreement, Basis, Block, Delegation, Grant, Member, Normen, Period, Relation, Standing, Subject};
use crate::subscription::Fault;

/// Longest text, in characters.
pub const TEXT_CHARS_MAX: usize = 200;
/// Most items of a list.
pub const ITEMS_MAX: usize = 50;
/// Longest pseudonym.
pub const SUBJECT_BYTES_MAX: usize = 128;
/// Digits of a national identity number.
const PERSON_DIGITS: usize = 11;

/// Whether a text can be a person's pseudonym. A national identity number is none, a synthetic one neither.
pub fn is_pseudonym(text: &str) -> bool {
    let fits = (1..=SUBJECT_BYTES_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    let number = text.len() == PERSON_DIGITS && text.bytes().all(|byte| byte.is_ascii_digit());
    fits && !number
}

/// What every check needs beside the body.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// Now: where a period begins that does not say.
    pub now: Timestamp,
    /// Which types there are.
    pub catalogue: &'a Catalogue,
}

/// An object that is being read, and where it stands in the body.
struct Form<'a> {
    members: &'a Map<String, Value>,
    place: String,
}

/// Reads one object: its known members, and no others.
fn form<'a>(value: &'a Value, place: String, known: &[&str], faults: &mut Vec<Fault>) -> Option<Form<'a>> {
    let members = value.as_object();
    if members.is_none_or(|members| members.keys().any(|name| !known.contains(&name.as_str()))) {
        faults.push(Fault::new(place.clone(), format!("is a JSON object of {} and nothing else", known.join(", "))));
    }
    Some(Form { members: members?, place })
}

impl<'a> Form<'a> {
    fn get(&self, name: &str) -> Option<&'a Value> {
        self.members.get(name).filter(|value| !value.is_null())
    }

    fn at(&self, name: &str) -> String {
        format!("{}/{name}", self.place)
    }

    /// What must be there, and is as `read` says.
    fn must<T>(&self, name: &str, what: &str, faults: &mut Vec<Fault>, read: impl FnOnce(&'a Value) -> Option<T>) -> Option<T> {
        let found = self.get(name).and_then(read);
        if found.is_none() {
            faults.push(Fault::new(self.at(name), what));
        }
        found
    }

    /// What may be left out.
    fn may<T>(&self, name: &str, what: &str, faults: &mut Vec<Fault>, read: impl FnOnce(&'a Value) -> Option<T>) -> Option<T> {
        self.get(name)?;
        self.must(name, what, faults, read)
    }

    fn organisation(&self, name: &str, faults: &mut Vec<Fault>) -> Option<Organisasjonsnummer> {
        self.must(name, "is an organisasjonsnummer: nine digits with the right check digit", faults, organisation)
    }

    fn text(&self, name: &str, faults: &mut Vec<Fault>) -> Option<String> {
        self.must(name, &about_text(), faults, text)
    }

    fn period(&self, now: Timestamp, faults: &mut Vec<Fault>) -> Period {
        const TIME: &str = "is a time (RFC 3339)";
        let from = self.may("from", TIME, faults, time).unwrap_or(now);
        let until = self.may("until", "is a time (RFC 3339), or left out for as long as nobody ends it", faults, time);
        if until.is_some_and(|until| until <= from) {
            faults.push(Fault::new(self.at("until"), "comes after from"));
        }
        Period { from, until }
    }

    /// Patterns of types, each of which means one that there is.
    fn types(&self, catalogue: &Catalogue, faults: &mut Vec<Fault>) -> Vec<String> {
        let what = format!("is a list of 1 to {ITEMS_MAX} event types, each exact or ending in .*");
        let listed = |value: &'a Value| value.as_array().filter(|items| (1..=ITEMS_MAX).contains(&items.len()));
        let mut types = Vec::new();
        for (index, item) in self.must("types", &what, faults, listed).into_iter().flatten().enumerate() {
            match item.as_str().filter(|pattern| catalogue.matching(pattern).next().is_some()) {
                Some(pattern) => types.push(pattern.to_owned()),
                None => {
                    let all: Vec<&str> = catalogue.events.iter().map(|event| event.ce_type.as_str()).collect();
                    let detail = format!("matches no event type; there are: {}", all.join(", "));
                    faults.push(Fault::new(format!("{}/{index}", self.at("types")), detail));
                }
            }
        }
        types
    }

    fn subject(&self, faults: &mut Vec<Fault>) -> Option<Subject> {
        let what = format!(
            "is the person's pseudonym, as the key of the controller's records has it (at most {SUBJECT_BYTES_MAX} visible ASCII characters); \
             never a national identity number"
        );
        self.must("subject", &what, faults, |value| value.as_str().filter(|text| is_pseudonym(text)).map(Subject::new))
    }

    /// The items of a list that may be left out.
    fn items(&self, name: &str, faults: &mut Vec<Fault>) -> &'a [Value] {
        let what = format!("is a list of at most {ITEMS_MAX}");
        let listed = |value: &'a Value| value.as_array().filter(|items| items.len() <= ITEMS_MAX);
        self.may(name, &what, faults, listed).map_or(&[], Vec::as_slice)
    }
}

fn organisation(value: &Value) -> Option<Organisasjonsnummer> {
    value.as_str()?.parse().ok()
}

fn time(value: &Value) -> Option<Timestamp> {
    value.as_str()?.parse().ok()
}

fn about_text() -> String {
    format!("is a text of 1 to {TEXT_CHARS_MAX} characters, without eleven digits in a row")
}

/// A text that cannot hold a national identity number.
fn text(value: &Value) -> Option<String> {
    let text = value.as_str().filter(|text| (1..=TEXT_CHARS_MAX).contains(&text.chars().count()))?;
    let digits = text.split(|character: char| !character.is_ascii_digit()).map(str::len).max();
    digits.is_none_or(|digits| digits < PERSON_DIGITS).then(|| text.to_owned())
}

/// The whole of it, if nothing is wrong.
fn whole<T>(made: Option<T>, faults: Vec<Fault>) -> Result<T, Vec<Fault>> {
    match made {
        Some(made) if faults.is_empty() => Ok(made),
        _ => Err(faults),
    }
}

/// Reads a member, whose organisation stands in the address.
pub fn parse_member(body: &Value, organisation: Organisasjonsnummer, asked: Asked<'_>) -> Result<Member, Vec<Fault>> {
    const KNOWN: [&str; 6] = ["standing", "agreement", "is_controller", "bases", "normen", "contact_points"];
    let mut faults = Vec::new();
    let Some(form) = form(body, String::new(), &KNOWN, &mut faults) else { return Err(faults) };
    let standing = form.must("standing", "is candidate, active, suspended or expelled", &mut faults, |value| {
        serde_json::from_value::<Standing>(value.clone()).ok()
    });
    let agreement = form.get("agreement").and_then(|value| agreement(value, form.at("agreement"), asked, &mut faults));
    let is_controller = form.may("is_controller", "is true or false", &mut faults, Value::as_bool).unwrap_or_default();
    let mut bases = Vec::new();
    for (index, item) in form.items("bases", &mut faults).iter().enumerate() {
        bases.extend(basis(item, format!("{}/{index}", form.at("bases")), asked, &mut faults));
    }
    let normen = form.get("normen").and_then(|value| normen(value, form.at("normen"), asked, &mut faults));
    let mut contact_points = Vec::new();
    for (index, item) in form.items("contact_points", &mut faults).iter().enumerate() {
        match text(item) {
            Some(point) => contact_points.push(point),
            None => faults.push(Fault::new(format!("{}/{index}", form.at("contact_points")), about_text())),
        }
    }
    let made = standing.map(|standing| Member { organisation, standing, agreement, is_controller, bases, normen, contact_points });
    whole(made, faults)
}

fn agreement(value: &Value, place: String, asked: Asked<'_>, faults: &mut Vec<Fault>) -> Option<Agreement> {
    let form = form(value, place, &["reference", "from"], faults)?;
    let reference = form.text("reference", faults);
    let from = form.may("from", "is a time (RFC 3339)", faults, time).unwrap_or(asked.now);
    Some(Agreement { reference: reference?, from })
}

fn basis(value: &Value, place: String, asked: Asked<'_>, faults: &mut Vec<Fault>) -> Option<Basis> {
    let form = form(value, place, &["types", "law", "from", "until"], faults)?;
    let (types, law) = (form.types(asked.catalogue, faults), form.text("law", faults));
    let period = form.period(asked.now, faults);
    Some(Basis { types, law: law?, period })
}

fn normen(value: &Value, place: String, asked: Asked<'_>, faults: &mut Vec<Fault>) -> Option<Normen> {
    let form = form(value, place, &["version", "signer", "from", "until"], faults)?;
    let (version, signer) = (form.text("version", faults), form.text("signer", faults));
    let period = form.period(asked.now, faults);
    // A declaration that never ends would never be looked at again.
    if form.get("until").is_none() {
        faults.push(Fault::new(form.at("until"), "is the time (RFC 3339) when the declaration is to be renewed"));
    }
    Some(Normen { version: version?, signer: signer?, period })
}

/// Reads a delegation; `own` is whose it is if it does not say.
pub fn parse_delegation(body: &Value, own: Option<Organisasjonsnummer>, asked: Asked<'_>) -> Result<Delegation, Vec<Fault>> {
    let mut faults = Vec::new();
    let known = ["organisation", "supplier", "types", "from", "until"];
    let Some(form) = form(body, String::new(), &known, &mut faults) else { return Err(faults) };
    let organisation = match form.get("organisation") {
        None if own.is_some() => own,
        _ => form.organisation("organisation", &mut faults),
    };
    let supplier = form.organisation("supplier", &mut faults);
    if supplier.is_some() && supplier == organisation {
        faults.push(Fault::new("/supplier", "is another organisation: nobody needs leave to act for itself"));
    }
    let (types, period) = (form.types(asked.catalogue, &mut faults), form.period(asked.now, &mut faults));
    let made = organisation.zip(supplier).map(|(organisation, supplier)| Delegation { organisation, supplier, types, period });
    whole(made, faults)
}

/// Reads a grant; `own` is whose data it opens if it does not say.
pub fn parse_grant(body: &Value, own: Option<Organisasjonsnummer>, asked: Asked<'_>) -> Result<Grant, Vec<Fault>> {
    let mut faults = Vec::new();
    let known = ["controller", "receiver", "types", "view", "from", "until"];
    let Some(form) = form(body, String::new(), &known, &mut faults) else { return Err(faults) };
    let controller = match form.get("controller") {
        None => own,
        Some(_) => form.organisation("controller", &mut faults),
    };
    let receiver = form.organisation("receiver", &mut faults);
    let (types, period) = (form.types(asked.catalogue, &mut faults), form.period(asked.now, &mut faults));
    let views: Vec<&String> = types.iter().flat_map(|pattern| asked.catalogue.matching(pattern)).flat_map(|event| &event.views).collect();
    let view = form.must("view", "is a view that one of the types has", &mut faults, |value| {
        value.as_str().filter(|view| types.is_empty() || views.iter().any(|known| known == view)).map(str::to_owned)
    });
    let made = receiver.zip(view).map(|(receiver, view)| Grant { controller, receiver, types, view, period });
    whole(made, faults)
}

/// Reads a relation of a controller's.
pub fn parse_relation(body: &Value, controller: Organisasjonsnummer, asked: Asked<'_>) -> Result<Relation, Vec<Fault>> {
    let mut faults = Vec::new();
    let Some(form) = form(body, String::new(), &["subject", "receiver", "from", "until"], &mut faults) else { return Err(faults) };
    let (subject, receiver) = (form.subject(&mut faults), form.organisation("receiver", &mut faults));
    let period = form.period(asked.now, &mut faults);
    let made = subject.zip(receiver).map(|(subject, receiver)| Relation { controller, subject, receiver, period });
    whole(made, faults)
}

/// Reads a block of a controller's.
pub fn parse_block(body: &Value, controller: Organisasjonsnummer, asked: Asked<'_>) -> Result<Block, Vec<Fault>> {
    let mut faults = Vec::new();
    let Some(form) = form(body, String::new(), &["subject", "receiver", "types", "from", "until"], &mut faults) else { return Err(faults) };
    let subject = form.subject(&mut faults);
    let receiver = form.get("receiver").and_then(|_| form.organisation("receiver", &mut faults));
    let types = form.get("types").map(|_| form.types(asked.catalogue, &mut faults)).unwrap_or_default();
    let period = form.period(asked.now, &mut faults);
    let made = subject.map(|subject| Block { controller: Some(controller), subject, receiver, types, period });
    whole(made, faults)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Fact;
    use serde_json::json;

    const OWN: &str = "312345676";
    const OTHER: &str = "923609016";

    fn asked() -> Asked<'static> {
        Asked { now: Timestamp::UNIX_EPOCH, catalogue: Catalogue::built_in() }
    }

    fn own() -> Organisasjonsnummer {
        OWN.parse().unwrap()
    }

    /// The body as it would be shown, or where its faults are.
    fn read(kind: &str, body: &Value) -> Result<Value, Vec<String>> {
        let made = match kind {
            "member" => parse_member(body, own(), asked()).map(Fact::Member),
            "delegation" => parse_delegation(body, Some(own()), asked()).map(Fact::Delegation),
            "grant" => parse_grant(body, None, asked()).map(Fact::Grant),
            "relation" => parse_relation(body, own(), asked()).map(Fact::Relation),
            _ => parse_block(body, own(), asked()).map(Fact::Block),
        };
        made.map(|fact| fact.public()).map_err(|faults| faults.into_iter().map(|fault| fault.pointer).collect())
    }

    #[test]
    fn what_is_asked_for_is_what_is_shown() {
        let period = json!({"from": "2026-01-01T00:00:00Z", "until": "2027-01-01T00:00:00Z"});
        let with = |mut body: Value| {
            body.as_object_mut().unwrap().extend(period.as_object().unwrap().clone());
            body
        };
        let member = json!({
            "standing": "active", "is_controller": true, "agreement": {"reference": "A-1", "from": "2026-01-01T00:00:00Z"},
            "bases": [with(json!({"types": ["no.ryggrad.*"], "law": "pasientjournalloven § 19"}))],
            "normen": with(json!({"version": "7.0", "signer": "Kari Nordmann"})), "contact_points": ["post@sykehus.example.no"],
        });
        for (kind, body, added) in [
            ("member", member, json!({"organisation": OWN})),
            ("delegation", with(json!({"supplier": OTHER, "types": ["no.ryggrad.*"]})), json!({"organisation": OWN})),
            ("grant", with(json!({"receiver": OTHER, "types": ["no.ryggrad.*"], "view": "full"})), json!({})),
            ("relation", with(json!({"receiver": OTHER, "subject": "p1"})), json!({"controller": OWN})),
            ("block", with(json!({"receiver": OTHER, "subject": "p1", "types": ["no.ryggrad.*"]})), json!({"controller": OWN})),
            ("block", with(json!({"subject": "p1"})), json!({"controller": OWN, "types": []})),
        ] {
            let mut expected = body.clone();
            expected.as_object_mut().unwrap().extend(added.as_object().unwrap().clone());
            assert_eq!(read(kind, &body), Ok(expected), "{kind}");
        }
    }

    #[test]
    fn every_fault_is_told_at_once_and_nothing_is_repeated() {
        let number = "1".repeat(PERSON_DIGITS);
        let wrong_member = json!({
            "standing": "friend", "is_controller": 1, "agreement": {}, "bases": [{"types": ["x"]}], "normen": {}, "contact_points": [number],
        });
        let wrong_period = json!({"supplier": OWN, "types": [], "from": "2027-01-01T00:00:00Z", "until": "2026-01-01T00:00:00Z"});
        let of_member = [
            "/standing",
            "/agreement/reference",
            "/is_controller",
            "/bases/0/types/0",
            "/bases/0/law",
            "/normen/version",
            "/normen/signer",
            "/normen/until",
            "/contact_points/0",
        ];
        let faults = |pointers: &[&str]| Err(pointers.iter().map(ToString::to_string).collect::<Vec<_>>());
        for (kind, body, pointers) in [
            ("member", json!([]), &[""][..]),
            ("member", wrong_member, &of_member),
            ("delegation", wrong_period, &["/supplier", "/types", "/until"]),
            ("grant", json!({"receiver": "1", "types": ["no.ryggrad.*"], "view": "naked"}), &["/receiver", "/view"]),
            ("relation", json!({"subject": number, "receiver": OTHER}), &["/subject"]),
            ("block", json!({"subject": "a b", number.clone(): 1}), &["", "/subject"]),
        ] {
            assert_eq!(read(kind, &body), faults(pointers), "{kind}");
        }
        let told = parse_block(&json!({"subject": number, number.clone(): number}), own(), asked()).unwrap_err();
        assert!(told.iter().all(|fault| !format!("{fault:?}").contains(&number)), "{told:?}");
    }
}
