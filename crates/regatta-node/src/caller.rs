//! Who calls, as far as a node can tell: what sessions and everything kept for one caller are bound to.
//!
//! A node verifies no credential; the handler or a gateway does. So this is a digest of what the caller shows: of issuer
//! and subject where that is a JWT, because access tokens are renewed in the middle of a session, and of the whole
//! `Authorization` otherwise. A forged JWT finds another's session only to be refused by whoever verifies it; where nobody
//! does, nothing is protected anyway.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, header};
use serde::Deserialize;
use serde_json::Value;

use crate::settings::SessionBinding;

/// The context of a caller; all callers that show nothing are one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Caller(pub(crate) [u8; 16]);

#[derive(Deserialize)]
struct Claims {
    #[serde(default)]
    iss: Value,
    sub: String,
}

impl Caller {
    /// The caller of a request with these headers.
    pub(crate) fn of(binding: SessionBinding, headers: &HeaderMap) -> Caller {
        let shown = headers.get(header::AUTHORIZATION).map(http::HeaderValue::as_bytes);
        match (binding, shown) {
            (SessionBinding::Nobody, _) | (_, None) => Caller([0; 16]),
            (SessionBinding::Caller, Some(shown)) => Caller(context(shown)),
        }
    }
}

fn context(shown: &[u8]) -> [u8; 16] {
    match claims(shown) {
        Some(Claims { iss, sub }) => {
            regatta_seal::digest16(&[b"subject", iss.to_string().as_bytes(), sub.as_bytes()])
        }
        None => regatta_seal::digest16(&[b"authorization", shown]),
    }
}

/// The claims of a bearer token in the form of a JWT (RFC 7519), unverified.
fn claims(shown: &[u8]) -> Option<Claims> {
    let shown = std::str::from_utf8(shown).ok()?;
    let (scheme, token) = shown.split_once(' ')?;
    let mut parts = token.trim().split('.');
    let (_, claims, _) = (parts.next()?, parts.next()?, parts.next()?);
    if !scheme.eq_ignore_ascii_case("bearer") || parts.next().is_some() {
        return None;
    }
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(authorization: &str) -> Caller {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, authorization.parse().unwrap());
        Caller::of(SessionBinding::Caller, &headers)
    }

    fn jwt(claims: &str, signature: &str) -> String {
        format!("Bearer e30.{}.{signature}", URL_SAFE_NO_PAD.encode(claims))
    }

    #[test]
    fn a_renewed_token_is_the_same_caller_and_another_subject_is_not() {
        let first = caller(&jwt(r#"{"iss":"i","sub":"ann","exp":1}"#, "a"));
        assert_eq!(first, caller(&jwt(r#"{"iss":"i","sub":"ann","exp":2}"#, "b")));
        assert_ne!(first, caller(&jwt(r#"{"iss":"i","sub":"bob"}"#, "a")));
        assert_ne!(first, caller(&jwt(r#"{"iss":"j","sub":"ann"}"#, "a")));
    }

    #[test]
    fn what_is_no_jwt_counts_as_a_whole() {
        assert_eq!(caller("Bearer opaque"), caller("Bearer opaque"));
        assert_ne!(caller("Bearer opaque"), caller("Bearer other"));
        assert_ne!(caller("Bearer opaque"), Caller::of(SessionBinding::Caller, &HeaderMap::new()));
        assert_eq!(
            Caller::of(SessionBinding::Nobody, &HeaderMap::new()),
            Caller::of(SessionBinding::Caller, &HeaderMap::new())
        );
    }
}
