//! A light look at one message from a server: what must be spliced, counted or known; all else passes unread.
//!
//! Depth-aware: only `result.requestState` itself is a handle, not a member of that name inside a tool's contents.
//! Keys are compared after their escapes are undone. When a key stands twice the last one counts, as for most
//! parsers; a server is trusted more than a client. Of the params of progress and log notifications nothing is noted: they
//! are most of what servers say, and nothing in them is ours to know.

use std::borrow::Cow;

use crate::meta;
use crate::skip::{Unbalanced, Walker};
use crate::span::{Span, TEXT_MAX, Text};

/// What a server's message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SkimKind {
    /// A server's request to the client (legacy only).
    Request,
    /// A notification.
    Notification,
    /// The answer to a request.
    Response {
        /// It has `error`, not `result`.
        failed: bool,
    },
}

/// The text is no JSON-RPC message: the answer is unusable (−31007).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SkimError(
    /// A fixed sentence for the log.
    pub &'static str,
);

/// What was found; spans are of the text that was given.
#[derive(Clone, Debug)]
pub struct Skim {
    /// What it is.
    pub kind: SkimKind,
    /// The raw id: any string or number (`null` counts as absent).
    pub id: Option<Span>,
    /// `method`
    pub method: Option<Text>,
    /// `params`, if an object.
    pub params: Option<Span>,
    /// `result`, any value.
    pub result: Option<Span>,
    /// `error.code`
    pub error_code: Option<i64>,
    /// Where that stands.
    pub error_code_span: Option<Span>,
    /// `result.resultType`
    pub result_type: Option<Text>,
    /// `result.isError` is true.
    pub is_error: bool,
    /// `result.nextCursor`
    pub next_cursor: Option<Text>,
    /// `result.requestState`
    pub request_state: Option<Text>,
    /// `result.taskId`, `result.task.taskId`, `result.tasks[].taskId`; `params.taskId` of task notifications.
    pub task_ids: Vec<Text>,
    /// `result._meta`, if an object.
    pub result_meta: Option<Span>,
    /// The value of `result._meta["io.regatta/cache"]`.
    pub cache_mark: Option<Span>,
    /// `result.ttlMs`, any value.
    pub ttl_ms: Option<Span>,
    /// `result.cacheScope`
    pub cache_scope: Option<Text>,
    /// `params._meta`, if an object.
    pub params_meta: Option<Span>,
    /// The subscription id in the `_meta` of params or result, raw.
    pub subscription_id: Option<Span>,
    /// `params.requestId` of `notifications/cancelled`, raw.
    pub cancelled_request_id: Option<Span>,
    /// `params.uri`
    pub uri: Option<Text>,
    /// `params.notifications`, the filter of an acknowledgement, if an object.
    pub notifications: Option<Span>,
    /// `result.protocolVersion`
    pub protocol_version: Option<Text>,
    /// `result.capabilities`, if an object.
    pub capabilities: Option<Span>,
}

/// Looks at one message (one JSON object; see [`crate::documents`] for several).
///
/// # Errors
/// When the structure is broken, when it is no object, or when it is neither a request, a notification nor a response.
pub fn skim(text: &[u8]) -> Result<Skim, SkimError> {
    if text.len() > TEXT_MAX {
        return Err(SkimError("a message beyond 2 GiB"));
    }
    let mut walker = Walker::new(text, 0);
    walker.blank();
    let mut seen = Seen {
        skim: Skim::empty(),
        has_error: false,
        params_task_id: None,
        request_id: None,
        has_skipped: false,
    };
    if !walker.open() {
        return Err(SkimError("not an object"));
    }
    let mut begun = false;
    while let Some(key) = walker.member(&mut begun)? {
        seen.top_member(&mut walker, key)?;
    }
    walker.blank();
    if walker.at != text.len() {
        return Err(SkimError("text after the message"));
    }
    seen.judge(text)
}

/// A skim in the making.
struct Seen {
    skim: Skim,
    has_error: bool,
    params_task_id: Option<Text>,
    request_id: Option<Span>,
    /// The params were passed over.
    has_skipped: bool,
}

