//! Every target over its seeds, which it must take, and over some thousands of mutations of them.
//!
//! Every seed prints when it fails: `RYGGRAD_SEED=n` repeats it, `RYGGRAD_MUTATIONS=n` runs more of each. What coverage
//! leads to is for `./ryggrad fuzz`; this is for every change. A planted bug shows that such mutations find one.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test may fail loudly, and says what it covered")]

use std::panic::catch_unwind;

use ryggrad_fuzz::{TARGETS, Target};

/// Mutations of each target.
const MUTATIONS: u64 = 4_000;
/// Longest input.
const INPUT_BYTES_MAX: usize = 8 * 1024;

/// Bytes that parsers have opinions about.
const SCRAPS: [&[u8]; 28] = [
    b"\"",
    b"\\",
    b"\\u0000",
    b"\\ud800",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"null",
    b"true",
    b"0",
    b"-1",
    b"1e400",
    b"18446744073709551616",
    b"9223372036854775807",
    b"-9223372036854775808",
    b"4294967296",
    b"\0",
    b"\xff",
    b"\xef\xbb\xbf",
    b"\r\n",
    b" ",
    b"%",
    b"\x80\x80\x80\x80\x10",
    b"312345676",
    b"$serde_json::private::Number",
];

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }
}

/// One mutation of one of the seeds. Small changes of long inputs, mostly.
fn mutated(seed: u64, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut random = Random(seed);
    let mut input = seeds[random.below(seeds.len())].clone();
    for _ in 0..=random.below(4) {
        let (at, other) = (random.below(input.len() + 1), random.below(input.len() + 1));
        let (from, to) = (at.min(other), at.max(other));
        match random.below(8) {
            0 => {
                if let Some(byte) = input.get_mut(at) {
                    *byte ^= 1 << random.below(8);
                }
            }
            1 => {
                if let Some(byte) = input.get_mut(at) {
                    *byte = random.next() as u8;
                }
            }
            2 => input.truncate(at),
            3 => drop(input.splice(at..at, SCRAPS[random.below(SCRAPS.len())].iter().copied())),
            4 => drop(input.drain(from..to.min(from + 16))),
            5 => {
                let part = input[from..to].to_vec();
                input.splice(to..to, part);
            }
            6 => {
                let part = input[from..to.min(from + 16)].to_vec();
                let times = 1 << random.below(8);
                input.splice(from..from, part.repeat(times));
            }
            _ => {
                let other = &seeds[random.below(seeds.len())];
                input.truncate(at);
                input.extend_from_slice(&other[random.below(other.len() + 1)..]);
            }
        }
        input.truncate(INPUT_BYTES_MAX);
    }
    input
}

/// The first mutation that breaks a law, as its seed.
fn first_fault(target: &Target, mutations: std::ops::Range<u64>) -> Result<u64, (u64, Vec<u8>)> {
    let seeds = (target.seeds)();
    let mut taken = 0;
    for seed in mutations {
        let input = mutated(seed, &seeds);
        taken += u64::from(catch_unwind(|| (target.run)(&input)).map_err(|_| (seed, input))?);
    }
    Ok(taken)
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|number| number.parse().ok())
}

fn mutations() -> std::ops::Range<u64> {
    number("RYGGRAD_SEED").map_or(0..number("RYGGRAD_MUTATIONS").unwrap_or(MUTATIONS), |seed| seed..seed + 1)
}

#[test]
fn every_seed_is_taken() {
    for target in TARGETS {
        for (number, seed) in (target.seeds)().iter().enumerate() {
            assert!((target.run)(seed), "{}: seed {number} is refused and tests nothing: {}", target.name, seed.escape_ascii());
        }
    }
}

#[test]
fn no_mutation_of_a_seed_breaks_a_law() {
    for target in TARGETS {
        match first_fault(target, mutations()) {
            Ok(taken) => println!("{}: {} mutations, {taken} taken", target.name, mutations().end - mutations().start),
            Err((seed, input)) => panic!("{} ({}): RYGGRAD_SEED={seed}: {}", target.name, target.parses, input.escape_ascii()),
        }
    }
}

#[test]
fn a_planted_bug_is_found() {
    /// Believes the length that stands in front.
    fn trusting(input: &[u8]) -> bool {
        let Some((length, rest)) = input.split_first() else { return false };
        rest[..usize::from(*length)].is_ascii()
    }
    let planted = Target { name: "planted", parses: "a text behind its length", run: trusting, seeds: || vec![b"\x05hello".to_vec()] };
    assert!((planted.run)(&(planted.seeds)()[0]));
    assert!(first_fault(&planted, 0..MUTATIONS).is_err(), "nothing would be found");
}

#[test]
fn targets_go_by_names_of_their_own() {
    let mut names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), TARGETS.len());
}
