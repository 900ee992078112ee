//! Mail over Redis: a lease a gateway, a channel for its letters.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use redis::Value;
use tokio::time::sleep;

use super::line::Repeat;
use super::{Inner, Redis, notices};
use crate::{BoxFuture, GatewayId, Mail, Mailbox, StoreError};

/// What a lease says: how a gateway is reached. There is one way so far.
const BY_MAIL: &str = "mail";
/// A mailbox nobody holds any more is noticed after this.
const LOOK_EVERY: Duration = Duration::from_millis(200);

impl Inner {
    async fn renew(&self, gateway: GatewayId, ttl: Duration) -> Result<(), StoreError> {
        let key = self.names.gateway(gateway);
        let mut cmd = redis::cmd("SET");
        cmd.arg(&key).arg(BY_MAIL).arg("PX").arg(ttl.as_millis() as u64);
        self.routes.ask(&key, &cmd, Repeat::Harmless).await.map(|_| ())
    }

    async fn end_lease(&self, gateway: GatewayId) -> Result<(), StoreError> {
        self.mailboxes.close(gateway);
        self.mail.send_modify(|gateways| {
            gateways.remove(&gateway);
        });
        let key = self.names.gateway(gateway);
        let mut cmd = redis::cmd("DEL");
        cmd.arg(&key);
        self.routes.ask(&key, &cmd, Repeat::Harmless).await.map(|_| ())
    }

    async fn has_lease(&self, gateway: GatewayId) -> Result<bool, StoreError> {
        let key = self.names.gateway(gateway);
        let mut cmd = redis::cmd("EXISTS");
        cmd.arg(&key);
        Ok(self.routes.ask(&key, &cmd, Repeat::Harmless).await? == Value::Int(1))
    }

    async fn send(&self, to: GatewayId, letter: Bytes) -> Result<(), StoreError> {
        if letter.len() > self.limits.letter_max {
            self.means.counters.refused_letters.one();
            return Err(StoreError::TooLarge("a letter"));
        }
        let channel = self.names.mail(to);
        let mut cmd = redis::cmd("PUBLISH");
        cmd.arg(&channel).arg(&letter[..]);
        self.routes.ask(&channel, &cmd, Repeat::Never).await.map(|_| ())
    }
}

/// Renews a lease for as long as somebody holds the mailbox.
async fn hold(inner: Arc<Inner>, gateway: GatewayId, ttl: Duration) {
    // A lease says that letters arrive.
    notices::wait_hearing(&inner, gateway, ttl).await;
    let mut changes = inner.means.changes.subscribe();
    while inner.mailboxes.is_open(gateway) {
        // When it fails the store is away; it is tried again soon.
        let renewed = inner.renew(gateway, ttl).await;
        let next = if renewed.is_ok() { ttl / 3 } else { inner.means.timing.retry_max };
        tokio::select! {
            () = sleep(next) => {}
            _ = changes.changed() => {}
            () = closed(&inner, gateway) => {}
        }
    }
    let _ = inner.end_lease(gateway).await;
}

async fn closed(inner: &Inner, gateway: GatewayId) {
    while inner.mailboxes.is_open(gateway) {
        sleep(LOOK_EVERY).await;
    }
}

impl Mail for Redis {
    fn enlist(&self, gateway: GatewayId, ttl: Duration) -> Mailbox {
        let mailbox = self.inner.mailboxes.open(gateway);
        self.inner.mail.send_modify(|gateways| {
            gateways.insert(gateway);
        });
        let lease = self.runtime.spawn(hold(self.inner.clone(), gateway, ttl)).abort_handle();
        let mut leases = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
        leases.retain(|_, lease| !lease.is_finished());
        if let Some(old) = leases.insert(gateway, lease) {
            old.abort();
        }
        mailbox
    }

    fn resign(&self, gateway: GatewayId) -> BoxFuture<'_, Result<(), StoreError>> {
        if let Some(lease) = self.leases.lock().unwrap_or_else(PoisonError::into_inner).remove(&gateway) {
            lease.abort();
        }
        Box::pin(self.inner.end_lease(gateway))
    }

    fn is_live(&self, gateway: GatewayId) -> BoxFuture<'_, Result<bool, StoreError>> {
        Box::pin(self.inner.has_lease(gateway))
    }

    fn post(&self, to: GatewayId, letter: Bytes) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.inner.send(to, letter))
    }
}
