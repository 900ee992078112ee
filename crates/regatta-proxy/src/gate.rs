//! How many calls one server gets at once: a bound and a line of its own, and one for each class of its tools.
//!
//! Stands between *limit* and *bind*, on proven names. The number is the operator's or found from latencies
//! (`regatta_policy::concurrency`). A `Gate` is made with each snapshot; what it counts outlives it.

use std::sync::{Arc, Mutex, PoisonError};

use regatta_policy::admission::{Bounds, Class};
use regatta_policy::concurrency::Adaptive;
use regatta_policy::ids::stable_hash;
use regatta_policy::line::{Rank, Who};
use regatta_policy::snapshot::{Concurrency, ConcurrencyMode, Server, ToolClass};

use crate::clock::Clock;
use crate::slots::{Permit, Shed, Slots};

/// The bounds of one server, ready to be asked.
#[derive(Debug)]
pub(crate) struct Gate {
    concurrency: Concurrency,
    classes: Vec<Ready>,
    at_once: Arc<AtOnce>,
}

/// A class of tools, and its places if it has a bound.
#[derive(Debug)]
struct Ready {
    class: ToolClass,
    slots: Option<Arc<Slots>>,
}

/// What is counted at one server; it outlives snapshots.
#[derive(Debug)]
struct AtOnce {
    slots: Arc<Slots>,
    adaptive: Mutex<Adaptive>,
    clock: Clock,
}

/// A call's places at its server, until dropped.
#[derive(Debug)]
pub(crate) struct AtServer {
    permits: Vec<Permit>,
    at_once: Arc<AtOnce>,
    concurrency: Concurrency,
    tool: u64,
    began: regatta_policy::Micros,
    measure: Measure,
}

/// What a call shows at the gate.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub who: Who,
    pub method: String,
    pub tool: Option<String>,
}

/// What the call's length says of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Measure {
    /// Not answered yet.
    Waits,
    /// It answers with events: its response is the end of its work.
    Streams,
    /// Nothing, or nothing more: measured already, it waited for a person, or its client took it back.
    Nothing,
}

/// How a server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// All at once.
    Whole,
    /// With events, of which the head says nothing yet.
    Events,
}

/// The adaptive limit before anything was learnt.
const START: usize = 20;

/// No bound: whoever waits for a person leaves its place, however many there are. `parked_max` bounds them already.
const UNBOUNDED: usize = usize::MAX >> 1;

impl Gate {
    /// The gate of `server`; what `before` counted goes on.
    pub fn of(server: &Server, before: Option<&Gate>, clock: Clock) -> Gate {
        let concurrency = server.concurrency;
        let at_once = before.map_or_else(
            || {
                let start = START.min(concurrency.inflight_max);
                let bounds = bounds(&concurrency, start);
                Arc::new(AtOnce {
                    slots: Arc::new(Slots::new(bounds)),
                    adaptive: Mutex::new(Adaptive::new(start, clock.now())),
                    clock,
                })
            },
            |gate| gate.at_once.clone(),
        );
        let classes = server.classes.iter().map(|class| Ready {
            slots: class.inflight_max.map(|most| slots_of(class, most, &concurrency, before)),
            class: class.clone(),
        });
        let gate = Gate { concurrency, classes: classes.collect(), at_once };
        gate.at_once.slots.rebound(bounds(&concurrency, gate.limit().unwrap_or(UNBOUNDED)));
        gate
    }

    /// Calls that the server gets at once now, if that is bounded.
    pub fn limit(&self) -> Option<usize> {
        match self.concurrency.mode {
            ConcurrencyMode::Off => None,
            ConcurrencyMode::Static => Some(self.concurrency.inflight_max),
            ConcurrencyMode::Adaptive => {
                Some(self.at_once.adaptive().limit().min(self.concurrency.inflight_max))
            }
        }
    }

    /// Whether there is no bound at all.
    pub fn is_open(&self) -> bool {
        self.concurrency.mode == ConcurrencyMode::Off
            && self.classes.iter().all(|ready| ready.slots.is_none())
    }

