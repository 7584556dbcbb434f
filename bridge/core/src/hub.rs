//! All subscriptions at once: one tail, shared records, a machine each.
//!
//! Pure: `step(now, input, &mut actions)`. The tail's records go to those subscriptions alone
//! that want them and go with the tail (`attached`); everyone else reads at an own pace, from the
//! ring where it reaches, else from a reader that is shared with neighbours, and joins the tail
//! where the two meet. Promises: a record costs the subscriptions that want it, not those that
//! exist; what is stored of the tail never runs ahead of the pending sets that it implies; memory
//! is bounded by the ring, the readers and the windows.

mod exchange;
mod feed;
pub mod gate;
mod member;
mod rewind;
pub mod ring;
pub mod slots;
mod types;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::cursor::Place;
use crate::machine;
use crate::outcome::Outcome;
use crate::record::Record;

use exchange::NoLists;
pub use exchange::{Action, Commit, Guard, Input, MemberCommit, MemberId, Newcomer, Parcel, Watch, Wish};
use gate::{Address, Gate, GateLimits};
pub use member::Member;
use ring::Rings;
use slots::Slots;
use types::TypeIndex;
pub use types::wants;
use uuid::Uuid;

/// Limits of everything that subscriptions share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HubLimits {
    /// Bytes of the newest records.
    pub ring_bytes_max: usize,
    /// Readers behind the ring.
    pub readers_max: usize,
    /// Records that each of them keeps.
    pub reader_records_max: usize,
    /// Attempts.
    pub gate: GateLimits,
    /// How long the tail's position may stay unstored while nothing else changes.
    pub live_unstored_ms_max: u64,
    /// How long other changes may while nothing waits for them: a commit costs as much as several
    /// deliveries, however little it holds.
    pub unstored_ms_max: u64,
}

/// The hub.
pub struct Hub {
    limits: HubLimits,
    guard: Box<dyn Guard + Send>,
    watch: Box<dyn Watch + Send>,
    rings: Rings,
    slots: Slots,
    gate: Gate,
    types: TypeIndex,
    members: BTreeMap<MemberId, Member>,
    next_member: u32,
    /// Those that read by themselves and may have room.
    hungry: VecDeque<MemberId>,
    /// Those with something to persist.
    dirty: BTreeSet<MemberId>,
    /// Something waits for the next commit.
    commit_is_urgent: bool,
    committing: Option<Vec<MemberId>>,
    /// What is stored of the tail, or under way to be.
    live_stored: BTreeMap<Place, i64>,
    stored_at_ms: u64,
    wakes: BTreeSet<(u64, MemberId)>,
    /// Replays that have come to their end and of which that is not told yet.
    finished: Vec<MemberId>,
    /// Kept from step to step, so that it need not grow again.
    machine_actions: Vec<machine::Action>,
    /// The same for watch lists that hold a record's key.
    lists: Vec<Uuid>,
}

impl Hub {
    /// A hub whose tail begins at these offsets.
    pub fn new(limits: HubLimits, guard: Box<dyn Guard + Send>, tail: impl IntoIterator<Item = (Place, i64)>) -> Self {
        let rings = Rings::new(limits.ring_bytes_max, tail);
        Self {
            limits,
            guard,
            watch: Box::new(NoLists),
            // Not known: the first commit holds them all.
            live_stored: BTreeMap::new(),
            rings,
            slots: Slots::new(limits.readers_max, limits.reader_records_max),
            gate: Gate::new(limits.gate),
            types: TypeIndex::default(),
            members: BTreeMap::new(),
            next_member: 0,
            hungry: VecDeque::new(),
            dirty: BTreeSet::new(),
            commit_is_urgent: false,
            committing: None,
            stored_at_ms: 0,
            wakes: BTreeSet::new(),
            finished: Vec::new(),
            machine_actions: Vec::new(),
            lists: Vec::new(),
        }
    }

    /// The same with watch lists.
    pub fn watching(self, watch: Box<dyn Watch + Send>) -> Self {
        Self { watch, ..self }
    }

