//! Who reads the log behind the ring, for whom: a bounded pool of readers shared by neighbours.
//!
//! A reader goes through one partition and keeps its latest records. Subscriptions that are near
//! share it; one that falls behind asks again. Must never let those that have stalled keep a
//! reader from those that wait.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::MemberId;
use super::ring::Stretch;
use crate::cursor::Place;
use crate::record::Record;

/// Names a reader for as long as it reads one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReaderId(pub u64);

/// Somebody this far behind a reader's next record waits for it rather than for one of its own.
const NEAR: i64 = 5_000;

/// Hand-overs of one reader, after which others have their turn if any wait. Together they reach over all
/// that is near, or those who wait for its end would never see it.
const CHUNKS_A_TURN: usize = 16;

/// How long a reader stays for those who have no room: what opening another costs is worth the wait,
/// and what one keeps and fetches ahead is bounded.
const KEPT_MS: u64 = 10_000;

#[derive(Debug)]
struct Slot {
    place: Place,
    stretch: Stretch,
    /// Where the tail was when the reader started: at the log's end there is nothing below it.
    live_at_start: i64,
    /// Hand-overs so far.
    chunks: usize,
    /// More was asked for and has not come.
    fetching: bool,
    /// When it was last asked for more, or gave some.
    used_at_ms: u64,
    /// Those who have come to its end, until they have looked at what was handed over: before
    /// that it is nobody else's, or it would be given away with what it was opened for unread.
    waiting: BTreeSet<MemberId>,
    /// Those who have stopped within it, or at its end, for want of room.
    stalled: BTreeSet<MemberId>,
}

impl Slot {
    /// Nobody goes on with it.
    fn is_idle(&self) -> bool {
        !self.fetching && self.waiting.is_empty()
    }
}

/// What to do with readers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReaderAction {
    /// Start reading here, and hand over a first time.
    Open(ReaderId, Place, i64),
    /// Hand over what comes next.
    More(ReaderId),
    /// End.
    Close(ReaderId),
}

/// What somebody wants to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// The next offset.
    pub at: i64,
    /// It was read before, and its window may not move before it is read again.
    pub again: bool,
}

/// The pool.
#[derive(Debug)]
pub struct Slots {
    slots: BTreeMap<ReaderId, Slot>,
    /// Whose turn it is; who has left meanwhile is in the queue, but not wanted.
    queue: VecDeque<(MemberId, Place)>,
    wanted: BTreeMap<(MemberId, Place), Wanted>,
    next: u64,
    readers_max: usize,
    records_max: usize,
}

impl Slots {
    /// A pool of so many readers, each of which keeps so many records.
    pub fn new(readers_max: usize, records_max: usize) -> Self {
        Self { slots: BTreeMap::new(), queue: VecDeque::new(), wanted: BTreeMap::new(), next: 0, readers_max, records_max }
    }

    /// Readers at work.
    pub fn readers(&self) -> usize {
        self.slots.len()
    }

    /// Subscriptions that wait for a reader of their own.
    pub fn queued(&self) -> usize {
        self.wanted.len()
    }

    /// A stretch that tells what stands at an offset.
    pub fn covering(&self, place: Place, offset: i64) -> Option<&Stretch> {
        self.slots.values().filter(|slot| slot.place == place).map(|slot| &slot.stretch).find(|stretch| stretch.covers(offset))
    }

    /// Somebody needs what stands at an offset, and nobody has it. Those who wait already come first.
    pub fn ask(&mut self, now_ms: u64, member: MemberId, place: Place, wanted: Wanted, live: i64, actions: &mut Vec<ReaderAction>) {
        let in_line = self.wanted.contains_key(&(member, place));
        self.leave(member, place);
        let others_wait = !self.wanted.is_empty();
        let joined = self.join(now_ms, member, place, wanted.at, others_wait, actions);
        if joined || (!others_wait && self.take_over(now_ms, member, place, wanted, live, actions)) {
            return;
        }
        if !in_line {
            self.queue.push_back((member, place));
        }
        self.wanted.insert((member, place), wanted);
    }

