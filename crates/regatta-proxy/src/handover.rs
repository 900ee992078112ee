//! What one stage hands to the next, in the order of a request's way.
//!
//! `Accepted → Identified → Admitted → Call → Allowed`, then `Errand → Answered` (`pipeline/exchange.rs`): a stage can only be entered with what the one
//! before it made, so the order of the checks is a fact the compiler knows. Nothing here acts.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderValue;
use http::request::Parts;
use regatta_mcp::era::Era;
use regatta_mcp::{Kind, Message};
use regatta_policy::quota::rule::Credential;

use crate::alarm::Alarm;
use crate::door::Door;
use crate::gate::Entry;
use crate::listener::Arrival;
use crate::principal::Principal;
use crate::quotas::ready::Shown;
use crate::slots::Permit;
use crate::view::ServerView;

/// The HTTP methods of the MCP endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    /// A message.
    Post,
    /// A standing stream, or the rest of a stream (legacy).
    Get,
    /// The end of a session (legacy).
    Delete,
}

/// A request that is meant for us, for a server that exists.
pub(crate) struct Accepted {
    pub server: Arc<ServerView>,
    pub arrival: Box<Arrival>,
}

/// Who calls, as far as anybody checked (SESSIONS 9).
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// What private results may be shared within: a digest of issuer and subject where `[auth]` checks, else of
    /// `Authorization`; zero for nobody.
    pub context: [u8; 16],
    /// Whose quotas this request uses: the context where there is one, else the address.
    pub account: Account,
    /// The address of the client: of the HTTP peer, or what trusted proxies say of it.
    pub ip: IpAddr,
    /// Scopes, claims and name of a caller that `[auth]` checked; none for nobody, and where nobody checks.
    pub principal: Option<Arc<Principal>>,
}

/// A claim of a verified token. What two issuers call the same need not be the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claimed<'a> {
    pub issuer: &'a str,
    pub value: &'a str,
}

impl Claimed<'_> {
    /// One for each value of each issuer.
    pub fn digest(&self) -> [u8; 16] {
        regatta_seal::digest16(&[b"claim", self.issuer.as_bytes(), self.value.as_bytes()])
    }
}

/// The key under which quotas are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Account(pub [u8; 16]);

impl Caller {
    /// Whether it shows who it is. Without `[auth]` nobody has checked it here: the servers do (SESSIONS 9).
    pub fn credential(&self) -> Credential {
        match self.context {
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0] => Credential::None,
            _digest => Credential::Given,
        }
    }

    /// What its token says under `name`, if `[auth]` keeps that claim.
    pub fn claim(&self, name: &str) -> Option<Claimed<'_>> {
        let principal = self.principal.as_ref()?;
        let (_, value) = principal.claims.iter().find(|(kept, _)| **kept == *name)?;
        Some(Claimed { issuer: &principal.issuer, value })
    }

    /// One key per IPv4 address, one per IPv6 /64: a whole /64 belongs to one subscriber.
    pub fn network(&self) -> [u8; 16] {
        network(self.ip)
    }
}

/// The key of an address, see [`Caller::network`].
pub(crate) fn network(ip: IpAddr) -> [u8; 16] {
    match ip.to_canonical() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => {
            let mut octets = v6.octets();
            octets[8..].fill(0);
            octets
        }
    }
}

/// A request with a caller.
pub(crate) struct Identified {
    pub accepted: Accepted,
    pub caller: Caller,
}

impl Accepted {
    /// By which address it came in.
    pub fn door(&self) -> Door {
        Door::of(&self.arrival.head, &self.arrival.peer)
    }
}

/// A request with a place and its whole body, not yet looked into.
pub(crate) struct Admitted {
    pub server: Arc<ServerView>,
    pub caller: Caller,
    pub arrival: Box<Arrival>,
    pub text: Bytes,
    pub permit: Permit,
}

/// One message from a client, understood and proven: headers agree with the body.
pub(crate) struct Call {
    pub server: Arc<ServerView>,
    pub caller: Caller,
    /// By which address it came in, where a challenge may have to say it.
    pub door: Option<Door>,
    pub head: Parts,
    pub text: Bytes,
    pub message: Subject,
    pub era: Era,
    pub permit: Permit,
    /// What it shows at its server's gate, where it has still to pass.
    pub entry: Option<Box<Entry>>,
    /// The timer of the task that the request came in.
    pub alarm: Alarm,
}

/// A call that is within its quotas, and charged to them.
pub(crate) struct Allowed {
    pub call: Box<Call>,
    /// What its client is told of them.
    pub shown: Shown,
}

/// What a body holds.
#[expect(clippy::large_enum_variant, reason = "one a call, and the large one is the ordinary case")]
pub(crate) enum Subject {
    /// One message.
    One(Message),
    /// A batch (2025-03-26 sessions only), passed on whole.
    Batch(Vec<Message>),
}

impl Call {
    /// The single message, if this is not a batch.
    pub fn one(&self) -> Option<&Message> {
        match &self.message {
            Subject::One(message) => Some(message),
            Subject::Batch(_) => None,
        }
    }

    /// The raw JSON text of the request's id, if it has one.
    pub fn id(&self) -> Option<Bytes> {
        let id = self.one()?.id?;
        Some(self.text.slice(id.raw.start as usize..id.raw.end as usize))
    }
}

impl Call {
    /// The raw JSON texts of the ids of a batch's requests, if there are any.
    pub fn batch(&self) -> Option<Arc<[Bytes]>> {
        let Subject::Batch(messages) = &self.message else { return None };
        let requests = messages.iter().filter(|message| message.kind == Kind::Request);
        let ids: Arc<[Bytes]> = requests
            .filter_map(|message| message.id)
            .map(|id| self.text.slice(id.raw.start as usize..id.raw.end as usize))
            .collect();
        (!ids.is_empty()).then_some(ids)
    }
}

/// One header's value as text, if it is there once and is text.
pub(crate) fn text_header<'a>(head: &'a Parts, name: &http::HeaderName) -> Option<&'a str> {
    head.headers.get(name).map(HeaderValue::to_str)?.ok()
}
