//! Made from `avro/virksomhet` by `tests/generated.rs`. Do not edit.
#![cfg_attr(rustfmt, rustfmt_skip)]
#![allow(missing_docs, reason = "documented in the schema")]

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::document::{self, Decimal, FromDocument, Pointer, Rest, ToDocument};

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Endringstype {
    #[default]
    #[serde(rename = "UKJENT")]
    Ukjent,
    #[serde(rename = "NY")]
    Ny,
    #[serde(rename = "ENDRET")]
    Endret,
    #[serde(rename = "OPPHOERT")]
    Opphoert,
    #[serde(rename = "SLETTET")]
    Slettet,
    #[serde(rename = "FJERNET")]
    Fjernet,
    #[serde(rename = "KORRIGERT")]
    Korrigert,
    #[serde(rename = "ANNULLERT")]
    Annullert,
}

impl Endringstype {
    /// The symbol as it is written.
    pub const fn symbol(self) -> &'static str {
        match self {
            Self::Ukjent => "UKJENT",
            Self::Ny => "NY",
            Self::Endret => "ENDRET",
            Self::Opphoert => "OPPHOERT",
            Self::Slettet => "SLETTET",
            Self::Fjernet => "FJERNET",
            Self::Korrigert => "KORRIGERT",
            Self::Annullert => "ANNULLERT",
        }
    }
}

impl ToDocument for Endringstype {
    fn give(&self) -> Value {
        Value::from(self.symbol())
    }
}

/// A code with its text. Codes stay strings, so a new upstream code never breaks a reader.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Kode {
    #[serde(rename = "kode")]
    pub kode: Option<String>,
    #[serde(rename = "beskrivelse")]
    pub beskrivelse: Option<String>,
    /// Date from which the code is retired.
    #[serde(rename = "utgaatt")]
    pub utgaatt: Option<String>,
}

impl ToDocument for Kode {
    fn give(&self) -> Value {
        let mut members = Map::new();
        document::give_member(&mut members, "kode", &self.kode);
        document::give_member(&mut members, "beskrivelse", &self.beskrivelse);
        document::give_member(&mut members, "utgaatt", &self.utgaatt);
        Value::Object(members)
    }
}

impl FromDocument for Kode {
    fn fits(value: &Value) -> bool {
        value.is_object()
    }
    fn take(value: Value, at: &mut Pointer, rest: &mut Rest) -> Self {
        let Value::Object(mut members) = value else { return Self::default() };
        let taken = Self {
            kode: document::take_member(&mut members, "kode", at, rest),
            beskrivelse: document::take_member(&mut members, "beskrivelse", at, rest),
            utgaatt: document::take_member(&mut members, "utgaatt", at, rest),
        };
        document::keep_remainder(members, at, rest);
        taken
    }
}

/// A postal or visiting address.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Adresse {
    /// Address lines.
    #[serde(rename = "adresse")]
    pub adresse: Option<Vec<String>>,
    #[serde(rename = "kommune")]
    pub kommune: Option<String>,
    /// Four digits.
    #[serde(rename = "kommunenummer")]
    pub kommunenummer: Option<String>,
    #[serde(rename = "land")]
    pub land: Option<String>,
    /// ISO 3166-1 alpha-2.
    #[serde(rename = "landkode")]
    pub landkode: Option<String>,
    #[serde(rename = "postnummer")]
    pub postnummer: Option<String>,
    #[serde(rename = "poststed")]
    pub poststed: Option<String>,
}

impl ToDocument for Adresse {
    fn give(&self) -> Value {
        let mut members = Map::new();
        document::give_member(&mut members, "adresse", &self.adresse);
        document::give_member(&mut members, "kommune", &self.kommune);
        document::give_member(&mut members, "kommunenummer", &self.kommunenummer);
        document::give_member(&mut members, "land", &self.land);
        document::give_member(&mut members, "landkode", &self.landkode);
        document::give_member(&mut members, "postnummer", &self.postnummer);
        document::give_member(&mut members, "poststed", &self.poststed);
        Value::Object(members)
    }
}

