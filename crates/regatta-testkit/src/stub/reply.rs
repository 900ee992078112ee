//! A reply: a head and a script of steps. Built by chaining; knows no socket.

use super::Seen;
use bytes::Bytes;
use serde_json::{Value, json};
use std::time::Duration;

/// What a live reply is told.
#[derive(Clone, Debug)]
pub(crate) enum Live {
    Bytes(Bytes),
    End,
}

type Then = Box<dyn FnOnce(&Value) -> Value + Send>;

pub(crate) enum Step {
    Body(Bytes),
    Wait(Duration),
    /// Comments as fast as they are taken.
    EndlessComments,
    /// Whatever the test says, until it says that it is over.
    Live,
    /// Until the client has POSTed the answer to this id; then an event made of that answer.
    Answered(Value, Then),
    Forever,
}

/// How the body is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    Length,
    Chunked,
    /// No head at all: the steps are the bytes of the answer.
    Raw,
}

/// How the connection ends after the last step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Keep,
    Close,
    Reset,
}

/// One reply.
pub struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) framing: Framing,
    pub(crate) before: Duration,
    pub(crate) steps: Vec<Step>,
    /// Body bytes after which the end comes early.
    pub(crate) cut: Option<(usize, End)>,
    pub(crate) end: End,
    /// Whether a `tools/call` so answered was executed; `None`: yes unless the status is 4xx or 5xx.
    pub(crate) executed: Option<bool>,
}

impl Reply {
    fn new(status: u16, framing: Framing) -> Self {
        Reply {
            status,
            headers: Vec::new(),
            framing,
            before: Duration::ZERO,
            steps: Vec::new(),
            cut: None,
            end: End::Keep,
            executed: None,
        }
    }

    /// A status without a body.
    pub fn status(status: u16) -> Self {
        Reply::new(status, Framing::Length)
    }

    /// 202 without a body.
    pub fn accepted() -> Self {
        Reply::status(202)
    }

    /// A status with a body of any type.
    pub fn text(status: u16, content_type: &str, body: &str) -> Self {
        Reply::status(status).header("content-type", content_type).body(body)
    }

    /// 200 with one JSON value.
    pub fn json(value: &Value) -> Self {
        Reply::text(200, "application/json", &value.to_string())
    }

    /// 200 with several JSON values, one a line, under `application/json`.
    pub fn json_lines(values: &[Value]) -> Self {
        let lines: String = values.iter().map(|value| format!("{value}\n")).collect();
        Reply::text(200, "application/json", &lines)
    }

    /// The result of this request as JSON.
    pub fn result(seen: &Seen, result: Value) -> Self {
        Reply::json(&json!({"jsonrpc": "2.0", "id": seen.id(), "result": result}))
    }

    /// An error for this request as JSON on HTTP 200.
    pub fn error(seen: &Seen, code: i64, message: &str) -> Self {
        let error = json!({"code": code, "message": message});
        Reply::json(&json!({"jsonrpc": "2.0", "id": seen.id(), "error": error}))
    }

    /// A tool result with one text.
    pub fn tool_text(seen: &Seen, text: &str) -> Self {
        Reply::result(seen, json!({"content": [{"type": "text", "text": text}]}))
    }

    /// A tool result that says that the tool failed.
    pub fn tool_error(seen: &Seen, text: &str) -> Self {
        Reply::result(seen, json!({"content": [{"type": "text", "text": text}], "isError": true}))
    }

    /// A login page where a result should be.
    pub fn login_page() -> Self {
        Reply::text(200, "text/html", "<html><body>Please log in</body></html>")
    }

    /// A redirect.
    pub fn redirect(status: u16, location: &str) -> Self {
        Reply::status(status).header("location", location)
    }

    /// Modern `input_required` (M-MRTR).
    pub fn input_required(seen: &Seen, requests: Value, state: &str) -> Self {
        let result =
            json!({"resultType": "input_required", "inputRequests": requests, "requestState": state});
        Reply::result(seen, result)
    }

    /// 200 with an open event stream; add events.
    pub fn sse() -> Self {
        Reply::new(200, Framing::Chunked).header("content-type", "text/event-stream")
    }

    /// Bytes instead of an HTTP answer; the connection closes behind them.
    pub fn raw(bytes: impl Into<Bytes>) -> Self {
        let mut reply = Reply::new(0, Framing::Raw);
        reply.steps.push(Step::Body(bytes.into()));
        reply.close()
    }

    /// Reads the request and says nothing, for ever.
    pub fn hang() -> Self {
        let mut reply = Reply::new(0, Framing::Raw);
        reply.steps.push(Step::Forever);
        reply
    }

