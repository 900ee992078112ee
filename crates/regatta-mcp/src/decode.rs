//! A client's body becomes a [`Message`]: one strict pass that notes what the gateway needs.
//!
//! First question: is it JSON that every parser reads alike (−32700 if not)? Only then its shape is judged
//! (`judge`). Keys are matched exactly, after their escapes are undone: `Method` and `paramſ` are unknown
//! members. Nothing is allocated for a single message of ordinary size.

use crate::json::{Flaw, Scan, Value, Walk};
use crate::judge::{self, Members};
use crate::message::{Decoded, Malformed, Message, Meta, Params, Shape};
use crate::meta;

/// The most messages in one batch.
pub const BATCH_MAX: usize = 256;

/// Reads a whole request body (at most 2 GiB; the caller's `body_max` is far below).
///
/// # Errors
/// −32700 for what is not JSON, repeats a key, nests deeper than [`crate::DEPTH_MAX`] or holds a number that is too long
/// or not finite; −32600 for what is no JSON-RPC 2.0 message; −32602 for `params` that are not an object.
pub fn decode(body: &[u8]) -> Result<Decoded, Malformed> {
    let mut scan = Scan::new(body).map_err(not_json)?;
    scan.blank();
    if scan.peek() != b'{' {
        return decode_other(&mut scan, body);
    }
    let mut message = Message::blank();
    let members = message_members(&mut scan, 0, &mut message).map_err(not_json)?;
    // What is no JSON at all is told so, even if its beginning also has a bad shape.
    scan.end().map_err(not_json)?;
    judge::message(body, &members, &mut message)?;
    Ok(Decoded::One(message))
}

/// A batch, or a value that is no message.
fn decode_other(scan: &mut Scan<'_>, body: &[u8]) -> Result<Decoded, Malformed> {
    if scan.peek() == b'[' {
        let batch = batch(scan, body).map_err(not_json)?;
        scan.end().map_err(not_json)?;
        return batch;
    }
    scan.skip(0).map_err(not_json)?;
    scan.end().map_err(not_json)?;
    Err(not_request("the body is not an object"))
}

fn batch(scan: &mut Scan<'_>, body: &[u8]) -> Walk<Result<Decoded, Malformed>> {
    scan.open_array(0)?;
    let mut messages: Vec<Message> = Vec::new();
    let mut flaw = None;
    let mut begun = false;
    while scan.element(begun)? {
        begun = true;
        if flaw.is_some() || scan.peek() != b'{' {
            scan.skip(1)?;
            flaw.get_or_insert(not_request("an element of the batch is not an object"));
            continue;
        }
        let mut message = Message::blank();
        let members = message_members(scan, 1, &mut message)?;
        match judge::message(body, &members, &mut message) {
            Ok(()) if messages.len() == BATCH_MAX => {
                flaw = Some(not_request("a batch of more than 256 messages"))
            }
            Ok(()) => messages.push(message),
            Err(malformed) => flaw = Some(malformed),
        }
    }
    Ok(match flaw {
        Some(malformed) => Err(malformed),
        None if messages.is_empty() => Err(not_request("an empty batch")),
        None => Ok(Decoded::Batch(messages)),
    })
}

/// The object at the brace here: notes where it stands and its `params`, and hands the members of JSON-RPC on to be
/// judged.
fn message_members(scan: &mut Scan<'_>, depth: u32, message: &mut Message) -> Walk<Members> {
    let start = scan.position();
    let mut members = Members::default();
    let mut object = scan.open(depth)?;
    while scan.member(&mut object)? {
        match scan.key() {
            b"jsonrpc" => members.jsonrpc = Some(scan.value(depth + 1)?),
            b"id" => members.id = Some(scan.value(depth + 1)?),
            b"method" => members.method = Some(scan.value(depth + 1)?),
            b"result" => members.result = Some(scan.value(depth + 1)?),
            b"error" => members.error = Some(scan.value(depth + 1)?),
            b"params" if scan.peek() == b'{' => params(scan, depth + 1, &mut message.params)?,
            b"params" => {
                scan.skip(depth + 1)?;
                members.has_bad_params = true;
            }
            _ => scan.skip(depth + 1)?,
        }
    }
    message.whole = crate::Span::new(start, scan.position());
    Ok(members)
}

