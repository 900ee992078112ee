//! One entry of the registry: what a node in any language wrote, understood and bounded (DESIGN 6).
//!
//! Text in, facts out. Whether its signature is right, its URL may be used and its server exists is asked elsewhere;
//! what does not fit is refused with a word, never repaired.

use std::time::Duration;

use serde_json::Value;

use crate::ids::{ReplicaId, stable_hash};
use crate::snapshot::SessionState;

/// Bytes of a node's id.
const ID_MAX: usize = 256;
/// Bytes of a boot nonce, a version, a heartbeat.
const WORD_MAX: usize = 64;
/// Bytes of a URL.
const URL_MAX: usize = 2048;
/// The longest pause between heartbeats that is borne with.
const BEAT_MAX: Duration = Duration::from_secs(60);
/// Tools that a node can report.
pub const TOOLS_MAX: usize = 1024;
/// Bytes of a tool's name.
const TOOL_MAX: usize = 256;

/// What a node says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Not ready yet.
    Starting,
    /// Ready.
    Running,
    /// Leaving: no new work, please.
    Stopping,
}

/// A node's load as a share of what it can bear, in steps of 50: small changes are not worth a new snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Load {
    /// 0 to 1000.
    pub permille: u16,
}

/// One node as the registry lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The node's id.
    pub id: String,
    /// New with every start of the node's process, if it gives one.
    pub boot: Option<String>,
    /// What it says of itself.
    pub status: Status,
    /// `lastHeartbeat` as written: only ever compared with itself.
    pub heartbeat: String,
    /// How often it means to beat, if it says so; at most [`BEAT_MAX`].
    pub beat_every: Option<Duration>,
    /// Its load, if it reports one.
    pub load: Option<Load>,
    /// The name of the server that it is a replica of.
    pub server: String,
    /// Where it listens, as written.
    pub url: String,
    /// Where it keeps what it knows of a session, if it says so.
    pub session_state: Option<SessionState>,
    /// The names of its tools, sorted, if it reports them.
    pub tools: Option<Vec<String>>,
    /// The names of tools, sorted, whose calls it keeps in a journal that all nodes of its server share: a call that is sent
    /// again, to whichever of them, runs at most once.
    pub journal: Vec<String>,
    /// Its version, for people.
    pub version: Option<String>,
}

