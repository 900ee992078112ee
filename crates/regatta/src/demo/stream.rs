//! One SSE stream: a bounded list of events that a response body reads at its own pace.
//!
//! A body may go and another may take over (resume) as long as the events are still held; producers never wait and
//! never notice. Legacy streams number their events `<stream>-<n>`, modern ones have no event ids (M-TR).

use bytes::Bytes;
use hyper::body::{Body, Frame};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

/// Enough for ten minutes of progress every 100 ms.
const EVENTS_MAX: usize = 8192;

/// Whether events carry an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ids {
    Given,
    None,
}

/// The producer's side.
#[derive(Debug)]
pub struct Stream {
    pub number: u64,
    ids: Ids,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    events: VecDeque<Bytes>,
    /// Events pushed out of the list by its bound.
    dropped: u64,
    /// Events handed to any reader so far.
    sent: u64,
    /// Which reader is the current one; an older reader ends.
    reader: u64,
    attached: bool,
    done: bool,
    waker: Option<Waker>,
}

impl Stream {
    pub fn new(number: u64, ids: Ids) -> Arc<Self> {
        Arc::new(Stream { number, ids, inner: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic elsewhere leaves plain data behind; it stays usable.
        self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Adds one message as an event.
    pub fn push(&self, message: &str) {
        let mut inner = self.lock();
        let sequence = inner.dropped + inner.events.len() as u64 + 1;
        let event = match self.ids {
            Ids::Given => format!("id: {}-{sequence}\nevent: message\ndata: {message}\n\n", self.number),
            Ids::None => format!("event: message\ndata: {message}\n\n"),
        };
        if inner.events.len() == EVENTS_MAX {
            inner.events.pop_front();
            inner.dropped += 1;
        }
        inner.events.push_back(event.into());
        wake(inner);
    }

    /// No more events; a reader ends after the last.
    pub fn finish(&self) {
        let mut inner = self.lock();
        inner.done = true;
        wake(inner);
    }

    pub fn is_done(&self) -> bool {
        self.lock().done
    }

    pub fn is_attached(&self) -> bool {
        self.lock().attached
    }

    /// The event that lets a client come back before anything was said (L-TR, Sending Messages 6).
    pub fn priming(&self) -> Bytes {
        format!("id: {}-0\ndata: \n\n", self.number).into()
    }

    /// A reader that starts after event `after`, or after all that was handed out before.
    /// `None` when events in between are no longer held or were never made.
    pub fn attach(self: &Arc<Self>, after: Option<u64>, guard: Guard) -> Option<Events> {
        let mut inner = self.lock();
        let after = after.unwrap_or(inner.sent);
        if after < inner.dropped || inner.dropped + (inner.events.len() as u64) < after {
            return None;
        }
        inner.reader += 1;
        inner.attached = true;
        let reader = inner.reader;
        wake(inner);
        Some(Events { stream: self.clone(), reader, cursor: after, head: None, _guard: guard })
    }
}

fn wake(mut inner: MutexGuard<'_, Inner>) {
    let waker = inner.waker.take();
    drop(inner);
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// What ends together with a response body.
pub enum Guard {
    /// Legacy: a lost connection cancels nothing (L-TR, Sending Messages 6).
    Nothing,
    /// Modern: a closed stream cancels the request (M-TR, Cancellation).
    Task(tokio::task::AbortHandle),
    /// Modern `subscriptions/listen`.
    Listener(Arc<super::State>, u64),
}

impl Drop for Guard {
    fn drop(&mut self) {
        match self {
            Guard::Nothing => {}
            Guard::Task(task) => task.abort(),
            Guard::Listener(state, key) => state.hub.leave(*key),
        }
    }
}

/// The reader's side: a response body.
pub struct Events {
    stream: Arc<Stream>,
    reader: u64,
    cursor: u64,
    head: Option<Bytes>,
    _guard: Guard,
}

impl Events {
    /// Sends `head` before any event.
    pub fn with_head(mut self, head: Bytes) -> Self {
        self.head = Some(head);
        self
    }
}

impl Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        if let Some(head) = this.head.take() {
            return Poll::Ready(Some(Ok(Frame::data(head))));
        }
        let stream = this.stream.clone();
        let mut inner = stream.lock();
        if inner.reader != this.reader {
            return Poll::Ready(None);
        }
        // A reader that fell behind the bound goes on with the oldest event that is left.
        this.cursor = this.cursor.max(inner.dropped);
        let index = usize::try_from(this.cursor - inner.dropped).unwrap_or(usize::MAX);
        if let Some(event) = inner.events.get(index).cloned() {
            this.cursor += 1;
            inner.sent = inner.sent.max(this.cursor);
            return Poll::Ready(Some(Ok(Frame::data(event))));
        }
        if inner.done {
            return Poll::Ready(None);
        }
        inner.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        let mut inner = self.stream.lock();
        if inner.reader == self.reader {
            inner.attached = false;
            inner.waker = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    async fn all(events: Events) -> String {
        String::from_utf8_lossy(&events.collect().await.expect("infallible").to_bytes()).into_owned()
    }

    #[tokio::test]
    async fn resumes_after_the_last_event_seen() {
        let stream = Stream::new(7, Ids::Given);
        stream.push("1");
        stream.push("2");
        stream.finish();
        let events = stream.attach(Some(1), Guard::Nothing).expect("held");
        assert_eq!(all(events).await, "id: 7-2\nevent: message\ndata: 2\n\n");
    }

    #[tokio::test]
    async fn a_new_reader_ends_the_old_one() {
        let stream = Stream::new(1, Ids::None);
        let old = stream.attach(None, Guard::Nothing).expect("held");
        let new = stream.attach(None, Guard::Nothing).expect("held");
        stream.push("1");
        stream.finish();
        assert_eq!(all(old).await, "");
        assert_eq!(all(new).await, "event: message\ndata: 1\n\n");
    }

    #[test]
    fn refuses_an_event_that_was_never_made() {
        let stream = Stream::new(1, Ids::Given);
        assert!(stream.attach(Some(1), Guard::Nothing).is_none());
    }
}
