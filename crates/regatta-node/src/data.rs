//! Data of tools that outlives the process: a small map of a legacy session, or, for clients without sessions, of a handle.
//!
//! Every read and write asks the store, so that a tool reads what it wrote at whichever node its next call arrives. What a
//! node read before it fell asleep is no ground to write on: versions are compared, and an ended session takes no writes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use regatta_store::{Datum, Etag, SpaceName, Store, StoreError, Written};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::caller::Caller;
use crate::session::Sessions;

/// Bytes of a value's name.
pub const NAME_MAX: usize = 256;
/// Attempts of [`Data::update`] while others write too.
const ATTEMPTS_MAX: usize = 32;
/// Characters of a handle's name that are looked at.
const HANDLE_MAX: usize = 256;

/// Why data could not be read or written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DataError {
    /// The store cannot be reached. Whether a write took place is unknown.
    Away,
    /// The session was ended: nothing is written there any more.
    Ended,
    /// A bound is reached, this one: 64 values or 256 KiB of a session, 256 bytes of a name.
    Full(&'static str),
    /// What is kept is not of this type, or the value cannot be written as JSON.
    Form(String),
    /// Too many write the same value at once.
    Contended,
}

impl std::fmt::Display for DataError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            DataError::Away => f.write_str("the store is away"),
            DataError::Ended => f.write_str("the session was ended"),
            DataError::Full(what) => write!(f, "full: {what}"),
            DataError::Form(why) => write!(f, "not of this form: {why}"),
            DataError::Contended => f.write_str("too many write this value at once"),
        }
    }
}

impl std::error::Error for DataError {}

impl From<StoreError> for DataError {
    fn from(error: StoreError) -> DataError {
        match error {
            StoreError::Away(_) => DataError::Away,
            StoreError::Full(what) | StoreError::TooLarge(what) => DataError::Full(what),
        }
    }
}

/// The version of a value: changes with each write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version(Etag);

/// What became of a conditional write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Swap<T> {
    /// It is written, and has this version.
    Done(Version),
    /// Somebody else was first: this is the value, and its version; `None`: it was removed.
    Lost(Option<(T, Version)>),
}

/// The data of one session or handle. Values are JSON; at most 64 of them, 256 KiB in all. It passes away `session_ttl_s`
/// after it was last read or written.
#[derive(Clone)]
pub struct Data {
    store: Arc<dyn Store>,
    space: SpaceName,
    life: Duration,
}

impl Data {
    pub(crate) fn of_session(sessions: &Sessions, uuid: [u8; 16]) -> Data {
        Data { store: sessions.store.clone(), space: space_of_session(uuid), life: sessions.data_life }
    }

    /// The value under `name`, at most [`NAME_MAX`] bytes; `None`: there is none. One round trip to the store.
    ///
    /// # Errors
    /// [`DataError::Away`], [`DataError::Form`], or [`DataError::Full`] for too long a name.
    pub async fn get<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, DataError> {
        Ok(self.read(name).await?.map(|(value, _)| value))
    }

    /// The value under `name` and its version, for [`compare_and_set`](Self::compare_and_set).
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub async fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<(T, Version)>, DataError> {
        check(name)?;
        parse(self.store.datum(&self.space, name, self.life).await?)
    }

    /// Writes `value` if the present version is `expected`; `None`: if there is none. One round trip to the store.
    ///
    /// # Errors
    /// All of [`DataError`] but `Contended`. After `Away` it may have been written: read before writing again.
    pub async fn compare_and_set<T: Serialize + DeserializeOwned>(
        &self,
        name: &str,
        expected: Option<Version>,
        value: &T,
    ) -> Result<Swap<T>, DataError> {
        check(name)?;
        let bytes = serde_json::to_vec(value).map_err(|why| DataError::Form(why.to_string()))?;
        let version = Etag(regatta_seal::random16());
        let next = Datum { version, bytes: Bytes::from(bytes) };
        let expected = expected.map(|version| version.0);
        match self.store.write_datum(&self.space, name, expected, Some(next), self.life).await? {
            Written::Done => Ok(Swap::Done(Version(version))),
            Written::Lost(now) => Ok(Swap::Lost(parse(now)?)),
            Written::Ended => Err(DataError::Ended),
        }
    }

    /// Writes what `change` makes of the present value, whoever else writes at the same time; what was written. `change` may
    /// be called several times. A read and a write, and as much again for each write of others in between.
    ///
    /// # Errors
    /// All of [`DataError`].
    pub async fn update<T: Serialize + DeserializeOwned>(
        &self,
        name: &str,
        mut change: impl FnMut(Option<T>) -> T,
    ) -> Result<T, DataError> {
        let mut now = self.read(name).await?;
        for _ in 0..ATTEMPTS_MAX {
            let (value, version) = now.map_or((None, None), |(value, version)| (Some(value), Some(version)));
            let next = change(value);
            match self.compare_and_set(name, version, &next).await? {
                Swap::Done(_) => return Ok(next),
                Swap::Lost(other) => now = other,
            }
        }
        Err(DataError::Contended)
    }

