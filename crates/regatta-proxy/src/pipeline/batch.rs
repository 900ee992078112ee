//! A session's batch, which only 2025-03-26 has (its basic/transports; removed by 2025-06-18, changelog).

use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use regatta_policy::token::LegacyVersion;

use super::legacy::{request, taken_back, tell_cancelled};
use super::notes;
use crate::fault::{Asker, Fault, Refusal};
use crate::gateway::Gateway;
use crate::handover::{Call, Subject};
use crate::reply::ReplyBody;
use crate::session::Bound;

/// Batches exist in 2025-03-26 only (its basic/transports; removed by 2025-06-18, changelog).
pub(super) fn check(call: &Call, bound: Option<&Bound>) -> Result<(), Fault> {
    match (&call.message, bound) {
        (Subject::One(_), _) => Ok(()),
        (Subject::Batch(_), Some(bound)) if bound.session.content.version <= LegacyVersion::V2025_03_26 => {
            Ok(())
        }
        (Subject::Batch(_), Some(_) | None) => Err(Fault::BatchRefused),
    }
}

/// A batch goes to its server whole; what it asks for is written down, and what it takes back is told to all gateways.
pub(super) async fn pass(
    gateway: &Arc<Gateway>,
    call: Box<Call>,
    asker: Asker,
    bound: Bound,
) -> Result<Response<ReplyBody>, Refusal> {
    let Subject::Batch(messages) = &call.message else {
        return Err(Fault::BatchRefused.told(&asker));
    };
    let noted = notes::of_batch(gateway, bound, messages, &call.text).await;
    let bound = noted.map_err(|fault| fault.told(&asker))?;
    let taken_back: Vec<Bytes> =
        messages.iter().filter_map(|message| taken_back(message, &call.text)).collect();
    let session = bound.session.uuid;
    let answer = request(gateway, call, asker, Some(bound), None).await?;
    taken_back.into_iter().for_each(|id| tell_cancelled(gateway, session, id));
    Ok(answer)
}
