//! `[[limit]]`: rules for how much a caller may ask for.
//!
//! What a rule means is `regatta_policy::quota`'s; here it is read, and what cannot mean anything is refused: a rule
//! that never counts, a cost that never fits, two rules that would share their counters.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use regatta_policy::Glob;
use regatta_policy::quota::counter::Breach;
use regatta_policy::quota::rule::{Answer, Callers, Part, Rule, Shape, Subject, Terms};
use regatta_policy::snapshot::Server;

use super::header;
use super::raw::{Findings, Found, Section};

/// Rules in one config.
const RULES_MAX: usize = 64;
const UNITS_MAX: i64 = 1_000_000;
const MS: Duration = Duration::from_millis(1);
const DAY: Duration = Duration::from_secs(24 * 3600);

const NAME: &str = "1 to 64 letters, digits, - . or _";
const PART: &str =
    "\"principal\", \"ip\", \"session\", \"tool\", \"header:<name>\", \"claim:<name>\" or \"all\"";
const UNITS: &str = "a whole number from 1 to 1000000";

/// What rules may name.
#[derive(Clone, Copy)]
pub struct Known<'a> {
    pub servers: &'a [Arc<Server>],
    /// The claims that are kept of tokens.
    pub claims: &'a [String],
}

/// Reads all rules.
pub fn rules<'a>(top: &Section<'a>, findings: &'a Findings, text: &'a str, known: Known<'_>) -> Vec<Rule> {
    let Some(found) = top.find("limit") else { return Vec::new() };
    let Some(tables) = found.tables() else {
        top.refuse(&found, "[[limit]], once a rule", None);
        return Vec::new();
    };
    if tables.len() > RULES_MAX {
        let expected = format!("at most {RULES_MAX} rules");
        top.miss(format!("{} [[limit]] are configured", tables.len()), &expected, None);
    }
    let (mut names, mut meanings) = (HashMap::new(), HashMap::new());
    let mut rules = Vec::new();
    for (index, (table, span)) in tables.into_iter().take(RULES_MAX).enumerate() {
        let number = index + 1;
        let section = Section::new(findings, text, &format!("limit[{number}]")).with_table(table, span);
        let rule = rule(&section, number, text, known);
        if let Some(first) = names.insert(rule.name.clone(), number) {
            let what = format!("limit[{number}] and limit[{first}] are both named \"{}\"", rule.name);
            section.miss(what, "a name of its own for each rule", None);
        }
        if let Some(first) = meanings.insert(rule.digest(), number) {
            let what = format!("limit[{number}] counts the same as limit[{first}]");
            let hint = "every request would be counted twice; take one of them out";
            section.miss(what, "each rule once", Some(hint));
        }
        section.finish();
        rules.push(rule);
    }
    rules
}

fn rule(section: &Section<'_>, number: usize, text: &str, known: Known<'_>) -> Rule {
    let name = section.get("name", format!("limit-{number}"), NAME, |found| {
        let name = found.text()?;
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        ((1..=64).contains(&name.len()) && name.bytes().all(fits)).then(|| name.to_owned())
    });
    let subject = subject(section, known.servers);
    let per = per(section, known.claims);
    let terms = terms(section);
    let (cost, costs) = costs(section, &terms, text);
    let answer = [("http", Answer::Http), ("json-rpc", Answer::JsonRpc)];
    Rule { name, subject, per, terms, costs, cost, answer: section.choice("answer", Answer::Http, &answer) }
}

fn subject(section: &Section<'_>, servers: &[Arc<Server>]) -> Subject {
    let glob = |found: &Found<'_>| found.text().filter(|text| !text.is_empty()).map(Glob::new);
    let methods = section.list("method", "a method like \"tools/call\"; * stands for any letters", |found| {
        let never = ["server/discover", "notifications/initialized", "notifications/cancelled"];
        glob(found).filter(|glob| !never.contains(&glob.as_str()))
    });
    let tools = section.list("tool", "a tool name; * stands for any letters", glob);
    if !tools.is_empty() && !methods.is_empty() && !methods.iter().any(|glob| glob.matches("tools/call")) {
        let hint = "leave method out: tools are called with tools/call only";
        section.miss(
            "a rule has both tool and a method other than tools/call".to_owned(),
            "a rule that can count something",
            Some(hint),
        );
    }
    let known = servers.iter().map(|server| format!("\"{}\"", server.name)).collect::<Vec<_>>().join(", ");
    let servers = section.list("server", &format!("the name of a server: {known}"), |found| {
        servers.iter().find(|server| Some(server.name.as_str()) == found.text()).map(|s| s.name.clone())
    });
    let callers = section.get("authenticated", Callers::All, "true or false", |found| {
        found.flag().map(|flag| if flag { Callers::Authenticated } else { Callers::Unauthenticated })
    });
    Subject { methods, tools, servers, callers }
}

