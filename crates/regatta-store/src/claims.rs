//! Claims: of all gateways one is the first to do a thing, for a while (SESSIONS 6: an answer is given once).

use std::time::Duration;

use crate::{BoxFuture, StoreError};

/// Who was first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// This call.
    First,
    /// An earlier one, here or elsewhere.
    Repeated,
}

/// Claims.
pub trait Claims {
    /// Claims what `digest` stands for, for `ttl`. After an error it is unknown whether it is claimed.
    fn claim(&self, digest: [u8; 16], ttl: Duration) -> BoxFuture<'_, Result<Claim, StoreError>>;

    /// Gives up a claim, so that the next one is the first again: for whoever was first and then did not do it.
    fn release(&self, digest: [u8; 16]) -> BoxFuture<'_, Result<(), StoreError>>;
}
