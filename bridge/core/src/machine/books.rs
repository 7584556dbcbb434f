//! The machine's books: cursors, numbers, and what of them is on disk.
//!
//! Must never let a number be used before the commit that holds it is on disk, nor free a place
//! in the window before the commit that settles it is.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::cursor::{Collapsed, Cursor, LaneKey, Pending, Place};

use super::exchange::{Commit, DeadLetter, Delivery, Numbering};
use super::lanes::{Held, LaneId};
use super::pull::Shelf;

/// One partition.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) cursor: Cursor,
    dirty: bool,
    pub(super) rescan: Option<Rescan>,
    /// Pending since before this machine, and not read again yet.
    pub(super) unread: BTreeSet<i64>,
    /// Void notices that a lane to be read again waits for: its events get other numbers.
    pub(super) awaited: BTreeSet<i64>,
    /// A collapsed lane could take records.
    pub(super) hungry: bool,
}

/// A second look at what lies below `scanned_to`.
#[derive(Debug, Default)]
pub(super) struct Rescan {
    pub(super) from: i64,
    /// Lanes that had no room for a record; all later ones are left too, or the lane would
    /// overtake itself.
    pub(super) refused: HashMap<LaneKey, Refused>,
}

/// What a refused lane waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// Room, or its own recovery.
    Full,
    /// A void notice in `awaited`.
    Void,
}

#[derive(Debug)]
pub(super) struct Books {
    pub(super) parts: BTreeMap<Place, Part>,
    pub(super) pending: usize,
    /// Settled since the last commit was taken, and in the commit under way.
    settled: usize,
    settling: Option<usize>,
    taken: u64,
    persisted: u64,
    pub(super) numbering: Numbering,
    committed_next: u64,
    /// The commit that holds what was set aside last.
    set_aside_in: u64,
    dead_letters: Vec<DeadLetter>,
    changed: bool,
    /// Some partition is hungry.
    pub(super) hungry: bool,
    /// By number, where the receiver fetches.
    pub(super) shelf: Option<Shelf>,
}

impl Part {
    fn new(mut cursor: Cursor) -> Self {
        let resume_at = cursor.resume_at();
        let rescan = (resume_at < cursor.scanned_to).then(|| Rescan { from: resume_at, ..Rescan::default() });
        let unread = cursor.pending.iter().filter(|(_, pending)| !pending.void).map(|(offset, _)| *offset).collect();
        let collapsed = cursor.collapsed.len();
        if rescan.is_none() {
            // Nothing is left behind the marks: these lanes are whole, and nobody would look again.
            cursor.collapsed.retain(|_, lane| lane.parked);
        }
        // What has to be read again is read detached, and the disk must know before the tail moves on.
        let dirty = cursor.collapsed.len() < collapsed || (rescan.is_some() && cursor.attached);
        cursor.attached &= rescan.is_none();
        Self { cursor, dirty, rescan, unread, awaited: BTreeSet::new(), hungry: false }
    }

    /// A lane of the rescan has no room.
    pub(super) fn refuse(&mut self, lane: LaneKey, why: Refused) {
        if let Some(rescan) = &mut self.rescan {
            rescan.refused.entry(lane).or_insert(why);
        }
    }

    pub(super) fn is_refused(&self, lane: LaneKey) -> bool {
        self.rescan.as_ref().is_some_and(|rescan| rescan.refused.contains_key(&lane))
    }
}

impl Books {
    pub(super) fn new(numbering: Numbering, cursors: impl IntoIterator<Item = (Place, Cursor)>) -> Self {
        let parts: BTreeMap<Place, Part> = cursors.into_iter().map(|(place, cursor)| (place, Part::new(cursor))).collect();
        Self {
            pending: parts.values().map(|part| part.cursor.pending.len()).sum(),
            changed: parts.values().any(|part| part.dirty),
            parts,
            settled: 0,
            settling: None,
            taken: 0,
            persisted: 0,
            numbering,
            committed_next: numbering.next,
            set_aside_in: 0,
            dead_letters: Vec::new(),
            hungry: false,
            shelf: None,
        }
    }

    /// Places of the window that are taken: what is settled frees its place when that is on disk.
    pub(super) fn used(&self) -> usize {
        self.pending + self.settled + self.settling.unwrap_or(0)
    }

    /// Places that the next commit frees.
    pub(super) fn settled(&self) -> usize {
        self.settled
    }

    /// Nothing is settled that is not on disk.
    pub(super) fn is_clear(&self) -> bool {
        self.settled == 0 && self.settling.is_none()
    }

    /// A commit is on its way to the disk.
    pub(super) fn is_committing(&self) -> bool {
        self.settling.is_some()
    }

    /// Events set aside that no commit holds yet.
    pub(super) fn unstored_letters(&self) -> usize {
        self.dead_letters.len()
    }

