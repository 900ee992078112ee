//! The connections that calls came on: how many are open at one moment, by what the kernel knows.
//!
//! An end counts from when it arrived, whether or not anybody has read it. Only looked after when asked to be: it costs a
//! descriptor for each connection.

use socket2::SockRef;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::net::TcpStream;

#[derive(Default)]
pub(crate) struct Carriers(Mutex<Option<Counted>>);

#[derive(Default)]
struct Counted {
    open: BTreeMap<u64, OwnedFd>,
    most: usize,
}

/// Forgets a connection when its task ends.
pub(crate) struct Carrier<'a> {
    carriers: &'a Carriers,
    number: u64,
}

impl Carriers {
    /// From now on.
    pub(crate) fn begin(&self) {
        self.lock().get_or_insert_default();
    }

    /// The most since this was asked for last.
    pub(crate) fn most(&self) -> usize {
        self.lock().as_mut().map_or(0, |counted| std::mem::take(&mut counted.most))
    }

    pub(crate) fn carrier(&self, number: u64) -> Carrier<'_> {
        Carrier { carriers: self, number }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Counted>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Carrier<'_> {
    /// A call came on it. All that are found open were so when the first of them was looked at: each had come before.
    pub(crate) fn carries(&self, socket: &TcpStream) {
        let mut state = self.carriers.lock();
        let Some(counted) = &mut *state else { return };
        if let Ok(own) = socket.as_fd().try_clone_to_owned() {
            counted.open.entry(self.number).or_insert(own);
        }
        counted.open.retain(|_, socket| is_open(socket));
        counted.most = counted.most.max(counted.open.len());
    }
}

impl Drop for Carrier<'_> {
    fn drop(&mut self) {
        if let Some(counted) = &mut *self.carriers.lock() {
            counted.open.remove(&self.number);
        }
    }
}

/// Whether the other side has not ended it.
fn is_open(socket: &OwnedFd) -> bool {
    match SockRef::from(socket).peek(&mut [MaybeUninit::uninit()]) {
        Ok(bytes) => bytes > 0,
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    }
}
