//! Claims by the second, scopes by the tool, and which key may check what.

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

fn claims() -> Claims {
    Claims {
        subject: Some("alice".into()),
        audience: vec!["https://other.example".into(), "https://mcp.example/mcp".into()],
        expires_s: Some(1_000),
        begins_s: Some(500),
    }
}

fn verdict(change: impl FnOnce(&mut Claims), now_s: u64) -> Result<u64, Refused> {
    let mut claims = claims();
    change(&mut claims);
    judge(&claims, &["https://mcp.example/mcp".to_owned()], MINUTE, now_s)
}

#[test]
fn claims_hold_between_their_ends_give_or_take_the_leeway() {
    for (now, expected) in
        [(439, Err(Refused::NotYet)), (440, Ok(1_060)), (1_059, Ok(1_060)), (1_060, Err(Refused::Expired))]
    {
        assert_eq!(verdict(|_| {}, now), expected, "{now}");
    }
    assert_eq!(verdict(|claims| claims.expires_s = Some(u64::MAX), 600), Ok(u64::MAX));
}

#[test]
fn claims_without_subject_end_or_our_name_are_refused() {
    assert_eq!(verdict(|claims| claims.subject = None, 600), Err(Refused::Incomplete));
    assert_eq!(verdict(|claims| claims.subject = Some(String::new()), 600), Err(Refused::Incomplete));
    assert_eq!(verdict(|claims| claims.expires_s = None, 600), Err(Refused::Incomplete));
    assert_eq!(verdict(|claims| claims.audience.truncate(1), 600), Err(Refused::ForeignAudience));
    assert_eq!(verdict(|claims| claims.audience.clear(), 600), Err(Refused::ForeignAudience));
    assert_eq!(judge(&claims(), &[], MINUTE, 600), Err(Refused::ForeignAudience), "no list admits nobody");
}

fn access() -> Access {
    let rule = |tool: &str, scopes: &[&str]| ToolScopes {
        tool: Glob::new(tool),
        scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
    };
    Access {
        resource: Some("https://mcp.example".into()),
        issuers: Vec::new(),
        algorithms: Algorithm::DEFAULT.to_vec(),
        audience: Vec::new(),
        leeway: MINUTE,
        required_scopes: vec!["use".into()],
        tool_scopes: vec![rule("delete_*", &["write", "use"]), rule("*", &["tools"])],
        api_keys: Vec::new(),
        anonymous: Anonymous::Refused,
        claims: Vec::new(),
        weight_claim: None,
        identity_secret: None,
        tokens_max: 1,
    }
}

#[test]
fn a_call_needs_the_scopes_of_every_rule_that_names_its_tool_at_once() {
    let access = access();
    assert_eq!(access.needed_for(None), ["use"]);
    assert_eq!(access.needed_for(Some("echo")), ["use", "tools"]);
    assert_eq!(access.needed_for(Some("delete_all")), ["use", "write", "tools"]);
    assert_eq!(access.scopes(), ["use", "write", "tools"]);
}

#[test]
fn a_bare_origin_stands_for_every_endpoint_and_a_uri_for_one() {
    let mut access = access();
    assert_eq!(access.resource_at("/mcp").as_deref(), Some("https://mcp.example/mcp"));
    assert_eq!(access.resource_at("/").as_deref(), Some("https://mcp.example"));
    assert_eq!(access.audience_at("/shop"), ["https://mcp.example/shop"]);
    access.resource = Some("https://mcp.example/public/mcp".into());
    assert_eq!(access.resource_at("/mcp").as_deref(), Some("https://mcp.example/public/mcp"));
    access.audience = vec!["shop".into()];
    assert_eq!(access.audience_at("/mcp"), ["shop"]);
}

#[test]
fn metadata_lies_between_host_and_path() {
    for (resource, url) in [
        ("https://a.example", "https://a.example/.well-known/oauth-protected-resource"),
        ("https://a.example/", "https://a.example/.well-known/oauth-protected-resource"),
        ("http://[::1]:8080/x/mcp", "http://[::1]:8080/.well-known/oauth-protected-resource/x/mcp"),
    ] {
        assert_eq!(metadata_url(resource), url);
    }
}

#[test]
fn a_key_checks_signatures_of_its_own_kind_only() {
    let key = |material, algorithm| VerificationKey { kid: None, algorithm, material };
    let rsa = || Material::Rsa { n: vec![1], e: vec![1] };
    let checked = |key: VerificationKey| -> Vec<&str> {
        Algorithm::ALL.into_iter().filter(|each| key.checks(*each)).map(Algorithm::name).collect()
    };
    assert_eq!(checked(key(rsa(), None)), ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"]);
    assert_eq!(checked(key(rsa(), Some(Algorithm::Ps256))), ["PS256"]);
    assert_eq!(checked(key(rsa(), Some(Algorithm::Es256))), [""; 0]);
    assert_eq!(checked(key(Material::P256(vec![]), None)), ["ES256"]);
    assert_eq!(checked(key(Material::P384(vec![]), None)), ["ES384"]);
    assert_eq!(checked(key(Material::Ed25519(vec![]), None)), ["EdDSA"]);
    for name in ["none", "HS256", "rs256", "NONE", ""] {
        assert_eq!(Algorithm::named(name), None, "{name}");
    }
}
