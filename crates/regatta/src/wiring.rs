//! Starts a gateway and ends it: the only place that knows both planes.
//!
//! Two runtimes: the data plane has the worker threads of the config; the control plane, the admin listener and the
//! signals share the main thread, so that health is answered while the data plane is busy. Snapshots go down on a
//! watch channel; metrics and status come up as closures.

mod cached;
mod page;
mod signals;
mod store;
pub mod tls;

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use regatta_control::Control;
/// A replica as the control plane shows it.
pub use regatta_control::ReplicaView;
use regatta_control::admin::{self, Panel, Phase, Readiness};
use regatta_policy::snapshot::Snapshot;
use regatta_proxy::listener::{self, Drainer, Ended, Listener, ListenerBounds, ListenerStats, drain_signal};
use regatta_proxy::peers::{KeyPlan, Keys, Rotation};
/// A replica as the data plane shows it.
pub use regatta_proxy::upstream::ReplicaStatus;
use regatta_proxy::{AskKeys, Gateway, Parts};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::logging::Sink;
use crate::settings::{AdminTaken, Settings};
use page::Plane;
use signals::{Sign, Signs};
use store::Opened;
use tls::Certs;

/// How long the end waits for the probes' sessions to be ended.
const GOODBYE_MAX: Duration = Duration::from_millis(500);

/// Why a gateway does not start, for a person.
#[derive(Debug)]
pub struct Failed(pub String);

/// What can be shown of a gateway that serves.
pub struct Started {
    /// Where clients connect.
    pub listen: Vec<SocketAddr>,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// Where the admin listener is.
    pub admin: Option<SocketAddr>,
    /// What probes say of the replicas.
    pub views: watch::Receiver<Arc<Vec<ReplicaView>>>,
    /// What the data plane says of them.
    pub status: Box<dyn Fn() -> Vec<ReplicaStatus> + Send + Sync>,
}

/// A data plane that takes clients.
struct Serving {
    drainer: Drainer,
    ended: JoinHandle<Ended>,
    patience: Duration,
}

/// Runs a gateway until a signal ends it. `started` is called once it serves, on the control plane's runtime.
pub fn run(settings: Settings, sink: &Sink, started: impl FnOnce(Started)) -> Result<(), Failed> {
    let failed = |why: std::io::Error| Failed(format!("cannot start the runtime: {why}"));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = settings.config.process.worker_threads.unwrap_or(cores.min(4));
    let data = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name("data")
        .enable_all()
        .build()
        .map_err(failed)?;
    let control = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let outcome = control.block_on(serve(settings, sink, &data, started));
    data.shutdown_background();
    control.shutdown_background();
    outcome
}

async fn serve(
    mut settings: Settings,
    sink: &Sink,
    data: &Runtime,
    started: impl FnOnce(Started),
) -> Result<(), Failed> {
    settings.config.read_secrets().map_err(Failed)?;
    let process = settings.config.process.clone();
    let mut signs = Signs::new().map_err(|why| Failed(format!("cannot listen to signals: {why}")))?;
    let listener = bind(data, &process.listen)?;
    let listen = listener.local_addresses();
    let certs = process.tls.as_ref().map(Certs::load).transpose().map_err(Failed)?;
    let port = listen.first().map_or(0, SocketAddr::port);
    let Opened { store, fleet, company, warning, renew } =
        store::open(&settings, port, data).map_err(Failed)?;
    let plan = KeyPlan {
        configured: settings.config.sealing_keys.to_vec(),
        wrap: settings.config.store.key.clone(),
        rotation: settings
            .config
            .sealing_key_rotation
            .map(|every| Rotation { every, kept_for: settings.config.limits.session_lifetime_max }),
    };
    let keys = Keys::start(plan, &*store, company).await.map_err(Failed)?;

    // Before the first probes, so that `/health` answers and `/ready` says "starting" meanwhile.
    let ready = Arc::new(Readiness::default());
    let plane: Arc<OnceLock<Plane>> = Arc::default();
    let hosts = settings.config.admission.hosts.clone();
    let admin = admin(process.admin, settings.admin_taken, page::panel(&ready, &plane, hosts)).await?;

    let control = tokio::select! {
        control = Control::start(settings.config, settings.source, Some(store.clone())) => Arc::new(control),
        () = signs.end() => return Ok(()),
    };
    let mut snapshots = control.snapshots();
    let snapshot = snapshots.borrow_and_update().clone();
    let gateway = {
        let _entered = data.enter();
        let ask_keys = ask_keys(&control);
        Gateway::new(Parts { snapshot, keys, store: store.clone(), company, fleet, ask_keys })
    };
    data.spawn(obey(gateway.clone(), snapshots));
    data.spawn(regatta_proxy::tend(gateway.clone()));
    data.spawn(regatta_proxy::busy_poll(gateway.clone(), process.busy_poll_max));
    tokio::spawn(follow_credentials(control.store_url(), renew));
    let stats = Arc::new(ListenerStats::default());
    let views = control.views();
    let shown = Plane {
        gateway: gateway.clone(),
        stats: stats.clone(),
        store,
        warning,
        control: control.clone(),
        sink: sink.clone(),
    };
    let _ = plane.set(shown);
    let (drainer, ended) = listen_on(data, listener, certs.as_ref(), &gateway, stats);
    ready.enter(Phase::Serving);
    tracing::info!(?listen, ?admin, "serving");
    let (scheme, status) = (if certs.is_some() { "https" } else { "http" }, gateway.clone());
    started(Started { listen, scheme, admin, views, status: Box::new(move || status.status()) });

    let serving = Serving { drainer, ended, patience: process.drain_deadline };
    watch_over(&mut signs, certs, &control).await;
    ready.enter(Phase::Draining);
    end(&mut signs, serving, gateway, &control, data).await;
    Ok(())
}

