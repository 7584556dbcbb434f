//! What a receiver says on its WebSocket, in any order, between events that are sent, pongs and time that passes.
//!
//! Laws: never more is sent than credit and window allow; nothing is acknowledged that was not sent, and what is follows
//! from the acknowledgements as a plain set has it; a frame is taken only if another reader finds it in the protocol.

use std::collections::BTreeSet;

use ryggrad_bridge_core::socket::{Action, Input, Protocol, Session, with_cursor};
use serde_json::Value;

use crate::parts::{json, seed};

const WINDOW: usize = 16;
/// Where a session begins: something was taken before.
const TAKEN: u64 = 100;

struct Model {
    session: Session,
    protocol: Protocol,
    now_ms: u64,
    sent: u64,
    acknowledged: u64,
    /// Numbers that the receiver has named, one by one or by all before.
    named: BTreeSet<u64>,
    through: u64,
    pings: Vec<Vec<u8>>,
}

/// Lines: the first byte says what happens. Whether the connection was open to the end.
pub(crate) fn run(input: &[u8]) -> bool {
    let Some((first, rest)) = input.split_first() else { return false };
    let protocol = if *first == 0 { Protocol::Ryggrad } else { Protocol::CloudEvents };
    let mut model = Model {
        session: Session::new(0, protocol, TAKEN, WINDOW),
        protocol,
        now_ms: 0,
        sent: TAKEN,
        acknowledged: TAKEN,
        named: BTreeSet::new(),
        through: TAKEN,
        pings: Vec::new(),
    };
    for line in rest.split(|byte| *byte == b'\n').take(256) {
        if !model.step(line) {
            return false;
        }
    }
    true
}

impl Model {
    /// Whether the connection stays open.
    fn step(&mut self, line: &[u8]) -> bool {
        let mut actions = Vec::new();
        match line.split_first() {
            Some((b's', [])) => {
                if self.session.room() == 0 {
                    return true;
                }
                self.sent += 1;
                self.session.step(self.now_ms, Input::Sent(self.sent), &mut actions);
            }
            Some((b't', [seconds])) => {
                self.now_ms += 1_000 * u64::from(*seconds);
                self.session.step(self.now_ms, Input::Tick, &mut actions);
            }
            Some((b'p', [which])) => {
                let payload = self.pings.get(usize::from(*which) % self.pings.len().max(1)).cloned().unwrap_or_default();
                self.session.step(self.now_ms, Input::Pong(&payload), &mut actions);
            }
            Some((b'P', payload)) => self.session.step(self.now_ms, Input::Pong(payload), &mut actions),
            Some((b'b', [])) => self.session.step(self.now_ms, Input::Binary, &mut actions),
            _ => {
                let text = String::from_utf8_lossy(line);
                self.session.step(self.now_ms, Input::Text(&text), &mut actions);
                let is_taken = !actions.iter().any(|action| matches!(action, Action::Close(_)));
                assert!(!is_taken || self.protocol == Protocol::Ryggrad, "a receiver that has nothing to say was heard");
                if is_taken {
                    self.heard(&json(text.as_bytes()).expect("a frame is taken that is no JSON"));
                }
            }
        }
        self.holds(&actions)
    }

    fn heard(&mut self, frame: &Value) {
        let members = frame.as_object().expect("a frame is taken that is no object");
        let number = |name: &str| members.get(name).filter(|value| !value.is_null()).map(|value| value.as_u64().unwrap());
        match frame["type"].as_str() {
            Some("credit") => assert!(members.len() == 2 && (1..=100_000).contains(&number("events").unwrap())),
            Some("heartbeat") => assert_eq!(members.len(), 1),
            Some("ack") => match (number("through"), number("number")) {
                (Some(through), None) => {
                    assert!(through <= self.sent);
                    self.through = self.through.max(through);
                }
                (None, Some(number)) => {
                    assert!(number <= self.sent);
                    self.named.insert(number);
                }
                _ => panic!("an acknowledgement of both kinds or none is taken"),
            },
            _ => panic!("a frame of no known type is taken"),
        }
    }

    fn holds(&mut self, actions: &[Action]) -> bool {
        assert!(self.session.room() <= WINDOW && self.session.sent() == self.sent);
        for action in actions {
            match action {
                Action::Acknowledge(number) => {
                    assert!(*number > self.acknowledged && *number <= self.sent, "{number} is acknowledged");
                    self.acknowledged = *number;
                }
                Action::Ping(payload) => self.pings.push(payload.clone()),
                Action::Close(close) => {
                    assert!(close.reason().len() < 124 && actions.len() <= 2);
                    return false;
                }
                Action::Text(text) => assert!(json(text.as_bytes()).is_some()),
            }
        }
        if self.protocol == Protocol::Ryggrad {
            let mut expected = self.through;
            while self.named.contains(&(expected + 1)) {
                expected += 1;
            }
            assert_eq!(self.acknowledged, expected, "what is acknowledged is not what was named");
        } else {
            assert!(self.sent - self.acknowledged <= WINDOW as u64);
            let event = with_cursor("{\"id\":\"1\"}", "abc");
            assert!(json(event.as_bytes()).is_some());
        }
        true
    }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let said = "{\"type\":\"credit\",\"events\":5}\ns\ns\ns\n{\"type\":\"ack\",\"number\":103}\n{\"type\":\"ack\",\"through\":101}\n\
                {\"type\":\"ack\",\"number\":102}\n{\"type\":\"heartbeat\"}\nt\u{10}\np\u{0}\n{\"type\":\"ack\",\"through\":103,\"number\":null}";
    vec![seed(0, said), seed(1, "s\ns\ns\ns\np\u{0}\nt\u{1f}\ns\ns\ns\ns\ns\np\u{1}\nt\u{1f}"), seed(0, "t\u{1}\nPxxxxxxxx\ns")]
}
