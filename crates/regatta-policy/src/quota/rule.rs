//! One rule of the operator's: whom and what it counts, under which key, how much it allows.
//!
//! Pure data and the question whether it applies. It names the parts of a key but never builds one: what a header or a
//! session says is the data plane's to know. Nothing here is a secret.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use super::counter::{Algorithm, Breach, Quota};
use super::gcra::Rate;
use super::window::Allowance;
use crate::glob::Glob;
use crate::ids::stable_hash;

/// A checked `[[limit]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// For headers, metrics and people.
    pub name: String,
    /// What it counts.
    pub subject: Subject,
    /// What its counters are kept by; none: one counter for all.
    pub per: Vec<Part>,
    /// How much it allows.
    pub terms: Terms,
    /// What a request takes; the first that fits.
    pub costs: Vec<(Glob, NonZeroU32)>,
    /// What a request takes that no other cost fits.
    pub cost: NonZeroU32,
    /// How a refusal is told.
    pub answer: Answer,
}

/// Which requests a rule counts. Empty lists leave nothing out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// Methods by name. Without any: every request but `initialize` and `ping`, and no notification.
    pub methods: Vec<Glob>,
    /// Tools by name; if there are any, `tools/call` only.
    pub tools: Vec<Glob>,
    /// Names of servers.
    pub servers: Vec<String>,
    /// By what the caller brings.
    pub callers: Callers,
}

/// Whose requests a rule counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Callers {
    /// Everybody's.
    #[default]
    All,
    /// Of callers with a credential.
    Authenticated,
    /// Of callers without.
    Unauthenticated,
}

/// One thing that a rule keeps its counters by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Who calls; a caller without credential counts by address, and never as somebody with one.
    Principal,
    /// The address; of IPv6 the /64.
    Ip,
    /// The legacy session; a request without one counts by its caller.
    Session,
    /// The tool of a `tools/call`; all else together.
    Tool,
    /// A claim of the caller's token; those without it together.
    Claim(String),
    /// A header's value, lower-case name; those without it together.
    Header(String),
}

/// The numbers of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Units in `within`.
    pub allow: NonZeroU32,
    /// The time.
    pub within: Duration,
    /// How they are counted.
    pub shape: Shape,
    /// What a breach costs.
    pub breach: Breach,
}

/// The algorithm, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Exact over any window: all of `allow` may come at once.
    SlidingWindow,
    /// An even rate.
    Gcra {
        /// Units that may come at once.
        burst: NonZeroU32,
    },
}

/// How a refusal is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// 429. Some legacy clients drop their session on it (RELIABILITY 3.2).
    Http,
    /// 200 with a JSON-RPC error: every client shows its code.
    JsonRpc,
}

/// What is known of a request when its method and its tool are proven.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// What it is.
    pub kind: Kind,
    /// Its method, empty for an answer.
    pub method: &'a str,
    /// The tool, of `tools/call`.
    pub tool: Option<&'a str>,
    /// The server's name.
    pub server: &'a str,
    /// What its caller brings.
    pub credential: Credential,
}

/// The kinds of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It will be answered.
    Request,
    /// It will not.
    Notification,
    /// It answers a server's question.
    Answer,
}

/// Whether the caller shows who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credential {
    /// It does.
    Given,
    /// It does not.
    None,
}

/// Whether a rule counts a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applies {
    /// It does.
    Yes {
        /// The units it takes.
        cost: NonZeroU32,
    },
    /// It does not.
    No(Why),
}

/// Why a rule does not count a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It is never refused for being too much (DESIGN 3).
    Exempt,
    /// `initialize`, `ping` and notifications count only where a rule names their method.
    MethodUnnamed,
    /// Another method.
    Method,
    /// Another tool, or none.
    Tool,
    /// Another server.
    Server,
    /// A caller of the other kind.
    Caller,
}

impl Subject {
    /// Whether it counts requests to the server of this name at all.
    pub fn counts_server(&self, name: &str) -> bool {
        self.servers.is_empty() || self.servers.iter().any(|server| server == name)
    }
}

impl Facts<'_> {
    /// Whether no rule may ever refuse it: discovery, the end of a handshake, answers, cancellations.
    pub fn is_exempt(&self) -> bool {
        match self.kind {
            Kind::Answer => true,
            Kind::Request => self.method == "server/discover",
            Kind::Notification => {
                matches!(self.method, "notifications/initialized" | "notifications/cancelled")
            }
        }
    }

    /// Whether a rule has to name its method to count it.
    fn is_unasked(&self) -> bool {
        self.kind == Kind::Notification || matches!(self.method, "initialize" | "ping")
    }
}

