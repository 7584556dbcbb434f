//! Members, delegations, grants, relations and blocks as a service.
//!
//! Cast: [`decisions`] says whether an event may go to somebody; [`departures`] suspends members whose unit is gone; [`topics`] is where they are kept; [`holds`] tells who delivers that somebody is stopped; what they mean is in `ryggrad_bridge_core::access`.
//! Order of a change: the history's record (acknowledged), the fact's own (acknowledged), memory,
//! holds, answer. So none is missing in the history; a change that is there and did not follow is one that
//! was not answered. All are read before the first subscription runs.
//!
//! Must never log a fact about a person, nor run without one that is stored.

mod decisions;
mod departures;
mod holds;
mod topics;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use jiff::Timestamp;
use ryggrad_bridge_core::access::{Caller, Change, Event, Fact, Kept, Kind, Reason, Sight, Who};
use ryggrad_log::{Appender, Connection, Seal, SealError};
use ryggrad_schemas::identifiers::Organisasjonsnummer;
use tokio::sync::{Mutex, broadcast};

use crate::config::BridgeConfig;
use crate::telemetry::{KindLabel, Telemetry};
pub use decisions::{Decisions, Disclosed, Leave};
pub use departures::Departures;
pub use holds::{Hold, Holds};
use topics::Topics;

/// Turns that may wait for a listener; whoever misses some takes it that they are anyone's.
const TURNS_WAITING_MAX: usize = 256;

/// How often the clock is looked at, which may be set: facts begin and end with time.
const CLOCK_LOOKED_AT_EVERY: Duration = Duration::from_millis(250);

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// It is not what the request took it for.
    #[error("it was changed since")]
    Precondition,
    /// A limit is reached.
    #[error("{0}")]
    Limit(String),
    /// Kafka did not answer.
    #[error("Kafka does not answer; whether anything was changed is open: ask again for the same")]
    Log(#[from] ryggrad_log::Error),
    /// It could not be sealed.
    #[error("it cannot be sealed with this bridge's key")]
    Seal(#[from] SealError),
    /// The bridge stops.
    #[error("the bridge stops; whether anything was changed is open: ask again for the same")]
    Stopped,
}

/// Why the bridge cannot have its facts.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Kafka does not answer, or refuses.
    #[error(transparent)]
    Log(#[from] ryggrad_log::Error),
    /// Some of them are nobody knows what.
    #[error("{count} facts in {topic} cannot be read, and without them nothing may be delivered: restore the key file that sealed them")]
    Unreadable {
        /// Where.
        topic: &'static str,
        /// How many.
        count: usize,
    },
}

/// What was made of a fact.
pub struct Changed {
    /// It was not there before.
    pub is_new: bool,
    /// What it is now; nothing if it is gone.
    pub kept: Option<Kept>,
}

/// Somebody's events may be decided otherwise from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Those of this one, for whom or by whom they are got.
    Of(Organisasjonsnummer),
    /// Anyone's.
    Anyone,
}

impl Turn {
    fn of(fact: &Fact) -> Self {
        let receiver = match fact {
            Fact::Member(member) => Some(member.organisation),
            Fact::Delegation(delegation) => Some(delegation.organisation),
            Fact::Grant(grant) => Some(grant.receiver),
            Fact::Relation(relation) => Some(relation.receiver),
            Fact::Block(block) => block.receiver,
        };
        receiver.map_or(Self::Anyone, Self::Of)
    }
}

/// What is listed: every fact by its kind and id, and how many each organisation has made.
#[derive(Default)]
struct Known {
    facts: BTreeMap<Kind, BTreeMap<String, Kept>>,
    owned: HashMap<(Kind, Option<Organisasjonsnummer>), usize>,
}

impl Known {
    fn get(&self, kind: Kind, id: &str) -> Option<&Kept> {
        self.facts.get(&kind)?.get(id)
    }

    fn set(&mut self, kind: Kind, id: &str, kept: Option<Kept>) -> Option<Kept> {
        let of_kind = self.facts.entry(kind).or_default();
        if let Some(kept) = &kept {
            *self.owned.entry((kind, kept.fact.owner())).or_default() += 1;
        }
        let before = match kept {
            Some(kept) => of_kind.insert(id.to_owned(), kept),
            None => of_kind.remove(id),
        };
        if let Some(before) = &before {
            let owner = (kind, before.fact.owner());
            let left = self.owned.get(&owner).map_or(0, |count| count.saturating_sub(1));
            if left == 0 {
                self.owned.remove(&owner);
            } else {
                self.owned.insert(owner, left);
            }
        }
        before
    }
}

