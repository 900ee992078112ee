//! `[[cache]]`: which results of a server's tools are kept, for whom and for how long.
//!
//! A rule joins the server that it names. Nothing is kept that no rule names, and `public` is never a default.

use std::sync::Arc;
use std::time::Duration;

use regatta_policy::Glob;
use regatta_policy::cache::{Life, Rule, Scope, Telling};
use regatta_policy::snapshot::Server;

use super::raw::{Found, Section};

const SCOPE: &str = "one of \"principal\", \"public\", \"session\", \"claim:<name>\"";
const TOOL: &str = "a tool name; * stands for any letters";
const DAY: Duration = Duration::from_secs(24 * 3600);
const MS: Duration = Duration::from_millis(1);

/// Reads one rule and gives it to its server. `claims` are those that are kept of tokens.
pub fn rule(section: &Section<'_>, servers: &mut [Arc<Server>], claims: &[String]) {
    let rule = Rule {
        tool: tool(section),
        scope: section.get("scope", Scope::Principal, SCOPE, scope),
        life: life(section),
        max_bytes: section.bytes("max_bytes", 256 << 10, 1..=16 << 20),
        invalidated_by: section.list("invalidated_by", TOOL, glob),
        telling: section.choice(
            "mark",
            Telling::Marked,
            &[("on", Telling::Marked), ("off", Telling::Silent)],
        ),
    };
    if let (Scope::Claim(name), Some(found)) = (&rule.scope, section.find("scope"))
        && !claims.contains(name)
    {
        let hint = "list it under auth.claims: what is not kept of a token cannot be shared by";
        section.refuse(&found, SCOPE, Some(hint));
    }
    let Some(server) = server(section, servers) else { return };
    if server.cache.iter().any(|other| other.tool == rule.tool) {
        let what = format!("server \"{}\" has two caches for \"{}\"", server.name, rule.tool.as_str());
        section.miss(what, "each tool pattern once", None);
        return;
    }
    // Nobody else holds it yet.
    Arc::make_mut(server).cache.push(rule);
}

fn server<'a>(section: &Section<'_>, servers: &'a mut [Arc<Server>]) -> Option<&'a mut Arc<Server>> {
    let names: Vec<String> = servers.iter().map(|server| format!("\"{}\"", server.name)).collect();
    match section.find("server") {
        None if servers.len() == 1 => servers.first_mut(),
        None => {
            let what = "[[cache]] does not say which server".to_owned();
            section.miss(what, "server = \"…\", where there are several", None);
            None
        }
        Some(found) => {
            let place = servers.iter().position(|server| Some(server.name.as_str()) == found.text());
            if place.is_none() {
                section.refuse(
                    &found,
                    "the name of a [[server]]",
                    Some(&format!("here are: {}", names.join(", "))),
                );
            }
            servers.get_mut(place?)
        }
    }
}

fn tool(section: &Section<'_>) -> Glob {
    let Some(found) = section.find("tool") else {
        let hint = "tool = \"get_product\", or tool = \"get_*\"; nothing is kept that no rule names";
        section.miss("[[cache]] names no tool".to_owned(), TOOL, Some(hint));
        return Glob::new("");
    };
    glob(&found).unwrap_or_else(|| {
        section.refuse(&found, TOOL, None);
        Glob::new("")
    })
}

fn glob(found: &Found<'_>) -> Option<Glob> {
    found.text().filter(|text| !text.is_empty()).map(Glob::new)
}

fn scope(found: &Found<'_>) -> Option<Scope> {
    match found.text()? {
        "principal" => Some(Scope::Principal),
        "public" => Some(Scope::Public),
        "session" => Some(Scope::Session),
        text => match text.split_once(':')? {
            ("claim", name) if !name.is_empty() => Some(Scope::Claim(name.to_owned())),
            (_, _) => None,
        },
    }
}

fn life(section: &Section<'_>) -> Life {
    let none = Duration::ZERO;
    let ttl = section.time("ttl", none, MS..=30 * DAY);
    if section.find("ttl").is_none() {
        section.miss(
            "[[cache]] has no ttl".to_owned(),
            "how long a result is fresh, like ttl = \"5m\"",
            None,
        );
    }
    Life {
        ttl,
        stale_while_revalidate: section.time("stale_while_revalidate", none, none..=30 * DAY),
        stale_if_error: section.time("stale_if_error", none, none..=30 * DAY),
        negative_ttl: section.time("negative_ttl", none, none..=DAY),
    }
}