    /// Waits for a reader that is about to come there.
    fn join(
        &mut self,
        now_ms: u64,
        member: MemberId,
        place: Place,
        offset: i64,
        others_wait: bool,
        actions: &mut Vec<ReaderAction>,
    ) -> bool {
        let near = |slot: &Slot| slot.place == place && (slot.stretch.end()..slot.stretch.end() + NEAR).contains(&offset);
        let goes_on = |slot: &Slot| slot.fetching || slot.chunks < CHUNKS_A_TURN || !others_wait;
        let Some((id, slot)) = self.slots.iter_mut().find(|(_, slot)| near(slot) && goes_on(slot)) else { return false };
        slot.waiting.insert(member);
        if !slot.fetching {
            slot.fetching = true;
            slot.used_at_ms = now_ms;
            actions.push(ReaderAction::More(*id));
        }
        true
    }

    /// Opens a reader where there is a place for it: one that nobody goes on with gives way to
    /// somebody who would. Nobody takes it from itself before its turn is over, since opening one
    /// costs as much as reading thousands of records; but what is read again can't wait for that.
    fn take_over(
        &mut self,
        now_ms: u64,
        member: MemberId,
        place: Place,
        wanted: Wanted,
        live: i64,
        actions: &mut Vec<ReaderAction>,
    ) -> bool {
        if self.slots.len() >= self.readers_max {
            let may_go = |slot: &Slot| wanted.again || slot.chunks >= CHUNKS_A_TURN || !slot.stalled.contains(&member);
            let idle = self.slots.iter().find(|(_, slot)| slot.is_idle() && may_go(slot));
            let Some(idle) = idle.map(|(id, _)| *id) else { return false };
            self.slots.remove(&idle);
            actions.push(ReaderAction::Close(idle));
        }
        self.open(now_ms, place, wanted.at, member, live, actions);
        true
    }

    /// Opens a reader for somebody and for all neighbours in the queue, from the hindmost of them:
    /// what costs is opening.
    fn open(&mut self, now_ms: u64, place: Place, offset: i64, member: MemberId, live: i64, actions: &mut Vec<ReaderAction>) {
        let id = ReaderId(self.next);
        self.next += 1;
        let queued = self.wanted.iter().filter(|((_, wanted), queued)| *wanted == place && queued.at > offset - NEAR);
        let from = queued.map(|(_, queued)| queued.at).fold(offset, i64::min);
        let mut waiting = BTreeSet::from([member]);
        self.wanted.retain(|(neighbour, wanted), queued| {
            let shares = *wanted == place && (from..from + NEAR).contains(&queued.at);
            if shares {
                waiting.insert(*neighbour);
            }
            !shares
        });
        let wanted = &self.wanted;
        self.queue.retain(|queued| wanted.contains_key(queued));
        let (stretch, stalled) = (Stretch::at(from), BTreeSet::new());
        let slot = Slot { place, stretch, live_at_start: live, chunks: 0, fetching: true, used_at_ms: now_ms, waiting, stalled };
        self.slots.insert(id, slot);
        actions.push(ReaderAction::Open(id, place, from));
    }

    /// Somebody has stopped for want of room. Its reader stays, until others wait for one: it will
    /// be asked to go on, and opening one costs more.
    pub fn stalled(&mut self, member: MemberId, place: Place, offset: i64) {
        let mut has_reader = false;
        for slot in self.slots.values_mut().filter(|slot| slot.place == place) {
            let is_ahead = slot.stretch.end() <= offset;
            if is_ahead && slot.fetching && slot.waiting.contains(&member) {
                // It looks at what comes before it says more.
                has_reader = true;
                continue;
            }
            slot.waiting.remove(&member);
            if !has_reader && (slot.stretch.covers(offset) || slot.stretch.end() == offset) {
                has_reader = true;
                slot.stalled.insert(member);
            }
        }
        self.wanted.remove(&(member, place));
    }

    /// Somebody needs no reader in this partition any more.
    pub fn leave(&mut self, member: MemberId, place: Place) {
        for slot in self.slots.values_mut().filter(|slot| slot.place == place) {
            slot.waiting.remove(&member);
            slot.stalled.remove(&member);
        }
        self.wanted.remove(&(member, place));
    }

