//! `regatta cache stats | purge`: looks into the result cache of a running gateway, by its admin listener.
//!
//! Data to stdout, the rest to stderr. A caller is named by the digest of its `Authorization`, worked out here: the token
//! itself never travels.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

/// How long the gateway may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest answer that is read.
const ANSWER_MAX: u64 = 16 << 20;

/// Shows what a running gateway's result cache does, or makes what it kept old.
#[derive(Debug, Args)]
pub struct CacheArgs {
    /// Address of the gateway's admin listener.
    #[arg(long, global = true, value_name = "ADDRESS", default_value = "127.0.0.1:9901")]
    admin: String,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Hit share, bytes and saved time of each rule.
    Stats {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Makes kept results old, from now on. Without anything but --server: all of that server's.
    Purge(Purge),
}

#[derive(Debug, Args)]
struct Purge {
    /// The server's name in the config.
    #[arg(long)]
    server: String,
    /// A tool, or a pattern: get_*.
    #[arg(long, conflicts_with = "principal_of")]
    tool: Option<String>,
    /// Only the calls with these arguments (JSON), whoever made them.
    #[arg(long, requires = "tool", value_name = "JSON")]
    arguments: Option<String>,
    /// Only what is kept for the caller with the Authorization value in this file; - is stdin. Of a JWT its issuer and
    /// subject count too, as with [auth] they do.
    #[arg(long, value_name = "FILE")]
    principal_of: Option<PathBuf>,
    /// Only what is kept for this subject, with [auth]: of --issuer, or else the API key of this name.
    #[arg(long, conflicts_with_all = ["tool", "principal_of"])]
    subject: Option<String>,
    /// The issuer of --subject, as in its tokens.
    #[arg(long, requires = "subject", value_name = "URL")]
    issuer: Option<String>,
}

/// Asks, and prints what comes back.
pub fn run(args: &CacheArgs) -> ExitCode {
    let done = match &args.what {
        What::Stats { json } => ask(&args.admin, "GET /cache", None).map(|stats| show(&stats, *json)),
        What::Purge(purge) => wishes(purge).and_then(|wishes| {
            let mut wishes = wishes.iter();
            wishes.try_for_each(|wish| ask(&args.admin, "POST /cache/purge", Some(wish)).map(|_| ()))?;
            eprintln!("purged");
            Ok(())
        }),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::from(1)
        }
    }
}

/// The requests that a purge takes: one, but for a caller who may stand under two digests.
fn wishes(purge: &Purge) -> Result<Vec<Value>, String> {
    let callers = match (&purge.principal_of, &purge.subject) {
        (Some(file), _) => callers(&read(file)?),
        (None, Some(subject)) => {
            vec![regatta_proxy::principal_digest(purge.issuer.as_deref(), subject)]
        }
        (None, None) => return Ok(vec![wish(purge, None)]),
    };
    let hex = |digest: [u8; 16]| digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    Ok(callers.into_iter().map(|digest| wish(purge, Some(hex(digest)))).collect())
}

fn wish(purge: &Purge, principal: Option<String>) -> Value {
    let all = [
        ("server", Some(purge.server.clone())),
        ("tool", purge.tool.clone()),
        ("arguments", purge.arguments.clone()),
        ("principal", principal),
    ];
    all.into_iter().filter_map(|(key, value)| Some((key.to_owned(), json!(value?)))).collect()
}

fn read(file: &Path) -> Result<String, String> {
    let mut value = String::new();
    let read = match file.as_os_str() == "-" {
        true => std::io::stdin().read_to_string(&mut value).map(|_| ()),
        false => std::fs::read_to_string(file).map(|text| value = text),
    };
    read.map_err(|why| format!("{}: {why}", file.display()))?;
    Ok(value)
}

/// The digests that stand for a caller (SESSIONS 9): of the header, and with `[auth]` of who the token says it is. Which of
/// them the gateway goes by is not known here, and nobody else stands under either.
fn callers(authorization: &str) -> Vec<[u8; 16]> {
    let value = authorization.trim();
    let header = regatta_seal::digest16(&[b"authorization", value.as_bytes()]);
    let named =
        named(value).map(|(issuer, subject)| regatta_proxy::principal_digest(Some(&issuer), &subject));
    [Some(header), named].into_iter().flatten().collect()
}

/// Issuer and subject of a JWT. Nothing is verified: whoever may purge may purge anybody.
fn named(value: &str) -> Option<(String, String)> {
    let (_, token) = value.split_once(' ')?;
    let payload = token.trim().split('.').nth(1)?;
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
    let text = |name: &str| claims[name].as_str().map(str::to_owned);
    Some((text("iss")?, text("sub")?))
}

fn show(stats: &Value, as_json: bool) {
    if as_json {
        return println!("{stats}");
    }
    println!("{} results, {} bytes", stats["results"], stats["bytes"]);
    println!("{:>7} {:>9} {:>9} {:>11} {:>11}  rule", "hits %", "found", "fetched", "saved s", "bytes");
    for rule in stats["rules"].as_array().into_iter().flatten() {
        let number = |key: &str| rule[key].as_f64().unwrap_or_default();
        println!(
            "{:>7.1} {:>9} {:>9} {:>11.3} {:>11}  {} {}",
            number("hit_percent"),
            number("hits") + number("stale") + number("shared"),
            number("misses"),
            number("saved_seconds"),
            number("bytes"),
            rule["server"].as_str().unwrap_or_default(),
            rule["tool"].as_str().unwrap_or_default(),
        );
    }
}

/// One request to the admin listener; the JSON of its answer.
fn ask(admin: &str, line: &str, body: Option<&Value>) -> Result<Value, String> {
    let away = |why: std::io::Error| {
        format!("the admin listener at {admin} cannot be asked: {why}\nhint: name it with --admin HOST:PORT")
    };
    let body = body.map(Value::to_string).unwrap_or_default();
    let address = admin.to_socket_addrs().map_err(away)?.next();
    let address = address.ok_or_else(|| format!("{admin} is no address"))?;
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).map_err(away)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(away)?;
    let request = format!(
        "{line} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).map_err(away)?;
    let mut answer = String::new();
    stream.take(ANSWER_MAX).read_to_string(&mut answer).map_err(away)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("the answer is not HTTP")?;
    let parsed: Value =
        serde_json::from_str(body).map_err(|_| format!("no JSON came from {admin}: {head}"))?;
    match head.split(' ').nth(1) {
        Some("200") => Ok(parsed),
        _ => Err(parsed["error"].as_str().unwrap_or("the gateway refused").to_owned()),
    }
}
