//! Rows I53 and I55–I78 of the bad-input table, as far as a gateway can judge them without a server.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{check, unsupported_version_data};
use crate::era::{self, Era};
use crate::message::{Decoded, Message};

const CALL: &str = r#""method":"tools/call","params":{"name":"foo","arguments":{},"_meta":META}"#;
const META: &str = r#"{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}"#;

fn body(members: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":1,{}}}"#, members.replace("META", META))
}

fn message(body: &str) -> Message {
    match crate::decode(body.as_bytes()) {
        Ok(Decoded::One(message)) => message,
        other => panic!("{body}: {other:?}"),
    }
}

fn headers(lines: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        let name: HeaderName = name.parse().expect("a header name");
        headers.append(name, HeaderValue::from_bytes(value.as_bytes()).expect("a header value"));
    }
    headers
}

/// The code of the fault, 0 if there is none.
fn code(members: &str, lines: &[(&str, &str)]) -> i32 {
    let body = body(members);
    check(&message(&body), body.as_bytes(), &headers(lines)).err().map_or(0, |fault| fault.code)
}

fn call(name: &str) -> Vec<(&'static str, &str)> {
    vec![("mcp-protocol-version", "2026-07-28"), ("mcp-method", "tools/call"), ("mcp-name", name)]
}

#[test]
fn a_sound_request_passes() {
    assert_eq!(code(CALL, &call("foo")), 0);
}

