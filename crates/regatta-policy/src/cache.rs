//! What may be kept of a server's results, for whom and for how long.
//!
//! Pure: a rule of the operator's and facts about a result in, a decision out. Nothing is kept that no rule names
//! (DESIGN 9); what depends on more than the key (a person's input, a failure, half an answer) is never kept
//! (2026-07-28 server/utilities/caching, *Cache Key*; RELIABILITY T24).

mod definitions;
mod lists;

use std::time::Duration;

use crate::glob::Glob;
use crate::ids::stable_hash;

pub use definitions::{Definitions, Digests};
pub use lists::{Hint, Hints, Lists, Page, Said};

/// One `[[cache]]`: which tools of a server, for whom, how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The tools it is about.
    pub tool: Glob,
    /// Who may be given what another caller's request brought.
    pub scope: Scope,
    /// How long a result lives.
    pub life: Life,
    /// The largest result that is kept, in bytes of its JSON text.
    pub max_bytes: usize,
    /// Tools of the same server whose success makes every kept result of this rule old.
    pub invalidated_by: Vec<Glob>,
    /// Whether results say that they were kept.
    pub telling: Telling,
}

/// Who shares kept results.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// One authorization context.
    Principal,
    /// Everybody; only ever by the operator's own word.
    Public,
    /// One legacy session; requests without one are not cached.
    Session,
    /// All callers whose verified token has the same value of this claim; others are not cached.
    Claim(String),
}

/// Whether `_meta["io.regatta/cache"]` is added to results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Telling {
    /// It is.
    Marked,
    /// Results stay as the server wrote them.
    Silent,
}

/// How long a result lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// It is given out as it is.
    pub ttl: Duration,
    /// After that it is still given out, while one request fetches it anew.
    pub stale_while_revalidate: Duration,
    /// After `ttl` it is given out if the server cannot answer.
    pub stale_if_error: Duration,
    /// How long a result with `isError` is kept; zero: never.
    pub negative_ttl: Duration,
}

/// What a kept result is worth now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Worth {
    /// Given out.
    Fresh,
    /// Given out; whoever got it fetches it anew, before its time, so that it never runs out for all at once.
    Ripe,
    /// Given out while somebody fetches it anew.
    Stale,
    /// Only if the server cannot answer.
    Spare,
    /// Nothing.
    Spent,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A whole result that is no error.
    Complete,
    /// A result with `isError`.
    ToolError,
    /// A JSON-RPC error, or an HTTP status other than 200.
    Failed,
    /// `input_required`, a task, or a kind of result that we do not know: it is about this one call.
    Unfinished,
    /// The server asked the client something meanwhile: the result depends on what the key does not hold.
    Asked,
}

/// What becomes of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeping {
    /// It is kept this long.
    Kept(Life),
    /// It is for the caller alone.
    Passed,
}

impl Rule {
    /// Changes with every change of the rule, so that what was kept under another one is never found.
    pub fn version(&self) -> u64 {
        let scope = match &self.scope {
            Scope::Principal => "principal",
            Scope::Public => "public",
            Scope::Session => "session",
            Scope::Claim(name) => name,
        };
        let kind = match &self.scope {
            Scope::Claim(_) => "claim",
            Scope::Principal | Scope::Public | Scope::Session => "",
        };
        let telling = match self.telling {
            Telling::Marked => "marked",
            Telling::Silent => "silent",
        };
        let life = self.life;
        let mut parts = vec![self.tool.as_str().as_bytes(), scope.as_bytes(), kind.as_bytes()];
        let times = [life.ttl, life.stale_while_revalidate, life.stale_if_error, life.negative_ttl]
            .map(|time| time.as_micros().to_be_bytes());
        parts.extend(times.iter().map(|time| &time[..]));
        parts.push(telling.as_bytes());
        parts.extend(self.invalidated_by.iter().map(|glob| glob.as_str().as_bytes()));
        stable_hash(&parts)
    }

    /// Whether a success of `tool` makes what this rule kept old.
    pub fn is_invalidated_by(&self, tool: &str) -> bool {
        self.invalidated_by.iter().any(|glob| glob.matches(tool))
    }

