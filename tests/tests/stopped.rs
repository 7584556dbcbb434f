//! Whoever is stopped gets nothing on any way in, from one second after the answer on, and everything
//! once that has ended: nothing lost, no gap in the numbers, also if the bridge was killed meanwhile.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a test may fail loudly")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rand::Rng;
use reqwest::Method;
use ryggrad_tests::bridge::Caller;
use ryggrad_tests::channels::{Arrival, Client, Mood, Socket, Way, now_ms};
use ryggrad_tests::events::{Events, Published, key};
use ryggrad_tests::process::Process;
use ryggrad_tests::scenario::{ORGANISATION, OTHER_ORGANISATION, Scenario};
use ryggrad_tests::{random, wait};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

const SETTINGS: &str = "[bridge]\nretry_first_ms = 20\nretry_max_ms = 200\nprobe_ms = 200\nbreaker_first_ms = 50\nbreaker_max_ms = 200\n";
const KEYS: u32 = 40;
/// Events before anyone is stopped: more than the replay brings meanwhile.
const BEFORE: u32 = 600;
/// Ten a second.
const REPLAYED_PER_MINUTE: u32 = 600;
/// Between transactions of ten events.
const PACE_MS: u64 = 200;
/// Whoever lacks fewer events keeps up.
const LAG_MAX: usize = 20;
/// What is promised.
const EFFECTIVE_MS: i64 = 1_000;
/// Deletions with a kill behind them.
const KILLS: usize = 12;
/// How long others must have got events for before silence counts.
const WATCHED_MS: i64 = 3_000;
/// Acts for both organisations.
const SUPPLIER: &str = "923609016";
/// How far ahead a delegation's end, or its beginning, is told.
const AHEAD_MS: i64 = 8_000;

/// Somebody publishes without end, until told to.
struct Load {
    goes_on: Arc<AtomicBool>,
    ends: mpsc::Sender<(&'static str, oneshot::Sender<Published>)>,
    task: JoinHandle<(Events, Vec<Published>)>,
}

impl Load {
    fn start(mut events: Events) -> Self {
        let goes_on = Arc::new(AtomicBool::new(true));
        let more = Arc::clone(&goes_on);
        let (ends, mut ended) = mpsc::channel::<(&str, oneshot::Sender<Published>)>(1);
        let task = tokio::spawn(async move {
            let mut published = Vec::new();
            while more.load(Ordering::Relaxed) {
                if let Ok((unit, done)) = ended.try_recv() {
                    let end = events.end(unit).await;
                    published.push(end.clone());
                    done.send(end).unwrap();
                }
                published.extend(events.publish((0..10).map(|index| key(index % KEYS))).await);
                // The pace is the point here: receivers that acknowledge one by one are to keep up.
                wait::random_moment(PACE_MS).await;
            }
            (events, published)
        });
        Self { goes_on, ends, task }
    }

    /// A unit is deleted, beside the load.
    async fn end_of(&self, unit: &'static str) -> Published {
        let (done, ended) = oneshot::channel();
        self.ends.send((unit, done)).await.unwrap();
        ended.await.unwrap()
    }

