//! Going back, and what that would mean.
//!
//! The cursor store owns where a subscription is: nothing of a rewind stands in a topic.

use std::collections::BTreeMap;
use std::time::Instant;

use ryggrad_bridge_core::cursor::Place;
use ryggrad_bridge_core::rewind::{Extent, Partition, Point, Stretch, stretches};
use ryggrad_bridge_core::subscription::Subscription;
use ryggrad_log::Moment;

use super::{ChangeError, Subscriptions};
use crate::counting::{Counted, Selection, count};

impl Subscriptions {
    /// What going back to a point means for a subscription, partition by partition.
    pub async fn plan_rewind(&self, subscription: &Subscription, to: &Point) -> Result<Vec<Stretch>, ChangeError> {
        let known = self.extents(subscription, to).await?;
        stretches(to, &known).map_err(ChangeError::Invalid)
    }

    /// Goes back; on disk when it returns.
    pub async fn rewind(&self, subscription: &Subscription, stretches: &[Stretch]) -> Result<(), ChangeError> {
        let targets = stretches.iter().filter(|stretch| stretch.from < stretch.to);
        let targets: Vec<(Place, i64)> = targets.filter_map(|stretch| Some((self.place(&stretch.partition)?, stretch.from))).collect();
        // Nothing is further than that: it is as it was asked for.
        self.engine.rewind(subscription.id, targets).await.map(|_| ()).ok_or(ChangeError::Stopped)
    }

    /// Goes back to these offsets, as far as the log and the subscription begin before them; on disk when it returns.
    pub async fn go_back(&self, subscription: &Subscription, to: &BTreeMap<Place, i64>) -> Result<(), ChangeError> {
        let mut targets = Vec::new();
        for (topic, from) in &subscription.from {
            let Some(id) = self.context.catalogue.topic(topic).map(|topic| topic.id) else { continue };
            if !to.keys().any(|place| place.topic == id) {
                continue;
            }
            let lows = self.offsets_of(topic, Moment::Beginning).await?;
            for (partition, (low, from)) in (0..).zip(lows.iter().zip(from)) {
                let place = Place { topic: id, partition };
                targets.extend(to.get(&place).map(|offset| (place, *offset.max(low).max(from))));
            }
        }
        self.engine.rewind(subscription.id, targets).await.map(|_| ()).ok_or(ChangeError::Stopped)
    }

    /// How many events of stretches a subscription would get.
    pub async fn count(&self, stretches: &[Stretch], selection: Selection) -> Result<Counted, ChangeError> {
        let began = Instant::now();
        // Reading costs the broker: two at a time are enough.
        let _turn = self.counting.acquire().await.map_err(|_| ChangeError::Stopped)?;
        let counted = count(&self.context, stretches, selection).await?;
        let telemetry = &self.context.telemetry;
        telemetry.preview_seconds.observe(began.elapsed().as_secs_f64());
        telemetry.preview_records.inc_by(counted.read);
        telemetry.previews_cut_short.inc_by(u64::from(!counted.is_whole));
        Ok(counted)
    }

    /// Every partition of a subscription, with what a point means there.
    pub(super) async fn extents(&self, subscription: &Subscription, point: &Point) -> Result<BTreeMap<Partition, Extent>, ChangeError> {
        let positions = self.engine.positions(subscription.id).await.ok_or(ChangeError::Stopped)?;
        let mut known = BTreeMap::new();
        for topic in subscription.from.keys() {
            let [low, high] = [self.offsets_of(topic, Moment::Beginning).await?, self.offsets_of(topic, Moment::End).await?];
            let at_point = match point {
                Point::Time(time) => self.offsets_of(topic, Moment::Time(time.as_millisecond())).await?,
                Point::Beginning | Point::Offsets(_) => low.clone(),
            };
            for (partition, ((low, high), at_point)) in (0..).zip(low.into_iter().zip(high).zip(at_point)) {
                let partition = Partition { topic: topic.clone(), partition };
                let Some(position) = self.place(&partition).and_then(|place| positions.get(&place).copied()) else { continue };
                known.insert(partition, Extent { low, high, position, at_point });
            }
        }
        Ok(known)
    }

    pub(super) fn place(&self, partition: &Partition) -> Option<Place> {
        Some(Place { topic: self.context.catalogue.topic(&partition.topic)?.id, partition: partition.partition })
    }
}