    /// RST after reading the request.
    pub fn reset() -> Self {
        Reply { end: End::Reset, ..Reply::new(0, Framing::Raw) }
    }

    /// FIN after reading the request, without an answer.
    pub fn hang_up() -> Self {
        Reply { end: End::Close, ..Reply::new(0, Framing::Raw) }
    }

    /// One header more.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Body bytes more.
    pub fn body(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.steps.push(Step::Body(Bytes::copy_from_slice(bytes.as_ref())));
        self
    }

    /// One event without an id.
    pub fn event(self, message: &Value) -> Self {
        self.body(format!("event: message\ndata: {message}\n\n"))
    }

    /// One event with an id.
    pub fn event_id(self, id: &str, message: &Value) -> Self {
        self.body(format!("id: {id}\nevent: message\ndata: {message}\n\n"))
    }

    /// An event id and nothing else, as L-TR recommends before the first message.
    pub fn priming(self, id: &str) -> Self {
        self.body(format!("id: {id}\ndata: \n\n"))
    }

    /// A notification in one event of at least so many bytes.
    pub fn huge_event(self, bytes: usize) -> Self {
        let params = json!({"level": "info", "data": "x".repeat(bytes)});
        self.event(&json!({"jsonrpc": "2.0", "method": "notifications/message", "params": params}))
    }

    /// A comment.
    pub fn comment(self, text: &str) -> Self {
        self.body(format!(": {text}\n\n"))
    }

    /// The response with a result as an event.
    pub fn event_result(self, seen: &Seen, result: Value) -> Self {
        self.event(&json!({"jsonrpc": "2.0", "id": seen.id(), "result": result}))
    }

    /// Our request to the client as an event; waits for its POSTed answer, then sends `then(answer)` as an event.
    pub fn ask(
        self,
        id: &Value,
        method: &str,
        params: Value,
        then: impl FnOnce(&Value) -> Value + Send + 'static,
    ) -> Self {
        let mut reply = self.event(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}));
        reply.steps.push(Step::Answered(id.clone(), Box::new(then)));
        reply
    }

    /// A pause in the body.
    pub fn wait(mut self, pause: Duration) -> Self {
        self.steps.push(Step::Wait(pause));
        self
    }

    /// A pause before the head.
    pub fn after(mut self, pause: Duration) -> Self {
        self.before = pause;
        self
    }

    /// Comments without end, as fast as they are taken.
    pub fn endless_comments(mut self) -> Self {
        self.steps.push(Step::EndlessComments);
        self
    }

    /// Sends what `Stub::say` says, until `Stub::end_live`.
    pub fn live(mut self) -> Self {
        self.steps.push(Step::Live);
        self
    }

    /// Stays open without a word.
    pub fn hold(mut self) -> Self {
        self.steps.push(Step::Forever);
        self
    }

    /// FIN when all is said; a chunked body is left without its end.
    pub fn close(mut self) -> Self {
        self.end = End::Close;
        self
    }

    /// FIN after so many bytes of the body.
    pub fn cut_after(mut self, bytes: usize) -> Self {
        self.cut = Some((bytes, End::Close));
        self
    }

    /// RST after so many bytes of the body.
    pub fn reset_after(mut self, bytes: usize) -> Self {
        self.cut = Some((bytes, End::Reset));
        self
    }

    /// Says that a `tools/call` so answered was not executed, whatever it looks like.
    pub fn not_executed(mut self) -> Self {
        self.executed = Some(false);
        self
    }

    pub(crate) fn counts_as_executed(&self) -> bool {
        self.executed.unwrap_or(self.status < 300)
    }

    /// Status line and headers.
    pub(crate) fn head(&self) -> String {
        use std::fmt::Write;
        let mut head = format!("HTTP/1.1 {} Stub\r\n", self.status);
        for (name, value) in &self.headers {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        let bodiless = matches!(self.status, 204 | 304);
        if self.framing == Framing::Chunked {
            head.push_str("transfer-encoding: chunked\r\n");
        } else if !bodiless && !self.headers.iter().any(|(name, _)| name == "content-length") {
            let length: usize = self.steps.iter().map(Step::length).sum();
            let _ = write!(head, "content-length: {length}\r\n");
        }
        if self.end == End::Close {
            head.push_str("connection: close\r\n");
        }
        head + "\r\n"
    }
}

impl Step {
    fn length(&self) -> usize {
        match self {
            Step::Body(bytes) => bytes.len(),
            Step::Wait(_) | Step::EndlessComments | Step::Live | Step::Answered(..) | Step::Forever => 0,
        }
    }
}

impl std::fmt::Debug for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reply")
            .field("status", &self.status)
            .field("headers", &self.headers)
            .finish_non_exhaustive()
    }
}
