//! The virksomhet event: its types (made from the schema) and what is derived from a document.
//!
//! Source of the rules: Enhetsregisteret's open API at Brønnøysundregistrene. Must never
//! interpret a code: codes pass as they are.

use serde_json::Error;

use crate::avro::{BorrowedEvent, WriteAvro};
use crate::fingerprint::{Fingerprint, fingerprint};
pub use crate::generated::virksomhet::{Adresse, Endringstype, HistoriskNavn, Kapital, Kode, Paategning, Virksomhet, VirksomhetEndret};

/// The two kinds of unit, each with a feed and a look-up of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Virksomhetstype {
    /// A legal unit.
    Enhet,
    /// A place of work under a legal unit.
    Underenhet,
}

impl Virksomhetstype {
    /// As written in the event.
    pub const fn symbol(self) -> &'static str {
        match self {
            Self::Enhet => "enhet",
            Self::Underenhet => "underenhet",
        }
    }
}

/// A [`VirksomhetEndret`] around parts that lie elsewhere, to be written without copying them.
#[derive(Debug, Clone, Copy)]
pub struct BorrowedVirksomhetEndret<'a> {
    /// As in [`VirksomhetEndret`], and so are all the others.
    pub organisasjonsnummer: &'a str,
    /// What happened.
    pub endringstype: Endringstype,
    /// What changed.
    pub endringer: &'a [String],
    /// How it was found.
    pub funnet: &'a str,
    /// Source and feed.
    pub kilde: &'a str,
    /// Upstream position.
    pub posisjon: &'a str,
    /// When it happened.
    pub tidspunkt: Option<&'a str>,
    /// Kind of unit.
    pub virksomhetstype: &'a str,
    /// The state.
    pub virksomhet: Option<&'a Virksomhet>,
}

impl WriteAvro for BorrowedVirksomhetEndret<'_> {
    fn write(&self, datum: &mut Vec<u8>) {
        // In the schema's order, and none left out: a test compares.
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

impl BorrowedEvent for BorrowedVirksomhetEndret<'_> {
    type Event = VirksomhetEndret;
}

impl<'a> From<&'a VirksomhetEndret> for BorrowedVirksomhetEndret<'a> {
    fn from(event: &'a VirksomhetEndret) -> Self {
        // Taken apart whole, so that a new field of the schema is not forgotten here.
        let VirksomhetEndret {
            organisasjonsnummer,
            endringstype,
            endringer,
            funnet,
            kilde,
            posisjon,
            tidspunkt,
            virksomhetstype,
            virksomhet,
        } = event;
        Self {
            organisasjonsnummer,
            endringstype: *endringstype,
            endringer,
            funnet,
            kilde,
            posisjon,
            tidspunkt: tidspunkt.as_deref(),
            virksomhetstype,
            virksomhet: virksomhet.as_ref(),
        }
    }
}

/// Extension attributes for routing and filters, drawn from a state. Sorted by name.
pub fn attributes<'s>(
    endringstype: Endringstype,
    virksomhetstype: Virksomhetstype,
    funnet: &'s str,
    state: Option<&'s Virksomhet>,
) -> Vec<(&'static str, &'s str)> {
    let mut attributes = Vec::with_capacity(6);
    attributes.extend([("endringstype", endringstype.symbol()), ("funnet", funnet), ("virksomhetstype", virksomhetstype.symbol())]);
    let Some(state) = state else { return attributes };
    // Where a unit is, is where it is run from: the visiting address first, the postal one last.
    let address = [&state.beliggenhetsadresse, &state.forretningsadresse, &state.postadresse].into_iter().flatten().next();
    let optional = [
        ("organisasjonsform", state.organisasjonsform.as_ref().and_then(|form| form.kode.as_deref())),
        ("kommunenummer", address.and_then(|address| address.kommunenummer.as_deref())),
        ("naeringskode", state.naeringskode1.as_ref().and_then(|code| code.kode.as_deref())),
    ];
    attributes.extend(optional.into_iter().filter_map(|(name, value)| Some((name, value?))));
    attributes.sort_unstable();
    attributes
}

/// The fingerprint of a unit's content. Left out is what the registry's bulk files can't carry, so
/// that a file and a look-up of the same state agree: links anywhere, and the unit's capital.
pub fn state_hash(document: &str) -> Result<Fingerprint, Error> {
    fingerprint(document, |depth, member| matches!(member, "_links" | "links") || (depth == 0 && member == "kapital"))
}
