//! `[store]`: where several gateways share what deviates from their sessions' tokens.
//!
//! Without a URL the state is this process's own, in `gateway.state_dir`. What is secret here is never shown.

use std::fmt;
use std::time::Duration;

use regatta_seal::MasterKey;

use super::raw::{Found, Section};

/// Where the shared state is.
#[derive(Clone, PartialEq, Eq)]
pub struct Store {
    /// Redis or Valkey; none: the embedded store.
    pub url: Option<String>,
    /// What all keys and channels there begin with.
    pub prefix: String,
    /// Wraps the sealing keys that are kept there; none: they are kept in clear.
    pub key: Option<MasterKey>,
    /// How long one operation may take.
    pub operation_timeout: Duration,
}

// The URL may hold a password.
impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = self.url.as_deref().map(without_password);
        f.debug_struct("Store").field("url", &url).field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl Store {
    /// Whether all but who we are there is the same: a password may be rotated while we run.
    pub(crate) fn differs_in_credentials_only(&self, other: &Store) -> bool {
        let place = |store: &Store| store.url.as_deref().map(without_credentials);
        let Store { url: _, prefix, key, operation_timeout } = self;
        place(self) == place(other)
            && (prefix, key, operation_timeout) == (&other.prefix, &other.key, &other.operation_timeout)
    }

    /// Where it is, for people.
    pub fn shown(&self) -> Option<String> {
        self.url.as_deref().map(without_password)
    }
}

const PREFIX_MAX: usize = 64;

/// Reads the store's settings.
pub fn store(section: &Section<'_>) -> Store {
    Store {
        url: section.find("url").and_then(|found| url(section, &found)),
        prefix: section.get("prefix", "mcp:".to_owned(), "1 to 64 letters, digits, or `: - _ .`", |found| {
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.".contains(&byte);
            let text = found.text()?;
            (!text.is_empty() && text.len() <= PREFIX_MAX && text.bytes().all(fits)).then(|| text.to_owned())
        }),
        key: section.find("key").and_then(|found| {
            let key = found.text().and_then(|text| MasterKey::from_text(text).ok());
            if key.is_none() {
                let hint = "make one with `openssl rand -hex 32`";
                let what = "store.key is no key".to_owned();
                section.miss(what, "64 hexadecimal digits, or base64url of 32 bytes", Some(hint));
            }
            key
        }),
        operation_timeout: section.time(
            "operation_timeout",
            Duration::from_millis(250),
            Duration::from_millis(10)..=Duration::from_secs(10),
        ),
    }
}

fn url(section: &Section<'_>, found: &Found<'_>) -> Option<String> {
    let text = found.text().unwrap_or_default();
    if let Err(why) = text.parse::<regatta_store::redis::Url>() {
        let hint = "leave [store] out to keep the state in gateway.state_dir, for one gateway alone";
        section.refuse(found, &why.to_string(), Some(hint));
    }
    // A refused one is a URL all the same: nobody complains that there is none.
    Some(text.to_owned())
}

/// A URL without what stands before the `@`.
fn without_password(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, rest))) => format!("{scheme}://…@{rest}"),
        (_, _) => url.to_owned(),
    }
}

/// A URL as anybody may use it.
fn without_credentials(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, rest))) => format!("{scheme}://{rest}"),
        (_, _) => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(url: &str) -> Store {
        let (prefix, operation_timeout) = ("mcp:".to_owned(), Duration::from_millis(250));
        Store { url: Some(url.to_owned()), prefix, key: None, operation_timeout }
    }

    #[test]
    fn another_password_is_the_same_place_and_another_host_is_not() {
        let is_same = |one, two| at(one).differs_in_credentials_only(&at(two));
        assert!(is_same("redis://a:b@h:1/2", "redis://a:c@h:1/2"));
        assert!(is_same("redis://h:1", "redis://a:c@h:1"));
        assert!(!is_same("redis://a:b@h:1", "redis://a:b@h:2"));
        assert!(!is_same("redis://a:b@h:1", "rediss://a:b@h:1"));
        let moved = Store { prefix: "other:".to_owned(), ..at("redis://h:1") };
        assert!(!at("redis://h:1").differs_in_credentials_only(&moved));
    }
}
