//! Receivers in number, each with a ledger: endpoints of every kind of bad manners, and clients
//! that fetch. All of them turn good, or end, at one word.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use rand::Rng;
use rand::rngs::StdRng;
use reqwest::Method;
use ryggrad_bridge_core::signature::{Secret, verify};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::bridge::Caller;
use crate::channels::Socket;
use crate::ledger::{Ledger, Request, Told};
use crate::wait;
use crate::wire::{Asked, read_request};

const GOOD: &str = "HTTP/1.1 204 No Content\r\n\r\n";
/// Of an ill-mannered receiver's answers, how many are so; some more for the breakers' sake.
const BAD: f64 = 0.3;
const SLOW_MS: std::ops::Range<u64> = 20..200;

/// How a receiver behaves until it turns good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Manners {
    /// Takes everything at once.
    Good,
    /// 500.
    Fails,
    /// Takes the request and says nothing.
    Hangs,
    /// Closes the connection without a word.
    Closes,
    /// Says good, and dies in the middle of its answer; or dies before it has said so.
    Dies,
    /// 429 or 503 with `Retry-After`.
    Throttles,
    /// Takes everything, late.
    Slow,
}

/// All that are no good.
pub const ILL: [Manners; 6] = [Manners::Fails, Manners::Hangs, Manners::Closes, Manners::Dies, Manners::Throttles, Manners::Slow];

/// What all receivers of a test go by.
#[derive(Debug, Default)]
pub struct Weather {
    good: AtomicBool,
    over: AtomicBool,
}

impl Weather {
    /// From now on every receiver is good.
    pub fn clear(&self) {
        self.good.store(true, Ordering::SeqCst);
    }

    /// Whoever fetches may go home.
    pub fn end(&self) {
        self.over.store(true, Ordering::SeqCst);
    }

    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }
}

/// An endpoint on a port of its own.
#[derive(Clone)]
pub struct Endpoint {
    inner: Arc<Inner>,
}

struct Inner {
    sink: String,
    manners: Manners,
    secret: Secret,
    random: Mutex<StdRng>,
    ledger: Arc<Mutex<Ledger>>,
    weather: Arc<Weather>,
}

