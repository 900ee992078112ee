//! Sealing keys in Redis: one hash without an end, a field a key.
//!
//! In clear: whoever can read the store can read the keys, as docs/redis.md says.

use redis::Value;

use super::line::Repeat;
use super::names::{hex, unhex};
use super::sessions::unreadable;
use super::{Inner, Redis, scripts};
use crate::{BoxFuture, Keys, Notice, StoreError, StoredKey};

impl Inner {
    async fn all_keys(&self) -> Result<Vec<StoredKey>, StoreError> {
        let key = self.names.keys();
        let mut cmd = redis::cmd("HGETALL");
        cmd.arg(&key);
        let answer = self.routes.ask(&key, &cmd, Repeat::Harmless).await?;
        let pairs: Vec<(String, String)> = redis::from_redis_value(answer).map_err(|_| unreadable())?;
        let mut keys: Vec<StoredKey> = Vec::with_capacity(pairs.len());
        for (fingerprint, rest) in pairs.iter().take(self.limits.keys_max) {
            match read(fingerprint, rest) {
                Some(key) => keys.push(key),
                // Perhaps a newer version understands it. It is not shown: it may hold most of a key.
                None => tracing::warn!("a sealing key in redis cannot be read"),
            }
        }
        keys.sort_by_key(|key| (key.published_s, key.fingerprint));
        Ok(keys)
    }

    async fn forget_key(&self, fingerprint: [u8; 4]) -> Result<(), StoreError> {
        let key = self.names.keys();
        let mut cmd = redis::cmd("HDEL");
        cmd.arg(&key).arg(hex(&fingerprint));
        self.routes.ask(&key, &cmd, Repeat::Harmless).await.map(|_| ())
    }

    async fn publish_key(&self, key: StoredKey) -> Result<StoredKey, StoreError> {
        let (fingerprint, rest) = write(&key);
        let most = self.limits.keys_max.to_string();
        let (channel, notice) = self.notice(Notice::KeysChanged);
        let args = [fingerprint.as_bytes(), rest.as_bytes(), most.as_bytes(), channel.as_bytes(), &notice];
        match self.routes.run(&scripts::PUT_KEY, &self.names.keys(), &args).await? {
            Value::BulkString(kept) => {
                read(&fingerprint, &String::from_utf8_lossy(&kept)).ok_or_else(unreadable)
            }
            Value::Nil => {
                self.means.counters.refused_keys.one();
                Err(StoreError::Full("sealing keys"))
            }
            _ => Err(unreadable()),
        }
    }
}

fn write(key: &StoredKey) -> (String, String) {
    (hex(&key.fingerprint), format!("{} {}", key.published_s, hex(&key.secret)))
}

fn read(fingerprint: &str, rest: &str) -> Option<StoredKey> {
    let (published_s, secret) = rest.split_once(' ')?;
    let published_s = published_s.parse().ok()?;
    Some(StoredKey { fingerprint: unhex(fingerprint)?, secret: unhex(secret)?, published_s })
}

impl Keys for Redis {
    fn keys(&self) -> BoxFuture<'_, Result<Vec<StoredKey>, StoreError>> {
        Box::pin(self.inner.all_keys())
    }

    fn put_key(&self, key: StoredKey) -> BoxFuture<'_, Result<StoredKey, StoreError>> {
        Box::pin(self.inner.publish_key(key))
    }

    fn drop_key(&self, fingerprint: [u8; 4]) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.inner.forget_key(fingerprint))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_it_was_written() {
        let key = StoredKey { fingerprint: [1, 2, 3, 0xff], secret: [0xab; 32], published_s: 1_800_000_000 };
        let (fingerprint, rest) = write(&key);
        assert_eq!(read(&fingerprint, &rest), Some(key));
        assert_eq!(read(&fingerprint, "1800000000 abcd"), None);
    }
}