impl FromDocument for Adresse {
    fn fits(value: &Value) -> bool {
        value.is_object()
    }
    fn take(value: Value, at: &mut Pointer, rest: &mut Rest) -> Self {
        let Value::Object(mut members) = value else { return Self::default() };
        let taken = Self {
            adresse: document::take_member(&mut members, "adresse", at, rest),
            kommune: document::take_member(&mut members, "kommune", at, rest),
            kommunenummer: document::take_member(&mut members, "kommunenummer", at, rest),
            land: document::take_member(&mut members, "land", at, rest),
            landkode: document::take_member(&mut members, "landkode", at, rest),
            postnummer: document::take_member(&mut members, "postnummer", at, rest),
            poststed: document::take_member(&mut members, "poststed", at, rest),
        };
        document::keep_remainder(members, at, rest);
        taken
    }
}

/// Registered capital. Decimals are strings with the upstream's own digits.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Kapital {
    /// Decimal.
    #[serde(rename = "belop")]
    pub belop: Option<Decimal>,
    /// Decimal.
    #[serde(rename = "antallAksjer")]
    pub antall_aksjer: Option<Decimal>,
    #[serde(rename = "type")]
    pub r#type: Option<String>,
    #[serde(rename = "valuta")]
    pub valuta: Option<String>,
    #[serde(rename = "innfortDato")]
    pub innfort_dato: Option<String>,
    /// Decimal.
    #[serde(rename = "innbetalt")]
    pub innbetalt: Option<Decimal>,
    #[serde(rename = "fulltInnbetalt")]
    pub fullt_innbetalt: Option<String>,
}

impl ToDocument for Kapital {
    fn give(&self) -> Value {
        let mut members = Map::new();
        document::give_member(&mut members, "belop", &self.belop);
        document::give_member(&mut members, "antallAksjer", &self.antall_aksjer);
        document::give_member(&mut members, "type", &self.r#type);
        document::give_member(&mut members, "valuta", &self.valuta);
        document::give_member(&mut members, "innfortDato", &self.innfort_dato);
        document::give_member(&mut members, "innbetalt", &self.innbetalt);
        document::give_member(&mut members, "fulltInnbetalt", &self.fullt_innbetalt);
        Value::Object(members)
    }
}

impl FromDocument for Kapital {
    fn fits(value: &Value) -> bool {
        value.is_object()
    }
    fn take(value: Value, at: &mut Pointer, rest: &mut Rest) -> Self {
        let Value::Object(mut members) = value else { return Self::default() };
        let taken = Self {
            belop: document::take_member(&mut members, "belop", at, rest),
            antall_aksjer: document::take_member(&mut members, "antallAksjer", at, rest),
            r#type: document::take_member(&mut members, "type", at, rest),
            valuta: document::take_member(&mut members, "valuta", at, rest),
            innfort_dato: document::take_member(&mut members, "innfortDato", at, rest),
            innbetalt: document::take_member(&mut members, "innbetalt", at, rest),
            fullt_innbetalt: document::take_member(&mut members, "fulltInnbetalt", at, rest),
        };
        document::keep_remainder(members, at, rest);
        taken
    }
}

/// An earlier name and the days it was in use.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct HistoriskNavn {
    #[serde(rename = "navn")]
    pub navn: Option<String>,
    #[serde(rename = "fraDato")]
    pub fra_dato: Option<String>,
    #[serde(rename = "tilDato")]
    pub til_dato: Option<String>,
}

impl ToDocument for HistoriskNavn {
    fn give(&self) -> Value {
        let mut members = Map::new();
        document::give_member(&mut members, "navn", &self.navn);
        document::give_member(&mut members, "fraDato", &self.fra_dato);
        document::give_member(&mut members, "tilDato", &self.til_dato);
        Value::Object(members)
    }
}

