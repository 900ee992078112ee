//! A signed token taken apart: JWS compact form (RFC 7515) around claims (RFC 7519, RFC 9068).
//!
//! Pure. What it hands out is only claimed until the signature has been checked. Whatever a reader could take two
//! ways is refused: other than three parts, padding, `crit`, and anything larger than `TOKEN_MAX`.

use std::num::NonZeroU32;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use regatta_policy::access::{self, Algorithm, Claims};
use serde_json::{Map, Value};

use crate::principal::{Principal, scopes_of};

/// Characters of a token; larger ones are refused unread.
const TOKEN_MAX: usize = 16 << 10;
/// Characters of a claim that is kept; longer ones are not.
const CLAIM_MAX: usize = 256;
/// Scopes of one token that are looked at.
const SCOPES_MAX: usize = 256;

/// A token that is well formed, and nothing more.
pub(super) struct Token<'a> {
    header: Map<String, Value>,
    payload: Map<String, Value>,
    signed: &'a [u8],
    signature: Vec<u8>,
}

impl<'a> Token<'a> {
    /// Takes a token apart; else what is wrong with it, in words that tell nothing of its content.
    pub fn read(text: &'a str) -> Result<Token<'a>, &'static str> {
        if text.len() > TOKEN_MAX {
            return Err("it is too large");
        }
        let (signed, signature) = text.rsplit_once('.').ok_or("it is no signed token")?;
        let (header, payload) = signed.split_once('.').ok_or("it is no signed token")?;
        if payload.contains('.') {
            return Err("it is no signed token");
        }
        let header = object(header).ok_or("its header is unreadable")?;
        // Extensions that must be understood: none is (RFC 7515 section 4.1.11).
        if header.contains_key("crit") {
            return Err("it demands an extension");
        }
        let payload = object(payload).ok_or("its claims are unreadable")?;
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| "its signature is unreadable")?;
        Ok(Token { header, payload, signed: signed.as_bytes(), signature })
    }

    /// `iss`.
    pub fn issuer(&self) -> Option<&str> {
        self.payload.get("iss")?.as_str()
    }

    /// `alg`, if it is one that has a name here.
    pub fn algorithm(&self) -> Option<Algorithm> {
        Algorithm::named(self.header.get("alg")?.as_str()?)
    }

    /// `kid`.
    pub fn key_id(&self) -> Option<&str> {
        self.header.get("kid")?.as_str()
    }

    /// The bytes that were signed.
    pub fn signed(&self) -> &'a [u8] {
        self.signed
    }

    /// The signature over them.
    pub fn signature(&self) -> &[u8] {
        &self.signature
    }

    /// The claims that decide.
    pub fn claims(&self) -> Claims {
        Claims {
            subject: self.payload.get("sub").and_then(Value::as_str).map(str::to_owned),
            audience: texts(self.payload.get("aud")).into_iter().map(str::to_owned).collect(),
            expires_s: self.payload.get("exp").and_then(seconds),
            // One that cannot be read has not been reached.
            begins_s: self.payload.get("nbf").map(|value| seconds(value).unwrap_or(u64::MAX)),
        }
    }

    /// The share that the claim `name` gives: a number, or one written as text; least where it is none.
    pub fn weight(&self, name: &str) -> NonZeroU32 {
        let given = self.payload.get(name);
        let number = given.and_then(|value| value.as_u64().or_else(|| value.as_str()?.parse().ok()));
        access::weight(number.unwrap_or(1))
    }

    /// Who it is about, with the claims called `kept`.
    pub fn principal(&self, issuer: &str, kept: &[String]) -> Principal {
        let subject = self.payload.get("sub").and_then(Value::as_str).unwrap_or_default();
        // `scope` is RFC 9068's; some issuers write `scp`, some of them as a list.
        let scopes = ["scope", "scp"].into_iter().flat_map(|name| texts(self.payload.get(name)));
        let scopes = scopes_of(scopes).into_iter().take(SCOPES_MAX);
        let claims = kept.iter().filter_map(|name| {
            let text = match self.payload.get(name)? {
                Value::String(text) => text.clone(),
                Value::Number(number) => number.to_string(),
                Value::Bool(flag) => flag.to_string(),
                Value::Null | Value::Array(_) | Value::Object(_) => return None,
            };
            (text.len() <= CLAIM_MAX).then(|| (name.as_str().into(), text.into()))
        });
        Principal::new(issuer, subject, scopes, claims.collect())
    }
}

fn object(part: &str) -> Option<Map<String, Value>> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

/// One text, or those of a list.
fn texts(value: Option<&Value>) -> Vec<&str> {
    match value {
        Some(Value::String(text)) => vec![text],
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) | None => Vec::new(),
    }
}

/// A NumericDate (RFC 7519 section 2), which may have a fraction.
fn seconds(value: &Value) -> Option<u64> {
    // `as` saturates: a date before 1970 is 0, one beyond all time its end.
    value.as_u64().or_else(|| value.as_f64().map(|seconds| seconds as u64))
}