#[test]
fn i53_responses_are_refused() {
    assert_eq!(code(r#""result":{}"#, &call("foo")), -32600);
}

#[test]
fn i55_notifications_have_no_header_rules() {
    let body = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#;
    assert_eq!(check(&message(body), body.as_bytes(), &HeaderMap::new()), Ok(()));
}

#[test]
fn i56_i57_i58_missing_headers() {
    for missing in 0..3 {
        let mut lines = call("foo");
        lines.remove(missing);
        assert_eq!(code(CALL, &lines), -32020, "without {:?}", call("foo")[missing]);
    }
    for (method, member) in [("resources/read", "uri"), ("prompts/get", "name")] {
        let members = format!(r#""method":"{method}","params":{{"{member}":"foo","_meta":META}}"#);
        let lines = [("mcp-protocol-version", "2026-07-28"), ("mcp-method", method)];
        assert_eq!(code(&members, &lines), -32020);
        assert_eq!(code(&members, &[lines[0], lines[1], ("mcp-name", "foo")]), 0);
    }
}

#[test]
fn i59_tasks_are_named_by_their_id() {
    for method in ["tasks/get", "tasks/update", "tasks/cancel"] {
        let members = format!(r#""method":"{method}","params":{{"taskId":"t","_meta":META}}"#);
        let lines = [("mcp-protocol-version", "2026-07-28"), ("mcp-method", method)];
        assert_eq!(code(&members, &lines), -32020);
        assert_eq!(code(&members, &[lines[0], lines[1], ("mcp-name", "t")]), 0);
    }
}

#[test]
fn i60_i61_another_method() {
    for method in ["tools/list", "TOOLS/CALL", "tools/call, tools/call", ""] {
        let lines = [("mcp-protocol-version", "2026-07-28"), ("mcp-method", method), ("mcp-name", "foo")];
        assert_eq!(code(CALL, &lines), -32020, "{method}");
    }
    let escaped = CALL.replace("tools/call", r"tools\/call");
    assert_eq!(code(&escaped, &call("foo")), 0);
}

#[test]
fn i62_header_names_in_any_case() {
    let lines = [("MCP-PROTOCOL-VERSION", "2026-07-28"), ("Mcp-Method", "tools/call"), ("mcp-NAME", "foo")];
    assert_eq!(code(CALL, &lines), 0);
}

#[test]
fn i63_blanks_around_values() {
    assert_eq!(code(CALL, &call("   foo\t ")), 0);
}

#[test]
fn i64_another_name() {
    for name in ["bar", "Foo", "foo, foo", "", "fo", "foo\u{e9}"] {
        assert_eq!(code(CALL, &call(name)), -32020, "{name}");
    }
    let nameless = CALL.replace(r#""name":"foo","#, "");
    assert_eq!(code(&nameless, &call("foo")), -32020);
}

#[test]
fn i65_routing_headers_that_stand_twice() {
    for repeated in [
        ("mcp-name", "foo"),
        ("mcp-name", "bar"),
        ("mcp-method", "tools/call"),
        ("mcp-protocol-version", "2026-07-28"),
    ] {
        let mut lines = call("foo");
        lines.push(repeated);
        assert_eq!(code(CALL, &lines), -32020, "{repeated:?}");
        // Before the body is judged.
        assert_eq!(code(r#""method":"tools/call""#, &lines), -32020, "{repeated:?}");
    }
}

#[test]
fn i66_an_orphan_name_is_ignored() {
    let lines = [("mcp-protocol-version", "2026-07-28"), ("mcp-method", "tools/list"), ("mcp-name", "é")];
    assert_eq!(code(r#""method":"tools/list","params":{"_meta":META}"#, &lines), 0);
}

#[test]
fn i67_bytes_that_no_header_may_carry() {
    let members = CALL.replace("\"foo\"", "\"é\"");
    assert_eq!(code(&members, &call("é")), -32020);
    assert_eq!(code(&members, &call("=?base64?w6k=?=")), 0);
}

#[test]
fn i68_i69_i70_i71_encoded_names() {
    assert_eq!(code(CALL, &call("=?base64?Zm9v?=")), 0);
    for name in [
        "=?base64?!!!?=",
        "=?base64?Zm9?=",
        "=?base64?/w==?=",
        "=?BASE64?Zm9v?=",
        "=?base64?Zm9v",
        "=?utf-8?b?Zm9v?=",
    ] {
        assert_eq!(code(CALL, &call(name)), -32020, "{name}");
    }
    let literal = CALL.replace("\"foo\"", "\"=?base64?x?=\"");
    assert_eq!(code(&literal, &call("=?base64?PT9iYXNlNjQ/eD89?=")), 0);
    assert_eq!(code(&literal, &call("=?base64?x?=")), -32020);
}

#[test]
fn i72_two_versions() {
    let mut lines = call("foo");
    lines[0].1 = "1900-01-01";
    assert_eq!(code(CALL, &lines), -32020);
    let old = CALL.replace("META", &META.replace("2026-07-28", "1900-01-01"));
    assert_eq!(code(&old, &call("foo")), -32020);
}

#[test]
fn i73_i74_versions_that_are_not_spoken() {
    let long = "9".repeat(10_000);
    for version in ["1900-01-01", "2026-7-28", "2027-01-01", "2025-11-25", long.as_str()] {
        let body = body(&CALL.replace("META", &META.replace("2026-07-28", version)));
        let mut lines = call("foo");
        lines[0].1 = version;
        let fault = check(&message(&body), body.as_bytes(), &headers(&lines)).expect_err(version);
        assert_eq!(fault.code, -32022);
        let shown = &version[..version.len().min(128)];
        assert_eq!(
            fault.data.as_deref(),
            Some(format!(r#"{{"supported":["2026-07-28"],"requested":"{shown}"}}"#).as_str())
        );
    }
    assert!(unsupported_version_data([], &"é".repeat(100)).ends_with("é\"}"));
}

#[test]
fn i74_a_blank_in_the_body_is_not_trimmed() {
    let padded = CALL.replace("META", &META.replace("2026-07-28", "2026-07-28 "));
    assert_eq!(code(&padded, &call("foo")), -32020);
}

#[test]
fn i75_i77_meta_that_is_missing_or_of_another_type() {
    let mut cases = vec![
        r#""method":"tools/call""#.to_owned(),
        r#""method":"tools/call","params":{"name":"foo"}"#.to_owned(),
        CALL.replace("META", "{}"),
        CALL.replace("META", r#"{"io.modelcontextprotocol/clientCapabilities":{}}"#),
        CALL.replace("META", r#"{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}"#),
        CALL.replace("META", &META.replace("\"2026-07-28\"", "20260728")),
    ];
    for other in ["\"x\"", "[]", "null", "1"] {
        cases.push(CALL.replace("META", other));
        cases.push(CALL.replace("META", &META.replace("{}", other)));
    }
    cases.push(CALL.replace("META", &META.replace("{}", r#"{"sampling":true}"#)));
    for members in cases {
        assert_eq!(code(&members, &call("foo")), -32602, "{members}");
        // Before the headers are compared.
        assert_eq!(code(&members, &[("mcp-protocol-version", "2026-07-28")]), -32602, "{members}");
    }
}

#[test]
fn i76_client_info_is_not_required() {
    assert!(!META.contains("clientInfo"));
    assert_eq!(code(CALL, &call("foo")), 0);
}

#[test]
fn i78_unknown_methods_are_left_to_the_server() {
    for method in ["ping", "logging/setLevel", "resources/subscribe", "x/y"] {
        let lines = [("mcp-protocol-version", "2026-07-28"), ("mcp-method", method)];
        assert_eq!(code(&format!(r#""method":"{method}","params":{{"_meta":META}}"#), &lines), 0);
    }
}

#[test]
fn i80_initialize_without_meta_is_legacy() {
    let body = body(r#""method":"initialize","params":{"protocolVersion":"2026-07-28","capabilities":{}}"#);
    let message = message(&body);
    assert!(message.params.meta.protocol_version.is_none());
    assert_eq!(era::decide(false, message.method(), || None), Era::Legacy);
}
