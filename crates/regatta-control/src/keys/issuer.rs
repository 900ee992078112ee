//! One issuer's task: looks for its keys at the start, in good time, and when asked, but never more often than it may.
//!
//! Whoever asks while a look is under way shares it. A flood of tokens with invented keys so costs the issuer one
//! request in `LOOK_LEAST`, and nobody else anything.

use std::sync::Arc;
use std::time::Duration;

use regatta_policy::access::{Asked, VerificationKey};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use super::{IssuerPlan, KeysAt, Report, Waiting, discover, jwks};
use crate::files::LOOK_EVERY;
use crate::probe::client::Client;

/// The shortest time between two looks that succeed.
const LOOK_LEAST: Duration = Duration::from_secs(10);
/// The shortest and the longest time between two looks after one failed.
const AGAIN_LEAST: Duration = Duration::from_secs(1);
const AGAIN_MOST: Duration = Duration::from_secs(30);
/// How long a whole look may take, discovery included.
const LOOK_MAX: Duration = Duration::from_secs(3);
/// Bytes of a file of keys.
const FILE_MAX: u64 = 1 << 20;

/// What is known between looks.
#[derive(Default)]
struct Known {
    keys: Vec<VerificationKey>,
    /// Where discovery found the keys.
    at: Option<regatta_policy::snapshot::Endpoint>,
    failures: u32,
    why: Option<String>,
}

/// Why a wait between two looks ended.
enum Next {
    Due,
    Asked(Waiting),
    /// Nobody can ask any more, or nobody listens.
    Over,
}

/// The worker is gone.
struct Gone;

/// Keeps the keys of an issuer until nobody can ask any more.
pub(super) async fn keep(
    client: Arc<Client>,
    plan: IssuerPlan,
    mut asks: mpsc::Receiver<Waiting>,
    reports: mpsc::Sender<Report>,
) {
    let mut known = Known::default();
    let mut waiting = Vec::new();
    loop {
        let keys = known.look(&client, &plan).await;
        // Who asked meanwhile shares this look.
        while let Ok(one) = asks.try_recv() {
            waiting.push(one);
        }
        if known.tell(&plan, keys, std::mem::take(&mut waiting), &reports).await.is_err() {
            return;
        }
        match known.rest(&plan, &mut asks, &reports).await {
            Next::Due => {}
            Next::Asked(one) => waiting.push(one),
            Next::Over => return,
        }
    }
}

impl Known {
    /// One look; the keys if they are others than before.
    async fn look(&mut self, client: &Client, plan: &IssuerPlan) -> Option<Vec<VerificationKey>> {
        let looked = match timeout(LOOK_MAX, self.fetch(client, plan)).await {
            Ok(looked) => looked,
            Err(_) => Err(format!("no keys within {} s", LOOK_MAX.as_secs())),
        };
        match looked {
            Ok(keys) => {
                if self.why.take().is_some() || self.keys.is_empty() {
                    tracing::info!(issuer = plan.url, keys = keys.len(), "the issuer's keys are here");
                }
                self.failures = 0;
                let differ = self.keys != keys;
                self.keys.clone_from(&keys);
                differ.then_some(keys)
            }
            Err(why) => {
                self.failures = self.failures.saturating_add(1);
                // The metadata may have moved.
                self.at = None;
                if self.why.as_ref() != Some(&why) {
                    tracing::warn!(
                        issuer = plan.url,
                        why,
                        kept = self.keys.len(),
                        "the issuer's keys cannot be had"
                    );
                }
                self.why = Some(why);
                None
            }
        }
    }

    async fn fetch(&mut self, client: &Client, plan: &IssuerPlan) -> Result<Vec<VerificationKey>, String> {
        let at = match &plan.keys {
            KeysAt::File(path) => {
                let unread = |why: std::io::Error| format!("{}: {why}", path.display());
                let length = std::fs::metadata(path).map_err(unread)?.len();
                if length > FILE_MAX {
                    return Err(format!("{}: {length} bytes, at most {FILE_MAX}", path.display()));
                }
                return jwks::read(&std::fs::read(path).map_err(unread)?);
            }
            KeysAt::Url(at) => at.clone(),
            KeysAt::Discovered => match &self.at {
                Some(at) => at.clone(),
                None => discover::discover(client, &plan.url).await?,
            },
        };
        let keys = jwks::read(&discover::get(client, &at).await?)?;
        self.at = Some(at);
        Ok(keys)
    }

    /// How long until the next look of its own accord.
    fn pause(&self, plan: &IssuerPlan) -> Duration {
        match (&plan.keys, self.failures) {
            (KeysAt::File(_), _) => LOOK_EVERY,
            (KeysAt::Discovered | KeysAt::Url(_), 0) => plan.refresh,
            (KeysAt::Discovered | KeysAt::Url(_), failures) => {
                AGAIN_LEAST.saturating_mul(1 << failures.min(10).saturating_sub(1)).min(AGAIN_MOST)
            }
        }
    }

    /// Tells what was found, and those who wait for it.
    async fn tell(
        &self,
        plan: &IssuerPlan,
        keys: Option<Vec<VerificationKey>>,
        waiting: Vec<Waiting>,
        reports: &mpsc::Sender<Report>,
    ) -> Result<(), Gone> {
        if self.failures > 0 {
            waiting.into_iter().for_each(|one| _ = one.send(Asked::Away));
            return Ok(());
        }
        if keys.is_none() && waiting.is_empty() {
            return Ok(());
        }
        reports.send(Report { issuer: plan.url.clone(), keys, waiting }).await.map_err(|_| Gone)
    }

    /// Waits until the next look is due, or is asked for and allowed.
    async fn rest(
        &self,
        plan: &IssuerPlan,
        asks: &mut mpsc::Receiver<Waiting>,
        reports: &mpsc::Sender<Report>,
    ) -> Next {
        let now = Instant::now();
        let least = match (&plan.keys, self.failures) {
            (KeysAt::File(_), _) => Duration::ZERO,
            (KeysAt::Discovered | KeysAt::Url(_), 0) => LOOK_LEAST,
            (KeysAt::Discovered | KeysAt::Url(_), _) => AGAIN_LEAST,
        };
        let due = now + self.pause(plan);
        loop {
            let one = tokio::select! {
                () = sleep_until(due) => return Next::Due,
                ask = asks.recv() => match ask {
                    Some(one) => one,
                    None => return Next::Over,
                },
            };
            if now.elapsed() >= least {
                return Next::Asked(one);
            }
            // Nothing newer may be looked for yet; but what was found last may be newer than what the asker had.
            if self.tell(plan, None, vec![one], reports).await.is_err() {
                return Next::Over;
            }
        }
    }
}
