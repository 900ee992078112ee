//! A batch: an array of messages in one POST, which only 2025-03-26 has (its basic, *Batching*, and basic/transports, *Sending
//! Messages*; removed by 2025-06-18, changelog).
//!
//! Each message takes the path that it would take alone, one after another, all in the batch's one place and each with a time of
//! its own. Responses go out as events, among what the calls say and ask, as soon as they are there. No event has an id: a
//! client that came back with the id of one call's event would never hear of the others. Whose connection breaks knows what
//! was not answered; the batch runs on (a lost connection is no cancellation).

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::request::Parts;
use http::{HeaderName, HeaderValue, StatusCode, header};
use http_body_util::BodyExt as _;
use regatta_mcp::{Decoded, Kind, Message, Method, codes, decode};
use rmcp::ServerHandler;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::answers::{Answer, Apart, event, events, fault, not_run_text, plain, unknown_text};
use crate::caller::Caller;
use crate::calls::Listed;
use crate::legacy::{self, Stay};
use crate::places::Place;
use crate::serve::{self, Peek, SESSION, Shared};
use crate::{journal, session};

/// The last version with batches.
const LAST_WITH: &str = "2025-03-26";
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Events that wait for a slow client.
const EVENTS_MAX: usize = 16;

/// Whether a body is one, or nothing that could be read.
pub(crate) fn is_one(body: &[u8]) -> bool {
    body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[')
}

/// Answers one.
pub(crate) async fn answer<H: ServerHandler>(
    shared: Arc<Shared<H>>,
    caller: Caller,
    (parts, body): (Parts, Bytes),
    place: Arc<Place>,
) -> Answer {
    // What refuses the whole body has no id (2025-03-26 basic/transports, *Sending Messages* 4).
    let refuse = |code, why: &str| fault(StatusCode::BAD_REQUEST, &Value::Null, code, why);
    let token = parts.headers.get(SESSION).map(|token| token.to_str().unwrap_or_default());
    let session = match token {
        Some(token) => shared.sessions.find(caller, token).await,
        // Without a session nobody can say that this is a client of that version.
        None => return refuse(codes::INVALID_REQUEST, "send one message in each request"),
    };
    let session = match session {
        Ok(session) => session,
        Err(refused) => return legacy::refusal(&refused, &Value::Null),
    };
    if let Err(why) = has_batches(&session, &parts) {
        return refuse(codes::INVALID_REQUEST, why);
    }
    let messages = match messages(&body) {
        Ok(messages) => messages,
        Err((code, why)) => return refuse(code, why),
    };
    let batch = Batch { shared, caller, session: session.uuid, parts, body, place };
    // Before anything else, as at the gateway: when one is refused, nothing was run.
    let (answers, rest): (Vec<Message>, Vec<Message>) =
        messages.into_iter().partition(|message| matches!(message.kind, Kind::Response { .. }));
    if let Err(refused) = batch.carry(&answers).await {
        return refused;
    }
    if rest.iter().any(|message| message.kind == Kind::Request) {
        return batch.serve(rest);
    }
    match batch.carry(&rest).await {
        Ok(()) => plain(StatusCode::ACCEPTED, ""),
        Err(refused) => refused,
    }
}

fn has_batches(session: &session::Session, parts: &Parts) -> Result<(), &'static str> {
    let agreed = session.client.protocol_version.as_str();
    if agreed > LAST_WITH {
        return Err("send one message in each request");
    }
    if serve::agrees(parts, agreed) { Ok(()) } else { Err(serve::DISAGREES) }
}

/// The messages of a batch: at least one, at most as many as the gateway lets through, none of them flawed.
fn messages(body: &[u8]) -> Result<Vec<Message>, (i32, &'static str)> {
    let messages = match decode(body) {
        Ok(Decoded::Batch(messages)) => messages,
        Ok(Decoded::One(_)) => return Err((codes::INVALID_REQUEST, "this is no batch")),
        Err(malformed) => return Err((malformed.fault.code(), malformed.why)),
    };
    // 2025-03-26 basic/lifecycle, *Initialization*.
    if messages.iter().any(|message| message.method() == Some(Method::Initialize)) {
        return Err((codes::INVALID_REQUEST, "initialize must not be part of a batch"));
    }
    Ok(messages)
}

struct Batch<H: ServerHandler> {
    shared: Arc<Shared<H>>,
    caller: Caller,
    session: [u8; 16],
    parts: Parts,
    body: Bytes,
    /// Held to the end of the last message: who waits for a place holds no body.
    place: Arc<Place>,
}