impl Seen {
    fn top_member(&mut self, walker: &mut Walker<'_>, key: Text) -> Result<(), SkimError> {
        match key_bytes(walker.text, key).as_ref() {
            b"id" => self.skim.id = scalar_id(walker)?,
            b"method" => self.skim.method = text(walker)?,
            b"params" if walker.peek() == b'{' && self.is_prose(walker.text) => {
                self.skim.params = Some(walker.value()?);
                self.has_skipped = true;
            }
            b"params" if walker.peek() == b'{' => self.params(walker)?,
            b"result" => {
                let start = walker.at;
                if walker.peek() == b'{' {
                    self.result(walker)?
                } else {
                    walker.skip()?
                }
                self.skim.result = Some(Span::new(start, walker.at));
            }
            b"error" => {
                self.has_error = true;
                self.error(walker)?;
            }
            _ => walker.skip()?,
        }
        Ok(())
    }

    /// Whether the method, so far, is one of those that streams are full of and whose params are for the client alone.
    fn is_prose(&self, text: &[u8]) -> bool {
        let Some(method) = self.skim.method else { return false };
        matches!(method.span.of(text), b"notifications/progress" | b"notifications/message")
    }

    fn params(&mut self, walker: &mut Walker<'_>) -> Result<(), SkimError> {
        let start = walker.at;
        let mut begun = false;
        walker.open();
        while let Some(key) = walker.member(&mut begun)? {
            match key_bytes(walker.text, key).as_ref() {
                b"_meta" => self.skim.params_meta = self.meta(walker)?,
                b"uri" => self.skim.uri = text(walker)?,
                b"taskId" => self.params_task_id = text(walker)?,
                b"requestId" => self.request_id = scalar_id(walker)?,
                b"notifications" => self.skim.notifications = object(walker)?,
                _ => walker.skip()?,
            }
        }
        self.skim.params = Some(Span::new(start, walker.at));
        Ok(())
    }

    fn result(&mut self, walker: &mut Walker<'_>) -> Result<(), SkimError> {
        let mut begun = false;
        walker.open();
        while let Some(key) = walker.member(&mut begun)? {
            match key_bytes(walker.text, key).as_ref() {
                b"_meta" => self.skim.result_meta = self.meta(walker)?,
                b"resultType" => self.skim.result_type = text(walker)?,
                b"isError" => self.skim.is_error = walker.value()?.of(walker.text) == b"true",
                b"nextCursor" => self.skim.next_cursor = text(walker)?,
                b"requestState" => self.skim.request_state = text(walker)?,
                b"ttlMs" => self.skim.ttl_ms = Some(walker.value()?),
                b"cacheScope" => self.skim.cache_scope = text(walker)?,
                b"taskId" => self.skim.task_ids.extend(text(walker)?),
                b"task" => self.task(walker)?,
                b"tasks" => self.tasks(walker)?,
                b"protocolVersion" => self.skim.protocol_version = text(walker)?,
                b"capabilities" => self.skim.capabilities = object(walker)?,
                _ => walker.skip()?,
            }
        }
        Ok(())
    }

    fn error(&mut self, walker: &mut Walker<'_>) -> Result<(), SkimError> {
        if !walker.open() {
            walker.skip()?;
            return Ok(());
        }
        let mut begun = false;
        while let Some(key) = walker.member(&mut begun)? {
            let code = key_bytes(walker.text, key).as_ref() == b"code";
            let span = walker.value()?;
            if code {
                self.skim.error_code = span.text(walker.text).parse().ok();
                self.skim.error_code_span = Some(span);
            }
        }
        Ok(())
    }

    /// `_meta`: its span if it is an object.
    fn meta(&mut self, walker: &mut Walker<'_>) -> Result<Option<Span>, SkimError> {
        let start = walker.at;
        if !walker.open() {
            walker.skip()?;
            return Ok(None);
        }
        let mut begun = false;
        while let Some(key) = walker.member(&mut begun)? {
            let key = key_bytes(walker.text, key);
            if key.as_ref() == meta::SUBSCRIPTION_ID.as_bytes() {
                self.skim.subscription_id = scalar_id(walker)?;
            } else if key.as_ref() == meta::CACHE.as_bytes() {
                self.skim.cache_mark = Some(walker.value()?);
            } else {
                walker.skip()?;
            }
        }
        Ok(Some(Span::new(start, walker.at)))
    }

