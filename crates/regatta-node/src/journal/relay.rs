//! The answer of a modern call that comes as events: they are handed on as they come, the response once the journal has it.
//!
//! The call runs to its end here, whoever reads: a client that leaves cancels it, which a request that cannot be cancelled may
//! ignore (2026-07-28 basic/patterns/cancellation, *Behavior Requirements*). Streams of legacy calls have a task of their own
//! (`legacy.rs`).

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use http_body_util::BodyExt as _;
use serde_json::Value;
use tokio::sync::mpsc;

use super::outcome::{End, outcome};
use super::{BROKEN, Entry};
use crate::answers::{Answer, AnswerBody, event, events, unknown_text};
use crate::clock::Clock;

/// Events that wait for their reader; with one more the call waits too.
const EVENTS_MAX: usize = 64;

/// This answer, of the request `id`, as its client reads it.
pub(super) fn relay(entry: Entry, answer: Answer, id: Value, clock: Arc<Clock>) -> Answer {
    let (frames, ready) = mpsc::channel(EVENTS_MAX);
    let (head, body) = answer.into_parts();
    let status = head.status;
    tokio::spawn(async move {
        if let Some(last) = pass_on(entry, status, body, &id, clock, &frames).await {
            let _ = frames.send(last).await;
        }
    });
    let ready = futures_util::stream::unfold(ready, |mut ready| async { Some((ready.recv().await?, ready)) });
    http::Response::from_parts(head, events(ready).into_body())
}

/// Passes on all events but the last one, and gives that when it may be told; none for a call that said nothing: it was taken
/// back.
async fn pass_on(
    entry: Entry,
    status: StatusCode,
    mut body: AnswerBody,
    id: &Value,
    clock: Arc<Clock>,
    frames: &mpsc::Sender<Bytes>,
) -> Option<Bytes> {
    let mut over: Pin<Box<_>> = Box::pin(clock.over());
    let unknown = |why| Some(event(&unknown_text(id, why)));
    let mut has_spoken = false;
    loop {
        let frame = tokio::select! {
            frame = body.frame() => frame,
            over = &mut over => return unknown(over.why()),
        };
        // `rmcp` writes each message as a frame of its own.
        let message = match frame {
            Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
            None if has_spoken => return unknown(BROKEN),
            None => return None,
        };
        has_spoken = true;
        if let Some(outcome) = outcome(status, &message) {
            entry.end(End::Told(outcome.kept)).await;
            return Some(message);
        }
        tokio::select! {
            // A reader that went away is not waited for.
            _ = frames.send(message) => {}
            over = &mut over => return unknown(over.why()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use regatta_store::{Begun, Bounds, CallName, Calls as _, Run, embedded};
    use tokio::time::Instant;

    use super::super::entry::{LEASE, Signs};
    use super::*;
    use crate::drain::Drain;
    use crate::places::Places;
    use crate::settings::WhenFull;

    const LIFE: Duration = Duration::from_secs(60);
    const CALL: CallName = CallName([1; 32]);

    struct Relayed {
        store: Arc<embedded::Embedded>,
        says: mpsc::Sender<Bytes>,
        body: AnswerBody,
    }

    impl Relayed {
        /// A call that was begun, and says what is sent to `says`.
        async fn begun() -> Relayed {
            let (store, run) = (Arc::new(embedded::open(None, Bounds::default()).unwrap()), Run([1; 16]));
            assert_eq!(store.begin_call(&CALL, run, LEASE, LIFE).await, Ok(Begun::Yours));
            let place = Arc::new(Places::new(1, 0, WhenFull::Refuse).try_take().unwrap());
            let (signs, counts) = (Signs::give(store.clone(), CALL, run, LIFE), Arc::default());
            let entry = Entry { store: store.clone(), call: CALL, run, life: LIFE, counts, signs, place };
            let (says, said) = mpsc::channel(1);
            let said =
                futures_util::stream::unfold(said, |mut said| async { Some((said.recv().await?, said)) });
            let clock = Arc::new(Clock::new(Instant::now() + LIFE, LIFE, Drain::new().phases()));
            let body = relay(entry, events(said), Value::from(7), clock).into_body();
            Relayed { store, says, body }
        }

        async fn next(&mut self) -> Option<String> {
            let frame = self.body.frame().await?.unwrap().into_data().unwrap();
            Some(String::from_utf8(frame.to_vec()).unwrap())
        }

        async fn kept(&self) -> Begun {
            self.store.begin_call(&CALL, Run([2; 16]), LEASE, LIFE).await.unwrap()
        }
    }

    #[tokio::test]
    async fn events_are_handed_on_as_they_come_and_the_response_is_kept_before_it_is_told() {
        let mut relayed = Relayed::begun().await;
        relayed.says.send(event("{\"method\":\"notifications/progress\"}")).await.unwrap();
        assert!(relayed.next().await.unwrap().contains("progress"));
        assert_eq!(relayed.kept().await, Begun::Running);
        relayed.says.send(event("{\"id\":7,\"result\":{}}")).await.unwrap();
        assert_eq!(relayed.next().await.unwrap(), "data: {\"id\":7,\"result\":{}}\n\n");
        assert_eq!(relayed.kept().await, Begun::Done(Bytes::from("\"result\":{}}")));
        assert!(relayed.next().await.is_none());
    }

    #[tokio::test]
    async fn a_call_whose_client_is_gone_runs_on_and_its_result_is_kept() {
        let Relayed { store, says, body } = Relayed::begun().await;
        drop(body);
        for _ in 0..EVENTS_MAX * 2 {
            says.send(event("{\"method\":\"notifications/progress\"}")).await.unwrap();
        }
        says.send(event("{\"id\":7,\"result\":{}}")).await.unwrap();
        says.closed().await;
        let kept = store.begin_call(&CALL, Run([2; 16]), LEASE, LIFE).await;
        assert_eq!(kept, Ok(Begun::Done(Bytes::from("\"result\":{}}"))));
    }

    #[tokio::test]
    async fn of_a_call_that_breaks_off_nothing_is_known_and_its_client_is_told_so() {
        let Relayed { store, says, body } = Relayed::begun().await;
        let mut relayed = Relayed { store, says: mpsc::channel(1).0, body };
        says.send(event("{\"method\":\"notifications/progress\"}")).await.unwrap();
        drop(says);
        assert!(relayed.next().await.unwrap().contains("progress"));
        assert!(relayed.next().await.unwrap().contains("-31001"));
        assert!(relayed.next().await.is_none());
        assert_eq!(relayed.kept().await, Begun::Running, "until its lease is over");
    }
}
