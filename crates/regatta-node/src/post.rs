//! Letters between the nodes of a server, over the store's mail: sealed, at most once, hints only.
//!
//! What must not be lost is in the store before a letter says so. Without a shared store there is nobody to write to.

use std::sync::Arc;

use bytes::Bytes;
use regatta_store::{GatewayId, Store};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::news::Change;
use crate::sealing::{Sealing, now_s};

/// Seconds that a letter may be old, and clocks may differ.
const AGE_MAX_S: u64 = 300;

/// What one node tells another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Letter {
    /// The answer to this question of yours is in the store.
    Answered { session: [u8; 16], question: u64 },
    /// A client takes a request back.
    Cancelled { session: [u8; 16], id: Value },
    /// Something changed that clients may want to know.
    Changed(Change),
    /// A session's standing stream is here now.
    Attached { session: [u8; 16] },
    /// Write this stream of yours to the store: its client reads it here.
    Spill { session: [u8; 16], stream: u64 },
}

#[derive(Serialize, Deserialize)]
struct Envelope {
    from: [u8; 8],
    at_s: u64,
    letter: Letter,
}

/// The mail of one node.
pub(crate) struct Post {
    pub(crate) store: Arc<dyn Store>,
    sealing: Arc<Sealing>,
    server: String,
    /// This run of this node.
    pub(crate) own: GatewayId,
    /// All nodes of the server, this one too.
    pub(crate) all: GatewayId,
    /// Whether there can be other nodes.
    pub(crate) is_shared: bool,
}

impl Post {
    pub(crate) fn new(store: Arc<dyn Store>, sealing: Arc<Sealing>, server: &str, is_shared: bool) -> Post {
        let all = regatta_seal::digest16(&[b"nodes of", server.as_bytes()]);
        let own = regatta_seal::random_u64().to_be_bytes();
        let all = u64::from_be_bytes(std::array::from_fn(|at| all[at])).to_be_bytes();
        let server = server.to_owned();
        Post { store, sealing, server, own: GatewayId(own), all: GatewayId(all), is_shared }
    }

    /// Sends a letter; a loss is noted only, since letters are hints.
    pub(crate) async fn send(&self, to: GatewayId, letter: Letter) {
        if !self.is_shared {
            return;
        }
        let envelope = Envelope { from: self.own.0, at_s: now_s(), letter };
        let Ok(plain) = serde_json::to_vec(&envelope) else { return };
        let sealed = self.sealing.seal(&self.associated(&to), &plain);
        if let Err(why) = self.store.post(to, Bytes::from(sealed)).await {
            tracing::debug!(%why, "a letter to another node was not sent");
        }
    }

    /// The letter in what came for `to`, unless it is forged, old or our own.
    pub(crate) async fn read(&self, to: GatewayId, sealed: &[u8]) -> Option<Letter> {
        let sealed = std::str::from_utf8(sealed).ok()?;
        let plain = self.sealing.open(&*self.store, &self.associated(&to), sealed).await.ok()?;
        let envelope: Envelope = serde_json::from_slice(&plain).ok()?;
        let is_fresh = now_s().abs_diff(envelope.at_s) <= AGE_MAX_S;
        (is_fresh && envelope.from != self.own.0).then_some(envelope.letter)
    }

    fn associated<'a>(&'a self, to: &'a GatewayId) -> [&'a [u8]; 3] {
        [b"regatta-node letter", self.server.as_bytes(), &to.0]
    }
}
