//! News: what changed, told to every client that wants to know, at whichever node it listens.
//!
//! Legacy clients hear it on their standing streams, modern ones on `subscriptions/listen`. Nobody keeps news: whoever was
//! away, or may have missed some, is told once that everything it asked for may have changed. Spurious is allowed, missing
//! is not.

use std::sync::Arc;

use rmcp::service::{SubscriptionContext, SubscriptionSink};
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

use crate::data::DataError;
use crate::drain::{Phase, Phases, phase_reached};
use crate::post::{Letter, Post};

/// News that a slow listener may be behind.
const BEHIND_MAX: usize = 256;

/// Something that changed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Change {
    /// The list of tools.
    Tools,
    /// The list of prompts.
    Prompts,
    /// The list of resources.
    Resources,
    /// The resource with this URI.
    Resource(String),
}

/// What those who listen here are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum News {
    One(Change),
    /// Some may have been missed.
    All,
}

/// The news as they pass this node.
pub(crate) struct Desk {
    pub(crate) news: broadcast::Sender<News>,
    /// Of the node: who listens is ended when it drains.
    phases: Phases,
}

impl Desk {
    pub(crate) fn new(phases: Phases) -> Desk {
        Desk { news: broadcast::channel(BEHIND_MAX).0, phases }
    }

    /// For those who listen here.
    pub(crate) fn tell(&self, news: News) {
        // Nobody listens: nobody is to be told.
        let _ = self.news.send(news);
    }
}

/// Tells the clients of all nodes what changed. Cheap to clone; a handler gets one by
/// [`announcer`](crate::announcer).
///
/// ```no_run
/// use regatta_node::{Change, announcer};
/// use rmcp::model::SubscriptionFilter;
/// use rmcp::service::{RequestContext, SubscriptionContext};
/// use rmcp::{ErrorData, RoleServer, ServerHandler};
///
/// struct Shelf;
///
/// impl ServerHandler for Shelf {
///     // What modern clients may listen to, and how it reaches them.
///     fn accepted_subscription_filter(&self, asked_for: &SubscriptionFilter) -> Option<SubscriptionFilter> {
///         Some(asked_for.clone())
///     }
///
///     async fn listen(&self, subscription: SubscriptionContext) -> Result<(), ErrorData> {
///         if let Some(announcer) = announcer(&subscription.request_context().extensions) {
///             announcer.carry(&subscription).await;
///         }
///         Ok(())
///     }
/// }
///
/// // Where something changes, in a request or in a task that kept a clone of the announcer:
/// async fn restock(context: &RequestContext<RoleServer>) {
///     if let Some(announcer) = announcer(&context.extensions) {
///         let _ = announcer.tell(Change::Resource("shop://stock".to_owned())).await;
///     }
/// }
/// ```
#[derive(Clone)]
pub struct Announcer {
    pub(crate) desk: Arc<Desk>,
    pub(crate) post: Arc<Post>,
}

impl Announcer {
    /// Tells those who subscribed to the resource, or whose list it is, at all nodes.
    ///
    /// # Errors
    /// None yet: a store that is away is made up for by telling everybody when it is back.
    pub async fn tell(&self, change: Change) -> Result<(), DataError> {
        self.desk.tell(News::One(change.clone()));
        self.post.send(self.post.all, Letter::Changed(change)).await;
        Ok(())
    }

    /// Serves one `subscriptions/listen`: hands on what it asked for until the client leaves or the node stops. Call it in
    /// `ServerHandler::listen`.
    pub async fn carry(&self, subscription: &SubscriptionContext) {
        let (mut news, mut phases) = (self.desk.news.subscribe(), self.desk.phases.clone());
        let sink = subscription.sink();
        loop {
            tokio::select! {
                () = subscription.cancelled() => return,
                () = phase_reached(&mut phases, Phase::Draining) => return,
                heard = news.recv() => match heard {
                    Ok(News::One(change)) => forward(sink, &change).await,
                    Ok(News::All) | Err(broadcast::error::RecvError::Lagged(_)) => forward_all(sink).await,
                    Err(broadcast::error::RecvError::Closed) => return,
                },
            }
        }
    }
}

/// Tells one subscriber (`subscriptions/listen`) of a change, if it asked for it: for handlers that run without a node, or have
/// news of their own. Never fails; whoever is gone hears nothing.
pub async fn forward(sink: &SubscriptionSink, change: &Change) {
    // What was not asked for is refused by the sink, and that is all that is meant by it.
    let _ = match change {
        Change::Tools => sink.notify_tool_list_changed().await,
        Change::Prompts => sink.notify_prompt_list_changed().await,
        Change::Resources => sink.notify_resource_list_changed().await,
        Change::Resource(uri) => sink.notify_resource_updated(uri.clone()).await,
    };
}

async fn forward_all(sink: &SubscriptionSink) {
    for change in [Change::Tools, Change::Prompts, Change::Resources] {
        forward(sink, &change).await;
    }
    for uri in sink.accepted().resource_subscriptions.iter().flatten() {
        forward(sink, &Change::Resource(uri.clone())).await;
    }
}

/// A change as a message to a legacy client (2025-11-25, *List Changed* and *Subscriptions*).
pub(crate) fn message(change: &Change) -> String {
    let (method, params) = match change {
        Change::Tools => ("notifications/tools/list_changed", None),
        Change::Prompts => ("notifications/prompts/list_changed", None),
        Change::Resources => ("notifications/resources/list_changed", None),
        Change::Resource(uri) => ("notifications/resources/updated", Some(serde_json::json!({"uri": uri}))),
    };
    let mut message = serde_json::json!({"jsonrpc": "2.0", "method": method});
    if let Some(params) = params {
        message["params"] = params;
    }
    message.to_string()
}
