//! GET with `Last-Event-ID`: the rest of a call's stream, at any node.
//!
//! The node that runs the call writes the stream to the store when it is asked to; here it is read as it grows. If that node
//! is gone and the stream has no end, the journal may have the call's result; else its outcome is unknown, and its client is
//! told so under the call's id.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use regatta_store::{CallName, Course, GatewayId, StoreError, StreamName};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::answers::{come_back, event_with_id, unknown_text};
use crate::drain::{Phase, Phases};
use crate::event_id::{Ids, Of};
use crate::journal::retold;
use crate::post::{Letter, Post};
use crate::serve::Room;
use crate::streams::Streams;

/// Between two looks into the store.
const LOOK_MIN: Duration = Duration::from_millis(20);
const LOOK_MAX: Duration = Duration::from_millis(250);
/// How often the owner is asked and looked after.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// A stream that its owner does not know is looked for so long; an owner that cannot be seen has so long to come back.
const UNKNOWN_AFTER: Duration = Duration::from_secs(4);
const GONE: &str = "the node that ran this call is gone, or does not know it any more";
const NOT_KEPT: &str = "what this call said was not kept, or was too much to be";
/// Events read at once.
const EVENTS_MAX: usize = 64;

/// The rest of one stream.
pub(crate) struct Rest {
    pub(crate) streams: Arc<Streams>,
    pub(crate) post: Arc<Post>,
    pub(crate) owner: GatewayId,
    pub(crate) name: StreamName,
    pub(crate) id: Value,
    pub(crate) ids: Ids,
    /// The number of the event that comes next.
    pub(crate) next: u64,
    /// When a stream that says nothing is given up.
    pub(crate) patience: Duration,
    /// Of the node that reads it to its client.
    pub(crate) phases: Phases,
    pub(crate) _room: Room,
}

/// What a look came to.
enum Look {
    Events(Vec<Bytes>, Course),
    Nothing,
    /// Nobody has it.
    Lost,
    /// It is over, and what was to come was more than the store keeps.
    Dropped,
}

