//! A new connection to an endpoint: name, TCP, TLS, all within one time-out.
//!
//! The addresses of a name are tried in their order, each with its share of the time that is left, so that one dead
//! address does not use it up. Knows nothing of HTTP.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use regatta_policy::snapshot::{Endpoint, Scheme};
use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::codec::Outgoing;
use super::error::NotWritten;
use crate::tcp::tune;

/// A connection, encrypted or not.
pub(super) enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// How to verify servers; worked out once, when the first `https` endpoint needs it.
#[derive(Default)]
pub(super) struct Trust {
    config: OnceLock<Option<Arc<ClientConfig>>>,
}

impl Trust {
    /// Trusts by `config` instead of by the platform.
    pub(super) fn by(config: Arc<ClientConfig>) -> Trust {
        Trust { config: OnceLock::from(Some(config)) }
    }

    fn config(&self) -> Option<&Arc<ClientConfig>> {
        self.config
            .get_or_init(|| match platform() {
                Ok(config) => Some(Arc::new(config)),
                Err(error) => {
                    tracing::error!(%error, "servers with https cannot be verified on this machine");
                    None
                }
            })
            .as_ref()
    }
}

fn platform() -> Result<ClientConfig, rustls::Error> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_platform_verifier()?
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Connects to `endpoint` within `timeout`.
///
/// # Errors
/// `Refused` only if every address refused: one that timed out may have somebody behind it.
pub(super) async fn connect(
    endpoint: &Endpoint,
    timeout: Duration,
    user_timeout: Duration,
    trust: &Trust,
) -> Result<Io, NotWritten> {
    let deadline = Instant::now() + timeout;
    let addresses = resolve(endpoint, deadline).await?;
    let stream = connect_any(&addresses, deadline).await?;
    tune(&stream, user_timeout);
    match endpoint.scheme {
        Scheme::Http => Ok(Io::Plain(stream)),
        Scheme::Https => handshake(endpoint, stream, deadline, trust).await,
    }
}

async fn resolve(endpoint: &Endpoint, deadline: Instant) -> Result<Vec<SocketAddr>, NotWritten> {
    if let Ok(address) = endpoint.host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, endpoint.port)]);
    }
    match timeout_at(deadline, lookup_host((endpoint.host.as_str(), endpoint.port))).await {
        Ok(Ok(addresses)) => Ok(addresses.collect()),
        Ok(Err(_)) => Err(NotWritten::Unreachable),
        Err(_) => Err(NotWritten::ConnectTimedOut),
    }
}

async fn connect_any(addresses: &[SocketAddr], deadline: Instant) -> Result<TcpStream, NotWritten> {
    let mut worst = None;
    for (tried, address) in addresses.iter().enumerate() {
        let now = Instant::now();
        let left = (addresses.len() - tried) as u32;
        let share = deadline.saturating_duration_since(now) / left;
        let why = match timeout_at(now + share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => NotWritten::Refused,
            Ok(Err(_)) => NotWritten::Unreachable,
            Err(_) => NotWritten::ConnectTimedOut,
        };
        worst = Some(match worst {
            None | Some(NotWritten::Refused) => why,
            Some(worse) => worse,
        });
    }
    Err(worst.unwrap_or(NotWritten::Unreachable))
}

async fn handshake(
    endpoint: &Endpoint,
    stream: TcpStream,
    deadline: Instant,
    trust: &Trust,
) -> Result<Io, NotWritten> {
    let name = ServerName::try_from(endpoint.host.clone()).map_err(|_| NotWritten::Tls)?;
    let config = trust.config().ok_or(NotWritten::Tls)?;
    let connector = TlsConnector::from(Arc::clone(config));
    match timeout_at(deadline, connector.connect(name, stream)).await {
        Ok(Ok(stream)) => Ok(Io::Tls(Box::new(stream))),
        Ok(Err(error)) => {
            tracing::debug!(%error, endpoint = endpoint.url, "the TLS handshake failed");
            Err(NotWritten::Tls)
        }
        Err(_) => Err(NotWritten::ConnectTimedOut),
    }
}

impl Io {
    /// Sends what is left of `request`; ready when all of it is on its way.
    pub(super) fn poll_send(&mut self, cx: &mut Context<'_>, request: &mut Outgoing) -> Poll<io::Result<()>> {
        while !request.is_out() {
            let [head, body] = request.left();
            let sent = match (&mut *self, body.is_empty()) {
                (Io::Plain(stream), true) => Pin::new(stream).poll_write(cx, &head),
                (Io::Plain(stream), false) => Pin::new(stream).poll_write_vectored(cx, &[head, body]),
                (Io::Tls(stream), true) => Pin::new(stream).poll_write(cx, &head),
                (Io::Tls(stream), false) => Pin::new(stream).poll_write_vectored(cx, &[head, body]),
            };
            match ready!(sent)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => request.took(sent),
            }
        }
        match self {
            // The kernel has it.
            Io::Plain(_) => Poll::Ready(Ok(())),
            Io::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    /// Reads what is there into `buffer`; nothing means that the connection has ended.
    pub(super) fn poll_receive<'a>(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &'a mut [u8],
    ) -> Poll<io::Result<&'a [u8]>> {
        let mut into = ReadBuf::new(buffer);
        ready!(match self {
            Io::Plain(stream) => Pin::new(stream).poll_read(cx, &mut into),
            Io::Tls(stream) => Pin::new(stream).poll_read(cx, &mut into),
        })?;
        let length = into.filled().len();
        Poll::Ready(Ok(&buffer[..length]))
    }
}
