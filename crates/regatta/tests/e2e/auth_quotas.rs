//! Limits, kept results and several gateways know a caller by its principal: what it may use up, what it shares, and what
//! another gateway gives it (RELIABILITY T5, T22, T25, T26).

use crate::REGATTA;
use crate::fleet::{demos, urls};
use crate::peers::{Heard, Pair, sleep};
use regatta_testkit::client::Outcome;
use regatta_testkit::gateway::Plan;
use regatta_testkit::stub::answers;
use regatta_testkit::{Client, Gateway, Issuer, Result, Stub};
use serde_json::{Value, json};

const LINES: &str = "anonymous = \"allow\"\nclaims = [\"tenant\"]";

async fn over(tables: &str) -> (Issuer, Stub, Gateway) {
    let (issuer, stub) = (Issuer::start().await, Stub::start(answers::dual()).await);
    let tables = issuer.tables(LINES) + tables;
    let gateway = Gateway::start(REGATTA, Plan::over([stub.url()]).tables(&tables)).await;
    (issuer, stub, gateway)
}

fn of(issuer: &Issuer, subject: &str, claims: &[(&str, &str)]) -> String {
    let token = claims.iter().fold(issuer.token(subject), |token, (name, value)| token.claim(name, *value));
    issuer.bearer_of(&token)
}

async fn ask(gateway: &Gateway, headers: &[(&str, &str)]) -> Result<Outcome> {
    let client = headers.iter().fold(gateway.client(), |client, (name, value)| client.header(name, value));
    client.modern().call("work", json!({"op": "same"})).await
}

async fn status(gateway: &Gateway, bearer: &str) -> Result<u16> {
    Ok(ask(gateway, &[("authorization", bearer)]).await?.status.as_u16())
}

#[tokio::test]
async fn a_principal_has_one_quota_for_all_its_tokens_and_nobody_else_uses_it_up() -> Result<()> {
    let (issuer, _stub, gateway) = over("[[limit]]\nallow = 2\nwithin = \"1h\"").await;
    let wrong = issuer.bearer("alice").replace("Bearer e", "Bearer f");
    for _ in 0..3 {
        assert_eq!(status(&gateway, &wrong).await?, 401, "a name that nobody proved");
    }
    assert_eq!(status(&gateway, &issuer.bearer("alice")).await?, 200);
    for (nobody, wanted) in [200, 200, 429].into_iter().enumerate() {
        assert_eq!(ask(&gateway, &[]).await?.status, wanted, "nobody, call {nobody}");
    }
    assert_eq!(status(&gateway, &issuer.bearer("alice")).await?, 200, "nobody's calls are not hers");
    assert_eq!(status(&gateway, &issuer.bearer("alice")).await?, 429, "a new token is no new quota");
    assert_eq!(status(&gateway, &issuer.bearer("bob")).await?, 200);
    Ok(())
}

#[tokio::test]
async fn rules_part_callers_with_a_credential_from_those_without() -> Result<()> {
    let rules = "[[limit]]\nallow = 1\nwithin = \"1h\"\nauthenticated = false\nper = \"ip\"\n\
                 [[limit]]\nallow = 2\nwithin = \"1h\"\nauthenticated = true\nper = \"all\"";
    let (issuer, _stub, gateway) = over(rules).await;
    assert_eq!(ask(&gateway, &[]).await?.status, 200);
    assert_eq!(ask(&gateway, &[]).await?.status, 429);
    for (subject, wanted) in [("alice", 200), ("bob", 200), ("carol", 429)] {
        assert_eq!(status(&gateway, &issuer.bearer(subject)).await?, wanted, "{subject}");
    }
    Ok(())
}

#[tokio::test]
async fn callers_with_one_value_of_a_claim_share_a_quota() -> Result<()> {
    let (issuer, _stub, gateway) =
        over("[[limit]]\nallow = 2\nwithin = \"1h\"\nper = \"claim:tenant\"").await;
    for (subject, tenant, wanted) in
        [("alice", "acme", 200), ("bob", "acme", 200), ("carol", "acme", 429), ("dave", "other", 200)]
    {
        let bearer = of(&issuer, subject, &[("tenant", tenant)]);
        assert_eq!(status(&gateway, &bearer).await?, wanted, "{subject}");
    }
    Ok(())
}

