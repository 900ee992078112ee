//! What the replicas of a merged subscription agreed to send: the union of their acknowledgements.
//!
//! Pure JSON sums. After a leg was lost and opened anew, everything agreed to is said once more, because what
//! happened in between is not known: spurious is allowed, missing is not (SESSIONS 7).

use std::collections::BTreeSet;

use bytes::Bytes;
use regatta_mcp::write;
use serde_json::{Map, Value, json};

use super::lists::{Lists, subscription};

/// A union of acknowledged filters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Agreed {
    lists: Lists,
    resources: BTreeSet<String>,
    tasks: BTreeSet<String>,
    others: Map<String, Value>,
}

impl Agreed {
    /// Lists alone.
    pub fn on(lists: Lists) -> Agreed {
        Agreed { lists, ..Agreed::default() }
    }

    /// Adds one acknowledged `notifications` object.
    pub fn add(&mut self, filter: &[u8]) {
        let Ok(Value::Object(filter)) = serde_json::from_slice(filter) else { return };
        self.lists = self.lists.or(Lists::of_filter(&filter));
        for (key, value) in filter {
            match &value {
                _ if Lists::is_key(&key) => {}
                Value::Array(uris) if key == "resourceSubscriptions" => {
                    self.resources.extend(uris.iter().filter_map(Value::as_str).map(str::to_owned));
                }
                Value::Array(ids) if key == "taskIds" => {
                    self.tasks.extend(ids.iter().filter_map(Value::as_str).map(str::to_owned));
                }
                _ => _ = self.others.entry(key).or_insert(value),
            }
        }
    }

    /// The lists among them.
    pub fn lists(&self) -> Lists {
        self.lists
    }

    /// The same without these lists.
    pub fn without(self, lists: Lists) -> Agreed {
        Agreed { lists: self.lists.without(lists), ..self }
    }

    /// Our own acknowledgement, under the client's id.
    pub fn acknowledgement(&self, id: &Bytes) -> Bytes {
        let mut filter = self.others.clone();
        filter.extend(self.lists.filter());
        if !self.resources.is_empty() {
            filter.insert("resourceSubscriptions".into(), json!(self.resources));
        }
        if !self.tasks.is_empty() {
            filter.insert("taskIds".into(), json!(self.tasks));
        }
        let params = format!(r#"{{{},"notifications":{}}}"#, subscription(id), Value::Object(filter));
        write::notification("notifications/subscriptions/acknowledged", Some(&params))
    }

    /// One notification for everything agreed to.
    pub fn everything(&self, id: &Bytes) -> Vec<Bytes> {
        let lists = self.lists.messages(id);
        let resources = self.resources.iter().map(|uri| {
            let params = format!(r#"{{{},"uri":{}}}"#, subscription(id), write::json_string(uri));
            write::notification("notifications/resources/updated", Some(&params))
        });
        lists.chain(resources).collect()
    }
}

/// The result that ends a subscription gracefully (2026-07-28 basic/patterns/subscriptions, *Graceful Closure*).
pub(crate) fn graceful_end(id: &Bytes) -> Bytes {
    write::result(id, &format!(r#"{{"resultType":"complete",{}}}"#, subscription(id)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use regatta_mcp::meta;

    #[test]
    fn adds_up_and_says_everything_once() {
        let mut agreed = Agreed::default();
        agreed.add(br#"{"toolsListChanged":true,"promptsListChanged":false}"#);
        agreed.add(br#"{"toolsListChanged":true,"resourceSubscriptions":["a://1","a://1"]}"#);
        agreed.add(b"broken");
        let id = Bytes::from_static(b"7");
        let acknowledged: Value = serde_json::from_slice(&agreed.acknowledgement(&id)).expect("JSON");
        assert_eq!(
            acknowledged["params"]["notifications"],
            json!({"toolsListChanged": true, "resourceSubscriptions": ["a://1"]})
        );
        assert_eq!(acknowledged["params"]["_meta"][meta::SUBSCRIPTION_ID], json!(7));
        assert_eq!(agreed.everything(&id).len(), 2);
    }
}
