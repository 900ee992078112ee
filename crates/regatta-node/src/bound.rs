//! How much memory load can make a node take: a sum over the settings, said at the start and in `/metrics`.
//!
//! Of what clients send and what the node keeps for them. Not in it: what handlers hold and say, and the store of a node
//! without `store_url`, which has bounds of its own.

use crate::opened;
use crate::settings::Settings;

/// The head of a request, and as much of an answer before it is written on.
pub(crate) const BUFFER_MAX: usize = 32 << 10;
/// The process itself, and what the allocator keeps.
const PROCESS: u64 = 64 << 20;
/// A connection's task and its request's, beside two buffers.
const CONNECTION: u64 = 16 << 10;
/// A stream that stands, with what it is behind.
const STREAM: u64 = 8 << 10;
/// A body as it came, once more in one piece, and parsed: at worst `[0,0,…`, two bytes for an element that takes 32 in each
/// of serde's buffer and the value made of it, in vectors that may be half empty.
const FOR_EACH_BYTE: u64 = 2 + 2 * 2 * 32 / 2;

impl Settings {
    /// Bytes that a node with these settings takes at most, whatever clients send: beside what its handlers hold and say,
    /// and, without `store_url`, what the sessions and their data take.
    pub fn memory_max(&self) -> u64 {
        let of = |number: usize, each: u64| (number as u64).saturating_mul(each);
        let body = of(self.request_bytes_max, FOR_EACH_BYTE);
        [
            of(self.connections_max, 2 * BUFFER_MAX as u64 + CONNECTION),
            of(self.concurrent_max, body),
            of(self.streams_max, STREAM),
            crate::keeping::BYTES_MAX,
            opened::BYTES_MAX,
        ]
        .into_iter()
        .fold(PROCESS, u64::saturating_add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_grows_with_what_is_let_in() {
        let small = Settings {
            connections_max: 100,
            concurrent_max: 10,
            request_bytes_max: 1000,
            streams_max: 0,
            ..Settings::default()
        };
        assert_eq!(small.memory_max(), (144 << 20) + 100 * (80 << 10) + 10 * 66_000);
        let more = Settings { connections_max: 101, ..small.clone() };
        assert_eq!(more.memory_max() - small.memory_max(), 80 << 10);
        let endless = Settings { request_bytes_max: usize::MAX, ..small };
        assert_eq!(endless.memory_max(), u64::MAX);
    }
}
