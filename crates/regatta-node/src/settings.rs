//! What an operator tunes: from code, then a file, then the environment, each over the one before.
//!
//! Whether it makes sense is asked in `check.rs`. Never reads anything after the start.

use std::path::Path;
use std::time::Duration;

use regatta_seal::RegistrationSecret;
use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::StrDeserializer;

/// What becomes of a request that finds every place taken and the queue full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhenFull {
    /// It waits on its connection, which nothing else is read from meanwhile: backpressure. Bounded by `connections_max`.
    CallerRuns,
    /// It is refused: 503 and −31002.
    Refuse,
}

/// To whom a legacy session belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SessionBinding {
    /// To whoever shows the same `Authorization` as at its beginning; of a JWT, the same issuer and subject.
    Caller,
    /// To whoever has its id.
    Nobody,
}

/// What a node says of tools that are on other nodes only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Elsewhere {
    /// Nothing: they are not listed, and unknown. For nodes behind a gateway, which knows where each tool is.
    #[default]
    Hidden,
    /// They are listed, and calls of them are refused before anything is run: 503 and −31004, so that a balancer that knows
    /// nothing of tools asks the next node.
    Refused,
}

/// A secret of the settings. Hidden in `Debug`.
#[derive(Clone, Default, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Everything that can be tuned. The names are those of the file; the environment has them in capitals after
/// `REGATTA_NODE_`. Durations are whole milliseconds or seconds, as the name says.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Where it listens: `HOST:PORT`.
    pub address: String,
    /// Where others reach it, for the registry; empty: `http://ADDRESS/mcp`.
    pub url: String,
    /// The node's id in the registry; empty: host and port of `url`.
    pub node_id: String,
    /// What tools that belong on some nodes only are placed by: `gpu=yes` ([`On::Label`](crate::On::Label)).
    pub labels: Vec<String>,
    /// Tools that are on this node because it is told so ([`On::Settings`](crate::On::Settings)).
    pub tools: Vec<String>,
    /// What it says of tools that are on other nodes only.
    pub tools_elsewhere: Elsewhere,
    /// Names in `Host` that are answered, with or without a port, others get 403; empty: any. Keep the default where browsers could be sent here.
    pub allowed_hosts: Vec<String>,
    /// Origins (`https://app.example`) whose pages may send requests, beside those of this machine.
    pub allowed_origins: Vec<String>,
    /// To whom a legacy session belongs.
    pub session_binding: SessionBinding,
    /// Threads that serve; 0: one for each core. At most two for each core.
    pub worker_threads: usize,
    /// Requests served at the same time, 1 to 1,000,000.
    pub concurrent_max: usize,
    /// Requests that wait for a place; with those that are served at most `connections_max`, unless they wait on their
    /// connections.
    pub queue_max: usize,
    /// How long one waits, and is then refused; 0: half of `request_timeout_ms`. A place that came later would be of little
    /// use: the rest of its time would not be enough.
    pub queue_wait_max_ms: u64,
    /// What becomes of one more than `queue_max`.
    pub when_full: WhenFull,
    /// Connections at the same time; one more waits in the system's backlog.
    pub connections_max: usize,
    /// Bytes of a request's body, 128 to 1 GiB; more: 413.
    pub request_bytes_max: usize,
    /// From a request's arrival to the end of its answer, waiting included, at most a day; then −31001.
    pub request_timeout_ms: u64,
    /// How long a call may wait for one answer of its client (elicitation, sampling, roots); `request_timeout_ms` stands
    /// still meanwhile. 1 to 604,800, a week.
    pub answer_timeout_s: u64,
    /// Questions to clients that wait for their answers, of all calls; one more fails at its handler. 0: no call may ask.
    pub parked_max: usize,
    /// Standing streams, resumed streams and subscriptions at the same time; one more gets 503. With `concurrent_max` at most
    /// `connections_max`: each holds its connection. 0: none.
    pub streams_max: usize,
    /// How long a connection may be silent between requests, at most a day; 0: one request each.
    pub keep_alive_s: u64,
    /// How long a client may read nothing of an answer that waits for it, 1 to a day's seconds; then its connection is closed. A
    /// stream without news has nothing that waits.
    pub write_timeout_s: u64,
    /// How long what is kept of a session (its log level, its subscriptions, the data of tools) and of a handle stays after its
    /// last use, at most a year; not below `request_timeout_ms`.
    pub session_ttl_s: u64,
    /// How long a call of a tool that may run once only is remembered, with its result, after its end: 60 to a year's
    /// seconds.
    pub journal_ttl_s: u64,
    /// `redis://…`, as in the gateway's config; empty: sessions end with this process.
    pub store_url: String,
    /// What the store's keys begin with, the same as in the gateway's config: 1 to 64 letters, digits, or `: - _ .`.
    pub store_prefix: String,
    /// The gateways' `registry_secret`, at least 16 bytes; empty: the registration is not signed.
    pub registry_secret: Secret,
    /// The gateways' `identity_secret`, at least 32 bytes: whom a gateway names is who calls. Several while one is changed;
    /// none: what a gateway says of its callers is overlooked.
    pub identity_secrets: Vec<Secret>,
    /// Between two heartbeats. It is announced: gateways hold a node for gone after four of them at the earliest.
    pub heartbeat_ms: u64,
    /// How long a shutdown waits for what runs, at most a day; not below `request_timeout_ms`.
    pub drain_s: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            address: "127.0.0.1:3000".to_owned(),
            url: String::new(),
            node_id: String::new(),
            labels: Vec::new(),
            tools: Vec::new(),
            tools_elsewhere: Elsewhere::Hidden,
            allowed_hosts: ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec(),
            allowed_origins: Vec::new(),
            session_binding: SessionBinding::Caller,
            worker_threads: 0,
            concurrent_max: 100,
            queue_max: 1000,
            queue_wait_max_ms: 0,
            when_full: WhenFull::Refuse,
            connections_max: 10_000,
            request_bytes_max: 1 << 20,
            request_timeout_ms: 5000,
            answer_timeout_s: 600,
            parked_max: 1000,
            streams_max: 8000,
            keep_alive_s: 75,
            write_timeout_s: 30,
            session_ttl_s: 3600,
            journal_ttl_s: 3600,
            store_url: String::new(),
            store_prefix: "mcp:".to_owned(),
            registry_secret: Secret::default(),
            identity_secrets: Vec::new(),
            heartbeat_ms: 5000,
            drain_s: 30,
        }
    }
}

