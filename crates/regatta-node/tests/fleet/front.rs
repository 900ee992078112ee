//! What stands before the nodes: a gateway, or nginx, which knows nothing of sessions.

use std::process::Command;
use std::time::Duration;

use regatta_testkit::gateway::Plan;
use regatta_testkit::process::free_port;
use regatta_testkit::redis::Server;
use regatta_testkit::{Client, Gateway, Process, eventually};
use tempfile::TempDir;

use crate::built;

const MISSING: &str = "nginx is not installed\nhint: on Debian: apt-get install nginx-light";
const SOON: Duration = Duration::from_secs(20);

pub enum Front {
    Gateway(Box<Gateway>),
    Nginx { _process: Process, _folder: TempDir, url: String },
}

impl Front {
    /// A gateway that takes every node of `server` from the registry.
    pub async fn gateway(server: &str, nodes: usize, redis: &Server) -> Front {
        Front::gateway_with(server, nodes, redis, "").await
    }

    /// The same with further tables in its config.
    pub async fn gateway_with(server: &str, nodes: usize, redis: &Server, tables: &str) -> Front {
        let store =
            format!("[store]\nurl = {:?}\nregistry_poll = \"100ms\"\nregistry_lease = \"2s\"\n", redis.url());
        let none: [String; 0] = [];
        let plan = Plan::default().server(server, none, "registry = true\n").tables(&store).tables(tables);
        let gateway = Gateway::start(&built("regatta"), plan).await;
        gateway.metric_reaches("regatta_replica_serving", nodes as f64).await;
        Front::Gateway(Box::new(gateway))
    }

    /// nginx: round robin over `ports`, no stickiness, and, as it is out of the box, no second try of a POST that was sent.
    pub async fn nginx(ports: &[u16]) -> Front {
        Front::nginx_with(ports, "").await
    }

    /// nginx that asks the next node when one refuses a call, or is lost with it: for nodes that differ (docs/node.md).
    pub async fn nginx_next(ports: &[u16]) -> Front {
        Front::nginx_with(ports, "proxy_next_upstream error timeout http_503 non_idempotent;\n").await
    }

    async fn nginx_with(ports: &[u16], next: &str) -> Front {
        let (folder, port) = (TempDir::new().expect("a directory"), free_port());
        let servers = ports.iter().map(|port| format!("server 127.0.0.1:{port} max_fails=0;\n"));
        let servers: String = servers.collect();
        let path = folder.path().display();
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
        let temporary = temporary.map(|kind| format!("{kind}_temp_path {path}/{kind};\n")).concat();
        // One process: a master that is killed leaves its workers behind.
        let whole = format!(
            "daemon off;\nmaster_process off;\npid {path}/pid;\nerror_log stderr crit;\nevents {{ worker_connections 4096; }}\n\
             http {{\naccess_log off;\n{temporary}upstream nodes {{\n{servers}keepalive 64;\n}}\n\
             server {{\nlisten 127.0.0.1:{port};\nlocation / {{\nproxy_pass http://nodes;\nproxy_http_version 1.1;\n\
             proxy_set_header Connection \"\";\nproxy_set_header Host localhost;\nproxy_buffering off;\n\
             {next}proxy_connect_timeout 1s;\nproxy_read_timeout 6s;\n}}\n}}\n}}\n"
        );
        let file = folder.path().join("nginx.conf");
        std::fs::write(&file, whole).expect("the config can be written");
        let binary = ["/usr/sbin/nginx", "/usr/local/sbin/nginx"];
        let binary = binary.into_iter().find(|path| std::path::Path::new(path).exists()).expect(MISSING);
        let process = Process::spawn(Command::new(binary).arg("-p").arg(folder.path()).arg("-c").arg(&file));
        let address = format!("127.0.0.1:{port}");
        eventually("nginx listens", SOON, async || std::net::TcpStream::connect(&address).ok().map(drop))
            .await;
        Front::Nginx { _process: process, _folder: folder, url: format!("http://{address}/mcp") }
    }

    /// A metric of the gateway; 0 where there is none.
    pub async fn metric(&self, name: &str) -> f64 {
        match self {
            Front::Gateway(gateway) => gateway.metric(name).await.unwrap_or_default(),
            Front::Nginx { .. } => 0.0,
        }
    }

    pub fn client(&self) -> Client {
        match self {
            Front::Gateway(gateway) => gateway.client(),
            Front::Nginx { url, .. } => Client::new(url),
        }
    }
}
