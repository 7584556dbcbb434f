//! Fixed tables the population is drawn from: places, legal forms, trades, words for names.
//!
//! Places are public facts. Everything that names an organisation or a street is invented, and
//! nothing here may come from a real unit's document.

/// A code with its text, as the registry writes næringskode, sektorkode and the like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub(super) struct Code {
    pub(super) kode: &'static str,
    pub(super) beskrivelse: &'static str,
}

const fn code(kode: &'static str, beskrivelse: &'static str) -> Code {
    Code { kode, beskrivelse }
}

/// A municipality with one of its postal codes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) kommunenummer: &'static str,
    pub(super) kommune: &'static str,
    pub(super) postnummer: &'static str,
    pub(super) poststed: &'static str,
}

const fn place(kommunenummer: &'static str, kommune: &'static str, postnummer: &'static str, poststed: &'static str) -> Place {
    Place { kommunenummer, kommune, postnummer, poststed }
}

pub(super) const PLACES: [Place; 28] = [
    place("0301", "OSLO", "0150", "OSLO"),
    place("1103", "STAVANGER", "4005", "STAVANGER"),
    place("1505", "KRISTIANSUND", "6509", "KRISTIANSUND N"),
    place("1506", "MOLDE", "6413", "MOLDE"),
    place("1508", "ÅLESUND", "6002", "ÅLESUND"),
    place("1804", "BODØ", "8006", "BODØ"),
    place("1833", "RANA", "8622", "MO I RANA"),
    place("3107", "FREDRIKSTAD", "1607", "FREDRIKSTAD"),
    place("3201", "BÆRUM", "1337", "SANDVIKA"),
    place("3203", "ASKER", "1383", "ASKER"),
    place("3205", "LILLESTRØM", "2000", "LILLESTRØM"),
    place("3301", "DRAMMEN", "3015", "DRAMMEN"),
    place("3403", "HAMAR", "2317", "HAMAR"),
    place("3405", "LILLEHAMMER", "2609", "LILLEHAMMER"),
    place("3905", "TØNSBERG", "3110", "TØNSBERG"),
    place("4001", "PORSGRUNN", "3916", "PORSGRUNN"),
    place("4003", "SKIEN", "3717", "SKIEN"),
    place("4203", "ARENDAL", "4836", "ARENDAL"),
    place("4204", "KRISTIANSAND", "4612", "KRISTIANSAND S"),
    place("4601", "BERGEN", "5014", "BERGEN"),
    place("4621", "VOSS", "5700", "VOSS"),
    place("4640", "SOGNDAL", "6856", "SOGNDAL"),
    place("5001", "TRONDHEIM", "7011", "TRONDHEIM"),
    place("5006", "STEINKJER", "7713", "STEINKJER"),
    place("5501", "TROMSØ", "9008", "TROMSØ"),
    place("5503", "HARSTAD - HÁRSTTÁK", "9405", "HARSTAD"),
    place("5601", "ALTA", "9510", "ALTA"),
    place("5610", "KÁRÁŠJOHKA - KARASJOK", "9730", "KARASJOK"),
];

/// How a unit is organised, and the suffix its names end with.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Form {
    pub(super) code: Code,
    /// The code as it stands in a URL.
    pub(super) url_code: &'static str,
    pub(super) suffix: &'static str,
}

const fn form(kode: &'static str, url_code: &'static str, beskrivelse: &'static str, suffix: &'static str) -> Form {
    Form { code: code(kode, beskrivelse), url_code, suffix }
}

