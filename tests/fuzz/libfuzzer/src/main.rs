//! Runs one target under libFuzzer: `RYGGRAD_FUZZ_TARGET` names it, `RYGGRAD_FUZZ_SEEDS` a folder that its seeds are
//! written into first. Without a target it lists all. `./ryggrad fuzz` builds and runs it.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use ryggrad_fuzz::{TARGETS, Target, named};

static TARGET: OnceLock<&Target> = OnceLock::new();

fn target() -> &'static Target {
    TARGET.get_or_init(|| match std::env::var("RYGGRAD_FUZZ_TARGET").ok().as_deref().map(named) {
        Some(Some(target)) => target,
        _ => {
            TARGETS.iter().for_each(|target| println!("{}", target.name));
            std::process::exit(0);
        }
    })
}

fn write_seeds() {
    let Some(folder) = std::env::var_os("RYGGRAD_FUZZ_SEEDS") else { return };
    for (number, seed) in (target().seeds)().iter().enumerate() {
        let file = std::path::Path::new(&folder).join(format!("seed-{number}"));
        std::fs::write(&file, seed).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    }
}

fuzz_target!(
    init: {
        target();
        write_seeds();
    },
    |input: &[u8]| {
        (target().run)(input);
    }
);