    /// Takes in what happened and says what to do.
    pub fn step(&mut self, now_ms: u64, input: Input, actions: &mut Vec<Action>) {
        match input {
            Input::Tail(records) => records.into_iter().for_each(|record| self.tail(now_ms, &record, actions)),
            Input::Chunk { reader, records, at_end } => {
                let waiting = self.slots.take(now_ms, reader, records, at_end);
                waiting.into_iter().for_each(|id| self.make_hungry(id));
            }
            Input::ReaderLost(reader) => {
                let waiting = self.slots.lost(reader);
                waiting.into_iter().for_each(|id| self.make_hungry(id));
            }
            Input::Attempted { member, address, attempt, outcome, answered, entropy } => {
                // An answer about one event says nothing against the endpoint.
                let heard = if answered && outcome == Outcome::Failed { Outcome::Hopeless } else { outcome };
                self.gate.ended(now_ms, &address, (member, attempt), heard, entropy);
                self.drive(now_ms, member, machine::Input::Attempted { attempt, outcome, entropy }, actions);
            }
            Input::Acknowledged { member, number } => self.drive(now_ms, member, machine::Input::Acknowledged { number }, actions),
            Input::Emptied(member) => self.drive(now_ms, member, machine::Input::Emptied, actions),
            Input::GuardChanged => self.look_again(now_ms, actions),
            Input::Persisted => self.persisted(now_ms, actions),
            Input::Tick => self.wake(now_ms, actions),
        }
        self.settle_down(now_ms, actions);
    }

    /// A subscription begins, or goes on from stored cursors.
    pub fn add(&mut self, now_ms: u64, newcomer: Newcomer, actions: &mut Vec<Action>) -> MemberId {
        let id = MemberId(self.next_member);
        self.next_member += 1;
        let rings = &self.rings;
        let member = Member::new(newcomer, |place| rings.get(place).map(ring::Stretch::end));
        if let Some(address) = &member.wish().address {
            self.gate.join(address);
        }
        if !member.is_replay() {
            self.types.add(id, &member.wish().types, member.wish().watch_list);
        }
        self.members.insert(id, member);
        self.make_hungry(id);
        // Whatever waits in the cursors may be due.
        self.drive(now_ms, id, machine::Input::Tick, actions);
        self.settle_down(now_ms, actions);
        id
    }

    /// A subscription goes on with other wishes; they are in force when this returns.
    pub fn change(&mut self, now_ms: u64, id: MemberId, wish: Wish, actions: &mut Vec<Action>) {
        let Some(member) = self.members.get_mut(&id) else { return };
        let before = std::mem::replace(&mut member.wish, wish.clone());
        let is_replay = member.is_replay();
        if !is_replay {
            self.types.remove(id);
            self.types.add(id, &wish.types, wish.watch_list);
        }
        if before.address != wish.address {
            let left = before.address.map(|address| self.gate.leave(&address, id)).unwrap_or_default();
            if let Some(address) = &wish.address {
                self.gate.join(address);
                left.into_iter().for_each(|attempt| self.gate.queue(address, id, attempt, is_replay));
            }
        } else if let Some(address) = &wish.address {
            self.gate.forgive(address);
        }
        self.drive(now_ms, id, machine::Input::Settings(wish.limits, wish.policy), actions);
        self.drive(now_ms, id, machine::Input::Mode(wish.mode), actions);
        self.settle_down(now_ms, actions);
    }

    /// Whoever a subscription is for was stopped, or is so no longer: nothing leaves until then, and
    /// nothing is lost. Beside its mode, which is its owner's.
    pub fn hold(&mut self, now_ms: u64, id: MemberId, held: bool, actions: &mut Vec<Action>) {
        self.drive(now_ms, id, machine::Input::Held(held), actions);
        if self.members.get(&id).is_some_and(|member| member.wish.address.is_none()) {
            actions.push(Action::Available(id));
        }
        self.settle_down(now_ms, actions);
    }

    /// A subscription ends; what is under way is nobody's any more.
    pub fn remove(&mut self, id: MemberId) {
        let Some(member) = self.members.remove(&id) else { return };
        if let Some(address) = &member.wish.address {
            self.gate.leave(address, id);
        }
        self.types.remove(id);
        self.dirty.remove(&id);
        member.detached.keys().for_each(|place| self.slots.leave(id, *place));
        if let Some(due_ms) = member.wake_at_ms {
            self.wakes.remove(&(due_ms, id));
        }
    }

    /// A parked lane is taken up again.
    pub fn redrive(&mut self, now_ms: u64, id: MemberId, letter: machine::DeadLetter, actions: &mut Vec<Action>) {
        self.drive(now_ms, id, machine::Input::Redrive { place: letter.place, lane: letter.lane }, actions);
        self.settle_down(now_ms, actions);
    }

    /// So many events are set aside and stored.
    pub fn set_dead_letters(&mut self, id: MemberId, dead_letters: usize) {
        if let Some(member) = self.members.get_mut(&id) {
            member.machine.set_dead_letters(dead_letters);
        }
    }

