//! Which headers travel, up and down.
//!
//! Everything travels but what belongs to one hop (RFC 9110 7.6.1), to us, or to the browser's side of the
//! door; so unknown `Mcp-Param-*` headers pass, as intermediaries must let them (2026-07-28
//! basic/transports/streamable-http, *Server Behavior for Custom Headers*).

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::handover::Caller;
use crate::principal::Principal;
use crate::upstream::codec::RequestHead;

/// What a client's request may carry to a replica; sorted out as it is written, once for each attempt.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outbound {
    map: HeaderMap,
    /// Who sends them.
    principal: Option<Arc<Principal>>,
}

impl Outbound {
    /// The headers of `caller`.
    pub fn of(headers: HeaderMap, caller: &Caller) -> Outbound {
        Outbound { map: headers, principal: caller.principal.clone() }
    }

    /// Who sends them, if that was checked.
    pub fn principal(&self) -> Option<&Principal> {
        self.principal.as_deref()
    }

    /// The same, for something that stays long: nothing but what travels, in values that share no memory with the buffers
    /// they were read into.
    pub fn compact(&self) -> Outbound {
        let copied = self.travelling().filter_map(|(name, value)| {
            let mut copy = HeaderValue::from_bytes(value.as_bytes()).ok()?;
            copy.set_sensitive(value.is_sensitive());
            Some((name.clone(), copy))
        });
        Outbound { map: copied.collect(), principal: self.principal.clone() }
    }

    /// Name and value of each that travels.
    pub fn pairs(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        self.travelling()
    }

    /// Writes what travels, but for what `is_replaced`: `Host` and `Mcp-Session-Id` differ from one attempt to the next, so
    /// these are never the client's.
    pub fn write(&self, request: &mut RequestHead, is_replaced: impl Fn(&HeaderName) -> bool) {
        for (name, value) in self.travelling() {
            if !is_replaced(name) {
                request.header(name, value);
            }
        }
    }

    fn travelling(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        let named = |name| {
            let lines = self.map.get_all(header::CONNECTION).iter();
            lines.filter_map(|value| value.to_str().ok()).any(|line| named_by(line, name))
        };
        let names = self.map.contains_key(header::CONNECTION);
        self.map.iter().filter(move |(name, _)| travels_up(name) && !(names && named(name)))
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
    // Host and session are each attempt's own.
    // Underscores: some servers take `_` and `-` for the same, so `Mcp_Name` could pass for `Mcp-Name`.
    !(is_hop_by_hop(name)
        || matches!(
            name,
            "host"
                | "mcp-session-id"
                | "content-length"
                | "expect"
                | "origin"
                | "accept-encoding"
                | "last-event-id"
        )
        || matches!(name, "forwarded" | "x-real-ip")
        || name.starts_with("x-forwarded-")
        || name.starts_with("x-regatta-")
        || name.contains('_'))
}

/// What a replica's answer may carry to a client.
pub(crate) fn travels_down(name: &HeaderName) -> bool {
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

/// Whether `Connection` names this header as one for a single hop.
fn named_by(list: &str, name: &HeaderName) -> bool {
    list.split(',').any(|listed| listed.trim().eq_ignore_ascii_case(name.as_str())) && is_for_one_hop(name)
}

/// Whether a header is for a single hop if `Connection` says so. Those that carry identity or routing are never dropped
/// on anybody's word (RELIABILITY I26).
pub(crate) fn is_for_one_hop(name: &HeaderName) -> bool {
    let name = name.as_str();
    !(name == "authorization" || name.starts_with("mcp-") || name == "content-type" || name == "accept")
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::handover::Account;
    use crate::upstream::codec::HeadReader;

    fn nobody() -> Caller {
        let ip = std::net::Ipv4Addr::LOCALHOST.into();
        Caller { context: [0; 16], account: Account([0; 16]), ip, principal: None }
    }

    fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    fn written(outbound: &Outbound, replaced: Option<&str>) -> String {
        let mut request = RequestHead::new(&Method::DELETE, b"\r\n");
        outbound.write(&mut request, |name| replaced == Some(name.as_str()));
        request.finish(bytes::Bytes::new()).to_string()
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
            ("content-length", "7"),
            ("transfer-encoding", "chunked"),
            ("x-regatta-principal", "root"),
            ("x-forwarded-for", "1.2.3.4"),
        ]);
        let outbound = Outbound::of(from, &nobody());
        let left = "DELETE\r\nauthorization: Bearer a\r\nmcp-param-region: eu\r\n\r\n";
        assert_eq!(written(&outbound, None), left);
        assert_eq!(written(&outbound.compact(), None), left);
        assert_eq!(written(&outbound, Some("mcp-param-region")), "DELETE\r\nauthorization: Bearer a\r\n\r\n");
    }

    #[test]
    fn a_servers_private_headers_do_not_leak() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nMcp-Session-Id: upstream\r\n\
            Set-Cookie: a=b\r\nServer: uvicorn\r\nDate: today\r\nX-Hop: 1\r\nConnection: x-hop, content-type\r\n\
            WWW-Authenticate: Bearer\r\nContent-Length: 0\r\n\r\n";
        let head = HeadReader::default().feed(answer).expect("an answer").expect("whole").head;
        assert_eq!(
            head.headers,
            map(&[("content-type", "application/json"), ("www-authenticate", "Bearer")])
        );
        assert_eq!(head.session.expect("kept for us"), "upstream");
    }
}
