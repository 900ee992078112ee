//! The client's `initialize` params in a token: raw deflate (RFC 1951) with a preset dictionary, made to fit.
//!
//! They are inflated only when a re-home shakes hands again, never on the way of a request. Inflating is bounded: a
//! token is ours, but a bound costs nothing.

use std::collections::BTreeMap;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use serde_json::value::RawValue;

use super::dictionary::DICTIONARY;

/// Bytes that params may have before they are packed.
pub const INFLATED_MAX: usize = 64 << 10;

/// Packed params.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PackedParams(pub(super) Vec<u8>);

/// What had to go so that the params fit. Each step takes what the steps before took, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shrunk {
    /// Nothing.
    Whole,
    /// `clientInfo.icons`.
    Icons,
    /// `clientInfo.description`.
    Description,
    /// `clientInfo.websiteUrl`.
    WebsiteUrl,
}

/// The params do not fit a token whatever is left out: −32602 at `initialize`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the params of initialize do not fit a session token")]
pub struct ParamsTooLarge;

/// The packed bytes are not what `pack` makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("packed params cannot be read")]
pub struct ParamsBroken;

impl PackedParams {
    /// Packs `params`, the JSON text of the client's `params` object, into at most `room` bytes; leaves out, in this
    /// order and only as far as needed, the client's icons, its description and its web site.
    pub fn fit(params: &[u8], room: usize) -> Result<(PackedParams, Shrunk), ParamsTooLarge> {
        let mut text = params.to_vec();
        for (shrunk, member) in [
            (Shrunk::Whole, None),
            (Shrunk::Icons, Some("icons")),
            (Shrunk::Description, Some("description")),
            (Shrunk::WebsiteUrl, Some("websiteUrl")),
        ] {
            if let Some(member) = member {
                text = without(&text, member).ok_or(ParamsTooLarge)?;
            }
            if text.len() <= INFLATED_MAX {
                let packed = pack(&text);
                if packed.len() <= room {
                    return Ok((PackedParams(packed), shrunk));
                }
            }
        }
        Err(ParamsTooLarge)
    }

    /// The JSON text of the params as they were packed.
    pub fn unpack(&self) -> Result<Vec<u8>, ParamsBroken> {
        let mut inflate = Decompress::new(false);
        inflate.set_dictionary(DICTIONARY).map_err(|_| ParamsBroken)?;
        let mut text = Vec::with_capacity(1024);
        loop {
            let rest = self.0.get(inflate.total_in() as usize..).ok_or(ParamsBroken)?;
            let status =
                inflate.decompress_vec(rest, &mut text, FlushDecompress::Finish).map_err(|_| ParamsBroken)?;
            match status {
                Status::StreamEnd => return Ok(text),
                // Only the want of room is a reason to go on.
                Status::Ok | Status::BufError if text.len() < text.capacity() => return Err(ParamsBroken),
                Status::Ok | Status::BufError if text.len() > INFLATED_MAX => return Err(ParamsBroken),
                // One byte over, so that the end of the longest text is seen.
                Status::Ok | Status::BufError => {
                    text.reserve_exact(text.len().min(INFLATED_MAX + 1 - text.len()))
                }
            }
        }
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> PackedParams {
        PackedParams(bytes.to_vec())
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

pub(super) fn pack(text: &[u8]) -> Vec<u8> {
    let mut deflate = Compress::new(Compression::best(), false);
    deflate.set_dictionary(DICTIONARY).expect("a fresh raw deflate stream takes a dictionary");
    // Stored blocks are the worst case: five bytes for each 64 KiB, and some for the end.
    let mut packed = Vec::with_capacity(text.len() + text.len() / 1000 + 64);
    loop {
        let rest = &text[deflate.total_in() as usize..];
        let status = deflate.compress_vec(rest, &mut packed, FlushCompress::Finish);
        match status.expect("deflate takes any bytes") {
            Status::StreamEnd => return packed,
            Status::Ok | Status::BufError => packed.reserve(256),
        }
    }
}

/// `params` without `clientInfo.<member>`; the other values keep their spelling. `None` if it is not a JSON object.
fn without(params: &[u8], member: &str) -> Option<Vec<u8>> {
    let mut params: BTreeMap<String, Box<RawValue>> = serde_json::from_slice(params).ok()?;
    if let Some(info) = params.get_mut("clientInfo")
        && let Ok(mut members) = serde_json::from_str::<BTreeMap<String, Box<RawValue>>>(info.get())
        && members.remove(member).is_some()
    {
        *info = serde_json::value::to_raw_value(&members).ok()?;
    }
    serde_json::to_vec(&params).ok()
}
