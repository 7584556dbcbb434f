//! Access tokens and proofs: as they come, with a few bytes altered, and with claims of any kind that are well signed.
//!
//! Laws: nothing that was not signed as it stands is taken; what is taken says everything that the rules ask for, as a
//! second reader sees it; a proof is taken once.

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use ryggrad_bridge_core::trust::{
    AccessTokens, Call, Fault, Jws, KeySet, PROOF_BYTES_MAX, ProofRules, PublicUrl, Replays, TOKEN_BYTES_MAX, TokenRules, credentials,
};
use serde_json::{Map, Value, json};

use crate::parts::{altered, choose, divide, seed};

const NOW_MS: i64 = 1_700_000_000_000;
const ISSUER: &str = "https://sts.example.org";
const AUDIENCE: &str = "no:ryggrad";
const METHOD: &str = "POST";
const PATH: &str = "/v1/subscriptions";

struct Signer {
    pair: EcdsaKeyPair,
    jwk: Value,
    thumbprint: String,
    keys: KeySet,
    rules: TokenRules,
    proofs: ProofRules,
    token: String,
    proof: String,
}

static SIGNER: LazyLock<Signer> = LazyLock::new(|| {
    let random = SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).unwrap();
    let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
    let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
    let members = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
    let jwk: Value = serde_json::from_str(&members).unwrap();
    let mut named = jwk.clone();
    named["kid"] = "k".into();
    let keys = KeySet::read(json!({ "keys": [named] }).to_string().as_bytes()).unwrap();
    let thumbprint = URL_SAFE_NO_PAD.encode(digest(&SHA256, members.as_bytes()));
    let rules = TokenRules { issuer: ISSUER.to_owned(), audience: AUDIENCE.to_owned(), tokens: AccessTokens::Dpop, leeway_ms: 30_000 };
    let public_url = PublicUrl::read("https://api.example.org", false).unwrap();
    let proofs = ProofRules { public_url, age_ms: 60_000, leeway_ms: 30_000, nonces: None };
    let mut signer = Signer { pair, jwk, thumbprint, keys, rules, proofs, token: String::new(), proof: String::new() };
    signer.token = signer.sign(TOKEN_HEADER.as_bytes(), &signer.filled(claims().to_string().as_bytes()));
    signer.proof = signer.sign(&signer.filled(PROOF_HEADER.as_bytes()), &signer.filled(proof_claims().to_string().as_bytes()));
    signer
});

const TOKEN_HEADER: &str = r#"{"alg":"ES256","typ":"at+jwt","kid":"k"}"#;
const PROOF_HEADER: &str = r#"{"alg":"ES256","typ":"dpop+jwt","jwk":"@jwk"}"#;

fn claims() -> Value {
    json!({
        "iss": ISSUER, "aud": AUDIENCE, "exp": NOW_MS / 1_000 + 600, "nbf": NOW_MS / 1_000, "iat": NOW_MS / 1_000, "client_id": "c",
        "scope": format!("{AUDIENCE}/subscribe {AUDIENCE}/operate"), "cnf": {"jkt": "@jkt"},
        "helseid://claims/client/claims/orgnr_parent": "312345676", "helseid://claims/client/claims/orgnr_child": "",
    })
}

fn proof_claims() -> Value {
    let address = format!("https://api.example.org{PATH}");
    json!({"jti": "1", "htm": METHOD, "htu": address, "iat": NOW_MS / 1_000, "ath": "@ath"})
}

