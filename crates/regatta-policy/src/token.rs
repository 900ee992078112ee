//! What a session token says: all that any gateway needs to serve the session without a look-up (SESSIONS 1).
//!
//! Content and bytes only: sealing is `regatta-seal`'s, and the principal is not in here but in the seal's associated
//! data. The client's `initialize` params ride along deflated, so that a re-home can shake hands in the client's name.

mod capabilities;
mod dictionary;
mod params;

pub use capabilities::Capabilities;
pub use params::{INFLATED_MAX, PackedParams, ParamsBroken, ParamsTooLarge, Shrunk};

use crate::ids::ReplicaId;
use crate::layout::{Reader, Writer};

/// Layout 1 and dictionary 1. A changed dictionary needs a new byte: old tokens must stay readable.
const FORMAT: u8 = 1;

/// Bytes kept free for the upstream's session id while the params are fitted: it is not known before the handshake.
const UPSTREAM_SESSION_ROOM: usize = 512;

/// The legacy protocol versions that a session can be negotiated at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LegacyVersion {
    /// `2024-11-05`: some servers still answer with it over Streamable HTTP.
    V2024_11_05 = 1,
    /// `2025-03-26`.
    V2025_03_26 = 2,
    /// `2025-06-18`.
    V2025_06_18 = 3,
    /// `2025-11-25`.
    V2025_11_25 = 4,
}

impl LegacyVersion {
    const ALL: [LegacyVersion; 4] = [
        LegacyVersion::V2024_11_05,
        LegacyVersion::V2025_03_26,
        LegacyVersion::V2025_06_18,
        LegacyVersion::V2025_11_25,
    ];

    /// The version with this name, if it is a legacy one.
    pub fn named(name: &str) -> Option<LegacyVersion> {
        Self::ALL.into_iter().find(|version| version.as_str() == name)
    }

    /// Its name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            LegacyVersion::V2024_11_05 => "2024-11-05",
            LegacyVersion::V2025_03_26 => "2025-03-26",
            LegacyVersion::V2025_06_18 => "2025-06-18",
            LegacyVersion::V2025_11_25 => "2025-11-25",
        }
    }
}

/// A session's place at one server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Binding {
    /// The replica that holds it.
    pub replica: ReplicaId,
    /// The `Mcp-Session-Id` that the replica gave; `None` if it gave none.
    pub upstream_session: Option<String>,
}

/// The content of a session token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionToken {
    /// Random; names the session in the store and in associated data.
    pub uuid: [u8; 16],
    /// Hash of the fleet's name: a token of another fleet is refused.
    pub fleet: [u8; 8],
    /// What was negotiated with the client.
    pub version: LegacyVersion,
    /// What the server declared: a re-home needs at least this.
    pub capabilities: Capabilities,
    /// When it was issued, seconds since 1970.
    pub issued_s: u32,
    /// One for each server that the session is bound at.
    pub bindings: Vec<Binding>,
    /// The client's `initialize` params.
    pub params: PackedParams,
}

/// The bytes are no token content that this version understands. They were sealed by a gateway of the fleet, so a newer
/// one is about; nobody else could have made them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a session token of a layout unknown here")]
pub struct UnknownLayout;

impl SessionToken {
    /// The bytes to seal. Format byte first; a reader skips what is appended in later versions.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.byte(FORMAT);
        writer.array(self.uuid);
        writer.array(self.fleet);
        writer.byte(self.version as u8);
        writer.number(u64::from(self.capabilities.0));
        writer.array(self.issued_s.to_be_bytes());
        writer.number(self.bindings.len() as u64);
        for binding in &self.bindings {
            writer.nested(|writer| write_binding(writer, binding));
        }
        writer.bytes(self.params.as_bytes());
        writer.finish()
    }

    /// The content of opened bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<SessionToken, UnknownLayout> {
        read(&mut Reader(bytes)).ok_or(UnknownLayout)
    }

    /// How many bytes the packed params may have in a token whose content has at most `plain_max` bytes and which is
    /// bound at one server.
    pub fn params_room(plain_max: usize) -> usize {
        // Format, uuid, fleet, version, capabilities, time, count, binding and its length, length of the params.
        const FIXED: usize = 1 + 16 + 8 + 1 + 5 + 4 + 1 + (2 + 8 + 3) + 3;
        plain_max.saturating_sub(FIXED + UPSTREAM_SESSION_ROOM)
    }
}

fn read(reader: &mut Reader<'_>) -> Option<SessionToken> {
    if reader.byte()? != FORMAT {
        return None;
    }
    let uuid = reader.array()?;
    let fleet = reader.array()?;
    let code = reader.byte()?;
    let version = LegacyVersion::ALL.into_iter().find(|version| *version as u8 == code)?;
    let capabilities = Capabilities(u32::try_from(reader.number()?).ok()?);
    let issued_s = u32::from_be_bytes(reader.array()?);
    let bindings = (0..reader.number()?)
        .map(|_| read_binding(&mut Reader(reader.bytes()?)))
        .collect::<Option<Vec<Binding>>>()?;
    let params = PackedParams::from_bytes(reader.bytes()?);
    Some(SessionToken { uuid, fleet, version, capabilities, issued_s, bindings, params })
}

/// How an upstream session id is written: most are UUIDs, which take 16 bytes instead of 36.
const NO_SESSION: u8 = 0;
const AS_TEXT: u8 = 1;
const AS_UUID: u8 = 2;
const AS_HEX: u8 = 3;

pub(crate) fn write_binding(writer: &mut Writer, binding: &Binding) {
    writer.array(binding.replica.0);
    let Some(session) = &binding.upstream_session else { return writer.byte(NO_SESSION) };
    match unhex(session) {
        Some((uuid, kind)) => {
            writer.byte(kind);
            writer.array(uuid);
        }
        None => {
            writer.byte(AS_TEXT);
            writer.bytes(session.as_bytes());
        }
    }
}

pub(crate) fn read_binding(reader: &mut Reader<'_>) -> Option<Binding> {
    let replica = ReplicaId(reader.array()?);
    let upstream_session = match reader.byte()? {
        NO_SESSION => None,
        AS_TEXT => Some(reader.text()?),
        AS_UUID => Some(rehex(reader.array()?, "-")),
        AS_HEX => Some(rehex(reader.array()?, "")),
        _ => return None,
    };
    Some(Binding { replica, upstream_session })
}

/// The bytes of a lower-case UUID with dashes or of 32 lower-case hexadecimal digits; only what `rehex` writes back
/// in the same spelling.
fn unhex(text: &str) -> Option<([u8; 16], u8)> {
    let (kind, dash) = match text.len() {
        36 => (AS_UUID, "-"),
        32 => (AS_HEX, ""),
        _ => return None,
    };
    let digits: Vec<u32> = text.chars().filter_map(|digit| digit.to_digit(16)).collect();
    let pairs: &[[u32; 2]] = digits.as_chunks().0;
    let mut bytes = [0; 16];
    if digits.len() != 32 {
        return None;
    }
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = (high * 16 + low) as u8;
    }
    (rehex(bytes, dash) == text).then_some((bytes, kind))
}

fn rehex(bytes: [u8; 16], dash: &str) -> String {
    let mut text = String::with_capacity(36);
    for (at, byte) in bytes.into_iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push_str(dash);
        }
        for digit in [byte >> 4, byte & 15] {
            text.push(char::from(b"0123456789abcdef"[usize::from(digit)]));
        }
    }
    text
}

#[cfg(test)]
mod tests;
