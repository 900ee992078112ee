//! What a server is shown of the gateway and of the caller: the configured credential, and the identity headers.
//!
//! Put on each attempt anew, over whatever the client sent under these names, so that a rotated secret counts from
//! the next attempt on. The signature covers time, server, principal and scopes; it says who, not what.

use http::{HeaderName, HeaderValue};
use regatta_policy::snapshot::{Server, Snapshot};
use regatta_seal::{Identity, IdentitySecret};
use secrecy::ExposeSecret as _;

use crate::clock;
use crate::principal::Principal;
use crate::upstream::codec::RequestHead;

const PRINCIPAL: HeaderName = HeaderName::from_static("x-regatta-principal");
const SCOPES: HeaderName = HeaderName::from_static("x-regatta-scopes");
const CLAIMS: HeaderName = HeaderName::from_static("x-regatta-claims");
const SIGNATURE: HeaderName = HeaderName::from_static("x-regatta-signature");

/// What one server is shown.
#[derive(Default)]
pub(crate) struct Outward {
    server: String,
    credential: Option<(HeaderName, HeaderValue)>,
    key: Option<IdentitySecret>,
}

impl Outward {
    /// What `server` is shown by the config of `snapshot`.
    pub fn of(server: &Server, snapshot: &Snapshot) -> Outward {
        let credential = server.credential.as_ref().and_then(|credential| {
            let mut value = HeaderValue::from_str(credential.value.expose_secret()).ok()?;
            value.set_sensitive(true);
            Some((HeaderName::from_bytes(credential.header.as_bytes()).ok()?, value))
        });
        let secret = snapshot.access.as_ref().and_then(|access| access.identity_secret.as_ref());
        let key = secret.map(|secret| IdentitySecret::new(secret.expose_secret()));
        Outward { server: server.name.clone(), credential, key }
    }

    /// Whether a client's header of this name never goes up: one of ours stands in its place, or none if ours cannot be
    /// read.
    pub fn replaces(&self, name: &HeaderName) -> bool {
        self.credential.as_ref().is_some_and(|(ours, _)| ours == name)
    }

    /// Writes it into a request of `principal`.
    pub fn write(&self, request: &mut RequestHead, principal: Option<&Principal>) {
        if let Some((name, value)) = &self.credential
            && !value.is_empty()
        {
            request.header(name, value);
        }
        if let (Some(key), Some(principal)) = (&self.key, principal) {
            self.sign(key, request, principal);
        }
    }

    fn sign(&self, key: &IdentitySecret, request: &mut RequestHead, principal: &Principal) {
        let pairs = [("iss", &*principal.issuer), ("sub", &*principal.subject)];
        let who = form(pairs.into_iter());
        let claims = form(principal.claims.iter().map(|(name, value)| (&**name, &**value)));
        let scopes: Vec<&str> = principal.scopes.iter().map(|scope| &**scope).filter(is_scope).collect();
        let scopes = scopes.join(" ");
        let said = Identity { server: &self.server, principal: &who, scopes: &scopes, claims: &claims };
        let signature = key.sign(&said, clock::wall_seconds().into());
        for (name, value) in [(PRINCIPAL, who), (SCOPES, scopes), (CLAIMS, claims), (SIGNATURE, signature)] {
            // All of them are visible ASCII by now.
            if let Ok(value) = HeaderValue::try_from(value) {
                request.header(&name, &value);
            }
        }
    }
}

/// `scope-token` of RFC 6749 section 3.3; an issuer's odd one stays behind.
fn is_scope(scope: &&str) -> bool {
    scope.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\')
}

/// As an HTML form would send it, which every language can read: `iss=https%3A%2F%2Fa&sub=b`.
fn form<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut out = String::new();
    for (name, value) in pairs {
        if !out.is_empty() {
            out.push('&');
        }
        encode(name, &mut out);
        out.push('=');
        encode(value, &mut out);
    }
    out
}

fn encode(text: &str, out: &mut String) {
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(outward: &Outward, principal: Option<&Principal>) -> Vec<(String, String)> {
        let mut request = RequestHead::new(&http::Method::DELETE, b"\r\n");
        outward.write(&mut request, principal);
        let text = request.finish(bytes::Bytes::new()).to_string();
        let lines = text.lines().filter_map(|line| line.split_once(": "));
        lines.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn a_server_can_check_who_calls_and_nobody_else_can_say_it() {
        let key = IdentitySecret::new("shared with shop");
        let outward = Outward { server: "shop".into(), credential: None, key: Some(key.clone()) };
        let scopes = ["read".into(), "\u{e9}".into()];
        let claims = vec![("tenant".into(), "a&b".into())];
        let alice = Principal::new("https://a.example", "al ice\r\n", scopes, claims);
        let said = written(&outward, Some(&alice));
        let said = |name: HeaderName| {
            let found = said.iter().find(|(other, _)| *other == name.as_str());
            found.map(|(_, value)| value.clone()).unwrap_or_default()
        };
        assert_eq!(said(PRINCIPAL), "iss=https%3A%2F%2Fa.example&sub=al%20ice%0D%0A");
        assert_eq!((said(SCOPES), said(CLAIMS)), ("read".into(), "tenant=a%26b".into()));
        let (principal, scopes, claims) = (said(PRINCIPAL), said(SCOPES), said(CLAIMS));
        let who = Identity { server: "shop", principal: &principal, scopes: &scopes, claims: &claims };
        assert!(key.verifies(&who, &said(SIGNATURE), clock::wall_seconds().into()));
    }

    #[test]
    fn nobody_is_not_named_and_a_credential_takes_the_place_of_the_clients() {
        let key = IdentitySecret::new("shared with shop");
        let credential = Some((http::header::AUTHORIZATION, HeaderValue::from_static("Bearer ours")));
        let outward = Outward { credential, key: Some(key), ..Outward::default() };
        assert_eq!(written(&outward, None), [("authorization".to_owned(), "Bearer ours".to_owned())]);
        assert!(outward.replaces(&http::header::AUTHORIZATION) && !outward.replaces(&http::header::ACCEPT));
        let unread = Some((http::header::AUTHORIZATION, HeaderValue::from_static("")));
        let outward = Outward { credential: unread, ..Outward::default() };
        assert_eq!(written(&outward, None), []);
        assert!(outward.replaces(&http::header::AUTHORIZATION));
    }
}
