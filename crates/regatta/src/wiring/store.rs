//! The store of a gateway: in the state directory for one alone, in Redis for several.
//!
//! A Redis that is away is no reason not to start; the way there is built in the background.

use std::sync::Arc;

use bytes::Bytes;
use regatta_cache::{Fleet, OverStore};
use regatta_policy::deviation::Deviation;
use regatta_proxy::peers::Company;
use regatta_store::{Bounds, Merge, Store, embedded, redis};
use tokio::runtime::Runtime;

use crate::settings::Settings;

/// A store that is open.
pub struct Opened {
    /// The store.
    pub store: Arc<dyn Store>,
    /// Where kept results go that other gateways may give out too; none where nobody else uses the store.
    pub fleet: Option<Arc<dyn Fleet>>,
    /// Whether other gateways may use it.
    pub company: Company,
    /// What its operator should change there, once that is known.
    pub warning: Box<dyn Fn() -> Option<String> + Send + Sync>,
    /// Takes the credentials of a URL of the same place, for every connection from then on.
    pub renew: Box<dyn Fn(&str) + Send + Sync>,
}

/// Opens what the settings name. `data` is the runtime on which the way to a shared store lives.
///
/// # Errors
/// Why it cannot be opened, for a person.
pub fn open(settings: &Settings, port: u16, data: &Runtime) -> Result<Opened, String> {
    let limits = &settings.config.limits;
    let Some(url) = &settings.config.store.url else {
        let bounds = Bounds { session_lifetime_max: limits.session_lifetime_max, ..Bounds::default() };
        let store = embedded::open(settings.state.path(port).as_deref(), bounds).map_err(|why| {
            format!("{why}\nhint: give each gateway a state_dir of its own, or stop the other one")
        })?;
        let (warning, renew) = (Box::new(|| None), Box::new(|_: &str| {}));
        return Ok(Opened { store: Arc::new(store), fleet: None, company: Company::Alone, warning, renew });
    };
    let plan = &settings.config.store;
    let options = redis::Options::at(url, merge(limits.subscriptions_max));
    let mut options = options.map_err(|why| format!("store.url: {why}"))?;
    options.prefix.clone_from(&plan.prefix);
    options.timing.operation = plan.operation_timeout;
    options.limits.session_lifetime_max = limits.session_lifetime_max;
    let _entered = data.enter();
    let store = Arc::new(redis::open(options));
    let told = store.clone();
    let warning = Box::new(move || told.policy_warning());
    let renewed = store.clone();
    let renew = Box::new(move |url: &str| {
        // The config was checked before it was taken.
        if let Ok(url) = url.parse::<redis::Url>() {
            renewed.renew_credentials(url.credentials);
            tracing::info!("the store is given other credentials");
        }
    });
    let fleet: Arc<dyn Fleet> = Arc::new(OverStore(store.clone()));
    Ok(Opened { store, fleet: Some(fleet), company: Company::Many, warning, renew })
}

/// How a record that was kept here while the store was away and the store's own become one.
fn merge(subscriptions_max: usize) -> Merge {
    Arc::new(move |kept, stored| match (Deviation::from_bytes(kept), Deviation::from_bytes(stored)) {
        (Ok(kept), Ok(stored)) => Bytes::from(kept.merge(&stored, subscriptions_max).to_bytes()),
        // Of a layout that a newer gateway wrote nothing may be lost.
        (_, _) => Bytes::copy_from_slice(stored),
    })
}
