//! Protected data, with the type that is for trials: what is shut is not there, what is open comes to whoever may have
//! it and to nobody else, and whatever takes that away is in force within a second, on every way in.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a test may fail loudly")]

use std::collections::BTreeSet;

use reqwest::Method;
use ryggrad_log::topics;
use ryggrad_tests::bridge::Caller;
use ryggrad_tests::channels::{Arrival, Client, Mood, Socket, Way, now_ms};
use ryggrad_tests::events::{CE_TYPE, Events, key};
use ryggrad_tests::measurements::{Measured, Measurements, TOPIC};
use ryggrad_tests::process::{self, Process};
use ryggrad_tests::scenario::{ORGANISATION, OTHER_ORGANISATION, Scenario};
use ryggrad_tests::wait;
use serde_json::{Value, json};

const SETTINGS: &str = "[bridge]\nretry_first_ms = 20\nretry_max_ms = 200\nprobe_ms = 200\nbreaker_first_ms = 50\nbreaker_max_ms = 200\n";
const TYPE: &str = "no.ryggrad.proeve.maaling.v1";
const CONTROLLER: &str = "310000027";
/// Acts for the organisation.
const SUPPLIER: &str = "923609016";
/// Has all that an organisation needs, and follows nobody.
const STRANGER: &str = "310000019";
const PATIENT: &str = "pasient-1";
/// Nobody follows this one.
const UNFOLLOWED: &str = "pasient-2";
/// Measurements before anyone subscribes: more than the replay brings meanwhile.
const BEFORE: usize = 300;
/// Four a second.
const REPLAYED_PER_MINUTE: u32 = 240;
/// Between transactions of one measurement of each patient.
const PACE_MS: u64 = 150;
/// What is promised.
const EFFECTIVE_MS: i64 = 1_000;
/// How long others must have got events for before silence counts.
const WATCHED_MS: i64 = 2_200;

async fn make(caller: &Caller, kind: &str, body: Value) -> String {
    let (status, made) = caller.post(&format!("/v1/{kind}"), body).await;
    assert_eq!(status, 201, "{made}");
    format!("/v1/{kind}/{}", made["id"].as_str().unwrap())
}

async fn gone(caller: &Caller, path: &str) {
    assert_eq!(caller.delete(path).await.0, 204, "{path}");
}

/// A member with everything that the operator enters.
async fn member(operator: &Caller, organisation: &str, standing: &str) {
    let body = json!({
        "standing": standing, "is_controller": organisation == CONTROLLER,
        "agreement": {"reference": "A-1", "from": "2020-01-01T00:00:00Z"},
        "bases": [{"types": [TYPE], "law": "pasientjournalloven § 19", "from": "2020-01-01T00:00:00Z"}],
        "normen": {"version": "7.0", "signer": "Kari Nordmann", "from": "2020-01-01T00:00:00Z", "until": "2099-01-01T00:00:00Z"},
    });
    let (status, said) = operator.call(Method::PUT, &format!("/v1/members/{organisation}"), Some(body)).await;
    assert!(status == 200 || status == 201, "{said}");
}

async fn grant(controller: &Caller, receiver: &str) -> String {
    let body = json!({"receiver": receiver, "types": [TYPE], "view": "full", "from": "2020-01-01T00:00:00Z"});
    make(controller, "grants", body).await
}

async fn relation(controller: &Caller, receiver: &str) -> String {
    let body = json!({"receiver": receiver, "subject": PATIENT, "from": "2020-01-01T00:00:00Z"});
    make(controller, "relations", body).await
}

async fn delegation(organisation: &Caller) -> String {
    make(organisation, "delegations", json!({"supplier": SUPPLIER, "types": ["no.ryggrad.*"]})).await
}

