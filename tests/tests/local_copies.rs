//! Copies of a topic, as an EPJ system keeps them: the library, and the examples in Rust, Python and
//! Java side by side, killed at any moment, against what the story says must be in them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a test may fail loudly")]

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rand::Rng as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use ryggrad_consumers::{Change, Gap, Plan, Positions, State, Step, Store, state};
use ryggrad_log::groups;
use ryggrad_tests::broker::{configure, own};
use ryggrad_tests::events::{Events, Published, key};
use ryggrad_tests::foreign::python;
use ryggrad_tests::process::Process;
use ryggrad_tests::random::seeded;
use ryggrad_tests::scenario::Scenario;
use ryggrad_tests::topic::{VIRKSOMHET, read_all};
use ryggrad_tests::{full, wait};
use serde_json::{Value, json};

const HERE: &str = "0301";
const ELSEWHERE: &str = "4601";
const KEYS: u32 = 40;

/// Numbers of units and their names, which no two states share.
type Units = BTreeMap<String, String>;

/// What happens in the topic, and what a copy must hold in the end.
struct Story {
    events: Events,
    random: StdRng,
    here: Units,
}

impl Story {
    fn note(&mut self, published: &[Published], is_here: bool) {
        for published in published {
            self.here.remove(&published.key);
            if is_here {
                let name = published.event["data"]["virksomhet"]["navn"].as_str().unwrap();
                self.here.insert(published.key.clone(), name.to_owned());
            }
        }
    }

    /// New states of these keys, in this municipality or the other.
    async fn settle(&mut self, keys: Vec<String>, is_here: bool) {
        self.events.choose_kommune(if is_here { HERE } else { ELSEWHERE });
        let published = self.events.publish(keys).await;
        self.note(&published, is_here);
    }

    fn some_key(&mut self) -> String {
        key(self.random.random_range(0..KEYS))
    }

    /// One that is in the copies, while there is one.
    fn key_here(&mut self) -> String {
        let keys: Vec<_> = self.here.keys().cloned().collect();
        keys.choose(&mut self.random).cloned().unwrap_or_else(|| key(0))
    }

    /// Something at random: changes, moves, deletions, removals.
    async fn go_on(&mut self) {
        match self.random.random_range(0..10) {
            0 => {
                let key = self.key_here();
                let gone = self.events.end(&key).await;
                self.note(&[gone], false);
            }
            1 => self.remove().await,
            2..5 => {
                let moving = self.key_here();
                self.settle(vec![moving], false).await;
            }
            _ => {
                let keys = (0..self.random.random_range(1..6)).map(|_| self.some_key()).collect();
                self.settle(keys, true).await;
            }
        }
    }

    /// Which records are in the topic.
    async fn places(&self, scenario: &Scenario) -> BTreeSet<(i32, i64)> {
        let records = read_all(&scenario.connection(), VIRKSOMHET).await;
        records.iter().map(|record| (record.partition, record.offset)).collect()
    }

    async fn remove(&mut self) {
        let key = self.key_here();
        let gone = self.events.remove(&key, true).await;
        self.note(&[gone], false);
    }

    /// A removal that is told while copies follow: no older state of its key gets in, until it is taken back.
    async fn tell_of_a_removal(&mut self, scenario: &Scenario, keepers: &[Keeper]) {
        let key = self.key_here();
        let records = read_all(&scenario.connection(), VIRKSOMHET).await;
        let partition = records.iter().find(|record| record.key.as_deref() == Some(&*key)).unwrap().partition;
        // Far ahead, so that every state is an older one.
        let removal = json!({"topic": VIRKSOMHET, "key": key, "partition": partition, "offset": 1_000_000_000});
        for (what, told) in [("passes over", Some(removal)), ("keeps again", None)] {
            let is_removed = told.is_some();
            self.events.tell_removal(&key, told).await;
            for keeper in keepers {
                // Nothing says when it has heard: it is asked again and again.
                let deadline = Instant::now() + Duration::from_secs(60);
                loop {
                    self.settle(vec![key.clone()], true).await;
                    if is_removed {
                        self.here.remove(&key);
                    }
                    let what = format!("{} {what} the key", keeper.name);
                    if wait::held(&what, 3, || async { (keeper.units().await == self.here).then_some(()) }).await.is_some() {
                        break;
                    }
                    assert!(Instant::now() < deadline, "{what}");
                }
            }
        }
    }
}

