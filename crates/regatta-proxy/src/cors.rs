//! The origin of a browser page that was let in: what *accept* proves and *encode* names.

use http::HeaderValue;

/// The origin to name in CORS headers; never `*`.
#[derive(Clone, Debug)]
pub(crate) struct Cors(pub HeaderValue);
