//! The tasks of a merged subscription: who made each, and what its client calls it.
//!
//! Pure. A maker is asked for its own tasks under its own names, and what it says of them goes down under the client's
//! (tasks extension, *Task Status Notifications*; SESSIONS 7).

use std::collections::HashMap;

use bytes::Bytes;
use regatta_mcp::{Skim, Span, splice, write};
use regatta_policy::ReplicaId;
use serde_json::{Value, json};

/// The member of a filter that names tasks.
const MEMBER: &str = "taskIds";

/// Which tasks a client listens to.
#[derive(Debug, Default)]
pub(crate) struct Tasks {
    /// Client's name by maker and maker's name.
    named: HashMap<(ReplicaId, String), String>,
    /// The client asked for tasks, known or not.
    asked: bool,
    /// It asked for something else too.
    more: bool,
}

impl Tasks {
    /// The tasks in a request's `params`; a name that `open` does not know is nobody's, and is left out.
    pub fn of(params: &[u8], open: impl Fn(&str) -> Option<(ReplicaId, String)>) -> Tasks {
        let params: Value = serde_json::from_slice(params).unwrap_or_default();
        let Some(filter) = params["notifications"].as_object() else { return Tasks::default() };
        let more = filter.keys().any(|key| key != MEMBER);
        let Some(names) = filter.get(MEMBER).and_then(Value::as_array) else {
            return Tasks { more, ..Tasks::default() };
        };
        let names = names.iter().filter_map(Value::as_str);
        let named = names.filter_map(|name| Some((open(name)?, name.to_owned()))).collect();
        Tasks { named, asked: true, more }
    }

    /// Whether a replica has anything to say: it made a task, or not only tasks are listened to.
    pub fn concern(&self, replica: ReplicaId) -> bool {
        self.more || self.named.is_empty() || self.made_by(replica).next().is_some()
    }

    /// The request as a replica gets it, with its own tasks alone.
    pub fn request(&self, text: &Bytes, params: Option<Span>, replica: ReplicaId) -> Bytes {
        let Some(params) = params.filter(|_| self.asked) else { return text.clone() };
        let Ok(mut value) = serde_json::from_slice::<Value>(params.of(text)) else { return text.clone() };
        let mut own: Vec<&str> = self.made_by(replica).map(|(theirs, _)| theirs).collect();
        own.sort_unstable();
        if let Some(filter) = value["notifications"].as_object_mut() {
            match own.is_empty() {
                true => _ = filter.remove(MEMBER),
                false => _ = filter.insert(MEMBER.to_owned(), json!(own)),
            }
        }
        splice(text, &[(params, Bytes::from(value.to_string()))])
    }

    /// What a replica agreed to, under the client's names.
    pub fn acknowledged(&self, filter: &Bytes, replica: ReplicaId) -> Bytes {
        let Ok(mut value) = serde_json::from_slice::<Value>(filter) else { return filter.clone() };
        let Some(Value::Array(theirs)) = value.get(MEMBER) else { return filter.clone() };
        let names = theirs.iter().filter_map(Value::as_str).filter_map(|theirs| self.name(replica, theirs));
        value[MEMBER] = names.collect();
        Bytes::from(value.to_string())
    }

    /// A notification under the client's names; `None` if it is about a task that the client does not listen to.
    pub fn notification(&self, data: Bytes, seen: &Skim, replica: ReplicaId) -> Option<Bytes> {
        if seen.task_ids.is_empty() {
            return Some(data);
        }
        let renamed = seen.task_ids.iter().map(|task| {
            let name = self.name(replica, &task.get(&data))?;
            Some((task.outer(), Bytes::from(write::json_string(name))))
        });
        let renamed: Vec<_> = renamed.collect::<Option<_>>()?;
        Some(splice(&data, &renamed))
    }

    fn made_by(&self, replica: ReplicaId) -> impl Iterator<Item = (&str, &str)> {
        let own = self.named.iter().filter(move |((maker, _), _)| *maker == replica);
        own.map(|((_, theirs), name)| (theirs.as_str(), name.as_str()))
    }

    fn name(&self, replica: ReplicaId, theirs: &str) -> Option<&str> {
        self.named.get(&(replica, theirs.to_owned())).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use regatta_mcp::skim;

    use super::*;

    const A: ReplicaId = ReplicaId([1; 8]);
    const B: ReplicaId = ReplicaId([2; 8]);
    const C: ReplicaId = ReplicaId([3; 8]);
    const REQUEST: &str = r#"{"jsonrpc":"2.0","id":1e0,"method":"subscriptions/listen","params":{"notifications":{"taskIds":["A1","A2","B1","zz"]}}}"#;

    /// The first letter names the maker.
    fn open(name: &str) -> Option<(ReplicaId, String)> {
        let maker = match name.as_bytes().first() {
            Some(b'A') => A,
            Some(b'B') => B,
            _ => return None,
        };
        Some((maker, format!("task {}", &name[1..])))
    }

    fn span(text: &str) -> Span {
        let start = text.find(r#"{"notifications"#).expect("params");
        Span { start: start as u32, end: text.len() as u32 - 1 }
    }

    fn tasks(text: &str) -> Tasks {
        Tasks::of(span(text).of(text.as_bytes()), open)
    }

    #[test]
    fn each_maker_is_asked_for_its_own_and_nobody_else_is_asked() {
        let (text, tasks) = (Bytes::from_static(REQUEST.as_bytes()), tasks(REQUEST));
        let asked = |replica| {
            let text = tasks.request(&text, Some(span(REQUEST)), replica);
            assert!(text.starts_with(br#"{"jsonrpc":"2.0","id":1e0,"#), "the id stays as it was spelled");
            let all: Value = serde_json::from_slice(&text).expect("JSON");
            all["params"]["notifications"].clone()
        };
        assert_eq!(asked(A), json!({"taskIds": ["task 1", "task 2"]}));
        assert_eq!(asked(B), json!({"taskIds": ["task 1"]}));
        assert_eq!(asked(C), json!({}));
        assert_eq!([A, B, C].map(|replica| tasks.concern(replica)), [true, true, false]);
        let more = REQUEST.replace(r#""zz"]"#, r#""zz"],"toolsListChanged":true"#);
        assert!(self::tasks(&more).concern(C));
        let unknown = REQUEST.replace(r#""A1","A2","B1","#, "");
        assert!(self::tasks(&unknown).concern(C), "somebody has to answer");
    }

    #[test]
    fn what_makers_say_goes_down_under_the_clients_names() {
        let tasks = tasks(REQUEST);
        let agreed = Bytes::from_static(br#"{"taskIds":["task 2","task 9"]}"#);
        assert_eq!(&tasks.acknowledged(&agreed, A)[..], br#"{"taskIds":["A2"]}"#);
        assert_eq!(&tasks.acknowledged(&agreed, C)[..], br#"{"taskIds":[]}"#);
        let said = |task: &str, replica| {
            let data = format!(
                r#"{{"jsonrpc":"2.0","method":"notifications/tasks","params":{{"taskId":"{task}"}}}}"#
            );
            let data = Bytes::from(data);
            let seen = skim(&data).expect("JSON");
            tasks.notification(data, &seen, replica)
        };
        for (maker, name) in [(A, "A1"), (B, "B1")] {
            let text = said("task 1", maker).expect("listened to");
            assert!(text.ends_with(format!(r#"{{"taskId":"{name}"}}}}"#).as_bytes()), "{text:?}");
        }
        assert_eq!(said("task 2", B), None);
    }
}
