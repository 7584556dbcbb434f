//! The decision over random histories of facts, against a naive one that knows no index: it goes
//! through all that was ever said, each time. Every reason and every view must have come up.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test may fail loudly, and says what it covered")]

mod naive;
#[path = "../simulation/random.rs"]
mod random;

use std::collections::BTreeMap;

use jiff::Timestamp;
use naive::{Naive, Said};
use random::Random;
use ryggrad_bridge_core::access::{
    Agreement, Basis, Block, Caller, Delegation, Event, Extent, Facts, Grant, Member, Normen, Period, Reason, Relation, Standing, Subject,
    Verdict,
};
use ryggrad_schemas::catalogue::DataClass;
use ryggrad_schemas::identifiers::Organisasjonsnummer;
use uuid::Uuid;

const HISTORIES: u64 = 400;
const STEPS: usize = 120;
/// Synthetic.
const ORGANISATIONS: [&str; 4] = ["312345676", "310000000", "310000019", "310000027"];
const TYPES: [(&str, DataClass, &[&str]); 3] = [
    ("no.x.virksomhet.endret.v1", DataClass::Open, &["full"]),
    ("no.x.person.endret.v1", DataClass::Personal, &["slim", "uten-hjemmel", "med-hjemmel"]),
    ("no.x.maaling.ny.v1", DataClass::Health, &["slim", "full"]),
];
const PATTERNS: [&str; 5] = ["no.x.*", "no.x.person.*", "no.x.maaling.ny.v1", "no.x.virksomhet.endret.v1", "no.y.*"];
const PERSONS: [&str; 4] = ["p1", "p2", "p3", "p4"];
const MOMENTS: u64 = 12;

fn organisation(random: &mut Random) -> Organisasjonsnummer {
    random.one_of(&ORGANISATIONS).parse().unwrap()
}

fn at(moment: u64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + moment as i64).unwrap()
}

fn moment(random: &mut Random) -> Timestamp {
    at(random.below(MOMENTS))
}

fn period(random: &mut Random) -> Period {
    let from = random.below(MOMENTS * 2 / 3);
    Period { from: at(from), until: random.chance(40).then(|| at(from + random.below(MOMENTS))) }
}

fn patterns(random: &mut Random) -> Vec<String> {
    (0..=random.below(2)).map(|_| random.one_of(&PATTERNS).to_owned()).collect()
}

fn person(random: &mut Random) -> Subject {
    Subject::new(random.one_of(&PERSONS))
}

fn member(random: &mut Random) -> Member {
    let open = Period { from: at(0), until: None };
    if random.chance(70) {
        return Member {
            organisation: organisation(random),
            standing: Standing::Active,
            agreement: Some(Agreement { reference: "A1".to_owned(), from: at(0) }),
            is_controller: random.chance(50),
            bases: vec![Basis { types: vec!["no.x.*".to_owned()], law: "L".to_owned(), period: open }],
            normen: Some(Normen { version: "6.1".to_owned(), signer: "S".to_owned(), period: open }),
            contact_points: Vec::new(),
        };
    }
    let likely = |random: &mut Random| random.chance(85);
    Member {
        organisation: organisation(random),
        standing: random.one_of(&[
            Standing::Active,
            Standing::Active,
            Standing::Active,
            Standing::Active,
            Standing::Candidate,
            Standing::Suspended,
            Standing::Expelled,
        ]),
        agreement: likely(random).then(|| Agreement { reference: "A1".to_owned(), from: at(random.below(3)) }),
        is_controller: random.chance(50),
        bases: (0..random.below(4)).map(|_| Basis { types: patterns(random), law: "L".to_owned(), period: period(random) }).collect(),
        normen: likely(random).then(|| Normen { version: "6.1".to_owned(), signer: "S".to_owned(), period: period(random) }),
        contact_points: Vec::new(),
    }
}

