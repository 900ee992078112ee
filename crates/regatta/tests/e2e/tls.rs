//! TLS on the listener: the certificate is what the files hold, and what is broken replaces nothing.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use regatta_testkit::gateway::Plan;
use regatta_testkit::tls::TlsFiles;
use regatta_testkit::{Gateway, Result, eventually};
use tempfile::TempDir;

use crate::REGATTA;
use crate::fleet::{demos, urls};

const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"curl","version":"1"}}}"#;

/// A client that trusts one authority alone; what it was answered, if it took the certificate.
async fn initialize(gateway: &Gateway, authority: &Path) -> Option<String> {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--fail", "--max-time", "5", "--cacert"]).arg(authority);
    curl.args(["-H", "Content-Type: application/json", "-H", "Accept: application/json, text/event-stream"]);
    curl.args(["--data", INITIALIZE]).arg(gateway.url().replace("http:", "https:"));
    let done =
        tokio::task::spawn_blocking(move || curl.output()).await.expect("its task").expect("curl runs");
    println!("{}", String::from_utf8_lossy(&done.stderr));
    done.status.success().then(|| String::from_utf8_lossy(&done.stdout).into_owned())
}

#[tokio::test]
async fn a_new_certificate_is_served_without_a_restart_and_a_broken_pair_replaces_nothing() -> Result<()> {
    let demos = demos(1, &[]).await;
    let (first, second, place) = (TlsFiles::new(), TlsFiles::new(), TempDir::new().expect("a directory"));
    let (certificate, key) = (place.path().join("cert.pem"), place.path().join("key.pem"));
    let put = |files: &TlsFiles| {
        fs::copy(files.key(), &key)
            .and_then(|_| fs::copy(files.certificate(), &certificate))
            .expect("copied");
    };
    put(&first);
    let plan = Plan::over(urls(&demos)).on_gateway(&format!("tls_cert = {certificate:?}\ntls_key = {key:?}"));
    let gateway = Gateway::start(REGATTA, plan).await;
    let answer = initialize(&gateway, &first.trusted_file()).await.expect("served over TLS");
    assert!(answer.contains("2025-11-25"), "{answer}");
    assert!(initialize(&gateway, &second.trusted_file()).await.is_none(), "another authority's certificate");
    assert!(gateway.client().initialize().await.is_err(), "without TLS nothing is served");

    put(&second);
    let served = async || initialize(&gateway, &second.trusted_file()).await;
    eventually("the new certificate is served", Duration::from_secs(10), served).await;
    assert!(initialize(&gateway, &first.trusted_file()).await.is_none(), "the old one is gone");

    // The key of another certificate, and then no certificate at all.
    fs::copy(first.key(), &key).expect("copied");
    let complained = async || gateway.log().contains("certificate").then_some(());
    eventually("it complains", Duration::from_secs(10), complained).await;
    fs::write(&certificate, "no certificate").expect("written");
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(initialize(&gateway, &second.trusted_file()).await.is_some(), "the last good pair stays");
    Ok(())
}