#[tokio::test]
async fn a_stolen_session_id_does_not_use_up_the_quota_of_its_session() -> Result<()> {
    let (issuer, _stub, gateway) = over("[[limit]]\nallow = 1\nwithin = \"1h\"\nper = \"session\"").await;
    let as_of = |subject: &str| gateway.client().header("authorization", &issuer.bearer(subject));
    let session = as_of("alice").initialize().await?;
    for thief in [as_of("mallory"), gateway.client()] {
        let told = session.through(&thief).call("work", json!({"op": "x"})).await?;
        assert_eq!(told.status, 404);
    }
    assert_eq!(session.call("work", json!({"op": "x"})).await?.status, 200);
    assert_eq!(session.through(&as_of("alice")).call("work", json!({"op": "x"})).await?.status, 429);
    Ok(())
}

fn kept(outcome: &Outcome) -> &str {
    let mark: &Value = &outcome.message["result"]["_meta"]["io.regatta/cache"];
    mark["status"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn a_kept_result_is_its_principals_while_the_scopes_stay() -> Result<()> {
    let (issuer, stub, gateway) = over("[[cache]]\ntool = \"work\"\nttl = \"1h\"").await;
    let bearer = |subject: &str, scope: &str| of(&issuer, subject, &[("scope", scope)]);
    for (who, bearer, wanted) in [
        ("alice", bearer("alice", "read write"), "miss"),
        ("alice with a new token", bearer("alice", "write read"), "hit"),
        ("alice with fewer scopes", bearer("alice", "read"), "miss"),
        ("bob", bearer("bob", "read write"), "miss"),
    ] {
        let outcome = ask(&gateway, &[("authorization", &bearer)]).await?;
        assert_eq!(kept(&outcome), wanted, "{who}: {}", outcome.message);
    }
    assert_eq!(kept(&ask(&gateway, &[]).await?), "miss", "nobody");
    assert_eq!(stub.seen_rpc("tools/call").len(), 4);
    Ok(())
}

#[tokio::test]
async fn a_kept_result_is_shared_by_those_with_one_value_of_a_claim_and_others_are_not_kept() -> Result<()> {
    let rule = "[[cache]]\ntool = \"work\"\nttl = \"1h\"\nscope = \"claim:tenant\"";
    let (issuer, stub, gateway) = over(rule).await;
    for (subject, claims, wanted) in [
        ("alice", &[("tenant", "acme")][..], "miss"),
        ("bob", &[("tenant", "acme")][..], "hit"),
        ("carol", &[("tenant", "other")][..], "miss"),
        ("dave", &[][..], ""),
        ("dave again", &[][..], ""),
    ] {
        let outcome = ask(&gateway, &[("authorization", &of(&issuer, subject, claims))]).await?;
        assert_eq!(kept(&outcome), wanted, "{subject}: {}", outcome.message);
    }
    assert_eq!(stub.seen_rpc("tools/call").len(), 4);
    Ok(())
}

#[tokio::test]
async fn a_session_and_its_cut_stream_are_their_principals_at_every_gateway() -> Result<()> {
    let (issuer, demos) = (Issuer::start().await, demos(1, &["--eras", "legacy"]).await);
    let pair = Pair::start(Plan::over(urls(&demos)).tables(&issuer.tables(""))).await;
    let as_of = |client: Client, subject: &str| client.header("authorization", &issuer.bearer(subject));
    let session = as_of(pair.one.client(), "alice").initialize().await?;
    let mut heard = Heard::default();
    let mut events = sleep(&session, 1_950).await?.events();
    heard.note(&events.next().await?.expect("a priming event"));
    heard.note(&events.until("notifications/progress").await?);
    drop(events);
    let mallory = as_of(pair.two.client(), "mallory");
    assert_eq!(session.through(&mallory).resume(heard.last_id()).await?.status, 404, "no session of hers");
    let hers = mallory.initialize().await?;
    assert_eq!(hers.resume(heard.last_id()).await?.status, 400, "no event of her session");
    assert_eq!(session.through(&pair.two.client()).resume(heard.last_id()).await?.status, 401);
    let refreshed = session.through(&as_of(pair.two.client(), "alice"));
    for event in refreshed.resume(heard.last_id()).await?.events().rest().await? {
        heard.note(&event);
    }
    heard.assert_slept(1_950);
    Ok(())
}
