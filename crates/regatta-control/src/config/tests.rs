//! What a config means, and every kind of complaint as exact text.

use std::time::Duration;

use regatta_policy::cache::{Hints, Life, Scope, Telling};
use regatta_policy::quota::counter::Breach;
use regatta_policy::quota::rule::{Answer, Callers, Part, Shape};
use regatta_policy::snapshot::{Affinity, Balance, Limits, SessionState};

use super::registry::{Joining, ToolSource};
use super::{Config, Env, check};

const SERVER: &str = "[[server]]\nreplicas = [\"http://127.0.0.1:3001/mcp\"]\n";

fn accepted(text: &str) -> Config {
    check("regatta.toml", text, &Env::default()).unwrap_or_else(|complaints| panic!("{complaints}"))
}

fn complaints(text: &str) -> String {
    check("regatta.toml", text, &Env::default()).err().map(|all| all.to_string()).unwrap_or_default()
}

#[test]
fn no_header_that_only_a_server_can_prove_decides_anything() {
    let text = format!(
        "{SERVER}affinity = \"header:Mcp-Param-Tenant\"\n[[limit]]\nallow = 6\nwithin = \"1m\"\nper = \"header:mcp-param-tenant\"\n"
    );
    let complaints = complaints(&text);
    for part in
        ["server[1].affinity = \"header:Mcp-Param-Tenant\"", "limit[1].per = \"header:mcp-param-tenant\""]
    {
        assert!(complaints.contains(part), "{part}: {complaints}");
    }
}

#[test]
fn everything_but_a_replica_has_a_default() {
    let config = accepted(SERVER);
    assert_eq!(config.process.listen[0].to_string(), "127.0.0.1:8080");
    assert_eq!(config.process.admin.unwrap().to_string(), "127.0.0.1:9901");
    assert_eq!(config.process.drain_deadline, Duration::from_secs(20));
    assert_eq!(format!("{:?}", config.limits), format!("{:?}", Limits::default()));
    let server = &config.servers[0];
    assert_eq!((server.name.as_str(), server.path.as_str()), ("default", "/mcp"));
    assert_eq!((server.balance, server.session_state), (Balance::LeastLoad, SessionState::Unknown));
}

#[test]
fn the_example_of_the_design_is_understood() {
    let config = accepted(
        r#"
[gateway]
listen = "127.0.0.1:8080"
admin = "127.0.0.1:9901"
drain_deadline = "20s"
body_max = "4MiB"
inflight_max = 1_000
queue_max = 1000
queue_wait_max = "1s"
allowed_hosts = ["Gateway.Example", "*"]

[[server]]
name = "shop"
replicas = ["http://127.0.0.1:3001/mcp", "http://127.0.0.1:3002/mcp"]
balance = "sticky-ip"
session_state = "external"
request_timeout = "30s"
repeatable_tools = ["get_*"]
trust_annotations = false
affinity = "header:X-User"
"#,
    );
    let server = &config.servers[0];
    assert_eq!(server.name, "shop");
    assert_eq!(server.replicas.len(), 2);
    assert_ne!(server.replicas[0].id, server.replicas[1].id);
    assert_eq!(server.affinity, Affinity::Header("x-user".to_owned()));
    assert!(server.repeatable_tools[0].matches("get_product"));
    assert!(config.admission.any_host);
    assert_eq!(config.admission.hosts, ["gateway.example"]);
}

