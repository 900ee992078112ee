//! Tables of bad input: one gateway and one stub for a whole table, and after every row a look at both.
//!
//! A row is the exact bytes of one request and what must come back. After each one the stub's record must hold as many
//! requests more as the row says (mostly none), and normal requests of both eras on new connections must be answered by
//! the same process. Failures are gathered, so that one run tells about all rows.

use crate::REGATTA;
use regatta_testkit::client::{RawAnswer, RawConnection, Session, address_of};
use regatta_testkit::gateway::Plan;
use regatta_testkit::stub::answers;
use regatta_testkit::{Gateway, Reply, Seen, Stub, eventually};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// Secrets that no log, no metric and no error may ever show (V10).
pub const TOKEN: &str = "Bearer canary-token-5ca1ab1e";
/// The same for arguments.
pub const ARGUMENT: &str = "canary-argument-0ddba11";
/// How long a row may take before it counts as unanswered.
const ROW_MAX: Duration = Duration::from_secs(10);

/// One request in the making. `bytes` adds `Content-Length` unless the row frames the body itself.
#[derive(Clone)]
pub struct Ask {
    line: String,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
    is_framed: bool,
}

impl Ask {
    fn new(body: &Value) -> Self {
        let headers = [
            ("Host", "localhost"),
            ("Content-Type", "application/json"),
            ("Accept", "application/json, text/event-stream"),
            ("Authorization", TOKEN),
        ];
        let headers =
            headers.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec())).into_iter().collect();
        let body = body.to_string().into_bytes();
        Ask { line: "POST /mcp HTTP/1.1".to_owned(), headers, body, is_framed: false }
    }

    /// A sound `tools/call` in this session.
    pub fn legacy(session: &str) -> Self {
        let params = json!({"name": "work", "arguments": {"op": ARGUMENT}});
        Ask::new(&json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params}))
            .set("Mcp-Session-Id", session)
            .set("MCP-Protocol-Version", "2025-11-25")
    }

    /// A sound modern `tools/call`.
    pub fn modern() -> Self {
        let params = json!({"name": "work", "arguments": {"op": ARGUMENT}, "_meta": meta()});
        Ask::new(&json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params}))
            .set("MCP-Protocol-Version", "2026-07-28")
            .set("Mcp-Method", "tools/call")
            .set("Mcp-Name", "work")
    }

    /// Another request line.
    pub fn line(mut self, line: &str) -> Self {
        line.clone_into(&mut self.line);
        self
    }

    /// One header more, whether or not it is there.
    pub fn add(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.to_owned(), value.as_ref().to_vec()));
        self
    }

    /// No header of this name.
    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(there, _)| !there.eq_ignore_ascii_case(name));
        self
    }

    /// One header of this name.
    pub fn set(self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.without(name).add(name, value)
    }

    /// Another body.
    pub fn body(mut self, body: impl AsRef<[u8]>) -> Self {
        self.body = body.as_ref().to_vec();
        self
    }

    /// The body as JSON, changed.
    pub fn edit(self, edit: impl FnOnce(&mut Value)) -> Self {
        let mut body = serde_json::from_slice(&self.body).expect("the body of a row is JSON");
        edit(&mut body);
        self.body(body.to_string())
    }

    /// The headers say how the body is framed; `body` is what stands behind them.
    pub fn framed(mut self, name: &str, value: &str, body: impl AsRef<[u8]>) -> Self {
        self.is_framed = true;
        self.add(name, value).body(body)
    }

    /// The body as one chunk.
    pub fn chunked(self) -> Self {
        let body = [format!("{:x}\r\n", self.body.len()).as_bytes(), &self.body, b"\r\n0\r\n\r\n"].concat();
        self.framed("Transfer-Encoding", "chunked", body)
    }

    /// The length of the body so far.
    pub fn length(&self) -> usize {
        self.body.len()
    }

    /// What goes over the wire.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = format!("{}\r\n", self.line).into_bytes();
        for (name, value) in &self.headers {
            bytes.extend_from_slice(&[name.as_bytes(), b": ", value, b"\r\n"].concat());
        }
        if !self.is_framed {
            bytes.extend_from_slice(format!("Content-Length: {}\r\n", self.body.len()).as_bytes());
        }
        [&bytes[..], b"\r\n", &self.body].concat()
    }
}

/// The required members of `_meta` (2026-07-28 basic, `_meta`).
pub fn meta() -> Value {
    json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    })
}

/// What must come back.
#[derive(Clone)]
pub struct Want {
    /// One of these; 0: closed without an answer.
    pub statuses: &'static [u16],
    /// The error's code; `None`: no matter.
    pub code: Option<i64>,
    /// What the head or the body must contain.
    pub contains: &'static str,
    /// How many requests reach the stub.
    pub forwarded: usize,
    /// Whether the connection must be closed behind the answer.
    pub closes: bool,
}