impl Settings {
    /// The settings of a TOML file.
    ///
    /// # Errors
    /// The file cannot be read or is no such file, in words for a person.
    pub fn from_file(path: &Path) -> Result<Settings, String> {
        let text = std::fs::read_to_string(path).map_err(|why| format!("{}: {why}", path.display()))?;
        toml::from_str(&text).map_err(|why| format!("{}: {why}", path.display()))
    }

    /// The same settings with those over them that `look_up` has, by their names in the environment.
    ///
    /// # Errors
    /// All values that cannot be understood, a line each.
    pub fn with_environment(self, look_up: impl Fn(&str) -> Option<String>) -> Result<Settings, String> {
        let mut all = self;
        let mut wrong = Vec::new();
        let mut take = |name: &str, into: &mut dyn FnMut(&str) -> bool| {
            let name = format!("REGATTA_NODE_{name}");
            if let Some(value) = look_up(&name)
                && !into(&value)
            {
                wrong.push(format!("{name} = {value:?} cannot be understood"));
            }
        };
        take("ADDRESS", &mut text(&mut all.address));
        take("URL", &mut text(&mut all.url));
        take("NODE_ID", &mut text(&mut all.node_id));
        take("LABELS", &mut list(&mut all.labels));
        take("TOOLS", &mut list(&mut all.tools));
        take("STORE_URL", &mut text(&mut all.store_url));
        take("STORE_PREFIX", &mut text(&mut all.store_prefix));
        take("REGISTRY_SECRET", &mut text(&mut all.registry_secret.0));
        take("IDENTITY_SECRETS", &mut |value| {
            all.identity_secrets =
                value.split(',').map(str::trim).map(|one| Secret(one.to_owned())).collect();
            true
        });
        take("WORKER_THREADS", &mut number(&mut all.worker_threads));
        take("CONCURRENT_MAX", &mut number(&mut all.concurrent_max));
        take("QUEUE_MAX", &mut number(&mut all.queue_max));
        take("QUEUE_WAIT_MAX_MS", &mut number(&mut all.queue_wait_max_ms));
        take("CONNECTIONS_MAX", &mut number(&mut all.connections_max));
        take("REQUEST_BYTES_MAX", &mut number(&mut all.request_bytes_max));
        take("REQUEST_TIMEOUT_MS", &mut number(&mut all.request_timeout_ms));
        take("ANSWER_TIMEOUT_S", &mut number(&mut all.answer_timeout_s));
        take("PARKED_MAX", &mut number(&mut all.parked_max));
        take("STREAMS_MAX", &mut number(&mut all.streams_max));
        take("KEEP_ALIVE_S", &mut number(&mut all.keep_alive_s));
        take("WRITE_TIMEOUT_S", &mut number(&mut all.write_timeout_s));
        take("SESSION_TTL_S", &mut number(&mut all.session_ttl_s));
        take("JOURNAL_TTL_S", &mut number(&mut all.journal_ttl_s));
        take("HEARTBEAT_MS", &mut number(&mut all.heartbeat_ms));
        take("DRAIN_S", &mut number(&mut all.drain_s));
        take("ALLOWED_HOSTS", &mut list(&mut all.allowed_hosts));
        take("ALLOWED_ORIGINS", &mut list(&mut all.allowed_origins));
        take("SESSION_BINDING", &mut word(&mut all.session_binding));
        take("TOOLS_ELSEWHERE", &mut word(&mut all.tools_elsewhere));
        take("WHEN_FULL", &mut word(&mut all.when_full));
        if wrong.is_empty() { Ok(all) } else { Err(wrong.join("\n")) }
    }

