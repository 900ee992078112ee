//! `regatta check --explain`: which rules count a request, in order, under which key and for how much.
//!
//! It asks the same rules as the gateway (`regatta_policy::quota`) about a request that a person describes. It counts
//! nothing and knows nothing of what was used.

use std::collections::BTreeMap;

use regatta_control::config::Config;
use regatta_policy::quota::counter::Breach;
use regatta_policy::quota::rule::{Answer, Applies, Credential, Facts, Kind, Part, Rule, Shape};
use regatta_policy::snapshot::Server;

/// A request as described: `tools/call search_products sub=alice ip=192.0.2.7`.
#[derive(Debug, PartialEq, Eq)]
struct Described {
    method: String,
    tool: Option<String>,
    said: BTreeMap<String, String>,
}

const SHAPE: &str = "METHOD [TOOL] [sub=…] [ip=…] [session=…] [server=…] [header:<name>=…] [claim:<name>=…]";

/// What the rules of `config` make of the request that `text` describes; or what is wrong with `text`.
pub fn explain(config: &Config, text: &str) -> Result<String, String> {
    let described = describe(text)?;
    let server = server(config, &described)?;
    let (kind, credential) = (described.kind(), described.credential());
    let facts = Facts {
        kind,
        method: &described.method,
        tool: described.tool.as_deref(),
        server: &server.name,
        credential,
    };
    let mut lines = vec![described.headline(server)];
    let counted = config.quotas.iter().filter(|rule| matches!(rule.applies(&facts), Applies::Yes { .. }));
    let counted = counted.count();
    for (at, rule) in config.quotas.iter().enumerate() {
        let number = at + 1;
        lines.push(match rule.applies(&facts) {
            Applies::Yes { cost } => {
                format!("{number}. {}: takes {cost} of {}, {}", rule.name, terms(rule), described.key(rule))
            }
            Applies::No(why) => format!("{number}. {}: does not count it: {why}", rule.name),
        });
    }
    if kind == Kind::Request && described.method == "initialize" {
        let most = config.limits.initialize_per_minute_max;
        lines.push(format!("   gateway.initialize_per_minute_max: takes 1 of {most} in 60s, by principal"));
    }
    lines.push(match (facts.is_exempt(), counted) {
        (true, _) => "it is never refused for being too much".to_owned(),
        (false, 0) => "no rule counts it: it is not limited".to_owned(),
        (false, 1) => "one rule counts it".to_owned(),
        (false, rules) => {
            format!("{rules} rules count it: it must be within all of them, or none is charged")
        }
    });
    Ok(lines.join("\n"))
}

fn describe(text: &str) -> Result<Described, String> {
    let mut words = text.split_whitespace().peekable();
    let method = words.next().filter(|word| !word.contains('='));
    let method = method.ok_or_else(|| format!("the request to explain has no method; expected {SHAPE}"))?;
    let tool = words.next_if(|word| !word.contains('=')).map(str::to_owned);
    let mut said = BTreeMap::new();
    for word in words {
        let (key, value) =
            word.split_once('=').ok_or_else(|| format!("{word:?} is not understood; expected {SHAPE}"))?;
        let key = key.to_ascii_lowercase();
        let is_known = matches!(key.as_str(), "sub" | "ip" | "session" | "server")
            || key.starts_with("header:")
            || key.starts_with("claim:");
        if !is_known {
            return Err(format!("{key:?} is not known; expected {SHAPE}"));
        }
        said.insert(key, value.to_owned());
    }
    if tool.is_some() && method != "tools/call" {
        return Err(format!("{method} names no tool; only tools/call does"));
    }
    Ok(Described { method: method.to_owned(), tool, said })
}

/// The server that was named, or the first.
fn server<'a>(config: &'a Config, described: &Described) -> Result<&'a Server, String> {
    let known = || config.servers.iter().map(|server| server.name.as_str()).collect::<Vec<_>>().join(", ");
    let named = described.said.get("server");
    let mut servers = config.servers.iter();
    let found = servers.find(|server| named.is_none_or(|name| *name == server.name));
    found.map(|server| &**server).ok_or_else(|| format!("there is no such server; there are: {}", known()))
}

impl Described {
    fn kind(&self) -> Kind {
        if self.method.starts_with("notifications/") { Kind::Notification } else { Kind::Request }
    }

    fn credential(&self) -> Credential {
        if self.said.contains_key("sub") { Credential::Given } else { Credential::None }
    }

    fn said(&self, key: &str) -> Option<&str> {
        self.said.get(key).map(String::as_str)
    }

