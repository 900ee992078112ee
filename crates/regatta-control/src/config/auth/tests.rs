//! What `[auth]` and `credentials` mean, and what is said of mistakes: never with a secret in it.

use crate::config::{Config, Env, check};
use crate::keys::KeysAt;
use regatta_policy::access::{Algorithm, Anonymous};

use super::*;

const SERVER: &str = "[[server]]\nname = \"shop\"\nreplicas = [\"http://127.0.0.1:3001/mcp\"]\n";

fn read(text: &str) -> Result<Config, String> {
    check("regatta.toml", &[SERVER, text].concat(), &Env::default()).map_err(|all| all.to_string())
}

fn complaints(text: &str) -> String {
    read(text).err().unwrap_or_default()
}

#[test]
fn without_the_table_nobody_checks_and_with_it_everything_has_a_default() {
    assert!(read("").unwrap().auth.is_none());
    let text =
        "[auth]\nresource = \"https://mcp.example/mcp\"\n[[auth.issuer]]\nurl = \"https://login.example\"\n";
    let auth = read(text).unwrap().auth.unwrap();
    let access = &auth.access;
    assert_eq!(access.algorithms, Algorithm::DEFAULT);
    assert_eq!((access.anonymous, access.leeway), (Anonymous::Refused, Duration::from_secs(30)));
    assert_eq!(auth.issuers[0].keys, KeysAt::Discovered);
    assert_eq!((auth.issuers[0].refresh, access.tokens_max), (Duration::from_secs(600), 8192));
    assert!(auth.identity_secret.is_none());
}

#[test]
fn everything_is_understood() {
    let digest = "ab".repeat(32);
    let text = format!(
        r#"
credentials = {{ bearer_env = "SHOP_KEY", header = "X-Shop-Key" }}
[auth]
audience = ["shop"]
algorithms = ["PS256"]
required_scopes = ["use"]
claims = ["tenant"]
weight_claim = "share"
anonymous = "allow"
identity_headers = true
identity_secret_file = "/run/secrets/identity"
[[auth.issuer]]
url = "https://login.example/t1"
jwks_url = "https://keys.example/t1"
[[auth.issuer]]
url = "http://127.0.0.1:9000"
jwks_file = "keys.json"
[[auth.scope]]
tool = "delete_*"
scopes = ["write", "admin"]
[[auth.api_key]]
name = "ci"
sha256 = "{digest}"
scopes = ["use"]
weight = 3
"#
    );
    let config = read(&text).unwrap();
    let plan = &config.credentials["shop"];
    assert_eq!((plan.header.as_str(), plan.prefix), ("x-shop-key", ""));
    let auth = config.auth.unwrap();
    assert!(matches!(auth.identity_secret, Some(SecretPlace::File(_))));
    assert!(matches!(&auth.issuers[0].keys, KeysAt::Url(at) if at.host == "keys.example"));
    assert!(matches!(&auth.issuers[1].keys, KeysAt::File(_)));
    assert_eq!(auth.access.needed_for(Some("delete_all")), ["use", "write", "admin"]);
    assert_eq!(auth.access.api_keys[0].digest, [0xab; 32]);
    assert_eq!(
        (auth.access.api_keys[0].weight.get(), auth.access.weight_claim.as_deref()),
        (3, Some("share"))
    );
}

#[test]
fn mistakes_are_told_all_at_once() {
    let text = r#"[auth]
algorithms = ["RS256", "HS256"]
required_scopes = ["a b"]
resource = "mcp.example"
[[auth.issuer]]
url = "http://login.example"
jwks_url = "https://keys.example"
[[auth.scope]]
tool = "x"
"#;
    assert_eq!(
        complaints(text),
        r#"error: regatta.toml:5: auth.algorithms[2] = "HS256"
  expected one of RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA; symmetric ones and none are never taken
error: regatta.toml:6: auth.required_scopes[1] = "a b"
  expected a scope: visible ASCII without blanks, " and \
error: regatta.toml:7: auth.resource = "mcp.example"
  expected the public URI of the endpoint: http(s), no query, no fragment
error: regatta.toml:9: auth.issuer[1].url = "http://login.example"
  expected the issuer's identifier, an https URL exactly as in its tokens
error: regatta.toml:10: auth.issuer[1].jwks_url = "https://keys.example"
  expected an https URL with a path
error: regatta.toml:11: a scope rule is not whole
  expected tool and scopes"#
    );
}