impl Rest {
    /// Its frames. The last one is the call's response, or says that its outcome is unknown.
    pub(crate) fn frames(mut self) -> impl Stream<Item = Bytes> + Send + Sync + 'static {
        let (frames, ready) = mpsc::channel(EVENTS_MAX);
        tokio::spawn(async move {
            // Until the client is gone, or has it all, or is to ask another node.
            while let Some((events, course)) = self.look_on(&frames).await {
                for event in events {
                    if frames.send(event).await.is_err() {
                        return;
                    }
                }
                if course == Course::Ended {
                    return;
                }
            }
            let _ = frames.send(come_back()).await;
        });
        futures_util::stream::unfold(ready, |mut ready| async { Some((ready.recv().await?, ready)) })
    }

    /// Waits for more; `None`: the client is gone, or the node stops, and the client asks another.
    async fn look_on(&mut self, client: &mpsc::Sender<Bytes>) -> Option<(Vec<Bytes>, Course)> {
        let begun = Instant::now();
        let (mut pause, mut asked, mut seen) = (LOOK_MIN, None::<Instant>, begun);
        loop {
            if client.is_closed() {
                return None;
            }
            // Asked before the look: what was written until then is told still.
            let is_to_end = *self.phases.borrow() >= self.stays_until();
            if asked.is_none_or(|at| at.elapsed() >= ASK_EVERY) {
                asked = Some(Instant::now());
                if self.ask().await {
                    seen = Instant::now();
                }
            }
            match self.look().await {
                Look::Events(events, course) => return Some((events, course)),
                Look::Nothing | Look::Lost if is_to_end => return None,
                Look::Nothing if begun.elapsed() < self.patience && seen.elapsed() < UNKNOWN_AFTER => {}
                // Its owner may be writing it down.
                Look::Lost if begun.elapsed() < UNKNOWN_AFTER => {}
                Look::Nothing | Look::Lost => return Some(self.last_word(GONE).await),
                Look::Dropped => return Some(self.last_word(NOT_KEPT).await),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LOOK_MAX);
        }
    }

    /// A call of this node is read here until its last word; one of another node may be read anywhere.
    fn stays_until(&self) -> Phase {
        if self.owner == self.post.own { Phase::Over } else { Phase::Draining }
    }

    /// Asks whoever has the stream to write it down; whether there is somebody.
    async fn ask(&self) -> bool {
        if self.owner == self.post.own {
            let is_here = self.streams.find(&self.name).is_some();
            self.streams.hand_over(&self.name).await;
            return is_here;
        }
        let (session, stream) = (self.name.session.0, self.name.number);
        self.post.send(self.owner, Letter::Spill { session, stream }).await;
        // A store that is away says nothing about the owner.
        self.post.store.is_live(self.owner).await.unwrap_or(true)
    }

    async fn look(&mut self) -> Look {
        match self.post.store.recall(self.name, self.next, EVENTS_MAX).await {
            Ok(Some(held)) => {
                if held.first > self.next && !held.events.is_empty() {
                    tracing::warn!(
                        lost = held.first - self.next,
                        "events of a stream were dropped before their client came back"
                    );
                }
                let events: Vec<Bytes> = held
                    .events
                    .iter()
                    .map(|event| event_with_id(&self.ids.of(event.sequence), &event.bytes))
                    .collect();
                if let Some(last) = held.events.last() {
                    self.next = last.sequence + 1;
                }
                let is_all = self.next >= held.next;
                match (events.is_empty(), held.course) {
                    (true, Course::Open) => Look::Nothing,
                    // Or the store lost it, and was told of the end alone.
                    (true, Course::Ended) if self.next != held.next => Look::Dropped,
                    (_, Course::Ended) if is_all => Look::Events(events, Course::Ended),
                    (_, Course::Ended | Course::Open) => Look::Events(events, Course::Open),
                }
            }
            Ok(None) => Look::Lost,
            Err(StoreError::Away(_)) => Look::Nothing,
            Err(_) => Look::Lost,
        }
    }

    /// What is told of a call whose rest nobody has.
    async fn last_word(&self, why: &str) -> (Vec<Bytes>, Course) {
        let text = self.kept().await.unwrap_or_else(|| unknown_text(&self.id, why).into_bytes());
        (vec![event_with_id(&self.ids.of(self.next), &text)], Course::Ended)
    }

    /// The response that the journal has.
    async fn kept(&self) -> Option<Vec<u8>> {
        let Of::Call { call: Some(call), .. } = &self.ids.of else { return None };
        let kept = self.post.store.result_of_call(&CallName(*call)).await.ok()??;
        retold(&self.id, &kept).map(|(_, text)| text)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;
    use regatta_store::{SpilledEvent, Uuid16};

    use super::*;
    use crate::caller::Caller;
    use crate::journal::tests::{Nobody, shared};

    #[tokio::test]
    async fn who_comes_back_for_what_was_not_kept_is_told_so_once() {
        let shared = shared(Arc::new(|| Nobody)).await;
        // More than the store keeps of a stream; and one that the store lost, all but its end.
        let large = SpilledEvent { sequence: 1, bytes: Bytes::from(vec![b' '; 5 << 20]) };
        for (number, events, next) in [(2, vec![large], 1), (3, Vec::new(), 3)] {
            let (fleet, session) = (&shared.fleet, [1; 16]);
            let name = StreamName { session: Uuid16(session), number };
            fleet.post.store.spill(name, events, Course::Ended).await.unwrap();
            let of = Of::Call { owner: fleet.post.own.0, number, id: Value::from(7), call: None };
            let rest = Rest {
                streams: fleet.streams.clone(),
                post: fleet.post.clone(),
                owner: fleet.post.own,
                name,
                id: Value::from(7),
                ids: Ids { sessions: shared.sessions.clone(), caller: Caller([0; 16]), session, of },
                next,
                patience: fleet.patience,
                phases: fleet.drain.phases(),
                _room: Arc::new(fleet.room.clone().try_acquire_owned().unwrap()),
            };
            let told: Vec<Bytes> = rest.frames().collect().await;
            let [told] = &told[..] else { panic!("one event: {told:?}") };
            let told = std::str::from_utf8(told).unwrap();
            assert!(
                told.contains("-31001") && told.contains("\"id\":7") && told.contains("not kept"),
                "{told}"
            );
        }
    }
}