pub(super) static AS: Form = form("AS", "AS", "Aksjeselskap", " AS");
static ASA: Form = form("ASA", "ASA", "Allmennaksjeselskap", " ASA");
static ENK: Form = form("ENK", "ENK", "Enkeltpersonforetak", "");
static ANS: Form = form("ANS", "ANS", "Ansvarlig selskap", " ANS");
static SA: Form = form("SA", "SA", "Samvirkeforetak", " SA");
static FLI: Form = form("FLI", "FLI", "Forening/lag/innretning", "");
static STI: Form = form("STI", "STI", "Stiftelse", " STIFTELSE");
static KOMM: Form = form("KOMM", "KOMM", "Kommune", "");
static SAER: Form = form("SÆR", "S%C3%86R", "Annet foretak iflg. særskilt lov", " HF");
static IKS: Form = form("IKS", "IKS", "Interkommunalt selskap", " IKS");
pub(super) static BEDR: Form = form("BEDR", "BEDR", "Underenhet til næringsdrivende og offentlig forvaltning", "");
pub(super) static AAFY: Form = form("AAFY", "AAFY", "Underenhet til ikke-næringsdrivende", "");

const PRIVATE: Code = code("2100", "Private aksjeselskaper mv.");
const PERSONAL: Code = code("8200", "Personlig næringsdrivende");
const MUNICIPAL: Code = code("6500", "Kommuneforvaltningen");
const STATE: Code = code("6100", "Statsforvaltningen");
const IDEAL: Code = code("7000", "Ideelle organisasjoner");

/// What a unit lives from, and what that says about the rest of its document.
#[derive(Debug)]
pub(super) struct Trade {
    /// The last word of a name, before the form's suffix.
    pub(super) noun: &'static str,
    pub(super) naeringskode: Code,
    pub(super) sektor: Code,
    pub(super) forms: &'static [&'static Form],
    pub(super) aktivitet: &'static [&'static str],
    pub(super) employees_at_most: u32,
}

pub(super) static TRADES: [Trade; 14] = [
    Trade {
        noun: "LEGEKONTOR",
        naeringskode: code("86.210", "Allmennlegetjenester"),
        sektor: PRIVATE,
        forms: &[&AS, &ANS, &AS],
        aktivitet: &["Drift av legekontor og det som naturlig hører til."],
        employees_at_most: 25,
    },
    Trade {
        noun: "FASTLEGEPRAKSIS",
        naeringskode: code("86.210", "Allmennlegetjenester"),
        sektor: PERSONAL,
        forms: &[&ENK],
        aktivitet: &["Allmennlege med avtale om fastlegehjemmel."],
        employees_at_most: 4,
    },
    Trade {
        noun: "SYKEHJEM",
        naeringskode: code("87.101", "Somatiske sykehjem"),
        sektor: IDEAL,
        forms: &[&STI, &AS],
        aktivitet: &["Drift av sykehjem med langtidsplasser, korttidsplasser og", "dagtilbud for eldre."],
        employees_at_most: 220,
    },
    Trade {
        noun: "APOTEK",
        naeringskode: code("47.730", "Detaljhandel med apotekvarer"),
        sektor: PRIVATE,
        forms: &[&AS],
        aktivitet: &["Salg av legemidler og apotekvarer."],
        employees_at_most: 40,
    },
    Trade {
        noun: "KOMMUNE",
        naeringskode: code("84.110", "Generell offentlig administrasjon"),
        sektor: MUNICIPAL,
        forms: &[&KOMM],
        aktivitet: &["Kommunal forvaltning og tjenester til innbyggerne."],
        employees_at_most: 9000,
    },
    Trade {
        noun: "SYKEHUS",
        naeringskode: code("86.101", "Somatiske sykehustjenester"),
        sektor: STATE,
        forms: &[&SAER],
        aktivitet: &["Spesialisthelsetjeneste."],
        employees_at_most: 14000,
    },
    Trade {
        noun: "TANNKLINIKK",
        naeringskode: code("86.230", "Tannlegetjenester"),
        sektor: PRIVATE,
        forms: &[&AS, &ENK],
        aktivitet: &["Tannlegevirksomhet og salg av munnpleieprodukter."],
        employees_at_most: 20,
    },
    Trade {
        noun: "FYSIOTERAPI",
        naeringskode: code("86.950", "Fysioterapitjenester"),
        sektor: PRIVATE,
        forms: &[&AS, &ANS, &ENK],
        aktivitet: &["Fysioterapi, manuellterapi og trening i gruppe."],
        employees_at_most: 18,
    },
    Trade {
        noun: "HJEMMETJENESTE",
        naeringskode: code("88.101", "Hjemmehjelp"),
        sektor: PRIVATE,
        forms: &[&AS, &SA],
        aktivitet: &["Pleie og praktisk bistand i brukerens hjem."],
        employees_at_most: 150,
    },
    Trade {
        noun: "LABORATORIUM",
        naeringskode: code("86.910", "Diagnostiske bilde- og laboratorietjenester"),
        sektor: PRIVATE,
        forms: &[&AS, &ASA],
        aktivitet: &["Medisinske analyser for helsetjenesten."],
        employees_at_most: 300,
    },
    Trade {
        noun: "PSYKOLOGTJENESTE",
        naeringskode: code("86.930", "Psykologtjenester"),
        sektor: PERSONAL,
        forms: &[&ENK, &AS],
        aktivitet: &["Psykologisk utredning og behandling."],
        employees_at_most: 12,
    },
    Trade {
        noun: "LEGEVAKT",
        naeringskode: code("86.210", "Allmennlegetjenester"),
        sektor: MUNICIPAL,
        forms: &[&IKS],
        aktivitet: &["Interkommunal legevakt."],
        employees_at_most: 90,
    },
    Trade {
        noun: "HELSESPORTSLAG",
        naeringskode: code("93.120", "Idrettslag og -klubber"),
        sektor: IDEAL,
        forms: &[&FLI],
        aktivitet: &["Idrett og friluftsliv for personer med funksjonsnedsettelse."],
        employees_at_most: 3,
    },
    Trade {
        noun: "HELSEDATA",
        naeringskode: code("62.100", "Programmeringstjenester"),
        sektor: PRIVATE,
        forms: &[&AS, &ASA],
        aktivitet: &["Utvikling av programvare for helsetjenesten."],
        employees_at_most: 120,
    },
];