/// Something is said. Withdrawals and changes name what was said before, now and then what never was.
fn said(random: &mut Random, ids: u64) -> Said {
    let id = Uuid::from_u128(u128::from(random.below(ids)));
    let controller = |random: &mut Random| random.chance(60).then(|| organisation(random));
    match random.below(100) {
        0..18 => Said::Member(member(random)),
        18..20 => Said::NoMember(organisation(random)),
        20..24 => Said::Unit(organisation(random), random.chance(15)),
        24..34 => Said::Delegation(
            id,
            Delegation {
                organisation: organisation(random),
                supplier: organisation(random),
                types: patterns(random),
                period: period(random),
            },
        ),
        34..58 => Said::Grant(
            id,
            Grant {
                controller: controller(random),
                receiver: organisation(random),
                types: patterns(random),
                view: random.one_of(&["slim", "uten-hjemmel", "med-hjemmel", "full", "finnes-ikke"]).to_owned(),
                period: period(random),
            },
        ),
        58..76 => Said::Relation(
            id,
            Relation { controller: organisation(random), subject: person(random), receiver: organisation(random), period: period(random) },
        ),
        76..82 => Said::Block(
            id,
            Block {
                controller: controller(random),
                subject: person(random),
                receiver: random.chance(50).then(|| organisation(random)),
                types: if random.chance(50) { Vec::new() } else { patterns(random) },
                period: period(random),
            },
        ),
        82..92 => Said::Withdrawn(id),
        92..98 => Said::Protected(person(random), random.chance(50)),
        _ => Said::Follows(person(random), person(random)),
    }
}

fn tell(facts: &mut Facts, said: &Said) {
    match said.clone() {
        Said::Member(member) => facts.set_member(member),
        Said::NoMember(organisation) => facts.remove_member(organisation),
        Said::Unit(unit, is_deleted) => facts.set_deleted(unit, is_deleted),
        Said::Delegation(id, delegation) => {
            facts.withdraw(id);
            facts.set_delegation(id, delegation);
        }
        Said::Grant(id, grant) => {
            facts.withdraw(id);
            facts.set_grant(id, grant);
        }
        Said::Relation(id, relation) => {
            facts.withdraw(id);
            facts.set_relation(id, relation);
        }
        Said::Block(id, block) => {
            facts.withdraw(id);
            facts.set_block(id, block);
        }
        Said::Withdrawn(id) => facts.withdraw(id),
        Said::Protected(person, is_protected) => facts.set_protected(&person, is_protected),
        Said::Follows(former, present) => facts.follow(&former, &present),
    }
}

