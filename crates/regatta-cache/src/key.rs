//! The keys of a result: digests of all that it depends on, one for the fleet and one for this process.
//!
//! Every field is preceded by its length, so that no two lists of fields are ever the same bytes (RELIABILITY T22, T23).
//! A key is all that is compared, and callers choose their arguments: nobody must find two that meet. In the fleet, where
//! all must come to the same, that is a whole SHA-256. In a process it is SipHash-1-3 with 128 bits under a secret of its
//! own, at a fraction of the cost. Who does not know the secret, and never sees a key, can only try: of 2^40 results that he
//! has kept, some two meet with a chance of 2^-49, and no better way to make two meet is known (Dobraunig, Mendel and
//! Schlaeffer, "Differential Cryptanalysis of SipHash", 2014: 2^-167 a pair).

use std::hash::{BuildHasher, Hash, Hasher};

use regatta_seal::{digest16, digest32, random16};
use siphasher::sip128::{Hasher128, SipHasher13};

/// Bytes that say how long a field is.
const LENGTH: usize = 4;

/// Names one result in the whole fleet.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key(pub [u8; 32]);

/// Names one result in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalKey([u64; 2]);

/// What makes the keys of one process.
#[derive(Clone)]
pub(crate) struct Secret(SipHasher13);

/// What a result depends on.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a> {
    /// The fleet: a result of one path is worth nothing at another.
    pub fleet: &'a [u8],
    /// The server's name.
    pub server: &'a str,
    /// The method: `tools/call`.
    pub method: &'a str,
    /// The tool's name; empty for other methods.
    pub tool: &'a str,
    /// Changes with the tool's schema, as far as known.
    pub schema: u64,
    /// Who may share it.
    pub scope: ScopeValue<'a>,
    /// What else came with the request and may change the result, or a digest of it.
    pub surroundings: &'a [u8],
    /// Changes with the rule that it is kept under.
    pub policy: u64,
    /// The negotiated version.
    pub version: &'a str,
    /// In what the request was made: `session`, or nothing.
    pub place: &'a str,
    /// The canonical `params` (`regatta_mcp::canonical_params`).
    pub params: &'a [u8],
}

/// The value that all who share a result have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScopeValue<'a> {
    /// An authorization context.
    Principal(&'a [u8; 16]),
    /// Nothing: everybody shares it.
    Public,
    /// A legacy session.
    Session(&'a [u8; 16]),
    /// A verified claim of a token: name, value.
    Claim(&'a str, &'a [u8]),
}

impl Fields<'_> {
    /// What is digested. In one piece: each step into a digest costs more than the copy of a short field.
    fn bytes(&self) -> Vec<u8> {
        let (kind, name, value): (&[u8], &[u8], &[u8]) = match self.scope {
            ScopeValue::Principal(context) => (b"principal", b"", context),
            ScopeValue::Public => (b"public", b"", b""),
            ScopeValue::Session(uuid) => (b"session", b"", uuid),
            ScopeValue::Claim(name, value) => (b"claim", name.as_bytes(), value),
        };
        let (schema, policy) = (self.schema.to_be_bytes(), self.policy.to_be_bytes());
        let fields: [&[u8]; 13] = [
            self.fleet,
            self.server.as_bytes(),
            self.method.as_bytes(),
            self.tool.as_bytes(),
            &schema,
            kind,
            name,
            value,
            self.surroundings,
            &policy,
            self.version.as_bytes(),
            self.place.as_bytes(),
            self.params,
        ];
        let mut all = Vec::with_capacity(fields.iter().map(|field| field.len() + LENGTH).sum());
        for field in fields {
            // No request is so large that a field's length would not fit.
            all.extend_from_slice(&(field.len() as u32).to_be_bytes());
            all.extend_from_slice(field);
        }
        all
    }
}

impl Key {
    /// The key of what has these fields.
    pub fn of(fields: &Fields<'_>) -> Key {
        Key(digest32(&[b"regatta result 2", &fields.bytes()]))
    }
}

impl Secret {
    /// One that nobody knows.
    pub(crate) fn new() -> Secret {
        Secret(SipHasher13::new_with_key(&random16()))
    }