    /// Up to `limit` persisted deliveries with higher numbers, for a receiver that fetches; fewer where one must
    /// stay, until the notice in its place is on disk.
    pub fn fetch(&mut self, now_ms: u64, id: MemberId, after: u64, limit: usize, actions: &mut Vec<Action>) -> Vec<Parcel> {
        let Some(member) = self.members.get(&id).filter(|member| !member.machine.is_held()) else { return Vec::new() };
        let mut parcels: Vec<Parcel> = member.machine.available(after).take(limit).map(|delivery| member.parcel(delivery)).collect();
        // The last look before they leave, as in `begin`.
        let staying = self.staying(member, &parcels);
        if let Some(first) = staying.last() {
            let shown = parcels.iter().take_while(|parcel| (parcel.delivery.place, parcel.delivery.offset) != *first).count();
            parcels.truncate(shown);
        }
        self.withhold_all(now_ms, id, staying, actions);
        self.settle_down(now_ms, actions);
        parcels
    }

    /// What has changed, to be persisted together, when it is due or somebody asks for it at once;
    /// at most one commit is out at a time.
    pub fn take_commit(&mut self, now_ms: u64, at_once: bool) -> Option<Commit> {
        let is_due = at_once || self.commit_is_urgent || self.commit_due_ms().is_some_and(|due_ms| now_ms >= due_ms);
        if !is_due || self.committing.is_some() {
            return None;
        }
        self.commit_is_urgent = false;
        self.stored_at_ms = now_ms;
        let mut commit = Commit::default();
        for (place, end) in self.rings.ends() {
            if self.live_stored.insert(place, end) != Some(end) {
                commit.live.push((place, end));
            }
        }
        for id in std::mem::take(&mut self.dirty) {
            let taken = self.members.get_mut(&id).and_then(|member| member.machine.take_commit());
            if let Some(machine::Commit { cursors, numbering, dead_letters }) = taken {
                commit.members.push((id, MemberCommit { cursors, numbering, dead_letters }));
            }
        }
        if commit == Commit::default() {
            return None;
        }
        self.committing = Some(commit.members.iter().map(|(id, _)| *id).collect());
        Some(commit)
    }

    /// No attempt is begun any more: the bridge is about to end.
    pub fn close(&mut self) {
        self.gate.close();
    }

    /// When `Tick` and a look for a commit are due.
    pub fn wake_at_ms(&self) -> Option<u64> {
        if !self.hungry.is_empty() {
            return Some(0);
        }
        let member = self.wakes.first().map(|(due_ms, _)| *due_ms);
        [member, self.gate.wake_at_ms(), self.slots.wake_at_ms(), self.commit_due_ms()].into_iter().flatten().min()
    }

    /// When what has changed is to be persisted at the latest. The tail's position changes all the
    /// time.
    fn commit_due_ms(&self) -> Option<u64> {
        let unstored_ms_max = if self.dirty.is_empty() { self.limits.live_unstored_ms_max } else { self.limits.unstored_ms_max };
        self.committing.is_none().then(|| self.stored_at_ms.saturating_add(unstored_ms_max))
    }

    /// A subscription.
    pub fn member(&self, id: MemberId) -> Option<&Member> {
        self.members.get(&id)
    }

    /// Attempts and endpoints.
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// The newest records.
    pub fn rings(&self) -> &Rings {
        &self.rings
    }

    /// Readers behind the ring.
    pub fn slots(&self) -> &Slots {
        &self.slots
    }

    fn tail(&mut self, now_ms: u64, record: &Arc<Record>, actions: &mut Vec<Action>) {
        if !self.rings.push(record) || record.echo {
            return;
        }
        let wanting = self.types.wanting(record.ce_type());
        for id in &wanting.any_key {
            self.show(now_ms, *id, record, actions);
        }
        if wanting.listed_keys.is_empty() {
            return;
        }
        let mut lists = std::mem::take(&mut self.lists);
        self.watch.holding(record, &mut lists);
        for id in lists.drain(..).filter_map(|list| wanting.listed_keys.get(&list)).flatten() {
            self.show(now_ms, *id, record, actions);
        }
        self.lists = lists;
    }

    /// A record of the tail that a subscription wants, filters aside.
    fn show(&mut self, now_ms: u64, id: MemberId, record: &Arc<Record>, actions: &mut Vec<Action>) {
        // Who reads by itself sees the record later, and is asked then.
        let guard = &self.guard;
        let wanted =
            self.members.get_mut(&id).is_some_and(|member| member.is_attached(record.place) && member.passes(record, guard.as_ref()));
        if wanted && !self.offer(now_ms, id, record, actions) {
            self.detach(now_ms, id, record.place, record.stop_at(), actions);
        }
    }

