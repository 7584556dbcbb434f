//! `ryggrad up --demo` as a newcomer meets it: it comes up, remembers, stops cleanly, and leaves
//! nothing behind even when it is killed. And the exit codes that scripts rely on.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a test may be loud")]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::time::{Duration, Instant};

use reqwest::Method;
use ryggrad_log::Connection;
use ryggrad_tests::bridge::Caller;
use ryggrad_tests::process::{Process, command, free_port};
use ryggrad_tests::receiver::{Received, Receiver};
use ryggrad_tests::topic::{Owed, VIRKSOMHET, read_all};
use ryggrad_tests::{broker, wait};
use serde_json::{Value, json};
use tempfile::TempDir;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A home and the ports that every `up` of this test uses.
struct Place {
    folder: TempDir,
    jars: String,
    kafka: u16,
    bridge: u16,
    simulator: u16,
}

impl Place {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let jars = broker::jars().display().to_string();
        Self { folder, jars, kafka: free_port(), bridge: free_port(), simulator: free_port() }
    }

    /// Starts it and waits for the end of its greeting.
    async fn up(&self, run: u32) -> Process {
        let [kafka, bridge, simulator] = [self.kafka, self.bridge, self.simulator].map(|port| port.to_string());
        let started = Instant::now();
        let up = Process::start(
            self.folder.path(),
            &format!("up-{run}"),
            &[
                &["up", "--demo", "--home", "home", "--jars", &self.jars, "--kafka-port", &kafka, "--bridge-port", &bridge][..],
                &["--simulator-port", &simulator, "--changes-per-second", "20"],
            ]
            .concat(),
        );
        wait::until("the greeting", 60, || async { up.said().contains("Ctrl-C stops everything").then_some(()) }).await;
        println!("run {run} is up after {:?}", started.elapsed());
        if run > 1 {
            assert!(started.elapsed() < Duration::from_secs(15), "a start that only remembers takes {:?}", started.elapsed());
        }
        up
    }

    fn profile(&self) -> toml::Table {
        std::fs::read_to_string(self.folder.path().join("home/client.toml")).unwrap().parse().unwrap()
    }

    fn token(&self) -> String {
        self.profile()["token"].as_str().unwrap().to_owned()
    }

    fn caller(&self) -> Caller {
        Caller::new(&format!("http://127.0.0.1:{}", self.bridge), Some(&self.token()))
    }

    /// A client command, which finds its way with the profile.
    fn run(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        command(self.folder.path(), &[arguments, &["--profile", "home/client.toml"]].concat())
    }

    async fn topic(&self) -> Vec<ryggrad_schemas::LogRecord> {
        read_all(&Connection::new(format!("127.0.0.1:{}", self.kafka)), VIRKSOMHET).await
    }

    /// Every id of the simulated registry with what it says.
    async fn feed(&self) -> BTreeMap<u64, Value> {
        let simulator = Caller::new(&format!("http://127.0.0.1:{}", self.simulator), None);
        let path = "/enhetsregisteret/api/oppdateringer/enheter?oppdateringsid=1&size=10000";
        let answer = simulator.raw(Method::GET, path, &[], "").await.json();
        let items = answer["_embedded"]["oppdaterteEnheter"].as_array().unwrap();
        items
            .iter()
            .map(|item| (item["oppdateringsid"].as_u64().unwrap(), json!([item["organisasjonsnummer"], item["endringstype"]])))
            .collect()
    }

    /// Java processes that run on our folder.
    fn brokers(&self) -> usize {
        let folder = self.folder.path().display().to_string();
        let command = |entry: std::io::Result<std::fs::DirEntry>| std::fs::read(entry.ok()?.path().join("cmdline")).ok();
        let commands =
            std::fs::read_dir(Path::new("/proc")).unwrap().filter_map(command).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        commands.filter(|command| command.contains("kafka.Kafka") && command.contains(&folder)).count()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn up_comes_up_remembers_and_leaves_nothing_behind() {
    let place = Place::new();
    let mut up = place.up(1).await;
    let said = up.said();
    for expected in [place.kafka, place.bridge, place.simulator].map(|port| format!("127.0.0.1:{port}")).iter().chain([&place.token()]) {
        assert!(said.contains(expected.as_str()), "{expected} is not in the greeting: {said}");
    }
    assert_eq!(place.brokers(), 1, "a broker that is there is found");

    listen(&place).await;
    let receiver = Receiver::start().await;
    receiver.trust(SECRET);
    let id = subscribe(&place, &receiver).await;
    wait::until("the first deliveries", 20, || async { (receiver.count() > 50).then_some(()) }).await;
    exit_codes(&place, &id);
    let (token, feed) = (place.token(), place.feed().await);

    up.signal("INT");
    assert_eq!(up.exit_code(30).await, Some(0));
    assert!(up.said().trim_end().ends_with("stopped"), "{}", up.said());
    assert_eq!(place.brokers(), 0, "a broker is left behind");
    let (code, _, said) = place.run(&["subscriptions", "list"]);
    assert_eq!(code, Some(4), "{said}");
    let before = receiver.count();

    // The second run remembers everything.
    let mut up = place.up(2).await;
    assert_eq!(place.token(), token);
    goes_on(&place, &receiver, before, before).await;
    assert_eq!(place.caller().get(&format!("/v1/subscriptions/{id}")).await.1["state"], "active");
    let later = place.feed().await;
    assert!(feed.iter().all(|(id, item)| later.get(id) == Some(item)), "the registry is another");
    assert!(later.len() > feed.len() && later.keys().max() > feed.keys().max(), "the registry does not go on");

    // SIGKILL takes the broker along, and a third run goes on all the same.
    up.kill();
    wait::until("the broker dies with its parent", 10, || async { (place.brokers() == 0).then_some(()) }).await;
    let killed_after = receiver.count();
    let mut up = place.up(3).await;
    assert_eq!(place.token(), token);
    goes_on(&place, &receiver, killed_after, before).await;

    // Nothing was lost, changed or out of order over all runs.
    let caller = place.caller();
    let simulator = Caller::new(&format!("http://127.0.0.1:{}", place.simulator), None);
    assert_eq!(simulator.raw(Method::POST, "/_simulator/pause", &[], "").await.status, 200);
    wait::until("everything published is delivered", 30, || async {
        Owed::compare(&place.topic().await, &receiver.taken()).is_settled().then_some(())
    })
    .await;
    let status = caller.status(&id).await.unwrap();
    assert_eq!(status["failed_attempts"], 0, "{status}");
    let mut ids: HashMap<String, String> = HashMap::new();
    let mut latest: HashMap<String, u64> = HashMap::new();
    for delivery in receiver.received() {
        assert!(delivery.verified);
        let repeated = ids.insert(event_id(&delivery), delivery.id.clone());
        assert!(repeated.as_ref().is_none_or(|before| *before == delivery.id), "another id for the same event");
        if repeated.is_none() {
            let position = delivery.change().1;
            let before = latest.insert(delivery.key().to_owned(), position);
            assert!(before.is_none_or(|before| before < position), "{} went back", delivery.key());
        }
    }
    println!("{} deliveries of {} events over three runs", receiver.count(), ids.len());
    up.signal("INT");
    assert_eq!(up.exit_code(30).await, Some(0));
    assert_eq!(place.brokers(), 0);
}

fn event_id(delivery: &Received) -> String {
    delivery.event["id"].as_str().unwrap().to_owned()
}

async fn subscribe(place: &Place, receiver: &Receiver) -> String {
    let body = json!({"types": ["no.ryggrad.*"], "sink": receiver.sink(), "start": "beginning", "secret": SECRET});
    let (status, body) = place.caller().post("/v1/subscriptions", body).await;
    assert_eq!(status, 201, "{body}");
    body["id"].as_str().unwrap().to_owned()
}

/// New events arrive, and of the old ones nothing that was on disk: of the deliveries `before` this run, the
/// first `settled`, which a clean stop has written. A crash may repeat those after it.
async fn goes_on(place: &Place, receiver: &Receiver, before: usize, settled: usize) {
    let ids = |deliveries: &[Received]| deliveries.iter().map(event_id).collect::<BTreeSet<String>>();
    let known = ids(&receiver.received()[..before]);
    wait::until("new events", 20, || async { (ids(&receiver.received()).difference(&known).count() > 20).then_some(()) }).await;
    let received = receiver.received();
    let again = ids(&received[before..]);
    println!("{} deliveries repeated", again.intersection(&known).count());
    let forgotten = again.intersection(&ids(&received[..settled])).count();
    assert_eq!(forgotten, 0, "events that were settled are delivered again: the cursor was forgotten");
    assert_eq!(place.brokers(), 1);
}

async fn listen(place: &Place) {
    let started = Instant::now();
    let arguments = ["listen", "--start", "beginning", "--exit-after", "20", "-o", "ndjson", "--profile", "home/client.toml"];
    let mut listen = Process::start(place.folder.path(), "listen", &arguments);
    assert_eq!(listen.exit_code(15).await, Some(0), "{}", listen.said());
    println!("listen had 20 events after {:?}", started.elapsed());
    let said = listen.said();
    let events = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).count();
    assert!(events >= 20 && said.contains("bad signatures 0"), "{said}");
    let (_, listed) = place.caller().get("/v1/subscriptions").await;
    assert_eq!(listed["subscriptions"], json!([]), "listen takes its subscription away again");
}

