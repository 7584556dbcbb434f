//! The frames of `ryggrad.v1`, and the cursor that every event carries on a socket.
//!
//! Must never quote a frame that can't be read: it may be about somebody.

use serde::Deserialize;
use serde_json::json;

use crate::access::Caller;

/// Most events of one grant of credit.
const CREDIT_MAX: u64 = 100_000;

/// What a receiver says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// So many events more may be sent.
    Credit(u64),
    /// Everything up to this number is taken.
    Through(u64),
    /// This number is taken.
    One(u64),
    /// It lives.
    Heartbeat,
}

/// Why a frame can't be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadFrame {
    /// Binary.
    Binary,
    /// The protocol gives the receiver nothing to say.
    Unexpected,
    /// Not one of the frames.
    Unknown,
    /// Acknowledges what was not sent on this connection, or before it.
    NotSent,
}

impl BadFrame {
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Binary => "messages are text",
            Self::Unexpected => "cloudevents.json takes no messages; use the subprotocol ryggrad.v1 to acknowledge",
            Self::Unknown => "a frame is {type: credit, events}, {type: ack, through}, {type: ack, number} or {type: heartbeat}",
            Self::NotSent => "an acknowledgement names a number that was not sent",
        }
    }
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
enum Frame {
    Credit { events: u64 },
    Ack { through: Option<u64>, number: Option<u64> },
    Heartbeat {},
}

pub(super) fn read(text: &str) -> Result<Told, BadFrame> {
    match serde_json::from_str(text).map_err(|_| BadFrame::Unknown)? {
        Frame::Credit { events: events @ 1..=CREDIT_MAX } => Ok(Told::Credit(events)),
        Frame::Ack { through: Some(number), number: None } => Ok(Told::Through(number)),
        Frame::Ack { through: None, number: Some(number) } => Ok(Told::One(number)),
        Frame::Heartbeat {} => Ok(Told::Heartbeat),
        Frame::Credit { .. } | Frame::Ack { .. } => Err(BadFrame::Unknown),
    }
}

/// The first frame of a connection.
pub fn hello_frame(
    subscription: &str,
    caller: Caller,
    epoch: u32,
    acknowledged: u64,
    cursor: &str,
    window: usize,
    heartbeat_ms: u64,
) -> String {
    json!({
        "type": "hello", "subscription": subscription, "organisation": caller.organisation, "supplier": caller.supplier, "epoch": epoch,
        "acknowledged": acknowledged, "cursor": cursor, "window": window, "heartbeat_ms": heartbeat_ms,
    })
    .to_string()
}

/// An event, which is JSON already.
pub fn event_frame(number: u64, cursor: &str, event: &str) -> String {
    format!("{{\"type\":\"event\",\"number\":{number},\"cursor\":\"{cursor}\",\"event\":{event}}}")
}

/// An acknowledgement is on disk.
pub fn acknowledged_frame(through: u64) -> String {
    format!("{{\"type\":\"acknowledged\",\"through\":{through}}}")
}

/// The connection lives. Says nothing else: nobody learns from it whether there are events.
pub fn heartbeat_frame() -> String {
    "{\"type\":\"heartbeat\"}".to_owned()
}

/// An event with the cursor behind it as the attribute `cursor`.
pub fn with_cursor(event: &str, cursor: &str) -> String {
    let open = event.strip_suffix('}').unwrap_or(event);
    format!("{open},\"cursor\":\"{cursor}\"}}")
}
