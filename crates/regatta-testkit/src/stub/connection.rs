//! One connection of the stub: reads requests, plays replies, notices when the other side leaves.

use super::reply::{End, Framing, Live, Reply, Step};
use super::seen::{Fate, Seen};
use super::{OnConnect, Shared};
use bytes::{Bytes, BytesMut};
use serde_json::Value;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How a reply went.
enum Played {
    Whole(End),
    Left,
}

/// Serves one connection to its end. Dropped in the middle (the stub dies), it resets.
pub(crate) async fn run(socket: TcpStream, number: u64, what: OnConnect, shared: Arc<Shared>) {
    let _ = socket.set_nodelay(true);
    // Until an orderly end is reached, every way out of here is a reset.
    crate::fault_proxy::reset(&socket);
    match what {
        OnConnect::Reset => return,
        OnConnect::Close => return orderly(socket).await,
        OnConnect::Ignore => return std::future::pending().await,
        OnConnect::Serve => {}
    }
    let mut wire = Wire { socket, buffer: BytesMut::new() };
    let carrier = shared.carriers.carrier(number);
    loop {
        let seen = match wire.request(number).await {
            Ok(Some(seen)) => Arc::new(seen),
            Ok(None) | Err(_) => {
                drop(carrier);
                return orderly(wire.socket).await;
            }
        };
        if seen.rpc() == "tools/call" {
            carrier.carries(&wire.socket);
        }
        match answer(&mut wire, seen, &shared).await {
            End::Keep => {}
            End::Close => {
                drop(carrier);
                return orderly(wire.socket).await;
            }
            End::Reset => return,
        }
    }
}

/// Decides, plays, and notes what became of it.
async fn answer(wire: &mut Wire, seen: Arc<Seen>, shared: &Shared) -> End {
    let reply = shared.decide(&seen);
    let executes = seen.rpc() == "tools/call" && reply.counts_as_executed();
    let entry = executes.then(|| shared.journal.begin(&seen.op()));
    shared.note(seen.clone());
    let played = wire.play(reply, shared).await;
    let mut fate = seen.fate.lock().unwrap_or_else(PoisonError::into_inner);
    match played {
        Ok(Played::Whole(end)) => {
            fate.answered = Some(Instant::now());
            if let (Some(entry), End::Keep | End::Close) = (entry, end) {
                shared.journal.end(entry);
            }
            end
        }
        Ok(Played::Left) | Err(_) => {
            fate.left = Some(Instant::now());
            End::Close
        }
    }
}

/// FIN, and what the other side still sends is read, so that no RST follows.
async fn orderly(mut socket: TcpStream) {
    let _ = socket2::SockRef::from(&socket).set_linger(None);
    let _ = socket.shutdown().await;
    let mut rest = [0; 4096];
    let drain = async { while socket.read(&mut rest).await.is_ok_and(|read| read > 0) {} };
    let _ = tokio::time::timeout(std::time::Duration::from_secs(1), drain).await;
}

struct Wire {
    socket: TcpStream,
    buffer: BytesMut,
}

