//! Field changes to an active unit, and what the feed says of them.
//!
//! A change must say every field it touched: applied to the former document, the entries give the
//! new one.

use rand::Rng;
use serde::Serialize;
use serde_json::Value;

use super::{
    number::{Day, Kind, Organisasjonsnummer},
    population::{host, mobile, name, phone, pick, postbox, remark, street_address},
    tables::{PLACES, SIDE_CODES, TRADES},
    unit::{HistoriskNavn, Unit, unit_href},
};

/// One entry of `endringer`, after RFC 6902; the registry gives new values only.
#[derive(Clone, Debug, Serialize)]
pub(super) struct FieldChange {
    pub(super) op: &'static str,
    pub(super) path: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) value: Option<Value>,
}

fn replaced(path: &'static str, value: impl Serialize) -> FieldChange {
    FieldChange { op: "replace", path, value: Some(serde_json::to_value(value).unwrap_or_default()) }
}

fn set<T: Serialize>(field: &mut Option<T>, path: &'static str, value: T) -> FieldChange {
    let mut change = replaced(path, &value);
    if field.is_none() {
        change.op = "add";
    }
    *field = Some(value);
    change
}

fn clear<T>(field: &mut Option<T>, path: &'static str) -> Option<FieldChange> {
    field.take().map(|_| FieldChange { op: "remove", path, value: None })
}

/// Changes one thing about the unit.
pub(super) fn change_some_field(unit: &mut Unit, today: Day, rng: &mut impl Rng) -> Vec<FieldChange> {
    match (rng.random_range(0..20), unit.kind) {
        (0..=5, _) => employees(unit, today, rng),
        (6..=7, _) => rename(unit, today, rng),
        (8..=9, _) => move_house(unit, rng),
        (10, _) => trade(unit, rng),
        (11..=13, _) => contact(unit, rng),
        (14, _) => postal_address(unit, rng),
        (15, Kind::Underenhet) => vec![set(&mut unit.optional.dato_eierskifte, "/datoEierskifte", today)],
        (_, Kind::Underenhet) => employees(unit, today, rng),
        (15, Kind::Enhet) => trouble(unit, today, rng),
        (16, Kind::Enhet) => accounts(unit, today),
        (17, Kind::Enhet) => capital(unit, today, rng),
        (18, Kind::Enhet) => merverdiavgift(unit, today),
        (_, Kind::Enhet) => affairs(unit, today),
    }
}

/// Gives an underenhet another overordnetEnhet.
pub(super) fn change_parent(unit: &mut Unit, parent: Organisasjonsnummer) -> Vec<FieldChange> {
    vec![
        set(&mut unit.optional.overordnet_enhet, "/overordnetEnhet", parent),
        replaced("/_links/overordnetEnhet/href", unit_href(Kind::Enhet, parent)),
    ]
}

fn employees(unit: &mut Unit, today: Day, rng: &mut impl Rng) -> Vec<FieldChange> {
    let fields = &mut unit.optional;
    let before = fields.antall_ansatte.unwrap_or(0);
    let step = rng.random_range(1..=before / 20 + 3);
    let after = if rng.random_bool(0.5) && before >= step { before - step } else { before + step };
    let mut changes = vec![
        set(&mut fields.antall_ansatte, "/antallAnsatte", after),
        set(&mut fields.registreringsdato_antall_ansatte_enhetsregisteret, "/registreringsdatoAntallAnsatteEnhetsregisteret", today),
        set(&mut fields.registreringsdato_antall_ansatte_nav, "/registreringsdatoAntallAnsatteNAVAaregisteret", today),
    ];
    if !unit.har_registrert_antall_ansatte {
        unit.har_registrert_antall_ansatte = true;
        changes.push(replaced("/harRegistrertAntallAnsatte", true));
    }
    changes
}

