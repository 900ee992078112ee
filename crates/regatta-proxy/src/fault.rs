//! Why a request gets an answer of our own: one closed list of facts.
//!
//! A fault knows nothing of HTTP or JSON-RPC; `encode/fault.rs` is the only place that turns one into a
//! status, a code, headers and words. Stages return it as soon as they know.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use regatta_mcp::Malformed;
use regatta_mcp::era::Era;
use regatta_mcp::modern::ModernFault;

use crate::quotas::ready::{Ready, Shown};

/// A fact that ends a request's way early.
#[derive(Debug)]
pub(crate) enum Fault {
    /// No `Host`, two of them, or one that is no authority (RFC 9112 3.2).
    BadHost,
    /// `Host` (or the absolute form's authority) is not ours.
    ForeignHost,
    /// `Origin` is not let in.
    ForeignOrigin,
    /// Nothing lives under this path.
    NoSuchPath,
    /// Who calls is not proven, or may not do this.
    Refused(Box<Challenge>),
    /// Whether a credential is good cannot be found out now: its issuer's keys are out of reach.
    KeysAway,
    /// The server does not take what this gateway shows it of itself. Nothing ran.
    CredentialRefused,
    /// The HTTP method does not fit; `allow` does.
    BadVerb { allow: &'static str },
    /// `Content-Type` is not JSON, or there is a `Content-Encoding`.
    BadContentType,
    /// `Accept` does not list what MCP demands.
    NotAcceptable,
    /// A `Transfer-Encoding` other than chunked.
    BadTransferCoding,
    /// A header that must stand once stands twice, or is not text.
    BadHeader { name: &'static str },
    /// The body is larger than `body_max`.
    BodyTooLarge,
    /// The body did not arrive in time.
    BodyTimeout,
    /// The body broke off.
    BodyBroken,
    /// A GET or DELETE came with a body.
    BodyUnexpected,
    /// Every place is taken, and so is the queue, or the wait was too long.
    Overloaded,
    /// This gateway is leaving.
    Draining,
    /// Not JSON, or not a JSON-RPC message.
    Malformed { fault: Malformed, id: Option<Bytes> },
    /// A rule of the modern era is broken.
    Modern(ModernFault),
    /// A batch where none may be.
    BatchRefused,
    /// `MCP-Protocol-Version` names no version (legacy).
    BadVersion,
    /// `initialize` lacks what it needs, or is too large for a token.
    BadInitialize { why: &'static str },
    /// `initialize` inside a live session.
    SecondInitialize,
    /// A GET or DELETE without `Mcp-Session-Id`.
    SessionRequired,
    /// The session is not there: never was, is past, was ended, or belongs to somebody else.
    NoSuchSession,
    /// The session's sealing key, or the store, is out of reach.
    StoreAway,
    /// A rule for how much a caller may ask for refused it.
    Limited(Box<Limited>),
    /// A session subscribes to too much.
    TooManySubscriptions,
    /// Too many open streams of one caller.
    TooManyStreams,
    /// Another standing stream of the session is open.
    StreamTaken,
    /// `Last-Event-ID` is not one of ours, or not of this session.
    UnusableEventId,
    /// The rest of a stream cannot be had any more.
    StreamLost,
    /// No replica can take this now; it did not run.
    NoReplica,
    /// No replica of the server speaks the request's era.
    EraNotSpoken,
    /// A handle was made by a replica that is not there.
    MakerGone,
    /// A handle is not one of ours.
    BadHandle,
    /// Written upstream and lost: nobody knows whether it ran.
    OutcomeUnknown { why: &'static str },
    /// The upstream's answer cannot be used.
    BadAnswer { why: &'static str },
}

/// Which rule refused a request, and how all its rules stand.
#[derive(Debug)]
pub(crate) struct Limited {
    pub ready: Arc<Ready>,
    pub retry_after: Duration,
    pub shown: Shown,
}

/// What a client that was refused needs to know (2026-07-28 basic/authorization, *Error Handling*).
#[derive(Debug)]
pub(crate) struct Challenge {
    pub problem: Problem,
    /// All scopes that the request needs.
    pub scopes: Vec<String>,
    /// Where the protected resource's metadata lies (RFC 9728).
    pub metadata: String,
}

/// What is wrong with a request's credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Problem {
    /// There is none, and one is needed.
    Missing,
    /// It is of another scheme than Bearer.
    OtherScheme,
    /// It stands in the query, where no credential may be.
    InQuery,
    /// It has no form that a credential could have, or there are two.
    Malformed,
    /// It proves nothing.
    Invalid { why: &'static str },
    /// It is good, but not for this.
    Scope,
}

/// A fault together with whom it is told to.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub fault: Fault,
    pub asker: Asker,
}

/// What the shape of an answer depends on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asker {
    /// Raw JSON text of the request's id.
    pub id: Option<Bytes>,
    /// The same of each request of a batch, if it has any.
    pub batch: Option<Arc<[Bytes]>>,
    /// The request's era, once it is known.
    pub era: Option<Era>,
    /// Whether the request belongs to a live legacy session.
    pub place: Place,
}

impl Asker {
    /// Whether a response is waited for: not after notifications, answers, or batches of these.
    pub fn waits(&self) -> bool {
        self.id.is_some() || self.batch.is_some()
    }
}

/// Where an answer is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Place {
    /// Outside any session.
    #[default]
    Outside,
    /// A message inside a live legacy session: 503-class faults ride on HTTP 200, or on 202 if nothing waits for a response
    /// (DESIGN 5.4).
    Session,
}

impl Fault {
    /// This fault, told to nobody in particular.
    pub fn alone(self) -> Refusal {
        Refusal { fault: self, asker: Asker::default() }
    }

    /// This fault, told to `asker`.
    pub fn told(self, asker: &Asker) -> Refusal {
        Refusal { fault: self, asker: asker.clone() }
    }
}
