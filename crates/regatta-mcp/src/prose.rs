//! Knows, by a short look, the messages that streams are full of: progress and log notifications.
//!
//! Nothing in them is ours to know, so a gateway need not skim them. The look is at the two orders in which common servers
//! write a notification; whatever else it is unsure of is no prose here, and is skimmed.

use crate::skip::{Unbalanced, Walker};
use crate::span::TEXT_MAX;

const OPENINGS: [&[u8]; 2] =
    [br#"{"jsonrpc":"2.0","method":"notifications/"#, br#"{"method":"notifications/"#];
const NAMES: [&[u8]; 2] = [br#"progress""#, br#"message""#];

/// Whether `text` is one whole progress or log notification, as [`crate::skim`] would find; false if that takes more than a look.
pub fn is_prose(text: &[u8]) -> bool {
    let after_name = OPENINGS
        .iter()
        .find_map(|opening| text.strip_prefix(*opening))
        .and_then(|rest| NAMES.iter().find_map(|name| rest.strip_prefix(*name)));
    let Some(rest) = after_name else { return false };
    let walker = Walker::new(text, text.len() - rest.len());
    text.len() <= TEXT_MAX && ends_well(walker) == Ok(true)
}

/// Whether nothing but the params (and the version) follows the method: another method or an id would change what it is.
fn ends_well(mut walker: Walker<'_>) -> Result<bool, Unbalanced> {
    let mut begun = true;
    while let Some(key) = walker.member(&mut begun)? {
        match key.span.of(walker.text) {
            b"params" | b"jsonrpc" => walker.skip()?,
            _ => return Ok(false),
        }
    }
    walker.blank();
    Ok(walker.at == walker.text.len())
}

#[cfg(test)]
mod tests {
    use super::is_prose;
    use crate::{SkimKind, skim};

    #[test]
    fn knows_progress_and_log_messages_in_both_orders() {
        for name in ["progress", "message"] {
            let params = r#""params":{"progressToken":"a\"}","progress":1,"data":[{"id":3}]}"#;
            for text in [
                format!(r#"{{"jsonrpc":"2.0","method":"notifications/{name}",{params}}}"#),
                format!(r#"{{"method":"notifications/{name}",{params},"jsonrpc":"2.0"}} "#),
            ] {
                assert!(is_prose(text.as_bytes()), "{text}");
                let seen = skim(text.as_bytes()).unwrap();
                assert_eq!((seen.kind, seen.id), (SkimKind::Notification, None));
            }
        }
    }

    #[test]
    fn leaves_all_else_to_the_skim() {
        for text in [
            "",
            r#"{"method":"notifications/progress""#,
            r#"{"method":"notifications/progress","params":{"a":[}}"#,
            r#"{"method":"notifications/progress","params":{}}{}"#,
            r#"{"method":"notifications/progress","id":1,"params":{}}"#,
            r#"{"method":"notifications/progress","\u0069d":1,"params":{}}"#,
            r#"{"method":"notifications/progress","params":{},"result":{}}"#,
            r#"{"method":"notifications/progress","method":"notifications/cancelled","params":{"requestId":1}}"#,
            r#"{"method":"notifications/cancelled","params":{"requestId":1}}"#,
            r#"{"method":"notifications/progressive","params":{}}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":{}}"#,
        ] {
            assert!(!is_prose(text.as_bytes()), "{text}");
        }
    }
}
