//! The issuer's keys: found, changed, away, slow, garbage (RELIABILITY T11). Nothing wrong is ever let in, and a
//! token whose key is known is not locked out by an issuer that is away.

use crate::REGATTA;
use regatta_testkit::gateway::Plan;
use regatta_testkit::stub::answers;
use regatta_testkit::{Gateway, Issuer, Reply, Result, Stub, eventually};
use serde_json::json;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(20);

async fn status(gateway: &Gateway, bearer: &str) -> u16 {
    let client = gateway.client().header("authorization", bearer);
    let answer = client.modern().request("tools/call", json!({"name": "work", "arguments": {}})).await;
    answer.map_or(0, |answer| answer.status.as_u16())
}

async fn start(issuer: &Issuer, more: &str) -> (Stub, Gateway) {
    let stub = Stub::start(answers::modern()).await;
    let plan = Plan::over([stub.url()]).tables(&issuer.tables(more));
    let gateway = Gateway::start(REGATTA, plan).await;
    (stub, gateway)
}

#[tokio::test]
async fn a_new_key_is_found_by_the_first_token_that_it_signed() -> Result<()> {
    let issuer = Issuer::start().await;
    let (_stub, gateway) = start(&issuer, "").await;
    let old = issuer.bearer("alice");
    assert_eq!(status(&gateway, &old).await, 200);
    let may_look = async || {
        // The issuer is asked at most once in ten seconds.
        issuer.rotate();
        (status(&gateway, &issuer.bearer("alice")).await == 200).then_some(())
    };
    eventually("a token of the new key is let in", SOON, may_look).await;
    let looks = issuer.looks();
    assert!((2..=3).contains(&looks), "{looks} looks");
    assert_eq!(
        status(&gateway, &old).await,
        401,
        "its key was withdrawn, so what was remembered of it counts no more"
    );
    Ok(())
}

#[tokio::test]
async fn a_flood_of_unknown_keys_asks_the_issuer_hardly_ever() -> Result<()> {
    let issuer = Issuer::start().await;
    let (_stub, gateway) = start(&issuer, "").await;
    let began = Instant::now();
    for number in 0..200 {
        let token = issuer.token("alice").header("kid", format!("invented-{number}"));
        assert_eq!(status(&gateway, &issuer.bearer_of(&token)).await, 401);
    }
    let allowed = 2 + began.elapsed().as_secs() as usize / 10;
    assert!(issuer.looks() <= allowed, "{} looks", issuer.looks());
    Ok(())
}

#[tokio::test]
async fn keys_stay_while_the_issuer_is_away_and_unknown_ones_open_nothing() -> Result<()> {
    let issuer = Issuer::start().await;
    let (stub, gateway) = start(&issuer, "keys_refresh = \"1s\"").await;
    let known = issuer.bearer("alice");
    assert_eq!(status(&gateway, &known).await, 200);
    for bad in ["down", "error", "garbage", "nothing", "another issuer", "slow"] {
        match bad {
            "down" => issuer.stub().die().await,
            "error" => {
                issuer.stub().rise().await;
                issuer.behave(|_| Reply::status(500));
            }
            "garbage" => issuer.behave(|_| Reply::login_page()),
            "nothing" => issuer.behave(|_| Reply::json(&json!({"keys": []}))),
            "another issuer" => {
                issuer.behave(|_| {
                    Reply::json(&json!({"issuer": "http://x.example", "jwks_uri": "http://127.0.0.1:1/k"}))
                });
            }
            _ => issuer.behave(|_| Reply::hang()),
        }
        issuer.rotate_in_secret();
        let before = stub.seen_rpc("tools/call").len();
        let told = status(&gateway, &issuer.bearer("mallory")).await;
        assert!(matches!(told, 401 | 503), "{bad}: {told}");
        assert_eq!(stub.seen_rpc("tools/call").len(), before, "{bad}: it was let in");
        assert_eq!(status(&gateway, &known).await, 200, "{bad}: a known key was forgotten");
    }
    Ok(())
}

#[tokio::test]
async fn without_any_key_the_answer_is_try_again_and_the_page_says_why() -> Result<()> {
    let issuer = Issuer::start().await;
    issuer.behave(|_| Reply::status(500));
    let (stub, gateway) = start(&issuer, "").await;
    let client = gateway.client().header("authorization", &issuer.bearer("alice"));
    let answer = client.modern().request("tools/call", json!({"name": "work", "arguments": {}})).await?;
    assert_eq!((answer.status.as_u16(), answer.header("retry-after").is_empty()), (503, false));
    assert_eq!(answer.json().await?["error"]["code"], -31008);
    assert!(stub.seen_rpc("tools/call").is_empty());
    let (_, ready) = gateway.admin("/ready").await.expect("it answers");
    assert!(ready.contains("no keys of the issuer"), "{ready}");
    issuer.recover();
    let let_in = async || (status(&gateway, &issuer.bearer("alice")).await == 200).then_some(());
    eventually("the issuer is back", SOON, let_in).await;
    Ok(())
}
