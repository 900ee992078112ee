//! A legacy session as data: what its token says, and what the store keeps beside it.
//!
//! No task, no memory: an idle session costs a node nothing, and every node that has the keys serves it. The record in
//! the store holds what changed since the handshake (log level, subscriptions); most sessions have none.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use regatta_policy::lifetime::{IssueDay, Lifetime, judge};
use regatta_policy::token::{Capabilities, LegacyVersion, PackedParams, SessionToken};
use regatta_store::{Cas, Etag, Store, StoreError, Uuid16, Versioned};
use rmcp::model::InitializeRequestParams;
use serde::{Deserialize, Serialize};

use crate::caller::Caller;
use crate::opened::{Opened, Says};
use crate::sealing::{Closed, Sealing, now_s};

/// Characters of a token.
const TOKEN_MAX: usize = 4096;
/// From issue to end, whatever happens (SESSIONS 8).
pub(crate) const LIFETIME_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// Resources a session may be subscribed to.
const SUBSCRIPTIONS_MAX: usize = 256;
/// Attempts to write a record that others write too.
const ATTEMPTS_MAX: usize = 16;

/// What changed in a session since its handshake.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRecord {
    /// The last `logging/setLevel`: `debug` to `emergency`, as on the wire.
    pub level: Option<String>,
    /// The URIs of `resources/subscribe`.
    pub subscriptions: BTreeSet<String>,
}

/// A session that is being served; a handler finds it in the extensions of its request.
#[derive(Clone, Debug)]
pub struct Session {
    /// Its random name.
    pub uuid: [u8; 16],
    /// The client's `initialize` params, with the version that was agreed.
    pub client: Arc<InitializeRequestParams>,
    /// What changed since, as of the arrival of this request.
    pub record: SessionRecord,
    pub(crate) issued_s: u32,
    /// What this server said at the handshake that it can do.
    pub(crate) can: Capabilities,
    etag: Option<Etag>,
}

impl Session {
    /// Whether streams of this session begin with an id (2025-11-25; clients of before do not expect an empty event).
    pub(crate) fn primes(&self) -> bool {
        self.client.protocol_version.as_str() >= LegacyVersion::V2025_11_25.as_str()
    }
}

/// Why a session is not served.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// It never was, or is over: 404.
    Gone,
    /// The store cannot say: 503.
    StoreAway,
    /// A bound of the session is reached, or too many write at once: told to the caller as an error.
    Bound(&'static str),
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Refused {
        match error {
            StoreError::Away(_) => Refused::StoreAway,
            StoreError::Full(what) | StoreError::TooLarge(what) => Refused::Bound(what),
        }
    }
}

/// All sessions of a server.
pub(crate) struct Sessions {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) sealing: Arc<Sealing>,
    /// The server's name, in each seal: a token of another server on the same store is none of ours.
    pub(crate) server: String,
    /// How long data of tools stays after its last use.
    pub(crate) data_life: Duration,
    /// Tokens that were opened, so that busy sessions are not opened again and again.
    pub(crate) opened: Opened,
}

