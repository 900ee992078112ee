//! `[auth]`: whose tokens and keys are taken, what they must allow, and what servers are told of who calls.
//!
//! Reads no file and no key: a secret is a place that the control plane looks at later. What was written as a secret is
//! never shown. Without `[auth]` nobody checks here (SESSIONS 9).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use regatta_policy::Glob;
use regatta_policy::access::{Access, Algorithm, Anonymous, ApiKey, Issuer, ToolScopes, WEIGHT_MAX, weight};
use secrecy::SecretString;

use super::raw::{Found, Section};
use crate::keys::{IssuerPlan, KeysAt, key_place};

/// Who may call, before any key was fetched.
#[derive(Clone, Debug)]
pub struct Auth {
    /// The rules; their issuers have no keys yet.
    pub access: Arc<Access>,
    /// Where the issuers' keys are.
    pub issuers: Vec<IssuerPlan>,
    /// What identity headers are signed with; none: they are not sent.
    pub identity_secret: Option<SecretPlace>,
}

/// Where a secret is.
#[derive(Clone, Debug)]
pub enum SecretPlace {
    /// In the config.
    Text(SecretString),
    /// In a file, read again when it changes.
    File(PathBuf),
    /// In a variable of the process.
    Variable(String),
}

/// Bytes of an identity secret that is worth something.
pub const IDENTITY_SECRET_MIN: usize = 32;

const SCOPE: &str = "a scope: visible ASCII without blanks, \" and \\";
const SECOND: Duration = Duration::from_secs(1);

/// Reads `[auth]`.
pub fn auth(section: &Section<'_>) -> Auth {
    let refresh = section.time("keys_refresh", 600 * SECOND, SECOND..=86_400 * SECOND);
    let issuers = issuers(section, refresh);
    let api_keys = api_keys(section);
    let access = Access {
        resource: section.get("resource", None, RESOURCE, |found| resource(found).map(Some)),
        issuers: issuers.iter().map(|plan| Issuer { url: plan.url.clone(), keys: Vec::new() }).collect(),
        algorithms: algorithms(section),
        audience: section.list("audience", "a non-empty text", text),
        leeway: section.time("clock_leeway", 30 * SECOND, Duration::ZERO..=300 * SECOND),
        required_scopes: section.list("required_scopes", SCOPE, scope),
        tool_scopes: tool_scopes(section),
        api_keys,
        anonymous: section.choice(
            "anonymous",
            Anonymous::Refused,
            &[("refuse", Anonymous::Refused), ("allow", Anonymous::Allowed)],
        ),
        claims: section.list("claims", "the name of a claim", text),
        weight_claim: section.get("weight_claim", None, "the name of a claim", |found| text(found).map(Some)),
        identity_secret: None,
        tokens_max: section.count("token_cache_max", 8192, 1..=1_000_000),
    };
    // What was written and does not fit has been told already.
    if section.find("issuer").is_none() && section.find("api_key").is_none() {
        let hint = "[[auth.issuer]] with url = \"https://login.example\", or [[auth.api_key]]";
        section.miss(
            "[auth] names nobody who could be let in".to_owned(),
            "an issuer or an API key",
            Some(hint),
        );
    }
    if !access.issuers.is_empty() && access.resource.is_none() && access.audience.is_empty() {
        let hint = "resource = \"https://mcp.example/mcp\", the URI that clients know this endpoint by";
        section.miss(
            "[auth] does not say whom tokens must be meant for".to_owned(),
            "resource or audience",
            Some(hint),
        );
    }
    Auth { access: Arc::new(access), issuers, identity_secret: identity(section) }
}

/// Complains about one URI for several endpoints: a token for one of them would open all.
pub fn fits(section: &Section<'_>, auth: &Auth, servers: usize) {
    let names_one = |uri: &String| uri.split_once("://").is_some_and(|(_, rest)| rest.contains('/'));
    if servers > 1 && auth.access.resource.as_ref().is_some_and(names_one) {
        let hint = "write the origin alone: resource = \"https://mcp.example\"; each server's path is added";
        let what = format!("auth.resource names one endpoint, but there are {servers} servers");
        section.miss(what, "a URI without a path", Some(hint));
    }
}

const RESOURCE: &str = "the public URI of the endpoint: http(s), no query, no fragment";

fn resource(found: &Found<'_>) -> Option<String> {
    let uri = found.text()?;
    let rest = uri.strip_prefix("https://").or_else(|| uri.strip_prefix("http://"))?;
    let fits = |byte: u8| byte.is_ascii_graphic() && !b"\"\\?#<>".contains(&byte);
    let sound = !rest.is_empty() && !rest.starts_with('/') && rest.bytes().all(fits) && !rest.contains('@');
    sound.then(|| uri.to_owned())
}

fn text(found: &Found<'_>) -> Option<String> {
    found.text().filter(|text| !text.is_empty()).map(str::to_owned)
}

fn scope(found: &Found<'_>) -> Option<String> {
    let fits = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
    text(found).filter(|scope| scope.bytes().all(fits))
}

fn algorithms(section: &Section<'_>) -> Vec<Algorithm> {
    let names: Vec<&str> = Algorithm::ALL.into_iter().map(Algorithm::name).collect();
    let expected = format!("one of {}; symmetric ones and none are never taken", names.join(", "));
    let listed = section.list("algorithms", &expected, |found| Algorithm::named(found.text()?));
    if listed.is_empty() { Algorithm::DEFAULT.to_vec() } else { listed }
}

