//! An endpoint that stands under another path of its replica: `/mcp` that became `/mcp/` (RELIABILITY 3.10).
//!
//! A request that is so answered was not executed, and its method and body stay (RFC 9110 15.4.8, 15.4.9), so it may be
//! sent to where the answer points: once, and never to another scheme, host or port.

use http::header::LOCATION;
use http::uri::PathAndQuery;
use http::{HeaderMap, StatusCode, Uri};
use regatta_policy::snapshot::{Endpoint, Scheme};

/// Whether the answer says that the endpoint moved.
pub(super) fn is_moved(status: StatusCode) -> bool {
    status == StatusCode::TEMPORARY_REDIRECT || status == StatusCode::PERMANENT_REDIRECT
}

/// Where it is now, if that is at the same replica.
pub(super) fn path(own: &Endpoint, headers: &HeaderMap) -> Option<PathAndQuery> {
    let location = headers.get(LOCATION)?.to_str().ok()?;
    let location = location.split('#').next().unwrap_or_default();
    if location.starts_with('/') && !location.starts_with("//") {
        return location.parse().ok();
    }
    let there = location.parse::<Uri>().ok()?;
    let (scheme, port) = match own.scheme {
        Scheme::Http => ("http", 80),
        Scheme::Https => ("https", 443),
    };
    let authority = there.authority()?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let is_own = there.scheme_str() == Some(scheme)
        && host.eq_ignore_ascii_case(&own.host)
        && authority.port_u16().unwrap_or(port) == own.port
        && !authority.as_str().contains('@');
    is_own.then(|| there.path_and_query().cloned()).flatten()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn moved(url: &str, location: &'static str) -> Option<String> {
        let uri: Uri = url.parse().expect("a URL");
        let (scheme, standard) = match uri.scheme_str() {
            Some("https") => (Scheme::Https, 443),
            _ => (Scheme::Http, 80),
        };
        let host = uri.host().expect("a host").trim_matches(['[', ']']).to_owned();
        let (port, path) = (uri.port_u16().unwrap_or(standard), uri.path().to_owned());
        let own = Endpoint { url: url.to_owned(), scheme, host, port, path };
        let headers = HeaderMap::from_iter([(LOCATION, HeaderValue::from_static(location))]);
        path_of(&own, &headers)
    }

    fn path_of(own: &Endpoint, headers: &HeaderMap) -> Option<String> {
        path(own, headers).map(|path| path.as_str().to_owned())
    }

    #[test]
    fn follows_to_another_path_of_the_same_origin_and_nowhere_else() {
        let own = "http://a.example:3000/mcp";
        for (location, there) in [
            ("/mcp/", Some("/mcp/")),
            ("/v2?x=1#part", Some("/v2?x=1")),
            ("http://A.example:3000/mcp/", Some("/mcp/")),
            ("http://a.example:3001/mcp/", None),
            ("http://a.example/mcp/", None),
            ("https://a.example:3000/mcp/", None),
            ("http://b.example:3000/mcp/", None),
            ("http://a.example:3000@b.example/mcp/", None),
            ("http://x@a.example:3000/mcp/", None),
            ("//b.example/mcp/", None),
            ("mcp/", None),
            ("", None),
        ] {
            assert_eq!(moved(own, location).as_deref(), there, "{location}");
        }
        assert_eq!(moved("http://[::1]/mcp", "http://[::1]:80/mcp/").as_deref(), Some("/mcp/"));
        assert_eq!(moved("https://a.example/mcp", "https://a.example/mcp/").as_deref(), Some("/mcp/"));
    }
}