/// Næringskoder a unit may add beside its main one.
pub(super) static SIDE_CODES: [Code; 5] = [
    code("68.200", "Utleie og drift av egen eller leid fast eiendom"),
    code("72.100", "Forskning og eksperimentell utvikling"),
    code("85.591", "Annen undervisning"),
    code("86.940", "Sykepleie- og jordmortjenester"),
    code("70.200", "Bedriftsrådgivning"),
];

pub(super) const HJELPEENHET: Code = code("70.100", "Hovedkontortjenester");

/// Invented words that names begin with.
pub(super) const NAME_STARTS: [&str; 24] = [
    "KVITLYNG",
    "HAVDUGG",
    "MYRTIND",
    "SOLGLANE",
    "RIMFROST",
    "TIRILTUN",
    "BLÅSKARV",
    "FURUDRÅG",
    "ISBREKK",
    "LYNGSVAL",
    "MULTEGLØTT",
    "NORDSKIM",
    "ORRETOPP",
    "PORSEKVIST",
    "RØSSVIND",
    "SILDRELI",
    "TEISTVÅG",
    "UTSJØGLIM",
    "VINTERSKAR",
    "ÅRFUGLMO",
    "DOGGTIND",
    "EINERLØKK",
    "FLOMÅLSVIK",
    "GRÅSISIKHEI",
];
pub(super) const NAME_MIDDLES: [&str; 10] = ["", "", "", "ØSTRE ", "VESTRE ", "NORDRE ", "SØNDRE ", "INDRE ", "YTRE ", "NYE "];
pub(super) const STREETS: [&str; 10] = [
    "Kvitlyngvegen",
    "Gråsisikbakken",
    "Doggtindgata",
    "Isbrekkstien",
    "Teistvågkaia",
    "Rimfrostallmenningen",
    "Multegløttlia",
    "Orretoppveien",
    "Flomålsvikgata",
    "Porsekvisttunet",
];
