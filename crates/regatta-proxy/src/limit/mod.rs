//! The fifth stage: quotas by method and caller, now that both are proven.
//!
//! Only `initialize` has one yet. It decides and counts; it never answers.

use std::sync::Arc;

use regatta_mcp::Method;

use crate::fault::Fault;
use crate::gateway::Gateway;
use crate::handover::Call;

/// Charges the call to its caller.
pub(crate) fn limit(gateway: &Arc<Gateway>, call: &Call) -> Result<(), Fault> {
    let method = call.one().and_then(|message| message.method).map(|name| name.method);
    if method != Some(Method::Initialize) {
        return Ok(());
    }
    let now = gateway.clock.now();
    gateway.callers.session(call.caller.account, &call.server.limits, now).map_err(|retry_after| {
        gateway.metrics.limited.inc();
        Fault::TooManySessions { retry_after }
    })
}
