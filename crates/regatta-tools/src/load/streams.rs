//! Streams: standing ones that are opened and held, and long answers whose events are counted.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use super::answer::Verdict;
use super::conn::{Conn, shake_hands};
use super::tally::Run;
use super::{Plan, Report, Target, crowd, message};

/// Streams that are being opened at once: more would only measure the listen backlog.
const OPENING_MAX: usize = 64;

/// Opens `plan.connections` standing streams, says `held` on stderr, and holds them for `plan.seconds`.
pub async fn hold(plan: Plan, target: Target) -> io::Result<Report> {
    let run = Rc::new(Run::new(plan));
    let size = run.plan.connections;
    let opening = Rc::new(Semaphore::new(OPENING_MAX));
    let (all_open, open) = tokio::sync::watch::channel(0usize);
    let all_open = Rc::new(all_open);
    let shared = Rc::clone(&run);
    crowd(size, move |_| {
        let (run, target) = (Rc::clone(&shared), target.clone());
        let (opening, all_open, mut open) = (Rc::clone(&opening), Rc::clone(&all_open), open.clone());
        async move {
            let mut conn = Conn::to(target.clone());
            let opened = {
                let _turn = opening.acquire().await;
                open_stream(&mut conn, &run, &target).await
            };
            let tried = tell(&all_open, &run, opened.is_ok());
            if tried == size {
                eprintln!("held {} of {size}", run.tally.borrow().opened);
            }
            if opened.is_err() || open.wait_for(|tried| *tried == size).await.is_err() {
                return;
            }
            listen(&mut conn, &run).await;
        }
    })
    .await;
    Ok(Report::of(&run))
}

async fn open_stream(conn: &mut Conn, run: &Run, target: &Target) -> io::Result<()> {
    let session = shake_hands(conn, run, target).await?;
    let id = run.id();
    let head = conn.start(message::standing(&run.plan, target, session.as_deref()).stamp(id)).await?;
    match (head.status, head.media) {
        (200, crate::wire::Media::Sse) => Ok(()),
        (status, _) => Err(io::Error::other(format!("the stream was answered with {status}"))),
    }
}

fn tell(all_open: &tokio::sync::watch::Sender<usize>, run: &Run, opened: bool) -> usize {
    let mut tally = run.tally.borrow_mut();
    if opened {
        tally.opened += 1;
    } else {
        tally.broken += 1;
    }
    all_open.send_modify(|tried| *tried += 1);
    *all_open.borrow()
}

/// Reads until the time to hold is over; an earlier end is a cut.
async fn listen(conn: &mut Conn, run: &Run) {
    let until = Instant::now() + run.plan.seconds;
    loop {
        match timeout_at(until, conn.more()).await {
            Err(_) => return,
            Ok(Ok(true)) => {
                let events = memchr::memmem::find_iter(conn.body(), b"data:").count() as u64;
                run.tally.borrow_mut().events += events;
                conn.body().clear();
            }
            Ok(Ok(false) | Err(_)) => {
                run.tally.borrow_mut().cut += 1;
                return;
            }
        }
    }
}

/// Calls the streaming tool on each connection until time or count is used up, and counts every event in its order.
pub async fn events(plan: Plan, target: Target) -> io::Result<Report> {
    let run = Rc::new(Run::new(plan));
    let shared = Rc::clone(&run);
    crowd(run.plan.connections, move |_| {
        let (run, target) = (Rc::clone(&shared), target.clone());
        async move {
            let mut conn = Conn::to(target.clone());
            let Ok(session) = shake_hands(&mut conn, &run, &target).await else {
                run.tally.borrow_mut().broken += 1;
                return;
            };
            run.tally.borrow_mut().opened += 1;
            let mut call = message::events(&run.plan, &target, session.as_deref());
            while let Some(id) = run.next_call() {
                match stream(&mut conn, &run, call.stamp(id), id).await {
                    Ok(verdict) => run.tally.borrow_mut().count(verdict, None),
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

/// One stream: `plan.events` progress events numbered from 1, then the result.
async fn stream(conn: &mut Conn, run: &Run, request: &[u8], id: u64) -> io::Result<Verdict> {
    let head = conn.start(request).await?;
    let status = head.status;
    let mut progress = 0;
    let mut verdict = Verdict::Wrong;
    loop {
        let used = memchr::memrchr(b'\n', conn.body()).map_or(0, |at| at + 1);
        let complete: Vec<u8> = conn.body().drain(..used).collect();
        for line in complete.split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"data:")) {
            if field_number(line, b"\"progress\":") == Some(progress + 1) {
                progress += 1;
                run.tally.borrow_mut().events += 1;
            } else if field_number(line, b"\"id\":") == Some(id) && progress == run.plan.events {
                verdict = Verdict::Right;
            }
        }
        if !conn.more().await? && conn.body().is_empty() {
            return Ok(if status == 200 { verdict } else { Verdict::Status(status) });
        }
    }
}

fn field_number(line: &[u8], name: &[u8]) -> Option<u64> {
    let rest = &line[memchr::memmem::find(line, name)? + name.len()..];
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    crate::wire::number(&rest[..digits]).map(|value| value as u64)
}
