//! Changes of a session's deviation record, by compare-and-set (SESSIONS 3).
//!
//! Who loses the race reads the winner's record and makes the same change on it; a lost re-homing gives way.

use bytes::Bytes;
use regatta_policy::deviation::{Applied, Change, Deviation};
use regatta_store::{Cas, Etag, Versioned};

use crate::bind;
use crate::fault::Fault;
use crate::gateway::Gateway;
use crate::session::Bound;

/// Attempts at a record that others change at the same time.
const TRIES: usize = 8;

/// Makes `change` on the record of `bound`; the session as it is bound afterwards.
pub(crate) async fn change(gateway: &Gateway, bound: &Bound, change: Change<'_>) -> Result<Bound, Fault> {
    let mut bound = bound.clone();
    let subscriptions_max = gateway.limits().subscriptions_max;
    for _ in 0..TRIES {
        let mut deviation =
            bound.record.as_ref().map_or_else(Deviation::default, |record| (*record.deviation).clone());
        let applied = deviation.apply(change, subscriptions_max).map_err(|_| Fault::TooManySubscriptions)?;
        if applied == Applied::Same {
            return Ok(bound);
        }
        let next =
            Versioned { etag: Etag(regatta_seal::random16()), value: Bytes::from(deviation.to_bytes()) };
        let expected = bound.record.as_ref().map(|record| record.etag);
        let written = gateway.store.compare_and_set(&bound.session.uuid, expected, next.clone()).await;
        let record = match written.map_err(|_| Fault::StoreAway)? {
            written @ (Cas::Done | Cas::KeptHere) => {
                if let (Cas::KeptHere, Change::Rehome { etag, .. }) = (written, change) {
                    gateway.peers.kept.keep(bound.session.uuid, etag);
                }
                return Ok(bind::at_home(bound.session, Some(bind::recorded(&next)?)));
            }
            Cas::Lost(winner) => winner.map(|winner| bind::recorded(&winner)).transpose()?,
        };
        let before = bound.home.etag;
        bound = bind::at_home(bound.session, record);
        if matches!(change, Change::Rehome { .. }) && bound.home.etag != before {
            return Ok(bound);
        }
    }
    Err(Fault::StoreAway)
}