impl Wire {
    /// The next request; `None` when the other side closed in order.
    async fn request(&mut self, connection: u64) -> io::Result<Option<Seen>> {
        let head = loop {
            if let Some(end) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break self.buffer.split_to(end + 4);
            }
            if self.socket.read_buf(&mut self.buffer).await? == 0 {
                return Ok(None);
            }
        };
        let head = String::from_utf8_lossy(&head).into_owned();
        let mut lines = head.split("\r\n");
        let mut first = lines.next().unwrap_or_default().split(' ');
        let (method, path) = (first.next().unwrap_or_default(), first.next().unwrap_or_default());
        let headers: Vec<_> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let find = |name: &str| headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let body = match (find("transfer-encoding"), find("content-length")) {
            (Some(_), _) => self.chunks().await?,
            (None, Some(length)) => {
                let length = length.parse().map_err(|_| io::Error::other("bad content-length"))?;
                self.exactly(length).await?
            }
            (None, None) => Bytes::new(),
        };
        Ok(Some(Seen {
            connection,
            method: method.to_owned(),
            path: path.to_owned(),
            json: serde_json::from_slice(&body).unwrap_or(Value::Null),
            headers,
            body,
            at: Instant::now(),
            fate: Mutex::new(Fate::default()),
        }))
    }

    async fn exactly(&mut self, length: usize) -> io::Result<Bytes> {
        while self.buffer.len() < length {
            if self.socket.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(self.buffer.split_to(length).freeze())
    }

    async fn chunks(&mut self) -> io::Result<Bytes> {
        let mut body = BytesMut::new();
        loop {
            let line = loop {
                if let Some(end) = self.buffer.windows(2).position(|window| window == b"\r\n") {
                    break self.buffer.split_to(end + 2);
                }
                if self.socket.read_buf(&mut self.buffer).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            };
            let line = String::from_utf8_lossy(&line).into_owned();
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16).map_err(|_| io::Error::other("bad chunk size"))?;
            let mut chunk = self.exactly(size + 2).await?;
            if size == 0 {
                return Ok(body.freeze());
            }
            chunk.truncate(size);
            body.extend_from_slice(&chunk);
        }
    }

    async fn play(&mut self, reply: Reply, shared: &Shared) -> io::Result<Played> {
        if !reply.before.is_zero() && !self.pause(tokio::time::sleep(reply.before)).await? {
            return Ok(Played::Left);
        }
        // Heard from before the head goes out: what the test says after seeing the head is not missed.
        let is_live = reply.steps.iter().any(|step| matches!(step, Step::Live));
        let mut live = is_live.then(|| shared.live.subscribe());
        if reply.framing != Framing::Raw {
            self.socket.write_all(reply.head().as_bytes()).await?;
        }
        let mut body = Body { framing: reply.framing, left: reply.cut.map(|(bytes, _)| bytes) };
        for step in reply.steps {
            let alive = match step {
                Step::Body(bytes) => body.write(&mut self.socket, &bytes).await?,
                Step::Wait(pause) => self.pause(tokio::time::sleep(pause)).await?.into(),
                Step::Forever => self.pause(std::future::pending::<()>()).await?.into(),
                Step::EndlessComments => loop {
                    let more = body.write(&mut self.socket, ": x\n".repeat(256).as_bytes()).await?;
                    if more != Next::GoOn {
                        break more;
                    }
                },
                Step::Live => self.live(&mut body, live.take()).await?,
                Step::Answered(id, then) => {
                    let mut answer = None;
                    let waiting = async { answer = Some(shared.answer_to(&id).await) };
                    if self.pause(waiting).await? {
                        let json = answer.map_or(Value::Null, |seen| seen.json.clone());
                        let event = format!("event: message\ndata: {}\n\n", then(&json));
                        body.write(&mut self.socket, event.as_bytes()).await?
                    } else {
                        Next::Left
                    }
                }
            };
            match alive {
                Next::GoOn => {}
                Next::Cut => return Ok(Played::Whole(reply.cut.map_or(End::Close, |(_, end)| end))),
                Next::Left => return Ok(Played::Left),
            }
        }
        if reply.framing == Framing::Chunked && reply.end == End::Keep {
            self.socket.write_all(b"0\r\n\r\n").await?;
        }
        Ok(Played::Whole(reply.end))
    }

    async fn live(
        &mut self,
        body: &mut Body,
        heard: Option<tokio::sync::broadcast::Receiver<Live>>,
    ) -> io::Result<Next> {
        let Some(mut heard) = heard else { return Ok(Next::GoOn) };
        loop {
            let mut said = None;
            let waiting = async { said = heard.recv().await.ok() };
            if !self.pause(waiting).await? {
                return Ok(Next::Left);
            }
            match said {
                Some(Live::Bytes(bytes)) => match body.write(&mut self.socket, &bytes).await? {
                    Next::GoOn => {}
                    other => return Ok(other),
                },
                Some(Live::End) | None => return Ok(Next::GoOn),
            }
        }
    }

    /// Waits for `what`; `false` when the other side left meanwhile (a half-close counts). Bytes that come early are
    /// kept.
    async fn pause(&mut self, what: impl Future<Output = ()>) -> io::Result<bool> {
        tokio::pin!(what);
        loop {
            tokio::select! {
                biased;
                () = &mut what => return Ok(true),
                read = self.socket.read_buf(&mut self.buffer) => if read? == 0 { return Ok(false) },
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    GoOn,
    Cut,
    Left,
}

impl From<bool> for Next {
    fn from(still_there: bool) -> Self {
        if still_there { Next::GoOn } else { Next::Left }
    }
}

struct Body {
    framing: Framing,
    /// Bytes until the cut.
    left: Option<usize>,
}

impl Body {
    async fn write(&mut self, socket: &mut TcpStream, bytes: &[u8]) -> io::Result<Next> {
        let now = self.left.map_or(bytes.len(), |left| left.min(bytes.len()));
        if now > 0 {
            let part = &bytes[..now];
            if self.framing == Framing::Chunked {
                let size = format!("{now:x}\r\n");
                socket.write_all(&[size.as_bytes(), part, b"\r\n"].concat()).await?;
            } else {
                socket.write_all(part).await?;
            }
        }
        let Some(left) = &mut self.left else { return Ok(Next::GoOn) };
        *left -= now;
        Ok(if *left == 0 { Next::Cut } else { Next::GoOn })
    }
}