fn rename(unit: &mut Unit, today: Day, rng: &mut impl Rng) -> Vec<FieldChange> {
    const NAMES_KEPT: usize = 12;
    let noun = TRADES.iter().find(|trade| trade.naeringskode == unit.naeringskode1).map_or("HELSE", |trade| trade.noun);
    let navn = name(rng, noun, unit.organisasjonsform.suffix);
    let mut changes = vec![replaced("/navn", &navn)];
    if unit.kind == Kind::Enhet {
        let op = if unit.historiske_navn.is_empty() { "add" } else { "replace" };
        if unit.historiske_navn.len() == NAMES_KEPT {
            unit.historiske_navn.remove(0);
        }
        unit.historiske_navn.push(HistoriskNavn { navn: std::mem::take(&mut unit.navn), fra_dato: unit.name_since, til_dato: today });
        changes.push(FieldChange { op, ..replaced("/historiskeNavn", &unit.historiske_navn) });
    }
    unit.navn = navn;
    unit.name_since = today;
    changes
}

fn move_house(unit: &mut Unit, rng: &mut impl Rng) -> Vec<FieldChange> {
    let (field, path) = match unit.kind {
        Kind::Enhet => (&mut unit.optional.forretningsadresse, "/forretningsadresse"),
        Kind::Underenhet => (&mut unit.optional.beliggenhetsadresse, "/beliggenhetsadresse"),
    };
    let place = match field {
        Some(address) if rng.random_bool(0.7) => address.place,
        _ => pick(rng, &PLACES),
    };
    vec![set(field, path, street_address(rng, place))]
}

fn postal_address(unit: &mut Unit, rng: &mut impl Rng) -> Vec<FieldChange> {
    let field = &mut unit.optional.postadresse;
    if rng.random_bool(0.4)
        && let Some(change) = clear(field, "/postadresse")
    {
        return vec![change];
    }
    let place = pick(rng, &PLACES);
    vec![set(field, "/postadresse", postbox(rng, place))]
}

fn trade(unit: &mut Unit, rng: &mut impl Rng) -> Vec<FieldChange> {
    if unit.kind == Kind::Enhet && rng.random_bool(0.5) {
        let fields = &mut unit.optional;
        let code = *pick(rng, &SIDE_CODES);
        return vec![set(&mut fields.naeringskode2, "/naeringskode2", code)];
    }
    unit.naeringskode1 = pick(rng, &TRADES).naeringskode;
    vec![replaced("/naeringskode1", unit.naeringskode1)]
}

fn contact(unit: &mut Unit, rng: &mut impl Rng) -> Vec<FieldChange> {
    let host = host(&unit.navn);
    let fields = &mut unit.optional;
    match rng.random_range(0..5) {
        0 => vec![set(&mut fields.telefon, "/telefon", phone(rng))],
        1 => vec![set(&mut fields.mobil, "/mobil", mobile(rng))],
        2 => vec![
            set(&mut fields.hjemmeside, "/hjemmeside", format!("www.{host}")),
            set(&mut fields.epostadresse, "/epostadresse", format!("post@{host}")),
        ],
        3 => clear(&mut fields.mobil, "/mobil").into_iter().chain([set(&mut fields.telefon, "/telefon", phone(rng))]).collect(),
        _ => {
            let desk = rng.random_range(1..1000);
            let address = format!("mottak{desk}@{host}");
            vec![set(&mut fields.epostadresse, "/epostadresse", address)]
        }
    }
}

/// Bankruptcy, winding up, remarks; or the way back out of them.
fn trouble(unit: &mut Unit, today: Day, rng: &mut impl Rng) -> Vec<FieldChange> {
    let fields = &mut unit.optional;
    if fields.konkurs == Some(true) {
        let mut changes = vec![set(&mut fields.konkurs, "/konkurs", false)];
        changes.extend(clear(&mut fields.konkursdato, "/konkursdato"));
        return changes;
    }
    if fields.under_avvikling == Some(true) {
        let mut changes = vec![set(&mut fields.under_avvikling, "/underAvvikling", false)];
        changes.extend(clear(&mut fields.under_avvikling_dato, "/underAvviklingDato"));
        return changes;
    }
    match rng.random_range(0..4) {
        0 => vec![set(&mut fields.konkurs, "/konkurs", true), set(&mut fields.konkursdato, "/konkursdato", today)],
        1 => vec![
            set(&mut fields.under_avvikling, "/underAvvikling", true),
            set(&mut fields.under_avvikling_dato, "/underAvviklingDato", today),
        ],
        2 => {
            let forced = fields.under_tvangsavvikling_eller_tvangsopplosning != Some(true);
            vec![set(&mut fields.under_tvangsavvikling_eller_tvangsopplosning, "/underTvangsavviklingEllerTvangsopplosning", forced)]
        }
        _ => {
            let mut remarks = fields.paategninger.clone().unwrap_or_default();
            if remarks.pop().is_none() {
                remarks.push(remark(today));
            }
            vec![set(&mut fields.paategninger, "/paategninger", remarks)]
        }
    }
}

