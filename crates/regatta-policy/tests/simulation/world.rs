//! A small world on simulated time: replicas with a fate, clients with a rate, and a gateway that obeys the rules.
//!
//! It holds no rule of its own: whatever it decides, it asks `regatta_policy`. Everything follows from the seed.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use regatta_policy::balance::{self, Candidate, Facts, Standing};
use regatta_policy::eject::{self, Decision, Door, Ejection, Outcome};
use regatta_policy::ewma::{self, Ewma};
use regatta_policy::gone::{self, Attempt, Verdict, Watch};
use regatta_policy::retry::{self, ALLOWANCE, Answer, Budget, Loss, Repeatability, Repeats, Retry, Spend};
use regatta_policy::snapshot::{Balance, CallBounds};
use regatta_policy::{Micros, ReplicaId, rendezvous};

/// The rule of production with a tenth of its times, so that a run covers many ejections.
pub const EJECT: eject::Rule = eject::Rule {
    failures_max: 5,
    base: Duration::from_secs(3),
    longest: Duration::from_secs(15),
    forgive_after: Duration::from_secs(6),
    probe_max: Duration::from_secs(1),
};
pub const GONE_AFTER: Duration = Duration::from_secs(2);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// SplitMix64.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        regatta_policy::ids::mix(self.0)
    }

    pub fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.roll() % (to - from)
    }
}

/// What a replica is really like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Well,
    /// Ten times slower.
    Slow,
    /// Answers 500 at once.
    Failing,
    /// The process is dead: calls in flight are reset, connections refused, sessions forgotten.
    Dead,
    /// Nothing comes through: connects time out, calls in flight are given up.
    Dark,
    /// It is well, and the active probes say that it is not.
    Slandered,
}

/// A replica's fate for a while.
#[derive(Clone, Copy, Debug)]
pub struct Spell {
    pub replica: usize,
    pub from: Micros,
    pub to: Micros,
    pub fate: Fate,
}

/// What a run is made of.
pub struct Plan {
    pub seed: u64,
    pub rule: Balance,
    /// When each replica began to serve, before zero counts as long ago.
    pub began: Vec<Option<Micros>>,
    pub spells: Vec<Spell>,
    pub requests_per_second: u64,
    /// Of a hundred requests, those in a session.
    pub bound_percent: u64,
    /// Of a hundred requests, those that may be repeated.
    pub harmless_percent: u64,
    pub end: Micros,
    /// From then on requests are counted in `Report::tail`.
    pub tail: Micros,
}

/// What happened.
#[derive(Debug, Default)]
pub struct Report {
    pub requests: u64,
    pub served: u64,
    /// Answered by the server with 500.
    pub failed: u64,
    /// Answered with −31001.
    pub lost: u64,
    /// Answered with 503: nobody to send it to.
    pub refused: u64,
    /// Sendings that reached a server.
    pub written: u64,
    pub repeats: u64,
    pub ejections: u64,
    /// First sendings by replica.
    pub sent: Vec<u64>,
    /// Requests served by replica, of those that came in the tail.
    pub tail: Vec<u64>,
    pub tail_requests: u64,
}

#[derive(Clone, Copy)]
struct Request {
    arrived: Micros,
    session: Option<usize>,
    repeatability: Repeatability,
    repeats: Repeats,
    tried: u64,
    written: u32,
}

struct Replica {
    id: ReplicaId,
    began: Option<Micros>,
    in_flight: u32,
    ewma: Option<Ewma>,
    ejection: Ejection,
    watch: Watch,
}

#[derive(Clone, Copy)]
struct Session {
    key: u64,
    replica: usize,
    /// How often the replica had died when the session was opened there.
    life: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrive,
    Send { request: usize },
    Missed { request: usize, replica: usize, miss: Miss },
    End { request: usize, replica: usize, sent: Micros, end: End },
}

/// Why there was no connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Miss {
    Refused,
    Unreachable,
}

/// How a written call ended.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Answered,
    Answered500,
    Reset,
    Silent,
}

pub struct World {
    plan: Plan,
    dice: Dice,
    now: Micros,
    turn: u64,
    events: BinaryHeap<Reverse<(Micros, u64, Event)>>,
    replicas: Vec<Replica>,
    requests: Vec<Request>,
    sessions: Vec<Session>,
    budget: Budget,
    open: u64,
    report: Report,
}

