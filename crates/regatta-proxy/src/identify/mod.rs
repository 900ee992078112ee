//! The second stage: who calls?
//!
//! Nobody checks tokens yet: the authorization context is a digest of the header (SESSIONS 9), never the bytes
//! themselves. Quotas go by that context, or by the peer's address where there is none (IPv6 by /64).

use std::net::IpAddr;

use http::header::AUTHORIZATION;

use crate::handover::{Accepted, Account, Caller, Identified};

/// Names the caller of an accepted request.
pub(crate) fn identify(accepted: Accepted) -> Identified {
    let ip = accepted.peer.address.ip();
    let context = accepted.head.headers.get(AUTHORIZATION);
    let context =
        context.map_or([0; 16], |value| regatta_seal::digest16(&[b"authorization", value.as_bytes()]));
    let account = if context == [0; 16] { Account(address_key(ip)) } else { Account(context) };
    Identified { accepted, caller: Caller { context, account, ip } }
}

/// One key per IPv4 address, one per IPv6 /64: a whole /64 belongs to one subscriber.
fn address_key(ip: IpAddr) -> [u8; 16] {
    match ip.to_canonical() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => {
            let mut octets = v6.octets();
            octets[8..].fill(0);
            octets
        }
    }
}