/// A program that keeps a copy.
struct Keeper {
    name: &'static str,
    folder: PathBuf,
    arguments: Vec<String>,
    process: Option<Process>,
}

impl Keeper {
    fn new(name: &'static str, scenario: &Scenario) -> Self {
        let folder = scenario.folder.path().to_owned();
        let registry = format!("{}/schema-registry", scenario.bridge_url());
        let (broker, file) = (scenario.broker.address(), folder.join(format!("{name}.copy")).display().to_string());
        let arguments = match name {
            "python" | "java" => [broker, registry, HERE.to_owned(), file].to_vec(),
            _ => ["--kafka", &broker, "--kommune", HERE, "--file", &file].map(str::to_owned).to_vec(),
        };
        Self { name, folder, arguments, process: None }
    }

    fn start(&mut self) {
        let mut command = match self.name {
            "python" => {
                let mut command = Command::new(std::env::var_os("RYGGRAD_TEST_PYTHON").expect("run the tests with ./ryggrad test"));
                command.arg(examples().join("python/local_copy.py"));
                command
            }
            "java" => {
                let mut command = Command::new("java");
                let classes = format!("{}:{}", self.folder.join("classes").display(), java_jars());
                command.args(["-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", &classes, "LocalCopy"]);
                command
            }
            _ => Command::new(ryggrad_tests::process::binary().with_file_name("examples").join("local_copy")),
        };
        command.args(&self.arguments);
        self.process = Some(Process::run(&self.folder, self.name, command));
    }

    fn kill(&mut self) {
        drop(self.process.take());
    }

    async fn has_caught_up(&mut self) {
        let process = self.process.as_mut().expect("it was started");
        wait::until(&format!("{} has caught up", self.name), 60, || {
            assert!(process.runs(), "{} has ended: {}", self.name, process.said());
            let has_said = process.said().contains("caught up");
            async move { has_said.then_some(()) }
        })
        .await;
    }

    /// What its copy holds; nothing before it has one.
    async fn units(&self) -> Units {
        let file = self.arguments.last().unwrap();
        let states: BTreeMap<String, Value> = match self.name {
            "python" => serde_json::from_value(python("show_units.py", &[file], String::new()).await.remove(0)).unwrap(),
            "java" => {
                let text = std::fs::read_to_string(file).unwrap_or_default();
                let units = text.lines().filter_map(|line| line.strip_prefix("unit\t")?.split_once('\t'));
                units.map(|(number, state)| (number.to_owned(), serde_json::from_str(state).unwrap())).collect()
            }
            _ => {
                let contents: Value = std::fs::read(file).map_or(Value::Null, |bytes| serde_json::from_slice(&bytes).unwrap());
                contents["units"].as_object().into_iter().flatten().map(|(number, state)| (number.clone(), state.clone())).collect()
            }
        };
        states.into_iter().map(|(number, state)| (number, state["virksomhet"]["navn"].as_str().unwrap().to_owned())).collect()
    }

    async fn holds(&self, expected: &Units) {
        let what = format!("{} holds what it should", self.name);
        let held = wait::held(&what, 60, || async { (self.units().await == *expected).then_some(()) }).await;
        if held.is_none() {
            assert_eq!(self.units().await, *expected, "{}", self.name);
        }
    }
}

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../consumers/examples")
}

fn java_jars() -> String {
    std::env::var("RYGGRAD_TEST_JAVA").expect("run the tests with ./ryggrad test, which fetches the Java clients") + "/*"
}

