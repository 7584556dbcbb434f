//! The machine under a seeded scheduler with virtual time: receivers that fail, hang, lie, throttle
//! and vanish, commits that lag, crashes at any step, a log with gaps that is compacted, keys that
//! are removed, owners who change their minds.
//!
//! The oracle sees only what left, what the log holds and what is on disk; it shares no code with
//! the machine. A failing schedule is made smaller and printed; its story is told by
//! `RYGGRAD_SEED=n`, and `RYGGRAD_SCHEDULES=n` runs more of them:
//! `cargo test --release -p ryggrad-bridge-core --test simulation`.

#![allow(clippy::panic, clippy::print_stdout, reason = "a test may fail loudly, and says what it covered")]

mod coverage;
mod log;
mod oracle;
mod plan;
mod random;
mod receiver;
mod rig;

use coverage::Coverage;
use log::PARTITIONS;
use plan::{BUGS, Bug, Fault, Plan};
use rig::Rig;

const SCHEDULES: u64 = 5_000;

/// Schedules in which a planted bug must be found.
const BUDGET: u64 = 1_000;

fn random_step(rig: &mut Rig) {
    let has = |rig: &Rig, fault| rig.plan.has(fault);
    match rig.random.below(1_000) {
        0..420 => {
            let partition = rig.random.below(PARTITIONS as u64) as i32;
            rig.read(partition);
        }
        420..470 => {
            let (partition, events) = (rig.random.below(PARTITIONS as u64) as i32, 1 + rig.random.below(8) as usize);
            rig.log.publish(partition, events);
        }
        470..730 => rig.answer(false),
        730..870 => rig.persist(),
        870..930 => {
            let ms = if rig.random.chance(10) { 5_000 } else { rig.random.below(400) };
            rig.tick(ms);
        }
        930..938 if has(rig, Fault::Crash) => rig.crash(),
        938..946 if has(rig, Fault::Remove) => rig.remove(),
        946..954 => rig.hear_of_removals(),
        954..958 if has(rig, Fault::Stop) => rig.stop(),
        958..970 => rig.run(),
        970..974 if has(rig, Fault::Compact) => {
            let partition = rig.random.below(PARTITIONS as u64) as i32;
            rig.meet(Fault::Compact, Some(partition));
            rig.log.compact(&mut rig.random, partition);
        }
        974..977 if has(rig, Fault::Filter) => {
            rig.meet(Fault::Filter, None);
            rig.log.filter(&mut rig.random);
        }
        977..980 if has(rig, Fault::Settings) => rig.settings(),
        980..990 if has(rig, Fault::Detach) => rig.leave_tail(),
        990..1_000 if has(rig, Fault::Redrive) => rig.redrive(),
        _ => {}
    }
}

/// All faults end: everything must come to rest.
fn settle_down(rig: &mut Rig) -> Result<(), String> {
    rig.receiver.mend();
    rig.hear_of_removals();
    for partition in 0..PARTITIONS {
        rig.log.publish(partition, usize::MAX / 2);
    }
    rig.run();
    for _ in 0..50_000 {
        if rig.rests() {
            return Ok(());
        }
        rig.redrive();
        for partition in 0..PARTITIONS {
            rig.read(partition);
        }
        rig.answer(true);
        rig.persist();
        rig.tick(1_000);
        rig.receiver.violation.take().map_or(Ok(()), Err)?;
    }
    Err(format!("it never comes to rest: {}", rig.describe()))
}

/// Runs one schedule and judges it by what the receiver saw.
fn run(plan: &Plan) -> Result<Coverage, String> {
    story(plan, false)
}

fn story(plan: &Plan, tells: bool) -> Result<Coverage, String> {
    let mut rig = Rig::new(plan.clone(), tells);
    for _ in 0..plan.steps {
        random_step(&mut rig);
        rig.receiver.violation.take().map_or(Ok(()), Err)?;
    }
    settle_down(&mut rig)?;
    oracle::judge(&rig.log, &rig.receiver.took, &rig.disk.skipped, rig.disk.numbering.next)?;
    Ok(rig.coverage)
}

/// The smallest plan that still fails: fewer steps, fewer events, fewer kinds of faults.
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
        let failing =
            smaller.into_iter().filter(|smaller| *smaller != plan).find_map(|smaller| run(&smaller).err().map(|why| (smaller, why)));
        let Some(found) = failing else { return (plan, why) };
        (plan, why) = found;
    }
}

#[test]
fn nothing_is_lost_or_reordered_whatever_happens() {
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
                panic!("RYGGRAD_SEED={seed}: {why}\nsmallest: {plan:?}\n{smallest}");
            }
        }
    }
    println!("{schedules} schedules\n{}", coverage.table());
    if schedules > 1 {
        assert_eq!(coverage.missing(), [""; 0], "never happened");
    }
}

#[test]
fn planted_bugs_are_found() {
    for bug in BUGS {
        let found = (0..BUDGET).find_map(|seed| run(&Plan::whole(seed, bug)).err().map(|why| (seed, why)));
        let Some((seed, why)) = found else { panic!("{bug:?} was not found in {BUDGET} schedules") };
        println!("{bug:?}: found at seed {seed}: {why}");
    }
}
