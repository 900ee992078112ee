//! Which credential a request presents: at most one, in a header (RFC 6750 section 2.1), never in the query.
//!
//! Reads forms only. What is not exactly one well-formed credential is a problem of the request (400), not of the
//! token; a token in the query is refused wherever it stands, because it has been logged on its way already.

use http::HeaderName;
use http::header::AUTHORIZATION;
use http::request::Parts;

use crate::fault::Problem;

/// API keys may come in a header of their own.
pub(super) const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
pub(super) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// What a request presents.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Credential<'a> {
    /// Nothing.
    None,
    /// A token or an API key.
    Text(&'a str),
}

/// The credential of a request.
pub(super) fn presented(head: &Parts) -> Result<Credential<'_>, Problem> {
    let headers = &head.headers;
    let mut keys = headers.get_all(X_API_KEY).iter();
    let (authorization, key, second) = (headers.get(AUTHORIZATION), keys.next(), keys.next());
    let in_query = head.uri.query().is_some_and(has_token);
    match (authorization, key) {
        (None, None) if in_query => Err(Problem::InQuery),
        (None, None) => Ok(Credential::None),
        _ if in_query || second.is_some() => Err(Problem::Malformed),
        (Some(_), Some(_)) => Err(Problem::Malformed),
        (None, Some(key)) => match key.to_str() {
            Ok(text) if is_credential(text) => Ok(Credential::Text(text)),
            Ok(_) | Err(_) => Err(Problem::Malformed),
        },
        (Some(value), None) => bearer(value.to_str().map_err(|_| Problem::Malformed)?),
    }
}

fn bearer(value: &str) -> Result<Credential<'_>, Problem> {
    let value = value.trim_matches([' ', '\t']);
    let (scheme, rest) = value.split_once(' ').unwrap_or((value, ""));
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Problem::OtherScheme);
    }
    let text = rest.trim_start_matches(' ');
    if is_credential(text) { Ok(Credential::Text(text)) } else { Err(Problem::Malformed) }
}

/// `b64token` of RFC 6750.
fn is_credential(text: &str) -> bool {
    let body = text.trim_end_matches('=');
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
    !body.is_empty() && body.bytes().all(fits)
}

/// Whether a query has `access_token`, also if a letter of the name is percent-encoded.
fn has_token(query: &str) -> bool {
    query.split('&').any(|pair| {
        let name = pair.split_once('=').map_or(pair, |(name, _)| name);
        plain(name).eq_ignore_ascii_case("access_token")
    })
}

fn plain(name: &str) -> String {
    let mut rest = name.as_bytes();
    let mut out = Vec::with_capacity(rest.len());
    while let Some((first, after)) = rest.split_first() {
        let hex = |at: usize| after.get(at).and_then(|digit| char::from(*digit).to_digit(16));
        match (first, hex(0), hex(1)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                rest = &after[2..];
            }
            _ => {
                out.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(uri: &str, headers: &[(&str, &str)]) -> Result<String, Problem> {
        let mut request = http::Request::post(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (head, ()) = request.body(()).expect("a request").into_parts();
        presented(&head).map(|credential| match credential {
            Credential::None => "-".to_owned(),
            Credential::Text(text) => text.to_owned(),
        })
    }

    #[test]
    fn one_credential_in_a_header_is_taken() {
        let sent = |value| of("/mcp", &[("authorization", value)]);
        assert_eq!(sent("Bearer a.b-_~+/="), Ok("a.b-_~+/=".into()));
        assert_eq!(sent("bEARER  abc "), Ok("abc".into()));
        assert_eq!(of("/mcp", &[("x-api-key", "k1")]), Ok("k1".into()));
        assert_eq!(of("/mcp?x=access_token", &[]), Ok("-".into()));
        for malformed in
            ["Bearer", "Bearer ", "Bearer a b", "Bearer a,b", "Bearer =", "Bearer a=b", "Bearer\ta"]
        {
            let told = sent(malformed);
            assert!(
                matches!(told, Err(Problem::Malformed | Problem::OtherScheme)),
                "{malformed:?}: {told:?}"
            );
        }
        assert_eq!(sent("Basic YTpi"), Err(Problem::OtherScheme));
    }

    #[test]
    fn two_credentials_or_one_in_the_query_are_refused() {
        assert_eq!(of("/mcp?access_token=a", &[]), Err(Problem::InQuery));
        assert_eq!(of("/mcp?x=1&acc%65ss_token", &[]), Err(Problem::InQuery));
        assert_eq!(of("/mcp?access_token=a", &[("authorization", "Bearer b")]), Err(Problem::Malformed));
        assert_eq!(of("/mcp", &[("x-api-key", "a"), ("authorization", "Bearer b")]), Err(Problem::Malformed));
        assert_eq!(of("/mcp", &[("x-api-key", "a"), ("x-api-key", "b")]), Err(Problem::Malformed));
    }
}
