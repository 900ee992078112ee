//! Streams on their way into the store, so that any gateway can go on with them (SESSIONS 5).
//!
//! Nothing is written while a client reads where its stream is. When it has left, when another gateway asks and when this
//! one leaves, the ring and all that follows go to the store in bounded batches, in order. With the store away the events
//! stay in their ring and are tried again; what the ring loses meanwhile is a gap that the reader is told of.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use regatta_store::{Course, GatewayId, SpilledEvent, StoreError, StreamName};
use tokio::sync::Notify;

use super::letter::{Context, Letter, Told};
use super::{context_of, post};
use crate::gateway::Gateway;
use crate::streams::body::detach;
use crate::streams::ring::Sequence;
use crate::streams::stream::{Peek, Phase, Stream};

/// Events and bytes of one write; a larger event goes alone.
const BATCH_EVENTS_MAX: usize = 64;
const BATCH_BYTES_MAX: usize = 256 << 10;
/// Pauses between two attempts at a store that is away.
const AGAIN_FIRST: Duration = Duration::from_millis(100);
const AGAIN_MAX: Duration = Duration::from_secs(2);
/// How often a spilling looks whether it is still wanted.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Attempts at a store that is full.
const FULL_MAX: u32 = 5;

/// The spillings under way, by stream. Bounded by the streams.
///
/// Not by the stream's number: one that goes on here under the number it had elsewhere is another one.
#[derive(Default)]
pub(crate) struct Spilling {
    running: Mutex<HashMap<ByIdentity, Arc<Order>>>,
}

/// A stream as itself. It is held, so no other one can come to lie where it lies.
struct ByIdentity(Arc<Stream>);

impl PartialEq for ByIdentity {
    fn eq(&self, other: &ByIdentity) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for ByIdentity {}

impl Hash for ByIdentity {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

/// Why a stream is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Its client left; a client that comes back here ends it.
    Detached,
    /// Another gateway asks for it.
    Demanded(GatewayId),
    /// This gateway leaves.
    Leaving,
}

/// What is wanted of one spilling.
#[derive(Default)]
struct Order {
    /// Where to begin (again); `u64::MAX`: nowhere.
    rewind: AtomicU64,
    leaving: AtomicBool,
    asking: Mutex<Vec<GatewayId>>,
    bell: Notify,
}

impl Order {
    fn add(&self, from: Sequence, cause: Cause) {
        self.rewind.fetch_min(from, Ordering::AcqRel);
        match cause {
            Cause::Detached => {}
            Cause::Leaving => self.leaving.store(true, Ordering::Release),
            Cause::Demanded(gateway) => {
                let mut asking = self.asking();
                if !asking.contains(&gateway) {
                    asking.push(gateway);
                }
            }
        }
        self.bell.notify_one();
    }

    fn take_rewind(&self) -> Option<Sequence> {
        Some(self.rewind.swap(u64::MAX, Ordering::AcqRel)).filter(|from| *from != u64::MAX)
    }

