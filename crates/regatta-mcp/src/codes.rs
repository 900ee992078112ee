//! JSON-RPC error codes: the specification's, and Regatta's own.
//!
//! Own codes lie outside −32768…−32000, as the 2026-07-28 Base Protocol (Error Codes) asks of new ones; each
//! says in its `data` whether the call was executed.

/// The body is not JSON. HTTP 400.
pub const PARSE_ERROR: i32 = -32700;
/// JSON, but no JSON-RPC message that may be sent here. HTTP 400.
pub const INVALID_REQUEST: i32 = -32600;
/// Unknown method. HTTP 404 in the modern era, 200 in the legacy one (404 there ends the session).
pub const METHOD_NOT_FOUND: i32 = -32601;
/// Bad parameters, an unknown tool or resource, missing `_meta`.
pub const INVALID_PARAMS: i32 = -32602;
/// A fault of the gateway itself.
pub const INTERNAL_ERROR: i32 = -32603;

/// Legacy only: SDKs' code for an unknown session. Never sent in the modern era (Base Protocol, Error Codes).
pub const LEGACY_SESSION_NOT_FOUND: i32 = -32001;
/// Legacy only: resource not found; mapped to [`INVALID_PARAMS`] for modern clients.
pub const LEGACY_RESOURCE_NOT_FOUND: i32 = -32002;
/// Legacy only (2025-11-25): URL elicitation required; never sent by us.
pub const LEGACY_URL_ELICITATION_REQUIRED: i32 = -32042;

/// Modern: headers and body disagree, or a required header is missing or malformed. HTTP 400.
pub const HEADER_MISMATCH: i32 = -32020;
/// Modern: `data.requiredCapabilities` lists what the client did not declare. HTTP 400.
pub const MISSING_CLIENT_CAPABILITY: i32 = -32021;
/// Modern: `data.supported` lists the versions that are spoken here. HTTP 400.
pub const UNSUPPORTED_PROTOCOL_VERSION: i32 = -32022;

/// Written to a server and not answered: executed unknown. HTTP 200, which no client library repeats.
pub const OUTCOME_UNKNOWN: i32 = -31001;
/// Overloaded: queue full or waited too long; not executed. HTTP 503.
pub const OVERLOADED: i32 = -31002;
/// Rate limited; not executed. HTTP 429.
pub const RATE_LIMITED: i32 = -31003;
/// No replica could take it; not executed. HTTP 503.
pub const NO_REPLICA: i32 = -31004;
/// The session cannot be looked up now; not executed. HTTP 503.
pub const STORE_UNAVAILABLE: i32 = -31005;
/// Draining; not executed. HTTP 503 and `Connection: close`.
pub const DRAINING: i32 = -31006;
/// The keys that tokens are verified with cannot be had now; not executed. HTTP 503.
pub const KEYS_UNAVAILABLE: i32 = -31008;
/// The server's answer is unusable (malformed, too large): executed unknown. HTTP 200.
pub const UNUSABLE_ANSWER: i32 = -31007;
