//! One behaviour of a connection each, step by step, with the clock in hand.

use serde_json::{Value, json};

use super::*;
use crate::access::Caller;

const WINDOW: usize = 1_000;

fn session(protocol: Protocol) -> Session {
    Session::new(0, protocol, 10, WINDOW)
}

fn stepped(session: &mut Session, now_ms: u64, input: Input<'_>) -> Vec<Action> {
    let mut actions = Vec::new();
    session.step(now_ms, input, &mut actions);
    actions
}

fn send(session: &mut Session, now_ms: u64, numbers: impl IntoIterator<Item = u64>) -> Vec<Action> {
    numbers.into_iter().flat_map(|number| stepped(session, now_ms, Input::Sent(number))).collect()
}

fn bad(fault: BadFrame) -> Vec<Action> {
    vec![Action::Close(Close::BadFrame(fault))]
}

#[test]
fn nothing_is_sent_beyond_the_credit() {
    let mut session = session(Protocol::Ryggrad);
    assert_eq!(session.room(), 0);
    assert_eq!(stepped(&mut session, 1, Input::Text(r#"{"type":"credit","events":3}"#)), []);
    assert_eq!(send(&mut session, 1, 11..=12), []);
    assert_eq!((session.room(), session.sent()), (1, 12));
    stepped(&mut session, 1, Input::Text(r#"{"type":"credit","events":99999}"#));
    assert_eq!(session.room(), WINDOW, "credit beyond the window is none");
}

#[test]
fn acknowledgements_are_single_or_of_all_before() {
    let mut session = session(Protocol::Ryggrad);
    send(&mut session, 1, 11..=20);
    for (frame, expected) in [
        (json!({"type": "ack", "number": 12}), vec![]),
        (json!({"type": "ack", "number": 13}), vec![]),
        (json!({"type": "ack", "number": 11}), vec![Action::Acknowledge(13)]),
        (json!({"type": "ack", "number": 11}), vec![]),
        (json!({"type": "ack", "number": 17}), vec![]),
        (json!({"type": "ack", "through": 16}), vec![Action::Acknowledge(17)]),
        (json!({"type": "ack", "through": 5}), vec![]),
        (json!({"type": "heartbeat"}), vec![]),
        (json!({"type": "ack", "through": 21}), bad(BadFrame::NotSent)),
        (json!({"type": "ack", "number": u64::MAX}), bad(BadFrame::NotSent)),
    ] {
        assert_eq!(stepped(&mut session, 2, Input::Text(&frame.to_string())), expected, "{frame}");
    }
    assert_eq!(stepped(&mut session, 2, Input::Settled(17)), [Action::Text(r#"{"type":"acknowledged","through":17}"#.to_owned())]);
}

#[test]
fn what_is_no_frame_closes() {
    for frame in [
        "",
        "hei",
        "{}",
        "[]",
        r#"{"type":"ack"}"#,
        r#"{"type":"ack","through":1,"number":1}"#,
        r#"{"type":"ack","through":-1}"#,
        r#"{"type":"credit","events":0}"#,
        r#"{"type":"credit","events":100001}"#,
        r#"{"type":"credit","events":1,"x":1}"#,
        r#"{"type":"event"}"#,
    ] {
        assert_eq!(stepped(&mut session(Protocol::Ryggrad), 1, Input::Text(frame)), bad(BadFrame::Unknown), "{frame}");
    }
    assert_eq!(stepped(&mut session(Protocol::Ryggrad), 1, Input::Binary), bad(BadFrame::Binary));
    assert_eq!(stepped(&mut session(Protocol::CloudEvents), 1, Input::Text("{}")), bad(BadFrame::Unexpected));
}

#[test]
fn where_nothing_can_be_acknowledged_what_has_been_there_for_a_while_is_taken() {
    let mut session = session(Protocol::CloudEvents);
    assert_eq!(session.room(), WINDOW);
    let ping = |number: u64| Action::Ping(number.to_be_bytes().to_vec());
    assert_eq!(send(&mut session, 5, 11..=80), [ping(1)]);
    assert_eq!(stepped(&mut session, 6, Input::Pong(b"other")), []);
    assert_eq!(stepped(&mut session, 6, Input::Pong(&9_u64.to_be_bytes())), [], "no such ping");
    assert_eq!(stepped(&mut session, 10, Input::Pong(&1_u64.to_be_bytes())), []);
    // The rest is asked after before the next heartbeat.
    assert_eq!(stepped(&mut session, 2_000, Input::Tick), [ping(2)]);
    assert_eq!(stepped(&mut session, 2_001, Input::Pong(&2_u64.to_be_bytes())), []);
    assert_eq!(stepped(&mut session, RESUMABLE_MS + 9, Input::Tick), [ping(3)]);
    assert_eq!(stepped(&mut session, RESUMABLE_MS + 10, Input::Tick), [Action::Acknowledge(74)]);
    assert_eq!(stepped(&mut session, RESUMABLE_MS + 2_001, Input::Tick), [Action::Acknowledge(80)]);
}

#[test]
fn a_fast_stream_keeps_half_a_window_resumable() {
    for window in [1, 2, 3, 7, 64, 100, WINDOW] {
        let mut session = Session::new(0, Protocol::CloudEvents, 10, window);
        let (mut next, mut taken, mut asked) = (11, 10, Vec::<Vec<u8>>::new());
        for _ in 0..5_000 {
            // It answers no sooner than it must.
            if session.room() == 0 {
                for payload in std::mem::take(&mut asked) {
                    for action in stepped(&mut session, 1, Input::Pong(&payload)) {
                        let Action::Acknowledge(number) = action else { panic!("{action:?}") };
                        assert!(number > taken && next - 1 - number >= window as u64 / 2, "{number} of {next} in {window}");
                        taken = number;
                    }
                }
            }
            assert!(session.room() > 0, "a window of {window} never stops at {next}");
            for action in stepped(&mut session, 1, Input::Sent(next)) {
                let Action::Ping(payload) = action else { panic!("{action:?}") };
                asked.push(payload);
            }
            next += 1;
        }
        assert!(next - 1 - taken <= window as u64);
    }
    // Nobody answers any more: the window is the end of it.
    let mut session = session(Protocol::CloudEvents);
    send(&mut session, 1, 11..=10 + WINDOW as u64);
    assert_eq!(session.room(), 0);
}

#[test]
fn silence_is_asked_about_and_then_the_end() {
    for protocol in [Protocol::Ryggrad, Protocol::CloudEvents] {
        let mut session = session(protocol);
        assert_eq!(stepped(&mut session, HEARTBEAT_MS - 1, Input::Tick), []);
        let asked = stepped(&mut session, HEARTBEAT_MS, Input::Tick);
        assert_eq!(asked.first(), Some(&Action::Ping(1_u64.to_be_bytes().to_vec())));
        assert_eq!(asked.len(), if protocol == Protocol::Ryggrad { 2 } else { 1 });
        stepped(&mut session, HEARTBEAT_MS + 5, Input::Pong(&1_u64.to_be_bytes()));
        assert!(!stepped(&mut session, SILENCE_MS_MAX, Input::Tick).contains(&Action::Close(Close::Silent)));
        assert_eq!(stepped(&mut session, HEARTBEAT_MS + 5 + SILENCE_MS_MAX, Input::Tick), [Action::Close(Close::Silent)]);
    }
}

#[test]
fn frames_are_json_and_reasons_fit_a_close_frame() {
    let parsed = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    assert_eq!(
        parsed(&event_frame(7, "AB-_", r#"{"id":"x"}"#)),
        json!({"type": "event", "number": 7, "cursor": "AB-_", "event": {"id": "x"}})
    );
    assert_eq!(parsed(&with_cursor(r#"{"id":"x","data":{}}"#, "AB")), json!({"id": "x", "data": {}, "cursor": "AB"}));
    assert_eq!(parsed(&hello_frame("s", Caller::new("312345676".parse().unwrap(), None), 1, 2, "c", 3, 4))["type"], "hello");
    let faults = [BadFrame::Binary, BadFrame::Unexpected, BadFrame::Unknown, BadFrame::NotSent].map(Close::BadFrame);
    let others = [Close::GoingAway, Close::Unauthorised, Close::Ended, Close::Silent, Close::Replaced, Close::Resync];
    for close in faults.into_iter().chain(others) {
        assert!(close.reason().len() <= 123 && close.code() >= 1000, "{close:?}");
    }
    for (offered, expected) in [
        (vec!["cloudevents.json", "ryggrad.v1"], Some(Protocol::CloudEvents)),
        (vec!["x", "ryggrad.v1"], Some(Protocol::Ryggrad)),
        (vec!["cloudevents.avro"], None),
        (vec![], None),
    ] {
        assert_eq!(Protocol::choose(offered.iter().copied()), expected, "{offered:?}");
    }
}
