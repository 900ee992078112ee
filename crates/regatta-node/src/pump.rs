//! The events of a modern call, on their way from its handler to whoever reads them.
//!
//! A connection whose client does not read asks for no more of a body, and lets nobody look at the time: so a task of its own
//! moves the events, stops the handler when the time is over, and gives its place back. A client that is gone stops it too.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use tokio::sync::mpsc;

use crate::answers::{AnswerBody, events};
use crate::places::Place;

/// Events that wait for their reader; with one more the handler waits too.
const EVENTS_MAX: usize = 16;

/// This body, moved until `early` ends it, with what that gives for the last event.
pub(crate) fn pumped(
    body: AnswerBody,
    place: Arc<Place>,
    early: impl Future<Output = Option<Bytes>> + Send + 'static,
) -> AnswerBody {
    let (frames, ready) = mpsc::channel(EVENTS_MAX);
    // A drain waits for what is not read yet.
    let work = place.work.clone();
    tokio::spawn(async move {
        let last = pump(body, early, &frames).await;
        drop(place);
        if let Some(last) = last {
            // It may wait for its reader: it holds nothing.
            let _ = frames.send(last).await;
        }
    });
    let ready = futures_util::stream::unfold((ready, work), |(mut ready, work)| async {
        Some((ready.recv().await?, (ready, work)))
    });
    events(ready).into_body()
}

/// Moves frames until there are no more, their reader is gone, or `early` ends it; what that gives.
async fn pump(
    mut body: AnswerBody,
    early: impl Future<Output = Option<Bytes>>,
    frames: &mpsc::Sender<Bytes>,
) -> Option<Bytes> {
    let mut early = pin!(early);
    loop {
        let frame = tokio::select! {
            biased;
            () = frames.closed() => return None,
            frame = body.frame() => frame,
            last = &mut early => return last,
        };
        let Some(Ok(frame)) = frame else { return None };
        let Ok(data) = frame.into_data() else { continue };
        tokio::select! {
            biased;
            // One whose reader is gone ends above.
            _ = frames.send(data) => {}
            last = &mut early => return last,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::places::Places;
    use crate::settings::WhenFull;

    const TIME: Duration = Duration::from_secs(5);

    /// A handler's side of a call, all places, and the client's side.
    fn call() -> (mpsc::Sender<Bytes>, Places, AnswerBody) {
        let (says, said) = mpsc::channel(1);
        let said = futures_util::stream::unfold(said, |mut said| async { Some((said.recv().await?, said)) });
        let places = Places::new(1, 0, WhenFull::Refuse);
        let early = async {
            tokio::time::sleep(TIME).await;
            Some(Bytes::from_static(b"last"))
        };
        let place = Arc::new(places.try_take().unwrap());
        (says, places, pumped(events(said).into_body(), place, early))
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_is_gone_stops_its_handler_at_once() {
        let begun = tokio::time::Instant::now();
        let (says, places, body) = call();
        drop(body);
        says.closed().await;
        assert_eq!((places.works.number(), begun.elapsed()), (0, Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn who_reads_late_gets_what_was_said_in_time_and_the_last_word() {
        let (says, places, mut body) = call();
        let mut said = 0;
        while says.send(Bytes::from_static(b"event")).await.is_ok() {
            said += 1;
        }
        assert_eq!((places.in_flight(), places.works.number()), (0, 1), "only its reader is waited for");
        let mut read = Vec::new();
        while let Some(Ok(frame)) = body.frame().await {
            read.push(frame.into_data().unwrap());
        }
        assert!(read.len() > EVENTS_MAX && read.len() <= said, "{} of {said}", read.len());
        assert_eq!(read.iter().position(|event| &event[..] == b"last"), Some(read.len() - 1));
        drop(body);
        assert_eq!(places.works.number(), 0);
    }
}
