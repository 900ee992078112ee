//! `POST /cache/purge`: makes kept results old, by server, tool, caller or call.
//!
//! The body is JSON under `application/json`, and a request with an `Origin` is refused: no page that an operator looks
//! at can make a browser send that (a form cannot, and a script would have to ask first).

use bytes::Bytes;
use http::header::{CONTENT_TYPE, ORIGIN};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::{Panel, json as answer};

/// The longest wish.
const BODY_MAX: usize = 1 << 20;

/// What shall be made old. Without anything but a server: all that is kept of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PurgeAsked {
    /// The server's name.
    pub server: String,
    /// A tool, or a pattern with `*`.
    pub tool: Option<String>,
    /// Arguments of one call of that tool, as JSON text.
    pub arguments: Option<String>,
    /// The digest of one caller's authorization context.
    pub principal: Option<[u8; 16]>,
}

pub(super) async fn purge(panel: &Panel, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let is_json = request.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == "application/json");
    if !is_json || request.headers().contains_key(ORIGIN) {
        return refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, "send application/json, and not from a page");
    }
    let body = match Limited::new(request.into_body(), BODY_MAX).collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => return refused(StatusCode::PAYLOAD_TOO_LARGE, "at most 1 MiB"),
    };
    let asked = serde_json::from_slice(&body).map_err(|why| why.to_string());
    let purged = match asked.and_then(|wish: Value| self::asked(&wish)) {
        Ok(asked) => (panel.purge)(asked).await,
        Err(why) => Err(why),
    };
    match purged {
        Ok(()) => answer(StatusCode::OK, &json!({ "purged": true })),
        Err(why) => refused(StatusCode::BAD_REQUEST, &why),
    }
}

fn refused(status: StatusCode, why: &str) -> Response<Full<Bytes>> {
    answer(status, &json!({ "error": why }))
}

fn asked(wish: &Value) -> Result<PurgeAsked, String> {
    let fields = wish.as_object().ok_or("an object is expected")?;
    let known = ["server", "tool", "arguments", "principal"];
    if let Some(unknown) = fields.keys().find(|key| !known.contains(&key.as_str())) {
        return Err(format!("{unknown} is not known; known are {}", known.join(", ")));
    }
    let text = |key: &str| match fields.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(format!("{key} must be a text")),
    };
    let asked = PurgeAsked {
        server: text("server")?.ok_or("server is missing")?,
        tool: text("tool")?,
        arguments: text("arguments")?,
        principal: text("principal")?
            .map(|digest| hex16(&digest).ok_or("principal must be 32 hexadecimal digits"))
            .transpose()?,
    };
    match (&asked.tool, &asked.arguments, &asked.principal) {
        (None, Some(_), _) => Err("arguments need the tool that they are for".to_owned()),
        (Some(_), _, Some(_)) => Err("either a tool or a principal".to_owned()),
        (_, _, _) => Ok(asked),
    }
}

fn hex16(text: &str) -> Option<[u8; 16]> {
    let mut bytes = [0; 16];
    if text.len() != 32 || !text.is_ascii() {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_says_what_shall_be_made_old() {
        let wish = json!({ "server": "shop", "tool": "get_*" });
        let asked_for = asked(&wish).unwrap();
        assert_eq!((asked_for.server.as_str(), asked_for.tool.as_deref()), ("shop", Some("get_*")));
        let wish = json!({ "server": "shop", "principal": "000102030405060708090a0b0c0d0e0F" });
        assert_eq!(asked(&wish).unwrap().principal.unwrap()[15], 15);
        for wish in [
            json!([]),
            json!({}),
            json!({ "server": 1 }),
            json!({ "server": "shop", "tol": "x" }),
            json!({ "server": "shop", "arguments": "{}" }),
            json!({ "server": "shop", "principal": "00" }),
            json!({ "server": "shop", "tool": "x", "principal": "000102030405060708090a0b0c0d0e0f" }),
        ] {
            assert!(asked(&wish).is_err(), "{wish}");
        }
    }
}