impl<H: ServerHandler> Batch<H> {
    /// Takes messages that nothing waits for a response to, up to the first that is refused.
    async fn carry(&self, messages: &[Message]) -> Result<(), Answer> {
        for message in messages {
            let answer = self.alone(message).await;
            if !answer.status().is_success() {
                return Err(answer);
            }
        }
        Ok(())
    }

    /// Answers its requests with a stream: what a call asks its client must go out before the call can end.
    fn serve(self, messages: Vec<Message>) -> Answer {
        let (events_in, events_out) = mpsc::channel(EVENTS_MAX);
        let (last_in, last_out) = oneshot::channel();
        let patience = self.shared.settings.request_timeout();
        let out = Out::new(events_in, patience);
        // From now on whoever takes one back finds it, though it has not begun.
        let listed = |message: &Message| {
            let id = id_of(message, &self.body)?;
            Some(self.shared.fleet.calls.list(self.session, &id))
        };
        let messages: Vec<_> = messages.iter().map(|message| (*message, listed(message))).collect();
        tokio::spawn(self.run(messages, out, last_in));
        let events_out = stream::unfold(events_out, |mut events| async {
            let event = events.recv().await?;
            Some((event, events))
        });
        let last = stream::once(last_out).filter_map(|last| std::future::ready(last.ok()));
        let mut answer = events(events_out.chain(last));
        answer.extensions_mut().insert(Apart);
        answer
    }

    /// Runs the messages in turn, whoever reads.
    async fn run(self, messages: Vec<(Message, Option<Listed>)>, mut out: Out, last: oneshot::Sender<Bytes>) {
        for (message, listed) in messages {
            let id = id_of(&message, &self.body);
            if let Some(id) = id.as_ref().filter(|_| !self.shared.ready.load(Relaxed)) {
                out.respond(event(&not_run_text(id, codes::DRAINING, "this node is leaving"))).await;
                continue;
            }
            let taken_back = async {
                match &listed {
                    Some(listed) => listed.cancelled().await,
                    None => std::future::pending().await,
                }
            };
            let answer = tokio::select! {
                // Looked at first: what was polled once has begun, and runs on when it is dropped.
                biased;
                // Before it began. It waits for no response (2025-03-26 basic/utilities, *Cancellation*).
                () = taken_back => continue,
                answer = self.alone(&message) => answer,
            };
            let Some(id) = id else { continue };
            out.tell(answer, &id).await;
        }
        // Nobody is there to hear it, unless the client was only slow.
        let _ = last.send(Bytes::from(out.untold));
    }

    /// What one message is answered when it comes alone.
    async fn alone(&self, message: &Message) -> Answer {
        let body = self.body.slice(message.whole.start as usize..message.whole.end as usize);
        let mut parts = self.parts.clone();
        if let (Some(key), Some(id)) = (parts.headers.get(IDEMPOTENCY_KEY), message.id) {
            let key = key_of(key, id.raw.of(&self.body));
            parts.headers.insert(IDEMPOTENCY_KEY, key);
        }
        let deadline = Instant::now() + self.shared.settings.request_timeout();
        let clock = self.shared.fleet.clock(deadline);
        let request = journal::Request { caller: self.caller, parts, peek: Peek::at(&body), body };
        let stay = Stay { place: self.place.clone(), clock, entry: None };
        serve::one(&self.shared, request, stay, deadline).await
    }
}

/// The id of a request.
fn id_of(message: &Message, body: &[u8]) -> Option<Value> {
    let id = message.id.filter(|_| message.kind == Kind::Request)?;
    serde_json::from_slice(id.raw.of(body)).ok()
}

/// The key of one message, where the batch has one: of equal calls in a batch each is meant.
fn key_of(key: &HeaderValue, id: &[u8]) -> HeaderValue {
    let digest = regatta_seal::digest16(&[b"message of a batch", key.as_bytes(), id]);
    HeaderValue::try_from(format!("{:032x}", u128::from_be_bytes(digest))).unwrap_or_else(|_| key.clone())
}

/// Where the events go.
struct Out {
    events: mpsc::Sender<Bytes>,
    /// How long a client may leave the events of one message unread, taken together: what runs in a place must not wait for
    /// it for ever, however little it takes at a time.
    patience: Duration,
    /// What is left of that.
    left: Duration,
    is_read: bool,
    /// Responses to what was served when it was not read any more.
    untold: String,
}

impl Out {
    fn new(events: mpsc::Sender<Bytes>, patience: Duration) -> Out {
        Out { events, patience, left: patience, is_read: true, untold: String::new() }
    }