const OPEN: Want = Want { statuses: &[200], code: None, contains: "", forwarded: 0, closes: false };

/// One of these statuses; nothing reaches the stub.
pub const fn status(statuses: &'static [u16]) -> Want {
    Want { statuses, ..OPEN }
}

/// One of these statuses with a JSON-RPC error of this code; nothing reaches the stub.
pub const fn error(statuses: &'static [u16], code: i64) -> Want {
    Want { statuses, code: Some(code), ..OPEN }
}

/// 200 with a result; the request reached the stub.
pub const fn served() -> Want {
    Want { contains: "\"result\"", forwarded: 1, ..OPEN }
}

impl Want {
    /// The head or the body contains this.
    pub const fn with(self, contains: &'static str) -> Want {
        Want { contains, ..self }
    }

    /// The connection is closed.
    pub const fn closing(self) -> Want {
        Want { closes: true, ..self }
    }

    /// It reaches the stub so many times.
    pub const fn reaching(self, forwarded: usize) -> Want {
        Want { forwarded, ..self }
    }

    fn complaint(&self, told: &RawAnswer) -> Option<String> {
        let body = String::from_utf8_lossy(&told.body);
        let code = message(told)["error"]["code"].as_i64();
        if !self.statuses.contains(&told.status) {
            return Some(format!("{} instead of {:?}: {body:.300}", told.status, self.statuses));
        }
        if self.code.is_some() && self.code != code && told.status != 0 {
            return Some(format!("code {code:?} instead of {:?}: {body:.300}", self.code));
        }
        if !told.head.contains(self.contains) && !body.contains(self.contains) && told.status != 0 {
            return Some(format!("no {:?} in {} {body:.300}", self.contains, told.head));
        }
        None
    }
}

/// The JSON-RPC message of an answer; of events the last one.
fn message(told: &RawAnswer) -> Value {
    let body = String::from_utf8_lossy(&told.body);
    let last = match told.head.contains("text/event-stream") {
        true => body.lines().filter_map(|line| line.strip_prefix("data: ")).next_back().unwrap_or_default(),
        false => &body,
    };
    serde_json::from_str(last).unwrap_or_default()
}

/// One row: its number in RELIABILITY B, what it is, the bytes, what must come back.
pub struct Row {
    pub name: String,
    pub bytes: Vec<u8>,
    pub want: Want,
}

/// A row of one request.
pub fn row(name: &str, ask: Ask, want: Want) -> Row {
    Row { name: name.to_owned(), bytes: ask.bytes(), want }
}

/// One row of the same change in each era.
pub fn both(session: &str, name: &str, change: impl Fn(Ask) -> Ask, want: &Want) -> [Row; 2] {
    [("legacy", Ask::legacy(session)), ("modern", Ask::modern())]
        .map(|(era, ask)| row(&format!("{name} ({era})"), change(ask), want.clone()))
}

/// One gateway over one stub.
pub struct Bench {
    pub stub: Stub,
    pub gateway: Gateway,
    pub session: Session,
    pid: u32,
    pub failures: Vec<String>,
}

impl Bench {
    /// Over a stub of both eras, with further lines for `[gateway]`.
    pub async fn start(lines: &str) -> Self {
        Self::over(answers::dual(), Plan::default().on_gateway(lines)).await
    }

    /// Over any stub that speaks both eras.
    pub async fn over(behaviour: impl Fn(&Seen) -> Reply + Send + Sync + 'static, plan: Plan) -> Self {
        let stub = Stub::start(behaviour).await;
        let plan = plan.server(
            "stub",
            [stub.url()],
            "request_timeout = \"3s\"\nrequest_max = \"3s\"\nbreaker = \"off\"",
        );
        let gateway = Gateway::start(REGATTA, plan.on_gateway("log_filter = \"debug\"")).await;
        let client = gateway.client().header("authorization", TOKEN).header("x-normal", "yes");
        let session = client.initialize().await;
        let session = session.unwrap_or_else(|why| panic!("no session: {why}; log:\n{}", gateway.log()));
        let pid = gateway.process.pid();
        Bench { stub, gateway, session, pid, failures: Vec::new() }
    }

    /// Requests that are neither probes nor normal ones.
    pub fn strangers(&self) -> Vec<Arc<Seen>> {
        let is_stranger = |seen: &Arc<Seen>| {
            seen.header("x-normal").is_empty() && !seen.header("user-agent").starts_with("regatta-probe")
        };
        self.stub.seen().into_iter().filter(is_stranger).collect()
    }

    /// Sends bytes on a connection of their own and reads one answer.
    pub async fn ask(&self, bytes: &[u8]) -> RawAnswer {
        self.ask_closing(bytes, false).await.0
    }

