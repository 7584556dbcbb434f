//! The hub under a seeded scheduler with virtual time: three subscriptions on one tail, a ring that
//! holds little, too few readers, receivers that fail, hang, lie, throttle and vanish, one that
//! fetches, owners who change their minds or go back, owners who are stopped or may not have everything, keys that are removed, a log with tombstones that is
//! compacted, and crashes at any step.
//!
//! The oracle sees only the log, what was persisted and what left. What one machine does in detail is
//! in `simulation`; this is about who reads what, and what of it is on disk. A failing schedule is
//! made smaller and printed; its story is told by `RYGGRAD_SEED=n`, and `RYGGRAD_SCHEDULES=n` runs
//! more of them: `cargo test --release -p ryggrad-bridge-core --test hub`.

#![allow(clippy::panic, clippy::print_stdout, reason = "a test may fail loudly, and says what it covered")]

mod coverage;
mod log;
mod oracle;
mod owners;
mod plan;
#[path = "../simulation/random.rs"]
mod random;
mod receivers;
mod rig;
mod subscription;

use coverage::Coverage;
use log::{PARTITIONS, place, places};
use plan::{BUGS, Bug, Fault, Plan};
use rig::Rig;
use subscription::Subscription;

const SCHEDULES: u64 = 5_000;

/// Schedules in which a planted bug must be found.
const BUDGET: u64 = 1_000;

fn random_step(rig: &mut Rig) {
    let has = |rig: &Rig, fault| rig.plan.has(fault);
    let partition = place(rig.random.below(PARTITIONS as u64) as i32);
    match rig.random.below(1_000) {
        0..60 => {
            let events = rig.random.below(10) as usize;
            rig.publish(partition, events);
        }
        60..220 => rig.tail(partition),
        220..370 => rig.serve(false),
        370..640 => rig.answer(false),
        640..830 => rig.persist(),
        830..920 => {
            let ms = if rig.random.chance(10) { 1_500 } else { rig.random.below(200) };
            rig.tick(ms);
        }
        920..926 if has(rig, Fault::Crash) => rig.crash(),
        926..934 if has(rig, Fault::Withhold) => rig.withhold(),
        934..939 => rig.hear_of_removals(),
        939..942 if has(rig, Fault::Hold) => rig.hold(),
        942..946 if has(rig, Fault::Stop) => rig.stop(),
        946..957 => rig.resume_one(),
        957..962 => rig.release_one(),
        962..968 if has(rig, Fault::Compact) => rig.compact(),
        968..972 if has(rig, Fault::Filter) => rig.filter(),
        972..976 if has(rig, Fault::Settings) => rig.settings(),
        976..980 if has(rig, Fault::Move) => rig.move_receiver(),
        980..982 if has(rig, Fault::Replace) => rig.replace(),
        982..984 if has(rig, Fault::Restart) => rig.restart(),
        984..989 => rig.redrive(),
        989..992 if has(rig, Fault::Deny) => rig.deny(),
        992..994 if has(rig, Fault::Narrow) => rig.narrow(),
        994..996 if has(rig, Fault::Keys) => rig.edit_list(),
        996..998 if has(rig, Fault::Rewind) => rig.rewind(),
        998..1_000 if has(rig, Fault::Replay) => rig.replay(),
        _ => {}
    }
}

/// All faults end: everything must come to rest. At first one receiver still hangs, and the others
/// must come to rest all the same.
fn settle_down(rig: &mut Rig) -> Result<(), String> {
    rig.subscriptions.iter_mut().for_each(Subscription::mend);
    rig.hear_of_removals();
    places().for_each(|place| rig.publish(place, usize::MAX / 2));
    if rig.plan.has(Fault::Hang) {
        let hanging = rig.random.one_of(&[0, 1, 2]);
        rig.mute = Some(rig::address(hanging));
        calm(rig)?;
        rig.mute = None;
    }
    calm(rig)
}

