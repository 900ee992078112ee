//! A result as it is kept: its text, and the places where each answer gets words of its own.
//!
//! The text is a copy of its own, so that a small result never holds on to the large buffer it came in. Two words
//! differ by answer: `_meta["io.regatta/cache"]`, and the `ttlMs` that a list has left (2026-07-28
//! server/utilities/caching, *Freshness Calculation*: the client counts from when it got the answer).

use std::time::Duration;

use bytes::Bytes;
use regatta_mcp::{Skim, SkimKind, Span, meta};
use regatta_policy::cache::{Hint, Outcome, Said, Telling};

/// Where an answer came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Out of the cache, within its `ttl`.
    Hit,
    /// Out of the cache, past it.
    Stale,
    /// From the server.
    Miss,
}

/// A result's JSON text with places for what each answer says of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Form {
    text: Bytes,
    /// Where the value of the mark stands.
    mark: Option<u32>,
    /// Where the number of `ttlMs` stands.
    ttl: Option<u32>,
}

/// What is put in the place of a span of the server's text.
struct Cut {
    span: Span,
    before: String,
    word: Option<Word>,
    after: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Word {
    Mark,
    Ttl,
}

/// How the call ended that a response answers, and what its server asked meanwhile aside.
pub fn outcome(seen: &Skim, text: &[u8]) -> Outcome {
    let is_object = seen.result.is_some_and(|result| result.of(text).first() == Some(&b'{'));
    if seen.kind != (SkimKind::Response { failed: false }) || !is_object {
        return Outcome::Failed;
    }
    // A kind of result that is not known may be about this one call, so only the whole one is kept (2026-07-28 basic,
    // *Results*: without `resultType` it is complete).
    let is_complete = seen.result_type.is_none_or(|kind| kind.get(text) == "complete");
    if !is_complete || seen.request_state.is_some() || !seen.task_ids.is_empty() {
        return Outcome::Unfinished;
    }
    if seen.is_error { Outcome::ToolError } else { Outcome::Complete }
}

/// What a modern result says of its own keeping (2026-07-28 server/utilities/caching).
pub fn hint(seen: &Skim, text: &[u8]) -> Hint {
    // Absent, negative or no whole number: immediately stale.
    let ttl_ms = seen.ttl_ms.and_then(|span| span.text(text).parse().ok()).unwrap_or(0);
    let said = match seen.cache_scope.map(|scope| scope.get(text)).as_deref() {
        Some("public") => Said::Public,
        Some(_) | None => Said::Private,
    };
    Hint { ttl_ms, said }
}

impl Form {
    /// The form of the result of the response `text`, which was looked at as `seen`; none without a result object.
    pub fn of(text: &[u8], seen: &Skim, telling: Telling) -> Option<Form> {
        let result = seen.result.filter(|result| result.of(text).first() == Some(&b'{'))?;
        let mut cuts = Vec::with_capacity(2);
        cuts.extend(mark_cut(text, seen, result, telling));
        if let Some(span) = seen.ttl_ms.filter(|span| span.of(text).iter().all(u8::is_ascii_digit)) {
            cuts.push(Cut { span, before: String::new(), word: Some(Word::Ttl), after: "" });
        }
        cuts.sort_by_key(|cut| cut.span.start);
        let mut out = Vec::with_capacity(result.len() + 48);
        let (mut mark, mut ttl) = (None, None);
        let mut from = result.start;
        for cut in cuts {
            out.extend_from_slice(Span { start: from, end: cut.span.start }.of(text));
            out.extend_from_slice(cut.before.as_bytes());
            let place = u32::try_from(out.len()).ok();
            match cut.word {
                Some(Word::Mark) => mark = place,
                Some(Word::Ttl) => ttl = place,
                None => {}
            }
            out.extend_from_slice(cut.after.as_bytes());
            from = cut.span.end;
        }
        out.extend_from_slice(Span { start: from, end: result.end }.of(text));
        Some(Form { text: Bytes::from(out.into_boxed_slice()), mark, ttl })
    }

    /// A form from its parts, as another process kept them; none if they do not fit together.
    pub fn from_parts(text: Bytes, mark: Option<u32>, ttl: Option<u32>) -> Option<Form> {
        let fits = |place: &u32| *place as usize <= text.len();
        (mark.iter().all(fits) && ttl.iter().all(fits)).then_some(Form { text, mark, ttl })
    }

    /// The text, where its mark stands, and where its `ttlMs` does.
    pub fn parts(&self) -> (&Bytes, Option<u32>, Option<u32>) {
        (&self.text, self.mark, self.ttl)
    }

    /// Bytes of the text.
    pub fn len(&self) -> usize {
        self.text.len()
    }

