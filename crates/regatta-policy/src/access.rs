//! Who may call: what `[auth]` says, and the rules over claims whose signature somebody else has verified.
//!
//! Pure: takes claims and `now`, gives a verdict. It parses no token and checks no signature; that is the data
//! plane's, with the keys that stand here. Sources: RFC 9068 section 4, RFC 6750 section 3, RFC 8725.

use std::num::NonZeroU32;
use std::time::Duration;

use secrecy::SecretString;

use crate::glob::Glob;

/// The `[auth]` of a gateway: its servers are OAuth 2.1 resource servers from here on.
#[derive(Clone, Debug)]
pub struct Access {
    /// The public URI of the endpoint (RFC 8707); a bare origin stands for all endpoints, each with its own path.
    pub resource: Option<String>,
    /// Whose tokens are taken, and their keys as of now.
    pub issuers: Vec<Issuer>,
    /// Signatures that are taken. Symmetric ones and `none` have no name here at all.
    pub algorithms: Vec<Algorithm>,
    /// A token must be meant for one of these; empty: for the endpoint's own URI.
    pub audience: Vec<String>,
    /// How far the issuers' clocks may be off.
    pub leeway: Duration,
    /// Scopes that every request needs.
    pub required_scopes: Vec<String>,
    /// Scopes that calls of certain tools need besides.
    pub tool_scopes: Vec<ToolScopes>,
    /// Keys that stand in for tokens.
    pub api_keys: Vec<ApiKey>,
    /// What becomes of requests without credentials.
    pub anonymous: Anonymous,
    /// Claims that are kept of a token, for rules that name them.
    pub claims: Vec<String>,
    /// The claim that says what share of a full gateway or server a caller gets; none: everybody's is one.
    pub weight_claim: Option<String>,
    /// What the identity headers to servers are signed with; none: they are not sent.
    pub identity_secret: Option<SecretString>,
    /// Verified tokens that are remembered.
    pub tokens_max: usize,
}

/// An authorization server.
#[derive(Clone, Debug)]
pub struct Issuer {
    /// Its identifier, compared byte for byte with `iss`.
    pub url: String,
    /// Its public keys; none: they could not be had yet.
    pub keys: Vec<VerificationKey>,
}

/// One public key of an issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerificationKey {
    /// What tokens call it.
    pub kid: Option<String>,
    /// The only signature it is for, if its issuer says so.
    pub algorithm: Option<Algorithm>,
    /// The key itself.
    pub material: Material,
}

/// A public key by its kind. The kind decides which signatures it can check, never a token's header alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Material {
    /// Modulus and exponent, big-endian.
    Rsa {
        /// The modulus.
        n: Vec<u8>,
        /// The public exponent.
        e: Vec<u8>,
    },
    /// An uncompressed point of P-256.
    P256(Vec<u8>),
    /// An uncompressed point of P-384.
    P384(Vec<u8>),
    /// An Ed25519 key.
    Ed25519(Vec<u8>),
}

/// A signature algorithm of RFC 7518 or RFC 8037.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    Rs384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    Rs512,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// RSASSA-PSS with SHA-384.
    Ps384,
    /// RSASSA-PSS with SHA-512.
    Ps512,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
    /// Ed25519.
    EdDsa,
}

/// Scopes that calls of some tools need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolScopes {
    /// The tools.
    pub tool: Glob,
    /// All of these.
    pub scopes: Vec<String>,
}

/// An API key, by its digest: the key itself is nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// Who calls with it; two keys of one name are one principal, so that a key can be replaced.
    pub name: String,
    /// SHA-256 of the key.
    pub digest: [u8; 32],
    /// What it may do.
    pub scopes: Vec<String>,
    /// Its share of a full gateway or server, as a multiple of the least.
    pub weight: NonZeroU32,
}

/// The largest share.
pub const WEIGHT_MAX: u32 = 100;

/// The share that somebody was given; what is no share is the nearest one.
pub fn weight(given: u64) -> NonZeroU32 {
    let given = u32::try_from(given).unwrap_or(WEIGHT_MAX).min(WEIGHT_MAX);
    NonZeroU32::new(given).unwrap_or(NonZeroU32::MIN)
}

// A digest of a key that somebody chose badly can be guessed from: it is not shown either.
impl std::fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiKey")
            .field("name", &self.name)
            .field("scopes", &self.scopes)
            .finish_non_exhaustive()
    }
}

/// What becomes of a request without credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anonymous {
    /// 401.
    Refused,
    /// Served as nobody, under limits by address. Credentials that are wrong are refused all the same.
    Allowed,
}

/// What a control plane did when it was asked for a key that nobody knew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// It fetched; what it found is in the snapshot of this version and later ones.
    Found {
        /// The first snapshot with it.
        version: u64,
    },
    /// The issuer cannot be reached, so nobody knows.
    Away,
}

/// The claims that decide.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// Who the token is about.
    pub subject: Option<String>,
    /// Whom it is meant for.
    pub audience: Vec<String>,
    /// Its end, seconds since 1970.
    pub expires_s: Option<u64>,
    /// Its beginning, seconds since 1970.
    pub begins_s: Option<u64>,
}

/// Why claims are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// No subject, or no end: nobody could be held to it.
    Incomplete,
    /// Past its end.
    Expired,
    /// Before its beginning.
    NotYet,
    /// Meant for somebody else.
    ForeignAudience,
}