    async fn ask_closing(&self, bytes: &[u8], closes: bool) -> (RawAnswer, bool) {
        let address = address_of(&self.gateway.url());
        let mut connection = RawConnection::open(address).await.expect("the gateway accepts");
        // It may answer and close before it has read everything.
        let _ = connection.write(bytes).await;
        let answer = tokio::time::timeout(ROW_MAX, connection.read_answer()).await;
        let answer = answer.ok().unwrap_or_else(|| RawAnswer { status: 1, ..RawAnswer::default() });
        let closed = closes && connection.read_rest(Duration::from_secs(2)).await == (Vec::new(), true);
        (answer, closed)
    }

    /// Runs all rows.
    pub async fn run(&mut self, rows: impl IntoIterator<Item = Row>) {
        for row in rows {
            self.one(&row).await;
        }
    }

    /// Runs one row and looks at both ends.
    pub async fn one(&mut self, row: &Row) {
        let before = self.strangers().len();
        let (told, closed) = self.ask_closing(&row.bytes, row.want.closes).await;
        let mut complaints: Vec<String> = row.want.complaint(&told).into_iter().collect();
        if row.want.closes && !closed {
            complaints.push("the connection is open, or more was said on it".to_owned());
        }
        if (row.want.forwarded == 0 || row.want.code.is_some()) && self.shows_a_secret(&told) {
            complaints.push("the answer shows a secret".to_owned());
        }
        if let Err(why) = self.normal().await {
            complaints.push(format!("a normal request after it: {why}"));
        }
        let reached = self.strangers().len() - before;
        if reached != row.want.forwarded {
            complaints.push(format!("{reached} instead of {} requests reached the stub", row.want.forwarded));
        }
        self.failures.extend(complaints.into_iter().map(|complaint| format!("{}: {complaint}", row.name)));
    }

    fn shows_a_secret(&self, told: &RawAnswer) -> bool {
        let all = format!("{}{}", told.head, String::from_utf8_lossy(&told.body));
        self.secrets().iter().any(|secret| all.contains(secret.as_str()))
    }

    fn secrets(&self) -> [String; 3] {
        [TOKEN.trim_start_matches("Bearer ").to_owned(), ARGUMENT.to_owned(), self.session.id.clone()]
    }

    /// One normal request of each era on new connections, and the health of the same process.
    pub async fn normal(&self) -> Result<(), String> {
        let client = self.session.client.fresh();
        let legacy = self.session.through(&client).call("work", json!({"op": "normal"})).await;
        let modern = client.fresh().modern().call("work", json!({"op": "normal"})).await;
        for answer in [legacy, modern] {
            answer.and_then(|outcome| outcome.result()).map_err(|why| why.0)?;
        }
        match self.gateway.admin("/health").await {
            Some((200, _)) if self.gateway.process.pid() == self.pid && self.gateway.process.rss() > 0 => {
                Ok(())
            }
            other => Err(format!("/health says {other:?}")),
        }
    }

    /// The end of B.6: a thousand times the same nonsense costs at most 1 MiB. The allocator's own pools may still fill in
    /// the first thousand; what leaks grows in every one.
    pub async fn stays_small(&self, sample: &[Vec<u8>]) {
        const ROUNDS: usize = 1_000;
        const GROWTH_MAX: u64 = 1 << 20;
        let mut grown = Vec::new();
        for rounds in [ROUNDS / 5, ROUNDS, ROUNDS, ROUNDS] {
            let before = self.gateway.process.rss();
            for _ in 0..rounds {
                for bytes in sample {
                    assert!(self.ask(bytes).await.status >= 200);
                }
            }
            grown.push(self.gateway.process.rss().saturating_sub(before));
            if rounds == ROUNDS && grown.last().is_some_and(|grown| *grown <= GROWTH_MAX) {
                return;
            }
        }
        panic!("bytes more after each round: {grown:?}");
    }

    /// The end of a table: no failure, no panic, no secret where none may be (V10, V13).
    pub async fn finish(self) {
        let mut failures = self.failures.clone();
        let mut shown = vec![("the log", self.gateway.log())];
        for path in ["/metrics", "/health", "/ready", "/status"] {
            shown.push((path, self.gateway.admin(path).await.unwrap_or_default().1));
        }
        for (place, text) in &shown {
            let lines = text.lines().filter(|line| {
                (*place == "the log" && line.contains("panicked"))
                    || self.secrets().iter().any(|secret| line.contains(secret.as_str()))
            });
            failures.extend(lines.map(|line| format!("{place} says {line:.300}")));
        }
        if self.gateway.metric("regatta_listener_panics_total").await != Some(0.0) {
            failures.push("a handler panicked, or nobody counts".to_owned());
        }
        // V12: whatever was tried holds no place any more.
        let idle = async || {
            let held = self.gateway.metric("regatta_inflight").await?
                + self.gateway.metric("regatta_queued").await?;
            (held == 0.0).then_some(())
        };
        eventually("no place is held any more", Duration::from_secs(10), idle).await;
        assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
    }
}
