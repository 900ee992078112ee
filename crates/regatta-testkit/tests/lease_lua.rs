//! The store's script for leases of quotas does what the rule does: random questions, asked of both, answer by answer.
//!
//! Needs `redis-server` on the path. The script is told the time here; in use it takes the store's own.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::num::NonZeroU32;
use std::process::Command;
use std::time::{Duration, Instant};

use regatta_policy::Micros;
use regatta_policy::dice::below;
use regatta_policy::quota::Quota;
use regatta_policy::quota::counter::{Algorithm, Breach};
use regatta_policy::quota::gcra::Rate;
use regatta_policy::quota::lease::{Ask, Grant, Holder, Ledger, Want};
use regatta_policy::quota::window::Allowance;
use regatta_testkit::Process;
use regatta_testkit::process::free_port;

const SCRIPT: &str = include_str!("../../regatta-store/src/redis/lease.lua");

/// A redis of its own, spoken to in RESP.
struct Redis {
    _process: Process,
    stream: BufReader<TcpStream>,
}

impl Redis {
    fn start() -> Redis {
        let port = free_port();
        let mut command = Command::new("redis-server");
        command.args([
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
        ]);
        let process = Process::spawn(&mut command);
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            if let Ok(stream) = TcpStream::connect(("127.0.0.1", port)) {
                return Redis { _process: process, stream: BufReader::new(stream) };
            }
            assert!(Instant::now() < end, "redis does not come up: {:?}", process.stderr());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// One command; its answer as numbers, of which a list is taken apart.
    fn ask(&mut self, words: &[String]) -> Vec<i64> {
        let mut text = format!("*{}\r\n", words.len());
        words.iter().for_each(|word| text += &format!("${}\r\n{word}\r\n", word.len()));
        self.stream.get_mut().write_all(text.as_bytes()).expect("written");
        let mut numbers = Vec::new();
        let mut lines = 1;
        while lines > 0 {
            lines -= 1;
            let mut line = String::new();
            self.stream.read_line(&mut line).expect("an answer");
            let (kind, rest) = line.trim_end().split_at(1);
            match kind {
                "*" => lines += rest.parse::<usize>().expect("a length"),
                "$" => {
                    line.clear();
                    self.stream.read_line(&mut line).expect("a value");
                    numbers.push(line.trim_end().parse().expect("a number"));
                }
                ":" => numbers.push(rest.parse().expect("a number")),
                _ => panic!("redis says {line}"),
            }
        }
        numbers
    }
}

/// What the script takes for a quota: algorithm, two numbers, block.
fn terms(quota: &Quota) -> [String; 4] {
    let block = match quota.breach {
        Breach::Refused => 0,
        Breach::Blocked(block) => block.as_micros(),
    };
    let (name, first, second) = match quota.algorithm {
        Algorithm::SlidingWindow(allowance) => ("window", u64::from(allowance.allow()), allowance.within().0),
        Algorithm::Gcra(rate) => ("gcra", rate.interval().0, rate.slack().0),
    };
    [name.to_owned(), first.to_string(), second.to_string(), block.to_string()]
}

fn told(grant: Grant) -> Vec<i64> {
    let number = |number: u64| if number == u64::MAX { -1 } else { number as i64 };
    match grant {
        Grant::Granted { held, remaining, reset_after } => {
            vec![1, i64::from(held), i64::from(remaining), number(reset_after.0)]
        }
        Grant::Refused { retry_after } => vec![0, number(retry_after.0)],
    }
}

/// A quota out of a seed.
fn quota(seed: u64) -> Quota {
    let positive =
        |purpose, bound| NonZeroU32::new(1 + below(seed, purpose, bound) as u32).expect("positive");
    let within = Duration::from_millis(20 + below(seed, 1, 2_000));
    let algorithm = match seed % 2 {
        0 => Algorithm::SlidingWindow(Allowance::new(positive(2, 300), within)),
        _ => Algorithm::Gcra(Rate::new(positive(2, 300), within, positive(3, 60))),
    };
    let block = Duration::from_millis(1 + below(seed, 4, 500));
    Quota { algorithm, breach: if seed.is_multiple_of(3) { Breach::Blocked(block) } else { Breach::Refused } }
}

fn want(kind: u64, more: u64) -> Want {
    let units = NonZeroU32::new(1 + more as u32).expect("positive");
    match kind {
        0 => Want::Nothing,
        1 => Want::AtOnce(units),
        _ => Want::Held(units),
    }
}

#[test]
fn the_script_answers_every_question_as_the_rule_does() {
    let mut redis = Redis::start();
    for seed in 0..60u64 {
        let (quota, mut ledger) = (quota(seed), Ledger::default());
        let mut now = 1_764_000_000_000_000u64;
        for step in 0..400u64 {
            let dice = |purpose, bound| below(seed << 32 | step, purpose, bound);
            now += dice(1, 20_000);
            let ask = Ask {
                holder: Holder(dice(2, 4)),
                used: dice(3, 8) as u32,
                last_ago: Micros(dice(4, 60_000)),
                want: want(dice(5, 3), dice(8, 3)),
                extra: dice(6, 20) as u32,
                term: Micros(dice(7, 40_000)),
            };
            let mut words =
                vec!["EVAL".to_owned(), SCRIPT.to_owned(), "1".to_owned(), format!("mcp:rl:{{{seed}}}")];
            words.extend(terms(&quota));
            let numbers = [ask.holder.0, ask.used.into(), ask.last_ago.0, ask.want.units().into()];
            words.extend(numbers.iter().map(u64::to_string));
            words.push(if matches!(ask.want, Want::Held(_)) { "held" } else { "once" }.to_owned());
            words.extend([ask.extra.into(), ask.term.0, now].iter().map(u64::to_string));
            let expected = told(ledger.ask(&quota, &ask, Micros(now)));
            assert_eq!(redis.ask(&words), expected, "seed {seed}, step {step}: {quota:?} {ask:?}");
        }
        let key = format!("mcp:rl:{{{seed}}}");
        let [ttl] = redis.ask(&["PTTL".to_owned(), key])[..] else { panic!("one number") };
        assert_ne!(ttl, -1, "every key has an end");
    }
}

#[test]
fn by_the_stores_own_clock_a_window_fills_and_opens_again() {
    let mut redis = Redis::start();
    let ask = |redis: &mut Redis| {
        let words = [
            "EVAL", SCRIPT, "1", "k", "window", "2", "200000", "0", "1", "0", "0", "1", "once", "0", "0", "",
        ];
        redis.ask(&words.map(str::to_owned))
    };
    assert_eq!(ask(&mut redis)[..3], [1, 0, 1]);
    assert_eq!(ask(&mut redis)[..3], [1, 0, 0]);
    let [0, retry_after] = ask(&mut redis)[..] else { panic!("the third") };
    assert!((1..=200_000).contains(&retry_after), "{retry_after}");
    std::thread::sleep(Duration::from_micros(retry_after as u64));
    assert_eq!(ask(&mut redis)[0], 1, "it waited as told");
}
