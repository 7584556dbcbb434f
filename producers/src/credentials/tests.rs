//! What is signed, held against what the issuers describe; keys, answers and the life of tokens, in tables.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
    UnparsedPublicKey,
};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use tokio::time::Instant;
use url::Url;

use super::cache::{Cache, Step};
use super::claims::{HelseIdClient, MaskinportenClient, Once, Proven};
use super::config::{AuthConfig, IssuerKind};
use super::error::TokenError;
use super::files::certificates;
use super::issuer::{InvalidMetadata, issued, token_endpoint};
use super::key::{Algorithm, SigningKey};
use super::said::TokenSays;

const ISSUER: &str = "https://helseid-sts.test.nhn.no";
/// The key of RFC 7515, appendix A.3.
const JWK: &str = r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
    "y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0","d":"jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI","kid":"en"}"#;

fn once() -> Once {
    Once { now_s: 1_800_000_000, id: "id".to_owned() }
}

#[test]
fn an_assertion_says_whom_the_client_speaks_for_as_helseid_wants_it() {
    let identifier = |system: &str, value: &str| {
        let identifier = json!({"system": system, "type": "ENH", "value": value});
        json!({"type": "helseid_authorization", "practitioner_role": {"organization": {"identifier": identifier}}})
    };
    for (organisation, child, expected) in [
        (None, None, Value::Null),
        (Some("312345676"), None, identifier("urn:oid:1.0.6523", "NO:ORGNR:312345676:")),
        (Some("312345676"), Some("310000019"), identifier("urn:oid:1.0.6523", "NO:ORGNR:312345676:310000019")),
        (None, Some("310000019"), identifier("urn:oid:2.16.578.1.12.4.1.4.101", "310000019")),
    ] {
        let client = HelseIdClient {
            issuer: ISSUER.to_owned(),
            client_id: "klient".to_owned(),
            organisation: organisation.map(|number| number.parse().unwrap()),
            child: child.map(|number| number.parse().unwrap()),
            lifetime_s: 30,
        };
        let mut whole = json!({
            "iss": "klient", "sub": "klient", "aud": ISSUER, "jti": "id", "iat": 1_800_000_000, "nbf": 1_800_000_000, "exp": 1_800_000_030,
        });
        if !expected.is_null() {
            whole["assertion_details"] = expected;
        }
        assert_eq!(client.assertion(&once()), whole);
    }
}

#[test]
fn a_grant_has_no_claim_that_maskinporten_does_not_know() {
    let mut client = MaskinportenClient {
        issuer: "https://test.maskinporten.no/".to_owned(),
        client_id: "klient".to_owned(),
        scope: "a:b c:d".to_owned(),
        organisation: None,
        resource: None,
        lifetime_s: 120,
    };
    let mut whole = json!({
        "aud": "https://test.maskinporten.no/", "iss": "klient", "scope": "a:b c:d", "jti": "id", "iat": 1_800_000_000, "exp": 1_800_000_120,
    });
    assert_eq!(client.grant(&once()), whole);
    client.organisation = Some("310000000".parse().unwrap());
    client.resource = Some("https://api.example.org".to_owned());
    whole["consumer_org"] = json!("310000000");
    whole["resource"] = json!("https://api.example.org");
    assert_eq!(client.grant(&once()), whole);
}

#[test]
fn a_proof_is_about_method_and_address_without_query() {
    let url = Url::parse("https://api.example.org/a/b?c=d#e").unwrap();
    // The digest is that of RFC 9449, section 7.1, over its access token.
    let token = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU";
    for (nonce, token, rest) in [
        (None, None, json!({})),
        (Some("n"), None, json!({"nonce": "n"})),
        (Some("n"), Some(token), json!({"nonce": "n", "ath": "fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo"})),
    ] {
        let mut whole = json!({"jti": "id", "htm": "GET", "htu": "https://api.example.org/a/b", "iat": 1_800_000_000});
        whole.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        assert_eq!(Proven { method: "GET", url: &url, nonce, token }.claims(&once()), whole);
    }
}