    /// Takes in what a reader has read, and gives those who have waited for it. With `at_end`
    /// the log has nothing more for now.
    pub fn take(&mut self, now_ms: u64, id: ReaderId, records: Vec<Arc<Record>>, at_end: bool) -> Vec<MemberId> {
        let Some(slot) = self.slots.get_mut(&id) else { return Vec::new() };
        for record in records {
            if record.offset() >= slot.stretch.end() {
                slot.stretch.push(record);
            }
        }
        while slot.stretch.records() > self.records_max {
            slot.stretch.pop();
        }
        if at_end {
            slot.stretch.extend_to(slot.live_at_start);
        }
        slot.fetching = false;
        slot.used_at_ms = now_ms;
        slot.chunks += 1;
        slot.waiting.iter().copied().collect()
    }

    /// A reader has failed: those who have waited ask again.
    pub fn lost(&mut self, id: ReaderId) -> Vec<MemberId> {
        self.slots.remove(&id).map(|slot| slot.waiting.into_iter().chain(slot.stalled).collect()).unwrap_or_default()
    }

    /// When `tidy` may close a reader that it would not close now.
    pub fn wake_at_ms(&self) -> Option<u64> {
        let kept = self.slots.values().filter(|slot| slot.waiting.is_empty());
        kept.map(|slot| slot.used_at_ms.saturating_add(KEPT_MS)).min()
    }

