//! Results of tools that are kept on the node: the gateway's cache (`regatta-cache`), its keys and its rules, for nodes that
//! run without one.
//!
//! Kept in this process; each node has its own. Nothing that failed, asked its client something or is not whole is kept.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use http::request::Parts;
use regatta_cache::{
    About, Fields, Form, Joined, Kept, Landing, LocalKey, Looked, Patience, Purges, ResultCache, ScopeValue,
    Status, Tallied, Tally, call_digest, outcome,
};
use regatta_policy::Micros;
use regatta_policy::cache::{Keeping as Verdict, Life, Rule, Telling};
use regatta_policy::glob::Glob;
use rmcp::ServerHandler;
use rmcp::model::{CallToolRequestParams, CallToolResponse, CallToolResult, ErrorData};
use rmcp::service::{RequestContext, RoleServer};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::given::given;
use crate::session::Session;

/// Bytes of all that is kept, and of one result.
pub(crate) const BYTES_MAX: u64 = 64 << 20;
const RESULT_BYTES_MAX: usize = 1 << 20;
/// How long a call waits for an equal one that runs.
const PATIENCE: Duration = Duration::from_secs(600);

/// Who shares a kept result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shared {
    /// Callers with the same authorization context (`session_binding`).
    Principal,
    /// Everybody. Only for what is the same for all.
    Public,
    /// One legacy session; calls without one are not kept.
    Session,
}

/// A tool whose results are kept.
pub(crate) struct Keep {
    rule: Rule,
    shared: Shared,
    tally: Arc<Tally>,
}

/// All rules, and what is kept under them.
pub(crate) struct Keeping {
    server: String,
    rules: BTreeMap<String, Keep>,
    cache: Arc<ResultCache>,
    purges: Arc<Purges>,
    epoch: Instant,
}

impl Default for Keeping {
    fn default() -> Keeping {
        Keeping::new("", BTreeMap::new())
    }
}

impl Keeping {
    pub(crate) fn new(server: &str, rules: BTreeMap<String, (Duration, Shared)>) -> Keeping {
        let keep = |tool: &str, (ttl, shared): (Duration, Shared)| Keep {
            rule: Rule {
                tool: Glob::new(tool),
                scope: match shared {
                    Shared::Principal => regatta_policy::cache::Scope::Principal,
                    Shared::Public => regatta_policy::cache::Scope::Public,
                    Shared::Session => regatta_policy::cache::Scope::Session,
                },
                life: Life::plain(ttl),
                max_bytes: RESULT_BYTES_MAX,
                invalidated_by: Vec::new(),
                telling: Telling::Silent,
            },
            shared,
            tally: Arc::default(),
        };
        let rules = rules.into_iter().map(|(tool, terms)| (tool.clone(), keep(&tool, terms))).collect();
        Keeping {
            server: server.to_owned(),
            rules,
            cache: ResultCache::new(BYTES_MAX),
            purges: Arc::default(),
            epoch: Instant::now(),
        }
    }

    /// The rule for a tool.
    pub(crate) fn rule(&self, tool: &str) -> Option<&Keep> {
        self.rules.get(tool)
    }

    /// What became of calls of kept tools, by tool.
    pub(crate) fn tallies(&self) -> impl Iterator<Item = (&str, Tallied)> {
        self.rules.iter().map(|(tool, keep)| (tool.as_str(), keep.tally.now()))
    }

    /// Answers a call from what is kept, or with what the handler says, which is then kept if it may be.
    pub(crate) async fn call<H: ServerHandler>(
        &self,
        keep: &Keep,
        handler: &H,
        call: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let Some((key, about)) = self.key(keep, &call, &context) else {
            return handler.call_tool(call, context).await;
        };
        let begun = Instant::now();
        loop {
            if let Looked::Found { kept, status, .. } =
                self.cache.look(&key, self.now(), regatta_seal::random_u64(), || about.clone())
            {
                return told(&kept, status);
            }
            match self.cache.join(key, about.clone(), None, self.now()) {
                Joined::Found(kept) => return told(&kept, Status::Hit),
                Joined::Lead(lead) => {
                    keep.tally.miss();
                    let clock = given(&context.extensions).map(|given| given.clock.clone());
                    let result = handler.call_tool(call, context).await;
                    // What a client was asked for is no part of the key.
                    let has_asked = clock.is_some_and(|clock| clock.has_paused());
                    let whole = result.as_ref().ok().filter(|_| !has_asked);
                    match whole.and_then(|result| self.worth_keeping(keep, result)) {
                        Some((form, life)) => _ = lead.keep(form, life, self.now()),
                        // Counted there.
                        None => lead.pass(),
                    }
                    return result;
                }
                Joined::Wait(waiter) => {
                    let patience = Patience { silence: PATIENCE, whole: PATIENCE };
                    match waiter.landing(begun, patience).await {
                        Some(Landing::Kept(kept) | Landing::Spare(kept)) => return told(&kept, Status::Hit),
                        Some(Landing::Passed) | None => {
                            return handler.call_tool(call, context).await;
                        }
                        // Whoever ran it is gone: one of those who wait runs it.
                        Some(Landing::Lost) => {}
                    }
                }
            }
        }
    }