    /// Calls at the server, and in line for it.
    pub fn counts(&self) -> (usize, usize) {
        let counts = self.at_once.slots.counts();
        (counts.inflight, counts.queued)
    }

    /// Whether somebody waits for the answer to a call of `tool`.
    pub fn rank(&self, method: &str, tool: Option<&str>) -> Rank {
        match (method, tool) {
            ("initialize", _) => Rank::First,
            (_, Some(tool)) => self.class(tool).map_or(Rank::Interactive, |ready| ready.class.rank),
            (_, None) => Rank::Interactive,
        }
    }

    fn class(&self, tool: &str) -> Option<&Ready> {
        self.classes.iter().find(|ready| ready.class.tools.iter().any(|glob| glob.matches(tool)))
    }

    /// A place at the server and in the class of `tool`, if they have bounds. The class comes first: who waits for it must
    /// not keep others from the server.
    pub async fn enter(&self, entry: &Entry) -> Result<Option<Box<AtServer>>, Shed> {
        let (who, method, tool) = (entry.who, entry.method.as_str(), entry.tool.as_deref());
        let class = tool.and_then(|tool| self.class(tool)).and_then(|ready| ready.slots.as_ref());
        let server = match self.concurrency.mode {
            ConcurrencyMode::Off => None,
            ConcurrencyMode::Static | ConcurrencyMode::Adaptive => Some(&self.at_once.slots),
        };
        if class.is_none() && server.is_none() {
            // Others of its tools have a bound.
            return Ok(None);
        }
        let mut permits = Vec::with_capacity(2);
        for slots in [class, server].into_iter().flatten() {
            let permit = match slots.try_enter(Class::Ordinary) {
                Some(permit) => permit,
                None => slots.enter(Class::Ordinary, who, self.concurrency.queue_wait_max).await?,
            };
            permits.push(permit);
        }
        Ok(Some(Box::new(AtServer {
            permits,
            at_once: self.at_once.clone(),
            concurrency: self.concurrency,
            tool: stable_hash(&[method.as_bytes(), tool.unwrap_or_default().as_bytes()]),
            began: self.at_once.clock.now(),
            measure: Measure::Waits,
        })))
    }
}

impl AtServer {
    /// The head of the answer is here: of a whole answer that is its time, of events it is not yet.
    pub fn answered(&mut self, answer: Answer) {
        match (self.measure, answer) {
            (Measure::Waits, Answer::Events) => self.measure = Measure::Streams,
            (Measure::Waits, Answer::Whole) => self.learn(),
            (Measure::Streams | Measure::Nothing, _) => {}
        }
    }

    /// The response came as an event. A stream that ends in another way says nothing: its client left, or it was lost.
    pub fn finished(&mut self) {
        if self.measure == Measure::Streams {
            self.learn();
        }
    }

    /// Its client took it back: how soon it ends from now on says nothing of the server.
    pub fn taken_back(&mut self) {
        self.measure = Measure::Nothing;
    }

    /// The server was silent for too long.
    pub fn timed_out(&mut self) {
        self.measure = Measure::Nothing;
        if self.concurrency.mode == ConcurrencyMode::Adaptive {
            let limit = self.at_once.adaptive().timed_out();
            self.rebound(limit);
        }
    }

    /// It waits for a person: its places go to somebody, and its length says nothing of the server.
    pub fn park(&mut self) {
        self.measure = Measure::Nothing;
        self.permits.iter_mut().for_each(|permit| _ = permit.park());
    }

    /// The person has answered.
    pub fn unpark(&mut self) {
        self.permits.iter_mut().for_each(Permit::unpark);
    }

