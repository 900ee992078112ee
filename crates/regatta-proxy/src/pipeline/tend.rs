//! What a gateway does by itself, once a second, and what it does when it leaves.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use regatta_cache::FOLLOW_EVERY;
use regatta_policy::drain::{Drain, Step, reconnect_after};

use super::overhear::overhear;
use super::rehome;
use crate::gateway::Gateway;
use crate::{budgets, peers, quotas};

/// Does what is due every second, for as long as the gateway lives.
pub async fn tend(gateway: Arc<Gateway>) {
    tokio::join!(
        sweep(&gateway),
        end_retired(&gateway),
        peers::tend(&gateway),
        follow_purges(&gateway),
        overhear(&gateway),
        quotas::attend::attend(&gateway),
        budgets::tend(&gateway)
    );
}

/// Hears of what other gateways purged, for as long as results are shared with any.
async fn follow_purges(gateway: &Arc<Gateway>) {
    let mut beat = tokio::time::interval(FOLLOW_EVERY);
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut beats = 0u64;
    while gateway.results.is_shared() {
        beat.tick().await;
        beats += 1;
        for server in &gateway.view().servers {
            let Some(shelf) = server.results.shelf.as_ref().filter(|shelf| shelf.is_due(beats)) else {
                continue;
            };
            // One that fails is made up for by the next; how long nothing was heard counts.
            let _ = shelf.follow().await;
            match shelf.turned() {
                Some(true) => tracing::warn!(
                    server = server.server.name,
                    "kept results are not shared: the store is away"
                ),
                Some(false) => tracing::info!(server = server.server.name, "kept results are shared"),
                None => {}
            }
        }
    }
}

async fn sweep(gateway: &Arc<Gateway>) {
    let mut beat = tokio::time::interval(Duration::from_secs(1));
    let mut beats = 0u64;
    loop {
        beat.tick().await;
        beats += 1;
        gateway.nap.beat(gateway.clock.now());
        gateway.upstreams.sweep();
        gateway.quotas.sweep(gateway.clock.now());
        gateway.streams.sweep(gateway.clock.now(), gateway.limits().resume_window);
        gateway.peers.kept.sweep(gateway.store.stats().link.unpublished_records);
        if beats.is_multiple_of(60) {
            gateway.store.tend();
        }
    }
}

/// Ends sessions that were left at a replica which is back (SESSIONS 4): at once when it comes back, since new work waits for
/// that, and again every second for what is left over.
async fn end_retired(gateway: &Arc<Gateway>) {
    let mut applied = gateway.watch_applied();
    loop {
        tokio::select! {
            _ = applied.changed() => {}
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
        rehome::end_retired(gateway);
    }
}

/// Leaves within `patience`: new work is refused, standing streams end with a jittered `retry` so that their clients
/// do not return as a herd (RELIABILITY F16), calls in flight go on, and what still runs shortly before the end is
/// told so (F15). Returns when nothing is left to say; the listener then closes what remains.
pub async fn leave(gateway: &Arc<Gateway>, patience: Duration) {
    gateway.begin_drain();
    for stream in gateway.streams.all() {
        if stream.is_standing() {
            let after = reconnect_after(gateway.dice());
            stream.retry(u64::try_from(after.as_millis()).unwrap_or(1000));
            let turned = stream.end(None);
            gateway.note_turn(&stream, turned);
        }
    }
    gateway.leaving.notify_waiters();
    let drain = Drain { began: gateway.clock.now(), notice: Duration::ZERO, deadline: patience };
    loop {
        let counts = gateway.slots.counts();
        let left = counts.inflight + counts.reserved + counts.parked;
        match drain.step(left, gateway.clock.now()) {
            Step::Exit => return peers::leave(gateway, LAST_WRITES_MAX).await,
            // Again and again: a legacy call may get its stream only now.
            Step::SayLastWords => {
                last_words(gateway);
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            Step::Wait(at_most) => tokio::time::sleep(at_most.min(LOOK_AGAIN)).await,
        }
    }
}

/// How long what streams hold may take into the store at the end.
const LAST_WRITES_MAX: Duration = Duration::from_millis(500);
/// How often a drain looks whether the last call has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// What still runs is told that nobody will know its outcome, instead of being cut.
fn last_words(gateway: &Arc<Gateway>) {
    gateway.last_words.notify_waiters();
    for stream in gateway.streams.all() {
        if stream.is_relayed() {
            // Its owner runs it on: the client hears the end of it at the next gateway.
            peers::spill::drop_relay(gateway, &stream);
        } else if let Some(words) = stream.last_words(&last_word) {
            let turned = stream.end(Some(&words));
            gateway.note_turn(&stream, turned);
        }
    }
}

fn last_word(id: &Bytes) -> Bytes {
    regatta_mcp::write::error(
        Some(id),
        regatta_mcp::codes::OUTCOME_UNKNOWN,
        "Outcome unknown: the gateway had to leave before the server answered",
        Some(r#"{"executed":"unknown"}"#),
    )
}
