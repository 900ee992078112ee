//! Data of tools in Redis: a hash a space. Values are fields with a `=` before their name, and begin with their version.

use std::time::Duration;

use bytes::Bytes;
use redis::Value;

use super::sessions::unreadable;
use super::{Redis, scripts};
use crate::data::{SPACE_BYTES_MAX, SPACE_VALUES_MAX};
use crate::{BoxFuture, Data, Datum, Etag, SpaceName, StoreError, Written};

impl Data for Redis {
    fn datum(
        &self,
        space: &SpaceName,
        name: &str,
        life: Duration,
    ) -> BoxFuture<'_, Result<Option<Datum>, StoreError>> {
        let (key, field, life) = (self.inner.names.data(space), field(name), millis(life));
        Box::pin(async move {
            let args = [field.as_bytes(), life.as_bytes()];
            match self.inner.routes.run(&scripts::DATUM, &key, &args).await? {
                Value::Nil => Ok(None),
                value => read(&value).map(Some).ok_or_else(unreadable),
            }
        })
    }

    fn write_datum(
        &self,
        space: &SpaceName,
        name: &str,
        expected: Option<Etag>,
        next: Option<Datum>,
        life: Duration,
    ) -> BoxFuture<'_, Result<Written, StoreError>> {
        let (key, field, life) = (self.inner.names.data(space), field(name), millis(life));
        Box::pin(async move {
            let expected = expected.map(|etag| etag.0);
            let (version, bytes) =
                next.map_or((None, Bytes::new()), |next| (Some(next.version.0), next.bytes));
            let (values_max, bytes_max) = (SPACE_VALUES_MAX.to_string(), SPACE_BYTES_MAX.to_string());
            let args = [
                field.as_bytes(),
                expected.as_ref().map_or(&[][..], |etag| &etag[..]),
                version.as_ref().map_or(&[][..], |etag| &etag[..]),
                &bytes,
                life.as_bytes(),
                values_max.as_bytes(),
                bytes_max.as_bytes(),
            ];
            match self.inner.routes.run(&scripts::WRITE_DATUM, &key, &args).await? {
                Value::Int(1) => Ok(Written::Done),
                Value::Int(2) => Ok(Written::Lost(None)),
                Value::Int(3) => Ok(Written::Ended),
                Value::Int(4) => Err(StoreError::Full("bytes of a space")),
                Value::Int(5) => Err(StoreError::Full("values of a space")),
                value => read(&value).map(|held| Written::Lost(Some(held))).ok_or_else(unreadable),
            }
        })
    }

    fn end_space(&self, space: &SpaceName, life: Duration) -> BoxFuture<'_, Result<(), StoreError>> {
        let (key, life) = (self.inner.names.data(space), millis(life));
        Box::pin(async move {
            self.inner.routes.run(&scripts::END_SPACE, &key, &[life.as_bytes()]).await.map(|_| ())
        })
    }
}

fn field(name: &str) -> String {
    format!("={name}")
}

fn millis(life: Duration) -> String {
    life.as_millis().max(1).to_string()
}

fn read(value: &Value) -> Option<Datum> {
    let Value::BulkString(held) = value else { return None };
    let (version, bytes) = held.split_first_chunk::<16>()?;
    Some(Datum { version: Etag(*version), bytes: Bytes::copy_from_slice(bytes) })
}
