//! What a client is told of its quotas, in two dialects: `X-RateLimit-*` for the tightest rule, and the `RateLimit` and
//! `RateLimit-Policy` fields (draft-ietf-httpapi-ratelimit-headers) for each.
//!
//! All times are whole seconds from now, rounded up; units are the rule's own.

use std::fmt::Write;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use regatta_policy::Micros;

use crate::quotas::ready::{Ready, Shown};

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
const FIELD: HeaderName = HeaderName::from_static("ratelimit");
const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Rules that are listed at most.
const LINES_MAX: usize = 8;

/// Writes how the rules of a request stand; nothing without rules.
pub(crate) fn write(headers: &mut HeaderMap, shown: &Shown) {
    let tightest = shown.lines.iter().min_by_key(|(_, standing)| standing.remaining);
    let Some((ready, standing)) = tightest else { return };
    headers.insert(LIMIT, HeaderValue::from(ready.rule.terms.allow.get()));
    headers.insert(REMAINING, HeaderValue::from(standing.remaining));
    headers.insert(RESET, HeaderValue::from(seconds(standing.reset_after)));
    let (mut field, mut policy) = (String::with_capacity(48), String::with_capacity(48));
    for (at, (ready, standing)) in shown.lines.iter().take(LINES_MAX).enumerate() {
        if at > 0 {
            field.push_str(", ");
            policy.push_str(", ");
        }
        // Writing to a string cannot fail.
        let (name, left) = (&ready.rule.name, standing.remaining);
        let _ = write!(field, "\"{name}\";r={left};t={}", seconds(standing.reset_after));
        let _ = write!(policy, "\"{name}\";q={};w={}", ready.rule.terms.allow, window(ready));
    }
    // Names are letters, digits and -._ only, so both are header values.
    for (name, text) in [(FIELD, field), (POLICY, policy)] {
        if let Ok(value) = HeaderValue::try_from(text) {
            headers.insert(name, value);
        }
    }
}

fn window(ready: &Ready) -> u64 {
    whole_seconds(ready.rule.terms.within)
}

fn seconds(time: Micros) -> u64 {
    time.0.div_ceil(1_000_000)
}

/// Rounded up: who comes back on the second must not be too early.
pub(super) fn whole_seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}