impl FromDocument for HistoriskNavn {
    fn fits(value: &Value) -> bool {
        value.is_object()
    }
    fn take(value: Value, at: &mut Pointer, rest: &mut Rest) -> Self {
        let Value::Object(mut members) = value else { return Self::default() };
        let taken = Self {
            navn: document::take_member(&mut members, "navn", at, rest),
            fra_dato: document::take_member(&mut members, "fraDato", at, rest),
            til_dato: document::take_member(&mut members, "tilDato", at, rest),
        };
        document::keep_remainder(members, at, rest);
        taken
    }
}

/// A remark entered on the unit.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Paategning {
    #[serde(rename = "infotype")]
    pub infotype: Option<String>,
    #[serde(rename = "innfoertDato")]
    pub innfoert_dato: Option<String>,
    #[serde(rename = "tekst")]
    pub tekst: Option<String>,
}

impl ToDocument for Paategning {
    fn give(&self) -> Value {
        let mut members = Map::new();
        document::give_member(&mut members, "infotype", &self.infotype);
        document::give_member(&mut members, "innfoertDato", &self.innfoert_dato);
        document::give_member(&mut members, "tekst", &self.tekst);
        Value::Object(members)
    }
}

impl FromDocument for Paategning {
    fn fits(value: &Value) -> bool {
        value.is_object()
    }
    fn take(value: Value, at: &mut Pointer, rest: &mut Rest) -> Self {
        let Value::Object(mut members) = value else { return Self::default() };
        let taken = Self {
            infotype: document::take_member(&mut members, "infotype", at, rest),
            innfoert_dato: document::take_member(&mut members, "innfoertDato", at, rest),
            tekst: document::take_member(&mut members, "tekst", at, rest),
        };
        document::keep_remainder(members, at, rest);
        taken
    }
}

