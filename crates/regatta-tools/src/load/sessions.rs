//! Sessions: many that are opened and left, and some that are in use while something dies.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::answer::{Verdict, judge};
use super::conn::{Conn, shake_hands};
use super::dice::Dice;
use super::tally::Run;
use super::{Plan, Report, Target, crowd, message};

/// Connections over which sessions are opened, at most.
const OPENERS_MAX: usize = 64;

/// Opens `plan.count` sessions over a few connections, uses none, deletes none.
pub async fn open_and_leave(plan: Plan, target: Target) -> io::Result<Report> {
    let openers = plan.connections.min(OPENERS_MAX);
    let run = Rc::new(Run::new(plan));
    let shared = Rc::clone(&run);
    crowd(openers, move |_| {
        let (run, target) = (Rc::clone(&shared), target.clone());
        async move {
            let mut conn = Conn::to(target.clone());
            while run.next_call().is_some() {
                let sent = Instant::now();
                let opened = shake_hands(&mut conn, &run, &target).await;
                match opened {
                    Ok(Some(_)) => {
                        run.tally.borrow_mut().opened += 1;
                        run.tally.borrow_mut().count(Verdict::Right, run.latency(sent));
                    }
                    Ok(None) => run.tally.borrow_mut().count(Verdict::Wrong, None),
                    Err(_) => {
                        run.tally.borrow_mut().broken += 1;
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                }
            }
        }
    })
    .await;
    Ok(Report::of(&run))
}

/// One call as it is recorded.
#[derive(serde::Serialize)]
struct Record<'a> {
    session: usize,
    operation: &'a str,
    /// Seconds since 1970, when the call was sent and when its answer was there.
    sent: f64,
    done: f64,
    /// `right`, `wrong`, `fault <code>`, `status <code>` or `broken`.
    outcome: &'a str,
}

/// `plan.connections` sessions on connections of their own call again and again, with about `plan.pause` between.
pub async fn in_use(plan: Plan, target: Target) -> io::Result<Report> {
    let record = match &plan.record {
        Some(path) => Some(BufWriter::new(File::create(path)?)),
        None => None,
    };
    let record = Rc::new(RefCell::new(record));
    let run = Rc::new(Run::new(plan));
    let (shared, records) = (Rc::clone(&run), Rc::clone(&record));
    crowd(run.plan.connections, move |index| {
        session(index, Rc::clone(&shared), Rc::clone(&records), target.clone())
    })
    .await;
    if let Some(record) = record.borrow_mut().as_mut() {
        record.flush()?;
    }
    Ok(Report::of(&run))
}

async fn session(index: usize, run: Rc<Run>, records: Rc<RefCell<Option<BufWriter<File>>>>, target: Target) {
    let mut dice = Dice::seeded(run.plan.seed.wrapping_add(index as u64));
    let mut conn = Conn::to(target.clone());
    let Ok(id) = shake_hands(&mut conn, &run, &target).await else {
        run.tally.borrow_mut().broken += 1;
        return;
    };
    run.tally.borrow_mut().opened += 1;
    let mut call = message::call(&run.plan, &target, id.as_deref());
    while let Some(id) = run.next_call() {
        // Half to one and a half of the pause, so that the sessions do not march in step.
        tokio::time::sleep(run.plan.pause.mul_f64(0.5 + dice.unit())).await;
        let text = call.text(id);
        let (sent, sent_at) = (Instant::now(), unix_seconds());
        let outcome = match conn.exchange(call.stamp(id)).await {
            Ok((head, body)) => {
                let verdict = judge(head, body, run.plan.expected, id, &text);
                run.tally.borrow_mut().count(verdict, run.latency(sent));
                name(verdict)
            }
            Err(_) => {
                run.tally.borrow_mut().broken += 1;
                "broken".to_owned()
            }
        };
        let operation = text.split(' ').next().unwrap_or_default();
        let line =
            Record { session: index, operation, sent: sent_at, done: unix_seconds(), outcome: &outcome };
        write(&records, &line);
    }
}

fn write(records: &RefCell<Option<BufWriter<File>>>, line: &Record<'_>) {
    if let Some(record) = records.borrow_mut().as_mut() {
        // A full disk shows as missing records, which whoever reads them counts.
        let _ = serde_json::to_writer(&mut *record, line);
        let _ = record.write_all(b"\n");
    }
}

fn name(verdict: Verdict) -> String {
    match verdict {
        Verdict::Right => "right".to_owned(),
        Verdict::Wrong => "wrong".to_owned(),
        Verdict::Fault(code) => format!("fault {code}"),
        Verdict::Status(status) => format!("status {status}"),
    }
}

fn unix_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}
