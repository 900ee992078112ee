//! Whom the registry may add: entries that are whole, signed where a secret is set, and within the allow-lists.
//!
//! Whoever can write the store can write anything there (RELIABILITY T16), so an entry is a claim until it passed here.
//! A node of a server that this gateway does not serve is no business of its own, and no fault.

use std::sync::Arc;

use regatta_policy::registry::{Entry, Unfit};
use regatta_policy::snapshot::{Endpoint, Server};
use regatta_store::NodeFields;

use crate::config::endpoint;
use crate::config::registry::{Door, Joining, Reading};

/// What an entry is measured by.
#[derive(Clone, Copy, Debug)]
pub struct Gate<'a> {
    /// How the registry is read.
    pub reading: &'a Reading,
    /// The servers of the config.
    pub servers: &'a [Arc<Server>],
    /// Who may join each of them, in the same order.
    pub doors: &'a [Door],
}

/// What comes of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "the large one is the ordinary case, and none is kept")]
pub enum Verdict {
    /// A node of a server of ours, and where it listens.
    Welcome(Entry, Endpoint),
    /// A node of a server that is not ours, or that takes no nodes.
    Foreign,
    /// Refused, for this reason.
    Refused(Refused),
}

/// Why an entry is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is not whole.
    #[error("{0}")]
    Unfit(Unfit),
    /// There is no signature where there must be one.
    #[error("it is not signed")]
    Unsigned,
    /// The signature is not one of this secret, or over other fields.
    #[error("its signature is wrong")]
    Forged,
    /// The URL cannot be used.
    #[error("its url is not {0}")]
    Url(endpoint::Expected),
    /// The URL names a host that is not allowed.
    #[error("its host is not in registry_hosts")]
    Host,
    /// It reports a tool that is not allowed.
    #[error("it reports a tool that is not in registry_tools")]
    Tool,
}

impl From<Unfit> for Refused {
    fn from(unfit: Unfit) -> Refused {
        Refused::Unfit(unfit)
    }
}

impl Gate<'_> {
    /// Measures the entry of `id`.
    pub fn judge(&self, id: &str, fields: &NodeFields) -> Verdict {
        let named = fields.get("server").map(String::as_str);
        let at = self.servers.iter().position(|server| Some(server.name.as_str()) == named);
        let Some(door) = at.and_then(|at| self.doors.get(at)).filter(|door| door.nodes == Joining::Open)
        else {
            return Verdict::Foreign;
        };
        match self.enter(door, id, fields) {
            Ok((entry, endpoint)) => Verdict::Welcome(entry, endpoint),
            Err(refused) => Verdict::Refused(refused),
        }
    }

    fn enter(&self, door: &Door, id: &str, fields: &NodeFields) -> Result<(Entry, Endpoint), Refused> {
        let mut entry = Entry::read(id, |name| fields.get(name).map(String::as_str))?;
        self.check_signature(door, id, fields)?;
        let endpoint = endpoint::parse(&entry.url).map_err(Refused::Url)?;
        let is_listed =
            |globs: &[regatta_policy::Glob], name: &str| globs.iter().any(|glob| glob.matches(name));
        if !door.hosts.is_empty() && !is_listed(&door.hosts, &endpoint.host) {
            return Err(Refused::Host);
        }
        let mut tools = entry.tools.iter().flatten();
        if !door.tools.is_empty() && !tools.all(|tool| is_listed(&door.tools, tool)) {
            return Err(Refused::Tool);
        }
        // Two spellings of one place are one place, here as in the config.
        entry.url.clone_from(&endpoint.url);
        Ok((entry, endpoint))
    }

    /// The signature covers what decides where traffic goes; the fields as they were written, absent ones as empty.
    fn check_signature(&self, door: &Door, id: &str, fields: &NodeFields) -> Result<(), Refused> {
        let secrets = if door.secrets.are_demanded() { &door.secrets } else { &self.reading.secrets };
        if !secrets.are_demanded() {
            return Ok(());
        }
        let field = |name: &str| fields.get(name).map(String::as_str).unwrap_or_default();
        let signature = field("sig");
        if signature.is_empty() {
            return Err(Refused::Unsigned);
        }
        let signed = ["boot", "url", "server", "tools", "sessionState"].map(|name| field(name).as_bytes());
        // Last, and only where it is: nodes that know nothing of it sign six parts.
        let journal = Some(field("journal").as_bytes()).filter(|journal| !journal.is_empty());
        let parts: Vec<&[u8]> = std::iter::once(id.as_bytes()).chain(signed).chain(journal).collect();
        let is_signed = secrets.known.iter().any(|secret| secret.verifies(&parts, signature));
        if is_signed { Ok(()) } else { Err(Refused::Forged) }
    }
}
