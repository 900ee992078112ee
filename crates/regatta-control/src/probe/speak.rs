//! The few MCP messages of a probe, and what an answer to each means.
//!
//! `server/discover` for the modern era (2026-07-28 server/discover), `initialize` and `ping` for the legacy one
//! (2025-11-25 basic/lifecycle). Never `tools/call`: a probe must not do anything (RELIABILITY T38).

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HOST, LOCATION, USER_AGENT, WWW_AUTHENTICATE};
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::Full;
use regatta_policy::snapshot::Endpoint;
use serde_json::{Value, json};

use super::answer::Said;
use super::client::{Answer, Client, NoAnswer};
use super::tools::Way;
use crate::config::endpoint;

/// The version of the modern era that the gateway speaks.
const MODERN: &str = "2026-07-28";
/// The versions of the legacy era that it speaks, newest first.
const LEGACY: [&str; 3] = ["2025-11-25", "2025-06-18", "2025-03-26"];
/// The JSON-RPC id of every probe; each has a connection of its own.
const ID: &str = "regatta-probe";

/// A legacy session of ours at a replica, or none where the server gives none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Its id, if the server gave one.
    pub id: Option<HeaderValue>,
    /// The negotiated version.
    pub version: &'static str,
}

/// What an answer says about one era.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Era<T> {
    /// It is spoken.
    Spoken(T),
    /// It is not, and the server said so in some way.
    Foreign(String),
    /// Credentials are needed to know.
    Guarded,
    /// The server is there but busy (408, 429).
    Busy,
    /// Nothing that could be understood.
    Broken(String),
}

/// Speaks to one replica.
#[derive(Debug)]
pub struct Speaker<'a> {
    /// The way there.
    pub client: &'a Client,
    /// Where it is.
    pub endpoint: &'a Endpoint,
    /// Its path, changed by a redirect to another path of the same host.
    pub path: &'a mut String,
}

impl Speaker<'_> {
    /// Asks whether the modern era is spoken.
    pub async fn discover(&mut self) -> Result<Era<()>, NoAnswer> {
        let answer = self.modern("server/discover", json!({})).await?;
        Ok(era(answer, |result, _| {
            let versions = result.get("supportedVersions").and_then(Value::as_array);
            versions.is_some_and(|all| all.iter().any(|version| version == MODERN)).then_some(())
        }))
    }

    /// The whole response to a request that only reads.
    pub async fn ask(
        &mut self,
        method: &'static str,
        params: Value,
        way: Way<'_>,
    ) -> Result<Era<String>, NoAnswer> {
        let mut answer = match way {
            Way::Modern => self.modern(method, params).await?,
            Way::Legacy(session) => self.post(&request(method, params), &in_session(session)).await?,
        };
        let text = std::mem::take(&mut answer.text);
        Ok(match era(answer, |_, _| Some(())) {
            Era::Spoken(()) => Era::Spoken(text),
            Era::Foreign(why) => Era::Foreign(why),
            Era::Guarded => Era::Guarded,
            Era::Busy => Era::Busy,
            Era::Broken(why) => Era::Broken(why),
        })
    }

    async fn modern(&mut self, method: &'static str, mut params: Value) -> Result<Answer, NoAnswer> {
        params["_meta"] = json!({
            "io.modelcontextprotocol/protocolVersion": MODERN,
            "io.modelcontextprotocol/clientInfo": client_info(),
            "io.modelcontextprotocol/clientCapabilities": {},
        });
        let headers = [("mcp-protocol-version", MODERN), ("mcp-method", method)];
        self.post(&request(method, params), &with_values(&headers)).await
    }

    /// Opens a legacy session, if the era is spoken.
    pub async fn initialize(&mut self) -> Result<Era<Session>, NoAnswer> {
        let params = json!({ "protocolVersion": LEGACY[0], "capabilities": {}, "clientInfo": client_info() });
        let answer = self.post(&request("initialize", params), &[]).await?;
        let found = era(answer, |result, session| {
            let named = result.get("protocolVersion")?.as_str()?;
            let version = LEGACY.iter().find(|version| **version == named)?;
            Some(Session { id: session, version })
        });
        if let Era::Spoken(session) = &found {
            let body = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }).to_string();
            self.post(&body, &in_session(session)).await?;
        }
        Ok(found)
    }

    /// Asks for a sign of life in `session`: spoken, foreign (the session is unknown), or worse.
    pub async fn ping(&mut self, session: &Session) -> Result<Era<()>, NoAnswer> {
        let answer = self.post(&request("ping", json!({})), &in_session(session)).await?;
        // A server that does not know `ping` but says so on 200 is alive all the same.
        let alive = answer.status.is_success() && answer.said.is_some();
        Ok(if alive { Era::Spoken(()) } else { era(answer, |_, _| Some(())) })
    }

    /// Ends `session`; whatever the answer, nothing more is done.
    pub async fn end(&mut self, session: &Session) {
        if session.id.is_some()
            && let Ok(request) = self.message(Method::DELETE, String::new(), &in_session(session))
        {
            let _ = self.client.exchange(self.endpoint, request, ID).await;
        }
    }

    async fn post(&mut self, body: &str, headers: &[Header]) -> Result<Answer, NoAnswer> {
        let request = self.message(Method::POST, body.to_owned(), headers)?;
        let answer = self.client.exchange(self.endpoint, request, ID).await?;
        let moved = matches!(answer.status, StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT);
        if !moved {
            return Ok(answer);
        }
        let location = answer.headers.get(LOCATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let Some(path) = same_host(self.endpoint, location) else {
            return Err(NoAnswer::Useless("redirects to another host, which is not followed".to_owned()));
        };
        *self.path = path;
        let request = self.message(Method::POST, body.to_owned(), headers)?;
        self.client.exchange(self.endpoint, request, ID).await
    }

    fn message(
        &self,
        method: Method,
        body: String,
        headers: &[Header],
    ) -> Result<Request<Full<Bytes>>, NoAnswer> {
        let mut request = Request::builder()
            .method(method)
            .uri(self.path.as_str())
            .header(HOST, authority(self.endpoint))
            .header(USER_AGENT, concat!("regatta-probe/", env!("CARGO_PKG_VERSION")))
            .header(ACCEPT, "application/json, text/event-stream")
            .header(CONTENT_TYPE, "application/json")
            .header("connection", "close");
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        request
            .body(Full::new(body.into()))
            .map_err(|why| NoAnswer::Useless(format!("no request can be made: {why}")))
    }
}

