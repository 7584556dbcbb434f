//! What issuers say, to the bridge and to producers; and the key file that a producer signs with.
//!
//! Laws: an issuer is taken at its own word alone; no key with a private part verifies anything; secrets are sent over
//! https, or within this machine; no answer gets into an error, but for the code of a refusal and names of scopes.

use std::time::Duration;

use ryggrad_bridge_core::trust::{Discovery, KeySet};
use ryggrad_producers::credentials::issuer::{issued, token_endpoint};
use ryggrad_producers::credentials::key::SigningKey;
use ryggrad_producers::{Algorithm, TokenError, TokenSays};
use serde_json::Value;

use crate::parts::{choose, json, seed, tells_nothing_of, told};

const ISSUER: &str = "https://sts.example.org";
const PRIVATE: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

pub(crate) fn run(input: &[u8]) -> bool {
    match choose(input, 6) {
        Some((0, document)) => match Discovery::read(document, ISSUER) {
            Ok(found) => {
                let said = json(document).unwrap();
                assert_eq!((said["issuer"].as_str(), said["jwks_uri"].as_str()), (Some(ISSUER), Some(found.jwks_uri.as_str())));
                true
            }
            Err(error) => refused(&error, document),
        },
        Some((1, document)) => match KeySet::read(document) {
            Ok(keys) => {
                key_set(&keys, &json(document).unwrap());
                true
            }
            Err(error) => refused(&error, document),
        },
        Some((2, document)) => match token_endpoint(document, ISSUER) {
            Ok(url) => {
                let loopback =
                    matches!(url.host_str(), Some("localhost" | "[::1]")) || url.host_str().is_some_and(|host| host.starts_with("127."));
                assert!(url.scheme() == "https" || (url.scheme() == "http" && loopback), "secrets would go to {url}");
                assert!(url.username().is_empty() && url.password().is_none());
                true
            }
            Err(error) => refused(&error, document),
        },
        Some((3, answer)) => {
            let Some((status, body)) = answer.split_first() else { return false };
            let status = if *status == b'0' { 200 } else { 400 + u16::from(*status) };
            match issued(status, body, "DPoP") {
                Ok(token) => {
                    assert!(status == 200 && (Duration::from_secs(1)..=Duration::from_secs(86_400)).contains(&token.lifetime));
                    assert!(token.scope.is_none_or(|scope| scope.len() <= 1_024 && !scope.contains(char::is_control)));
                    true
                }
                Err(error @ TokenError::ScopeRejected { .. }) => !told(&error).contains('\n') && told(&error).len() < 4_096,
                Err(error) => refused(&error, body),
            }
        }
        // A token that is not verified, shown to its own client.
        Some((4, token)) => {
            let says = TokenSays::of(&String::from_utf8_lossy(token), Some("a b"));
            says.issuer.is_some()
        }
        Some((_, text)) => {
            let text = String::from_utf8_lossy(text);
            match SigningKey::read(&text, None, Algorithm::Ps256) {
                Ok(key) => {
                    let public = key.public_jwk();
                    assert!(PRIVATE.iter().all(|name| public.get(name).is_none()));
                    assert_eq!(format!("{key:?}"), "SigningKey(…)");
                    true
                }
                Err(error) => {
                    let private = json(text.as_bytes()).and_then(|jwk| jwk.get("d")?.as_str().map(str::to_owned));
                    assert!(private.is_none_or(|private| private.len() < 9 || !told(&error).contains(&private)));
                    false
                }
            }
        }
        None => false,
    }
}

fn refused(error: &dyn std::error::Error, input: &[u8]) -> bool {
    tells_nothing_of(&told(error), input);
    false
}

fn key_set(keys: &KeySet, document: &Value) {
    let all = document["keys"].as_array().unwrap();
    let mut found = 0;
    for kid in all.iter().filter_map(|jwk| jwk.get("kid")?.as_str()) {
        if keys.find(kid).is_ok() {
            found += 1;
            let is_named = |jwk: &&Value| jwk.get("kid").and_then(Value::as_str) == Some(kid);
            let is_public = |jwk: &Value| PRIVATE.iter().all(|name| jwk.get(name).is_none());
            assert!(all.iter().filter(is_named).any(is_public), "the key {kid} is taken, and all of that name have a private part");
        }
    }
    assert!(found > 0, "a set without a key is taken");
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let curve = r#"{"keys":[{"kty":"EC","crv":"P-256","kid":"k","use":"sig","alg":"ES256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"},{"kty":"RSA","kid":"r","n":"AQAB","e":"AQAB"},{"kty":"oct","kid":"o","k":"AQAB"}]}"#;
    // The key of RFC 7515, A.3.
    let private = r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0","d":"jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI"}"#;
    vec![
        seed(0, r#"{"issuer":"https://sts.example.org","jwks_uri":"https://sts.example.org/jwks"}"#),
        seed(1, curve),
        seed(2, r#"{"issuer":"https://sts.example.org","token_endpoint":"https://sts.example.org/token"}"#),
        seed(2, r#"{"issuer":"https://sts.example.org","token_endpoint":"http://127.0.0.1:1/token"}"#),
        seed(3, r#"0{"access_token":"abc","token_type":"dpop","expires_in":600,"scope":"a b"}"#),
        seed(3, r#"0{"access_token":"abc","token_type":"DPoP","expires_in":9999999999,"rejected_scope":""}"#),
        seed(4, "e30.eyJpc3MiOiJpIn0."),
        seed(5, private),
    ]
}