impl World {
    /// Runs a plan to its end.
    pub fn run(plan: Plan) -> Report {
        let count = plan.began.len();
        let replica = |n: usize| Replica {
            id: ReplicaId::of("shop", &format!("http://127.0.0.1:{}/mcp", 3000 + n)),
            began: plan.began[n],
            in_flight: 0,
            ewma: None,
            ejection: Ejection::default(),
            watch: Watch::default(),
        };
        let replicas = (0..count).map(replica).collect();
        let mut dice = Dice(plan.seed);
        let session = |_| Session { key: dice.roll(), replica: dice.roll() as usize % count, life: 0 };
        let sessions = (0..20).map(session).collect();
        let report = Report { sent: vec![0; count], tail: vec![0; count], ..Report::default() };
        let mut world = World {
            dice,
            now: Micros(0),
            turn: 0,
            events: BinaryHeap::new(),
            replicas,
            requests: Vec::new(),
            sessions,
            budget: Budget::new(ALLOWANCE, Micros(0)),
            open: 0,
            report,
            plan,
        };
        world.at(Duration::ZERO, Event::Arrive);
        while let Some(Reverse((now, _, event))) = world.events.pop() {
            world.now = now;
            world.play(event);
        }
        assert_eq!(world.open, 0, "seed={}: every request comes to an end", world.plan.seed);
        world.report
    }

    fn at(&mut self, after: Duration, event: Event) {
        let order = self.dice.roll();
        self.events.push(Reverse((self.now.after(after), order, event)));
    }

    fn play(&mut self, event: Event) {
        match event {
            Event::Arrive => self.arrive(),
            Event::Send { request } => self.send(request),
            Event::Missed { request, replica, miss } => self.missed(request, replica, miss),
            Event::End { request, replica, sent, end } => self.ended(request, replica, sent, end),
        }
    }

    fn arrive(&mut self) {
        let percent = |dice: &mut Dice| dice.roll() % 100;
        let bound = percent(&mut self.dice) < self.plan.bound_percent;
        let harmless = percent(&mut self.dice) < self.plan.harmless_percent;
        let session = bound.then(|| self.dice.roll() as usize % self.sessions.len());
        let repeatability = if harmless { Repeatability::Harmless } else { Repeatability::Harmful };
        let request = Request {
            arrived: self.now,
            session,
            repeatability,
            repeats: Repeats::None,
            tried: 0,
            written: 0,
        };
        self.requests.push(request);
        self.report.requests += 1;
        self.report.tail_requests += u64::from(self.now >= self.plan.tail);
        self.open += 1;
        self.budget = self.budget.earn(ALLOWANCE, self.now);
        self.send(self.requests.len() - 1);
        let gap = Duration::from_micros(self.dice.roll() % (2_000_000 / self.plan.requests_per_second));
        if self.now.after(gap) < self.plan.end {
            self.at(gap, Event::Arrive);
        }
    }

    fn send(&mut self, request: usize) {
        let to = match self.requests[request].session {
            Some(session) => Some(self.sessions[session].replica),
            None => self.choose(self.requests[request].tried),
        };
        let Some(replica) = to else {
            self.report.refused += 1;
            self.open -= 1;
            return;
        };
        if self.requests[request].written == 0 && self.requests[request].tried == 0 {
            self.report.sent[replica] += 1;
        }
        match self.fate(replica) {
            Fate::Dead => {
                self.at(Duration::from_micros(100), Event::Missed { request, replica, miss: Miss::Refused })
            }
            Fate::Dark => {
                self.at(CONNECT_TIMEOUT, Event::Missed { request, replica, miss: Miss::Unreachable })
            }
            fate @ (Fate::Well | Fate::Slow | Fate::Failing | Fate::Slandered) => {
                self.write(request, replica, fate)
            }
        }
    }

