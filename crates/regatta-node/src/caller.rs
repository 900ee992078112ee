//! Who calls, as far as a node can tell: what sessions and everything kept for one caller are bound to.
//!
//! A gateway that shares an identity secret with the node says who calls, and signs it (docs/auth.md). Otherwise the node
//! verifies no credential; the handler or a gateway does. Then this is a digest of what the caller shows: of issuer
//! and subject where that is a JWT, because access tokens are renewed in the middle of a session, and of the whole
//! `Authorization` otherwise. A forged JWT finds another's session only to be refused by whoever verifies it; where nobody
//! does, nothing is protected anyway.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderName, header};
use regatta_seal::{Identity, IdentitySecret};
use serde::Deserialize;
use serde_json::Value;

use crate::settings::{SessionBinding, Settings};

const PRINCIPAL: HeaderName = HeaderName::from_static("x-regatta-principal");
const SCOPES: HeaderName = HeaderName::from_static("x-regatta-scopes");
const CLAIMS: HeaderName = HeaderName::from_static("x-regatta-claims");
const SIGNATURE: HeaderName = HeaderName::from_static("x-regatta-signature");

/// The context of a caller; all callers that show nothing are one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Caller(pub(crate) [u8; 16]);

/// Headers that say who calls, and that no gateway with our secret wrote just now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Forged;

/// How callers are told apart.
pub(crate) struct Callers {
    binding: SessionBinding,
    /// Our name: what a gateway says to another server counts for nothing here.
    server: String,
    secrets: Vec<IdentitySecret>,
}

#[derive(Deserialize)]
struct Claims {
    #[serde(default)]
    iss: Value,
    sub: String,
}

impl Callers {
    /// Of the server of this name.
    pub(crate) fn of(settings: &Settings, server: &str) -> Callers {
        let secrets = settings.identity_secrets.iter().map(|secret| IdentitySecret::new(&secret.0));
        Callers { binding: settings.session_binding, server: server.to_owned(), secrets: secrets.collect() }
    }

    /// The caller of a request with these headers, at `now_s` seconds since 1970.
    pub(crate) fn caller(&self, headers: &HeaderMap, now_s: u64) -> Result<Caller, Forged> {
        let principal = self.principal(headers, now_s)?;
        let shown = headers.get(header::AUTHORIZATION).map(http::HeaderValue::as_bytes);
        Ok(match (self.binding, principal, shown) {
            (SessionBinding::Nobody, _, _) | (_, None, None) => Caller([0; 16]),
            // What comes with it is the gateway's own credential, the same for all.
            (SessionBinding::Caller, Some(principal), _) => {
                Caller(regatta_seal::digest16(&[b"principal", principal.as_bytes()]))
            }
            (SessionBinding::Caller, None, Some(shown)) => Caller(context(shown)),
        })
    }

    /// Whom a gateway names. Without a secret nobody is believed, and what they say is overlooked.
    fn principal<'a>(&self, headers: &'a HeaderMap, now_s: u64) -> Result<Option<&'a str>, Forged> {
        let is_named = [PRINCIPAL, SCOPES, CLAIMS, SIGNATURE].iter().any(|name| headers.contains_key(name));
        if self.secrets.is_empty() || !is_named {
            return Ok(None);
        }
        let principal = only(headers, &PRINCIPAL)?;
        let said = Identity {
            server: &self.server,
            principal,
            scopes: only(headers, &SCOPES)?,
            claims: only(headers, &CLAIMS)?,
        };
        let signature = only(headers, &SIGNATURE)?;
        let is_signed = self.secrets.iter().any(|secret| secret.verifies(&said, signature, now_s));
        if is_signed { Ok(Some(principal)) } else { Err(Forged) }
    }
}

/// The value of a header that stands once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<&'a str, Forged> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().map_err(|_| Forged),
        _ => Err(Forged),
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

    const NOW_S: u64 = 1_764_120_000;

    fn callers(binding: SessionBinding, secrets: &[&str]) -> Callers {
        let secrets = secrets.iter().map(|secret| IdentitySecret::new(secret)).collect();
        Callers { binding, server: "shop".to_owned(), secrets }
    }

    fn of(callers: &Callers, headers: &[(&'static str, &str)]) -> Result<Caller, Forged> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        callers.caller(&map, NOW_S)
    }

    fn caller(authorization: &str) -> Caller {
        of(&callers(SessionBinding::Caller, &[]), &[("authorization", authorization)]).unwrap()
    }

    /// What a gateway with `secret` writes for `principal` at the server `shop`.
    fn named(secret: &str, principal: &str, at_s: u64) -> String {
        let who = Identity { server: "shop", principal, scopes: "read", claims: "" };
        IdentitySecret::new(secret).sign(&who, at_s)
    }

    fn signed<'a>(principal: &'a str, signature: &'a str) -> [(&'static str, &'a str); 5] {
        [
            ("authorization", "Bearer of the gateway"),
            ("x-regatta-principal", principal),
            ("x-regatta-scopes", "read"),
            ("x-regatta-claims", ""),
            ("x-regatta-signature", signature),
        ]
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
        let nobody = of(&callers(SessionBinding::Caller, &[]), &[]).unwrap();
        assert_ne!(caller("Bearer opaque"), nobody);
        let anybody = callers(SessionBinding::Nobody, &[]);
        assert_eq!(of(&anybody, &[("authorization", "Bearer opaque")]), Ok(nobody));
    }

    #[test]
    fn a_gateway_says_who_calls_whatever_credential_it_shows() {
        let node = callers(SessionBinding::Caller, &["the old secret", "the secret"]);
        let ann = of(&node, &signed("sub=ann", &named("the secret", "sub=ann", NOW_S))).unwrap();
        let later = of(&node, &signed("sub=ann", &named("the old secret", "sub=ann", NOW_S - 50))).unwrap();
        let bob = of(&node, &signed("sub=bob", &named("the secret", "sub=bob", NOW_S))).unwrap();
        assert_eq!(ann, later);
        assert_ne!(ann, bob);
        let direct = of(&node, &[("authorization", "Bearer of the gateway")]).unwrap();
        assert!(direct != ann && direct != bob);
        let unaware = callers(SessionBinding::Caller, &[]);
        assert_eq!(of(&unaware, &signed("sub=ann", "t=0,v1=00")), Ok(direct), "nobody's word is taken");
    }

    #[test]
    fn whoever_only_says_so_is_turned_away() {
        let node = callers(SessionBinding::Caller, &["the secret"]);
        let good = named("the secret", "sub=ann", NOW_S);
        let old = named("the secret", "sub=ann", NOW_S - 61);
        let foreign = named("another", "sub=ann", NOW_S);
        for signature in [&old, &foreign, "", "t=1,v1=00"] {
            assert_eq!(of(&node, &signed("sub=ann", signature)), Err(Forged), "{signature}");
        }
        assert_eq!(of(&node, &signed("sub=bob", &good)), Err(Forged));
        assert_eq!(of(&node, &signed("sub=ann", &good)[..4]), Err(Forged), "unsigned");
        let mut doubled = signed("sub=ann", &good).to_vec();
        doubled.push(("x-regatta-principal", "sub=bob"));
        assert_eq!(of(&node, &doubled), Err(Forged));
    }
}
