//! One WebSocket connection: what to send, what the receiver has taken, when to close.
//!
//! Pure: `step(now, input, &mut actions)`. Two subprotocols share it. In `ryggrad.v1` the receiver
//! gives credit and acknowledges. In `cloudevents.json` it can say nothing: what it has held for a
//! while on a connection that lives counts as taken, and everything later can be resumed. Must never
//! take an event as taken that the receiver has not, nor send beyond its credit.

mod frames;

use std::collections::{BTreeSet, VecDeque};

pub use frames::{BadFrame, acknowledged_frame, event_frame, heartbeat_frame, hello_frame, with_cursor};
use frames::{Told, read};

/// How often a quiet receiver is asked whether it lives.
pub const HEARTBEAT_MS: u64 = 15_000;
/// A receiver that has said nothing for so long is gone.
pub const SILENCE_MS_MAX: u64 = 45_000;
/// For how long an event that came in can be resumed before, where the receiver acknowledges nothing.
pub const RESUMABLE_MS: u64 = 30_000;
/// Most events between two questions whether they came in.
const EVENTS_A_PING_MAX: u64 = 64;
/// Pings whose answers may be missing.
const PINGS_MAX: usize = 256;

/// How events are carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// CloudEvents' own binding: an event a message, and nothing else.
    CloudEvents,
    /// Credit, acknowledgements, heartbeats.
    Ryggrad,
}

impl Protocol {
    /// All, with their names in `Sec-WebSocket-Protocol`.
    pub const NAMES: [&str; 2] = ["ryggrad.v1", "cloudevents.json"];

    /// The first that is offered and known.
    pub fn choose<'o>(offered: impl IntoIterator<Item = &'o str>) -> Option<Self> {
        offered.into_iter().find_map(|name| [Self::Ryggrad, Self::CloudEvents].into_iter().find(|known| known.name() == name))
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ryggrad => Self::NAMES[0],
            Self::CloudEvents => Self::NAMES[1],
        }
    }
}

/// Why a connection is closed by the bridge: the code and reason of the close frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Close {
    /// The bridge stops. Come back.
    GoingAway,
    /// A frame that the protocol does not know.
    BadFrame(BadFrame),
    /// The token has expired or was revoked.
    Unauthorised,
    /// Whoever the subscription is for is stopped.
    Stopped,
    /// The subscription is gone.
    Ended,
    /// The receiver does not answer, or does not read.
    Silent,
    /// A newer connection has taken over.
    Replaced,
    /// The run of numbers is over, or what is asked for was taken.
    Resync,
}

impl Close {
    /// The close code.
    pub fn code(self) -> u16 {
        match self {
            Self::GoingAway => 1001,
            Self::BadFrame(_) => 4400,
            Self::Unauthorised => 4401,
            Self::Stopped => 4403,
            Self::Ended => 4404,
            Self::Silent => 4408,
            Self::Replaced => 4409,
            Self::Resync => 4410,
        }
    }

    /// What to do about it, in less than 124 bytes.
    pub fn reason(self) -> &'static str {
        match self {
            Self::GoingAway => "the bridge stops; connect again",
            Self::BadFrame(fault) => fault.reason(),
            Self::Unauthorised => "the token has expired or was revoked; connect with a new one",
            Self::Stopped => "the organisation is stopped and nothing is lost; see withheld_by, connect when it has ended",
            Self::Ended => "the subscription is gone",
            Self::Silent => "nothing was heard or read for too long; connect again",
            Self::Replaced => "a newer connection of this subscription has taken over",
            Self::Resync => "the cursor is over or was passed; connect without after",
        }
    }
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input<'t> {
    /// A text message came.
    Text(&'t str),
    /// A binary message came.
    Binary,
    /// A pong came, with the payload of a ping.
    Pong(&'t [u8]),
    /// An event of this number was sent.
    Sent(u64),
    /// Everything up to this number is settled on disk.
    Settled(u64),
    /// Time has passed.
    Tick,
}

/// What the shell must do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send a text message.
    Text(String),
    /// Send a ping with this payload.
    Ping(Vec<u8>),
    /// The receiver has taken everything up to this number.
    Acknowledge(u64),
    /// Close, and do nothing else.
    Close(Close),
}

/// One connection.
#[derive(Debug)]
pub struct Session {
    protocol: Protocol,
    /// Events that may be unacknowledged.
    window: u64,
    /// Events between two questions whether they came in: several in half a window, or nothing of
    /// a full one would ever be known to lie half a window back.
    events_a_ping: u64,
    /// Everything up to here is taken, as this session knows.
    taken: u64,
    sent: u64,
    credit: u64,
    /// Acknowledged one by one, above `taken`.
    single: BTreeSet<u64>,
    next_ping: u64,
    /// Pings under way: which, and what had been sent before.
    pings: VecDeque<(u64, u64)>,
    pinged_at: u64,
    pinged_at_ms: u64,
    /// What came in, and when that was known, where the receiver acknowledges nothing.
    arrived: VecDeque<(u64, u64)>,
    heard_at_ms: u64,
}

impl Session {
    /// A connection that goes on after a number, with at most so many unacknowledged events.
    pub fn new(now_ms: u64, protocol: Protocol, taken: u64, window: usize) -> Self {
        Self {
            protocol,
            window: window as u64,
            events_a_ping: (window as u64 / 4).clamp(1, EVENTS_A_PING_MAX),
            taken,
            sent: taken,
            credit: 0,
            single: BTreeSet::new(),
            next_ping: 0,
            pings: VecDeque::new(),
            pinged_at: taken,
            pinged_at_ms: now_ms,
            arrived: VecDeque::new(),
            heard_at_ms: now_ms,
        }
    }

