//! What in the environment looks like a setting and is none: told as a warning, and not refused, since others put names there.
//!
//! Kubernetes does, for each service: one that is called `regatta-node` gives all pods `REGATTA_NODE_PORT=tcp://…` and the
//! like. Those are passed over.

use std::cell::RefCell;

use crate::settings::Settings;

const PREFIX: &str = "REGATTA_NODE_";
/// Letters to put in, take out or change in a mistyped name, at most.
const SLIPS_MAX: usize = 3;

/// A line for each name that begins as settings do and is none of them. Values are not told: one may be a secret.
pub(crate) fn overlooked(environment: impl Iterator<Item = (String, String)>) -> Vec<String> {
    let known = known();
    let foreign = environment.filter(|(name, value)| {
        name.starts_with(PREFIX) && !known.contains(name) && !is_of_a_service(name, value)
    });
    let told = foreign.map(|(name, _)| match nearest(&name, &known) {
        Some(meant) => format!("{name} in the environment is no setting, and overlooked: {meant} is one"),
        None => format!("{name} in the environment is no setting, and overlooked"),
    });
    told.collect()
}

/// All that the settings ask the environment for.
fn known() -> Vec<String> {
    let asked = RefCell::new(Vec::new());
    let note = |name: &str| {
        asked.borrow_mut().push(name.to_owned());
        None
    };
    // Nothing is told, so that nothing is wrong.
    let _ = Settings::default().with_environment(note);
    asked.into_inner()
}

/// Whether Kubernetes made it for a service whose name begins with `regatta-node` (its documentation, *Service*,
/// *Environment variables*).
fn is_of_a_service(name: &str, value: &str) -> bool {
    let is_port = |rest: &str| {
        let mut words = rest.split('_');
        let is_number = words
            .next()
            .is_some_and(|word| word.bytes().all(|byte| byte.is_ascii_digit()) && !word.is_empty());
        is_number && matches!(words.next(), Some("TCP" | "UDP" | "SCTP"))
    };
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
        || (name.ends_with("_PORT") && value.contains("://"))
        || name.split("_PORT_").skip(1).any(is_port)
}

/// The name that was probably meant.
fn nearest<'a>(name: &str, known: &'a [String]) -> Option<&'a String> {
    let scored = known.iter().map(|meant| (strsim::levenshtein(name, meant), meant));
    scored.filter(|(slips, _)| *slips <= SLIPS_MAX).min_by_key(|(slips, _)| *slips).map(|(_, meant)| meant)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(name: &str, value: &str) -> Vec<String> {
        overlooked([(name.to_owned(), value.to_owned())].into_iter())
    }

    #[test]
    fn a_mistyped_setting_is_told_with_the_one_that_was_meant_and_without_its_value() {
        let [line] = &told("REGATTA_NODE_REGISTRY_SECRETS", "s3cret")[..] else { panic!("one line") };
        assert!(line.starts_with("REGATTA_NODE_REGISTRY_SECRETS ") && !line.contains("s3cret"), "{line}");
        assert!(line.ends_with(": REGATTA_NODE_REGISTRY_SECRET is one"), "{line}");
        let [line] = &told("REGATTA_NODE_PORT", "3000")[..] else { panic!("one line") };
        assert!(line.starts_with("REGATTA_NODE_PORT "), "{line}");
        let [line] = &told("REGATTA_NODE_COLOUR_OF_EVERYTHING", "")[..] else { panic!("one line") };
        assert!(line.ends_with("overlooked"), "{line}");
    }

    #[test]
    fn settings_foreign_names_and_those_of_services_are_passed_over() {
        for (name, value) in [
            ("REGATTA_NODE_QUEUE_MAX", "7"),
            ("REGATTA_STORE_URL", "redis://a"),
            ("PATH", "/bin"),
            ("REGATTA_NODE_SERVICE_HOST", "10.0.0.1"),
            ("REGATTA_NODE_SERVICE_PORT", "3000"),
            ("REGATTA_NODE_SERVICE_PORT_HTTP", "3000"),
            ("REGATTA_NODE_PORT", "tcp://10.0.0.1:3000"),
            ("REGATTA_NODE_PORT_3000_TCP", "tcp://10.0.0.1:3000"),
            ("REGATTA_NODE_PORT_3000_TCP_ADDR", "10.0.0.1"),
            ("REGATTA_NODE_CANARY_PORT_3000_UDP_PROTO", "udp"),
            ("REGATTA_NODE_CANARY_SERVICE_HOST", "10.0.0.1"),
        ] {
            assert_eq!(told(name, value), Vec::<String>::new(), "{name}");
        }
    }
}
