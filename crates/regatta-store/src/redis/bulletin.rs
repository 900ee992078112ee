//! Notices as they travel: who says it, what kind, about what. Pure.

use crate::{Notice, Uuid16};

/// The bytes of a notice of the process `instance`.
pub(super) fn write(instance: &[u8; 8], notice: Notice) -> Vec<u8> {
    let mut bytes = instance.to_vec();
    match notice {
        Notice::RecordChanged(session) => {
            bytes.push(b'r');
            bytes.extend_from_slice(&session.0);
        }
        Notice::Buried { day, digest } => {
            bytes.push(b'b');
            bytes.extend_from_slice(&day.to_be_bytes());
            bytes.extend_from_slice(&digest);
        }
        Notice::KeysChanged => bytes.push(b'k'),
        // These are about a process's own link and never travel.
        Notice::LinkLost | Notice::LinkRestored | Notice::Missed => {}
    }
    bytes
}

/// Who says it, and what; nothing if it is of a kind unknown here.
pub(super) fn read(bytes: &[u8]) -> Option<([u8; 8], Notice)> {
    let (instance, rest) = bytes.split_first_chunk()?;
    let (kind, rest) = rest.split_first()?;
    let notice = match kind {
        b'r' => Notice::RecordChanged(Uuid16(rest.try_into().ok()?)),
        b'b' => {
            let (day, digest) = rest.split_first_chunk()?;
            Notice::Buried { day: u32::from_be_bytes(*day), digest: digest.try_into().ok()? }
        }
        b'k' if rest.is_empty() => Notice::KeysChanged,
        _ => return None,
    };
    Some((*instance, notice))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        let notices = [
            Notice::RecordChanged(Uuid16([7; 16])),
            Notice::Buried { day: 20_000, digest: [9; 16] },
            Notice::KeysChanged,
        ];
        for notice in notices {
            let mut bytes = write(&[1; 8], notice);
            assert_eq!(read(&bytes), Some(([1; 8], notice)));
            bytes.push(0);
            assert_eq!(read(&bytes), None);
        }
        assert_eq!(read(b""), None);
        assert_eq!(read(&write(&[1; 8], Notice::Missed)), None);
    }
}