    async fn end(self) -> (Events, Vec<Published>) {
        self.goes_on.store(false, Ordering::Relaxed);
        self.task.await.unwrap()
    }
}

/// All who are to be stopped, and one who is not.
struct Stage {
    scenario: Scenario,
    bridge: Process,
    operator: Caller,
    caller: Caller,
    ways: Vec<Client>,
    /// Its receiver takes nothing: it is tried again and again.
    failing: Client,
    /// A replay under way comes to it too.
    replayed: Client,
    other: Client,
}

/// A delegation to the supplier, for a while.
async fn delegate(caller: &Caller, from_ms: i64, until_ms: Option<i64>) -> String {
    let time = |ms| jiff::Timestamp::from_millisecond(ms).unwrap().to_string();
    let body = json!({"supplier": SUPPLIER, "types": ["no.ryggrad.*"], "from": time(from_ms), "until": until_ms.map(time)});
    let (status, made) = caller.post("/v1/delegations", body).await;
    assert_eq!(status, 201, "{made}");
    format!("/v1/delegations/{}", made["id"].as_str().unwrap())
}

/// Whoever acts for an organisation.
async fn supplier(operator: &Caller, organisation: &str) -> Caller {
    let (status, issued) = operator.post("/v1/tokens", json!({"organisation": organisation, "supplier": SUPPLIER})).await;
    assert_eq!(status, 201, "{issued}");
    operator.with_token(issued["token"].as_str())
}

async fn member(operator: &Caller, organisation: &str, standing: &str) {
    let (status, said) = operator.call(Method::PUT, &format!("/v1/members/{organisation}"), Some(json!({"standing": standing}))).await;
    assert!(status == 200 || status == 201, "{said}");
}

/// The change that has suspended the member, once it has.
async fn suspension(operator: &Caller, within_s: u64) -> Value {
    wait::until("the member is suspended", within_s, || async {
        let (_, shown) = operator.get(&format!("/v1/members/{ORGANISATION}")).await;
        (shown["standing"] == "suspended").then_some(())
    })
    .await;
    let (_, history) = operator.get("/v1/access-history?limit=1").await;
    let newest = &history["changes"][0];
    assert_eq!((&newest["id"], &newest["after"]["standing"]), (&json!(ORGANISATION), &json!("suspended")), "{newest}");
    newest.clone()
}

fn is_replayed(arrival: &Arrival) -> bool {
    !arrival.event["replay"].is_null()
}

impl Stage {
    async fn set(events: &mut Events, scenario: Scenario) -> (Self, Vec<Published>) {
        let bridge = scenario.bridge(&["--config", "ryggrad.toml"]);
        let operator = scenario.operator().await;
        member(&operator, ORGANISATION, "active").await;
        let (caller, stranger) = (scenario.subscriber(ORGANISATION).await, scenario.subscriber(OTHER_ORGANISATION).await);
        Self::of(events, scenario, bridge, operator, caller, stranger).await
    }

    /// These two, by whomever.
    async fn of(
        events: &mut Events,
        scenario: Scenario,
        bridge: Process,
        operator: Caller,
        caller: Caller,
        stranger: Caller,
    ) -> (Self, Vec<Published>) {
        let mut published = Vec::new();
        for _ in 0..BEFORE / 60 {
            published.extend(events.publish((0..60).map(|index| key(index % KEYS))).await);
        }
        let wish = json!({"types": ["no.ryggrad.*"], "start": "beginning"});
        let mut ways = Vec::new();
        for way in Way::OVER_HTTP {
            ways.push(Client::subscribe(&caller, way, &wish, Mood::Takes).await);
        }
        let failing = Client::subscribe(&caller, Way::Webhook, &wish, Mood::Loses).await;
        let replayed = Client::subscribe(&caller, Way::Webhook, &wish, Mood::Takes).await;
        let other = Client::subscribe(&stranger, Way::Webhook, &wish, Mood::Takes).await;
        for client in ways.iter().chain([&replayed, &other]) {
            client.has_taken(BEFORE as usize).await;
        }
        let asked = json!({"from": "beginning", "events_per_minute_max": REPLAYED_PER_MINUTE});
        let (status, said) = replayed.call(Method::POST, "/replays", Some(asked)).await;
        assert_eq!(status, 201, "{said}");
        wait::until("the replay is under way", 20, || async { replayed.arrivals().iter().any(is_replayed).then_some(()) }).await;
        (Self { scenario, bridge, operator, caller, ways, failing, replayed, other }, published)
    }

    fn own(&self) -> impl Iterator<Item = &Client> {
        self.ways.iter().chain([&self.failing, &self.replayed])
    }

    /// Others get events until some time after that moment.
    async fn time_passes(&self, from_ms: i64) {
        wait::until("others get events all the while", 60, || async {
            self.other.arrivals().last().is_some_and(|last| last.at_ms >= from_ms + WATCHED_MS).then_some(())
        })
        .await;
    }

    /// Nobody lags: what a slow receiver has not read yet has left long ago.
    async fn keeps_up(&self) {
        for client in &self.ways {
            let what = format!("{:?} keeps up", client.way);
            wait::until(&what, 60, || async { (client.taken() + LAG_MAX >= self.other.taken()).then_some(()) }).await;
        }
    }

    /// Nothing has come within these moments.
    fn silent(&self, from_ms: i64, to_ms: i64) {
        for client in self.own() {
            let late: Vec<(i64, u64, bool)> = client
                .arrivals()
                .iter()
                .filter(|arrival| (from_ms..to_ms).contains(&arrival.at_ms))
                .map(|arrival| (arrival.at_ms - from_ms, arrival.number.1, is_replayed(arrival)))
                .collect();
            assert!(late.is_empty(), "{:?}, {}: milliseconds after the silence was due, {late:?}", client.way, client.id);
        }
    }

