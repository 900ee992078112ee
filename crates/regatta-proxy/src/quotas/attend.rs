//! How many gateways share the rules: each says once a second that it is there, and hears how many are. While the store is
//! away the last number holds, and each grants its share.

use std::sync::Arc;
use std::time::Duration;

use super::ready::{Reach, Ready};
use crate::gateway::Gateway;

const EVERY: Duration = Duration::from_secs(1);
/// How long a gateway that died is counted.
const COUNTED_FOR: Duration = Duration::from_secs(3);

/// Counts the gateways and gives back what was not used, until the gateway leaves.
pub(crate) async fn attend(gateway: &Arc<Gateway>) {
    let Some(shared) = gateway.quotas.shared() else { return };
    let mut beat = tokio::time::interval(EVERY);
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !gateway.is_draining() {
        beat.tick().await;
        let counts = |ready: &Arc<Ready>| ready.reach == Reach::Fleet;
        if !gateway.view().servers.iter().any(|server| server.quotas.iter().any(counts)) {
            continue;
        }
        // The store is away: the last number holds.
        if let Ok(gateways) = gateway.store.attend(gateway.peers.id, COUNTED_FOR).await {
            shared.count(gateways);
        }
        shared.give_back(&*gateway.store, &gateway.clock).await;
    }
    // It serves what it has begun, and hardly takes more: the others' shares may grow.
    let _ = gateway.store.depart(gateway.peers.id).await;
}