    fn headline(&self, server: &Server) -> String {
        let tool = self.tool.as_deref().map(|tool| format!(" {tool}")).unwrap_or_default();
        let who = self.said("sub").map_or("a caller without credential".to_owned(), str::to_owned);
        let at = self.said("ip").map(|ip| format!(" at {ip}")).unwrap_or_default();
        format!("{}{tool} at server {}, by {who}{at}", self.method, server.name)
    }

    /// What `rule` keeps this request's counter by.
    fn key(&self, rule: &Rule) -> String {
        if rule.per.is_empty() {
            return "all callers together".to_owned();
        }
        let parts = rule.per.iter().map(|part| {
            let value = self.value(part);
            format!("{part} ({value})")
        });
        format!("by {}", parts.collect::<Vec<_>>().join(" and "))
    }

    fn value(&self, part: &Part) -> String {
        let address = || self.said("ip").map_or("the address".to_owned(), |ip| format!("address {ip}"));
        let principal = || self.said("sub").map_or_else(address, str::to_owned);
        let or_none = |value: Option<&str>| value.unwrap_or("none").to_owned();
        match part {
            Part::Principal => principal(),
            Part::Ip => address(),
            Part::Session => self.said("session").map_or_else(principal, str::to_owned),
            Part::Tool => or_none(self.tool.as_deref()),
            Part::Claim(_) | Part::Header(_) => or_none(self.said(&part.to_string())),
        }
    }
}

fn terms(rule: &Rule) -> String {
    let terms = rule.terms;
    let within = terms.within.as_secs_f64();
    let shape = match terms.shape {
        Shape::SlidingWindow => String::new(),
        Shape::Gcra { burst } => format!(" evenly, {burst} at once"),
    };
    let breach = match terms.breach {
        Breach::Refused => String::new(),
        Breach::Blocked(block) => format!(", blocked {}s after a refusal", block.as_secs_f64()),
    };
    let answer = match rule.answer {
        Answer::Http => "429",
        Answer::JsonRpc => "200 with an error",
    };
    format!("{} in {within}s{shape}{breach}, refused with {answer}", terms.allow)
}

#[cfg(test)]
mod tests {
    use super::*;
    use regatta_control::config::{Env, check};

    const CONFIG: &str = "[[server]]\nname = \"shop\"\nreplicas = [\"http://127.0.0.1:3001/mcp\"]\n\
        [[limit]]\nname = \"all\"\nallow = 60\nblock = \"60s\"\ncost = { search_products = 5 }\n\
        [[limit]]\nname = \"team\"\nallow = 9\nper = [\"header:X-Team\", \"tool\"]\nalgorithm = \"gcra\"\nburst = 3\nanswer = \"json-rpc\"\n\
        [[limit]]\nname = \"anonymous\"\nallow = 100\nper = \"ip\"\nauthenticated = false\n\
        [[limit]]\nname = \"together\"\nallow = 5\nper = \"all\"\ntool = \"buy\"\n";

    fn explained(text: &str) -> Result<String, String> {
        explain(&check("regatta.toml", CONFIG, &Env::default()).expect("a good config"), text)
    }

    #[test]
    fn says_in_order_which_rules_count_a_call_and_why_the_others_do_not() {
        let text = "tools/call search_products sub=alice ip=192.0.2.7 header:X-Team=red";
        assert_eq!(
            explained(text).expect("understood"),
            "tools/call search_products at server shop, by alice at 192.0.2.7\n\
             1. all: takes 5 of 60 in 60s, blocked 60s after a refusal, refused with 429, by principal (alice)\n\
             2. team: takes 1 of 9 in 60s evenly, 3 at once, refused with 200 with an error, by header:x-team (red) and tool (search_products)\n\
             3. anonymous: does not count it: another kind of caller\n\
             4. together: does not count it: another tool\n\
             2 rules count it: it must be within all of them, or none is charged"
        );
    }

    #[test]
    fn says_that_handshakes_and_exempt_requests_are_not_counted() {
        let last = |text: &str| explained(text).expect("understood").lines().last().map(str::to_owned);
        assert_eq!(last("server/discover").as_deref(), Some("it is never refused for being too much"));
        assert_eq!(
            last("notifications/initialized").as_deref(),
            Some("it is never refused for being too much")
        );
        assert_eq!(last("ping ip=::1").as_deref(), Some("no rule counts it: it is not limited"));
        assert!(explained("initialize").expect("understood").contains("initialize_per_minute_max: takes 1"));
    }

    #[test]
    fn what_it_does_not_understand_it_says() {
        for (text, part) in [
            ("", "no method"),
            ("sub=alice", "no method"),
            ("tools/call a b", "not understood"),
            ("tools/list x", "names no tool"),
            ("ping user=a", "\"user\" is not known"),
            ("ping server=x", "there are: shop"),
        ] {
            let wrong = explained(text).expect_err(text);
            assert!(wrong.contains(part), "{text}: {wrong}");
        }
    }
}
