//! A receiver for each way in, all obedient to the same three words: so that one table of
//! behaviours can be run against every channel.
//!
//! What it has taken is the receiver's own word, never the bridge's.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use reqwest::Method;
use ryggrad_log::groups::{self, Committed};
use ryggrad_log::{Read, ReaderLimits, Start, follow};
use ryggrad_schemas::cloudevents::Attributes;
use ryggrad_schemas::{LogRecord, avro};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite};

use crate::bridge::Caller;
use crate::receiver::Receiver;
use crate::wait;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
/// Credit that a socket gives at a time; answers that a poll asks for.
const AT_A_TIME: u64 = 50;
/// How long nothing may come before a reader of a topic asks whether it is there.
const LOOKED_AFTER: Duration = Duration::from_secs(2);
/// How long to wait before a bridge that was not there is called again.
const AGAIN_MS: u64 = 50;

/// A way in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// Posted one by one.
    Webhook,
    /// Posted in batches.
    Batch,
    /// Long polls, acknowledged by `POST …/ack`.
    Pull,
    /// Server-sent events, acknowledged likewise.
    Stream,
    /// A WebSocket by `ryggrad.v1`.
    Credit,
    /// A WebSocket by `cloudevents.json`.
    Plain,
    /// A topic of the receiver's own, whose group commits what was taken.
    Kafka,
}

impl Way {
    /// All of them.
    pub const ALL: [Self; 7] = [Self::Webhook, Self::Batch, Self::Pull, Self::Stream, Self::Credit, Self::Plain, Self::Kafka];
    /// Those over HTTP.
    pub const OVER_HTTP: [Self; 6] = [Self::Webhook, Self::Batch, Self::Pull, Self::Stream, Self::Credit, Self::Plain];

    /// Whether the bridge calls.
    pub fn is_posted(self) -> bool {
        matches!(self, Self::Webhook | Self::Batch)
    }

    fn protocol(self) -> &'static str {
        if self == Self::Credit { "ryggrad.v1" } else { "cloudevents.json" }
    }
}

/// What a receiver does with what comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// Takes it, and says so.
    Takes,
    /// Sees it and never says that it has taken it.
    Loses,
    /// Is not there.
    Away,
}

/// What came.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// The CloudEvent, without what the delivery and the channel have added to it.
    pub event: Value,
    /// Which run of numbers, and the number in it.
    pub number: (u64, u64),
    /// Whether it was taken.
    pub taken: bool,
    /// When, milliseconds since 1970.
    pub at_ms: i64,
}

/// Milliseconds since 1970.
pub fn now_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    i64::try_from(now.as_millis()).expect("not that late")
}

impl Arrival {
    fn of(mut event: Value, taken: bool) -> Self {
        let mut text = |name: &str| event.as_object_mut()?.remove(name)?.as_str()?.parse().ok();
        let number = Option::zip(text("deliveryepoch"), text("deliverynumber")).expect("every delivery has a number");
        if let Some(event) = event.as_object_mut() {
            event.remove("cursor");
        }
        Self { event, number, taken, at_ms: now_ms() }
    }

    /// Whether it closes a number that stands for nothing.
    pub fn is_void(&self) -> bool {
        self.event["type"] == "no.ryggrad.void.v1"
    }

    /// The event's id.
    pub fn id(&self) -> &str {
        self.event["id"].as_str().unwrap_or_default()
    }
}

#[derive(Default)]
struct Book {
    arrivals: Vec<Arrival>,
    /// What the bridge said when it was over: a status, or a WebSocket's code.
    over: Option<u16>,
    /// What it said when it was only over for now: 403, or 4403 of a WebSocket.
    refusals: Vec<u16>,
    unsigned: usize,
}

