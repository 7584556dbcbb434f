//! The shape of one generated unit and the documents the API serves for it.
//!
//! It holds what the registry would hold and nothing else; it must never depend on the port or the
//! hour it is served, so that the same seed always gives the same document.

use serde::{Serialize, Serializer, ser::SerializeStruct};
use serde_json::{Value, json};

use super::{
    number::{Day, Kind, Organisasjonsnummer},
    tables::{Code, Form, Place},
};

/// Links inside documents name the real host: a document's content must not change with the port.
const DOCUMENT_BASE: &str = "https://data.brreg.no/enhetsregisteret/api";

#[derive(Clone, Debug, Serialize)]
pub(super) struct Address {
    pub(super) adresse: Vec<String>,
    #[serde(flatten, serialize_with = "place_fields")]
    pub(super) place: &'static Place,
}

fn place_fields<S: Serializer>(place: &&'static Place, serializer: S) -> Result<S::Ok, S::Error> {
    let mut fields = serializer.serialize_struct("Place", 6)?;
    fields.serialize_field("kommune", place.kommune)?;
    fields.serialize_field("kommunenummer", place.kommunenummer)?;
    fields.serialize_field("land", "Norge")?;
    fields.serialize_field("landkode", "NO")?;
    fields.serialize_field("postnummer", place.postnummer)?;
    fields.serialize_field("poststed", place.poststed)?;
    fields.end()
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Kapital {
    pub(super) antall_aksjer: u64,
    #[serde(serialize_with = "two_decimals")]
    pub(super) belop: u64,
    #[serde(serialize_with = "two_decimals")]
    pub(super) innbetalt: u64,
    pub(super) innfort_dato: Day,
    pub(super) r#type: &'static str,
    pub(super) valuta: &'static str,
}

/// The registry writes whole kroner as `30000.00`; a reader must keep both decimals.
fn two_decimals<S: Serializer>(kroner: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    format!("{kroner}.00").parse::<serde_json::Number>().map_err(serde::ser::Error::custom)?.serialize(serializer)
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct HistoriskNavn {
    pub(super) navn: String,
    pub(super) fra_dato: Day,
    pub(super) til_dato: Day,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Paategning {
    pub(super) infotype: &'static str,
    pub(super) innfoert_dato: Day,
    pub(super) tekst: &'static str,
}

/// One active unit. Fields that only one kind has are `None` on the other.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Unit {
    #[serde(skip)]
    pub(super) kind: Kind,
    /// Active underenheter below this enhet: one that has any is neither deleted nor removed.
    #[serde(skip)]
    pub(super) children: u32,
    #[serde(skip)]
    pub(super) name_since: Day,

    pub(super) organisasjonsnummer: Organisasjonsnummer,
    pub(super) navn: String,
    #[serde(serialize_with = "form_with_link")]
    pub(super) organisasjonsform: &'static Form,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) historiske_navn: Vec<HistoriskNavn>,
    pub(super) naeringskode1: Code,
    pub(super) har_registrert_antall_ansatte: bool,
    pub(super) registreringsdato_enhetsregisteret: Day,
    pub(super) registrert_i_mvaregisteret: bool,
    #[serde(flatten)]
    pub(super) optional: Optional,
}

macro_rules! optional_fields {
    ($($(#[$meta:meta])* $name:ident: $kind:ty,)*) => {
        /// Every field a document may lack.
        #[derive(Clone, Debug, Default, Serialize)]
        #[serde(rename_all = "camelCase")]
        pub(super) struct Optional {
            $(
                $(#[$meta])*
                #[serde(skip_serializing_if = "Option::is_none")]
                pub(super) $name: Option<$kind>,
            )*
        }
    };
}

optional_fields! {
    overordnet_enhet: Organisasjonsnummer,
    naeringskode2: Code,
    naeringskode3: Code,
    hjelpeenhetskode: Code,
    institusjonell_sektorkode: Code,
    antall_ansatte: u32,
    registreringsdato_antall_ansatte_enhetsregisteret: Day,
    #[serde(rename = "registreringsdatoAntallAnsatteNAVAaregisteret")]
    registreringsdato_antall_ansatte_nav: Day,
    hjemmeside: String,
    epostadresse: String,
    telefon: String,
    mobil: String,
    forretningsadresse: Address,
    beliggenhetsadresse: Address,
    postadresse: Address,
    stiftelsesdato: Day,
    vedtektsdato: Day,
    vedtektsfestet_formaal: Vec<&'static str>,
    aktivitet: Vec<&'static str>,
    kapital: Kapital,
    paategninger: Vec<Paategning>,
    registreringsdato_foretaksregisteret: Day,
    registreringsdato_merverdiavgiftsregisteret: Day,
    registreringsdato_merverdiavgiftsregisteret_enhetsregisteret: Day,
    registreringsdato_frivillig_merverdiavgiftsregisteret: Day,
    registreringsdato_frivillighetsregisteret: Day,
    registreringsdato_stiftelsesregisteret: Day,
    registreringsdato_partiregisteret: Day,
    frivillig_mva_registrert_beskrivelser: Vec<&'static str>,
    registrert_i_foretaksregisteret: bool,
    registrert_i_frivillighetsregisteret: bool,
    registrert_i_partiregisteret: bool,
    registrert_i_stiftelsesregisteret: bool,
    konkurs: bool,
    konkursdato: Day,
    under_avvikling: bool,
    under_avvikling_dato: Day,
    under_tvangsavvikling_eller_tvangsopplosning: bool,
    siste_innsendte_aarsregnskap: String,
    er_i_konsern: bool,
    maalform: &'static str,
    oppstartsdato: Day,
    nedleggelsesdato: Day,
    dato_eierskifte: Day,
}

fn form_with_link<S: Serializer>(form: &&'static Form, serializer: S) -> Result<S::Ok, S::Error> {
    form_value(form).serialize(serializer)
}

fn form_value(form: &Form) -> Value {
    let href = format!("{DOCUMENT_BASE}/organisasjonsformer/{}", form.url_code);
    json!({
        "kode": form.code.kode,
        "beskrivelse": form.code.beskrivelse,
        "_links": {"self": {"href": href}},
    })
}

pub(super) fn unit_href(kind: Kind, number: Organisasjonsnummer) -> String {
    format!("{DOCUMENT_BASE}/{}/{number}", kind.path())
}

impl Unit {
    /// The document a look-up answers with.
    pub(super) fn document(&self) -> Value {
        let mut document = serde_json::to_value(self).unwrap_or_default();
        document["respons_klasse"] = self.kind.respons_klasse().into();
        let mut links = json!({"self": {"href": unit_href(self.kind, self.organisasjonsnummer)}});
        if let Some(parent) = self.optional.overordnet_enhet {
            links["overordnetEnhet"] = json!({"href": unit_href(Kind::Enhet, parent)});
        }
        document["_links"] = links;
        document
    }

    /// The same with members that the registry began to have later.
    pub(super) fn document_with(&self, new_fields: &[String]) -> Value {
        let mut document = self.document();
        if let Some(members) = document.as_object_mut() {
            for name in new_fields {
                members.entry(name).or_insert_with(|| format!("{name} {}", self.organisasjonsnummer).into());
            }
        }
        document
    }
}

/// What stays of a deleted unit.
#[derive(Clone, Debug)]
pub(super) struct DeletedUnit {
    pub(super) kind: Kind,
    pub(super) organisasjonsnummer: Organisasjonsnummer,
    pub(super) navn: String,
    pub(super) organisasjonsform: &'static Form,
    pub(super) slettedato: Day,
}

impl DeletedUnit {
    pub(super) fn document(&self) -> Value {
        let mut document = json!({
            "organisasjonsnummer": self.organisasjonsnummer,
            "navn": self.navn,
            "organisasjonsform": form_value(self.organisasjonsform),
            "slettedato": self.slettedato,
            "respons_klasse": self.kind.slettet_klasse(),
            "_links": {"self": {"href": unit_href(self.kind, self.organisasjonsnummer)}},
        });
        if self.kind == Kind::Underenhet {
            document["nedleggelsesdato"] = json!(self.slettedato);
        }
        document
    }
}

/// The body of a 410: all that may be said of a unit removed for legal reasons.
pub(super) fn removed_document(number: Organisasjonsnummer, slettedato: impl Serialize) -> Value {
    json!({"organisasjonsnummer": number, "slettedato": slettedato})
}
