//! Seeded random mutations of good inputs through the checks of the fuzz targets, so that every ordinary test run has a
//! little of them. The same seed is the same run; `REGATTA_MUTATIONS` sets how many.

mod checks;

const ENVELOPES: [&str; 6] = [
    r#"{"jsonrpc":"2.0","id":"a\"b","method":"tools/call","params":{"name":"ge\u0074","arguments":{"x":[1.5e3,"}",null]},"requestState":"s","_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{"sampling":{}}}}}"#,
    r#"[{"jsonrpc":"2.0","id":1,"method":"ping"},{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}]"#,
    r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32602,"message":"é漢😀\ud83d\ude00"}}"#,
    r#"{"jsonrpc":"2.0","id":7,"result":{"resultType":"task","requestState":"x\\","task":{"taskId":"t"},"tasks":[{"taskId":"u"}],"_meta":{"io.modelcontextprotocol/subscriptionId":"7"}}}"#,
    "{\"jsonrpc\":\"2.0\",\"method\":\"a\"}\n{\"jsonrpc\":\"2.0\",\"id\":-1,\"result\":[[[]],{}]}",
    r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":0,"b":0,"c":0,"d":0,"e":0,"f":0,"g":0,"h":0,"i":0,"j":0,"k":0,"l":0,"m":0,"n":0,"o":0,"p":0,"q":0,"r":0,"s":0,"t":0}}"#,
];
const STREAMS: [&str; 3] = [
    "\u{feff}: hello\n\nid: 1\nevent: message\nretry: 500\ndata: {\"a\":\ndata: 1}\n\n:\r\n\r\ndata\r\rdata: x\r\n\r\n",
    "id: a\0b\ndata: 1\n\nid\nfoo: bar\nretry: x\n\n",
    ":\n:\n:\n\n\n\ndata: y",
];
const HEADERS: [&str; 3] = [
    "application/json, text/event-stream;q=0.5\n*/*;q=0\ntext/*;x=\"a,b\\\"\"",
    "application/json; charset=\"utf-8\"\nclose, x-hop\n=?base64?Zm9v?=",
    " padded \n=?base64?/w==?=\n=?BASE64?x?=",
];
/// Bytes that mean something to one of the readers.
const SPICE: &[u8] = b"{}[]\",:\\/u0dD8eE+-.19 \t\r\n\0\x1f\x7f\x80\xc3\xa9\xed\xa0\xff=?;*q";

struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 8) as usize % bound.max(1)
    }
}

fn mutate(seeds: &[&str], dice: &mut Dice) -> Vec<u8> {
    let mut bytes = seeds[dice.below(seeds.len())].as_bytes().to_vec();
    for _ in 0..dice.below(6) {
        let at = dice.below(bytes.len());
        let end = (at + dice.below(12)).min(bytes.len());
        match dice.below(5) {
            0 => drop(bytes.drain(at..end)),
            1 => bytes.insert(at, SPICE[dice.below(SPICE.len())]),
            2 if at < bytes.len() => bytes[at] = SPICE[dice.below(SPICE.len())],
            3 => {
                let part = bytes[at..end].to_vec();
                let to = dice.below(bytes.len());
                bytes.splice(to..to, part);
            }
            _ => bytes.truncate(bytes.len() - dice.below(3).min(bytes.len())),
        }
    }
    bytes
}

fn run(seeds: &[&str], check: fn(&[u8])) {
    let times =
        std::env::var("REGATTA_MUTATIONS").ok().and_then(|times| times.parse().ok()).unwrap_or(20_000);
    for seed in 1..=times {
        let bytes = mutate(seeds, &mut Dice(0x9e37_79b9_7f4a_7c15u64.wrapping_mul(seed)));
        let outcome = std::panic::catch_unwind(|| check(&bytes));
        assert!(outcome.is_ok(), "seed {seed}: {:?}", String::from_utf8_lossy(&bytes));
    }
}

#[test]
fn mutated_messages_break_no_promise() {
    run(&ENVELOPES, checks::envelope);
}

#[test]
fn mutated_streams_break_no_promise() {
    run(&STREAMS, checks::sse);
}

#[test]
fn mutated_headers_break_no_promise() {
    run(&HEADERS, checks::headers);
}