    /// The replica is reached: the end of the call is known to fate already.
    fn write(&mut self, request: usize, replica: usize, fate: Fate) {
        if let Some(session) = self.requests[request].session {
            self.replicas[replica].watch = Watch::default();
            if self.sessions[session].life != self.deaths(replica) {
                return self.lose_home(request, session, Attempt::UnknownSession);
            }
        }
        self.requests[request].written += 1;
        self.report.written += 1;
        self.replicas[replica].in_flight += 1;
        let most = match self.requests[request].repeatability {
            Repeatability::Harmless => 2,
            Repeatability::Journaled | Repeatability::Harmful => 1,
        };
        assert!(self.requests[request].written <= most, "seed={}: executed too often", self.plan.seed);
        let mut took = Duration::from_micros(self.dice.between(10_000, 30_000));
        let mut end = End::Answered;
        match fate {
            Fate::Slow => took *= 10,
            Fate::Failing => (took, end) = (Duration::from_millis(1), End::Answered500),
            Fate::Well | Fate::Slandered | Fate::Dead | Fate::Dark => {}
        }
        let whole = self.now.after(took);
        let cuts = |spell: &&Spell| spell.replica == replica && spell.from > self.now && spell.from <= whole;
        for cut in self.plan.spells.iter().filter(cuts) {
            match cut.fate {
                Fate::Dead => (took, end) = (cut.from.since(self.now), End::Reset),
                Fate::Dark => (took, end) = (cut.from.since(self.now) + GONE_AFTER, End::Silent),
                Fate::Well | Fate::Slow | Fate::Failing | Fate::Slandered => {}
            }
        }
        self.at(took, Event::End { request, replica, sent: self.now, end });
    }

    /// No connection.
    fn missed(&mut self, request: usize, replica: usize, miss: Miss) {
        self.record(replica, Outcome::ConnectFailed);
        let attempt = match miss {
            Miss::Refused => Attempt::Refused,
            Miss::Unreachable => Attempt::Unreachable,
        };
        match self.requests[request].session {
            Some(session) => self.lose_home(request, session, attempt),
            None => self.again(request, replica, Loss::Unwritten),
        }
    }

    /// A bound request did not get through to its session.
    fn lose_home(&mut self, request: usize, session: usize, attempt: Attempt) {
        let home = self.sessions[session];
        let bounds =
            CallBounds { gone_after: GONE_AFTER, connect_timeout: CONNECT_TIMEOUT, ..CallBounds::default() };
        let (watch, verdict) = gone::judge(self.replicas[home.replica].watch, attempt, &bounds, self.now);
        self.replicas[home.replica].watch = watch;
        match verdict {
            Verdict::TryAgain { after } => self.at(after, Event::Send { request }),
            Verdict::Gone => self.re_home(request, session),
            Verdict::Here => panic!("seed={}: a failed attempt shows nobody", self.plan.seed),
        }
    }

    fn re_home(&mut self, request: usize, session: usize) {
        let home = self.sessions[session];
        let there =
            matches!(self.fate(home.replica), Fate::Well | Fate::Slow | Fate::Failing | Fate::Slandered);
        let waited = self.now.since(self.requests[request].arrived);
        // A request may find that its replica came back in the very moment of the verdict.
        let just_back = self
            .plan
            .spells
            .iter()
            .any(|s| s.replica == home.replica && self.now.since(s.to) < CONNECT_TIMEOUT);
        assert!(
            !there || just_back || home.life != self.deaths(home.replica),
            "seed={}: left a good home",
            self.plan.seed
        );
        assert!(
            waited <= 3 * (GONE_AFTER + CONNECT_TIMEOUT),
            "seed={}: gone took {waited:?}",
            self.plan.seed
        );
        let ids: Vec<ReplicaId> = self.replicas.iter().map(|replica| replica.id).collect();
        let up = |&replica: &usize| !matches!(self.fate(replica), Fate::Dead | Fate::Dark);
        match rendezvous::ranking(home.key, &ids).into_iter().find(up) {
            Some(replica) => {
                self.sessions[session] = Session { replica, life: self.deaths(replica), ..home };
                self.send(request);
            }
            None => {
                self.report.refused += 1;
                self.open -= 1;
            }
        }
    }

