//! Which headers travel, up and down.
//!
//! Everything travels but what belongs to one hop (RFC 9110 7.6.1), to us, or to the browser's side of the
//! door; so unknown `Mcp-Param-*` headers pass, as intermediaries must let them (2026-07-28
//! basic/transports/streamable-http, *Server Behavior for Custom Headers*).

use http::{HeaderMap, HeaderName, header};

/// Copies what a client's request may carry to a replica.
pub(crate) fn copy_up(from: &HeaderMap, to: &mut HeaderMap) {
    let connection = from.get(header::CONNECTION).and_then(|value| value.to_str().ok());
    for (name, value) in from {
        if travels_up(name) && !named_by(connection, name) {
            to.append(name.clone(), value.clone());
        }
    }
}

/// Copies what a replica's answer may carry to a client.
pub(crate) fn copy_down(from: &HeaderMap, to: &mut HeaderMap) {
    let connection = from.get(header::CONNECTION).and_then(|value| value.to_str().ok());
    for (name, value) in from {
        if travels_down(name) && !named_by(connection, name) {
            to.append(name.clone(), value.clone());
        }
    }
}

/// Belongs to one hop.
fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
            | "http2-settings"
    )
}

fn travels_up(name: &HeaderName) -> bool {
    let name = name.as_str();
    // Underscores: some servers take `_` and `-` for the same, so `Mcp_Name` could pass for `Mcp-Name`.
    !(is_hop_by_hop(name)
        || matches!(
            name,
            "host"
                | "content-length"
                | "expect"
                | "origin"
                | "accept-encoding"
                | "mcp-session-id"
                | "last-event-id"
        )
        || matches!(name, "forwarded" | "x-real-ip")
        || name.starts_with("x-forwarded-")
        || name.starts_with("x-regatta-")
        || name.contains('_'))
}

fn travels_down(name: &HeaderName) -> bool {
    let name = name.as_str();
    !(is_hop_by_hop(name)
        || matches!(
            name,
            "content-length" | "content-encoding" | "date" | "mcp-session-id" | "set-cookie" | "server"
        )
        || matches!(
            name,
            "x-powered-by" | "x-accel-buffering" | "alt-svc" | "strict-transport-security" | "cache-control"
        )
        || name.starts_with("access-control-")
        || name.starts_with("x-regatta-"))
}

/// Whether `Connection` names this header as one for a single hop. Those that carry identity or routing are
/// never dropped on a client's word (RELIABILITY I26).
fn named_by(connection: Option<&str>, name: &HeaderName) -> bool {
    let Some(list) = connection else { return false };
    let name = name.as_str();
    let is_protected =
        name == "authorization" || name.starts_with("mcp-") || name == "content-type" || name == "accept";
    !is_protected && list.split(',').any(|listed| listed.trim().eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn hop_by_hop_and_internal_headers_stay_behind() {
        let from = map(&[
            ("host", "gateway"),
            ("connection", "keep-alive, x-secret, authorization"),
            ("x-secret", "1"),
            ("authorization", "Bearer a"),
            ("mcp-param-region", "eu"),
            ("mcp_name", "evil"),
            ("origin", "http://localhost"),
            ("transfer-encoding", "chunked"),
            ("x-regatta-principal", "root"),
            ("x-forwarded-for", "1.2.3.4"),
        ]);
        let mut to = HeaderMap::new();
        copy_up(&from, &mut to);
        assert_eq!(to, map(&[("authorization", "Bearer a"), ("mcp-param-region", "eu")]));
    }

    #[test]
    fn a_servers_private_headers_do_not_leak() {
        let from = map(&[
            ("content-type", "application/json"),
            ("mcp-session-id", "upstream"),
            ("set-cookie", "a=b"),
            ("server", "uvicorn"),
            ("www-authenticate", "Bearer"),
        ]);
        let mut to = HeaderMap::new();
        copy_down(&from, &mut to);
        assert_eq!(to, map(&[("content-type", "application/json"), ("www-authenticate", "Bearer")]));
    }
}
