//! `regatta bench`: loads an MCP endpoint and checks every answer.
//!
//! Typed here, worked out in `regatta-tools`, which knows the target by its public surface only.

use std::process::ExitCode;

use regatta_tools::load::{Args, run as run_load};

/// The instrument's own arguments.
pub type BenchArgs = Args;

/// Prints the report to stdout; code 1 if an answer was not right or a connection broke.
pub fn run(args: &BenchArgs) -> ExitCode {
    let (plan, target) = match (args.plan(), args.target()) {
        (Ok(plan), Ok(target)) => (plan, target),
        (Err(why), _) => return complain(&why, 2),
        (_, Err(why)) => return complain(&why.to_string(), 2),
    };
    match run_load(plan, &target) {
        Ok(report) => {
            if args.json {
                println!("{}", serde_json::to_string(&report).unwrap_or_default());
            } else {
                print!("{report}");
            }
            if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::from(1) }
        }
        Err(why) => complain(&why.to_string(), 1),
    }
}

fn complain(why: &str, code: u8) -> ExitCode {
    eprintln!("error: {why}");
    ExitCode::from(code)
}
