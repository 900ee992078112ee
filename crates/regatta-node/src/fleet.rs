//! What a node shares with the other nodes of its server beside the sessions: questions, cancellations, news, streams.
//!
//! One task hears the letters of others. A letter is a hint; what it speaks of is in the store.

use std::sync::Arc;
use std::time::Duration;

use regatta_store::{Arrival, GatewayId, Notice, Store};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::calls::Calls;
use crate::clock::Clock;
use crate::drain::Drain;
use crate::event_id;
use crate::news::{Announcer, Desk, News};
use crate::post::{Letter, Post};
use crate::questions::{self, Questions};
use crate::session::Sessions;
use crate::settings::Settings;
use crate::standing::Standing;
use crate::streams::Streams;

/// Letters that are seen to at the same time.
const LETTERS_MAX: usize = 64;
/// How long a node that died counts as alive.
const LEASE: Duration = Duration::from_secs(6);

/// What a node shares.
pub(crate) struct Fleet {
    /// Where this node stands between its start and its end.
    pub(crate) drain: Drain,
    pub(crate) post: Arc<Post>,
    pub(crate) questions: Arc<Questions>,
    pub(crate) calls: Arc<Calls>,
    pub(crate) desk: Arc<Desk>,
    pub(crate) standing: Arc<Standing>,
    pub(crate) streams: Arc<Streams>,
    /// Places for streams that stand.
    pub(crate) room: Arc<Semaphore>,
    /// The longest wait for one answer of a client.
    pub(crate) patience: Duration,
}

impl Fleet {
    pub(crate) fn new(sessions: &Arc<Sessions>, settings: &Settings) -> Fleet {
        let store: Arc<dyn Store> = sessions.store.clone();
        let is_shared = !settings.store_url.is_empty();
        let drain = Drain::new();
        Fleet {
            post: Arc::new(Post::new(store.clone(), sessions.sealing.clone(), &sessions.server, is_shared)),
            questions: Arc::new(Questions::new(settings.parked_max)),
            calls: Arc::default(),
            desk: Arc::new(Desk::new(drain.phases())),
            standing: Arc::new(Standing::new(sessions.clone())),
            streams: Arc::new(Streams::new(store)),
            room: Arc::new(Semaphore::new(settings.streams_max)),
            patience: Duration::from_secs(settings.answer_timeout_s),
            drain,
        }
    }

    /// The time of a call that may take until `deadline`.
    pub(crate) fn clock(&self, deadline: Instant) -> Arc<Clock> {
        Arc::new(Clock::new(deadline, self.patience, self.drain.phases()))
    }

    pub(crate) fn announcer(&self) -> Announcer {
        Announcer { desk: self.desk.clone(), post: self.post.clone() }
    }

    async fn take(&self, to: GatewayId, letter: &[u8]) {
        let Some(letter) = self.post.read(to, letter).await else { return };
        match letter {
            Letter::Answered { session, question } => {
                questions::look(&self.questions, &self.post, session, question).await;
            }
            Letter::Cancelled { session, id } => _ = self.calls.cancel(session, &id),
            Letter::Changed(change) => self.desk.tell(News::One(change)),
            Letter::Attached { session } => self.standing.let_go(session),
            Letter::Spill { session, stream } => {
                self.streams.hand_over(&event_id::stream(session, stream)).await;
            }
        }
    }
}

/// Hears what other nodes say, for as long as the node runs.
pub(crate) async fn hear(fleet: Arc<Fleet>) {
    let Post { own, all, store, .. } = &*fleet.post;
    let (mut to_us, mut to_all) = (store.enlist(*own, LEASE), store.enlist(*all, LEASE));
    let hands = Arc::new(Semaphore::new(LETTERS_MAX));
    loop {
        let (to, arrival) = tokio::select! {
            arrival = to_us.next() => (*own, arrival),
            arrival = to_all.next() => (*all, arrival),
        };
        match arrival {
            Some(Arrival::Letter(letter)) => {
                // One that waits for a slow store must not hold up all behind it.
                let Ok(hand) = hands.clone().acquire_owned().await else { return };
                let fleet = fleet.clone();
                tokio::spawn(async move {
                    fleet.take(to, &letter).await;
                    drop(hand);
                });
            }
            Some(Arrival::Notice(Notice::LinkRestored | Notice::Missed)) if to == *own => {
                fleet.desk.tell(News::All);
            }
            Some(Arrival::Notice(_)) => {}
            None => return,
        }
    }
}

/// Tells the standing streams what is new.
pub(crate) async fn tell_standing(fleet: Arc<Fleet>) {
    use tokio::sync::broadcast::error::RecvError;
    let mut news = fleet.desk.news.subscribe();
    loop {
        match news.recv().await {
            Ok(news) => fleet.standing.tell(&news).await,
            Err(RecvError::Lagged(_)) => fleet.standing.tell(&News::All).await,
            Err(RecvError::Closed) => return,
        }
    }
}
