//! From an issuer to the place of its keys: authorization server metadata (RFC 8414 section 3) and OpenID Connect
//! Discovery 1.0 section 4, asked in the order in which MCP clients ask.
//!
//! A document that names another issuer is nobody's, and a place without TLS is none unless it is this machine.

use bytes::Bytes;
use http::header::{ACCEPT, HOST, USER_AGENT};
use http::{HeaderValue, Request, StatusCode};
use http_body_util::Full;
use regatta_policy::snapshot::{Endpoint, Scheme};
use serde_json::Value;

use crate::config::endpoint;
use crate::probe::client::Client;

/// Where the keys of `issuer` are, by its own word; else why that cannot be told.
pub(super) async fn discover(client: &Client, issuer: &str) -> Result<Endpoint, String> {
    let mut why = String::new();
    for url in candidates(issuer) {
        let place = place(&url)?;
        match get(client, &place).await.and_then(|text| keys_of(&text, issuer)) {
            Ok(place) => return Ok(place),
            Err(reason) => why = format!("{url}: {reason}"),
        }
    }
    Err(why)
}

/// GET with everything bounded; the body of a 200.
pub(super) async fn get(client: &Client, place: &Endpoint) -> Result<Bytes, String> {
    let host = match place.host.contains(':') {
        true => format!("[{}]:{}", place.host, place.port),
        false => format!("{}:{}", place.host, place.port),
    };
    let request = Request::get(place.path.as_str())
        .header(HOST, host)
        .header(ACCEPT, HeaderValue::from_static("application/json"))
        .header(USER_AGENT, concat!("regatta-keys/", env!("CARGO_PKG_VERSION")))
        .body(Full::default())
        .map_err(|why| why.to_string())?;
    match client.fetch(place, request).await? {
        (StatusCode::OK, text) => Ok(text),
        // No redirect is followed: where it leads, nobody configured.
        (status, _) => Err(format!("HTTP {status}")),
    }
}

/// The place of a URL that keys may come from.
pub(crate) fn place(url: &str) -> Result<Endpoint, String> {
    let place = endpoint::parse(url).map_err(|expected| format!("{url}: expected {expected}"))?;
    let is_local = matches!(place.host.as_str(), "localhost" | "127.0.0.1" | "::1");
    match place.scheme {
        Scheme::Http if !is_local => Err(format!("{url}: keys come over https only")),
        Scheme::Http | Scheme::Https if endpoint::lacks_path(url) => Err(format!("{url}: it has no path")),
        Scheme::Http | Scheme::Https => Ok(place),
    }
}

fn candidates(issuer: &str) -> Vec<String> {
    let origin_end = issuer.find("://").map_or(0, |at| at + 3);
    let path_at = issuer[origin_end..].find('/').map_or(issuer.len(), |at| origin_end + at);
    let (origin, path) = issuer.split_at(path_at);
    let path = path.trim_end_matches('/');
    let mut urls = vec![
        format!("{origin}/.well-known/oauth-authorization-server{path}"),
        format!("{origin}/.well-known/openid-configuration{path}"),
    ];
    if !path.is_empty() {
        urls.push(format!("{origin}{path}/.well-known/openid-configuration"));
    }
    urls
}

fn keys_of(text: &[u8], issuer: &str) -> Result<Endpoint, String> {
    let document: Value = serde_json::from_slice(text).map_err(|_| "it is no JSON".to_owned())?;
    // MUST be identical (RFC 8414 section 3.3).
    if document.get("issuer").and_then(Value::as_str) != Some(issuer) {
        return Err("it names another issuer".to_owned());
    }
    let uri = document.get("jwks_uri").and_then(Value::as_str).ok_or("it has no jwks_uri")?;
    place(uri)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asks_where_clients_ask() {
        assert_eq!(
            candidates("https://a.example"),
            [
                "https://a.example/.well-known/oauth-authorization-server",
                "https://a.example/.well-known/openid-configuration"
            ]
        );
        assert_eq!(
            candidates("https://a.example/t1/"),
            [
                "https://a.example/.well-known/oauth-authorization-server/t1",
                "https://a.example/.well-known/openid-configuration/t1",
                "https://a.example/t1/.well-known/openid-configuration"
            ]
        );
    }

    #[test]
    fn a_document_counts_for_its_own_issuer_only_and_keys_come_encrypted() {
        let told = |issuer: &str, uri: &str| {
            keys_of(format!(r#"{{"issuer":"{issuer}","jwks_uri":"{uri}"}}"#).as_bytes(), "https://a.example")
        };
        assert!(told("https://a.example", "https://keys.example/jwks").is_ok());
        assert!(told("https://a.example", "http://127.0.0.1:1/jwks").is_ok());
        for (issuer, uri) in [
            ("https://a.example/", "https://keys.example/jwks"),
            ("https://b.example", "https://keys.example/jwks"),
            ("https://a.example", "http://keys.example/jwks"),
            ("https://a.example", "file:///etc/passwd"),
            ("https://a.example", "https://user@keys.example/jwks"),
            ("https://a.example", "https://keys.example"),
        ] {
            assert!(told(issuer, uri).is_err(), "{issuer} {uri}");
        }
    }
}