    /// The key of what has these fields.
    pub(crate) fn name(&self, fields: &Fields<'_>) -> LocalKey {
        let mut hasher = self.0;
        hasher.write(&fields.bytes());
        let digest = hasher.finish128();
        LocalKey([digest.h1, digest.h2])
    }
}

impl Hash for LocalKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Half of a digest under a secret is as good a hash as any.
        state.write_u64(self.0[0]);
    }
}

#[cfg(test)]
impl LocalKey {
    /// One for each number.
    pub(crate) fn of(number: u64) -> LocalKey {
        LocalKey([regatta_policy::ids::mix(number), 0])
    }
}

/// Takes a [`LocalKey`] for its own hash.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, half: u64) {
        self.0 = half;
    }
}

impl BuildHasher for AsItIs {
    type Hasher = AsItIs;

    fn build_hasher(&self) -> AsItIs {
        AsItIs(0)
    }
}

/// Names a call by its tool (or method) and canonical arguments, whoever makes it: what a purge of one call strikes.
pub fn call_digest(tool: &str, arguments: &[u8]) -> [u8; 16] {
    digest16(&[b"regatta call 1", tool.as_bytes(), arguments])
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0[..8].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use regatta_mcp::canonical_params;

    use super::*;

    const FIELDS: Fields<'static> = Fields {
        fleet: b"fleet",
        server: "shop",
        method: "tools/call",
        tool: "get",
        schema: 1,
        scope: ScopeValue::Principal(&[1; 16]),
        surroundings: &[0; 16],
        policy: 1,
        version: "2025-11-25",
        place: "session",
        params: b"{}",
    };

    #[test]
    fn every_field_counts_and_none_runs_into_the_next() {
        let others = [
            Fields { fleet: b"fleets", server: "hop", ..FIELDS },
            Fields { fleet: b"flee", server: "tshop", ..FIELDS },
            Fields { server: "shopt", method: "ools/call", ..FIELDS },
            Fields { tool: "set", ..FIELDS },
            Fields { schema: 2, ..FIELDS },
            Fields { scope: ScopeValue::Principal(&[2; 16]), ..FIELDS },
            Fields { scope: ScopeValue::Session(&[1; 16]), ..FIELDS },
            Fields { scope: ScopeValue::Claim("tenant", &[1; 16]), ..FIELDS },
            Fields { scope: ScopeValue::Claim("tenan", b"t\x01\x01\x01"), ..FIELDS },
            Fields { scope: ScopeValue::Public, ..FIELDS },
            Fields { policy: 2, ..FIELDS },
            Fields { surroundings: &[1; 16], ..FIELDS },
            Fields { place: "", ..FIELDS },
            Fields { version: "2025-11-25s", place: "ession", ..FIELDS },
            Fields { version: "2026-07-28", ..FIELDS },
            Fields { params: b"{\"a\":1}", ..FIELDS },
        ];
        let keys: HashSet<Key> = others.iter().chain([&FIELDS]).map(Key::of).collect();
        assert_eq!(keys.len(), others.len() + 1);
        let secret = Secret::new();
        let keys: HashSet<LocalKey> = others.iter().chain([&FIELDS]).map(|them| secret.name(them)).collect();
        assert_eq!(keys.len(), others.len() + 1);
    }

    #[test]
    fn each_process_has_keys_of_its_own() {
        let (one, other) = (Secret::new(), Secret::new());
        assert_eq!(one.name(&FIELDS), one.clone().name(&Fields { ..FIELDS }));
        assert_ne!(one.name(&FIELDS), other.name(&FIELDS));
    }

    #[test]
    fn arguments_are_compared_by_value_and_type() {
        let key = |arguments: &str| {
            let params = format!(r#"{{"name":"get","arguments":{arguments}}}"#);
            let params = canonical_params(params.as_bytes()).expect("JSON");
            Key::of(&Fields { params: &params, ..FIELDS })
        };
        assert_eq!(key(r#"{"a":1,"b":"x"}"#), key(r#"{ "b" : "\u0078", "\u0061" : 1 }"#));
        let different: HashSet<Key> = ["1", "\"1\"", "true", "1.0", "[1]", "null"]
            .iter()
            .map(|value| key(&format!("{{\"a\":{value}}}")))
            .collect();
        assert_eq!(different.len(), 6);
    }
}
