//! A request in a legacy session (2025-03-26 to 2025-11-25), as a service of one request: the peer is restored from the
//! session's data, the handler runs, and nothing stays behind.
//!
//! The handshake and the modern era go through `rmcp`'s own transport (`serve.rs`); this is what it has no seam for.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::request::Parts;
use http::{HeaderValue, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use regatta_mcp::codes;
use rmcp::model::{
    ClientJsonRpcMessage, ClientRequest, GetExtensions as _, JsonRpcRequest, ServerJsonRpcMessage,
};
use rmcp::service::serve_directly;
use rmcp::transport::OneshotTransport;
use rmcp::{RoleServer, ServerHandler};
use serde_json::Value;
use tokio::sync::mpsc::Receiver;

use crate::answers::{Answer, event, fault, json, plain};
use crate::session::{Refused, Session, Sessions};

/// What a request changes in its session once the handler has said yes.
enum Change {
    None,
    Level(String),
    Subscribe(String),
    Unsubscribe(String),
}

/// Answers one message of a session.
pub(crate) async fn answer<H: ServerHandler>(
    handler: H,
    sessions: &Arc<Sessions>,
    session: Session,
    parts: Parts,
    body: Bytes,
) -> Answer {
    let message: ClientJsonRpcMessage = match serde_json::from_slice(&body) {
        Ok(message) => message,
        Err(why) => {
            return fault(StatusCode::BAD_REQUEST, &Value::Null, codes::PARSE_ERROR, &why.to_string());
        }
    };
    match message {
        ClientJsonRpcMessage::Request(request) => run(handler, sessions, session, parts, request).await,
        // A notification has no answer, and what it could stop runs on another connection, maybe at another node.
        ClientJsonRpcMessage::Notification(_) => plain(StatusCode::ACCEPTED, ""),
        ClientJsonRpcMessage::Response(_) | ClientJsonRpcMessage::Error(_) => fault(
            StatusCode::BAD_REQUEST,
            &Value::Null,
            codes::INVALID_REQUEST,
            "no request of this server waits for an answer",
        ),
    }
}

async fn run<H: ServerHandler>(
    handler: H,
    sessions: &Arc<Sessions>,
    session: Session,
    parts: Parts,
    mut request: JsonRpcRequest<ClientRequest>,
) -> Answer {
    let id = serde_json::to_value(&request.id).unwrap_or_default();
    let change = change_of(&request.request);
    let client = session.client.clone();
    request.request.extensions_mut().insert(parts);
    request.request.extensions_mut().insert(session.clone());
    let (transport, mut messages) =
        OneshotTransport::<RoleServer>::new(ClientJsonRpcMessage::Request(request));
    // Dropped with the answer, which cancels a handler that still runs.
    let service = serve_directly(handler, transport, Some(client));
    let Some(first) = messages.recv().await else {
        return fault(StatusCode::OK, &id, codes::INTERNAL_ERROR, "the handler ended without an answer");
    };
    if !is_last(&first) {
        return stream(first, messages, service);
    }
    if let (ServerJsonRpcMessage::Response(_), Err(refused)) =
        (&first, keep(sessions, &session, change).await)
    {
        return refusal(&refused, &id);
    }
    one(&first)
}

#[expect(deprecated, reason = "legacy clients set a log level still")]
fn change_of(request: &ClientRequest) -> Change {
    match request {
        ClientRequest::SetLevelRequest(request) => {
            let level = serde_json::to_value(request.params.level).unwrap_or_default();
            Change::Level(level.as_str().unwrap_or_default().to_owned())
        }
        ClientRequest::SubscribeRequest(request) => Change::Subscribe(request.params.uri.clone()),
        ClientRequest::UnsubscribeRequest(request) => Change::Unsubscribe(request.params.uri.clone()),
        _ => Change::None,
    }
}

async fn keep(sessions: &Sessions, session: &Session, change: Change) -> Result<(), Refused> {
    match change {
        Change::None => Ok(()),
        Change::Level(level) => sessions.change(session, |record| record.level = Some(level.clone())).await,
        Change::Subscribe(uri) => {
            sessions.change(session, |record| _ = record.subscriptions.insert(uri.clone())).await
        }
        Change::Unsubscribe(uri) => {
            sessions.change(session, |record| _ = record.subscriptions.remove(&uri)).await
        }
    }
}

/// Why a session is not served, as an answer.
pub(crate) fn refusal(refused: &Refused, id: &Value) -> Answer {
    match refused {
        Refused::Gone => {
            fault(StatusCode::NOT_FOUND, id, codes::INVALID_REQUEST, "no such session: initialize again")
        }
        Refused::StoreAway => fault(
            StatusCode::SERVICE_UNAVAILABLE,
            id,
            codes::STORE_UNAVAILABLE,
            "the session cannot be looked up or changed now",
        ),
        Refused::Bound(why) => fault(StatusCode::OK, id, codes::RATE_LIMITED, why),
    }
}

fn is_last(message: &ServerJsonRpcMessage) -> bool {
    matches!(message, ServerJsonRpcMessage::Response(_) | ServerJsonRpcMessage::Error(_))
}

fn one(message: &ServerJsonRpcMessage) -> Answer {
    json(StatusCode::OK, serde_json::to_vec(message).unwrap_or_default())
}

/// Progress and the like come first: everything as events, to the response. `service` lives as long as the stream.
fn stream<T: Send + Sync + 'static>(
    first: ServerJsonRpcMessage,
    messages: Receiver<ServerJsonRpcMessage>,
    service: T,
) -> Answer {
    let rest = futures_util::stream::unfold((messages, service), |(mut messages, service)| async {
        let message = messages.recv().await?;
        Some((message, (messages, service)))
    });
    let frames = futures_util::stream::iter([first]).chain(rest).map(|message| {
        let text = serde_json::to_string(&message).unwrap_or_default();
        Ok::<_, std::convert::Infallible>(Frame::data(event(&text)))
    });
    let mut answer = Response::new(BodyExt::boxed(StreamBody::new(Box::pin(frames))));
    let events = HeaderValue::from_static("text/event-stream");
    answer.headers_mut().insert(header::CONTENT_TYPE, events);
    answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    answer
}
