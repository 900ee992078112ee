//! Tokens that are good, and every way in which one is not.

use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
    RSA_PSS_SHA256, RsaEncoding, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use regatta_policy::access::{Algorithm, Anonymous, ApiKey, Material, VerificationKey};
use serde_json::{Value, json};

use super::*;

const ISSUER: &str = "https://login.example";
const OURS: &str = "https://mcp.example/mcp";
const NOW: u64 = 1_000_000;
const FLEET: [u8; 8] = [7; 8];

struct Keys {
    ec: EcdsaKeyPair,
    ed: Ed25519KeyPair,
    rsa: RsaKeyPair,
}

impl Keys {
    fn new() -> Keys {
        Keys {
            ec: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key"),
            ed: Ed25519KeyPair::generate().expect("a key"),
            rsa: RsaKeyPair::generate(KeySize::Rsa2048).expect("a key"),
        }
    }

    fn public(&self) -> Vec<VerificationKey> {
        let key = |kid: &str, material| VerificationKey { kid: Some(kid.into()), algorithm: None, material };
        // RSAPublicKey of a 2048-bit key (RFC 8017 A.1.1): heads, a zero, the modulus, a head, the exponent.
        let der = self.rsa.public_key().as_ref();
        let (n, e) = (der[9..265].to_vec(), der[267..].to_vec());
        vec![
            key("ec", Material::P256(self.ec.public_key().as_ref().to_vec())),
            key("ed", Material::Ed25519(self.ed.public_key().as_ref().to_vec())),
            key("rsa", Material::Rsa { n, e }),
        ]
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(header), part(claims));
        let rsa = |padding: &'static dyn RsaEncoding| {
            let mut signature = vec![0; self.rsa.public_modulus_len()];
            self.rsa
                .sign(padding, &SystemRandom::new(), signed.as_bytes(), &mut signature)
                .expect("a signature");
            signature
        };
        let signature = match header["alg"].as_str() {
            Some("ES256") => {
                self.ec.sign(&SystemRandom::new(), signed.as_bytes()).expect("a signature").as_ref().to_vec()
            }
            Some("EdDSA") => self.ed.sign(signed.as_bytes()).as_ref().to_vec(),
            Some("RS256") => rsa(&RSA_PKCS1_SHA256),
            Some("PS256") => rsa(&RSA_PSS_SHA256),
            _ => Vec::new(),
        };
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

fn claims() -> Value {
    json!({"iss": ISSUER, "sub": "alice", "aud": OURS, "exp": NOW + 600, "scope": "read write", "tenant": 7})
}

fn guarded(keys: Vec<VerificationKey>) -> Guard {
    Guard::new(Arc::new(Access {
        resource: Some(OURS.into()),
        issuers: vec![Issuer { url: ISSUER.into(), keys }],
        algorithms: Algorithm::DEFAULT.to_vec(),
        audience: Vec::new(),
        leeway: Duration::from_secs(30),
        required_scopes: Vec::new(),
        tool_scopes: Vec::new(),
        api_keys: vec![ApiKey {
            name: "ci".into(),
            digest: sha256(b"key-of-ci"),
            scopes: vec!["read".into()],
            weight: NonZeroU32::MIN,
        }],
        anonymous: Anonymous::Refused,
        claims: vec!["tenant".into(), "absent".into()],
        weight_claim: Some("share".into()),
        identity_secret: None,
        tokens_max: 100,
    }))
}

fn prove(guard: &Guard, token: &str) -> Result<Arc<Principal>, Unproven> {
    guard.prove(&Presented::new(token, FLEET), &[OURS.to_owned()], NOW)
}

#[test]
fn a_claim_gives_a_share_and_what_is_no_share_gives_the_nearest() {
    let keys = Keys::new();
    let guard = guarded(keys.public());
    for (given, weight) in [
        (json!(7), 7),
        (json!("12"), 12),
        (json!(0), 1),
        (json!(1_000), 100),
        (json!(-3), 1),
        (json!("much"), 1),
        (json!(["9"]), 1),
        (Value::Null, 1),
    ] {
        let mut claims = claims();
        claims["share"] = given.clone();
        let token = keys.sign(&json!({"alg": "ES256", "kid": "ec"}), &claims);
        assert_eq!(prove(&guard, &token).expect("proven").weight.get(), weight, "{given}");
    }
}

