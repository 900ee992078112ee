//! Which headers travel, up and down.
//!
//! Everything travels but what belongs to one hop (RFC 9110 7.6.1), to us, or to the browser's side of the
//! door; so unknown `Mcp-Param-*` headers pass, as intermediaries must let them (2026-07-28
//! basic/transports/streamable-http, *Server Behavior for Custom Headers*).

use http::{HeaderMap, HeaderName, HeaderValue, header};
use regatta_mcp::headers::MCP_SESSION_ID;

/// What a client's request may carry to a replica, sorted out once and copied for each attempt.
///
/// `Host` and `Mcp-Session-Id` keep their places in the map, with values that each attempt replaces.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outbound(HeaderMap);

impl Outbound {
    /// Sorts out a client's headers.
    pub fn of(mut headers: HeaderMap) -> Outbound {
        retain(&mut headers, travels_up);
        Outbound(headers)
    }

    /// The same, for something that stays long: values that share no memory with the buffers they were read into.
    pub fn compact(&self) -> Outbound {
        let copied = self.0.iter().filter_map(|(name, value)| {
            let mut copy = HeaderValue::from_bytes(value.as_bytes()).ok()?;
            copy.set_sensitive(value.is_sensitive());
            Some((name.clone(), copy))
        });
        Outbound(copied.collect())
    }

    /// The headers of one attempt: to `host`, in the replica's `session` if there is one.
    pub fn to(&self, host: HeaderValue, session: Option<&HeaderValue>) -> HeaderMap {
        let mut map = self.0.clone();
        map.insert(header::HOST, host);
        match session {
            Some(session) => _ = map.insert(MCP_SESSION_ID, session.clone()),
            None => _ = map.remove(MCP_SESSION_ID),
        }
        map
    }
}

/// What a replica's answer may carry to a client.
pub(crate) fn inbound(mut headers: HeaderMap) -> HeaderMap {
    retain(&mut headers, travels_down);
    headers
}

/// Removes what does not travel, and what `Connection` names.
fn retain(headers: &mut HeaderMap, travels: fn(&HeaderName) -> bool) {
    let staying: Vec<HeaderName> = {
        let connection = headers.get(header::CONNECTION).and_then(|value| value.to_str().ok());
        let stays = |name: &&HeaderName| !travels(name) || named_by(connection, name);
        headers.keys().filter(stays).cloned().collect()
    };
    for name in staying {
        headers.remove(name);
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

pub(crate) fn travels_up(name: &HeaderName) -> bool {
    let name = name.as_str();
    // Underscores: some servers take `_` and `-` for the same, so `Mcp_Name` could pass for `Mcp-Name`.
    !(is_hop_by_hop(name)
        || matches!(name, "content-length" | "expect" | "origin" | "accept-encoding" | "last-event-id")
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
            ("mcp-session-id", "token"),
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
        let replica = HeaderValue::from_static("replica");
        let left = [("host", "replica"), ("authorization", "Bearer a"), ("mcp-param-region", "eu")];
        let outbound = Outbound::of(from);
        assert_eq!(outbound.to(replica.clone(), None), map(&left));
        assert_eq!(outbound.compact().to(replica.clone(), None), map(&left));
        let session = HeaderValue::from_static("upstream");
        let sent = outbound.to(replica, Some(&session));
        assert_eq!(sent.get(MCP_SESSION_ID), Some(&session), "never the client's own token");
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
        assert_eq!(
            inbound(from),
            map(&[("content-type", "application/json"), ("www-authenticate", "Bearer")])
        );
    }
}