/// An enhet or underenhet as Enhetsregisteret shows it. Field names are the registry's own; absent and null differ only in ukjenteFelter.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Virksomhet {
    #[serde(rename = "organisasjonsnummer")]
    pub organisasjonsnummer: Option<String>,
    #[serde(rename = "navn")]
    pub navn: Option<String>,
    #[serde(rename = "organisasjonsform")]
    pub organisasjonsform: Option<Kode>,
    /// Enhet, Underenhet, SlettetEnhet or SlettetUnderenhet.
    #[serde(rename = "respons_klasse")]
    pub respons_klasse: Option<String>,
    #[serde(rename = "forretningsadresse")]
    pub forretningsadresse: Option<Adresse>,
    #[serde(rename = "postadresse")]
    pub postadresse: Option<Adresse>,
    /// Underenhet only.
    #[serde(rename = "beliggenhetsadresse")]
    pub beliggenhetsadresse: Option<Adresse>,
    #[serde(rename = "naeringskode1")]
    pub naeringskode1: Option<Kode>,
    #[serde(rename = "naeringskode2")]
    pub naeringskode2: Option<Kode>,
    #[serde(rename = "naeringskode3")]
    pub naeringskode3: Option<Kode>,
    #[serde(rename = "hjelpeenhetskode")]
    pub hjelpeenhetskode: Option<Kode>,
    #[serde(rename = "institusjonellSektorkode")]
    pub institusjonell_sektorkode: Option<Kode>,
    #[serde(rename = "antallAnsatte")]
    pub antall_ansatte: Option<i64>,
    #[serde(rename = "harRegistrertAntallAnsatte")]
    pub har_registrert_antall_ansatte: Option<bool>,
    #[serde(rename = "registreringsdatoAntallAnsatteEnhetsregisteret")]
    pub registreringsdato_antall_ansatte_enhetsregisteret: Option<String>,
    #[serde(rename = "registreringsdatoAntallAnsatteNAVAaregisteret")]
    pub registreringsdato_antall_ansatte_nav_aaregisteret: Option<String>,
    #[serde(rename = "hjemmeside")]
    pub hjemmeside: Option<String>,
    #[serde(rename = "epostadresse")]
    pub epostadresse: Option<String>,
    #[serde(rename = "telefon")]
    pub telefon: Option<String>,
    #[serde(rename = "mobil")]
    pub mobil: Option<String>,
    #[serde(rename = "aktivitet")]
    pub aktivitet: Option<Vec<String>>,
    #[serde(rename = "vedtektsfestetFormaal")]
    pub vedtektsfestet_formaal: Option<Vec<String>>,
    #[serde(rename = "vedtektsdato")]
    pub vedtektsdato: Option<String>,
    #[serde(rename = "frivilligMvaRegistrertBeskrivelser")]
    pub frivillig_mva_registrert_beskrivelser: Option<Vec<String>>,
    #[serde(rename = "kapital")]
    pub kapital: Option<Kapital>,
    #[serde(rename = "historiskeNavn")]
    pub historiske_navn: Option<Vec<HistoriskNavn>>,
    #[serde(rename = "paategninger")]
    pub paategninger: Option<Vec<Paategning>>,
    #[serde(rename = "registreringsdatoEnhetsregisteret")]
    pub registreringsdato_enhetsregisteret: Option<String>,
    #[serde(rename = "registreringsdatoForetaksregisteret")]
    pub registreringsdato_foretaksregisteret: Option<String>,
    #[serde(rename = "registreringsdatoFrivillighetsregisteret")]
    pub registreringsdato_frivillighetsregisteret: Option<String>,
    #[serde(rename = "registreringsdatoPartiregisteret")]
    pub registreringsdato_partiregisteret: Option<String>,
    #[serde(rename = "registreringsdatoStiftelsesregisteret")]
    pub registreringsdato_stiftelsesregisteret: Option<String>,
    #[serde(rename = "registreringsdatoMerverdiavgiftsregisteret")]
    pub registreringsdato_merverdiavgiftsregisteret: Option<String>,
    #[serde(rename = "registreringsdatoMerverdiavgiftsregisteretEnhetsregisteret")]
    pub registreringsdato_merverdiavgiftsregisteret_enhetsregisteret: Option<String>,
    #[serde(rename = "registreringsdatoFrivilligMerverdiavgiftsregisteret")]
    pub registreringsdato_frivillig_merverdiavgiftsregisteret: Option<String>,
    #[serde(rename = "registrertIForetaksregisteret")]
    pub registrert_i_foretaksregisteret: Option<bool>,
    #[serde(rename = "registrertIFrivillighetsregisteret")]
    pub registrert_i_frivillighetsregisteret: Option<bool>,
    #[serde(rename = "registrertIMvaregisteret")]
    pub registrert_i_mvaregisteret: Option<bool>,
    #[serde(rename = "registrertIPartiregisteret")]
    pub registrert_i_partiregisteret: Option<bool>,
    #[serde(rename = "registrertIStiftelsesregisteret")]
    pub registrert_i_stiftelsesregisteret: Option<bool>,
    #[serde(rename = "stiftelsesdato")]
    pub stiftelsesdato: Option<String>,
    #[serde(rename = "konkurs")]
    pub konkurs: Option<bool>,
    #[serde(rename = "konkursdato")]
    pub konkursdato: Option<String>,
    #[serde(rename = "underAvvikling")]
    pub under_avvikling: Option<bool>,
    #[serde(rename = "underAvviklingDato")]
    pub under_avvikling_dato: Option<String>,
    #[serde(rename = "underTvangsavviklingEllerTvangsopplosning")]
    pub under_tvangsavvikling_eller_tvangsopplosning: Option<bool>,
    #[serde(rename = "underRekonstruksjonsforhandling")]
    pub under_rekonstruksjonsforhandling: Option<bool>,
    #[serde(rename = "underRekonstruksjonsforhandlingDato")]
    pub under_rekonstruksjonsforhandling_dato: Option<String>,
    #[serde(rename = "sisteInnsendteAarsregnskap")]
    pub siste_innsendte_aarsregnskap: Option<String>,
    #[serde(rename = "erIKonsern")]
    pub er_i_konsern: Option<bool>,
    #[serde(rename = "maalform")]
    pub maalform: Option<String>,
    #[serde(rename = "overordnetEnhet")]
    pub overordnet_enhet: Option<String>,
    /// Underenhet only.
    #[serde(rename = "oppstartsdato")]
    pub oppstartsdato: Option<String>,
    /// Underenhet only.
    #[serde(rename = "nedleggelsesdato")]
    pub nedleggelsesdato: Option<String>,
    /// Underenhet only.
    #[serde(rename = "datoEierskifte")]
    pub dato_eierskifte: Option<String>,
    #[serde(rename = "slettedato")]
    pub slettedato: Option<String>,
    /// JSON pointer -> JSON text of every upstream member that has no field of its own here, or whose shape this schema does not expect. Nothing is dropped.
    #[serde(rename = "ukjenteFelter")]
    pub ukjente_felter: BTreeMap<String, String>,
}

