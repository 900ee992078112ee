//! What came back: the head, then the body as JSON or as events.

use super::{Idle, PATIENCE};
use crate::sse::{Event, Parser};
use crate::{Failure, Result, because};
use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use serde_json::Value;
use std::collections::VecDeque;
use std::sync::PoisonError;
use std::time::Duration;

/// The head of an answer; the body is still to come. Dropping it closes the connection.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: StatusCode,
    /// The headers as they came.
    pub headers: HeaderMap,
    body: Incoming,
    sender: SendRequest<Full<Bytes>>,
    idle: Idle,
}

/// An answer read to its JSON-RPC response.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The HTTP status.
    pub status: StatusCode,
    /// The headers as they came.
    pub headers: HeaderMap,
    /// The JSON body, or the last event's data.
    pub message: Value,
    /// All events of an SSE answer, the last included.
    pub events: Vec<Event>,
}

impl Answer {
    pub(super) fn new(response: Response<Incoming>, sender: SendRequest<Full<Bytes>>, idle: Idle) -> Self {
        let (head, body) = response.into_parts();
        Answer { status: head.status, headers: head.headers, body, sender, idle }
    }

    /// The header as text, or "".
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// Whether the body is an event stream.
    pub fn is_sse(&self) -> bool {
        self.header("content-type").starts_with("text/event-stream")
    }

    /// The whole body; the connection is kept.
    pub async fn bytes(self) -> Result<Bytes> {
        let body = tokio::time::timeout(PATIENCE, self.body.collect()).await;
        let body =
            body.map_err(because("no end of the body"))?.map_err(because("reading the body"))?.to_bytes();
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(self.sender);
        Ok(body)
    }

    /// The whole body as JSON.
    pub async fn json(self) -> Result<Value> {
        let body = self.bytes().await?;
        serde_json::from_slice(&body)
            .map_err(|error| Failure(format!("{error} in {:?}", String::from_utf8_lossy(&body))))
    }

    /// The body as events.
    pub fn events(self) -> Events {
        Events {
            status: self.status,
            headers: self.headers.clone(),
            parser: Parser::default(),
            ready: VecDeque::new(),
            answer: Some(self),
        }
    }

    /// Reads up to the JSON-RPC response, be the body JSON or SSE. Other events are kept in `events`.
    pub async fn outcome(self) -> Result<Outcome> {
        let (status, headers) = (self.status, self.headers.clone());
        if !self.is_sse() {
            let message = self.json().await?;
            return Ok(Outcome { status, headers, message, events: Vec::new() });
        }
        let (mut stream, mut events) = (self.events(), Vec::new());
        while let Some(event) = stream.next().await? {
            let message = event.json();
            events.push(event);
            if message.get("result").is_some() || message.get("error").is_some() {
                return Ok(Outcome { status, headers, message, events });
            }
        }
        Err(Failure(format!("the stream ended without a response after {events:?}")))
    }
}

impl Outcome {
    /// `Err` for an error response, else the result.
    pub fn result(&self) -> Result<Value> {
        super::result_of(&self.message)
    }

    /// The error's code, or 0.
    pub fn code(&self) -> i64 {
        self.message["error"]["code"].as_i64().unwrap_or_default()
    }

    /// The text of the result's first content block, or "".
    pub fn text(&self) -> &str {
        self.message["result"]["content"][0]["text"].as_str().unwrap_or_default()
    }
}

/// An event stream being read. Dropping it closes the connection.
#[derive(Debug)]
pub struct Events {
    /// The HTTP status.
    pub status: StatusCode,
    /// The headers as they came.
    pub headers: HeaderMap,
    answer: Option<Answer>,
    parser: Parser,
    ready: VecDeque<Event>,
}

impl Events {
    /// The next event with any content, comments alone left out. `None`: the stream ended in order.
    pub async fn next(&mut self) -> Result<Option<Event>> {
        self.next_within(PATIENCE).await
    }

    /// The same with a limit of its own.
    pub async fn next_within(&mut self, within: Duration) -> Result<Option<Event>> {
        let next = async {
            loop {
                match self.next_raw().await? {
                    Some(event) if event.data.is_none() && event.id.is_none() && event.retry_ms.is_none() => {
                    }
                    other => return Ok(other),
                }
            }
        };
        tokio::time::timeout(within, next).await.map_err(because("no event"))?
    }

    /// The next event or block of comments, however long it takes.
    pub async fn next_raw(&mut self) -> Result<Option<Event>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(Some(event));
            }
            let Some(answer) = &mut self.answer else { return Ok(None) };
            match answer.body.frame().await {
                Some(Ok(frame)) => {
                    let data = frame.into_data().unwrap_or_default();
                    self.ready.extend(self.parser.push(&data));
                }
                Some(Err(error)) => return Err(Failure(format!("the stream broke: {error}"))),
                None => {
                    if let Some(Answer { sender, idle, .. }) = self.answer.take() {
                        idle.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
                    }
                }
            }
        }
    }

    /// The next event that is a message with this method. Others are passed over.
    pub async fn until(&mut self, method: &str) -> Result<Event> {
        while let Some(event) = self.next().await? {
            if event.method() == method {
                return Ok(event);
            }
        }
        Err(Failure(format!("the stream ended without {method}")))
    }

    /// All events to the end of the stream.
    pub async fn rest(mut self) -> Result<Vec<Event>> {
        let mut events = Vec::new();
        while let Some(event) = self.next().await? {
            events.push(event);
        }
        Ok(events)
    }
}