fn compile_java(folder: &Path) {
    let output = Command::new("javac")
        .args(["-cp", &java_jars(), "-d"])
        .arg(folder.join("classes"))
        .arg(examples().join("java/LocalCopy.java"))
        .output()
        .expect("javac runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_example_keeps_its_copy_right_through_kills_and_compaction() {
    let random = seeded("every_example_keeps_its_copy_right_through_kills_and_compaction");
    let scenario = Scenario::with(&[("log.cleaner.backoff.ms", "200"), ("log.index.size.max.bytes", "65536")]).await;
    let _bridge = scenario.bridge(&[]);
    scenario.operator().await;
    compile_java(scenario.folder.path());
    let mut story = Story { events: Events::start(&scenario.connection()).await, random, here: Units::new() };
    story.settle((0..KEYS / 2).map(key).collect(), true).await;
    story.settle((KEYS / 2..KEYS).map(key).collect(), false).await;
    for _ in 0..8 {
        story.go_on().await;
    }
    story.remove().await;

    let mut keepers = ["rust", "python", "java"].map(|name| Keeper::new(name, &scenario));
    for keeper in &mut keepers {
        keeper.start();
    }
    for keeper in &mut keepers {
        keeper.has_caught_up().await;
        keeper.holds(&story.here).await;
    }
    story.tell_of_a_removal(&scenario, &keepers).await;
    for round in 0..if full() { 30 } else { 4 } {
        // Each dies at a moment of its own and misses a deletion, a removal and a move.
        for keeper in &mut keepers {
            story.go_on().await;
            wait::random_moment(story.random.random_range(0..300)).await;
            keeper.kill();
        }
        story.remove().await;
        for _ in 0..4 {
            story.go_on().await;
        }
        for keeper in &mut keepers {
            keeper.start();
            // Now and then it does not get far.
            if story.random.random_bool(0.3) {
                wait::random_moment(story.random.random_range(0..1_500)).await;
                keeper.kill();
                keeper.start();
            }
            story.go_on().await;
        }
        for keeper in &keepers {
            keeper.holds(&story.here).await;
        }
        println!("round {round}: {} units", story.here.len());
    }

    // Now with gaps: most older states are compacted away. One is down meanwhile, one is new.
    keepers[0].kill();
    let short = [("min.compaction.lag.ms", "0"), ("max.compaction.lag.ms", "1000"), ("segment.ms", "1000")];
    configure(&scenario.broker, VIRKSOMHET, &short.map(|(name, value)| (name, value.to_owned())));
    let before = story.places(&scenario).await;
    let deadline = Instant::now() + Duration::from_secs(120);
    while story.places(&scenario).await.intersection(&before).count() > before.len() / 2 {
        assert!(Instant::now() < deadline, "the topic is not compacted");
        // Segments close when something is appended.
        story.settle((0..KEYS).map(key).collect(), true).await;
    }
    story.remove().await;
    keepers[0].start();
    let mut late = Keeper::new("late", &scenario);
    late.start();
    late.has_caught_up().await;
    for keeper in keepers.iter().chain([&late]) {
        keeper.holds(&story.here).await;
    }
}

/// A store that writes down what is asked of it, and fails on request.
#[derive(Clone, Default)]
struct Diary(Arc<Mutex<Pages>>);

#[derive(Default)]
struct Pages {
    applied: Vec<String>,
    commits: usize,
    is_broken: bool,
}

impl Diary {
    /// What was applied since this was asked last.
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap().applied)
    }
}

impl Store for Diary {
    type Error = io::Error;

    fn begin_anew(&mut self) -> io::Result<()> {
        self.0.lock().unwrap().applied.push("anew".to_owned());
        Ok(())
    }

    fn apply(&mut self, changes: Vec<Change>) -> io::Result<()> {
        let mut pages = self.0.lock().unwrap();
        if pages.is_broken {
            return Err(io::Error::other("the disk is full"));
        }
        pages.applied.extend(changes.into_iter().map(|change| match change {
            Change::Put { key, .. } => format!("put {key}"),
            Change::Remove { key, why } => format!("{why:?} {key}"),
            Change::Undecodable { key, .. } => format!("undecodable {key}"),
        }));
        Ok(())
    }

