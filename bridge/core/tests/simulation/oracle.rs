//! The judgement when everything has come to rest. Shares no code with the machine: it sees the
//! log, what the receiver took, and what is on disk.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ryggrad_bridge_core::cursor::Place;
use ryggrad_bridge_core::settings::Order;

use super::log::{Log, PARTITIONS, place};
use super::receiver::Arrival;

pub fn judge(log: &Log, took: &[Arrival], skipped: &BTreeSet<(Place, i64)>, next_number: u64) -> Result<(), String> {
    removals(log, took)?;
    numbers(took, next_number)?;
    conservation(log, took, skipped)
}

fn removals(log: &Log, took: &[Arrival]) -> Result<(), String> {
    for arrival in took.iter().filter(|arrival| !arrival.void) {
        let mut removals = log.removals(arrival.place, arrival.offset);
        if removals.any(|removed| arrival.offset < removed.below && arrival.began_step > removed.at_step) {
            return Err(format!("offset {} of {:?} left after its key was removed", arrival.offset, arrival.place));
        }
    }
    Ok(())
}

/// Every number given is closed, by one event or by a notice, and never names two records.
fn numbers(took: &[Arrival], next_number: u64) -> Result<(), String> {
    let mut names: BTreeMap<u64, Vec<&Arrival>> = BTreeMap::new();
    for arrival in took {
        names.entry(arrival.number).or_default().push(arrival);
    }
    for number in 1..next_number {
        let Some(arrivals) = names.get(&number) else { return Err(format!("number {number} was never closed")) };
        let first = arrivals[0];
        for pair in arrivals.windows(2) {
            let (before, after) = (pair[0], pair[1]);
            if (after.place, after.offset) != (first.place, first.offset) {
                return Err(format!("number {number} names offset {} and offset {}", first.offset, after.offset));
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

fn conservation(log: &Log, took: &[Arrival], skipped: &BTreeSet<(Place, i64)>) -> Result<(), String> {
    let mut first_taken: HashMap<(Place, i64), usize> = HashMap::new();
    for (index, arrival) in took.iter().enumerate().filter(|(_, arrival)| !arrival.void) {
        first_taken.entry((arrival.place, arrival.offset)).or_insert(index);
        if log.entry(arrival.place, arrival.offset).is_none() {
            return Err(format!("offset {} of {:?} does not exist", arrival.offset, arrival.place));
        }
    }
    for partition in 0..PARTITIONS {
        let place = place(partition);
        let mut latest: HashMap<u64, usize> = HashMap::new();
        for entry in log.entries(partition) {
            let Some(index) = first_taken.get(&(place, entry.offset)) else {
                let excused = entry.gone || skipped.contains(&(place, entry.offset)) || log.is_removed(place, entry.offset);
                if log.always_wanted(entry) && !excused {
                    return Err(format!("offset {} of {place:?} is missing", entry.offset));
                }
                continue;
            };
            if !log.ever_wanted(entry) {
                return Err(format!("offset {} of {place:?} was not subscribed to", entry.offset));
            }
            // One that was not asked for at first may be read again and be sent late.
            if !log.always_wanted(entry) {
                continue;
            }
            let lane = match log.order {
                Order::Key => entry.key,
                Order::Partition => 0,
                Order::None => continue,
            };
            if latest.insert(lane, *index).is_some_and(|before| before > *index) {
                return Err(format!("offset {} of {place:?} overtook its lane", entry.offset));
            }
        }
    }
    Ok(())
}