#[test]
fn all_complaints_come_at_once_in_the_order_of_the_file() {
    let text = "[gateway]\nlisten = 8080\ninflight_max = 0\nbodymax = \"1MiB\"\nqueue_wait_max = \"1\"\n\n\
                [[server]]\nbalance = \"random\"\nreplicas = [\n  \"ftp://h/mcp\",\n  \"http://u:secret@h/mcp\",\n]\n";
    assert_eq!(
        complaints(text),
        r#"error: regatta.toml:2: gateway.listen = 8080
  expected a list, each an address and a port, like "127.0.0.1:8080"
error: regatta.toml:3: gateway.inflight_max = 0
  expected a whole number from 1 to 1000000
hint: to take no work at all, stop the gateway; SIGTERM drains it
error: regatta.toml:4: gateway.bodymax = "1MiB"
  expected a known key
hint: did you mean body_max?
error: regatta.toml:5: gateway.queue_wait_max = "1"
  expected a time from 1ms to 1m with its unit, like "20s" or "1m30s"
error: regatta.toml:8: server[1].balance = "random"
  expected one of "round-robin", "least-connections", "least-load", "sticky-ip"
error: regatta.toml:10: server[1].replicas[1] = "ftp://h/mcp"
  expected a URL that begins with http:// or https://
error: regatta.toml:11: server[1].replicas[2] = "http://…@h/mcp"
  expected a URL without a name or password; clients send their own Authorization header"#
    );
}

#[test]
fn a_cache_joins_the_server_that_it_names() {
    let config = accepted(&format!(
        "{SERVER}cache_hints = \"trust\"\nlist_ttl = \"1m\"\n[[cache]]\ntool = \"get_*\"\nttl = \"5m\"\nscope = \"claim:tenant\"\n\
         invalidated_by = [\"update_*\"]\nmark = \"off\"\n[[cache]]\nserver = \"default\"\ntool = \"x\"\nttl = \"1s\"\n\
         [auth]\nclaims = [\"tenant\"]\n[[auth.api_key]]\nname = \"ci\"\n\
         sha256 = \"8f434346648f6b96df89dda901c5176b10a6d83961dd3c1ac88b59b2dc327aa4\"\n"
    ));
    let server = &config.servers[0];
    assert_eq!(server.lists.hints, Hints::Trusted);
    assert_eq!(server.lists.list_ttl, Duration::from_secs(60));
    let [first, second] = &server.cache[..] else { panic!("{:?}", server.cache) };
    assert_eq!(first.scope, Scope::Claim("tenant".to_owned()));
    assert_eq!((first.life, first.telling), (Life::plain(Duration::from_secs(300)), Telling::Silent));
    assert!(first.is_invalidated_by("update_product"));
    assert_eq!((&second.scope, second.max_bytes), (&Scope::Principal, 256 << 10));
}

#[test]
fn what_a_cache_lacks_or_mistakes_is_said() {
    let text = format!(
        "{SERVER}\n[[cache]]\ntool = \"a\"\nscope = \"everybody\"\n[[cache]]\nserver = \"shop\"\nttl = \"1s\"\n\
         [[cache]]\ntool = \"b\"\nttl = \"1s\"\n[[cache]]\ntool = \"b\"\nttl = \"2s\"\nscope = \"claim:tenant\"\n"
    );
    assert_eq!(
        complaints(&text),
        r#"error: regatta.toml:4: [[cache]] has no ttl
  expected how long a result is fresh, like ttl = "5m"
error: regatta.toml:6: cache[1].scope = "everybody"
  expected one of "principal", "public", "session", "claim:<name>"
error: regatta.toml:7: [[cache]] names no tool
  expected a tool name; * stands for any letters
hint: tool = "get_product", or tool = "get_*"; nothing is kept that no rule names
error: regatta.toml:8: cache[2].server = "shop"
  expected the name of a [[server]]
hint: here are: "default"
error: regatta.toml:13: server "default" has two caches for "b"
  expected each tool pattern once
error: regatta.toml:16: cache[4].scope = "claim:tenant"
  expected one of "principal", "public", "session", "claim:<name>"
hint: list it under auth.claims: what is not kept of a token cannot be shared by"#
    );
}

#[test]
fn two_servers_need_two_names_and_two_paths() {
    let text = "[[server]]\nname = \"a\"\nreplicas = [\"http://h:1\"]\n\n[[server]]\nname = \"a\"\nreplicas = [\"http://h:2\"]\n";
    assert_eq!(
        complaints(text),
        r#"error: regatta.toml:5: server[2] and server[1] are both named "a"
  expected a name of its own for each server
error: regatta.toml:5: server[2] and server[1] share the path "/mcp"
  expected a path of its own for each server
hint: give it path = "/…"; one endpoint over several servers (federation) is not in this build"#
    );
}