impl ToDocument for Virksomhet {
    fn give(&self) -> Value {
        let mut members = Map::new();
        document::give_member(&mut members, "organisasjonsnummer", &self.organisasjonsnummer);
        document::give_member(&mut members, "navn", &self.navn);
        document::give_member(&mut members, "organisasjonsform", &self.organisasjonsform);
        document::give_member(&mut members, "respons_klasse", &self.respons_klasse);
        document::give_member(&mut members, "forretningsadresse", &self.forretningsadresse);
        document::give_member(&mut members, "postadresse", &self.postadresse);
        document::give_member(&mut members, "beliggenhetsadresse", &self.beliggenhetsadresse);
        document::give_member(&mut members, "naeringskode1", &self.naeringskode1);
        document::give_member(&mut members, "naeringskode2", &self.naeringskode2);
        document::give_member(&mut members, "naeringskode3", &self.naeringskode3);
        document::give_member(&mut members, "hjelpeenhetskode", &self.hjelpeenhetskode);
        document::give_member(&mut members, "institusjonellSektorkode", &self.institusjonell_sektorkode);
        document::give_member(&mut members, "antallAnsatte", &self.antall_ansatte);
        document::give_member(&mut members, "harRegistrertAntallAnsatte", &self.har_registrert_antall_ansatte);
        document::give_member(&mut members, "registreringsdatoAntallAnsatteEnhetsregisteret", &self.registreringsdato_antall_ansatte_enhetsregisteret);
        document::give_member(&mut members, "registreringsdatoAntallAnsatteNAVAaregisteret", &self.registreringsdato_antall_ansatte_nav_aaregisteret);
        document::give_member(&mut members, "hjemmeside", &self.hjemmeside);
        document::give_member(&mut members, "epostadresse", &self.epostadresse);
        document::give_member(&mut members, "telefon", &self.telefon);
        document::give_member(&mut members, "mobil", &self.mobil);
        document::give_member(&mut members, "aktivitet", &self.aktivitet);
        document::give_member(&mut members, "vedtektsfestetFormaal", &self.vedtektsfestet_formaal);
        document::give_member(&mut members, "vedtektsdato", &self.vedtektsdato);
        document::give_member(&mut members, "frivilligMvaRegistrertBeskrivelser", &self.frivillig_mva_registrert_beskrivelser);
        document::give_member(&mut members, "kapital", &self.kapital);
        document::give_member(&mut members, "historiskeNavn", &self.historiske_navn);
        document::give_member(&mut members, "paategninger", &self.paategninger);
        document::give_member(&mut members, "registreringsdatoEnhetsregisteret", &self.registreringsdato_enhetsregisteret);
        document::give_member(&mut members, "registreringsdatoForetaksregisteret", &self.registreringsdato_foretaksregisteret);
        document::give_member(&mut members, "registreringsdatoFrivillighetsregisteret", &self.registreringsdato_frivillighetsregisteret);
        document::give_member(&mut members, "registreringsdatoPartiregisteret", &self.registreringsdato_partiregisteret);
        document::give_member(&mut members, "registreringsdatoStiftelsesregisteret", &self.registreringsdato_stiftelsesregisteret);
        document::give_member(&mut members, "registreringsdatoMerverdiavgiftsregisteret", &self.registreringsdato_merverdiavgiftsregisteret);
        document::give_member(&mut members, "registreringsdatoMerverdiavgiftsregisteretEnhetsregisteret", &self.registreringsdato_merverdiavgiftsregisteret_enhetsregisteret);
        document::give_member(&mut members, "registreringsdatoFrivilligMerverdiavgiftsregisteret", &self.registreringsdato_frivillig_merverdiavgiftsregisteret);
        document::give_member(&mut members, "registrertIForetaksregisteret", &self.registrert_i_foretaksregisteret);
        document::give_member(&mut members, "registrertIFrivillighetsregisteret", &self.registrert_i_frivillighetsregisteret);
        document::give_member(&mut members, "registrertIMvaregisteret", &self.registrert_i_mvaregisteret);
        document::give_member(&mut members, "registrertIPartiregisteret", &self.registrert_i_partiregisteret);
        document::give_member(&mut members, "registrertIStiftelsesregisteret", &self.registrert_i_stiftelsesregisteret);
        document::give_member(&mut members, "stiftelsesdato", &self.stiftelsesdato);
        document::give_member(&mut members, "konkurs", &self.konkurs);
        document::give_member(&mut members, "konkursdato", &self.konkursdato);
        document::give_member(&mut members, "underAvvikling", &self.under_avvikling);
        document::give_member(&mut members, "underAvviklingDato", &self.under_avvikling_dato);
        document::give_member(&mut members, "underTvangsavviklingEllerTvangsopplosning", &self.under_tvangsavvikling_eller_tvangsopplosning);
        document::give_member(&mut members, "underRekonstruksjonsforhandling", &self.under_rekonstruksjonsforhandling);
        document::give_member(&mut members, "underRekonstruksjonsforhandlingDato", &self.under_rekonstruksjonsforhandling_dato);
        document::give_member(&mut members, "sisteInnsendteAarsregnskap", &self.siste_innsendte_aarsregnskap);
        document::give_member(&mut members, "erIKonsern", &self.er_i_konsern);
        document::give_member(&mut members, "maalform", &self.maalform);
        document::give_member(&mut members, "overordnetEnhet", &self.overordnet_enhet);
        document::give_member(&mut members, "oppstartsdato", &self.oppstartsdato);
        document::give_member(&mut members, "nedleggelsesdato", &self.nedleggelsesdato);
        document::give_member(&mut members, "datoEierskifte", &self.dato_eierskifte);
        document::give_member(&mut members, "slettedato", &self.slettedato);
        let mut document = Value::Object(members);
        document::restore(&mut document, &self.ukjente_felter);
        document
    }
}

