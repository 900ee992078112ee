//! A request as it reaches its handler, and its body, which wakes nobody for nothing.
//!
//! Whoever takes data of hyper's body wakes the connection's task, for more may be wanted. When the data was the body's
//! last, nothing is: the task would be polled once more with every request, for a tenth of what a request costs. So hyper
//! is polled under a waker of our own (`Hush`), which keeps to itself what rings while a body is read to its end.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use http::Request;
use http::request::Parts;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::connection::Peer;

/// One request. It is handed on in a box: it passes through many hands, and its head is large.
pub struct Arrival {
    /// Who sent it.
    pub peer: Peer,
    /// All but its body.
    pub head: Parts,
    /// Its body, or what comes of it.
    pub body: RequestBody,
}

impl Arrival {
    pub(super) fn new(peer: Peer, request: Request<Incoming>, hush: &Arc<Hush>) -> Box<Arrival> {
        let (head, body) = request.into_parts();
        Box::new(Arrival { peer, head, body: RequestBody { incoming: body, hush: Arc::clone(hush) } })
    }
}

/// What the client sends after the head of its request.
pub struct RequestBody {
    incoming: Incoming,
    hush: Arc<Hush>,
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let RequestBody { incoming, hush } = self.get_mut();
        hush.begin();
        let polled = Pin::new(&mut *incoming).poll_frame(cx);
        // hyper has read all of it before it polls the handler, and its end of the body is gone: nothing is left to do.
        let is_last = matches!(polled, Poll::Ready(Some(Ok(_)))) && incoming.is_end_stream();
        if hush.end() && !is_last {
            cx.waker().wake_by_ref();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

/// A waker that passes on what rings, but for what the thread rings itself that has hushed it.
pub(super) struct Hush {
    task: Waker,
    /// The thread that has, by the address of something of its own; 0 for nobody.
    hushed_by: AtomicUsize,
    has_rung: AtomicBool,
}

thread_local! {
    static HERE: u8 = const { 0 };
}

fn this_thread() -> usize {
    HERE.with(|here| std::ptr::from_ref(here).addr())
}

impl Hush {
    pub(super) fn over(task: &Waker) -> Arc<Hush> {
        Arc::new(Hush {
            task: task.clone(),
            hushed_by: AtomicUsize::new(0),
            has_rung: AtomicBool::new(false),
        })
    }

    /// Only what this thread does until `end` is hushed: others, as the one that sees the socket, ring as ever.
    fn begin(&self) {
        self.hushed_by.store(this_thread(), Ordering::Relaxed);
    }

    /// Whether it was rung in between.
    fn end(&self) -> bool {
        self.hushed_by.store(0, Ordering::Relaxed);
        self.has_rung.load(Ordering::Relaxed) && self.has_rung.swap(false, Ordering::Relaxed)
    }
}

impl Wake for Hush {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Another thread may see an old value here, but never its own mark.
        let by = self.hushed_by.load(Ordering::Relaxed);
        if by != 0 && by == this_thread() {
            self.has_rung.store(true, Ordering::Relaxed);
        } else {
            self.task.wake_by_ref();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn only_what_the_same_thread_rings_in_between_is_hushed() {
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let rung = || count.0.load(Ordering::Relaxed);
        let hush = Hush::over(&Waker::from(Arc::clone(&count)));
        let waker = Waker::from(Arc::clone(&hush));
        waker.wake_by_ref();
        assert_eq!(rung(), 1);
        hush.begin();
        waker.wake_by_ref();
        std::thread::scope(|scope| _ = scope.spawn(|| waker.wake_by_ref()));
        assert_eq!(rung(), 2, "the other thread's");
        assert!(hush.end());
        assert!(!hush.end(), "told once");
        waker.wake_by_ref();
        assert_eq!(rung(), 3);
    }
}
