//! What a ring seals opens, only there, only as it was, and also after rotations and upgrades.
//!
//! Pinned texts stand for releases that are out: when one of them fails, sessions would end at an upgrade.

//! What the ring promises: one purpose never opens for another, rotation keeps old texts, broken texts stay shut.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

const PURPOSES: [Purpose; 8] = [
    Purpose::Session,
    Purpose::Event,
    Purpose::ServerRequest,
    Purpose::RequestState,
    Purpose::Task,
    Purpose::Cursor,
    Purpose::Letter,
    Purpose::Result,
];

fn key(byte: u8) -> MasterKey {
    MasterKey::new([byte; 32])
}

fn ring() -> KeyRing {
    KeyRing::new(&key(1))
}

#[test]
fn opens_what_it_sealed() {
    let ring = ring();
    for purpose in PURPOSES {
        for plain in [&b""[..], b"x", &[7; 3000]] {
            let text = ring.seal(purpose, &[b"alice"], plain);
            assert_eq!(ring.open(purpose, &[b"alice"], &text).unwrap().plain, plain);
            let text = ring.seal_same(purpose, &[b"alice"], plain, None);
            assert_eq!(ring.open(purpose, &[b"alice"], &text).unwrap().plain, plain);
            let bytes = ring.seal_bytes(purpose, &[b"alice"], plain);
            assert_eq!(bytes.len(), plain.len() + 33);
            assert_eq!(ring.open_bytes(purpose, &[b"alice"], bytes).unwrap().plain, plain);
        }
    }
}

#[test]
fn a_seal_for_one_purpose_is_broken_for_every_other() {
    let ring = ring();
    for made in PURPOSES {
        for asked in PURPOSES.into_iter().filter(|asked| *asked != made) {
            let random = ring.seal(made, &[b"alice"], b"content");
            let same = ring.seal_same(made, &[b"alice"], b"content", None);
            assert_eq!(ring.open(asked, &[b"alice"], &random), Err(OpenError::Broken));
            assert_eq!(ring.open(asked, &[b"alice"], &same), Err(OpenError::Broken));
        }
    }
}

#[test]
fn other_associated_parts_break_a_seal() {
    let ring = ring();
    for text in [
        ring.seal(Purpose::Session, &[b"ab", b"c"], b"x"),
        ring.seal_same(Purpose::Session, &[b"ab", b"c"], b"x", None),
    ] {
        for parts in [&[&b"a"[..], b"bc"][..], &[b"abc"], &[], &[b"ab", b"c", b""], &[&[0; 400]]] {
            assert_eq!(ring.open(Purpose::Session, parts, &text), Err(OpenError::Broken));
        }
    }
}

#[test]
fn associated_parts_may_be_long() {
    let (ring, long) = (ring(), [5; 10_000]);
    let text = ring.seal(Purpose::Cursor, &[b"a", &long], b"x");
    assert_eq!(ring.open(Purpose::Cursor, &[b"a", &long], &text).unwrap().plain, b"x");
}

#[test]
fn a_text_has_room_for_what_it_promises_and_not_for_a_byte_more() {
    let ring = ring();
    for text_max in [60, 512, 513, 514, 515, 4096] {
        let length = |plain: usize| ring.seal(Purpose::Session, &[], &vec![0; plain]).len();
        assert!(length(plain_max(text_max)) <= text_max && length(plain_max(text_max) + 1) > text_max);
    }
    assert_eq!(plain_max(10), 0);
}

/// Not a check but a measurement: `cargo test --release -p regatta-seal -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement; only in a release build is it worth anything"]
fn how_long_sealing_and_opening_take() {
    let ring = ring();
    let (parts, plain): (&[&[u8]], _) = (&[&[3; 16]], [9; 120]);
    let text = ring.seal(Purpose::Session, parts, &plain);
    let same = ring.seal_same(Purpose::Session, parts, &plain, None);
    let measure = |what: &str, run: &dyn Fn() -> usize| {
        let (start, rounds) = (std::time::Instant::now(), 200_000);
        let sum: usize = (0..rounds).map(|_| std::hint::black_box(run())).sum();
        println!("{what}: {} ns ({sum})", start.elapsed().as_nanos() / rounds as u128);
    };
    for _ in 0..2 {
        measure("seal", &|| ring.seal(Purpose::Session, parts, &plain).len());
        measure("open", &|| ring.open(Purpose::Session, parts, &text).map_or(0, |opened| opened.plain.len()));
        measure("seal_same", &|| ring.seal_same(Purpose::Session, parts, &plain, None).len());
        measure("open same", &|| {
            ring.open(Purpose::Session, parts, &same).map_or(0, |opened| opened.plain.len())
        });
        measure("digest16", &|| usize::from(crate::digest16(&[&plain])[0]));
        measure("random_u64", &|| crate::random_u64() as usize & 1);
    }
}

#[test]
fn any_changed_byte_breaks_a_seal() {
    let ring = ring();
    for text in [
        ring.seal(Purpose::Session, &[b"alice"], &[9; 100]),
        ring.seal_same(Purpose::Session, &[b"alice"], &[9; 100], None),
    ] {
        let sound = text::ENGINE.decode(&text).unwrap();
        for at in 0..sound.len() {
            for bit in 0..8 {
                let mut changed = sound.clone();
                changed[at] ^= 1 << bit;
                let answer = ring.open(Purpose::Session, &[b"alice"], &text::ENGINE.encode(&changed));
                match (1..5).contains(&at) {
                    true => assert!(matches!(answer, Err(OpenError::UnknownKey(_))), "byte {at}"),
                    false => assert_eq!(answer, Err(OpenError::Broken), "byte {at}"),
                }
            }
        }
        for length in 0..text.len() {
            assert!(ring.open(Purpose::Session, &[b"alice"], &text[..length]).is_err());
        }
    }
}

