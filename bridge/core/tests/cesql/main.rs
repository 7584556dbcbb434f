//! CloudEvents SQL against an evaluator written from the specification alone, and against texts
//! that nobody would write.
//!
//! Every test prints its seed; `RYGGRAD_SEED=n` runs it again:
//! `cargo test --release -p ryggrad-bridge-core --test cesql -- --nocapture`. The fuzz target runs
//! for two seconds, with `RYGGRAD_TEST_FULL=1` for ten minutes.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test may fail loudly, and says what it covered")]

mod generate;
mod hostile;
mod oracle;
#[path = "../simulation/random.rs"]
mod random;

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use oracle::Val;
use random::Random;
use ryggrad_bridge_core::cesql::{Attributes, Expression, Value};
use ryggrad_bridge_core::filter::Filters;
use serde_json::json;

const EXPRESSIONS: usize = 150_000;
const HOSTILE_INPUTS: usize = 200_000;
const FUZZ: Duration = Duration::from_secs(2);
const FUZZ_FULL: Duration = Duration::from_secs(600);
/// What no input may take, on a machine however busy.
const INPUT_MAX: Duration = Duration::from_secs(2);

/// An event as both sides see it.
pub struct Event(pub BTreeMap<&'static str, Val>);

impl Attributes for Event {
    fn attribute(&self, name: &str) -> Option<Value<'_>> {
        Some(match self.0.get(name)? {
            Val::Int(integer) => Value::Integer(*integer),
            Val::Bool(boolean) => Value::Boolean(*boolean),
            Val::Str(text) => Value::from(text.as_str()),
        })
    }
}

fn events() -> [Event; 3] {
    let text = |text: &str| Val::Str(text.to_owned());
    let headers = [("id", "e1"), ("source", "/klinikk/7"), ("type", "no.ryggrad.a.v1"), ("specversion", "1.0"), ("hop", "3"), ("a", "aab")];
    let all = headers.map(|(name, value)| (name, text(value)));
    let typed =
        [("limit", Val::Int(10)), ("urgent", Val::Bool(true)), ("least", Val::Int(i32::MIN)), ("a", text("Åab%")), ("7up", text(""))];
    let odd =
        [("hop", text("tre")), ("urgent", text("FALSE")), ("limit", text("2147483648")), ("a", text("-7")), ("type", text("\u{a0}a_b "))];
    let with = |more: &[(&'static str, Val)]| Event(all.iter().chain(more).cloned().collect());
    [with(&[]), with(&typed), with(&odd)]
}

#[expect(clippy::disallowed_methods, reason = "a seed that was not there before; it is printed")]
fn seeded(test: &str) -> Random {
    let drawn = || u64::from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos());
    let seed = std::env::var("RYGGRAD_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(drawn);
    println!("{test}: RYGGRAD_SEED={seed}");
    Random::new(seed)
}

#[expect(clippy::disallowed_methods, reason = "how long a test takes is the test's to measure")]
fn now() -> Instant {
    Instant::now()
}

fn of_product(value: Value<'_>) -> Val {
    match value {
        Value::Integer(integer) => Val::Int(integer),
        Value::Boolean(boolean) => Val::Bool(boolean),
        Value::String(text) => Val::Str(text.into_owned()),
    }
}

#[test]
fn the_product_agrees_with_an_evaluator_written_from_the_specification() {
    let mut random = seeded("against the oracle");
    let events = events();
    let (mut failing, mut passing, mut types) = (0, 0, BTreeMap::<&str, usize>::new());
    for _ in 0..EXPRESSIONS {
        let depth = random.below(6);
        let tree = generate::tree(&mut random, depth);
        let text = generate::text(&mut random, &tree);
        let event = random.below(events.len() as u64) as usize;
        let attributes = &events[event];
        let expected = oracle::evaluate(&tree, &attributes.0);
        let expression = Expression::parse(&text).unwrap_or_else(|why| panic!("{text}\n{tree:?}\n{why}"));
        let found = expression.evaluate(attributes);
        let (errors, passes) = (found.errors.len(), found.passes());
        let value = of_product(found.value);
        assert_eq!((&value, errors > 0), (&expected.value, expected.error), "{text}\nevent {event}\n{tree:?}");
        assert_eq!(expression.matches(attributes).ok(), (!expected.error).then_some(expected.value == Val::Bool(true)), "{text}");
        failing += usize::from(expected.error);
        passing += usize::from(passes);
        *types.entry(value.type_name()).or_default() += 1;
    }
    println!("{EXPRESSIONS} expressions: {failing} with errors, {passing} let the event pass, {types:?}");
    let enough = |count: usize| count > EXPRESSIONS / 50;
    assert!(
        enough(failing)
            && enough(EXPRESSIONS - failing)
            && enough(passing)
            && types.len() == 3
            && types.values().all(|count| enough(*count))
    );
}

/// One text, however odd: it is refused or has a value, both ways of asking agree, and it takes no
/// longer than it should.
fn endure(text: &str, events: &[Event]) -> bool {
    let started = now();
    let parsed = Expression::parse(text);
    match &parsed {
        Ok(expression) => {
            for event in events {
                let evaluation = expression.evaluate(event);
                let first = evaluation.errors.first().map(|error| error.kind);
                match expression.matches(event) {
                    Ok(passes) => assert_eq!((passes, first), (evaluation.passes(), None), "{text:?}"),
                    Err(kind) => assert_eq!(first, Some(kind), "{text:?}"),
                }
            }
        }
        Err(fault) => assert!(fault.place.offset <= text.len() && fault.place.line > 0 && !fault.to_string().is_empty(), "{text:?}"),
    }
    let mut faults = Vec::new();
    let filters = Filters::parse(&json!([{"not": {"sql": text}}]), "/filters", &mut faults);
    assert!(filters.is_none() || parsed.is_ok(), "{text:?}");
    let took = now().duration_since(started);
    assert!(took < INPUT_MAX, "{text:?} took {took:?}");
    parsed.is_ok()
}

#[test]
fn no_text_makes_it_panic_or_wait() {
    let mut random = seeded("hostile inputs");
    let events = events();
    let compiled = (0..HOSTILE_INPUTS).filter(|_| endure(&hostile::text(&mut random), &events)).count();
    println!("{HOSTILE_INPUTS} inputs, {compiled} of them expressions");
    assert!(compiled > HOSTILE_INPUTS / 50 && compiled < HOSTILE_INPUTS);
}

#[test]
fn the_largest_texts_are_bounded() {
    let events = events();
    for text in hostile::large() {
        endure(&text, &events);
    }
}

#[test]
fn fuzz() {
    let mut random = seeded("fuzz");
    let full = std::env::var_os("RYGGRAD_TEST_FULL").is_some_and(|value| value == "1");
    let (events, started, lasts) = (events(), now(), if full { FUZZ_FULL } else { FUZZ });
    let (mut inputs, mut compiled) = (0_u64, 0_u64);
    while now().duration_since(started) < lasts {
        compiled += u64::from(endure(&hostile::text(&mut random), &events));
        inputs += 1;
    }
    println!("{inputs} inputs in {lasts:?}, {compiled} of them expressions");
}
