//! Seeds: every test that draws at random prints its seed, and takes it from `RYGGRAD_SEED`.

use rand::SeedableRng;
use rand::rngs::StdRng;

/// A generator whose seed is printed.
pub fn seeded(test: &str) -> StdRng {
    let seed = std::env::var("RYGGRAD_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random::<u64>);
    println!("{test}: RYGGRAD_SEED={seed}");
    StdRng::seed_from_u64(seed)
}
