//! What a handler of one request speaks through: its request, then the answers to what it asks its client.
//!
//! Ids of questions are made unlike any other in the fleet on their way out; log lines below the session's level go nowhere.
#![expect(deprecated, reason = "legacy clients set a log level still")]

use std::sync::{Arc, Mutex, PoisonError};

use rmcp::RoleServer;
use rmcp::model::{
    ClientJsonRpcMessage, ErrorData, JsonRpcMessage, LoggingLevel, RequestId, ServerJsonRpcMessage,
    ServerNotification,
};
use rmcp::transport::Transport;
use tokio::sync::{Semaphore, mpsc};

use crate::clock::Clock;
use crate::post::Post;
use crate::questions::{Questions, wire_id};

/// Messages on their way out, and answers on their way in.
const OUT_MAX: usize = 16;
const IN_MAX: usize = 64;

/// What a transport needs of its node and session.
pub(crate) struct Asking {
    pub(crate) questions: Arc<Questions>,
    pub(crate) post: Arc<Post>,
    pub(crate) session: [u8; 16],
    pub(crate) clock: Arc<Clock>,
    /// The session's log level, if it set one.
    pub(crate) level: Option<String>,
}

/// The transport of one request.
pub(crate) struct OneRequest {
    first: Option<ClientJsonRpcMessage>,
    /// Where answers come in, from the first question on: most calls ask nothing.
    inbox: Option<Inbox>,
    out: mpsc::Sender<ServerJsonRpcMessage>,
    /// Gets a permit with the response.
    done: Arc<Semaphore>,
    asking: Asking,
    asked: Arc<Asked>,
}

struct Inbox {
    answers: mpsc::Sender<ClientJsonRpcMessage>,
    coming: mpsc::Receiver<ClientJsonRpcMessage>,
}

/// The questions of one call: their ids as the handler's service has them, and their numbers.
struct Asked {
    questions: Arc<Questions>,
    numbers: Mutex<Vec<(RequestId, u64)>>,
}

impl Asked {
    fn note(&self, raw: RequestId, number: u64) {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner).push((raw, number));
    }

    fn take(&self, raw: &RequestId) -> Option<u64> {
        let mut numbers = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        let at = numbers.iter().position(|(asked, _)| asked == raw)?;
        Some(numbers.swap_remove(at).1)
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        for (_, number) in self.numbers.get_mut().unwrap_or_else(PoisonError::into_inner) {
            self.questions.close(*number);
        }
    }
}

impl Inbox {
    fn new() -> Inbox {
        let (answers, coming) = mpsc::channel(IN_MAX);
        Inbox { answers, coming }
    }
}

impl OneRequest {
    pub(crate) fn new(
        first: ClientJsonRpcMessage,
        asking: Asking,
    ) -> (OneRequest, mpsc::Receiver<ServerJsonRpcMessage>) {
        let (out, messages) = mpsc::channel(OUT_MAX);
        let asked = Arc::new(Asked { questions: asking.questions.clone(), numbers: Mutex::default() });
        let done = Arc::new(Semaphore::new(0));
        (OneRequest { first: Some(first), inbox: None, out, done, asking, asked }, messages)
    }

    /// What goes out in place of `message`, if anything does.
    fn outward(&mut self, mut message: ServerJsonRpcMessage) -> Option<ServerJsonRpcMessage> {
        match &mut message {
            JsonRpcMessage::Request(request) => {
                let Asking { questions, post, session, clock, .. } = &self.asking;
                let raw = request.id.clone();
                let answers = &self.inbox.get_or_insert_with(Inbox::new).answers;
                let Some(number) = questions.ask(*session, raw.clone(), answers.clone(), clock.pause())
                else {
                    let full = ErrorData::internal_error("too many calls wait for their clients", None);
                    let _ = answers.try_send(JsonRpcMessage::error(full, Some(raw)));
                    return None;
                };
                self.asked.note(raw, number);
                request.id = wire_id(post.own, number);
            }
            JsonRpcMessage::Notification(notification) => match &mut notification.notification {
                // The handler gave up waiting; the client knows the question by another id.
                ServerNotification::CancelledNotification(cancelled) => {
                    if let Some(number) =
                        cancelled.params.request_id.as_ref().and_then(|raw| self.asked.take(raw))
                    {
                        self.asking.questions.close(number);
                        cancelled.params.request_id = Some(wire_id(self.asking.post.own, number));
                    }
                }
                ServerNotification::LoggingMessageNotification(line) => {
                    let floor = self.asking.level.as_deref().map_or(0, rank);
                    if rank(name(line.params.level)) < floor {
                        return None;
                    }
                }
                _ => {}
            },
            JsonRpcMessage::Response(_) | JsonRpcMessage::Error(_) => {}
        }
        Some(message)
    }
}

/// Levels in rising order (RFC 5424, 6.2.1).
const LEVELS: [&str; 8] = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"];

fn rank(level: &str) -> usize {
    LEVELS.iter().position(|known| *known == level).unwrap_or(0)
}

fn name(level: LoggingLevel) -> &'static str {
    match level {
        LoggingLevel::Debug => "debug",
        LoggingLevel::Info => "info",
        LoggingLevel::Notice => "notice",
        LoggingLevel::Warning => "warning",
        LoggingLevel::Error => "error",
        LoggingLevel::Critical => "critical",
        LoggingLevel::Alert => "alert",
        LoggingLevel::Emergency => "emergency",
    }
}

impl Transport<RoleServer> for OneRequest {
    type Error = mpsc::error::SendError<ServerJsonRpcMessage>;

    fn send(
        &mut self,
        item: ServerJsonRpcMessage,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send + 'static {
        let is_last = matches!(item, JsonRpcMessage::Response(_) | JsonRpcMessage::Error(_));
        let (item, out, done) = (self.outward(item), self.out.clone(), self.done.clone());
        async move {
            if let Some(item) = item {
                out.send(item).await?;
            }
            if is_last {
                done.add_permits(1);
            }
            Ok(())
        }
    }

    async fn receive(&mut self) -> Option<ClientJsonRpcMessage> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        // The service asks again after each message it sends, so that an inbox made by one is looked into.
        let answer = async {
            match &mut self.inbox {
                Some(inbox) => inbox.coming.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.done.acquire() => None,
            answer = answer => answer,
        }
    }

    fn close(&mut self) -> impl Future<Output = Result<(), Self::Error>> + Send {
        self.first.take();
        std::future::ready(Ok(()))
    }
}
