//! An issuer that answers, is away, lies, and changes its keys.

use std::sync::atomic::{AtomicUsize, Ordering};

use regatta_policy::access::Material;
use serde_json::{Value, json};

use super::*;
use crate::stub::Stub;

/// A key set with one key, made of `byte`.
fn set(byte: u8) -> Value {
    use base64::Engine as _;
    let x = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode([byte; 32]);
    json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": format!("k{byte}"), "x": x}]})
}

fn plan(url: &str, keys: KeysAt) -> IssuerPlan {
    IssuerPlan { url: url.to_owned(), keys, refresh: Duration::from_secs(600) }
}

fn start(plan: IssuerPlan) -> (Issuers, mpsc::Receiver<Report>) {
    let (sender, reports) = mpsc::channel(16);
    let mut issuers = Issuers::new(sender);
    issuers.set(&[plan]);
    (issuers, reports)
}

async fn next(reports: &mut mpsc::Receiver<Report>) -> Report {
    tokio::time::timeout(Duration::from_secs(20), reports.recv()).await.expect("in time").expect("a report")
}

#[tokio::test]
async fn an_issuer_is_discovered_by_either_document() {
    for well_known in ["/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"] {
        let stub = Stub::start(move |asked| match asked.path.as_str() {
            path if path == well_known => {
                let origin = format!("http://{}", asked.host);
                let text = json!({"issuer": origin, "jwks_uri": format!("{origin}/keys")});
                (200, Vec::new(), text.to_string())
            }
            "/keys" => (200, Vec::new(), set(1).to_string()),
            _ => (404, Vec::new(), String::new()),
        })
        .await;
        let issuer = format!("http://127.0.0.1:{}", stub.port);
        let (_issuers, mut reports) = start(plan(&issuer, KeysAt::Discovered));
        let report = next(&mut reports).await;
        assert_eq!(report.issuer, issuer);
        let keys = report.keys.expect("found");
        assert_eq!(keys[0].material, Material::Ed25519(vec![1; 32]));
    }
}

#[tokio::test]
async fn who_asks_hears_when_a_file_has_newer_keys() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys.json");
    std::fs::write(&path, set(1).to_string()).unwrap();
    let (issuers, mut reports) = start(plan("https://a.example", KeysAt::File(path.clone())));
    assert!(next(&mut reports).await.keys.is_some());
    std::fs::write(&path, set(2).to_string()).unwrap();
    let (waiting, _answer) = oneshot::channel();
    issuers.ask("https://a.example", waiting);
    let mut report = next(&mut reports).await;
    if report.keys.is_none() {
        report = next(&mut reports).await;
    }
    assert_eq!(report.keys.expect("changed")[0].kid.as_deref(), Some("k2"));
}

#[tokio::test]
async fn a_flood_of_asks_costs_the_issuer_one_look_and_all_are_answered() {
    let looks = Arc::new(AtomicUsize::new(0));
    let counted = looks.clone();
    let stub = Stub::start(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        (200, Vec::new(), set(1).to_string())
    })
    .await;
    let at = discover::place(&format!("http://127.0.0.1:{}/keys", stub.port)).unwrap();
    let (issuers, mut reports) = start(plan("https://a.example", KeysAt::Url(at)));
    assert!(next(&mut reports).await.keys.is_some());
    let mut answers = Vec::new();
    for _ in 0..50 {
        let (waiting, answer) = oneshot::channel();
        issuers.ask("https://a.example", waiting);
        answers.push(answer);
    }
    let mut told = 0;
    while told < 50 {
        let report = next(&mut reports).await;
        assert!(report.keys.is_none(), "they are the same");
        told += report.waiting.len();
    }
    assert_eq!(looks.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn an_issuer_that_is_away_or_lies_gives_no_keys_and_says_so() {
    for (status, text) in
        [(500, String::new()), (200, "<html>".to_owned()), (200, json!({"keys": []}).to_string())]
    {
        let stub = Stub::start(move |_| (status, Vec::new(), text.clone())).await;
        let at = discover::place(&format!("http://127.0.0.1:{}/keys", stub.port)).unwrap();
        let (issuers, mut reports) = start(plan("https://a.example", KeysAt::Url(at)));
        let (waiting, answer) = oneshot::channel();
        issuers.ask("https://a.example", waiting);
        let told = tokio::time::timeout(Duration::from_secs(20), answer).await.expect("in time");
        assert_eq!(told, Ok(Asked::Away));
        assert!(reports.try_recv().is_err(), "there is nothing to report");
    }
}

#[tokio::test]
async fn nobody_waits_for_an_issuer_that_is_not_configured() {
    let (issuers, _reports) = start(plan("https://a.example", KeysAt::File("/nowhere".into())));
    let (waiting, answer) = oneshot::channel();
    issuers.ask("https://b.example", waiting);
    assert!(answer.await.is_err());
}
