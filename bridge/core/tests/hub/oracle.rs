//! The judgement when everything has come to rest: per subscription, what was owed, what was taken,
//! in which order, under which numbers.
//!
//! Shares no code with the hub, and must never look at it: it sees the log, what owners asked for,
//! what receivers took, and what is on disk.

use std::collections::{BTreeMap, HashMap};

use ryggrad_bridge_core::cursor::Place;
use ryggrad_bridge_core::settings::Order;

use super::log::{Entry, Log, places};
use super::subscription::{Arrival, Round, Subscription};

/// A subscription that was removed owes nothing any more, but what it did stands.
pub fn judge(log: &Log, subscription: &Subscription) -> Result<(), String> {
    removals(log, &subscription.took)?;
    numbers(&subscription.took, subscription.disk.numbering.next, !subscription.removed)?;
    conservation(log, subscription)
}

fn removals(log: &Log, took: &[Arrival]) -> Result<(), String> {
    for arrival in took.iter().filter(|arrival| !arrival.void) {
        if log.removals(arrival.place, arrival.offset).any(|removed| arrival.began_step > removed.at_step) {
            return Err(format!("offset {} of {:?} left after its key was removed", arrival.offset, arrival.place));
        }
    }
    Ok(())
}

/// Every number given is closed, by one event or by a notice, and never names two records.
fn numbers(took: &[Arrival], next_number: u64, whole: bool) -> Result<(), String> {
    let mut names: BTreeMap<u64, Vec<&Arrival>> = BTreeMap::new();
    for arrival in took {
        names.entry(arrival.number).or_default().push(arrival);
    }
    if let Some(number) = (1..next_number).find(|number| whole && !names.contains_key(number)) {
        return Err(format!("number {number} was never closed"));
    }
    for (number, arrivals) in &names {
        for pair in arrivals.windows(2) {
            let (before, after) = (pair[0], pair[1]);
            // The notice of what was to be read again after its owner went back has no offset.
            let moved = after.void && after.offset < 0;
            if after.place != before.place || (after.offset != before.offset && !moved) {
                return Err(format!("number {number} names offset {} and offset {}", before.offset, after.offset));
            }
            if before.void && !after.void {
                return Err(format!("number {number} was closed by a notice, and its event came after it"));
            }
            // The bridge may not know that the event was taken: its answer was lost, or the bridge
            // crashed before it was on disk.
            if !before.void && after.void && before.answered && before.life == after.life {
                return Err(format!("number {number} was taken, and a notice came after it"));
            }
        }
    }
    match names.last_key_value() {
        Some((number, _)) if *number >= next_number => Err(format!("number {number} was never given")),
        _ => Ok(()),
    }
}

/// Each round is judged by itself. What counts is the filter, and the watch list, in force when a record is
/// looked at, which is at some time between its publication (or the round's beginning) and its first attempt:
/// owed is what all filters of that time want, and what none of them wants must not come. In
/// between, either is right.
fn conservation(log: &Log, subscription: &Subscription) -> Result<(), String> {
    for arrival in subscription.took.iter().filter(|arrival| !arrival.void) {
        let Arrival { place, offset, generation, .. } = *arrival;
        if log.entry(place, offset).is_none() {
            return Err(format!("offset {offset} of {place:?} does not exist"));
        }
        if !rounds(subscription, place).any(|round| round.generation == generation) {
            return Err(format!("offset {offset} of {place:?} came in a round {generation} that there never was"));
        }
        let stale = |round: &&Round| round.generation > generation && round.from <= offset && round.since < arrival.began_step;
        if let Some(round) = rounds(subscription, place).find(stale) {
            return Err(format!("offset {offset} of {place:?} left under an old name after {round:?} began"));
        }
    }
    places().flat_map(|place| rounds(subscription, place)).try_for_each(|round| conserved(log, subscription, *round))
}

fn rounds(subscription: &Subscription, place: Place) -> impl Iterator<Item = &Round> {
    subscription.rounds.iter().filter(move |round| round.place == place)
}