#[test]
fn a_file_without_servers_and_one_without_replicas_are_refused() {
    assert_eq!(
        complaints("[gateway]\n"),
        "error: regatta.toml: no [[server]] is configured\n  expected at least one server\n\
         hint: [[server]] with replicas = [\"http://127.0.0.1:3001/mcp\"]"
    );
    assert_eq!(
        complaints("[[server]]\nname = \"x\"\n"),
        "error: regatta.toml:1: server \"x\" has no replicas\n  expected at least one URL\n\
         hint: replicas = [\"http://127.0.0.1:3001/mcp\"], or registry = true"
    );
    assert!(complaints("[server]\nname = \"x\"\n").starts_with("error: regatta.toml:1: server = {…}"));
}

#[test]
fn broken_toml_is_shown_with_its_line() {
    let said = complaints("[gateway]\nlisten = \n");
    assert!(said.starts_with("error: regatta.toml:2: listen =\n  expected valid TOML: "), "{said}");
}

#[test]
fn values_must_fit_together() {
    let text = format!(
        "[gateway]\nadmin = \"127.0.0.1:8080\"\ntls_cert = \"c.pem\"\n{SERVER}request_max = \"1s\"\n"
    );
    let said = complaints(&text);
    for part in
        ["gateway.admin and gateway.listen are both", "tls_cert stands without", "request_max is shorter"]
    {
        assert!(said.contains(part), "{part} in {said}");
    }
}

#[test]
fn the_environment_wins_over_the_file() {
    let env = |name: &str, value: &str| Env([(name.to_owned(), value.to_owned())].into());
    let text = format!("[gateway]\nlisten = \"127.0.0.1:1\"\n{SERVER}");
    let config =
        check("regatta.toml", &text, &env("REGATTA_GATEWAY_LISTEN", "[::1]:2, localhost:3")).unwrap();
    assert_eq!(
        config.process.listen.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["[::1]:2", "127.0.0.1:3"]
    );
    let said =
        check("regatta.toml", &text, &env("REGATTA_GATEWAY_BODY_MAX", "lots")).unwrap_err().to_string();
    assert_eq!(
        said,
        "error: environment REGATTA_GATEWAY_BODY_MAX: gateway.body_max = \"lots\"\n\
         \u{20} expected a size from 1KiB to 1GiB, like \"64KiB\""
    );
    // Orchestrators put variables of their own into the environment.
    assert!(check("regatta.toml", &text, &env("REGATTA_GATEWAY_SERVICE_HOST", "10.0.0.1")).is_ok());
}

#[test]
fn a_url_without_a_path_is_noted() {
    let config = accepted("[[server]]\nreplicas = [\"http://127.0.0.1:3001\"]\n");
    assert_eq!(config.servers[0].replicas[0].endpoint.path, "/mcp");
    assert_eq!(config.notes, ["server[1].replicas[1] = \"http://127.0.0.1:3001\": no path, so /mcp is used"]);
}

#[test]
fn paths_that_could_be_read_two_ways_are_refused() {
    for path in ["mcp", "//mcp", "/a/../b", "/a//b", "/a%2fb", "/a?b", "/."] {
        let said = complaints(&format!("{SERVER}path = \"{path}\"\n"));
        assert!(said.contains("server[1].path"), "{path}: {said}");
    }
    for path in ["/", "/mcp/", "/teams/shop"] {
        accepted(&format!("{SERVER}path = \"{path}\"\n"));
    }
}