fn calm(rig: &mut Rig) -> Result<(), String> {
    for index in 0..rig.subscriptions.len() {
        if !rig.subscriptions[index].removed {
            rig.resume(index);
            if rig.subscriptions[index].held {
                rig.release(index);
            }
        }
    }
    for _ in 0..20_000 {
        if rig.rests() {
            return Ok(());
        }
        rig.redrive();
        places().for_each(|place| rig.tail(place));
        rig.serve(true);
        rig.answer(true);
        rig.persist();
        rig.pass_time();
        rig.violation.take().map_or(Ok(()), Err)?;
    }
    Err(format!("it never comes to rest, {:?} aside: {}", rig.mute, rig.describe()))
}

/// Runs one schedule and judges it by what the receivers saw.
fn run(plan: &Plan) -> Result<Coverage, String> {
    story(plan, false)
}

fn story(plan: &Plan, tells: bool) -> Result<Coverage, String> {
    let ended = std::panic::catch_unwind(|| {
        let mut rig = Rig::new(plan.clone(), tells);
        for _ in 0..plan.steps {
            random_step(&mut rig);
            rig.violation.take().map_or(Ok(()), Err)?;
        }
        settle_down(&mut rig)?;
        for (index, subscription) in rig.subscriptions.iter().enumerate() {
            oracle::judge(&rig.log, subscription).map_err(|why| format!("subscription {index}: {why}"))?;
        }
        Ok(rig.coverage)
    });
    ended.unwrap_or_else(|_| Err("it panics".to_owned()))
}

/// What a failure says, numbers aside: one bug must not be shrunk into another.
fn shape(why: &str) -> String {
    why.lines().take(1).flat_map(str::chars).filter(|character| !character.is_ascii_digit()).collect()
}

/// The smallest plan that still fails in that way: fewer steps, fewer events, fewer kinds of faults.
fn shrink(mut plan: Plan, mut why: String) -> (Plan, String) {
    loop {
        let mut smaller = Vec::new();
        for part in [2, 4, 8, 16] {
            smaller.push(Plan { steps: plan.steps - plan.steps / part as u64, ..plan.clone() });
            smaller.push(Plan { events: (plan.events - plan.events / part).max(1), ..plan.clone() });
        }
        for fault in &plan.faults {
            smaller.push(Plan { faults: plan.faults.iter().copied().filter(|other| other != fault).collect(), ..plan.clone() });
        }
        let fails = |smaller: Plan| run(&smaller).err().filter(|other| shape(other) == shape(&why)).map(|why| (smaller, why));
        let failing = smaller.into_iter().filter(|smaller| *smaller != plan).find_map(fails);
        let Some(found) = failing else { return (plan, why) };
        (plan, why) = found;
    }
}

#[test]
fn every_subscription_gets_its_events_whoever_reads_them() {
    let number = |name| std::env::var(name).ok().and_then(|number| number.parse::<u64>().ok());
    let seeds = match number("RYGGRAD_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("RYGGRAD_SCHEDULES").unwrap_or(SCHEDULES),
    };
    let mut coverage = Coverage::default();
    let schedules = seeds.end - seeds.start;
    for seed in seeds {
        let plan = Plan::whole(seed, Bug::None);
        match run(&plan) {
            Ok(covered) => coverage.add(covered),
            Err(why) => {
                let (plan, smallest) = shrink(plan, why.clone());
                if schedules == 1 {
                    let _ = story(&plan, true);
                }
                let again = format!("RYGGRAD_SEED={seed} cargo test --release -p ryggrad-bridge-core --test hub");
                panic!("{again}\n{why}\nsmallest: {plan:?}\n{smallest}");
            }
        }
    }
    println!("{schedules} schedules\n{}", coverage.table());
    if schedules >= SCHEDULES {
        assert_eq!(coverage.missing(), [""; 0], "hardly ever happened");
    }
}

#[test]
fn planted_bugs_are_found() {
    for bug in BUGS {
        let found = (0..BUDGET).find_map(|seed| run(&Plan::whole(seed, bug)).err().map(|why| (seed, why)));
        let Some((seed, why)) = found else { panic!("{bug:?} was not found in {BUDGET} schedules") };
        println!("{bug:?}: schedule {seed}, {}", why.lines().next().unwrap_or_default());
    }
}
