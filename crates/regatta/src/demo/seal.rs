//! The seal of `requestState`: an HMAC under a key that only this process has.
//!
//! So a retry at another replica fails, as it does with the servers in use (RELIABILITY 3.9). The text is
//! `base64url(expiry ∥ tag)`; the tag covers tool and question, so that it fits one request only (M-MRTR, server 5).

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::time::{SystemTime, UNIX_EPOCH};

const LIFETIME_S: u64 = 600;

/// The key of this process.
pub struct Seal(hmac::Key);

impl Seal {
    pub fn random() -> Self {
        Seal(hmac::Key::new(hmac::HMAC_SHA256, &random::<32>()))
    }

    /// A `requestState` for `tool` asked with `question`.
    pub fn close(&self, tool: &str, question: &str) -> String {
        let expiry = (now_s() + LIFETIME_S).to_be_bytes();
        let tag = hmac::sign(&self.0, &covered(expiry, tool, question));
        URL_SAFE_NO_PAD.encode([&expiry, tag.as_ref()].concat())
    }

    /// Whether this process made `state` for this request, not too long ago.
    pub fn fits(&self, state: &str, tool: &str, question: &str) -> bool {
        let Ok(bytes) = URL_SAFE_NO_PAD.decode(state) else { return false };
        let Some((expiry, tag)) = bytes.split_first_chunk::<8>() else { return false };
        hmac::verify(&self.0, &covered(*expiry, tool, question), tag).is_ok()
            && now_s() <= u64::from_be_bytes(*expiry)
    }
}

fn covered(expiry: [u8; 8], tool: &str, question: &str) -> Vec<u8> {
    [&expiry, &(tool.len() as u64).to_be_bytes()[..], tool.as_bytes(), question.as_bytes()].concat()
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Random bytes of the system.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).expect("the system has a random source");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fits_only_its_own_request_and_process() {
        let (seal, other) = (Seal::random(), Seal::random());
        let state = seal.close("ask", "why?");
        assert!(seal.fits(&state, "ask", "why?"));
        assert!(!seal.fits(&state, "ask", "how?"));
        assert!(!other.fits(&state, "ask", "why?"));
        assert!(!seal.fits("", "ask", "why?"));
    }
}