#[test]
fn a_token_of_each_kind_of_key_is_proven_and_remembered() {
    let keys = Keys::new();
    let guard = guarded(keys.public());
    for (alg, kid) in [("ES256", Some("ec")), ("EdDSA", Some("ed")), ("RS256", Some("rsa")), ("ES256", None)]
    {
        let token = keys.sign(&json!({"alg": alg, "kid": kid}), &claims());
        let presented = Presented::new(&token, FLEET);
        assert!(guard.known(&presented, NOW).is_none());
        let principal = prove(&guard, &token).expect("proven");
        assert_eq!((&*principal.issuer, &*principal.subject), (ISSUER, "alice"), "{alg}");
        assert!(principal.may(["read", "write"]));
        assert_eq!(principal.claims, [("tenant".into(), "7".into())]);
        assert!(guard.known(&presented, NOW + BELIEVED_S - 1).is_some());
        assert!(guard.known(&presented, NOW + BELIEVED_S).is_none(), "looked at again after a while");
        assert!(guard.known(&Presented::new(&token, [8; 8]), NOW).is_none(), "not at another server");
    }
}

#[test]
fn a_remembered_token_ends_with_its_expiry() {
    let keys = Keys::new();
    let guard = guarded(keys.public());
    let mut short = claims();
    short["exp"] = json!(NOW + 5);
    let token = keys.sign(&json!({"alg": "EdDSA", "kid": "ed"}), &short);
    prove(&guard, &token).expect("proven");
    let presented = Presented::new(&token, FLEET);
    assert!(guard.known(&presented, NOW + 34).is_some(), "the leeway counts");
    assert!(guard.known(&presented, NOW + 35).is_none());
}

#[test]
fn what_is_wrong_with_a_token_is_found() {
    let keys = Keys::new();
    let guard = guarded(keys.public());
    let sound = json!({"alg": "ES256", "kid": "ec"});
    let with = |name: &str, value: Value| {
        let mut claims = claims();
        claims[name] = value;
        keys.sign(&sound, &claims)
    };
    let headed = |header: Value| keys.sign(&header, &claims());
    let good = headed(sound.clone());
    let (signed, signature) = good.rsplit_once('.').expect("a token");
    let other = Keys::new().sign(&sound, &claims());
    let point = URL_SAFE_NO_PAD.encode(keys.ec.public_key().as_ref());
    let hmac = {
        // The classic confusion: the public key as the secret of an HMAC.
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, keys.ec.public_key().as_ref());
        let head = URL_SAFE_NO_PAD.encode(json!({"alg": "HS256", "kid": "ec"}).to_string());
        let signed = format!("{head}.{}", URL_SAFE_NO_PAD.encode(claims().to_string()));
        let tag = aws_lc_rs::hmac::sign(&key, signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag.as_ref()))
    };
    let rows = [
        ("no token", "abc".to_owned(), "no signed"),
        ("five parts", format!("{good}.a.b"), "no signed"),
        ("padded", format!("{good}="), "unreadable"),
        ("huge", format!("{signed}.{}", "A".repeat(TOKEN_HUGE)), "too large"),
        ("alg none", headed(json!({"alg": "none"})), "algorithm"),
        ("alg None", headed(json!({"alg": "nOnE", "kid": "ec"})), "algorithm"),
        ("no alg", headed(json!({"kid": "ec"})), "algorithm"),
        ("HMAC with the public key", hmac, "algorithm"),
        ("an algorithm that is not pinned", headed(json!({"alg": "PS256", "kid": "rsa"})), "algorithm"),
        ("RSA named with a curve's key", headed(json!({"alg": "RS256", "kid": "ec"})), "no key"),
        ("a curve named with RSA's key", headed(json!({"alg": "ES256", "kid": "rsa"})), "no key"),
        ("crit", headed(json!({"alg": "ES256", "kid": "ec", "crit": ["b64"], "b64": false})), "extension"),
        ("a key of its own", headed(json!({"alg": "EdDSA", "kid": "ec", "jwk": {"x": point}})), "no key"),
        ("another's signature", other, "signature is wrong"),
        ("no signature", format!("{signed}."), "signature is wrong"),
        ("signature cut", format!("{signed}.{}", &signature[..80]), "signature is wrong"),
        ("foreign issuer", with("iss", json!("https://evil.example")), "issuer"),
        ("issuer with a slash", with("iss", json!("https://login.example/")), "issuer"),
        ("issuer a list", with("iss", json!([ISSUER])), "issuer"),
        ("expired", with("exp", json!(NOW - 30)), "expired"),
        ("expiry as text", with("exp", json!("9999999999")), "lacks"),
        ("no expiry", with("exp", Value::Null), "lacks"),
        ("no subject", with("sub", Value::Null), "lacks"),
        ("not yet", with("nbf", json!(NOW + 31)), "not valid yet"),
        ("beginning as text", with("nbf", json!("0")), "not valid yet"),
        ("foreign audience", with("aud", json!("https://other.example")), "resource"),
        ("audience with a slash", with("aud", json!("https://mcp.example/mcp/")), "resource"),
        ("no audience", with("aud", json!([])), "resource"),
    ];
    for (name, token, word) in rows {
        match prove(&guard, &token) {
            Err(Unproven::Wrong(why)) => assert!(why.contains(word), "{name}: {why}"),
            other => panic!("{name}: {other:?}"),
        }
        assert!(guard.known(&Presented::new(&token, FLEET), NOW).is_none(), "{name}");
    }
    for (name, token) in [
        ("at the edge of the leeway", with("exp", json!(NOW - 29))),
        ("a fraction", with("exp", json!(NOW as f64 + 0.5))),
        ("one of several audiences", with("aud", json!(["x", OURS]))),
    ] {
        assert!(prove(&guard, &token).is_ok(), "{name}");
    }
}

