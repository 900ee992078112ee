//! `tools/list` over replicas that differ: the union, composed by the gateway, in one page.
//!
//! No replica is asked: what each has is in the snapshot. Where a definition is missing, because its server shows it to
//! nobody without credentials, the servers speak for themselves.

use bytes::Bytes;
use http::{HeaderValue, Response, header};
use regatta_mcp::era::Era;
use regatta_mcp::{Method, write};
use regatta_policy::catalogue::Coverage;

use crate::fault::{Asker, Fault, Refusal};
use crate::handover::Call;
use crate::reply::ReplyBody;
use crate::route::tools::mixed;
use crate::slots::Permit;

/// The response to `call`, if it asks for a list of tools and replicas differ.
pub(crate) fn composed(call: &Call, asker: &Asker) -> Option<Result<Bytes, Refusal>> {
    let message = call.one()?;
    if message.method?.method != Method::ToolsList {
        return None;
    }
    let catalogue = mixed(&call.server)?;
    let (list, more) = match call.era {
        Era::Legacy => (&catalogue.legacy, ""),
        // Nobody may keep it: it can change with any replica, and whoever wants to know is told (2026-07-28
        // server/utilities/caching).
        Era::Modern => (&catalogue.modern, r#","resultType":"complete","ttlMs":0,"cacheScope":"private""#),
    };
    if list.coverage == Coverage::Partial {
        return None;
    }
    let id = asker.id.as_ref()?;
    // The list has one page, so no cursor was ever given out for it.
    if message.params.cursor.is_some() {
        return Some(Err(Fault::BadHandle.told(asker)));
    }
    Some(Ok(write::result(id, &format!(r#"{{"tools":{}{more}}}"#, list.text))))
}

/// Answers with it.
pub(crate) fn answer(text: Bytes, permit: Permit) -> Response<ReplyBody> {
    let mut response = Response::new(ReplyBody::held(text, permit));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
