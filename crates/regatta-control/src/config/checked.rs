//! A config whose every value fits, and whose values fit together.
//!
//! Loading is the same for `check`, `serve` and a reload: text in, [`Config`] or all complaints out. Nothing here
//! opens a socket, and the only file read is the config itself.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use regatta_policy::peers::Proxies;
use regatta_policy::quota::Rule;
use regatta_policy::snapshot::{Limits, Origins, Server};
use regatta_seal::MasterKey;
use toml::de::DeTable;

use super::auth::{self, Auth};
use super::cache;
use super::complaint::{Complaint, Complaints, Place};
use super::credentials::{self, CredentialPlan};
use super::gateway::{self, Process};
use super::limit;
use super::raw::{Env, Findings, Section, line_at, may_be_secret};
use super::registry::{self, Door, Reading, Secrets};
use super::server;
use super::store::{self, Store};

/// Everything a gateway needs to know from its operator.
#[derive(Clone, Debug)]
pub struct Config {
    /// What takes effect at the start only.
    pub process: Process,
    /// The servers, with replicas that nobody has probed yet.
    pub servers: Vec<Arc<Server>>,
    /// Who may join each of them, in the same order.
    pub doors: Vec<Door>,
    /// How the registry of nodes is read.
    pub registry: Reading,
    /// The gateway's bounds.
    pub limits: Arc<Limits>,
    /// Whom it lets in.
    pub admission: Arc<Origins>,
    /// How much callers may ask for.
    pub quotas: Arc<Vec<Rule>>,
    /// The proxies in front of it.
    pub proxies: Arc<Proxies>,
    /// Who may call; none: nobody checks here.
    pub auth: Option<Auth>,
    /// What servers are shown of this gateway, by their names.
    pub credentials: HashMap<String, CredentialPlan>,
    /// Sealing keys; the first seals, all open. None: the store keeps one.
    pub sealing_keys: Arc<Vec<MasterKey>>,
    /// How old the store's newest key may become before there is another one; none: it stays.
    pub sealing_key_rotation: Option<Duration>,
    /// Where several gateways share their state. Takes effect at the start only.
    pub store: Store,
    /// What is right but worth saying.
    pub notes: Vec<String>,
}

impl Config {
    /// Reads the files with the registry's secrets; what is wrong with the first that cannot be used.
    pub fn read_secrets(&mut self) -> Result<(), String> {
        let all = self.doors.iter_mut().map(|door| &mut door.secrets);
        all.chain([&mut self.registry.secrets]).try_for_each(Secrets::read_file)
    }
}

/// A config file is at most this long.
const FILE_MAX: u64 = 4 << 20;

/// Reads and checks the file at `path`.
pub fn load(path: &Path, env: &Env) -> Result<Config, Complaints> {
    let name = path.display().to_string();
    let unread = |why: std::io::Error| {
        let hint = (why.kind() == std::io::ErrorKind::NotFound).then_some(
            "name the file with --config FILE, or run `regatta up` to try the gateway without one",
        );
        Complaints::about_file(&name, format!("cannot be read: {why}"), "a file in TOML", hint)
    };
    let length = std::fs::metadata(path).map_err(unread)?.len();
    if length > FILE_MAX {
        return Err(Complaints::about_file(&name, format!("has {length} bytes"), "at most 4MiB", None));
    }
    check(&name, &std::fs::read_to_string(path).map_err(unread)?, env)
}

/// Checks `text`, which people know as `file`.
pub fn check(file: &str, text: &str, env: &Env) -> Result<Config, Complaints> {
    let (tree, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        let all = errors.iter().map(|error| not_toml(text, error)).collect();
        let mut complaints = Complaints { file: file.to_owned(), all };
        complaints.sort();
        return Err(complaints);
    }
    let findings = Findings::default();
    let mut config = read(&findings, text, tree.get_ref(), env);
    let (all, notes) = findings.into_parts();
    config.notes = notes;
    if all.is_empty() {
        return Ok(config);
    }
    let mut complaints = Complaints { file: file.to_owned(), all };
    complaints.sort();
    Err(complaints)
}

fn not_toml(text: &str, error: &toml::de::Error) -> Complaint {
    let line = error.span().map_or(1, |span| line_at(text, span.start));
    let source = text.lines().nth(line - 1).unwrap_or_default().trim();
    let message = error.message().lines().next().unwrap_or("valid TOML");
    let cut: String = match source.split_once('=') {
        Some((key, _)) if may_be_secret(source) => format!("{key}= …"),
        Some(_) | None => source.chars().take(80).collect(),
    };
    Complaint { place: Place::Line(line), what: cut, expected: format!("valid TOML: {message}"), hint: None }
}

