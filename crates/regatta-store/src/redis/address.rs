//! Where Redis is: a URL taken apart. Pure; no message shows a password.
//!
//! `redis://` and `rediss://` name one server, `redis+sentinel://` the sentinels and a master's name,
//! `redis+cluster://` some members; `rediss+…` is the same over TLS.

use std::fmt;

/// One server of Redis.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Addr {
    /// A name or an address; IPv6 without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl Addr {
    /// `host:port`, as Redis writes it (IPv6 without brackets too) and as a URL has it.
    pub(super) fn parse(text: &str) -> Option<Addr> {
        let (host, port) = text.rsplit_once(':')?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let port = port.split('@').next()?.parse().ok().filter(|port| *port != 0)?;
        Some(Addr { host: host.to_owned(), port })
    }
}

/// How the servers of a store make one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layout {
    /// One server; if it turns into a replica its master is followed.
    Standalone(Addr),
    /// A master under a name, that sentinels know.
    Sentinel {
        /// All sentinels.
        sentinels: Vec<Addr>,
        /// The master's name.
        master: String,
    },
    /// A cluster, and some of its members to begin with.
    Cluster(Vec<Addr>),
}

/// Who we are there.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// The user; without one, `default`.
    pub username: Option<String>,
    /// The password.
    pub password: Option<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let password = self.password.as_ref().map(|_| "…");
        f.debug_struct("Credentials").field("username", &self.username).field("password", &password).finish()
    }
}

/// Whether the way there is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// It is not.
    Plain,
    /// TLS; the server's certificate is checked.
    Tls,
}

/// A URL, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// The servers.
    pub layout: Layout,
    /// Encrypted or not.
    pub transport: Transport,
    /// Who we are.
    pub credentials: Credentials,
    /// The database; a cluster has only 0.
    pub database: u16,
}

/// What is wrong with a URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadUrl {
    /// Its beginning.
    #[error(
        "a store URL begins with redis://, rediss://, redis+sentinel:// or redis+cluster:// (rediss+… for TLS)"
    )]
    Scheme,
    /// A host.
    #[error("`{0}` is no host:port")]
    Host(String),
    /// The part after the hosts.
    #[error("expected {0} after the hosts")]
    Path(&'static str),
    /// A part that is not understood.
    #[error("a store URL has no query and no fragment")]
    Query,
    /// User or password.
    #[error("the user or the password is not percent-encoded UTF-8")]
    Credentials,
}

impl std::str::FromStr for Url {
    type Err = BadUrl;

    fn from_str(text: &str) -> Result<Url, BadUrl> {
        let (scheme, rest) = text.split_once("://").ok_or(BadUrl::Scheme)?;
        let (transport, kind) = match scheme {
            "redis" | "redis+sentinel" | "redis+cluster" => (Transport::Plain, &scheme[5..]),
            "rediss" | "rediss+sentinel" | "rediss+cluster" => (Transport::Tls, &scheme[6..]),
            _ => return Err(BadUrl::Scheme),
        };
        let (before, after) = rest.split_once('/').unwrap_or((rest, ""));
        if after.contains(['?', '#']) || before.contains(['?', '#']) {
            return Err(BadUrl::Query);
        }
        let (credentials, hosts) = match before.rsplit_once('@') {
            Some((credentials, hosts)) => (read_credentials(credentials)?, hosts),
            None => (Credentials::default(), before),
        };
        let port = if kind == "+sentinel" { 26379 } else { 6379 };
        let mut hosts = hosts.split(',').map(|host| read_host(host, port)).collect::<Result<Vec<_>, _>>()?;
        let (layout, database) = match kind {
            "+sentinel" => {
                let (master, database) = after.split_once('/').unwrap_or((after, ""));
                if master.is_empty() {
                    return Err(BadUrl::Path("/master-name or /master-name/database"));
                }
                (Layout::Sentinel { sentinels: hosts, master: master.to_owned() }, database)
            }
            "+cluster" if after.is_empty() || after == "0" => (Layout::Cluster(hosts), ""),
            "+cluster" => return Err(BadUrl::Path("nothing: a cluster has only database 0")),
            _ if hosts.len() == 1 => (Layout::Standalone(hosts.remove(0)), after),
            _ => return Err(BadUrl::Host(before.rsplit('@').next().unwrap_or_default().to_owned())),
        };
        let database = match database {
            "" => 0,
            number => number.parse().map_err(|_| BadUrl::Path("a database number"))?,
        };
        Ok(Url { layout, transport, credentials, database })
    }
}

