//! What the control plane knows of identities: the issuers' keys, and the secrets that stand in files and variables.
//!
//! Turns `[auth]` and the servers' `credentials` into what a snapshot holds, anew whenever a key or a secret changes.
//! A secret that cannot be read becomes an empty one: the server is shown nothing, and never the client's own.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use regatta_policy::access::{Access, Asked, VerificationKey};
use regatta_policy::snapshot::Credential;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use crate::config::{Config, IDENTITY_SECRET_MIN, SecretPlace, is_visible};
use crate::files::Watched;
use crate::keys::{Asking, Issuers, Report, Waiting};

/// Reports of issuers that may wait for the worker.
const REPORTS_MAX: usize = 64;
/// Bytes of a file with a secret.
const SECRET_MAX: u64 = 64 << 10;

/// Issuers and secrets of one config.
#[derive(Debug)]
pub struct Identity {
    issuers: Issuers,
    reports: mpsc::Receiver<Report>,
    asks: mpsc::Receiver<(String, Waiting)>,
    found: HashMap<String, Vec<VerificationKey>>,
    watched: Watched,
    /// As of now; the same value as long as nothing in it changes.
    access: Option<Arc<Access>>,
    credentials: HashMap<String, Credential>,
    /// Those who wait for the next snapshot.
    waiting: Vec<Waiting>,
}

impl Identity {
    /// Of `config`, without any key yet; and the way to ask for keys.
    pub fn new(config: &Config) -> (Identity, Asking) {
        let (report, reports) = mpsc::channel(REPORTS_MAX);
        let (asking, asks) = Asking::new();
        let mut identity = Identity {
            issuers: Issuers::new(report),
            reports,
            asks,
            found: HashMap::new(),
            watched: Watched::new(Vec::new()),
            access: None,
            credentials: HashMap::new(),
            waiting: Vec::new(),
        };
        identity.set(config);
        (identity, asking)
    }

    /// Goes by `config` from now on.
    pub fn set(&mut self, config: &Config) {
        let plans = config.auth.as_ref().map_or(&[][..], |auth| &auth.issuers);
        self.issuers.set(plans);
        self.found.retain(|url, _| plans.iter().any(|plan| plan.url == *url));
        self.watched = Watched::new(files(config));
        self.read(config);
    }

    /// Whether a secret changed since the last look.
    pub fn look(&mut self, config: &Config) -> bool {
        let changed = self.watched.changed();
        if changed {
            self.read(config);
        }
        changed
    }

    /// Waits for the first keys of all issuers, but not beyond `deadline`.
    pub async fn first(&mut self, config: &Config, deadline: Instant) {
        let count = config.auth.as_ref().map_or(0, |auth| auth.issuers.len());
        while self.found.len() < count {
            match timeout_at(deadline, self.reports.recv()).await {
                Ok(Some(report)) => _ = self.take(config, report),
                Ok(None) | Err(_) => break,
            }
        }
    }

    /// The next thing that issuers or askers have to say; true if a snapshot has to tell it. Cancel safe.
    pub async fn next(&mut self, config: &Config) -> bool {
        tokio::select! {
            Some(report) = self.reports.recv() => self.take(config, report),
            Some((issuer, waiting)) = self.asks.recv() => {
                self.issuers.ask(&issuer, waiting);
                false
            }
            else => std::future::pending().await,
        }
    }

    fn take(&mut self, config: &Config, report: Report) -> bool {
        self.waiting.extend(report.waiting);
        let Some(keys) = report.keys else { return false };
        self.found.insert(report.issuer, keys);
        self.read(config);
        true
    }

    /// Tells those who wait for keys that they are in the snapshot `version`, which has been handed down.
    pub fn told(&mut self, version: u64) {
        for waiting in self.waiting.drain(..) {
            // Whoever gave up meanwhile needs no answer.
            let _ = waiting.send(Asked::Found { version });
        }
    }

    /// Who may call, as of now.
    pub fn access(&self) -> Option<Arc<Access>> {
        self.access.clone()
    }

    /// What `server` is shown of this gateway.
    pub fn credential(&self, server: &str) -> Option<Credential> {
        self.credentials.get(server).cloned()
    }

    fn read(&mut self, config: &Config) {
        self.access = config.auth.as_ref().map(|auth| {
            let mut access = (*auth.access).clone();
            for issuer in &mut access.issuers {
                issuer.keys = self.found.get(&issuer.url).cloned().unwrap_or_default();
            }
            access.identity_secret = auth.identity_secret.as_ref().and_then(|place| {
                let secret = secret(place).and_then(|secret| match secret.expose_secret().len() {
                    0..IDENTITY_SECRET_MIN => Err(format!("it has less than {IDENTITY_SECRET_MIN} bytes")),
                    _ => Ok(secret),
                });
                secret
                    .map_err(|why| tracing::error!(why, "no identity headers: their secret cannot be used"))
                    .ok()
            });
            Arc::new(access)
        });
        let read = config.credentials.iter().map(|(server, plan)| {
            let value = match secret(&plan.secret) {
                Ok(secret) if is_visible(secret.expose_secret()) => {
                    SecretString::from(format!("{}{}", plan.prefix, secret.expose_secret()))
                }
                Ok(_) => {
                    tracing::error!(server, "the credential holds what no header can; none is shown");
                    SecretString::default()
                }
                Err(why) => {
                    tracing::error!(server, why, "the credential cannot be read; none is shown");
                    SecretString::default()
                }
            };
            (server.clone(), Credential { header: plan.header.clone(), value })
        });
        self.credentials = read.collect();
    }
}

/// All files with secrets.
fn files(config: &Config) -> Vec<PathBuf> {
    let secrets = config.credentials.values().map(|plan| &plan.secret);
    let identity = config.auth.iter().filter_map(|auth| auth.identity_secret.as_ref());
    let file = |place: &SecretPlace| match place {
        SecretPlace::File(path) => Some(path.clone()),
        SecretPlace::Text(_) | SecretPlace::Variable(_) => None,
    };
    secrets.chain(identity).filter_map(file).collect()
}

/// The secret at a place, without the line end that editors put behind it; else why not, without a word of it.
fn secret(place: &SecretPlace) -> Result<SecretString, String> {
    let text = match place {
        SecretPlace::Text(text) => return Ok(text.clone()),
        SecretPlace::Variable(name) => std::env::var(name).map_err(|why| match why {
            std::env::VarError::NotPresent => format!("the variable {name} is not set"),
            std::env::VarError::NotUnicode(_) => format!("the variable {name} is no text"),
        })?,
        SecretPlace::File(path) => {
            let unread = |why: std::io::Error| format!("{}: {why}", path.display());
            let length = std::fs::metadata(path).map_err(unread)?.len();
            if length > SECRET_MAX {
                return Err(format!("{}: {length} bytes, at most {SECRET_MAX}", path.display()));
            }
            std::fs::read_to_string(path).map_err(unread)?
        }
    };
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err("it is empty".to_owned()),
        text => Ok(text.to_owned().into()),
    }
}

/// How long the first snapshot waits for the first keys.
pub const FIRST_KEYS_MAX: Duration = Duration::from_secs(2);
