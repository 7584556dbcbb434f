//! Draws new units: invented organisations of the health sector in real municipalities.
//!
//! Everything comes from the caller's random numbers and the calendar of the simulated registry;
//! nothing here may look at a clock or at recorded material.

use rand::Rng;

use super::{
    number::{Day, Kind, Organisasjonsnummer},
    tables::{AAFY, AS, BEDR, Code, Form, HJELPEENHET, NAME_MIDDLES, NAME_STARTS, PLACES, Place, SIDE_CODES, STREETS, TRADES, Trade},
    unit::{Address, HistoriskNavn, Kapital, Optional, Paategning, Unit},
};

pub(super) fn pick<'a, T>(rng: &mut impl Rng, list: &'a [T]) -> &'a T {
    &list[rng.random_range(0..list.len())]
}

/// A name that no unit is likely to bear: an invented word, a trade, the legal form.
pub(super) fn name(rng: &mut impl Rng, noun: &str, suffix: &str) -> String {
    let middle = pick(rng, &NAME_MIDDLES);
    let start = pick(rng, &NAME_STARTS);
    format!("{middle}{start} {noun}{suffix}")
}

pub(super) fn street_address(rng: &mut impl Rng, place: &'static Place) -> Address {
    let mut adresse = vec![format!("{} {}", pick(rng, &STREETS), rng.random_range(1..120))];
    if rng.random_bool(0.1) {
        adresse.insert(0, format!("{}. etasje", rng.random_range(2..6)));
    }
    Address { adresse, place }
}

pub(super) fn postbox(rng: &mut impl Rng, place: &'static Place) -> Address {
    Address { adresse: vec![format!("Postboks {}", rng.random_range(1..2000))], place }
}

pub(super) fn phone(rng: &mut impl Rng) -> String {
    format!("22 {:02} {:02} {:02}", rng.random_range(0..100), rng.random_range(0..100), rng.random_range(0..100))
}

pub(super) fn mobile(rng: &mut impl Rng) -> String {
    format!("4{:02} {:02} {:03}", rng.random_range(0..100), rng.random_range(0..100), rng.random_range(0..1000))
}

/// A host under `.example`, which can never belong to anyone.
pub(super) fn host(name: &str) -> String {
    let mut host = String::with_capacity(name.len());
    for letter in name.chars().flat_map(char::to_lowercase) {
        match letter {
            'a'..='z' => host.push(letter),
            'æ' => host.push_str("ae"),
            'ø' => host.push('o'),
            'å' => host.push('a'),
            _ if host.ends_with('-') => {}
            _ => host.push('-'),
        }
    }
    format!("{}.example", host.trim_matches('-'))
}

/// A new enhet.
pub(super) fn enhet(rng: &mut impl Rng, number: Organisasjonsnummer, today: Day) -> Unit {
    let trade = pick(rng, &TRADES);
    let form = *pick(rng, trade.forms);
    let place = pick(rng, &PLACES);
    let founded = Day::before_opening(rng, 1978).min(today);
    let navn = name(rng, trade.noun, form.suffix);

    let mut unit = bare(Kind::Enhet, number, navn, form, trade.naeringskode, founded);
    let fields = &mut unit.optional;
    fields.institusjonell_sektorkode = Some(trade.sektor);
    fields.forretningsadresse = Some(street_address(rng, place));
    fields.postadresse = rng.random_bool(0.5).then(|| postbox(rng, place));
    fields.stiftelsesdato = Some(founded);
    fields.maalform = Some(if rng.random_bool(0.85) { "Bokmål" } else { "Nynorsk" });
    fields.er_i_konsern = Some(rng.random_bool(0.15));
    fields.konkurs = Some(false);
    fields.under_avvikling = Some(false);
    fields.under_tvangsavvikling_eller_tvangsopplosning = Some(false);
    fields.paategninger = Some(Vec::new());
    employees(rng, &mut unit, trade.employees_at_most, today);
    purpose(rng, &mut unit, trade, founded);
    registrations(rng, &mut unit, trade, founded);
    contact(rng, &mut unit);
    history(rng, &mut unit, trade, founded, today);
    unit
}