    /// The key of a call's result; none if it depends on more than a key can hold.
    fn key(
        &self,
        keep: &Keep,
        call: &CallToolRequestParams,
        context: &RequestContext<RoleServer>,
    ) -> Option<(LocalKey, About)> {
        let params = call;
        if params.input_responses.is_some() || params.request_state.is_some() {
            return None;
        }
        let parts = context.extensions.get::<Parts>()?;
        let (headers, caller) = (&parts.headers, given(&context.extensions)?.caller.0);
        let session = context.extensions.get::<Session>();
        let scope = match keep.shared {
            Shared::Principal => ScopeValue::Principal(&caller),
            Shared::Public => ScopeValue::Public,
            Shared::Session => ScopeValue::Session(&session?.uuid),
        };
        let mut told = serde_json::to_value(params).ok()?;
        told["_meta"] = serde_json::to_value(&context.meta).ok()?;
        let told = regatta_mcp::canonical_params(told.to_string().as_bytes())?;
        let arguments = serde_json::to_vec(&params.arguments).ok()?;
        let arguments = regatta_mcp::canonical(&arguments)?;
        let version = context.protocol_version();
        let key = self.cache.name(&Fields {
            fleet: b"node",
            server: &self.server,
            method: "tools/call",
            tool: &params.name,
            // One process, one definition.
            schema: 0,
            scope,
            surroundings: &surroundings(headers, keep.shared),
            policy: keep.rule.version(),
            version: version.as_ref().map_or("", |version| version.as_str()),
            place: if session.is_some() { "session" } else { "" },
            params: &told,
        });
        let about = About {
            purges: self.purges.clone(),
            shared: None,
            tally: keep.tally.clone(),
            tool: params.name.as_ref().into(),
            principal: (keep.shared != Shared::Public).then_some(caller),
            call: call_digest(&params.name, &arguments),
        };
        Some((key, about))
    }

    fn worth_keeping(&self, keep: &Keep, result: &CallToolResponse) -> Option<(Form, Life)> {
        let CallToolResponse::Complete(result) = result else { return None };
        let text = json!({"jsonrpc": "2.0", "id": 0, "result": result}).to_string();
        let seen = regatta_mcp::skim(text.as_bytes()).ok()?;
        match keep.rule.keeping(outcome(&seen, text.as_bytes()), text.len()) {
            Verdict::Kept(life) => Some((Form::of(text.as_bytes(), &seen, Telling::Silent)?, life)),
            Verdict::Passed => None,
        }
    }

    fn now(&self) -> Micros {
        Micros(u64::try_from(self.epoch.elapsed().as_micros()).unwrap_or(u64::MAX))
    }
}

fn told(kept: &Kept, status: Status) -> Result<CallToolResponse, ErrorData> {
    kept.tell(status);
    let (text, ..) = kept.form.parts();
    let result: Result<CallToolResult, _> = serde_json::from_slice(text);
    result
        .map(CallToolResponse::Complete)
        .map_err(|why| ErrorData::internal_error(why.to_string(), None::<Value>))
}

/// A digest of the headers that a handler may answer by, and that the key does not hold already.
fn surroundings(headers: &HeaderMap, shared: Shared) -> [u8; 16] {
    let counts = |name: &str| match shared {
        Shared::Public => name.starts_with("mcp-param-"),
        Shared::Principal | Shared::Session => !matches!(
            name,
            "accept"
                | "accept-encoding"
                | "authorization"
                | "x-regatta-call"
                | "x-regatta-repeat"
                | "x-regatta-signature"
                | "connection"
                | "content-length"
                | "content-type"
                | "host"
                | "idempotency-key"
                | "mcp-method"
                | "mcp-name"
                | "mcp-protocol-version"
                | "mcp-session-id"
                | "traceparent"
                | "tracestate"
                | "user-agent"
        ),
    };
    let mut found: Vec<(&str, &[u8])> =
        headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
    found.retain(|(name, _)| counts(name));
    found.sort_by_key(|(name, _)| *name);
    let parts: Vec<&[u8]> = found.iter().flat_map(|(name, value)| [name.as_bytes(), *value]).collect();
    regatta_seal::digest16(&parts)
}