fn bind(data: &Runtime, addresses: &[SocketAddr]) -> Result<Listener, Failed> {
    let _entered = data.enter();
    Listener::bind(addresses).map_err(|why| {
        Failed(format!(
            "cannot listen on {why}\nhint: is another gateway running? give this one another address: gateway.listen, or up --listen"
        ))
    })
}

/// Binds and serves the admin listener, if there is one.
async fn admin(
    address: Option<SocketAddr>,
    taken: AdminTaken,
    panel: Panel,
) -> Result<Option<SocketAddr>, Failed> {
    let Some(address) = address else { return Ok(None) };
    let bound = match (TcpListener::bind(address).await, taken) {
        (Err(why), AdminTaken::AnyPort) if why.kind() == std::io::ErrorKind::AddrInUse => {
            TcpListener::bind(SocketAddr::new(address.ip(), 0)).await
        }
        (bound, AdminTaken::AnyPort | AdminTaken::Fail) => bound,
    };
    let listener = bound.map_err(|why| {
        Failed(format!("cannot listen on {address} for admin requests: {why}\nhint: choose another gateway.admin, or \"off\""))
    })?;
    let address = listener.local_addr().ok();
    tokio::spawn(admin::serve(listener, Arc::new(panel)));
    Ok(address)
}

/// How the data plane asks for an issuer's newer keys.
fn ask_keys(control: &Control) -> AskKeys {
    let asking = control.asking();
    Arc::new(move |issuer| {
        let asking = asking.clone();
        Box::pin(async move { asking.ask(issuer).await })
    })
}

/// The data plane serves by each new snapshot.
async fn obey(gateway: Arc<Gateway>, mut snapshots: watch::Receiver<Arc<Snapshot>>) {
    while snapshots.changed().await.is_ok() {
        let snapshot = snapshots.borrow_and_update().clone();
        gateway.apply(snapshot);
    }
}

/// The store is used with the credentials that the config has now.
async fn follow_credentials(
    mut url: watch::Receiver<Option<String>>,
    renew: Box<dyn Fn(&str) + Send + Sync>,
) {
    while url.changed().await.is_ok() {
        if let Some(url) = &*url.borrow_and_update() {
            renew(url);
        }
    }
}

fn listen_on(
    data: &Runtime,
    listener: Listener,
    certs: Option<&Certs>,
    gateway: &Arc<Gateway>,
    stats: Arc<ListenerStats>,
) -> (Drainer, JoinHandle<Ended>) {
    let (drainer, drain) = drain_signal();
    let bounds = ListenerBounds { limits: gateway.shared_limits(), proxies: gateway.shared_proxies() };
    let (tls, gateway) = (certs.map(Certs::shared), gateway.clone());
    let handler = move |arrival| regatta_proxy::serve(gateway.clone(), arrival);
    (drainer, data.spawn(listener::serve(listener, tls, bounds, handler, drain, stats)))
}

/// Until the first sign to end: reloads when told to, and looks at the certificates.
async fn watch_over(signs: &mut Signs, mut certs: Option<Certs>, control: &Control) {
    let mut look = tokio::time::interval(regatta_control::files::LOOK_EVERY);
    loop {
        tokio::select! {
            sign = signs.next() => match sign {
                Sign::End => return,
                Sign::Reload => control.reload().await,
            },
            _ = look.tick() => {}
        }
        if let Some(certs) = &mut certs {
            certs.look();
        }
    }
}

/// Drains, at most for the deadline; a second sign to end cuts it short.
async fn end(signs: &mut Signs, serving: Serving, gateway: Arc<Gateway>, control: &Control, data: &Runtime) {
    let Serving { drainer, mut ended, patience } = serving;
    tracing::info!(?patience, "draining");
    // Before anybody can read that this gateway drains: `leave` begins on another thread.
    gateway.begin_drain();
    drainer.drain(patience);
    let left = data.spawn(async move { regatta_proxy::leave(&gateway, patience).await });
    let drained = async {
        let _ = left.await;
        (&mut ended).await.map_or(0, |ended| ended.aborted)
    };
    tokio::select! {
        aborted = drained => tracing::info!(aborted, "drained"),
        () = signs.end() => tracing::warn!("a second signal: ending at once"),
    }
    let _ = tokio::time::timeout(GOODBYE_MAX, control.stop()).await;
}