/// A new underenhet of `parent`, in the parent's trade and often in its town.
pub(super) fn underenhet(rng: &mut impl Rng, number: Organisasjonsnummer, parent: &Unit, today: Day) -> Unit {
    let trade = TRADES.iter().find(|trade| trade.naeringskode == parent.naeringskode1).unwrap_or(&TRADES[0]);
    let parent_place = parent.optional.forretningsadresse.as_ref();
    let place = match parent_place {
        Some(address) if rng.random_bool(0.7) => address.place,
        _ => pick(rng, &PLACES),
    };
    let form = if trade.noun == "HELSESPORTSLAG" { &AAFY } else { &BEDR };
    let opened = parent.registreringsdato_enhetsregisteret;
    let navn = format!("{} AVD {}", parent.navn, place.poststed);

    let mut unit = bare(Kind::Underenhet, number, navn, form, parent.naeringskode1, opened);
    let fields = &mut unit.optional;
    fields.overordnet_enhet = Some(parent.organisasjonsnummer);
    fields.beliggenhetsadresse = Some(street_address(rng, place));
    fields.postadresse = rng.random_bool(0.3).then(|| postbox(rng, place));
    fields.oppstartsdato = Some(opened);
    fields.dato_eierskifte = rng.random_bool(0.2).then(|| opened.later(rng.random_range(100..2000)).min(today));
    fields.hjelpeenhetskode = rng.random_bool(0.08).then_some(HJELPEENHET);
    employees(rng, &mut unit, (trade.employees_at_most / 2).max(2), today);
    contact(rng, &mut unit);
    unit
}

fn bare(
    kind: Kind,
    organisasjonsnummer: Organisasjonsnummer,
    navn: String,
    organisasjonsform: &'static Form,
    naeringskode1: Code,
    registered: Day,
) -> Unit {
    Unit {
        kind,
        children: 0,
        name_since: registered,
        organisasjonsnummer,
        navn,
        organisasjonsform,
        historiske_navn: Vec::new(),
        naeringskode1,
        har_registrert_antall_ansatte: false,
        registreringsdato_enhetsregisteret: registered,
        registrert_i_mvaregisteret: false,
        optional: Optional::default(),
    }
}

fn employees(rng: &mut impl Rng, unit: &mut Unit, at_most: u32, today: Day) {
    // Small numbers are by far the most common, as in the real registry.
    let share: f64 = rng.random();
    let count = (share * share * f64::from(at_most)) as u32;
    unit.har_registrert_antall_ansatte = count > 0 || rng.random_bool(0.5);
    if unit.har_registrert_antall_ansatte {
        unit.optional.antall_ansatte = Some(count);
        let fields = &mut unit.optional;
        fields.registreringsdato_antall_ansatte_enhetsregisteret = Some(today);
        fields.registreringsdato_antall_ansatte_nav = Some(today);
    }
}

fn purpose(rng: &mut impl Rng, unit: &mut Unit, trade: &'static Trade, founded: Day) {
    let fields = &mut unit.optional;
    fields.aktivitet = Some(trade.aktivitet.to_vec());
    if unit.organisasjonsform.suffix.is_empty() {
        return;
    }
    fields.vedtektsdato = Some(founded.later(rng.random_range(0..900)));
    fields.vedtektsfestet_formaal = Some([trade.aktivitet, &["Foretaket kan delta i andre selskaper med likeartet formål."]].concat());
    if matches!(unit.organisasjonsform.code.kode, "AS" | "ASA") {
        let kroner = 30_000 * rng.random_range(1..40_u64);
        fields.kapital = Some(Kapital {
            antall_aksjer: kroner / 100,
            belop: kroner,
            innbetalt: kroner,
            innfort_dato: founded,
            r#type: "Aksjekapital",
            valuta: "NOK",
        });
    }
}

fn registrations(rng: &mut impl Rng, unit: &mut Unit, trade: &Trade, founded: Day) {
    let kode = unit.organisasjonsform.code.kode;
    let noted = founded.later(rng.random_range(5..60));
    let fields = &mut unit.optional;

    let in_foretaksregisteret = matches!(kode, "AS" | "ASA" | "ANS" | "SA" | "SÆR" | "IKS");
    fields.registrert_i_foretaksregisteret = Some(in_foretaksregisteret);
    fields.registreringsdato_foretaksregisteret = in_foretaksregisteret.then_some(founded);
    if in_foretaksregisteret {
        fields.siste_innsendte_aarsregnskap = Some(rng.random_range(2019..2025).to_string());
    }

    let voluntary = kode == "FLI";
    fields.registrert_i_frivillighetsregisteret = Some(voluntary);
    fields.registreringsdato_frivillighetsregisteret = voluntary.then_some(noted);
    // No health unit is a party; a few associations are, so that the field occurs.
    let party = voluntary && rng.random_bool(0.1);
    fields.registrert_i_partiregisteret = Some(party);
    fields.registreringsdato_partiregisteret = party.then_some(noted);
    let foundation = kode == "STI";
    fields.registrert_i_stiftelsesregisteret = Some(foundation);
    fields.registreringsdato_stiftelsesregisteret = foundation.then_some(noted);

    // Health services are exempt from merverdiavgift; the others mostly pay it.
    let pays = !trade.naeringskode.kode.starts_with("86") && rng.random_bool(0.7);
    unit.registrert_i_mvaregisteret = pays;
    if pays {
        fields.registreringsdato_merverdiavgiftsregisteret = Some(founded);
        fields.registreringsdato_merverdiavgiftsregisteret_enhetsregisteret = Some(noted);
        if rng.random_bool(0.2) {
            fields.registreringsdato_frivillig_merverdiavgiftsregisteret = Some(noted);
            fields.frivillig_mva_registrert_beskrivelser = Some(vec!["Utleier av bygg eller anlegg"]);
        }
    }
    fields.naeringskode2 = rng.random_bool(0.2).then(|| *pick(rng, &SIDE_CODES));
    if let Some(second) = fields.naeringskode2 {
        let third = *pick(rng, &SIDE_CODES);
        fields.naeringskode3 = (third != second).then_some(third);
    }
}

