//! Who calls, as a gateway tells a server: HMAC-SHA256 (RFC 2104) over what it says of a caller, with the time.
//!
//! Plain enough to be checked in any language with ten lines (docs/auth.md). It says who, not what: whoever reads one can
//! send it again for as long as its time is believed.

use std::fmt;

use aws_lc_rs::hmac;

/// A shorter secret could be guessed.
pub const IDENTITY_SECRET_MIN: usize = 32;
/// How far the clocks of a gateway and a server may be apart, in seconds.
pub const IDENTITY_SKEW_MAX_S: u64 = 60;

/// What is said of a caller, as the headers have it.
#[derive(Clone, Copy, Debug)]
pub struct Identity<'a> {
    /// The server that is told, by its name in the config.
    pub server: &'a str,
    /// `iss=…&sub=…`, encoded like a form.
    pub principal: &'a str,
    /// Scopes, a blank between them.
    pub scopes: &'a str,
    /// Claims, encoded like a form.
    pub claims: &'a str,
}

/// What gateways and servers share. Hidden in `Debug`.
#[derive(Clone)]
pub struct IdentitySecret(hmac::Key);

impl IdentitySecret {
    /// A secret from its text, used byte for byte.
    pub fn new(text: &str) -> IdentitySecret {
        IdentitySecret(hmac::Key::new(hmac::HMAC_SHA256, text.as_bytes()))
    }

    /// The signature over `who` at `at_s` seconds since 1970: `t=<seconds>,v1=<hexadecimal>`.
    pub fn sign(&self, who: &Identity<'_>, at_s: u64) -> String {
        let tag = hmac::sign(&self.0, text(who, &at_s.to_string()).as_bytes());
        let tag: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("t={at_s},v1={tag}")
    }

    /// Whether `signature` is one over `who`, made at most [`IDENTITY_SKEW_MAX_S`] before or after `now_s`. In constant
    /// time.
    pub fn verifies(&self, who: &Identity<'_>, signature: &str, now_s: u64) -> bool {
        let parts = signature.strip_prefix("t=").and_then(|rest| rest.split_once(",v1="));
        let Some((at, tag)) = parts else { return false };
        let (Ok(at_s), Some(tag)) = (at.parse::<u64>(), bytes(tag)) else { return false };
        at_s.abs_diff(now_s) <= IDENTITY_SKEW_MAX_S
            && hmac::verify(&self.0, text(who, at).as_bytes(), &tag).is_ok()
    }
}

impl fmt::Debug for IdentitySecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IdentitySecret(…)")
    }
}

/// Six lines. The time as it was written, which is what was signed.
fn text(who: &Identity<'_>, at: &str) -> String {
    ["v1", at, who.server, who.principal, who.scopes, who.claims].join("\n")
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    let pair = |pair: &[u8]| Some((digit(pair.first()?)? << 4 | digit(pair.get(1)?)?) as u8);
    hex.as_bytes().chunks(2).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: Identity<'static> =
        Identity { server: "shop", principal: "iss=a&sub=alice", scopes: "read", claims: "" };

    fn secret() -> IdentitySecret {
        IdentitySecret::new("0123456789abcdef0123456789abcdef")
    }

    /// Made with Python's `hmac`, as docs/auth.md shows it.
    #[test]
    fn agrees_with_other_languages() {
        let signature = "t=1764120000,v1=e77ea074c2e04dfb94e3f1677c0494b6b6408c7cee05b6aa48db989448b90ed3";
        assert_eq!(secret().sign(&ALICE, 1_764_120_000), signature);
    }

    #[test]
    fn is_believed_for_its_caller_its_server_and_its_minute_only() {
        let signature = secret().sign(&ALICE, 1000);
        for now_s in [940, 1000, 1060] {
            assert!(secret().verifies(&ALICE, &signature, now_s), "{now_s}");
        }
        for now_s in [939, 1061, 0] {
            assert!(!secret().verifies(&ALICE, &signature, now_s), "{now_s}");
        }
        let others = [
            Identity { server: "bank", ..ALICE },
            Identity { principal: "iss=a&sub=bob", ..ALICE },
            Identity { scopes: "read write", ..ALICE },
            Identity { claims: "tenant=a", ..ALICE },
        ];
        for other in others {
            assert!(!secret().verifies(&other, &signature, 1000), "{other:?}");
        }
        let later = signature.replace("t=1000", "t=1001");
        for forged in [later.as_str(), "", "t=1000,v1=", "t=1000,v1=0", "t=1000,v1=zz", "v1=00", "t=x,v1=00"]
        {
            assert!(!secret().verifies(&ALICE, forged, 1000), "{forged}");
        }
        let stranger = IdentitySecret::new("another secret of thirty-two bytes");
        assert!(!stranger.verifies(&ALICE, &signature, 1000));
        assert_eq!(format!("{:?}", secret()), "IdentitySecret(…)");
    }
}