/// What it does with a request.
enum Act {
    Take,
    TakeLate(u64),
    /// Takes it, says so, and breaks off.
    TakeAndDie,
    Say(&'static str),
    SayAndClose(&'static str),
    Hang,
}

impl Endpoint {
    /// Starts it on a free port.
    pub async fn start(manners: Manners, secret: &str, random: StdRng, ledger: &Arc<Mutex<Ledger>>, weather: &Arc<Weather>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let sink = format!("http://{}/hendelser", listener.local_addr().expect("an address"));
        let (secret, random) = (secret.parse().expect("a secret"), Mutex::new(random));
        let inner = Arc::new(Inner { sink, manners, secret, random, ledger: Arc::clone(ledger), weather: Arc::clone(weather) });
        let endpoint = Self { inner };
        let serving = endpoint.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let endpoint = serving.clone();
                tokio::spawn(async move { endpoint.serve(stream).await });
            }
        });
        endpoint
    }

    /// Its endpoint.
    pub fn sink(&self) -> &str {
        &self.inner.sink
    }

    async fn serve(&self, mut stream: TcpStream) -> Option<()> {
        // An answer is one small packet.
        stream.set_nodelay(true).ok()?;
        let ledger = || self.inner.ledger.lock().expect("no panic");
        loop {
            let (head, body) = read_request(&mut stream).await?;
            let (request, events) = self.read(&Asked { connection: 0, head, body });
            let arrivals = ledger().came(request, events);
            match self.act() {
                Act::Take => {
                    ledger().took(arrivals);
                    stream.write_all(GOOD.as_bytes()).await.ok()?;
                }
                Act::TakeLate(ms) => {
                    wait::random_moment(ms).await;
                    ledger().took(arrivals);
                    stream.write_all(GOOD.as_bytes()).await.ok()?;
                }
                Act::TakeAndDie => {
                    ledger().took(arrivals);
                    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nnot all").await.ok()?;
                    return None;
                }
                Act::Say(answer) => stream.write_all(answer.as_bytes()).await.ok()?,
                Act::SayAndClose(answer) => {
                    stream.write_all(answer.as_bytes()).await.ok()?;
                    return None;
                }
                Act::Hang => {
                    // Until the other side gives up.
                    let _ = stream.read(&mut [0; 1]).await;
                    return None;
                }
            }
        }
    }

    fn act(&self) -> Act {
        let mut random = self.inner.random.lock().expect("no panic");
        if self.inner.weather.good.load(Ordering::SeqCst) || !random.random_bool(BAD) {
            return Act::Take;
        }
        match self.inner.manners {
            Manners::Good => Act::Take,
            Manners::Fails => Act::Say("HTTP/1.1 500 x\r\ncontent-length: 0\r\n\r\n"),
            Manners::Hangs => Act::Hang,
            Manners::Closes => Act::SayAndClose(""),
            Manners::Dies if random.random_bool(0.5) => Act::TakeAndDie,
            Manners::Dies => Act::SayAndClose("HTTP/1.1 20"),
            Manners::Throttles if random.random_bool(0.5) => Act::Say("HTTP/1.1 429 x\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n"),
            Manners::Throttles => Act::Say("HTTP/1.1 503 x\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n"),
            Manners::Slow => Act::TakeLate(random.random_range(SLOW_MS)),
        }
    }

    /// The request's events, whatever the format.
    fn read(&self, asked: &Asked) -> (Request, Vec<Told>) {
        let header = |name: &str| asked.header(name).unwrap_or_default();
        let id = header("webhook-id");
        let now_s = jiff::Timestamp::now().as_second();
        let (at, signature) = (header("webhook-timestamp"), header("webhook-signature"));
        let verified = verify(&self.inner.secret, now_s, 300, id, at, signature, &asked.body).is_ok();
        let request = Request { id: id.strip_prefix("msg_").and_then(|id| u128::from_str_radix(id, 16).ok()).or(Some(0)), verified };
        let body: Value = serde_json::from_slice(&asked.body).unwrap_or_default();
        let events = match (header("content-type"), body) {
            ("application/cloudevents-batch+json", Value::Array(events)) => events,
            ("application/json", data) => vec![from_binary(asked, data)],
            (_, event) => vec![event],
        };
        // A replay runs beside what is live, with numbers of its own.
        let live = events.into_iter().filter(|event| event["replay"].is_null());
        (request, live.map(Told::of).collect())
    }
}

/// The same event in structured form; the tests' attributes are plain ASCII.
fn from_binary(asked: &Asked, data: Value) -> Value {
    let lines = asked.head.lines().filter_map(|line| line.split_once(": "));
    let attributes = lines.filter_map(|(name, value)| Some((name.strip_prefix("ce-")?.to_owned(), json!(value))));
    let mut event: serde_json::Map<String, Value> = attributes.collect();
    event.insert("datacontenttype".to_owned(), json!("application/json"));
    event.insert("data".to_owned(), data);
    Value::Object(event)
}

/// How a client that fetches says what it has taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Saying {
    /// `POST …/ack`; where it is, the bridge knows.
    Ack,
    /// `after=` of the next request; where it is, the client knows.
    After,
    /// Over a WebSocket; taken is what the bridge says is acknowledged.
    Socket,
}

/// Of all that a client gets, how much it loses before it has stored it.
const LOSES: f64 = 0.15;
/// Of all events that come over a socket, how many see it broken off before they are acknowledged.
const BREAKS: f64 = 0.01;
/// Events that a socket may have under way.
const CREDIT: u64 = 40;

/// A client that fetches until it is over. Numbers go on from what it has said it took, without
/// a gap, whatever happens to the bridge: what breaks that rule stands in the ledger.
pub struct Fetcher {
    /// Calls the bridge.
    pub caller: Caller,
    /// Its subscription.
    pub id: String,
    /// How it says what it has taken.
    pub saying: Saying,
    /// What it does by chance.
    pub random: StdRng,
    /// What came.
    pub ledger: Arc<Mutex<Ledger>>,
    /// When to end.
    pub weather: Arc<Weather>,
}