fn catalogue_of(asyncapi: &Value) -> BTreeSet<&str> {
    asyncapi["channels"].as_object().unwrap().keys().map(String::as_str).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_shut_is_not_there_and_what_was_open_waits_without_a_gap() {
    let scenario = Scenario::start().await;
    let mut events = Events::start(&scenario.connection()).await;
    let mut bridge = scenario.bridge(&[]);
    let own = scenario.subscriber(ORGANISATION).await;
    let operator = scenario.operator().await;
    assert_eq!(operator.get("/readyz").await.1["trial"], false);
    assert!(!topics::list(&scenario.connection()).await.unwrap().contains_key(TOPIC));
    assert!(!catalogue_of(&operator.get("/asyncapi.json").await.1).contains(TOPIC));
    for types in [TYPE, "no.ryggrad.proeve.*"] {
        let (status, refused) = own.post("/v1/subscriptions", json!({"types": [types], "channel": "pull"})).await;
        assert_eq!((status, &refused["errors"][0]["pointer"]), (422, &json!("/types/0")), "{refused}");
        assert!(refused["errors"][0]["detail"].as_str().unwrap().contains("trial = true"), "{refused}");
    }
    let (status, refused) = own.get(&format!("/v1/members/{ORGANISATION}/lacks?type={TYPE}")).await;
    assert_eq!(status, 422, "{refused}");
    let kafka = scenario.broker.address();
    let trial = |arguments: &[&str]| {
        let flags = ["--kafka", &kafka, "--controller", CONTROLLER, "--patient", PATIENT, "-o", "ndjson"];
        process::command(scenario.folder.path(), &[&["trial"], arguments, &flags].concat())
    };
    let (code, _, said) = trial(&["publish"]);
    assert!(code == Some(3) && said.contains("--trial"), "{said}");
    // A wildcard means what is open.
    let open = Client::subscribe(&own, Way::Pull, &json!({"types": ["no.ryggrad.*"]}), Mood::Takes).await;
    events.publish([key(1)]).await;
    open.has_taken(1).await;
    assert_eq!(open.arrivals()[0].event["type"], CE_TYPE);
    assert_eq!(bridge.stop().await, Some(0));

    let mut bridge = scenario.bridge(&["--trial"]);
    let operator = scenario.operator().await;
    assert_eq!(operator.get("/readyz").await.1["trial"], true);
    assert!(catalogue_of(&operator.get("/asyncapi.json").await.1).contains(TOPIC));
    let controller = scenario.subscriber(CONTROLLER).await;
    member(&operator, CONTROLLER, "active").await;
    member(&operator, ORGANISATION, "active").await;
    grant(&controller, ORGANISATION).await;
    relation(&controller, ORGANISATION).await;
    let both = Client::subscribe(&own, Way::Pull, &json!({"types": ["no.ryggrad.*"]}), Mood::Loses).await;
    let (code, published, said) = trial(&["publish", "--seed", "7"]);
    assert_eq!(code, Some(0), "{said}");
    let published: Value = serde_json::from_str(&published).unwrap();
    both.has_seen(1).await;
    let first = both.arrivals()[0].clone();
    assert_eq!((first.id(), &first.event["controller"], first.number.1), (published["id"].as_str().unwrap(), &json!(CONTROLLER), 1));
    assert_eq!((&first.event["data"]["verdi"], &first.event["data"]["pasient"]), (&published["value"], &json!(PATIENT)));
    both.be(Mood::Away);
    assert_eq!(bridge.stop().await, Some(0));

    // Shut again: it waits whole, and says why; what is pending keeps its number.
    let mut bridge = scenario.bridge(&[]);
    let operator = scenario.operator().await;
    let shown = own.get(&format!("/v1/subscriptions/{}", both.id)).await.1;
    assert_eq!((&shown["withheld_by"]["reason"], &shown["status"]), (&json!("type-shut"), &Value::Null), "{shown}");
    let (_, listed) = operator.get("/v1/subscriptions").await;
    let waiting = listed["subscriptions"].as_array().unwrap().iter().filter(|one| one["withheld_by"]["reason"] == "type-shut").count();
    assert_eq!(waiting, 1, "{listed}");
    let (status, refused) = both.call(Method::GET, "/events", None).await;
    assert!(status == 503 && refused["detail"].as_str().unwrap().contains("trial = true"), "{refused}");
    let (code, meanwhile, said) = trial(&["publish"]);
    assert_eq!(code, Some(0), "{said}");
    events.publish([key(2)]).await;
    // Who reads what is open alone goes on all the while.
    open.has_taken(2).await;
    assert_eq!(bridge.stop().await, Some(0));

    let mut bridge = scenario.bridge(&["--trial"]);
    scenario.operator().await;
    both.be(Mood::Takes);
    both.has_taken(3).await;
    let mut taken: Vec<Arrival> = both.arrivals().into_iter().filter(|arrival| arrival.taken).collect();
    taken.sort_by_key(|arrival| arrival.number);
    assert_eq!((taken[0].id(), taken[0].number), (first.id(), first.number), "the same event under the same number");
    assert_eq!(taken.iter().map(|arrival| arrival.number.1).collect::<Vec<_>>(), [1, 2, 3]);
    let meanwhile: Value = serde_json::from_str(&meanwhile).unwrap();
    assert!(taken.iter().any(|arrival| arrival.id() == meanwhile["id"].as_str().unwrap()));
    // A tombstone is an event like any other, without content.
    let (code, removed, said) = trial(&["remove"]);
    assert_eq!(code, Some(0), "{said}");
    both.has_taken(4).await;
    let removed: Value = serde_json::from_str(&removed).unwrap();
    let last = both.arrivals().pop().unwrap();
    assert_eq!((last.id(), last.event.get("data")), (removed["id"].as_str().unwrap(), None));
    assert_eq!(bridge.stop().await, Some(0));
}

/// One that gets the patient's measurements on all ways in, by a supplier, and those around it.
struct Stage {
    scenario: Scenario,
    bridge: Process,
    operator: Caller,
    controller: Caller,
    own: Caller,
    supplier: Caller,
    supplier_token: String,
    ways: Vec<Client>,
    /// Its receiver takes nothing: it is tried again and again.
    failing: Client,
    /// A replay under way comes to it too.
    replayed: Client,
    /// Of another organisation, which keeps everything.
    witness: Client,
    strange: Vec<Client>,
}

/// When something was taken away and given back: milliseconds since 1970.
struct Taken {
    what: &'static str,
    from_ms: i64,
    to_ms: i64,
    /// What was published meanwhile comes later.
    is_held: bool,
}

impl Stage {
    async fn set(measurements: &mut Measurements, scenario: Scenario, bridge: Process) -> (Self, Vec<Measured>) {
        let operator = scenario.operator().await;
        let (controller, own) = (scenario.subscriber(CONTROLLER).await, scenario.subscriber(ORGANISATION).await);
        let (other, stranger) = (scenario.subscriber(OTHER_ORGANISATION).await, scenario.subscriber(STRANGER).await);
        for organisation in [CONTROLLER, ORGANISATION, OTHER_ORGANISATION, STRANGER] {
            member(&operator, organisation, "active").await;
        }
        grant(&controller, OTHER_ORGANISATION).await;
        grant(&controller, STRANGER).await;
        relation(&controller, OTHER_ORGANISATION).await;
        let (status, issued) = operator.post("/v1/tokens", json!({"organisation": ORGANISATION, "supplier": SUPPLIER})).await;
        assert_eq!(status, 201, "{issued}");
        let supplier = operator.with_token(issued["token"].as_str());
        let supplier_token = format!("/v1/tokens/{}", issued["id"].as_str().unwrap());
        let mut published = Vec::new();
        for _ in 0..BEFORE / 50 {
            published.extend(measurements.publish(&[[PATIENT; 50], [UNFOLLOWED; 50]].concat()).await);
        }
        Self::subscribe(scenario, bridge, [operator, controller, own, other, stranger, supplier], supplier_token, published).await
    }

    async fn subscribe(
        scenario: Scenario,
        bridge: Process,
        [operator, controller, own, other, stranger, supplier]: [Caller; 6],
        supplier_token: String,
        published: Vec<Measured>,
    ) -> (Self, Vec<Measured>) {
        let wish = json!({"types": [TYPE], "start": "beginning"});
        let mut strange = Vec::new();
        for way in Way::ALL {
            strange.push(Client::subscribe(&stranger, way, &wish, Mood::Takes).await);
        }
        grant(&controller, ORGANISATION).await;
        relation(&controller, ORGANISATION).await;
        delegation(&own).await;
        let mut ways = Vec::new();
        for way in Way::ALL {
            ways.push(Client::subscribe(&supplier, way, &wish, Mood::Takes).await);
        }
        let failing = Client::subscribe(&supplier, Way::Webhook, &wish, Mood::Loses).await;
        let replayed = Client::subscribe(&supplier, Way::Webhook, &wish, Mood::Takes).await;
        let witness = Client::subscribe(&other, Way::Webhook, &wish, Mood::Takes).await;
        for client in ways.iter().chain([&replayed, &witness]) {
            client.has_taken(BEFORE).await;
        }
        let asked = json!({"from": "beginning", "events_per_minute_max": REPLAYED_PER_MINUTE});
        let (status, said) = replayed.call(Method::POST, "/replays", Some(asked)).await;
        assert_eq!(status, 201, "{said}");
        let stage =
            Self { scenario, bridge, operator, controller, own, supplier, supplier_token, ways, failing, replayed, witness, strange };
        (stage, published)
    }

    fn receivers(&self) -> impl Iterator<Item = &Client> {
        self.ways.iter().chain([&self.failing, &self.replayed])
    }

    /// Others get events until some time after that moment.
    async fn time_passes(&self, from_ms: i64) {
        wait::until("others get events all the while", 60, || async {
            self.witness.arrivals().last().is_some_and(|last| last.at_ms >= from_ms + WATCHED_MS).then_some(())
        })
        .await;
    }

    /// The newest event that others have got came to all who may have it.
    async fn keeps_up(&self) {
        let newest = self.witness.arrivals().last().unwrap().id().to_owned();
        for client in self.ways.iter().chain([&self.replayed]) {
            let what = format!("{:?} keeps up", client.way);
            wait::until(&what, 20, || async { client.arrivals().iter().any(|arrival| arrival.id() == newest).then_some(()) }).await;
        }
    }

    /// Nothing of a patient has come within these moments.
    fn silent<'c>(&self, what: &str, clients: impl Iterator<Item = &'c Client>, from_ms: i64, to_ms: i64) {
        assert!(from_ms + EFFECTIVE_MS <= to_ms, "{what}: nobody has looked long enough");
        for client in clients {
            let within = |arrival: &Arrival| (from_ms..to_ms).contains(&arrival.at_ms) && !arrival.is_void();
            let late: Vec<i64> = client.arrivals().iter().filter(|one| within(one)).map(|one| one.at_ms - from_ms).collect();
            assert!(late.is_empty(), "{what}, {:?}, {}: milliseconds after the silence was due, {late:?}", client.way, client.id);
        }
    }

    /// What is taken away now is in force within a second: nothing comes until it is given back.
    async fn takes(&self, what: &'static str, is_held: bool, given_back: impl AsyncFnOnce()) -> Taken {
        let from_ms = now_ms();
        self.time_passes(from_ms).await;
        let told = self.ways[0].status().await["withheld_by"].clone();
        assert_eq!(told.is_null(), !is_held, "{what}: {told}");
        let to_ms = now_ms();
        given_back().await;
        self.silent(what, self.receivers(), from_ms + EFFECTIVE_MS, to_ms);
        self.time_passes(now_ms()).await;
        self.keeps_up().await;
        println!("{what}: silent for {} ms", to_ms - from_ms - EFFECTIVE_MS);
        Taken { what, from_ms, to_ms, is_held }
    }

    /// What had to come came, what must not did not, and no number is missing.
    async fn is_as_the_rules_say(&self, published: &[Measured], all_taken: &[Taken]) {
        let denied = || all_taken.iter().filter(|taken| !taken.is_held);
        // What stands at an edge may have been read on either side of it.
        let owed = |one: &&Measured| {
            one.patient == PATIENT
                && !denied().any(|taken| one.at_ms.1 + EFFECTIVE_MS >= taken.from_ms && one.at_ms.0 <= taken.to_ms + EFFECTIVE_MS)
        };
        let kept = |one: &&Measured| {
            one.patient != PATIENT || denied().any(|taken| one.at_ms.0 > taken.from_ms && one.at_ms.1 + EFFECTIVE_MS < taken.to_ms)
        };
        let last_ms = denied().map(|taken| taken.to_ms + EFFECTIVE_MS).max().unwrap_or_default();
        let since: BTreeSet<&str> = published.iter().filter(owed).filter(|one| one.at_ms.0 > last_ms).map(|one| one.id.as_str()).collect();
        let owed: BTreeSet<&str> = published.iter().filter(owed).map(|one| one.id.as_str()).collect();
        assert!(!since.is_empty());
        let kept: BTreeSet<&str> = published.iter().filter(kept).map(|one| one.id.as_str()).collect();
        let within = |taken: &Taken| published.iter().filter(|one| one.at_ms.0 > taken.from_ms && one.at_ms.1 < taken.to_ms).count();
        assert!(
            all_taken.iter().all(|taken| within(taken) > 0),
            "{:?}",
            all_taken.iter().map(|taken| (taken.what, within(taken))).collect::<Vec<_>>()
        );
        for client in self.receivers() {
            // What it had not taken when that was denied is closed, and what it had not come to is none.
            let owed = if client.id == self.failing.id { &since } else { &owed };
            let taken = || client.arrivals().into_iter().filter(|arrival| arrival.taken).collect::<Vec<_>>();
            let missing = || owed.iter().filter(|id| !taken().iter().any(|arrival| arrival.id() == **id)).count();
            let whole = wait::held("all that is owed comes", 60, || async { (missing() == 0).then_some(()) }).await;
            assert!(whole.is_some(), "{:?}, {} lacks {} of {}", client.way, client.id, missing(), owed.len());
            let live: BTreeSet<(u64, u64)> =
                taken().iter().filter(|arrival| arrival.event["replay"].is_null()).map(|arrival| arrival.number).collect();
            let (first, last) = (live.first().unwrap(), live.last().unwrap());
            // What is withdrawn unread was numbered, and is written anew under others.
            if client.way != Way::Kafka {
                assert_eq!((first.0, first.1, last.1), (last.0, 1, live.len() as u64), "{:?}: gaps in the numbers", client.way);
            }
            // Whoever is behind may read later what it may have again.
            if client.id != self.failing.id {
                let came = taken().iter().filter(|arrival| kept.contains(arrival.id())).count();
                assert_eq!(came, 0, "{:?}: of {} that it was denied", client.way, kept.len());
            }
            assert!(client.arrivals().iter().all(|arrival| arrival.event["subject"] != UNFOLLOWED));
        }
        println!("{} owed, {} kept back", owed.len(), kept.len());
    }

    /// Whoever follows nobody gets nothing, and cannot tell that there is anything.
    async fn the_stranger_cannot_tell(&self) {
        for client in &self.strange {
            assert!(client.arrivals().is_empty(), "{:?}", client.way);
            let status = client.status().await;
            for (member, nothing) in [("pending", json!(0)), ("withheld", json!(0)), ("voided", json!(0)), ("next_number", json!(1))] {
                assert_eq!(status[member], nothing, "{:?}: {member}", client.way);
            }
            for member in ["oldest_pending_age_ms", "last_attempt", "withheld_by"] {
                assert_eq!(status[member], Value::Null, "{:?}: {member}", client.way);
            }
        }
        let asked = json!({"to": "beginning", "preview": true, "count": true});
        let (status, counted) = self.strange[0].call(Method::POST, "/rewind", Some(asked)).await;
        let counts: Vec<&Value> = counted["partitions"].as_array().unwrap().iter().map(|partition| &partition["matching"]).collect();
        assert!(status == 200 && !counts.is_empty() && counts.iter().all(|count| **count == 0), "{counted}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_taken_away_is_in_force_within_a_second_on_every_way_in() {
    let scenario = Scenario::start().await;
    std::fs::write(scenario.folder.path().join("ryggrad.toml"), format!("{SETTINGS}trial = true\n")).unwrap();
    let bridge = scenario.bridge(&["--config", "ryggrad.toml"]);
    scenario.operator().await;
    let (mut measurements, mut events) =
        (Measurements::start(&scenario.connection(), CONTROLLER).await, Events::start(&scenario.connection()).await);
    let (mut stage, mut published) = Stage::set(&mut measurements, scenario, bridge).await;
    let load = measurements.without_end(&[PATIENT, UNFOLLOWED], PACE_MS);
    let mut all_taken = Vec::new();
    stage.time_passes(now_ms()).await;
    let the_only = async |caller: &Caller, kind: &str, receiver: &str| {
        let (_, listed) = caller.get(&format!("/v1/{kind}?limit=100")).await;
        let found = listed[kind].as_array().unwrap().iter().find(|one| one["receiver"] == receiver || one["supplier"] == receiver);
        format!("/v1/{kind}/{}", found.unwrap()["id"].as_str().unwrap())
    };

    gone(&stage.controller, &the_only(&stage.controller, "relations", ORGANISATION).await).await;
    all_taken.push(stage.takes("relation", false, async || drop(relation(&stage.controller, ORGANISATION).await)).await);

    let block = make(&stage.controller, "blocks", json!({"subject": PATIENT, "receiver": ORGANISATION})).await;
    all_taken.push(stage.takes("block", false, async || gone(&stage.controller, &block).await).await);

    gone(&stage.own, &the_only(&stage.own, "delegations", SUPPLIER).await).await;
    all_taken.push(stage.takes("delegation", true, async || drop(delegation(&stage.own).await)).await);

    member(&stage.operator, ORGANISATION, "suspended").await;
    all_taken.push(stage.takes("standing", true, async || member(&stage.operator, ORGANISATION, "active").await).await);

    events.end(ORGANISATION).await;
    wait::until("the member is suspended", 1, || async {
        let (_, shown) = stage.operator.get(&format!("/v1/members/{ORGANISATION}")).await;
        (shown["standing"] == "suspended").then_some(())
    })
    .await;
    all_taken.push(stage.takes("unit", true, async || member(&stage.operator, ORGANISATION, "active").await).await);

    // A grant, with the bridge killed meanwhile.
    gone(&stage.controller, &the_only(&stage.controller, "grants", ORGANISATION).await).await;
    let withdrawn_ms = now_ms();
    stage.time_passes(withdrawn_ms).await;
    stage.bridge.kill();
    stage.bridge = stage.scenario.bridge(&["--config", "ryggrad.toml"]);
    stage.operator.ready().await;
    let mut taken = stage.takes("grant", false, async || drop(grant(&stage.controller, ORGANISATION).await)).await;
    taken.from_ms = withdrawn_ms;
    stage.silent("grant, killed", stage.receivers(), withdrawn_ms + EFFECTIVE_MS, taken.to_ms);
    all_taken.push(taken);

    // The rules hold for all that was published, also for the receiver that took nothing until now.
    stage.failing.be(Mood::Takes);
    let pull = &stage.ways[2];
    stage.time_passes(now_ms()).await;
    stage.keeps_up().await;
    // A token that is revoked fetches nothing any more; another goes on where it was.
    let before = pull.taken();
    gone(&stage.operator, &stage.supplier_token).await;
    let revoked_ms = now_ms();
    stage.time_passes(revoked_ms).await;
    // Kafka knows no tokens.
    let fetched = || stage.ways.iter().filter(|client| !client.way.is_posted() && client.way != Way::Kafka);
    stage.silent("token", fetched(), revoked_ms + EFFECTIVE_MS, now_ms());
    assert_eq!(stage.supplier.get("/v1/subscriptions").await.0, 401);
    assert_eq!(Socket::open(&stage.supplier, &stage.ways[4].id, "ryggrad.v1", "").await.err(), Some(401));
    let (_, issued) = stage.operator.post("/v1/tokens", json!({"organisation": ORGANISATION, "supplier": SUPPLIER})).await;
    let again = stage.operator.with_token(issued["token"].as_str());
    let (status, rest) = again.get(&format!("/v1/subscriptions/{}/events?limit=1000", pull.id)).await;
    let numbers: Vec<u64> =
        rest.as_array().unwrap().iter().map(|event| event["deliverynumber"].as_str().unwrap().parse().unwrap()).collect();
    let taken = pull.taken() as u64;
    assert!(status == 200 && !numbers.is_empty() && pull.taken() >= before, "{rest}");
    assert!(numbers[0] <= taken + 1 && numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{taken} taken, then {numbers:?}");

    published.extend(load.end().await);
    let cut: Vec<Measured> = published.iter().filter(|one| one.at_ms.1 + EFFECTIVE_MS < revoked_ms).cloned().collect();
    stage.is_as_the_rules_say(&cut, &all_taken).await;
    stage.the_stranger_cannot_tell().await;
    assert_eq!(stage.bridge.stop().await, Some(0));
}
