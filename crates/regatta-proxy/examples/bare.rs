//! A bare data plane over the replicas named as arguments: for profiling and for trying things without a config.
//!
//! `cargo run --release -p regatta-proxy --example bare -- 127.0.0.1:8080 http://127.0.0.1:3001/mcp …`

use std::sync::Arc;
use std::time::Duration;

use regatta_policy::ReplicaId;
use regatta_policy::access::Asked;
use regatta_policy::snapshot::{
    Affinity, Balance, Breaker, CallBounds, Concurrency, Cursors, Duty, Endpoint, Eras, Health, Leases,
    Limits, Origins, Replica, Scheme, Server, SessionState, Snapshot, UpstreamResume,
};
use regatta_proxy::listener::{Listener, ListenerBounds, ListenerStats, drain_signal};
use regatta_proxy::peers::{Company, KeyPlan, Keys};
use regatta_proxy::{AskKeys, Gateway, Parts};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (listen, urls) = arguments.split_first().ok_or("usage: bare LISTEN URL…")?;
    let replicas: Vec<Replica> = urls.iter().filter_map(|url| replica(url)).collect();
    let snapshot = Arc::new(snapshot(replicas));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async move {
        let store = Arc::new(regatta_store::embedded::open(None, regatta_store::Bounds::default())?);
        let ask_keys: AskKeys = Arc::new(|_| Box::pin(async { Asked::Away }));
        let gateway = Gateway::new(Parts {
            snapshot,
            keys: Keys::planned(KeyPlan::default()),
            store,
            company: Company::Alone,
            fleet: None,
            ask_keys,
        });
        let listener = Listener::bind(&[listen.parse()?])?;
        let (_drainer, drain) = drain_signal();
        tokio::spawn(regatta_proxy::tend(gateway.clone()));
        let bounds = ListenerBounds { limits: gateway.shared_limits(), proxies: gateway.shared_proxies() };
        let handler = move |arrival| regatta_proxy::serve(gateway.clone(), arrival);
        let stats = Arc::new(ListenerStats::default());
        tokio::spawn(regatta_proxy::listener::serve(listener, None, bounds, handler, drain, stats)).await?;
        Ok(())
    })
}

fn replica(url: &str) -> Option<Replica> {
    let (authority, path) = url.strip_prefix("http://")?.split_once('/')?;
    let (host, port) = authority.split_once(':')?;
    let endpoint = Endpoint {
        url: url.to_owned(),
        scheme: Scheme::Http,
        host: host.to_owned(),
        port: port.parse().ok()?,
        path: format!("/{path}"),
    };
    let id = ReplicaId::of("bare", url);
    Some(Replica {
        id,
        endpoint,
        health: Health::Unknown,
        eras: Eras::Dual,
        duty: Duty::Serving,
        load: None,
        journal: [].into(),
    })
}

fn snapshot(replicas: Vec<Replica>) -> Snapshot {
    let server = Server {
        name: "bare".into(),
        path: "/mcp".into(),
        balance: Balance::RoundRobin,
        session_state: SessionState::Unknown,
        affinity: Affinity::None,
        cursors: Cursors::Shared,
        upstream_resume: UpstreamResume::Unsupported,
        repeatable_tools: Vec::new(),
        cache: Vec::new(),
        lists: regatta_policy::cache::Lists::NONE,
        concurrency: Concurrency::default(),
        connections_max: None,
        breaker: Breaker::On,
        classes: Vec::new(),
        call: CallBounds { request_timeout: Duration::from_secs(30), ..CallBounds::default() },
        credential: None,
        replicas,
        leases: Leases::Unleased,
        catalogue: None,
        definitions: Arc::default(),
    };
    Snapshot {
        version: 1,
        servers: vec![Arc::new(server)],
        limits: Arc::new(Limits::default()),
        admission: Arc::new(Origins::default()),
        quotas: Arc::default(),
        access: None,
        proxies: Arc::default(),
    }
}