impl Signer {
    fn sign(&self, header: &[u8], payload: &[u8]) -> String {
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
        let signature = self.pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// What depends on the key stands in an input as a word of its own.
    fn filled(&self, part: &[u8]) -> Vec<u8> {
        let text = String::from_utf8_lossy(part);
        let ath = URL_SAFE_NO_PAD.encode(digest(&SHA256, self.token.as_bytes()));
        text.replace("\"@jwk\"", &self.jwk.to_string()).replace("@jkt", &self.thumbprint).replace("@ath", &ath).into_bytes()
    }

    fn check(&self, text: &str) -> Result<(), Fault> {
        let jws = self.rules.read(text)?;
        assert!(text.len() <= TOKEN_BYTES_MAX);
        let token = self.rules.check(&jws, &self.keys, NOW_MS)?;
        let said = payload(text);
        assert_eq!(said.get("iss").and_then(Value::as_str), Some(ISSUER));
        let audience = said.get("aud").map(|aud| if aud.is_array() { aud.clone() } else { json!([aud]) });
        assert_eq!(audience, Some(json!([AUDIENCE])));
        let ends_at_s = said.get("exp").and_then(Value::as_f64).unwrap();
        assert!((ends_at_s * 1_000.0) as i64 + 30_000 > NOW_MS && token.ends_at_ms > NOW_MS);
        assert_eq!(said.get("client_id").and_then(Value::as_str), Some(token.client.as_str()));
        assert_eq!(said["cnf"]["jkt"].as_str(), token.bound_to.as_deref());
        assert_eq!(said["helseid://claims/client/claims/orgnr_parent"], token.caller.organisation.to_string());
        let scope = said.get("scope").unwrap().to_string();
        assert!(scope.contains(AUDIENCE), "a role without a scope of this API");
        Ok(())
    }

    fn prove(&self, text: &str) -> Result<(), Fault> {
        let call = Call { method: METHOD, path: PATH, token: &self.token, bound_to: &self.thumbprint };
        let proof = self.proofs.check(text, call, NOW_MS)?;
        assert!(text.len() <= PROOF_BYTES_MAX);
        let said = payload(text);
        assert_eq!((said["htm"].as_str(), said["ath"].as_str().map(str::len)), (Some(METHOD), Some(43)));
        let address = url::Url::parse(said["htu"].as_str().unwrap()).unwrap();
        assert_eq!((address.scheme(), address.host_str(), address.port()), ("https", Some("api.example.org"), None));
        let made_at_ms = (said["iat"].as_f64().unwrap() * 1_000.0) as i64;
        assert!((NOW_MS - made_at_ms).abs() <= 90_000, "{made_at_ms}");
        let mut replays = Replays::new(2);
        assert_eq!(replays.take(&proof, NOW_MS), Ok(()));
        assert_eq!(replays.take(&proof, NOW_MS), Err(Fault::Replayed));
        // For another method, another path, and beside another token or key, the very same proof is nothing.
        for other in [
            Call { method: "GET", ..call },
            Call { path: "/v1/tokens", ..call },
            Call { token: "another", ..call },
            Call { bound_to: "another", ..call },
        ] {
            assert!(self.proofs.check(text, other, NOW_MS).is_err());
        }
        Ok(())
    }
}

/// What a text says, as another reader sees it.
fn payload(text: &str) -> Map<String, Value> {
    let part = text.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

pub(crate) fn token(input: &[u8]) -> bool {
    let signer = &*SIGNER;
    match choose(input, 4) {
        // As it stands: nobody has signed it.
        Some((0, text)) => {
            let text = String::from_utf8_lossy(text);
            assert!(signer.check(&text).is_err() || text == signer.token, "a token is taken that nobody signed");
            Jws::read(&text).is_some()
        }
        // A good one, altered.
        Some((1, changes)) => {
            let text = altered(signer.token.as_bytes(), changes);
            let taken = signer.check(&String::from_utf8_lossy(&text)).is_ok();
            assert_eq!(taken, text == signer.token.as_bytes(), "an altered token is taken, or a good one is not");
            taken
        }
        // Any claims, well signed.
        Some((2, parts)) => {
            let Some((header, payload)) = divide(parts) else { return false };
            let text = signer.sign(header, &signer.filled(payload));
            signer.check(&text).is_ok()
        }
        // The headers that carry one.
        Some((_, headers)) => {
            let Some((authorization, dpop)) = divide(headers) else { return false };
            let one = [authorization];
            for tokens in [AccessTokens::Dpop, AccessTokens::Bearer] {
                assert!(credentials([authorization, authorization].into_iter(), [dpop].into_iter(), tokens).is_err());
                if let Ok(found) = credentials(one.into_iter(), [dpop].into_iter(), tokens) {
                    assert!(!found.token.starts_with(' ') && !found.token.ends_with(' '));
                    assert_eq!(found.proof.is_some(), tokens == AccessTokens::Dpop);
                    assert!(authorization.to_ascii_lowercase().starts_with(tokens.scheme().to_ascii_lowercase().as_bytes()));
                }
            }
            credentials(one.into_iter(), [dpop].into_iter(), AccessTokens::Dpop).is_ok()
        }
        None => false,
    }
}

pub(crate) fn token_seeds() -> Vec<Vec<u8>> {
    let claims = claims().to_string();
    let listed = claims.replace("\"no:ryggrad/subscribe no:ryggrad/operate\"", "[\"no:ryggrad/subscribe\"]");
    vec![
        seed(0, SIGNER_LIKE),
        seed(1, []),
        seed(2, format!("{TOKEN_HEADER}\0{claims}")),
        seed(2, format!("{TOKEN_HEADER}\0{listed}")),
        seed(3, format!("DPoP  {SIGNER_LIKE}\0{SIGNER_LIKE}")),
    ]
}

/// Three parts, of which the first two are `{}`.
const SIGNER_LIKE: &str = "eyJraWQiOiJrIn0.e30.AAAA";

pub(crate) fn proof(input: &[u8]) -> bool {
    let signer = &*SIGNER;
    match choose(input, 3) {
        Some((0, text)) => {
            let text = String::from_utf8_lossy(text);
            assert!(signer.prove(&text).is_err() || text == signer.proof, "a proof is taken that nobody signed");
            Jws::read(&text).is_some()
        }
        Some((1, changes)) => {
            let text = altered(signer.proof.as_bytes(), changes);
            let taken = signer.prove(&String::from_utf8_lossy(&text)).is_ok();
            assert_eq!(taken, text == signer.proof.as_bytes(), "an altered proof is taken, or a good one is not");
            taken
        }
        Some((_, parts)) => {
            let Some((header, payload)) = divide(parts) else { return false };
            let text = signer.sign(&signer.filled(header), &signer.filled(payload));
            signer.prove(&text).is_ok()
        }
        None => false,
    }
}

pub(crate) fn proof_seeds() -> Vec<Vec<u8>> {
    let claims = proof_claims().to_string();
    let spelt_otherwise = claims.replace("api.example.org/v1", "API.example.org:443/%76%31").replace("subscriptions", "subscriptions?x#y");
    vec![
        seed(0, SIGNER_LIKE),
        seed(1, []),
        seed(2, format!("{PROOF_HEADER}\0{claims}")),
        seed(2, format!("{PROOF_HEADER}\0{spelt_otherwise}")),
    ]
}