fn issuers(section: &Section<'_>, refresh: Duration) -> Vec<IssuerPlan> {
    let mut plans: Vec<IssuerPlan> = Vec::new();
    for issuer in section.tables("issuer", "[[auth.issuer]], once an issuer") {
        let url = issuer.get("url", None, ISSUER, |found| issuer_url(found).map(Some));
        let place = |found: &Found<'_>| key_place(found.text()?).ok();
        let jwks_url =
            issuer.get("jwks_url", None, "an https URL with a path", |found| place(found).map(Some));
        let jwks_file =
            issuer.get("jwks_file", None, "a path", |found| text(found).map(|p| Some(PathBuf::from(p))));
        let keys = match (jwks_url, jwks_file) {
            (None, None) => KeysAt::Discovered,
            (Some(at), None) => KeysAt::Url(at),
            (None, Some(path)) => KeysAt::File(path),
            (Some(at), Some(_)) => {
                issuer.miss(
                    "jwks_url and jwks_file stand together".to_owned(),
                    "one of them, or neither",
                    None,
                );
                KeysAt::Url(at)
            }
        };
        match url {
            None if issuer.find("url").is_none() => {
                issuer.miss("an issuer has no url".to_owned(), ISSUER, None);
            }
            None => {}
            Some(url) if plans.iter().any(|plan| plan.url == url) => {
                issuer.miss(format!("the issuer {url} stands twice"), "each issuer once", None);
            }
            Some(url) => plans.push(IssuerPlan { url, keys, refresh }),
        }
        issuer.finish();
    }
    plans
}

const ISSUER: &str = "the issuer's identifier, an https URL exactly as in its tokens";

fn issuer_url(found: &Found<'_>) -> Option<String> {
    let url = found.text()?;
    // With a path, because a bare origin is a sound issuer.
    let probe = if url.matches('/').count() > 2 { url.to_owned() } else { format!("{url}/") };
    let sound = key_place(&probe).is_ok() && !url.contains(['?', '"', '\\']);
    sound.then(|| url.to_owned())
}

fn tool_scopes(section: &Section<'_>) -> Vec<ToolScopes> {
    let mut rules = Vec::new();
    for rule in section.tables("scope", "[[auth.scope]], once a rule") {
        let tool =
            rule.get("tool", None, "a tool name; * stands for any letters", |found| text(found).map(Some));
        let scopes = rule.list("scopes", SCOPE, scope);
        match (tool, scopes.is_empty()) {
            (Some(tool), false) => rules.push(ToolScopes { tool: Glob::new(tool), scopes }),
            (_, _) => rule.miss("a scope rule is not whole".to_owned(), "tool and scopes", None),
        }
        rule.finish();
    }
    rules
}

fn api_keys(section: &Section<'_>) -> Vec<ApiKey> {
    let mut keys = Vec::new();
    for key in section.tables("api_key", "[[auth.api_key]], once a key") {
        let name = key.get("name", None, "who calls with it", |found| text(found).map(Some));
        let digest = key.find("sha256").map(|found| found.text().and_then(digest));
        let scopes = key.list("scopes", SCOPE, scope);
        let weight = weight(key.count("weight", 1, 1..=WEIGHT_MAX as usize) as u64);
        match (name, digest) {
            (Some(name), Some(Some(digest))) => keys.push(ApiKey { name, digest, scopes, weight }),
            (Some(_), Some(None)) => {
                let hint = "printf %s \"$KEY\" | sha256sum, of a key made by `openssl rand -hex 32`";
                key.miss("auth.api_key.sha256 is no digest".to_owned(), "64 hexadecimal digits", Some(hint));
            }
            (_, _) => key.miss("an API key is not whole".to_owned(), "name and sha256", None),
        }
        key.finish();
    }
    keys
}

fn digest(text: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (at, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[at * 2..at * 2 + 2], 16).ok()?;
    }
    Some(digest)
}

/// Identity headers need a secret that somebody chose: there is no default that others could know (RELIABILITY T15).
fn identity(section: &Section<'_>) -> Option<SecretPlace> {
    let is_on = section.get("identity_headers", false, "true or false", Found::flag);
    let places = [
        secret(section, "identity_secret", |text| {
            (IDENTITY_SECRET_MIN <= text.len()).then(|| SecretPlace::Text(text.to_owned().into()))
        }),
        secret(section, "identity_secret_file", |text| Some(SecretPlace::File(text.into()))),
        secret(section, "identity_secret_env", |text| Some(SecretPlace::Variable(text.to_owned()))),
    ];
    let mut places: Vec<SecretPlace> = places.into_iter().flatten().collect();
    let expected =
        "exactly one of identity_secret (32 bytes or more), identity_secret_file, identity_secret_env";
    let hint = "make one with `openssl rand -hex 32`";
    match (is_on, places.len()) {
        (false, 0) => None,
        (true, 1) => places.pop(),
        (true, _) => {
            section.miss("auth.identity_headers has no secret to sign with".to_owned(), expected, Some(hint));
            None
        }
        (false, _) => {
            let what = "a secret for identity headers stands without identity_headers = true".to_owned();
            section.miss(what, "both, or neither", None);
            None
        }
    }
}

/// A text under `key` that may be a secret: a complaint does not show it.
pub(super) fn secret<T>(
    section: &Section<'_>,
    key: &'static str,
    read: impl Fn(&str) -> Option<T>,
) -> Option<T> {
    let found = section.find(key)?;
    let value = found.text().filter(|text| !text.is_empty()).and_then(read);
    if value.is_none() {
        section.miss(
            format!("{key} cannot be used"),
            "a text that fits (what was written is not shown)",
            None,
        );
    }
    value
}

#[cfg(test)]
mod tests;