/// All of them.
pub struct Access {
    topics: Topics,
    decisions: Arc<Decisions>,
    known: RwLock<Known>,
    history: RwLock<VecDeque<(i64, Change)>>,
    config: BridgeConfig,
    telemetry: Telemetry,
    holds: Arc<Holds>,
    turns: broadcast::Sender<Turn>,
    /// One change at a time, so that what is checked still holds when it is written.
    changing: Mutex<()>,
}

impl Access {
    /// Reads all of them.
    pub async fn load(
        connection: &Connection,
        appender: Arc<Appender>,
        seal: &Seal,
        config: &BridgeConfig,
        telemetry: Telemetry,
        decisions: Arc<Decisions>,
        holds: Arc<Holds>,
    ) -> Result<Self, LoadError> {
        let topics = Topics::new(appender, Seal::new(&seal.derive("relations and blocks")));
        let mut known = Known::default();
        for kind in Kind::ALL {
            for (id, kept) in topics.load(connection, kind, config.kafka_timeout_ms).await? {
                kept.fact.clone().set(&id, &mut decisions.write());
                known.set(kind, &id, Some(kept));
            }
        }
        let history = topics.history(connection, config.access_history_shown_max, config.kafka_timeout_ms).await?;
        let access = Self {
            topics,
            decisions,
            known: RwLock::new(known),
            history: RwLock::new(history),
            config: config.clone(),
            telemetry,
            holds,
            turns: broadcast::Sender::new(TURNS_WAITING_MAX),
            changing: Mutex::default(),
        };
        Kind::ALL.into_iter().for_each(|kind| access.count(kind));
        Ok(access)
    }

    /// One fact.
    pub fn get(&self, kind: Kind, id: &str) -> Option<Kept> {
        read(&self.known).get(kind, id).cloned()
    }

    /// Those that somebody may see, by their ids.
    pub fn list(&self, kind: Kind, may_see: impl Fn(&Fact) -> bool) -> Vec<(String, Kept)> {
        let known = read(&self.known);
        let all = known.facts.get(&kind).into_iter().flatten();
        all.filter(|(_, kept)| may_see(&kept.fact)).map(|(id, kept)| (id.clone(), kept.clone())).collect()
    }

    /// The newest changes that somebody may see, the newest first.
    pub fn history(&self, sight: Sight) -> Vec<(i64, Change)> {
        let history = read(&self.history);
        history.iter().rev().filter(|(_, change)| sight.concerned(&change.concerns)).cloned().collect()
    }

    /// Whether an organisation is responsible for data of its own.
    pub fn is_controller(&self, organisation: Organisasjonsnummer) -> bool {
        self.decisions.read().member(organisation).is_some_and(|member| member.is_controller)
    }

    /// What tells whether a caller is stopped, now and from now on.
    pub fn hold(&self, caller: Caller) -> Arc<Hold> {
        self.holds.of(caller, |caller| self.stopped(caller))
    }

    /// What stops a caller now.
    pub fn stopped(&self, caller: Caller) -> Option<Reason> {
        self.decisions.read().stopped(caller, Timestamp::now())
    }

    /// Whether a caller acts for itself, or something lets it act for another now.
    pub fn delegated(&self, caller: Caller) -> bool {
        self.decisions.read().delegated(caller, Timestamp::now())
    }