    /// Whether, and how long, a result of `bytes` that ended so is kept.
    pub fn keeping(&self, outcome: Outcome, bytes: usize) -> Keeping {
        if bytes > self.max_bytes {
            return Keeping::Passed;
        }
        match outcome {
            Outcome::Complete => Keeping::Kept(self.life),
            Outcome::ToolError if !self.life.negative_ttl.is_zero() => {
                Keeping::Kept(Life::plain(self.life.negative_ttl))
            }
            Outcome::ToolError | Outcome::Failed | Outcome::Unfinished | Outcome::Asked => Keeping::Passed,
        }
    }
}

impl Life {
    /// A life without any time after `ttl`.
    pub fn plain(ttl: Duration) -> Life {
        let none = Duration::ZERO;
        Life { ttl, stale_while_revalidate: none, stale_if_error: none, negative_ttl: none }
    }

    /// When nothing of it is worth anything any more, counted from when it was made.
    pub fn whole(&self) -> Duration {
        self.ttl.saturating_add(self.stale_while_revalidate.max(self.stale_if_error))
    }

    /// What a result is worth `age` after it was made. `cost` is how long it took to make; `dice` are 64 random bits.
    ///
    /// *Ripe* by "Optimal Probabilistic Cache Stampede Prevention" (Vattani, Chierichetti, Lowenstein, 2015), with β = 1:
    /// the nearer the end and the dearer the result, the likelier, and each request rolls for itself.
    pub fn worth(&self, age: Duration, cost: Duration, dice: u64) -> Worth {
        if age < self.ttl {
            return match is_ripe(self.ttl - age, cost.min(self.ttl / 8), dice) {
                true => Worth::Ripe,
                false => Worth::Fresh,
            };
        }
        let over = age - self.ttl;
        if over < self.stale_while_revalidate {
            Worth::Stale
        } else if over < self.stale_if_error {
            Worth::Spare
        } else {
            Worth::Spent
        }
    }
}

fn is_ripe(left: Duration, cost: Duration, dice: u64) -> bool {
    // Below e^-40 no roll decides it: most requests end here, without a logarithm.
    if left > cost.saturating_mul(40) {
        return false;
    }
    // In (0, 1]: the upper 53 bits are what a double holds.
    let roll = ((dice >> 11) + 1) as f64 / (1u64 << 53) as f64;
    cost.as_secs_f64() * -roll.ln() >= left.as_secs_f64()
}

/// The rule for `tool`: the first that names it.
pub fn rule_for<'a>(rules: &'a [Rule], tool: &str) -> Option<(usize, &'a Rule)> {
    rules.iter().enumerate().find(|(_, rule)| rule.tool.matches(tool))
}

/// A rule is worth a word to the operator when, after this many look-ups, less than this share were hits.
const LOOKUPS_TO_JUDGE: u64 = 1_000;
const USEFUL_PERCENT: u64 = 5;

