//! The key ring of a gateway: from the config, else from the store, else a fresh key that the store keeps (SESSIONS 2).

use std::time::{SystemTime, UNIX_EPOCH};

use regatta_seal::{KeyRing, MasterKey};
use regatta_store::{Store, StoredKey};

/// The ring: the first configured key seals and every other opens; without any, the newest key of the store seals.
///
/// # Errors
/// Why no key can be had or kept, for a person.
pub async fn ring(store: &dyn Store, configured: &[MasterKey]) -> Result<KeyRing, String> {
    let stored = store.keys().await.map_err(|why| format!("the sealing keys cannot be read: {why}"))?;
    let mut known: Vec<MasterKey> = stored.iter().map(|key| MasterKey::new(key.secret)).collect();
    let current = match (configured.first(), known.pop()) {
        (Some(key), newest) => {
            known.extend(newest);
            MasterKey::new(*key.secret_bytes())
        }
        (None, Some(newest)) => newest,
        (None, None) => keep(store, &MasterKey::random()).await?,
    };
    let ring = KeyRing::new(&current);
    Ok(configured.iter().chain(&known).fold(ring, |ring, key| ring.add(key)))
}

async fn keep(store: &dyn Store, key: &MasterKey) -> Result<MasterKey, String> {
    let published_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let key = StoredKey { fingerprint: key.fingerprint().0, secret: *key.secret_bytes(), published_s };
    let kept = store.put_key(key).await.map_err(|why| format!("the sealing key cannot be kept: {why}"))?;
    Ok(MasterKey::new(kept.secret))
}

#[cfg(test)]
mod tests {
    use regatta_store::{Bounds, embedded};

    use super::*;

    #[tokio::test]
    async fn a_fresh_key_is_kept_and_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let open = || embedded::open(Some(dir.path()), Bounds::default()).unwrap();
        let first = ring(&open(), &[]).await.unwrap().current();
        assert_eq!(ring(&open(), &[]).await.unwrap().current(), first);
    }

    #[tokio::test]
    async fn a_configured_key_seals_and_the_stored_one_still_opens() {
        let dir = tempfile::tempdir().unwrap();
        let store = embedded::open(Some(dir.path()), Bounds::default()).unwrap();
        let stored = ring(&store, &[]).await.unwrap().current();
        let configured = [MasterKey::random(), MasterKey::random()];
        let ring = ring(&store, &configured).await.unwrap();
        assert_eq!(ring.current(), configured[0].fingerprint());
        assert!(ring.knows(stored) && ring.knows(configured[1].fingerprint()));
    }
}
