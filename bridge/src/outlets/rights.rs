//! Who may read a receiver's topic, as Kafka itself has it: the same rule as the operator's `access apply`, in force at once.
//!
//! Where the brokers let everybody do everything, there is nothing to be set. Must never touch another topic's rights, nor
//! what a receiver needs beside (its groups) once it is there.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use jiff::Timestamp;
use ryggrad_bridge_core::access::kafka_access::{Change, Outlet, of_outlet};
use ryggrad_bridge_core::access::{Fact, Kind};
use ryggrad_log::access_control::AccessControl;
use ryggrad_log::{Connection, Error};
use tokio::sync::Mutex;
use uuid::Uuid;

use crate::access::Access;

/// Sets them.
pub(super) struct Rights {
    connection: Connection,
    /// The brokers have no authorizer.
    are_open: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    control: Option<AccessControl>,
    /// What was set last, by subscription.
    set: HashMap<Uuid, Vec<Change>>,
}

impl Rights {
    pub(super) fn new(connection: Connection) -> Self {
        Self { connection, are_open: AtomicBool::new(false), state: Mutex::default() }
    }

    /// Makes them what they are to be now.
    pub(super) async fn set(&self, access: &Access, outlet: &Outlet) -> Result<(), Error> {
        let (mut members, mut delegations) = (Vec::new(), Vec::new());
        let is_party = |who| outlet.parties().any(|party| party == who);
        let facts = access.list(Kind::Member, |fact| matches!(fact, Fact::Member(member) if is_party(member.organisation)));
        let further = access.list(Kind::Delegation, |fact| matches!(fact, Fact::Delegation(made) if made.organisation == outlet.receiver));
        for (_, kept) in facts.into_iter().chain(further) {
            match kept.fact {
                Fact::Member(member) => members.push(member),
                Fact::Delegation(delegation) => delegations.push(delegation),
                _ => {}
            }
        }
        self.carry_out(outlet, of_outlet(outlet, &members, &delegations, Timestamp::now())).await
    }

    /// Nobody reads it any more.
    pub(super) async fn revoke(&self, outlet: &Outlet) -> Result<(), Error> {
        self.carry_out(outlet, of_outlet(outlet, &[], &[], Timestamp::now())).await?;
        self.state.lock().await.set.remove(&outlet.subscription);
        Ok(())
    }

    async fn carry_out(&self, outlet: &Outlet, changes: Vec<Change>) -> Result<(), Error> {
        if self.are_open.load(Ordering::Relaxed) {
            return Ok(());
        }
        let mut state = self.state.lock().await;
        if state.set.get(&outlet.subscription) == Some(&changes) {
            return Ok(());
        }
        let mut control = match state.control.take() {
            Some(control) => control,
            None => AccessControl::connect(&self.connection).await?,
        };
        match control.apply(&changes).await {
            Ok(()) => {
                state.control = Some(control);
                state.set.insert(outlet.subscription, changes);
                Ok(())
            }
            Err(error) if error.lacks_authorizer() => {
                self.are_open.store(true, Ordering::Relaxed);
                Ok(())
            }
            Err(error) => {
                // A connection that was kept may have broken since.
                state.set.remove(&outlet.subscription);
                Err(error)
            }
        }
    }
}
