//! The second stage: who calls?
//!
//! Nobody checks tokens yet: the authorization context is a digest of the header (SESSIONS 9), never the bytes
//! themselves. Quotas go by that context, or by the peer's address where there is none (IPv6 by /64).

use http::header::AUTHORIZATION;

use crate::handover::{Accepted, Account, Caller, Identified, network};

/// Names the caller of an accepted request.
pub(crate) fn identify(accepted: Accepted) -> Identified {
    let ip = accepted.arrival.peer.address.ip();
    let context = accepted.arrival.head.headers.get(AUTHORIZATION);
    let context =
        context.map_or([0; 16], |value| regatta_seal::digest16(&[b"authorization", value.as_bytes()]));
    let account = if context == [0; 16] { Account(network(ip)) } else { Account(context) };
    Identified { accepted, caller: Caller { context, account, ip } }
}