fn accounts(unit: &mut Unit, today: Day) -> Vec<FieldChange> {
    let field = &mut unit.optional.siste_innsendte_aarsregnskap;
    let last = field.as_ref().and_then(|year| year.parse::<i16>().ok());
    let path = "/sisteInnsendteAarsregnskap";
    match last {
        Some(year) if year < today.year() => vec![set(field, path, (year + 1).to_string())],
        Some(_) => affairs(unit, today),
        None => vec![set(field, path, (today.year() - 1).to_string())],
    }
}

fn capital(unit: &mut Unit, today: Day, rng: &mut impl Rng) -> Vec<FieldChange> {
    let field = &mut unit.optional.kapital;
    let Some(mut kapital) = field.clone() else {
        return affairs(unit, today);
    };
    kapital.belop = (kapital.belop + 10_000 * rng.random_range(1..50)) % 900_000_000;
    kapital.innbetalt = kapital.belop;
    kapital.antall_aksjer = kapital.belop / 100;
    kapital.innfort_dato = today;
    vec![set(field, "/kapital", kapital)]
}

fn merverdiavgift(unit: &mut Unit, today: Day) -> Vec<FieldChange> {
    let fields = &mut unit.optional;
    unit.registrert_i_mvaregisteret = !unit.registrert_i_mvaregisteret;
    let mut changes = vec![replaced("/registrertIMvaregisteret", unit.registrert_i_mvaregisteret)];
    let register = &mut fields.registreringsdato_merverdiavgiftsregisteret;
    let path = "/registreringsdatoMerverdiavgiftsregisteret";
    if unit.registrert_i_mvaregisteret {
        changes.push(set(register, path, today));
    } else {
        changes.extend(clear(register, path));
    }
    changes
}

/// The change that any enhet can make: it joins or leaves a konsern.
fn affairs(unit: &mut Unit, today: Day) -> Vec<FieldChange> {
    let fields = &mut unit.optional;
    let joins = fields.er_i_konsern != Some(true);
    vec![set(&mut fields.er_i_konsern, "/erIKonsern", joins), set(&mut fields.vedtektsdato, "/vedtektsdato", today)]
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;
    use crate::simulate::population;

    fn apply(document: &mut Value, changes: &[FieldChange]) {
        for change in changes {
            let (parent, field) = change.path.rsplit_once('/').expect("a path has a slash");
            let object = document.pointer_mut(parent).and_then(Value::as_object_mut).expect("the parent is an object");
            match &change.value {
                Some(value) => {
                    let before = object.insert(field.to_owned(), value.clone());
                    assert_eq!(before.is_some(), change.op == "replace", "{}", change.path);
                }
                None => assert!(object.remove(field).is_some(), "{}", change.path),
            }
        }
    }

    #[test]
    fn entries_applied_to_the_former_document_give_the_new_one() {
        let mut rng = StdRng::seed_from_u64(3);
        let number = Organisasjonsnummer::synthetic(&mut rng);
        let mut parent = population::enhet(&mut rng, number, Day::of_change(0));
        let number = Organisasjonsnummer::synthetic(&mut rng);
        let mut child = population::underenhet(&mut rng, number, &parent, Day::of_change(0));
        for round in 0..2000 {
            let unit = if round % 2 == 0 { &mut parent } else { &mut child };
            let mut document = unit.document();
            let changes = if round % 50 == 1 {
                change_parent(unit, Organisasjonsnummer::synthetic(&mut rng))
            } else {
                change_some_field(unit, Day::of_change(round), &mut rng)
            };
            assert!(!changes.is_empty());
            apply(&mut document, &changes);
            assert_eq!(document, unit.document(), "after {changes:?}");
        }
    }
}
