//! Legacy sessions: in memory, bounded, the oldest goes first.
//!
//! A session holds its streams (for resume), its questions to the client and its running calls. Never touches HTTP.

use super::hub::Listener;
use super::seal;
use super::stream::{Ids, Stream};
use super::{State, wire};
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, oneshot};

const SESSIONS_MAX: usize = 200_000;
/// Streams per session that can be resumed.
const STREAMS_MAX: usize = 32;
/// How long a question to the client may stay open.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(600);

/// What `initialize` settled.
#[derive(Clone, Copy, Debug)]
pub struct Agreed {
    pub version: &'static str,
    pub elicitation: bool,
    pub sampling: bool,
}

/// One legacy session.
pub struct Session {
    pub agreed: Agreed,
    pub counter: AtomicU64,
    /// Lowest level sent, an index into `slow::LEVELS`.
    pub log_level: AtomicUsize,
    pub clock: Arc<AtomicBool>,
    next_question: AtomicU64,
    standing: OnceLock<(Arc<Stream>, u64)>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    next_stream: u64,
    streams: VecDeque<Arc<Stream>>,
    questions: HashMap<String, oneshot::Sender<String>>,
    running: HashMap<String, Arc<Notify>>,
}

impl Session {
    fn new(agreed: Agreed) -> Self {
        Session {
            agreed,
            counter: AtomicU64::new(0),
            log_level: AtomicUsize::new(0),
            clock: Arc::default(),
            next_question: AtomicU64::new(0),
            standing: OnceLock::new(),
            inner: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new stream that can be found again by its number.
    pub fn open_stream(&self) -> Arc<Stream> {
        let mut inner = self.lock();
        inner.next_stream += 1;
        let stream = Stream::new(inner.next_stream, Ids::Given);
        if inner.streams.len() == STREAMS_MAX {
            let ended = inner.streams.iter().position(|stream| stream.is_done()).unwrap_or(0);
            inner.streams.remove(ended);
        }
        inner.streams.push_back(stream.clone());
        stream
    }

    pub fn stream(&self, number: u64) -> Option<Arc<Stream>> {
        let standing = self.standing.get().map(|(stream, _)| stream);
        let inner = self.lock();
        standing.into_iter().chain(&inner.streams).find(|stream| stream.number == number).cloned()
    }

    /// The stream of unrelated messages; made at the first GET or subscription.
    pub fn standing(&self, state: &State) -> Arc<Stream> {
        let (stream, _) = self.standing.get_or_init(|| {
            let number = {
                let mut inner = self.lock();
                inner.next_stream += 1;
                inner.next_stream
            };
            let stream = Stream::new(number, Ids::Given);
            let listener = Listener {
                stream: stream.clone(),
                tools: true,
                clock: self.clock.clone(),
                subscription: None,
            };
            (stream, state.hub.join(listener))
        });
        stream.clone()
    }

    /// Notes a running call, so that `notifications/cancelled` finds it.
    pub fn begin(&self, id: &str) -> Arc<Notify> {
        let cancel = Arc::new(Notify::new());
        self.lock().running.insert(id.to_owned(), cancel.clone());
        cancel
    }

    pub fn end(&self, id: &str) {
        self.lock().running.remove(id);
    }

    /// Unknown and finished ids are ignored (L-CAN).
    pub fn cancel(&self, id: &str) {
        if let Some(cancel) = self.lock().running.get(id) {
            cancel.notify_one();
        }
    }

    /// Asks the client on `stream` and waits for the raw result. `None`: an error, or nothing in time.
    pub async fn ask(&self, stream: &Stream, method: &str, members: &str) -> Option<String> {
        let number = self.next_question.fetch_add(1, Ordering::Relaxed) + 1;
        let id = format!("\"demo-{number}\"");
        let (tell, told) = oneshot::channel();
        self.lock().questions.insert(id.clone(), tell);
        stream.push(&wire::request(&id, method, members));
        let answer = tokio::time::timeout(ANSWER_WAIT_MAX, told).await;
        self.lock().questions.remove(&id);
        answer.ok()?.ok()
    }

    /// Hands the client's answer to who asked; answers to nothing are dropped.
    pub fn answer(&self, id: &str, result: Option<&str>) {
        let asked = self.lock().questions.remove(id);
        if let (Some(asked), Some(result)) = (asked, result) {
            let _ = asked.send(result.to_owned());
        }
    }

    /// Ends all streams and calls.
    fn close(&self, state: &State) {
        if let Some((stream, key)) = self.standing.get() {
            state.hub.leave(*key);
            stream.finish();
        }
        let inner = self.lock();
        inner.running.values().for_each(|cancel| cancel.notify_one());
        inner.streams.iter().for_each(|stream| stream.finish());
    }
}

#[derive(Default)]
struct Table {
    by_id: HashMap<String, Arc<Session>>,
    order: VecDeque<String>,
}

/// All sessions of this process.
#[derive(Default)]
pub struct Sessions(Mutex<Table>);

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new session under a random id of 32 hexadecimal digits.
    pub fn open(&self, state: &State, agreed: Agreed) -> String {
        let id: String = seal::random::<16>().iter().map(|byte| format!("{byte:02x}")).collect();
        let mut table = self.lock();
        let oldest = if table.by_id.len() >= SESSIONS_MAX {
            let Table { by_id, order } = &mut *table;
            std::iter::from_fn(|| order.pop_front()).find_map(|id| by_id.remove(&id))
        } else {
            None
        };
        if table.order.len() >= 2 * SESSIONS_MAX {
            let Table { by_id, order } = &mut *table;
            order.retain(|id| by_id.contains_key(id));
        }
        table.by_id.insert(id.clone(), Arc::new(Session::new(agreed)));
        table.order.push_back(id.clone());
        drop(table);
        if let Some(oldest) = oldest {
            oldest.close(state);
        }
        id
    }

    pub fn get(&self, id: &str) -> Option<Arc<Session>> {
        self.lock().by_id.get(id).cloned()
    }

    /// Ends a session; says whether there was one.
    pub fn end(&self, state: &State, id: &str) -> bool {
        let session = self.lock().by_id.remove(id);
        session.inspect(|session| session.close(state)).is_some()
    }
}