fn read_host(text: &str, port: u16) -> Result<Addr, BadUrl> {
    let bad = || BadUrl::Host(text.to_owned());
    // An IPv6 address has colons and needs brackets; without a port, the usual one.
    let has_port = text.rsplit_once(':').is_some_and(|(host, _)| !host.contains(':') || host.ends_with(']'));
    let addr = if has_port { Addr::parse(text) } else { Addr::parse(&format!("{text}:{port}")) };
    addr.filter(|addr| !addr.host.is_empty()).ok_or_else(bad)
}

fn read_credentials(text: &str) -> Result<Credentials, BadUrl> {
    let decode = |text: &str| match text {
        "" => Ok(None),
        text => percent_decode(text).map(Some).ok_or(BadUrl::Credentials),
    };
    let (username, password) = text.split_once(':').unwrap_or((text, ""));
    Ok(Credentials { username: decode(username)?, password: decode(password)? })
}

fn percent_decode(text: &str) -> Option<String> {
    let (mut out, mut bytes) = (Vec::with_capacity(text.len()), text.bytes());
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                out.push((digit()? << 4 | digit()?) as u8);
            }
            byte => out.push(byte),
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(host: &str, port: u16) -> Addr {
        Addr { host: host.to_owned(), port }
    }

    fn url(text: &str) -> Url {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn takes_each_kind_apart() {
        assert_eq!(url("redis://localhost").layout, Layout::Standalone(addr("localhost", 6379)));
        let one = url("rediss://user:p%40%2F%3a@[::1]:7000/3");
        assert_eq!(one.layout, Layout::Standalone(addr("::1", 7000)));
        assert_eq!((one.transport, one.database), (Transport::Tls, 3));
        assert_eq!(one.credentials.username.as_deref(), Some("user"));
        assert_eq!(one.credentials.password.as_deref(), Some("p@/:"));
        let sentinels = vec![addr("a", 26379), addr("b", 1)];
        let layout = Layout::Sentinel { sentinels, master: "main".to_owned() };
        assert_eq!(url("redis+sentinel://:secret@a,b:1/main/2").layout, layout);
        assert_eq!(url("redis+sentinel://:secret@a,b:1/main/2").database, 2);
        let members = vec![addr("a", 6379), addr("b", 2)];
        assert_eq!(url("rediss+cluster://a,b:2").layout, Layout::Cluster(members));
    }

    #[test]
    fn says_what_is_wrong_and_no_secret() {
        for (text, part) in [
            ("http://a", "begins with"),
            ("redis://:hush@a:x", "no host:port"),
            ("redis://:hush@a,b", "no host:port"),
            ("redis://:hush@/0", "no host:port"),
            ("redis://:hush@a/x", "a database number"),
            ("redis+sentinel://:hush@a", "master-name"),
            ("redis+cluster://:hush@a/1", "database 0"),
            ("redis://:hush@a/0?x=1", "no query"),
            ("redis://:hush%f@a", "percent-encoded"),
        ] {
            let error = text.parse::<Url>().expect_err(text).to_string();
            assert!(error.contains(part) && !error.contains("hush"), "{text}: {error}");
        }
        assert!(!format!("{:?}", url("redis://:hush@a")).contains("hush"));
    }

    #[test]
    fn reads_addresses_as_redis_writes_them() {
        assert_eq!(Addr::parse("127.0.0.1:7000@17000"), Some(addr("127.0.0.1", 7000)));
        assert_eq!(Addr::parse("::1:7000"), Some(addr("::1", 7000)));
        assert_eq!(Addr::parse("a:0"), None);
    }
}