fn pem(der: &[u8]) -> String {
    let lines: Vec<String> = STANDARD.encode(der).as_bytes().chunks(64).map(|line| String::from_utf8(line.to_vec()).unwrap()).collect();
    format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", lines.join("\n"))
}

#[test]
fn keys_are_read_in_both_forms_and_sign_and_never_print() {
    let random = SystemRandom::new();
    let made = |curve| pem(EcdsaKeyPair::generate_pkcs8(curve, &random).unwrap().as_ref());
    for (text, expected, verifying) in [
        (JWK.to_owned(), (Algorithm::Es256, Some("en")), &ECDSA_P256_SHA256_FIXED),
        (made(&ECDSA_P256_SHA256_FIXED_SIGNING), (Algorithm::Es256, None), &ECDSA_P256_SHA256_FIXED),
        (made(&ECDSA_P384_SHA384_FIXED_SIGNING), (Algorithm::Es384, None), &ECDSA_P384_SHA384_FIXED),
    ] {
        let key = SigningKey::read(&text, None, Algorithm::Ps256).unwrap();
        assert_eq!((key.algorithm(), key.id()), expected);
        assert_eq!(format!("{key:?}"), "SigningKey(…)");
        let (header, payload) = (json!({"alg": key.algorithm().name()}), json!({"a": 1}));
        let jws = key.sign(&header, &payload).unwrap();
        let (signed, signature) = jws.rsplit_once('.').unwrap();
        let parts: Vec<Value> =
            signed.split('.').map(|part| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()).collect();
        assert_eq!(parts, [header, payload]);
        let jwk = key.public_jwk();
        assert!(jwk.get("d").is_none(), "the private half stays");
        let half = |name: &str| URL_SAFE_NO_PAD.decode(jwk[name].as_str().unwrap()).unwrap();
        let point = [vec![4], half("x"), half("y")].concat();
        UnparsedPublicKey::new(verifying, point).verify(signed.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap()).unwrap();
    }
}

#[test]
fn a_chain_of_certificates_is_sent_as_it_stands() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("chain.pem");
    let section = |der: &[u8]| pem(der).replace("PRIVATE KEY", "CERTIFICATE");
    std::fs::write(&file, format!("{}{}", section(&[1; 90]), section(&[2; 90]))).unwrap();
    assert_eq!(certificates(&file).unwrap(), [STANDARD.encode([1; 90]), STANDARD.encode([2; 90])]);
    for text in [String::new(), "tull".to_owned(), pem(&[1; 90])] {
        std::fs::write(&file, text).unwrap();
        assert!(certificates(&file).is_err());
    }
}