/// Whether a rule that was asked so often, with so many hits, helps nobody.
pub fn is_useless(lookups: u64, hits: u64) -> bool {
    lookups >= LOOKUPS_TO_JUDGE && hits.saturating_mul(100) < lookups.saturating_mul(USEFUL_PERCENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn rule() -> Rule {
        Rule {
            tool: Glob::new("get_*"),
            scope: Scope::Principal,
            life: Life {
                ttl: 60 * S,
                stale_while_revalidate: 10 * S,
                stale_if_error: 100 * S,
                negative_ttl: Duration::ZERO,
            },
            max_bytes: 1000,
            invalidated_by: vec![Glob::new("update_*")],
            telling: Telling::Marked,
        }
    }

    #[test]
    fn a_result_is_fresh_then_stale_then_spare_then_nothing() {
        let life = rule().life;
        let worth = |age: u64| life.worth(Duration::from_secs(age), Duration::ZERO, u64::MAX);
        for (age, expected) in [
            (0, Worth::Fresh),
            (59, Worth::Fresh),
            (60, Worth::Stale),
            (69, Worth::Stale),
            (70, Worth::Spare),
            (159, Worth::Spare),
            (160, Worth::Spent),
        ] {
            assert_eq!(worth(age), expected, "{age} s");
        }
        assert_eq!(life.whole(), 160 * S);
    }

    #[test]
    fn a_result_ripens_near_its_end_by_chance_and_for_few() {
        let life = rule().life;
        let ripe = |age: Duration| {
            (0..10_000u64)
                .filter(|roll| {
                    life.worth(age, Duration::from_millis(100), crate::ids::mix(*roll)) == Worth::Ripe
                })
                .count()
        };
        assert_eq!(ripe(30 * S), 0);
        assert!(ripe(60 * S - Duration::from_millis(500)) < 200);
        assert!(ripe(60 * S - Duration::from_millis(10)) > 8_000);
    }

    #[test]
    fn a_short_life_is_not_spent_on_refreshing() {
        // A result that takes longer to make than it lives would be ripe from the start.
        let life = Life::plain(S);
        let ripe = (0..1_000u64)
            .filter(|roll| life.worth(Duration::ZERO, 10 * S, crate::ids::mix(*roll)) == Worth::Ripe)
            .count();
        assert!(ripe < 5, "{ripe}");
    }

    #[test]
    fn only_whole_results_that_are_no_error_are_kept() {
        let rule = rule();
        assert_eq!(rule.keeping(Outcome::Complete, 1000), Keeping::Kept(rule.life));
        assert_eq!(rule.keeping(Outcome::Complete, 1001), Keeping::Passed);
        for outcome in [Outcome::ToolError, Outcome::Failed, Outcome::Unfinished, Outcome::Asked] {
            assert_eq!(rule.keeping(outcome, 1), Keeping::Passed, "{outcome:?}");
        }
    }

    #[test]
    fn a_tools_error_is_kept_only_where_the_operator_says_so_and_never_stale() {
        let mut rule = rule();
        rule.life.negative_ttl = 2 * S;
        let Keeping::Kept(life) = rule.keeping(Outcome::ToolError, 1) else { panic!("not kept") };
        assert_eq!(life.worth(S, Duration::ZERO, 0), Worth::Fresh);
        assert_eq!(life.worth(2 * S, Duration::ZERO, 0), Worth::Spent);
        assert_eq!(rule.keeping(Outcome::Failed, 1), Keeping::Passed);
    }

    #[test]
    fn another_rule_is_another_version() {
        let one = rule();
        let mut versions = vec![one.version()];
        for change in [
            |rule: &mut Rule| rule.scope = Scope::Public,
            |rule: &mut Rule| rule.scope = Scope::Claim("public".to_owned()),
            |rule: &mut Rule| rule.life.ttl = S,
            |rule: &mut Rule| rule.tool = Glob::new("*"),
            |rule: &mut Rule| rule.telling = Telling::Silent,
            |rule: &mut Rule| rule.invalidated_by.clear(),
        ] {
            let mut other = rule();
            change(&mut other);
            versions.push(other.version());
        }
        let count = versions.len();
        versions.sort_unstable();
        versions.dedup();
        assert_eq!(versions.len(), count);
        assert_eq!(one.version(), rule().version());
    }

    #[test]
    fn the_first_rule_that_names_a_tool_is_its_rule() {
        let mut narrow = rule();
        narrow.tool = Glob::new("get_price");
        let rules = [narrow, rule()];
        assert_eq!(rule_for(&rules, "get_price").map(|(at, _)| at), Some(0));
        assert_eq!(rule_for(&rules, "get_product").map(|(at, _)| at), Some(1));
        assert_eq!(rule_for(&rules, "update_product"), None);
        assert!(rules[1].is_invalidated_by("update_product") && !rules[1].is_invalidated_by("get_product"));
    }

    #[test]
    fn a_rule_is_useless_only_after_many_asked() {
        assert!(!is_useless(999, 0));
        assert!(is_useless(1_000, 49));
        assert!(!is_useless(1_000, 50));
    }
}