#[test]
fn a_rule_means_what_it_says() {
    let text = format!(
        "{SERVER}[[limit]]\nallow = 60\nblock = \"60s\"\n[[limit]]\nname = \"search\"\nper = [\"principal\", \"header:X-Team\"]\n\
         algorithm = \"gcra\"\nallow = 100\nwithin = \"1s\"\nburst = 20\ntool = \"search_*\"\nauthenticated = false\n\
         cost = {{ search_all = 10, \"search_*\" = 2 }}\nanswer = \"json-rpc\"\n"
    );
    let config = accepted(&text);
    let [classic, search] = &config.quotas[..] else { panic!("{:?}", config.quotas) };
    assert_eq!((classic.name.as_str(), &classic.per[..]), ("limit-1", &[Part::Principal][..]));
    assert_eq!(classic.terms.breach, Breach::Blocked(Duration::from_secs(60)));
    assert_eq!((classic.terms.within, classic.terms.shape), (Duration::from_secs(60), Shape::SlidingWindow));
    assert_eq!(search.per, [Part::Principal, Part::Header("x-team".to_owned())]);
    assert!(matches!(search.terms.shape, Shape::Gcra { burst } if burst.get() == 20));
    let costs: Vec<_> = search.costs.iter().map(|(glob, cost)| (glob.as_str(), cost.get())).collect();
    assert_eq!(costs, [("search_all", 10), ("search_*", 2)], "in the order of the file");
    assert_eq!((search.subject.callers, search.answer), (Callers::Unauthenticated, Answer::JsonRpc));
}

#[test]
fn a_rule_that_cannot_count_anything_is_refused_with_a_word() {
    let text = format!(
        "{SERVER}[[limit]]\nallow = 10\nburst = 5\ncost = 11\n[[limit]]\nwithin = \"5s\"\ntool = \"x\"\nmethod = \"ping\"\n\
         [[limit]]\nallow = 3\nper = [\"all\", \"ip\"]\nserver = \"nowhere\"\n[[limit]]\nallow = 3\nper = \"claim:team\"\n\
         [[limit]]\nallow = 7\n[[limit]]\nallow = 7\nname = \"limit-5\"\nmethod = [\"server/discover\"]\n"
    );
    assert_eq!(
        complaints(&text),
        r#"error: regatta.toml:5: limit[1].burst = 5
  expected nothing here without algorithm = "gcra"
hint: a sliding window lets all of allow come at once; algorithm = "gcra" has a burst
error: regatta.toml:6: limit[1].cost = 11
  expected a whole number from 1 to allow (10), or a table like { search_products = 5 }
error: regatta.toml:7: a rule has both tool and a method other than tools/call
  expected a rule that can count something
hint: leave method out: tools are called with tools/call only
error: regatta.toml:7: a rule has no allow
  expected how much it allows: allow = 60
error: regatta.toml:11: per names something twice, or "all" beside something else
  expected each part once
error: regatta.toml:14: limit[3].server = "nowhere"
  expected the name of a server: "default"
error: regatta.toml:17: limit[4].per = "claim:team"
  expected "principal", "ip", "session", "tool", "header:<name>", "claim:<name>" or "all"
hint: list it under auth.claims: what is not kept of a token cannot be counted by
error: regatta.toml:20: limit[6] and limit[5] are both named "limit-5"
  expected a name of its own for each rule
error: regatta.toml:20: limit[6] counts the same as limit[5]
  expected each rule once
hint: every request would be counted twice; take one of them out
error: regatta.toml:23: limit[6].method[1] = "server/discover"
  expected a method like "tools/call"; * stands for any letters"#
    );
}

#[test]
fn a_store_is_named_by_its_url_and_its_secrets_are_never_shown() {
    let key = "a7".repeat(32);
    let url = "redis://user:hunter2@127.0.0.1:6379/3";
    let config = accepted(&format!(
        "[store]\nurl = \"{url}\"\nprefix = \"team-a:\"\nkey = \"{key}\"\noperation_timeout = \"100ms\"\n{SERVER}"
    ));
    assert_eq!(config.store.url.as_deref(), Some(url));
    assert_eq!(config.store.shown().as_deref(), Some("redis://…@127.0.0.1:6379/3"));
    assert_eq!(config.store.prefix, "team-a:");
    let debug = format!("{config:?}");
    assert!(!debug.contains("hunter2") && !debug.contains(&key), "{debug}");
    assert_eq!(accepted(SERVER).store.url, None, "embedded unless said otherwise");
}

