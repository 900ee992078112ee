//! The key of a result: a digest of all that it depends on.
//!
//! Every field is preceded by its length, so that no two lists of fields are ever the same bytes (RELIABILITY T22, T23).
//! The key is all that is compared, so it is a whole SHA-256: callers choose their arguments, and nobody must find two
//! that meet.

use regatta_seal::{digest16, digest32};

/// Names one result.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key(pub [u8; 32]);

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
    /// A digest of what else came with the request and may change the result.
    pub surroundings: &'a [u8; 16],
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

impl Key {
    /// The key of what has these fields.
    pub fn of(fields: &Fields<'_>) -> Key {
        let (kind, name, value): (&[u8], &[u8], &[u8]) = match fields.scope {
            ScopeValue::Principal(context) => (b"principal", b"", context),
            ScopeValue::Public => (b"public", b"", b""),
            ScopeValue::Session(uuid) => (b"session", b"", uuid),
            ScopeValue::Claim(name, value) => (b"claim", name.as_bytes(), value),
        };
        Key(digest32(&[
            b"regatta result 1",
            fields.fleet,
            fields.server.as_bytes(),
            fields.method.as_bytes(),
            fields.tool.as_bytes(),
            &fields.schema.to_be_bytes(),
            kind,
            name,
            value,
            fields.surroundings,
            &fields.policy.to_be_bytes(),
            fields.version.as_bytes(),
            fields.place.as_bytes(),
            fields.params,
        ]))
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
