//! Rows I34–I55 of the bad-input table, and what decode notes of good messages.

use std::time::{Duration, Instant};

use super::{BATCH_MAX, decode};
use crate::message::{Decoded, Kind, Malformed, Message, Shape};
use crate::method::Method;
use crate::span::Text;

const MEBI: usize = 1 << 20;
/// The promise is 10 ms for a hostile body of 4 MiB; unoptimised builds and busy machines get more.
const PATIENCE: Duration =
    if cfg!(debug_assertions) { Duration::from_secs(5) } else { Duration::from_millis(100) };

fn one(body: &str) -> Message {
    match decode(body.as_bytes()) {
        Ok(Decoded::One(message)) => message,
        other => panic!("{body}: {other:?}"),
    }
}

fn malformed(body: impl AsRef<[u8]>) -> Malformed {
    let body = body.as_ref();
    decode(body).expect_err(&String::from_utf8_lossy(&body[..body.len().min(200)]))
}

#[track_caller]
fn refused(code: i32, body: impl AsRef<[u8]>) {
    assert_eq!(malformed(body).fault.code(), code);
}

#[track_caller]
fn refused_in_time(code: i32, body: impl AsRef<[u8]>) {
    let start = Instant::now();
    refused(code, body);
    assert!(start.elapsed() < PATIENCE, "took {:?}", start.elapsed());
}

/// A request whose `params` is this JSON.
fn request(params: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}"#)
}

fn value(body: &str, text: Option<Text>) -> Option<String> {
    text.map(|text| text.get(body.as_bytes()).into_owned())
}