/// A subscription with its receiver.
pub struct Client {
    /// How it comes in.
    pub way: Way,
    /// The subscription's id.
    pub id: String,
    caller: Caller,
    mood: watch::Sender<Mood>,
    book: Arc<Mutex<Book>>,
    task: Option<JoinHandle<()>>,
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Client {
    /// Subscribes with these members beside the channel's own, and starts in this mood.
    pub async fn subscribe(caller: &Caller, way: Way, wish: &Value, mood: Mood) -> Self {
        let (moods, book) = (watch::Sender::new(mood), Arc::<Mutex<Book>>::default());
        let mut body = match way {
            Way::Webhook => json!({"verify": "none"}),
            Way::Batch => json!({"verify": "none", "format": "batch", "batch_events_max": 7}),
            Way::Pull | Way::Stream => json!({"channel": "pull"}),
            Way::Credit | Way::Plain => json!({"channel": "websocket"}),
            Way::Kafka => json!({"channel": "kafka"}),
        };
        if way.is_posted() {
            (body["sink"], body["secret"]) = (json!(endpoint(&moods, &book).await), json!(SECRET));
        }
        for (name, value) in wish.as_object().expect("an object") {
            body[name] = value.clone();
        }
        let (status, made) = caller.post("/v1/subscriptions", body).await;
        assert_eq!(status, 201, "{way:?}: {made}");
        let id = made["id"].as_str().expect("an id").to_owned();
        let text = |name: &str| made[name].as_str().unwrap_or_default().to_owned();
        let (topic, group) = (text("topic"), format!("{}.own", text("organisation")));
        let (mood, book_of_its_own) = (moods.subscribe(), Arc::clone(&book));
        let fetcher = Fetcher { caller: caller.clone(), way, id: id.clone(), topic, group, mood, book: book_of_its_own };
        let task = (!way.is_posted()).then(|| tokio::spawn(fetcher.run()));
        Self { way, id, caller: caller.clone(), mood: moods, book, task }
    }

    /// Changes its mood.
    pub fn be(&self, mood: Mood) {
        self.mood.send_replace(mood);
    }

    /// Everything that came, in order.
    pub fn arrivals(&self) -> Vec<Arrival> {
        self.book.lock().unwrap().arrivals.clone()
    }

    /// What the bridge has refused for now, in order: the receiver comes again.
    pub fn refusals(&self) -> Vec<u16> {
        self.book.lock().unwrap().refusals.clone()
    }

    /// Requests with a bad signature.
    pub fn unsigned(&self) -> usize {
        self.book.lock().unwrap().unsigned
    }

    /// Waits until so many different numbers were taken.
    pub async fn has_taken(&self, numbers: usize) {
        let what = format!("{:?} has taken {numbers}", self.way);
        let looked = wait::held(&what, 60, || async { (self.taken() >= numbers).then_some(()) }).await;
        assert!(looked.is_some(), "{what}: it has {} of {} arrivals", self.taken(), self.arrivals().len());
    }

    /// How many different numbers were taken.
    pub fn taken(&self) -> usize {
        let book = self.book.lock().unwrap();
        let numbers = book.arrivals.iter().filter(|arrival| arrival.taken).map(|arrival| arrival.number);
        numbers.collect::<std::collections::BTreeSet<_>>().len()
    }

    /// Waits until so many arrivals have come, taken or not.
    pub async fn has_seen(&self, arrivals: usize) {
        let what = format!("{:?} has seen {arrivals}", self.way);
        wait::until(&what, 60, || async { (self.book.lock().unwrap().arrivals.len() >= arrivals).then_some(()) }).await;
    }

    /// Waits until the bridge has said that it is over, and gives what it said.
    pub async fn over(&self) -> u16 {
        wait::until(&format!("{:?} is told the end", self.way), 30, || async { self.book.lock().unwrap().over }).await
    }

    /// Changes the subscription.
    pub async fn patch(&self, change: Value) {
        let (status, body) = self.caller.patch(&format!("/v1/subscriptions/{}", self.id), change).await;
        assert_eq!(status, 200, "{:?}: {body}", self.way);
    }

    /// Calls below the subscription's address.
    pub async fn call(&self, method: Method, below: &str, body: Option<Value>) -> (u16, Value) {
        self.caller.call(method, &format!("/v1/subscriptions/{}{below}", self.id), body).await
    }

    /// Its status.
    pub async fn status(&self) -> Value {
        self.caller.status(&self.id).await.expect("a status")
    }

    /// Waits until the bridge, too, knows that everything was taken.
    pub async fn settles(&self) {
        if self.way == Way::Plain {
            // There time decides, half a minute of it: a test of the pure session shows that.
            return;
        }
        wait::until(&format!("{:?} has nothing pending", self.way), 60, || async {
            let status = self.caller.status(&self.id).await?;
            (status["pending"] == 0 && status["in_flight"] == 0).then_some(())
        })
        .await;
    }
}

/// An endpoint; its address.
async fn endpoint(moods: &watch::Sender<Mood>, book: &Arc<Mutex<Book>>) -> String {
    let (mood, book) = (moods.subscribe(), Arc::clone(book));
    let receiver = Receiver::scripted(move |received| {
        let mood = *mood.borrow();
        if mood == Mood::Away {
            return (503, Vec::new());
        }
        let mut book = book.lock().unwrap();
        book.unsigned += usize::from(!received.verified);
        let events = match serde_json::from_slice(&received.body).expect("JSON") {
            Value::Array(events) => events,
            event => vec![event],
        };
        book.arrivals.extend(events.into_iter().map(|event| Arrival::of(event, mood == Mood::Takes)));
        (if mood == Mood::Takes { 204 } else { 500 }, Vec::new())
    })
    .await;
    receiver.trust(SECRET);
    receiver.sink()
}

/// What happened to one connection.
enum Left {
    /// It broke, or the mood has changed: another one.
    Broken,
    /// Not now, says the bridge.
    Refused(u16),
    /// It is over for good.
    Over(u16),
}

/// Comes and fetches.
struct Fetcher {
    caller: Caller,
    way: Way,
    id: String,
    /// Its own topic, and the group that it reads as, if it has any.
    topic: String,
    group: String,
    mood: watch::Receiver<Mood>,
    book: Arc<Mutex<Book>>,
}

impl Fetcher {
    async fn run(mut self) {
        let mut cursor = None;
        loop {
            let mood = *self.mood.borrow_and_update();
            if mood == Mood::Away {
                if self.mood.changed().await.is_err() {
                    return;
                }
                continue;
            }
            let mut changed = self.mood.clone();
            let connection = async {
                match self.way {
                    Way::Pull => self.poll(mood).await,
                    Way::Stream => self.stream(mood).await,
                    Way::Kafka => self.records(mood).await,
                    _ => self.socket(mood, &mut cursor).await,
                }
            };
            let left = tokio::select! {
                left = connection => left,
                _ = changed.changed() => Left::Broken,
            };
            match left {
                Left::Over(said) => {
                    self.book.lock().unwrap().over = Some(said);
                    return;
                }
                Left::Refused(said) => {
                    self.book.lock().unwrap().refusals.push(said);
                    wait::random_moment(AGAIN_MS).await;
                }
                Left::Broken => wait::random_moment(AGAIN_MS).await,
            }
        }
    }

