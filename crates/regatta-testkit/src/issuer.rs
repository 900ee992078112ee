//! An authorization server as far as a resource server sees it: metadata, a key set, and tokens signed with its keys.
//!
//! Signs whatever it is told, so that a test can ask for every wrong token there is. It gives no tokens over HTTP.

use crate::{Reply, Seen, Stub};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// A running issuer.
#[derive(Debug)]
pub struct Issuer {
    stub: Stub,
    keys: Arc<Mutex<Keys>>,
}

/// Its keys: the newest signs, those in `shown` are in the set.
struct Keys {
    all: Vec<(String, EcdsaKeyPair)>,
    shown: usize,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").field("count", &self.all.len()).finish_non_exhaustive()
    }
}

/// A token in the making.
#[derive(Clone, Debug)]
pub struct Token {
    /// Its header.
    pub header: Value,
    /// Its claims.
    pub claims: Value,
}

impl Token {
    /// With another claim; `Null` takes it away.
    pub fn claim(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.claims[name] = value.into();
        if self.claims[name].is_null()
            && let Some(claims) = self.claims.as_object_mut()
        {
            claims.remove(name);
        }
        self
    }

    /// With another member of the header.
    pub fn header(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.header[name] = value.into();
        self
    }

    /// What is signed.
    pub fn unsigned(&self) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        format!("{}.{}", part(&self.header), part(&self.claims))
    }
}

/// Seconds since 1970.
pub fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl Issuer {
    /// With one key, whose tokens are for `http://regatta.test/mcp` unless told otherwise.
    pub async fn start() -> Self {
        let keys = Arc::new(Mutex::new(Keys { all: vec![fresh(1)], shown: 1 }));
        let stub = Stub::start(sound(keys.clone())).await;
        Issuer { stub, keys }
    }

    /// Its identifier.
    pub fn url(&self) -> String {
        format!("http://{}", self.stub.address())
    }

    /// The audience of its tokens.
    pub const AUDIENCE: &'static str = "http://regatta.test/mcp";

    /// The tables of a config that trusts it; `more` are lines of `[auth]`.
    pub fn tables(&self, more: &str) -> String {
        format!(
            "[auth]\naudience = [\"{}\"]\n{more}\n[[auth.issuer]]\nurl = \"{}\"\n",
            Self::AUDIENCE,
            self.url()
        )
    }

    /// A sound token of `subject`, to be changed and signed.
    pub fn token(&self, subject: &str) -> Token {
        let kid = self.lock().all.last().map(|(kid, _)| kid.clone());
        Token {
            header: json!({"alg": "ES256", "typ": "at+jwt", "kid": kid}),
            claims: json!({
                "iss": self.url(), "sub": subject, "aud": Self::AUDIENCE,
                "exp": now_s() + 600, "iat": now_s(), "jti": format!("{:x}", fresh_number()),
            }),
        }
    }

    /// Signs with the newest key, whatever the header says.
    pub fn sign(&self, token: &Token) -> String {
        let signed = token.unsigned();
        let keys = self.lock();
        let (_, key) = keys.all.last().expect("there is a key");
        let signature = key.sign(&SystemRandom::new(), signed.as_bytes()).expect("it signs");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }

    /// `Bearer` and a sound token of `subject`.
    pub fn bearer(&self, subject: &str) -> String {
        self.bearer_of(&self.token(subject))
    }

    /// `Bearer` and this token, signed.
    pub fn bearer_of(&self, token: &Token) -> String {
        format!("Bearer {}", self.sign(token))
    }

    /// The public half of the newest key, as an attacker may have it.
    pub fn public_key(&self) -> Vec<u8> {
        self.lock().all.last().map(|(_, key)| key.public_key().as_ref().to_vec()).unwrap_or_default()
    }

    /// A new key signs and takes the place of the others in the set.
    pub fn rotate(&self) {
        let mut keys = self.lock();
        let number = keys.all.len() + 1;
        keys.all.push(fresh(number));
        keys.shown = 1;
    }

    /// A new key signs, and nobody can know: the set stays.
    pub fn rotate_in_secret(&self) {
        let mut keys = self.lock();
        let number = keys.all.len() + 1;
        keys.all.push(fresh(number));
        keys.shown = 0;
    }

    /// Another behaviour from the next request on.
    pub fn behave(&self, behaviour: impl Fn(&Seen) -> Reply + Send + Sync + 'static) {
        self.stub.behave(behaviour);
    }

    /// Behaves well again.
    pub fn recover(&self) {
        self.stub.behave(sound(self.keys.clone()));
    }

    /// How often its key set was asked for.
    pub fn looks(&self) -> usize {
        self.stub.seen().iter().filter(|seen| seen.path == "/keys").count()
    }

    /// The server behind it.
    pub fn stub(&self) -> &Stub {
        &self.stub
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Keys> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn fresh(number: usize) -> (String, EcdsaKeyPair) {
    (format!("k{number}"), EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key"))
}

fn fresh_number() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NUMBER: AtomicU64 = AtomicU64::new(1);
    NUMBER.fetch_add(1, Ordering::Relaxed)
}

/// Metadata and keys as they should be.
fn sound(keys: Arc<Mutex<Keys>>) -> impl Fn(&Seen) -> Reply + Send + Sync + 'static {
    move |seen| {
        let origin = format!("http://{}", seen.header("host"));
        match seen.path.as_str() {
            "/.well-known/openid-configuration" => {
                Reply::json(&json!({"issuer": origin, "jwks_uri": format!("{origin}/keys")}))
            }
            "/keys" => Reply::json(&set(&keys.lock().unwrap_or_else(PoisonError::into_inner))),
            _ => Reply::status(404),
        }
    }
}

fn set(keys: &Keys) -> Value {
    let shown = match keys.shown {
        // The key before the newest, which is secret.
        0 => keys.all.iter().rev().skip(1).take(1).collect::<Vec<_>>(),
        shown => keys.all.iter().rev().take(shown).collect(),
    };
    let jwk = |(kid, key): &(String, EcdsaKeyPair)| {
        let point = key.public_key().as_ref();
        let part = |range: std::ops::Range<usize>| URL_SAFE_NO_PAD.encode(&point[range]);
        json!({"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": kid, "x": part(1..33), "y": part(33..65)})
    };
    json!({"keys": shown.into_iter().map(jwk).collect::<Vec<_>>()})
}