    /// Passes on the answer to one request, to its end also if nobody reads.
    async fn tell(&mut self, answer: Answer, id: &Value) {
        self.left = self.patience;
        let (head, mut body) = answer.into_parts();
        let kind = head.headers.get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
        match kind {
            b"text/event-stream" => {
                while let Some(Ok(frame)) = body.frame().await {
                    self.say(without_ids(frame.data_ref().unwrap_or(&Bytes::new()))).await;
                }
            }
            b"application/json" => {
                let Ok(body) = body.collect().await;
                self.say(event(&String::from_utf8_lossy(&body.to_bytes()))).await;
            }
            _ => self.say(event(&unknown_text(id, "the handler ended without an answer"))).await,
        }
        self.owe(|| event(&unknown_text(id, "its client was too slow")));
    }

    /// Says a response of which the whole is known.
    async fn respond(&mut self, response: Bytes) {
        self.left = self.patience;
        self.say(response.clone()).await;
        self.owe(|| response);
    }

    async fn say(&mut self, event: Bytes) {
        if self.is_read {
            let begun = Instant::now();
            let sent = tokio::time::timeout(self.left, self.events.send(event)).await;
            self.left = self.left.saturating_sub(begun.elapsed());
            self.is_read = matches!(sent, Ok(Ok(())));
        }
    }

    /// Keeps this response for the end, if it could not be said.
    fn owe(&mut self, response: impl FnOnce() -> Bytes) {
        if !self.is_read {
            self.untold += &String::from_utf8_lossy(&response());
        }
    }
}

/// Whole events as they stand in a stream, without their ids.
fn without_ids(events: &[u8]) -> Bytes {
    let lines = events.split_inclusive(|byte| *byte == b'\n');
    lines.filter(|line| !line.starts_with(b"id:")).flatten().copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_that_begins_an_array_is_a_batch() {
        for (body, is) in [("[]", true), (" \n\t[7", true), ("{}", false), ("", false), ("7", false)] {
            assert_eq!(is_one(body.as_bytes()), is, "{body:?}");
        }
    }

    #[test]
    fn a_flawed_batch_is_refused_whole_and_one_with_initialize_too() {
        let refused = |body: &str| messages(body.as_bytes()).err().map(|(code, _)| code);
        let ping = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
        assert_eq!(refused(&format!("[{ping},{ping}]")), None);
        let initialize = ping.replace("ping", "initialize");
        let many = vec![ping; regatta_mcp::BATCH_MAX + 1].join(",");
        for body in ["[]".to_owned(), format!("[{ping},7]"), format!("[{initialize}]"), format!("[{many}]")] {
            assert_eq!(refused(&body), Some(codes::INVALID_REQUEST), "{body}");
        }
        assert_eq!(refused("[{]"), Some(codes::PARSE_ERROR));
    }

    #[test]
    fn one_key_becomes_one_for_each_id_and_the_same_again_for_a_repeat() {
        let key = HeaderValue::from_static("mine");
        let of = |id: &[u8]| key_of(&key, id);
        assert_eq!(of(b"1"), of(b"1"));
        assert_ne!(of(b"1"), of(b"\"1\""));
        assert_ne!(of(b"1"), key_of(&HeaderValue::from_static("mine1"), b""));
    }

    #[test]
    fn events_lose_their_ids_and_nothing_else() {
        let events = b"id: abc\ndata: {\"id\":1}\n\ndata: 2\n\n";
        assert_eq!(&without_ids(events)[..], b"data: {\"id\":1}\n\ndata: 2\n\n");
    }

    #[tokio::test(start_paused = true)]
    async fn who_leaves_events_unread_for_too_long_is_waited_for_no_more_and_told_at_the_end() {
        let (events, mut unread) = mpsc::channel(1);
        let mut out = Out::new(events, Duration::from_secs(5));
        let begun = Instant::now();
        for text in ["one", "two", "three"] {
            out.respond(event(text)).await;
        }
        assert_eq!((out.is_read, begun.elapsed()), (false, Duration::from_secs(5)));
        assert_eq!(out.untold, "data: two\n\ndata: three\n\n");
        assert_eq!(unread.recv().await, Some(event("one")));
        assert!(unread.try_recv().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_an_event_now_and_then_gains_no_time_by_it() {
        let (events, mut unread) = mpsc::channel(1);
        let mut out = Out::new(events, Duration::from_secs(5));
        let begun = Instant::now();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_secs(2)).await;
                unread.recv().await;
            }
        });
        let said = futures_util::stream::iter((0..9).map(|number| event(&number.to_string())));
        out.tell(crate::answers::events(said), &Value::from(1)).await;
        assert_eq!(begun.elapsed(), Duration::from_secs(5));
        assert!(out.untold.contains("-31001"), "{}", out.untold);
    }
}
