//! What a command line, a config and this machine come to together: everything that the wiring needs.
//!
//! It reads no file but the config, and opens nothing.

use std::net::SocketAddr;
use std::path::PathBuf;

use regatta_control::Source;
use regatta_control::config::{self, Config, Env};

/// A gateway as it is to be started.
#[derive(Debug)]
pub struct Settings {
    /// The checked config.
    pub config: Config,
    /// Where it came from; none: it is never read again.
    pub source: Option<Source>,
    /// Which part of the state directory this gateway has.
    pub state: StateDir,
    /// What the admin listener does when its address is taken.
    pub admin_taken: AdminTaken,
    /// The log filter unless the config has one.
    pub log_filter: &'static str,
}

/// Where keys and deviations are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StateDir {
    /// In this directory; none: the platform says no place.
    At(Option<PathBuf>),
    /// In a directory for the port that was bound, below this one.
    ByPort(Option<PathBuf>),
}

/// What to do when the admin address is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdminTaken {
    /// Fail: the operator chose it.
    Fail,
    /// Take any free port: nobody chose it.
    AnyPort,
}

/// `serve --config FILE`.
pub fn of_file(path: PathBuf) -> Result<Settings, config::Complaints> {
    let source = Source { path, env: Env::of_process() };
    let config = config::load(&source.path, &source.env)?;
    let state = StateDir::At(config.process.state_dir.clone().or_else(default_state_dir));
    Ok(Settings { config, source: Some(source), state, admin_taken: AdminTaken::Fail, log_filter: "info" })
}

/// `up`: a config from a few arguments, checked by the same code as a file.
pub fn of_urls(
    listen: SocketAddr,
    admin: Option<SocketAddr>,
    urls: &[String],
    state_dir: Option<PathBuf>,
    store: Option<&str>,
) -> Result<Settings, config::Complaints> {
    let ephemeral = if listen.port() == 0 { "127.0.0.1:0" } else { "127.0.0.1:9901" };
    let shown = admin.map_or(ephemeral.to_owned(), |admin| admin.to_string());
    let text = format!(
        "[gateway]\nlisten = \"{listen}\"\nadmin = \"{shown}\"\n[[server]]\nname = \"up\"\nreplicas = {urls:?}\n"
    );
    let store = store.map_or_else(String::new, |url| format!("[store]\nurl = {url:?}\n"));
    let text = text + &store;
    // What was typed wins over the environment.
    let mut env = Env::of_process();
    env.0.retain(|name, _| name != "REGATTA_GATEWAY_LISTEN" && name != "REGATTA_GATEWAY_ADMIN");
    if !store.is_empty() {
        env.0.retain(|name, _| name != "REGATTA_STORE_URL");
    }
    let config = config::check("command line", &text, &env)?;
    let state = match state_dir {
        Some(dir) => StateDir::At(Some(dir)),
        None => StateDir::ByPort(config.process.state_dir.clone().or_else(default_state_dir)),
    };
    let admin_taken = if admin.is_some() { AdminTaken::Fail } else { AdminTaken::AnyPort };
    Ok(Settings { config, source: None, state, admin_taken, log_filter: "warn" })
}

impl StateDir {
    /// The directory of a gateway that listens on `port`.
    pub fn path(&self, port: u16) -> Option<PathBuf> {
        match self {
            StateDir::At(path) => path.clone(),
            StateDir::ByPort(base) => base.as_ref().map(|base| base.join(format!("up-{port}"))),
        }
    }
}

/// `$XDG_STATE_HOME/regatta`, else `~/.local/state/regatta`.
fn default_state_dir() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = variable("XDG_STATE_HOME").or_else(|| Some(variable("HOME")?.join(".local/state")))?;
    Some(base.join("regatta"))
}