    pub(crate) fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.request_timeout_ms)
    }

    /// How long a request waits for a place.
    pub(crate) fn queue_wait_max(&self) -> Duration {
        match self.queue_wait_max_ms {
            0 => self.request_timeout() / 2,
            told => Duration::from_millis(told),
        }
    }

    /// How long a call is remembered.
    pub(crate) fn journal_life(&self) -> Duration {
        Duration::from_secs(self.journal_ttl_s)
    }

    /// What the registration is signed with.
    pub(crate) fn registration_secret(&self) -> Option<RegistrationSecret> {
        RegistrationSecret::new(&self.registry_secret.0).ok()
    }

    /// The node's id.
    pub(crate) fn id(&self) -> String {
        if !self.node_id.is_empty() {
            return self.node_id.clone();
        }
        self.public_url().split('/').nth(2).unwrap_or(&self.address).to_owned()
    }

    /// Where others reach it.
    pub(crate) fn public_url(&self) -> String {
        if self.url.is_empty() { format!("http://{}/mcp", self.address) } else { self.url.clone() }
    }
}

fn text(into: &mut String) -> impl FnMut(&str) -> bool + '_ {
    |value| {
        value.clone_into(into);
        true
    }
}

/// An empty value is the empty list, as `[]` in the file is.
fn list(into: &mut Vec<String>) -> impl FnMut(&str) -> bool + '_ {
    |value| {
        let names = value.split(',').map(str::trim).map(str::to_owned);
        *into = if value.trim().is_empty() { Vec::new() } else { names.collect() };
        true
    }
}

/// One of the words that the file has too.
fn word<'a, T: for<'de> Deserialize<'de>>(into: &'a mut T) -> impl FnMut(&str) -> bool + 'a {
    |value| {
        let word: StrDeserializer<'_, serde::de::value::Error> = value.into_deserializer();
        T::deserialize(word).map(|value| *into = value).is_ok()
    }
}