    fn note(&self, events: impl IntoIterator<Item = Value>, mood: Mood) {
        let arrivals = events.into_iter().map(|event| Arrival::of(event, mood == Mood::Takes));
        self.book.lock().unwrap().arrivals.extend(arrivals);
    }

    /// Says what was taken: what the bridge does not know comes again.
    async fn acknowledge(&self, cursor: &str) -> Option<Left> {
        match self.caller.try_call(Method::POST, &format!("/v1/subscriptions/{}/ack", self.id), Some(json!({"cursor": cursor}))).await {
            Some((204, _)) => None,
            Some((status @ (401 | 404), _)) => Some(Left::Over(status)),
            Some((503, _)) | None => Some(Left::Broken),
            Some((status, body)) => panic!("an acknowledgement is answered {status}: {body}"),
        }
    }

    async fn poll(&self, mood: Mood) -> Left {
        loop {
            let path = format!("/v1/subscriptions/{}/events?limit={AT_A_TIME}&wait_s=2", self.id);
            let Some(answer) = self.caller.try_raw(Method::GET, &path, None).await else { return Left::Broken };
            match answer.status {
                200 => {}
                403 => return Left::Refused(403),
                503 => return Left::Broken,
                status => return Left::Over(status),
            }
            let Value::Array(events) = answer.json() else { panic!("no batch: {answer:?}") };
            if events.is_empty() {
                continue;
            }
            // Stored first, then acknowledged: that may be heard and not answered.
            self.note(events, mood);
            if mood == Mood::Takes
                && let Some(left) = self.acknowledge(answer.header("ryggrad-cursor")).await
            {
                return left;
            }
            if mood == Mood::Loses {
                return Left::Broken;
            }
        }
    }