    /// One step of a subscription's machine.
    fn drive(&mut self, now_ms: u64, id: MemberId, input: machine::Input, actions: &mut Vec<Action>) {
        self.drive_with(now_ms, id, input, None, actions);
    }

    /// The same, with the record that the machine may want kept.
    fn drive_with(&mut self, now_ms: u64, id: MemberId, input: machine::Input, record: Option<&Arc<Record>>, actions: &mut Vec<Action>) {
        let owner = self.members.get(&id).and_then(|member| member.owner);
        let lent = owner.and_then(|owner| self.lend(now_ms, owner, actions));
        let Some(member) = self.members.get_mut(&id) else { return };
        let mut out = std::mem::take(&mut self.machine_actions);
        member.machine.lend(lent);
        member.machine.step(now_ms, input, &mut out);
        let left = member.machine.lent();
        let hungry = makes_room(input) && !member.detached.is_empty() && member.has_room();
        for action in out.drain(..) {
            self.act(id, action, record, actions);
        }
        self.machine_actions = out;
        if let (Some(owner), Some(left)) = (owner.and_then(|owner| self.members.get_mut(&owner)), left) {
            owner.machine.set_rate(left);
        }
        if hungry {
            self.make_hungry(id);
        }
        self.note(id);
    }

    /// What is left of a subscription's rate for its replays, after it has taken what it wants now.
    fn lend(&mut self, now_ms: u64, owner: MemberId, actions: &mut Vec<Action>) -> Option<machine::Rate> {
        if self.members.get(&owner)?.machine.wake_at_ms().is_some_and(|due_ms| due_ms <= now_ms) {
            self.drive(now_ms, owner, machine::Input::Tick, actions);
        }
        Some(self.members.get(&owner)?.machine.rate())
    }

    fn act(&mut self, id: MemberId, action: machine::Action, record: Option<&Arc<Record>>, actions: &mut Vec<Action>) {
        let Some(member) = self.members.get_mut(&id) else { return };
        match action {
            machine::Action::Keep { place, offset, number } => {
                if let Some(record) = record {
                    member.kept.insert((place, offset), Arc::clone(record));
                }
                // What an earlier life has numbered is there as soon as it is read again: no commit tells of it.
                if member.wish.address.is_none() && member.machine.available(number - 1).next().is_some_and(|next| next.number == number) {
                    actions.push(Action::Available(id));
                }
            }
            machine::Action::Attempt { attempt, deliveries } => {
                let Some(address) = member.wish.address.clone() else { return };
                member.attempts.insert(attempt, deliveries);
                self.gate.queue(&address, id, attempt, member.is_replay());
            }
            machine::Action::Forget { place, offset } => {
                member.kept.remove(&(place, offset));
            }
            machine::Action::Rescan { place } => member.rescans.push(place),
            machine::Action::Rewound { place, to } => self.go_back(id, place, to, actions),
            machine::Action::Disable { reason } => {
                let address = member.wish.address.clone();
                actions.push(Action::Disable { member: id, reason, address });
            }
        }
    }

    /// Keeps track of what a member needs after its machine has moved.
    fn note(&mut self, id: MemberId) {
        let Some(member) = self.members.get_mut(&id) else { return };
        if member.machine.has_changes() {
            self.dirty.insert(id);
            self.commit_is_urgent |= member.machine.waits_for_commit();
        }
        let due_ms = [member.machine.wake_at_ms(), member.retry_at_ms].into_iter().flatten().min();
        if member.wake_at_ms != due_ms {
            if let Some(before_ms) = std::mem::replace(&mut member.wake_at_ms, due_ms) {
                self.wakes.remove(&(before_ms, id));
            }
            if let Some(due_ms) = due_ms {
                self.wakes.insert((due_ms, id));
            }
        }
        if member.is_replay() && !member.is_finished && member.is_done() {
            member.is_finished = true;
            self.finished.push(id);
        }
        if !member.rescans.is_empty() {
            self.make_hungry(id);
        }
    }

    fn persisted(&mut self, now_ms: u64, actions: &mut Vec<Action>) {
        for id in self.committing.take().unwrap_or_default() {
            self.drive(now_ms, id, machine::Input::Persisted, actions);
            if self.members.get(&id).is_some_and(|member| member.wish.address.is_none()) {
                actions.push(Action::Available(id));
            }
        }
    }

