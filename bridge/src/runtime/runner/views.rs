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

use super::super::{Fetched, Owed, ReplayProgress, status};
use super::Runner;
use crate::access::Leave;

impl Runner {
    pub(super) fn fetch(&mut self, id: Uuid, after: Option<u64>, limit: usize) -> Option<Fetched> {
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
            let rendered = match leave {
                Leave::Freely => record.as_ref().and_then(|record| record.rendered().ok()),
                // It was changed since the hub has asked: the next look tells.
                Leave::Not => break,
                Leave::Disclosed(disclosed) => record.as_ref().and_then(|record| {
                    let rendered = record.rendered_in(disclosed.extent).ok()?;
                    let id = delivery_id(id, &record.log.topic, delivery.place.partition, delivery.offset, delivery.generation);
                    owed.push(Owed { number: delivery.number, delivery: id, record: Arc::clone(record), disclosed });
                    Some(rendered)
                }),
            };
            let body = rendered.map_or_else(|| structured(&void_notice(id, &number), &number), |event| structured(event, &number));
            events.push((delivery.number, Bytes::from(body)));
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