impl FromDocument for Virksomhet {
    fn fits(value: &Value) -> bool {
        value.is_object()
    }
    fn take(value: Value, at: &mut Pointer, rest: &mut Rest) -> Self {
        let Value::Object(mut members) = value else { return Self::default() };
        let taken = Self {
            organisasjonsnummer: document::take_member(&mut members, "organisasjonsnummer", at, rest),
            navn: document::take_member(&mut members, "navn", at, rest),
            organisasjonsform: document::take_member(&mut members, "organisasjonsform", at, rest),
            respons_klasse: document::take_member(&mut members, "respons_klasse", at, rest),
            forretningsadresse: document::take_member(&mut members, "forretningsadresse", at, rest),
            postadresse: document::take_member(&mut members, "postadresse", at, rest),
            beliggenhetsadresse: document::take_member(&mut members, "beliggenhetsadresse", at, rest),
            naeringskode1: document::take_member(&mut members, "naeringskode1", at, rest),
            naeringskode2: document::take_member(&mut members, "naeringskode2", at, rest),
            naeringskode3: document::take_member(&mut members, "naeringskode3", at, rest),
            hjelpeenhetskode: document::take_member(&mut members, "hjelpeenhetskode", at, rest),
            institusjonell_sektorkode: document::take_member(&mut members, "institusjonellSektorkode", at, rest),
            antall_ansatte: document::take_member(&mut members, "antallAnsatte", at, rest),
            har_registrert_antall_ansatte: document::take_member(&mut members, "harRegistrertAntallAnsatte", at, rest),
            registreringsdato_antall_ansatte_enhetsregisteret: document::take_member(&mut members, "registreringsdatoAntallAnsatteEnhetsregisteret", at, rest),
            registreringsdato_antall_ansatte_nav_aaregisteret: document::take_member(&mut members, "registreringsdatoAntallAnsatteNAVAaregisteret", at, rest),
            hjemmeside: document::take_member(&mut members, "hjemmeside", at, rest),
            epostadresse: document::take_member(&mut members, "epostadresse", at, rest),
            telefon: document::take_member(&mut members, "telefon", at, rest),
            mobil: document::take_member(&mut members, "mobil", at, rest),
            aktivitet: document::take_member(&mut members, "aktivitet", at, rest),
            vedtektsfestet_formaal: document::take_member(&mut members, "vedtektsfestetFormaal", at, rest),
            vedtektsdato: document::take_member(&mut members, "vedtektsdato", at, rest),
            frivillig_mva_registrert_beskrivelser: document::take_member(&mut members, "frivilligMvaRegistrertBeskrivelser", at, rest),
            kapital: document::take_member(&mut members, "kapital", at, rest),
            historiske_navn: document::take_member(&mut members, "historiskeNavn", at, rest),
            paategninger: document::take_member(&mut members, "paategninger", at, rest),
            registreringsdato_enhetsregisteret: document::take_member(&mut members, "registreringsdatoEnhetsregisteret", at, rest),
            registreringsdato_foretaksregisteret: document::take_member(&mut members, "registreringsdatoForetaksregisteret", at, rest),
            registreringsdato_frivillighetsregisteret: document::take_member(&mut members, "registreringsdatoFrivillighetsregisteret", at, rest),
            registreringsdato_partiregisteret: document::take_member(&mut members, "registreringsdatoPartiregisteret", at, rest),
            registreringsdato_stiftelsesregisteret: document::take_member(&mut members, "registreringsdatoStiftelsesregisteret", at, rest),
            registreringsdato_merverdiavgiftsregisteret: document::take_member(&mut members, "registreringsdatoMerverdiavgiftsregisteret", at, rest),
            registreringsdato_merverdiavgiftsregisteret_enhetsregisteret: document::take_member(&mut members, "registreringsdatoMerverdiavgiftsregisteretEnhetsregisteret", at, rest),
            registreringsdato_frivillig_merverdiavgiftsregisteret: document::take_member(&mut members, "registreringsdatoFrivilligMerverdiavgiftsregisteret", at, rest),
            registrert_i_foretaksregisteret: document::take_member(&mut members, "registrertIForetaksregisteret", at, rest),
            registrert_i_frivillighetsregisteret: document::take_member(&mut members, "registrertIFrivillighetsregisteret", at, rest),
            registrert_i_mvaregisteret: document::take_member(&mut members, "registrertIMvaregisteret", at, rest),
            registrert_i_partiregisteret: document::take_member(&mut members, "registrertIPartiregisteret", at, rest),
            registrert_i_stiftelsesregisteret: document::take_member(&mut members, "registrertIStiftelsesregisteret", at, rest),
            stiftelsesdato: document::take_member(&mut members, "stiftelsesdato", at, rest),
            konkurs: document::take_member(&mut members, "konkurs", at, rest),
            konkursdato: document::take_member(&mut members, "konkursdato", at, rest),
            under_avvikling: document::take_member(&mut members, "underAvvikling", at, rest),
            under_avvikling_dato: document::take_member(&mut members, "underAvviklingDato", at, rest),
            under_tvangsavvikling_eller_tvangsopplosning: document::take_member(&mut members, "underTvangsavviklingEllerTvangsopplosning", at, rest),
            under_rekonstruksjonsforhandling: document::take_member(&mut members, "underRekonstruksjonsforhandling", at, rest),
            under_rekonstruksjonsforhandling_dato: document::take_member(&mut members, "underRekonstruksjonsforhandlingDato", at, rest),
            siste_innsendte_aarsregnskap: document::take_member(&mut members, "sisteInnsendteAarsregnskap", at, rest),
            er_i_konsern: document::take_member(&mut members, "erIKonsern", at, rest),
            maalform: document::take_member(&mut members, "maalform", at, rest),
            overordnet_enhet: document::take_member(&mut members, "overordnetEnhet", at, rest),
            oppstartsdato: document::take_member(&mut members, "oppstartsdato", at, rest),
            nedleggelsesdato: document::take_member(&mut members, "nedleggelsesdato", at, rest),
            dato_eierskifte: document::take_member(&mut members, "datoEierskifte", at, rest),
            slettedato: document::take_member(&mut members, "slettedato", at, rest),
            ukjente_felter: BTreeMap::new(),
        };
        document::keep_remainder(members, at, rest);
        taken
    }
}

