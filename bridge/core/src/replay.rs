//! A replay: a bounded part of the log once more for one subscription, beside what is live.
//!
//! Checked when it is asked for, and fixed then: where it begins and ends in each partition. Must
//! never widen what the subscription gets: types and filters of both have to let an event through.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::filter::Filters;
use crate::rewind::{Extent, POINTS, Partition, Point, Stretch, parse_flag};
use crate::settings::{Format, OnExhausted, Settings};
use crate::subscription::{Fault, Subscription, TYPES_MAX};
use crate::whole_number::whole_number;

/// Events a minute, unless the request says otherwise.
pub const EVENTS_PER_MINUTE_DEFAULT: u32 = 6_000;
/// What it may say.
pub const EVENTS_PER_MINUTE: RangeInclusive<u64> = 1..=600_000;
/// Attempts of one replay at the same time: half of the subscription's, and no more than these.
pub const IN_FLIGHT_MAX: usize = 8;
/// How long an event of a replay is tried again; then it alone is set aside.
pub const RETRY_HORIZON_MS: u64 = 3_600_000;

const MEMBERS: [&str; 7] = ["from", "to", "types", "filters", "events_per_minute_max", "preview", "count"];

/// A request for a replay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayRequest {
    /// Where it begins.
    pub from: Point,
    /// Where it ends; `None` is the end of the log.
    pub to: Option<Point>,
    /// Of the subscription's types, only these.
    pub types: Vec<String>,
    /// Of its events, only these.
    pub filters: Option<Filters>,
    /// Events a minute at most.
    pub events_per_minute_max: u32,
    /// Only say what it would mean.
    pub preview: bool,
    /// And read the log to count the events.
    pub count: bool,
}

impl ReplayRequest {
    /// Checks a request.
    pub fn parse(body: &Value) -> Result<Self, Vec<Fault>> {
        let Value::Object(members) = body else {
            return Err(vec![Fault::new("", "the body is a JSON object with from")]);
        };
        let mut faults = Fault::unknown_in(members, &MEMBERS);
        let from = match members.get("from") {
            Some(value) => Point::parse(value, "/from", &mut faults),
            None => {
                faults.push(Fault::new("/from", format!("is missing: {POINTS}")));
                None
            }
        };
        let to = match members.get("to") {
            None | Some(Value::Null) => None,
            Some(value) if value == "now" => None,
            Some(value) => Point::parse(value, "/to", &mut faults),
        };
        let types = parse_types(members.get("types"), &mut faults);
        let filters = members.get("filters").and_then(|value| Filters::parse(value, "/filters", &mut faults));
        let given = members.get("events_per_minute_max").filter(|value| !value.is_null());
        let rate = given.map_or(Some(EVENTS_PER_MINUTE_DEFAULT), |value| {
            let rate = whole_number(value).and_then(|rate| u64::try_from(rate).ok());
            rate.filter(|rate| EVENTS_PER_MINUTE.contains(rate)).and_then(|rate| u32::try_from(rate).ok())
        });
        if rate.is_none() {
            let (least, most) = (EVENTS_PER_MINUTE.start(), EVENTS_PER_MINUTE.end());
            faults.push(Fault::new("/events_per_minute_max", format!("is a number from {least} to {most}")));
        }
        let (preview, count) = (parse_flag(members, "preview", false, &mut faults), parse_flag(members, "count", true, &mut faults));
        match (from, rate) {
            (Some(from), Some(events_per_minute_max)) if faults.is_empty() => {
                Ok(Self { from, to, types, filters, events_per_minute_max, preview, count })
            }
            _ => Err(faults),
        }
    }

    /// All of it that narrows, as one list of filters.
    pub fn narrowing(&self) -> Option<Filters> {
        both(type_filter(&self.types), self.filters.clone())
    }
}

fn parse_types(value: Option<&Value>, faults: &mut Vec<Fault>) -> Vec<String> {
    let Some(value) = value.filter(|value| !value.is_null()) else { return Vec::new() };
    let items = value.as_array().filter(|items| (1..=TYPES_MAX).contains(&items.len()));
    let texts =
        items.map(|items| items.iter().filter_map(|item| item.as_str().filter(|text| !text.is_empty()).map(str::to_owned)).collect());
    match texts {
        Some(texts) if items.is_some_and(|items| items.len() == Vec::<String>::len(&texts)) => texts,
        _ => {
            faults.push(Fault::new("/types", format!("is a list of 1 to {TYPES_MAX} event types, each exact or ending in .*")));
            Vec::new()
        }
    }
}

/// Patterns of types as a filter.
fn type_filter(types: &[String]) -> Option<Filters> {
    if types.is_empty() || types.iter().any(|pattern| pattern == "*") {
        return None;
    }
    let one = |pattern: &String| match pattern.strip_suffix('*') {
        Some(prefix) => json!({"prefix": {"type": prefix}}),
        None => json!({"exact": {"type": pattern}}),
    };
    Filters::parse(&json!([{"any": types.iter().map(one).collect::<Vec<_>>()}]), "/types", &mut Vec::new())
}

