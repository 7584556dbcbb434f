//! Reads the answer to a look-up of one unit.
//!
//! A document must be of the unit that was asked for. A body that is no JSON at all is an error
//! (upstream is ill), not a document: it must never be quarantined as if the unit were to blame.

use ryggrad_schemas::fingerprint::Fingerprint;
use ryggrad_schemas::virksomhet::{Virksomhet, state_hash};

use super::page::{PageError, text_of};
use super::reasons;
use crate::event::Unmapped;

/// The state of a unit.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    /// The document, typed, without loss.
    pub virksomhet: Virksomhet,
    /// The document's fingerprint.
    pub state_hash: Fingerprint,
}

/// What a look-up answered.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// 200 with a document.
    State(Box<State>),
    /// 410: removed for legal reasons.
    Gone,
    /// 404: no such unit.
    Unknown,
    /// 200 with JSON that can't be the unit's document.
    Unusable(Unmapped),
}

/// The answer to status 410.
pub fn gone() -> Answer {
    Answer::Gone
}

/// The answer to status 404.
pub fn unknown() -> Answer {
    Answer::Unknown
}

/// A body that is no JSON.
#[derive(Debug, thiserror::Error)]
#[error("the look-up's answer cannot be read")]
pub struct LookUpError(#[source] PageError);

/// Reads the body of status 200 for the unit that was asked for.
pub fn read_document(asked: &str, body: &[u8]) -> Result<Answer, LookUpError> {
    let text = text_of(body).map_err(LookUpError)?;
    let not_json = |source| LookUpError(PageError::NotJson { bytes: body.len(), source });
    let unusable = |reason| Ok(Answer::Unusable(Unmapped { reason, raw: Some(body.to_vec()) }));
    let Some(virksomhet) = Virksomhet::from_json(text).map_err(not_json)? else { return unusable(reasons::DOCUMENT_NO_OBJECT) };
    if virksomhet.organisasjonsnummer.as_deref() != Some(asked) {
        return unusable(reasons::DOCUMENT_OTHER_KEY);
    }
    let state_hash = state_hash(text).map_err(not_json)?;
    Ok(Answer::State(Box::new(State { virksomhet, state_hash })))
}
