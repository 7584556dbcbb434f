//! Reading a receiver's topic back: what was written, and whether what nobody has read yet may still be read.
//!
//! Must never take a record that it cannot read for one that may stay.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use ryggrad_bridge_core::access::Caller;
use ryggrad_bridge_core::cursor::Place;
use ryggrad_bridge_core::outlet::{self, Position};
use ryggrad_bridge_core::record::Record;
use ryggrad_log::{Lent, Start, scan_partitions};
use ryggrad_schemas::LogRecord;
use uuid::Uuid;

use super::{Desk, Trouble};
use crate::access::Leave;
use crate::hexadecimal;
use crate::runtime::topic_name;

/// Deliveries whose ids are read back at the start, in each partition: by them what was written is known again where the
/// store was lost, and numbers begin anew.
const READ_BACK_MAX: i64 = 10_000;
/// Unread records that are decided about one by one. If there are more, all are withdrawn: looking would take too long.
pub(super) const DECIDED_MAX: i64 = 100_000;

/// What a topic holds.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The highest run of numbers, and the highest number in it.
    pub(super) newest: Option<(u32, u64)>,
    /// Deliveries of earlier runs that were written last.
    pub(super) deliveries: HashSet<String>,
    /// Where the oldest event stood that nobody has read, in each partition of its own topic.
    pub(super) back_to: BTreeMap<Place, i64>,
    /// Whether something is there to be read that may not be, or not so.
    pub(super) is_denied: bool,
    /// Whether there is anything.
    pub(super) holds_any: bool,
}

/// What is looked at.
pub(super) struct Look<'l> {
    pub(super) subscription: Uuid,
    pub(super) caller: Caller,
    pub(super) topic: &'l str,
    pub(super) partitions: i32,
    pub(super) groups: Vec<String>,
    /// At the start, which run of numbers goes on: then what was read already is looked at too.
    pub(super) first_in: Option<u32>,
    /// Nothing may be read, so that nothing need be decided.
    pub(super) is_held: bool,
}

/// Looks at it.
pub(super) async fn look(desk: &Arc<Desk>, look: Look<'_>) -> Result<Seen, Trouble> {
    let _turn = desk.reviewing.acquire().await.map_err(|_| Trouble::NotRunning)?;
    let Look { subscription, caller, topic, partitions, groups, first_in, is_held } = look;
    let marks = desk.topics.marks(topic, partitions).await?;
    let holds_any = marks.iter().any(|marks| marks.low < marks.high);
    if !holds_any {
        return Ok(Seen::default());
    }
    let read_to = desk.topics.read_to(topic, partitions, groups).await?;
    let unread_from =
        |(read_to, marks): (&Option<i64>, &ryggrad_log::Watermarks)| read_to.unwrap_or(marks.low).clamp(marks.low, marks.high);
    let unread: Vec<i64> = read_to.iter().zip(&marks).map(unread_from).collect();
    let count: i64 = unread.iter().zip(&marks).map(|(from, marks)| marks.high - from).sum();
    if count == 0 && first_in.is_none() {
        return Ok(Seen { holds_any, ..Seen::default() });
    }
    let from = |(unread, marks): (&i64, &ryggrad_log::Watermarks)| {
        if first_in.is_some() { (*unread).min(marks.high - READ_BACK_MAX).max(marks.low) } else { *unread }
    };
    let starts = (0..).zip(unread.iter().zip(&marks).map(from)).map(|(partition, from)| (partition, Start::Offset(from))).collect();
    // What a start finds is read whatever it takes: nothing is written before.
    let decides = !is_held && (first_in.is_some() || count <= DECIDED_MAX);
    let seen = Seen { holds_any, is_denied: !decides && count > 0, ..Seen::default() };
    let (connection, desk, name) = (desk.context.connection.clone(), Arc::clone(desk), topic.to_owned());
    let visit = move |seen: &mut Seen, record: &Lent<'_>| {
        let head = record.head(&name);
        let number = outlet::number(&head);
        seen.newest = seen.newest.max(number);
        if first_in.is_some_and(|epoch| number.is_some_and(|(of, _)| of != epoch)) {
            seen.deliveries.extend(head.header(outlet::DELIVERY).map(str::to_owned));
        }
        let is_unread =
            usize::try_from(head.partition).ok().and_then(|partition| unread.get(partition)).is_some_and(|from| head.offset >= *from);
        // A number that stands for nothing tells nothing.
        if is_unread && head.header(outlet::SOURCE).is_some() {
            seen.take(&desk, subscription, caller, head, decides);
        }
        Ok(())
    };
    Ok(scan_partitions(&connection, topic, starts, seen, visit).await?)
}

impl Seen {
    /// The next one that nobody has read.
    fn take(&mut self, desk: &Desk, subscription: Uuid, caller: Caller, head: LogRecord, decides: bool) {
        let Some(position) = unsealed(desk, subscription, &head) else {
            tracing::error!(%subscription, offset = head.offset, "a record in a receiver's topic does not tell the bridge what it is; all are withdrawn");
            self.is_denied = true;
            return;
        };
        // What has no value may be a tombstone whose event is gone: it is read again as what it is from before it.
        let back_to = if head.value.is_none() { (position.offset - 1).max(0) } else { position.offset };
        let oldest = self.back_to.entry(position.place).or_insert(back_to);
        *oldest = back_to.min(*oldest);
        if decides && !self.is_denied {
            self.is_denied = !stays(desk, caller, position, head);
        }
    }
}

fn unsealed(desk: &Desk, subscription: Uuid, head: &LogRecord) -> Option<Position> {
    let context = outlet::seal_context(subscription, head.header(outlet::DELIVERY)?);
    Position::from_bytes(&desk.seal.open(&context, &hexadecimal::decode(head.header(outlet::SOURCE)?)?).ok()?)
}

/// Whether it would be written now as it stands there.
fn stays(desk: &Desk, caller: Caller, position: Position, head: LogRecord) -> bool {
    let Position { place, offset, appended_ms } = position;
    let topic = topic_name(desk.context.catalogue, place.topic).to_owned();
    let view = head.header(outlet::VIEW).map(str::to_owned);
    let log = LogRecord { topic, partition: place.partition, offset, timestamp_ms: appended_ms, ..head };
    let record = Record::new(place, log, false);
    let as_written = match desk.context.decisions.leave(caller, &record) {
        Leave::Freely => view.is_none(),
        Leave::Disclosed(disclosed) => view.as_deref() == Some(disclosed.view),
        Leave::Not => false,
    };
    as_written && !desk.context.removals.withholds(record.leaving())
}