    /// A partition goes back. All that is held of it from now on waits for the commit that says so.
    pub(super) fn rewind(&mut self, place: Place, to: i64) {
        let Some(part) = self.parts.get_mut(&place) else { return };
        *part = Part::new(part.cursor.rewound(to));
        self.dead_letters.retain(|letter| letter.place != place || letter.offset < to);
        self.set_aside_in = self.next_commit();
        self.touch(place);
    }

    /// Whether what an entry says is on disk.
    pub(super) fn holds(&self, held: &Held) -> bool {
        held.commit <= self.persisted
    }

    /// Whether the commit that is out will bring it there.
    pub(super) fn is_bringing(&self, held: &Held) -> bool {
        self.settling.is_some() && held.commit <= self.taken
    }

    /// The commit that will hold what changes now.
    pub(super) fn next_commit(&self) -> u64 {
        self.taken + 1
    }

    pub(super) fn touch(&mut self, place: Place) {
        if let Some(part) = self.parts.get_mut(&place) {
            part.dirty = true;
            self.changed = true;
        }
    }

    /// Moves `scanned_to`. An attached partition is known to be there without being told.
    pub(super) fn scan_to(&mut self, place: Place, to: i64) {
        let Some(part) = self.parts.get_mut(&place) else { return };
        if to > part.cursor.scanned_to {
            part.cursor.scanned_to = to;
            if !part.cursor.attached {
                part.dirty = true;
                self.changed = true;
            }
        }
    }

    /// A new pending entry under the next number.
    pub(super) fn give(&mut self, place: Place, offset: i64) -> Held {
        let number = self.numbering.next;
        self.numbering.next += 1;
        self.pending += 1;
        if let Some(part) = self.parts.get_mut(&place) {
            part.cursor.pending.insert(offset, Pending { number, void: false });
        }
        if let Some(shelf) = &mut self.shelf {
            shelf.add(number, place, offset);
        }
        self.touch(place);
        Held { offset, number, commit: self.next_commit(), attempts: 0, void: false, stays: false }
    }

    /// A pending entry, as it is held when it has been read again. Something that stood before it
    /// in its lane may just have been set aside: it waits until the disk knows of that.
    pub(super) fn again(&mut self, place: Place, offset: i64) -> Option<Held> {
        let Pending { number, void } = *self.parts.get(&place)?.cursor.pending.get(&offset)?;
        Some(Held { offset, number, commit: self.set_aside_in, attempts: 0, void, stays: false })
    }

    /// A held entry as it leaves.
    pub(super) fn delivery(&self, (place, lane): LaneId, held: &Held) -> Delivery {
        let Held { offset, number, void, attempts, .. } = *held;
        let generation = self.parts.get(&place).map_or(0, |part| part.cursor.generation(offset));
        Delivery { place, offset, lane, number, generation, void, attempts: attempts.saturating_add(1) }
    }

    /// The event of a pending entry does not go out any more.
    pub(super) fn void(&mut self, place: Place, held: &mut Held) {
        held.void = true;
        held.attempts = 0;
        held.commit = self.next_commit();
        if let Some(part) = self.parts.get_mut(&place)
            && let Some(pending) = part.cursor.pending.get_mut(&held.offset)
        {
            pending.void = true;
        }
        self.touch(place);
    }

    pub(super) fn settle(&mut self, place: Place, offset: i64) {
        let Some(part) = self.parts.get_mut(&place) else { return };
        let Some(pending) = part.cursor.pending.remove(&offset) else { return };
        if pending.void && part.awaited.remove(&offset) {
            part.hungry = true;
            self.hungry = true;
        }
        part.dirty = true;
        self.changed = true;
        self.pending -= 1;
        self.settled += 1;
        if let Some(shelf) = &mut self.shelf {
            shelf.remove(pending.number);
        }
    }

    pub(super) fn collapse(&mut self, place: Place, lane: LaneKey, mark: i64, parked: bool) {
        if let Some(part) = self.parts.get_mut(&place) {
            part.cursor.collapsed.insert(lane, Collapsed { mark, parked });
        }
        self.touch(place);
    }

    pub(super) fn set_aside(&mut self, letter: DeadLetter) {
        self.dead_letters.push(letter);
        self.set_aside_in = self.next_commit();
        self.touch(letter.place);
    }

    pub(super) fn has_changes(&self) -> bool {
        self.changed
    }

    pub(super) fn take_commit(&mut self) -> Option<Commit> {
        if self.settling.is_some() || !self.changed {
            return None;
        }
        let changed =
            self.parts.iter_mut().filter_map(|(place, part)| std::mem::take(&mut part.dirty).then(|| (*place, part.cursor.clone())));
        let cursors = changed.collect();
        let numbering = (self.numbering.next != self.committed_next).then_some(self.numbering);
        self.committed_next = self.numbering.next;
        self.changed = false;
        self.taken += 1;
        self.settling = Some(std::mem::take(&mut self.settled));
        Some(Commit { cursors, numbering, dead_letters: std::mem::take(&mut self.dead_letters) })
    }

    pub(super) fn persisted(&mut self) {
        self.settling = None;
        self.persisted = self.taken;
    }
}
