//! One connection to one server: TCP without delay, TLS, greeting, and a look at who answers. Bounded in time as a whole.
//!
//! It decides nothing: who is the right one, and when to try again, is for `line`.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use redis::aio::{MultiplexedConnection, PubSub};
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, IntoConnectionInfo as _, RedisConnectionInfo, RedisError,
    TlsCertificates,
};

use super::address::{Addr, Credentials, Transport};
use super::fault::said;
use super::options::Options;

pub(super) struct Connector {
    transport: Transport,
    /// May be renewed: a password is rotated while we run.
    credentials: Mutex<Credentials>,
    sentinel_credentials: Credentials,
    database: u16,
    trusted_pem: Option<Vec<u8>>,
    within: Duration,
    /// A server that evicts keys is warned of once.
    warned: Mutex<Option<String>>,
}

/// Who answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Vitals {
    /// What it is now.
    pub(super) role: Role,
    /// The name of this run of the server: another one may have lost what the last one had.
    pub(super) run: String,
}

/// What a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Master,
    /// The copy of another one.
    Replica(Option<Addr>),
}

/// Who is greeted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    Server,
    Sentinel,
}

impl Connector {
    pub(super) fn new(options: &Options) -> Connector {
        // Whoever was first chose; all of us choose the same.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        Connector {
            transport: options.transport,
            credentials: Mutex::new(options.credentials.clone()),
            sentinel_credentials: options.sentinel_credentials.clone(),
            database: options.database,
            trusted_pem: options.trusted_pem.clone(),
            within: options.timing.connect,
            warned: Mutex::new(None),
        }
    }

    /// From now on we are somebody else; connections that are made stay.
    pub(super) fn renew(&self, credentials: Credentials) {
        *self.credentials.lock().unwrap_or_else(PoisonError::into_inner) = credentials;
    }

    /// Why the server may throw away what must stay.
    pub(super) fn policy_warning(&self) -> Option<String> {
        self.warned.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn client(&self, addr: &Addr, peer: Peer) -> Result<Client, RedisError> {
        let Addr { host, port } = addr.clone();
        let place = match self.transport {
            Transport::Plain => ConnectionAddr::Tcp(host, port),
            Transport::Tls => ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None },
        };
        let credentials = match peer {
            Peer::Server => self.credentials.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            Peer::Sentinel => self.sentinel_credentials.clone(),
        };
        // CLIENT SETINFO is only there since 7.2, and needs a permission of its own.
        let mut who = RedisConnectionInfo::default().set_skip_set_lib_name();
        if let Some(username) = credentials.username {
            who = who.set_username(username);
        }
        if let Some(password) = credentials.password {
            who = who.set_password(password);
        }
        if peer == Peer::Server {
            who = who.set_db(i64::from(self.database));
        }
        let tcp = TcpSettings::default().set_nodelay(true).set_user_timeout(Duration::from_secs(20));
        let info = place.into_connection_info()?.set_tcp_settings(tcp).set_redis_settings(who);
        match self.transport {
            Transport::Plain => Client::open(info),
            Transport::Tls => {
                let root_cert = self.trusted_pem.clone();
                Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert })
            }
        }
    }

    /// A connection for commands.
    pub(super) async fn commands(&self, addr: &Addr, peer: Peer) -> Result<MultiplexedConnection, String> {
        let client = self.client(addr, peer).map_err(|error| said(&error))?;
        // Time is bounded once, by whoever waits for the answer.
        let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let connecting = client.get_multiplexed_async_connection_with_config(&config);
        self.in_time(addr, connecting).await
    }

    /// A connection for what is published.
    pub(super) async fn pubsub(&self, addr: &Addr, peer: Peer) -> Result<PubSub, String> {
        let client = self.client(addr, peer).map_err(|error| said(&error))?;
        self.in_time(addr, client.get_async_pubsub()).await
    }

    /// Who answers on a connection.
    pub(super) async fn vitals(
        &self,
        addr: &Addr,
        wire: &mut MultiplexedConnection,
    ) -> Result<Vitals, String> {
        let mut both = redis::pipe();
        both.cmd("ROLE").cmd("INFO");
        let (role, info): (redis::Value, String) = self.in_time(addr, both.query_async(wire)).await?;
        let info: HashMap<&str, &str> = info.lines().filter_map(|line| line.split_once(':')).collect();
        self.look_at_policy(addr, &info);
        let run = info.get("run_id").copied().unwrap_or_default().to_owned();
        Ok(Vitals { role: read_role(&role), run })
    }

    async fn in_time<T>(
        &self,
        addr: &Addr,
        asked: impl Future<Output = Result<T, RedisError>>,
    ) -> Result<T, String> {
        match tokio::time::timeout(self.within, asked).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => Err(format!("{addr}: {}", said(&error))),
            Err(_) => Err(format!("{addr}: no answer within {:?}", self.within)),
        }
    }

    /// Sessions of a server that evicts keys end whenever it likes (RELIABILITY F58): said once, as there is nothing
    /// else that we can do.
    fn look_at_policy(&self, addr: &Addr, info: &HashMap<&str, &str>) {
        let policy = info.get("maxmemory_policy").copied().unwrap_or("noeviction");
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if policy != "noeviction" && warned.is_none() {
            let what = format!("redis at {addr} evicts keys when it is full (maxmemory-policy {policy})");
            tracing::warn!(%addr, policy, "redis evicts keys when it is full, and sessions with them; set maxmemory-policy noeviction");
            *warned = Some(what);
        }
    }
}

/// `ROLE`: "master", or "slave" and its master's host and port; what follows differs.
fn read_role(value: &redis::Value) -> Role {
    let redis::Value::Array(parts) = value else { return Role::Replica(None) };
    match &parts[..] {
        [role, ..] if text(role) == Some("master") => Role::Master,
        [role, host, redis::Value::Int(port), ..] if text(role) == Some("slave") => {
            let addr = |host: &str| Some(Addr { host: host.to_owned(), port: u16::try_from(*port).ok()? });
            Role::Replica(text(host).and_then(addr))
        }
        _ => Role::Replica(None),
    }
}

fn text(value: &redis::Value) -> Option<&str> {
    match value {
        redis::Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        redis::Value::SimpleString(text) => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(resp: &str) -> Role {
        read_role(&redis::parse_redis_value(resp.as_bytes()).expect("it is RESP"))
    }

    #[test]
    fn reads_a_role() {
        assert_eq!(role("*3\r\n$6\r\nmaster\r\n:3129659\r\n*0\r\n"), Role::Master);
        let master = Addr { host: "127.0.0.1".to_owned(), port: 9000 };
        let replica = "*5\r\n$5\r\nslave\r\n$9\r\n127.0.0.1\r\n:9000\r\n$9\r\nconnected\r\n:3167038\r\n";
        assert_eq!(role(replica), Role::Replica(Some(master)));
        assert_eq!(role("*2\r\n$8\r\nsentinel\r\n*0\r\n"), Role::Replica(None));
    }
}
