//! How much of a stretch concerns a subscription: read and counted before anything is delivered again.
//!
//! Must never read without end: what lies beyond the limits is not counted, and that is said.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ryggrad_bridge_core::access::Caller;
use ryggrad_bridge_core::cesql::RecordAttributes;
use ryggrad_bridge_core::cursor::Place;
use ryggrad_bridge_core::filter::Filters;
use ryggrad_bridge_core::hub::wants;
use ryggrad_bridge_core::matching::Echoes;
use ryggrad_bridge_core::record::Record;
use ryggrad_bridge_core::rewind::{Partition, Stretch};
use ryggrad_bridge_core::subscription::Subscription;
use ryggrad_log::{ReaderLimits, Seen, read_stretches};
use uuid::Uuid;

use crate::runtime::Context;

/// Records that are read for one count.
pub const RECORDS_MAX: u64 = 500_000;
/// How long that may take.
pub const TIME_MAX: Duration = Duration::from_secs(5);

const LIMITS: ReaderLimits = ReaderLimits { batch_records_max: 500, batches_waiting_max: 1, prefetch_bytes_max: 4 * 1024 * 1024 };

/// Which events are counted: those that delivery would bring.
#[derive(Debug, Clone)]
pub struct Selection {
    /// Whom it is for.
    caller: Caller,
    /// Event types, each exact or ending in `.*`.
    types: Vec<String>,
    /// The watch list that has to hold its key.
    watch_list: Option<Uuid>,
    /// Lists of filters, all of which have to let it through.
    filters: Vec<Filters>,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counted {
    /// Partition -> events that are wanted.
    pub matching: BTreeMap<Partition, u64>,
    /// Records that were looked at, of those that the caller may have: of others it must learn nothing.
    pub read: u64,
    /// Everything was read. Else there are at least so many.
    pub is_whole: bool,
}

/// Reads and counts.
pub async fn count(context: &Arc<Context>, stretches: &[Stretch], selection: Selection) -> Result<Counted, ryggrad_log::Error> {
    let (context, stretches) = (Arc::clone(context), stretches.to_vec());
    let counting = tokio::task::spawn_blocking(move || count_blocking(&context, &stretches, &selection));
    counting.await.unwrap_or_else(|_| Ok(Counted::default()))
}

fn count_blocking(context: &Context, stretches: &[Stretch], selection: &Selection) -> Result<Counted, ryggrad_log::Error> {
    let mut counted = Counted { is_whole: true, ..Counted::default() };
    let (until, mut looked_at) = (Instant::now() + TIME_MAX, 0);
    let mut by_topic: BTreeMap<&str, Vec<ryggrad_log::Stretch>> = BTreeMap::new();
    for Stretch { partition, from, to, .. } in stretches {
        counted.matching.insert(partition.clone(), 0);
        let stretch = ryggrad_log::Stretch { partition: partition.partition, from: *from, to: *to };
        by_topic.entry(&partition.topic).or_default().push(stretch);
    }
    for (topic, stretches) in by_topic {
        let id = context.catalogue.topic(topic).map_or(0, |topic| topic.id);
        let mut echoes = Echoes::starting_at(stretches.iter().map(|stretch| (stretch.partition, stretch.from)));
        let whole = read_stretches(&context.connection, topic, &stretches, &LIMITS, |seen| -> Result<_, ryggrad_log::Error> {
            if let Seen::Record(lent) = seen {
                looked_at += 1;
                let record = lent.head(topic);
                let echo = echoes.is_echo(&record);
                let place = Place { topic: id, partition: record.partition };
                let record = Record::new(place, record, echo);
                let may_have = !context.decisions.denies(selection.caller, &record);
                counted.read += u64::from(may_have);
                if may_have && selection.wants(context, &record) {
                    let partition = Partition { topic: topic.to_owned(), partition: place.partition };
                    *counted.matching.entry(partition).or_default() += 1;
                }
            }
            let enough = looked_at >= RECORDS_MAX || Instant::now() >= until;
            counted.is_whole &= !enough;
            Ok(if enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        });
        whole?;
    }
    Ok(counted)
}

impl Selection {
    /// What a subscription gets, and of that only what passes `narrowing` too.
    pub fn of(subscription: &Subscription, narrowing: Option<Filters>) -> Self {
        let filters = subscription.filters.iter().cloned().chain(narrowing).collect();
        Self { caller: subscription.caller(), types: subscription.types.clone(), watch_list: subscription.watch_list, filters }
    }

    fn wants(&self, context: &Context, record: &Record) -> bool {
        let passes = |filters: &Filters| filters.judge(&RecordAttributes(&record.log)).matches;
        let listed = |list| context.watched.holds(list, record);
        let wanted = wants(&self.types, record.ce_type()) && !record.echo && self.watch_list.is_none_or(listed);
        wanted && self.filters.iter().all(passes) && !context.removals.withholds(record.leaving())
    }
}