    /// Whether the text is empty, which no result is.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// The response to the request `id` (raw JSON): this result, `age` old, with `left` of its life.
    pub fn response(&self, id: &[u8], status: Status, age: Duration, left: Duration) -> Bytes {
        const HEAD: &[u8] = br#"{"jsonrpc":"2.0","id":"#;
        const MIDDLE: &[u8] = br#","result":"#;
        let mut out = Vec::with_capacity(HEAD.len() + id.len() + MIDDLE.len() + self.text.len() + 64);
        out.extend_from_slice(HEAD);
        out.extend_from_slice(id);
        out.extend_from_slice(MIDDLE);
        self.write(status, age, left, &mut out);
        out.push(b'}');
        Bytes::from(out)
    }

    fn write(&self, status: Status, age: Duration, left: Duration, out: &mut Vec<u8>) {
        let mut places = [(self.mark, Word::Mark), (self.ttl, Word::Ttl)];
        if self.ttl < self.mark {
            places.swap(0, 1);
        }
        let mut from = 0;
        for (place, word) in places {
            let Some(place) = place.map(|place| place as usize) else { continue };
            out.extend_from_slice(&self.text[from..place]);
            match word {
                Word::Mark => write_mark(status, age, out),
                Word::Ttl => write_number(millis(left), out),
            }
            from = place;
        }
        out.extend_from_slice(&self.text[from..]);
    }
}

/// The response `text` with the mark of a miss in its result, if that is an object; otherwise as it is.
pub(crate) fn marked(text: &Bytes, seen: &Skim) -> Bytes {
    let result = seen.result.filter(|result| result.of(text).first() == Some(&b'{'));
    let cut = result.and_then(|result| mark_cut(text, seen, result, Telling::Marked));
    let Some(cut) = cut else { return text.clone() };
    let mut out = Vec::with_capacity(text.len() + 80);
    out.extend_from_slice(&text[..cut.span.start as usize]);
    out.extend_from_slice(cut.before.as_bytes());
    write_mark(Status::Miss, Duration::ZERO, &mut out);
    out.extend_from_slice(cut.after.as_bytes());
    out.extend_from_slice(&text[cut.span.end as usize..]);
    out.into()
}

fn write_mark(status: Status, age: Duration, out: &mut Vec<u8>) {
    let status: &[u8] = match status {
        Status::Hit => br#"{"status":"hit","ageMs":"#,
        Status::Stale => br#"{"status":"stale","ageMs":"#,
        Status::Miss => br#"{"status":"miss","ageMs":"#,
    };
    out.extend_from_slice(status);
    // As 64 bits: half a million years, and much less work than 128.
    write_number(millis(age), out);
    out.push(b'}');
}

/// By hand: with each hit, and a fifth of what formatting costs.
fn write_number(mut number: u64, out: &mut Vec<u8>) {
    const DIGITS_MAX: usize = 20;
    let (mut digits, mut first) = ([0; DIGITS_MAX], DIGITS_MAX);
    loop {
        first -= 1;
        digits[first] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[first..]);
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Where the mark goes: over the one of a gateway behind us, else into `_meta`, else into a `_meta` of its own.
fn mark_cut(text: &[u8], seen: &Skim, result: Span, telling: Telling) -> Option<Cut> {
    if telling == Telling::Silent {
        return None;
    }
    if let Some(span) = seen.cache_mark {
        return Some(Cut { span, before: String::new(), word: Some(Word::Mark), after: "" });
    }
    let (object, before) = match seen.result_meta {
        Some(meta) => (meta, format!(r#""{}":"#, meta::CACHE)),
        None => (result, format!(r#""_meta":{{"{}":"#, meta::CACHE)),
    };
    let inside = Span { start: object.start + 1, end: object.end };
    let is_empty = inside.of(text).iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'}');
    let after = match (seen.result_meta.is_some(), is_empty) {
        (true, true) => "",
        (true, false) => ",",
        (false, true) => "}",
        (false, false) => "},",
    };
    Some(Cut { span: Span { start: inside.start, end: inside.start }, before, word: Some(Word::Mark), after })
}

#[cfg(test)]
mod tests {
    use regatta_mcp::skim;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn response(result: &str) -> Bytes {
        Bytes::from(format!(r#"{{"jsonrpc":"2.0","id":1,"result":{result}}}"#))
    }

    fn form(result: &str, telling: Telling) -> Form {
        let text = response(result);
        Form::of(&text, &skim(&text).expect("JSON-RPC"), telling).expect("an object")
    }

    fn given(form: &Form) -> String {
        let bytes = form.response(b"\"x\"", Status::Hit, SECOND, 2 * SECOND);
        String::from_utf8(bytes.to_vec()).expect("UTF-8")
    }

    #[test]
    fn each_answer_gets_its_id_and_its_mark() {
        const MARK: &str = r#""io.regatta/cache":{"status":"hit","ageMs":1000}"#;
        for (result, expected) in [
            ("{}", format!(r#"{{"_meta":{{{MARK}}}}}"#)),
            (r#"{"content":[]}"#, format!(r#"{{"_meta":{{{MARK}}},"content":[]}}"#)),
            (r#"{"_meta":{},"content":[]}"#, format!(r#"{{"_meta":{{{MARK}}},"content":[]}}"#)),
            (r#"{"_meta": {"a":1}}"#, format!(r#"{{"_meta": {{{MARK},"a":1}}}}"#)),
            (
                r#"{"_meta":{"a":1,"io.regatta/cache":{"status":"miss","ageMs":0}}}"#,
                format!(r#"{{"_meta":{{"a":1,{MARK}}}}}"#),
            ),
            (r#"{"ttlMs":60000,"tools":[]}"#, format!(r#"{{"_meta":{{{MARK}}},"ttlMs":2000,"tools":[]}}"#)),
            (
                r#"{"ttlMs":5,"_meta":{},"tools":[]}"#,
                format!(r#"{{"ttlMs":2000,"_meta":{{{MARK}}},"tools":[]}}"#),
            ),
        ] {
            let expected = format!(r#"{{"jsonrpc":"2.0","id":"x","result":{expected}}}"#);
            assert_eq!(given(&form(result, Telling::Marked)), expected, "{result}");
        }
    }

    #[test]
    fn a_silent_result_stays_as_the_server_wrote_it() {
        let result = r#"{ "content" : [ {"type":"text","text":"ü \u00fc"} ] , "_meta":{"a":1} }"#;
        let expected = format!(r#"{{"jsonrpc":"2.0","id":"x","result":{result}}}"#);
        assert_eq!(given(&form(result, Telling::Silent)), expected);
    }

    #[test]
    fn a_miss_is_marked_in_the_servers_own_answer() {
        let text = response(r#"{"content":[]}"#);
        let marked = marked(&text, &skim(&text).expect("JSON-RPC"));
        assert_eq!(
            marked,
            response(r#"{"_meta":{"io.regatta/cache":{"status":"miss","ageMs":0}},"content":[]}"#)
        );
    }

    #[test]
    fn a_number_is_written_as_everybody_writes_it() {
        for number in [0, 9, 10, 1_000, 12_345_678, u64::MAX] {
            let mut out = Vec::new();
            write_number(number, &mut out);
            assert_eq!(out, number.to_string().as_bytes());
        }
    }

    #[test]
    fn outcomes_are_told_by_what_the_result_says_itself() {
        for (text, expected) in [
            (r#"{"id":1,"result":{"content":[]}}"#, Outcome::Complete),
            (r#"{"id":1,"result":{"resultType":"complete","isError":false}}"#, Outcome::Complete),
            (r#"{"id":1,"result":{"isError":true}}"#, Outcome::ToolError),
            (r#"{"id":1,"result":{"resultType":"input_required"}}"#, Outcome::Unfinished),
            (r#"{"id":1,"result":{"resultType":"task","taskId":"x"}}"#, Outcome::Unfinished),
            (r#"{"id":1,"result":{"task":{"taskId":"x"}}}"#, Outcome::Unfinished),
            (r#"{"id":1,"result":{"requestState":"x"}}"#, Outcome::Unfinished),
            (r#"{"id":1,"result":[1]}"#, Outcome::Failed),
            (r#"{"id":1,"error":{"code":-32603,"message":"x"}}"#, Outcome::Failed),
            (r#"{"id":1,"result":{},"error":{"code":1,"message":"x"}}"#, Outcome::Failed),
        ] {
            let seen = skim(text.as_bytes()).expect("JSON-RPC");
            assert_eq!(outcome(&seen, text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn a_hint_that_is_not_clear_is_none() {
        for (result, ttl_ms, said) in [
            (r#"{"ttlMs":5000,"cacheScope":"public"}"#, 5000, Said::Public),
            (r#"{"ttlMs":5000,"cacheScope":"private"}"#, 5000, Said::Private),
            (r#"{"ttlMs":-1,"cacheScope":"Public"}"#, 0, Said::Private),
            (r#"{"ttlMs":"5000"}"#, 0, Said::Private),
            (r#"{"ttlMs":1.5}"#, 0, Said::Private),
            ("{}", 0, Said::Private),
        ] {
            let text = response(result);
            assert_eq!(hint(&skim(&text).expect("JSON-RPC"), &text), Hint { ttl_ms, said }, "{result}");
        }
    }

    #[test]
    fn parts_that_do_not_fit_are_no_form() {
        let (text, mark, ttl) = (Bytes::from_static(b"{}"), Some(1), None);
        assert!(Form::from_parts(text.clone(), mark, ttl).is_some());
        assert!(Form::from_parts(text, Some(3), None).is_none());
    }
}
