//! The URL of a replica, taken apart once: scheme, host, port, path.
//!
//! Pure; resolves no name. What could hide where a request really goes (user info, a fragment, odd spellings of
//! addresses) is refused rather than understood (RELIABILITY T14).

use std::net::{Ipv4Addr, Ipv6Addr};

use regatta_policy::snapshot::{Endpoint, Scheme};

/// The path of a replica whose URL has none.
pub const DEFAULT_PATH: &str = "/mcp";

/// Why a URL is not an endpoint, to be read after "expected".
pub type Expected = &'static str;

/// Takes `http://host:port/path` apart. A URL without a path means [`DEFAULT_PATH`]; `url` of the result is the
/// canonical form, so two spellings of one endpoint are equal.
pub fn parse(text: &str) -> Result<Endpoint, Expected> {
    const SHAPE: Expected = "a URL like \"http://127.0.0.1:3001/mcp\"";
    let (scheme, rest) = text.split_once("://").ok_or(SHAPE)?;
    let (scheme, default_port) = match scheme.to_ascii_lowercase().as_str() {
        "http" => (Scheme::Http, 80),
        "https" => (Scheme::Https, 443),
        _ => return Err("a URL that begins with http:// or https://"),
    };
    if rest.contains('#') {
        return Err("a URL without a fragment (#…)");
    }
    if !rest.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(
            "a URL of visible ASCII characters; write others percent-encoded, host names in punycode",
        );
    }
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if authority.contains('@') {
        return Err("a URL without a name or password; clients send their own Authorization header");
    }
    let (host, port) = split_authority(authority, default_port)?;
    let path = match path {
        "" => DEFAULT_PATH.to_owned(),
        path if path.starts_with('/') => path.to_owned(),
        query => format!("{DEFAULT_PATH}{query}"),
    };
    let word = match scheme {
        Scheme::Http => "http",
        Scheme::Https => "https",
    };
    let shown = if host.contains(':') { format!("[{host}]") } else { host.clone() };
    let port_shown = if port == default_port { String::new() } else { format!(":{port}") };
    Ok(Endpoint { url: format!("{word}://{shown}{port_shown}{path}"), scheme, host, port, path })
}

/// Whether `text` names no path of its own, so that [`DEFAULT_PATH`] was taken.
pub fn lacks_path(text: &str) -> bool {
    text.split_once("://").is_some_and(|(_, rest)| !rest.contains('/'))
}

fn split_authority(authority: &str, default_port: u16) -> Result<(String, u16), Expected> {
    const PORT: Expected = "a port from 1 to 65535 after the host";
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or("a closing ] after the IPv6 address")?;
            let address: Ipv6Addr = host.parse().map_err(|_| "an IPv6 address between [ and ]")?;
            (address.to_string(), port)
        }
        None => {
            let (host, port) = authority.find(':').map_or((authority, ""), |colon| authority.split_at(colon));
            (name_or_ipv4(host)?, port)
        }
    };
    let port = match port.strip_prefix(':') {
        None if port.is_empty() => default_port,
        None => return Err(PORT),
        Some(digits) => digits.parse().ok().filter(|port| *port > 0).ok_or(PORT)?,
    };
    Ok((host, port))
}

fn name_or_ipv4(host: &str) -> Result<String, Expected> {
    let name = host.to_ascii_lowercase();
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    if name.is_empty() || name.len() > 253 || !name.bytes().all(letter) {
        return Err("a host name or address after ://");
    }
    // `127.1`, `0x7f.1` and `2130706433` are addresses to some resolvers and names to others.
    let last = name.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
    let numeric = last.bytes().all(|byte| byte.is_ascii_digit()) || last.starts_with("0x");
    if numeric && name.parse::<Ipv4Addr>().is_err() {
        return Err("an IPv4 address as four decimal numbers, like 127.0.0.1");
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_urls_apart() {
        for (text, url, host, port, path) in [
            ("http://127.0.0.1:3001/mcp", "http://127.0.0.1:3001/mcp", "127.0.0.1", 3001, "/mcp"),
            ("http://127.0.0.1:3001", "http://127.0.0.1:3001/mcp", "127.0.0.1", 3001, "/mcp"),
            ("HTTP://Shop.Example:80/", "http://shop.example/", "shop.example", 80, "/"),
            ("https://shop.example/a/b?c=d", "https://shop.example/a/b?c=d", "shop.example", 443, "/a/b?c=d"),
            ("https://[::1]:8443/mcp", "https://[::1]:8443/mcp", "::1", 8443, "/mcp"),
            ("https://[::1]?x=1", "https://[::1]/mcp?x=1", "::1", 443, "/mcp?x=1"),
        ] {
            let endpoint = parse(text).unwrap();
            assert_eq!((endpoint.url.as_str(), endpoint.host.as_str()), (url, host), "{text}");
            assert_eq!((endpoint.port, endpoint.path.as_str()), (port, path), "{text}");
        }
        assert!(lacks_path("http://h:1") && !lacks_path("http://h:1/"));
    }

    #[test]
    fn refuses_what_could_hide_where_a_request_goes() {
        for text in [
            "127.0.0.1:3001",
            "ftp://h/",
            "http://",
            "http:///mcp",
            "http://user:pass@h/",
            "http://h:0/",
            "http://h:99999/",
            "http://h:x/",
            "http://[::1/",
            "http://[zz]/",
            "http://127.1/",
            "http://2130706433/",
            "http://0x7f.0.0.1/",
            "http://h/#x",
            "http://hé/",
            "http://h h/",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
