//! `WWW-Authenticate`: our own challenges, and what becomes of a server's.
//!
//! With `[auth]` a server's challenge is about the gateway's own credential, so no client sees it. Without, a 401 comes
//! back as it is, but for the one thing that would lead its client past us: where the metadata lies (SESSIONS 9).

use std::fmt::Write as _;
use std::ops::Range;

use http::header::WWW_AUTHENTICATE;
use http::{HeaderMap, HeaderValue};

use crate::door::Door;
use crate::fault::{Challenge, Problem};
use crate::view::ServerView;

/// Our challenge (RFC 6750 section 3, RFC 9728 section 5.1).
pub(crate) fn of(challenge: &Challenge) -> Option<HeaderValue> {
    let mut text = String::from("Bearer ");
    let error = match challenge.problem {
        // Without a token there is no error code (RFC 6750 section 3.1).
        Problem::Missing | Problem::OtherScheme => None,
        Problem::InQuery | Problem::Invalid { .. } => Some("invalid_token"),
        Problem::Malformed => Some("invalid_request"),
        Problem::Scope => Some("insufficient_scope"),
    };
    if let Some(error) = error {
        let _ = write!(text, "error=\"{error}\", error_description=\"{}\", ", words(challenge.problem));
    }
    if !challenge.scopes.is_empty() {
        let _ = write!(text, "scope=\"{}\", ", challenge.scopes.join(" "));
    }
    let _ = write!(text, "resource_metadata=\"{}\"", challenge.metadata);
    HeaderValue::try_from(text).ok()
}

/// What is wrong, for a person.
pub(crate) fn words(problem: Problem) -> &'static str {
    match problem {
        Problem::Missing => "a bearer token is required",
        Problem::OtherScheme => "only bearer tokens are taken",
        Problem::InQuery => "a token may not stand in the query",
        Problem::Malformed => "there must be exactly one well-formed bearer token",
        Problem::Invalid { why } => why,
        Problem::Scope => "the token has not all scopes that this needs",
    }
}

/// A server's challenges, with the metadata URLs of its own replaced by ours.
pub(crate) fn rewrite(headers: &mut HeaderMap, server: &ServerView, door: &Door) {
    let challenges: Vec<HeaderValue> = headers.get_all(WWW_AUTHENTICATE).iter().cloned().collect();
    if challenges.is_empty() {
        return;
    }
    headers.remove(WWW_AUTHENTICATE);
    for challenge in challenges {
        let changed = challenge.to_str().ok().and_then(|text| replaced(text, server, door));
        headers.append(WWW_AUTHENTICATE, changed.unwrap_or(challenge));
    }
}

fn replaced(text: &str, server: &ServerView, door: &Door) -> Option<HeaderValue> {
    let range = metadata(text)?;
    if !is_its_own(&text[range.clone()], server) {
        return None;
    }
    let ours = door.metadata_url(server);
    HeaderValue::try_from(format!("{}\"{ours}\"{}", &text[..range.start - 1], &text[range.end + 1..])).ok()
}

/// Whether a URL leads to a replica: what names another place is left alone, because clients can reach it as well.
fn is_its_own(url: &str, server: &ServerView) -> bool {
    let Some((_, rest)) = url.split_once("://") else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    // A server that sees only a loopback address of itself names that.
    let is_loopback = matches!(host, "localhost" | "127.0.0.1" | "[::1]" | "0.0.0.0");
    is_loopback
        || server.replicas.iter().any(|view| view.upstream.authority().as_bytes() == authority.as_bytes())
}

/// Where the quoted value of `resource_metadata` stands; quoted strings of other parameters are stepped over.
fn metadata(text: &str) -> Option<Range<usize>> {
    const NAME: &str = "resource_metadata";
    let bytes = text.as_bytes();
    let mut at = 0;
    let mut quoted = false;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' if quoted => at += 1,
            b'"' => quoted = !quoted,
            _ if !quoted && names(text, at, NAME) => {
                let rest = text[at + NAME.len()..].trim_start_matches([' ', '\t']).strip_prefix('=')?;
                let value = rest.trim_start_matches([' ', '\t']).strip_prefix('"')?;
                let start = text.len() - value.len();
                return Some(start..start + value.find('"')?);
            }
            _ => {}
        }
        at += 1;
    }
    None
}

/// Whether the parameter `name` begins at `at`.
fn names(text: &str, at: usize, name: &str) -> bool {
    let begins = at == 0 || matches!(text.as_bytes()[at - 1], b' ' | b',' | b'\t');
    begins && text.get(at..at + name.len()).is_some_and(|here| here.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_says_what_is_wrong_what_is_needed_and_where_to_learn_more() {
        let told = |problem| {
            let scopes = vec!["read".to_owned(), "write".to_owned()];
            let challenge = Challenge { problem, scopes, metadata: "https://m.example/x".into() };
            of(&challenge).expect("text").to_str().expect("text").to_owned()
        };
        assert_eq!(
            told(Problem::Missing),
            r#"Bearer scope="read write", resource_metadata="https://m.example/x""#
        );
        assert!(
            told(Problem::Scope).starts_with(r#"Bearer error="insufficient_scope", error_description=""#)
        );
        assert!(
            told(Problem::Invalid { why: "it has expired" })
                .contains(r#"error_description="it has expired""#)
        );
    }

    #[test]
    fn the_metadata_of_a_challenge_is_found_outside_quotes_only() {
        let found = |text: &str| metadata(text).map(|range| text[range].to_owned());
        assert_eq!(found(r#"Bearer resource_metadata="http://a/x""#), Some("http://a/x".into()));
        assert_eq!(
            found(r#"Bearer error="x",Resource_Metadata = "http://a/x", scope="b""#),
            Some("http://a/x".into())
        );
        assert_eq!(found(r#"Bearer realm="resource_metadata=\"evil\" resource_metadata=", scope="b""#), None);
        assert_eq!(found(r#"Bearer x_resource_metadata="http://a/x""#), None);
        assert_eq!(found("Bearer resource_metadata=http://a/x"), None);
        assert_eq!(found(r#"Bearer resource_metadata="http://a/x"#), None);
    }
}
