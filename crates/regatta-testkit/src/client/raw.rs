//! Bytes on a socket, for requests that no HTTP client would send.

use super::PATIENCE;
use crate::{Result, because};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A TCP connection that sends what it is told.
#[derive(Debug)]
pub struct RawConnection {
    socket: TcpStream,
}

impl RawConnection {
    /// Connects.
    pub async fn open(address: SocketAddr) -> Result<Self> {
        let socket = TcpStream::connect(address).await.map_err(because("connecting"))?;
        socket.set_nodelay(true).map_err(because("setting TCP_NODELAY"))?;
        Ok(RawConnection { socket })
    }

    /// Sends all of `bytes`.
    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) -> Result<()> {
        self.socket.write_all(bytes.as_ref()).await.map_err(because("writing"))
    }

    /// FIN: nothing more will be sent, answers are still read.
    pub async fn half_close(&mut self) -> Result<()> {
        self.socket.shutdown().await.map_err(because("half-closing"))
    }

    /// RST.
    pub fn reset(self) {
        crate::fault_proxy::reset(&self.socket);
    }

    /// Reads until what was read contains `text`; gives all of it. `Err` when the other side ends before.
    pub async fn read_until(&mut self, text: &str) -> Result<String> {
        let mut all = Vec::new();
        let reading = async {
            loop {
                let so_far = String::from_utf8_lossy(&all).into_owned();
                if so_far.contains(text) {
                    return Ok(so_far);
                }
                let read = self.socket.read_buf(&mut all).await.map_err(because("reading"))?;
                if read == 0 {
                    return Err(crate::Failure(format!("closed after {so_far:?}")));
                }
            }
        };
        tokio::time::timeout(PATIENCE, reading).await.map_err(because("no such text"))?
    }

    /// Reads until the other side closes or says nothing for `silence`. The flag says whether it closed.
    pub async fn read_rest(&mut self, silence: Duration) -> (Vec<u8>, bool) {
        let mut all = Vec::new();
        loop {
            match tokio::time::timeout(silence, self.socket.read_buf(&mut all)).await {
                Err(_) => return (all, false),
                Ok(Ok(0) | Err(_)) => return (all, true),
                Ok(Ok(_)) => {}
            }
        }
    }
}

/// Sends `bytes` on a connection of its own; gives what came back until it closed or was silent for 500 ms.
pub async fn raw(address: SocketAddr, bytes: impl AsRef<[u8]>) -> Result<String> {
    let mut connection = RawConnection::open(address).await?;
    // A server may answer and close before it has read everything.
    let _ = connection.write(bytes).await;
    let (answer, _) = connection.read_rest(Duration::from_millis(500)).await;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