fn contact(rng: &mut impl Rng, unit: &mut Unit) {
    let host = host(&unit.navn);
    let fields = &mut unit.optional;
    fields.hjemmeside = rng.random_bool(0.5).then(|| format!("www.{host}"));
    fields.epostadresse = rng.random_bool(0.6).then(|| format!("post@{host}"));
    fields.telefon = rng.random_bool(0.6).then(|| phone(rng));
    fields.mobil = rng.random_bool(0.3).then(|| mobile(rng));
}

/// Former names, remarks, bankruptcies: what only some units have behind them.
fn history(rng: &mut impl Rng, unit: &mut Unit, trade: &Trade, founded: Day, today: Day) {
    if rng.random_bool(0.15) {
        let renamed = founded.later(rng.random_range(200..3000)).min(today);
        unit.historiske_navn.push(HistoriskNavn {
            navn: name(rng, trade.noun, unit.organisasjonsform.suffix),
            fra_dato: founded,
            til_dato: renamed,
        });
        unit.name_since = renamed;
    }
    let since = founded.later(rng.random_range(300..4000)).min(today);
    let fields = &mut unit.optional;
    if rng.random_bool(0.04) {
        fields.paategninger = Some(vec![remark(since)]);
    }
    if unit.organisasjonsform.code == AS.code && rng.random_bool(0.03) {
        fields.konkurs = Some(true);
        fields.konkursdato = Some(since);
    } else if rng.random_bool(0.03) {
        fields.under_avvikling = Some(true);
        fields.under_avvikling_dato = Some(since);
    } else if rng.random_bool(0.02) {
        fields.under_tvangsavvikling_eller_tvangsopplosning = Some(true);
    }
}

pub(super) fn remark(since: Day) -> Paategning {
    Paategning { infotype: "NAVN", innfoert_dato: since, tekst: "Det er sådd tvil om det registrerte navnet er i bruk." }
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use std::collections::BTreeSet;

    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    #[test]
    fn every_field_of_the_registry_occurs() {
        let mut rng = StdRng::seed_from_u64(1);
        let mut seen = BTreeSet::new();
        for _ in 0..3000 {
            let number = Organisasjonsnummer::synthetic(&mut rng);
            let parent = enhet(&mut rng, number, Day::of_change(0));
            let number = Organisasjonsnummer::synthetic(&mut rng);
            let child = underenhet(&mut rng, number, &parent, Day::of_change(0));
            for document in [parent.document(), child.document()] {
                let fields = document.as_object().expect("a document is an object");
                seen.extend(fields.keys().cloned());
            }
        }
        for field in [
            "historiskeNavn",
            "paategninger",
            "kapital",
            "vedtektsfestetFormaal",
            "aktivitet",
            "registreringsdatoAntallAnsatteNAVAaregisteret",
            "registreringsdatoForetaksregisteret",
            "registreringsdatoStiftelsesregisteret",
            "registreringsdatoPartiregisteret",
            "registrertIMvaregisteret",
            "konkursdato",
            "underAvviklingDato",
            "erIKonsern",
            "sisteInnsendteAarsregnskap",
            "overordnetEnhet",
            "beliggenhetsadresse",
            "oppstartsdato",
            "datoEierskifte",
            "hjelpeenhetskode",
            "naeringskode3",
            "mobil",
            "underTvangsavviklingEllerTvangsopplosning",
            "institusjonellSektorkode",
            "_links",
        ] {
            assert!(seen.contains(field), "{field} never occurs");
        }
    }

    #[test]
    fn capital_keeps_its_decimals_and_the_form_its_link() {
        let mut rng = StdRng::seed_from_u64(2);
        let document = loop {
            let number = Organisasjonsnummer::synthetic(&mut rng);
            let unit = enhet(&mut rng, number, Day::of_change(0));
            if unit.optional.kapital.is_some() {
                break unit.document();
            }
        };
        assert!(document["kapital"]["belop"].to_string().ends_with("000.00"));
        let link = &document["organisasjonsform"]["_links"]["self"]["href"];
        assert!(link.as_str().is_some_and(|href| href.contains("/organisasjonsformer/AS")));
    }

    #[test]
    fn hosts_are_plain_letters() {
        assert_eq!(host("ØSTRE BLÅSKARV APOTEK AS"), "ostre-blaskarv-apotek-as.example");
    }
}
