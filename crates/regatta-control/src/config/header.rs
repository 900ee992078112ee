//! Names of headers that decide something.

use http::HeaderName;

/// The name, in lower case; none for what is no name, and for `Mcp-Param-*`: those repeat arguments of a call, and only the
/// server, which knows its tools' schemas, can tell whether they do (2026-07-28 basic/transports/streamable-http,
/// *Custom Headers from Tool Parameters*). Whoever could lie in them could choose their quota.
pub(super) fn deciding(name: &str) -> Option<String> {
    let name = HeaderName::try_from(name).ok()?;
    (!name.as_str().starts_with("mcp-param-")).then(|| name.as_str().to_owned())
}
