//! A deterministic simulation of the cores of one shard: three nodes, a model of the sentinels, a network that
//! delays, partitions and breaks, processes that crash, lose their memory and pause, and clocks that run apart.
//!
//! After every step the invariants of DESIGN section 6 are checked, and every reply that leaves is compared with what
//! an append-only list per slot allows: no acknowledged write is lost, no read is stale. At the end all faults stop
//! and everything has to converge. A seed reproduces a run: `KEYWARD_SEED=123 cargo test -p keyward-node simulated`.

mod oracle;
mod register;
mod world;

use world::World;

fn seeds() -> std::ops::Range<u64> {
    match std::env::var("KEYWARD_SEED").ok().and_then(|s| s.parse::<u64>().ok()) {
        Some(seed) => seed..seed + 1,
        None => {
            let count = std::env::var("KEYWARD_SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(100);
            0..count
        }
    }
}

#[test]
fn simulated_shards_lose_nothing_and_converge() {
    let mut totals = [0; 5];
    for seed in seeds() {
        let result = std::panic::catch_unwind(|| World::new(seed).run());
        match result {
            Ok(counts) => totals.iter_mut().zip(counts).for_each(|(t, c)| *t += c),
            Err(panic) => {
                eprintln!("reproduce with: KEYWARD_SEED={seed} cargo test -p keyward-node simulated");
                std::panic::resume_unwind(panic);
            }
        }
    }
    let [writes, reads, terms, full_syncs, resumed] = totals;
    eprintln!(
        "{writes} writes and {reads} reads acknowledged, {terms} terms, {full_syncs} full syncs, {resumed} resumed"
    );
    assert!(writes > 0 && reads > 0 && terms > 0 && full_syncs > 0, "the simulation exercises nothing");
}