#[test]
fn what_cannot_sign_is_refused_in_words() {
    let changed = |change: fn(&mut Value)| {
        let mut jwk: Value = serde_json::from_str(JWK).unwrap();
        change(&mut jwk);
        jwk.to_string()
    };
    for (text, algorithm, expected) in [
        (String::new(), None, "neither a JWK"),
        ("-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n".to_owned(), None, "neither a JWK"),
        (pem(b"tull"), None, "kind is not taken"),
        ("{".to_owned(), None, "neither a JWK"),
        ("{}".to_owned(), None, "kind is not taken"),
        (changed(|jwk| jwk["crv"] = json!("P-521")), None, "kind is not taken"),
        (changed(|jwk| drop(jwk.as_object_mut().unwrap().remove("d"))), None, "public half"),
        (changed(|jwk| jwk["d"] = json!("?")), None, "member d"),
        (changed(|jwk| drop(jwk.as_object_mut().unwrap().remove("y"))), None, "member y"),
        (changed(|jwk| jwk["x"] = jwk["y"].clone()), None, "no sound key"),
        (changed(|jwk| jwk["alg"] = json!("ES512")), None, "ES512 cannot be used with it; ES256 can"),
        (JWK.to_owned(), Some(Algorithm::Rs256), "RS256 cannot be used with it; ES256 can"),
        (r#"{"kty":"RSA","d":"AQAB","e":"AQAB"}"#.to_owned(), None, "member n"),
    ] {
        let error = SigningKey::read(&text, algorithm, Algorithm::Ps256).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert!(!error.contains("jpsQ"), "no error quotes a key");
    }
}

#[test]
fn an_issuers_document_is_its_own_and_names_a_secure_address() {
    let document = |issuer: &str, endpoint: &str| json!({"issuer": issuer, "token_endpoint": endpoint}).to_string();
    let good = "https://helseid-sts.test.nhn.no/connect/token";
    for (document, expected) in [
        (document(ISSUER, good), Ok(good)),
        (document(ISSUER, "http://127.0.0.1:1/token"), Ok("http://127.0.0.1:1/token")),
        (document(&format!("{ISSUER}/"), good), Err(InvalidMetadata::OtherIssuer)),
        (document(ISSUER, "http://helseid-sts.test.nhn.no/connect/token"), Err(InvalidMetadata::Endpoint)),
        (document(ISSUER, "https://a:b@helseid-sts.test.nhn.no/connect/token"), Err(InvalidMetadata::Endpoint)),
        (document(ISSUER, "/connect/token"), Err(InvalidMetadata::Endpoint)),
        (json!({"issuer": ISSUER}).to_string(), Err(InvalidMetadata::Endpoint)),
        ("[]".to_owned(), Err(InvalidMetadata::Shape)),
    ] {
        assert_eq!(token_endpoint(document.as_bytes(), ISSUER).map(String::from), expected.map(str::to_owned), "{document}");
    }
}

#[test]
fn an_answer_is_a_token_of_the_type_asked_for_or_an_error_that_quotes_nothing() {
    let good = json!({"access_token": "abc", "token_type": "dpop", "expires_in": 60, "scope": "a b"});
    let taken = issued(200, good.to_string().as_bytes(), "DPoP").unwrap();
    assert_eq!((taken.token.expose_secret(), taken.lifetime.as_secs(), taken.scope.as_deref()), ("abc", 60, Some("a b")));
    let long = json!({"access_token": "abc", "token_type": "DPoP", "expires_in": 1_u64 << 60});
    assert_eq!(issued(200, long.to_string().as_bytes(), "DPoP").unwrap().lifetime.as_secs(), 86_400);

    let with = |name: &str, value: Value| {
        let mut answer = good.clone();
        answer[name] = value;
        answer.to_string()
    };
    for (status, body, expected, unreachable) in [
        (200, with("token_type", json!("Bearer")), "another type", false),
        (200, with("access_token", json!("hemme\nlig")), "no access_token", false),
        (200, with("access_token", json!("")), "no access_token", false),
        (200, with("expires_in", json!("60")), "no expires_in", false),
        (200, with("expires_in", json!(0)), "no expires_in", false),
        (200, with("rejected_scope", json!("a")), "rejects the scope a", false),
        (200, "hemmelig".to_owned(), "no JSON object", false),
        (400, json!({"error": "invalid_client", "error_description": "hemmelig"}).to_string(), "(status 400, invalid_client)", false),
        (400, json!({"error": "hemmelig eyJh"}).to_string(), "(status 400, no error code)", false),
        (302, String::new(), "(status 302, no error code)", false),
        (429, "hemmelig".to_owned(), "status 429", true),
        (503, "hemmelig".to_owned(), "status 503", true),
    ] {
        let error = issued(status, body.as_bytes(), "DPoP").unwrap_err();
        assert!(error.to_string().contains(expected) && !error.to_string().contains("hemmelig"), "{error}");
        assert_eq!(error.is_unreachable(), unreachable, "{error}");
        assert!(!error.remedy().is_empty());
    }
}

/// What is to be done, and the number of the token that there is.
fn step(cache: &Cache, now: Instant) -> (&'static str, Option<u64>) {
    match cache.step(now) {
        Step::Use(token) => ("use", Some(token.number)),
        Step::Ask(spare) => ("ask", spare.map(|token| token.number)),
        Step::Wait(_) => ("wait", None),
    }
}

#[test]
fn a_token_is_renewed_in_time_and_a_failing_issuer_is_left_in_peace() {
    let (mut cache, start) = (Cache::default(), Instant::now());
    let at = |s: u64| start + Duration::from_secs(s);
    let s = Duration::from_secs;
    let unavailable = || TokenError::Unavailable { status: 503 };
    let obtained = |cache: &mut Cache, now: u64, lifetime: u64| drop(cache.obtained(at(now), "t".into(), None, s(lifetime), s(10)));

    assert_eq!(step(&cache, at(0)), ("ask", None));
    cache.failed(at(0), unavailable(), |failures| s(failures.into()));
    assert_eq!([step(&cache, at(0)), step(&cache, at(1))], [("wait", None), ("ask", None)]);
    cache.failed(at(1), unavailable(), |failures| s(failures.into()));
    assert_eq!([step(&cache, at(2)), step(&cache, at(3))], [("wait", None), ("ask", None)], "the pause grows");

    obtained(&mut cache, 100, 60);
    assert_eq!([step(&cache, at(149)), step(&cache, at(150)), step(&cache, at(160))], [("use", Some(1)), ("ask", Some(1)), ("ask", None)]);
    // It can't be renewed: it serves to its end, and no longer.
    cache.failed(at(150), unavailable(), |failures| s(u64::from(failures) * 5));
    let seen = [149, 154, 155, 160].map(|now| step(&cache, at(now)));
    assert_eq!(seen, [("use", Some(1)), ("use", Some(1)), ("ask", Some(1)), ("ask", None)], "one success began the count anew");
    cache.failed(at(155), unavailable(), |failures| s(u64::from(failures) * 5));
    assert_eq!([step(&cache, at(159)), step(&cache, at(160)), step(&cache, at(165))], [("use", Some(1)), ("wait", None), ("ask", None)]);

    // A short one is renewed at half its life.
    obtained(&mut cache, 200, 4);
    assert_eq!([step(&cache, at(201)), step(&cache, at(202))], [("use", Some(2)), ("ask", Some(2))]);
}

#[test]
fn a_token_that_an_api_does_not_take_is_given_up_once_and_not_for_ever() {
    let (mut cache, start) = (Cache::default(), Instant::now());
    let at = |s: u64| start + Duration::from_secs(s);
    let obtain =
        |cache: &mut Cache, now: u64| cache.obtained(at(now), "t".into(), None, Duration::from_secs(600), Duration::from_secs(10)).number;
    let first = obtain(&mut cache, 0);
    assert!(cache.not_taken(at(5), first));
    assert_eq!(step(&cache, at(5)), ("ask", None));
    let second = obtain(&mut cache, 5);
    assert!(cache.not_taken(at(6), first), "who still had the first may try the second");
    assert_eq!(step(&cache, at(6)), ("use", Some(second)));
    assert!(!cache.not_taken(at(6), second), "an API that takes nothing does not make the issuer work");
    assert_eq!(step(&cache, at(6)), ("use", Some(second)));
    assert!(cache.not_taken(at(15), second));
}

#[test]
fn what_a_token_says_is_read_and_nothing_about_persons() {
    let token = |claims: Value| format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims.to_string()));
    let texts = |all: &[&str]| all.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let helseid = json!({
        "iss": ISSUER, "aud": "nhn:hendelser", "client_id": "klient", "scope": ["nhn:hendelser/subscribe"], "exp": 1_800_000_600,
        "cnf": {"jkt": "x"}, "helseid://claims/client/claims/orgnr_parent": "312345676", "helseid://claims/client/claims/orgnr_child": "",
        "helseid://claims/identity/pid": "hemmelig", "name": "hemmelig",
    });
    let maskinporten = json!({
        "iss": "https://test.maskinporten.no/", "scope": "a b", "client_id": "klient", "exp": 1_800_000_120,
        "consumer": {"authority": "iso6523-actorid-upis", "ID": "0192:312345676"}, "supplier": {"ID": "0192:310000000"},
    });
    let read = TokenSays::of(&token(helseid), None);
    assert!(!format!("{read:?}").contains("hemmelig"));
    let expected = TokenSays {
        issuer: Some(ISSUER.to_owned()),
        audience: texts(&["nhn:hendelser"]),
        client_id: Some("klient".to_owned()),
        scopes: texts(&["nhn:hendelser/subscribe"]),
        organisation: Some("312345676".to_owned()),
        bound: true,
        expires_at_s: Some(1_800_000_600),
        ..TokenSays::default()
    };
    assert_eq!(read, expected);
    let expected = TokenSays {
        issuer: Some("https://test.maskinporten.no/".to_owned()),
        client_id: Some("klient".to_owned()),
        scopes: texts(&["a", "b"]),
        organisation: Some("312345676".to_owned()),
        supplier: Some("310000000".to_owned()),
        expires_at_s: Some(1_800_000_120),
        ..TokenSays::default()
    };
    assert_eq!(TokenSays::of(&token(maskinporten), Some("ignored")), expected);
    // One that only the API can read.
    assert_eq!(TokenSays::of("opaque", Some("a b")), TokenSays { scopes: texts(&["a", "b"]), ..TokenSays::default() });
}

