//! Seeded random mutations of good answers through the check of the fuzz target, so that every ordinary test run has a little
//! of them. The same seed is the same run; `REGATTA_MUTATIONS` sets how many.

mod checks;

const ANSWERS: [&str; 5] = [
    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 11\r\n\r\n{\"result\":1}",
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: keep-alive\r\n\r\n9;a=\"b\"\r\ndata: {}\n\r\n01\r\n\n\r\n0\r\nx: y\r\n\r\n",
    "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\nlink: x\n\nHTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
    "HTTP/1.0 200 OK\r\nconnection: close, mcp-session-id\r\nMcp-Session-Id: s\r\n\r\nuntil the end",
    "HTTP/1.1 204 No Content\r\nvary: a\r\nvary: b\r\n\r\nHTTP/1.1 200 OK\r\n",
];
/// What means something to a reader of HTTP.
const SPICE: [&str; 16] = [
    "\r\n",
    "\n",
    "\r",
    " ",
    "\t",
    "\0",
    ":",
    ",",
    ";",
    "0",
    "f",
    "content-length: 3\r\n",
    "transfer-encoding: chunked\r\n",
    "HTTP/1.1 200 OK\r\n",
    "\r\n\r\n",
    "\u{e9}",
];

struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 8) as usize % bound.max(1)
    }
}

fn mutate(dice: &mut Dice) -> Vec<u8> {
    let mut bytes = ANSWERS[dice.below(ANSWERS.len())].as_bytes().to_vec();
    for _ in 0..dice.below(5) {
        let at = dice.below(bytes.len());
        let end = (at + dice.below(12)).min(bytes.len());
        match dice.below(4) {
            0 => drop(bytes.drain(at..end)),
            1 => drop(bytes.splice(at..at, SPICE[dice.below(SPICE.len())].bytes())),
            2 => drop(bytes.splice(at..end, SPICE[dice.below(SPICE.len())].bytes())),
            _ => {
                let part = bytes[at..end].to_vec();
                let to = dice.below(bytes.len());
                drop(bytes.splice(to..to, part));
            }
        }
    }
    bytes
}

#[test]
fn mutated_answers_break_no_promise() {
    let times =
        std::env::var("REGATTA_MUTATIONS").ok().and_then(|times| times.parse().ok()).unwrap_or(20_000);
    for seed in 1..=times {
        let bytes = mutate(&mut Dice(0x9e37_79b9_7f4a_7c15u64.wrapping_mul(seed)));
        let outcome = std::panic::catch_unwind(|| checks::answer(&bytes));
        assert!(outcome.is_ok(), "seed {seed}: {}", bytes.escape_ascii());
    }
}
