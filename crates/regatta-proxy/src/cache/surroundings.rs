//! What beside the body may change a server's answer: headers, and the caller's scopes.
//!
//! Servers read more than `Authorization`: an API key, a cookie, a tenant, a language. Whatever travels up and is not
//! known to change nothing belongs to the key, so that no result crosses over to somebody who sent something else.
//! What everybody may share depends on none of them, by the operator's word; but a header that repeats an argument must
//! not smuggle another one in (2026-07-28 basic/transports/streamable-http, *Custom Headers*).

use http::HeaderName;
use regatta_policy::cache::Scope;

use crate::handover::Call;
use crate::headers::travels_up;

/// Such headers, and the scopes of a caller that was checked: a server may answer by them, and what one set of them saw,
/// another must not be shown (RELIABILITY T22). Every part is preceded by its length. Nothing without any.
pub(crate) fn of(call: &Call, scope: &Scope) -> Vec<u8> {
    let counts = |name: &HeaderName| match scope {
        Scope::Public => repeats_an_argument(name),
        Scope::Principal | Scope::Session | Scope::Claim(_) => may_matter(name),
    };
    let mut found: Vec<(&str, &[u8])> = Vec::new();
    for (name, value) in &call.head.headers {
        if counts(name) {
            found.push((name.as_str(), value.as_bytes()));
        }
    }
    // Values of one name keep their order, which may mean something.
    found.sort_by_key(|(name, _)| *name);
    if let (Scope::Principal | Scope::Session | Scope::Claim(_), Some(principal)) =
        (scope, &call.caller.principal)
    {
        found.push(("", &principal.scopes_digest));
    }
    let mut all = Vec::new();
    for part in found.iter().flat_map(|(name, value)| [name.as_bytes(), *value]) {
        all.extend_from_slice(&(part.len() as u64).to_be_bytes());
        all.extend_from_slice(part);
    }
    all
}

fn repeats_an_argument(name: &HeaderName) -> bool {
    name.as_str().starts_with("mcp-param-")
}

/// Whether the header reaches the server, and may change what it answers. `Authorization` is the authorization context,
/// and the protocol's own headers repeat what the key holds already.
fn may_matter(name: &HeaderName) -> bool {
    let is_known = matches!(
        name.as_str(),
        "host"
            | "accept"
            | "authorization"
            | "content-type"
            | "content-length"
            | "user-agent"
            | "mcp-session-id"
            | "mcp-protocol-version"
            | "mcp-method"
            | "mcp-name"
            | "cache-control"
            | "pragma"
            | "priority"
            | "referer"
            | "dnt"
            | "via"
            | "traceparent"
            | "tracestate"
            | "baggage"
            | "b3"
            | "x-request-id"
            | "x-correlation-id"
            | "x-amzn-trace-id"
            | "x-cloud-trace-context"
            | "cf-ray"
    );
    let is_of_a_trace = name.as_str().starts_with("x-b3-");
    !is_known && !is_of_a_trace && !name.as_str().starts_with("sec-") && travels_up(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_name_a_caller_counts_and_what_names_a_request_does_not() {
        for (name, counts) in [
            ("cookie", true),
            ("x-api-key", true),
            ("x-tenant", true),
            ("accept-language", true),
            ("mcp-param-region", true),
            ("authorization", false),
            ("user-agent", false),
            ("traceparent", false),
            ("x-request-id", false),
            ("mcp-session-id", false),
            ("sec-fetch-mode", false),
            // It does not travel.
            ("x-forwarded-for", false),
            ("connection", false),
        ] {
            assert_eq!(may_matter(&HeaderName::from_static(name)), counts, "{name}");
        }
    }
}
