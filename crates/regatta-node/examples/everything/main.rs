//! A server with everything that the official conformance suite asks for, on `regatta-node`; `--plain PORT` serves the same
//! handler with `rmcp` alone, as the reference that the suite's verdicts are compared with.
#![expect(
    deprecated,
    reason = "clients of the legacy era set log levels, and are asked for samples and roots"
)]

mod asking;
mod contents;
mod handler;
mod plain;
mod rounds;

use regatta_node::Node;

fn main() -> Result<(), regatta_node::NotStarted> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => Node::named("everything").version(env!("CARGO_PKG_VERSION")).run(|| handler::Everything),
        ["--plain", port] => Ok(plain::serve(port)?),
        _ => Err("usage: everything [--plain PORT]; a node is told by REGATTA_NODE_…".to_owned().into()),
    }
}
