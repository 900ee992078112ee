//! The `_meta` keys that the gateway reads or writes (2026-07-28, Base Protocol, `_meta`).

/// Version of this request; required in the modern era.
pub const PROTOCOL_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
/// What the client can do; required in the modern era.
pub const CLIENT_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
/// Who the client says it is; never used for decisions.
pub const CLIENT_INFO: &str = "io.modelcontextprotocol/clientInfo";
/// Least level of log messages wanted for this request.
pub const LOG_LEVEL: &str = "io.modelcontextprotocol/logLevel";
/// The id of the `subscriptions/listen` request that a notification belongs to.
pub const SUBSCRIPTION_ID: &str = "io.modelcontextprotocol/subscriptionId";
/// Asks for progress notifications.
pub const PROGRESS_TOKEN: &str = "progressToken";
/// W3C Trace Context, unprefixed by exception (SEP-414).
pub const TRACEPARENT: &str = "traceparent";
/// W3C Trace Context, unprefixed by exception (SEP-414).
pub const TRACESTATE: &str = "tracestate";
/// W3C Baggage, unprefixed by exception (SEP-414).
pub const BAGGAGE: &str = "baggage";
/// Ours: repeats under the same key are one call.
pub const IDEMPOTENCY_KEY: &str = "io.regatta/idempotencyKey";
/// Ours: set on the first result after a session was re-homed.
pub const SESSION_RESUMED: &str = "io.regatta/sessionResumed";
/// Ours: whether a result came out of the cache, and how old it is.
pub const CACHE: &str = "io.regatta/cache";
