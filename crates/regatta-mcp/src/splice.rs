//! Replaces byte ranges of a message; everything else is copied as it is.

use bytes::{BufMut, Bytes, BytesMut};

use crate::span::Span;

/// `text` with each span replaced by its bytes. The cuts are in ascending order and do not overlap; an empty
/// span inserts. Without cuts nothing is copied.
///
/// # Panics
/// When the cuts are out of order or out of the text.
pub fn splice(text: &Bytes, cuts: &[(Span, Bytes)]) -> Bytes {
    if cuts.is_empty() {
        return text.clone();
    }
    let added: usize = cuts.iter().map(|(_, new)| new.len()).sum();
    let mut out = BytesMut::with_capacity(text.len() + added);
    let mut from = 0;
    for (span, new) in cuts {
        out.put_slice(&text[from..span.start as usize]);
        out.put_slice(new);
        from = span.end as usize;
    }
    out.put_slice(&text[from..]);
    out.freeze()
}

/// A cut that adds `member` (`"key":value`, without a comma) as the first one of the object at `object`.
pub fn insert_member(object: Span, member: &str, text: &[u8]) -> (Span, Bytes) {
    let inside = Span { start: object.start + 1, end: object.end };
    let first = inside.of(text).iter().find(|byte| !byte.is_ascii_whitespace());
    let place = Span { start: inside.start, end: inside.start };
    if first == Some(&b'}') {
        return (place, Bytes::copy_from_slice(member.as_bytes()));
    }
    let mut new = BytesMut::with_capacity(member.len() + 1);
    new.put_slice(member.as_bytes());
    new.put_u8(b',');
    (place, new.freeze())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::{insert_member, splice};
    use crate::span::Span;

    #[test]
    fn replaces_and_inserts_in_one_go() {
        let text = Bytes::from_static(b"0123456789");
        let cuts = [
            (Span { start: 0, end: 1 }, Bytes::from_static(b"zero")),
            (Span { start: 4, end: 4 }, Bytes::from_static(b"|")),
            (Span { start: 9, end: 10 }, Bytes::new()),
        ];
        assert_eq!(splice(&text, &cuts), "zero123|45678");
        assert_eq!(splice(&text, &[]).as_ptr(), text.as_ptr());
    }

    #[test]
    fn a_member_gets_a_comma_only_before_another() {
        for (object, expected) in
            [("{}", r#"{"k":1}"#), ("{ \n}", "{\"k\":1 \n}"), (r#"{ "a":2}"#, r#"{"k":1, "a":2}"#)]
        {
            let text = Bytes::copy_from_slice(object.as_bytes());
            let cut = insert_member(Span { start: 0, end: text.len() as u32 }, r#""k":1"#, &text);
            assert_eq!(splice(&text, &[cut]), expected);
        }
    }
}