fn both(one: Option<Filters>, other: Option<Filters>) -> Option<Filters> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.and(&other)),
        (one, other) => one.or(other),
    }
}

/// What a replay reads in each partition of its subscription; nothing where it begins and ends at
/// once. `known` is what there is, with what `from` means there; `to` is what a time to end at means.
/// A moment outside the log is its nearest end; an offset outside is a fault.
pub fn stretches(
    request: &ReplayRequest,
    known: &BTreeMap<Partition, Extent>,
    to: &BTreeMap<Partition, i64>,
) -> Result<Vec<Stretch>, Vec<Fault>> {
    let mut faults = Vec::new();
    for (name, point) in [("from", Some(&request.from)), ("to", request.to.as_ref())] {
        let Some(Point::Offsets(offsets)) = point else { continue };
        for (index, (partition, offset)) in offsets.iter().enumerate() {
            match known.get(partition) {
                None => faults.push(Fault::new(format!("/{name}/{index}"), "is no partition of the subscription's topics")),
                Some(Extent { low, high, .. }) if !(low..=high).contains(&offset) => {
                    faults.push(Fault::new(
                        format!("/{name}/{index}/offset"),
                        format!("is outside the log, which goes from {low} to {high}"),
                    ));
                }
                Some(_) => {}
            }
        }
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    let stretch = |(partition, extent): (&Partition, &Extent)| {
        let (low, high) = (extent.low, extent.high.max(extent.low));
        let until = match &request.to {
            None => high,
            Some(Point::Offsets(offsets)) => offsets.get(partition).copied().unwrap_or(high),
            Some(Point::Beginning) => low,
            Some(Point::Time(_)) => to.get(partition).map_or(high, |offset| (*offset).clamp(low, high)),
        };
        let from = match &request.from {
            Point::Offsets(offsets) => offsets.get(partition).copied().unwrap_or(until),
            Point::Beginning | Point::Time(_) => extent.at_point.clamp(low, high),
        };
        Stretch { partition: partition.clone(), extent: *extent, from: from.min(until), to: until }
    };
    Ok(known.iter().map(stretch).collect())
}

/// How a replay stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReplayState {
    /// It delivers, unless its subscription is stopped.
    Running,
    /// Everything was delivered, withheld or set aside.
    Finished,
    /// Its owner has ended it.
    Cancelled,
}

/// Where a replay begins and ends in a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounds {
    /// Where.
    #[serde(flatten)]
    pub partition: Partition,
    /// The first offset.
    pub from: i64,
    /// The first offset behind it.
    pub to: i64,
}

/// What has become of its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tally {
    /// Matched so far; each has a number.
    pub matched: u64,
    /// Delivered, or withheld after all.
    pub delivered: u64,
    /// Given up, each by itself.
    pub set_aside: u64,
}

/// A replay as the bridge keeps it. Serialised into `ryggrad.replays`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replay {
    /// Assigned by the bridge; its events say it.
    pub id: Uuid,
    /// Whose events, endpoint and settings.
    pub subscription: Uuid,
    /// Only these types; empty for all of the subscription's.
    #[serde(default)]
    pub types: Vec<String>,
    /// Only these events.
    #[serde(default)]
    pub filters: Option<Filters>,
    /// Events a minute at most.
    pub events_per_minute_max: u32,
    /// Every partition of the subscription.
    pub partitions: Vec<Bounds>,
    /// How it stands.
    pub state: ReplayState,
    /// When it was made, RFC 3339.
    pub started_at: String,
    /// When it ended.
    #[serde(default)]
    pub ended_at: Option<String>,
    /// What had become of its events then.
    #[serde(default)]
    pub tally: Option<Tally>,
}

impl Replay {
    /// Where it stands among others: the time at which it began, in nanoseconds since 1970, and the second half of its id.
    pub fn age(&self) -> u128 {
        let began_at_ns = self.started_at.parse().map_or(0, Timestamp::as_nanosecond);
        u128::from(u64::try_from(began_at_ns).unwrap_or_default()) << 64 | u128::from(self.id.as_u64_pair().1)
    }

    /// The subscription that the bridge runs for it: the same owner, endpoint and format, less of
    /// the log, and slower.
    pub fn runs_as(&self, subscription: &Subscription) -> Subscription {
        let narrowing = both(type_filter(&self.types), self.filters.clone());
        let mut from: BTreeMap<String, Vec<i64>> = BTreeMap::new();
        for bounds in &self.partitions {
            from.entry(bounds.partition.topic.clone()).or_default().push(bounds.from);
        }
        Subscription {
            id: self.id,
            filters: both(subscription.filters.clone(), narrowing),
            from,
            delivery: self.pace(&subscription.delivery),
            ..subscription.clone()
        }
    }

