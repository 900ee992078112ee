//! nginx with the config of `deploy/nginx/` before two gateways: round robin, no stickiness, nothing buffered.

use crate::fleet::{demos, urls};
use crate::peers::{Heard, Pair, SOON, sleep};
use regatta_testkit::client::address_of;
use regatta_testkit::gateway::Plan;
use regatta_testkit::process::free_port;
use regatta_testkit::{Client, Process, Result, eventually};
use serde_json::json;
use std::process::Command;
use tempfile::TempDir;

const CONF: &str = include_str!("../../../../deploy/nginx/regatta.conf");
const MISSING: &str = "nginx is not installed\nhint: on Debian: apt-get install nginx-light";

/// nginx, and where it listens.
struct Nginx {
    _process: Process,
    _folder: TempDir,
    url: String,
}

async fn before(pair: &Pair) -> Nginx {
    let (folder, port) = (TempDir::new().expect("a directory"), free_port());
    let place = |gateway: &regatta_testkit::Gateway| address_of(&gateway.url()).to_string();
    let site = CONF
        .replace("127.0.0.1:8080", &place(&pair.one))
        .replace("127.0.0.1:8081", &place(&pair.two))
        .replace("listen 80;", &format!("listen 127.0.0.1:{port};"));
    let path = folder.path().display();
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let temporary = temporary.map(|kind| format!("{kind}_temp_path {path}/{kind};\n")).concat();
    // One process: a master that is killed leaves its workers behind.
    let whole = format!(
        "daemon off;\nmaster_process off;\npid {path}/pid;\nerror_log stderr;\nevents {{}}\n\
         http {{\naccess_log off;\n{temporary}{site}}}\n"
    );
    let file = folder.path().join("nginx.conf");
    std::fs::write(&file, whole).expect("the config can be written");
    let binary = ["/usr/sbin/nginx", "/usr/local/sbin/nginx"];
    let binary = binary.into_iter().find(|path| std::path::Path::new(path).exists()).expect(MISSING);
    let process = Process::spawn(Command::new(binary).arg("-p").arg(folder.path()).arg("-c").arg(&file));
    let address = format!("127.0.0.1:{port}");
    eventually("nginx listens", SOON, async || std::net::TcpStream::connect(&address).ok().map(drop)).await;
    Nginx { _process: process, _folder: folder, url: format!("http://{address}/mcp") }
}

#[tokio::test]
async fn any_gateway_serves_any_request_and_every_event_comes_at_once() -> Result<()> {
    let demos = demos(2, &[]).await;
    let mut pair = Pair::start(Plan::over(urls(&demos))).await;
    let nginx = before(&pair).await;
    let client = Client::new(&nginx.url);
    let session = client.initialize().await?;
    for count in 1..=20 {
        assert_eq!(session.call("counter", json!({})).await?.text(), count.to_string());
        client.modern().call("echo", json!({"text": "x"})).await?.result()?;
    }
    for gateway in [&pair.one, &pair.two] {
        let requests = gateway.metric("regatta_requests_total").await.unwrap_or_default();
        assert!(requests >= 10.0, "both are used: {requests}");
    }

    // The call has a minute to go: what is read now was not held back.
    let mut events = sleep(&session, 60_000).await?.events();
    events.until("notifications/progress").await?;
    drop(events);

    let mut heard = Heard::default();
    let mut events = sleep(&session, 1950).await?.events();
    for _ in 0..5 {
        for _ in 0..2 {
            heard.note(&events.until("notifications/progress").await?);
        }
        drop(events);
        events = session.resume(heard.last_id()).await?.events();
        assert_eq!(events.status, 200);
    }
    for event in events.rest().await? {
        heard.note(&event);
    }
    heard.assert_slept(1950);

    pair.one.process.kill();
    for count in 21..=40 {
        assert_eq!(session.call("counter", json!({})).await?.text(), count.to_string());
    }
    Ok(())
}