impl Rule {
    /// Whether it counts a request, and for how much.
    pub fn applies(&self, facts: &Facts<'_>) -> Applies {
        match self.hindrance(facts) {
            Some(why) => Applies::No(why),
            None => Applies::Yes { cost: self.cost_of(facts) },
        }
    }

    fn hindrance(&self, facts: &Facts<'_>) -> Option<Why> {
        let Subject { methods, tools, servers: _, callers } = &self.subject;
        if facts.is_exempt() {
            return Some(Why::Exempt);
        }
        if !self.subject.counts_server(facts.server) {
            return Some(Why::Server);
        }
        if methods.is_empty() && facts.is_unasked() {
            return Some(Why::MethodUnnamed);
        }
        if !methods.is_empty() && !methods.iter().any(|glob| glob.matches(facts.method)) {
            return Some(Why::Method);
        }
        if !tools.is_empty() && !facts.tool.is_some_and(|tool| tools.iter().any(|glob| glob.matches(tool))) {
            return Some(Why::Tool);
        }
        match (callers, facts.credential) {
            (Callers::All, _)
            | (Callers::Authenticated, Credential::Given)
            | (Callers::Unauthenticated, Credential::None) => None,
            (Callers::Authenticated, Credential::None) | (Callers::Unauthenticated, Credential::Given) => {
                Some(Why::Caller)
            }
        }
    }

    fn cost_of(&self, facts: &Facts<'_>) -> NonZeroU32 {
        let by_tool = facts.tool.and_then(|tool| self.costs.iter().find(|(glob, _)| glob.matches(tool)));
        by_tool.map_or(self.cost, |(_, cost)| *cost)
    }

    /// Whether anything about it depends on the tool that is called.
    pub fn asks_for_tool(&self) -> bool {
        !self.subject.tools.is_empty() || !self.costs.is_empty() || self.per.contains(&Part::Tool)
    }

    /// What its counters go by.
    pub fn quota(&self) -> Quota {
        let Terms { allow, within, shape, breach } = self.terms;
        let algorithm = match shape {
            Shape::SlidingWindow => Algorithm::SlidingWindow(Allowance::new(allow, within)),
            Shape::Gcra { burst } => Algorithm::Gcra(Rate::new(allow, within, burst)),
        };
        Quota { algorithm, breach }
    }

    /// Names what it counts, how and by what: two rules with the same digest may share counters, so counters outlive a
    /// reload that did not change their rule. Its name and how it answers do not matter. The same in every gateway.
    pub fn digest(&self) -> u64 {
        stable_hash(&[self.meaning().as_bytes()])
    }