    fn pace(&self, delivery: &Settings) -> Settings {
        let events = usize::try_from(self.events_per_minute_max).unwrap_or(usize::MAX);
        let batch_events_max = delivery.batch_events_max.min(events).max(1);
        let together = if delivery.format == Format::Batch { batch_events_max } else { 1 };
        let attempts = u32::try_from((events / together).max(1)).unwrap_or(u32::MAX);
        Settings {
            batch_events_max,
            attempts_per_minute_max: Some(delivery.attempts_per_minute_max.map_or(attempts, |own| own.min(attempts))),
            in_flight_max: Some(delivery.in_flight_max.map_or(IN_FLIGHT_MAX, |own| own / 2).clamp(1, IN_FLIGHT_MAX)),
            on_exhausted: OnExhausted::Skip,
            retry_horizon_ms: delivery.retry_horizon_ms.min(RETRY_HORIZON_MS),
            // The subscription itself is told when its endpoint is gone.
            disable_after_ms: u64::MAX,
            ..*delivery
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subscription::tests::example;

    fn partition(partition: i32) -> Partition {
        Partition { topic: "t".to_owned(), partition }
    }

    fn request(body: Value) -> ReplayRequest {
        ReplayRequest::parse(&body).unwrap()
    }

    #[test]
    fn a_request_says_what_it_wants_and_every_fault_is_told() {
        let asked = request(json!({"from": "beginning", "to": "now", "types": ["a.*", "b"], "filters": [{"sql": "TRUE"}]}));
        assert_eq!((asked.to, asked.events_per_minute_max, asked.preview), (None, EVENTS_PER_MINUTE_DEFAULT, false));
        assert_eq!(request(json!({"from": "beginning", "events_per_minute_max": 6e1})).events_per_minute_max, 60);
        for (body, expected) in [
            (json!(1), vec![""]),
            (json!({}), vec!["/from"]),
            (
                json!({"from": "now", "to": 1, "types": [""], "filters": [{"sql": "LIKE"}], "events_per_minute_max": 0, "x": 1}),
                vec!["/x", "/from", "/to", "/types", "/filters/0/sql", "/events_per_minute_max"],
            ),
        ] {
            let found = ReplayRequest::parse(&body).map_err(|faults| faults.into_iter().map(|fault| fault.pointer).collect::<Vec<_>>());
            assert_eq!(found, Err(expected.into_iter().map(str::to_owned).collect()), "{body}");
        }
    }

    #[test]
    fn stretches_are_cut_to_the_log_and_offsets_outside_are_faults() {
        let extent = |at_point| Extent { low: 10, high: 100, position: 50, at_point };
        let both = |at: [i64; 2]| BTreeMap::from([(partition(0), at[0]), (partition(1), at[1])]);
        let known = |at| both(at).into_iter().map(|(partition, at)| (partition, extent(at))).collect();
        let time = || "2026-01-31T08:00:00Z";
        let found = |body: Value, from: [i64; 2], to: [i64; 2]| {
            let found = stretches(&request(body), &known(from), &both(to));
            found.map(|found| found.iter().map(|one| (one.from, one.to)).collect::<Vec<_>>()).map_err(|faults| faults.len())
        };
        assert_eq!(found(json!({"from": "beginning"}), [10, 10], [0, 0]), Ok(vec![(10, 100), (10, 100)]));
        assert_eq!(found(json!({"from": time(), "to": time()}), [0, 60], [40, 50]), Ok(vec![(10, 40), (50, 50)]));
        assert_eq!(found(json!({"from": time(), "to": "beginning"}), [40, 60], [0, 0]), Ok(vec![(10, 10), (10, 10)]));
        let offset = |partition: i32, offset: i64| json!([{"topic": "t", "partition": partition, "offset": offset}]);
        assert_eq!(found(json!({"from": offset(1, 20), "to": offset(1, 30)}), [0, 0], [0, 0]), Ok(vec![(100, 100), (20, 30)]));
        assert_eq!(found(json!({"from": offset(0, 9), "to": offset(2, 30)}), [0, 0], [0, 0]), Err(2));
    }

    #[test]
    fn it_runs_as_its_subscription_with_less_and_slower() {
        let asked = request(json!({"from": "beginning", "types": ["no.a.*"], "events_per_minute_max": 60}));
        let subscription = Subscription {
            delivery: Settings { format: Format::Batch, in_flight_max: Some(1), attempts_per_minute_max: Some(10), ..Settings::default() },
            ..example()
        };
        let replay = Replay {
            id: Uuid::max(),
            subscription: subscription.id,
            types: asked.types.clone(),
            filters: None,
            events_per_minute_max: asked.events_per_minute_max,
            partitions: vec![Bounds { partition: partition(0), from: 5, to: 9 }, Bounds { partition: partition(1), from: 7, to: 7 }],
            state: ReplayState::Running,
            started_at: String::new(),
            ended_at: None,
            tally: None,
        };
        let stored: Replay = serde_json::from_value(json!(replay)).unwrap();
        assert_eq!(stored, replay);
        let run = replay.runs_as(&subscription);
        assert_eq!((run.id, &run.from), (Uuid::max(), &BTreeMap::from([("t".to_owned(), vec![5, 7])])));
        let Settings { batch_events_max, attempts_per_minute_max, in_flight_max, on_exhausted, .. } = run.delivery;
        assert_eq!((batch_events_max, attempts_per_minute_max, in_flight_max, on_exhausted), (60, Some(1), Some(1), OnExhausted::Skip));
        assert!(run.filters.is_some() && run.sink == subscription.sink);
    }
}