fn read<'a>(findings: &'a Findings, text: &'a str, tree: &'a DeTable<'a>, env: &'a Env) -> Config {
    let top = Section::new(findings, text, "").with_table(tree, 0..0);
    let gateway = table(&top, findings, text, tree, "gateway").with_env("REGATTA_GATEWAY_", env);
    let (process, admission) = (gateway::process(&gateway), gateway::origins(&gateway));
    let limits = gateway::limits(&gateway);
    let proxies = Arc::new(gateway::proxies(&gateway));
    let sealing_keys = Arc::new(gateway::sealing_keys(&gateway));
    let sealing_key_rotation = gateway::sealing_key_rotation(&gateway);
    gateway.finish();

    let section = table(&top, findings, text, tree, "store").with_env("REGATTA_STORE_", env);
    let store = store::store(&section);
    let registry = registry::reading(&section);
    section.finish();
    let mut credentials = HashMap::new();
    let (mut servers, doors): (Vec<Arc<Server>>, Vec<Door>) =
        servers(&top, findings, text, &store, &mut credentials).into_iter().unzip();
    let auth = auth(&top, env, servers.len());
    let claims = auth.as_ref().map_or(&[][..], |auth| &auth.access.claims);
    caches((&top, findings, text), &mut servers, claims);
    let known = limit::Known { servers: &servers, claims };
    let quotas = limit::rules(&top, findings, text, known);
    top.finish();
    Config {
        process,
        servers,
        doors,
        registry,
        limits: Arc::new(limits),
        admission: Arc::new(admission),
        quotas: Arc::new(quotas),
        proxies,
        auth,
        credentials,
        sealing_keys,
        sealing_key_rotation,
        store,
        notes: Vec::new(),
    }
}

/// The section `key`; empty if it was not written, and with a complaint if it is no table.
fn table<'a>(
    top: &Section<'a>,
    findings: &'a Findings,
    text: &'a str,
    tree: &'a DeTable<'a>,
    key: &'static str,
) -> Section<'a> {
    let section = Section::new(findings, text, key);
    let Some(found) = top.find(key) else { return section };
    let written =
        tree.get_key_value(key).and_then(|(name, value)| Some((name.span(), value.get_ref().as_table()?)));
    match written {
        Some((span, table)) => section.with_table(table, span),
        None => {
            top.refuse(&found, &format!("a table: [{key}]"), None);
            section
        }
    }
}

fn caches<'a>(
    (top, findings, text): (&Section<'a>, &'a Findings, &'a str),
    servers: &mut [Arc<Server>],
    claims: &[String],
) {
    let Some(found) = top.find("cache") else { return };
    let Some(tables) = found.tables() else {
        return top.refuse(&found, "[[cache]], once a rule", None);
    };
    for (index, (table, span)) in tables.into_iter().enumerate() {
        let section = Section::new(findings, text, &format!("cache[{}]", index + 1)).with_table(table, span);
        cache::rule(&section, servers, claims);
        section.finish();
    }
}

/// `[auth]`, if it is written.
fn auth<'a>(top: &Section<'a>, env: &'a Env, servers: usize) -> Option<Auth> {
    let section = top.table("auth", "a table: [auth]")?.with_env("REGATTA_AUTH_", env);
    let auth = auth::auth(&section);
    auth::fits(&section, &auth, servers);
    section.finish();
    Some(auth)
}

fn servers<'a>(
    top: &Section<'a>,
    findings: &'a Findings,
    text: &'a str,
    store: &Store,
    credentials: &mut HashMap<String, CredentialPlan>,
) -> Vec<(Arc<Server>, Door)> {
    let mut servers: Vec<(Arc<Server>, Door)> = Vec::new();
    let Some(found) = top.find("server") else {
        let hint = "[[server]] with replicas = [\"http://127.0.0.1:3001/mcp\"]";
        top.miss_in_file("no [[server]] is configured", "at least one server", hint);
        return servers;
    };
    let Some(tables) = found.tables() else {
        top.refuse(&found, "[[server]], once a server", None);
        return servers;
    };
    let (mut names, mut paths) = (HashMap::new(), HashMap::new());
    for (index, (table, span)) in tables.into_iter().enumerate() {
        let section = Section::new(findings, text, &format!("server[{}]", index + 1)).with_table(table, span);
        let (server, door) = server::server(&section, index);
        registry::demand_store(&section, &server.name, &door, store);
        if let Some(first) = names.insert(server.name.clone(), index + 1) {
            let what =
                format!("server[{}] and server[{first}] are both named \"{}\"", index + 1, server.name);
            section.miss(what, "a name of its own for each server", None);
        }
        if let Some(first) = paths.insert(server.path.clone(), index + 1) {
            let what =
                format!("server[{}] and server[{first}] share the path \"{}\"", index + 1, server.path);
            let hint =
                "give it path = \"/…\"; one endpoint over several servers (federation) is not in this build";
            section.miss(what, "a path of its own for each server", Some(hint));
        }
        if let Some(plan) = credentials::credentials(&section) {
            credentials.insert(server.name.clone(), plan);
        }
        section.finish();
        servers.push((Arc::new(server), door));
    }
    servers
}
