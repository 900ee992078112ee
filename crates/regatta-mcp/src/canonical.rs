//! One spelling for each JSON value, so that the same arguments are the same bytes however they were written.
//!
//! In the manner of RFC 8785, but it keeps types and numbers as they are: members are sorted, blanks go, a string has
//! one spelling; `1` is neither `"1"` nor `true`, and `1`, `1.0` and `1e0` stay three numbers, because two servers
//! may read them in three ways. Nothing is read as a float, and nothing is normalised in Unicode.

use crate::escape;
use crate::json::{Flaw, Scan, Walk};
use crate::member::MetaKey;
use crate::meta;

/// A member of an object, by where its bytes stand in the output.
struct Member {
    start: usize,
    end: usize,
}

/// Which members of an object count.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Count {
    /// All of them.
    All,
    /// Those of `params`: all, but of `_meta` only what may change a result.
    Params,
    /// Those of `_meta` that may change a result.
    Meta,
}

/// The canonical spelling of one JSON value; equal for two texts exactly if their values are equal.
///
/// [`None`] for what `decode` would refuse: not JSON, a key twice, a lone surrogate, nested too deep.
pub fn canonical(value: &[u8]) -> Option<Vec<u8>> {
    spelled(value, Count::All)
}

/// The canonical spelling of a request's `params` as far as they may change its result: without what names, follows
/// or words the one request (progress token, trace, log level, client's name), which differs from call to call.
pub fn canonical_params(params: &[u8]) -> Option<Vec<u8>> {
    spelled(params, Count::Params)
}

fn spelled(value: &[u8], count: Count) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(value.len());
    let mut scan = Scan::new(value).ok()?;
    scan.blank();
    write(&mut scan, value, (0, count), &mut out).ok()?;
    scan.end().ok()?;
    Some(out)
}

/// Writes the value here; `at` is the depth of the container it stands in, and which members count if it is an object.
fn write(scan: &mut Scan<'_>, text: &[u8], at: (u32, Count), out: &mut Vec<u8>) -> Walk<()> {
    match scan.peek() {
        b'{' => object(scan, text, at, out),
        b'[' => array(scan, text, at.0, out),
        _ => scalar(scan, text, at.0, out),
    }
}

fn scalar(scan: &mut Scan<'_>, text: &[u8], depth: u32, out: &mut Vec<u8>) -> Walk<()> {
    let value = scan.value(depth)?;
    match value.string() {
        // The value is UTF-8 without lone surrogates, so that unescaping it loses nothing.
        Some(string) if value.has_escapes() => escape::escape_into(&string.get(text), out),
        // A string without escapes is spelled as it stands: what must be escaped cannot be in it.
        _ => out.extend_from_slice(value.span.of(text)),
    }
    Ok(())
}

fn array(scan: &mut Scan<'_>, text: &[u8], depth: u32, out: &mut Vec<u8>) -> Walk<()> {
    scan.open_array(depth)?;
    out.push(b'[');
    let mut begun = false;
    while scan.element(begun)? {
        if begun {
            out.push(b',');
        }
        begun = true;
        write(scan, text, (depth + 1, Count::All), out)?;
    }
    out.push(b']');
    Ok(())
}

fn object(scan: &mut Scan<'_>, text: &[u8], (depth, count): (u32, Count), out: &mut Vec<u8>) -> Walk<()> {
    out.push(b'{');
    let first = out.len();
    let mut members: Vec<Member> = Vec::new();
    let mut sorted = true;
    let mut object = scan.open(depth)?;
    while scan.member(&mut object)? {
        let start = out.len();
        let is_meta = count == Count::Params && scan.key() == b"_meta";
        if count == Count::Meta && is_of_one_request(scan.key()) {
            scan.skip(depth + 1)?;
            continue;
        }
        match scan.key_as_written() {
            // Like any string without escapes.
            Some(key) => out.extend_from_slice(key),
            None => escape::escape_into(std::str::from_utf8(scan.key()).map_err(|_| Flaw::NotUtf8)?, out),
        }
        out.push(b':');
        let inner = out.len();
        write(scan, text, (depth + 1, if is_meta { Count::Meta } else { Count::All }), out)?;
        if is_meta && &out[inner..] == b"{}" {
            out.truncate(start);
            continue;
        }
        // The comma belongs to every member; the last one becomes the brace.
        out.push(b',');
        let member = Member { start, end: out.len() };
        sorted &= members.last().is_none_or(|last| out[last.start..last.end] < out[start..]);
        members.push(member);
    }
    if !sorted {
        sort(&mut members, first, out);
    }
    match members.is_empty() {
        true => out.push(b'}'),
        false => out[first..].last_mut().into_iter().for_each(|comma| *comma = b'}'),
    }
    Ok(())
}

