//! `regatta bench` without the gateway around it, for the scripts in `bench/`: it builds in seconds.

use std::process::ExitCode;

use clap::Parser;
use regatta_tools::load::{Args, run};

#[derive(Parser)]
struct Typed {
    #[command(flatten)]
    args: Args,
}

fn main() -> ExitCode {
    let typed = Typed::parse();
    let (plan, target) = match (typed.args.plan(), typed.args.target()) {
        (Ok(plan), Ok(target)) => (plan, target),
        (Err(why), _) => return complain(&why),
        (_, Err(why)) => return complain(&why.to_string()),
    };
    match run(plan, &target) {
        Ok(report) if typed.args.json => println!("{}", serde_json::to_string(&report).unwrap_or_default()),
        Ok(report) => print!("{report}"),
        Err(why) => {
            eprintln!("error: {why}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn complain(why: &str) -> ExitCode {
    eprintln!("error: {why}");
    ExitCode::from(2)
}