    fn wake(&mut self, now_ms: u64, actions: &mut Vec<Action>) {
        while let Some((due_ms, id)) = self.wakes.first().copied()
            && due_ms <= now_ms
        {
            self.wakes.remove(&(due_ms, id));
            if let Some(member) = self.members.get_mut(&id) {
                (member.wake_at_ms, member.retry_at_ms) = (None, None);
            }
            self.drive(now_ms, id, machine::Input::Tick, actions);
        }
    }

    /// Withholds what is kept and must not leave any more.
    fn look_again(&mut self, now_ms: u64, actions: &mut Vec<Action>) {
        let guard = &self.guard;
        let mut found: Vec<(MemberId, Place, i64)> = Vec::new();
        for (id, member) in &self.members {
            let withheld = member.kept.values().filter(|record| guard.withholds(record.leaving()));
            found.extend(withheld.map(|record| (*id, record.place, record.offset())));
        }
        // From behind, so that none of them is attempted because the one before it was settled.
        found.sort_unstable_by_key(|(_, _, offset)| std::cmp::Reverse(*offset));
        for (id, place, offset) in found {
            self.withhold(now_ms, id, place, offset, actions);
        }
    }

    fn withhold(&mut self, now_ms: u64, id: MemberId, place: Place, offset: i64, actions: &mut Vec<Action>) {
        let Some(member) = self.members.get(&id) else { return };
        let Some(lane) = member.kept.get(&(place, offset)).map(|record| record.lane_in(member.wish.order)) else { return };
        self.drive(now_ms, id, machine::Input::Withhold { place, offset, lane }, actions);
    }

    /// Feeds, opens the gate, tidies: everything that one input has set in motion.
    fn settle_down(&mut self, now_ms: u64, actions: &mut Vec<Action>) {
        self.feed_all(now_ms, actions);
        while let Some((address, id, attempt)) = self.gate.next(now_ms) {
            self.begin(now_ms, address, id, attempt, actions);
        }
        actions.extend(self.finished.drain(..).map(Action::Finished));
    }

    /// An attempt has come through the gate: the last look before it leaves.
    fn begin(&mut self, now_ms: u64, address: Address, id: MemberId, attempt: u64, actions: &mut Vec<Action>) {
        let mut outcome = Outcome::Unsent;
        if let Some(deliveries) = self.members.get_mut(&id).and_then(|member| member.attempts.remove(&attempt))
            // It may have waited here since before the receiver asked for a pause.
            && let Some(member) = self.members.get(&id).filter(|member| member.machine.may_attempt(now_ms))
        {
            let parcels: Vec<Parcel> = deliveries.into_iter().map(|delivery| member.parcel(delivery)).collect();
            let staying = self.staying(member, &parcels);
            if staying.is_empty() {
                actions.push(Action::Attempt { member: id, address, attempt, parcels });
                return;
            }
            if parcels.len() == 1 {
                outcome = Outcome::Withheld;
            } else {
                // The notice in its place leaves when it is on disk: somebody may be let have the event again. The others go on.
                self.withhold_all(now_ms, id, staying, actions);
            }
        }
        self.gate.ended(now_ms, &address, (id, attempt), outcome, 0);
        self.drive(now_ms, id, machine::Input::Attempted { attempt, outcome, entropy: 0 }, actions);
    }

    /// What was about to leave and must not, from behind. Asked once for each: the answer may be another the next moment.
    fn staying(&self, member: &Member, parcels: &[Parcel]) -> Vec<(Place, i64)> {
        let stays = |parcel: &&Parcel| parcel.record.as_ref().is_some_and(|record| self.guard.stops(member.wish.caller, record));
        parcels.iter().rev().filter(stays).map(|parcel| (parcel.delivery.place, parcel.delivery.offset)).collect()
    }

    fn withhold_all(&mut self, now_ms: u64, id: MemberId, staying: Vec<(Place, i64)>, actions: &mut Vec<Action>) {
        staying.into_iter().for_each(|(place, offset)| self.withhold(now_ms, id, place, offset, actions));
    }
}

/// What may have made room in a window.
fn makes_room(input: machine::Input) -> bool {
    use machine::Input::{Acknowledged, Attempted, Emptied, Persisted, Redrive, Settings, Tick};
    matches!(input, Attempted { .. } | Persisted | Emptied | Acknowledged { .. } | Settings(..) | Redrive { .. } | Tick)
}