    fn commit(&mut self, _positions: &Positions) -> io::Result<()> {
        self.0.lock().unwrap().commits += 1;
        Ok(())
    }
}

async fn catch_up(state: &mut State<Diary>) -> Result<(), state::Error> {
    while state.next().await? != Step::CaughtUp {}
    Ok(())
}

fn sorted(mut texts: Vec<String>) -> Vec<String> {
    texts.sort_unstable();
    texts
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_goes_on_where_its_group_is_and_never_behind_a_gap() {
    let (broker, _folder) = own().await;
    let connection = broker.connection();
    let mut events = Events::start(&connection).await;
    events.publish((0..3).map(key)).await;
    events.remove(&key(2), true).await;
    let diary = Diary::default();
    let plan = || Plan { group: Some("a-copy".to_owned()), ..Plan::of(VIRKSOMHET) };
    let open = async |plan: Plan| State::open(&connection, plan, diary.clone()).await;
    let put = |number| format!("put {}", key(number));

    // The older state of the removed key is never seen, though it is still in the topic.
    let mut state = open(plan()).await.unwrap();
    catch_up(&mut state).await.unwrap();
    let mut expected = vec!["anew".to_owned(), put(0), put(1)];
    expected.extend(["Removed", "Removed", "Deleted"].map(|why| format!("{why} {}", key(2))));
    assert_eq!(sorted(diary.take()), sorted(expected));
    assert_eq!(diary.0.lock().unwrap().commits, 1, "a copy is made durable when it is whole");
    state.close().await.unwrap();

    // It goes on, and forgets at once what was removed meanwhile.
    events.publish([key(3)]).await;
    events.remove(&key(1), true).await;
    let mut state = open(plan()).await.unwrap();
    assert_eq!(diary.take(), [format!("Removed {}", key(1))], "before anything is read");
    catch_up(&mut state).await.unwrap();
    assert_eq!(sorted(diary.take()), sorted(vec![put(3), format!("Removed {}", key(1)), format!("Deleted {}", key(1))]));
    events.publish([key(4)]).await;
    assert_eq!((state.next().await.unwrap(), diary.take()), (Step::Applied { changes: 1 }, vec![put(4)]), "it follows");

    // What the store has not taken is not committed, and comes again.
    diary.0.lock().unwrap().is_broken = true;
    events.publish([key(5)]).await;
    assert!(matches!(state.next().await, Err(state::Error::Store(_))));
    assert!(matches!(state.next().await, Err(state::Error::Ended { .. })), "it does not go on by itself");
    state.close().await.unwrap();
    diary.0.lock().unwrap().is_broken = false;
    let mut state = open(plan()).await.unwrap();
    catch_up(&mut state).await.unwrap();
    assert_eq!(diary.take(), [put(5)]);
    state.close().await.unwrap();

    // Behind for longer than tombstones are kept, or moved by somebody else: it has to be made anew.
    events.publish([key(6)]).await;
    let gap_of = async |plan| match open(plan).await {
        Err(state::Error::Gap { gap, .. }) => gap,
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it went on"),
    };
    assert!(matches!(gap_of(Plan { tombstones_kept_ms: 0, ..plan() }).await, Gap::HistoryCompacted { kept_ms: 0, .. }));
    groups::set(&connection, "a-copy", &[(VIRKSOMHET.to_owned(), 0, 0)], 10_000).await.unwrap();
    assert_eq!(gap_of(plan()).await, Gap::Unknown);
    assert_eq!(diary.take(), Vec::<String>::new());
    let mut state = open(Plan { is_anew: true, ..plan() }).await.unwrap();
    catch_up(&mut state).await.unwrap();
    let told = diary.take();
    assert_eq!((told[0].as_str(), told.contains(&put(6)), told.contains(&put(1))), ("anew", true, false));
    state.close().await.unwrap();
    assert!(open(plan()).await.is_ok(), "the group is in order again");
}