    /// Everybody tells why, and refuses what would bring events.
    async fn is_told(&self, reason: &str) {
        for client in self.own() {
            let withheld_by = &client.status().await["withheld_by"];
            assert_eq!(withheld_by["reason"], reason, "{:?}", client.way);
            assert!(withheld_by["detail"].as_str().unwrap().contains(' '));
        }
        let (_, listed) = self.operator.get("/v1/subscriptions?limit=100").await;
        let held = listed["subscriptions"].as_array().unwrap().iter().filter(|one| one["withheld_by"]["reason"] == reason).count();
        assert_eq!(held, self.own().count(), "{listed}");
        wait::until("the gauge tells how many are held", 10, || async {
            let metrics = self.operator.raw(Method::GET, "/metrics", &[], "").await.text;
            metrics.lines().any(|line| line == format!("ryggrad_bridge_subscriptions_held {held}")).then_some(())
        })
        .await;
        let (posted, fetched) = (&self.ways[0], &self.ways[2]);
        let from = json!({"from": "beginning", "preview": true});
        let calls = [
            (posted, Method::POST, "/rewind", Some(json!({"to": "beginning", "preview": true, "count": true}))),
            (posted, Method::POST, "/replays", Some(from)),
            (posted, Method::POST, "/dead-letters/redrive", Some(json!({}))),
            (posted, Method::POST, "/test", None),
            (fetched, Method::GET, "/events", None),
        ];
        for (client, method, below, body) in calls {
            let (status, said) = client.call(method, below, body).await;
            assert_eq!((status, &said["type"]), (403, &json!("urn:ryggrad:error:stopped")), "{below}: {said}");
        }
        let stream = self.caller.stream(&format!("/v1/subscriptions/{}/events", fetched.id)).await.unwrap();
        assert_eq!(stream.status().as_u16(), 403);
        assert_eq!(Socket::open(&self.caller, &self.ways[4].id, "ryggrad.v1", "").await.err(), Some(403));
        for client in &self.ways {
            let refusals = client.refusals();
            match client.way {
                Way::Webhook | Way::Batch => assert_eq!(refusals, [0; 0]),
                Way::Pull | Way::Stream => assert!(refusals.contains(&403), "{:?}: {refusals:?}", client.way),
                // Those that were open, and those who knocked.
                Way::Credit | Way::Plain => assert!(refusals.contains(&4403) && refusals.contains(&403), "{refusals:?}"),
                // Not among them: Kafka itself refuses there.
                Way::Kafka => {}
            }
        }
    }

    /// Killed and started again: it still holds.
    async fn is_killed(&mut self) {
        self.bridge.kill();
        let killed_ms = now_ms();
        self.bridge = self.scenario.bridge(&["--config", "ryggrad.toml"]);
        self.operator.ready().await;
        self.time_passes(now_ms()).await;
        self.silent(killed_ms, now_ms());
    }

    /// It goes on by itself, within a second.
    async fn goes_on(&self, from_ms: i64) {
        let mut first: Vec<(Way, i64)> = Vec::new();
        for client in self.own() {
            let what = format!("{:?} goes on", client.way);
            let at_ms = wait::until(&what, 20, || async { client.arrivals().iter().find(|one| one.at_ms >= from_ms).map(|one| one.at_ms) });
            first.push((client.way, at_ms.await - from_ms));
        }
        println!("goes on after, milliseconds: {first:?}");
        assert!(first.iter().all(|(_, after_ms)| *after_ms <= EFFECTIVE_MS), "{first:?}");
    }

