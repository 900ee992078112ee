//! Tokens come back as they were, stay short, shrink in the promised order, and never make a reader panic.
//!
//! Lengths are counted as `regatta-seal` writes them; this crate does not import it.

//! What a token promises: sizes, bounds, and that whatever is read back was written.

use super::params::pack;
use super::*;

/// Written as VS Code does: 582 bytes.
const EDITOR: &str = concat!(
    r#"{"protocolVersion":"2025-11-25","capabilities":{"roots":{"listChanged":true},"sampling":{},"#,
    r#""elicitation":{"form":{},"url":{}},"tasks":{"list":{},"cancel":{},"requests":{"sampling":{"createMessage":{}},"#,
    r#""elicitation":{"create":{}}}},"extensions":{"io.modelcontextprotocol/ui":{"mimeTypes":["text/html;profile=mcp-app"]}}},"#,
    r#""clientInfo":{"name":"Visual Studio Code","title":"VS Code workstation","version":"1.114.3","#,
    r#""description":"An editor","websiteUrl":"https://code.visualstudio.com/docs","#,
    r#""icons":[{"src":"https://code.visualstudio.com/assets/icon-128.png","mimeType":"image/png"}]}}"#,
);

fn token(params: &[u8]) -> SessionToken {
    SessionToken {
        uuid: [0x5a; 16],
        fleet: *b"fleet-01",
        version: LegacyVersion::V2025_11_25,
        capabilities: Capabilities(0b1_1111_1111),
        issued_s: 1_800_000_000,
        bindings: vec![Binding {
            replica: ReplicaId::of("shop", "http://127.0.0.1:3001/mcp"),
            upstream_session: Some("0f8fad5b-d9cb-469f-a165-70867728950e".to_owned()),
        }],
        params: PackedParams::fit(params, usize::MAX).unwrap().0,
    }
}

/// Characters of base64url over content, format, fingerprint, nonce and tag (`regatta-seal`).
fn sealed_len(content: &[u8]) -> usize {
    ((content.len() + 33) * 8).div_ceil(6)
}

#[test]
fn comes_back_as_it_was() {
    let mut token = token(EDITOR.as_bytes());
    for session in [
        None,
        Some(""),
        Some("0f8fad5b-d9cb-469f-a165-70867728950e"),
        Some("0f8fad5bd9cb469fa16570867728950e"),
        Some("0F8FAD5B-D9CB-469F-A165-70867728950E"),
        Some("0f8fad5b-d9cb-469f-a165-70867728950-"),
        Some("0-8fad5bd9cb469fa16570867728950e1234"),
        Some("plain-text/with~anything"),
        Some("éééééééééééééééé"),
    ] {
        token.bindings[0].upstream_session = session.map(str::to_owned);
        let read = SessionToken::from_bytes(&token.to_bytes()).unwrap();
        assert_eq!(read, token);
        assert_eq!(read.params.unpack().unwrap(), EDITOR.as_bytes());
    }
    token.bindings = vec![token.bindings[0].clone(); 40];
    assert_eq!(SessionToken::from_bytes(&token.to_bytes()), Ok(token.clone()));
    token.bindings.clear();
    assert_eq!(SessionToken::from_bytes(&token.to_bytes()), Ok(token));
}

#[test]
fn an_editor_gets_a_token_of_at_most_300_characters() {
    assert_eq!(EDITOR.len(), 582);
    let token = token(EDITOR.as_bytes());
    let length = sealed_len(&token.to_bytes());
    println!("params {} bytes packed, token {length} characters", token.params.as_bytes().len());
    assert!(length <= 300, "{length}");
}

#[test]
fn ordinary_clients_get_tokens_of_at_most_512_characters() {
    for params in [
        r#"{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"mcp","version":"0.1.0"}}"#,
        r#"{"protocolVersion":"2025-06-18","capabilities":{"roots":{}},"clientInfo":{"name":"claude-code","version":"2.1.3"}}"#,
        r#"{"protocolVersion":"2025-11-25","capabilities":{"elicitation":{"form":{}}},"clientInfo":{"name":"cursor-vscode","version":"1.0.0"}}"#,
        r#"{"protocolVersion":"2025-11-25","capabilities":{"sampling":{},"roots":{"listChanged":true}},"clientInfo":{"name":"inspector-client","version":"0.18.0"}}"#,
        r#"{"capabilities":{},"clientInfo":{"name":"a client nobody has heard of","version":"v9.9-beta+build.77","title":"Unheard of"},"protocolVersion":"2025-03-26","_meta":{"com.example/trace":"kQ8s7dBz1nEe"}}"#,
    ] {
        let length = sealed_len(&token(params.as_bytes()).to_bytes());
        println!("{} bytes of params, token {length} characters", params.len());
        assert!(length <= 512, "{length}");
    }
}

