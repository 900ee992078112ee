//! By which address a client came in: what it calls this endpoint, where the config does not say it.
//!
//! Made of the `Host` that *accept* has checked. Only used to name ourselves; nothing is decided by it.

use http::HeaderValue;
use http::header::HOST;
use http::request::Parts;
use regatta_policy::access;

use crate::listener::Peer;
use crate::view::ServerView;

/// What a trusted proxy says of the connection that it ended.
const X_FORWARDED_PROTO: &str = "x-forwarded-proto";

/// The address that a request was sent to.
#[derive(Clone, Debug)]
pub(crate) struct Door {
    scheme: &'static str,
    host: HeaderValue,
}

impl Door {
    /// The door of a request.
    pub fn of(head: &Parts, peer: &Peer) -> Door {
        let headers = &head.headers;
        // The absolute form's authority wins over `Host` (RFC 9112 3.2.2).
        let absolute = head.uri.authority().and_then(|authority| authority.as_str().parse().ok());
        let host = absolute.or_else(|| headers.get(HOST).cloned());
        let is_https = |value: &HeaderValue| value.as_bytes() == b"https";
        let was_tls = peer.tls || (peer.proxied && headers.get(X_FORWARDED_PROTO).is_some_and(is_https));
        let scheme = if was_tls { "https" } else { "http" };
        Door { scheme, host: host.unwrap_or_else(|| HeaderValue::from_static("localhost")) }
    }

    /// The URI of the endpoint: what the config says, else as this client sees it.
    pub fn resource(&self, server: &ServerView) -> String {
        let path = &server.server.path;
        let configured = server.guard.as_ref().and_then(|guard| guard.rules.resource_at(path));
        configured.unwrap_or_else(|| {
            let origin = format!("{}://{}", self.scheme, self.host.to_str().unwrap_or("localhost"));
            access::resource_at(&origin, path)
        })
    }

    /// Where the metadata of the endpoint lies (RFC 9728 section 3.1).
    pub fn metadata_url(&self, server: &ServerView) -> String {
        access::metadata_url(&self.resource(server))
    }
}
