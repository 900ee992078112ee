//! What no table thinks of: sound requests and sound answers with a few bytes changed, by a fixed seed.
//!
//! Nothing is said about a single one but what must hold for all: an end in time, an answer where one is due, no panic, and
//! the same process serving normal requests afterwards.

use crate::table::{Ask, Bench};
use regatta_testkit::client::{RawConnection, address_of};
use regatta_testkit::gateway::Plan;
use regatta_testkit::stub::answers;
use regatta_testkit::{Reply, Seen};
use serde_json::json;
use std::sync::Mutex;
use std::time::Duration;

const ROUNDS: u64 = 1_000;
const SEED: u64 = 0x5ca1_ab1e;
/// Bytes that mean something to one of the parsers.
const TELLING: &[u8] = b"\r\n\0 :,;{}[]\"\\/=?-+0129aZ\x7f\x80\xff\xc3";

/// xorshift64*: enough to pick places.
struct Dice(u64);

impl Dice {
    fn below(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let thrown = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(thrown).unwrap_or(0) % sides
    }

    /// One to four bytes changed, put in, taken out or repeated.
    fn spoil(&mut self, mut bytes: Vec<u8>) -> Vec<u8> {
        for _ in 0..=self.below(4) {
            let (at, byte) = (self.below(bytes.len()), TELLING[self.below(TELLING.len())]);
            match self.below(4) {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                2 => drop(bytes.remove(at)),
                _ => {
                    let end = bytes.len().min(at + 1 + self.below(40));
                    let again = bytes[at..end].to_vec();
                    bytes.splice(at..at, again);
                }
            }
        }
        bytes
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outlives_spoilt_requests() {
    let bench = Bench::start("").await;
    let mut dice = Dice(SEED);
    let sound = [
        Ask::legacy(&bench.session.id).bytes(),
        Ask::modern().bytes(),
        Ask::modern().chunked().bytes(),
        Ask::legacy(&bench.session.id)
            .line("DELETE /mcp HTTP/1.1")
            .body("")
            .set("Mcp-Session-Id", "x")
            .bytes(),
    ];
    for round in 0..ROUNDS {
        let bytes = sound[dice.below(sound.len())].clone();
        let bytes = dice.spoil(bytes);
        let mut connection = RawConnection::open(address_of(&bench.gateway.url())).await.expect("it accepts");
        let _ = connection.write(&bytes).await;
        let _ = connection.half_close().await;
        let (_, closed) = connection.read_rest(Duration::from_secs(5)).await;
        assert!(closed, "round {round} never ends: {}", String::from_utf8_lossy(&bytes));
        if round % 100 == 0 {
            assert_eq!(bench.normal().await, Ok(()), "after round {round}");
        }
    }
    assert_eq!(bench.normal().await, Ok(()));
    bench.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gives_an_answer_whatever_a_server_says() {
    let (base, dice) = (answers::dual(), Mutex::new(Dice(SEED)));
    let spoiling = move |seen: &Seen| {
        if seen.tool() != "spoil" {
            return base(seen);
        }
        let mut dice = dice.lock().expect("no panic");
        let result = json!({"content": [{"type": "text", "text": "fine"}], "resultType": "complete"});
        let text = json!({"jsonrpc": "2.0", "id": seen.id(), "result": result}).to_string();
        let (kind, body) = match dice.below(2) {
            0 => ("application/json", text),
            _ => ("text/event-stream", format!("id: 1\ndata:\n\n: x\n\nevent: message\ndata: {text}\n\n")),
        };
        let head =
            format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n", body.len());
        Reply::raw(dice.spoil([head, body].concat().into_bytes()))
    };
    let bench = Bench::over(spoiling, Plan::default()).await;
    let asks = [
        Ask::legacy(&bench.session.id).edit(|body| body["params"]["name"] = json!("spoil")).bytes(),
        Ask::modern().edit(|body| body["params"]["name"] = json!("spoil")).set("Mcp-Name", "spoil").bytes(),
    ];
    for round in 0..ROUNDS {
        let told = bench.ask(&asks[usize::from(round % 2 == 0)]).await;
        assert!(told.status >= 200, "round {round} has no answer");
        let text = String::from_utf8_lossy(&told.body);
        let is_told = text.contains("\"result\"") || text.contains("\"error\"") || told.status != 200;
        // Event ids of a server may pause a legacy stream: then its end is resumable and says nothing.
        assert!(is_told || told.head.contains("event-stream"), "round {round}: {} {text}", told.head);
        if round % 100 == 0 {
            assert_eq!(bench.normal().await, Ok(()), "after round {round}");
        }
    }
    assert_eq!(bench.normal().await, Ok(()));
    bench.finish().await;
}
