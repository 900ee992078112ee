//! The answers to a batch (2025-03-26 basic/transports, *Sending Messages* 6): which of its requests still wait.

use std::sync::Arc;

use bytes::Bytes;
use regatta_mcp::{Decoded, Kind, Message, decode};

use super::answer::same_id;

/// The raw ids of a batch's requests that nothing has answered yet.
pub(crate) type Waiting = Option<Arc<[Bytes]>>;

/// Takes those that `text` answers out of `waiting`. True if `text` is an array of responses and notifications, which
/// passes as it is: nothing in it names anything of its server's.
pub(crate) fn hear(waiting: &mut Waiting, text: &Bytes) -> bool {
    let Some(ids) = waiting else { return false };
    let (messages, is_array) = match decode(text) {
        Ok(Decoded::One(message)) => (vec![message], false),
        Ok(Decoded::Batch(messages)) => (messages, true),
        Err(_) => return false,
    };
    let answers = |message: &Message, id: &Bytes| {
        matches!(message.kind, Kind::Response { .. })
            && message.id.is_some_and(|answered| same_id(id, answered.raw.of(text)))
    };
    let left: Arc<[Bytes]> =
        ids.iter().filter(|id| !messages.iter().any(|message| answers(message, id))).cloned().collect();
    *waiting = (!left.is_empty()).then_some(left);
    is_array && messages.iter().all(|message| message.kind != Kind::Request)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(ids: &[&'static str]) -> Waiting {
        Some(ids.iter().map(|id| Bytes::from_static(id.as_bytes())).collect())
    }

    fn left(waiting: &Waiting) -> Vec<&[u8]> {
        waiting.iter().flat_map(|ids| ids.iter()).map(|id| &id[..]).collect()
    }

    #[test]
    fn what_is_answered_alone_or_in_an_array_waits_no_longer() {
        let mut open = waiting(&["1", "\"a\"", "3"]);
        let one = Bytes::from_static(br#"{"jsonrpc":"2.0","id":1,"result":{}}"#);
        assert!(!hear(&mut open, &one));
        assert_eq!(left(&open), [&b"\"a\""[..], b"3"]);
        let more = Bytes::from_static(
            br#"[{"jsonrpc":"2.0","id":"a","error":{"code":-1,"message":"m"}},{"jsonrpc":"2.0","method":"notifications/progress"}]"#,
        );
        assert!(hear(&mut open, &more));
        assert_eq!(left(&open), [&b"3"[..]]);
        assert!(
            !hear(&mut open, &Bytes::from_static(br#"{"jsonrpc":"2.0","id":"3","result":{}}"#)),
            "a string"
        );
        assert_eq!(left(&open), [&b"3"[..]]);
        assert!(
            !hear(&mut open, &Bytes::from_static(br#"[{"jsonrpc":"2.0","id":3,"method":"ping"}]"#)),
            "asks"
        );
        assert!(!hear(&mut open, &Bytes::from_static(b"no JSON")));
        assert_eq!(left(&open), [&b"3"[..]]);
    }
}