impl Virksomhet {
    /// Takes a registry's document whole. `None` if it is no JSON object.
    pub fn from_document(value: Value) -> Option<Self> {
        if !Self::fits(&value) {
            return None;
        }
        let mut rest = Rest::new();
        let taken = Self::take(value, &mut Pointer::default(), &mut rest);
        Some(Self { ukjente_felter: rest, ..taken })
    }
}

/// The whole state of one virksomhet after a change, with what changed and how it was found.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct VirksomhetEndret {
    /// Also the record's key.
    #[serde(rename = "organisasjonsnummer")]
    pub organisasjonsnummer: String,
    #[serde(rename = "endringstype")]
    pub endringstype: Endringstype,
    /// JSON pointers into virksomhet that changed, as far as upstream tells.
    #[serde(rename = "endringer")]
    pub endringer: Vec<String>,
    /// How the change was found: feed or avstemming.
    #[serde(rename = "funnet")]
    pub funnet: String,
    /// Source and feed, e.g. enhetsregisteret/enheter.
    #[serde(rename = "kilde")]
    pub kilde: String,
    /// Upstream position of the change; for Enhetsregisteret the oppdateringsid.
    #[serde(rename = "posisjon")]
    pub posisjon: String,
    /// When the registry says that it happened, RFC 3339.
    #[serde(rename = "tidspunkt")]
    pub tidspunkt: Option<String>,
    /// enhet or underenhet.
    #[serde(rename = "virksomhetstype")]
    pub virksomhetstype: String,
    /// null when the registry gives no state any more (removed for legal reasons).
    #[serde(rename = "virksomhet")]
    pub virksomhet: Option<Virksomhet>,
}

impl ToDocument for VirksomhetEndret {
    fn give(&self) -> Value {
        let mut members = Map::new();
        members.insert("organisasjonsnummer".to_owned(), self.organisasjonsnummer.give());
        members.insert("endringstype".to_owned(), self.endringstype.give());
        members.insert("endringer".to_owned(), self.endringer.give());
        members.insert("funnet".to_owned(), self.funnet.give());
        members.insert("kilde".to_owned(), self.kilde.give());
        members.insert("posisjon".to_owned(), self.posisjon.give());
        document::give_member(&mut members, "tidspunkt", &self.tidspunkt);
        members.insert("virksomhetstype".to_owned(), self.virksomhetstype.give());
        document::give_member(&mut members, "virksomhet", &self.virksomhet);
        Value::Object(members)
    }
}

impl crate::avro::AvroEvent for VirksomhetEndret {
    const SCHEMA: &'static str = "virksomhet";
}