/// More than a token may have.
const TOKEN_HUGE: usize = 20 << 10;

#[test]
fn an_unknown_key_is_asked_for_once_and_names_no_file() {
    let keys = Keys::new();
    let guard = guarded(keys.public());
    let token = keys.sign(&json!({"alg": "ES256", "kid": "../../etc/passwd"}), &claims());
    let Err(Unproven::UnknownKey { issuer, key }) = prove(&guard, &token) else { panic!("not asked for") };
    assert_eq!(issuer, ISSUER);
    guard.note_absent(key, NOW);
    assert_eq!(prove(&guard, &token).err(), Some(Unproven::Wrong("no key of its issuer fits")));
    let later = guard.prove(&Presented::new(&token, FLEET), &[OURS.to_owned()], NOW + ABSENT_S);
    assert!(matches!(later, Err(Unproven::UnknownKey { .. })));
}

#[test]
fn without_keys_nobody_knows() {
    let token = Keys::new().sign(&json!({"alg": "ES256", "kid": "ec"}), &claims());
    assert!(matches!(prove(&guarded(Vec::new()), &token), Err(Unproven::NoKeys { .. })));
}

#[test]
fn an_api_key_is_known_by_its_digest() {
    let guard = guarded(Vec::new());
    let principal = guard.known(&Presented::new("key-of-ci", FLEET), NOW).expect("known");
    assert_eq!((&*principal.issuer, &*principal.subject), ("api-key", "ci"));
    assert!(principal.may(["read"]) && !principal.may(["write"]));
    assert!(guard.known(&Presented::new("key-of-c", FLEET), NOW).is_none());
}

#[test]
fn no_token_with_a_changed_character_is_let_in() {
    let keys = Keys::new();
    let guard = guarded(keys.public());
    let token = keys.sign(&json!({"alg": "EdDSA", "kid": "ed"}), &claims());
    for at in 0..token.len() {
        for change in ["A", "_", ".", "=", "\u{0}", ""] {
            let changed = [&token[..at], change, &token[at + 1..]].concat();
            if changed != token {
                assert!(prove(&guard, &changed).is_err(), "{changed}");
            }
        }
        assert!(prove(&guard, &token[..at]).is_err());
    }
}