impl Sessions {
    /// A token for a session that `caller` begins: `params` as the client sent them, and the result that it gets.
    ///
    /// # Errors
    /// What is wrong with the params, for the client.
    pub(crate) fn begin(
        &self,
        caller: Caller,
        params: &[u8],
        result: &serde_json::Value,
    ) -> Result<String, &'static str> {
        let version = result["protocolVersion"].as_str().and_then(LegacyVersion::named);
        let version = version.ok_or("the agreed protocol version has no sessions")?;
        let room = SessionToken::params_room(regatta_seal::plain_max(TOKEN_MAX));
        let (params, _) =
            PackedParams::fit(params, room).map_err(|_| "the params are too large for a session")?;
        let token = SessionToken {
            uuid: regatta_seal::random16(),
            fleet: [0; 8],
            version,
            capabilities: Capabilities::of_server(result["capabilities"].to_string().as_bytes()),
            issued_s: u32::try_from(now_s()).unwrap_or(u32::MAX),
            bindings: Vec::new(),
            params,
        };
        Ok(self.sealing.seal(&self.associated(&caller), &token.to_bytes()))
    }

    /// The session of a token, if it is this caller's; asks the store once when this process does not know it, and never again while it does.
    pub(crate) async fn find(&self, caller: Caller, token: &str) -> Result<Session, Refused> {
        let says = self.open(caller, token).await?;
        if judge(says.issued_s, now_s(), LIFETIME_MAX) == Lifetime::Past {
            return Err(Refused::Gone);
        }
        let record = self.meet(&says).await?;
        let etag = record.as_ref().map(|record| record.etag);
        let record = match &record {
            Some(record) => serde_json::from_slice(&record.value).unwrap_or_default(),
            None => SessionRecord::default(),
        };
        self.store.touch(&Uuid16(says.uuid));
        let Says { uuid, issued_s, can, ref client, .. } = *says;
        Ok(Session { uuid, client: client.clone(), record, issued_s, can, etag })
    }

    /// What a token of this caller's says.
    async fn open(&self, caller: Caller, token: &str) -> Result<Arc<Says>, Refused> {
        if let Some(says) = self.opened.get(caller, token) {
            return Ok(says);
        }
        let (text, digest) = (token, digest(token));
        let plain = self.sealing.open(&*self.store, &self.associated(&caller), token).await;
        let plain = plain.map_err(|closed| match closed {
            Closed::Foreign => Refused::Gone,
            Closed::StoreAway => Refused::StoreAway,
        })?;
        let token = SessionToken::from_bytes(&plain).map_err(|_| Refused::Gone)?;
        let params = token.params.unpack().map_err(|_| Refused::Gone)?;
        let params_bytes = params.len();
        let mut params: serde_json::Value = serde_json::from_slice(&params).map_err(|_| Refused::Gone)?;
        params["protocolVersion"] = token.version.as_str().into();
        let client = serde_json::from_value(params).map_err(|_| Refused::Gone)?;
        let SessionToken { uuid, issued_s, capabilities: can, .. } = token;
        let says = Arc::new(Says { uuid, issued_s, can, client: Arc::new(client), digest, params_bytes });
        self.opened.keep(caller, text, says.clone());
        Ok(says)
    }

    async fn meet(&self, says: &Says) -> Result<Option<Arc<Versioned>>, Refused> {
        use regatta_store::{Buried, Grave, Warm};
        let (day, digest) = (IssueDay::of(says.issued_s).0, says.digest);
        let uuid = Uuid16(says.uuid);
        match (self.store.buried(day, &digest), self.store.warm(&uuid)) {
            (Buried::Yes, _) => Err(Refused::Gone),
            (Buried::No, Warm::None) => Ok(None),
            (Buried::No, Warm::Some(record)) => Ok(Some(record)),
            (Buried::No | Buried::Ask, _) => {
                let met = self.store.meet(&uuid, day, digest).await?;
                if met.grave == Grave::Dug { Err(Refused::Gone) } else { Ok(met.record) }
            }
        }
    }

    /// Changes the record, whoever else does at the same time.
    pub(crate) async fn change(
        &self,
        session: &Session,
        change: impl Fn(&mut SessionRecord),
    ) -> Result<(), Refused> {
        let uuid = Uuid16(session.uuid);
        let (mut record, mut etag) = (session.record.clone(), session.etag);
        for _ in 0..ATTEMPTS_MAX {
            change(&mut record);
            if record.subscriptions.len() > SUBSCRIPTIONS_MAX {
                return Err(Refused::Bound("too many subscriptions in this session"));
            }
            let value = Bytes::from(serde_json::to_vec(&record).map_err(|_| Refused::Bound("the record"))?);
            let next = Versioned { etag: Etag(regatta_seal::random16()), value };
            match self.store.compare_and_set(&uuid, etag, next).await? {
                Cas::Done => return Ok(()),
                // Another node would not see it: with a store that is away the session cannot change.
                Cas::KeptHere => return Err(Refused::StoreAway),
                Cas::Lost(now) => {
                    etag = now.as_ref().map(|now| now.etag);
                    let read = now.as_ref().map(|now| serde_json::from_slice(&now.value).unwrap_or_default());
                    record = read.unwrap_or_default();
                }
            }
        }
        Err(Refused::Bound("too many changes of this session at once"))
    }

    /// Ends a session for all nodes.
    pub(crate) async fn end(&self, session: &Session, token: &str) -> Result<(), Refused> {
        self.store.bury(IssueDay::of(session.issued_s).0, digest(token)).await?;
        // The tombstone is what counts; a record that stays goes by itself, and so does data. Writes of whoever slept through
        // the end are refused for as long as data lives.
        let space = crate::data::space_of_session(session.uuid);
        let _ = self.store.end_space(&space, self.data_life).await;
        let _ = self.store.forget(&Uuid16(session.uuid)).await;
        Ok(())
    }

    fn associated<'a>(&'a self, caller: &'a Caller) -> [&'a [u8]; 3] {
        [b"regatta-node", self.server.as_bytes(), &caller.0]
    }
}

fn digest(token: &str) -> [u8; 16] {
    regatta_seal::digest16(&[b"node session", token.as_bytes()])
}