impl Fetcher {
    /// Fetches.
    pub async fn run(mut self) {
        if self.saying == Saying::Socket {
            return self.listen().await;
        }
        let (mut taken, mut cursor) = (0, None);
        while !self.weather.is_over() {
            let limit = self.random.random_range(1..200);
            let after =
                cursor.as_ref().filter(|_| self.saying == Saying::After).map(|cursor| format!("&after={cursor}")).unwrap_or_default();
            let path = format!("/v1/subscriptions/{}/events?limit={limit}&wait_s=1{after}", self.id);
            let Some(answer) = self.call(Method::GET, &path, None, 200).await else { continue };
            let Value::Array(events) = answer.json() else { panic!("no batch: {answer:?}") };
            let events: Vec<Told> = events.into_iter().map(Told::of).collect();
            let numbers: Vec<u64> = events.iter().filter_map(|told| Some(told.number?.1)).collect();
            let Some(last) = numbers.last().copied() else { continue };
            let arrivals = {
                let mut ledger = self.ledger.lock().expect("no panic");
                if !numbers.iter().copied().eq(taken + 1..=last) || events.len() > limit {
                    ledger.wrong(format!("pull: after {taken} came {numbers:?}, at most {limit} asked for"));
                }
                ledger.came(Request::default(), events)
            };
            if self.random.random_bool(LOSES) {
                continue;
            }
            let next = answer.header("ryggrad-cursor").to_owned();
            if self.saying == Saying::Ack {
                let path = format!("/v1/subscriptions/{}/ack", self.id);
                // Until it is answered: the bridge may have died before or after it knew.
                while self.call(Method::POST, &path, Some(json!({"cursor": next})), 204).await.is_none() {
                    if self.weather.is_over() {
                        return;
                    }
                }
            }
            (taken, cursor) = (last, Some(next));
            self.ledger.lock().expect("no panic").took(arrivals);
        }
    }

    /// By `ryggrad.v1`, in one connection after the other.
    async fn listen(mut self) {
        // What came and is not known to be acknowledged, by number.
        let mut open: BTreeMap<u64, Range<usize>> = BTreeMap::new();
        let mut taken = 0;
        while !self.weather.is_over() {
            let mut next = None;
            let Ok(mut socket) = Socket::open(&self.caller, &self.id, "ryggrad.v1", "").await else {
                wait::random_moment(self.random.random_range(50..250)).await;
                continue;
            };
            let mut lives = socket.say(json!({"type": "credit", "events": CREDIT})).await;
            while lives && !self.weather.is_over() {
                let Ok(said) = socket.next().await else { break };
                let settled = said["acknowledged"].as_u64().or(said["through"].as_u64());
                if let Some(through) = settled {
                    let mut ledger = self.ledger.lock().expect("no panic");
                    if through < taken {
                        ledger.wrong(format!("socket: {taken} was acknowledged, and now {through} is"));
                    }
                    let later = open.split_off(&(through + 1));
                    std::mem::replace(&mut open, later).into_values().for_each(|arrivals| ledger.took(arrivals));
                    taken = through;
                    next = next.or(Some(through + 1));
                }
                let Some(number) = said["number"].as_u64() else { continue };
                // What it acknowledged right before the connection broke may count after the next hello.
                let due = next.take().map(|due| (due..number).find(|number| !open.contains_key(number)).unwrap_or(number));
                open.insert(number, self.came_over_socket(number, due, &said["event"]));
                next = Some(number + 1);
                if self.random.random_bool(BREAKS) {
                    break;
                }
                for word in [json!({"type": "ack", "through": number}), json!({"type": "credit", "events": 1})] {
                    lives &= socket.say(word).await;
                }
            }
        }
    }

    fn came_over_socket(&self, number: u64, due: Option<u64>, event: &Value) -> Range<usize> {
        let mut ledger = self.ledger.lock().expect("no panic");
        if due != Some(number) {
            ledger.wrong(format!("socket: {number} came where {due:?} was due"));
        }
        ledger.came(Request::default(), [Told::of(event.clone())])
    }

    /// None if the bridge was not there to answer.
    async fn call(&mut self, method: Method, path: &str, body: Option<Value>, expected: u16) -> Option<crate::bridge::Raw> {
        let answer = self.caller.try_raw(method, path, body).await;
        match answer {
            Some(answer) if answer.status == expected => Some(answer),
            answer => {
                if let Some(answer) = answer.filter(|answer| answer.status != 503) {
                    self.ledger.lock().expect("no panic").wrong(format!("pull: {path} answers {answer:?}"));
                }
                wait::random_moment(self.random.random_range(50..250)).await;
                None
            }
        }
    }
}
