//! What becomes of a record: selected or not, withheld, or a replay's own work. Pure.
//!
//! Must never let an older state of a key out that was removed for legal reasons.

use ryggrad_bridge_core::cesql::{Expression, RecordAttributes};
use ryggrad_bridge_core::cursor::Place;
use ryggrad_bridge_core::removal::{Identified, Leaving, Removals};
use ryggrad_log::Lent;

use super::selection::Selection;

/// The header that marks what a replay wrote into a topic.
pub const REPLAY_ID_HEADER: &str = "ryggrad_replay_id";

/// What becomes of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is replayed.
    Take,
    /// Nobody asked for it.
    Pass,
    /// Its key was removed later.
    Withhold,
    /// A replay wrote it.
    ReplayedBefore,
}

/// Judges the records of one topic.
#[derive(Debug, Default)]
pub struct Judge {
    /// What was asked for.
    pub selection: Selection,
    /// And only what this expression is true of.
    pub sql: Option<Expression>,
    /// Keys that were removed, and the topic's number if it is one of the catalogue.
    pub removals: Option<(u16, Removals)>,
    /// Whether what a replay wrote is left alone.
    pub guards_loops: bool,
}

impl Judge {
    /// What becomes of it.
    pub fn judge(&self, record: &Lent<'_>) -> Verdict {
        if !self.selection.is_all() && !self.selection.takes(record.key_bytes(), |name| record.header(name)) {
            return Verdict::Pass;
        }
        // An absent attribute, a failed cast: no match, as for a subscription.
        if self.sql.as_ref().is_some_and(|sql| !sql.matches(&RecordAttributes(&record.head(""))).unwrap_or(false)) {
            return Verdict::Pass;
        }
        if self.is_withheld(record) {
            return Verdict::Withhold;
        }
        if self.guards_loops && record.headers().any(|(name, _)| name == REPLAY_ID_HEADER) {
            return Verdict::ReplayedBefore;
        }
        Verdict::Take
    }

    fn is_withheld(&self, record: &Lent<'_>) -> bool {
        let (Some((topic, removals)), Some(key)) = (&self.removals, record.key()) else { return false };
        removals.withholds(Leaving {
            place: Place { topic: *topic, partition: record.partition() },
            offset: record.offset(),
            appended_ms: record.timestamp_ms(),
            key,
            event: &Named(record),
        })
    }
}

/// A lent record, asked for its event's id.
struct Named<'n, 'l>(&'n Lent<'l>);

impl Identified for Named<'_, '_> {
    fn event_id(&self) -> &str {
        self.0.header("ce_id").unwrap_or_default()
    }
}
