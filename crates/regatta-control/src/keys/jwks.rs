//! A JWK Set (RFC 7517) to the keys that can verify something here.
//!
//! Pure. Keys that are for encryption, symmetric, too short, or of a kind without a name here are passed over, as
//! readers should (RFC 7517 section 5); private parts are never looked at. A set without one usable key is an error.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use regatta_policy::access::{Algorithm, Material, VerificationKey};
use serde_json::Value;

/// Keys of a set that are looked at.
const KEYS_MAX: usize = 64;
/// Bytes of an RSA modulus, by the bounds of the cryptography library.
const MODULUS: std::ops::RangeInclusive<usize> = 256..=1024;
/// Characters of a key's name.
const KID_MAX: usize = 512;

/// Reads a set.
pub(super) fn read(text: &[u8]) -> Result<Vec<VerificationKey>, String> {
    let set: Value = serde_json::from_slice(text).map_err(|_| "the key set is no JSON".to_owned())?;
    let keys = set.get("keys").and_then(Value::as_array).ok_or("it is no key set")?;
    let usable: Vec<VerificationKey> = keys.iter().take(KEYS_MAX).filter_map(key).collect();
    if usable.is_empty() { Err("the key set has no usable key".to_owned()) } else { Ok(usable) }
}

fn key(jwk: &Value) -> Option<VerificationKey> {
    let text = |name: &str| jwk.get(name).and_then(Value::as_str);
    if text("use").is_some_and(|word| word != "sig") {
        return None;
    }
    let verifies = |ops: &Vec<Value>| ops.iter().any(|op| op == "verify");
    if jwk.get("key_ops").and_then(Value::as_array).is_some_and(|ops| !verifies(ops)) {
        return None;
    }
    let algorithm = match text("alg") {
        Some(name) => Some(Algorithm::named(name)?),
        None => None,
    };
    let kid = text("kid").map(str::to_owned);
    if kid.as_ref().is_some_and(|kid| kid.len() > KID_MAX) {
        return None;
    }
    let bytes = |name: &str| URL_SAFE_NO_PAD.decode(text(name)?).ok();
    let point = |length: usize| {
        let (x, y) = (bytes("x")?, bytes("y")?);
        (x.len() == length && y.len() == length).then(|| [&[4][..], &x, &y].concat())
    };
    let material = match (text("kty")?, text("crv")) {
        ("RSA", _) => rsa(&bytes("n")?, &bytes("e")?)?,
        ("EC", Some("P-256")) => Material::P256(point(32)?),
        ("EC", Some("P-384")) => Material::P384(point(48)?),
        ("OKP", Some("Ed25519")) => Material::Ed25519(bytes("x").filter(|x| x.len() == 32)?),
        _ => return None,
    };
    Some(VerificationKey { kid, algorithm, material })
}

fn rsa(n: &[u8], e: &[u8]) -> Option<Material> {
    let plain = |number: &[u8]| number.iter().skip_while(|byte| **byte == 0).copied().collect::<Vec<u8>>();
    let (n, e) = (plain(n), plain(e));
    let fits = MODULUS.contains(&n.len()) && (1..=8).contains(&e.len());
    fits.then_some(Material::Rsa { n, e })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(keys: Value) -> Result<Vec<VerificationKey>, String> {
        read(json!({ "keys": keys }).to_string().as_bytes())
    }

    fn coordinate() -> String {
        URL_SAFE_NO_PAD.encode([1; 32])
    }

    #[test]
    fn usable_keys_are_read_and_others_passed_over() {
        let n = URL_SAFE_NO_PAD.encode([&[0][..], &[9; 256]].concat());
        let keys = json!([
            {"kty": "RSA", "kid": "a", "alg": "RS256", "use": "sig", "n": n, "e": "AQAB", "x5c": ["…"]},
            {"kty": "RSA", "kid": "short", "n": coordinate(), "e": "AQAB"},
            {"kty": "RSA", "kid": "enc", "use": "enc", "n": n, "e": "AQAB"},
            {"kty": "RSA", "kid": "oaep", "alg": "RSA-OAEP", "n": n, "e": "AQAB"},
            {"kty": "EC", "crv": "P-256", "x": coordinate(), "y": coordinate(), "key_ops": ["verify"]},
            {"kty": "EC", "crv": "P-256", "x": coordinate(), "y": coordinate(), "key_ops": ["deriveKey"]},
            {"kty": "EC", "crv": "P-384", "x": coordinate(), "y": coordinate()},
            {"kty": "EC", "crv": "secp256k1", "x": coordinate(), "y": coordinate()},
            {"kty": "OKP", "crv": "Ed25519", "kid": "b", "x": coordinate()},
            {"kty": "OKP", "crv": "X25519", "x": coordinate()},
            {"kty": "oct", "kid": "hmac", "k": coordinate()},
            "nonsense",
        ]);
        let read = of(keys).expect("usable");
        let shapes: Vec<_> = read.iter().map(|key| (key.kid.as_deref(), key.algorithm)).collect();
        assert_eq!(shapes, [(Some("a"), Some(Algorithm::Rs256)), (None, None), (Some("b"), None)]);
        assert!(matches!(&read[0].material, Material::Rsa { n, e } if n.len() == 256 && e == &[1, 0, 1]));
        assert!(matches!(&read[1].material, Material::P256(point) if point.len() == 65 && point[0] == 4));
    }

    #[test]
    fn a_set_without_a_usable_key_is_none() {
        assert!(of(json!([])).is_err());
        assert!(of(json!([{"kty": "oct", "k": coordinate()}])).is_err());
        assert!(read(b"[]").is_err() && read(b"<html>").is_err() && read(b"{\"keys\":7}").is_err());
    }
}
