//! Names of events: a sealed label that says which stream, then the event's number in clear.
//!
//! The label is sealed once for each stream, not for each event: what it protects is whose stream this is, and a
//! client that changes the number only moves within its own stream (docs/adr/2026-11-21-event-ids.md).

use bytes::Bytes;
use http::HeaderValue;
use regatta_policy::ReplicaId;
use regatta_seal::{KeyRing, Purpose};
use regatta_store::Uuid16;

use crate::peers::letter::Context;

/// No event has this number or a later one: stores count exactly up to here, and clients choose what they send.
const SEQUENCE_END: u64 = 1 << 53;

/// What a label says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Label {
    /// The stream's number in its gateway.
    pub number: u64,
    /// The run of the gateway that holds its ring.
    pub boot: [u8; 8],
    /// The replica that speaks on it.
    pub replica: ReplicaId,
    /// Whose it is: another gateway has nothing else to tell by (RELIABILITY T7).
    pub context: Context,
    /// Raw id of the request it answers; none for a standing stream.
    pub id: Option<Bytes>,
}

/// An event id, opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EventId {
    pub label: Label,
    /// Number of the event.
    pub sequence: u64,
    /// From where the server itself can go on, where it can be relied on (`upstream_resume`).
    pub cursor: Option<Cursor>,
}

/// A server's own newest event id. It means something to its maker only, which need not be the replica that the label
/// names: a call may move before it is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cursor {
    /// The replica that gave it out.
    pub maker: ReplicaId,
    /// As it was given out.
    pub id: Bytes,
}

impl Cursor {
    /// As it lies in streams, letters and seals.
    pub fn to_bytes(&self) -> Bytes {
        [&self.maker.0[..], &self.id].concat().into()
    }

    /// What `to_bytes` made.
    pub fn from_bytes(bytes: &[u8]) -> Option<Cursor> {
        let (maker, id) = bytes.split_first_chunk()?;
        Some(Cursor { maker: ReplicaId(*maker), id: Bytes::copy_from_slice(id) })
    }

    /// Maker and `Last-Event-ID`, for an errand.
    pub fn asked(&self) -> Option<(ReplicaId, HeaderValue)> {
        Some((self.maker, HeaderValue::from_bytes(&self.id).ok()?))
    }
}

impl Label {
    /// The sealed label, for events of `session`.
    pub fn seal(&self, ring: &KeyRing, session: Uuid16) -> String {
        let id = self.id.as_deref().unwrap_or_default();
        let plain = [&self.number.to_be_bytes()[..], &self.boot, &self.replica.0, &self.context, id].concat();
        ring.seal(Purpose::Event, &[&session.0], &plain)
    }
}

/// A server's event id as it rides in ours, for events of `session`.
pub(crate) fn seal_cursor(ring: &KeyRing, session: Uuid16, cursor: &Cursor) -> String {
    ring.seal(Purpose::Event, &[&session.0, b"cursor"], &cursor.to_bytes())
}

/// Opens an event id; `None` if it was not given out in `session`.
pub(crate) fn open(ring: &KeyRing, session: Uuid16, text: &str) -> Option<EventId> {
    let (label, rest) = text.split_once('.')?;
    let (sequence, cursor) =
        rest.split_once('.').map_or((rest, None), |(number, cursor)| (number, Some(cursor)));
    let cursor = match cursor {
        Some(cursor) => {
            let opened = ring.open(Purpose::Event, &[&session.0, b"cursor"], cursor).ok()?;
            Some(Cursor::from_bytes(&opened.plain)?)
        }
        None => None,
    };
    let plain = ring.open(Purpose::Event, &[&session.0], label).ok()?.plain;
    let (number, rest) = plain.split_first_chunk()?;
    let (boot, rest) = rest.split_first_chunk()?;
    let (replica, rest) = rest.split_first_chunk()?;
    let (context, id) = rest.split_first_chunk()?;
    let id = (!id.is_empty()).then(|| Bytes::copy_from_slice(id));
    let (number, replica) = (u64::from_be_bytes(*number), ReplicaId(*replica));
    let label = Label { number, boot: *boot, replica, context: *context, id };
    let sequence = sequence.parse().ok().filter(|sequence| *sequence < SEQUENCE_END)?;
    Some(EventId { label, sequence, cursor })
}

#[cfg(test)]
mod tests {
    use super::*;
    use regatta_seal::MasterKey;

    #[test]
    fn opens_in_its_own_session_only() {
        let ring = KeyRing::new(&MasterKey::random());
        let label = Label {
            number: 7,
            boot: [1; 8],
            replica: ReplicaId([2; 8]),
            context: [5; 8],
            id: Some(Bytes::from_static(b"\"a\"")),
        };
        let sealed = label.seal(&ring, Uuid16([3; 16]));
        let opened = open(&ring, Uuid16([3; 16]), &format!("{sealed}.12"));
        assert_eq!(opened, Some(EventId { label: label.clone(), sequence: 12, cursor: None }));
        let theirs = Cursor { maker: ReplicaId([9; 8]), id: Bytes::from_static(b"theirs") };
        let cursor = seal_cursor(&ring, Uuid16([3; 16]), &theirs);
        let opened = open(&ring, Uuid16([3; 16]), &format!("{sealed}.12.{cursor}"));
        assert_eq!(opened, Some(EventId { label, sequence: 12, cursor: Some(theirs) }));
        assert_eq!(
            open(&ring, Uuid16([3; 16]), &format!("{sealed}.12.{sealed}")),
            None,
            "a label is no cursor"
        );
        assert_eq!(open(&ring, Uuid16([4; 16]), &format!("{sealed}.12")), None);
        assert_eq!(open(&ring, Uuid16([3; 16]), &sealed), None);
        assert_eq!(open(&ring, Uuid16([3; 16]), &format!("{sealed}.x")), None);
        assert_eq!(open(&ring, Uuid16([3; 16]), &format!("{}.1", &sealed[..sealed.len() - 1])), None);
    }
}