    fn asking(&self) -> MutexGuard<'_, Vec<GatewayId>> {
        self.asking.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Spilling {
    /// Whether events of `stream` may still be on their way into the store.
    pub(super) fn is_running(&self, stream: &Arc<Stream>) -> bool {
        self.lock().contains_key(&ByIdentity(stream.clone()))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ByIdentity, Arc<Order>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes `stream` from event `from` on, unless nobody could read it there.
pub(crate) fn begin(gateway: &Arc<Gateway>, stream: &Arc<Stream>, from: Sequence, cause: Cause) {
    if !gateway.peers.are_many() {
        return;
    }
    let order = {
        let mut running = gateway.peers.spilling.lock();
        let key = ByIdentity(stream.clone());
        if let Some(order) = running.get(&key) {
            return order.add(from, cause);
        }
        let order = Arc::new(Order { rewind: AtomicU64::new(u64::MAX), ..Order::default() });
        order.add(from, cause);
        running.insert(key, order.clone());
        order
    };
    tokio::spawn(run(gateway.clone(), stream.clone(), order));
}

/// Another gateway has the client of `stream` and asks for everything from `at` on.
pub(super) fn demanded(
    gateway: &Arc<Gateway>,
    from: GatewayId,
    name: StreamName,
    at: Sequence,
    context: Context,
) {
    let found = gateway.streams.find(name.number, name.session);
    let found = found.filter(|stream| context_of(&stream.caller) == context);
    let Some(stream) = found else { return deny(gateway, from, name) };
    if stream.is_relayed() {
        // What it shows comes from the store itself; the client that read it here has moved on.
        return drop_relay(gateway, &stream);
    }
    if stream.is_standing() {
        // Its server gives it to one gateway at a time.
        let turned = stream.end(None);
        gateway.note_turn(&stream, turned);
    } else if stream.is_read() {
        // The client reads there now: a reader here is one that it has left behind.
        let (reader, _) = stream.attach();
        if stream.leave(reader) {
            detach(gateway.clone(), stream.clone(), reader);
        }
    }
    begin(gateway, &stream, at, Cause::Demanded(from));
}

/// Says that a stream is not here, if it was: whoever never had it says nothing.
fn deny(gateway: &Arc<Gateway>, to: GatewayId, stream: StreamName) {
    let gateway = gateway.clone();
    tokio::spawn(async move { post(&gateway, to, &Letter::Spilled { stream, told: Told::Unknown }).await });
}

/// Forgets a stream that only showed what the store holds.
pub(crate) fn drop_relay(gateway: &Gateway, stream: &Stream) {
    gateway.streams.remove(stream);
    let _ = stream.end(None);
}

async fn run(gateway: Arc<Gateway>, stream: Arc<Stream>, order: Arc<Order>) {
    loop {
        write_all(&gateway, &stream, &order).await;
        let mut running = gateway.peers.spilling.lock();
        // An order that came just now would find nobody.
        if order.rewind.load(Ordering::Acquire) == u64::MAX {
            running.remove(&ByIdentity(stream.clone()));
            return;
        }
    }
}

/// Writes until the stream rests and is written whole, or until a client reads it here again.
async fn write_all(gateway: &Arc<Gateway>, stream: &Stream, order: &Order) {
    let name = StreamName { session: stream.session, number: stream.number };
    let news = stream.watch();
    let mut next = u64::MAX;
    let mut ended = false;
    loop {
        let mut is_news = false;
        if let Some(from) = order.take_rewind() {
            (next, ended, is_news) = (next.min(from), false, true);
        }
        if stream.is_read() && !order.leaving.load(Ordering::Acquire) {
            return;
        }
        let peek = stream.peek(next, BATCH_EVENTS_MAX, BATCH_BYTES_MAX);
        let upto = peek.events.last().map_or(peek.first, |(sequence, _)| sequence + 1);
        let rests = upto == peek.next && !matches!(peek.phase, Phase::Live);
        let course = match peek.phase {
            // A standing stream goes on at another gateway, under the same name.
            Phase::Ended if upto == peek.next && !stream.is_standing() => Course::Ended,
            Phase::Live | Phase::Paused { .. } | Phase::Ended => Course::Open,
        };
        if !peek.events.is_empty() || (course == Course::Ended && !ended) {
            // An end by itself would not tell a store that lost the stream that there was anything before it.
            let peek =
                if peek.events.is_empty() { &stream.peek(upto.saturating_sub(1), 1, 0) } else { &peek };
            if !write(gateway, stream, name, peek, course).await {
                return;
            }
            stream.note_spilled(upto);
            (next, ended, is_news) = (upto, course == Course::Ended, true);
        }
        if is_news || rests {
            tell(gateway, name, order, &peek, upto).await;
        }
        if rests && order.rewind.load(Ordering::Acquire) == u64::MAX {
            return;
        }
        if upto == peek.next && !rests {
            tokio::select! {
                () = news.notified() => {}
                () = order.bell.notified() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }
}

/// One batch, tried until the store has it; false if it never will.
async fn write(gateway: &Gateway, stream: &Stream, name: StreamName, peek: &Peek, course: Course) -> bool {
    let mut pause = AGAIN_FIRST;
    let mut full = 0;
    loop {
        let events = peek.events.iter();
        let events: Vec<SpilledEvent> = events
            .map(|(sequence, bytes)| SpilledEvent { sequence: *sequence, bytes: bytes.clone() })
            .collect();
        let count = events.len() as u64;
        match gateway.store.spill(name, events, course).await {
            Ok(()) => {
                gateway.metrics.spilled_events.inc_by(count);
                return true;
            }
            Err(StoreError::TooLarge(_)) => return refused(gateway, count),
            Err(StoreError::Full(_)) if full >= FULL_MAX => return refused(gateway, count),
            Err(StoreError::Full(_)) => full += 1,
            // Held in memory only as long as a resume here would find it.
            Err(StoreError::Away(_)) if gateway.streams.find(stream.number, stream.session).is_none() => {
                return refused(gateway, count);
            }
            Err(StoreError::Away(_)) => {}
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(AGAIN_MAX);
    }
}

fn refused(gateway: &Gateway, events: u64) -> bool {
    gateway.metrics.spills_refused.inc_by(events.max(1));
    false
}

/// Tells whoever asked that there is something to fetch.
async fn tell(gateway: &Gateway, stream: StreamName, order: &Order, peek: &Peek, upto: Sequence) {
    let asking = order.asking().clone();
    let told = match &peek.phase {
        Phase::Paused { cursor } if upto == peek.next => Told::Paused { next: upto, cursor: cursor.clone() },
        Phase::Ended if upto == peek.next => Told::Ended { next: upto },
        Phase::Live | Phase::Paused { .. } | Phase::Ended => Told::Open { next: upto },
    };
    for gateway_id in asking {
        post(gateway, gateway_id, &Letter::Spilled { stream, told: told.clone() }).await;
    }
}

/// Writes whatever a client may still ask for, within `patience`.
pub(super) async fn everything(gateway: &Arc<Gateway>, patience: Duration) {
    for stream in gateway.streams.all() {
        if !stream.is_standing() && !stream.is_relayed() {
            begin(gateway, &stream, stream.unspilled(), Cause::Leaving);
        }
    }
    let written = async {
        while !gateway.peers.spilling.lock().is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let _ = tokio::time::timeout(patience, written).await;
}
