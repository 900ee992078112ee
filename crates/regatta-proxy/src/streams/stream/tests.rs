//! Readers that come and go, tasks that follow them, and a source that wakes only who polled it last.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Wake;
use std::time::Duration;

use regatta_policy::Micros;

use super::*;
use crate::handover::Account;
use crate::streams::table::{Resting, StreamTable};

/// What a source will say, and whom it wakes.
#[derive(Default)]
struct Script {
    next: VecDeque<Produced>,
    waker: Option<Waker>,
}

struct Scripted(Arc<Mutex<Script>>);

impl Source for Scripted {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Produced> {
        let mut script = self.0.lock().expect("no panic");
        if let Some(produced) = script.next.pop_front() {
            return Poll::Ready(produced);
        }
        script.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

fn say(script: &Mutex<Script>, produced: Produced) {
    let waker = {
        let mut script = script.lock().expect("no panic");
        script.next.push_back(produced);
        script.waker.take()
    };
    if let Some(waker) = waker {
        waker.wake();
    }
}

fn event(text: String) -> Produced {
    Produced::Event { name: None, data: text.into() }
}

/// A task that is polled only after it was woken.
struct Bell(AtomicBool);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn bell() -> Arc<Bell> {
    Arc::new(Bell(AtomicBool::new(true)))
}

fn rang(bell: &Bell) -> bool {
    bell.0.swap(false, Ordering::SeqCst)
}

fn drive(stream: &Stream, reader: u64, bell: &Arc<Bell>) -> Poll<Turned> {
    stream.poll_drive(reader, &mut Context::from_waker(&Waker::from(bell.clone())))
}

fn read(stream: &Stream, reader: u64, at: Sequence, bell: &Arc<Bell>) -> Read {
    stream.poll_read(reader, at, &mut Context::from_waker(&Waker::from(bell.clone()))).0
}

fn nobody() -> Caller {
    Caller { context: [0; 16], account: Account([2; 16]), ip: Ipv4Addr::LOCALHOST.into(), principal: None }
}

fn stream() -> (Stream, Arc<Mutex<Script>>) {
    let script: Arc<Mutex<Script>> = Arc::default();
    let carries = Carries::Call { id: Bytes::from_static(b"1") };
    let source = Box::new(Scripted(script.clone()));
    (Stream::new(7, Uuid16([1; 16]), nobody(), carries, "label".into(), 1 << 20, source), script)
}

#[test]
fn an_end_from_outside_wakes_the_driving_task() {
    let (stream, _script) = stream();
    let task = bell();
    assert!(stream.leave(1));
    assert!(rang(&task) && drive(&stream, 1, &task).is_pending());
    assert!(matches!(stream.end(None), Turned::Rests { rest: 1, .. }));
    assert!(rang(&task), "its place would be held for a day");
    assert_eq!(drive(&stream, 1, &task), Poll::Ready(Turned::No));
}

#[test]
fn a_new_reader_takes_over_from_the_task_and_pushes_back_again() {
    let (stream, script) = stream();
    let (task, reader) = (bell(), bell());
    assert!(stream.leave(1));
    assert!(rang(&task) && drive(&stream, 1, &task).is_pending());
    let (number, at) = stream.attach();
    assert!(rang(&task), "the task ends when somebody reads");
    assert_eq!(drive(&stream, 1, &task), Poll::Ready(Turned::No));
    assert!(matches!(read(&stream, number, at, &reader), Read::NotYet));
    rang(&reader);
    say(&script, event("{}".into()));
    assert!(rang(&reader));
    assert!(matches!(read(&stream, number, at, &reader), Read::Event(_)));
    assert!(stream.leave(number) && !stream.leave(number));
    assert_eq!(drive(&stream, 1, &task), Poll::Ready(Turned::No), "a task follows one reader only");
}

#[test]
fn a_stream_that_is_paused_and_never_asked_for_again_is_forgotten() {
    let (stream, script) = stream();
    let (stream, table) = (Arc::new(stream), StreamTable::default());
    table.insert(&stream);
    let pause = || say(&script, Produced::Pause { cursor: Bytes::from_static(b"c") });
    let rest = |at: u64| {
        let (number, at_event) = stream.attach();
        let mut cx = Context::from_waker(Waker::noop());
        let (Read::Over, Turned::Rests { rest, bytes }) = stream.poll_read(number, at_event, &mut cx) else {
            panic!("it rests");
        };
        table.rests(&stream, Resting { rest, at: Micros(at), bytes }, 1 << 20);
    };
    let known = || table.find(stream.number, stream.session).is_some();
    pause();
    rest(0);
    assert!(stream.feed(Box::new(Scripted(script.clone()))), "its client asked for the rest");
    table.sweep(Micros(3_000_000), Duration::from_secs(2));
    assert!(known(), "it lives again");
    pause();
    rest(4_000_000);
    table.sweep(Micros(5_000_000), Duration::from_secs(2));
    assert!(known(), "its newest rest counts");
    table.sweep(Micros(7_000_000), Duration::from_secs(2));
    assert!(!known());
}

#[test]
fn a_stream_that_goes_on_under_the_same_number_stays_when_the_older_one_is_forgotten() {
    let table = StreamTable::default();
    let (older, newer) = (Arc::new(stream().0), Arc::new(stream().0));
    let known = || table.find(7, newer.session).is_some_and(|found| Arc::ptr_eq(&found, &newer));
    table.insert(&older);
    let Turned::Rests { rest, bytes } = older.end(None) else { panic!("it rests") };
    table.rests(&older, Resting { rest, at: Micros(0), bytes }, 1 << 20);
    table.insert(&newer);
    assert!(matches!(newer.end(None), Turned::Rests { rest: 1, .. }), "as often as the older one");
    table.remove(&older);
    assert!(known());
    table.sweep(Micros(9_000_000), Duration::from_secs(2));
    assert!(known());
    table.remove(&newer);
    assert!(!known());
}

#[test]
fn what_never_was_sent_cannot_be_resumed_from() {
    let (stream, _script) = stream();
    assert!(stream.can_serve(1));
    assert!(!stream.can_serve(2));
    assert_eq!(stream.nearest(u64::MAX), 1);
}

/// One reader and the tasks of those who left, in a thousand orders: every event is read once and in order, and nobody
/// sleeps while there is something to do.
#[test]
fn no_event_is_lost_however_readers_come_and_go() {
    for seed in 1..1000u64 {
        let (stream, script) = stream();
        let mut dice = seed;
        let mut roll = |sides: u64| {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (dice >> 33) % sides
        };
        let mut reader = Some((1, 1, bell()));
        let mut tasks: Vec<(u64, Arc<Bell>)> = Vec::new();
        let mut said = 0;
        for _ in 0..60 {
            match roll(6) {
                0 | 1 => {
                    said += 1;
                    say(&script, event(said.to_string()));
                }
                2 if roll(3) == 0 => {
                    let (number, at) = stream.attach();
                    if let Some((older, ..)) = reader.replace((number, at, bell())) {
                        assert!(!stream.leave(older), "an older reader leaves no gap");
                    }
                }
                3 if roll(3) == 0 => {
                    if let Some((number, ..)) = reader.take()
                        && stream.leave(number)
                    {
                        tasks.push((number, bell()));
                    }
                }
                _ => {}
            }
            let turns = roll(3);
            for _ in 0..turns {
                turn(&stream, &mut reader, &mut tasks);
            }
        }
        if reader.is_none() {
            let (number, at) = stream.attach();
            reader = Some((number, at, bell()));
        }
        while turn(&stream, &mut reader, &mut tasks) {}
        let (_, at, _) = reader.expect("there is one");
        assert_eq!(at, said + 1, "seed {seed}: all was read");
        assert!(tasks.is_empty(), "seed {seed}: a task outlived its use");
    }
}

/// Polls whoever was woken; false if nobody was.
fn turn(
    stream: &Stream,
    reader: &mut Option<(u64, Sequence, Arc<Bell>)>,
    tasks: &mut Vec<(u64, Arc<Bell>)>,
) -> bool {
    let mut busy = false;
    tasks.retain(|(number, bell)| {
        let woken = rang(bell);
        busy |= woken;
        !(woken && drive(stream, *number, bell).is_ready())
    });
    let Some((number, at, bell)) = reader else { return busy };
    if rang(bell) {
        busy = true;
        match read(stream, *number, *at, bell) {
            Read::Event(event) => {
                let text = String::from_utf8(event.to_vec()).expect("text");
                assert!(text.contains(&format!("data: {at}\n")), "event {at} is {text}");
                *at += 1;
                bell.0.store(true, Ordering::SeqCst);
            }
            Read::NotYet => {}
            Read::Lost | Read::Over => panic!("the current reader of a live stream reads on"),
        }
    }
    busy
}
