//! The PROXY protocol, version 2: who is behind a proxy that passes bytes on (haproxy's proxy-protocol.txt, section 2.2).
//!
//! Read before TLS, from trusted proxies only, where the config says that all of them write it. Bounded in length and
//! in time; a connection that begins with anything else is closed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::{AsyncRead, AsyncReadExt as _};

const MARK: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Bytes behind the fixed part that are read; extensions beyond the addresses are skipped.
const REST_MAX: usize = 2048;

/// The header is not there, or not as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoPreface;

/// Reads the header; gives the client's address, or `None` if the proxy speaks for itself (health checks) or of no
/// internet address.
pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<SocketAddr>, NoPreface> {
    let mut fixed = [0; 16];
    stream.read_exact(&mut fixed).await.map_err(|_| NoPreface)?;
    let length = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if fixed[..12] != MARK || fixed[12] >> 4 != 2 || length > REST_MAX {
        return Err(NoPreface);
    }
    let mut rest = vec![0; length];
    stream.read_exact(&mut rest).await.map_err(|_| NoPreface)?;
    match (fixed[12] & 15, fixed[13]) {
        (0, _) => Ok(None),
        (1, 0x11) => v4(&rest).map(Some).ok_or(NoPreface),
        (1, 0x21) => v6(&rest).map(Some).ok_or(NoPreface),
        (1, _) => Ok(None),
        (_, _) => Err(NoPreface),
    }
}

/// Both addresses, then both ports.
fn v4(rest: &[u8]) -> Option<SocketAddr> {
    let [a, b, c, d, _, _, _, _, high, low, _, _] = *rest.first_chunk::<12>()?;
    Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(a, b, c, d)), u16::from_be_bytes([high, low])))
}

fn v6(rest: &[u8]) -> Option<SocketAddr> {
    let (addresses, ports) = rest.split_first_chunk::<32>()?;
    let (source, [high, low, _, _]) = (addresses.first_chunk::<16>()?, *ports.first_chunk::<4>()?);
    Some(SocketAddr::new(IpAddr::V6(Ipv6Addr::from(*source)), u16::from_be_bytes([high, low])))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn of(command: u8, family: u8, rest: &[u8]) -> (Result<Option<SocketAddr>, NoPreface>, Vec<u8>) {
        let length = u16::try_from(rest.len()).expect("short").to_be_bytes();
        let bytes = [&MARK[..], &[command, family], &length, rest, b"GET"].concat();
        let mut reader = bytes.as_slice();
        (read(&mut reader).await, reader.to_vec())
    }

    #[tokio::test]
    async fn names_the_client_and_takes_no_byte_of_its_request() {
        let v4 = [203, 0, 113, 9, 10, 0, 0, 1, 0x12, 0x34, 0, 80];
        let told = of(0x21, 0x11, &v4).await;
        assert_eq!(told, (Ok(Some("203.0.113.9:4660".parse().expect("an address"))), b"GET".to_vec()));
        let with_extension = [&v4[..], &[4, 0, 1, 0]].concat();
        assert_eq!(of(0x21, 0x11, &with_extension).await, told);
        let v6 = [&Ipv6Addr::LOCALHOST.octets()[..], &[0; 16], &[0, 1, 0, 2]].concat();
        assert_eq!(of(0x21, 0x21, &v6).await.0, Ok(Some("[::1]:1".parse().expect("an address"))));
        assert_eq!(of(0x20, 0, &[]).await, (Ok(None), b"GET".to_vec()));
        assert_eq!(of(0x21, 0x31, &[0; 216]).await.0, Ok(None), "a path is no address");
    }

    #[tokio::test]
    async fn anything_else_is_refused() {
        assert_eq!(of(0x11, 0x11, &[0; 12]).await.0, Err(NoPreface), "another version");
        assert_eq!(of(0x22, 0x11, &[0; 12]).await.0, Err(NoPreface), "an unknown command");
        assert_eq!(of(0x21, 0x11, &[0; 11]).await.0, Err(NoPreface), "too short for its addresses");
        assert_eq!(of(0x21, 0x11, &[0; 3000]).await.0, Err(NoPreface), "too long");
        for text in [&b"POST /mcp HTTP/1.1\r\n\r\n"[..], b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\n", b""] {
            assert_eq!(read(&mut { text }).await, Err(NoPreface));
        }
    }
}