#[test]
fn notes_the_members_of_a_call() {
    let body = r#" {"jsonrpc":"2.0","id":"a\"b","method":"tools/call","params":{"name":"ge\u0074","arguments":{"x":[1,"}"]},
        "requestState":"s","inputResponses":{},"_meta":{"progressToken":7,"traceparent":"tp","tracestate":"ts",
        "io.regatta/idempotencyKey":"k","io.modelcontextprotocol/protocolVersion":"2026-07-28",
        "io.modelcontextprotocol/clientCapabilities":{"sampling":{}},"io.modelcontextprotocol/clientInfo":{"name":"c"},
        "io.modelcontextprotocol/logLevel":"info","io.modelcontextprotocol/subscriptionId":"sub"}}} "#;
    let message = one(body);
    let text = body.as_bytes();
    assert_eq!(message.kind, Kind::Request);
    assert_eq!(message.whole.text(text), body.trim());
    assert_eq!(message.id.map(|id| id.raw.text(text)), Some(r#""a\"b""#));
    assert_eq!(message.method(), Some(Method::ToolsCall));
    let params = message.params;
    assert_eq!(value(body, params.name).as_deref(), Some("get"));
    assert_eq!(value(body, message.name()).as_deref(), Some("get"));
    assert_eq!(params.arguments.map(|span| span.text(text)), Some(r#"{"x":[1,"}"]}"#));
    assert_eq!(value(body, params.request_state).as_deref(), Some("s"));
    assert!(params.has_input_responses);
    let meta = params.meta;
    assert!(meta.is_object && meta.capabilities_is_object);
    assert_eq!(meta.progress_token.map(|span| span.text(text)), Some("7"));
    assert_eq!(meta.subscription_id.map(|span| span.text(text)), Some("\"sub\""));
    assert_eq!(meta.client_capabilities.map(|span| span.text(text)), Some(r#"{"sampling":{}}"#));
    assert_eq!(meta.client_info.map(|span| span.text(text)), Some(r#"{"name":"c"}"#));
    let texts =
        [meta.protocol_version, meta.log_level, meta.idempotency_key, meta.traceparent, meta.tracestate];
    assert_eq!(
        texts.map(|text| value(body, text).unwrap_or_default()),
        ["2026-07-28", "info", "k", "tp", "ts"]
    );
}

#[test]
fn notes_the_members_of_other_methods() {
    let body = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":12,"uri":"u","taskId":"t",
        "cursor":"c","level":"debug","protocolVersion":"2025-11-25","capabilities":{"roots":{}},"notifications":{"a":true}}}"#;
    let message = one(body);
    let (text, params) = (body.as_bytes(), message.params);
    assert_eq!(message.kind, Kind::Notification);
    assert_eq!(message.method(), Some(Method::NotificationCancelled));
    assert_eq!(params.request_id.map(|span| span.text(text)), Some("12"));
    assert_eq!(params.notifications.map(|span| span.text(text)), Some(r#"{"a":true}"#));
    assert_eq!(params.capabilities.map(|span| span.text(text)), Some(r#"{"roots":{}}"#));
    let texts = [params.uri, params.task_id, params.cursor, params.level, params.protocol_version];
    assert_eq!(
        texts.map(|text| value(body, text).unwrap_or_default()),
        ["u", "t", "c", "debug", "2025-11-25"]
    );
}

#[test]
fn members_of_other_types_count_as_absent() {
    let body =
        request(r#"{"name":1,"uri":null,"requestState":{},"notifications":[],"requestId":true,"_meta":[]}"#);
    let params = one(&body).params;
    assert!(params.name.is_none() && params.uri.is_none() && params.request_state.is_none());
    assert!(params.notifications.is_none() && params.request_id.is_none());
    assert!(params.meta.span.is_some() && !params.meta.is_object);
}

#[test]
fn members_deeper_down_are_not_taken_for_ours() {
    let body = request(r#"{"arguments":{"name":"x","_meta":{},"requestState":"y"},"other":{"taskId":"z"}}"#);
    let params = one(&body).params;
    assert!(params.name.is_none() && params.task_id.is_none() && params.request_state.is_none());
    assert!(params.meta.span.is_none());
}

#[test]
fn answers_of_clients_are_told_apart() {
    assert_eq!(one(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#).kind, Kind::Response { failed: false });
    let failed = Kind::Response { failed: true };
    assert_eq!(one(r#"{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":""}}"#).kind, failed);
    assert_eq!(one(r#"{"jsonrpc":"2.0","error":{"code":1,"message":""}}"#).kind, failed);
    refused(-32600, r#"{"jsonrpc":"2.0","result":{}}"#);
    refused(-32600, r#"{"jsonrpc":"2.0","id":1,"error":"x"}"#);
}

#[test]
fn i19_an_empty_body_is_not_json() {
    refused(-32700, "");
    refused(-32700, " \r\n\t");
}

#[test]
fn i34_broken_json() {
    for body in [
        "{",
        "{\"a\":1,}",
        "{} x",
        "{}{}",
        "{'a':1}",
        "NaN",
        "[1,]",
        "[,]",
        "{,}",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1 \"b\":2}",
        "[1 2]",
        "[",
        "]",
        "{]",
        "\"",
        "\"\\x\"",
        "\"\\u12g4\"",
        "\"\\",
        "tru",
        "nul",
        "+1",
        "01",
        "1.",
        "\"a\nb\"",
        "\"\u{0}\"",
        "/**/{}",
        "{\"a\":undefined}",
        "\u{c}{}",
        "{\"a\":Infinity}",
        "{1:2}",
    ] {
        refused(-32700, body);
    }
}

#[test]
fn i34_what_is_not_json_at_all_is_not_blamed_on_its_shape() {
    refused(-32700, r#"{"jsonrpc":"1.0"} x"#);
    refused(-32700, r#"[1,{"a":}]"#);
    refused(-32700, r#""x" y"#);
}

#[test]
fn i35_encodings_other_than_utf8() {
    refused(-32700, b"{\"a\":\"\xff\"}");
    refused(-32700, b"{\"a\":\"\xc0\xaf\"}");
    refused(-32700, b"{\"a\":\"\xed\xa0\x80\"}");
    refused(-32700, "{\"a\":1}".encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>());
    for lone in [r"\ud800", r"\udc00", r"\ud800\u0041", r"\ud800x", r"\ud800\ud800", r"\udc00\ud800"] {
        refused(-32700, request(&format!(r#"{{"a":"{lone}"}}"#)));
    }
    one(&request(r#"{"a":"\ud83d\ude00\u0000é漢"}"#));
}

#[test]
fn i36_a_byte_order_mark() {
    refused(-32700, "\u{feff}{}");
}

#[test]
fn i37_deep_nesting() {
    let nested = |depth: usize| request(&format!(r#"{{"a":{}1{}}}"#, "[".repeat(depth), "]".repeat(depth)));
    // The message and its params are two of the levels.
    one(&nested(126));
    refused(-32700, nested(127));
    refused(-32700, request(&format!("{}1{}", "{\"a\":".repeat(200), "}".repeat(200))));
    for open in ["[", "{\"a\":", "[{\"a\":"] {
        refused_in_time(-32700, open.repeat(100_000));
        refused_in_time(-32700, open.repeat(1_000_000));
        refused_in_time(-32700, request(&open.repeat(1_000_000)));
    }
}

#[test]
fn i38_absurd_numbers() {
    refused(-32700, request(r#"{"a":1e400}"#));
    refused(-32700, request(r#"{"a":-1e999999999999}"#));
    refused_in_time(-32700, request(&format!(r#"{{"a":{}}}"#, "1".repeat(100_000))));
    refused_in_time(-32700, request(&format!(r#"{{"a":{}}}"#, "1".repeat(4 * MEBI))));
    refused_in_time(-32700, request(&format!(r#"{{"a":1e{}}}"#, "0".repeat(4 * MEBI))));
    one(&request(r#"{"a":[0,-0,1.5,1e308,1E-400,12345678901234567890123456789]}"#));
}

#[test]
fn i39_many_small_values() {
    let fill = |unit: &str| unit.repeat(4 * MEBI / unit.len());
    refused_in_time(-32600, format!("[{}0]", fill("0,")));
    refused_in_time(-32600, format!("[{}{{}}]", fill("{},")));
    let start = Instant::now();
    one(&request(&format!(r#"{{"a":[{}""]}}"#, fill("\"\","))));
    one(&request(&format!(r#"{{"a":"{}"}}"#, fill("x"))));
    one(&request(&format!(r#"{{"a":"{}"}}"#, fill("\\\\"))));
    let keys: Vec<String> = (0..300_000).map(|number| format!("\"{number}\":0")).collect();
    one(&request(&format!("{{{}}}", keys.join(","))));
    let small: Vec<String> =
        (0..50_000).map(|_| r#"{"a":0,"b":0,"c":0,"d":0,"e":0,"f":0,"g":0,"h":0,"i":0}"#.into()).collect();
    one(&request(&format!(r#"{{"a":[{}]}}"#, small.join(","))));
    assert!(start.elapsed() < 5 * PATIENCE, "took {:?}", start.elapsed());
}

#[test]
fn i39_keys_alike_but_for_their_ends_are_not_compared_pair_by_pair() {
    let long = "k".repeat(1000);
    let keys: Vec<String> = (0..4000).map(|number| format!("\"{long}{number}\":0")).collect();
    let start = Instant::now();
    one(&request(&format!("{{{}}}", keys.join(","))));
    assert!(start.elapsed() < PATIENCE, "took {:?}", start.elapsed());
}

#[test]
fn i40_other_json_values() {
    for body in ["1", "\"x\"", "null", "true", "false", "[]", "[ ]", " -1.5e3 "] {
        refused(-32600, body);
    }
}

#[test]
fn i41_batches_are_told_apart_and_bounded() {
    let ping = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    let body = format!("[{ping} , {ping}]");
    let Ok(Decoded::Batch(messages)) = decode(body.as_bytes()) else { panic!("{body}") };
    assert_eq!(messages.len(), 2);
    assert_eq!(messages[1].whole.text(body.as_bytes()), ping);
    assert_eq!(messages[1].id.map(|id| id.raw.text(body.as_bytes())), Some("1"));
    refused(-32600, format!("[{ping},1]"));
    refused(-32600, format!("[{ping},[{ping}]]"));
    refused(-32600, format!("[{ping},{{}}]"));
    refused(-32600, format!("[{}]", vec![ping; BATCH_MAX + 1].join(",")));
    assert!(decode(format!("[{}]", vec![ping; BATCH_MAX].join(",")).as_bytes()).is_ok());
}

#[test]
fn i42_another_jsonrpc() {
    refused(-32600, r#"{"id":1,"method":"ping"}"#);
    refused(-32600, r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#);
    refused(-32600, r#"{"jsonrpc":2.0,"id":1,"method":"ping"}"#);
    one(r#"{"jsonrpc":"2\u002e0","id":1,"method":"ping"}"#);
}

#[test]
fn i42_the_id_comes_back_where_it_could_be_read() {
    let body = br#"{"jsonrpc":"1.0","id":"seven","method":"ping"}"#;
    assert_eq!(malformed(body).id.map(|id| id.text(body)), Some("\"seven\""));
    let body = br#"{"jsonrpc":"2.0","params":[],"method":"ping","id":-7}"#;
    assert_eq!(malformed(body).id.map(|id| id.text(body)), Some("-7"));
    assert_eq!(malformed(br#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#).id, None);
}

#[test]
fn i43_i44_ids_of_other_types() {
    for id in ["null", "true", "false", "{}", "[]", "[1]", "1.5", "1.0", "1e3", "1E3", "-0.0"] {
        refused(-32600, format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"ping"}}"#));
    }
}

#[test]
fn i45_ids_are_kept_as_written() {
    for id in
        ["9007199254740993", "123456789012345678901234567890", "-1", "0", "\"1\"", "\"\"", "\"é\\u0000\""]
    {
        let body = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"ping"}}"#);
        assert_eq!(one(&body).id.map(|id| id.raw.text(body.as_bytes()).to_owned()).as_deref(), Some(id));
    }
}

#[test]
fn i46_a_huge_id() {
    let body =
        |length: usize| format!(r#"{{"jsonrpc":"2.0","id":"{}","method":"ping"}}"#, "x".repeat(length));
    one(&body(1022));
    refused(-32600, body(1023));
    refused(-32600, body(MEBI));
    assert_eq!(malformed(body(MEBI)).id, None);
}

#[test]
fn i47_keys_that_only_look_alike_are_unknown() {
    let body = r#"{"jsonrpc":"2.0","Jsonrpc":"1.0","id":1,"ID":2,"method":"ping","Method":"tools/call","METHOD":1,
        "param\u017f":[],"params":{"name":"n","Name":"m","nam\u0435":"o"}}"#;
    let message = one(body);
    assert_eq!(message.method(), Some(Method::Ping));
    assert_eq!(value(body, message.params.name).as_deref(), Some("n"));
    refused(-32600, "{\"jsonrpc\":\"2.0\",\"id\":1,\"Method\":\"ping\"}");
    refused(-32600, "{\"JSONRPC\":\"2.0\",\"id\":1,\"method\":\"ping\"}");
}

#[test]
fn i48_keys_that_appear_twice() {
    for body in [
        r#"{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call"}"#.to_owned(),
        r#"{"jsonrpc":"2.0","id":1,"method":"ping","\u006dethod":"tools/call"}"#.to_owned(),
        r#"{"jsonrpc":"2.0","id":1,"id":1,"method":"ping"}"#.to_owned(),
        request(r#"{"name":"a","name":"a"}"#),
        request(r#"{"name":"a","na\u006de":"b"}"#),
        request(r#"{"na\u006de":"a","n\u0061me":"b"}"#),
        request(r#"{"arguments":{"x":1,"x":2}}"#),
        request(r#"{"arguments":{"a":[{"b":{"x":1,"y":2,"\u0078":3}}]}}"#),
        request(r#"{"_meta":{"a/b":1,"a\/b":2}}"#),
        request(r#"{"_meta":{"io.modelcontextprotocol/clientCapabilities":{"roots":{},"roots":{}}}}"#),
        request(r#"{"arguments":{"😀":1,"\ud83d\ude00":2}}"#),
        request(r#"{"arguments":{"":1,"":2}}"#),
    ] {
        refused(-32700, body);
    }
    let many: Vec<String> = (0..1000).map(|number| format!("\"{number}\":0")).collect();
    refused(-32700, request(&format!("{{{},\"\\u0037\":1}}", many.join(","))));
    one(&request(r#"{"arguments":{"x":{"x":{"x":1}},"y":[{"x":1},{"x":2}]},"x":0}"#));
}

#[test]
fn i49_names_that_mean_something_elsewhere_pass() {
    one(&request(r#"{"arguments":{"__proto__":{"a":1},"constructor":1,"toString":2}}"#));
}

#[test]
fn i50_methods_that_are_no_names() {
    for method in ["1", "\"\"", "null", "{}", "[\"ping\"]"] {
        refused(-32600, format!(r#"{{"jsonrpc":"2.0","id":1,"method":{method}}}"#));
    }
    let long = "x".repeat(MEBI);
    for method in [long.as_str(), "ping\\u0000", "ping\\r\\nX: y", "Ping", "ping ", "other"] {
        let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}"}}"#);
        assert_eq!(one(&body).method(), Some(Method::Other));
    }
    let escaped = r#"{"jsonrpc":"2.0","id":1,"method":"tools\/c\u0061ll"}"#;
    assert_eq!(one(escaped).method(), Some(Method::ToolsCall));
}

#[test]
fn i51_params_that_are_no_object() {
    for params in ["[]", "\"x\"", "null", "1", "true"] {
        let malformed = malformed(request(params));
        assert_eq!(malformed.fault, Shape::BadParams);
        assert!(malformed.id.is_some());
    }
}

#[test]
fn i52_neither_a_call_nor_an_answer() {
    for members in [
        r#""id":1"#,
        r#""id":1,"method":"ping","result":{}"#,
        r#""id":1,"method":"ping","error":{}"#,
        r#""id":1,"result":{},"error":{}"#,
        r#""params":{}"#,
    ] {
        refused(-32600, format!(r#"{{"jsonrpc":"2.0",{members}}}"#));
    }
}

#[test]
fn i54_unknown_notifications_are_messages() {
    assert_eq!(one(r#"{"jsonrpc":"2.0","method":"notifications/x"}"#).kind, Kind::Notification);
}

#[test]
fn i77_capabilities_of_other_types_are_noticed() {
    let sound = |capabilities: &str| {
        let body = request(&format!(
            r#"{{"_meta":{{"io.modelcontextprotocol/clientCapabilities":{capabilities}}}}}"#
        ));
        one(&body).params.meta.capabilities_is_object
    };
    assert!(sound("{}") && sound(r#"{"sampling":{"tools":{}},"x":1}"#));
    for bad in ["[]", "\"x\"", "null", r#"{"sampling":true}"#, r#"{"extensions":[]}"#] {
        assert!(!sound(bad), "{bad}");
    }
}
