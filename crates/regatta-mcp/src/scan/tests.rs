//! What the scanner finds, leaves and refuses, however the answer is cut.

use bytes::Bytes;

use super::{AnswerScanner, HandleKind, Piece, ScanError};
use crate::testing::Dice;

type Found = Vec<(HandleKind, String)>;

/// The handles, and the answer with each handle in brackets.
fn scan(chunks: &[&[u8]], handle_max: usize) -> Result<(Found, String), ScanError> {
    let mut scanner = AnswerScanner::new(handle_max);
    let mut pieces = Vec::new();
    for chunk in chunks {
        scanner.push(&Bytes::copy_from_slice(chunk), &mut pieces)?;
    }
    scanner.finish()?;
    let mut found = Vec::new();
    let mut marked = String::new();
    for piece in pieces {
        match piece {
            Piece::PassThrough(bytes) => marked.push_str(&String::from_utf8_lossy(&bytes)),
            Piece::Handle { kind, text } => {
                let text = String::from_utf8_lossy(&text).into_owned();
                marked.push_str(&format!("<{text}>"));
                found.push((kind, text));
            }
        }
    }
    Ok((found, marked))
}

fn marked(answer: &str) -> Result<String, ScanError> {
    scan(&[answer.as_bytes()], 64).map(|(_, marked)| marked)
}

#[test]
fn finds_each_handle_exactly_where_it_belongs() {
    let answer = r#" {"jsonrpc":"2.0","id":"a\"b","result":{"requestState":"s","task":{"taskId":"t1","id":2},"taskId":"t2",
        "content":[{"requestState":"x","taskId":"y"}],"requestStat":"z","structuredContent":{"task":{"taskId":"w"},"id":7}}}"#;
    let (found, text) = scan(&[answer.as_bytes()], 64).expect("sound");
    let expected = [
        (HandleKind::Id, "\"a\\\"b\""),
        (HandleKind::RequestState, "\"s\""),
        (HandleKind::TaskId, "\"t1\""),
        (HandleKind::TaskId, "\"t2\""),
    ];
    assert_eq!(found, expected.map(|(kind, text)| (kind, text.to_owned())));
    assert_eq!(text.replace(['<', '>'], ""), answer);
}

#[test]
fn escaped_keys_are_the_same_keys() {
    assert_eq!(
        marked(r#"{"result":{"requ\u0065stState":"s"}}"#).as_deref(),
        Ok(r#"{"result":{"requ\u0065stState":<"s">}}"#)
    );
    assert_eq!(
        marked(r#"{"\u0072esult":{"taskId":"s"}}"#).as_deref(),
        Ok(r#"{"\u0072esult":{"taskId":<"s">}}"#)
    );
}

#[test]
fn values_of_other_types_pass() {
    for answer in [
        r#"{"id":null,"result":{"requestState":{"taskId":"x"},"taskId":7,"task":[{"taskId":"x"}]}}"#,
        r#"{"result":"requestState","error":{"taskId":"x"}}"#,
        r#"[{"id":1}] 7 "id" null"#,
    ] {
        assert_eq!(marked(answer).as_deref(), Ok(answer));
    }
}

#[test]
fn numbers_are_ids_and_several_messages_are_watched() {
    assert_eq!(
        marked("{\"id\":-12}\n{\"id\" : 3 }\r\n").as_deref(),
        Ok("{\"id\":<-12>}\n{\"id\" : <3> }\r\n")
    );
}

#[test]
fn refuses_what_is_too_large_broken_or_cut_off() {
    let long = format!(r#"{{"result":{{"requestState":"{}"}}}}"#, "x".repeat(63));
    assert_eq!(marked(&long), Err(ScanError::HandleTooLarge(64)));
    let halves = long.as_bytes().split_at(60);
    assert_eq!(scan(&[halves.0, halves.1], 64), Err(ScanError::HandleTooLarge(64)));
    for bad in [r#"{"id":1]"#, r#"{"a":[}]}"#, "}", r#"{"a" 1}"#, r#"{"a":,}"#, r#"{1:2}"#, "[}"] {
        assert!(matches!(marked(bad), Err(ScanError::Broken(_))), "{bad}");
    }
    for bad in [r#"{"id":1"#, r#"{"id":"x"#, "[", r#""x"#, r#"{"a"#, r#"{"a":"\"#] {
        assert_eq!(marked(bad), Err(ScanError::Incomplete), "{bad}");
    }
    assert!(matches!(marked(&"[".repeat(1_000_000)), Err(ScanError::Broken(_))));
}

#[test]
fn any_cut_gives_the_same_pieces() {
    let answer = r#"{"id":"\\\"é\u0041","result":{"a":[1,{"b":"}]\\"}],"t\u0061skId":"\"","task":{"taskId":"漢","x":null},"requestState":"q"}}
{"id":12345,"result":{"content":[{"text":"\\"}]}}"#
        .as_bytes();
    let whole = scan(&[answer], 64).expect("sound");
    for at in 0..=answer.len() {
        let (one, two) = answer.split_at(at);
        assert_eq!(scan(&[one, two], 64).as_ref().map(|(found, _)| found), Ok(&whole.0), "cut at {at}");
    }
    for seed in 0..500 {
        let mut dice = Dice::new(seed);
        let mut chunks = Vec::new();
        let mut rest = answer;
        while !rest.is_empty() {
            let (chunk, more) = rest.split_at(1 + dice.below(rest.len().min(7)));
            chunks.push(chunk);
            rest = more;
        }
        let cut = scan(&chunks, 64).expect("sound");
        assert_eq!(cut.0, whole.0, "seed {seed}");
    }
    let bytes: Vec<&[u8]> = answer.chunks(1).collect();
    assert_eq!(scan(&bytes, 64).expect("sound").0, whole.0);
}
