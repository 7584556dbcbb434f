//! Made from `avro/virksomhet` by `tests/generated.rs`. Do not edit.
#![cfg_attr(rustfmt, rustfmt_skip)]
#![allow(missing_docs, reason = "documented in the schema")]

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Error, Map, Value};

use crate::avro::{WriteAvro, write_long};
use crate::document::{self, At, Decimal, FromDocument, Left, ToDocument};

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

impl WriteAvro for Endringstype {
    fn write(&self, datum: &mut Vec<u8>) {
        // Declared in the schema's order.
        write_long(*self as i64, datum);
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

impl WriteAvro for Kode {
    fn write(&self, datum: &mut Vec<u8>) {
        self.kode.write(datum);
        self.beskrivelse.write(datum);
        self.utgaatt.write(datum);
    }
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
    fn fits(json: &str) -> bool {
        document::is_object(json)
    }
    fn take(json: &str, at: &At<'_>, left: &mut Left) -> Result<Self, Error> {
        let mut taken = Self::default();
        document::take_members(json, at, left, |name, member| match name.as_bytes() {
            b"kode" => member.take(&mut taken.kode),
            b"beskrivelse" => member.take(&mut taken.beskrivelse),
            b"utgaatt" => member.take(&mut taken.utgaatt),
            _ => member.keep(),
        })?;
        Ok(taken)
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

impl WriteAvro for Adresse {
    fn write(&self, datum: &mut Vec<u8>) {
        self.adresse.write(datum);
        self.kommune.write(datum);
        self.kommunenummer.write(datum);
        self.land.write(datum);
        self.landkode.write(datum);
        self.postnummer.write(datum);
        self.poststed.write(datum);
    }
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
    fn fits(json: &str) -> bool {
        document::is_object(json)
    }
    fn take(json: &str, at: &At<'_>, left: &mut Left) -> Result<Self, Error> {
        let mut taken = Self::default();
        document::take_members(json, at, left, |name, member| match name.as_bytes() {
            b"adresse" => member.take(&mut taken.adresse),
            b"kommune" => member.take(&mut taken.kommune),
            b"kommunenummer" => member.take(&mut taken.kommunenummer),
            b"land" => member.take(&mut taken.land),
            b"landkode" => member.take(&mut taken.landkode),
            b"postnummer" => member.take(&mut taken.postnummer),
            b"poststed" => member.take(&mut taken.poststed),
            _ => member.keep(),
        })?;
        Ok(taken)
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

impl WriteAvro for Kapital {
    fn write(&self, datum: &mut Vec<u8>) {
        self.belop.write(datum);
        self.antall_aksjer.write(datum);
        self.r#type.write(datum);
        self.valuta.write(datum);
        self.innfort_dato.write(datum);
        self.innbetalt.write(datum);
        self.fullt_innbetalt.write(datum);
    }
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
    fn fits(json: &str) -> bool {
        document::is_object(json)
    }
    fn take(json: &str, at: &At<'_>, left: &mut Left) -> Result<Self, Error> {
        let mut taken = Self::default();
        document::take_members(json, at, left, |name, member| match name.as_bytes() {
            b"belop" => member.take(&mut taken.belop),
            b"antallAksjer" => member.take(&mut taken.antall_aksjer),
            b"type" => member.take(&mut taken.r#type),
            b"valuta" => member.take(&mut taken.valuta),
            b"innfortDato" => member.take(&mut taken.innfort_dato),
            b"innbetalt" => member.take(&mut taken.innbetalt),
            b"fulltInnbetalt" => member.take(&mut taken.fullt_innbetalt),
            _ => member.keep(),
        })?;
        Ok(taken)
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

impl WriteAvro for HistoriskNavn {
    fn write(&self, datum: &mut Vec<u8>) {
        self.navn.write(datum);
        self.fra_dato.write(datum);
        self.til_dato.write(datum);
    }
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
    fn fits(json: &str) -> bool {
        document::is_object(json)
    }
    fn take(json: &str, at: &At<'_>, left: &mut Left) -> Result<Self, Error> {
        let mut taken = Self::default();
        document::take_members(json, at, left, |name, member| match name.as_bytes() {
            b"navn" => member.take(&mut taken.navn),
            b"fraDato" => member.take(&mut taken.fra_dato),
            b"tilDato" => member.take(&mut taken.til_dato),
            _ => member.keep(),
        })?;
        Ok(taken)
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

impl WriteAvro for Paategning {
    fn write(&self, datum: &mut Vec<u8>) {
        self.infotype.write(datum);
        self.innfoert_dato.write(datum);
        self.tekst.write(datum);
    }
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
    fn fits(json: &str) -> bool {
        document::is_object(json)
    }
    fn take(json: &str, at: &At<'_>, left: &mut Left) -> Result<Self, Error> {
        let mut taken = Self::default();
        document::take_members(json, at, left, |name, member| match name.as_bytes() {
            b"infotype" => member.take(&mut taken.infotype),
            b"innfoertDato" => member.take(&mut taken.innfoert_dato),
            b"tekst" => member.take(&mut taken.tekst),
            _ => member.keep(),
        })?;
        Ok(taken)
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

impl WriteAvro for Virksomhet {
    fn write(&self, datum: &mut Vec<u8>) {
        self.organisasjonsnummer.write(datum);
        self.navn.write(datum);
        self.organisasjonsform.write(datum);
        self.respons_klasse.write(datum);
        self.forretningsadresse.write(datum);
        self.postadresse.write(datum);
        self.beliggenhetsadresse.write(datum);
        self.naeringskode1.write(datum);
        self.naeringskode2.write(datum);
        self.naeringskode3.write(datum);
        self.hjelpeenhetskode.write(datum);
        self.institusjonell_sektorkode.write(datum);
        self.antall_ansatte.write(datum);
        self.har_registrert_antall_ansatte.write(datum);
        self.registreringsdato_antall_ansatte_enhetsregisteret.write(datum);
        self.registreringsdato_antall_ansatte_nav_aaregisteret.write(datum);
        self.hjemmeside.write(datum);
        self.epostadresse.write(datum);
        self.telefon.write(datum);
        self.mobil.write(datum);
        self.aktivitet.write(datum);
        self.vedtektsfestet_formaal.write(datum);
        self.vedtektsdato.write(datum);
        self.frivillig_mva_registrert_beskrivelser.write(datum);
        self.kapital.write(datum);
        self.historiske_navn.write(datum);
        self.paategninger.write(datum);
        self.registreringsdato_enhetsregisteret.write(datum);
        self.registreringsdato_foretaksregisteret.write(datum);
        self.registreringsdato_frivillighetsregisteret.write(datum);
        self.registreringsdato_partiregisteret.write(datum);
        self.registreringsdato_stiftelsesregisteret.write(datum);
        self.registreringsdato_merverdiavgiftsregisteret.write(datum);
        self.registreringsdato_merverdiavgiftsregisteret_enhetsregisteret.write(datum);
        self.registreringsdato_frivillig_merverdiavgiftsregisteret.write(datum);
        self.registrert_i_foretaksregisteret.write(datum);
        self.registrert_i_frivillighetsregisteret.write(datum);
        self.registrert_i_mvaregisteret.write(datum);
        self.registrert_i_partiregisteret.write(datum);
        self.registrert_i_stiftelsesregisteret.write(datum);
        self.stiftelsesdato.write(datum);
        self.konkurs.write(datum);
        self.konkursdato.write(datum);
        self.under_avvikling.write(datum);
        self.under_avvikling_dato.write(datum);
        self.under_tvangsavvikling_eller_tvangsopplosning.write(datum);
        self.under_rekonstruksjonsforhandling.write(datum);
        self.under_rekonstruksjonsforhandling_dato.write(datum);
        self.siste_innsendte_aarsregnskap.write(datum);
        self.er_i_konsern.write(datum);
        self.maalform.write(datum);
        self.overordnet_enhet.write(datum);
        self.oppstartsdato.write(datum);
        self.nedleggelsesdato.write(datum);
        self.dato_eierskifte.write(datum);
        self.slettedato.write(datum);
        self.ukjente_felter.write(datum);
    }
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
    fn fits(json: &str) -> bool {
        document::is_object(json)
    }
    fn take(json: &str, at: &At<'_>, left: &mut Left) -> Result<Self, Error> {
        let mut taken = Self::default();
        document::take_members(json, at, left, |name, member| match name.as_bytes() {
            b"organisasjonsnummer" => member.take(&mut taken.organisasjonsnummer),
            b"navn" => member.take(&mut taken.navn),
            b"organisasjonsform" => member.take(&mut taken.organisasjonsform),
            b"respons_klasse" => member.take(&mut taken.respons_klasse),
            b"forretningsadresse" => member.take(&mut taken.forretningsadresse),
            b"postadresse" => member.take(&mut taken.postadresse),
            b"beliggenhetsadresse" => member.take(&mut taken.beliggenhetsadresse),
            b"naeringskode1" => member.take(&mut taken.naeringskode1),
            b"naeringskode2" => member.take(&mut taken.naeringskode2),
            b"naeringskode3" => member.take(&mut taken.naeringskode3),
            b"hjelpeenhetskode" => member.take(&mut taken.hjelpeenhetskode),
            b"institusjonellSektorkode" => member.take(&mut taken.institusjonell_sektorkode),
            b"antallAnsatte" => member.take(&mut taken.antall_ansatte),
            b"harRegistrertAntallAnsatte" => member.take(&mut taken.har_registrert_antall_ansatte),
            b"registreringsdatoAntallAnsatteEnhetsregisteret" => member.take(&mut taken.registreringsdato_antall_ansatte_enhetsregisteret),
            b"registreringsdatoAntallAnsatteNAVAaregisteret" => member.take(&mut taken.registreringsdato_antall_ansatte_nav_aaregisteret),
            b"hjemmeside" => member.take(&mut taken.hjemmeside),
            b"epostadresse" => member.take(&mut taken.epostadresse),
            b"telefon" => member.take(&mut taken.telefon),
            b"mobil" => member.take(&mut taken.mobil),
            b"aktivitet" => member.take(&mut taken.aktivitet),
            b"vedtektsfestetFormaal" => member.take(&mut taken.vedtektsfestet_formaal),
            b"vedtektsdato" => member.take(&mut taken.vedtektsdato),
            b"frivilligMvaRegistrertBeskrivelser" => member.take(&mut taken.frivillig_mva_registrert_beskrivelser),
            b"kapital" => member.take(&mut taken.kapital),
            b"historiskeNavn" => member.take(&mut taken.historiske_navn),
            b"paategninger" => member.take(&mut taken.paategninger),
            b"registreringsdatoEnhetsregisteret" => member.take(&mut taken.registreringsdato_enhetsregisteret),
            b"registreringsdatoForetaksregisteret" => member.take(&mut taken.registreringsdato_foretaksregisteret),
            b"registreringsdatoFrivillighetsregisteret" => member.take(&mut taken.registreringsdato_frivillighetsregisteret),
            b"registreringsdatoPartiregisteret" => member.take(&mut taken.registreringsdato_partiregisteret),
            b"registreringsdatoStiftelsesregisteret" => member.take(&mut taken.registreringsdato_stiftelsesregisteret),
            b"registreringsdatoMerverdiavgiftsregisteret" => member.take(&mut taken.registreringsdato_merverdiavgiftsregisteret),
            b"registreringsdatoMerverdiavgiftsregisteretEnhetsregisteret" => member.take(&mut taken.registreringsdato_merverdiavgiftsregisteret_enhetsregisteret),
            b"registreringsdatoFrivilligMerverdiavgiftsregisteret" => member.take(&mut taken.registreringsdato_frivillig_merverdiavgiftsregisteret),
            b"registrertIForetaksregisteret" => member.take(&mut taken.registrert_i_foretaksregisteret),
            b"registrertIFrivillighetsregisteret" => member.take(&mut taken.registrert_i_frivillighetsregisteret),
            b"registrertIMvaregisteret" => member.take(&mut taken.registrert_i_mvaregisteret),
            b"registrertIPartiregisteret" => member.take(&mut taken.registrert_i_partiregisteret),
            b"registrertIStiftelsesregisteret" => member.take(&mut taken.registrert_i_stiftelsesregisteret),
            b"stiftelsesdato" => member.take(&mut taken.stiftelsesdato),
            b"konkurs" => member.take(&mut taken.konkurs),
            b"konkursdato" => member.take(&mut taken.konkursdato),
            b"underAvvikling" => member.take(&mut taken.under_avvikling),
            b"underAvviklingDato" => member.take(&mut taken.under_avvikling_dato),
            b"underTvangsavviklingEllerTvangsopplosning" => member.take(&mut taken.under_tvangsavvikling_eller_tvangsopplosning),
            b"underRekonstruksjonsforhandling" => member.take(&mut taken.under_rekonstruksjonsforhandling),
            b"underRekonstruksjonsforhandlingDato" => member.take(&mut taken.under_rekonstruksjonsforhandling_dato),
            b"sisteInnsendteAarsregnskap" => member.take(&mut taken.siste_innsendte_aarsregnskap),
            b"erIKonsern" => member.take(&mut taken.er_i_konsern),
            b"maalform" => member.take(&mut taken.maalform),
            b"overordnetEnhet" => member.take(&mut taken.overordnet_enhet),
            b"oppstartsdato" => member.take(&mut taken.oppstartsdato),
            b"nedleggelsesdato" => member.take(&mut taken.nedleggelsesdato),
            b"datoEierskifte" => member.take(&mut taken.dato_eierskifte),
            b"slettedato" => member.take(&mut taken.slettedato),
            _ => member.keep(),
        })?;
        Ok(taken)
    }
}

impl Virksomhet {
    /// Takes a registry's document whole. `None` if it is JSON, but no object.
    pub fn from_json(text: &str) -> Result<Option<Self>, Error> {
        Ok(document::take_whole::<Self>(text)?.map(|(taken, rest)| Self { ukjente_felter: rest, ..taken }))
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

impl WriteAvro for VirksomhetEndret {
    fn write(&self, datum: &mut Vec<u8>) {
        self.organisasjonsnummer.write(datum);
        self.endringstype.write(datum);
        self.endringer.write(datum);
        self.funnet.write(datum);
        self.kilde.write(datum);
        self.posisjon.write(datum);
        self.tidspunkt.write(datum);
        self.virksomhetstype.write(datum);
        self.virksomhet.write(datum);
    }
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