#[test]
fn what_lets_nobody_in_or_has_no_audience_is_refused() {
    assert!(
        complaints("[auth]\nresource = \"https://a.example\"\n").contains("names nobody who could be let in")
    );
    let said = complaints("[auth]\n[[auth.issuer]]\nurl = \"https://login.example\"\n");
    assert!(said.contains("does not say whom tokens must be meant for"), "{said}");
    assert!(complaints("[auth]\n[[auth.issuer]]\njwks_file = \"x\"\n").contains("an issuer has no url"));
    let twice = "[[auth.issuer]]\nurl = \"https://a.example\"\n".repeat(2);
    assert!(complaints(&format!("[auth]\naudience = [\"x\"]\n{twice}")).contains("stands twice"));
}

#[test]
fn one_uri_cannot_stand_for_several_endpoints() {
    let second = "[[server]]\nname = \"b\"\npath = \"/b\"\nreplicas = [\"http://127.0.0.1:1\"]\n";
    let with = |resource: &str| {
        let issuer = "[[auth.issuer]]\nurl = \"https://login.example\"\n";
        complaints(&format!("{second}[auth]\nresource = \"{resource}\"\n{issuer}"))
    };
    assert!(with("https://mcp.example/mcp").contains("names one endpoint, but there are 2 servers"));
    assert_eq!(with("https://mcp.example"), "");
}

#[test]
fn no_complaint_shows_a_secret() {
    let key = "[[auth.api_key]]\nname = \"ci\"\n";
    for text in [
        "credentials = { bearer = \"canary\u{7}\" }\n",
        "credentials = { bearer = \"canary-1\", bearer_file = \"canary-2\" }\n",
        "credentials = { baerer = \"canary\" }\n",
        "credentials = \"canary\"\n",
        &format!(
            "[auth]\nidentity_headers = true\nidentity_secret = \"canary\"\n{key}sha256 = \"{}\"\n",
            "0".repeat(64)
        ),
        &format!("[auth]\nidentity_secrt = \"canary\"\n{key}sha256 = \"{}\"\n", "0".repeat(64)),
        &format!("[auth]\n{key}sha256 = \"canary\"\n"),
        &format!("[auth]\n{key}sha265 = \"canary\"\n"),
    ] {
        let said = complaints(text);
        assert!(said.starts_with("error: "), "{text}");
        assert!(!said.contains("canary"), "{said}");
    }
}

#[test]
fn identity_headers_need_a_secret_that_somebody_chose() {
    let key = format!("[[auth.api_key]]\nname = \"ci\"\nsha256 = \"{}\"\n", "0".repeat(64));
    let said = complaints(&format!("[auth]\nidentity_headers = true\n{key}"));
    assert!(said.contains("auth.identity_headers has no secret to sign with"), "{said}");
    let said = complaints(&format!("[auth]\nidentity_secret_env = \"X\"\n{key}"));
    assert!(said.contains("stands without identity_headers"), "{said}");
    assert!(read(&format!("[auth]\nidentity_headers = true\nidentity_secret_env = \"X\"\n{key}")).is_ok());
}

#[test]
fn no_debug_output_shows_a_secret() {
    let text = format!(
        "credentials = {{ bearer = \"canary\" }}\n[auth]\nidentity_headers = true\nidentity_secret = \"{}\"\n[[auth.api_key]]\nname = \"ci\"\nsha256 = \"{}\"\n",
        "canary".repeat(8),
        "ca".repeat(32)
    );
    let config = read(&text).unwrap();
    let (mut identity, _asking) = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(async { crate::identity::Identity::new(&config) });
    let shown = format!("{config:?} {:?} {:?}", identity.access(), identity.credential("shop"));
    assert!(!shown.contains("canary") && !shown.contains("202"), "{shown}");
    identity.told(1);
}
