//! Where the load goes: an `http://` URL taken apart once.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};

/// One MCP endpoint in clear HTTP.
#[derive(Clone, Debug)]
pub struct Target {
    /// The address to connect to.
    pub address: SocketAddr,
    /// The value of `Host`.
    pub host: String,
    /// Path and query.
    pub path: String,
    /// Who calls, as a bearer token.
    pub bearer: Option<String>,
}

/// Why a URL is no target; the text is for a person.
#[derive(Debug)]
pub struct NoTarget(String);

impl fmt::Display for NoTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NoTarget {}

impl Target {
    /// Reads `http://host[:port][/path]` and resolves the host.
    pub fn parse(url: &str) -> Result<Target, NoTarget> {
        let rest = url
            .strip_prefix("http://")
            .ok_or_else(|| NoTarget(format!("{url}: expected http://host:port/path")))?;
        let (host, path) = match rest.find('/') {
            Some(at) => (&rest[..at], &rest[at..]),
            None => (rest, "/mcp"),
        };
        let with_port = if host.rsplit(']').next().is_some_and(|tail| tail.contains(':')) {
            host.to_owned()
        } else {
            format!("{host}:80")
        };
        let address = with_port
            .to_socket_addrs()
            .map_err(|error| NoTarget(format!("{url}: {error}")))?
            .next()
            .ok_or_else(|| NoTarget(format!("{url}: the host has no address")))?;
        Ok(Target { address, host: host.to_owned(), path: path.to_owned(), bearer: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_a_url_apart() {
        let target = Target::parse("http://127.0.0.1:8080/mcp").unwrap();
        assert_eq!(target.address, "127.0.0.1:8080".parse().unwrap());
        assert_eq!((target.host.as_str(), target.path.as_str()), ("127.0.0.1:8080", "/mcp"));
        assert_eq!(Target::parse("http://127.0.0.1").unwrap().address.port(), 80);
        assert!(Target::parse("https://127.0.0.1/").is_err());
    }
}
