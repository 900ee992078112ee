//! What servers say of their lists is heard for as long as anything of theirs is kept, whether a client listens or not.
//!
//! In the gateway's own name, without any client's credentials, over the same shared legs that clients use: one to a
//! replica, whoever else listens in that name. A server that tells nothing to nobody in particular is heard only while a
//! client listens, and what is kept of it ends by its time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::shared;
use crate::gateway::Gateway;
use crate::listen::shared::Listening;
use crate::view::ServerView;

/// How soon a server is listened to after the first of its results was kept.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// A leg of our own is worth so many connections.
const CALLERS_SHARE: usize = 8;

/// Listens to whom it is worth it, until the gateway leaves.
pub(super) async fn overhear(gateway: &Arc<Gateway>) {
    let mut ears: HashMap<String, Listening> = HashMap::new();
    while !gateway.is_draining() {
        let view = gateway.view();
        let is_worth_it = |server: &&Arc<ServerView>| server.results.keeps_any() && bears_it(gateway, server);
        ears.retain(|path, ear| view.server_at(path).filter(is_worth_it).is_some() && !ear.is_over());
        for server in view.servers.iter().filter(is_worth_it) {
            let path = &server.server.path;
            if !ears.contains_key(path)
                && let Some(ear) = shared::overhear(gateway, server)
            {
                ears.insert(path.clone(), ear);
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Whether our own legs leave nearly all of the server's connections to its callers, where it bears only so many.
fn bears_it(gateway: &Gateway, server: &ServerView) -> bool {
    if server.server.connections_max.is_none() {
        return true;
    }
    let budget = gateway.upstreams.budget(&server.server.name);
    budget.is_some_and(|budget| budget.used().allowed >= server.replicas.len().saturating_mul(CALLERS_SHARE))
}