type Change = fn(&mut AuthConfig);

#[test]
fn every_setting_at_fault_is_named() {
    let good = AuthConfig {
        issuer: ISSUER.to_owned(),
        client_id: "klient".to_owned(),
        key_file: "client.jwk".into(),
        scope: "nhn:hendelser/subscribe nhn:hendelser/publish".to_owned(),
        ..AuthConfig::default()
    };
    let number = || Some("310000019".parse().unwrap());
    assert_eq!(good.faults(), Vec::<String>::new());
    let cases: [(&str, Change); 10] = [
        ("auth.issuer", |auth| auth.issuer = "http://helseid-sts.test.nhn.no".to_owned()),
        ("auth.issuer", |auth| auth.issuer.clear()),
        ("auth.metadata_url", |auth| auth.metadata_url = Some("http://x.example.org/".to_owned())),
        ("auth.client_id", |auth| auth.client_id.clear()),
        ("auth.key_file", |auth| auth.key_file.clear()),
        ("auth.scope", |auth| auth.scope = " ".to_owned()),
        ("auth.scope", |auth| auth.scope = "a\"b".to_owned()),
        ("auth.assertion_lifetime_ms", |auth| auth.assertion_lifetime_ms = 60_001),
        ("auth.resource", |auth| auth.resource = Some("https://api.example.org".to_owned())),
        ("auth.certificate_file", |auth| auth.certificate_file = Some("chain.pem".into())),
    ];
    for (setting, change) in cases {
        let mut auth = good.clone();
        change(&mut auth);
        let faults = auth.faults();
        assert!(faults.len() == 1 && faults[0].starts_with(setting), "{setting}: {faults:?}");
    }
    let maskinporten = AuthConfig { kind: IssuerKind::Maskinporten, assertion_lifetime_ms: 120_001, child: number(), ..good.clone() };
    assert_eq!(maskinporten.faults().len(), 2);
    assert!(AuthConfig::default().faults().len() >= 4, "all at once");

    // Files and the environment write numbers in both ways; wrong ones are refused.
    for (written, expected) in [(json!("312345676"), true), (json!(312_345_676), true), (json!("312345677"), false), (json!("31"), false)] {
        assert_eq!(serde_json::from_value::<AuthConfig>(json!({"organisation": written})).is_ok(), expected, "{written}");
    }
}
