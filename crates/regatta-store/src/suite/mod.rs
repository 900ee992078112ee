//! The conformance suite: what every backend must do. A backend's tests call `run` with a fresh store, and `run_pair`
//! with two handles on the same state.
//!
//! It panics with a sentence where a backend falls short. It leaves nothing that a store shared with others would
//! mind: all names in it are worked out from a seed. One file a concern, as in the crate itself.

mod budgets;
mod calls;
mod claims;
mod data;
mod keys;
mod mail;
mod pair;
mod quotas;
mod registry;
mod results;
mod sessions;
mod spills;

use std::time::Duration;

use crate::{Store, Uuid16};

/// Runs the whole suite. `seed` makes names that no other run uses; `day` is an issue day that is alive. Needs a tokio
/// runtime with time.
pub async fn run(store: &dyn Store, seed: u64, day: u32) {
    let names = Names { seed };
    sessions::run(store, &names, day).await;
    keys::run(store, &names).await;
    spills::run(store, &names).await;
    mail::run(store, &names).await;
    claims::run(store, &names).await;
    budgets::run(store, &names).await;
    registry::run(store, &names).await;
    results::run(store, &names).await;
    quotas::run(store, &names).await;
    data::run(store, &names).await;
    calls::run(store, &names).await;
}

/// Runs what needs two: `one` and `other` are handles of two processes on the same state.
pub async fn run_pair(one: &dyn Store, other: &dyn Store, seed: u64, day: u32) {
    pair::run(one, other, &Names { seed }, day).await;
}

/// How long something that must happen may take on a busy machine.
const SOON: Duration = Duration::from_secs(10);

/// Names of one run.
struct Names {
    seed: u64,
}

impl Names {
    fn bytes(&self, case: u8, number: u32) -> [u8; 16] {
        let mut bytes = [case; 16];
        bytes[..8].copy_from_slice(&self.seed.to_be_bytes());
        bytes[8..12].copy_from_slice(&number.to_be_bytes());
        bytes
    }

    fn session(&self, case: u8) -> Uuid16 {
        Uuid16(self.bytes(case, 0))
    }
}

/// Waits for a fact; panics with the sentence when it does not come true.
async fn eventually<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let end = tokio::time::Instant::now() + SOON;
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(tokio::time::Instant::now() < end, "not within {SOON:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
