//! The virksomhet event: its types (made from the schema) and what is derived from a document.
//!
//! Source of the rules: Enhetsregisteret's open API at Brønnøysundregistrene. Must never
//! interpret a code: codes pass as they are.

use serde_json::Value;
use sha2::{Digest, Sha256};

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

/// Extension attributes for routing and filters, drawn from a state.
pub fn attributes(
    endringstype: Endringstype,
    virksomhetstype: Virksomhetstype,
    funnet: &str,
    state: Option<&Virksomhet>,
) -> Vec<(&'static str, String)> {
    let mut attributes = vec![
        ("endringstype", endringstype.symbol().to_owned()),
        ("virksomhetstype", virksomhetstype.symbol().to_owned()),
        ("funnet", funnet.to_owned()),
    ];
    let Some(state) = state else { return attributes };
    // Where a unit is, is where it is run from: the visiting address first, the postal one last.
    let address = [&state.beliggenhetsadresse, &state.forretningsadresse, &state.postadresse].into_iter().flatten().next();
    let optional = [
        ("organisasjonsform", state.organisasjonsform.as_ref().and_then(|form| form.kode.clone())),
        ("kommunenummer", address.and_then(|address| address.kommunenummer.clone())),
        ("naeringskode", state.naeringskode1.as_ref().and_then(|code| code.kode.clone())),
    ];
    attributes.extend(optional.into_iter().filter_map(|(name, value)| Some((name, value?))));
    attributes
}

/// A short fingerprint of a document's content: the first 64 bits of SHA-256 over its JSON with
/// sorted members, in hexadecimal. Links are not content: bulk files lack them.
pub fn state_hash(document: &Value) -> String {
    let mut content = document.clone();
    drop_links(&mut content);
    let digest = Sha256::digest(content.to_string());
    digest[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn drop_links(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.remove("_links");
            members.remove("links");
            members.values_mut().for_each(drop_links);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_links),
        _ => {}
    }
}
