//! TLS on both sides: our listener with `server_config`, our upstream with a CA of its own.

use std::net::SocketAddr;

use arc_swap::ArcSwap;
use http::Response;
use http_body_util::Full;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};

use super::{
    Arc, CallBounds, Instant, Limits, NotWritten, SOON, Scheme, StatusCode, Upstream, Upstreams, call,
    not_written, replica, snapshot,
};
use crate::listener::{self, Listener, ListenerStats, drain_signal, serve, server_config};

/// A server certificate for localhost and 127.0.0.1, made for this test.
fn certificate() -> rcgen::CertifiedKey<rcgen::KeyPair> {
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    rcgen::generate_simple_self_signed(names).expect("a certificate")
}

fn trusting(certificate: &rcgen::Certificate) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.der().clone()).expect("a root");
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

/// An upstream at `host:port` by `https`, verified by `config`.
fn upstream(host: &str, port: u16, config: Arc<ClientConfig>) -> Arc<Upstream> {
    let upstreams = Upstreams::with_tls(Instant::now(), config);
    let mut replica = replica(port);
    (replica.endpoint.scheme, replica.endpoint.host) = (Scheme::Https, host.to_owned());
    upstreams.apply(&snapshot(vec![replica.clone()]));
    upstreams.get(replica.id).expect("applied")
}

#[tokio::test]
async fn a_certificate_is_verified_and_can_be_exchanged_while_serving() {
    let (first, second) = (certificate(), certificate());
    let config = |of: &rcgen::CertifiedKey<rcgen::KeyPair>| {
        server_config(of.cert.pem().as_bytes(), of.signing_key.serialize_pem().as_bytes()).expect("usable")
    };
    let listener = Listener::bind(&[SocketAddr::from(([127, 0, 0, 1], 0))]).expect("loopback");
    let port = listener.local_addr().expect("bound").port();
    let tls = Arc::new(ArcSwap::from_pointee(config(&first)));
    let (drainer, drain) = drain_signal();
    let handler = |arrival: Box<listener::Arrival>| async move {
        assert!(arrival.peer.tls);
        Response::new(Full::from("{}"))
    };
    let limits = Arc::new(ArcSwap::from_pointee(Limits::default()));
    let bounds = listener::ListenerBounds { limits, proxies: Arc::default() };
    let stats = Arc::new(ListenerStats::default());
    let serving = tokio::spawn(serve(listener, Some(Arc::clone(&tls)), bounds, handler, drain, stats));

    let known = upstream("localhost", port, trusting(&first.cert));
    for _ in 0..3 {
        assert_eq!(call(&known).await.0, StatusCode::OK);
    }
    assert_eq!(known.status().connects, 1);
    let stranger = upstream("127.0.0.1", port, trusting(&second.cert));
    assert_eq!(not_written(&stranger, &CallBounds::default()).await, NotWritten::Tls);

    tls.store(Arc::new(config(&second)));
    assert_eq!(call(&stranger).await.0, StatusCode::OK);
    drainer.drain(SOON);
    assert_eq!(serving.await.expect("no panic").aborted, 0);
}

#[test]
fn a_text_that_is_no_certificate_or_no_key_is_named() {
    let made = certificate();
    let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let error = server_config(b"", key.as_bytes()).expect_err("no certificate");
    assert!(error.to_string().starts_with("no certificate"), "{error}");
    let error = server_config(chain.as_bytes(), b"-----").expect_err("no key");
    assert!(error.to_string().starts_with("no private key"), "{error}");
    let other = certificate().signing_key.serialize_pem();
    let error = server_config(chain.as_bytes(), other.as_bytes()).expect_err("another key");
    assert!(error.to_string().starts_with("certificate and key"), "{error}");
}