#[test]
fn the_decision_is_that_of_a_naive_one_over_every_history() {
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    let seeds = match std::env::var("RYGGRAD_SEED").ok().and_then(|seed| seed.parse::<u64>().ok()) {
        Some(seed) => seed..seed + 1,
        None => 0..HISTORIES,
    };
    let whole = seeds.end - seeds.start == HISTORIES;
    for seed in seeds {
        let mut random = Random::new(seed);
        let (mut facts, mut naive) = (Facts::default(), Naive::default());
        for step in 0..STEPS {
            let one = said(&mut random, 60);
            tell(&mut facts, &one);
            naive.hear(one);
            for _ in 0..30 {
                let (ce_type, class, views) = random.one_of(&TYPES);
                let views: Vec<String> = views.iter().map(|view| (*view).to_owned()).collect();
                let subject = random.chance(95).then(|| person(&mut random));
                let controller = match class {
                    DataClass::Health => random.chance(95),
                    _ => random.chance(10),
                };
                let event = Event {
                    ce_type,
                    class,
                    views: &views,
                    controller: controller.then(|| organisation(&mut random)),
                    subject: subject.as_ref(),
                    occurred_at: moment(&mut random),
                };
                let caller =
                    Caller { organisation: organisation(&mut random), supplier: random.chance(20).then(|| organisation(&mut random)) };
                let now = moment(&mut random);
                let (found, expected) = (facts.authorise(caller, event, now), naive.decide(caller, event, now));
                let told = match found {
                    Verdict::Deliver(view) => format!("{}{}", view.name, if view.with_addresses { "" } else { ", no address" }),
                    Verdict::Withhold(reason) => reason.name().to_owned(),
                };
                let again = format!("RYGGRAD_SEED={seed} cargo test --release -p ryggrad-bridge-core --test access");
                assert_eq!(found, expected, "step {step}: {caller:?}, {event:?}, {now}\n{again}");
                let lacks = facts.shortcomings(caller, event, now);
                assert_eq!(lacks.first().copied(), if let Verdict::Withhold(reason) = found { Some(reason) } else { None }, "{again}");
                *seen.entry(format!("{class:?}: {told}")).or_default() += 1;
                let stopped = facts.stopped(caller, now);
                assert_eq!(stopped, naive.stops(caller, now), "step {step}: {caller:?}, {now}\n{again}");
                assert_eq!(facts.next_turn(now), naive.next_turn(now), "step {step}: {now}\n{again}");
                let types = patterns(&mut random);
                let uncovered: Vec<&str> = types.iter().map(String::as_str).filter(|pattern| !naive.covers(caller, pattern, now)).collect();
                assert_eq!(facts.uncovered(caller, &types, now), uncovered, "step {step}: {caller:?}, {now}\n{again}");
                let covered = if uncovered.is_empty() { "covered" } else { "uncovered" };
                *seen.entry(format!("types: {covered}{}", if caller.supplier.is_some() { ", by a supplier" } else { "" })).or_default() +=
                    1;
                // What stops the caller aside, the same stands in the way.
                let for_others = facts.delegated(caller, now) && !naive.covers(caller, ce_type, now);
                let of_event = lacks.iter().find(|reason| !Reason::STOPPING.contains(reason)).copied();
                let expected = if for_others { Some(Reason::NotDelegated) } else { of_event };
                assert_eq!(facts.denied(caller, event, now), expected, "step {step}: {caller:?}, {event:?}, {now}\n{again}");
                // The terms of a disclosure are those of the decision, and there are none for what is denied.
                let terms = facts.terms(caller, event, now);
                assert_eq!(terms.is_some(), expected.is_none(), "step {step}: {caller:?}, {event:?}, {now}\n{again}");
                if let Some(terms) = terms {
                    let view = if let Verdict::Deliver(view) = found { view.name } else { terms.view.name };
                    let whole = views.last().is_some_and(|widest| widest == view);
                    assert_eq!((terms.view.name, terms.extent == Extent::Whole), (view, whole), "{again}");
                    assert!(class == DataClass::Open || terms.law.is_some(), "{again}");
                }
                let waits = if stopped.is_some() && expected.is_none() { "waits" } else { "goes or never comes" };
                *seen.entry(format!("denied: {waits}")).or_default() += 1;
                // Whoever is stopped gets nothing of any type, for that very reason.
                let says = if let Verdict::Withhold(reason) = found { Some(reason) } else { None };
                assert!(stopped.is_none_or(|reason| says == Some(reason) && Reason::STOPPING.contains(&reason)), "{says:?}\n{again}");
                *seen.entry(format!("stopped: {}", stopped.map_or("by nothing", Reason::name))).or_default() += 1;
            }
        }
    }
    seen.iter().for_each(|(told, times)| println!("{times:>8} {told}"));
    if !whole {
        return;
    }
    let stops = ["unit-deleted", "suspended", "expelled", "supplier-stopped", "not-delegated"];
    let lacks = ["no-member", "not-admitted", "no-agreement", "no-normen", "no-basis", "not-granted", "unknown-view", "blocked"];
    let expected = [
        ("Open", stops.to_vec()),
        ("Open", vec!["full"]),
        ("stopped", stops.to_vec()),
        ("stopped", vec!["by nothing"]),
        ("denied", vec!["waits", "goes or never comes"]),
        ("types", vec!["covered", "covered, by a supplier", "uncovered, by a supplier"]),
    ]
    .into_iter()
    .chain(["Personal", "Health"].into_iter().flat_map(|class| {
        let views = if class == "Health" {
            vec!["slim", "slim, no address", "full", "full, no address", "unattributed", "no-relation", "before-relation"]
        } else {
            vec!["slim", "slim, no address", "uten-hjemmel", "med-hjemmel", "med-hjemmel, no address"]
        };
        [(class, stops.to_vec()), (class, lacks.to_vec()), (class, views)]
    }));
    let missing: Vec<String> = expected
        .flat_map(|(class, told)| told.into_iter().map(move |told| format!("{class}: {told}")))
        .filter(|told| seen.get(told).is_none_or(|times| *times < 5))
        .collect();
    assert!(missing.is_empty(), "hardly ever or never came up: {missing:?}");
}