/// Judges verified claims; says until when (seconds since 1970) they hold.
pub fn judge(claims: &Claims, audience: &[String], leeway: Duration, now_s: u64) -> Result<u64, Refused> {
    let leeway = leeway.as_secs();
    let (Some(subject), Some(expires)) = (&claims.subject, claims.expires_s) else {
        return Err(Refused::Incomplete);
    };
    if subject.is_empty() {
        return Err(Refused::Incomplete);
    }
    let until = expires.saturating_add(leeway);
    if until <= now_s {
        return Err(Refused::Expired);
    }
    if claims.begins_s.is_some_and(|begins| now_s.saturating_add(leeway) < begins) {
        return Err(Refused::NotYet);
    }
    // MUST be issued for us (2026-07-28 basic/authorization, *Token Handling*): an empty list admits nobody.
    match claims.audience.iter().any(|meant| audience.contains(meant)) {
        true => Ok(until),
        false => Err(Refused::ForeignAudience),
    }
}

impl Access {
    /// All scopes that a call of `tool` needs, in the order of the config, each once.
    pub fn needed_for(&self, tool: Option<&str>) -> Vec<&str> {
        let mut needed: Vec<&str> = self.required_scopes.iter().map(String::as_str).collect();
        let rules = self.tool_scopes.iter().filter(|rule| tool.is_some_and(|tool| rule.tool.matches(tool)));
        for scope in rules.flat_map(|rule| &rule.scopes) {
            if !needed.contains(&scope.as_str()) {
                needed.push(scope);
            }
        }
        needed
    }

    /// Every scope that anything here asks for, each once: `scopes_supported` of RFC 9728.
    pub fn scopes(&self) -> Vec<&str> {
        let mut all: Vec<&str> = Vec::new();
        let rules = self.tool_scopes.iter().flat_map(|rule| &rule.scopes);
        for scope in self.required_scopes.iter().chain(rules) {
            if !all.contains(&scope.as_str()) {
                all.push(scope);
            }
        }
        all
    }

    /// The public URI of the endpoint under `path`, if the config names one.
    pub fn resource_at(&self, path: &str) -> Option<String> {
        self.resource.as_deref().map(|resource| resource_at(resource, path))
    }

    /// Whom tokens for the endpoint under `path` may be meant for.
    pub fn audience_at(&self, path: &str) -> Vec<String> {
        match self.audience.is_empty() {
            true => self.resource_at(path).into_iter().collect(),
            false => self.audience.clone(),
        }
    }
}

/// `resource` itself if it has a path, else with the endpoint's path.
pub fn resource_at(resource: &str, path: &str) -> String {
    let origin_end = resource.find("://").map_or(0, |at| at + 3);
    match resource[origin_end..].contains('/') {
        true => resource.to_owned(),
        false if path == "/" => resource.to_owned(),
        false => format!("{resource}{path}"),
    }
}

/// Where the metadata of `resource` lies: the well-known path between host and path (RFC 9728 section 3.1).
pub fn metadata_url(resource: &str) -> String {
    let origin_end = resource.find("://").map_or(0, |at| at + 3);
    let path = resource[origin_end..].find('/').map_or(resource.len(), |at| origin_end + at);
    let (origin, path) = resource.split_at(path);
    let path = if path == "/" { "" } else { path };
    format!("{origin}{METADATA_PATH}{path}")
}

/// The well-known path of RFC 9728.
pub const METADATA_PATH: &str = "/.well-known/oauth-protected-resource";

impl Algorithm {
    /// All of them.
    pub const ALL: [Algorithm; 9] = [
        Algorithm::Rs256,
        Algorithm::Rs384,
        Algorithm::Rs512,
        Algorithm::Ps256,
        Algorithm::Ps384,
        Algorithm::Ps512,
        Algorithm::Es256,
        Algorithm::Es384,
        Algorithm::EdDsa,
    ];

    /// Those that are taken unless the config says otherwise.
    pub const DEFAULT: [Algorithm; 3] = [Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa];

    /// Its name in `alg` (case-sensitive, RFC 7515 section 4.1.1).
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Rs256 => "RS256",
            Algorithm::Rs384 => "RS384",
            Algorithm::Rs512 => "RS512",
            Algorithm::Ps256 => "PS256",
            Algorithm::Ps384 => "PS384",
            Algorithm::Ps512 => "PS512",
            Algorithm::Es256 => "ES256",
            Algorithm::Es384 => "ES384",
            Algorithm::EdDsa => "EdDSA",
        }
    }

    /// The algorithm of this name.
    pub fn named(name: &str) -> Option<Algorithm> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }
}

impl VerificationKey {
    /// Whether this key may check signatures of `algorithm`.
    pub fn checks(&self, algorithm: Algorithm) -> bool {
        let fits = match (&self.material, algorithm) {
            (
                Material::Rsa { .. },
                Algorithm::Rs256
                | Algorithm::Rs384
                | Algorithm::Rs512
                | Algorithm::Ps256
                | Algorithm::Ps384
                | Algorithm::Ps512,
            )
            | (Material::P256(_), Algorithm::Es256)
            | (Material::P384(_), Algorithm::Es384)
            | (Material::Ed25519(_), Algorithm::EdDsa) => true,
            (Material::Rsa { .. } | Material::P256(_) | Material::P384(_) | Material::Ed25519(_), _) => false,
        };
        fits && self.algorithm.is_none_or(|only| only == algorithm)
    }
}

/// Words of a `scope` value (RFC 6749 section 3.3).
pub fn words(scope: &str) -> impl Iterator<Item = &str> {
    scope.split(' ').filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests;
