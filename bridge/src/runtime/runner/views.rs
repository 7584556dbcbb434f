//! What the task shows: events to be fetched, how a subscription stands, where its cursors are.
//!
//! Must never show as settled what is not on disk.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Bytes;
use ryggrad_bridge_core::cursor::Place;
use ryggrad_bridge_core::delivery::{Numbered, delivery_id, structured, void_notice};
use ryggrad_bridge_core::hub::{Input, Parcel};
use ryggrad_bridge_core::machine::Numbering;
use ryggrad_bridge_core::replay::Tally;
use serde_json::{Value, json};
use uuid::Uuid;

use super::super::{Fetched, Given, Owed, ReplayProgress, status};
use super::Runner;
use crate::access::Leave;

impl Runner {
    /// What may be given of what was not taken, each in some form.
    pub(super) fn fetch<T>(
        &mut self,
        id: Uuid,
        after: Option<u64>,
        limit: usize,
        form: impl Fn(Option<Given>, &(Uuid, Numbered)) -> T,
    ) -> Option<Fetched<T>> {
        let member = self.members.get(&id).copied()?;
        let machine = self.hub.member(member)?.machine();
        let Numbering { epoch, next } = machine.numbering();
        let pending = machine.cursors().flat_map(|(_, cursor)| cursor.pending.values().map(|pending| pending.number));
        let acknowledged = pending.min().unwrap_or(next) - 1;
        let parcels = self.hub.fetch(self.now_ms(), member, after.unwrap_or(acknowledged), limit, &mut self.actions);
        let (mut events, mut owed) = (Vec::with_capacity(parcels.len()), Vec::new());
        let caller = self.clients.get(&member)?.hold.caller;
        for Parcel { delivery, record } in &parcels {
            let number = Numbered { epoch: epoch.into(), number: delivery.number, replay: None };
            let leave = record.as_ref().map_or(Leave::Freely, |record| self.context.decisions.leave(caller, record));
            // It was changed since the hub has asked: the next look tells.
            if leave == Leave::Not {
                break;
            }
            let extent = leave.extent();
            // What nobody can read is nothing.
            let given = record.as_ref().filter(|record| record.rendered_in(extent).is_ok()).map(|record| {
                let own = delivery_id(id, &record.log.topic, delivery.place.partition, delivery.offset, delivery.generation);
                let mut view = None;
                if let Leave::Disclosed(disclosed) = leave {
                    view = Some(disclosed.view);
                    owed.push(Owed { number: delivery.number, delivery: own, record: Arc::clone(record), disclosed });
                }
                Given { delivery: own, record: Arc::clone(record), extent, view }
            });
            events.push((delivery.number, form(given, &(id, number))));
        }
        if parcels.len() < limit {
            self.step(Input::Emptied(member));
        }
        Some(Fetched { epoch, acknowledged, events, owed, put_off: false })
    }

    pub(super) fn status(&self, id: Uuid) -> Option<Value> {
        let id = *self.members.get(&id)?;
        let (client, member) = (self.clients.get(&id)?, self.hub.member(id)?);
        let stored = client.stored.iter().map(|(place, (scanned_to, attached))| {
            let live = self.live_stored.get(place).copied().filter(|_| *attached);
            (*place, live.map_or(*scanned_to, |live| live.max(*scanned_to)))
        });
        let mut shown = status::of_member(member, &stored.collect(), self.context.catalogue);
        let now_ms = jiff::Timestamp::now().as_millisecond();
        shown["oldest_pending_age_ms"] = json!(member.all_kept().map(|record| now_ms - record.log.timestamp_ms).max());
        shown["last_attempt"] = json!(client.log.back().map(status::of_attempt));
        shown["dead_letters"] = json!(client.dead_letters.len());
        shown["endpoint"] =
            json!(member.wish().address.as_ref().and_then(|address| self.hub.gate().endpoint(address)).map(status::of_endpoint));
        shown["withheld_by"] = json!(client.hold.reason().map(status::withheld_by));
        shown["trouble"] = json!(self.troubles.borrow().values().next());
        Some(shown)
    }

    /// How far a replay is. What is numbered was matched; what is not pending any more was delivered,
    /// withheld or set aside.
    pub(super) fn progress(&self, id: Uuid) -> Option<ReplayProgress> {
        let member = self.members.get(&id).copied()?;
        let (client, machine) = (self.clients.get(&member)?, self.hub.member(member)?.machine());
        let (matched, set_aside) = (machine.numbering().next - 1, client.dead_letters.len() as u64);
        let delivered = matched.saturating_sub(machine.pending() as u64 + set_aside);
        Some(ReplayProgress { positions: self.positions(id)?, tally: Tally { matched, delivered, set_aside } })
    }

    /// Where it is in each partition; `None` if it does not run.
    pub(super) fn positions(&self, id: Uuid) -> Option<BTreeMap<Place, i64>> {
        let member = self.members.get(&id).copied()?;
        let places = self.hub.member(member)?.machine().cursors().map(|(place, _)| place);
        Some(places.filter_map(|place| Some((place, self.hub.position(member, place)?))).collect())
    }
}

/// The whole event in structured JSON, or a void notice.
pub(super) fn structured_event(given: Option<Given>, (subscription, number): &(Uuid, Numbered)) -> Bytes {
    let rendered = given.as_ref().and_then(|given| given.record.rendered_in(given.extent).ok());
    Bytes::from(match rendered {
        Some(event) => structured(event, number),
        None => structured(&void_notice(*subscription, number), number),
    })
}
