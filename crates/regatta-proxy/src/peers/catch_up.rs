//! What the ring of a stream of ours let go before its client came back here: the store has it, because we wrote it.
//!
//! The stream itself stays where it is and as it is. Its new reader drives it, so nothing is displaced while the store is
//! read; then the reader goes on from the ring. Never waits longer than `resume_window` for a store that is away.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use regatta_store::StreamName;
use tokio::time::Instant;

use crate::gateway::Gateway;
use crate::streams::ring::Sequence;
use crate::streams::stream::Stream;

/// Events fetched at once; the store bounds their bytes.
const BATCH_MAX: usize = 64;
const LOOK_FIRST: Duration = Duration::from_millis(100);
const LOOK_MAX: Duration = Duration::from_secs(1);

/// A look for events; nothing if they are lost. In a mutex only so that bodies can be shared; nobody ever waits for it.
pub(crate) type Missing = Mutex<Pin<Box<dyn Future<Output = Option<VecDeque<Bytes>>> + Send>>>;

/// Whether the rest of `stream` from event `at` on may be had: from its ring, or before it from the store.
pub(crate) fn is_possible(gateway: &Gateway, stream: &Stream, at: Sequence) -> bool {
    gateway.peers.are_many() && !stream.is_standing() && !stream.is_relayed() && stream.has_reached(at)
}

/// Fetches events of `stream` from `at` on, which its ring does not hold any more.
pub(crate) fn fetch(gateway: Arc<Gateway>, stream: Arc<Stream>, at: Sequence) -> Missing {
    Mutex::new(Box::pin(async move {
        let name = StreamName { session: stream.session, number: stream.number };
        let (began, mut pause) = (Instant::now(), LOOK_FIRST);
        while began.elapsed() <= gateway.limits().resume_window {
            // Asked before the look: what was on its way then is there afterwards, or comes no more.
            let is_written = !gateway.peers.spilling.is_running(&stream);
            match gateway.store.recall(name, at, BATCH_MAX).await {
                Ok(Some(recalled)) if recalled.first > at => return None,
                Ok(Some(recalled)) if !recalled.events.is_empty() => {
                    return Some(recalled.events.into_iter().map(|event| event.bytes).collect());
                }
                Ok(_) if is_written => return None,
                Ok(_) | Err(_) => tokio::time::sleep(pause).await,
            }
            pause = (pause * 2).min(LOOK_MAX);
        }
        None
    }))
}