/// Why an entry is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// The id is empty, too long, or not of visible ASCII.
    #[error("the id is empty, longer than 256 bytes or not of visible ASCII")]
    Id,
    /// A field that must be there is not.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A field is longer than allowed.
    #[error("{0} is too long")]
    TooLong(&'static str),
    /// A field holds something else than it should.
    #[error("{0} is not what it should be")]
    Odd(&'static str),
    /// More tools than [`TOOLS_MAX`].
    #[error("more than 1024 tools")]
    TooManyTools,
}

impl Load {
    /// The share that `load` of `max` is, if both make sense.
    pub fn of(load: f64, max: f64) -> Option<Load> {
        if !(load.is_finite() && max.is_finite() && load >= 0.0 && max > 0.0) {
            return None;
        }
        let steps = (load / max).min(1.0) * 20.0;
        Some(Load { permille: steps.round() as u16 * 50 })
    }
}

impl Entry {
    /// Reads the entry `id`; `field` gives a field's text.
    pub fn read<'a>(id: &str, field: impl Fn(&str) -> Option<&'a str>) -> Result<Entry, Unfit> {
        if id.is_empty() || id.len() > ID_MAX || !id.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Unfit::Id);
        }
        // An empty field is as good as none: not every client can leave one out.
        let text = |name: &'static str, max: usize| match field(name).filter(|text| !text.is_empty()) {
            Some(text) if text.len() > max => Err(Unfit::TooLong(name)),
            found => Ok(found),
        };
        let must = |name: &'static str, max: usize| text(name, max)?.ok_or(Unfit::Missing(name));
        let number = |name: &'static str| text(name, WORD_MAX).ok().flatten()?.trim().parse::<f64>().ok();
        Ok(Entry {
            id: id.to_owned(),
            boot: text("boot", WORD_MAX)?.map(str::to_owned),
            status: status(must("status", WORD_MAX)?)?,
            heartbeat: must("lastHeartbeat", WORD_MAX)?.to_owned(),
            beat_every: number("heartbeatMs").and_then(beat_every),
            load: number("load").zip(number("maxLoad")).and_then(|(load, max)| Load::of(load, max)),
            server: must("server", WORD_MAX)?.to_owned(),
            url: must("url", URL_MAX)?.to_owned(),
            session_state: text("sessionState", WORD_MAX)?.map(session_state).transpose()?,
            tools: text("tools", usize::MAX)?.map(|text| names("tools", text)).transpose()?,
            journal: text("journal", usize::MAX)?
                .map(|text| names("journal", text))
                .transpose()?
                .unwrap_or_default(),
            version: text("version", WORD_MAX)?.map(str::to_owned),
        })
    }

    /// The name of the replica that this node is: of its process where there is a boot nonce, else of the place where
    /// it listens, which is what a replica of the config is named by (SESSIONS 1).
    pub fn replica(&self) -> ReplicaId {
        match &self.boot {
            Some(boot) => {
                ReplicaId(stable_hash(&[b"node", self.id.as_bytes(), boot.as_bytes()]).to_be_bytes())
            }
            None => ReplicaId::of(&self.server, &self.url),
        }
    }

    /// Whether `later` is the same process as far as anybody can tell.
    pub fn is_same_process(&self, later: &Entry) -> bool {
        (&self.boot, &self.server, &self.url) == (&later.boot, &later.server, &later.url)
    }
}

fn beat_every(milliseconds: f64) -> Option<Duration> {
    let every = Duration::try_from_secs_f64(milliseconds / 1000.0).ok()?;
    (!every.is_zero()).then_some(every.min(BEAT_MAX))
}

fn status(text: &str) -> Result<Status, Unfit> {
    match text {
        "starting" => Ok(Status::Starting),
        "running" => Ok(Status::Running),
        "stopping" => Ok(Status::Stopping),
        _unknown => Err(Unfit::Odd("status")),
    }
}

fn session_state(text: &str) -> Result<SessionState, Unfit> {
    match text {
        "external" => Ok(SessionState::External),
        "unknown" => Ok(SessionState::Unknown),
        "memory" => Ok(SessionState::Memory),
        _unknown => Err(Unfit::Odd("sessionState")),
    }
}