fn conserved(log: &Log, subscription: &Subscription, round: Round) -> Result<(), String> {
    let Round { place, generation, from, .. } = round;
    let here = || subscription.took.iter().enumerate().filter(|(_, arrival)| !arrival.void && arrival.place == place);
    // What came in a later round is not owed in this one.
    let (mut first_taken, mut first_own) = (HashMap::new(), HashMap::new());
    for (index, arrival) in here().filter(|(_, arrival)| arrival.generation >= generation) {
        first_taken.entry(arrival.offset).or_insert((index, arrival.began_step));
        if arrival.generation == generation {
            first_own.entry(arrival.offset).or_insert((index, arrival.began_step));
        }
    }
    let mut latest: HashMap<u64, (usize, i64)> = HashMap::new();
    for entry in log.entries(place) {
        if !first_taken.contains_key(&entry.offset) {
            let excused = |offset| subscription.disk.skipped.contains(&(place, offset)) || log.is_removed(place, offset);
            // A tombstone is owed where its event is gone and was not taken, so that nobody misses
            // that the key is. Without order it is in no lane with its event: one that was parked and
            // compacted leaves nothing behind.
            let owed = entry.ends.is_none_or(|event| {
                let untold = !first_taken.contains_key(&event) && !excused(event) && from <= event;
                let lost = |event: &Entry| event.gone && wanted(subscription, round, event, u64::MAX).0;
                untold && subscription.order != Order::None && log.entry(place, event).is_some_and(lost)
            });
            let always = wanted(subscription, round, entry, u64::MAX).0;
            if always && owed && !entry.gone && !excused(entry.offset) && !subscription.removed {
                return Err(format!("offset {} of {round:?} is missing", entry.offset));
            }
        }
        let Some((index, began_step)) = first_own.get(&entry.offset).copied() else { continue };
        let (always, ever) = wanted(subscription, round, entry, began_step);
        if entry.ends.and_then(|event| log.entry(place, event)).is_some_and(|event| !event.gone) {
            return Err(format!("offset {} of {place:?} is an echo", entry.offset));
        }
        if !ever {
            return Err(format!("offset {} of {round:?} was not subscribed to", entry.offset));
        }
        // One that was not asked for at first may be read again and be sent late.
        if !always {
            continue;
        }
        // A tombstone that stands in for its event is a repetition where that was taken. Its number
        // is a later one, and who fetches goes by numbers: it may come behind its lane.
        if entry.ends.is_some_and(|event| subscription.fetches || first_taken.contains_key(&event)) {
            continue;
        }
        let lane = match subscription.order {
            Order::Key => entry.key,
            Order::Partition => 0,
            Order::None => continue,
        };
        if let Some((before, overtaken)) = latest.insert(lane, (index, entry.offset)).filter(|(before, _)| *before > index) {
            let overtaken = (overtaken, subscription.took[before].number);
            return Err(format!("offset {} of {round:?} overtook its lane, {overtaken:?}, ends {:?}", entry.offset, entry.ends));
        }
    }
    Ok(())
}

/// Whether a record was asked for by all filters, and by any, from its publication or the round's
/// beginning up to a step.
fn wanted(subscription: &Subscription, round: Round, entry: &Entry, to_step: u64) -> (bool, bool) {
    let past_end = subscription.until.as_ref().is_some_and(|until| entry.offset >= until[&round.place]);
    if entry.offset < round.from || past_end {
        return (false, false);
    }
    let (mut always, mut ever) = (true, false);
    for (index, (since, kinds, keys)) in subscription.filters.iter().enumerate() {
        let until = subscription.filters.get(index + 1).map_or(u64::MAX, |(since, ..)| *since);
        if *since <= to_step && until >= entry.published.max(round.since) {
            let wants = kinds & entry.kind != 0 && keys >> entry.key & 1 == 1;
            always &= wants;
            ever |= wants;
        }
    }
    (always, ever)
}