#[test]
fn leaves_out_icons_then_the_description_then_the_site_and_only_as_needed() {
    // Digits that do not compress stand for long values.
    let noise = |salt: u64, length: u64| -> String {
        (0..length).map(|at| char::from(b'a' + (crate::ids::mix(at + salt * 1_000_000) % 26) as u8)).collect()
    };
    let params = format!(
        r#"{{"protocolVersion":"2025-11-25","capabilities":{{"roots":{{"listChanged" : true}}}},"clientInfo":{{"name":"x","icons":[{{"src":"{}"}}],"description":"{}","websiteUrl":"{}","version":"1"}}}}"#,
        noise(1, 3000),
        noise(2, 3000),
        noise(3, 3000),
    );
    for (room, expected, gone) in [
        (9000, Shrunk::Whole, &[][..]),
        (4500, Shrunk::Icons, &["icons"]),
        (2500, Shrunk::Description, &["icons", "description"]),
        (300, Shrunk::WebsiteUrl, &["icons", "description", "websiteUrl"]),
    ] {
        let (packed, shrunk) = PackedParams::fit(params.as_bytes(), room).unwrap();
        assert_eq!(shrunk, expected);
        assert!(packed.as_bytes().len() <= room);
        let text = String::from_utf8(packed.unpack().unwrap()).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        for member in ["icons", "description", "websiteUrl"] {
            assert_eq!(
                value["clientInfo"].get(member).is_none(),
                gone.contains(&member),
                "{member} at {room}"
            );
        }
        assert_eq!(value["clientInfo"]["name"], "x");
        assert!(text.contains(r#"{"listChanged" : true}"#), "other values keep their spelling");
    }
    assert_eq!(PackedParams::fit(params.as_bytes(), 10), Err(ParamsTooLarge));
}

#[test]
fn what_never_fits_is_refused() {
    let long = format!(r#"{{"clientInfo":{{"name":"{}"}}}}"#, "n".repeat(INFLATED_MAX));
    assert_eq!(PackedParams::fit(long.as_bytes(), usize::MAX), Err(ParamsTooLarge));
    let exact = format!(r#"{{"a":"{}"}}"#, "n".repeat(INFLATED_MAX - 8));
    let (packed, _) = PackedParams::fit(exact.as_bytes(), usize::MAX).unwrap();
    assert_eq!(packed.unpack().unwrap(), exact.as_bytes());
}

#[test]
fn params_that_fit_the_room_fit_the_token() {
    let plain_max = 4096 * 3 / 4 - 33;
    let mut token = token(b"{}");
    token.bindings[0].upstream_session = Some("s".repeat(UPSTREAM_SESSION_ROOM));
    token.params = PackedParams(vec![0; SessionToken::params_room(plain_max)]);
    let length = token.to_bytes().len();
    assert!((plain_max - 16..=plain_max).contains(&length), "{length} of {plain_max}");
}

#[test]
fn inflating_is_bounded() {
    let bomb = PackedParams(pack(&vec![b' '; 10 << 20]));
    assert!(bomb.as_bytes().len() < 16 << 10);
    assert_eq!(bomb.unpack(), Err(ParamsBroken));
}

#[test]
fn fields_of_a_newer_gateway_are_skipped() {
    let token = token(EDITOR.as_bytes());
    let mut bytes = token.to_bytes();
    bytes.extend_from_slice(b"a field of a later version");
    assert_eq!(SessionToken::from_bytes(&bytes), Ok(token.clone()));

    let mut writer = Writer::default();
    writer.nested(|writer| {
        write_binding(writer, &token.bindings[0]);
        writer.bytes(b"an etag, perhaps");
    });
    let bytes = writer.finish();
    let inner = Reader(&bytes).bytes().unwrap();
    assert_eq!(read_binding(&mut Reader(inner)).as_ref(), Some(&token.bindings[0]));
}

#[test]
fn another_layout_is_told_apart() {
    let mut bytes = token(b"{}").to_bytes();
    bytes[0] = 2;
    assert_eq!(SessionToken::from_bytes(&bytes), Err(UnknownLayout));
    assert_eq!(SessionToken::from_bytes(&[]), Err(UnknownLayout));
}

/// A changed dictionary makes every live token's params unreadable: give the change a new format byte.
#[test]
fn the_dictionary_belongs_to_the_format_byte() {
    let sum = crate::ids::stable_hash(&[dictionary::DICTIONARY]);
    assert_eq!(format!("{} {sum:016x}", dictionary::DICTIONARY.len()), "3135 7f0d72f09be50fdf");
}

#[test]
fn no_bytes_make_it_panic() {
    let sound = token(EDITOR.as_bytes()).to_bytes();
    for length in 0..sound.len() {
        assert_eq!(SessionToken::from_bytes(&sound[..length]), Err(UnknownLayout), "cut at {length}");
    }
    let mut dice = 1u64;
    let mut roll = move || {
        dice = crate::ids::mix(dice.wrapping_add(0x9e37_79b9_7f4a_7c15));
        dice as usize
    };
    for _ in 0..20_000 {
        let mut bytes = sound.clone();
        for _ in 0..=roll() % 4 {
            let at = roll() % bytes.len();
            bytes[at] = roll() as u8;
        }
        bytes.truncate(bytes.len() - roll() % 3);
        if let Ok(token) = SessionToken::from_bytes(&bytes) {
            assert_eq!(SessionToken::from_bytes(&token.to_bytes()).as_ref(), Ok(&token));
            // Whatever comes out is bounded.
            assert!(token.params.unpack().map_or(0, |text| text.len()) <= INFLATED_MAX + 1);
        }
    }
}
