//! The open loop: calls arrive by a seeded Poisson process, and each latency counts from the intended send time.
//!
//! Blocking threads, one a connection: a runtime's timer is too coarse (1 ms) for arrivals that are 500 µs apart. Each thread takes
//! the next arrival and sleeps until it is due; when all threads wait for answers, arrivals become late, and their lateness counts.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::answer::judge;
use super::conn::broken;
use super::dice::Dice;
use super::message::{self, ID_FIRST};
use super::tally::Tally;
use super::{Era, Plan, Report, Target};
use crate::wire::{Broken, Head, Parser};

/// A silent server must not hold a thread for ever.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// Time for all threads to shake hands before the first arrival.
const HEAD_START: Duration = Duration::from_millis(500);

struct Arrivals {
    dice: Dice,
    due: Duration,
    left: u64,
    next_id: u64,
}

struct Shared<'a> {
    plan: &'a Plan,
    target: &'a Target,
    began: Instant,
    arrivals: Mutex<Arrivals>,
}

impl Shared<'_> {
    fn next(&self) -> Option<(Instant, u64)> {
        let mut arrivals = self.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        if arrivals.left == 0 || arrivals.due > self.plan.warm_up + self.plan.seconds {
            return None;
        }
        let arrival = (self.began + arrivals.due, arrivals.next_id);
        arrivals.left -= 1;
        arrivals.next_id += 1;
        let pause = arrivals.dice.pause(self.plan.rate);
        arrivals.due += pause;
        Some(arrival)
    }
}

/// Runs the open loop on `plan.connections` threads.
pub fn run(plan: Plan, target: &Target) -> io::Result<Report> {
    let arrivals = Arrivals {
        dice: Dice::seeded(plan.seed),
        due: Duration::ZERO,
        left: plan.count.unwrap_or(u64::MAX),
        next_id: ID_FIRST + plan.connections as u64,
    };
    let began = Instant::now() + HEAD_START;
    let shared = Shared { plan: &plan, target, began, arrivals: Mutex::new(arrivals) };
    let mut total = Tally::default();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..plan.connections)
            .map(|index| {
                scope.spawn({
                    let shared = &shared;
                    move || connection(shared, index)
                })
            })
            .collect();
        for thread in threads {
            if let Ok(tally) = thread.join() {
                total.add(&tally);
            }
        }
    });
    Ok(Report::new(&plan, began.elapsed(), &total))
}

fn connection(shared: &Shared<'_>, index: usize) -> Tally {
    sharpen_sleep();
    let mut tally = Tally::default();
    let mut line = Line::to(shared.target.clone());
    let Ok(session) = line.shake_hands(shared.plan.era, ID_FIRST + index as u64) else {
        tally.broken += 1;
        return tally;
    };
    tally.opened += 1;
    let mut call = message::call(shared.plan, shared.target, session.as_deref());
    while let Some((due, id)) = shared.next() {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        match line.exchange(call.stamp(id)) {
            Ok((head, body)) => {
                let counts = due.duration_since(shared.began) >= shared.plan.warm_up;
                let latency = counts.then(|| due.elapsed());
                tally.count(judge(head, body, shared.plan.expected, id, &call.text(id)), latency);
            }
            Err(_) => tally.broken += 1,
        }
    }
    tally
}

/// Linux lets a sleep run 50 µs over, to save wake-ups; here that would be measured as latency. Best effort.
fn sharpen_sleep() {
    let Ok(path) = std::fs::read_link("/proc/thread-self") else { return };
    if let Some(thread) = path.file_name() {
        let _ = std::fs::write(std::path::Path::new("/proc").join(thread).join("timerslack_ns"), "1");
    }
}

/// A blocking keep-alive connection.
struct Line {
    target: Target,
    stream: Option<TcpStream>,
    chunk: Vec<u8>,
    parser: Parser,
}

impl Line {
    fn to(target: Target) -> Line {
        Line { target, stream: None, chunk: vec![0; 16 * 1024], parser: Parser::default() }
    }

    fn shake_hands(&mut self, era: Era, id: u64) -> io::Result<Option<String>> {
        if era == Era::Modern {
            return Ok(None);
        }
        let target = self.target.clone();
        let session = self.exchange(message::initialize(&target).stamp(id))?.0.session.clone();
        self.exchange(message::initialized(&target, session.as_deref()).stamp(id))?;
        Ok(session)
    }

    fn exchange(&mut self, request: &[u8]) -> io::Result<(&Head, &[u8])> {
        if let Err(error) = self.try_exchange(request) {
            self.stream = None;
            return Err(error);
        }
        let head = self.parser.head().ok_or_else(|| broken(Broken::Head))?;
        if head.close {
            self.stream = None;
        }
        Ok((head, &self.parser.body))
    }

    fn try_exchange(&mut self, request: &[u8]) -> io::Result<()> {
        if self.stream.is_none() {
            let stream = TcpStream::connect(self.target.address)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(SILENCE_MAX))?;
            self.parser = Parser::default();
            self.stream = Some(stream);
        }
        let Some(stream) = &mut self.stream else { return Err(io::ErrorKind::NotConnected.into()) };
        self.parser.begin();
        stream.write_all(request)?;
        while !self.parser.is_done() {
            match stream.read(&mut self.chunk)? {
                0 => return self.parser.end().map_err(broken),
                length => self.parser.push(&self.chunk[..length]).map_err(broken)?,
            };
        }
        Ok(())
    }
}