#[test]
fn only_the_canonical_spelling_opens() {
    let ring = ring();
    // 33 + 1 bytes: the last character carries four spare bits.
    let text = ring.seal(Purpose::Session, &[], b"x");
    let last = text.chars().last().unwrap();
    let spellings = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let stem = &text[..text.len() - 1];
    for other in spellings.chars().filter(|other| *other != last) {
        assert!(ring.open(Purpose::Session, &[], &format!("{stem}{other}")).is_err());
    }
    for spelling in [format!("{text}="), format!("{text}=="), format!(" {text}"), format!("{text}\n")] {
        assert_eq!(ring.open(Purpose::Session, &[], &spelling), Err(OpenError::Broken));
    }
}

#[test]
fn broken_texts_all_get_the_same_answer() {
    let ring = ring();
    for text in ["", "A", "AA", "AAAA", "é", "AQ", "////", "\0", &"A".repeat(5000)] {
        assert_eq!(ring.open(Purpose::Session, &[], text), Err(OpenError::Broken), "{text:.20}");
    }
}

#[test]
fn deterministic_seals_repeat_and_random_ones_do_not() {
    let ring = ring();
    let same = |parts: &[&[u8]], plain: &[u8]| ring.seal_same(Purpose::Task, parts, plain, None);
    assert_eq!(same(&[b"a"], b"1"), same(&[b"a"], b"1"));
    assert_ne!(same(&[b"a"], b"1"), same(&[b"b"], b"1"));
    assert_ne!(same(&[b"a"], b"1"), same(&[b"a"], b"2"));
    let random: HashSet<String> = (0..1000).map(|_| ring.seal(Purpose::Task, &[b"a"], b"1")).collect();
    assert_eq!(random.len(), 1000);
}

#[test]
fn a_rotation_keeps_what_was_sealed_before() {
    let before = ring();
    let old = before.seal(Purpose::Session, &[], b"old");
    let added = before.add(&key(2));
    assert_eq!(added.current(), before.current(), "an added key opens and does not seal yet");
    let after = added.rotate(key(2).fingerprint()).unwrap();
    let new = after.seal(Purpose::Session, &[], b"new");
    assert_eq!(after.open(Purpose::Session, &[], &old).unwrap().key, key(1).fingerprint());
    assert_eq!(after.open(Purpose::Session, &[], &new).unwrap().key, key(2).fingerprint());
    assert_eq!(added.open(Purpose::Session, &[], &new).unwrap().plain, b"new");
    assert_eq!(
        before.open(Purpose::Session, &[], &new),
        Err(OpenError::UnknownKey(key(2).fingerprint())),
        "a gateway that has not learned the key can tell that from a broken seal"
    );
    assert!(before.rotate(key(2).fingerprint()).is_none());
    let gone = after.without(key(1).fingerprint());
    assert_eq!(gone.open(Purpose::Session, &[], &old), Err(OpenError::UnknownKey(key(1).fingerprint())));
    assert!(gone.without(gone.current()).knows(gone.current()), "what seals is never forgotten");
}

#[test]
fn a_handle_stays_equal_over_a_rotation() {
    let before = ring();
    let handle = before.seal_same(Purpose::Task, &[b"alice"], b"task-1", None);
    let after = before.add(&key(2)).rotate(key(2).fingerprint()).unwrap();
    let opened = after.open(Purpose::Task, &[b"alice"], &handle).unwrap();
    assert_eq!(after.seal_same(Purpose::Task, &[b"alice"], &opened.plain, Some(opened.key)), handle);
}

#[test]
fn a_full_ring_drops_its_oldest_key_and_never_the_one_that_seals() {
    let mut ring = ring();
    for byte in 2..=u8::try_from(KEYS_MAX + 3).unwrap() {
        ring = ring.add(&key(byte));
        ring = ring.add(&key(byte));
    }
    assert_eq!(ring.fingerprints().count(), KEYS_MAX);
    assert!(ring.knows(key(1).fingerprint()));
    assert!(!ring.knows(key(2).fingerprint()));
    assert!(ring.knows(key(5).fingerprint()));
}

#[test]
fn no_key_and_no_content_shows_in_debug_output() {
    let ring = ring().add(&key(2));
    let text = ring.seal(Purpose::Session, &[], b"secret");
    let shown = format!("{ring:?} {:?}", ring.open(Purpose::Session, &[], &text).unwrap());
    assert!(!shown.contains("secret") && !shown.contains("[1, 1") && !shown.contains("0101"), "{shown}");
}

/// Pinned texts: an upgrade that reads them differently would end every session.
#[test]
fn seals_of_the_first_release_still_open() {
    let same = ring().seal_same(Purpose::Task, &[b"alice"], b"task-1", None);
    assert_eq!(same, "AlFteeI_smlwjvmBDN_8-S_XELYekTpJRjdZ");
}

proptest! {
    #[test]
    fn any_content_comes_back(plain: Vec<u8>, parts: Vec<Vec<u8>>) {
        let ring = ring();
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        let text = ring.seal(Purpose::Event, &parts, &plain);
        prop_assert_eq!(ring.open(Purpose::Event, &parts, &text).unwrap().plain, plain);
    }

    #[test]
    fn any_text_is_opened_or_refused(text: String) {
        prop_assert!(ring().open(Purpose::Event, &[], &text).is_err());
    }
}
