//! A client's body becomes a [`Message`]: one strict pass that notes what the gateway needs.
//!
//! First question: is it JSON that every parser reads alike (−32700 if not)? Only then its shape is judged
//! (`judge`). Keys are matched exactly, after their escapes are undone: `Method` and `paramſ` are unknown
//! members. Nothing is allocated for a single message of ordinary size.

use crate::json::{Flaw, Scan, Value, Walk};
use crate::judge::{self, Members};
use crate::member::{MetaKey, ParamKey, TopKey};
use crate::message::{Decoded, Malformed, Message, Meta, Params, Shape};
use crate::span::Span;

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
        let key = TopKey::of(scan.key());
        if key == TopKey::Params && scan.peek() == b'{' {
            params(scan, depth + 1, &mut message.params)?;
            continue;
        }
        let value = scan.value(depth + 1)?;
        match key {
            TopKey::Jsonrpc => members.jsonrpc = Some(value),
            TopKey::Id => members.id = Some(value),
            TopKey::Method => members.method = Some(value),
            TopKey::Result => members.result = Some(value),
            TopKey::Error => members.error = Some(value),
            TopKey::Params => members.has_bad_params = true,
            TopKey::Unknown => {}
        }
    }
    message.whole = Span::new(start, scan.position());
    Ok(members)
}

fn params(scan: &mut Scan<'_>, depth: u32, params: &mut Params) -> Walk<()> {
    let start = scan.position();
    let mut object = scan.open(depth)?;
    while scan.member(&mut object)? {
        let key = ParamKey::of(scan.key());
        if key == ParamKey::Meta {
            meta(scan, depth + 1, &mut params.meta)?;
            continue;
        }
        let value = scan.value(depth + 1)?;
        match key {
            ParamKey::Name => params.name = value.string(),
            ParamKey::Uri => params.uri = value.string(),
            ParamKey::TaskId => params.task_id = value.string(),
            ParamKey::Cursor => params.cursor = value.string(),
            ParamKey::Level => params.level = value.string(),
            ParamKey::Arguments => params.arguments = Some(value.span),
            ParamKey::RequestState => params.request_state = value.string(),
            ParamKey::InputResponses => params.has_input_responses = true,
            ParamKey::RequestId => params.request_id = value.scalar_id(),
            ParamKey::ProtocolVersion => params.protocol_version = value.string(),
            ParamKey::Capabilities => params.capabilities = value.object(),
            ParamKey::Notifications => params.notifications = value.object(),
            ParamKey::Meta | ParamKey::Unknown => {}
        }
    }
    params.span = Some(Span::new(start, scan.position()));
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
            meta.client_capabilities = Some(Span::new(from, scan.position()));
            continue;
        }
        note(meta, key, scan.value(depth + 1)?);
    }
    meta.is_object = true;
    meta.span = Some(Span::new(start, scan.position()));
    Ok(())
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