    async fn stream(&self, mood: Mood) -> Left {
        let Some(answer) = self.caller.stream(&format!("/v1/subscriptions/{}/events", self.id)).await else { return Left::Broken };
        match answer.status().as_u16() {
            200 => {}
            403 => return Left::Refused(403),
            503 => return Left::Broken,
            status => return Left::Over(status),
        }
        let (mut body, mut text) = (answer.bytes_stream(), String::new());
        while let Some(Ok(bytes)) = body.next().await {
            text.push_str(std::str::from_utf8(&bytes).expect("UTF-8 in whole events"));
            while let Some(end) = text.find("\n\n") {
                let block: String = text.drain(..end + 2).collect();
                let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
                let (Some(cursor), Some(data)) = (field("id:"), field("data:")) else { continue };
                self.note([serde_json::from_str(data).expect("an event")], mood);
                if mood == Mood::Takes
                    && let Some(left) = self.acknowledge(cursor).await
                {
                    return left;
                }
            }
        }
        Left::Broken
    }

    /// As any client of Kafka: from what its group has committed, or from the beginning of what is there.
    async fn records(&self, mood: Mood) -> Left {
        let (kafka, place) = (self.caller.kafka(), (self.topic.clone(), 0));
        let keeper = groups::Keeper::new(kafka, &self.group).expect("a group");
        let Ok(committed) = keeper.committed(std::slice::from_ref(&place), 10_000).await else { return Left::Broken };
        let Ok(marks) = ryggrad_log::watermarks(kafka, &self.topic, 0, 10_000).await else { return self.is_gone().await };
        // What was deleted meanwhile is nobody's any more.
        let next = committed.first().map_or(marks.low, |committed| committed.offset.max(marks.low));
        let starts = [(0, Start::Offset(next.min(marks.high)))];
        let mut follower = follow(kafka, &self.topic, &starts, ReaderLimits::default()).expect("a reader");
        loop {
            // A client learns late that a topic is gone.
            let Ok(read) = tokio::time::timeout(LOOKED_AFTER, follower.next()).await else {
                match self.is_gone().await {
                    Left::Broken => continue,
                    over => return over,
                }
            };
            let Some(read) = read else { return Left::Broken };
            match read {
                Read::Records(records) => {
                    let next = records.last().map_or(0, |record| record.offset + 1);
                    self.note(records.iter().map(event_of), mood);
                    let (topic, partition) = place.clone();
                    let taken = Committed { topic, partition, offset: next, metadata: String::new() };
                    if mood == Mood::Loses || keeper.commit(vec![taken]).await.is_err() {
                        return Left::Broken;
                    }
                }
                Read::Failed(_) => return self.is_gone().await,
                _ => {}
            }
        }
    }

    async fn is_gone(&self) -> Left {
        match self.caller.try_call(Method::GET, &format!("/v1/subscriptions/{}", self.id), None).await {
            Some((404, _)) => Left::Over(404),
            _ => Left::Broken,
        }
    }

