//! Mail within one process: a letter goes from one mailbox's owner to another without leaving memory.
//!
//! Nobody else can change this store, so there are no notices.

use std::time::Duration;

use bytes::Bytes;

use super::{Embedded, ready};
use crate::{BoxFuture, GatewayId, Mail, Mailbox, StoreError};

impl Mail for Embedded {
    fn enlist(&self, gateway: GatewayId, _ttl: Duration) -> Mailbox {
        self.mailboxes.open(gateway)
    }

    fn resign(&self, gateway: GatewayId) -> BoxFuture<'_, Result<(), StoreError>> {
        self.mailboxes.close(gateway);
        ready(Ok(()))
    }

    fn is_live(&self, gateway: GatewayId) -> BoxFuture<'_, Result<bool, StoreError>> {
        ready(Ok(self.mailboxes.is_open(gateway)))
    }

    fn post(&self, to: GatewayId, letter: Bytes) -> BoxFuture<'_, Result<(), StoreError>> {
        self.mailboxes.deliver(to, letter);
        ready(Ok(()))
    }
}