#[test]
fn what_is_wrong_with_a_store_is_said_without_its_secrets() {
    let text =
        format!("[store]\nurl = \"mysql://u:hunter2@h\"\nprefix = \"a{{b}}\"\nkey = \"hunter2\"\n{SERVER}");
    let said = complaints(&text);
    for part in ["store.url = \"mysql://…@h\"", "store.prefix", "store.key is no key"] {
        assert!(said.contains(part), "{part} in {said}");
    }
    assert!(!said.contains("hunter2"), "{said}");
    let said = complaints(&format!("[gateway]\nsealing_key_rotation = \"1m\"\n{SERVER}"));
    assert!(said.contains("expected a time from 12h"), "{said}");
}

#[test]
fn a_server_that_takes_nodes_needs_no_replicas() {
    let config = accepted(
        r#"
[store]
url = "redis://127.0.0.1:6379"
registry_poll = "100ms"
registry_lease = "1s"
registry_secret = ["one that is long enough", "and the one before it"]

[[server]]
name = "shop"
registry = true
registry_secret = "one for the shop only"
registry_hosts = ["10.0.0.*"]
registry_tools = ["shop_*"]
tools = "probe"
lost_tools_kept = "1m"
"#,
    );
    let (reading, door) = (&config.registry, &config.doors[0]);
    assert_eq!((reading.poll, reading.terms.lease), (Duration::from_millis(100), Duration::from_secs(1)));
    assert_eq!((reading.secrets.known.len(), door.secrets.known.len()), (2, 1));
    assert_eq!((door.nodes, door.source), (Joining::Open, ToolSource::Probe));
    assert_eq!(door.lost_tools_kept, Duration::from_secs(60));
    assert!(config.servers[0].replicas.is_empty());
    assert!(!format!("{config:?}").contains("long enough"));
}

#[test]
fn a_server_that_waits_for_nodes_where_none_can_register_is_refused() {
    let server = "[[server]]\nname = \"shop\"\nregistry = true\n";
    assert_eq!(
        complaints(server),
        "error: regatta.toml:1: server \"shop\" has registry = true, and there is no store.url\n  \
         expected a store in Redis, where its nodes register\n\
         hint: [store] with url = \"redis://127.0.0.1:6379\", or list the replicas without registry = true"
    );
    let refused = complaints(&format!("[store]\nurl = \"http://127.0.0.1\"\n{server}"));
    assert_eq!(refused.matches("error:").count(), 1, "the URL that was written is what is wrong: {refused}");
}

#[test]
fn secrets_are_read_from_a_file_and_never_shown() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secrets");
    std::fs::write(&path, "\n  a secret of the whole fleet \n\nanother, the old one\n").unwrap();
    let text = |path: &std::path::Path| format!("[store]\nregistry_secret_file = {path:?}\n{SERVER}");
    let mut config = accepted(&text(&path));
    assert!(config.registry.secrets.are_demanded(), "also before the file was read");
    config.read_secrets().unwrap();
    assert_eq!(config.registry.secrets.known.len(), 2);
    let said = accepted(&text(&dir.path().join("none"))).read_secrets().unwrap_err();
    assert!(said.ends_with("none: it cannot be read"), "{said}");
    std::fs::write(&path, "too short\n").unwrap();
    let said = accepted(&text(&path)).read_secrets().unwrap_err();
    assert!(said.ends_with("secrets: expected at least 16 bytes"), "{said}");
    let said = complaints(&format!("[store]\nregistry_secret = \"tiny\"\n{SERVER}"));
    assert!(said.contains("at least 16 bytes") && !said.contains("tiny"), "{said}");
}

#[test]
fn a_lease_must_outlast_some_readings() {
    let said = complaints(&format!("[store]\nregistry_poll = \"1s\"\nregistry_lease = \"3s\"\n{SERVER}"));
    assert!(said.contains("registry_lease is shorter than four times registry_poll"), "{said}");
}