    /// All came, and no number is missing.
    async fn is_whole(&self, published: &[Published]) {
        self.failing.be(Mood::Takes);
        let owed: BTreeSet<&str> = published.iter().map(|one| one.event["id"].as_str().unwrap()).collect();
        for client in self.own().chain([&self.other]) {
            let taken = || {
                let live = client.arrivals().into_iter().filter(|arrival| arrival.taken && !is_replayed(arrival));
                live.map(|arrival| (arrival.id().to_owned(), arrival.number)).collect::<Vec<_>>()
            };
            let missing =
                || owed.len() - taken().iter().map(|(id, _)| id.as_str()).filter(|id| owed.contains(id)).collect::<BTreeSet<_>>().len();
            let whole = wait::held("all that was published comes", 120, || async { (missing() == 0).then_some(()) }).await;
            assert!(whole.is_some(), "{:?} lacks {} of {}", client.way, missing(), owed.len());
            let numbers: BTreeSet<(u64, u64)> = taken().into_iter().map(|(_, number)| number).collect();
            let (first, last) = (*numbers.first().unwrap(), *numbers.last().unwrap());
            assert_eq!((first.0, first.1, last.1), (last.0, 1, numbers.len() as u64), "{:?}: gaps in the numbers", client.way);
            assert_eq!(client.unsigned(), 0);
        }
        wait::until("the replay brings all", 120, || async {
            let (_, all) = self.replayed.call(Method::GET, "/replays", None).await;
            (all["replays"][0]["state"] == "finished" && all["replays"][0]["delivered"] == BEFORE).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_organisation_gets_nothing_until_it_is_active_again() {
    let scenario = Scenario::start().await;
    std::fs::write(scenario.folder.path().join("ryggrad.toml"), SETTINGS).unwrap();
    let mut events = Events::start(&scenario.connection()).await;
    let (mut stage, mut published) = Stage::set(&mut events, scenario).await;
    let load = Load::start(events);
    for (by, standing, killed) in [("operator", "suspended", true), ("operator", "expelled", false), ("register", "suspended", false)] {
        stage.keeps_up().await;
        if by == "operator" {
            member(&stage.operator, ORGANISATION, standing).await;
        } else {
            let end = load.end_of(ORGANISATION).await;
            assert_eq!(suspension(&stage.operator, 1).await["by"]["event"], end.event["id"]);
        }
        let stopped_ms = now_ms();
        stage.time_passes(stopped_ms).await;
        stage.is_told(standing).await;
        stage.silent(stopped_ms + EFFECTIVE_MS, now_ms());
        if killed {
            stage.is_killed().await;
        }
        stage.silent(stopped_ms + EFFECTIVE_MS, now_ms());
        let asked_ms = now_ms();
        member(&stage.operator, ORGANISATION, "active").await;
        stage.silent(stopped_ms + EFFECTIVE_MS, asked_ms);
        stage.goes_on(now_ms()).await;
        let nothing: Vec<Value> = vec![stage.ways[0].status().await["withheld_by"].clone()];
        assert_eq!(nothing, [Value::Null]);
    }
    // Whoever is no member any more still gets what is open: also who was stopped until then.
    member(&stage.operator, ORGANISATION, "suspended").await;
    assert_eq!(stage.operator.delete(&format!("/v1/members/{ORGANISATION}")).await.0, 204);
    stage.goes_on(now_ms()).await;
    published.extend(load.end().await.1);
    println!("{} events", published.len());
    stage.is_whole(&published).await;
    assert_eq!(stage.bridge.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_supplier_gets_nothing_while_it_may_not_act_and_everything_once_it_may() {
    let scenario = Scenario::start().await;
    std::fs::write(scenario.folder.path().join("ryggrad.toml"), SETTINGS).unwrap();
    let mut events = Events::start(&scenario.connection()).await;
    let bridge = scenario.bridge(&["--config", "ryggrad.toml"]);
    let operator = scenario.operator().await;
    let own = scenario.subscriber(ORGANISATION).await;
    let (caller, stranger) = (supplier(&operator, ORGANISATION).await, supplier(&operator, OTHER_ORGANISATION).await);
    // The other organisation's, by the same supplier, goes on all the while but for the supplier's own suspension.
    delegate(&scenario.subscriber(OTHER_ORGANISATION).await, 0, None).await;
    let mut delegation = delegate(&own, 0, None).await;
    let (mut stage, mut published) = Stage::of(&mut events, scenario, bridge, operator, caller, stranger).await;
    let load = Load::start(events);
    for (how, killed) in [("withdrawn", true), ("by the clock", false)] {
        stage.keeps_up().await;
        let stopped_ms = if how == "withdrawn" {
            assert_eq!(own.delete(&delegation).await.0, 204);
            now_ms()
        } else {
            // Another takes over without a moment between; that one ends by itself.
            let ends_ms = now_ms() + AHEAD_MS;
            delegate(&own, now_ms(), Some(ends_ms)).await;
            assert_eq!(own.delete(&delegation).await.0, 204);
            assert_eq!(stage.ways[0].status().await["withheld_by"], Value::Null, "one is enough");
            ends_ms
        };
        stage.time_passes(stopped_ms).await;
        stage.is_told("not-delegated").await;
        if killed {
            stage.silent(stopped_ms + EFFECTIVE_MS, now_ms());
            stage.is_killed().await;
        }
        let begins_ms = now_ms() + if killed { 0 } else { AHEAD_MS };
        delegation = delegate(&own, begins_ms, None).await;
        stage.goes_on(begins_ms.max(now_ms())).await;
        stage.silent(stopped_ms + EFFECTIVE_MS, begins_ms);
    }
    stage.keeps_up().await;
    // Nobody that it acts for gets anything by a suspended supplier; the organisation itself does.
    let direct = Client::subscribe(&own, Way::Webhook, &json!({"types": ["no.ryggrad.*"]}), Mood::Takes).await;
    member(&stage.operator, SUPPLIER, "suspended").await;
    let stopped_ms = now_ms();
    wait::until("the organisation's own goes on", 60, || async {
        direct.arrivals().last().is_some_and(|last| last.at_ms >= stopped_ms + WATCHED_MS).then_some(())
    })
    .await;
    assert_eq!(stage.other.status().await["withheld_by"]["reason"], "supplier-stopped");
    assert_eq!(direct.status().await["withheld_by"], Value::Null);
    stage.silent(stopped_ms + EFFECTIVE_MS, now_ms());
    let of_other = stage.other.arrivals().iter().filter(|arrival| arrival.at_ms >= stopped_ms + EFFECTIVE_MS).count();
    assert_eq!(of_other, 0);
    member(&stage.operator, SUPPLIER, "active").await;
    stage.goes_on(now_ms()).await;
    published.extend(load.end().await.1);
    stage.is_whole(&published).await;
    assert_eq!(stage.bridge.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unit_that_is_deleted_suspends_its_member_once_whenever_the_bridge_is_killed() {
    let mut random = random::seeded("a_unit_that_is_deleted_suspends_its_member_once_whenever_the_bridge_is_killed");
    let scenario = Scenario::start().await;
    let mut events = Events::start(&scenario.connection()).await;
    // Before this bridge has ever run: nobody was a member.
    events.end(ORGANISATION).await;
    let mut bridge = scenario.bridge(&[]);
    let operator = scenario.operator().await;
    member(&operator, ORGANISATION, "active").await;
    member(&operator, OTHER_ORGANISATION, "active").await;
    let standing = async |operator: &Caller, organisation: &str| {
        operator.get(&format!("/v1/members/{organisation}")).await.1["standing"].as_str().unwrap().to_owned()
    };
    let mut early = 0;
    for kill in 1..=KILLS {
        let end = if kill % 3 == 0 {
            // While it is away.
            bridge.kill();
            events.end(ORGANISATION).await
        } else {
            // Before, while or right after the event comes to stand in the topic.
            let killed = async {
                wait::random_moment(random.random_range(0..80)).await;
                bridge.kill();
            };
            tokio::join!(events.end(ORGANISATION), killed).0
        };
        let killed_ms = now_ms();
        bridge = scenario.bridge(&[]);
        operator.ready().await;
        // Before the first subscription runs, and so before it is ready.
        let change = suspension(&operator, 1).await;
        assert_eq!(change["by"]["event"], end.event["id"], "kill {kill}");
        let at: jiff::Timestamp = change["at"].as_str().unwrap().parse().unwrap();
        early += usize::from(at.as_millisecond() > killed_ms);
        // The operator's word stands: the same event suspends nobody twice, nor does a unit's return bring anyone back.
        events.publish([ORGANISATION.to_owned()]).await;
        assert_eq!(standing(&operator, ORGANISATION).await, "suspended");
        member(&operator, ORGANISATION, "active").await;
        bridge.kill();
        bridge = scenario.bridge(&[]);
        operator.ready().await;
        assert_eq!(standing(&operator, ORGANISATION).await, "active", "kill {kill}");
    }
    println!("{early} of {KILLS} kills came before the suspension");
    assert!(early >= KILLS / 3);
    assert_eq!(standing(&operator, OTHER_ORGANISATION).await, "active");
    let metrics = operator.raw(Method::GET, "/metrics", &[], "").await.text;
    assert!(metrics.contains("ryggrad_bridge_members_suspended_total"), "{metrics}");
    assert_eq!(bridge.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bridge_that_starts_while_the_register_never_rests_gets_ready() {
    let scenario = Scenario::start().await;
    let mut events = Events::start(&scenario.connection()).await;
    let never_rests = tokio::spawn(async move {
        for number in 0.. {
            events.publish([key(number % KEYS)]).await;
        }
    });
    for _ in 0..2 {
        let mut bridge = scenario.bridge(&[]);
        scenario.operator().await;
        bridge.kill();
    }
    never_rests.abort();
}