/// Members of `_meta` that differ between two requests for the same thing. What is not listed may change a result
/// (the client's capabilities do), and so it counts.
fn is_of_one_request(key: &[u8]) -> bool {
    match MetaKey::of(key) {
        MetaKey::Version
        | MetaKey::ClientInfo
        | MetaKey::LogLevel
        | MetaKey::SubscriptionId
        | MetaKey::ProgressToken
        | MetaKey::Traceparent
        | MetaKey::Tracestate
        | MetaKey::IdempotencyKey => true,
        MetaKey::Capabilities => false,
        MetaKey::Unknown => key == meta::BAGGAGE.as_bytes(),
    }
}

/// Puts the members, which begin at `first`, in the order of their spelled keys: any order will do that is the same for
/// the same keys, and no two keys are spelled alike here.
fn sort(members: &mut [Member], first: usize, out: &mut [u8]) {
    members.sort_unstable_by(|a, b| out[a.start..a.end].cmp(&out[b.start..b.end]));
    let mut ordered = Vec::with_capacity(out.len() - first);
    members.iter().for_each(|member| ordered.extend_from_slice(&out[member.start..member.end]));
    out[first..].copy_from_slice(&ordered);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fmt::Write as _;

    use super::{canonical, canonical_params};
    use crate::testing::Dice;

    fn spelled(text: &str) -> Option<String> {
        canonical(text.as_bytes()).map(|bytes| String::from_utf8(bytes).expect("canonical text is UTF-8"))
    }

    #[test]
    fn the_same_value_has_one_spelling() {
        for (text, expected) in [
            (r#" { "b" : 1 , "a" : [ ] } "#, r#"{"a":[],"b":1}"#),
            (r#"{"\u0061":"\u0041\/\n\u000a"}"#, r#"{"a":"A/\n\n"}"#),
            (r#"{"b":{"d":1,"c":2},"a":[{"z":1,"y":2}]}"#, r#"{"a":[{"y":2,"z":1}],"b":{"c":2,"d":1}}"#),
            ("\"\\ud83d\\ude00\"", "\"😀\""),
            ("{}", "{}"),
            ("null", "null"),
            ("\"\u{7f}\\u007f\"", "\"\u{7f}\u{7f}\""),
        ] {
            assert_eq!(spelled(text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn different_values_stay_different() {
        let values = [
            "1",
            "\"1\"",
            "true",
            "\"true\"",
            "1.0",
            "1e0",
            "1E0",
            "-0",
            "0",
            "null",
            "\"\"",
            "[]",
            "{}",
            "[1]",
            "[[1]]",
            "[1,2]",
            "[2,1]",
            "\"é\"",
            "\"e\u{301}\"",
            r#"{"a":1}"#,
            r#"{"A":1}"#,
            r#"{"a":1,"b":2}"#,
            r#"{"a":{"b":2}}"#,
            r#"{"a,b":1}"#,
            r#"{"a":"1,\"b\":2"}"#,
            "9007199254740993",
            "9007199254740992",
        ];
        let all: std::collections::HashSet<_> = values.iter().map(|value| spelled(value)).collect();
        assert!(!all.contains(&None));
        assert_eq!(all.len(), values.len());
    }

    #[test]
    fn what_names_only_the_one_request_does_not_count() {
        let params = |text: &str| canonical_params(text.as_bytes()).expect("JSON");
        let bare = params(r#"{"name":"t","arguments":{"a":1}}"#);
        for same in [
            r#"{"arguments":{"a":1},"name":"t","_meta":{}}"#,
            r#"{"name":"t","arguments":{"a":1},"_meta":{"progressToken":7,"traceparent":"00-1","baggage":"x"}}"#,
            r#"{"name":"t","arguments":{"a":1},"_meta":{"io.modelcontextprotocol/clientInfo":{"name":"x"}}}"#,
        ] {
            assert_eq!(params(same), bare, "{same}");
        }
        for other in [
            r#"{"name":"t"}"#,
            r#"{"name":"t","arguments":{"a":1},"task":{}}"#,
            r#"{"name":"t","arguments":{"a":1},"_meta":{"openai/locale":"de"}}"#,
            r#"{"name":"t","arguments":{"a":1},"_meta":{"io.modelcontextprotocol/clientCapabilities":{}}}"#,
            r#"{"name":"t","arguments":{"a":1,"_meta":{}}}"#,
            r#"{"name":"t","arguments":{"a":1,"progressToken":1}}"#,
        ] {
            assert_ne!(params(other), bare, "{other}");
        }
    }

    #[test]
    fn what_decode_refuses_has_no_spelling() {
        for text in [r#"{"a":1,"\u0061":2}"#, "\"\\ud800\"", "{", "1 2", "", "[1,]", "01"] {
            assert_eq!(spelled(text), None, "{text}");
        }
        assert_eq!(canonical(&b"[".repeat(1_000_000)), None);
    }

    /// A value, apart from how it is written.
    #[derive(Clone, Debug, PartialEq, Eq)]
    enum Value {
        Word(&'static str),
        Number(&'static str),
        Text(String),
        List(Vec<Value>),
        Table(BTreeMap<String, Value>),
    }

    const LETTERS: [char; 12] = ['a', 'b', 'A', '1', '"', '\\', '/', '\n', '\u{1}', 'é', '\u{301}', '😀'];

    fn text(dice: &mut Dice) -> String {
        (0..dice.below(3)).map(|_| LETTERS[dice.below(LETTERS.len())]).collect()
    }

    fn value(dice: &mut Dice, depth: u32) -> Value {
        match dice.below(if depth < 3 { 5 } else { 3 }) {
            0 => Value::Word(["true", "false", "null"][dice.below(3)]),
            1 => Value::Number(["0", "-0", "1", "1.0", "1e0", "12"][dice.below(6)]),
            2 => Value::Text(text(dice)),
            3 => Value::List((0..dice.below(3)).map(|_| value(dice, depth + 1)).collect()),
            _ => Value::Table((0..dice.below(3)).map(|_| (text(dice), value(dice, depth + 1))).collect()),
        }
    }

    fn blank(dice: &mut Dice, out: &mut String) {
        out.push_str(["", "", " ", "\n\t"][dice.below(4)]);
    }

    fn write_text(value: &str, dice: &mut Dice, out: &mut String) {
        out.push('"');
        for letter in value.chars() {
            match letter {
                _ if dice.below(3) == 0 => letter
                    .encode_utf16(&mut [0; 2])
                    .iter()
                    .for_each(|unit| write!(out, "\\u{unit:04X}").expect("a string takes all")),
                '"' | '\\' => out.extend(['\\', letter]),
                '/' => out.push_str(["/", "\\/"][dice.below(2)]),
                '\n' => out.push_str("\\n"),
                '\u{1}' => out.push_str("\\u0001"),
                other => out.push(other),
            }
        }
        out.push('"');
    }

    /// One of the many ways to write a value.
    fn write_value(value: &Value, dice: &mut Dice, out: &mut String) {
        blank(dice, out);
        match value {
            Value::Word(word) => out.push_str(word),
            Value::Number(number) => out.push_str(number),
            Value::Text(text) => write_text(text, dice, out),
            Value::List(list) => {
                out.push('[');
                for (index, item) in list.iter().enumerate() {
                    out.push_str(if index == 0 { "" } else { "," });
                    write_value(item, dice, out);
                }
                out.push(']');
            }
            Value::Table(table) => {
                let mut members: Vec<_> = table.iter().collect();
                for at in (1..members.len()).rev() {
                    members.swap(at, dice.below(at + 1));
                }
                out.push('{');
                for (index, (key, item)) in members.into_iter().enumerate() {
                    out.push_str(if index == 0 { "" } else { "," });
                    write_text(key, dice, out);
                    blank(dice, out);
                    out.push(':');
                    write_value(item, dice, out);
                }
                out.push('}');
            }
        }
        blank(dice, out);
    }

    /// RELIABILITY T23.
    #[test]
    fn of_ten_thousand_random_pairs_the_equal_values_and_no_others_are_spelled_alike() {
        let mut dice = Dice::new(23);
        let mut equal = 0;
        for _ in 0..10_000 {
            let one = value(&mut dice, 0);
            let other = if dice.below(2) == 0 { one.clone() } else { value(&mut dice, 0) };
            let (mut first, mut second) = (String::new(), String::new());
            write_value(&one, &mut dice, &mut first);
            write_value(&other, &mut dice, &mut second);
            let (a, b) = (spelled(&first), spelled(&second));
            assert!(a.is_some() && b.is_some(), "{first} {second}");
            assert_eq!(a == b, one == other, "{first} {second}");
            equal += usize::from(one == other);
        }
        assert!((4_000..8_000).contains(&equal), "{equal} equal pairs");
    }
}