/// A JSON list of names, or of objects with a `name` as `tools/list` has them.
fn names(field: &'static str, text: &str) -> Result<Vec<String>, Unfit> {
    let odd = Unfit::Odd(field);
    let Ok(Value::Array(list)) = serde_json::from_str(text) else { return Err(odd) };
    if list.len() > TOOLS_MAX {
        return Err(Unfit::TooManyTools);
    }
    let name = |tool: &Value| {
        let name = tool.as_str().or_else(|| tool.get("name")?.as_str()).ok_or(odd)?;
        let fits = !name.is_empty() && name.len() <= TOOL_MAX;
        fits.then(|| name.to_owned()).ok_or(odd)
    };
    let mut names = list.iter().map(name).collect::<Result<Vec<_>, _>>()?;
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn fields(more: &[(&'static str, &'static str)]) -> BTreeMap<&'static str, &'static str> {
        let least = [
            ("status", "running"),
            ("lastHeartbeat", "1764120000"),
            ("server", "shop"),
            ("url", "http://h:1/mcp"),
        ];
        least.iter().chain(more).copied().collect()
    }

    fn read(more: &[(&'static str, &'static str)]) -> Result<Entry, Unfit> {
        let fields = fields(more);
        Entry::read("n1", |name| fields.get(name).copied())
    }

    #[test]
    fn four_fields_are_enough() {
        let entry = read(&[]).expect("fits");
        assert_eq!((entry.status, entry.boot, entry.load, entry.tools), (Status::Running, None, None, None));
        assert_eq!(
            read(&[("boot", ""), ("tools", "")]).expect("fits").tools,
            None,
            "empty is as good as none"
        );
    }

    #[test]
    fn reads_what_may_be_there() {
        let entry = read(&[
            ("heartbeatMs", "5000"),
            ("load", "30"),
            ("maxLoad", "40"),
            ("tools", r#"["b", {"name":"a","inputSchema":{}}, "b"]"#),
            ("sessionState", "external"),
            ("boot", "x1"),
            ("journal", r#"["order", "add"]"#),
        ]);
        let entry = entry.expect("fits");
        assert_eq!(entry.load, Some(Load { permille: 750 }));
        assert_eq!(entry.beat_every, Some(Duration::from_secs(5)));
        let beat_every = |text| read(&[("heartbeatMs", text)]).expect("fits").beat_every;
        assert_eq!(["0", "-1", "soon"].map(beat_every), [None; 3]);
        assert_eq!(beat_every("9e12"), Some(BEAT_MAX), "nobody stays forever by saying so");
        assert_eq!(entry.tools, Some(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(entry.session_state, Some(SessionState::External));
        assert_eq!(
            (entry.journal, read(&[]).expect("fits").journal),
            (vec!["add".into(), "order".into()], vec![])
        );
    }

    #[test]
    fn a_load_that_makes_no_sense_is_none_at_all() {
        for (load, max) in [("1", "0"), ("-1", "5"), ("NaN", "5"), ("x", "5"), ("inf", "inf")] {
            assert_eq!(read(&[("load", load), ("maxLoad", max)]).expect("fits").load, None, "{load}/{max}");
        }
        assert_eq!(Load::of(9.0, 5.0), Some(Load { permille: 1000 }));
    }

    #[test]
    fn says_what_does_not_fit() {
        for (name, value, unfit) in [
            ("status", "up", Unfit::Odd("status")),
            ("status", "", Unfit::Missing("status")),
            ("lastHeartbeat", "", Unfit::Missing("lastHeartbeat")),
            ("url", "", Unfit::Missing("url")),
            ("server", "", Unfit::Missing("server")),
            ("sessionState", "none", Unfit::Odd("sessionState")),
            ("tools", "{}", Unfit::Odd("tools")),
            ("tools", "[1]", Unfit::Odd("tools")),
            ("tools", r#"[""]"#, Unfit::Odd("tools")),
            ("journal", "order", Unfit::Odd("journal")),
        ] {
            assert_eq!(read(&[(name, value)]), Err(unfit), "{name} = {value}");
        }
        let long = "x".repeat(URL_MAX + 1);
        let all = fields(&[]);
        let field = |name: &str| if name == "url" { Some(long.as_str()) } else { all.get(name).copied() };
        assert_eq!(Entry::read("n1", field), Err(Unfit::TooLong("url")));
        assert_eq!(Entry::read("", |name| all.get(name).copied()), Err(Unfit::Id));
        assert_eq!(Entry::read("a b", |name| all.get(name).copied()), Err(Unfit::Id));
        let many = serde_json::to_string(&vec!["t"; TOOLS_MAX + 1]).expect("JSON");
        let field = |name: &str| if name == "tools" { Some(many.as_str()) } else { all.get(name).copied() };
        assert_eq!(Entry::read("n1", field), Err(Unfit::TooManyTools));
    }

    #[test]
    fn a_restart_is_another_replica_only_where_a_boot_nonce_tells() {
        let (first, second) = (read(&[("boot", "1")]).expect("fits"), read(&[("boot", "2")]).expect("fits"));
        assert_ne!(first.replica(), second.replica());
        assert!(!first.is_same_process(&second));
        let plain = read(&[]).expect("fits");
        assert_eq!(plain.replica(), ReplicaId::of("shop", "http://h:1/mcp"));
    }
}