    /// Of these types, those that a caller may not act for now.
    pub fn uncovered<'t>(&self, caller: Caller, types: &'t [String]) -> Vec<&'t str> {
        self.decisions.read().uncovered(caller, types, Timestamp::now())
    }

    /// Weighs everyone anew whenever a fact begins or ends with time, for as long as it is asked to.
    pub async fn keep_time(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(CLOCK_LOOKED_AT_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut weighed_at = Timestamp::MIN;
        loop {
            ticks.tick().await;
            let now = Timestamp::now();
            let turned = self.decisions.read().next_turn(weighed_at).is_some_and(|turn| turn <= now);
            // A clock that was set back has turned too.
            if turned || now < weighed_at {
                self.weigh();
                self.tell(Turn::Anyone);
            }
            weighed_at = now;
        }
    }

    /// Tells whose events may be decided otherwise from now on.
    pub fn turns(&self) -> broadcast::Receiver<Turn> {
        self.turns.subscribe()
    }

    fn tell(&self, turn: Turn) {
        // Nobody has to listen.
        let _ = self.turns.send(turn);
    }

    fn weigh(&self) {
        self.holds.weigh(|caller| self.stopped(caller));
    }

    /// What stands between a caller and a type, whomever its events are about.
    pub fn lacks(&self, caller: Caller, event: Event<'_>, now: Timestamp) -> Vec<Reason> {
        let personal = [Reason::Unattributed, Reason::NoRelation, Reason::BeforeRelation, Reason::Blocked];
        let mut reasons = self.decisions.read().shortcomings(caller, event, now);
        reasons.retain(|reason| !personal.contains(reason));
        reasons
    }

    /// Changes one fact: `judge` sees what is there, and says what is to be there instead.
    pub async fn change(
        self: &Arc<Self>,
        who: Who,
        kind: Kind,
        id: String,
        judge: impl FnOnce(Option<&Fact>) -> Result<Option<Fact>, AccessError> + Send + 'static,
    ) -> Result<Changed, AccessError> {
        let access = Arc::clone(self);
        // Goes on to its end also if the caller has hung up: topics and memory must agree.
        let changed = tokio::spawn(async move {
            let _one = access.changing.lock().await;
            let before = access.get(kind, &id);
            let after = judge(before.as_ref().map(|kept| &kept.fact))?;
            if before.as_ref().map(|kept| &kept.fact) == after.as_ref() {
                return Ok(Changed { is_new: false, kept: before });
            }
            if let Some(fact) = after.as_ref().filter(|_| before.is_none()) {
                access.check_room(fact)?;
            }
            access.write(who, kind, &id, before, after).await
        });
        changed.await.unwrap_or(Err(AccessError::Stopped))
    }

    async fn write(&self, who: Who, kind: Kind, id: &str, before: Option<Kept>, after: Option<Fact>) -> Result<Changed, AccessError> {
        let now = Timestamp::now();
        let before = before.map(|kept| kept.fact);
        let change = Change::new(now, who, kind, id, before.as_ref(), after.as_ref());
        let offset = self.topics.tell(&change).await?;
        self.remember(offset, change);
        let kept = after.map(|fact| Kept { fact, changed_at: now });
        self.topics.put(kind, id, kept.as_ref()).await?;
        {
            let mut facts = self.decisions.write();
            match (&kept, &before) {
                (Some(kept), _) => kept.fact.clone().set(id, &mut facts),
                (None, Some(before)) => before.unset(id, &mut facts),
                (None, None) => {}
            }
        }
        write(&self.known).set(kind, id, kept.clone());
        self.weigh();
        [before.as_ref(), kept.as_ref().map(|kept| &kept.fact)].into_iter().flatten().for_each(|fact| self.tell(Turn::of(fact)));
        self.telemetry.access_changes.inc();
        self.count(kind);
        Ok(Changed { is_new: before.is_none(), kept })
    }

    fn remember(&self, offset: i64, change: Change) {
        let mut history = write(&self.history);
        history.push_back((offset, change));
        while history.len() > self.config.access_history_shown_max {
            history.pop_front();
        }
    }

    fn check_room(&self, fact: &Fact) -> Result<(), AccessError> {
        let (kind, owner, known) = (fact.kind(), fact.owner(), read(&self.known));
        let own = known.owned.get(&(kind, owner)).copied().unwrap_or_default();
        let (own_max, max) = (self.config.access_facts_per_organisation_max, self.config.access_facts_max);
        if owner.is_some() && own >= own_max {
            return Err(AccessError::Limit(format!("an organisation makes at most {own_max} {}s", kind.name())));
        }
        if known.facts.get(&kind).map_or(0, BTreeMap::len) >= max {
            return Err(AccessError::Limit(format!("this bridge holds at most {max} {}s", kind.name())));
        }
        Ok(())
    }

    fn count(&self, kind: Kind) {
        let count = read(&self.known).facts.get(&kind).map_or(0, BTreeMap::len);
        self.telemetry.access_facts.get_or_create(&KindLabel { kind: kind.name() }).set(i64::try_from(count).unwrap_or(i64::MAX));
    }
}

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ryggrad_bridge_core::access::{Grant, Period};

    #[test]
    fn whose_facts_there_are_is_counted_through_changes_and_removals() {
        let (own, receiver) = ("312345676".parse().unwrap(), "923609016".parse().unwrap());
        let grant = |controller| {
            let period = Period { from: Timestamp::UNIX_EPOCH, until: None };
            let fact = Fact::Grant(Grant { controller, receiver, types: Vec::new(), view: "full".to_owned(), period });
            Some(Kept { fact, changed_at: Timestamp::UNIX_EPOCH })
        };
        let mut known = Known::default();
        let count = |known: &Known, owner| known.owned.get(&(Kind::Grant, owner)).copied();
        known.set(Kind::Grant, "a", grant(Some(own)));
        known.set(Kind::Grant, "b", grant(Some(own)));
        known.set(Kind::Grant, "a", grant(Some(own)));
        assert_eq!((count(&known, Some(own)), count(&known, None)), (Some(2), None));
        known.set(Kind::Grant, "b", grant(None));
        assert_eq!((count(&known, Some(own)), count(&known, None)), (Some(1), Some(1)));
        for id in ["a", "b", "b"] {
            known.set(Kind::Grant, id, None);
        }
        assert!(known.owned.is_empty());
    }
}