fn number<T: std::str::FromStr>(into: &mut T) -> impl FnMut(&str) -> bool + '_ {
    |value| value.parse().map(|value| *into = value).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every setting: in the file, and in the environment.
    const EVERY: [(&str, &str, &str); 30] = [
        ("address", "\"0.0.0.0:1\"", "0.0.0.0:1"),
        ("url", "\"http://a/mcp\"", "http://a/mcp"),
        ("node_id", "\"n-1\"", "n-1"),
        ("labels", "[\"gpu=yes\", \"b=c\"]", "gpu=yes, b=c"),
        ("tools", "[\"rare\"]", "rare"),
        ("tools_elsewhere", "\"refused\"", "refused"),
        ("allowed_hosts", "[\"a\"]", "a"),
        ("allowed_origins", "[\"https://a\"]", "https://a"),
        ("session_binding", "\"nobody\"", "nobody"),
        ("worker_threads", "3", "3"),
        ("concurrent_max", "7", "7"),
        ("queue_max", "7", "7"),
        ("queue_wait_max_ms", "7", "7"),
        ("when_full", "\"caller-runs\"", "caller-runs"),
        ("connections_max", "777", "777"),
        ("request_bytes_max", "7", "7"),
        ("request_timeout_ms", "7", "7"),
        ("answer_timeout_s", "7", "7"),
        ("parked_max", "7", "7"),
        ("streams_max", "7", "7"),
        ("keep_alive_s", "7", "7"),
        ("write_timeout_s", "7", "7"),
        ("session_ttl_s", "7", "7"),
        ("journal_ttl_s", "77", "77"),
        ("store_url", "\"redis://a\"", "redis://a"),
        ("store_prefix", "\"a:\"", "a:"),
        ("registry_secret", "\"0123456789abcdef\"", "0123456789abcdef"),
        ("identity_secrets", "[\"a\", \"b\"]", "a, b"),
        ("heartbeat_ms", "7", "7"),
        ("drain_s", "7", "7"),
    ];

    /// All of them, secrets too.
    fn shown(settings: &Settings) -> String {
        let secrets: Vec<&str> = settings.identity_secrets.iter().map(|secret| secret.0.as_str()).collect();
        format!("{settings:#?} {} {secrets:?}", settings.registry_secret.0)
    }

    #[test]
    fn every_setting_can_be_told_by_code_file_and_environment_alike() {
        let default = shown(&Settings::default());
        for (name, in_file, in_environment) in EVERY {
            let file: Settings = toml::from_str(&format!("{name} = {in_file}")).unwrap();
            let told = format!("REGATTA_NODE_{}", name.to_uppercase());
            let look_up = |name: &str| (name == told).then(|| in_environment.to_owned());
            let environment = Settings::default().with_environment(look_up).unwrap();
            assert_eq!(shown(&file), shown(&environment), "{name}");
            assert_ne!(shown(&file), default, "{name}");
        }
        let is_field = |line: &&str| line.starts_with("    ") && line[4..].starts_with(char::is_alphabetic);
        assert_eq!(default.lines().filter(is_field).count(), EVERY.len(), "one is missing here: {default}");
    }

    #[test]
    fn the_environment_is_over_the_file() {
        let file: Settings = toml::from_str("queue_max = 5\nwhen_full = \"caller-runs\"").unwrap();
        assert_eq!((file.queue_max, file.when_full), (5, WhenFull::CallerRuns));
        let environment = |name: &str| (name == "REGATTA_NODE_QUEUE_MAX").then(|| "7".to_owned());
        assert_eq!(file.clone().with_environment(environment).unwrap().queue_max, 7);
        let nonsense = |name: &str| (name == "REGATTA_NODE_WHEN_FULL").then(|| "perhaps".to_owned());
        assert!(file.with_environment(nonsense).unwrap_err().contains("perhaps"));
        assert!(toml::from_str::<Settings>("queue_maxx = 5").is_err());
        let nothing = |name: &str| (name == "REGATTA_NODE_ALLOWED_HOSTS").then(String::new);
        let allowed_hosts = Settings::default().with_environment(nothing).unwrap().allowed_hosts;
        assert!(allowed_hosts.is_empty(), "{allowed_hosts:?}");
    }
}
