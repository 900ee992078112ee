//! What is set on every TCP connection, whichever side opened it. Touches no byte of it.

use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// Silence on a connection before the kernel asks whether the peer still lives (RELIABILITY F40).
const PROBE_AFTER: Duration = Duration::from_secs(15);
const PROBE_EVERY: Duration = Duration::from_secs(5);

/// Sends small writes at once, and gives up a peer that leaves bytes or probes unanswered for `user_timeout`.
/// A refusal by the kernel is no reason to do without the connection.
pub(crate) fn tune(stream: &TcpStream, user_timeout: Duration) {
    let socket = SockRef::from(stream);
    let _ = socket.set_tcp_nodelay(true);
    let _ = socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(PROBE_AFTER).with_interval(PROBE_EVERY));
    #[cfg(target_os = "linux")]
    let _ = socket.set_tcp_user_timeout(Some(user_timeout));
    #[cfg(not(target_os = "linux"))]
    let _ = user_timeout;
}

/// Bounds what the kernel takes from us ahead of a peer that reads slowly: without it, megabytes a connection (F36).
pub(crate) fn bound_unsent(stream: &TcpStream, bytes_max: usize) {
    #[cfg(target_os = "linux")]
    let _ = SockRef::from(stream).set_tcp_notsent_lowat(u32::try_from(bytes_max).unwrap_or(u32::MAX));
    #[cfg(not(target_os = "linux"))]
    let _ = (stream, bytes_max);
}