fn per(section: &Section<'_>, claims: &[String]) -> Vec<Part> {
    let mut written = 0;
    // None stands for "all".
    let parts: Vec<Option<Part>> = section.list("per", PART, |found| {
        written += 1;
        let text = found.text()?;
        Some(match text {
            "all" => None,
            "principal" => Some(Part::Principal),
            "ip" => Some(Part::Ip),
            "session" => Some(Part::Session),
            "tool" => Some(Part::Tool),
            text => Some(named(section, found, text, claims)?),
        })
    });
    let is_doubled = parts.iter().enumerate().any(|(at, part)| parts[..at].contains(part));
    if is_doubled || (parts.len() > 1 && parts.contains(&None)) {
        section.miss(
            "per names something twice, or \"all\" beside something else".to_owned(),
            "each part once",
            None,
        );
    }
    if written == 0 { vec![Part::Principal] } else { parts.into_iter().flatten().collect() }
}

/// `header:<name>` and `claim:<name>`.
fn named(section: &Section<'_>, found: &Found<'_>, text: &str, claims: &[String]) -> Option<Part> {
    match text.split_once(':')? {
        ("header", name) => header::deciding(name).map(Part::Header),
        ("claim", name) if !name.is_empty() => {
            if !claims.iter().any(|kept| kept == name) {
                let hint = "list it under auth.claims: what is not kept of a token cannot be counted by";
                section.refuse(found, PART, Some(hint));
            }
            Some(Part::Claim(name.to_owned()))
        }
        (_, _) => None,
    }
}

fn units(found: &Found<'_>) -> Option<NonZeroU32> {
    let number = found.whole().filter(|number| (1..=UNITS_MAX).contains(number))?;
    NonZeroU32::new(u32::try_from(number).ok()?)
}

fn terms(section: &Section<'_>) -> Terms {
    let allow = section.get("allow", None, UNITS, |found| units(found).map(Some));
    if section.find("allow").is_none() {
        section.miss("a rule has no allow".to_owned(), "how much it allows: allow = 60", None);
    }
    let minute = Duration::from_secs(60);
    let within = section.time("within", minute, 100 * MS..=31 * DAY);
    let block = section.time("block", Duration::ZERO, 100 * MS..=31 * DAY);
    let breach = if block.is_zero() { Breach::Refused } else { Breach::Blocked(block) };
    let burst = section.get("burst", NonZeroU32::MIN, UNITS, units);
    let window = Shape::SlidingWindow;
    let shape =
        section.choice("algorithm", window, &[("sliding-window", window), ("gcra", Shape::Gcra { burst })]);
    if let (Shape::SlidingWindow, Some(found)) = (shape, section.find("burst")) {
        let hint = "a sliding window lets all of allow come at once; algorithm = \"gcra\" has a burst";
        section.refuse(&found, "nothing here without algorithm = \"gcra\"", Some(hint));
    }
    Terms { allow: allow.unwrap_or(NonZeroU32::MIN), within, shape, breach }
}

fn costs(section: &Section<'_>, terms: &Terms, text: &str) -> (NonZeroU32, Vec<(Glob, NonZeroU32)>) {
    let free = (NonZeroU32::MIN, Vec::new());
    let Some(found) = section.find("cost") else { return free };
    let (most, of) = match terms.shape {
        Shape::SlidingWindow => (terms.allow, "allow"),
        Shape::Gcra { burst } => (burst, "burst"),
    };
    let expected =
        format!("a whole number from 1 to {of} ({most}), or a table like {{ search_products = 5 }}");
    let fitting = |found: &Found<'_>| units(found).filter(|cost| *cost <= most);
    let Some(entries) = found.entries(text) else {
        return match fitting(&found) {
            Some(cost) => (cost, Vec::new()),
            None => {
                section.refuse(&found, &expected, None);
                free
            }
        };
    };
    let mut costs = Vec::new();
    for (tool, value) in entries {
        match fitting(&value) {
            Some(cost) => costs.push((Glob::new(tool), cost)),
            None => section.refuse(&value, &format!("a whole number from 1 to {of} ({most})"), None),
        }
    }
    (NonZeroU32::MIN, costs)
}
