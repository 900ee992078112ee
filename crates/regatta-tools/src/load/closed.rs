//! The closed loop: each connection sends its next call when it has the answer to the last.
//!
//! It finds the most that a target can do; its latencies say little, because a slow answer holds back the calls behind it.

use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::answer::judge;
use super::conn::{Conn, shake_hands};
use super::tally::Run;
use super::{Plan, Report, Target, crowd, message};

/// After a broken connection, before the next try: a dead target must not be hammered.
const BREATH: Duration = Duration::from_millis(10);

/// Runs the closed loop.
pub async fn run(plan: Plan, target: Target) -> io::Result<Report> {
    let run = Rc::new(Run::new(plan));
    let shared = Rc::clone(&run);
    crowd(run.plan.connections, move |_| connection(Rc::clone(&shared), target.clone())).await;
    Ok(Report::of(&run))
}

async fn connection(run: Rc<Run>, target: Target) {
    let mut conn = Conn::to(target.clone());
    let session = match shake_hands(&mut conn, &run, &target).await {
        Ok(session) => session,
        Err(_) => {
            run.tally.borrow_mut().broken += 1;
            return;
        }
    };
    run.tally.borrow_mut().opened += 1;
    let mut call = message::call(&run.plan, &target, session.as_deref());
    while let Some(id) = run.next_call() {
        let sent = Instant::now();
        match conn.exchange(call.stamp(id)).await {
            Ok((head, body)) => {
                let verdict = judge(head, body, run.plan.expected, id, &call.text(id));
                run.tally.borrow_mut().count(verdict, run.latency(sent));
            }
            Err(_) => {
                run.tally.borrow_mut().broken += 1;
                tokio::time::sleep(BREATH).await;
            }
        }
    }
}