type Header = (&'static str, HeaderValue);

fn with_values(headers: &[(&'static str, &'static str)]) -> Vec<Header> {
    headers.iter().map(|(name, value)| (*name, HeaderValue::from_static(value))).collect()
}

fn in_session(session: &Session) -> Vec<Header> {
    let mut headers = with_values(&[("mcp-protocol-version", session.version)]);
    headers.extend(session.id.clone().map(|id| ("mcp-session-id", id)));
    headers
}

fn client_info() -> Value {
    json!({ "name": "regatta-probe", "version": env!("CARGO_PKG_VERSION") })
}

fn request(method: &str, params: Value) -> String {
    json!({ "jsonrpc": "2.0", "id": ID, "method": method, "params": params }).to_string()
}

/// `host:port` as the replica expects it in `Host`; the default port is left out.
fn authority(endpoint: &Endpoint) -> String {
    let start = endpoint.url.find("://").map_or(0, |at| at + 3);
    let rest = &endpoint.url[start..];
    rest[..rest.find(['/', '?']).unwrap_or(rest.len())].to_owned()
}

/// The path of `location`, if it is on the endpoint's own scheme, host and port.
fn same_host(own: &Endpoint, location: &str) -> Option<String> {
    if location.starts_with('/') && !location.starts_with("//") {
        let plain = location.bytes().all(|byte| byte.is_ascii_graphic()) && !location.contains('#');
        return plain.then(|| location.to_owned());
    }
    let other = endpoint::parse(location).ok()?;
    let same = (other.scheme, &other.host, other.port) == (own.scheme, &own.host, own.port);
    same.then_some(other.path)
}

/// What `answer` says about an era, given what its result must look like. Never falls from 401, 403, 408, 429 or
/// 5xx to "not spoken" (RELIABILITY T38).
fn era<T>(answer: Answer, spoken: impl Fn(&Value, Option<HeaderValue>) -> Option<T>) -> Era<T> {
    let status = answer.status;
    let json = || {
        let kind = answer.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        kind.to_ascii_lowercase().starts_with("application/json")
    };
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            let asks = answer.headers.contains_key(WWW_AUTHENTICATE) || json();
            if asks {
                Era::Guarded
            } else {
                Era::Broken(format!("answers {status}, not as an MCP server does"))
            }
        }
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => Era::Busy,
        _ if status.is_server_error() => Era::Broken(format!("answers {status}")),
        _ => match &answer.said {
            Some(Said::Result(result)) => {
                let session = answer.headers.get("mcp-session-id").cloned();
                spoken(result, session).map_or_else(
                    || Era::Foreign("answers with a version that the gateway does not speak".to_owned()),
                    Era::Spoken,
                )
            }
            Some(Said::Error(code)) => Era::Foreign(format!("answers {status} with error {code}")),
            None => Era::Foreign(format!("answers {status} without JSON-RPC")),
        },
    }
}
