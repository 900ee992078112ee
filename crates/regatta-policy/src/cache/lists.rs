//! What may be kept of a server's lists and reads, by what the server says of them (2026-07-28
//! server/utilities/caching, *Cacheable Model*).
//!
//! A server can only narrow what the operator allows: `public` counts where the operator trusts it, and then for a first
//! page only, because the pages of one list must not differ in who may see them.

use std::time::Duration;

use super::{Keeping, Life, Outcome};
use crate::ids::stable_hash;

/// No list lives longer, whatever its server says.
const TTL_MAX: Duration = Duration::from_secs(24 * 3600);

/// What the operator says about a server's own word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hints {
    /// It counts for nothing.
    Ignored,
    /// Its `ttlMs` counts; what is kept is kept for one authorization context.
    Private,
    /// Its `cacheScope` counts too.
    Trusted,
}

/// What is kept of a server's lists and reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lists {
    /// How far the server's own word counts (modern).
    pub hints: Hints,
    /// How long a list of a legacy server is kept; zero: not at all.
    pub list_ttl: Duration,
    /// The same for what `resources/read` gives.
    pub read_ttl: Duration,
}

/// What a modern result says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hint {
    /// `ttlMs`; zero if it is absent or no number from zero.
    pub ttl_ms: u64,
    /// `cacheScope`
    pub said: Said,
}

/// Who may share a result, by its server's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// Everybody.
    Public,
    /// One authorization context; so is whatever is not clearly public.
    Private,
}

/// Which part of a list a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// The first, or all of it.
    First,
    /// What a cursor points to.
    Later,
}

impl Lists {
    /// Nothing is kept.
    pub const NONE: Lists =
        Lists { hints: Hints::Ignored, list_ttl: Duration::ZERO, read_ttl: Duration::ZERO };

    /// Changes with every change of what is said here.
    pub fn version(&self) -> u64 {
        let hints: &[u8] = match self.hints {
            Hints::Ignored => b"ignored",
            Hints::Private => b"private",
            Hints::Trusted => b"trusted",
        };
        let times = [self.list_ttl, self.read_ttl].map(|time| time.as_micros().to_be_bytes());
        stable_hash(&[b"lists", hints, &times[0], &times[1]])
    }

    /// Whether results may be found that another authorization context brought.
    pub fn shares(&self, page: Page) -> bool {
        self.hints == Hints::Trusted && page == Page::First
    }

    /// What becomes of a modern result, and who may share it.
    pub fn keeping(&self, hint: Hint, page: Page, outcome: Outcome) -> (Keeping, Said) {
        let ttl = match self.hints {
            Hints::Ignored => Duration::ZERO,
            Hints::Private | Hints::Trusted => Duration::from_millis(hint.ttl_ms).min(TTL_MAX),
        };
        let said = if self.shares(page) { hint.said } else { Said::Private };
        (kept(ttl, outcome), said)
    }

    /// What becomes of a legacy result, which says nothing of itself.
    pub fn legacy_keeping(&self, ttl: Duration, outcome: Outcome) -> Keeping {
        kept(ttl, outcome)
    }
}

fn kept(ttl: Duration, outcome: Outcome) -> Keeping {
    match outcome {
        Outcome::Complete if !ttl.is_zero() => Keeping::Kept(Life::plain(ttl)),
        Outcome::Complete | Outcome::ToolError | Outcome::Failed | Outcome::Unfinished | Outcome::Asked => {
            Keeping::Passed
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lists(hints: Hints) -> Lists {
        Lists { hints, list_ttl: Duration::ZERO, read_ttl: Duration::ZERO }
    }

    const PUBLIC: Hint = Hint { ttl_ms: 1000, said: Said::Public };

    #[test]
    fn a_servers_public_counts_only_where_the_operator_trusts_it_and_for_first_pages() {
        let life = Keeping::Kept(Life::plain(Duration::from_secs(1)));
        for (hints, page, expected) in [
            (Hints::Ignored, Page::First, (Keeping::Passed, Said::Private)),
            (Hints::Private, Page::First, (life, Said::Private)),
            (Hints::Trusted, Page::First, (life, Said::Public)),
            (Hints::Trusted, Page::Later, (life, Said::Private)),
        ] {
            let kept = lists(hints).keeping(PUBLIC, page, Outcome::Complete);
            assert_eq!(kept, expected, "{hints:?} {page:?}");
        }
        let private = Hint { said: Said::Private, ..PUBLIC };
        let kept = lists(Hints::Trusted).keeping(private, Page::First, Outcome::Complete);
        assert_eq!(kept.1, Said::Private);
    }

    #[test]
    fn without_a_time_or_when_it_is_not_whole_nothing_is_kept() {
        let trusting = lists(Hints::Trusted);
        let never = Hint { ttl_ms: 0, ..PUBLIC };
        assert_eq!(trusting.keeping(never, Page::First, Outcome::Complete).0, Keeping::Passed);
        for outcome in [Outcome::Failed, Outcome::Unfinished, Outcome::Asked, Outcome::ToolError] {
            assert_eq!(trusting.keeping(PUBLIC, Page::First, outcome).0, Keeping::Passed, "{outcome:?}");
        }
        assert_eq!(trusting.legacy_keeping(Duration::ZERO, Outcome::Complete), Keeping::Passed);
    }

    #[test]
    fn no_server_can_ask_to_be_kept_for_ever() {
        let endless = Hint { ttl_ms: u64::MAX, ..PUBLIC };
        let (kept, _) = lists(Hints::Private).keeping(endless, Page::First, Outcome::Complete);
        assert_eq!(kept, Keeping::Kept(Life::plain(TTL_MAX)));
    }
}