    fn learn(&mut self) {
        self.measure = Measure::Nothing;
        if self.concurrency.mode != ConcurrencyMode::Adaptive {
            return;
        }
        let now = self.at_once.clock.now();
        let latency = now.0.saturating_sub(self.began.0);
        let in_flight = self.at_once.slots.counts().inflight;
        let most = self.concurrency.inflight_max;
        let limit = self.at_once.adaptive().answered(self.tool, latency, in_flight, most, now);
        self.rebound(limit);
    }

    fn rebound(&self, limit: Option<usize>) {
        if let Some(limit) = limit {
            let limit = limit.min(self.concurrency.inflight_max);
            self.at_once.slots.rebound(bounds(&self.concurrency, limit));
        }
    }
}

impl AtOnce {
    fn adaptive(&self) -> std::sync::MutexGuard<'_, Adaptive> {
        // Its sums are whole after each step.
        self.adaptive.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bounds(concurrency: &Concurrency, inflight_max: usize) -> Bounds {
    let queue_max = concurrency.queue_max;
    Bounds { inflight_max, queue_max, reserved_max: 0, parked_max: UNBOUNDED }
}

/// The places of a class, those of the class of this name before if there was one.
fn slots_of(class: &ToolClass, most: usize, concurrency: &Concurrency, before: Option<&Gate>) -> Arc<Slots> {
    let bounds = bounds(concurrency, most);
    let same = before.and_then(|gate| gate.classes.iter().find(|ready| ready.class.name == class.name));
    match same.and_then(|ready| ready.slots.clone()) {
        Some(slots) => {
            slots.rebound(bounds);
            slots
        }
        None => Arc::new(Slots::new(bounds)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU32;
    use std::time::{Duration, Instant};

    const WHO: Who = Who { account: [0; 16], weight: NonZeroU32::MIN, rank: Rank::Interactive };

    fn gate() -> Gate {
        let concurrency = Concurrency { mode: ConcurrencyMode::Adaptive, ..Concurrency::default() };
        let server = Server { concurrency, ..crate::upstream::tests::server(Vec::new()) };
        Gate::of(&server, None, Clock::start(Instant::now()))
    }

    /// A server that does one thing at a time: whoever else is there stands in its queue.
    #[derive(Default)]
    struct Narrow(tokio::sync::Mutex<()>);

    /// One call that is answered with events, to the end that `end` makes of it.
    async fn stream(gate: &Gate, server: &Narrow, end: fn(&mut AtServer)) {
        let (method, tool) = ("tools/call".to_owned(), Some("t".to_owned()));
        let entry = Entry { who: WHO, method, tool };
        let entered = gate.enter(&entry).await.expect("room");
        let mut at_server = entered.expect("bounded");
        at_server.answered(Answer::Events);
        let turn = server.0.lock().await;
        tokio::time::sleep(Duration::from_millis(1)).await;
        drop(turn);
        end(&mut at_server);
    }

    /// As many at once as the server gets, and some that wait for them: what tells anything of a limit.
    async fn crowd(gate: &Arc<Gate>, server: &Arc<Narrow>, end: fn(&mut AtServer)) {
        let mut streams = tokio::task::JoinSet::new();
        for _ in 0..40 {
            let (gate, server) = (gate.clone(), server.clone());
            streams.spawn(async move { stream(&gate, &server, end).await });
        }
        streams.join_all().await;
    }

    #[tokio::test]
    async fn a_stream_counts_when_its_response_came_and_not_when_its_client_left() {
        let (gate, server) = (Arc::new(gate()), Arc::<Narrow>::default());
        for _ in 0..40 {
            stream(&gate, &server, AtServer::finished).await;
        }
        let learnt = gate.limit();
        for _ in 0..5 {
            crowd(&gate, &server, |_left| {}).await;
            crowd(&gate, &server, |at_server| {
                at_server.taken_back();
                at_server.finished();
            })
            .await;
        }
        assert_eq!(gate.limit(), learnt, "nothing was finished");
        for _ in 0..10 {
            crowd(&gate, &server, AtServer::finished).await;
        }
        assert!(gate.limit() < learnt, "{:?} is not below {learnt:?}", gate.limit());
    }
}
