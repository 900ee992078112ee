//! The guard: `[auth]` made ready for use. Keys parsed, API keys by their digest, verified tokens remembered.
//!
//! Made anew when the rules or the keys change, and with it all that was remembered, so a key that was withdrawn
//! opens nothing a moment later. It never waits and never fetches; what it does not know it says.

mod jws;
mod signature;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use quick_cache::sync::Cache;
use regatta_policy::access::{self, Access, Issuer};

use crate::principal::{API_KEYS, Principal, scopes_of};

/// How long a verified token is believed without another look, in seconds.
const BELIEVED_S: u64 = 300;
/// How long a key that an issuer does not have is not asked for again, in seconds.
const ABSENT_S: u64 = 10;
/// Keys that issuers do not have, remembered at most.
const ABSENT_MAX: usize = 1024;

/// The digest under which a token is remembered.
type TokenDigest = [u8; 32];

/// `[auth]`, ready for use.
pub(crate) struct Guard {
    pub rules: Arc<Access>,
    api_keys: HashMap<TokenDigest, Arc<Principal>>,
    /// By fleet as well: what one server may be shown, another may not.
    tokens: Cache<([u8; 8], TokenDigest), Arc<Known>>,
    /// Keys that nobody has, and until when that is believed.
    absent: Cache<TokenDigest, u64>,
}

struct Known {
    principal: Arc<Principal>,
    until_s: u64,
}

/// Why a credential proves nothing.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unproven {
    /// It is wrong, and stays wrong.
    Wrong(&'static str),
    /// It is signed with a key that is not here: the issuer may have a new one.
    UnknownKey {
        issuer: String,
        /// Names the key for `Guard::note_absent`.
        key: TokenDigest,
    },
    /// No key of its issuer could be had so far.
    NoKeys { issuer: String },
}

/// A credential that was presented, by its digest.
pub(crate) struct Presented<'a> {
    pub text: &'a str,
    pub digest: TokenDigest,
    pub fleet: [u8; 8],
}

impl<'a> Presented<'a> {
    /// A credential presented to the fleet `fleet`.
    pub fn new(text: &'a str, fleet: [u8; 8]) -> Presented<'a> {
        Presented { text, digest: sha256(text.as_bytes()), fleet }
    }
}

impl Guard {
    /// The guard of these rules.
    pub fn new(rules: Arc<Access>) -> Guard {
        let api_keys = rules.api_keys.iter().map(|key| {
            let scopes = scopes_of(key.scopes.iter().map(String::as_str));
            let principal = Principal::new(API_KEYS, &key.name, scopes, Vec::new());
            (key.digest, Arc::new(principal.weighing(key.weight)))
        });
        Guard {
            api_keys: api_keys.collect(),
            tokens: Cache::new(rules.tokens_max),
            absent: Cache::new(ABSENT_MAX),
            rules,
        }
    }

    /// Who presents this, if it was proven before. The look-up is by a digest, so its time tells nothing of a secret.
    pub fn known(&self, presented: &Presented<'_>, now_s: u64) -> Option<Arc<Principal>> {
        if let Some(known) = self.tokens.get(&(presented.fleet, presented.digest))
            && now_s < known.until_s
        {
            return Some(known.principal.clone());
        }
        self.api_keys.get(&presented.digest).cloned()
    }

    /// Proves a token and remembers it.
    pub fn prove(
        &self,
        presented: &Presented<'_>,
        audience: &[String],
        now_s: u64,
    ) -> Result<Arc<Principal>, Unproven> {
        let token = jws::Token::read(presented.text).map_err(Unproven::Wrong)?;
        let issuer = self.rules.issuers.iter().find(|issuer| Some(issuer.url.as_str()) == token.issuer());
        let issuer = issuer.ok_or(Unproven::Wrong("its issuer is not one of ours"))?;
        self.check_signature(issuer, &token, now_s)?;
        // Only from here on is anything in it more than a claim.
        let until_s =
            access::judge(&token.claims(), audience, self.rules.leeway, now_s).map_err(|refused| {
                Unproven::Wrong(match refused {
                    access::Refused::Incomplete => "it lacks a subject or an expiry",
                    access::Refused::Expired => "it has expired",
                    access::Refused::NotYet => "it is not valid yet",
                    access::Refused::ForeignAudience => "it was not issued for this resource",
                })
            })?;
        let weight = self.rules.weight_claim.as_deref().map_or(NonZeroU32::MIN, |claim| token.weight(claim));
        let principal = token.principal(&issuer.url, &self.rules.claims).weighing(weight);
        let principal = Arc::new(principal);
        let until_s = until_s.min(now_s + BELIEVED_S);
        let known = Arc::new(Known { principal: principal.clone(), until_s });
        self.tokens.insert((presented.fleet, presented.digest), known);
        Ok(principal)
    }

    fn check_signature(&self, issuer: &Issuer, token: &jws::Token<'_>, now_s: u64) -> Result<(), Unproven> {
        let algorithm = token.algorithm().filter(|algorithm| self.rules.algorithms.contains(algorithm));
        let algorithm = algorithm.ok_or(Unproven::Wrong("its algorithm is not allowed"))?;
        if issuer.keys.is_empty() {
            return Err(Unproven::NoKeys { issuer: issuer.url.clone() });
        }
        let named = |key: &&access::VerificationKey| match token.key_id() {
            // A `kid` is compared and nothing else: it names no file and no query.
            Some(kid) => key.kid.as_deref() == Some(kid),
            None => true,
        };
        let mut fitting = issuer.keys.iter().filter(named).filter(|key| key.checks(algorithm)).peekable();
        if fitting.peek().is_none() {
            let is_known = issuer.keys.iter().any(|key| named(&key));
            let key = key_digest(&issuer.url, token.key_id());
            return match is_known || self.absent.get(&key).is_some_and(|until| now_s < until) {
                // The key is here, but for other signatures; or its absence was found out a moment ago.
                true => Err(Unproven::Wrong("no key of its issuer fits")),
                false => Err(Unproven::UnknownKey { issuer: issuer.url.clone(), key }),
            };
        }
        match fitting.any(|key| signature::is_by(key, algorithm, token.signed(), token.signature())) {
            true => Ok(()),
            false => Err(Unproven::Wrong("its signature is wrong")),
        }
    }

    /// The issuer has no such key: it is not asked for again at once.
    pub fn note_absent(&self, key: TokenDigest, now_s: u64) {
        self.absent.insert(key, now_s + ABSENT_S);
    }
}

fn key_digest(issuer: &str, kid: Option<&str>) -> TokenDigest {
    sha256([issuer, "\n", kid.unwrap_or_default()].concat().as_bytes())
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut whole = [0; 32];
    whole.copy_from_slice(digest(&SHA256, bytes).as_ref());
    whole
}
