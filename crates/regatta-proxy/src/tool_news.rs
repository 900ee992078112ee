//! The news that a server's list of tools changed: one for each change of the list that clients are shown, and one for
//! each who listens (RELIABILITY F67).
//!
//! Where replicas' tools are looked after, the gateway is the author of the list, so it is the author of its news too:
//! what a replica says by itself would come too early or once more. Elsewhere replicas speak for themselves.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use regatta_mcp::era::Era;
use regatta_mcp::{Skim, write};
use regatta_policy::catalogue::{Catalogue, List, Spread};
use regatta_policy::snapshot::Snapshot;
use tokio::sync::watch;

use crate::gateway::Gateway;
use crate::view::{ServerView, View};

/// The notification that a list of tools changed.
const METHOD: &str = "notifications/tools/list_changed";

/// How often each server's list changed, by the server's path.
#[derive(Default)]
pub(crate) struct ToolNews {
    servers: Mutex<HashMap<String, Changes>>,
}

struct Changes {
    legacy: watch::Sender<u64>,
    modern: watch::Sender<u64>,
}

impl Default for Changes {
    fn default() -> Changes {
        Changes { legacy: watch::Sender::new(0), modern: watch::Sender::new(0) }
    }
}

impl ToolNews {
    /// Changes of the list that clients of `era` are shown, from now on; `None` where that can never be ours to say.
    pub fn listen(&self, server: &ServerView, era: Era) -> Option<watch::Receiver<u64>> {
        server.server.catalogue.as_ref()?;
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        let changes = servers.entry(server.server.path.clone()).or_default();
        Some(match era {
            Era::Legacy => changes.legacy.subscribe(),
            Era::Modern => changes.modern.subscribe(),
        })
    }

    /// Tells whoever listens what changed between the view `before` and `after`.
    pub fn publish(&self, before: &View, after: &Snapshot) {
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        servers.retain(|path, _| after.server_at(path).is_some());
        for (path, changes) in servers.iter() {
            let old = before.server_at(path).and_then(|view| view.server.catalogue.as_deref());
            let new = after.server_at(path).and_then(|server| server.catalogue.as_deref());
            let (Some(old), Some(new)) = (old, new) else { continue };
            for (sender, list) in [
                (&changes.legacy, (|one| &one.legacy) as fn(&Catalogue) -> &List),
                (&changes.modern, |one| &one.modern),
            ] {
                if is_news(old, new, list) {
                    sender.send_modify(|count| *count += 1);
                }
            }
        }
    }
}

/// Whether clients of any era see another list than before: what was kept of the old one is old.
pub(crate) fn is_renewed(before: &View, server: &ServerView) -> bool {
    let old = before.server_at(&server.server.path).and_then(|view| view.server.catalogue.as_deref());
    match (old, server.server.catalogue.as_deref()) {
        (Some(old), Some(new)) => {
            is_news(old, new, |one| &one.legacy) || is_news(old, new, |one| &one.modern)
        }
        (None, _) | (_, None) => false,
    }
}

/// Whether clients see another list than before. To find out what replicas had all along is none.
fn is_news(old: &Catalogue, new: &Catalogue, list: fn(&Catalogue) -> &List) -> bool {
    let was_known = old.spread != Spread::Unknown;
    (was_known || new.spread == Spread::Mixed) && list(old).version != list(new).version
}

/// Whether news of the list at `path` is the gateway's to tell, as of now.
pub(crate) fn is_ours(gateway: &Gateway, path: &str) -> bool {
    let view = gateway.view();
    let catalogue = view.server_at(path).and_then(|server| server.server.catalogue.as_deref());
    catalogue.is_some_and(|catalogue| match catalogue.spread {
        Spread::Same | Spread::Mixed => true,
        Spread::Unknown => false,
    })
}

/// Whether a server's message, which was `seen` to be a notification, says that its list of tools changed.
pub(crate) fn is_told(seen: &Skim, message: &[u8]) -> bool {
    seen.method.is_some_and(|method| method.get(message) == METHOD)
}

/// The gateway's own word on it, for a legacy client.
pub(crate) fn notification() -> Bytes {
    write::notification(METHOD, None)
}

/// The ears after they heard something; `None`: nothing will ever be heard again.
type Heard = Option<watch::Receiver<u64>>;

/// A pair of ears that can be polled.
pub(crate) struct Ears {
    /// `None`: nothing will ever be heard.
    next: Option<Pin<Box<dyn Future<Output = Heard> + Send>>>,
}

impl Ears {
    /// Hears what `changes` tells; nothing if that is `None`.
    pub fn on(changes: Option<watch::Receiver<u64>>) -> Ears {
        Ears { next: changes.map(|changes| Box::pin(next(changes)) as _) }
    }

    /// Ready once for each change; several that nobody polled for are one.
    pub fn poll_changed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(waiting) = &mut self.next else { return Poll::Pending };
        let Poll::Ready(changes) = waiting.as_mut().poll(cx) else { return Poll::Pending };
        let is_over = changes.is_none();
        *self = Ears::on(changes);
        if is_over { Poll::Pending } else { Poll::Ready(()) }
    }
}

async fn next(mut changes: watch::Receiver<u64>) -> Option<watch::Receiver<u64>> {
    changes.changed().await.ok()?;
    Some(changes)
}

/// Returns at the next change; never if there is nobody to tell of one.
pub(crate) async fn changed(changes: &mut Option<watch::Receiver<u64>>) {
    let heard = match changes {
        Some(changes) => changes.changed().await.is_ok(),
        None => false,
    };
    if !heard {
        std::future::pending::<()>().await;
    }
}
