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
    /// Read behind the last answer.
    ahead: Vec<u8>,
}

/// One HTTP answer as it came.
#[derive(Clone, Debug, Default)]
pub struct RawAnswer {
    /// 0 when there was none.
    pub status: u16,
    /// Status line and headers.
    pub head: String,
    /// Without its framing.
    pub body: Vec<u8>,
}

impl RawAnswer {
    /// The first answer in `all` and where it ends; `is_over`: nothing more will come.
    fn parse(all: &[u8], is_over: bool) -> Option<(RawAnswer, usize)> {
        let start = all.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
        let head = String::from_utf8_lossy(&all[..start]).into_owned();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        if (100..200).contains(&status) {
            let (answer, end) = Self::parse(&all[start..], is_over)?;
            return Some((answer, start + end));
        }
        let lower = head.to_ascii_lowercase();
        let length = lower.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
        let (body, end) = if lower.contains("transfer-encoding: chunked") {
            unchunk(&all[start..], is_over).map(|(body, end)| (body, start + end))?
        } else {
            let end = start + length.unwrap_or(0usize);
            match all.get(start..end) {
                Some(body) => (body.to_vec(), end),
                None if is_over => (all[start..].to_vec(), all.len()),
                None => return None,
            }
        };
        Some((RawAnswer { status, head, body }, end))
    }
}

/// The content of a chunked body and where it ends; `is_over`: what there is will do.
fn unchunk(mut rest: &[u8], is_over: bool) -> Option<(Vec<u8>, usize)> {
    let (all, mut body) = (rest.len(), Vec::new());
    loop {
        let chunk = || {
            let line = rest.windows(2).position(|window| window == b"\r\n")?;
            let size = usize::from_str_radix(std::str::from_utf8(&rest[..line]).ok()?, 16).ok()?;
            let data = rest.get(line + 2..line + 2 + size)?;
            Some((data, rest.get(line + 2 + size + 2..)?))
        };
        match chunk() {
            Some((data, behind)) => {
                body.extend_from_slice(data);
                rest = behind;
                if data.is_empty() {
                    return Some((body, all - rest.len()));
                }
            }
            None => return is_over.then_some((body, all)),
        }
    }
}

impl RawConnection {
    /// Connects.
    pub async fn open(address: SocketAddr) -> Result<Self> {
        let socket = TcpStream::connect(address).await.map_err(because("connecting"))?;
        socket.set_nodelay(true).map_err(because("setting TCP_NODELAY"))?;
        Ok(RawConnection { socket, ahead: Vec::new() })
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

    /// Reads one answer to its end, as its own head frames it; 1xx heads are passed over. Status 0: the other side closed
    /// without a whole head.
    pub async fn read_answer(&mut self) -> RawAnswer {
        let mut all = std::mem::take(&mut self.ahead);
        loop {
            if let Some((answer, end)) = RawAnswer::parse(&all, false) {
                self.ahead = all.split_off(end);
                return answer;
            }
            if !matches!(self.socket.read_buf(&mut all).await, Ok(1..)) {
                return RawAnswer::parse(&all, true).map(|(answer, _)| answer).unwrap_or_default();
            }
        }
    }

    /// Reads until the other side closes or says nothing for `silence`. The flag says whether it closed.
    pub async fn read_rest(&mut self, silence: Duration) -> (Vec<u8>, bool) {
        let mut all = std::mem::take(&mut self.ahead);
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
