//! Reading stretches of a topic that were fixed beforehand, as fast as the broker gives them.
//!
//! Records are lent and never copied. Blocks: for threads made for it. Must never end early: a
//! partition is over when its stretch is, and silence is an error.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::Consumer;

use crate::reader::{self, Read, ReaderLimits, Start};
use crate::scan::{Lent, POLL, SILENCE_MAX};
use crate::{Connection, Error, Remedy};

/// A stretch of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// Partition number.
    pub partition: i32,
    /// The first offset that counts.
    pub from: i64,
    /// The first offset that does not count any more. Not beyond the end of what is committed.
    pub to: i64,
}

/// What a reader of stretches shows.
pub enum Seen<'a> {
    /// A committed record within its stretch.
    Record(&'a Lent<'a>),
    /// This partition's stretch is over.
    Over {
        /// Partition number.
        partition: i32,
    },
    /// Nothing came for a moment.
    Idle,
}

/// Shows every committed record of the stretches, in order per partition. `Break` ends it early.
pub fn read_stretches<E: From<Error>>(
    connection: &Connection,
    topic: &str,
    stretches: &[Stretch],
    limits: &ReaderLimits,
    mut visit: impl FnMut(Seen<'_>) -> Result<ControlFlow<()>, E>,
) -> Result<(), E> {
    let doing = || format!("read {topic}");
    // A handful, and asked for each record.
    let mut open: Vec<Stretch> = Vec::new();
    for stretch in stretches {
        if stretch.from < stretch.to {
            open.push(*stretch);
        } else if visit(Seen::Over { partition: stretch.partition })?.is_break() {
            return Ok(());
        }
    }
    if open.is_empty() {
        return Ok(());
    }
    let consumer = reader::create(connection, topic, limits)?;
    let starts: Vec<_> = open.iter().map(|stretch| (stretch.partition, Start::Offset(stretch.from))).collect();
    reader::assign(&consumer, &reader::start_list(topic, &starts)?)?;
    let mut silent_since: Option<Instant> = None;
    let mut wait = Duration::ZERO;
    loop {
        let (over, is_idle) = match consumer.poll(wait) {
            Some(Ok(message)) => {
                wait = Duration::ZERO;
                let lent = Lent::of(&message);
                let (partition, offset) = (lent.partition(), lent.offset());
                let Some(&Stretch { to, .. }) = open.iter().find(|stretch| stretch.partition == partition) else { continue };
                if offset < to && visit(Seen::Record(&lent))?.is_break() {
                    return Ok(());
                }
                silent_since = None;
                ((offset + 1 >= to).then_some(partition), false)
            }
            Some(Err(error)) => match reader::to_notice(error) {
                // The stretch's end lies within what was committed when it was made.
                Read::AtEnd { partition } => (open.iter().any(|stretch| stretch.partition == partition).then_some(partition), false),
                Read::Failed(error) => return Err(error.into()),
                _ => (None, false),
            },
            None if silent_since.get_or_insert_with(Instant::now).elapsed() > SILENCE_MAX => {
                let silence = format!("no answer for {} s", SILENCE_MAX.as_secs());
                return Err(Error::other(doing(), Remedy::Retry, silence).into());
            }
            // What waits already is taken without a pause.
            None if wait.is_zero() => {
                wait = POLL;
                (None, false)
            }
            None => (None, true),
        };
        if is_idle && visit(Seen::Idle)?.is_break() {
            return Ok(());
        }
        let Some(partition) = over else { continue };
        open.retain(|stretch| stretch.partition != partition);
        if visit(Seen::Over { partition })?.is_break() || open.is_empty() {
            return Ok(());
        }
        // What lies behind the stretch is nobody's business.
        let mut rest = TopicPartitionList::new();
        rest.add_partition(topic, partition);
        consumer.pause(&rest).map_err(|error| Error::new(doing(), error))?;
    }
}