    /// Closes readers that nobody uses and gives places to those who wait.
    pub fn tidy(&mut self, now_ms: u64, live: impl Fn(Place) -> i64, actions: &mut Vec<ReaderAction>) {
        self.slots.retain(|id, slot| {
            let used = !slot.waiting.is_empty() || (!slot.stalled.is_empty() && now_ms < slot.used_at_ms.saturating_add(KEPT_MS));
            if !used {
                actions.push(ReaderAction::Close(*id));
            }
            used
        });
        let mut passed_over = Vec::new();
        while let Some((member, place)) = self.queue.pop_front() {
            let Some(wanted) = self.wanted.get(&(member, place)).copied() else { continue };
            let others_wait = self.wanted.len() > 1;
            let joined = self.join(now_ms, member, place, wanted.at, others_wait, actions);
            if joined || self.take_over(now_ms, member, place, wanted, live(place), actions) {
                self.wanted.remove(&(member, place));
            } else {
                passed_over.push((member, place));
                // An idle reader may be one that only those who have stalled in it can't take: they
                // must not keep it from those behind them.
                if !self.slots.values().any(Slot::is_idle) {
                    break;
                }
            }
        }
        passed_over.into_iter().rev().for_each(|queued| self.queue.push_front(queued));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Place = Place { topic: 1, partition: 0 };
    const THERE: Place = Place { topic: 1, partition: 1 };

    const NOW_MS: u64 = 5_000;

    fn asked(slots: &mut Slots, member: u32, place: Place, offset: i64) -> Vec<ReaderAction> {
        wanted(slots, member, place, Wanted { at: offset, again: false })
    }

    fn wanted(slots: &mut Slots, member: u32, place: Place, wanted: Wanted) -> Vec<ReaderAction> {
        let mut actions = Vec::new();
        slots.ask(NOW_MS, MemberId(member), place, wanted, 100_000, &mut actions);
        actions
    }

    fn tidied(slots: &mut Slots) -> Vec<ReaderAction> {
        let mut actions = Vec::new();
        slots.tidy(NOW_MS, |_| 100_000, &mut actions);
        actions
    }

    #[test]
    fn what_a_reader_hands_over_is_looked_at_before_the_reader_is_given_away() {
        let mut slots = Slots::new(1, 100);
        assert_eq!(asked(&mut slots, 1, HERE, 7), [ReaderAction::Open(ReaderId(0), HERE, 7)]);
        assert_eq!(asked(&mut slots, 1, THERE, 9), []);
        assert_eq!(slots.take(NOW_MS, ReaderId(0), Vec::new(), true), [MemberId(1)]);
        // Whoever reads two partitions asks for the other one first.
        assert_eq!(asked(&mut slots, 1, THERE, 9), []);
        assert!(slots.covering(HERE, 7).is_some());
        slots.stalled(MemberId(1), HERE, 8);
        assert_eq!(tidied(&mut slots), [], "nobody takes a reader from itself");
        let again = wanted(&mut slots, 1, THERE, Wanted { at: 9, again: true });
        assert_eq!(again, [ReaderAction::Close(ReaderId(0)), ReaderAction::Open(ReaderId(1), THERE, 9)], "unless it reads again");
        assert!(slots.queue.is_empty(), "asking twice is one turn");
    }

    #[test]
    fn a_reader_stays_for_a_while_for_whoever_has_no_room() {
        let mut slots = Slots::new(1, 100);
        asked(&mut slots, 1, HERE, 7);
        slots.stalled(MemberId(1), HERE, 7);
        assert_eq!(tidied(&mut slots), [], "what it was asked for is still to come");
        assert_eq!(slots.take(NOW_MS, ReaderId(0), Vec::new(), false), [MemberId(1)]);
        slots.stalled(MemberId(1), HERE, 7);
        assert_eq!((tidied(&mut slots), slots.wake_at_ms()), (Vec::new(), Some(NOW_MS + KEPT_MS)));
        let mut actions = Vec::new();
        slots.tidy(NOW_MS + KEPT_MS, |_| 100_000, &mut actions);
        assert_eq!((actions, slots.wake_at_ms()), (vec![ReaderAction::Close(ReaderId(0))], None));
    }

    #[test]
    fn who_reads_on_and_on_gives_way_to_those_who_wait() {
        let mut slots = Slots::new(1, 100);
        asked(&mut slots, 1, HERE, 0);
        asked(&mut slots, 2, THERE, 0);
        for _ in 1..CHUNKS_A_TURN {
            slots.take(NOW_MS, ReaderId(0), Vec::new(), false);
            assert_eq!(asked(&mut slots, 1, HERE, 0), [ReaderAction::More(ReaderId(0))]);
        }
        slots.take(NOW_MS, ReaderId(0), Vec::new(), false);
        assert_eq!(asked(&mut slots, 1, HERE, 0), []);
        assert_eq!(tidied(&mut slots), [ReaderAction::Close(ReaderId(0)), ReaderAction::Open(ReaderId(1), THERE, 0)]);
        slots.leave(MemberId(2), THERE);
        assert_eq!(tidied(&mut slots), [ReaderAction::Close(ReaderId(1)), ReaderAction::Open(ReaderId(2), HERE, 0)]);
    }

    #[test]
    fn who_has_stalled_and_waits_for_another_reader_keeps_nobody_waiting() {
        let mut slots = Slots::new(1, 100);
        asked(&mut slots, 1, HERE, 0);
        asked(&mut slots, 1, THERE, 0);
        asked(&mut slots, 2, THERE, 50_000);
        slots.take(NOW_MS, ReaderId(0), Vec::new(), true);
        slots.stalled(MemberId(1), HERE, 8);
        assert_eq!(tidied(&mut slots), [ReaderAction::Close(ReaderId(0)), ReaderAction::Open(ReaderId(1), THERE, 50_000)]);
        assert_eq!(slots.queued(), 1, "the first in line is still in line");
    }

    #[test]
    fn neighbours_in_the_queue_share_a_reader_from_the_hindmost_on() {
        let mut slots = Slots::new(1, 100);
        assert_eq!(asked(&mut slots, 1, THERE, 0).len(), 1);
        for (member, offset) in [(2, 6_000), (3, 5_500), (4, 900), (5, 12_000)] {
            assert_eq!(asked(&mut slots, member, HERE, offset), []);
        }
        slots.leave(MemberId(1), THERE);
        // The fourth is too far behind the first in line, and the fifth too far ahead.
        assert_eq!(tidied(&mut slots), [ReaderAction::Close(ReaderId(0)), ReaderAction::Open(ReaderId(1), HERE, 5_500)]);
        assert_eq!(slots.take(NOW_MS, ReaderId(1), Vec::new(), false), [MemberId(2), MemberId(3)]);
        assert_eq!(slots.queued(), 2);
        // Who is in the ring already needs it no more.
        slots.stalled(MemberId(2), HERE, 90_000);
        slots.leave(MemberId(3), HERE);
        assert_eq!(tidied(&mut slots)[1..], [ReaderAction::Open(ReaderId(2), HERE, 900)]);
        assert_eq!(slots.queued(), 1);
    }
}
