//! What must hold for any bytes of a replica's whatever. Shared by the tests beside it and the fuzz target.

use regatta_proxy::upstream::codec::{Broken, HeadReader, Lasts};

/// How the reading of one answer ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    /// The head was refused.
    Refused(Broken),
    /// The connection ended in the head.
    NoHead,
    /// All came.
    Whole,
    /// The connection ended in the body.
    Cut,
    /// The body was malformed.
    Malformed,
}

/// One answer, read from `pieces` and then the end of the connection: its status, its body, whether the connection lasts.
pub fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Ended, u16, Vec<u8>, Lasts) {
    let mut pieces = pieces.into_iter();
    let mut heads = HeadReader::default();
    let mut received = loop {
        let Some(piece) = pieces.next() else { return (Ended::NoHead, 0, Vec::new(), Lasts::UntilEnd) };
        match heads.feed(piece) {
            Ok(None) => {}
            Ok(Some(received)) => break received,
            Err(broken) => return (Ended::Refused(broken), 0, Vec::new(), Lasts::UntilEnd),
        }
    };
    let mut body = received.ahead.to_vec();
    for mut piece in pieces {
        body.extend_from_slice(&received.reader.take(&mut piece));
        if received.reader.has_ended() && !piece.is_empty() {
            received.lasts = Lasts::UntilEnd;
        }
    }
    let ended = match () {
        () if received.reader.is_malformed() => Ended::Malformed,
        () if received.reader.close() => Ended::Whole,
        () => Ended::Cut,
    };
    (ended, received.head.status.as_u16(), body, received.lasts)
}

/// Whoever sends the bytes, and wherever the network cuts them: they mean the same, and never more than was sent.
#[allow(dead_code, reason = "the tests of known answers do not use it")]
pub fn answer(bytes: &[u8]) {
    let whole = meaning([bytes]);
    let size = usize::from(bytes.last().copied().unwrap_or(1)).max(1);
    assert_eq!(meaning(bytes.chunks(1)), whole);
    assert_eq!(meaning(bytes.chunks(size)), whole);
    assert!(whole.2.len() <= bytes.len());
}

/// As `read`, but for what may depend on where the bytes are cut: which fault of a head is seen first, and what is said of a
/// connection that is over in any case.
fn meaning<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Ended, u16, Vec<u8>, Lasts) {
    let (ended, status, body, lasts) = read(pieces);
    match ended {
        Ended::Refused(_) | Ended::NoHead => (Ended::NoHead, status, body, lasts),
        Ended::Cut | Ended::Malformed => (ended, status, body, Lasts::UntilEnd),
        Ended::Whole => (ended, status, body, lasts),
    }
}