    /// Removes the value under `name`, whatever it is; none is no error.
    ///
    /// # Errors
    /// All of [`DataError`] but `Form`.
    pub async fn remove(&self, name: &str) -> Result<(), DataError> {
        check(name)?;
        let mut now = self.store.datum(&self.space, name, self.life).await?;
        for _ in 0..ATTEMPTS_MAX {
            let Some(held) = now else { return Ok(()) };
            match self.store.write_datum(&self.space, name, Some(held.version), None, self.life).await? {
                Written::Done => return Ok(()),
                Written::Lost(other) => now = other,
                Written::Ended => return Err(DataError::Ended),
            }
        }
        Err(DataError::Contended)
    }
}

/// Makes and finds data by an explicit name, for clients of the modern era: the server hands the name out in a result, the
/// client gives it back in an argument. A name cannot be guessed, and opens for the caller it was made for only.
///
/// ```no_run
/// use regatta_node::{DataError, handles};
/// use rmcp::{RoleServer, service::RequestContext};
///
/// async fn draft(context: &RequestContext<RoleServer>, name: Option<&str>) -> Result<String, DataError> {
///     let Some(handles) = handles(&context.extensions) else { return Ok(String::new()) };
///     let (name, draft) = match name {
///         // Somebody else's name, or a made-up one, opens nothing.
///         Some(name) => match handles.open(name).await? {
///             Some(draft) => (name.to_owned(), draft),
///             None => return Ok(String::new()),
///         },
///         None => handles.create(),
///     };
///     draft.update("lines", |lines: Option<u32>| lines.unwrap_or(0) + 1).await?;
///     Ok(name)
/// }
/// ```
#[derive(Clone)]
pub struct Handles {
    sessions: Arc<Sessions>,
    caller: Caller,
}

impl Handles {
    pub(crate) fn new(sessions: Arc<Sessions>, caller: Caller) -> Handles {
        Handles { sessions, caller }
    }

    /// New, empty data, and its name: under 256 characters, fit for JSON and URLs. Nothing is stored before the first write.
    pub fn create(&self) -> (String, Data) {
        let space = regatta_seal::random16();
        let name = self.sessions.sealing.seal(&self.associated(), &space);
        (name, self.data(space))
    }

    /// The data of a name; `None`: it is no name of this caller's.
    ///
    /// # Errors
    /// [`DataError::Away`]: nobody can tell now.
    pub async fn open(&self, name: &str) -> Result<Option<Data>, DataError> {
        if name.len() > HANDLE_MAX {
            return Ok(None);
        }
        match self.sessions.sealing.open(&*self.sessions.store, &self.associated(), name).await {
            Ok(space) => Ok(space.try_into().ok().map(|space| self.data(space))),
            Err(crate::sealing::Closed::Foreign) => Ok(None),
            Err(crate::sealing::Closed::StoreAway) => Err(DataError::Away),
        }
    }

    /// A text that carries `state` and opens at every node, for this caller only, under the same `about`: for the
    /// `requestState` of a result that asks for input, or a cursor. Nothing is stored. It can be read by nobody else, and be
    /// sent again: bind it to what it is for.
    ///
    /// # Errors
    /// [`DataError::Form`]: the value cannot be written as JSON.
    pub fn seal_state<T: Serialize>(&self, about: &str, state: &T) -> Result<String, DataError> {
        let plain = serde_json::to_vec(state).map_err(|why| DataError::Form(why.to_string()))?;
        Ok(self.sessions.sealing.seal(&self.about(about), &plain))
    }

    /// What a text of [`seal_state`](Self::seal_state) carries; `None`: it was changed, or is of another caller or about
    /// something else.
    ///
    /// # Errors
    /// [`DataError::Away`]: nobody can tell now. [`DataError::Form`]: it carries something of another type.
    pub async fn open_state<T: DeserializeOwned>(
        &self,
        about: &str,
        text: &str,
    ) -> Result<Option<T>, DataError> {
        match self.sessions.sealing.open(&*self.sessions.store, &self.about(about), text).await {
            Ok(plain) => {
                serde_json::from_slice(&plain).map(Some).map_err(|why| DataError::Form(why.to_string()))
            }
            Err(crate::sealing::Closed::Foreign) => Ok(None),
            Err(crate::sealing::Closed::StoreAway) => Err(DataError::Away),
        }
    }

    fn about<'a>(&'a self, about: &'a str) -> [&'a [u8]; 4] {
        [b"regatta-node state", self.sessions.server.as_bytes(), &self.caller.0, about.as_bytes()]
    }

    fn data(&self, space: [u8; 16]) -> Data {
        let space = SpaceName(regatta_seal::digest16(&[b"handle data", &space]));
        Data { store: self.sessions.store.clone(), space, life: self.sessions.data_life }
    }

    fn associated(&self) -> [&[u8]; 3] {
        [b"regatta-node handle", self.sessions.server.as_bytes(), &self.caller.0]
    }
}

/// Where the data of a session is.
pub(crate) fn space_of_session(uuid: [u8; 16]) -> SpaceName {
    SpaceName(regatta_seal::digest16(&[b"session data", &uuid]))
}

fn check(name: &str) -> Result<(), DataError> {
    if name.len() > NAME_MAX { Err(DataError::Full("bytes of a name")) } else { Ok(()) }
}

fn parse<T: DeserializeOwned>(held: Option<Datum>) -> Result<Option<(T, Version)>, DataError> {
    let Some(held) = held else { return Ok(None) };
    let value = serde_json::from_slice(&held.bytes).map_err(|why| DataError::Form(why.to_string()))?;
    Ok(Some((value, Version(held.version))))
}
