//! `credentials` of a server: the header by which the gateway proves itself to it.
//!
//! A bearer token in `Authorization` unless another header is named, which then gets the text as it is. The secret is
//! in the config, a file or a variable; nothing here reads the latter two.

use http::HeaderName;

use super::auth::{SecretPlace, secret};
use super::raw::Section;

/// What a server is to be shown, before the secret was read.
#[derive(Clone, Debug)]
pub struct CredentialPlan {
    /// The header's name, in lower case.
    pub header: String,
    /// What stands before the secret in its value.
    pub prefix: &'static str,
    /// Where the secret is.
    pub secret: SecretPlace,
}

/// Reads `credentials = { … }` of a server.
pub fn credentials(server: &Section<'_>) -> Option<CredentialPlan> {
    let section = server.table("credentials", "a table like { bearer_file = \"/run/secrets/shop\" }")?;
    let header =
        section.get("header", None, "a header name that is not one of HTTP's or MCP's own", |found| {
            let name = HeaderName::from_bytes(found.text()?.as_bytes()).ok()?;
            is_free(name.as_str()).then(|| Some(name.as_str().to_owned()))
        });
    let places = [
        secret(&section, "bearer", |text| {
            is_visible(text).then(|| SecretPlace::Text(text.to_owned().into()))
        }),
        secret(&section, "bearer_file", |text| Some(SecretPlace::File(text.into()))),
        secret(&section, "bearer_env", |text| Some(SecretPlace::Variable(text.to_owned()))),
    ];
    let mut places: Vec<SecretPlace> = places.into_iter().flatten().collect();
    if places.len() != 1 {
        section.miss(
            "credentials name no secret, or several".to_owned(),
            "one of bearer, bearer_file, bearer_env",
            None,
        );
    }
    section.finish();
    let (header, prefix) = match header {
        Some(header) => (header, ""),
        None => ("authorization".to_owned(), "Bearer "),
    };
    Some(CredentialPlan { header, prefix, secret: places.pop()? })
}

/// What can stand in a header's value.
pub fn is_visible(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ')
}

fn is_free(name: &str) -> bool {
    let taken = [
        "host",
        "connection",
        "content-length",
        "content-type",
        "accept",
        "transfer-encoding",
        "upgrade",
        "te",
        "expect",
        "trailer",
        "last-event-id",
    ];
    !taken.contains(&name) && !name.starts_with("mcp-") && !name.starts_with("x-regatta-")
}
