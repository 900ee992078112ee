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

/// How soon a server is listened to after the first of its results was kept.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Listens to whom it is worth it, until the gateway leaves.
pub(super) async fn overhear(gateway: &Arc<Gateway>) {
    let mut ears: HashMap<String, Listening> = HashMap::new();
    while !gateway.is_draining() {
        let view = gateway.view();
        ears.retain(|path, ear| {
            let is_worth_it = view.server_at(path).is_some_and(|server| server.results.keeps_any());
            is_worth_it && !ear.is_over()
        });
        for server in view.servers.iter().filter(|server| server.results.keeps_any()) {
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
