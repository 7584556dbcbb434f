//! Between the hub's words and the store's.

use std::collections::BTreeMap;

use ryggrad_bridge_core::cursor::{Cursor, Place};
use ryggrad_bridge_core::hub::{Commit, MemberId, Newcomer, Wish};
use ryggrad_bridge_core::machine::{Limits, Mode, Numbering, Policy};
use ryggrad_bridge_core::retry::RetryPolicy;
use ryggrad_bridge_core::settings::Format;
use ryggrad_bridge_core::subscription::Subscription;
use ryggrad_schemas::Catalogue;
use ryggrad_store::{Change, Entry, Stored, SubscriptionId};

use crate::config::BridgeConfig;

/// Where a subscription begins in each partition, before anything was stored.
fn starting_cursors<'s>(subscription: &'s Subscription, catalogue: &'s Catalogue) -> impl Iterator<Item = (Place, Cursor)> + 's {
    let topics = subscription.from.iter().filter_map(|(name, offsets)| Some((catalogue.topic(name)?.id, offsets)));
    topics.flat_map(|(topic, offsets)| {
        (0..).zip(offsets).map(move |(partition, offset)| (Place { topic, partition }, Cursor::starting_at(*offset)))
    })
}

/// A subscription as it begins, or goes on from what is stored of it. A run of numbers whose end
/// is not known for certain is over: another epoch begins, the second in which that happens, and
/// what is pending is numbered anew.
pub(super) fn newcomer(
    subscription: &Subscription,
    stored: &Stored,
    wish: Wish,
    held: bool,
    replay: Option<(BTreeMap<Place, i64>, Option<MemberId>)>,
    catalogue: &Catalogue,
    now_ms: u64,
) -> Newcomer {
    let (until, owner) = replay.map_or((None, None), |(until, owner)| (Some(until), owner));
    let cursors = starting_cursors(subscription, catalogue);
    let mut cursors: Vec<_> = cursors.map(|(place, first)| (place, stored.cursors.get(&place).cloned().unwrap_or(first))).collect();
    let dead_letters = stored.dead_letters.len();
    if let Some(numbering) = stored.numbering.filter(|_| !stored.damaged) {
        return Newcomer { wish, held, numbering, cursors, dead_letters, until, owner };
    }
    let epoch_before = stored.numbering.map_or(0, |numbering| numbering.epoch);
    let epoch = u32::try_from(now_ms / 1_000).unwrap_or(u32::MAX).max(epoch_before.saturating_add(1));
    let mut next = 1;
    for (_, cursor) in &mut cursors {
        // A void number of another epoch concerns nobody.
        cursor.pending.retain(|_, pending| !pending.void);
        for pending in cursor.pending.values_mut() {
            pending.number = next;
            next += 1;
        }
    }
    Newcomer { wish, held, numbering: Numbering { epoch, next }, cursors, dead_letters, until, owner }
}

/// What the hub has to know of a subscription.
pub(super) fn wish(subscription: &Subscription, mode: Mode, config: &BridgeConfig) -> Wish {
    let fetches = !subscription.channel.is_posted();
    let delivery = &subscription.delivery;
    Wish {
        caller: subscription.caller(),
        types: subscription.types.clone(),
        filters: subscription.filters.clone(),
        watch_list: subscription.watch_list,
        order: delivery.order,
        address: subscription.sink.as_deref().filter(|_| !fetches).map(Into::into),
        limits: Limits {
            pending_max: config.pending_max,
            // A receiver that fetches takes numbers, not lanes.
            pending_per_key_max: if fetches { config.pending_max } else { config.pending_per_key_max },
            in_flight_max: if fetches { 0 } else { delivery.in_flight_max.unwrap_or(config.in_flight_max) },
            batch_events_max: if delivery.format == Format::Batch { delivery.batch_events_max } else { 1 },
            attempts_per_minute_max: subscription.attempts_per_minute_max(),
        },
        policy: Policy {
            retry: RetryPolicy {
                first_ms: config.retry_first_ms,
                max_ms: config.retry_max_ms,
                probe_ms: config.probe_ms,
                horizon_ms: delivery.retry_horizon_ms,
            },
            on_exhausted: delivery.on_exhausted,
            disable_after_ms: delivery.disable_after_ms,
            dead_letters_max: config.dead_letters_max,
        },
        mode,
    }
}

/// The store's changes for a commit.
pub(super) fn changes(commit: Commit, ids: &BTreeMap<MemberId, SubscriptionId>, at_ms: u64) -> Vec<Change> {
    let mut changes: Vec<Change> = commit.live.into_iter().map(|(place, to)| Change::Put(Entry::Live { place, to })).collect();
    for (member, commit) in commit.members {
        // Gone meanwhile, and forgotten.
        let Some(subscription) = ids.get(&member).copied() else { continue };
        let cursors = commit.cursors.into_iter().map(|(place, cursor)| Entry::Cursor { subscription, place, cursor });
        let numbering = commit.numbering.map(|numbering| Entry::Numbering { subscription, numbering });
        let letters = commit.dead_letters.into_iter().map(|letter| Entry::DeadLetter { subscription, letter, at_ms });
        changes.extend(cursors.chain(numbering).chain(letters).map(Change::Put));
    }
    changes
}
