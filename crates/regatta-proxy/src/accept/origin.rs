//! May a page of this origin talk to us? (2026-07-28 basic/transports/streamable-http, *Security & Endpoint* 1)
//!
//! No `Origin`: not a browser, let in. Loopback origins and the configured ones: let in, with CORS headers that
//! name exactly that origin. Everything else: 403.

use http::header::ORIGIN;
use http::{HeaderMap, HeaderValue, Uri};
use regatta_policy::snapshot::Origins;

use super::host::is_loopback;
use crate::cors::Cors;
use crate::fault::Fault;

/// Refuses a foreign, doubled or unreadable `Origin`.
pub(super) fn check(headers: &HeaderMap, admitted: &Origins) -> Result<(), Fault> {
    let mut origins = headers.get_all(ORIGIN).iter();
    match (origins.next(), origins.next()) {
        (None, _) => Ok(()),
        (Some(origin), None) if is_let_in(origin, admitted) => Ok(()),
        (Some(_), _) => Err(Fault::ForeignOrigin),
    }
}

fn is_let_in(origin: &HeaderValue, admitted: &Origins) -> bool {
    let Ok(text) = origin.to_str() else { return false };
    if admitted.origins.iter().any(|allowed| allowed.eq_ignore_ascii_case(text)) {
        return true;
    }
    // An origin is scheme://host[:port] and nothing more; `null` and longer forms do not parse as that.
    let Ok(uri) = text.parse::<Uri>() else { return false };
    let is_bare = uri.path() == "/" && uri.query().is_none() && !text.ends_with('/') && !text.contains('@');
    let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
    is_http && is_bare && uri.host().is_some_and(|host| is_loopback(host.trim_matches(['[', ']'])))
}

/// The origin of a browser that may read our answers.
pub(crate) fn cors(headers: &HeaderMap, admitted: &Origins) -> Option<Cors> {
    let origin = headers.get(ORIGIN)?;
    check(headers, admitted).is_ok().then(|| Cors(origin.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(origins: &[&'static str]) -> bool {
        let mut headers = HeaderMap::new();
        for origin in origins {
            headers.append(ORIGIN, HeaderValue::from_static(origin));
        }
        let admitted = Origins { origins: vec!["https://app.example".into()], ..Origins::default() };
        check(&headers, &admitted).is_ok()
    }

    #[test]
    fn lets_no_origin_loopback_and_configured_ones_in() {
        assert!(verdict(&[]));
        assert!(verdict(&["http://localhost:5173"]));
        assert!(verdict(&["http://127.0.0.1"]));
        assert!(verdict(&["http://[::1]:3000"]));
        assert!(verdict(&["https://app.example"]));
    }

    #[test]
    fn refuses_foreign_null_and_doubled_origins() {
        for origin in [
            "http://evil.example",
            "null",
            "http://localhost.evil.com",
            "http://localhost@evil.com",
            "file://localhost",
            "http://localhost/x",
        ] {
            assert!(!verdict(&[origin]), "{origin}");
        }
        assert!(!verdict(&["http://localhost", "http://localhost"]));
    }
}
