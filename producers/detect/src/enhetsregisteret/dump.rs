//! The bulk files of Enhetsregisteret, and what a look-up says about what they seem to show.
//!
//! A bulk file carries no `kapital`, and writes an empty list `links` in place of `_links`. So
//! these are never compared with a file's row, and are kept from the state that the topic has.

use std::borrow::Cow;

use ryggrad_schemas::avro;
use ryggrad_schemas::document::ToDocument;
use ryggrad_schemas::virksomhet::{Endringstype, Virksomhet, VirksomhetEndret, state_hash};
use serde::Deserialize;

use super::event::{Feed, Found, Telling};
use super::look_up::{Answer, State, read_document};
use super::reasons;
use crate::event::{Event, Unmapped};
use crate::quarantine::Reason;
use crate::snapshot::differences::differences;
use crate::snapshot::{Confirm, Format, Row};

const KIND_HEADER: &str = "ce_virksomhetstype";
/// What upstream writes into the document of a deleted unit.
const DELETED: &str = "SlettetEnhet";

#[derive(Deserialize)]
struct Key<'r> {
    #[serde(borrow)]
    organisasjonsnummer: Cow<'r, str>,
}

impl Format for Feed<'_> {
    fn row<'r>(&self, row: &'r str) -> Result<Row<'r>, Reason> {
        if !row.trim_start().starts_with('{') {
            return Err(reasons::ROW_NO_OBJECT);
        }
        let Key { organisasjonsnummer: key } = serde_json::from_str(row).map_err(|_| reasons::ROW_NO_KEY)?;
        if key.len() != 9 || !key.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(reasons::ROW_NO_KEY);
        }
        let fingerprint = state_hash(row).map_err(|_| reasons::ROW_NO_OBJECT)?;
        Ok(Row { key, fingerprint })
    }

    fn shows<'h>(&self, header: impl Fn(&str) -> Option<&'h str>) -> bool {
        header(KIND_HEADER) == Some(self.virksomhetstype().symbol())
    }

    fn created(&self, run: u64, row: &str) -> Result<Event, Unmapped> {
        let state = row_state(row)?;
        self.observed(run, state.virksomhet.organisasjonsnummer.as_deref().unwrap_or_default(), Endringstype::Ny, &[], Some(&state))
    }

    fn changed(&self, run: u64, row: &str, old: &[u8]) -> Result<Option<Event>, Unmapped> {
        let mut state = row_state(row)?;
        let key = state.virksomhet.organisasjonsnummer.clone().unwrap_or_default();
        let endringer = match old_state(old) {
            Some(old) => {
                keep_what_no_row_carries(&mut state.virksomhet, &old);
                let carried = |depth: usize, name: &str| is_content(name) && !(depth == 0 && name == "kapital");
                differences(&old.give(), &state.virksomhet.give(), carried)
            }
            None => vec![String::new()],
        };
        if endringer.is_empty() {
            return Ok(None);
        }
        self.observed(run, &key, Endringstype::Endret, &endringer, Some(&state)).map(Some)
    }

    fn ended(&self, run: u64, key: &str) -> Result<Event, Unmapped> {
        self.observed(run, key, Endringstype::Slettet, &[], None)
    }
}

impl Confirm for Feed<'_> {
    type Answer = Answer;

    fn confirmed(&self, run: u64, key: &str, answer: &Answer, old: Option<&[u8]>) -> Result<Option<Event>, Unmapped> {
        let event = |endringstype, endringer: &[String], state| self.observed(run, key, endringstype, endringer, state).map(Some);
        match (answer, old) {
            (Answer::Unusable(unmapped), _) => Err(unmapped.clone()),
            // What neither side has, or what has ended before the topic ever had it.
            (Answer::Gone | Answer::Unknown, None) => Ok(None),
            (Answer::Gone, Some(_)) => event(Endringstype::Fjernet, &[], None),
            (Answer::Unknown, Some(_)) => event(Endringstype::Slettet, &[], None),
            (Answer::State(state), old) if is_deleted(state) => match old {
                Some(_) => event(Endringstype::Slettet, &[], Some(state)),
                None => Ok(None),
            },
            (Answer::State(state), None) => event(Endringstype::Ny, &[], Some(state)),
            (Answer::State(state), Some(old)) => {
                let endringer = match old_state(old) {
                    Some(old) => differences(&old.give(), &state.virksomhet.give(), |_, name| is_content(name)),
                    None => vec![String::new()],
                };
                if endringer.is_empty() { Ok(None) } else { event(Endringstype::Endret, &endringer, Some(state)) }
            }
        }
    }
}

impl Feed<'_> {
    fn observed(
        &self,
        run: u64,
        key: &str,
        endringstype: Endringstype,
        endringer: &[String],
        state: Option<&State>,
    ) -> Result<Event, Unmapped> {
        let position = format!("run:{run}");
        let telling = Telling { found: Found::Avstemming, position: &position, key, endringstype, endringer, dato: None };
        self.compose(&telling, state)
    }
}

/// Whether a unit's document says that the unit is deleted.
fn is_deleted(state: &State) -> bool {
    state.virksomhet.slettedato.is_some() || state.virksomhet.respons_klasse.as_deref() == Some(DELETED)
}

fn row_state(row: &str) -> Result<Box<State>, Unmapped> {
    let unusable = |reason| Unmapped { reason, raw: Some(row.as_bytes().to_vec()) };
    let Key { organisasjonsnummer: key } = serde_json::from_str(row).map_err(|_| unusable(reasons::ROW_NO_KEY))?;
    match read_document(&key, row.as_bytes()) {
        Ok(Answer::State(mut state)) => {
            state.virksomhet.ukjente_felter.retain(|pointer, text| !(last_step(pointer) == "links" && text == "[]"));
            Ok(state)
        }
        Ok(Answer::Unusable(unmapped)) => Err(unmapped),
        Ok(Answer::Gone | Answer::Unknown) | Err(_) => Err(unusable(reasons::ROW_NO_OBJECT)),
    }
}

/// The state in a value of the topic; `None` if it has none, or was written by someone else.
fn old_state(value: &[u8]) -> Option<Virksomhet> {
    avro::decode::<VirksomhetEndret>(value).ok()?.virksomhet
}

fn keep_what_no_row_carries(state: &mut Virksomhet, old: &Virksomhet) {
    if state.kapital.is_none() {
        state.kapital.clone_from(&old.kapital);
    }
    for (pointer, text) in &old.ukjente_felter {
        let is_kept = last_step(pointer) == "_links" || pointer.starts_with("/kapital/");
        if is_kept && !state.ukjente_felter.contains_key(pointer) {
            state.ukjente_felter.insert(pointer.clone(), text.clone());
        }
    }
}

fn is_content(name: &str) -> bool {
    !matches!(name, "_links" | "links")
}

fn last_step(pointer: &str) -> &str {
    pointer.rsplit_once('/').map_or("", |(_, step)| step)
}