fn params(scan: &mut Scan<'_>, depth: u32, params: &mut Params) -> Walk<()> {
    let start = scan.position();
    let mut object = scan.open(depth)?;
    while scan.member(&mut object)? {
        match scan.key() {
            b"_meta" => self::meta(scan, depth + 1, &mut params.meta)?,
            b"name" => params.name = scan.value(depth + 1)?.string(),
            b"uri" => params.uri = scan.value(depth + 1)?.string(),
            b"taskId" => params.task_id = scan.value(depth + 1)?.string(),
            b"cursor" => params.cursor = scan.value(depth + 1)?.string(),
            b"level" => params.level = scan.value(depth + 1)?.string(),
            b"arguments" => params.arguments = Some(scan.value(depth + 1)?.span),
            b"requestState" => params.request_state = scan.value(depth + 1)?.string(),
            b"inputResponses" => {
                scan.value(depth + 1)?;
                params.has_input_responses = true;
            }
            b"requestId" => params.request_id = scan.value(depth + 1)?.scalar_id(),
            b"protocolVersion" => params.protocol_version = scan.value(depth + 1)?.string(),
            b"capabilities" => params.capabilities = scan.value(depth + 1)?.object(),
            b"notifications" => params.notifications = scan.value(depth + 1)?.object(),
            _ => scan.skip(depth + 1)?,
        }
    }
    params.span = Some(crate::Span::new(start, scan.position()));
    Ok(())
}

fn meta(scan: &mut Scan<'_>, depth: u32, meta: &mut Meta) -> Walk<()> {
    let start = scan.position();
    if scan.peek() != b'{' {
        meta.span = Some(scan.value(depth)?.span);
        return Ok(());
    }
    let mut object = scan.open(depth)?;
    while scan.member(&mut object)? {
        let key = MetaKey::of(scan.key());
        if key == MetaKey::Capabilities && scan.peek() == b'{' {
            let from = scan.position();
            meta.capabilities_is_object = capabilities(scan, depth + 1)?;
            meta.client_capabilities = Some(crate::Span::new(from, scan.position()));
            continue;
        }
        note(meta, key, scan.value(depth + 1)?);
    }
    meta.is_object = true;
    meta.span = Some(crate::Span::new(start, scan.position()));
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum MetaKey {
    Version,
    Capabilities,
    ClientInfo,
    LogLevel,
    SubscriptionId,
    ProgressToken,
    Traceparent,
    Tracestate,
    IdempotencyKey,
    Unknown,
}

impl MetaKey {
    fn of(key: &[u8]) -> Self {
        if let Some(name) = key.strip_prefix(b"io.modelcontextprotocol/") {
            return match name {
                b"protocolVersion" => Self::Version,
                b"clientCapabilities" => Self::Capabilities,
                b"clientInfo" => Self::ClientInfo,
                b"logLevel" => Self::LogLevel,
                b"subscriptionId" => Self::SubscriptionId,
                _ => Self::Unknown,
            };
        }
        match key {
            b"progressToken" => Self::ProgressToken,
            b"traceparent" => Self::Traceparent,
            b"tracestate" => Self::Tracestate,
            _ if key == meta::IDEMPOTENCY_KEY.as_bytes() => Self::IdempotencyKey,
            _ => Self::Unknown,
        }
    }
}

fn note(meta: &mut Meta, key: MetaKey, value: Value) {
    match key {
        MetaKey::Version => meta.protocol_version = value.string(),
        MetaKey::Capabilities => meta.client_capabilities = Some(value.span),
        MetaKey::ClientInfo => meta.client_info = Some(value.span),
        MetaKey::LogLevel => meta.log_level = value.string(),
        MetaKey::SubscriptionId => meta.subscription_id = value.scalar_id(),
        MetaKey::ProgressToken => meta.progress_token = value.scalar_id(),
        MetaKey::Traceparent => meta.traceparent = value.string(),
        MetaKey::Tracestate => meta.tracestate = value.string(),
        MetaKey::IdempotencyKey => meta.idempotency_key = value.string(),
        MetaKey::Unknown => {}
    }
}

/// Whether each capability that the core protocol defines is an object, as its schema says
/// (2026-07-28, schema, ClientCapabilities).
fn capabilities(scan: &mut Scan<'_>, depth: u32) -> Walk<bool> {
    let mut sound = true;
    let mut object = scan.open(depth)?;
    while scan.member(&mut object)? {
        let core = matches!(
            scan.key(),
            b"experimental" | b"roots" | b"sampling" | b"elicitation" | b"extensions" | b"tasks"
        );
        let value = scan.value(depth + 1)?;
        sound &= !core || value.object().is_some();
    }
    Ok(sound)
}

fn not_json(flaw: Flaw) -> Malformed {
    Malformed { fault: Shape::NotJson, id: None, why: flaw.why() }
}

fn not_request(why: &'static str) -> Malformed {
    Malformed { fault: Shape::NotRequest, id: None, why }
}

#[cfg(test)]
mod tests;
