//! Keys against signatures and thumbprints that another library made, and the small parts.

use serde_json::Value;

use super::*;
use crate::trust::jwk::InvalidKey;

/// Texts signed by the library jose, with the public keys and their thumbprints.
const VECTORS: &str = include_str!("vectors.json");

#[test]
fn what_another_library_signed_verifies_with_its_own_key_and_algorithm_alone() {
    let vectors: Vec<Value> = serde_json::from_str(VECTORS).unwrap();
    let mut verified = 0;
    for vector in &vectors {
        let (name, jwk) = (vector["alg"].as_str().unwrap(), vector["jwk"].as_object().unwrap());
        let jws = Jws::read(vector["text"].as_str().unwrap()).unwrap();
        let key = Key::read(jwk);
        let Some(own) = Algorithm::named(name) else {
            assert_eq!(key, Err(InvalidKey::Unfit), "{name}: no curve that is taken");
            continue;
        };
        let key = key.unwrap();
        assert_eq!(key.thumbprint(), vector["thumbprint"], "{name}");
        let weak = jws.header_text("kid") == Some("weak");
        for algorithm in Algorithm::ALL {
            assert_eq!(key.signed(algorithm, &jws), algorithm == own && !weak, "{name} as {}", algorithm.name());
            verified += usize::from(key.signed(algorithm, &jws));
        }
        for (member, value, expected) in [
            ("d", "AQAB", Err(InvalidKey::Private)),
            ("k", "AQAB", Err(InvalidKey::Private)),
            ("use", "enc", Err(InvalidKey::Unfit)),
            ("alg", "HS256", Err(InvalidKey::Unfit)),
            ("alg", "RS1", Err(InvalidKey::Unfit)),
            ("x", "AQAB", if jwk.contains_key("x") { Err(InvalidKey::Unfit) } else { Ok(()) }),
            ("kty", "oct", Err(InvalidKey::Unfit)),
            ("use", "sig", Ok(())),
        ] {
            let mut jwk = jwk.clone();
            jwk.insert(member.to_owned(), value.into());
            assert_eq!(Key::read(&jwk).map(|_| ()), expected, "{name} with {member} {value}");
        }
    }
    assert_eq!(verified, Algorithm::ALL.len());
}

#[test]
fn a_key_set_holds_what_can_verify_and_says_when_that_is_nothing() {
    let vectors: Vec<Value> = serde_json::from_str(VECTORS).unwrap();
    let named = |vector: &Value, kid: &str| {
        let mut jwk = vector["jwk"].clone();
        jwk["kid"] = kid.into();
        jwk
    };
    let keys = serde_json::json!({"keys": [
        {"kty": "oct", "kid": "shared", "k": "AQAB"}, 7, vectors[0]["jwk"], named(&vectors[8], "p521"), named(&vectors[6], "good"),
    ]});
    let keys = KeySet::read(keys.to_string().as_bytes()).unwrap();
    assert!(keys.find("good").is_ok());
    for kid in ["shared", "p521", "", "Good"] {
        assert_eq!(keys.find(kid), Err(Fault::UnknownKey), "{kid}");
    }
    for (text, why) in [("", InvalidKeySet::Shape), ("[]", InvalidKeySet::Shape), (r#"{"keys":[]}"#, InvalidKeySet::Empty)] {
        assert_eq!(KeySet::read(text.as_bytes()), Err(why), "{text}");
    }
}

#[test]
fn proofs_are_remembered_until_they_end_and_none_is_forgotten_for_another() {
    let proof = |id: u8, ends_at_ms: i64| Proof { id: [id; 16], ends_at_ms };
    let mut replays = Replays::new(2);
    for (id, ends_at_ms, now_ms, expected, left) in [
        (1, 100, 50, Ok(()), 1),
        (1, 100, 60, Err(Fault::Replayed), 1),
        (2, 200, 60, Ok(()), 2),
        (3, 300, 100, Err(Fault::ReplaysFull), 2),
        (1, 100, 100, Err(Fault::Replayed), 2),
        (3, 300, 101, Ok(()), 2),
        (2, 200, 200, Err(Fault::Replayed), 2),
        (4, 400, 301, Ok(()), 1),
    ] {
        assert_eq!(replays.take(&proof(id, ends_at_ms), now_ms), expected, "{id} at {now_ms}");
        assert_eq!(replays.len(), left, "{id} at {now_ms}");
    }
}

#[test]
fn a_nonce_lives_for_two_stretches_of_time_and_is_of_one_key() {
    let (nonces, others) = (Nonces::new(&[1; 32]), Nonces::new(&[2; 32]));
    let (at_ms, slot_ms) = (1_000 * NONCE_SLOT_S * 10, 1_000 * NONCE_SLOT_S);
    let nonce = nonces.newest(at_ms);
    for (now_ms, expected) in
        [(at_ms - 1, false), (at_ms, true), (at_ms + slot_ms, true), (at_ms + 2 * slot_ms - 1, true), (at_ms + 2 * slot_ms, false)]
    {
        assert_eq!(nonces.takes(&nonce, now_ms), expected, "{now_ms}");
    }
    assert!(!others.takes(&nonce, at_ms) && !nonces.takes("", at_ms));
}

#[test]
fn an_issuer_is_taken_at_its_own_word_only() {
    assert_eq!(Discovery::address("https://sts.example.org"), "https://sts.example.org/.well-known/openid-configuration");
    for (text, expected) in [
        (r#"{"issuer":"https://a.example.org","jwks_uri":"https://a.example.org/jwks"}"#, Ok("https://a.example.org/jwks")),
        (r#"{"issuer":"https://a.example.org/","jwks_uri":"https://a.example.org/jwks"}"#, Err(InvalidDiscovery::OtherIssuer)),
        (r#"{"jwks_uri":"https://a.example.org/jwks"}"#, Err(InvalidDiscovery::OtherIssuer)),
        (r#"{"issuer":"https://a.example.org"}"#, Err(InvalidDiscovery::NoKeys)),
        ("[]", Err(InvalidDiscovery::Shape)),
        ("", Err(InvalidDiscovery::Shape)),
    ] {
        let read = Discovery::read(text.as_bytes(), "https://a.example.org");
        assert_eq!(read.as_ref().map(|read| read.jwks_uri.as_str()).map_err(|why| *why), expected, "{text}");
    }
}

#[test]
fn a_unit_belongs_to_whatever_lies_above_it() {
    let number = |text: &str| text.parse().unwrap();
    let (trust, part, unit, other) = (number("212345679"), number("312345676"), number("310000019"), number("310000027"));
    let mut units = Units::new(2);
    units.set(unit, Some(part)).unwrap();
    units.set(part, Some(trust)).unwrap();
    for (child, parent, expected) in
        [(unit, part, true), (unit, trust, true), (part, trust, true), (trust, trust, false), (trust, unit, false), (other, trust, false)]
    {
        assert_eq!(units.belongs(child, parent), expected, "{child} {parent}");
    }
    // A circle in the register ends all the same.
    assert_eq!(units.set(trust, Some(part)), Err(TooManyUnits(2)));
    assert!(!units.belongs(trust, other));
    units.set(unit, None).unwrap();
    assert!(!units.belongs(unit, part) && units.len() == 2);
}
