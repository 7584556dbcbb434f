//! Tokens and proofs: each rule broken once, and texts that nobody would write.
//!
//! The fuzz targets print their seed; `RYGGRAD_SEED=n` runs it again:
//! `cargo test --release -p ryggrad-bridge-core --test trust -- --nocapture`. Each runs for two seconds,
//! with `RYGGRAD_TEST_FULL=1` for ten minutes.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test may fail loudly, and says what it covered")]

#[path = "../simulation/random.rs"]
mod random;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use random::Random;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use ryggrad_bridge_core::trust::{AccessTokens, Call, Fault, KeySet, Nonces, Proof, ProofRules, PublicUrl, Token, TokenRules, credentials};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const FUZZ: Duration = Duration::from_secs(2);
const FUZZ_FULL: Duration = Duration::from_secs(600);
const NOW_MS: i64 = 1_800_000_000_000;
const ISSUER: &str = "https://sts.example.org";
const AUDIENCE: &str = "nhn:hendelser";
const PARENT: &str = "helseid://claims/client/claims/orgnr_parent";

struct Signer {
    pair: EcdsaKeyPair,
    random: SystemRandom,
}

impl Signer {
    fn new() -> Self {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).unwrap();
        Self { pair, random }
    }

    fn jwk(&self) -> Value {
        let (x, y) = self.pair.public_key().as_ref()[1..].split_at(32);
        json!({"kty": "EC", "crv": "P-256", "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y)})
    }

    fn thumbprint(&self) -> String {
        let jwk = self.jwk();
        URL_SAFE_NO_PAD.encode(Sha256::digest(format!(r#"{{"crv":"P-256","kty":"EC","x":{},"y":{}}}"#, jwk["x"], jwk["y"])))
    }

    fn sign(&self, header: &Value, payload: &str) -> String {
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(payload));
        let signature = self.pair.sign(&self.random, signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// An issuer, a client, and what holds them to the rules.
struct Rig {
    issuer: Signer,
    client: Signer,
    keys: KeySet,
    tokens: TokenRules,
    proofs: ProofRules,
}

impl Rig {
    fn new() -> Self {
        let (issuer, client) = (Signer::new(), Signer::new());
        let mut jwk = issuer.jwk();
        jwk["kid"] = json!("one");
        let keys = KeySet::read(json!({"keys": [jwk]}).to_string().as_bytes()).unwrap();
        let tokens = TokenRules { issuer: ISSUER.to_owned(), audience: AUDIENCE.to_owned(), tokens: AccessTokens::Dpop, leeway_ms: 5_000 };
        let public_url = PublicUrl::read("https://Hendelser.example.org:443/buss/", false).unwrap();
        let proofs = ProofRules { public_url, age_ms: 10_000, leeway_ms: 5_000, nonces: None };
        Self { issuer, client, keys, tokens, proofs }
    }

    fn header(&self) -> Value {
        json!({"alg": "ES256", "typ": "at+jwt", "kid": "one"})
    }

    fn claims(&self) -> Value {
        let now_s = NOW_MS / 1_000;
        json!({
            "iss": ISSUER, "aud": AUDIENCE, "iat": now_s, "nbf": now_s, "exp": now_s + 60, "client_id": "klient",
            "scope": ["nhn:hendelser/subscribe", "nhn:annet/operate"], PARENT: "312345676", "cnf": {"jkt": self.client.thumbprint()},
        })
    }

    fn token(&self) -> String {
        self.issuer.sign(&self.header(), &self.claims().to_string())
    }

    fn check(&self, token: &str, now_ms: i64) -> Result<Token, Fault> {
        self.tokens.check(&self.tokens.read(token)?, &self.keys, now_ms)
    }

    fn proof_header(&self) -> Value {
        json!({"alg": "ES256", "typ": "dpop+jwt", "jwk": self.client.jwk()})
    }

    fn proof_claims(&self, token: &str) -> Value {
        json!({
            "jti": "en", "htm": "POST", "htu": "https://hendelser.example.org/buss/v1/subscriptions", "iat": NOW_MS / 1_000,
            "ath": URL_SAFE_NO_PAD.encode(Sha256::digest(token)),
        })
    }

    fn check_proof(&self, proof: &str, token: &str, now_ms: i64) -> Result<Proof, Fault> {
        let bound_to = self.client.thumbprint();
        self.proofs.check(proof, Call { method: "POST", path: "/v1/subscriptions", token, bound_to: &bound_to }, now_ms)
    }
}

/// A value with one member changed; null takes it away.
fn with(value: &Value, name: &str, changed: Value) -> Value {
    let mut value = value.clone();
    match changed {
        Value::Null => drop(value.as_object_mut().unwrap().remove(name)),
        changed => value[name] = changed,
    }
    value
}

#[test]
fn each_rule_of_a_token_broken_once() {
    let rig = Rig::new();
    let good = rig.check(&rig.token(), NOW_MS).unwrap();
    assert_eq!((good.client.as_str(), good.caller.organisation.to_string().as_str()), ("klient", "312345676"));
    assert_eq!(serde_json::to_value(&good.roles).unwrap(), json!(["subscribe"]));
    assert_eq!((good.child, good.caller.supplier, good.ends_at_ms), (None, None, NOW_MS + 65_000));
    let now_s = NOW_MS / 1_000;
    for (name, value, expected) in [
        ("typ", json!("JWT"), None),
        ("typ", json!("application/AT+jwt"), None),
        ("typ", json!("dpop+jwt"), Some(Fault::TokenType)),
        ("typ", json!(null), Some(Fault::TokenType)),
        ("alg", json!("none"), Some(Fault::TokenAlgorithm)),
        ("alg", json!("HS256"), Some(Fault::TokenAlgorithm)),
        ("alg", json!("es256"), Some(Fault::TokenAlgorithm)),
        ("alg", json!("ES384"), Some(Fault::KeyAlgorithm)),
        ("alg", json!("RS256"), Some(Fault::KeyAlgorithm)),
        ("kid", json!(null), Some(Fault::KeyId)),
        ("kid", json!("two"), Some(Fault::UnknownKey)),
        ("crit", json!(["exp"]), Some(Fault::TokenCritical)),
        ("crit", json!([]), Some(Fault::TokenCritical)),
    ] {
        let token = rig.issuer.sign(&with(&rig.header(), name, value.clone()), &rig.claims().to_string());
        assert_eq!(rig.check(&token, NOW_MS).err(), expected, "{name} {value}");
    }
    let child = "helseid://claims/client/claims/orgnr_child";
    for (name, value, expected) in [
        ("iss", json!("https://sts.example.org/"), Some(Fault::Issuer)),
        ("iss", json!(null), Some(Fault::Issuer)),
        ("aud", json!([AUDIENCE]), None),
        ("aud", json!([AUDIENCE, "nhn:annet"]), Some(Fault::Audience)),
        ("aud", json!([]), Some(Fault::Audience)),
        ("aud", json!("nhn:hendelse"), Some(Fault::Audience)),
        ("aud", json!(null), Some(Fault::Audience)),
        ("exp", json!(now_s - 4), None),
        ("exp", json!(now_s - 5), Some(Fault::Expired)),
        ("exp", json!(null), Some(Fault::Expired)),
        ("exp", json!((now_s + 60).to_string()), Some(Fault::Expired)),
        ("nbf", json!(null), None),
        ("nbf", json!(now_s + 5), None),
        ("nbf", json!(now_s + 6), Some(Fault::NotYetValid)),
        ("nbf", json!("now"), Some(Fault::NotYetValid)),
        ("iat", json!(now_s + 6), Some(Fault::IssuedAt)),
        ("client_id", json!(null), Some(Fault::Client)),
        ("client_id", json!(""), Some(Fault::Client)),
        ("scope", json!("nhn:annet/x nhn:hendelser/audit"), None),
        ("scope", json!("nhn:hendelser/subscriber nhn:hendelse/subscribe subscribe"), Some(Fault::NoRole)),
        ("scope", json!(null), Some(Fault::NoRole)),
        ("scope", json!(7), Some(Fault::ScopeShape)),
        ("scope", json!(["nhn:hendelser/subscribe", 7]), Some(Fault::ScopeShape)),
        (PARENT, json!(null), Some(Fault::Organisation)),
        (PARENT, json!("312345677"), Some(Fault::Organisation)),
        (PARENT, json!("NO:ORGNR:312345676"), Some(Fault::Organisation)),
        (child, json!("1"), Some(Fault::Organisation)),
        (child, json!(""), None),
        ("cnf", json!(null), Some(Fault::Unbound)),
        ("cnf", json!({"x5t#S256": "x"}), Some(Fault::Unbound)),
        ("cnf", json!("x"), Some(Fault::Confirmation)),
        ("cnf", json!({"jkt": "x"}), Some(Fault::Confirmation)),
    ] {
        let token = rig.issuer.sign(&rig.header(), &with(&rig.claims(), name, value.clone()).to_string());
        assert_eq!(rig.check(&token, NOW_MS).err(), expected, "{name} {value}");
    }
    let twice = rig.claims().to_string().replacen('{', r#"{"iss":"https://sts.example.org","#, 1);
    let token = rig.token();
    for (token, expected) in [
        (rig.client.sign(&rig.header(), &rig.claims().to_string()), Fault::TokenSignature),
        (rig.issuer.sign(&rig.header(), &twice), Fault::TokenShape),
        (rig.issuer.sign(&rig.header(), "[]"), Fault::TokenShape),
        (format!("{token}="), Fault::TokenShape),
        (format!("{token}.x"), Fault::TokenShape),
        ("x".repeat(20_000), Fault::TokenSize),
        (String::new(), Fault::TokenShape),
    ] {
        assert_eq!(rig.check(&token, NOW_MS), Err(expected));
    }
    let mut bearer = Rig::new();
    bearer.tokens.tokens = AccessTokens::Bearer;
    assert_eq!(bearer.check(&bearer.token(), NOW_MS), Err(Fault::Bound));
    let free = bearer.issuer.sign(&bearer.header(), &with(&bearer.claims(), "cnf", Value::Null).to_string());
    assert_eq!(bearer.check(&free, NOW_MS).map(|token| token.bound_to), Ok(None));
}

#[test]
fn each_rule_of_a_proof_broken_once() {
    let mut rig = Rig::new();
    let token = rig.token();
    let other = Signer::new();
    let now_s = NOW_MS / 1_000;
    let private = with(&rig.client.jwk(), "d", json!("AQAB"));
    for (name, value, expected) in [
        ("typ", json!("JWT"), Fault::ProofType),
        ("typ", json!(null), Fault::ProofType),
        ("alg", json!("none"), Fault::ProofAlgorithm),
        ("alg", json!("HS256"), Fault::ProofAlgorithm),
        ("alg", json!("ES384"), Fault::ProofAlgorithm),
        ("jwk", json!(null), Fault::ProofKey),
        ("jwk", json!({"kty": "oct"}), Fault::ProofKey),
        ("jwk", private, Fault::ProofKeyPrivate),
        ("jwk", other.jwk(), Fault::ProofBinding),
        ("crit", json!(["x"]), Fault::ProofCritical),
    ] {
        let proof = rig.client.sign(&with(&rig.proof_header(), name, value.clone()), &rig.proof_claims(&token).to_string());
        assert_eq!(rig.check_proof(&proof, &token, NOW_MS), Err(expected), "{name} {value}");
    }
    let own = "https://hendelser.example.org/buss/v1/subscriptions";
    for (name, value, expected) in [
        ("htu", json!(own), None),
        ("htu", json!("HTTPS://HENDELSER.example.org:443/buss/x/../v1/%73ubscriptions?a=b#c"), None),
        ("htu", json!("http://hendelser.example.org/buss/v1/subscriptions"), Some(Fault::ProofAddress)),
        ("htu", json!("https://hendelser.example.org:8443/buss/v1/subscriptions"), Some(Fault::ProofAddress)),
        ("htu", json!("https://hendelser.example.org/buss/v1/subscriptions/"), Some(Fault::ProofAddress)),
        ("htu", json!("https://hendelser.example.org/v1/subscriptions"), Some(Fault::ProofAddress)),
        ("htu", json!("https://x@hendelser.example.org/buss/v1/subscriptions"), Some(Fault::ProofAddress)),
        ("htu", json!("/buss/v1/subscriptions"), Some(Fault::ProofAddress)),
        ("htu", json!(null), Some(Fault::ProofAddress)),
        ("htm", json!("GET"), Some(Fault::ProofMethod)),
        ("htm", json!("post"), Some(Fault::ProofMethod)),
        ("htm", json!(null), Some(Fault::ProofMethod)),
        ("iat", json!(now_s - 15), None),
        ("iat", json!(now_s as f64 + 4.5), None),
        ("iat", json!(now_s - 16), Some(Fault::ProofTime)),
        ("iat", json!(now_s + 6), Some(Fault::ProofTime)),
        ("iat", json!(null), Some(Fault::ProofTime)),
        ("jti", json!(null), Some(Fault::ProofId)),
        ("jti", json!(""), Some(Fault::ProofId)),
        ("jti", json!("x".repeat(257)), Some(Fault::ProofId)),
        ("jti", json!(7), Some(Fault::ProofId)),
        ("ath", json!(null), Some(Fault::ProofToken)),
        ("ath", json!(URL_SAFE_NO_PAD.encode(Sha256::digest("x"))), Some(Fault::ProofToken)),
    ] {
        let proof = rig.client.sign(&rig.proof_header(), &with(&rig.proof_claims(&token), name, value.clone()).to_string());
        assert_eq!(rig.check_proof(&proof, &token, NOW_MS).err(), expected, "{name} {value}");
    }
    let good = rig.client.sign(&rig.proof_header(), &rig.proof_claims(&token).to_string());
    assert_eq!(rig.check_proof(&good, &token, NOW_MS).unwrap().ends_at_ms, NOW_MS + 15_000);
    for (proof, expected) in [
        (other.sign(&rig.proof_header(), &rig.proof_claims(&token).to_string()), Fault::ProofSignature),
        ("x.y".to_owned(), Fault::ProofShape),
        ("x".repeat(10_000), Fault::ProofSize),
    ] {
        assert_eq!(rig.check_proof(&proof, &token, NOW_MS), Err(expected));
    }
    // With nonces: the newest is asked for, and taken.
    let nonces = Nonces::new(&[7; 32]);
    let nonce = nonces.newest(NOW_MS);
    rig.proofs.nonces = Some(nonces);
    assert_eq!(rig.check_proof(&good, &token, NOW_MS), Err(Fault::ProofNonce));
    let proof = rig.client.sign(&rig.proof_header(), &with(&rig.proof_claims(&token), "nonce", json!(nonce)).to_string());
    assert!(rig.check_proof(&proof, &token, NOW_MS).is_ok());
}

#[test]
fn credentials_stand_once_and_in_the_scheme_of_the_deployment() {
    let dpop = AccessTokens::Dpop;
    for (authorization, proofs, tokens, expected) in [
        (&["DPoP a.b.c"][..], &["p"][..], dpop, Ok(Some("p"))),
        (&["dpop  a.b.c"], &["p"], dpop, Ok(Some("p"))),
        (&["Bearer a.b.c"], &["p"], AccessTokens::Bearer, Ok(None)),
        (&[], &["p"], dpop, Err(Fault::NoToken)),
        (&["DPoP a.b.c", "DPoP a.b.c"], &["p"], dpop, Err(Fault::RepeatedHeader)),
        (&["Bearer a.b.c"], &["p"], dpop, Err(Fault::Scheme)),
        (&["DPoP a.b.c"], &["p"], AccessTokens::Bearer, Err(Fault::Scheme)),
        (&["a.b.c"], &["p"], dpop, Err(Fault::Scheme)),
        (&["DPoP a.b.c"], &[], dpop, Err(Fault::NoProof)),
        (&["DPoP a.b.c"], &["p", "p"], dpop, Err(Fault::ProofShape)),
        (&["Bearer ryg_0_1"], &[], dpop, Err(Fault::LocalToken)),
    ] {
        let bytes = |values: &'static [&'static str]| values.iter().map(|value| value.as_bytes());
        let found = credentials(bytes(authorization), bytes(proofs), tokens);
        assert_eq!(found.map(|found| found.proof), expected, "{authorization:?} {proofs:?}");
        assert!(found.is_err() || found.is_ok_and(|found| found.token == "a.b.c"));
    }
}

#[expect(clippy::disallowed_methods, reason = "a seed that was not there before; it is printed")]
fn seeded(test: &str) -> (Random, Instant) {
    let drawn = || u64::from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos());
    let seed = std::env::var("RYGGRAD_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(drawn);
    println!("{test}: RYGGRAD_SEED={seed}");
    let full = std::env::var("RYGGRAD_TEST_FULL").is_ok_and(|value| value == "1");
    (Random::new(seed), Instant::now() + if full { FUZZ_FULL } else { FUZZ })
}

#[expect(clippy::disallowed_methods, reason = "a fuzz target runs for a time")]
fn over(end: Instant) -> bool {
    Instant::now() >= end
}

/// A text with one to four wounds: in its letters, or in what it encodes.
fn wounded(text: &str, random: &mut Random) -> String {
    let mut parts: Vec<Vec<u8>> = text.split('.').map(|part| part.as_bytes().to_vec()).collect();
    for _ in 0..=random.below(4) {
        let part = random.below(parts.len() as u64) as usize;
        let inside = random.chance(60);
        let mut bytes = if inside { URL_SAFE_NO_PAD.decode(&parts[part]).unwrap_or_default() } else { parts[part].clone() };
        let at = random.below(bytes.len() as u64 + 1) as usize;
        match random.below(5) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, random.one_of(b"{}[]\",:.0-9eE\\u\0\xff=")),
            2 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            3 if at < bytes.len() => drop(bytes.remove(at)),
            _ => {
                let again = bytes[at..].to_vec();
                bytes.extend(again);
            }
        }
        parts[part] = if inside { URL_SAFE_NO_PAD.encode(bytes).into_bytes() } else { bytes };
    }
    String::from_utf8_lossy(&parts.join(&b'.')).into_owned()
}

#[test]
fn fuzz_tokens() {
    let (mut random, end) = seeded("fuzz_tokens");
    let rig = Rig::new();
    let good = rig.token();
    let (mut inputs, mut read) = (0_u64, 0_u64);
    while !over(end) {
        let wounded_token = wounded(&good, &mut random);
        // Nothing but the very text that was signed is ever taken, and nothing panics on the way.
        assert!(rig.check(&wounded_token, NOW_MS).is_err() || wounded_token == good, "{wounded_token}");
        // The same claims, signed: the rules have to cope with whatever an issuer may say.
        let claims = wounded(&format!("e30.{}.e30", URL_SAFE_NO_PAD.encode(rig.claims().to_string())), &mut random);
        let claims = claims.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok()).unwrap_or_default();
        let token = rig.issuer.sign(&rig.header(), &String::from_utf8_lossy(&claims));
        read += u64::from(!matches!(rig.check(&token, NOW_MS), Err(Fault::TokenShape)));
        inputs += 2;
    }
    println!("{inputs} tokens, {read} of them read to their claims");
    assert!(inputs > 100 && read > 10);
}

#[test]
fn fuzz_proofs() {
    let (mut random, end) = seeded("fuzz_proofs");
    let rig = Rig::new();
    let token = rig.token();
    let good = rig.client.sign(&rig.proof_header(), &rig.proof_claims(&token).to_string());
    assert!(rig.check_proof(&good, &token, NOW_MS).is_ok());
    let (mut inputs, mut bound) = (0_u64, 0_u64);
    while !over(end) {
        let proof = wounded(&good, &mut random);
        let checked = rig.check_proof(&proof, &token, NOW_MS);
        assert!(checked.is_err() || proof == good, "{proof}");
        bound += u64::from(checked == Err(Fault::ProofSignature));
        inputs += 1;
    }
    println!("{inputs} proofs, {bound} of them read to their signature");
    assert!(inputs > 100 && bound > 10);
}