    /// A written call came to an end.
    fn ended(&mut self, request: usize, replica: usize, sent: Micros, end: End) {
        self.replicas[replica].in_flight -= 1;
        match end {
            End::Answered => {
                let ewma = ewma::observe(self.replicas[replica].ewma, self.now.since(sent), self.now);
                self.replicas[replica].ewma = Some(ewma);
                self.record(replica, Outcome::Success);
                self.report.served += 1;
                self.report.tail[replica] += u64::from(self.requests[request].arrived >= self.plan.tail);
                self.open -= 1;
            }
            End::Answered500 => {
                self.record(replica, Outcome::Status5xx);
                self.report.failed += 1;
                self.open -= 1;
            }
            End::Reset => {
                self.record(replica, Outcome::Reset);
                self.again(request, replica, Loss::Written);
            }
            End::Silent => {
                self.record(replica, Outcome::TimedOut);
                self.again(request, replica, Loss::Written);
            }
        }
    }

    fn again(&mut self, request: usize, replica: usize, loss: Loss) {
        let lost = &mut self.requests[request];
        lost.tried |= 1 << replica;
        match retry::classify(loss, lost.repeatability, Answer::Unbegun, lost.repeats) {
            Retry::Elsewhere => return self.send(request),
            Retry::Again => {
                let (budget, spend) = self.budget.spend(ALLOWANCE, self.now);
                self.budget = budget;
                if spend == Spend::Granted {
                    lost.repeats = Repeats::Spent;
                    self.report.repeats += 1;
                    return self.send(request);
                }
            }
            Retry::Never | Retry::AskJournal => {}
        }
        self.report.lost += 1;
        self.open -= 1;
    }

    fn choose(&mut self, tried: u64) -> Option<usize> {
        let mut list: Vec<usize> = (0..self.replicas.len()).filter(|n| tried & (1 << n) == 0).collect();
        // A replica that has not begun to serve is not in the snapshot yet.
        list.retain(|&n| self.replicas[n].began.is_none_or(|began| began <= self.now));
        let candidates: Vec<Candidate> = list.iter().map(|&n| self.candidate(n)).collect();
        self.turn += 1;
        let facts = Facts { turn: self.turn, dice: self.dice.roll(), key: self.dice.roll() };
        let replica = list[balance::choose(self.plan.rule, &candidates, facts)?];
        if let Some(probing) = self.replicas[replica].ejection.probe(EJECT, self.now) {
            self.replicas[replica].ejection = probing;
        }
        Some(replica)
    }

    fn candidate(&self, n: usize) -> Candidate {
        let replica = &self.replicas[n];
        let standing = match replica.ejection.door(EJECT, self.now) {
            Door::Shut => Standing::Ejected,
            Door::Open | Door::ProbeDue if self.fate(n) == Fate::Slandered => Standing::Unhealthy,
            Door::Open | Door::ProbeDue => Standing::Good,
        };
        Candidate {
            id: replica.id,
            in_flight: replica.in_flight,
            ewma_us: replica.ewma.map_or(0, |ewma| ewma.read_us(self.now)),
            load: None,
            age: replica.began.map_or(balance::SLOW_START, |began| self.now.since(began)),
            standing,
        }
    }

    fn record(&mut self, replica: usize, outcome: Outcome) {
        let ejected = self.replicas.iter().filter(|replica| replica.ejection.is_ejected()).count();
        let fleet = eject::Fleet { replicas: self.replicas.len(), ejected };
        let (next, decision) = self.replicas[replica].ejection.record(EJECT, outcome, fleet, self.now);
        self.replicas[replica].ejection = next;
        match decision {
            Decision::Ejected { .. } => self.report.ejections += 1,
            Decision::Returned => self.replicas[replica].began = Some(self.now),
            Decision::Stays | Decision::Spared => {}
        }
        let ejected = self.replicas.iter().filter(|replica| replica.ejection.is_ejected()).count();
        assert!(ejected <= fleet.ejected_max(), "seed={}: {ejected} ejected of {fleet:?}", self.plan.seed);
    }

    fn fate(&self, replica: usize) -> Fate {
        let now = |spell: &&Spell| spell.replica == replica && spell.from <= self.now && self.now < spell.to;
        self.plan.spells.iter().find(now).map_or(Fate::Well, |spell| spell.fate)
    }

    fn deaths(&self, replica: usize) -> usize {
        let dead =
            |spell: &&Spell| spell.replica == replica && spell.fate == Fate::Dead && spell.from <= self.now;
        self.plan.spells.iter().filter(dead).count()
    }
}
