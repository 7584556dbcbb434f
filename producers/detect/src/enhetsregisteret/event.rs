//! Maps an item of the feed and the answer to its look-up to a virksomhet event.
//!
//! The feed says what happened, the look-up how things stand. Where one of them says that the
//! unit must be forgotten, that wins, and no state is carried: a legal removal is told at once.

use ryggrad_schemas::Headers;
use ryggrad_schemas::avro;
use ryggrad_schemas::catalogue::{EventType, Source};
use ryggrad_schemas::cloudevents::BorrowedAttributes;
use ryggrad_schemas::event_id::event_id;
use ryggrad_schemas::virksomhet::{BorrowedVirksomhetEndret, Endringstype, Virksomhetstype, attributes};

use super::look_up::{Answer, State};
use super::page::Change;
use super::reasons;
use crate::event::{Consequence, Event, RECORD_BYTES_MAX, Unmapped};
use crate::feed::Item;
use crate::rfc3339;

/// One feed of the registry: what its events are called and where they go.
#[derive(Debug, Clone, Copy)]
pub struct Feed<'a> {
    source: &'a Source,
    event_type: &'a EventType,
    name: &'a str,
    virksomhetstype: Virksomhetstype,
}

/// A feed that this registry does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Enhetsregisteret has no feed {feed}")]
pub struct UnknownFeed {
    /// Its name.
    pub feed: String,
}

impl<'a> Feed<'a> {
    /// The feed of that name.
    pub fn new(source: &'a Source, event_type: &'a EventType, name: &'a str) -> Result<Self, UnknownFeed> {
        let virksomhetstype = match name {
            "enheter" => Virksomhetstype::Enhet,
            "underenheter" => Virksomhetstype::Underenhet,
            _ => return Err(UnknownFeed { feed: name.to_owned() }),
        };
        Ok(Self { source, event_type, name, virksomhetstype })
    }

    /// The kind of unit that it tells of.
    pub fn virksomhetstype(&self) -> Virksomhetstype {
        self.virksomhetstype
    }

    /// Whether the unit must be looked up: a removal needs no state, and must not wait for one.
    pub fn needs_look_up(item: &Item<Change>) -> bool {
        item.change.endringstype != Endringstype::Fjernet
    }

    /// Maps an item. `answer` is `None` where there was no look-up, or none that succeeded.
    pub fn event(&self, item: &Item<Change>, answer: Option<&Answer>) -> Result<Event, Unmapped> {
        let (endringstype, state) = outcome(item.change.endringstype, answer)?;
        let position = item.position.to_string();
        let (endringer, dato) = (&item.change.endringer, item.change.dato.as_deref());
        self.compose(&Telling { found: Found::Feed, position: &position, key: &item.key, endringstype, endringer, dato }, state)
    }

    /// The event of something told or found out.
    pub(super) fn compose(&self, telling: &Telling<'_>, state: Option<&State>) -> Result<Event, Unmapped> {
        let event = Event {
            topic: self.event_type.topic.clone(),
            key: telling.key.to_owned(),
            headers: self.headers(telling, state),
            value: self.value(telling, state).map_err(|_| Unmapped::new(reasons::UNENCODABLE))?,
            consequence: match telling.endringstype {
                Endringstype::Fjernet => Consequence::Removed,
                Endringstype::Slettet => Consequence::Ends,
                _ => Consequence::Lives,
            },
        };
        if event.value.len() + event.headers.size_bytes() > RECORD_BYTES_MAX {
            return Err(Unmapped::new(reasons::TOO_LARGE));
        }
        Ok(event)
    }

    fn value(&self, telling: &Telling<'_>, state: Option<&State>) -> Result<Vec<u8>, avro::EncodeError> {
        avro::encode(&BorrowedVirksomhetEndret {
            organisasjonsnummer: telling.key,
            endringstype: telling.endringstype,
            endringer: telling.endringer,
            funnet: telling.found.word(),
            kilde: &[&self.source.name, "/", self.name].concat(),
            posisjon: telling.position,
            tidspunkt: telling.dato,
            virksomhetstype: self.virksomhetstype.symbol(),
            virksomhet: state.map(|state| &state.virksomhet),
        })
    }

    fn headers(&self, telling: &Telling<'_>, state: Option<&State>) -> Headers {
        let source = self.source.ce_source(self.name);
        let extensions = attributes(telling.endringstype, self.virksomhetstype, telling.found.word(), state.map(|state| &state.virksomhet));
        let attributes = BorrowedAttributes {
            id: &event_id(&source, telling.position, telling.key, "").to_string(),
            source: &source,
            ce_type: &self.event_type.ce_type,
            subject: Some(telling.key),
            time: telling.dato.filter(|dato| rfc3339::is_moment(dato)),
            extensions: &extensions,
        };
        Event::headers(&attributes, state.map(|state| state.state_hash))
    }
}

/// How it was found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// The feed told.
    Feed,
    /// A dump was compared with what the topic says.
    Avstemming,
}

impl Found {
    const fn word(self) -> &'static str {
        match self {
            Self::Feed => "feed",
            Self::Avstemming => "avstemming",
        }
    }
}

/// What is told of a unit, besides its state.
pub(super) struct Telling<'t> {
    pub(super) found: Found,
    /// The cause: a feed's position, or `run:` and a run's number.
    pub(super) position: &'t str,
    pub(super) key: &'t str,
    pub(super) endringstype: Endringstype,
    pub(super) endringer: &'t [String],
    pub(super) dato: Option<&'t str>,
}

/// What happened and how things stand, from what the feed and the look-up say.
fn outcome(told: Endringstype, answer: Option<&Answer>) -> Result<(Endringstype, Option<&State>), Unmapped> {
    match (told, answer) {
        (Endringstype::Fjernet, _) | (_, Some(Answer::Gone)) => Ok((Endringstype::Fjernet, None)),
        (told, Some(Answer::State(state))) => Ok((told, Some(state.as_ref()))),
        (Endringstype::Slettet, Some(Answer::Unknown)) => Ok((Endringstype::Slettet, None)),
        (_, Some(Answer::Unknown)) => Err(Unmapped::new(reasons::UNKNOWN)),
        (_, Some(Answer::Unusable(unmapped))) => Err(unmapped.clone()),
        (_, None) => Err(Unmapped::new(reasons::LOOK_UP_FAILED)),
    }
}