fn exit_codes(place: &Place, id: &str) {
    let unknown = "00000000-0000-7000-8000-000000000000";
    for (arguments, expected, words) in [
        (vec!["subscriptions", "show", id], 0, id),
        (vec!["subscriptions", "list"], 0, id),
        (vec!["tokens", "list"], 0, "312345676"),
        (vec!["topics", "check"], 0, VIRKSOMHET),
        (vec!["subscriptions", "show", unknown], 3, "no subscription of that name"),
        (vec!["subscriptions", "create", "--sink", "ftp://x"], 3, "/sink"),
        (vec!["tokens", "issue", "--organisation", "1"], 3, "/organisation"),
        (vec!["subscriptions", "list", "--token", "ryg_wrong"], 3, "the token is unknown"),
        (vec!["subscriptions", "list", "--bridge", "http://127.0.0.1:1"], 4, "127.0.0.1:1"),
        (vec!["topics", "check", "--kafka", "127.0.0.1:1"], 4, "Kafka"),
        (vec!["subscriptions", "shoe"], 2, "shoe"),
        (vec!["subscriptions", "show"], 2, "<ID>"),
        (vec!["listen", "--exit-after", "0"], 2, "--exit-after"),
        (vec!["nothing"], 2, "nothing"),
    ] {
        let (code, out, said) = place.run(&arguments);
        assert_eq!(code, Some(expected), "{arguments:?}: {out}{said}");
        assert!(format!("{out}{said}").contains(words), "{arguments:?} does not say {words}: {out}{said}");
        assert_eq!(out.is_empty(), expected != 0, "{arguments:?}: data goes to stdout, trouble to stderr: {out}");
    }
    let (code, _, said) = command(place.folder.path(), &["subscriptions", "list", "--profile", "nowhere.toml"]);
    assert_eq!(code, Some(2), "{said}");
}
