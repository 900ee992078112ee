//! Anything a client may send as a session token or an event id: it opens or it does not, and never panics.
#![no_main]

use libfuzzer_sys::fuzz_target;
use regatta_policy::deviation::Deviation;
use regatta_policy::token::SessionToken;
use regatta_seal::{KeyRing, MasterKey, Purpose};

fuzz_target!(|data: &[u8]| {
    let ring = KeyRing::new(&MasterKey::new([7; 32]));
    if let Ok(text) = std::str::from_utf8(data) {
        for purpose in [Purpose::Session, Purpose::Event, Purpose::ServerRequest, Purpose::Task] {
            assert!(ring.open(purpose, &[b"fleet"], text).is_err(), "nobody sealed this");
        }
    }
    // What is inside a seal is ours, but an older or newer gateway may have written it.
    if let Ok(token) = SessionToken::from_bytes(data) {
        let _ = token.params.unpack();
    }
    let _ = Deviation::from_bytes(data);
});
