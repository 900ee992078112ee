//! Which era a request belongs to (RELIABILITY B.1; 2026-07-28, Versioning, Backward Compatibility).

use crate::method::Method;

/// How a client speaks: with a session, or with everything in each request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Era {
    /// `initialize` and a session, up to 2025-11-25.
    Legacy,
    /// Per-request `_meta`, from 2026-07-28 on.
    Modern,
}

/// The legacy versions that are spoken here, newest first.
pub const LEGACY: [&str; 3] = ["2025-11-25", "2025-06-18", "2025-03-26"];
/// The modern versions that are spoken here, newest first.
pub const MODERN: [&str; 1] = ["2026-07-28"];

/// Decides by what the body carries (whether `params._meta` states a version; `method` of a request or notification),
/// then by the `MCP-Protocol-Version` header, which is only looked up if the body leaves it open.
///
/// A version in `_meta` is modern whatever it says, so that an unknown one is answered with the list of known ones
/// (−32022). `initialize` is no method of the modern era, so without such a `_meta` it is legacy, whatever the header
/// says. A header is modern from the first modern version on, also when the version is not known yet.
pub fn decide<'a>(
    meta_states: bool,
    method: Option<Method>,
    header_version: impl FnOnce() -> Option<&'a str>,
) -> Era {
    if meta_states || (method != Some(Method::Initialize) && header_version().is_some_and(is_modern)) {
        Era::Modern
    } else {
        Era::Legacy
    }
}

/// Whether a version is a date from the first modern revision on.
pub fn is_modern(version: &str) -> bool {
    let bytes = version.as_bytes();
    let dated = bytes.len() == 10
        && bytes
            .iter()
            .enumerate()
            .all(|(at, byte)| if at == 4 || at == 7 { *byte == b'-' } else { byte.is_ascii_digit() });
    // Dates in this form sort as text.
    dated && version >= MODERN[MODERN.len() - 1]
}

#[cfg(test)]
mod tests {
    use super::{Era, decide};
    use crate::method::Method;

    #[test]
    fn a_version_in_meta_or_a_modern_header_is_modern() {
        assert_eq!(decide(true, Some(Method::ToolsCall), || None), Era::Modern);
        assert_eq!(decide(true, Some(Method::Initialize), || None), Era::Modern);
        assert_eq!(decide(false, None, || Some("2026-07-28")), Era::Modern);
        assert_eq!(decide(false, Some(Method::ToolsList), || Some("2027-01-31")), Era::Modern);
    }

    #[test]
    fn everything_else_is_legacy() {
        assert_eq!(decide(false, Some(Method::Initialize), || None), Era::Legacy);
        assert_eq!(decide(false, Some(Method::Initialize), || Some("2026-07-28")), Era::Legacy);
        assert_eq!(decide(false, None, || None), Era::Legacy);
        for version in ["2025-11-25", "2024-11-05", "garbage", "", "9999", "2026-07-28 "] {
            assert_eq!(decide(false, Some(Method::ToolsCall), || Some(version)), Era::Legacy, "{version}");
        }
    }
}
