//! Which replicas a call may go to because of its tool: those that have it, where replicas differ.
//!
//! Nothing is looked up where all replicas have the same tools. A tool that no list knows goes anywhere: its server says
//! what it thinks of it.

use regatta_mcp::Method;
use regatta_policy::ReplicaId;
use regatta_policy::catalogue::{Catalogue, Spread, Tool};

use crate::handover::Call;
use crate::view::ServerView;

/// The replicas that an unbound request may go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Among {
    /// Any.
    All,
    /// These and no others; perhaps none is left.
    These(Box<[ReplicaId]>),
}

impl Among {
    /// Whether `replica` is one of them.
    pub fn has(&self, replica: ReplicaId) -> bool {
        match self {
            Among::All => true,
            Among::These(these) => these.contains(&replica),
        }
    }
}

/// The replicas that the tool of `call` is at.
pub(crate) fn among(call: &Call) -> Among {
    match tool(call) {
        Some((_, tool)) => Among::These(tool.carriers.clone().into()),
        None => Among::All,
    }
}

/// The tool that `call` calls, if replicas differ and it is one of theirs.
pub(crate) fn tool(call: &Call) -> Option<(String, &Tool)> {
    let catalogue = mixed(&call.server)?;
    let message = call.one()?;
    if message.method?.method != Method::ToolsCall {
        return None;
    }
    let name = message.params.name?.get(&call.text).into_owned();
    let tool = catalogue.tools.get(&name)?;
    Some((name, tool))
}

/// What is known of a server's tools, if its replicas differ.
pub(crate) fn mixed(server: &ServerView) -> Option<&Catalogue> {
    let catalogue = server.server.catalogue.as_deref()?;
    match catalogue.spread {
        Spread::Mixed => Some(catalogue),
        Spread::Unknown | Spread::Same => None,
    }
}
