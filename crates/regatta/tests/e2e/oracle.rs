//! No answer's time tells whether there is such a session, or how much of a key was right (RELIABILITY T31).
//!
//! Not how long anything takes is judged, but whether two kinds of request can be told apart by it: they are sent in turn
//! on one connection, so whatever else slows the machine slows both.

use crate::REGATTA;
use regatta_testkit::client::{RawConnection, address_of};
use regatta_testkit::gateway::Plan;
use regatta_testkit::stub::answers;
use regatta_testkit::{Gateway, Issuer, Result, Stub};
use std::time::{Duration, Instant};

/// Requests of each kind.
const SAMPLES: usize = 10_000;
/// SHA-256 of `KEY`.
const RULES: &str = r#"
[[auth.api_key]]
name = "ci"
sha256 = "fdb34aa576a58fdb196af66dce46f029975c390a9f5cecfb9d9e04673381e244"
"#;
const KEY: &str = "a-key-of-forty-characters-for-the-oracle";

/// One ping with these two headers.
fn ping(bearer: &str, session: &str) -> Vec<u8> {
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    format!(
        "POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Accept: application/json, text/event-stream\r\nMCP-Protocol-Version: 2025-11-25\r\n\
         Authorization: {bearer}\r\nMcp-Session-Id: {session}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// How long each of two requests took, again and again, in turn. Both are answered with `status`, and alike.
async fn times(gateway: &Gateway, requests: [&[u8]; 2], status: u16) -> Result<[Vec<Duration>; 2]> {
    let mut connection = RawConnection::open(address_of(&gateway.url())).await?;
    let mut times = [Vec::new(), Vec::new()];
    for at in 0..2 * (SAMPLES + SAMPLES / 10) {
        // Now the one first, now the other.
        let kind = (at + at / 2) % 2;
        let began = Instant::now();
        connection.write(requests[kind]).await?;
        let told = connection.read_answer().await;
        let took = began.elapsed();
        assert_eq!(told.status, status, "{}", told.head);
        // The first tenth warms up.
        if at >= SAMPLES / 5 {
            times[kind].push(took);
        }
    }
    Ok(times)
}

fn median(times: &[Duration]) -> Duration {
    let mut times = times.to_vec();
    times.sort_unstable();
    times[times.len() / 2]
}

/// How often one of the first kind took longer than one of the second (Mann and Whitney): a half if they are alike.
fn effect([one, other]: &[Vec<Duration>; 2]) -> f64 {
    let mut other = other.clone();
    other.sort_unstable();
    let longer: usize = one.iter().map(|time| other.partition_point(|than| than < time)).sum();
    let equal: usize = one.iter().map(|time| other.partition_point(|than| than <= time)).sum();
    (longer + equal) as f64 / 2.0 / (one.len() * other.len()) as f64
}

async fn cannot_be_told_apart(
    gateway: &Gateway,
    what: &str,
    requests: [&[u8]; 2],
    status: u16,
) -> Result<()> {
    let times = times(gateway, requests, status).await?;
    let (effect, medians) = (effect(&times), times.each_ref().map(|times| median(times)));
    println!("{what}: effect {effect:.3}, medians {medians:?}");
    assert!((0.48..=0.52).contains(&effect), "{what}: effect {effect:.3}");
    let apart = medians[0].abs_diff(medians[1]).as_secs_f64() / medians[1].as_secs_f64();
    assert!(apart < 0.05, "{what}: medians {medians:?}");
    Ok(())
}

/// The same text with another letter at `at`.
fn with_another_letter(text: &str, at: usize) -> String {
    let mut bytes = text.as_bytes().to_vec();
    bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
    String::from_utf8(bytes).expect("letters")
}

#[tokio::test]
async fn the_time_of_an_answer_tells_neither_a_session_of_another_nor_the_beginning_of_a_key() -> Result<()> {
    let (issuer, stub) = (Issuer::start().await, Stub::start(answers::legacy()).await);
    let tables = issuer.tables("") + RULES;
    let gateway = Gateway::start(REGATTA, Plan::over([stub.url()]).tables(&tables)).await;
    let key = format!("Bearer {KEY}");
    let session = gateway.client().header("authorization", &key).initialize().await?;
    session.request("ping", serde_json::json!({})).await?.outcome().await?.result()?;

    let mallory = issuer.bearer("mallory");
    let never_was = with_another_letter(&session.id, session.id.len() / 2);
    let requests = [ping(&mallory, &session.id), ping(&mallory, &never_was)];
    let requests = requests.each_ref().map(Vec::as_slice);
    cannot_be_told_apart(&gateway, "a session of another, and none", requests, 404).await?;

    let (near, far) = (with_another_letter(&key, key.len() - 1), with_another_letter(&key, 7));
    let requests = [ping(&near, &session.id), ping(&far, &session.id)];
    let requests = requests.each_ref().map(Vec::as_slice);
    cannot_be_told_apart(&gateway, "a key wrong at its end, and at its beginning", requests, 401).await
}

#[test]
fn what_takes_longer_is_told_apart() {
    let of = |times: [u64; 4]| times.map(Duration::from_micros).to_vec();
    assert_eq!(effect(&[of([1, 2, 3, 4]), of([1, 2, 3, 4])]), 0.5);
    assert_eq!(effect(&[of([5, 6, 7, 8]), of([1, 2, 3, 4])]), 1.0);
    assert_eq!(effect(&[of([1, 1, 1, 1]), of([1, 1, 2, 2])]), 0.25);
}