    fn task(&mut self, walker: &mut Walker<'_>) -> Result<(), SkimError> {
        if !walker.open() {
            walker.skip()?;
            return Ok(());
        }
        let mut begun = false;
        while let Some(key) = walker.member(&mut begun)? {
            if key_bytes(walker.text, key).as_ref() == b"taskId" {
                self.skim.task_ids.extend(text(walker)?);
            } else {
                walker.skip()?;
            }
        }
        Ok(())
    }

    fn tasks(&mut self, walker: &mut Walker<'_>) -> Result<(), SkimError> {
        if walker.peek() != b'[' {
            walker.skip()?;
            return Ok(());
        }
        walker.at += 1;
        loop {
            walker.blank();
            match walker.peek() {
                b']' => {
                    walker.at += 1;
                    return Ok(());
                }
                b',' => walker.at += 1,
                _ => self.task(walker)?,
            }
        }
    }

    fn judge(mut self, text: &[u8]) -> Result<Skim, SkimError> {
        if let Some(params) = self.skim.params.filter(|_| self.has_skipped && !self.is_prose(text)) {
            // The method stood twice, and the last one counts.
            self.params(&mut Walker::new(text, params.start as usize))?;
        }
        let method = self.skim.method.map(|method| method.get(text));
        let answered = self.skim.result.is_some() || self.has_error;
        self.skim.kind = match (&method, answered) {
            (Some(_), true) => return Err(SkimError("both a method and an answer")),
            (None, false) => return Err(SkimError("neither a method nor an answer")),
            (Some(_), false) if self.skim.id.is_some() => SkimKind::Request,
            (Some(_), false) => SkimKind::Notification,
            (None, true) => SkimKind::Response { failed: self.has_error },
        };
        match method.as_deref() {
            Some("notifications/cancelled") => self.skim.cancelled_request_id = self.request_id,
            Some(name) if name == "notifications/tasks" || name.starts_with("notifications/tasks/") => {
                self.skim.task_ids.extend(self.params_task_id);
            }
            _ => {}
        }
        Ok(self.skim)
    }
}

impl Skim {
    fn empty() -> Self {
        Self {
            kind: SkimKind::Notification,
            id: None,
            method: None,
            params: None,
            result: None,
            error_code: None,
            error_code_span: None,
            result_type: None,
            is_error: false,
            next_cursor: None,
            request_state: None,
            task_ids: Vec::new(),
            result_meta: None,
            cache_mark: None,
            ttl_ms: None,
            cache_scope: None,
            params_meta: None,
            subscription_id: None,
            cancelled_request_id: None,
            uri: None,
            notifications: None,
            protocol_version: None,
            capabilities: None,
        }
    }
}

impl From<Unbalanced> for SkimError {
    fn from(unbalanced: Unbalanced) -> Self {
        Self(unbalanced.0)
    }
}

fn key_bytes(text: &[u8], key: Text) -> Cow<'_, [u8]> {
    if key.escaped {
        Cow::Owned(key.get(text).into_owned().into_bytes())
    } else {
        Cow::Borrowed(key.span.of(text))
    }
}

/// The value here, if it is a string; a noted string must be UTF-8.
fn text(walker: &mut Walker<'_>) -> Result<Option<Text>, SkimError> {
    if walker.peek() != b'"' {
        walker.skip()?;
        return Ok(None);
    }
    let text = walker.string()?;
    match std::str::from_utf8(text.span.of(walker.text)) {
        Ok(_) => Ok(Some(text)),
        Err(_) => Err(SkimError("not UTF-8")),
    }
}

fn object(walker: &mut Walker<'_>) -> Result<Option<Span>, SkimError> {
    let object = walker.peek() == b'{';
    let span = walker.value()?;
    Ok(object.then_some(span))
}

fn scalar_id(walker: &mut Walker<'_>) -> Result<Option<Span>, SkimError> {
    if walker.peek() == b'"' {
        return Ok(text(walker)?.map(Text::outer));
    }
    let number = matches!(walker.peek(), b'-' | b'0'..=b'9');
    let span = walker.value()?;
    Ok(number.then_some(span))
}

#[cfg(test)]
mod tests;
