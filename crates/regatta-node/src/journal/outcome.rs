//! How a call ended, as the journal keeps it: read from the answer that goes out, told again to who repeats the call.

use bytes::Bytes;
use http::StatusCode;
use regatta_mcp::codes;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::answers::{Answer, Reached, fault, json};

/// What an answer says of the run that it ends.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The handler gave this result or error.
    Told(Bytes),
    /// The call was refused before the handler was reached: nothing was done.
    NotBegun,
    /// The handler ended without an answer: what it did is unknown.
    Broken,
}

pub(super) fn end(head: &http::response::Parts, body: &[u8], is_checked: bool) -> End {
    match head.extensions.get() {
        Some(Reached::Nothing) => return End::NotBegun,
        Some(Reached::NoAnswer) => return End::Broken,
        None => {}
    }
    match outcome(head.status, body) {
        Some(Outcome { code: Some(code), .. })
            if head.status == StatusCode::BAD_REQUEST && is_of_the_transport(code, is_checked) =>
        {
            End::NotBegun
        }
        Some(outcome) => End::Told(outcome.kept),
        None if head.status.is_client_error() => End::NotBegun,
        None => End::Broken,
    }
}

/// Whether an error that comes with 400 is one of the transport, which looks at a request before its handler does. A
/// handler's own errors come with 200, or with 404, or, where the client lacks a capability, with 400.
fn is_of_the_transport(code: i64, is_checked: bool) -> bool {
    match i32::try_from(code) {
        Ok(codes::INVALID_REQUEST | codes::HEADER_MISMATCH | codes::UNSUPPORTED_PROTOCOL_VERSION) => true,
        Ok(codes::INVALID_PARAMS) => is_checked,
        Ok(_) | Err(_) => false,
    }
}

/// A response as it is kept.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) kept: Bytes,
    /// The code of an error.
    code: Option<i64>,
}

/// The members of a response beside its id, without the first brace: of a JSON body, or of the last event of a stream.
/// Before them the status, if it is not 200.
pub(super) fn outcome(status: StatusCode, body: &[u8]) -> Option<Outcome> {
    #[derive(Deserialize)]
    struct Response<'a> {
        #[serde(borrow)]
        result: Option<&'a RawValue>,
        #[serde(borrow)]
        error: Option<&'a RawValue>,
    }
    #[derive(Deserialize)]
    struct Code {
        code: i64,
    }
    let text = std::str::from_utf8(body).ok()?;
    let text = text.lines().rev().find_map(|line| line.strip_prefix("data:")).unwrap_or(text);
    let response: Response<'_> = serde_json::from_str(text).ok()?;
    let told = match (response.result, response.error) {
        (Some(result), _) => format!("\"result\":{}}}", result.get()),
        (None, Some(error)) => format!("\"error\":{}}}", error.get()),
        (None, None) => return None,
    };
    let code = response.error.and_then(|error| serde_json::from_str::<Code>(error.get()).ok());
    let before = if status == StatusCode::OK { String::new() } else { status.as_u16().to_string() };
    Some(Outcome { kept: Bytes::from(before + &told), code: code.map(|error| error.code) })
}

/// A kept result, under the id of who asks now.
pub(super) fn repeat(id: &Value, kept: &[u8]) -> Answer {
    match retold(id, kept) {
        Some((status, text)) => json(status, text),
        None => {
            let why = "this call was run before, and its result was too large to be kept";
            fault(StatusCode::OK, id, codes::OUTCOME_UNKNOWN, why)
        }
    }
}

/// The same as the text of a message, with its status; none of a result that was too large.
pub(crate) fn retold(id: &Value, kept: &[u8]) -> Option<(StatusCode, Vec<u8>)> {
    if kept.is_empty() {
        return None;
    }
    let (status, kept) = kept.split_at(kept.iter().take_while(|byte| byte.is_ascii_digit()).count());
    let head = format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},");
    let status = StatusCode::from_bytes(status).unwrap_or(StatusCode::OK);
    Some((status, [head.as_bytes(), kept].concat()))
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    #[test]
    fn a_result_is_found_in_json_and_in_the_last_event() {
        let told = |body: &[u8]| outcome(StatusCode::OK, body).map(|outcome| outcome.kept);
        let json = told(br#"{"jsonrpc":"2.0","id":1,"result":{"a":1.0}}"#).unwrap();
        assert_eq!(&json[..], br#""result":{"a":1.0}}"#);
        let events =
            b"data: {\"method\":\"notifications/progress\"}\n\ndata: {\"id\":1,\"error\":{\"code\":1}}\n\n";
        assert_eq!(&told(events).unwrap()[..], br#""error":{"code":1}}"#);
        assert_eq!(told(b"no such session\n"), None);
        assert_eq!(told(b"{}"), None);
    }

    fn ended(status: StatusCode, reached: Option<Reached>, body: &[u8], is_checked: bool) -> End {
        let (mut head, ()) = http::Response::new(()).into_parts();
        head.status = status;
        if let Some(reached) = reached {
            head.extensions.insert(reached);
        }
        end(&head, body, is_checked)
    }

    #[test]
    fn a_call_is_forgotten_only_if_its_handler_was_not_reached() {
        let error = |code: i32| format!(r#"{{"id":1,"error":{{"code":{code}}}}}"#);
        let told = |status, code| ended(status, None, error(code).as_bytes(), true);
        for code in [codes::INVALID_REQUEST, codes::HEADER_MISMATCH, codes::INVALID_PARAMS] {
            assert_eq!(told(StatusCode::BAD_REQUEST, code), End::NotBegun, "{code}");
            assert!(matches!(told(StatusCode::OK, code), End::Told(_)), "{code}");
        }
        let lacking = told(StatusCode::BAD_REQUEST, codes::MISSING_CLIENT_CAPABILITY);
        assert_eq!(lacking, End::Told(Bytes::from(r#"400"error":{"code":-32021}}"#)));
        let unknown = told(StatusCode::NOT_FOUND, codes::METHOD_NOT_FOUND);
        assert_eq!(unknown, End::Told(Bytes::from(r#"404"error":{"code":-32601}}"#)));
        let older = ended(StatusCode::BAD_REQUEST, None, error(codes::INVALID_PARAMS).as_bytes(), false);
        assert!(matches!(older, End::Told(_)), "{older:?}");
        let away = error(codes::STORE_UNAVAILABLE);
        assert_eq!(ended(StatusCode::OK, Some(Reached::Nothing), away.as_bytes(), true), End::NotBegun);
        assert_eq!(ended(StatusCode::FORBIDDEN, None, b"no", true), End::NotBegun);
        for (status, reached) in [(StatusCode::OK, Some(Reached::NoAnswer)), (StatusCode::BAD_GATEWAY, None)]
        {
            assert_eq!(ended(status, reached, b"no answer", true), End::Broken);
        }
    }

    #[tokio::test]
    async fn a_kept_result_is_told_under_the_id_of_who_asks() {
        let answer = repeat(&serde_json::json!("x"), br#""result":{"a":1.0}}"#);
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(&body[..], br#"{"jsonrpc":"2.0","id":"x","result":{"a":1.0}}"#);
        let refused = repeat(&serde_json::json!(2), br#"404"error":{"code":-32601}}"#);
        assert_eq!(refused.status(), StatusCode::NOT_FOUND);
        let body = refused.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(&body[..], br#"{"jsonrpc":"2.0","id":2,"error":{"code":-32601}}"#);
    }
}