    async fn socket(&self, mood: Mood, cursor: &mut Option<String>) -> Left {
        let after = cursor.as_ref().filter(|_| self.way == Way::Plain).map(|cursor| format!("?after={cursor}")).unwrap_or_default();
        let mut socket = match Socket::open(&self.caller, &self.id, self.way.protocol(), &after).await {
            Ok(socket) => socket,
            Err(0 | 503) => return Left::Broken,
            Err(403) => return Left::Refused(403),
            Err(status) => return Left::Over(status),
        };
        if self.way == Way::Credit && !socket.say(json!({"type": "credit", "events": AT_A_TIME})).await {
            return Left::Broken;
        }
        loop {
            let said = match socket.next().await {
                Ok(said) => said,
                Err(4403) => return Left::Refused(4403),
                Err(4404) => return Left::Over(4404),
                Err(_) => return Left::Broken,
            };
            if self.way == Way::Plain {
                if mood == Mood::Takes {
                    *cursor = said["cursor"].as_str().map(str::to_owned);
                }
                self.note([said], mood);
                continue;
            }
            match said["type"].as_str() {
                Some("event") if mood == Mood::Takes => {
                    self.note([said["event"].clone()], mood);
                    let both = [json!({"type": "ack", "through": said["number"]}), json!({"type": "credit", "events": 1})];
                    for word in both {
                        if !socket.say(word).await {
                            return Left::Broken;
                        }
                    }
                }
                Some("event") => self.note([said["event"].clone()], mood),
                _ => {}
            }
        }
    }
}

/// A record of a receiver's own topic as the CloudEvent that it is, with its number as others have it.
fn event_of(record: &LogRecord) -> Value {
    let data = record.value.as_ref().map(|value| avro::decode_to_json(value).expect("framed Avro"));
    let mut event = Attributes::from_record(record).expect("a CloudEvent").to_structured(data);
    for (name, header) in [("deliveryepoch", "ryggrad_epoch"), ("deliverynumber", "ryggrad_number")] {
        event[name] = json!(record.header(header).expect("every record has a number"));
    }
    event
}

/// A WebSocket of the test's own, for what stock clients do not do.
pub struct Socket(pub WebSocketStream<TcpStream>);

impl Socket {
    /// Opens it, or says with which status it was refused; 0 if nobody was there.
    pub async fn open(caller: &Caller, id: &str, protocol: &str, query: &str) -> Result<Self, u16> {
        Self::open_with_answer(caller, id, protocol, query).await.map(|(socket, _)| socket)
    }

    /// The same, with what the bridge has answered.
    pub async fn open_with_answer(
        caller: &Caller,
        id: &str,
        protocol: &str,
        query: &str,
    ) -> Result<(Self, tungstenite::handshake::client::Response), u16> {
        let authorization = format!("Bearer {}", caller.token());
        let mut headers = vec![("authorization", authorization.as_str())];
        if !protocol.is_empty() {
            headers.push(("sec-websocket-protocol", protocol));
        }
        Self::open_with_headers(caller.base(), &format!("/v1/subscriptions/{id}/socket{query}"), &headers).await
    }

    /// At any path, with these headers alone.
    pub async fn open_with_headers(
        base: &str,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<(Self, tungstenite::handshake::client::Response), u16> {
        let address = base.replace("http://", "");
        let mut request = format!("ws://{address}{path}").into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        let stream = TcpStream::connect(&address).await.map_err(|_| 0_u16)?;
        match client_async(request, stream).await {
            Ok((socket, response)) => Ok((Self(socket), response)),
            Err(tungstenite::Error::Http(response)) => Err(response.status().as_u16()),
            Err(_) => Err(0),
        }
    }

    /// Sends a frame; no if the connection is gone.
    pub async fn say(&mut self, frame: Value) -> bool {
        self.0.send(Message::Text(frame.to_string().into())).await.is_ok()
    }

    /// The next text, or the code with which it was closed; 0 if it broke.
    pub async fn next(&mut self) -> Result<Value, u16> {
        loop {
            match tokio::time::timeout(Duration::from_secs(30), self.0.next()).await.expect("within 30 s") {
                Some(Ok(Message::Text(text))) => return Ok(serde_json::from_str(&text).unwrap()),
                Some(Ok(Message::Close(frame))) => return Err(frame.map_or(1005, |frame| frame.code.into())),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Err(0),
            }
        }
    }
}
