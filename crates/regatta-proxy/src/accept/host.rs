//! Is the request meant for us? The defence against DNS rebinding (RELIABILITY T1, I6, I7).
//!
//! The authority that counts is the one actually used: the absolute form's wins over `Host`
//! (RFC 9112 3.2.2). Names are compared without port, lower-cased, without a trailing dot.

use http::header::HOST;
use http::request::Parts;
use regatta_policy::snapshot::Origins;

use crate::fault::Fault;

/// Refuses a request without exactly one well-formed `Host`, or for a host that is not let in.
pub(super) fn check(head: &Parts, admitted: &Origins) -> Result<(), Fault> {
    let mut hosts = head.headers.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return Err(Fault::BadHost) };
    let host = host.to_str().map_err(|_| Fault::BadHost)?;
    let name = match head.uri.authority() {
        Some(authority) => plain_host(authority.as_str())?,
        None => plain_host(host)?,
    };
    if admitted.any_host || is_let_in(name, admitted) { Ok(()) } else { Err(Fault::ForeignHost) }
}

/// The host without port. User info is refused: `localhost:80@evil` is a trick, not an address.
fn plain_host(authority: &str) -> Result<&str, Fault> {
    if let Some(inner) = authority.strip_prefix('[') {
        if inner.bytes().any(|byte| byte == b'@' || byte <= b' ' || byte >= 0x7f) {
            return Err(Fault::BadHost);
        }
        let (host, rest) = inner.split_once(']').ok_or(Fault::BadHost)?;
        return port(rest).map(|()| host);
    }
    // Neither a name nor a port has room for user info.
    let end = authority.bytes().position(|byte| byte == b':').unwrap_or(authority.len());
    let (host, rest) = authority.split_at(end);
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    if host.is_empty() || !host.bytes().all(is_name) {
        return Err(Fault::BadHost);
    }
    port(rest).map(|()| host)
}

fn port(rest: &str) -> Result<(), Fault> {
    match rest.strip_prefix(':') {
        None if rest.is_empty() => Ok(()),
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => Ok(()),
        None | Some(_) => Err(Fault::BadHost),
    }
}

/// Loopback names always; what else, the config says.
fn is_let_in(name: &str, admitted: &Origins) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    is_loopback(name) || admitted.hosts.iter().any(|host| host.eq_ignore_ascii_case(name))
}

/// Whether `name` can only mean this machine.
pub(super) fn is_loopback(name: &str) -> bool {
    name == "127.0.0.1" || name.eq_ignore_ascii_case("localhost") || name == "::1"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(uri: &str, hosts: &[&str]) -> Result<(), Fault> {
        let mut request = http::Request::post(uri);
        for host in hosts {
            request = request.header(HOST, *host);
        }
        let (head, ()) = request.body(()).expect("a request").into_parts();
        check(&head, &Origins { hosts: vec!["mcp.example".into()], ..Origins::default() })
    }

    #[test]
    fn lets_loopback_and_configured_names_in() {
        for host in
            ["localhost", "LOCALHOST:8080", "127.0.0.1:1", "[::1]:8080", "mcp.example", "MCP.example.:443"]
        {
            assert!(verdict("/mcp", &[host]).is_ok(), "{host}");
        }
    }

    #[test]
    fn refuses_foreign_names_and_tricks() {
        for host in ["evil.example", "localhost.evil.example", "10.0.0.1", "mcp.example.evil"] {
            assert!(matches!(verdict("/mcp", &[host]), Err(Fault::ForeignHost)), "{host}");
        }
        assert!(
            matches!(verdict("http://evil/mcp", &["localhost"]), Err(Fault::ForeignHost)),
            "absolute form wins"
        );
        for host in ["localhost:80@evil", "local host", "", "[::1"] {
            assert!(matches!(verdict("/mcp", &[host]), Err(Fault::BadHost)), "{host}");
        }
        assert!(matches!(verdict("/mcp", &[]), Err(Fault::BadHost)));
        assert!(matches!(verdict("/mcp", &["localhost", "localhost"]), Err(Fault::BadHost)));
    }
}
