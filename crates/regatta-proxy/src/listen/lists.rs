//! The three lists whose changes a client can listen to, as bits that coalesce.
//!
//! Pure. A change of a list says nothing but that it changed, so two of them that wait for a slow client are one, and
//! what waits for a client is three bits, never a queue.

use bytes::{Bytes, BytesMut};
use regatta_mcp::{events, meta, write};
use serde_json::{Map, Value};

/// The member of a filter and the notification of each list.
const LISTS: [(&str, &str); 3] = [
    ("toolsListChanged", "notifications/tools/list_changed"),
    ("promptsListChanged", "notifications/prompts/list_changed"),
    ("resourcesListChanged", "notifications/resources/list_changed"),
];

/// A set of lists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lists(u8);

impl Lists {
    /// No list.
    pub const NONE: Lists = Lists(0);
    /// The list of tools.
    pub const TOOLS: Lists = Lists(1);
    /// Every list.
    pub const ALL: Lists = Lists(0b111);

    /// The lists that a `notifications` object, asked for or acknowledged, turns on.
    pub fn of_filter(filter: &Map<String, Value>) -> Lists {
        let on = |key: &str| filter.get(key) == Some(&Value::Bool(true));
        LISTS
            .iter()
            .enumerate()
            .filter(|(_, (key, _))| on(key))
            .fold(Lists::NONE, |all, (at, _)| all.or(Lists(1 << at)))
    }

    /// The list whose change a notification of this method tells; none for any other notification.
    pub fn of_method(method: &str) -> Lists {
        LISTS.iter().position(|(_, known)| *known == method).map_or(Lists::NONE, |at| Lists(1 << at))
    }

    /// Whether a filter's member is about a list.
    pub fn is_key(key: &str) -> bool {
        LISTS.iter().any(|(known, _)| *known == key)
    }

    /// In either.
    pub fn or(self, other: Lists) -> Lists {
        Lists(self.0 | other.0)
    }

    /// In both.
    pub fn and(self, other: Lists) -> Lists {
        Lists(self.0 & other.0)
    }

    /// Without those of `other`.
    pub fn without(self, other: Lists) -> Lists {
        Lists(self.0 & !other.0)
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self == Lists::NONE
    }

    /// As members of a filter.
    pub fn filter(self) -> Map<String, Value> {
        self.known().map(|(key, _)| (String::from(*key), Value::Bool(true))).collect()
    }

    /// One notification for each, under the subscription's `id`.
    pub fn messages(self, id: &[u8]) -> impl Iterator<Item = Bytes> {
        let params = format!("{{{}}}", subscription(id));
        self.known().map(move |(_, method)| write::notification(method, Some(&params)))
    }

    /// The same as events.
    pub fn events(self, id: &[u8]) -> Bytes {
        let mut out = BytesMut::new();
        for message in self.messages(id) {
            events::write(&mut out, None, Some(b"message"), &message);
        }
        out.freeze()
    }

    fn known(self) -> impl Iterator<Item = &'static (&'static str, &'static str)> {
        LISTS.iter().enumerate().filter(move |(at, _)| self.0 & (1 << at) != 0).map(|(_, list)| list)
    }
}

/// The lists that a `subscriptions/listen` wants, if it wants nothing else: then any other client's leg serves it
/// too. `params` is the request's, as JSON.
pub(crate) fn lists_alone(params: &[u8]) -> Option<Lists> {
    let params: Map<String, Value> = serde_json::from_slice(params).ok()?;
    if params.keys().any(|key| key != "_meta" && key != "notifications") {
        return None;
    }
    // A level asks for log messages, which are for who asked.
    if params.get("_meta").and_then(Value::as_object)?.contains_key(meta::LOG_LEVEL) {
        return None;
    }
    let filter = params.get("notifications").and_then(Value::as_object)?;
    let is_plain = |(key, value): (&String, &Value)| Lists::is_key(key) && value.is_boolean();
    let wanted = Lists::of_filter(filter);
    (filter.iter().all(is_plain) && !wanted.is_empty()).then_some(wanted)
}

/// The member of `_meta` that says to which subscription a message belongs.
pub(crate) fn subscription(id: &[u8]) -> String {
    format!(r#""_meta":{{"{}":{}}}"#, meta::SUBSCRIPTION_ID, String::from_utf8_lossy(id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn alone(notifications: &Value) -> Option<Lists> {
        lists_alone(json!({"_meta": {}, "notifications": notifications}).to_string().as_bytes())
    }

    #[test]
    fn only_a_request_for_lists_and_nothing_else_can_be_shared() {
        assert_eq!(alone(&json!({"toolsListChanged": true, "promptsListChanged": false})), Some(Lists(1)));
        assert_eq!(alone(&json!({"toolsListChanged": true, "resourcesListChanged": true})), Some(Lists(5)));
        for other in [
            json!({}),
            json!({"toolsListChanged": false}),
            json!({"toolsListChanged": true, "resourceSubscriptions": []}),
            json!({"toolsListChanged": true, "taskIds": ["a"]}),
            json!({"toolsListChanged": "yes"}),
        ] {
            assert_eq!(alone(&other), None, "{other}");
        }
        let filter = json!({"toolsListChanged": true});
        let logs = json!({"_meta": {meta::LOG_LEVEL: "debug"}, "notifications": filter});
        assert_eq!(lists_alone(logs.to_string().as_bytes()), None);
        let more = json!({"_meta": {}, "notifications": filter, "new": 1});
        assert_eq!(lists_alone(more.to_string().as_bytes()), None);
        assert_eq!(lists_alone(b"broken"), None);
    }

    #[test]
    fn a_change_is_told_once_under_the_subscriptions_id() {
        let both = Lists::of_method("notifications/tools/list_changed")
            .or(Lists::of_method("notifications/resources/list_changed"))
            .or(Lists::of_method("notifications/resources/updated"));
        let told: Vec<Value> =
            both.messages(b"\"a\"").map(|message| serde_json::from_slice(&message).expect("JSON")).collect();
        assert_eq!(told.len(), 2);
        assert_eq!(told[1]["method"], "notifications/resources/list_changed");
        assert_eq!(told[1]["params"]["_meta"][meta::SUBSCRIPTION_ID], "a");
        assert_eq!(both.and(Lists(1)), Lists::of_filter(&Lists(1).filter()));
    }
}
