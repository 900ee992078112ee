//! What skim finds in servers' messages, and what it leaves to the client.

use super::{Skim, SkimKind, skim};
use crate::span::{Span, Text};

fn sound(message: &str) -> Skim {
    match skim(message.as_bytes()) {
        Ok(skim) => skim,
        Err(flaw) => panic!("{message}: {flaw}"),
    }
}

fn raw(message: &str, span: Option<Span>) -> Option<&str> {
    span.map(|span| span.text(message.as_bytes()))
}

fn value(message: &str, text: Option<Text>) -> Option<String> {
    text.map(|text| text.get(message.as_bytes()).into_owned())
}

fn task_ids(message: &str) -> Vec<String> {
    sound(message).task_ids.iter().map(|text| text.get(message.as_bytes()).into_owned()).collect()
}

#[test]
fn notes_the_members_of_a_result() {
    let message = r#" {"jsonrpc":"2.0","id":"a","result":{"content":[{"requestState":"no","text":"}\"]"}],"isError":true,
        "resultType":"input_required","requestState":"s\u0074","taskId":"t1","task":{"taskId":"t2","x":{"taskId":"no"}},
        "tasks":[{"taskId":"t3"},7,{"status":"x","taskId":"t4"}],"protocolVersion":"2025-11-25","capabilities":{"tools":{}},
        "_meta":{"io.modelcontextprotocol/subscriptionId":"a","x":{"y":1}}}} "#;
    let skim = sound(message);
    assert_eq!(skim.kind, SkimKind::Response { failed: false });
    assert_eq!(raw(message, skim.id), Some("\"a\""));
    assert_eq!(value(message, skim.request_state).as_deref(), Some("st"));
    assert_eq!(value(message, skim.result_type).as_deref(), Some("input_required"));
    assert_eq!(value(message, skim.protocol_version).as_deref(), Some("2025-11-25"));
    assert_eq!(raw(message, skim.capabilities), Some(r#"{"tools":{}}"#));
    assert_eq!(raw(message, skim.subscription_id), Some("\"a\""));
    assert_eq!(
        raw(message, skim.result_meta),
        Some(r#"{"io.modelcontextprotocol/subscriptionId":"a","x":{"y":1}}"#)
    );
    assert!(skim.is_error);
    assert_eq!(task_ids(message), ["t1", "t2", "t3", "t4"]);
    assert!(
        raw(message, skim.result).is_some_and(|result| result.starts_with('{') && result.ends_with("}}"))
    );
}

#[test]
fn notes_an_error() {
    let message = r#"{"jsonrpc":"2.0","id":3,"error":{"code":-32002,"message":"x","data":{"code":1}}}"#;
    let skim = sound(message);
    assert_eq!(skim.kind, SkimKind::Response { failed: true });
    assert_eq!(skim.error_code, Some(-32002));
    assert_eq!(raw(message, skim.error_code_span), Some("-32002"));
    assert_eq!(sound(r#"{"error":{"code":1.5}}"#).error_code, None);
    assert_eq!(sound(r#"{"id":null,"error":"x"}"#).id, None);
}

#[test]
fn notes_requests_and_notifications() {
    let message =
        r#"{"jsonrpc":"2.0","id":0,"method":"elicitation/create","params":{"_meta":{"progressToken":1}}}"#;
    let skim = sound(message);
    assert_eq!(skim.kind, SkimKind::Request);
    assert_eq!(raw(message, skim.id), Some("0"));
    assert_eq!(value(message, skim.method).as_deref(), Some("elicitation/create"));
    assert_eq!(raw(message, skim.params_meta), Some(r#"{"progressToken":1}"#));

    let message =
        r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"r","reason":"x"}}"#;
    let skim = sound(message);
    assert_eq!(skim.kind, SkimKind::Notification);
    assert_eq!(raw(message, skim.cancelled_request_id), Some("\"r\""));

    let message = r#"{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{
        "_meta":{"io.modelcontextprotocol/subscriptionId":1},"notifications":{"toolsListChanged":true},"uri":"u"}}"#;
    let skim = sound(message);
    assert_eq!(raw(message, skim.subscription_id), Some("1"));
    assert_eq!(raw(message, skim.notifications), Some(r#"{"toolsListChanged":true}"#));
    assert_eq!(value(message, skim.uri).as_deref(), Some("u"));
}

#[test]
fn task_ids_count_only_in_task_notifications() {
    assert_eq!(task_ids(r#"{"method":"notifications/tasks/status","params":{"taskId":"t"}}"#), ["t"]);
    assert_eq!(task_ids(r#"{"method":"notifications/tasks","params":{"taskId":"t"}}"#), ["t"]);
    assert!(task_ids(r#"{"method":"notifications/progress","params":{"taskId":"t"}}"#).is_empty());
    assert!(task_ids(r#"{"id":1,"result":{"tasks":{"taskId":"t"},"task":["t"],"taskId":1}}"#).is_empty());
}

#[test]
fn escaped_keys_are_the_same_keys() {
    let message = r#"{"\u0069d":1,"r\u0065sult":{"request\u0053tate":"s"}}"#;
    assert_eq!(raw(message, sound(message).id), Some("1"));
    assert_eq!(value(message, sound(message).request_state).as_deref(), Some("s"));
}

#[test]
fn results_of_any_type_are_results() {
    for message in [r#"{"id":1,"result":null}"#, r#"{"id":1,"result":[]}"#, r#"{"id":1,"result":"x"}"#] {
        assert_eq!(sound(message).kind, SkimKind::Response { failed: false });
    }
}

#[test]
fn refuses_what_is_no_message() {
    for message in [
        "",
        "1",
        "[]",
        "{}",
        "{",
        "{\"id\":1}",
        "{\"method\":\"a\",\"result\":1}",
        "{\"id\":1,\"result\":{}",
        "{\"id\":1,\"result\":[}}",
        "{\"id\":1,\"result\":{}} x",
        "{\"id\":1 \"result\":{}}",
        "{\"id\",\"result\":{}}",
        "{\"id\":1,\"result\":}",
        "{\"id\":1,\"result\":\"}",
        "<html>",
        "{\"id\":1,,\"result\":1}",
    ] {
        assert!(skim(message.as_bytes()).is_err(), "{message}");
    }
    assert!(skim(b"{\"id\":1,\"result\":{\"requestState\":\"\xff\"}}").is_err());
    assert!(skim(b"{\"id\":1,\"result\":{\"text\":\"\xff\"}}").is_ok());
}

#[test]
fn deep_nesting_ends_in_an_error_not_in_the_stack() {
    let deep = |depth: usize| format!(r#"{{"id":1,"result":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
    assert!(skim(deep(1024).as_bytes()).is_ok());
    assert!(skim(deep(1025).as_bytes()).is_err());
    assert!(skim(deep(1_000_000).as_bytes()).is_err());
}

#[test]
fn params_of_progress_are_passed_over_unless_another_method_follows() {
    let progress =
        br#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"requestId":"7","uri":"a"}}"#;
    let skim = super::skim(progress).unwrap();
    assert_eq!((skim.kind, skim.uri, skim.cancelled_request_id), (SkimKind::Notification, None, None));
    assert!(skim.params.is_some());
    assert!(
        super::skim(br#"{"method":"notifications/message","params":{"a":[}}"#).is_err(),
        "still balanced"
    );
    let twice = r#"{"method":"notifications/progress","params":{"requestId":"7"},"method":"notifications/cancelled"}"#;
    let skim = super::skim(twice.as_bytes()).unwrap();
    assert_eq!(raw(twice, skim.cancelled_request_id), Some("\"7\""));
}
