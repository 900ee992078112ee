//! May this request come in at all? The defence against DNS rebinding, and the form of a request (2026-07-28 and
//! 2025-11-25, basic/transports, *Streamable HTTP*, *Security*, *Sending Messages*).
//!
//! Looks at the head only, before anything is read or takes a place. No `Origin`: not a browser, let in. Pages of loopback
//! and of `allowed_origins`: let in; all others: 403.

use http::request::Parts;
use http::{HeaderMap, Method, StatusCode, Uri, header};
use regatta_mcp::headers::{Accepts, MCP_SESSION_ID, check_content_type};

use crate::answers::{Answer, plain};
use crate::settings::Settings;

/// Why a request is turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turned {
    Host,
    Origin,
    Doubled,
    NotAcceptable,
    NotJson,
}

impl Turned {
    /// What the client is told.
    pub(crate) fn answer(self) -> Answer {
        let (status, why) = match self {
            Turned::Host => (StatusCode::FORBIDDEN, "this host is not allowed\n"),
            Turned::Origin => (StatusCode::FORBIDDEN, "pages of this origin are not allowed\n"),
            Turned::Doubled => {
                (StatusCode::BAD_REQUEST, "Host, Authorization and Mcp-Session-Id may stand once each\n")
            }
            Turned::NotAcceptable => (
                StatusCode::NOT_ACCEPTABLE,
                "Accept must list application/json and text/event-stream; for GET, text/event-stream\n",
            ),
            Turned::NotJson => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "Content-Type must be application/json, unencoded\n")
            }
        };
        plain(status, why)
    }
}

/// Lets a request in, or says why not.
pub(crate) fn check(settings: &Settings, head: &Parts) -> Result<(), Turned> {
    let is_doubled = |name: &http::HeaderName| head.headers.get_all(name).iter().nth(1).is_some();
    if [&header::HOST, &header::AUTHORIZATION, &MCP_SESSION_ID].into_iter().any(is_doubled) {
        return Err(Turned::Doubled);
    }
    if !host_is_allowed(&settings.allowed_hosts, head) {
        return Err(Turned::Host);
    }
    if !origin_is_allowed(&settings.allowed_origins, &head.headers) {
        return Err(Turned::Origin);
    }
    form(head)
}

fn form(head: &Parts) -> Result<(), Turned> {
    let accepts = Accepts::read(&head.headers);
    match head.method {
        Method::POST => {
            if head.headers.contains_key(header::CONTENT_ENCODING)
                || check_content_type(&head.headers).is_err()
            {
                return Err(Turned::NotJson);
            }
            if accepts.both() { Ok(()) } else { Err(Turned::NotAcceptable) }
        }
        Method::GET if !accepts.event_stream => Err(Turned::NotAcceptable),
        _ => Ok(()),
    }
}

fn host_is_allowed(allowed: &[String], head: &Parts) -> bool {
    let host = head.headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    // The absolute form's authority is the one that counts (RFC 9112 3.2.2).
    let host = head.uri.authority().map_or(host, http::uri::Authority::as_str);
    let Ok(authority) = host.parse::<http::uri::Authority>() else { return false };
    if host.contains('@') {
        return false;
    }
    is_allowed(allowed, &authority)
}

/// Whether requests to this host come in.
pub(crate) fn is_allowed(allowed: &[String], host: &http::uri::Authority) -> bool {
    let (name, whole) = (host.host().trim_matches(['[', ']']), host.as_str());
    let is = |allowed: &String| allowed.eq_ignore_ascii_case(name) || allowed.eq_ignore_ascii_case(whole);
    allowed.is_empty() || allowed.iter().any(is)
}

fn origin_is_allowed(allowed: &[String], headers: &HeaderMap) -> bool {
    let mut origins = headers.get_all(header::ORIGIN).iter();
    let (Some(origin), None) = (origins.next(), origins.next()) else {
        return !headers.contains_key(header::ORIGIN);
    };
    let Ok(origin) = origin.to_str() else { return false };
    allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin)) || is_loopback(origin)
}

/// `scheme://host[:port]` of this machine, and nothing behind it; `null` is none.
fn is_loopback(origin: &str) -> bool {
    let Ok(uri) = origin.parse::<Uri>() else { return false };
    let is_bare = uri.path() == "/" && uri.query().is_none() && !origin.ends_with('/');
    let is_http = matches!(uri.scheme_str(), Some("http" | "https")) && !origin.contains('@');
    let host = uri.host().map(|host| host.trim_matches(['[', ']']));
    is_http && is_bare && matches!(host, Some("localhost" | "127.0.0.1" | "::1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(more: &[(&'static str, &'static str)]) -> Result<(), Turned> {
        let mut request = http::Request::post("/mcp");
        let usual = [
            ("host", "localhost:3000"),
            ("accept", "application/json, text/event-stream"),
            ("content-type", "application/json"),
        ];
        let usual = usual.iter().filter(|(name, _)| more.iter().all(|(other, _)| other != name));
        for (name, value) in usual.chain(more).filter(|(_, value)| !value.is_empty()) {
            request = request.header(*name, *value);
        }
        let settings =
            Settings { allowed_origins: vec!["https://app.example".to_owned()], ..Settings::default() };
        check(&settings, &request.body(()).unwrap().into_parts().0)
    }

    #[test]
    fn lets_in_what_the_specification_asks_for() {
        assert_eq!(verdict(&[]), Ok(()));
        for origin in ["http://localhost:5173", "https://app.example", "http://[::1]:1"] {
            assert_eq!(verdict(&[("origin", origin)]), Ok(()), "{origin}");
        }
    }

    #[test]
    fn turns_away_foreign_pages_and_hosts() {
        for origin in [
            "http://evil.example",
            "null",
            "http://localhost.evil.com",
            "http://a@localhost",
            "file://localhost",
        ] {
            assert_eq!(verdict(&[("origin", origin)]), Err(Turned::Origin), "{origin}");
        }
        for host in ["evil.example", "localhost@evil.example", "10.0.0.1"] {
            assert_eq!(verdict(&[("host", host)]), Err(Turned::Host), "{host}");
        }
        assert_eq!(verdict(&[("host", "localhost"), ("host", "localhost")]), Err(Turned::Doubled));
    }

    #[test]
    fn turns_away_what_it_cannot_read_or_the_client_cannot() {
        assert_eq!(verdict(&[("content-type", "text/plain")]), Err(Turned::NotJson));
        assert_eq!(verdict(&[("content-encoding", "gzip")]), Err(Turned::NotJson));
        assert_eq!(verdict(&[("accept", "application/json")]), Err(Turned::NotAcceptable));
        assert_eq!(verdict(&[("accept", "")]), Err(Turned::NotAcceptable));
    }
}
