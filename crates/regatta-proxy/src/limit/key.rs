//! Whom a rule counts a call for: the parts of its `per`, made one key.
//!
//! Keys are digests wherever a client chooses the text, so that nobody can aim at another's counter. No key is ever
//! logged or shown.

use regatta_mcp::headers::MCP_SESSION_ID;
use regatta_policy::quota::rule::Part;
use regatta_seal::digest16;

use crate::handover::{Call, Claimed};

/// The key of `call` under a rule that counts by `per`.
pub(super) fn of(per: &[Part], call: &Call, tool: Option<&str>) -> [u8; 16] {
    match per {
        [] => [0; 16],
        // Digests, or not of the client's choosing: nothing to hide or to spread.
        [Part::Principal] => call.caller.account.0,
        [Part::Ip] => call.caller.network(),
        parts => {
            let network = call.caller.network();
            let mut said: Vec<&[u8]> = Vec::with_capacity(2 * parts.len());
            parts.iter().for_each(|part| add(part, call, &network, tool, &mut said));
            digest16(&said)
        }
    }
}

/// Adds what the call says of one part, and a mark, so that what is absent is not what is empty.
fn add<'a>(
    part: &Part,
    call: &'a Call,
    network: &'a [u8; 16],
    tool: Option<&'a str>,
    said: &mut Vec<&'a [u8]>,
) {
    let marked = |text: Option<&'a [u8]>| match text {
        Some(text) => [b"=".as_slice(), text],
        None => [b"-".as_slice(), b""],
    };
    match part {
        Part::Principal => said.extend(marked(Some(&call.caller.account.0))),
        Part::Ip => said.extend(marked(Some(network))),
        Part::Tool => said.extend(marked(tool.map(str::as_bytes))),
        Part::Claim(name) => match call.caller.claim(name) {
            Some(Claimed { issuer, value }) => {
                said.extend([b"claim".as_slice(), issuer.as_bytes(), value.as_bytes()]);
            }
            None => said.extend(marked(None)),
        },
        // A token that does not open counts under a key of its own and is refused in *bind*.
        Part::Session => match call.head.headers.get(MCP_SESSION_ID) {
            Some(token) => {
                said.extend(marked(Some(token.as_bytes())));
                // Who has somebody else's session id must not use up that session's quota (RELIABILITY T26).
                said.extend(
                    call.caller.principal.iter().flat_map(|principal| [b"of".as_slice(), &principal.digest]),
                );
            }
            None => said.extend([b"caller".as_slice(), &call.caller.account.0]),
        },
        // All of them: which one a server reads is not known here.
        Part::Header(name) => {
            let mut values = call.head.headers.get_all(name.as_str()).iter().peekable();
            if values.peek().is_none() {
                said.extend(marked(None));
            }
            values.for_each(|value| said.extend(marked(Some(value.as_bytes()))));
        }
    }
}
