//! How a store in Redis is opened: where, as whom, how patient, and its bounds.

use std::time::Duration;

use super::address::{BadUrl, Credentials, Layout, Transport, Url};
use crate::{MailboxBounds, Merge, RegistryBounds};

/// How a store in Redis is opened.
#[derive(Clone)]
pub struct Options {
    /// The servers.
    pub layout: Layout,
    /// Encrypted or not.
    pub transport: Transport,
    /// Who we are at the servers.
    pub credentials: Credentials,
    /// Who we are at the sentinels.
    pub sentinel_credentials: Credentials,
    /// The database.
    pub database: u16,
    /// Certificates to trust instead of the system's, PEM.
    pub trusted_pem: Option<Vec<u8>>,
    /// What all keys and channels begin with.
    pub prefix: String,
    /// Brings a record kept here together with the store's.
    pub merge: Merge,
    /// How patient.
    pub timing: Timing,
    /// What may be kept.
    pub limits: Limits,
}

/// How patient.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// One operation, from its call to its answer, repeats and all.
    pub operation: Duration,
    /// One attempt to connect, greeting and all.
    pub connect: Duration,
    /// The first pause between attempts to connect; each is drawn from the half to the whole.
    pub retry_min: Duration,
    /// The longest pause.
    pub retry_max: Duration,
    /// How often the notices prove that they come.
    pub prove_every: Duration,
    /// How long after a proof what is known here is taken for certain (SESSIONS 3).
    pub trust_for: Duration,
    /// How often the server's role, what sentinels say and the map of a cluster are looked at.
    pub check_every: Duration,
    /// How long acknowledged writes are remembered, to be written again to a server that lost them in a failover.
    pub remember_for: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Timing {
            operation: Duration::from_millis(250),
            connect: Duration::from_millis(250),
            retry_min: Duration::from_millis(50),
            retry_max: Duration::from_millis(400),
            prove_every: Duration::from_secs(1),
            trust_for: Duration::from_secs(3),
            check_every: Duration::from_secs(3),
            remember_for: Duration::from_secs(30),
        }
    }
}

/// What may be kept, there and here.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of one record.
    pub value_max: usize,
    /// How long a record stays after its last use.
    pub record_ttl: Duration,
    /// How long a session lives: a day's tombstones go whole after that and two days.
    pub session_lifetime_max: Duration,
    /// Tombstones of one issue day.
    pub tombstones_max: usize,
    /// Sealing keys.
    pub keys_max: usize,
    /// Events of a spilled stream; the oldest go.
    pub spill_events_max: usize,
    /// Bytes of the events of a spilled stream; the oldest go.
    pub spill_bytes_max: usize,
    /// How long a spilled stream is held after its last event.
    pub spill_ttl: Duration,
    /// Bytes of events in one answer of `recall`, but for the first event.
    pub recall_bytes_max: usize,
    /// Bytes of one letter.
    pub letter_max: usize,
    /// Tombstones known here, and about how many records ("there is none" is one too).
    pub known_max: usize,
    /// Bytes of the records known here.
    pub known_bytes_max: u64,
    /// Records kept here only while the store is away.
    pub unpublished_max: usize,
    /// Acknowledged writes remembered.
    pub remembered_max: usize,
    /// Letters and notices not fetched yet.
    pub mailbox: MailboxBounds,
    /// Nodes.
    pub registry: RegistryBounds,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            value_max: 64 << 10,
            record_ttl: Duration::from_secs(24 * 3600),
            session_lifetime_max: Duration::from_secs(7 * 24 * 3600),
            tombstones_max: 500_000,
            keys_max: 64,
            spill_events_max: 1000,
            spill_bytes_max: 4 << 20,
            spill_ttl: Duration::from_secs(300),
            recall_bytes_max: 1 << 20,
            letter_max: 8 << 20,
            known_max: 200_000,
            known_bytes_max: 64 << 20,
            unpublished_max: 10_000,
            remembered_max: 20_000,
            mailbox: MailboxBounds::default(),
            registry: RegistryBounds::default(),
        }
    }
}

impl Options {
    /// All defaults at `url`.
    pub fn at(url: &str, merge: Merge) -> Result<Options, BadUrl> {
        let Url { layout, transport, credentials, database } = url.parse()?;
        Ok(Options {
            layout,
            transport,
            credentials,
            sentinel_credentials: Credentials::default(),
            database,
            trusted_pem: None,
            prefix: "mcp:".to_owned(),
            merge,
            timing: Timing::default(),
            limits: Limits::default(),
        })
    }
}