    /// Everything that a counter's content depends on, as text.
    fn meaning(&self) -> String {
        let globs = |globs: &[Glob]| globs.iter().map(Glob::as_str).collect::<Vec<_>>().join("\n");
        let Subject { methods, tools, servers, callers } = &self.subject;
        let Terms { allow, within, shape, breach } = self.terms;
        let shape = match shape {
            Shape::SlidingWindow => "window".to_owned(),
            Shape::Gcra { burst } => format!("gcra {burst}"),
        };
        let block = match breach {
            Breach::Refused => 0,
            Breach::Blocked(block) => block.as_micros(),
        };
        let callers = match callers {
            Callers::All => "all",
            Callers::Authenticated => "authenticated",
            Callers::Unauthenticated => "unauthenticated",
        };
        let per = self.per.iter().map(Part::to_string).collect::<Vec<_>>().join("\n");
        let costs = self.costs.iter().map(|(glob, cost)| format!("{}\n{cost}", glob.as_str()));
        [
            globs(methods),
            globs(tools),
            servers.join("\n"),
            callers.to_owned(),
            per,
            format!("{allow} {} {shape} {block} {}", within.as_micros(), self.cost),
            costs.collect::<Vec<_>>().join("\n"),
        ]
        .join("\n\n")
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Part::Principal => f.write_str("principal"),
            Part::Ip => f.write_str("ip"),
            Part::Session => f.write_str("session"),
            Part::Tool => f.write_str("tool"),
            Part::Claim(name) => write!(f, "claim:{name}"),
            Part::Header(name) => write!(f, "header:{name}"),
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Why::Exempt => "no rule counts it",
            Why::MethodUnnamed => "counted only where a rule names the method",
            Why::Method => "another method",
            Why::Tool => "another tool",
            Why::Server => "another server",
            Why::Caller => "another kind of caller",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule() -> Rule {
        Rule {
            name: "r".to_owned(),
            subject: Subject::default(),
            per: vec![Part::Principal],
            terms: Terms {
                allow: NonZeroU32::new(60).expect("positive"),
                within: Duration::from_secs(60),
                shape: Shape::SlidingWindow,
                breach: Breach::Refused,
            },
            costs: Vec::new(),
            cost: NonZeroU32::MIN,
            answer: Answer::Http,
        }
    }

    fn facts(kind: Kind, method: &'static str) -> Facts<'static> {
        Facts { kind, method, tool: None, server: "shop", credential: Credential::Given }
    }

    fn call(tool: &'static str) -> Facts<'static> {
        Facts { tool: Some(tool), ..facts(Kind::Request, "tools/call") }
    }

    fn globs(patterns: &[&str]) -> Vec<Glob> {
        patterns.iter().map(|pattern| Glob::new(*pattern)).collect()
    }

    #[test]
    fn a_rule_that_names_nothing_counts_every_request_but_handshakes_pings_and_notifications() {
        for method in ["tools/call", "tools/list", "resources/read", "something/else"] {
            let applies = rule().applies(&facts(Kind::Request, method));
            assert_eq!(applies, Applies::Yes { cost: NonZeroU32::MIN }, "{method}");
        }
        for (kind, method) in [
            (Kind::Request, "initialize"),
            (Kind::Request, "ping"),
            (Kind::Notification, "notifications/progress"),
        ] {
            assert_eq!(rule().applies(&facts(kind, method)), Applies::No(Why::MethodUnnamed), "{method}");
        }
    }

    #[test]
    fn a_rule_that_names_a_method_counts_it_unless_it_is_exempt() {
        let mut all = rule();
        all.subject.methods = globs(&["*"]);
        let one = Applies::Yes { cost: NonZeroU32::MIN };
        assert_eq!(all.applies(&facts(Kind::Request, "initialize")), one);
        assert_eq!(all.applies(&facts(Kind::Notification, "notifications/progress")), one);
        for (kind, method) in [
            (Kind::Request, "server/discover"),
            (Kind::Notification, "notifications/initialized"),
            (Kind::Notification, "notifications/cancelled"),
            (Kind::Answer, ""),
        ] {
            assert_eq!(all.applies(&facts(kind, method)), Applies::No(Why::Exempt), "{method}");
        }
    }

    #[test]
    fn a_rule_for_tools_counts_calls_of_these_tools_each_for_its_cost() {
        let mut rule = rule();
        let cost = |number| NonZeroU32::new(number).expect("positive");
        rule.subject.tools = globs(&["search_*", "get_*"]);
        rule.costs = vec![(Glob::new("search_all"), cost(10)), (Glob::new("search_*"), cost(5))];
        for (facts, applies) in [
            (call("search_all"), Applies::Yes { cost: cost(10) }),
            (call("search_products"), Applies::Yes { cost: cost(5) }),
            (call("get_product"), Applies::Yes { cost: cost(1) }),
            (call("buy"), Applies::No(Why::Tool)),
            (facts(Kind::Request, "tools/list"), Applies::No(Why::Tool)),
        ] {
            assert_eq!(rule.applies(&facts), applies, "{facts:?}");
        }
    }

    #[test]
    fn servers_and_callers_leave_out_the_others() {
        let mut rule = rule();
        rule.subject.servers = vec!["shop".to_owned()];
        rule.subject.callers = Callers::Unauthenticated;
        let anonymous = Facts { credential: Credential::None, ..call("x") };
        assert!(matches!(rule.applies(&anonymous), Applies::Yes { .. }));
        assert_eq!(rule.applies(&call("x")), Applies::No(Why::Caller));
        assert_eq!(rule.applies(&Facts { server: "other", ..anonymous }), Applies::No(Why::Server));
        rule.subject.callers = Callers::Authenticated;
        assert_eq!(rule.applies(&anonymous), Applies::No(Why::Caller));
    }

    #[test]
    fn a_new_name_keeps_the_counters_and_a_new_meaning_does_not() {
        let one = rule();
        let mut named = one.clone();
        (named.name, named.answer) = ("other".to_owned(), Answer::JsonRpc);
        assert_eq!(one.digest(), named.digest());
        let changes: [fn(&mut Rule); 7] = [
            |rule| rule.terms.allow = NonZeroU32::MIN,
            |rule| rule.terms.within = Duration::from_secs(61),
            |rule| rule.terms.breach = Breach::Blocked(Duration::from_secs(1)),
            |rule| rule.terms.shape = Shape::Gcra { burst: NonZeroU32::MIN },
            |rule| rule.per = vec![Part::Ip],
            |rule| rule.subject.tools = vec![Glob::new("a")],
            |rule| rule.subject.methods = vec![Glob::new("a")],
        ];
        for (at, change) in changes.iter().enumerate() {
            let mut other = one.clone();
            change(&mut other);
            assert_ne!(one.digest(), other.digest(), "change {at}");
        }
    }
}
