//! What a server declared in its `initialize` answer, as bits: enough to tell whether another replica offers at least
//! as much (SESSIONS 4).
//!
//! Bits are part of the token's layout: never give a bit a new meaning, only add.

/// A set of server capabilities (2025-11-25 schema, `ServerCapabilities`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Capabilities(pub u32);

/// The place of each bit in the `capabilities` object. The bit of a path is its index.
const PATHS: [&str; 15] = [
    "/logging",
    "/prompts",
    "/prompts/listChanged",
    "/resources",
    "/resources/subscribe",
    "/resources/listChanged",
    "/tools",
    "/tools/listChanged",
    "/completions",
    "/tasks",
    "/tasks/list",
    "/tasks/cancel",
    "/tasks/requests/tools/call",
    "/experimental",
    "/extensions",
];

impl Capabilities {
    /// `logging`: the server may send log messages.
    pub const LOGGING: Capabilities = Capabilities(1 << 0);
    /// `prompts.listChanged`.
    pub const PROMPTS_CHANGED: Capabilities = Capabilities(1 << 2);
    /// `resources.subscribe`.
    pub const SUBSCRIBE: Capabilities = Capabilities(1 << 4);
    /// `resources.listChanged`.
    pub const RESOURCES_CHANGED: Capabilities = Capabilities(1 << 5);
    /// `tools`.
    pub const TOOLS: Capabilities = Capabilities(1 << 6);
    /// `tools.listChanged`.
    pub const TOOLS_CHANGED: Capabilities = Capabilities(1 << 7);

    /// The bits of a `capabilities` object as JSON text. A member counts if it is an object or `true`; a text that is
    /// not JSON declares nothing.
    pub fn of_server(json: &[u8]) -> Capabilities {
        let Ok(declared) = serde_json::from_slice::<serde_json::Value>(json) else { return Capabilities(0) };
        let has = |path: &&str| match declared.pointer(path) {
            Some(value) => value.is_object() || *value == serde_json::Value::Bool(true),
            None => false,
        };
        let bits = PATHS.iter().enumerate().filter(|(_, path)| has(path));
        Capabilities(bits.fold(0, |bits, (at, _)| bits | 1 << at))
    }

    /// Whether everything in `other` is here too.
    pub fn covers(self, other: Capabilities) -> bool {
        self.0 & other.0 == other.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_a_server_declares() {
        let json =
            br#"{"logging":{},"prompts":{"listChanged":false},"resources":{"subscribe":true},"tools":null}"#;
        let declared = Capabilities::of_server(json);
        assert_eq!(declared, Capabilities(1 | 1 << 1 | 1 << 3 | 1 << 4));
        assert!(declared.covers(Capabilities::LOGGING) && declared.covers(Capabilities::SUBSCRIBE));
        assert_eq!(Capabilities::of_server(b"[]"), Capabilities(0));
        assert_eq!(Capabilities::of_server(b"not json"), Capabilities(0));
    }

    #[test]
    fn the_named_bits_are_where_the_paths_say() {
        let alone = |json: &str| Capabilities::of_server(json.as_bytes());
        assert_eq!(alone(r#"{"logging":{}}"#), Capabilities::LOGGING);
        assert!(alone(r#"{"resources":{"subscribe":true}}"#).covers(Capabilities::SUBSCRIBE));
        assert!(alone(r#"{"tools":{"listChanged":true}}"#).covers(Capabilities::TOOLS_CHANGED));
        let tasks = r#"{"tasks":{"list":{},"cancel":{},"requests":{"tools":{"call":{}}}}}"#;
        assert_eq!(alone(tasks), Capabilities(0b1111 << 9));
    }

    #[test]
    fn more_covers_less_and_not_the_other_way() {
        let (more, less) = (Capabilities(0b111), Capabilities(0b101));
        assert!(more.covers(less) && more.covers(more) && !less.covers(more));
    }
}
