//! A small HTTP/1.1 client for probes: one connection an exchange, everything bounded.
//!
//! It never follows a redirect by itself, never keeps a connection, and shares nothing with the data plane's pool:
//! a probe must see whether a *new* connection is served.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use regatta_policy::snapshot::{Endpoint, Scheme};
use rustls::pki_types::ServerName;
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::answer::{Said, find};

/// How long a TCP and TLS connect may take.
const CONNECT_MAX: Duration = Duration::from_secs(1);
/// How long a whole exchange may take.
const EXCHANGE_MAX: Duration = Duration::from_secs(2);
/// Bytes of an answer that are read; the length of an `initialize` answer elsewhere (SESSIONS 1).
const ANSWER_MAX: usize = 1 << 20;
/// Exchanges at one time, over all replicas.
const EXCHANGES_MAX: usize = 16;

/// Opens connections for probes.
#[derive(Debug)]
pub struct Client {
    tls: Result<Arc<rustls::ClientConfig>, String>,
    places: Semaphore,
}

/// What a server answered.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The JSON-RPC response to our id, if there was one.
    pub said: Option<Said>,
    /// The same as it came; empty if there was none.
    pub text: String,
}

/// Why there is no answer that could be used, in words for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoAnswer {
    /// Nothing came back: not reached, reset or silent.
    Mute(String),
    /// Something came back that is of no use.
    Useless(String),
}

/// Closes the connection when the exchange ends, however it ends.
struct Connection(tokio::task::JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Client {
    /// A client that trusts what the platform trusts.
    pub fn new() -> Client {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(BuilderVerifierExt::with_platform_verifier)
            .map(|builder| {
                let mut config = builder.with_no_client_auth();
                config.alpn_protocols = vec![b"http/1.1".to_vec()];
                Arc::new(config)
            });
        Client { tls: config.map_err(|why| why.to_string()), places: Semaphore::new(EXCHANGES_MAX) }
    }

    /// Sends `request` to `endpoint` and reads the answer until the response to `id` is found or the body ends.
    pub async fn exchange(
        &self,
        endpoint: &Endpoint,
        request: Request<Full<Bytes>>,
        id: &str,
    ) -> Result<Answer, NoAnswer> {
        let _place =
            self.places.acquire().await.map_err(|_| NoAnswer::Useless("the gateway ends".to_owned()))?;
        let stream = match timeout(CONNECT_MAX, self.connect(endpoint)).await {
            Ok(connected) => connected?,
            Err(_) => {
                return Err(NoAnswer::Mute(format!("no connection within {} s", CONNECT_MAX.as_secs())));
            }
        };
        match timeout(EXCHANGE_MAX, exchange(stream, request, id)).await {
            Ok(answer) => answer,
            Err(_) => Err(NoAnswer::Mute(format!("no answer within {} s", EXCHANGE_MAX.as_secs()))),
        }
    }

    /// Sends `request` to `endpoint` and reads the whole answer, whatever its status; else why not, for the operator.
    pub async fn fetch(
        &self,
        endpoint: &Endpoint,
        request: Request<Full<Bytes>>,
    ) -> Result<(StatusCode, Bytes), String> {
        let told = |why: NoAnswer| match why {
            NoAnswer::Mute(why) | NoAnswer::Useless(why) => why,
        };
        let _place = self.places.acquire().await.map_err(|_| "the gateway ends".to_owned())?;
        let stream = timeout(CONNECT_MAX, self.connect(endpoint)).await;
        let stream = stream.map_err(|_| format!("no connection within {} s", CONNECT_MAX.as_secs()))?;
        let fetching = fetch(stream.map_err(told)?, request);
        let fetched = timeout(EXCHANGE_MAX, fetching).await;
        fetched.map_err(|_| format!("no answer within {} s", EXCHANGE_MAX.as_secs()))?
    }

    async fn connect(&self, endpoint: &Endpoint) -> Result<Box<dyn Stream>, NoAnswer> {
        let tcp = TcpStream::connect((endpoint.host.as_str(), endpoint.port))
            .await
            .map_err(|why| NoAnswer::Mute(format!("cannot connect: {why}")))?;
        let _ = tcp.set_nodelay(true);
        match endpoint.scheme {
            Scheme::Http => Ok(Box::new(tcp)),
            Scheme::Https => {
                let tls = self
                    .tls
                    .as_ref()
                    .map_err(|why| NoAnswer::Useless(format!("TLS is not available: {why}")))?;
                let name = ServerName::try_from(endpoint.host.clone())
                    .map_err(|_| NoAnswer::Useless("the host is no name for TLS".to_owned()))?;
                let stream = TlsConnector::from(Arc::clone(tls)).connect(name, tcp).await;
                Ok(Box::new(stream.map_err(|why| NoAnswer::Useless(format!("TLS failed: {why}")))?))
            }
        }
    }
}

async fn exchange(
    stream: Box<dyn Stream>,
    request: Request<Full<Bytes>>,
    id: &str,
) -> Result<Answer, NoAnswer> {
    // A connection that ends before an answer is how a dead process behind a proxy looks.
    let broken = |why: hyper::Error| match why.is_parse() {
        true => NoAnswer::Useless(format!("broken HTTP: {why}")),
        false => NoAnswer::Mute(format!("broken HTTP: {why}")),
    };
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let _connection = Connection(tokio::spawn(async move {
        // Its error is told to the sender as well.
        let _ = connection.await;
    }));
    let (head, body) = sender.send_request(request).await.map_err(broken)?.into_parts();
    let (said, text) = read(body, &head.headers, id).await?.unzip();
    Ok(Answer { status: head.status, headers: head.headers, said, text: text.unwrap_or_default() })
}

async fn fetch(
    stream: Box<dyn Stream>,
    request: Request<Full<Bytes>>,
) -> Result<(StatusCode, Bytes), String> {
    let broken = |why: hyper::Error| format!("broken HTTP: {why}");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let _connection = Connection(tokio::spawn(async move {
        // Its error is told to the sender as well.
        let _ = connection.await;
    }));
    let (head, body) = sender.send_request(request).await.map_err(broken)?.into_parts();
    let body = Limited::new(body, ANSWER_MAX).collect().await;
    let body = body.map_err(|_| format!("it broke off, or is longer than {ANSWER_MAX} bytes"))?;
    Ok((head.status, body.to_bytes()))
}

/// Reads until our response is complete: a stream may stay open behind it.
async fn read(mut body: Incoming, headers: &HeaderMap, id: &str) -> Result<Option<(Said, String)>, NoAnswer> {
    let mut text = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|why| NoAnswer::Useless(format!("broken HTTP: {why}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if text.len() + data.len() > ANSWER_MAX {
            return Err(NoAnswer::Useless(format!("an answer longer than {ANSWER_MAX} bytes")));
        }
        text.extend_from_slice(&data);
        if data.contains(&b'\n')
            && let Some(said) = find(headers, &text, id)
        {
            return Ok(Some(said));
        }
    }
    Ok(find(headers, &text, id))
}
