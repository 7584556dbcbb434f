//! A record of the log as all subscriptions share it.
//!
//! Read once, decoded and rendered at most once per form, and only if somebody gets it. Must
//! never be changed after it was read.

use std::sync::{Arc, OnceLock};

use jiff::Timestamp;
use ryggrad_schemas::LogRecord;
use ryggrad_schemas::identifiers::Organisasjonsnummer;

use crate::access::{Extent, Subject};
use crate::cursor::{LaneKey, Place};
use crate::delivery::{Rendered, RenderedBinary, Unreadable, render, render_binary, render_notice};
use crate::matching::lane_of;
use crate::removal::Leaving;
use crate::settings::Order;
use crate::watch_list::Fingerprint;

/// Bytes that a record costs beside its own: headers' vectors, the deque's entry, the counter.
const OVERHEAD_BYTES: usize = 512;

/// What the decision asks a record itself.
#[derive(Debug)]
pub struct Matter {
    /// Whose data it is; none for registries.
    pub controller: Option<Organisasjonsnummer>,
    /// Whom it is about.
    pub subject: Option<Subject>,
    /// When what it tells of has happened. One that does not say so is older than every relation.
    pub occurred_at: Timestamp,
}

/// A record.
#[derive(Debug)]
pub struct Record {
    /// Topic and partition.
    pub place: Place,
    /// The lane of its key.
    pub lane: LaneKey,
    /// A tombstone right behind its own event: nobody's event.
    pub echo: bool,
    /// As it stands in the log.
    pub log: LogRecord,
    /// Where in its headers its type and its event's id stand.
    ce_type: Option<usize>,
    event_id: Option<usize>,
    shared_event_id: OnceLock<Arc<str>>,
    matter: OnceLock<Matter>,
    fingerprint: OnceLock<Option<Fingerprint>>,
    rendered: OnceLock<Result<Rendered, Unreadable>>,
    rendered_binary: OnceLock<Result<RenderedBinary, Unreadable>>,
    rendered_notice: OnceLock<Result<Rendered, Unreadable>>,
}

impl Record {
    /// A record that was read at a place.
    pub fn new(place: Place, log: LogRecord, echo: bool) -> Self {
        let lane = lane_of(&log);
        let (ce_type, event_id) = (log.headers.position("ce_type"), log.headers.position("ce_id"));
        Self {
            place,
            lane,
            echo,
            log,
            ce_type,
            event_id,
            shared_event_id: OnceLock::new(),
            matter: OnceLock::new(),
            fingerprint: OnceLock::new(),
            rendered: OnceLock::new(),
            rendered_binary: OnceLock::new(),
            rendered_notice: OnceLock::new(),
        }
    }

    /// Its offset.
    pub fn offset(&self) -> i64 {
        self.log.offset
    }

    /// Its event type.
    pub fn ce_type(&self) -> &str {
        self.header_at(self.ce_type)
    }

    /// Its event's id.
    pub fn event_id(&self) -> &str {
        self.header_at(self.event_id)
    }

    /// The same, for those who keep it longer than the record; made at the first call.
    pub fn shared_event_id(&self) -> &Arc<str> {
        self.shared_event_id.get_or_init(|| self.event_id().into())
    }

    /// What the decision asks it; made at the first call.
    pub fn matter(&self) -> &Matter {
        self.matter.get_or_init(|| Matter {
            controller: self.log.header("ce_controller").and_then(|number| number.parse().ok()),
            subject: self.log.key.as_deref().map(Subject::new),
            occurred_at: self.log.header("ce_time").and_then(|time| time.parse().ok()).unwrap_or(Timestamp::MIN),
        })
    }

    fn header_at(&self, position: Option<usize>) -> &str {
        position.and_then(|position| self.log.headers.value_at(position)).unwrap_or_default()
    }

    /// A tombstone without its event.
    pub fn is_orphan(&self) -> bool {
        self.log.value.is_none() && !self.echo
    }

    /// Where to stop before it, so that it is read again as what it is: an orphan's event stood right
    /// before it, and a reading that starts at a tombstone takes it for an echo.
    pub fn stop_at(&self) -> i64 {
        self.offset() - i64::from(self.is_orphan())
    }

    /// Its lane under an order.
    pub fn lane_in(&self, order: Order) -> LaneKey {
        match order {
            Order::Key => self.lane,
            Order::Partition => LaneKey(0),
            // Spread, since neighbours share their upper bits.
            Order::None => LaneKey(self.log.offset.cast_unsigned().wrapping_mul(0x9e37_79b9_7f4a_7c15)),
        }
    }

    /// What is asked before it leaves.
    pub fn leaving(&self) -> Leaving<'_> {
        Leaving {
            place: self.place,
            offset: self.log.offset,
            appended_ms: self.log.timestamp_ms,
            key: self.log.key.as_deref().unwrap_or_default(),
            event: &self.log,
        }
    }

    /// Its key's fingerprint; made at the first call.
    pub fn fingerprint(&self, make: impl FnOnce() -> Option<Fingerprint>) -> Option<Fingerprint> {
        *self.fingerprint.get_or_init(make)
    }

    /// The event in structured JSON; made at the first call.
    pub fn rendered(&self) -> Result<&Rendered, &Unreadable> {
        self.rendered.get_or_init(|| render(&self.log)).as_ref()
    }

    /// The same, as much of it as somebody may see.
    pub fn rendered_in(&self, extent: Extent) -> Result<&Rendered, &Unreadable> {
        match extent {
            Extent::Whole => self.rendered(),
            Extent::Notice => self.rendered_notice.get_or_init(|| render_notice(&self.log)).as_ref(),
        }
    }

    /// The event in binary mode; made at the first call.
    pub fn rendered_binary(&self) -> Result<&RenderedBinary, &Unreadable> {
        self.rendered_binary.get_or_init(|| render_binary(&self.log)).as_ref()
    }

    /// Bytes that it occupies, rendered or not.
    pub fn size_bytes(&self) -> usize {
        // JSON is some three times the Avro.
        OVERHEAD_BYTES + 2 * self.log.size_bytes() + 2 * self.log.value.as_ref().map_or(0, Vec::len)
    }
}