    /// How many events may be sent now.
    pub fn room(&self) -> usize {
        let open = match self.protocol {
            Protocol::Ryggrad => self.credit,
            Protocol::CloudEvents => self.window.saturating_sub(self.sent - self.taken),
        };
        usize::try_from(open).unwrap_or(usize::MAX)
    }

    /// The number of the last event that was sent, or that the session began behind.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Takes in what happened and says what to do.
    pub fn step(&mut self, now_ms: u64, input: Input<'_>, actions: &mut Vec<Action>) {
        match input {
            Input::Text(text) => {
                self.heard_at_ms = now_ms;
                self.told(text, actions);
            }
            Input::Binary => actions.push(Action::Close(Close::BadFrame(BadFrame::Binary))),
            Input::Pong(payload) => {
                self.heard_at_ms = now_ms;
                self.ponged(now_ms, payload);
                self.age(now_ms, actions);
            }
            Input::Sent(number) => self.sent_one(now_ms, number, actions),
            Input::Settled(number) => {
                if self.protocol == Protocol::Ryggrad {
                    actions.push(Action::Text(acknowledged_frame(number)));
                }
            }
            Input::Tick => self.tick(now_ms, actions),
        }
    }

    fn told(&mut self, text: &str, actions: &mut Vec<Action>) {
        if self.protocol == Protocol::CloudEvents {
            // The binding gives the receiver nothing to say.
            return actions.push(Action::Close(Close::BadFrame(BadFrame::Unexpected)));
        }
        match read(text) {
            Ok(Told::Credit(events)) => self.credit = self.credit.saturating_add(events).min(self.window),
            Ok(Told::Through(number) | Told::One(number)) if number > self.sent => {
                actions.push(Action::Close(Close::BadFrame(BadFrame::NotSent)));
            }
            Ok(Told::Through(number)) => self.take(number, actions),
            Ok(Told::One(number)) => {
                if number > self.taken {
                    self.single.insert(number);
                }
                let mut through = self.taken;
                while self.single.contains(&(through + 1)) {
                    through += 1;
                }
                self.take(through, actions);
            }
            Ok(Told::Heartbeat) => {}
            Err(fault) => actions.push(Action::Close(Close::BadFrame(fault))),
        }
    }

    fn take(&mut self, through: u64, actions: &mut Vec<Action>) {
        if through > self.taken {
            self.taken = through;
            // One by one may reach further than that.
            while self.single.remove(&(self.taken + 1)) {
                self.taken += 1;
            }
            self.single = self.single.split_off(&self.taken);
            actions.push(Action::Acknowledge(self.taken));
        }
    }

    fn sent_one(&mut self, now_ms: u64, number: u64, actions: &mut Vec<Action>) {
        self.sent = self.sent.max(number);
        match self.protocol {
            Protocol::Ryggrad => self.credit = self.credit.saturating_sub(1),
            Protocol::CloudEvents if self.sent - self.pinged_at >= self.events_a_ping => self.ping(now_ms, actions),
            Protocol::CloudEvents => {}
        }
    }

    fn tick(&mut self, now_ms: u64, actions: &mut Vec<Action>) {
        if now_ms.saturating_sub(self.heard_at_ms) >= SILENCE_MS_MAX {
            return actions.push(Action::Close(Close::Silent));
        }
        // In the plain protocol a ping also asks whether the last events came in.
        let asks = self.protocol == Protocol::CloudEvents && self.sent > self.pinged_at;
        let quiet_ms = now_ms.saturating_sub(self.pinged_at_ms);
        if quiet_ms >= HEARTBEAT_MS || (asks && quiet_ms >= HEARTBEAT_MS / 10) {
            self.ping(now_ms, actions);
            if self.protocol == Protocol::Ryggrad {
                actions.push(Action::Text(heartbeat_frame()));
            }
        }
        self.age(now_ms, actions);
    }

    fn ping(&mut self, now_ms: u64, actions: &mut Vec<Action>) {
        if self.pings.len() >= PINGS_MAX {
            return;
        }
        self.next_ping += 1;
        self.pings.push_back((self.next_ping, self.sent));
        (self.pinged_at, self.pinged_at_ms) = (self.sent, now_ms);
        actions.push(Action::Ping(self.next_ping.to_be_bytes().to_vec()));
    }

    fn ponged(&mut self, now_ms: u64, payload: &[u8]) {
        let Some(ping) = payload.first_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes)) else { return };
        if payload.len() != 8 || !self.pings.iter().any(|(sent, _)| *sent == ping) {
            return;
        }
        while let Some((_, number)) = self.pings.pop_front_if(|(sent, _)| *sent <= ping) {
            if self.protocol == Protocol::CloudEvents && self.arrived.back().is_none_or(|(before, _)| *before < number) {
                self.arrived.push_back((number, now_ms));
            }
        }
    }

    /// What came in long ago, or more than half a window ago, is taken.
    fn age(&mut self, now_ms: u64, actions: &mut Vec<Action>) {
        let mut through = self.taken;
        while let Some((number, _)) = self.arrived.pop_front_if(|(number, at_ms)| {
            now_ms.saturating_sub(*at_ms) >= RESUMABLE_MS || self.sent.saturating_sub(*number) >= self.window / 2
        }) {
            through = number;
        }
        self.take(through, actions);
    }
}

#[cfg(test)]
mod tests;
