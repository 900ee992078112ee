//! What the registry's keys mean: how nodes are judged, and who may register as a replica of which server.
//!
//! `[store]` says how the registry is read, each `[[server]]` whether and to whom it is open. A secret is never shown;
//! one in a file is read when a gateway starts and when it reads its config again, not by a check.

use std::path::{Path, PathBuf};
use std::time::Duration;

use regatta_policy::Glob;
use regatta_policy::registry::Terms;
use regatta_seal::{RegistrationSecret, SECRET_MIN};

use super::raw::{Found, Section};
use super::store::Store;

/// How the registry is read, once for all servers.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// Between two readings.
    pub poll: Duration,
    /// How nodes are judged.
    pub terms: Terms,
    /// Any of these must have signed an entry for a server without secrets of its own; none: entries need no signature.
    pub secrets: Secrets,
}

/// Who may register as a replica of one server.
#[derive(Clone, Debug, PartialEq)]
pub struct Door {
    /// Whether nodes may join at all.
    pub nodes: Joining,
    /// Any of these must have signed an entry; none: those of [`Reading`].
    pub secrets: Secrets,
    /// Hosts that a node's URL may name; none: any.
    pub hosts: Vec<Glob>,
    /// Tools that a node may report; none: any.
    pub tools: Vec<Glob>,
    /// How the tools of replicas become known.
    pub source: ToolSource,
    /// How long a tool stays listed after the last replica with it was lost.
    pub lost_tools_kept: Duration,
}

/// Secrets, wherever they are written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Secrets {
    /// Those that are known.
    pub known: Vec<RegistrationSecret>,
    /// A file with more, one a line.
    pub file: Option<PathBuf>,
}

impl Secrets {
    /// Adds those in the file, if one is named. Without them every signature is refused, rather than none asked for.
    pub fn read_file(&mut self) -> Result<(), String> {
        let Some(path) = &self.file else { return Ok(()) };
        let failed = |why: &str| format!("registry_secret_file {}: {why}", path.display());
        for line in lines(path).map_err(failed)? {
            let secret = RegistrationSecret::new(&line);
            self.known.push(secret.map_err(|why| failed(&why.to_string()))?);
        }
        Ok(())
    }

    /// Whether entries must be signed.
    pub fn are_demanded(&self) -> bool {
        !self.known.is_empty() || self.file.is_some()
    }
}

/// Whether nodes may join a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joining {
    /// Only the replicas of the config.
    Closed,
    /// And every node that registers under the server's name.
    Open,
}

/// How the tools of a server's replicas become known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToolSource {
    /// All replicas are taken to have the same tools, unless a node reports its own.
    Reported,
    /// Each replica is asked for its list.
    Probe,
}

/// A file with secrets is at most this long.
const SECRET_FILE_MAX: u64 = 64 << 10;
const SECRETS: &str = "a secret of at least 16 bytes, or a list of them";

/// Reads the keys of `[store]` that are about the registry.
pub fn reading(store: &Section<'_>) -> Reading {
    const MS: Duration = Duration::from_millis(1);
    const SECOND: Duration = Duration::from_secs(1);
    let poll = store.time("registry_poll", SECOND, 50 * MS..=60 * SECOND);
    let lease = store.time("registry_lease", 8 * SECOND, 400 * MS..=3600 * SECOND);
    if lease < 4 * poll {
        store.miss(
            "registry_lease is shorter than four times registry_poll".to_owned(),
            "a lease of at least four readings: a node beats about every second one, and may miss a beat",
            None,
        );
    }
    let nodes_max = store.count("nodes_max", 1000, 1..=1000);
    Reading { poll, terms: Terms { lease, nodes_max }, secrets: secrets(store) }
}

/// Complains about a server that waits for nodes where none can register: the store of one process alone.
pub fn demand_store(server: &Section<'_>, name: &str, door: &Door, store: &Store) {
    if door.nodes == Joining::Open && store.url.is_none() {
        let hint =
            "[store] with url = \"redis://127.0.0.1:6379\", or list the replicas without registry = true";
        let what = format!("server \"{name}\" has registry = true, and there is no store.url");
        server.miss(what, "a store in Redis, where its nodes register", Some(hint));
    }
}

/// Reads the keys of a `[[server]]` that are about its nodes and tools.
pub fn door(server: &Section<'_>) -> Door {
    let nodes = match server.find("registry") {
        None => Joining::Closed,
        Some(found) => match found.flag() {
            Some(true) => Joining::Open,
            Some(false) => Joining::Closed,
            None => {
                server.refuse(&found, "true or false", None);
                Joining::Closed
            }
        },
    };
    let glob = |found: &Found<'_>| found.text().filter(|text| !text.is_empty()).map(Glob::new);
    Door {
        nodes,
        secrets: secrets(server),
        hosts: server.list("registry_hosts", "a host name or address; * stands for any letters", glob),
        tools: server.list("registry_tools", "a tool name; * stands for any letters", glob),
        source: server.choice(
            "tools",
            ToolSource::Reported,
            &[("reported", ToolSource::Reported), ("probe", ToolSource::Probe)],
        ),
        lost_tools_kept: server.time(
            "lost_tools_kept",
            Duration::from_secs(600),
            Duration::ZERO..=Duration::from_secs(7 * 24 * 3600),
        ),
    }
}

/// The secrets that are written, and the file that is named.
fn secrets(section: &Section<'_>) -> Secrets {
    let written = section.list("registry_secret", SECRETS, |found| Some(secret(section, found.text())));
    let file = section.find("registry_secret_file").and_then(|found| {
        let path = found.text().filter(|path| !path.is_empty());
        if path.is_none() {
            section.refuse(&found, "the path of a file with one secret a line", None);
        }
        path.map(PathBuf::from)
    });
    Secrets { known: written.into_iter().flatten().collect(), file }
}

fn secret(section: &Section<'_>, text: Option<&str>) -> Option<RegistrationSecret> {
    let secret = text.and_then(|text| RegistrationSecret::new(text).ok());
    if secret.is_none() {
        let what = "registry_secret is no secret".to_owned();
        let expected = format!("at least {SECRET_MIN} bytes each");
        section.miss(what, &expected, Some("make one with `openssl rand -hex 32`"));
    }
    secret
}

/// One secret a line; blanks round it and empty lines do not count.
fn lines(path: &Path) -> Result<Vec<String>, &'static str> {
    let length = std::fs::metadata(path).map_err(|_| "it cannot be read")?.len();
    if length > SECRET_FILE_MAX {
        return Err("it is longer than 64KiB");
    }
    let text = std::fs::read_to_string(path).map_err(|_| "it cannot be read as text")?;
    let lines: Vec<String> =
        text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
    if lines.is_empty() { Err("it holds no secret") } else { Ok(lines) }
}
