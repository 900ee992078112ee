//! From a server's `initialize` answer to the token that its client will carry (SESSIONS 1).

use http::HeaderValue;
use regatta_mcp::Skim;
use regatta_policy::ReplicaId;
use regatta_policy::token::{Binding, Capabilities, LegacyVersion, PackedParams, SessionToken};
use regatta_seal::Purpose;

use crate::fault::Fault;
use crate::gateway::Gateway;
use crate::realm::Realm;
use crate::view::ServerView;

/// Bytes that a sealed token has beside its content: format, fingerprint, nonce, tag.
const SEAL_OVERHEAD: usize = 1 + 4 + 12 + 16;

/// The client's params, packed so that a token with them fits `token_max`.
pub(crate) fn pack(server: &ServerView, params: &[u8]) -> Result<PackedParams, Fault> {
    // base64url: four characters for three bytes.
    let plain_max = (server.limits.token_max / 4 * 3).saturating_sub(SEAL_OVERHEAD);
    let room = SessionToken::params_room(plain_max);
    let (packed, _) = PackedParams::fit(params, room)
        .map_err(|_| Fault::BadInitialize { why: "the params of initialize are too large for a session" })?;
    Ok(packed)
}

/// What the server answered.
pub(crate) struct Negotiated<'a> {
    pub text: &'a [u8],
    pub skim: &'a Skim,
}

impl Negotiated<'_> {
    /// The version that holds from now on, if it is a legacy one.
    pub fn version(&self) -> Option<LegacyVersion> {
        LegacyVersion::named(&self.skim.protocol_version?.get(self.text))
    }

    /// What the server declared.
    pub fn capabilities(&self) -> Capabilities {
        self.skim.capabilities.map_or(Capabilities(0), |span| Capabilities::of_server(span.of(self.text)))
    }
}

/// The token of a new session.
pub(crate) fn mint(
    gateway: &Gateway,
    server: &ServerView,
    realm: Realm,
    replica: ReplicaId,
    upstream_session: &HeaderValue,
    negotiated: &Negotiated<'_>,
    params: PackedParams,
) -> Result<HeaderValue, Fault> {
    let version = negotiated.version().ok_or(Fault::BadAnswer { why: "it negotiated no known version" })?;
    let upstream_session =
        upstream_session.to_str().map_err(|_| Fault::BadAnswer { why: "its session id is not text" })?;
    let token = SessionToken {
        uuid: regatta_seal::random16(),
        fleet: server.fleet,
        version,
        capabilities: negotiated.capabilities(),
        issued_s: gateway.clock.wall_seconds(),
        bindings: vec![Binding { replica, upstream_session: Some(upstream_session.to_owned()) }],
        params,
    };
    let ring = gateway.ring.load();
    let sealed = realm.with(|parts| ring.seal(Purpose::Session, parts, &token.to_bytes()));
    if sealed.len() > server.limits.token_max {
        return Err(Fault::BadInitialize { why: "the session token would be larger than token_max" });
    }
    HeaderValue::try_from(sealed).map_err(|_| Fault::BadAnswer { why: "its session cannot be named" })
}
